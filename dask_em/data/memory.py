"""Rows in this process: in its memory, or in whatever it can slice by rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol, Self

import numpy as np

from ..core.additive import Array
from ..core.beside import NOTHING, Beside
from ..core.chunk_log import ChunkLog
from ..core.columns import Column
from ..core.executor import ThreadPool
from ..core.finite import NOWHERE, located
from ..core.grid import Grid
from ..core.protocols import Block, Reader, Source
from ..core.ranges import even_bounds
from ..core.reading import rows_with_noise
from ..core.tuning import tuning
from ..machine import usable_cpus
from .checks import cell_weights, check_array, memory_weight
from .grids import Cells
from .identity import layout_identity, sha256_of
from .options import ReadOptions
from .packing import Packing, masked_dtype, unmasked

# Tables and sparse matrices, of which scikit-learn says what it makes of them.
TABLES = ("pandas", "polars", "scipy", "sparse")

NUMPY = "NumPy array"


class Rows(Protocol):
    """Rows (n, d) in this process that are not yet an array of NumPy, but slices of which are."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the slices."""

    @property
    def kind(self) -> str:
        """The name of the class that holds them."""

    @property
    def columns(self) -> Sequence[Column] | None:
        """Names and kinds of the columns, None where they have no names."""

    @property
    def decoding(self) -> str:
        """How stored numbers become the rows, for people."""

    @property
    def unit(self) -> int:
        """Rows that are stored together."""

    def __len__(self) -> int:
        """Rows."""

    def __getitem__(self, rows: slice) -> Array:
        """Return some rows."""


