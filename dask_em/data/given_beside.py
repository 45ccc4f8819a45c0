"""Labels and noise of any kind beside rows of any kind: opened, aligned and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from ..core.additive import Array
from ..core.beside import FieldReader, RowField
from ..core.grid import Grid
from ..core.protocols import Source
from ..errors import DataError
from .beside import FieldCheck
from .block_beside import BlockField
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


def _row(grid: Grid | None, start: int, row: int) -> str:
    number = start + row
    if grid is None:
        return f"row {number}"
    ends = np.cumsum(grid.lengths)
    block = int(np.searchsorted(ends, number, side="right"))
    inside = number - int(ends[block] - grid.lengths[block])
    return f"row {number} (the cell {grid.cell(block, inside)})"


@dataclass(frozen=True)
class MemoryField(RowField, FieldReader):
    """Numbers in the memory of whoever asks for the passes; a reader is given those of its rows.

    Attributes
    ----------
    values : array
        Rows first.
    check : FieldCheck
    first : int
        Number of the first row.
    grid : Grid or None
        Whose cells the rows are.

    Examples
    --------
    >>> from .beside import LabelCheck
    >>> MemoryField(np.array([0, 1, 1]), LabelCheck(2)).of_rows(1, 3).open().read(0, 1, 2)
    array([1])
    """

    values: Array
    check: FieldCheck
    first: int = 0
    grid: Grid | None = None

    def open(self) -> FieldReader:
        """Return what reads: this."""
        return self

    def read(self, chunk: int, start: int, stop: int) -> Array:
        """Return the numbers of some rows, checked."""
        found = self.values[start - self.first : stop - self.first]
        return self.check(np.asarray(found), partial(_row, self.grid, start))

    def of_rows(self, start: int, stop: int) -> RowField:
        """Return the numbers of some rows."""
        part = self.values[start - self.first : stop - self.first]
        return replace(self, values=np.asarray(part), first=start)

    def identity(self) -> str:
        """Return the sha256 of all numbers."""
        return sha256_of(self.values)

    @property
    def width(self) -> int:
        """Numbers that are read of a row."""
        return self.check.width(self.values.shape[1:])

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's numbers, and of them checked."""
        width = int(np.prod(self.values.shape[1:], dtype=int))
        return (8 + self.values.dtype.itemsize) * width

    @property
    def shipped_bytes(self) -> int:
        """Bytes of all numbers."""
        return int(self.values.nbytes)


@dataclass(frozen=True)
class OneForAll(RowField, FieldReader):
    """The same numbers beside every row.

    Attributes
    ----------
    value : (1, s) array
        As passes take it.

    Examples
    --------
    >>> OneForAll(np.array([[0.5, 2.0]])).open().read(0, 0, 2)
    array([[0.5, 2. ],
           [0.5, 2. ]])
    """

    value: Array

    def open(self) -> FieldReader:
        """Return what reads: this."""
        return self

    def read(self, chunk: int, start: int, stop: int) -> Array:
        """Return the numbers of some rows."""
        return np.broadcast_to(self.value, (stop - start, self.width))

    def of_rows(self, start: int, stop: int) -> RowField:
        """Return the same."""
        return self

    def identity(self) -> str:
        """Return the sha256 of the numbers."""
        return sha256_of(self.value)

    @property
    def width(self) -> int:
        """Numbers that are read of a row."""
        return int(self.value.shape[1])

    @property
    def row_bytes(self) -> int:
        """Bytes that a row takes: they are those of all."""
        return 0


class ReadsRows(Protocol):
    """Numbers in files that any process reads by the numbers of rows; picklable."""

    def open(self) -> Callable[[int, int], Array]:
        """Return what reads the numbers of rows start to stop, rows first."""


@dataclass(frozen=True)
class SlicedField:
    """Read numbers by slices of an array that decodes some rows together, each time once.

    Attributes
    ----------
    rows : CheckedRows or Rows
    unit : int
        Rows that are stored together.
    """

    rows: CheckedRows | Rows
    unit: int

    def open(self) -> Callable[[int, int], Array]:
        """Return what reads the numbers of rows start to stop."""
        return _Buffered(self).read


