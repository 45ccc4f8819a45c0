"""Log-densities, shares and columns of the rows of each period of time, beside those of parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.additive import Additive, Array
from ..core.protocols import Fold, Pass
from ..errors import DataError
from .drift import ChunkDensities, Densities, side_by_side

# More are of a time that is cut too finely, and each takes what a part does.
MOST_PERIODS = 10_000


@dataclass(frozen=True)
class TimedDensities(Additive):
    """Hold the same rows by parts and by periods; those of two add up.

    Attributes
    ----------
    parts : ChunkDensities
        What was read at a time.
    numbers : (p,) array
        Of the periods, ascending.
    periods : ChunkDensities
        Of the rows of each, wherever they lie.
    """

    parts: ChunkDensities
    numbers: Array
    periods: ChunkDensities

    def __add__(self, other: TimedDensities) -> TimedDensities:
        numbers = np.concatenate([self.numbers, other.numbers])
        return TimedDensities(
            self.parts + other.parts, *_pooled(numbers, self.periods + other.periods)
        )


@dataclass(frozen=True)
class PeriodDensities(Pass[TimedDensities]):
    """The pass over rows with the numbers of their periods behind their columns.

    Attributes
    ----------
    work : Densities
        Of the rows without them.
    """

    work: Densities

    def fold(self) -> PeriodFold:
        """Return the fold of one range, before its first chunk."""
        return PeriodFold(self.work)


class PeriodFold(Fold[TimedDensities]):
    """Sums log-densities of the rows of each period, chunk by chunk."""

    def __init__(self, work: Densities) -> None:
        self.work = work
        nothing = work.none()
        self._found = TimedDensities(nothing, np.empty(0), nothing)

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add the rows X (n, d + 1) of chunk number `index`.

        Raises
        ------
        DataError
            There are too many periods.
        """
        if len(X) == 0:
            return
        rows, periods = X[:, :-1], X[:, -1]
        if not self.work.drop:
            self.work.support.check(rows, range(len(rows)))
        numbers, of = np.unique(periods, return_inverse=True)
        if len(numbers) > MOST_PERIODS:
            raise _too_many(len(numbers))
        # Rows of a period side by side, in their order.
        order = np.argsort(of, kind="stable")
        cut = np.split(rows[order], np.cumsum(np.bincount(of))[:-1])
        cells = side_by_side([self.work.part(np.ascontiguousarray(part)) for part in cut])
        self._found = self._found + TimedDensities(cells.whole, numbers, cells)

    def result(self) -> TimedDensities:
        """Return the densities of the rows given so far."""
        return self._found


def _pooled(numbers: Array, cells: ChunkDensities) -> tuple[Array, ChunkDensities]:
    """Return the periods of cells, each once and ascending, and their densities."""
    found, of = np.unique(numbers, return_inverse=True)
    if len(found) > MOST_PERIODS:
        raise _too_many(len(found))
    order, counts = np.argsort(of, kind="stable"), np.bincount(of, minlength=len(found))
    if (counts == 1).all():
        return found, cells.chosen(order)
    groups = np.split(order, np.cumsum(counts)[:-1])
    pooled = [
        cells.chosen(group) if len(group) == 1 else cells.chosen(group).whole for group in groups
    ]
    return found, side_by_side(pooled)


def _too_many(n: int) -> DataError:
    return DataError(
        f"time has {n:,} periods or more, {MOST_PERIODS:,} at most are told apart: pass a longer "
        "period"
    )
