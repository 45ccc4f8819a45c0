"""Lazy values for every row: Dask arrays of the chunks of a source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.additive import Array
from ..core.columns import Column
from ..core.finite import located
from ..core.grid import Grid
from ..core.protocols import RowValues, Source

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

    read = {"source": delayed(source, traverse=False)}
    values = _mapped(_of_chunk, [], tuple(lengths), function, width, dtype, read)
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


def _of_chunk(
    source: Source, function: Callable[[Array], Array], block_id: tuple[int, ...]
) -> Array:
    X, _ = source.reader().read(block_id[0])
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