class _Buffered:
    """Hold the stored chunks that were read last."""

    def __init__(self, field: SlicedField) -> None:
        self._field, self._first = field, 0
        self._held: Array = np.empty(0)

    def read(self, start: int, stop: int) -> Array:
        if start < self._first or stop > self._first + len(self._held):
            unit = max(1, self._field.unit)
            self._first = start // unit * unit
            last = min(-(-stop // unit) * unit, int(self._field.rows.shape[0]))
            self._held = np.asarray(self._field.rows[self._first : last])
        return self._held[start - self._first : stop - self._first]


@dataclass(frozen=True)
class ColumnField:
    """Read numbers as the columns of stored rows."""

    rows: StoredRows

    def open(self) -> Callable[[int, int], Array]:
        """Return what reads the numbers of rows start to stop."""
        return partial(_columns, self.rows, self.rows.open())


def _columns(rows: StoredRows, reader: RowsReader, start: int, stop: int) -> Array:
    found = np.empty((stop - start, rows.n_features), dtype=rows.dtype)
    reader.read(start, found)
    return found


@dataclass(frozen=True)
class StoredField(RowField):
    """Numbers in files, read by each process for its own rows.

    Attributes
    ----------
    stored : ReadsRows
    n_rows : int
    shape : tuple of int
        Of the numbers of a row.
    check : FieldCheck
    grid : Grid or None
        Whose cells the rows are.
    """

    stored: ReadsRows
    n_rows: int
    shape: tuple[int, ...]
    check: FieldCheck
    grid: Grid | None = None

    def open(self) -> FieldReader:
        """Open the files for one range."""
        return _StoredReader(self.stored.open(), self.check, self.grid)

    def of_rows(self, start: int, stop: int) -> RowField:
        """Return the same: whoever reads opens the files."""
        return self

    def identity(self) -> str:
        """Return the sha256 of all numbers, which are read for it."""
        result, read = hashlib.sha256(), self.stored.open()
        for start in range(0, self.n_rows, HASHED_ROWS):
            part = read(start, min(start + HASHED_ROWS, self.n_rows))
            result.update(np.ascontiguousarray(part).tobytes())
        return result.hexdigest()

    @property
    def width(self) -> int:
        """Numbers that are read of a row."""
        return self.check.width(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's numbers, as they are read and checked."""
        return 24 * int(np.prod(self.shape, dtype=int))


@dataclass
class _StoredReader(FieldReader):
    """Read numbers from files, and check them."""

    fetch: Callable[[int, int], Array]
    check: FieldCheck
    grid: Grid | None

    def read(self, chunk: int, start: int, stop: int) -> Array:
        """Return the numbers of some rows, checked."""
        return self.check(self.fetch(start, stop), partial(_row, self.grid, start))


R = TypeVar("R", bound=Source)


def check_grid(source: Source, name: str) -> None:
    """Raise `DataError` where the rows are the cells of a grid, which nothing is brought beside."""
    if source.grid is not None and len(source.grid.dims) > 1:
        raise DataError(
            f"{name}: the rows of {source.description} are the cells of a grid, which it is "
            "not brought beside; give a table of its cells"
        )


def field_beside(source: Source, given: Any, check: FieldCheck, options: ReadOptions) -> RowField:
    """Return numbers of any kind as a field beside the rows of a source.

    Parameters
    ----------
    source : Source
    given : object
        Rows first: an array, a Zarr array, a Dask array, or a source of them.
    check : FieldCheck
    options : ReadOptions
        How what is stored is read.

    Raises
    ------
    DataError
        They are not one a row, or cannot be brought beside these rows.
    """
    check_grid(source, check.name)
    if isinstance(source, DaskSource):
        return BlockField(_in_blocks(source.X, _blocks_for(given, check), check, options), check)
    found = _by_rows(given, check, options)
    n = found.n_rows if isinstance(found, StoredField) else len(found.values)
    if n != source.n_rows:
        raise DataError(f"{check.name} has {n} entries and X has {source.n_rows} rows")
    return found


def one_for_all(source: Source, value: Array, check: FieldCheck) -> RowField:
    """Return the same numbers (1, ...) as a field beside all rows of a source.

    Raises
    ------
    DataError
        They are not those of a row.
    """
    check_grid(source, check.name)
    checked = check(value, _every_row)
    if not isinstance(source, DaskSource):
        return OneForAll(checked)
    import dask.array as da

    flat = value.reshape(1, -1)
    columns = da.map_blocks(
        _repeated,
        source.X,
        value=flat,
        chunks=(source.X.chunks[0], (flat.shape[1],)),
        dtype=flat.dtype,
        meta=np.empty((0, 0), dtype=flat.dtype),
    )
    return BlockField(columns, check)


def _every_row(row: int) -> str:
    return "every row"


def _repeated(X: Array, value: Array) -> Array:
    return np.broadcast_to(value, (len(X), value.shape[1]))


def for_blocks(given: Any, in_memory: Callable[[Any], Array]) -> Any:
    """Return numbers as Dask takes them: those of a source in memory, or of its blocks.

    `in_memory` makes numbers of those in memory.
    """
    if isinstance(given, DaskSource):
        return given.X
    if isinstance(given, ArraySource):
        return in_memory(given.X[:])
    if isinstance(given, RangedSource):
        return _columns(given.rows, given.rows.open(), 0, given.n_rows)
    return given if is_dask(given) or is_stored(given) else in_memory(given)


def _blocks_for(given: Any, check: FieldCheck) -> Any:
    return for_blocks(given, partial(_in_memory, check=check))


def _in_blocks(X: da.Array, given: Any, check: FieldCheck, options: ReadOptions) -> da.Array:
    """Return numbers as columns (n, s) in the blocks of the rows of X."""
    import dask.array as da

    name = check.name
    if is_stored(given):
        given = checked_array(given, int(given.chunks[0]), options, name)
    known, there = not np.isnan(X.shape[0]), given.shape[0]
    if not is_dask(given) and not known:
        raise DataError(
            f"{name} is in memory but the lengths of X's blocks are not known: call "
            "X.compute_chunk_sizes() first, or pass a Dask array of the same blocks"
        )
    if known and not np.isnan(there) and there != X.shape[0]:
        raise DataError(f"{name} has {there} entries and X has {X.shape[0]} rows")
    rest = tuple(int(n) for n in given.shape[1:])
    check.width(rest)
    width = int(np.prod(rest, dtype=int))
    found: da.Array
    if not is_dask(given):
        found = da.from_array(np.asarray(given).reshape(len(given), width), (X.chunks[0], width))
        return found
    check_array(name, given, given.ndim)
    found = numbers(given)
    found = found.rechunk(dict.fromkeys(range(1, found.ndim), -1))
    if known and not np.isnan(there):
        found = found.rechunk({0: X.chunks[0]})
    if found.numblocks[0] != X.numblocks[0]:
        raise DataError(
            f"{name} has {found.numblocks[0]} blocks and X has {X.numblocks[0]}, of unknown "
            "lengths: give both the same blocks"
        )
    return found if found.ndim == 2 else _flat(found, width)


def _flat(found: da.Array, width: int) -> da.Array:
    """Return the numbers of rows as columns."""
    import dask.array as da

    flat: da.Array
    if found.ndim == 1:
        flat = found[:, None]
        return flat
    flat = da.map_blocks(
        _flat_block,
        found,
        drop_axis=2,
        chunks=(found.chunks[0], (width,)),
        dtype=found.dtype,
        meta=np.empty((0, 0), dtype=found.dtype),
    )
    return flat


def _flat_block(values: Array) -> Array:
    return values.reshape(len(values), -1)


def _by_rows(given: Any, check: FieldCheck, options: ReadOptions) -> MemoryField | StoredField:
    """Return numbers that are read by the numbers of rows."""
    if isinstance(given, RangedSource):
        rows = given.rows
        return StoredField(ColumnField(rows), given.n_rows, (given.n_features,), check)
    if isinstance(given, ArraySource):
        return MemoryField(_in_memory(given.X[:], check), check)
    if isinstance(given, DaskSource):
        given = given.X
    if is_dask(given):
        return MemoryField(_in_memory(given.compute(), check), check)
    if is_stored(given):
        return _of_zarr(given, check, options)
    return MemoryField(_in_memory(given, check), check)


def is_stored(given: object) -> bool:
    """Tell whether numbers are a Zarr array, without an import of Zarr."""
    return type(given).__module__.partition(".")[0] == "zarr" and hasattr(given, "chunks")


def in_process(given: zarr.Array[Any]) -> bool:
    """Tell whether a Zarr array lies in this process's memory."""
    from zarr.storage import MemoryStore

    return isinstance(given.store, MemoryStore)


def _of_zarr(
    given: zarr.Array[Any], check: FieldCheck, options: ReadOptions
) -> StoredField | MemoryField:
    from .zarr.watched import CheckedRows

    rows = CheckedRows(given, options, check.name)
    check_array(check.name, rows, _dimensions(rows.ndim, check))
    if in_process(given):
        return MemoryField(rows[:], check)
    stored = SlicedField(rows, int(given.chunks[0]))
    return StoredField(stored, int(rows.shape[0]), tuple(map(int, rows.shape[1:])), check)


def _dimensions(ndim: int, check: FieldCheck) -> int:
    """Return how many dimensions an array should have, which has so many."""
    return ndim if ndim in check.dims else max(check.dims) if ndim else 1


def as_numbers(given: Any) -> Array:
    """Return what lies in memory as numbers, of any shape; missing ones are NaN.

    Examples
    --------
    >>> as_numbers(np.ma.masked_equal([0, 1], 1))
    array([ 0., nan])
    """
    if type(given).__module__.partition(".")[0] == "pandas" and hasattr(given, "dtype"):
        codes = getattr(given, "cat", None)
        given = codes.codes if codes is not None else given
        given = pandas_values(given, np.dtype(np.float64))
    return unmasked(np.asanyarray(given))


def _in_memory(given: Any, check: FieldCheck) -> Array:
    """Return numbers in memory, rows first."""
    array = as_numbers(given)
    check_array(check.name, array, array.ndim if array.ndim in check.dims else 1)
    return array
