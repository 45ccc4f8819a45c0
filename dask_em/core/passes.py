"""Passes over some of the rows, and passes that log the chunks besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic

import numpy as np

from .additive import Array, S
from .chunk_log import BadWeights, ChunkLog, Logged
from .finite import NOWHERE
from .protocols import Fold, Pass
from .support import REAL, Support

# -- some of the rows ----------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """Draw some of the rows: each by the seed and its place in the data alone.

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
        """Return which of the n rows of chunk `index` are drawn, (n,) of bool."""
        seeds = np.random.SeedSequence(self.seed, spawn_key=(index, self.stream))
        return np.asarray(np.random.default_rng(seeds).random(n) < self.share)


class Slice(Drawn):
    """Draw a sample too large for memory: the rows of every chunk that a pass computes with.

    Examples
    --------
    >>> float(Slice(seed=0, share=0.3).mask(0, 10_000).mean().round(1))
    0.3
    """

    stream = 2


class Holdout(Drawn):
    """Draw rows that no fit sees.

    Examples
    --------
    >>> out, weight = Holdout(seed=0, share=0.5).split(0, 100, None)
    >>> bool((out == (weight == 0.0)).all())
    True
    """

    stream = 1

    def split(self, index: int, n: int, sample_weight: Array | None) -> tuple[Array, Array]:
        """Return the mask, and the weights in the fit: zero where rows are held out."""
        out = self.mask(index, n)
        return out, np.where(out, 0.0, 1.0 if sample_weight is None else sample_weight)


@dataclass(frozen=True)
class Training(Pass[S], Generic[S]):
    """Any pass over the rows that are not held out; the others have weight zero in it.

    Examples
    --------
    >>> from dask_em.fitting.survey import Survey
    >>> survey = Survey(seed=0, sample_size=2, n_features=2, n_rows=100)
    >>> fold = Training(survey, Holdout(seed=0, share=0.5)).fold()
    >>> fold.update(0, np.ones((100, 2)), None)
    >>> 0 < fold.result().moments.weight < 100
    True
    """

    work: Pass[S]
    holdout: Holdout

    def fold(self) -> Fold[S]:
        """Make the fold of `work`, which is shown the fitted rows only."""
        return TrainingFold(self.work.fold(), self.holdout)

    @property
    def result_bytes(self) -> int:
        """Bytes of the sums of a pass."""
        return self.work.result_bytes


class TrainingFold(Fold[S], Generic[S]):
    """Feed chunks to a fold with the held-out rows' weights set to zero."""

    def __init__(self, fold: Fold[S], holdout: Holdout) -> None:
        self._fold, self._holdout = fold, holdout

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows X (n, d)."""
        _, weight = self._holdout.split(index, len(X), sample_weight)
        self._fold.update(index, X, weight)

    def result(self) -> S:
        """Return what the fold summed."""
        return self._fold.result()


# -- a log of the chunks ---------------------------------------------------------------


@dataclass(frozen=True)
class LoggingPass(Pass[Logged[S]], Generic[S]):
    """Any pass, with a log of the chunks besides.

    Attributes
    ----------
    work : Pass
    drop : bool
        Whether rows that hold NaN or infinity are left out of `work`.
    support : Support
        Rows of other numbers are left out with them.

    Examples
    --------
    >>> from dask_em.fitting.survey import Survey
    >>> survey = Survey(seed=0, sample_size=2, n_features=1, n_rows=3)
    >>> fold = LoggingPass(survey, drop=True).fold()
    >>> fold.update(0, np.array([[0.0], [np.nan], [2.0]]), None)
    >>> fold.result().sums.n_rows, fold.result().log.n_dropped
    (2, 1)
    """

    work: Pass[S]
    drop: bool = False
    support: Support = REAL

    def fold(self) -> LoggingFold[S]:
        """Make the fold of one range, before its first chunk."""
        return LoggingFold(self.work.fold(), self.support if self.drop else None)

    @property
    def result_bytes(self) -> int:
        """Bytes of what the pass sums; the log is small beside it."""
        return self.work.result_bytes


class LoggingFold(Fold[Logged[S]], Generic[S]):
    """Feed chunks to a fold, and log their fingerprints, dropped rows, and bad weights.

    Where no rows are left out, chunks may come in parts, if they may in the fold.
    """

    def __init__(self, fold: Fold[S], kept: Support | None) -> None:
        self._fold, self._kept = fold, kept
        # Without rows that are left out, parts would be no whole blocks.
        self.block_rows = fold.block_rows if kept is None else 0
        self._chunk = -1
        # Rows of the chunk that came before.
        self._done = 0
        self._dropped: dict[int, int] = {}
        self._bad_weights = BadWeights()
        self._fingerprints: Mapping[int, int] = {}

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows X (n, d)."""
        if index != self._chunk:
            self._chunk, self._done = index, 0
        if sample_weight is not None:
            self._bad_weights += BadWeights.of_chunk(index, sample_weight, self._done)
        self._done += len(X)
        rows = None if self._kept is None else self._kept.kept(X)
        if rows is not None:
            self._dropped[index] = len(X) - int(rows.sum())
            X, sample_weight = X[rows], None if sample_weight is None else sample_weight[rows]
        self._fold.update(index, X, sample_weight)

    def take_fingerprints(self, fingerprints: Mapping[int, int]) -> None:
        """Take the fingerprint of each chunk that was read for the fold."""
        self._fingerprints = fingerprints

    def result(self) -> Logged[S]:
        """Return the sums and the log of the chunks given so far."""
        log = ChunkLog(
            np.fromiter(self._fingerprints, dtype=np.int64),
            np.fromiter(self._fingerprints.values(), dtype=np.uint64),
            tuple(self._dropped.items()),
            self._bad_weights,
            NOWHERE if self._kept is None else self._kept.missing,
        )
        return Logged(self._fold.result(), log)
