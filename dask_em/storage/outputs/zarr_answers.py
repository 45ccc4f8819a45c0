"""Answers as Zarr arrays beside each other in a group, written chunk by chunk.

Syncing waits for the end of a region: by then the system has written most of it by itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.additive import Array
from ...errors import naming
from ..urls import describe_store
from .files import sync

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True)
class ZarrFormat:
    """The arrays of a group: how many rows, in chunks of how many, of which types.

    Attributes
    ----------
    n_rows, rows : int
        Of all, and of a chunk of an array.
    kinds : mapping of str to (columns or None, dtype)
    each : int
        Chunks of an array in each chunk of the source.

    Examples
    --------
    >>> import tempfile
    >>> format = ZarrFormat(100, 40, {"labels": (None, "int32"), "proba": (2, float)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     format.create(Path(folder, "out"))
    ...     made = format.open(Path(folder, "out")).outputs
    >>> made["labels"].shape, made["proba"].shape, made["proba"].chunks
    ((100,), (100, 2), (40, 2))
    """

    n_rows: int
    rows: int
    kinds: Mapping[str, tuple[int | None, Any]]
    each: int = 1

    def create(self, path: Path | str) -> None:
        """Make empty checksummed arrays in a new group."""
        import zarr
        from zarr.codecs import Crc32cCodec, ZstdCodec

        with naming(path):
            group = zarr.create_group(open_place(path))
            for name, (columns, dtype) in self.kinds.items():
                tail = () if columns is None else (columns,)
                group.create_array(
                    name,
                    shape=(self.n_rows, *tail),
                    chunks=(min(self.rows, self.n_rows), *tail),
                    dtype=np.dtype(dtype),
                    compressors=[ZstdCodec(level=1), Crc32cCodec()],
                )

    def open(self, path: Path | str) -> ZarrAnswers:
        """Open the arrays of the group for writing, chunks of nothing but zeros too."""
        return ZarrAnswers(open_arrays(path, self.kinds), self.each)


@dataclass(frozen=True)
class ZarrAnswers:
    """The arrays of a group, open.

    A chunk of the source is whole chunks of each of them, so no two tasks write the same.

    Attributes
    ----------
    outputs : mapping of str to zarr.Array
    each : int
        Chunks of an array in each chunk of the source.
    """

    outputs: Mapping[str, zarr.Array[Any]]
    each: int

    def files(self, chunks: range) -> Iterator[str]:
        """Yield the names of the chunk files of a region."""
        for output in self.outputs.values():
            yield from (f"{output.path}/{key}" for key in self._keys(output, chunks))

    def sync(self, chunks: Iterable[int]) -> None:
        """Bring the files of chunks of the source, and their folders, to the disk."""
        for output in self.outputs.values():
            sync_files(output, [key for i in chunks for key in self._keys(output, range(i, i + 1))])

    def _keys(self, output: zarr.Array[Any], chunks: range) -> Iterator[str]:
        n_chunks = -(-output.shape[0] // output.chunks[0])
        for number in range(chunks.start * self.each, min(chunks.stop * self.each, n_chunks)):
            yield _key(output, number)

    def writer(self, first: int) -> ZarrRegion:
        """Begin with a region."""
        return ZarrRegion(self.outputs)


class ZarrRegion:
    """Write the answers of one region into arrays.

    Files are brought to the disk when the ones after them are written: by then the system has
    written most of them by itself, and few are left for the end.
    """

    def __init__(self, outputs: Mapping[str, zarr.Array[Any]]) -> None:
        self._outputs = outputs
        self._written: list[slice] = []
        self._synced = 0

    def write(self, rows: slice, values: Mapping[str, Array]) -> None:
        """Write the answers of whole chunks."""
        self._sync()
        for name, answers in values.items():
            output = self._outputs[name]
            with naming(describe_store(str(output.store_path))):
                output[rows] = answers
        self._written.append(rows)

    def finish(self) -> None:
        """Bring chunk files, and the folders that name them, to the disk."""
        self._sync()
        for output in self._outputs.values():
            _sync_folders(output, _keys_of(output, self._written))

    def _sync(self) -> None:
        """Bring the files that were written since the last time to the disk."""
        some, self._synced = self._written[self._synced :], len(self._written)
        for output in self._outputs.values():
            _sync_files(output, _keys_of(output, some))


def _key(output: zarr.Array[Any], number: int) -> str:
    return str(output.metadata.encode_chunk_key((number, *(0,) * (output.ndim - 1))))


def _keys_of(output: zarr.Array[Any], written: list[slice]) -> list[str]:
    size = output.chunks[0]
    numbers = [range(rows.start // size, -(-rows.stop // size)) for rows in written]
    return [_key(output, number) for some in numbers for number in some]


def sync_files(output: zarr.Array[Any], keys: Iterable[str]) -> None:
    """Bring chunk files of an array, and the folders that name them, to the disk."""
    keys = list(keys)
    _sync_files(output, keys)
    _sync_folders(output, keys)


def _sync_files(output: zarr.Array[Any], keys: Iterable[str]) -> None:
    if (top := _folder_of(output)) is not None:
        for key in keys:
            sync(top / key)


def _sync_folders(output: zarr.Array[Any], keys: Iterable[str]) -> None:
    if (top := _folder_of(output)) is not None:
        paths = [top / key for key in keys]
        for folder in {p for path in paths for p in path.parents if p.is_relative_to(top)}:
            sync(folder)


def _folder_of(output: zarr.Array[Any]) -> Path | None:
    """Return the folder of an array; None where it lies on no disk."""
    from zarr.storage import LocalStore

    store: Any = output.store
    return Path(store.root, output.path) if isinstance(store, LocalStore) else None


def open_arrays(path: Path | str, names: Iterable[str]) -> dict[str, zarr.Array[Any]]:
    """Open these arrays of a group for writing, chunks of nothing but zeros too."""
    import zarr

    with naming(path), zarr.config.set({"array.write_empty_chunks": True}):
        group: Any = zarr.open_group(open_place(path), mode="r+")
        return {name: group[name] for name in names}


def open_place(path: Path | str) -> Any:
    """Return where a group is made: a path, or the store at a URL."""
    from ..url_store import open_store

    return open_store(path, read_only=False) if isinstance(path, str) else path


def consolidate(path: Path | str) -> None:
    """Gather the documents of all arrays in that of their group, as xarray looks for them."""
    import zarr

    with naming(path), warnings.catch_warnings():
        # Consolidated documents are an extension of version 3 of the format, which xarray writes.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(open_place(path))
    if isinstance(path, Path):
        sync(path / "zarr.json")
