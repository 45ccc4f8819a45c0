"""Rows of a Dask array with a graph of its own, whose blocks of rows are the chunks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..core.additive import Array
from ..core.beside import NOTHING, Beside, joined
from ..core.chunk_log import ChunkLog
from ..core.columns import Column
from ..core.finite import Missing, finite_mask, located
from ..core.grid import Grid
from ..core.protocols import (
    Block,
    BlockFunction,
    DelayedBlocks,
    Reader,
    RowValues,
    Source,
    T,
)
from ..core.tuning import tuning
from ..errors import DataError
from ..storage.urls import describe_store
from .block_beside import BlockCheck, BlockField, blocks_of, rows_with_noise
from .checks import cell_weights, check_array, check_weight, memory_weight, tell_once
from .grids import Cells, Part
from .identity import layout_identity
from .lazy import map_blocks, row_of_block
from .options import ReadOptions
from .packing import masked_dtype, unmasked

if TYPE_CHECKING:
    import dask.array as da
    import zarr

    from .zarr.watched import CheckedRows


@dataclass(frozen=True)
class DaskSource(Source):
    """Take the blocks of rows of a Dask array as chunks.

    Attributes
    ----------
    X : dask.array.Array
        (n, d), of one block of columns.
    sample_weight : dask.array.Array or None
        (n,), of the same blocks.
    n_dropped : int
        Rows of NaN or infinity that are left out.
    grid : Grid or None
        Of which each block is a block of rows.
    columns : sequence of Column, or None
        None where they have no names.
    decoding : str
    beside : Beside
        What else stands beside the rows: `BlockField`s, of the same blocks.
    """

    X: da.Array
    sample_weight: da.Array | None = None
    n_dropped: int = 0
    grid: Grid | None = None
    columns: Sequence[Column] | None = None
    decoding: str = ""
    beside: Beside = NOTHING

    @property
    def n_rows(self) -> int | None:
        return None if np.isnan(self.X.shape[0]) else int(self.X.shape[0])

    @property
    def n_features(self) -> int:
        return int(self.X.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.X.dtype)
        return dtype

    @property
    def n_chunks(self) -> int:
        return len(self.X.chunks[0])

    @property
    def chunk_rows(self) -> int:
        """Rows of the largest block whose length is known."""
        return max(self._lengths)

    @property
    def weighted(self) -> bool:
        """Whether rows have weights."""
        return self.sample_weight is not None

    @property
    def held_bytes(self) -> int:
        """Bytes of a block twice, as it is made and when it is whole, and of its weights."""
        weights = 0 if self.sample_weight is None else 2 * 8 * self.chunk_rows
        row = self.n_features * self.dtype.itemsize
        return (2 * row + self.beside.row_bytes(row)) * self.chunk_rows + weights

    @property
    def library_bytes(self) -> int:
        """Bytes of Dask's arrays, which the tasks import."""
        return tuning().plan.dask_array_bytes

    @property
    def shipped_bytes(self) -> int:
        """Bytes of the arrays in memory that the graph holds."""
        arrays = [self.X] if self.sample_weight is None else [self.X, self.sample_weight]
        arrays += [field.columns for field in self._fields if field is not None]
        layers = {name: layer for a in arrays for name, layer in a.dask.layers.items()}
        # What is not materialized is made of names and functions.
        tasks = [t for one in layers.values() if one.is_materialized() for t in one.values()]
        values = [getattr(task, "value", task) for task in tasks]
        return sum(value.nbytes for value in values if isinstance(value, np.ndarray))

    @property
    def description(self) -> str:
        return f"Dask array {self.X.shape} {self.X.dtype}"

    def ranges(self) -> list[range]:
        """Return one range a block: other tasks make the blocks."""
        return [range(i, i + 1) for i in range(self.n_chunks)]

    def rows_of(self, chunks: range) -> int:
        """Return the number of rows in these chunks."""
        return sum(self._lengths[chunks.start : chunks.stop])

    @property
    def _lengths(self) -> list[int]:
        return [0 if np.isnan(n) else int(n) for n in self.X.chunks[0]]

    def reader(self) -> Reader:
        """Open the source for one range."""
        return DaskReader(self)

    def delayed_blocks(
        self, function: BlockFunction[T, Any], shared: T, name: str
    ) -> DelayedBlocks:
        """Make the tasks that call `function` on each block, fused with those that make it."""
        import dask
        import dask.array as da
        from dask.delayed import delayed

        arrays = [self.X]
        if self.sample_weight is not None:
            arrays.append(self.sample_weight[:, None])
        labels, noise = self._fields
        arrays += [field.columns for field in (labels, noise) if field is not None]
        results = da.map_blocks(
            _of_block,
            *arrays,
            weighted=self.weighted,
            labels=None if labels is None else labels.block_check,
            noise=None if noise is None else noise.block_check,
            function=function,
            shared=delayed(shared, name=f"em-params-{name}", traverse=False),
            columns=self.columns,
            chunks=((1,) * self.n_chunks, (1,)),
            dtype=object,
            meta=np.empty((0, 0), dtype=object),
            name=f"em-block-{name}",
        )
        # Fused with the tasks that make the blocks.
        (optimized,) = dask.base.optimize(results)
        keys = [key for (key,) in optimized.__dask_keys__()]
        return DelayedBlocks(dict(optimized.__dask_graph__()), keys, self._lengths)

    def map_rows(
        self, function: Callable[[Array], Array], width: int | None, dtype: np.dtype[Any]
    ) -> RowValues:
        """Compute a function of all rows, lazily and block by block."""
        rows = rows_with_noise(self.X, self.beside)
        return map_blocks(rows, function, width, dtype, self.columns)

    def held_to(self, log: ChunkLog, forced: bool = False) -> Self:
        """Return the same rows without those that a first pass dropped."""
        if not log.dropping:
            return self
        import dask.array as da

        dropped = dict(log.dropped)
        lengths = tuple(n - dropped.get(block, 0) for block, n in enumerate(self.X.chunks[0]))

        labels, noise = self._fields
        tested = [self.X] if noise is None else [self.X, noise.columns]

        def filtered(like: da.Array) -> Any:
            return da.map_blocks(
                _finite_block,
                like,
                *tested,
                dropping=log.dropping,
                missing=log.missing,
                chunks=(lengths, like.chunks[1]),
                dtype=like.dtype,
                meta=np.empty((0, 0), dtype=like.dtype),
            )

        weight = self.sample_weight
        if weight is not None:
            weight = filtered(weight[:, None])[:, 0]
        kept = (
            None if field is None else field.with_columns(filtered(field.columns))
            for field in (labels, noise)
        )
        return replace(
            self,
            X=filtered(self.X),
            sample_weight=weight,
            beside=Beside(*kept),
            n_dropped=log.n_dropped,
        )

    @property
    def _fields(self) -> tuple[BlockField | None, BlockField | None]:
        """Labels and noise, in blocks."""
        return blocks_of(self.beside.labels), blocks_of(self.beside.noise)

    def with_beside(self, beside: Beside) -> Self:
        """Return the same rows with this beside them, of the same blocks."""
        return replace(self, beside=beside)

    def shipped_beside(self, chunks: range) -> Beside:
        """Return what stands beside the rows, for whoever computes blocks one by one."""
        return self.beside

    def identity(self) -> dict[str, object]:
        """Return what tells the data from others; the graph is taken at its word."""
        weighted = self.sample_weight is not None
        known = {**layout_identity(self, self.X.chunks[0]), "sample_weight": weighted}
        return known | self.beside.identity()

    def locate(self, chunk: int, row: int) -> str:
        """Say which row of the data a chunk's row is."""
        cell = f" (the cell {self.grid.cell(chunk, row)})" if self.grid else ""
        return row_of_block(chunk, row) + cell


