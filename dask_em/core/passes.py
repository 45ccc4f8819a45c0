"""TODO core.passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic

import numpy as np

from .additive import Array, S
from .protocols import Fold, Foldable, result_bytes

# -- some of the rows ----------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """Some of the rows: each is drawn by the seed and its place in the data alone.

    Attributes
    ----------
    seed : int
    share : float
        Of the rows, between 0 and 1.
    """

    seed: int
    share: float
    # What else is drawn by the same seed is drawn independently: the survey's sample has none.
    stream: ClassVar[int]

    def mask(self, index: int, n: int) -> Array:
        """Which of the n rows of chunk `index` are drawn, (n,) booleans."""
        seeds = np.random.SeedSequence(self.seed, spawn_key=(index, self.stream))
        return np.asarray(np.random.default_rng(seeds).random(n) < self.share)


class Slice(Drawn):
    """A sample too large for memory: the rows of every chunk that a pass computes with."""

    stream = 2


class Holdout(Drawn):
    """Rows that no fit sees."""

    stream = 1

    def split(self, index: int, n: int, sample_weight: Array | None) -> tuple[Array, Array]:
        """The mask, and the weights with which rows are fitted: zero where they are held out."""
        out = self.mask(index, n)
        return out, np.where(out, 0.0, 1.0 if sample_weight is None else sample_weight)


@dataclass(frozen=True)
class Training(Generic[S]):
    """Any pass over the rows that are not held out; the others have weight zero in it."""

    work: Foldable[S]
    holdout: Holdout

    def fold(self) -> Fold[S]:
        """The fold of `work`, which is shown the fitted rows only."""
        return TrainingFold(self.work.fold(), self.holdout)

    @property
    def result_bytes(self) -> int:
        """Bytes of the sums of a pass."""
        return result_bytes(self.work)


class TrainingFold(Generic[S]):
    """Feeds chunks to a fold with the held-out rows' weights set to zero."""

    def __init__(self, fold: Fold[S], holdout: Holdout) -> None:
        self._fold, self._holdout = fold, holdout

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows X (n, d)."""
        _, weight = self._holdout.split(index, len(X), sample_weight)
        self._fold.update(index, X, weight)

    def result(self) -> S:
        """What the fold summed."""
        return self._fold.result()
