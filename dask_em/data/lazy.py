"""Lazy values for every row: Dask arrays of the chunks of a source."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.additive import Array
from ..core.beside import Beside
from ..core.columns import Column
from ..core.finite import located
from ..core.grid import Grid
from ..core.protocols import RowValues, Source
from ..core.reading import rows_with_noise

if TYPE_CHECKING:
    import dask.array as da


def map_chunks(
    source: Source,
    lengths: Sequence[int],
    blocks: Sequence[int],
    function: Callable[[Array], Array],
    width: int | None,
    dtype: np.dtype[Any],
) -> RowValues:
    """Return a Dask array of a function of each chunk, which its task reads by itself.

    So no rows pass through Dask's memory.

    Parameters
    ----------
    source : Source
    lengths : sequence of int
        Rows of each chunk.
    blocks : sequence of int
        Rows of each block of the array that is returned.
    function : callable
        Rows (n, d) -> (n,), or (n, width).
    width : int or None
    dtype : dtype
        Of what `function` returns.
    """
    from dask.delayed import delayed

    read: dict[str, Any] = {"source": delayed(source, traverse=False)}
    beside = [_beside_chunks(source, len(lengths))] if source.beside.noise is not None else []
    if beside and width:
        read["new_axis"] = [1]
    values = _mapped(_of_chunk, beside, tuple(lengths), function, width, dtype, read)
    # Blocks of neighbouring rows need no shuffle.
    lined_up: RowValues = values.rechunk({0: tuple(blocks)}, method="tasks")
    return lined_up


def map_blocks(
    X: da.Array,
    function: Callable[[Array], Array],
    width: int | None,
    dtype: np.dtype[Any],
    columns: Sequence[Column] | None = None,
) -> RowValues:
    """Return a Dask array of a function of each block of rows of another one; see `map_chunks`."""
    more = {"drop_axis": () if width else (1,), "columns": columns}
    values: RowValues = _mapped(_of_block, [X], X.chunks[0], function, width, dtype, more)
    return values


def _mapped(
    task: Callable[..., Array],
    arrays: Sequence[da.Array],
    lengths: tuple[float, ...],
    function: Callable[[Array], Array],
    width: int | None,
    dtype: np.dtype[Any],
    more: dict[str, Any],
) -> da.Array:
    import dask.array as da
    from dask.delayed import delayed

    values: da.Array = da.map_blocks(
        task,
        *arrays,
        function=delayed(function, traverse=False),
        chunks=(lengths, (width,)) if width else (lengths,),
        dtype=dtype,
        meta=np.empty((0, width) if width else (0,), dtype=dtype),
        **more,
    )
    return values


def _beside_chunks(source: Source, n_chunks: int) -> da.Array:
    """Return what stands beside each chunk, as a Dask array of one object a chunk."""
    import dask.array as da

    name = f"em-beside-{uuid.uuid4().hex}"
    graph = {(name, i): (_held, source.shipped_beside(range(i, i + 1))) for i in range(n_chunks)}
    return da.Array(graph, name, ((1,) * n_chunks,), dtype=object, meta=np.empty(0, dtype=object))


def _held(value: Beside) -> Array:
    out = np.empty(1, dtype=object)
    out[0] = value
    return out


def _of_chunk(
    *beside: Array,
    source: Source,
    function: Callable[[Array], Array],
    block_id: tuple[int, ...],
) -> Array:
    X, _ = source.reader().read(block_id[0])
    if beside:
        X = rows_with_noise(source, beside[0][0], block_id[0], X)
    with located(source.locate, block_id[0], source.columns):
        return function(X)


def gridded(values: RowValues, grid: Grid) -> Any:
    """Return values for each cell in the shape of the grid, (*shape,) or (*shape, k).

    Parameters
    ----------
    values : (n,) or (n, k) array
        NumPy in C order of the grid, or Dask, of a block for each of the grid's.
    grid : Grid

    Examples
    --------
    >>> gridded(np.arange(6), Grid(("y", "x"), ((2,), (3,))))
    array([[0, 1, 2],
           [3, 4, 5]])
    """
    tail = values.shape[1:]
    if isinstance(values, np.ndarray):
        return values.reshape(*grid.shape, *tail)
    from dask.array import reshape_blockwise

    chunks = (*grid.chunks, *((k,) for k in tail))
    found: Any = values
    if len(grid.dims) > 1:
        found = reshape_blockwise(found, (*grid.shape, *tail), chunks=chunks)
    return found.rechunk((*grid.pieces, *chunks[len(grid.dims) :])) if grid.pieces else found


def row_of_block(block: int, row: int) -> str:
    """Say which row of a Dask array a row of one of its blocks is, for a message."""
    return f"row {row} of block {block}"


def _of_block(
    X: Array,
    function: Callable[[Array], Array],
    columns: Sequence[Column] | None,
    block_id: tuple[int, ...],
) -> Array:
    with located(row_of_block, block_id[0], columns):
        return function(X)