class DaskReader(Reader):
    """Compute blocks one by one in the calling thread, for backends without a graph."""

    fingerprints: Mapping[int, int] = MappingProxyType({})

    def __init__(self, source: DaskSource) -> None:
        self._source = source

    def blocks(self, chunk: int, block_rows: int = 0) -> Iterator[Block]:
        """Yield the chunk at once, when it is computed."""
        X: Array = self._source.X.blocks[chunk].compute(scheduler="synchronous")
        weight = self._source.sample_weight
        if weight is None:
            yield X, None
        else:
            found = weight.blocks[chunk].compute(scheduler="synchronous")
            yield X, np.asarray(found, dtype=np.float64)


def _of_block(
    X: Array,
    *beside: Array,
    weighted: bool,
    labels: BlockCheck | None,
    noise: BlockCheck | None,
    function: BlockFunction[T, Any],
    shared: T,
    columns: Sequence[Column] | None,
    block_id: tuple[int, int],
) -> Any:
    left = iter(beside)
    weights = next(left)[:, 0].astype(np.float64) if weighted else None
    known = None if labels is None else labels(next(left), block_id[0])
    if noise is not None:
        X = joined(X, noise(next(left), block_id[0]))
    with located(row_of_block, block_id[0], columns):
        return function(block_id[0], X, weights, known, shared)


