"""Labels or responsibilities of any kind beside rows of any kind: opened, aligned and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from ..core.additive import Array
from ..core.grid import Grid
from ..core.labels import checked_labels
from ..core.protocols import LabelReader, RowLabels, Source
from ..errors import DataError
from .block_labels import BlockLabels
from .checks import check_array
from .dask import DaskSource, checked_array, is_dask, numbers
from .fields import pandas_values
from .identity import HASHED_ROWS, sha256_of
from .memory import ArraySource, Rows
from .packing import unmasked
from .ranged import RangedSource, RowsReader, StoredRows

if TYPE_CHECKING:
    import dask.array as da
    import zarr

    from .options import ReadOptions
    from .zarr.watched import CheckedRows

NAME = "labels_init"


def _row(grid: Grid | None, start: int, row: int) -> str:
    number = start + row
    if grid is None:
        return f"row {number}"
    ends = np.cumsum(grid.lengths)
    block = int(np.searchsorted(ends, number, side="right"))
    inside = number - int(ends[block] - grid.lengths[block])
    return f"row {number} (the cell {grid.cell(block, inside)})"


@dataclass(frozen=True)
class MemoryLabels(RowLabels, LabelReader):
    """Labels in the memory of whoever asks for the passes; a reader is given those of its rows.

    Attributes
    ----------
    values : (n,) or (n, k) array
    k : int
        Number of components.
    first : int
        Number of the first row.
    grid : Grid or None
        Whose cells the rows are.

    Examples
    --------
    >>> MemoryLabels(np.array([0, 1, 1]), 2).of_rows(1, 3).open().read(0, 1, 2)
    array([1])
    """

    values: Array
    k: int
    first: int = 0
    grid: Grid | None = None

    def open(self) -> LabelReader:
        """Return what reads: this."""
        return self

    def read(self, chunk: int, start: int, stop: int) -> Array:
        """Return the labels of some rows, checked."""
        found = self.values[start - self.first : stop - self.first]
        return checked_labels(np.asarray(found), self.k, partial(_row, self.grid, start))

    def of_rows(self, start: int, stop: int) -> RowLabels:
        """Return the labels of some rows."""
        part = self.values[start - self.first : stop - self.first]
        return replace(self, values=np.asarray(part), first=start)

    def identity(self) -> str:
        """Return the sha256 of all labels."""
        return sha256_of(self.values)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's labels, and of them checked."""
        width = int(np.prod(self.values.shape[1:], dtype=int))
        return (8 + self.values.dtype.itemsize) * width

    @property
    def shipped_bytes(self) -> int:
        """Bytes of all labels."""
        return int(self.values.nbytes)


class ReadsLabels(Protocol):
    """Labels in files that any process reads by the numbers of rows; picklable."""

    def open(self) -> Callable[[int, int], Array]:
        """Return what reads the labels (b,), or responsibilities (b, k), of rows start to stop."""


@dataclass(frozen=True)
class SlicedLabels:
    """Read labels by slices of an array that decodes some rows together, each time once.

    Attributes
    ----------
    rows : CheckedRows or Rows
    unit : int
        Rows that are stored together.
    """

    rows: CheckedRows | Rows
    unit: int

    def open(self) -> Callable[[int, int], Array]:
        """Return what reads the labels of rows start to stop."""
        return _Buffered(self).read


