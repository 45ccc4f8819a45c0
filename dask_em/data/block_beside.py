"""Labels and noise of rows in the blocks of a Dask array, beside rows of the same blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..core.additive import Array
from ..core.beside import Beside, FieldReader, RowField, joined
from .beside import FieldCheck
from .lazy import row_of_block

if TYPE_CHECKING:
    import dask.array as da


@dataclass(frozen=True)
class BlockField(RowField):
    """Numbers beside rows as a Dask array of the blocks of the rows.

    Attributes
    ----------
    columns : dask.array.Array
        (n, s), in one block of columns; of one number a row (n, 1).
    check : FieldCheck
    """

    columns: da.Array
    check: FieldCheck

    def with_columns(self, columns: da.Array) -> BlockField:
        """Return the field of other rows, of an array like `columns`."""
        return replace(self, columns=columns)

    def open(self) -> FieldReader:
        """Return what computes them block by block."""
        return BlockFieldReader(self)

    def of_rows(self, start: int, stop: int) -> RowField:
        """Return the same, of which blocks are computed."""
        return self

    def identity(self) -> str:
        """Return that there are some: the graph is taken at its word."""
        shape, dtype = self.columns.shape, self.columns.dtype
        return f"Dask array {shape if shape[1] > 1 else shape[:1]} {dtype}"

    @property
    def width(self) -> int:
        """Numbers that are read of a row."""
        return self.check.width((int(self.columns.shape[1]),))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's numbers, as they are made, moved and checked."""
        return 24 * int(self.columns.shape[1])

    @property
    def block_check(self) -> BlockCheck:
        """The function that checks a block of `columns`."""
        return BlockCheck(self.check)


@dataclass(frozen=True)
class BlockCheck:
    """Check the numbers beside the rows of chunk number `chunk`."""

    check: FieldCheck

    def __call__(self, columns: Array, chunk: int) -> Array:
        """Return a block (b, s) as passes take it."""
        return self.check(columns, partial(row_of_block, chunk))


class BlockFieldReader(FieldReader):
    """Compute blocks in the calling thread."""

    def __init__(self, field: BlockField) -> None:
        self._columns, self._check = field.columns, field.block_check

    def read(self, chunk: int, start: int, stop: int) -> Array:
        """Return that of a chunk, whatever the numbers of its rows."""
        found = self._columns.blocks[chunk].compute(scheduler="synchronous")
        return self._check(np.asarray(found), chunk)


def blocks_of(field: RowField | None) -> BlockField | None:
    """Return a field beside blocks of Dask as what it is."""
    assert field is None or isinstance(field, BlockField)
    return field


def rows_with_noise(X: da.Array, beside: Beside) -> da.Array:
    """Return rows (n, d) with their noise behind the columns, where there is some."""
    noise = blocks_of(beside.noise)
    if noise is None:
        return X
    import dask.array as da

    found: da.Array = da.map_blocks(
        _joined_block,
        X,
        noise.columns,
        check=noise.block_check,
        chunks=(X.chunks[0], (int(X.shape[1]) + noise.width,)),
        dtype=np.float64,
        meta=np.empty((0, 0)),
    )
    return found


def _joined_block(X: Array, noise: Array, check: BlockCheck, block_id: tuple[int, int]) -> Array:
    return joined(X, check(noise, block_id[0]))