def _finite_block(
    values: Array,
    *tested: Array,
    dropping: frozenset[int],
    missing: Missing,
    block_id: tuple[int, int],
) -> Array:
    """The rows of a block of X, or of what is beside it, where those tested are finite."""
    if block_id[0] not in dropping:
        return values
    return values[np.logical_and.reduce([finite_mask(X, missing) for X in tested])]


# -- opening ---------------------------------------------------------------------------


def is_dask(X: object) -> bool:
    """Tell whether an object is a collection of Dask, without an import of Dask."""
    return type(X).__module__.partition(".")[0] == "dask" and hasattr(X, "__dask_graph__")


def is_dask_array(X: object) -> bool:
    """Tell whether an object is an array of Dask, whose blocks are known."""
    return is_dask(X) and hasattr(X, "chunks")


def zarr_behind(
    X: da.Array, name: str = "X", options: ReadOptions | None = None
) -> zarr.Array[Any] | None:
    """Return the Zarr array that a Dask array is nothing but a view of, else None."""
    import zarr

    layers = X.dask.layers
    if len(layers) != 2 or X.name not in layers:
        return None
    (below,) = layers.keys() - {X.name}
    values = list(layers[below].values()) if len(layers[below]) == 1 else []
    array = values[0] if values else None
    array = getattr(array, "value", array)
    if not isinstance(array, zarr.Array) or not X.name.startswith("from-zarr-"):
        return None
    if array.shape != X.shape or array.dtype != X.dtype:
        return None
    # `da.from_zarr(path)` opens local files through fsspec, which reads them slowly.
    files = getattr(array.store, "fs", None)
    local = "file" in getattr(files, "protocol", ()) if files is not None else False
    path = Path(getattr(array.store, "path", ""), array.path)
    array = zarr.open_array(path, mode="r") if local and path.is_dir() else array
    from .zarr.layout import packing_of

    packing = packing_of(array, options)
    if packing is not None:
        raise DataError(
            f"{name} is the Dask array of stored numbers of "
            f"{describe_store(str(array.store_path))}, which are packed ({packing}): pass the "
            "zarr.Array itself, or its path, to have them decoded, or raw=True to take the stored "
            "numbers as they are"
        )
    return array


def checked_rows(array: zarr.Array[Any], options: ReadOptions, name: str) -> CheckedRows:
    """Return what slices an array under the checks of a `ZarrSource`."""
    from .zarr.watched import CheckedRows

    return CheckedRows(array, options, name)


def checked_array(array: zarr.Array[Any], chunk_rows: int, options: ReadOptions, name: str) -> Any:
    """Return a Dask array of whole chunks that are read under the checks of a `ZarrSource`."""
    import dask.array as da

    rows = checked_rows(array, options, name)
    return da.from_array(
        rows,
        chunks=(chunk_rows, *array.shape[1:]),
        name=f"em-zarr-{uuid.uuid4().hex}",
        meta=np.empty((0,) * array.ndim, dtype=rows.dtype),
    )


def dask_source(X: da.Array, sample_weight: Any, options: ReadOptions) -> DaskSource:
    """Make a source of a Dask array, with weights of any kind.

    Raises
    ------
    DataError
        Wrong shape or type, or weights that cannot be brought beside the rows.
    """
    import dask.array as da
    import zarr

    check_array("X", X, 2)
    X = numbers(X)
    X = X.rechunk({1: -1}) if len(X.chunks[1]) > 1 else X
    if sample_weight is None:
        return DaskSource(X)
    if isinstance(sample_weight, zarr.Array):
        rows = int(sample_weight.chunks[0])
        sample_weight = checked_array(sample_weight, rows, options, "sample_weight")
    known = not np.isnan(X.shape[0])
    if not is_dask(sample_weight):
        if not known:
            raise DataError(
                "sample_weight is in memory but the lengths of X's blocks are not known: "
                "call X.compute_chunk_sizes() first, or pass a Dask array of the same blocks"
            )
        sample_weight = da.from_array(memory_weight(sample_weight, X.shape[0]), X.chunks[:1])
    elif known and not np.isnan(sample_weight.shape[0]):
        check_weight(sample_weight, X.shape[0])
        sample_weight = sample_weight.rechunk(X.chunks[:1])
    elif sample_weight.numblocks != X.numblocks[:1]:
        raise DataError(
            f"sample_weight has {sample_weight.numblocks[0]} blocks and X has {X.numblocks[0]}, "
            "of unknown lengths: give both the same blocks"
        )
    return DaskSource(X, numbers(sample_weight))