class _Buffered:
    """Hold the stored chunks of labels that were read last."""

    def __init__(self, labels: SlicedLabels) -> None:
        self._labels, self._first = labels, 0
        self._held: Array = np.empty(0)

    def read(self, start: int, stop: int) -> Array:
        if start < self._first or stop > self._first + len(self._held):
            unit = max(1, self._labels.unit)
            self._first = start // unit * unit
            last = min(-(-stop // unit) * unit, int(self._labels.rows.shape[0]))
            self._held = np.asarray(self._labels.rows[self._first : last])
        return self._held[start - self._first : stop - self._first]


@dataclass(frozen=True)
class ColumnLabels:
    """Read labels as the columns of stored rows."""

    rows: StoredRows

    def open(self) -> Callable[[int, int], Array]:
        """Return what reads the labels of rows start to stop."""
        return partial(_columns, self.rows, self.rows.open())


def _columns(rows: StoredRows, reader: RowsReader, start: int, stop: int) -> Array:
    found = np.empty((stop - start, rows.n_features), dtype=rows.dtype)
    reader.read(start, found)
    return found


@dataclass(frozen=True)
class StoredLabels(RowLabels):
    """Labels in files, read by each process for its own rows.

    Attributes
    ----------
    stored : ReadsLabels
    n_rows : int
    width : int
        Numbers of a row.
    k : int
        Number of components.
    grid : Grid or None
        Whose cells the rows are.
    """

    stored: ReadsLabels
    n_rows: int
    width: int
    k: int
    grid: Grid | None = None

    def open(self) -> LabelReader:
        """Open the files for one range."""
        return _StoredReader(self.stored.open(), self.k, self.grid)

    def of_rows(self, start: int, stop: int) -> RowLabels:
        """Return the same: whoever reads opens the files."""
        return self

    def identity(self) -> str:
        """Return the sha256 of all labels, which are read for it."""
        result, read = hashlib.sha256(), self.stored.open()
        for start in range(0, self.n_rows, HASHED_ROWS):
            part = read(start, min(start + HASHED_ROWS, self.n_rows))
            result.update(np.ascontiguousarray(part).tobytes())
        return result.hexdigest()

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's labels, as they are read and checked."""
        return 24 * self.width


@dataclass
class _StoredReader(LabelReader):
    """Read labels from files, and check them."""

    fetch: Callable[[int, int], Array]
    k: int
    grid: Grid | None

    def read(self, chunk: int, start: int, stop: int) -> Array:
        """Return the labels of some rows, checked."""
        found = self.fetch(start, stop)
        if found.ndim == 2 and found.shape[1] == 1:
            found = found[:, 0]
        return checked_labels(found, self.k, partial(_row, self.grid, start))


R = TypeVar("R", bound=Source)


def beside_rows(source: R, labels: Any, k: int, options: ReadOptions) -> R:
    """Return the rows of a source with labels of k components beside them.

    Parameters
    ----------
    source : Source
    labels : object
        Labels (n,) or responsibilities (n, k): an array, a Zarr array, a Dask array, or a source
        of them.
    k : int
    options : ReadOptions
        How what is stored is read.

    Raises
    ------
    DataError
        They are not one a row, or cannot be brought beside these rows.
    """
    if isinstance(source, DaskSource):
        blocks = _in_blocks(source.X, for_blocks(labels), options)
        return source.with_labels(BlockLabels(blocks, k))
    found = _by_rows(labels, k, options)
    n = found.n_rows if isinstance(found, StoredLabels) else len(found.values)
    if n != source.n_rows:
        raise DataError(f"{NAME} has {n} entries and X has {source.n_rows} rows")
    return source.with_labels(found)


def for_blocks(labels: Any, in_memory: Callable[[Any], Array] | None = None) -> Any:
    """Return labels as Dask takes them: those of a source in memory, or of its blocks.

    `in_memory` makes numbers of those in memory, by default (n,) or (n, k).
    """
    in_memory = in_memory or _in_memory
    if isinstance(labels, DaskSource):
        return labels.X[:, 0] if labels.n_features == 1 else labels.X
    if isinstance(labels, ArraySource):
        return in_memory(labels.X[:])
    if isinstance(labels, RangedSource):
        return _columns(labels.rows, labels.rows.open(), 0, labels.n_rows)
    return labels if is_dask(labels) or is_stored(labels) else in_memory(labels)


def _in_blocks(X: da.Array, labels: Any, options: ReadOptions) -> da.Array:
    """Return labels (n,) or responsibilities (n, k) in the blocks of the rows of X."""
    import dask.array as da

    if is_stored(labels):
        labels = checked_array(labels, int(labels.chunks[0]), options, NAME)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    known, there = not np.isnan(X.shape[0]), labels.shape[0]
    if not is_dask(labels) and not known:
        raise DataError(
            f"{NAME} is in memory but the lengths of X's blocks are not known: call "
            "X.compute_chunk_sizes() first, or pass a Dask array of the same blocks"
        )
    if known and not np.isnan(there) and there != X.shape[0]:
        raise DataError(f"{NAME} has {there} entries and X has {X.shape[0]} rows")
    chunks = (X.chunks[0], *((n,) for n in labels.shape[1:]))
    found: da.Array
    if not is_dask(labels):
        found = da.from_array(np.asarray(labels), chunks)
        return found
    check_array(NAME, labels, labels.ndim)
    found = numbers(labels)
    if known and not np.isnan(there):
        found = found.rechunk(chunks)
        return found
    if found.numblocks[0] != X.numblocks[0]:
        raise DataError(
            f"{NAME} has {found.numblocks[0]} blocks and X has {X.numblocks[0]}, of unknown "
            "lengths: give both the same blocks"
        )
    if found.ndim == 2:
        found = found.rechunk({1: -1})
    return found


def _by_rows(labels: Any, k: int, options: ReadOptions) -> MemoryLabels | StoredLabels:
    """Labels that are read by the numbers of rows."""
    if isinstance(labels, RangedSource):
        return StoredLabels(ColumnLabels(labels.rows), labels.n_rows, labels.n_features, k)
    if isinstance(labels, ArraySource):
        return MemoryLabels(_in_memory(labels.X[:]), k)
    if isinstance(labels, DaskSource):
        labels = for_blocks(labels)
    if is_dask(labels):
        return MemoryLabels(_in_memory(labels.compute()), k)
    if is_stored(labels):
        return _of_zarr(labels, k, options)
    return MemoryLabels(_in_memory(labels), k)


def is_stored(labels: object) -> bool:
    """Tell whether labels are a Zarr array, without an import of Zarr."""
    return type(labels).__module__.partition(".")[0] == "zarr" and hasattr(labels, "chunks")


def in_process(labels: zarr.Array[Any]) -> bool:
    """Tell whether a Zarr array lies in this process's memory."""
    from zarr.storage import MemoryStore

    return isinstance(labels.store, MemoryStore)


def _of_zarr(labels: zarr.Array[Any], k: int, options: ReadOptions) -> StoredLabels | MemoryLabels:
    from .zarr.watched import CheckedRows

    rows = CheckedRows(labels, options, NAME)
    check_array(NAME, rows, min(2, max(1, rows.ndim)))
    if in_process(labels):
        return MemoryLabels(rows[:], k)
    width = int(np.prod(rows.shape[1:], dtype=int))
    return StoredLabels(SlicedLabels(rows, int(labels.chunks[0])), int(rows.shape[0]), width, k)


def as_numbers(labels: Any) -> Array:
    """Return labels in memory as numbers, of any shape; missing ones are NaN.

    Examples
    --------
    >>> as_numbers(np.ma.masked_equal([0, 1], 1))
    array([ 0., nan])
    """
    if type(labels).__module__.partition(".")[0] == "pandas" and hasattr(labels, "dtype"):
        codes = getattr(labels, "cat", None)
        labels = codes.codes if codes is not None else labels
        labels = pandas_values(labels, np.dtype(np.float64))
    return unmasked(np.asanyarray(labels))


def _in_memory(labels: Any) -> Array:
    """Return labels in memory as numbers, (n,) or (n, k)."""
    array = as_numbers(labels)
    check_array(NAME, array, 2 if array.ndim == 2 else 1)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
