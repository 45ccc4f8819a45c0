"""Cells of a grid as rows: blocks of several dimensions are the chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, Protocol

import numpy as np

from .additive import Array


@dataclass(frozen=True)
class Grid:
    """Cut a grid into blocks, in C order, whose cells are rows in C order.

    Attributes
    ----------
    dims : tuple of str
        Names of the dimensions.
    chunks : tuple of tuple of int
        Lengths of the blocks along each of them.
    pieces : tuple of tuple of int
        Lengths of the pieces in which values of the cells are wanted, each within a block; of the
        blocks where empty.

    Examples
    --------
    >>> grid = Grid(("y", "x"), ((2, 1), (4, 4)))
    >>> grid.shape, grid.n_blocks, grid.lengths.tolist()
    ((3, 8), 4, [8, 8, 4, 4])
    >>> grid.window(3), grid.cell(3, 1)
    ((slice(2, 3, None), slice(4, 8, None)), 'y 2, x 5')
    """

    dims: tuple[str, ...]
    chunks: tuple[tuple[int, ...], ...]
    pieces: tuple[tuple[int, ...], ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each dimension."""
        return tuple(map(sum, self.chunks))

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return int(np.prod([len(along) for along in self.chunks]))

    @cached_property
    def lengths(self) -> Array:
        """Cells of each block, (n_blocks,)."""
        return reduce(np.multiply.outer, map(np.asarray, self.chunks)).reshape(-1)

    def window(self, block: int) -> tuple[slice, ...]:
        """Return where a block lies, along each dimension."""
        numbers = np.unravel_index(block, [len(along) for along in self.chunks])
        starts = [sum(along[:i]) for along, i in zip(self.chunks, numbers, strict=True)]
        return tuple(
            slice(start, start + along[i])
            for start, along, i in zip(starts, self.chunks, numbers, strict=True)
        )

    def cell(self, block: int, row: int) -> str:
        """Say where in the grid a block's row is, for a message."""
        window = self.window(block)
        inside = np.unravel_index(row, [part.stop - part.start for part in window])
        cell = [part.start + int(i) for part, i in zip(window, inside, strict=True)]
        return ", ".join(f"{dim} {i}" for dim, i in zip(self.dims, cell, strict=True))


class Values(Protocol):
    """An array of any library, of which windows are read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths."""

    def __getitem__(self, window: tuple[slice, ...], /) -> Any:
        """Return a window as NumPy has it."""


@dataclass(frozen=True)
class Coordinate:
    """Hold what tells where the cells of a grid lie.

    Attributes
    ----------
    name : str
    dims : tuple of str
        Dimensions of the grid; none of a number or a mapping of the whole grid.
    values : Values
    dtype : dtype
    attributes : mapping
        As the CF conventions have them.
    """

    name: str
    dims: tuple[str, ...]
    values: Values
    dtype: np.dtype[Any]
    attributes: Mapping[str, Any]