@dataclass(frozen=True)
class SlicedRows:
    """Slice rows out of an array of any kind; what is masked is NaN, and packed is decoded.

    Attributes
    ----------
    array : object
        With a shape, a dtype, and slices by rows that NumPy takes for arrays.
    dtype : dtype
        Of the slices, in this machine's order of bytes.
    packing : Packing or None

    Examples
    --------
    >>> rows = SlicedRows.of(np.ma.masked_equal([[1, 2], [3, 4]], 3))
    >>> rows.dtype, rows[1:2]
    (dtype('float64'), array([[nan,  4.]]))
    """

    array: Any
    dtype: np.dtype[Any]
    packing: Packing | None = None

    columns = None

    @classmethod
    def of(cls, array: Any, raw: bool = False) -> SlicedRows:
        """Take an array that `is_sliced`; with `raw`, its numbers as they are stored."""
        dtype = numpy_dtype(array).newbyteorder("=")
        if isinstance(array, np.ma.MaskedArray):
            return cls(array, masked_dtype(dtype))
        # Of HDF5 files, whose attributes are those of netCDF.
        packing = None if raw else Packing.of(getattr(array, "attrs", {}), dtype)
        return cls(array, packing.dtype if packing else dtype, packing)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        return tuple(map(int, self.array.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Array:
        found = unmasked(np.asanyarray(self.array[rows]))
        found = self.packing.decode(found) if self.packing else found
        return found.astype(self.dtype, copy=False)

    @property
    def kind(self) -> str:
        """The name of the array's class."""
        if isinstance(self.array, np.ndarray):
            return NUMPY
        kind = type(self.array)
        return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"

    @property
    def decoding(self) -> str:
        """How stored numbers become the rows, for people."""
        masked = isinstance(self.array, np.ma.MaskedArray)
        return "its mask" if masked else str(self.packing or "")

    @property
    def unit(self) -> int:
        """Rows that are stored together."""
        layout = getattr(self.array, "chunk_layout", None)
        chunks = getattr(self.array, "chunks", None) if layout is None else layout.read_chunk.shape
        return int(chunks[0] or 1) if chunks else 1


@dataclass(frozen=True)
class ArraySource(Source):
    """Rows in this process, cut into chunks of some MiB; of NumPy arrays they are views.

    Attributes
    ----------
    X : (n, d) array, or Rows
    sample_weight : (n,) array of float64, or None
    dropping : frozenset of int
        Chunks whose rows of NaN or infinity are left out.
    n_dropped : int
        Such rows, as a first pass counted them.
    missing : tuple of bool
        In which columns NaN is a value that is missing, for which no row is left out.
    grid : Grid or None
        Whose cells in C order are the rows.
    named : sequence of Column, or None
        What the columns are, where the rows do not say so.
    packed : str
        How the rows are decoded, where they do not say so.
    beside : Beside
        What else stands beside the rows.

    Examples
    --------
    >>> source = ArraySource(np.zeros((5, 2)))
    >>> source.n_rows, source.n_features, source.n_chunks, source.locate(0, 3)
    (5, 2, 1, 'row 3')
    """

    X: Array | Rows
    sample_weight: Array | None = None
    dropping: frozenset[int] = frozenset()
    n_dropped: int = 0
    missing: tuple[bool, ...] = NOWHERE
    grid: Grid | None = None
    named: Sequence[Column] | None = None
    packed: str = ""
    beside: Beside = NOTHING

    in_process = True

    @property
    def n_rows(self) -> int:
        return len(self.X)

    @property
    def n_features(self) -> int:
        return int(self.X.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.X.dtype

    @property
    def n_chunks(self) -> int:
        return len(self.bounds) - 1

    @property
    def description(self) -> str:
        kind = NUMPY if isinstance(self.X, np.ndarray) else self.X.kind
        return f"{kind} {self.X.shape} {self.X.dtype}"

    @property
    def columns(self) -> Sequence[Column] | None:
        if self.named is not None:
            return self.named
        return None if isinstance(self.X, np.ndarray) else self.X.columns

    @property
    def decoding(self) -> str:
        if self.packed:
            return self.packed
        return "" if isinstance(self.X, np.ndarray) else self.X.decoding

    @cached_property
    def bounds(self) -> Array:
        """First row of each chunk, and the number of rows, (n_chunks + 1,)."""
        row_bytes = max(1, self.n_features * self.dtype.itemsize)
        rows = max(1, tuning().reading.bytes // 2 // row_bytes)
        if not isinstance(self.X, np.ndarray):
            # Whole chunks of where they are stored: none is decoded twice.
            rows = max(1, rows // self.X.unit) * self.X.unit
        return even_bounds(self.n_rows, rows)

    def rows_of(self, chunks: range) -> int:
        """Return the number of rows in these chunks."""
        return int(self.bounds[chunks.stop] - self.bounds[chunks.start])

    def read(self, chunk: int) -> Block:
        """Return rows (n, d) and weights (n,) of one chunk, as views."""
        rows = slice(self.bounds[chunk], self.bounds[chunk + 1])
        weight = self.sample_weight
        return self.X[rows], None if weight is None else weight[rows]

    def reader(self) -> Reader:
        """Open the source for one range."""
        return ArrayReader(self)

    def map_rows(
        self, function: Callable[[Array], Array], width: int | None, dtype: np.dtype[Any]
    ) -> Array:
        """Compute a function of all rows at once, by threads."""

        def one(chunk: int) -> Array:
            with located(self.locate, chunk, self.columns):
                X, beside = self.read(chunk)[0], self.shipped_beside(range(chunk, chunk + 1))
                return function(rows_with_noise(self, beside, chunk, X))

        with ThreadPool(usable_cpus()) as pool:
            return np.concatenate(list(pool.map(one, range(self.n_chunks))))

    def held_to(self, log: ChunkLog, forced: bool = False) -> Self:
        """Return the same rows without those that a first pass dropped."""
        return replace(self, dropping=log.dropping, n_dropped=log.n_dropped, missing=log.missing)

    def with_beside(self, beside: Beside) -> Self:
        """Return the same rows with this beside them."""
        return replace(self, beside=beside)

    def shipped_beside(self, chunks: range) -> Beside:
        """Return what stands beside these chunks."""
        return self.beside.of_rows(int(self.bounds[chunks.start]), int(self.bounds[chunks.stop]))

    def identity(self) -> dict[str, object]:
        """Return what tells the data from others, by their contents, for JSON."""
        weight = [] if self.sample_weight is None else [self.sample_weight]
        known = {**layout_identity(self, self.bounds), "contents": sha256_of(self.X, *weight)}
        return known | self.beside.identity()

    def locate(self, chunk: int, row: int) -> str:
        """Say which row of the data a chunk's row is."""
        number = int(self.bounds[chunk]) + row
        return f"row {number}{f' (the cell {self.grid.cell(0, number)})' if self.grid else ''}"


class ArrayReader(Reader):
    """Read chunks of an array in memory."""

    fingerprints: Mapping[int, int] = MappingProxyType({})

    def __init__(self, source: ArraySource) -> None:
        self._source = source

    def blocks(self, chunk: int, block_rows: int = 0) -> Iterator[Block]:
        """Yield the chunk at once: it is there."""
        yield self._source.read(chunk)


def is_sliced(X: object) -> bool:
    """Tell whether an object is read slice by slice: masked, or an array of another library.

    Examples
    --------
    >>> is_sliced(np.ma.masked_array([[1.0]])), is_sliced(np.eye(2)), is_sliced([[1.0]])
    (True, False, False)
    """
    if isinstance(X, np.ndarray | np.generic) or type(X).__module__.split(".")[0] in TABLES:
        return isinstance(X, np.ma.MaskedArray)
    if not all(hasattr(X, part) for part in ("shape", "dtype", "__getitem__")):
        return False
    try:
        numpy_dtype(X)
    except TypeError:
        return False
    return True


def numpy_dtype(X: Any) -> np.dtype[Any]:
    """Return the type of an array's numbers; TensorStore has types of its own."""
    dtype: np.dtype[Any] = np.dtype(getattr(X.dtype, "numpy_dtype", X.dtype))
    return dtype


def is_compact(X: object) -> bool:
    """Tell whether an object is a NumPy array of numbers that are read in their own type.

    Examples
    --------
    >>> is_compact(np.zeros((2, 2), dtype="u1")), is_compact(np.zeros((2, 2)))
    (True, False)
    """
    if not isinstance(X, np.ndarray) or isinstance(X, np.ma.MaskedArray | np.matrix):
        return False
    compact = X.dtype.kind in "fiub" and X.dtype.itemsize <= np.dtype(np.float64).itemsize
    return compact and X.dtype not in (np.float64, np.float32)


def array_source(X: object, sample_weight: object, options: ReadOptions) -> ArraySource:
    """Make a source of whatever NumPy takes for an array of rows, and its weights."""
    rows = SlicedRows.of(X, options.raw) if is_sliced(X) else np.asarray(X)
    if isinstance(rows, np.ndarray) and not rows.dtype.isnative:
        rows = SlicedRows.of(rows)
    return rows_source(rows, sample_weight)


def rows_source(rows: Array | Rows, sample_weight: object) -> ArraySource:
    """Make a source of rows in this process, and their weights.

    Raises
    ------
    DataError
        Wrong shape or type, or weights of another length.
    """
    check_array("X", rows, 2)
    weight = None if sample_weight is None else memory_weight(sample_weight, len(rows))
    return ArraySource(rows, weight)


def cells_in_memory(
    cells: Cells, numbers: Sequence[int], sample_weight: Any, options: ReadOptions
) -> ArraySource:
    """Make a source of the cells of a grid in memory, in C order, of the columns of some numbers.

    Raises
    ------
    DataError
        Weights are not one a cell.
    """
    if sample_weight is not None:
        sample_weight = cell_weights(sample_weight, cells.shape).reshape(-1)
    source = array_source(cells.taken(numbers), sample_weight, options)
    grid = cells.grid if len(cells.dims) > 1 else None
    return replace(source, grid=grid, packed=cells.said())