def cells_source(
    cells: Cells, numbers: Sequence[int], sample_weight: Any, options: ReadOptions
) -> DaskSource:
    """Make a source of the cells of a grid in blocks of Dask: each block is a block of rows.

    Raises
    ------
    DataError
        Weights are not one a cell.
    """
    import dask.array as da

    whole = list(numbers) == list(range(cells.width))
    parts = cells.parts if whole else cells.picked(numbers)
    X = da.concatenate([decoded(part) for part in parts], axis=-1).rechunk({-1: -1})
    grid = Grid(cells.dims, X.chunks[:-1])
    if sample_weight is not None:
        sample_weight = _in_rows(_of_cells(sample_weight, grid), grid)
    source = dask_source(_in_rows(X, grid), sample_weight, options)
    return replace(source, grid=grid if len(grid.dims) > 1 else None, decoding=cells.said())


def decoded(part: Part) -> da.Array:
    """Return an array of any kind in blocks of Dask, decoded."""
    import dask.array as da

    X: da.Array = part.array if is_dask(part.array) else da.from_array(part.array)
    if part.packing is None:
        return X
    meta = np.empty((0,) * X.ndim, part.dtype)
    decoded: da.Array = da.map_blocks(part.packing.decode, X, dtype=part.dtype, meta=meta)
    return decoded


def _of_cells(weight: Any, grid: Grid) -> da.Array:
    """Weights of any kind in blocks of the grid's."""
    import dask.array as da

    if not is_dask(weight):
        weight = da.from_array(cell_weights(weight, grid.shape))
    elif weight.shape != grid.shape:
        check_weight(weight, int(np.prod(grid.shape)))
        weight = weight.reshape(grid.shape)
    blocks: da.Array = weight.rechunk(grid.chunks)
    return blocks


def cells_in_rows(values: Any, grid: Grid) -> da.Array:
    """Return an array of a grid, (*grid,) or (*grid, k), as blocks of its rows, (n,) or (n, k)."""
    import dask.array as da

    lazy = numbers(values) if is_dask(values) else da.from_array(values)
    tail = [-1] * (lazy.ndim - len(grid.dims))
    return _in_rows(lazy.rechunk((*grid.chunks, *tail)), grid)


def _in_rows(X: da.Array, grid: Grid) -> da.Array:
    """Blocks of a grid, (*grid,) or (*grid, d), as blocks of rows."""
    import dask.array as da

    tail = X.shape[len(grid.dims) :]
    if len(grid.dims) == 1:
        return X
    rows: da.Array = da.reshape_blockwise(X, (int(np.prod(grid.shape)), *tail))
    return rows


def numbers(X: da.Array) -> da.Array:
    """Return a Dask array of plain blocks: masked numbers are NaN, and sparse blocks dense.

    Every block is looked at, whatever the meta says: `da.from_delayed` takes masked arrays for
    plain ones.
    """
    import dask.array as da

    masked = isinstance(X._meta, np.ma.MaskedArray)
    dtype = masked_dtype(X.dtype) if masked else X.dtype
    if "sparse" in type(X._meta).__module__ and not np.isnan(X.shape).any():
        most = int(np.prod([max(lengths) for lengths in X.chunks])) * dtype.itemsize
        tell_once(
            f"X is a Dask array of sparse blocks, and a pass computes with all {X.shape[0]:,} x "
            f"{X.shape[1]:,} numbers, made dense in blocks of up to {most / 2**20:.1f} MiB: fewer "
            "columns, such as principal components, cost less"
        )
    plain: da.Array = da.map_blocks(_plain, X, dtype=dtype, meta=np.empty((0,) * X.ndim, dtype))
    return plain


def _plain(block: Any) -> Array:
    if "sparse" in type(block).__module__:
        # Of SciPy, or of the package of that name.
        return np.asarray(block.toarray() if hasattr(block, "toarray") else block.todense())
    return unmasked(block)
