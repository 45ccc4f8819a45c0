"""TODO data.memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from ..core import ranges
from ..core.additive import Array
from ..core.chunk_log import Notes
from ..core.ranges import even_bounds


@dataclass(frozen=True)
class ArraySource:
    """A NumPy array in this process."""

    X: Array
    sample_weight: Array | None = None
    dropping: frozenset[int] = frozenset()
    n_dropped: int = 0

    in_process = True
    read_ahead = 1

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
    def nbytes(self) -> int:
        return self.X.nbytes

    @property
    def n_chunks(self) -> int:
        return len(self.bounds) - 1

    @property
    def description(self) -> str:
        return f"NumPy array {self.X.shape} {self.X.dtype}"

    @cached_property
    def bounds(self) -> Array:
        row_bytes = max(1, self.n_features * self.dtype.itemsize)
        return even_bounds(self.n_rows, max(1, ranges.READ_BYTES // 2 // row_bytes))

    def read(self, chunk: int) -> tuple[Array, Array | None]:
        """Rows (n, d) and weights (n,) of one chunk, as views."""
        rows = slice(self.bounds[chunk], self.bounds[chunk + 1])
        weight = self.sample_weight
        return self.X[rows], None if weight is None else weight[rows]

    def reader(self) -> Callable[[int], tuple[Array, Array | None]]:
        return self.read

    def shipped_weights(self, chunks: range) -> Array | None:
        return None

    def held_to(self, notes: Notes) -> Self:
        """The same rows, without those that a first pass dropped."""
        return replace(self, dropping=notes.dropping, n_dropped=notes.n_dropped)
