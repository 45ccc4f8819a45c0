"""Inputs of `ingest` told apart: by the suffix of a file, by what is in a folder, or by type."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.columns import Column
from ...core.protocols import Advance
from ...errors import DataError, UsageError
from ...storage.stored_files import StoredFile, find_files, is_pattern
from ...storage.urls import check_url, describe_url, is_url, local_path
from ..arrow.files import ARROW, PARQUET
from ..columns import choose
from ..open import as_source
from ..options import ReadOptions
from ..zarr.opening import open_node
from .rows import Rows

if TYPE_CHECKING:
    from .arrays import ArrayInput
    from .options import CsvOptions
    from .parts import TablePart

CSV = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
FCS = (".fcs", ".FCS")
HDF5 = (".h5", ".hdf5", ".he5", ".nc4")
NPY = (".npy",)
TABLES = (*CSV, *PARQUET, *ARROW, *FCS)

ZARR_DOCUMENTS = ("zarr.json", ".zarray", ".zgroup")


@dataclass(frozen=True)
class Choice:
    """Choose columns by their names, or by patterns of names as a shell has them.

    Attributes
    ----------
    options : ReadOptions

    Examples
    --------
    >>> Choice(ReadOptions.of(columns="a*", exclude="ab"))(["a", "ab", "ac", "b"])
    ['a', 'ac']
    """

    options: ReadOptions

    def __call__(self, names: Sequence[str]) -> list[str]:
        """Return the names that are kept, in the order of the choice.

        Raises
        ------
        DataError
            A name or pattern is of no column, or nothing is left.
        """
        return list(
            choose([Column(name) for name in names], self.options, name="the sources").names
        )


def open_rows(
    sources: Sequence[Any],
    csv: CsvOptions,
    choice: Choice,
    dtype: str | None,
    advance: Advance | None = None,
) -> Rows:
    """Open inputs as rows, one after the other: tables by their columns' names, or arrays.

    Raises
    ------
    DataError
        One cannot be read, is of a kind that is not known, or does not go with the others.
    """
    inputs = [found for source in sources for found in _expanded(source)]
    tables = [_is_table(found) for found in inputs]
    if all(tables):
        _check_pyarrow(_name(inputs[0]))
        from .tables import TableRows

        return TableRows(_parts(inputs, csv), choice, dtype, advance)
    if any(tables):
        raise DataError(
            f"{_name(inputs[tables.index(True)])} is a table and "
            f"{_name(inputs[tables.index(False)])} an array: ingest them apart"
        )
    from .arrays import ArrayRows

    return ArrayRows([_array(found) for found in inputs], choice, dtype)


def check_source(source: Any) -> None:
    """Check that there is something at the path of an input, before it is opened.

    Raises
    ------
    DataError
        There is nothing.
    """
    _expanded(source)


def _name(found: Any) -> str:
    if isinstance(found, str | StoredFile):
        return describe_url(str(found))
    return type(found).__name__


def _expanded(source: Any) -> list[Any]:
    """The files of tables in a folder or of a pattern; a path of anything else as it is."""
    if not isinstance(source, str | os.PathLike):
        return [source]
    text = os.fspath(source)
    if is_url(text):
        return _at_url(text)
    path = local_path(text.partition("::")[0])
    if path.is_dir():
        return _files_in(path) or [text]
    if path.exists() or _within(path):
        if path.name.endswith(TABLES) and "::" not in text:
            return [*find_files(str(path), TABLES)]
        return [str(path) + text[len(text.partition("::")[0]) :]]
    found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
    if not found:
        raise DataError(f"{text}: no such file")
    # A pattern of folders may find their files, too.
    inputs = {_name(one): one for name in found for one in _expanded(name)}
    if any(isinstance(one, StoredFile) for one in inputs.values()):
        # As the pattern found them: folders below it may name columns.
        inputs |= {_name(file): file for file in find_files(text, TABLES)}
    return list(inputs.values())


def _at_url(url: str) -> list[Any]:
    """The files of tables at a URL; of an array, or a Zarr store, the URL as it is."""
    check_url(url)
    if url.endswith(HDF5) or url.partition("::")[0].endswith(HDF5):
        raise DataError(f"{describe_url(url)}: HDF5 is read from disks: copy it here first")
    if url.endswith(TABLES) or is_pattern(url):
        found = find_files(url, (*TABLES, *NPY))
        if not found:
            raise DataError(f"{describe_url(url)}: no such object")
        return [file.name if file.name.endswith(NPY) else file for file in found]
    if url.rstrip("/").endswith((".zarr", *NPY)) or "::" in url:
        return [url]
    try:
        open_node(url)
    except DataError:
        # What a store holds below a URL only its listing tells.
        files = find_files(url, TABLES)
        if not files:
            raise
        return [*files]
    return [url]


def _within(path: Path) -> bool:
    """Tell whether a path leads into a file, as those in archives and groups do."""
    return any(parent.is_file() for parent in path.parents)


def _files_in(folder: Path) -> list[StoredFile]:
    """The files of a table in a folder, by name; none where it is a Zarr store."""
    if any((folder / document).exists() for document in ZARR_DOCUMENTS):
        return []
    return find_files(str(folder), TABLES)


def _is_table(found: Any) -> bool:
    if isinstance(found, str | StoredFile):
        return isinstance(found, StoredFile)
    if type(found).__module__.startswith("xarray"):
        # Variables along one dimension are the columns of a table.
        return hasattr(found, "data_vars") and all(v.ndim == 1 for v in found.data_vars.values())
    return _is_frame(found) or hasattr(found, "__arrow_c_stream__")


def _is_frame(found: Any) -> bool:
    library = type(found).__module__.partition(".")[0]
    frames = ("pandas", "polars", "pyarrow", "dask", "dask_expr")
    is_array = hasattr(found, "compute_chunk_sizes")
    return library in frames and hasattr(found, "columns") and not is_array


def _check_pyarrow(name: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as e:
        raise UsageError(f"{name} is read by pyarrow: pip install 'dask-em[table]'") from e


def _parts(inputs: Sequence[Any], csv: CsvOptions) -> list[TablePart]:
    """A part of each input; what names of folders hold are columns of its files."""
    from .partitions import with_partitions

    return with_partitions(
        [_part(found, number, csv) for number, found in enumerate(inputs)],
        [found if isinstance(found, StoredFile) else None for found in inputs],
    )


def _part(found: Any, number: int, csv: CsvOptions) -> TablePart:
    import pyarrow as pa

    from .parts import FramePart, PartitionsPart

    if isinstance(found, StoredFile):
        return _file_part(found, number, csv)
    name = f"{type(found).__module__.partition('.')[0]}.{type(found).__name__}"
    if hasattr(found, "map_partitions"):
        _check_labels(found.columns, name)
        return PartitionsPart(found, number, name)
    try:
        return FramePart(_table(found, name), number, name)
    except pa.ArrowException as e:
        raise DataError(f"{name} cannot be read as a table: {' '.join(map(str, e.args))}") from e


def _file_part(file: StoredFile, number: int, csv: CsvOptions) -> TablePart:
    from .csv import CsvPart
    from .fcs import FcsPart
    from .parts import IpcPart, ParquetPart

    if file.name.endswith(CSV):
        return CsvPart(file, number, csv)
    if file.name.endswith(FCS):
        return FcsPart(file, number)
    return ParquetPart(file, number) if file.name.endswith(PARQUET) else IpcPart(file, number)


def _table(found: Any, name: str) -> Any:
    """The table of Arrow that a frame in memory is, or becomes."""
    import pyarrow as pa

    if type(found).__module__.startswith("pandas"):
        _check_labels(found.columns, name)
        return pa.Table.from_pandas(found, preserve_index=False)
    if type(found).__module__.startswith("xarray"):
        return pa.table({str(label): found[label].to_numpy() for label in found.data_vars})
    return pa.table(found)


def _check_labels(labels: Any, name: str) -> None:
    twice = labels[labels.duplicated()].tolist()
    if twice:
        raise DataError(f"{name} has two columns of the name {twice[0]!r}: rename one of them")


def _array(found: Any) -> ArrayInput:
    """An array, and the file that tells whether it was written to."""
    if not isinstance(found, str):
        return _in_memory(found)
    from .arrays import ArrayInput

    if found.endswith(NPY):
        return ArrayInput(as_source(found), find_files(found, NPY)[0])
    path, _, inner = found.partition("::")
    if path.endswith(HDF5):
        return ArrayInput(as_source(_dataset(path, inner)), find_files(path, HDF5)[0])
    if Path(path).is_file() and not path.endswith(".zip"):
        known = ", ".join((*TABLES, *HDF5, *NPY))
        raise DataError(f"{path} is of no kind that is known: expected {known}, or Zarr")
    return ArrayInput(as_source(found))


def _in_memory(found: Any) -> ArrayInput:
    from ..xarray import Labelled
    from .arrays import ArrayInput, LazyRows

    labelled = Labelled.of(found)
    if labelled is not None:
        source = _in_memory(labelled.data).source
        names = labelled.feature_names
        return ArrayInput(source, None, names if names is None else [Column(n) for n in names])
    if hasattr(found, "compute_chunk_sizes"):
        found = LazyRows(found)
    return ArrayInput(as_source(found))


def _dataset(path: str, inner: str) -> Any:
    """The data set of an HDF5 file: that which is named, or the only matrix in it."""
    try:
        import h5py
    except ModuleNotFoundError as e:
        raise UsageError(f"{path} is read by h5py: pip install h5py") from e
    try:
        file = h5py.File(path, "r")
    except OSError as e:
        raise DataError(f"{path} is no whole HDF5 file ({e})") from e
    found: list[str] = []

    def visit(name: str, member: Any) -> None:
        if getattr(member, "ndim", 0) == 2 and member.dtype.kind in "fiub":
            found.append(name)

    file.visititems(visit)
    if inner:
        if not isinstance(file.get(inner), h5py.Dataset):
            raise DataError(f"{path} has no data set {inner!r}; its matrices are {_listed(found)}")
        return file[inner]
    if len(found) != 1:
        raise DataError(
            f"{path} holds {len(found)} matrices ({_listed(found)}): name one, as {path}::NAME"
        )
    return file[found[0]]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) or "none"
