"""Labels of rows in the blocks of a Dask array, beside rows of the same blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..core.additive import Array
from ..core.labels import checked_labels
from ..core.protocols import LabelReader, RowLabels
from .lazy import row_of_block

if TYPE_CHECKING:
    import dask.array as da


@dataclass(frozen=True)
class BlockLabels(RowLabels):
    """Labels as a Dask array of the blocks of the rows.

    Attributes
    ----------
    values : dask.array.Array
        (n,) labels, or (n, k) responsibilities in one block of columns.
    k : int
        Number of components.
    """

    values: da.Array
    k: int

    @property
    def columns(self) -> da.Array:
        """The labels as an array (n, 1), or the responsibilities."""
        return self.values if self.values.ndim == 2 else self.values[:, None]

    def with_columns(self, columns: da.Array) -> BlockLabels:
        """Return labels of other rows, of an array like `columns`."""
        return replace(self, values=columns if self.values.ndim == 2 else columns[:, 0])

    def open(self) -> LabelReader:
        """Return what computes them block by block."""
        return BlockLabelReader(self)

    def of_rows(self, start: int, stop: int) -> RowLabels:
        """Return the same, of which blocks are computed."""
        return self

    def identity(self) -> str:
        """Return that there are some: the graph is taken at its word."""
        return f"Dask array {self.values.shape} {self.values.dtype}"

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's labels, as they are made, moved and checked."""
        width = 1 if self.values.ndim == 1 else int(self.values.shape[1])
        return 24 * width

    @property
    def check(self) -> LabelCheck:
        """The function that checks labels of a block of `columns`, and makes them numbers."""
        return LabelCheck(self.k, self.values.ndim == 2)


@dataclass(frozen=True)
class LabelCheck:
    """Turn a block of numbers into the labels of chunk number `chunk`, checked."""

    k: int
    soft: bool

    def __call__(self, columns: Array, chunk: int) -> Array:
        """Return labels (b,) or responsibilities (b, k) of a block (b, 1) or (b, k)."""
        found = columns if self.soft else columns[:, 0]
        return checked_labels(found, self.k, partial(row_of_block, chunk))


class BlockLabelReader(LabelReader):
    """Compute blocks of labels in the calling thread."""

    def __init__(self, labels: BlockLabels) -> None:
        self._columns, self._check = labels.columns, labels.check

    def read(self, chunk: int, start: int, stop: int) -> Array:
        """Return the labels of a chunk, whatever the numbers of its rows."""
        found = self._columns.blocks[chunk].compute(scheduler="synchronous")
        return self._check(np.asarray(found), chunk)
