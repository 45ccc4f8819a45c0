"""Rows of `.npy` files, read by ranges where they lie and never loaded whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, NoReturn

import numpy as np

from ..core.additive import Array
from ..core.columns import Column
from ..core.ranges import even_bounds
from ..core.tuning import tuning
from ..errors import DataError
from ..storage.outputs.stamps import files_stamp
from ..storage.stored_files import StoredFile, find_files, is_pattern, open_file, stamps_now
from ..storage.urls import describe_url
from .checks import check_array, check_weight, memory_weight
from .options import ReadOptions
from .ranged import NothingCarried, RangedSource, RowsReader

SUFFIX = ".npy"


@dataclass(frozen=True)
class NpyFile:
    """An array in a `.npy` file: its place, its type, and where its numbers begin.

    Attributes
    ----------
    file : StoredFile
    shape : tuple of int
    dtype : dtype
        As it is stored.
    fortran : bool
        Whether columns lie one after the other.
    offset : int
        Bytes before the first number.
    """

    file: StoredFile
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return the whole array, for weights and other small ones."""
        whole = np.empty(self.shape, dtype=self.dtype, order="F" if self.fortran else "C")
        with open_file(self.file) as file:
            _fill(file, self.offset, whole.reshape(-1, order="A"), str(self.file))
        return whole if dtype is None else whole.astype(dtype)


@dataclass(frozen=True)
class NpyRows(NothingCarried):
    """Rows of a `.npy` file, (n, d).

    Attributes
    ----------
    array : NpyFile
    groups : array of int
        First row of each group, and the number of rows: what is read at once.
    """

    array: NpyFile
    groups: Array

    columns: Sequence[Column] | None = None
    weight_name = ""
    layout_advice = ""
    library_bytes = 0
    lacks_checksum = (
        "store the rows in Zarr, with zarr.codecs.Crc32cCodec() as the last of its compressors"
    )

    @property
    def n_features(self) -> int:
        """Columns."""
        return self.array.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers, in this machine's order of bytes."""
        return self.array.dtype.newbyteorder("=")

    @property
    def description(self) -> str:
        """Name of the file."""
        return str(self.array.file)

    def decoding_bytes(self, chunk_rows: int) -> int:
        """Count what reading takes beside the rows: a column, or the bytes in another order."""
        row_bytes = self.dtype.itemsize * (1 if self.array.fortran else self.n_features)
        plain = self.array.dtype.isnative and not self.array.fortran
        return 0 if plain else chunk_rows * row_bytes

    def open(self) -> RowsReader:
        """Open the file."""
        return NpyReader(self.array)

    def check(self) -> None:
        """Raise `DataError` where the file is gone, or is another one by now."""
        file = self.array.file
        if file.stamp and stamps_now([file])[file.name] != file.stamp:
            raise DataError(f"{file} was written or removed since it was opened: open it again")

    def presence(self) -> str:
        """Check that the file is there, of the size that its header says."""
        self.check()
        return "the one file is there, and as long as its header says"

    def place(self, row: int) -> str:
        """Say in which file rows lie."""
        return f" of {self.array.file}"

    def stamps(self, spans: Sequence[tuple[int, int]]) -> list[str]:
        """Return the stamp of the file, for each span."""
        known = self.array
        now = stamps_now([known.file])[known.file.name]
        layout = f"{known.shape}:{known.dtype.str}:{known.fortran}:{known.offset}"
        return [files_stamp(layout, [now])] * len(spans)


