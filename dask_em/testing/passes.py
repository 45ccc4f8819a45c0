"""Passes and a source that tests can check by eye: sums that remember how they were added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from ..core.additive import Array
from ..core.chunk_log import ChunkLog
from ..core.protocols import Block, Fold, Pass, Reader, RowValues, Source
from ..core.tuning import tuning


@dataclass(frozen=True)
class History:
    """A sum that remembers in which order it was added.

    Examples
    --------
    >>> History("0", 3) + History("1", 4)
    History(text='(0+1)', n_rows=7)
    """

    text: str
    n_rows: int

    def __add__(self, other: History) -> History:
        return History(f"({self.text}+{other.text})", self.n_rows + other.n_rows)


@dataclass(frozen=True)
class HistoryPass(Pass[History]):
    """Tell which chunks a range had, and how the ranges were added.

    Attributes
    ----------
    nbytes : int
        What the sums claim to take: it decides on the shape of the tree.
    fails_at : int or None
        The chunk whose rows the pass refuses.
    """

    nbytes: int = 0
    fails_at: int | None = None

    @property
    def result_bytes(self) -> int:
        return self.nbytes

    def fold(self) -> HistoryFold:
        """Make the fold of one range."""
        return HistoryFold(self.fails_at)


@dataclass(frozen=True)
class TuningPass(Pass[History]):
    """Tell which tuning was in force where each chunk was summed."""

    def fold(self) -> TuningFold:
        """Make the fold of one range."""
        return TuningFold()


class TuningFold(Fold[History]):
    """Collect the values of one constant."""

    def __init__(self) -> None:
        self._found: set[int] = set()

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Look at the tuning in force."""
        self._found.add(tuning().reading.piece_bytes)

    def result(self) -> History:
        """Return the values."""
        return History(",".join(map(str, sorted(self._found))), 0)


class HistoryFold(Fold[History]):
    """Collect the numbers of chunks, and the sum of their weights or rows."""

    def __init__(self, fails_at: int | None) -> None:
        self._fails_at, self._chunks, self._n_rows = fails_at, list[str](), 0

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Take one chunk."""
        if index == self._fails_at:
            raise ValueError(f"chunk {index} is refused")
        self._chunks.append(str(index))
        self._n_rows += len(X) if sample_weight is None else int(sample_weight.sum())

    def result(self) -> History:
        """Return the chunks, in the order in which they came."""
        return History(",".join(self._chunks), self._n_rows)


class RowsFold(Fold[list[tuple[int, Array, Array | None]]]):
    """Keep a copy of each chunk: its number, rows and weights."""

    def __init__(self) -> None:
        self._chunks: list[tuple[int, Array, Array | None]] = []

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Take one chunk."""
        weight = None if sample_weight is None else sample_weight.copy()
        self._chunks.append((index, X.copy(), weight))

    def result(self) -> list[tuple[int, Array, Array | None]]:
        """Return the chunks, in the order in which they came."""
        return self._chunks


@dataclass(frozen=True)
class NumberedRows(Source):
    """The smallest source: three rows a chunk, which any process can make, with given weights.

    Examples
    --------
    >>> NumberedRows(40).reader().read(2)[0].tolist()
    [[6.0], [7.0], [8.0]]
    """

    size: int
    weights: Array | None = None

    n_features = 1
    dtype = np.dtype(np.float64)
    description = "numbered rows"

    def __reduce__(self) -> tuple[Any, ...]:
        # Weights stay with the caller, and are shipped by range.
        return type(self), (self.size,)

    @property
    def n_chunks(self) -> int:
        return self.size

    @property
    def n_rows(self) -> int:
        return 3 * self.size

    def rows_of(self, chunks: range) -> int:
        """Return the number of rows in these chunks."""
        return 3 * len(chunks)

    def shipped_weights(self, chunks: range) -> Array | None:
        """Return the weights in memory of these chunks."""
        return None if self.weights is None else self.weights[3 * chunks.start : 3 * chunks.stop]

    def reader(self) -> Reader:
        """Open the source for one range."""
        return NumberedReader()

    def map_rows(
        self, function: Callable[[Array], Array], width: int | None, dtype: np.dtype[Any]
    ) -> RowValues:
        """Compute a function of all rows at once."""
        return np.concatenate([function(self.reader().read(c)[0]) for c in range(self.size)])

    def held_to(self, log: ChunkLog, forced: bool = False) -> Self:
        """Return the same rows: they never change."""
        return self

    def identity(self) -> dict[str, object]:
        """Return what tells the data from others, for JSON."""
        return {"source": self.description, "chunks": self.size}

    def locate(self, chunk: int, row: int) -> str:
        """Say which row of the data a chunk's row is."""
        return f"row {3 * chunk + row}"


class NumberedReader(Reader):
    """Make the rows of `NumberedRows`."""

    fingerprints: Mapping[int, int] = MappingProxyType({})

    def blocks(self, chunk: int, block_rows: int = 0) -> Iterator[Block]:
        """Yield the chunk at once."""
        yield np.arange(3.0 * chunk, 3.0 * chunk + 3)[:, None], None
