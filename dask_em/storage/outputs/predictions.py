"""Predictions for every row: Zarr arrays beside each other in a group, written chunk by chunk.

A region is a range of chunks. Its marker is written after its chunk files and their
folders were synced to the disk, so what a marker stands for outlives a power failure,
and a job that was interrupted goes on with the regions that have none. Syncing waits for
the end of a region: by then the system has written most of it by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.additive import Additive, Array
from ...core.finite import finite_only
from ...core.protocols import Fold, Pass
from ...errors import naming
from ..folders import Folder
from ..urls import describe_store
from .files import sync

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True)
class Regions:
    """Ranges of chunks, each with a marker once its predictions are stored.

    Attributes
    ----------
    folder : Folder
        Of the markers.
    stamps : mapping of range to str
        Every region, with the stamp of its rows before the pass (`source_stamps`).
    each : int
        Chunks of an output in each chunk of the source.
    """

    folder: Folder
    stamps: Mapping[range, str]
    each: int = 1

    def mark(self, chunks: range, n_dropped: int) -> None:
        """Mark the predictions of `chunks`, of which so many rows have none, as stored."""
        self.folder.write(f"{self._marker(chunks)}-{n_dropped}", b"")

    def marked(self) -> dict[range, int]:
        """Return the regions that are stored and whose source has not been touched since.

        With each comes the number of its rows that have no prediction. Where a source has no
        stamps nobody knows, and none is.
        """
        found = dict(name.rpartition("-")[::2] for name in self.folder.names())
        return {
            chunks: int(found[marker])
            for chunks, stamp in self.stamps.items()
            if stamp and (marker := self._marker(chunks)) in found
        }

    def _marker(self, chunks: range) -> str:
        return f"{chunks.start}-{chunks.stop}-{self.stamps[chunks] or 'unknown'}"


@dataclass(frozen=True)
class Written(Additive):
    """Number of rows written, and of those that have no prediction."""

    n_rows: int
    n_dropped: int


@dataclass(frozen=True)
class WritePredictions(Pass[Written]):
    """The pass that writes predictions for every row.

    A chunk of the source is whole chunks of an output, so no two tasks write the same
    chunk, and a task that runs twice writes the same bytes twice.

    Attributes
    ----------
    predict : callable
        Rows (n, d) -> a dict of arrays that begin with axis n.
    bounds : (n_chunks + 1,) array
        First row of each chunk of the source.
    outputs : mapping of str to zarr.Array
        Where each entry of the dict goes.
    regions : Regions
        Where it is noted that a range is done.

    Examples
    --------
    >>> import tempfile
    >>> from dask_em.storage.folders import DiskFolder
    >>> def predict(X):
    ...     return {"total": X.sum(axis=1)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     create_outputs(Path(folder, "out"), 3, 3, {"total": (None, float)})
    ...     outputs = open_outputs(Path(folder, "out"))
    ...     regions = Regions(DiskFolder(Path(folder)), {range(1): "of now"})
    ...     fold = WritePredictions(predict, np.array([0, 3]), outputs, regions).fold()
    ...     fold.update(0, np.ones((3, 2)), None)
    ...     fold.result().n_rows, regions.marked(), outputs["total"][:].tolist()
    (3, {range(0, 1): 0}, [2.0, 2.0, 2.0])
    """

    predict: Callable[[Array], dict[str, Array]]
    bounds: Array
    outputs: Mapping[str, zarr.Array[Any]]
    regions: Regions

    def fold(self) -> PredictionWriter:
        """Return the writer of one range, before its first chunk."""
        return PredictionWriter(self)


class PredictionWriter(Fold[Written]):
    """Write the predictions of chunks as they come, and mark their region at the end."""

    def __init__(self, work: WritePredictions) -> None:
        self.work = work
        self._written: list[int] = []
        self._n_rows = self._n_dropped = 0

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Write the predictions of chunk number `index`; one without rows has them already."""
        if len(X) == 0:
            return
        rows = slice(int(self.work.bounds[index]), int(self.work.bounds[index + 1]))
        for name, values in self.work.predict(X).items():
            output = self.work.outputs[name]
            with naming(describe_store(str(output.store_path))):
                output[rows] = values
        finite = finite_only(X)
        self._n_dropped += 0 if finite is None else int((~finite).sum())
        self._written.append(index)
        self._n_rows += len(X)

    def result(self) -> Written:
        """Bring all that was written to the disk, mark the region, and count its rows."""
        if self._written:
            for output in self.work.outputs.values():
                sync_chunks(output, self._written, self.work.regions.each)
            region = range(self._written[0], self._written[-1] + 1)
            self.work.regions.mark(region, self._n_dropped)
        return Written(self._n_rows, self._n_dropped)


def chunk_keys(output: zarr.Array[Any], chunk: int, each: int) -> list[str]:
    """Return the names of the chunks of an output in a chunk of the source, within its array."""
    n_chunks = -(-output.shape[0] // output.chunks[0])
    return [
        output.metadata.encode_chunk_key((i, *(0,) * (output.ndim - 1)))
        for i in range(chunk * each, min((chunk + 1) * each, n_chunks))
    ]


def sync_chunks(output: zarr.Array[Any], chunks: list[int], each: int) -> None:
    """Bring chunk files, and the folders that name them, to the disk."""
    from zarr.storage import LocalStore

    store: Any = output.store
    if not isinstance(store, LocalStore):
        return
    top = Path(store.root, output.path)
    folders: set[Path] = set()
    for key in (key for chunk in chunks for key in chunk_keys(output, chunk, each)):
        path = top / key
        sync(path)
        folders.update(parent for parent in path.parents if parent.is_relative_to(top))
    for folder in folders:
        sync(folder)


def create_outputs(
    path: Path | str, n_rows: int, chunk_rows: int, kinds: Mapping[str, tuple[int | None, Any]]
) -> None:
    """Make empty checksummed Zarr arrays in a new group.

    Parameters
    ----------
    path : Path, or URL
    n_rows, chunk_rows : int
    kinds : mapping of str to (columns or None, dtype)

    Examples
    --------
    >>> import tempfile
    >>> kinds = {"labels": (None, "int32"), "proba": (2, float)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     create_outputs(Path(folder, "out"), n_rows=100, chunk_rows=40, kinds=kinds)
    ...     made = open_outputs(Path(folder, "out"))
    >>> made["labels"].shape, made["proba"].shape, made["proba"].chunks
    ((100,), (100, 2), (40, 2))
    """
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    with naming(path):
        group = zarr.create_group(place(path))
        for name, (columns, dtype) in kinds.items():
            tail = () if columns is None else (columns,)
            group.create_array(
                name,
                shape=(n_rows, *tail),
                chunks=(min(chunk_rows, n_rows), *tail),
                dtype=np.dtype(dtype),
                compressors=[ZstdCodec(level=1), Crc32cCodec()],
            )


def open_outputs(path: Path | str) -> dict[str, zarr.Array[Any]]:
    """Open the arrays of a group that have a row for each of the data, to write all chunks."""
    import zarr

    with naming(path), zarr.config.set({"array.write_empty_chunks": True}):
        found = zarr.open_group(place(path), mode="r+").arrays()
        return {name: array for name, array in found if _is_by_rows(array)}


def _is_by_rows(array: zarr.Array[Any]) -> bool:
    """Tell an array with one entry a row from coordinates of other dimensions."""
    names = getattr(array.metadata, "dimension_names", None)
    return not names or names[0] == "row"


def place(path: Path | str) -> Any:
    """Return what Zarr takes for a place to write to."""
    from ..url_store import open_store

    return open_store(path, read_only=False) if isinstance(path, str) else path