class NpyReader:
    """Read rows of a `.npy` file by their place in it."""

    def __init__(self, array: NpyFile) -> None:
        self._array = array
        try:
            self._file = open_file(array.file)
        except OSError as e:
            raise DataError(f"{array.file} cannot be opened: {e}") from e

    def read(self, start: int, out: Array) -> None:
        """Fill `out` (n, d) with the rows from `start` on."""
        array, name = self._array, str(self._array.file)
        n, d = out.shape
        size = array.dtype.itemsize
        if not array.fortran:
            rows = out if array.dtype.isnative else np.empty(out.shape, dtype=array.dtype)
            _fill(self._file, array.offset + start * d * size, rows.reshape(-1), name)
            if rows is not out:
                out[...] = rows
            return
        column = np.empty(n, dtype=array.dtype)
        for j in range(d):
            _fill(self._file, array.offset + (j * array.shape[0] + start) * size, column, name)
            out[:, j] = column

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _fill(file: BinaryIO, offset: int, numbers: Array, name: str) -> None:
    """Read contiguous numbers, all of them."""
    view = memoryview(numbers.view(np.uint8).data)
    file.seek(offset)
    done = 0
    while done < len(view):
        n = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not n:
            raise DataError(
                f"{name} ends before its numbers do, which its header counts: it was cut; "
                "write it again"
            )
        done += n


# -- opening ---------------------------------------------------------------------------


def is_npy(X: object) -> bool:
    """Tell whether an object is a `.npy` file that was opened here."""
    return isinstance(X, NpyFile)


def open_npy(path: str) -> NpyFile:
    """Read the header of the `.npy` file at a path or URL.

    Raises
    ------
    DataError
        There is none, or it is of something else.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/x.npy", np.eye(3))
    ...     found = open_npy(f"{folder}/x.npy")
    >>> found.shape, found.dtype.str, found.fortran
    ((3, 3), '<f8', False)
    """
    name = describe_url(path)
    if is_pattern(path):
        raise DataError(f"{name}: expected one .npy file, got a pattern of several: pass one")
    found = find_files(path, [SUFFIX])
    if len(found) != 1:
        raise DataError(f"{name}: {'expected one .npy file' if found else 'no such file'}")
    (file,) = found
    with open_file(file) as opened:
        try:
            version = np.lib.format.read_magic(opened)
            read = np.lib.format.read_array_header_1_0
            read = read if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(opened)
        except (ValueError, EOFError, SyntaxError) as e:
            raise DataError(f"{name}: not a .npy file ({e})") from e
        array = NpyFile(file, tuple(shape), dtype, bool(fortran) and len(shape) > 1, opened.tell())
    if dtype.hasobject:
        _refuse_objects(name)
    needed = array.offset + math.prod(shape) * dtype.itemsize
    if file.size < needed:
        raise DataError(
            f"{name} holds {file.size} bytes, and its header counts {needed}: it was cut; write "
            "it again"
        )
    return array


def _refuse_objects(name: str) -> NoReturn:
    raise DataError(
        f"{name} holds Python objects, which are code of whoever wrote it and are never loaded: "
        "write numbers, as np.save(path, X.astype('float64'))"
    )


def npy_source(array: NpyFile, sample_weight: Any, options: ReadOptions) -> RangedSource:
    """Make a source of the rows of a `.npy` file, with weights in memory.

    Raises
    ------
    DataError
        Wrong shape or type, or weights of another length.
    """
    check_array("X", array, 2)
    n_rows, d = array.shape
    row_bytes = max(1, d * array.dtype.itemsize)
    groups = even_bounds(n_rows, max(1, tuning().reading.bytes // row_bytes))
    source = RangedSource(NpyRows(array, groups), options=options)
    if sample_weight is None:
        return source
    check_weight(sample_weight, n_rows)
    return RangedSource(
        source.rows, memory_weight=memory_weight(sample_weight, n_rows), options=options
    )


def flat_npy_source(array: NpyFile) -> RangedSource | Array:
    """Make a source of a `.npy` file of which all but the first axis are columns.

    One whose first axis does not vary slowest is read into memory.

    Raises
    ------
    DataError
        Wrong type, or there are no numbers.
    """
    if array.fortran and len(array.shape) > 2:
        return np.asarray(array)
    columns = math.prod(array.shape[1:])
    return npy_source(replace(array, shape=(array.shape[0], columns)), None, ReadOptions())
