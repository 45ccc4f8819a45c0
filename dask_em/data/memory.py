"""Rows in this process's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from ..core.additive import Array
from ..core.chunk_log import ChunkLog
from ..core.finite import located
from ..core.protocols import Block, Reader, Source
from ..core.ranges import even_bounds
from ..core.tuning import tuning
from ..machine import usable_cpus
from .checks import check_array, memory_weight
from .identity import layout_identity, sha256_of
from .options import ReadOptions


@dataclass(frozen=True)
class ArraySource(Source):
    """A NumPy array in this process, cut into chunks of some MiB, which are read as views.

    Attributes
    ----------
    X : (n, d) array
    sample_weight : (n,) array of float64, or None
    dropping : frozenset of int
        Chunks whose rows of NaN or infinity are left out.
    n_dropped : int
        Such rows, as a first pass counted them.

    Examples
    --------
    >>> source = ArraySource(np.zeros((5, 2)))
    >>> source.n_rows, source.n_features, source.n_chunks, source.locate(0, 3)
    (5, 2, 1, 'row 3')
    """

    X: Array
    sample_weight: Array | None = None
    dropping: frozenset[int] = frozenset()
    n_dropped: int = 0

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
        return f"NumPy array {self.X.shape} {self.X.dtype}"

    @cached_property
    def bounds(self) -> Array:
        """First row of each chunk, and the number of rows, (n_chunks + 1,)."""
        row_bytes = max(1, self.n_features * self.dtype.itemsize)
        return even_bounds(self.n_rows, max(1, tuning().reading.bytes // 2 // row_bytes))

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
            with located(self.locate, chunk):
                return function(self.read(chunk)[0])

        with ThreadPoolExecutor(usable_cpus()) as pool:
            return np.concatenate(list(pool.map(one, range(self.n_chunks))))

    def held_to(self, log: ChunkLog, forced: bool = False) -> Self:
        """Return the same rows without those that a first pass dropped."""
        return replace(self, dropping=log.dropping, n_dropped=log.n_dropped)

    def identity(self) -> dict[str, object]:
        """Return what tells the data from others, by their contents, for JSON."""
        weight = [] if self.sample_weight is None else [self.sample_weight]
        return {**layout_identity(self, self.bounds), "contents": sha256_of(self.X, *weight)}

    def locate(self, chunk: int, row: int) -> str:
        """Say which row of the data a chunk's row is."""
        return f"row {int(self.bounds[chunk]) + row}"


class ArrayReader(Reader):
    """Read chunks of an array in memory."""

    fingerprints: Mapping[int, int] = MappingProxyType({})

    def __init__(self, source: ArraySource) -> None:
        self._source = source

    def blocks(self, chunk: int, block_rows: int = 0) -> Iterator[Block]:
        """Yield the chunk at once: it is there."""
        yield self._source.read(chunk)


def array_source(X: object, sample_weight: object, options: ReadOptions) -> ArraySource:
    """Make a source of whatever NumPy takes for an array of rows, and its weights."""
    rows = np.asarray(X)
    check_array("X", rows, 2)
    weight = None if sample_weight is None else memory_weight(sample_weight, len(rows))
    return ArraySource(rows, weight)
