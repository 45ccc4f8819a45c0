"""Cells of a grid of Zarr arrays: its blocks are read with all variables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...core.additive import Array
from ...core.columns import Column
from ...core.grid import Coordinate, Grid
from ...core.tuning import tuning
from ...storage.outputs.stamps import joined_stamps, window_stamps
from ..options import ReadOptions
from ..packing import Packing
from ..ranged import NothingCarried, RangedSource, RowsReader

if TYPE_CHECKING:
    import zarr

    # The API reference reads the annotation of an inherited field here.
    from ...core.beside import Beside  # noqa: F401


@dataclass(frozen=True)
class Layer:
    """One array of a grid: all variables, or one of them.

    Attributes
    ----------
    array : zarr.Array
    axes : tuple of int
        Those of the grid's dimensions, in their order.
    variables : int or None
        The axis of the variables; None where the array is one of them.
    options : ReadOptions
    picked : tuple of int
        Numbers of the variables that are read, in their order; all where empty.
    recoded : tuple of int
        What each code of a variable of categories becomes; empty where they stay.

    Examples
    --------
    >>> import zarr
    >>> layer = Layer(zarr.zeros((3, 4, 5), chunks=(1, 2, 5)), (1, 2), 0)
    >>> layer.width, layer.units(), layer.window((slice(0, 2), slice(0, 5)))
    (3, (2, 5), (slice(0, 3, None), slice(0, 2, None), slice(0, 5, None)))
    """

    array: zarr.Array[Any]
    axes: tuple[int, ...]
    variables: int | None = None
    options: ReadOptions = field(default_factory=ReadOptions)
    picked: tuple[int, ...] = ()
    recoded: tuple[int, ...] = ()

    @cached_property
    def packing(self) -> Packing | None:
        """How the stored numbers are packed or masked, None where they are plain."""
        from .layout import packing_of

        return packing_of(self.array, self.options)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the decoded numbers."""
        return self.packing.dtype if self.packing else np.dtype(self.array.dtype)

    @property
    def width(self) -> int:
        """Variables that are read."""
        if self.variables is None:
            return 1
        return len(self.picked) or int(self.array.shape[self.variables])

    @property
    def span(self) -> slice:
        """The variables that are read, and those between them."""
        if self.variables is None:
            return slice(0, 1)
        picked = self.picked or range(self.array.shape[self.variables])
        return slice(min(picked), max(picked) + 1)

    def units(self, inner: bool = False) -> tuple[int, ...]:
        """Return what is stored together along each of the grid's dimensions: shards, or chunks."""
        shape = self.array.chunks if inner else self.array.shards or self.array.chunks
        return tuple(int(min(shape[axis], self.array.shape[axis])) for axis in self.axes)

    def window(self, block: Sequence[slice]) -> tuple[slice, ...]:
        """Return where a block of the grid lies in the array."""
        found = [self.span] * int(self.array.ndim)
        for axis, part in zip(self.axes, block, strict=True):
            found[axis] = part
        return tuple(found)

    def fill(self, found: Array, rows: Array) -> None:
        """Decode a window that was read into rows (cells, width): its numbers are moved once."""
        found = self.packing.decode(found) if self.packing else found
        if self.recoded:
            codes = np.nan_to_num(found.astype(np.float64), nan=len(self.recoded))
            found = np.array([*self.recoded, np.nan])[codes.astype(np.int64)]
        if self.variables is None:
            cells = found.transpose(self.axes)[..., None]
        else:
            cells = found.transpose(*self.axes, self.variables)
            if self.picked:
                cells = cells[..., np.asarray(self.picked) - self.span.start]
        rows.reshape(cells.shape)[...] = cells

    def files(self, block: Sequence[int]) -> int:
        """Return how many chunks (or shards) of the array hold a block of so many cells."""
        shape = self.array.shards or self.array.chunks
        many = [-(-n // int(shape[axis])) for axis, n in zip(self.axes, block, strict=True)]
        if self.variables is not None:
            size = int(shape[self.variables])
            many.append(-(-self.span.stop // size) - self.span.start // size)
        return int(np.prod(many))

    def reading_bytes(self, block: Sequence[int]) -> int:
        """Count what reading a block of so many cells takes, beside the rows that it becomes."""
        import zarr

        from .layout import is_encoded

        shape, stored = self.array.shards or self.array.chunks, int(self.array.dtype.itemsize)
        span = 1 if self.variables is None else self.span.stop - self.span.start
        numbers = int(np.prod(block)) * span
        # Zarr holds so many files at a time, as they lie and decompressed.
        at_once = min(self.files(block), int(zarr.config.get("async.concurrency") or 1))
        files = (1 + is_encoded(self.array)) * at_once * int(np.prod(shape)) * stored
        decoded = numbers * (self.dtype.itemsize + 1) if self.packing or self.recoded else 0
        return numbers * stored + max(files, decoded)


@dataclass(frozen=True)
class GridRows(NothingCarried):
    """Cells of a grid of Zarr arrays, block by block.

    Attributes
    ----------
    layers : tuple of Layer
        The variables, in their order.
    grid : Grid
    columns : tuple of Column, or None
    description : str
    weight : Layer or None
        One weight a cell.
    """

    layers: tuple[Layer, ...]
    grid: Grid
    columns: tuple[Column, ...] | None
    description: str
    weight: Layer | None = None

    @property
    def n_features(self) -> int:
        """Variables."""
        return sum(layer.width for layer in self.layers)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the decoded numbers, which holds all variables."""
        return np.result_type(*(layer.dtype for layer in self.layers))

    @cached_property
    def groups(self) -> Array:
        """First row of each block, and the number of rows."""
        return np.concatenate([[0], np.cumsum(self.grid.lengths)])

    @property
    def weight_name(self) -> str:
        """Where weights are stored, empty where none are."""
        return "" if self.weight is None else str(self.weight.array.store_path)

    @property
    def library_bytes(self) -> int:
        """Bytes of Zarr's threads, which read."""
        return tuning().plan.zarr_threads_bytes

    @property
    def decoding(self) -> str:
        """How stored numbers become the rows; empty where they are the rows."""
        said = [str(layer.packing or "") for layer in self.layers]
        if len({*said}) == 1:
            return said[0]
        names = [column.name for column in self.columns or ()]
        return "; ".join(f"{n}: {text}" for n, text in zip(names, said, strict=True) if text)

    @property
    def lacks_checksum(self) -> str:
        """Say what to do where flipped bits would pass for data; empty where none would."""
        from .layout import has_checksum
        from .source import CHECKSUM

        return "" if all(has_checksum(layer.array) for layer in self.layers) else CHECKSUM

    @property
    def layout_advice(self) -> str:
        """Say in which dimensions the cells lie."""
        sizes = zip(self.grid.dims, self.grid.shape, strict=True)
        return f"each cell of {' x '.join(f'{dim} ({n:,})' for dim, n in sizes)} is a row"

    def decoding_bytes(self, chunk_rows: int) -> int:
        """Count what reading takes beside the rows: of one array after the other."""
        block = [max(along) for along in self.grid.chunks]
        return max(layer.reading_bytes(block) for layer in self.all_layers)

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        """The variables and, where they are stored, the weights."""
        return self.layers if self.weight is None else (*self.layers, self.weight)

    def named(self) -> Iterator[tuple[Layer, str]]:
        """Yield layers, and what an error calls each."""
        yield from ((layer, "sample_weight" if layer is self.weight else "X")
                    for layer in self.all_layers)  # fmt: skip

    def open(self) -> RowsReader:
        """Open the arrays for one range."""
        return GridReader(self)

    def check(self) -> None:
        """Look for all chunks in the store, at the cost of listings, and for checksums.

        Raises
        ------
        DataError
            Chunks are missing, or links to another place, or an array is not what it was when it
            was opened.
        """
        from .source import look_at

        for layer, name in self.named():
            look_at(layer.array, name, layer.options)

    def presence(self) -> str:
        """Check by listings that all files of the arrays are there, and count them."""
        from .layout import describe_presence

        arrays = [(layer.array, name) for layer, name in self.named()]
        return describe_presence(arrays, self.layers[0].options.missing_chunks)

    def place(self, row: int) -> str:
        """Say which cell a row is, where there are several dimensions."""
        if len(self.grid.dims) == 1:
            return ""
        block = int(np.searchsorted(self.groups, row, side="right")) - 1
        return f" (the cell {self.grid.cell(block, row - int(self.groups[block]))})"

    def stamps(self, spans: Sequence[tuple[int, int]]) -> list[str]:
        """Return what tells whether somebody wrote to the chunks of these spans of rows since."""
        blocks = [np.searchsorted(self.groups, span).tolist() for span in spans]
        windows = [
            [[layer.window(self.grid.window(i)) for i in range(*span)] for span in blocks]
            for layer in self.layers
        ]
        found = [
            window_stamps(layer.array, of_layer)
            for layer, of_layer in zip(self.layers, windows, strict=True)
        ]
        return joined_stamps(found)


@dataclass(frozen=True)
class GridSource(RangedSource):
    """Take the blocks of a grid of Zarr arrays as chunks of rows.

    Attributes
    ----------
    rows : GridRows

    Examples
    --------
    >>> import zarr
    >>> bands = zarr.ones((3, 4, 5), chunks=(1, 2, 5))
    >>> grid = Grid(("y", "x"), ((2, 2), (5,)))
    >>> source = GridSource.of(GridRows((Layer(bands, (1, 2), 0),), grid, None, "bands"))
    >>> source.n_rows, source.n_features, source.n_chunks, source.locate(1, 7)
    (20, 3, 2, 'row 17 (the cell y 3, x 2)')
    """

    rows: GridRows

    @classmethod
    def of(
        cls,
        rows: GridRows,
        memory_weight: Array | None = None,
        options: ReadOptions | None = None,
    ) -> GridSource:
        """Make a chunk of each block; weights in memory are of the grid's shape."""
        weight = None
        if memory_weight is not None:
            blocks = range(rows.grid.n_blocks)
            parts = [memory_weight[rows.grid.window(i)].reshape(-1) for i in blocks]
            weight = np.concatenate(parts)
        return cls(rows, weight, options=options or ReadOptions(), cuts=rows.groups)

    @property
    def grid(self) -> Grid:
        return self.rows.grid

    @property
    def decoding(self) -> str:
        return self.rows.decoding

    def coordinates(self) -> Sequence[Coordinate]:
        """Return what lies beside the arrays and tells where the cells lie."""
        from .around import coordinates_of

        return coordinates_of(self.rows.layers[0].array, self.grid.dims)

    def storage_notes(self) -> str:
        """Say how stored numbers are decoded, and in which dimensions they lie."""
        lies = self.rows.layout_advice
        return f"{lies}; packed, and decoded by {self.decoding}" if self.decoding else lies

    def even(self) -> Self:
        """Return the source itself: its chunks are blocks of the grid."""
        return self

    @property
    def in_process(self) -> bool:
        from zarr.storage import MemoryStore

        return any(isinstance(one.array.store, MemoryStore) for one in self.rows.all_layers)


class GridReader:
    """Read blocks of a grid, of one array after the other."""

    def __init__(self, rows: GridRows) -> None:
        from .layout import check_same
        from .watched import WatchedReader

        self._rows, self._readers = rows, []
        for layer, name in rows.named():
            check_same(layer.array, name)
            reader = WatchedReader(layer.array, layer.options.missing_chunks, name)
            self._readers.append((layer, reader))

    def read(self, start: int, out: Array) -> Array | None:
        """Fill `out` (n, d) with whole blocks, of which the first begins at row `start`.

        Returns
        -------
        array or None
            Their weights (n,), where they are stored.
        """
        groups, weights = self._rows.groups, []
        first, stop = np.searchsorted(groups, (start, start + len(out)))
        for block in range(int(first), int(stop)):
            rows = out[int(groups[block]) - start : int(groups[block + 1]) - start]
            window, column = self._rows.grid.window(block), 0
            for layer, reader in self._readers:
                found = reader.read(*layer.window(window))
                if layer is self._rows.weight:
                    weights.append(np.empty((len(rows), 1)))
                    layer.fill(found, weights[-1])
                else:
                    layer.fill(found, rows[:, column : column + layer.width])
                    column += layer.width
        return np.concatenate(weights)[:, 0] if weights else None

    def close(self) -> None:
        """Do nothing: no files are held open."""


def cut(layers: Sequence[Layer], dims: tuple[str, ...], shape: tuple[int, ...]) -> Grid:
    """Cut a grid into blocks of whole chunks, or shards; several, where they are small.

    Examples
    --------
    >>> import zarr
    >>> bands = zarr.zeros((3, 4000, 5000), chunks=(1, 100, 1000), dtype="f4")
    >>> grid = cut([Layer(bands, (1, 2), 0)], ("y", "x"), (4000, 5000))
    >>> [along[0] for along in grid.chunks], [along[0] for along in grid.pieces]
    ([100, 5000], [100, 1000])
    """
    row_bytes = sum(layer.width * layer.dtype.itemsize for layer in layers)
    reading = tuning().reading
    units = [max(sizes) for sizes in zip(*(layer.units() for layer in layers), strict=True)]
    if row_bytes * int(np.prod(units)) > reading.bytes:
        # A large shard is read in parts.
        inner = zip(*(layer.units(inner=True) for layer in layers), strict=True)
        units = [max(sizes) for sizes in inner]
    block = [min(unit, n) for unit, n in zip(units, shape, strict=True)]
    for axis in reversed(range(len(shape))):
        together = reading.bytes // (row_bytes * int(np.prod(block)))
        files = sum(layer.files(block) for layer in layers)
        many = max(1, min(together, reading.most_together // max(1, files)))
        block[axis] = min(shape[axis], many * units[axis])
        if block[axis] < shape[axis]:
            break
    return Grid(dims, *(tuple(map(_lengths, shape, sizes)) for sizes in (block, units)))


def _lengths(n: int, size: int) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in pairwise([*range(0, n, size), n]))
