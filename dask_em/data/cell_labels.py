"""Labels or responsibilities of the cells of a grid, brought beside the cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.additive import Array
from ..core.beside import LABELS, RowField
from ..core.grid import Grid
from ..core.protocols import Source
from ..errors import DataError
from .beside import LabelCheck
from .block_beside import BlockField
from .dask import DaskSource, cells_in_rows, decoded, is_dask, numbers
from .given_beside import (
    MemoryField,
    StoredField,
    as_numbers,
    for_blocks,
    in_process,
    is_stored,
)
from .grids import Part
from .options import ReadOptions

if TYPE_CHECKING:
    from .zarr.grid import Layer


def has_cells(source: Source) -> bool:
    """Tell whether the rows of a source are the cells of a grid of several dimensions."""
    return source.grid is not None and len(source.grid.dims) > 1


def labels_of_cells(
    source: Source, labels: Any, check: LabelCheck, options: ReadOptions
) -> RowField:
    """Return labels of the cells of a grid as a field beside its rows.

    Parameters
    ----------
    source : Source
        Whose rows are cells.
    labels : object
        An array of any kind of the grid's shape, or (*shape, k) of responsibilities; one that lies
        flat is of the cells in C order. Masked ones are unknown.
    check : LabelCheck
    options : ReadOptions
        How what is stored is read.

    Raises
    ------
    DataError
        They are not one a cell.
    """
    grid = source.grid
    assert grid is not None
    if is_stored(labels) and not _flat(labels.shape, grid):
        layer = _layer(labels, grid, check.k, options)
        if not isinstance(source, DaskSource) and not in_process(labels):
            shape = () if layer.variables is None else (layer.width,)
            cells = int(grid.lengths.sum())
            return StoredField(LayerLabels(layer, grid), cells, shape, check, grid)
        variables = () if layer.variables is None else (layer.variables,)
        part = Part(labels, layer.packing)
        labels = decoded(part).transpose((*layer.axes, *variables))
    values = for_blocks(labels, as_numbers)
    if _flat(values.shape, grid):
        # One column of a table is a number a cell.
        own = () if values.shape[1:] == (1,) else values.shape[1:]
        values = values.reshape(*grid.shape, *own)
    _check_shape(tuple(values.shape), grid, check.k)
    if isinstance(source, DaskSource):
        rows = cells_in_rows(values, grid)
        return BlockField(rows[:, None] if rows.ndim == 1 else rows, check)
    values = np.asarray(numbers(values).compute() if is_dask(values) else values)
    windows = [values[grid.window(block)] for block in range(grid.n_blocks)]
    tail = values.shape[len(grid.dims) :]
    flat = np.concatenate([window.reshape(-1, *tail) for window in windows])
    return MemoryField(flat, check, grid=grid)


def _flat(shape: tuple[int, ...], grid: Grid) -> bool:
    """Tell whether an array holds the cells along its first axis."""
    return len(shape) <= 2 and shape[0] == int(grid.lengths.sum()) and shape != grid.shape


def _check_shape(shape: tuple[int, ...], grid: Grid, k: int) -> None:
    """Raise `DataError` unless an array has one label, or k responsibilities, a cell."""
    if shape not in (grid.shape, (*grid.shape, k)):
        raise DataError(
            f"{LABELS} has shape {shape}: expected one label a cell of {', '.join(grid.dims)}, "
            f"{grid.shape}, or responsibilities of the {k} components, {(*grid.shape, k)}"
        )


def _layer(labels: Any, grid: Grid, k: int, options: ReadOptions) -> Layer:
    """Return a stored array as one of the grid's dimensions, in whatever order their names have."""
    from .zarr.variables import layer_of_cells

    layer = layer_of_cells(labels, grid.dims, options)
    others = () if layer.variables is None else (layer.variables,)
    _check_shape(tuple(int(labels.shape[axis]) for axis in (*layer.axes, *others)), grid, k)
    return layer


@dataclass(frozen=True)
class LayerLabels:
    """Read labels of the cells of a grid from an array of Zarr, block by block.

    Attributes
    ----------
    layer : Layer
        Of one number a cell, or of the responsibilities as variables.
    grid : Grid
        Of the rows.
    """

    layer: Layer
    grid: Grid

    def open(self) -> Callable[[int, int], Array]:
        """Return what reads the labels of rows start to stop."""
        return _BlockReader(self).read


class _BlockReader:
    """Hold the block of labels that was read last."""

    def __init__(self, labels: LayerLabels) -> None:
        self._layer, self._grid = labels.layer, labels.grid
        self._groups = np.concatenate([[0], np.cumsum(self._grid.lengths)]).tolist()
        self._number, self._held = -1, np.empty((0, 1))

    @cached_property
    def _reader(self) -> Any:
        from .zarr.watched import WatchedReader

        return WatchedReader(self._layer.array, self._layer.options.missing_chunks, LABELS)

    def read(self, start: int, stop: int) -> Array:
        first, last = np.searchsorted(self._groups, [start + 1, stop]).tolist()
        parts = []
        for block in range(first - 1, last):
            origin = self._groups[block]
            parts.append(self._block(block)[max(0, start - origin) : stop - origin])
        return np.concatenate(parts)

    def _block(self, number: int) -> Array:
        if number != self._number:
            window = self._layer.window(self._grid.window(number))
            rows = np.empty((int(self._grid.lengths[number]), self._layer.width))
            self._layer.fill(self._reader.read(*window), rows)
            self._number, self._held = number, rows
        return self._held
