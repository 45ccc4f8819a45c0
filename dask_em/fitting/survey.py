"""The survey of the data: the first pass of a fit.

One pass counts rows, sums moments, finds what is not finite, and draws a
uniform sample of rows. The start is made from the sample alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ..core.additive import Additive, Array
from ..core.codec import record
from ..core.family import blocks
from ..core.moments import Moments
from ..core.protocols import Fold, Pass
from ..core.support import REAL, Support
from ..core.tuning import tuning


@record("sample")
@dataclass(frozen=True)
class Sample(Additive):
    """Hold the rows with the smallest random keys: a uniform sample without replacement.

    Each row's key depends on the seed and the row's place alone, so samples of
    parts of the data add up to the sample of the whole.
    """

    size: int
    keys: Array
    rows: Array
    weights: Array

    def __add__(self, other: Sample) -> Sample:
        keys = np.concatenate([self.keys, other.keys])
        order = np.argsort(keys, kind="stable")[: self.size]
        weights = np.concatenate([self.weights, other.weights])[order]
        rows = np.empty((len(order), self.rows.shape[1]))
        # No copy of all rows is made, of which the sample may hold 64 MB.
        for some in blocks(len(order), tuning().reading.survey_rows):
            mine = order[some] < len(self.keys)
            rows[some][mine] = self.rows[order[some][mine]]
            rows[some][~mine] = other.rows[order[some][~mine] - len(self.keys)]
        return Sample(self.size, keys[order], rows, weights)

    def smallest(self) -> Sample:
        """Return the sample cut to its size, in the order of the keys."""
        order = np.argsort(self.keys, kind="stable")[: self.size]
        return Sample(self.size, self.keys[order], self.rows[order], self.weights[order])


@record("non-finite")
@dataclass(frozen=True)
class NonFinite(Additive):
    """Count the rows that hold NaN or infinity, or what else is none, and locate the first.

    Attributes
    ----------
    n_rows : int
    first : tuple or None
        (chunk, row in the chunk, column, value).
    """

    n_rows: int = 0
    first: tuple[int, int, int, float] | None = None

    def __add__(self, other: NonFinite) -> NonFinite:
        both = [f for f in (self.first, other.first) if f is not None]
        return NonFinite(self.n_rows + other.n_rows, min(both, default=None))


@record("survey", 3)
@dataclass(frozen=True)
class Surveyed(Additive):
    """Hold the results of the survey pass.

    Attributes
    ----------
    n_rows : int
        Rows, those of weight zero included.
    n_weighted : int
        Rows of positive weight; everything below is of these.
    moments : Moments
    non_finite : NonFinite
    outside : NonFinite
        Of the finite rows, those that hold numbers outside of the family's support.
    sample : Sample

    Examples
    --------
    >>> from dask_em.backends.serial import SerialBackend
    >>> from dask_em.data.memory import ArraySource
    >>> X = np.array([[0.0, 7.0], [2.0, 7.0], [4.0, 7.0]])
    >>> found = SerialBackend().map_reduce(ArraySource(X), Survey(0, 2, 2, 3))
    >>> found.moments.mean.tolist(), found.constant_columns, found.sample.rows.shape
    ([2.0, 7.0], [1], (2, 2))
    """

    n_rows: int
    n_weighted: int
    moments: Moments
    non_finite: NonFinite
    outside: NonFinite
    sample: Sample

    @property
    def covariance(self) -> Array:
        """Maximum-likelihood covariance of all rows, (d, d)."""
        return self.moments.covariance

    @property
    def variances(self) -> Array:
        """Maximum-likelihood variances of all rows, (d,)."""
        return self.moments.variances

    @property
    def constant_columns(self) -> list[int]:
        """Columns that hold one value only."""
        return np.flatnonzero(self.moments.low == self.moments.high).tolist()


@dataclass(frozen=True)
class Survey(Pass[Surveyed]):
    """Describe the survey pass.

    Attributes
    ----------
    seed : int
    sample_size : int
    n_features : int
    n_rows : int or None
        Where known, and rows have no weights, rows that cannot be in the sample are
        dropped at once.
    support : Support
        Which numbers the family describes: others are counted, and located.
    n_beside : int
        Columns behind these that go into the sample, as noise does, and are no data.
    joint : bool
        Whether products of two columns are summed: of very many columns they are too many.

    Examples
    --------
    >>> survey = Survey(seed=0, sample_size=2, n_features=2, n_rows=None)
    >>> fold = survey.fold()
    >>> fold.update(0, np.eye(3, 2), None)
    >>> found = fold.result()
    >>> found.n_rows, found.moments.high.tolist(), len(found.sample.rows)
    (3, [1.0, 1.0], 2)
    """

    seed: int
    sample_size: int
    n_features: int
    n_rows: int | None
    support: Support = REAL
    n_beside: int = 0
    joint: bool = True

    def fold(self) -> SurveyFold:
        """Return the survey of one range, before its first chunk."""
        return SurveyFold(self)

    @property
    def result_bytes(self) -> int:
        """Bytes of what the survey finds, at most."""
        d = self.n_features
        sample = self.sample_size if self.n_rows is None else min(self.sample_size, self.n_rows)
        return 8 * ((d * d if self.joint else d) + 3 * d + sample * (d + self.n_beside + 2))

    @property
    def block_rows(self) -> int:
        """Rows that are summed at a time."""
        constants = tuning().reading
        if self.joint:
            return constants.survey_rows
        return max(1, min(constants.survey_rows, constants.survey_numbers // self.n_features))

    @property
    def threshold(self) -> float:
        """A key above this is not in the sample (but once in 1e9 surveys)."""
        if self.n_rows is None:
            return 1.0
        most = self.sample_size + 6 * np.sqrt(self.sample_size) + 10
        return float(min(1.0, most / self.n_rows))


class SurveyFold(Fold[Surveyed]):
    """Survey chunks of rows, block by block."""

    def __init__(self, survey: Survey) -> None:
        d = survey.n_features
        self.survey = survey
        self._n_rows = self._n_weighted = 0
        self._moments = Moments.none(d, survey.joint)
        self._non_finite = NonFinite()
        self._outside = NonFinite()
        nothing = np.empty((0, d + survey.n_beside))
        self._sample = Sample(survey.sample_size, np.empty(0), nothing, np.empty(0))
        self._buffer = np.empty((survey.block_rows, d))
        self._weighted = np.empty((survey.block_rows, d))

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows X (n, d + n_beside)."""
        self._n_rows += len(X)
        data = X[:, : self.survey.n_features]
        if sample_weight is None:
            usable = np.ones(len(X), dtype=bool)
        else:
            usable = (sample_weight > 0) & np.isfinite(sample_weight)
        self._n_weighted += int(usable.sum())
        for rows in blocks(len(X), self.survey.block_rows):
            numbers = rows.start + np.flatnonzero(usable[rows])
            if len(numbers) == rows.stop - rows.start:
                block, weight = data[rows], None if sample_weight is None else sample_weight[rows]
            else:
                assert sample_weight is not None
                block, weight = data[numbers], sample_weight[numbers]
            # What overflows is found, and named, when the survey is checked.
            with np.errstate(over="ignore", invalid="ignore"):
                self._add_block(index, numbers, block, weight)
        self._draw(index, X, usable, sample_weight)

    def _draw(self, index: int, X: Array, usable: Array, sample_weight: Array | None) -> None:
        seeds = np.random.SeedSequence(self.survey.seed, spawn_key=(index,))
        keys = np.random.default_rng(seeds).random(len(X))
        # Nobody knows how many rows have a weight before all are read.
        threshold = self.survey.threshold if sample_weight is None else 1.0
        chosen = np.flatnonzero(usable & (keys < threshold))
        if len(chosen) > self.survey.sample_size:
            order = np.argpartition(keys[chosen], self.survey.sample_size)
            chosen = chosen[order[: self.survey.sample_size]]
        if len(chosen) == 0:
            return
        weights = np.ones(len(chosen)) if sample_weight is None else sample_weight[chosen]
        drawn = np.asarray(X[chosen], dtype=np.float64)
        self._sample += Sample(self.survey.sample_size, keys[chosen], drawn, weights)

    def _add_block(self, index: int, numbers: Array, block: Array, weight: Array | None) -> None:
        b = len(block)
        if b == 0:
            return
        D, weighted = self._buffer[:b], self._weighted[:b]
        D[:] = block
        if not np.isfinite(D.sum()):
            bad = self.survey.support.not_finite(D)
            if bad.any():
                self._non_finite += _first(index, numbers, D, bad)
                return
            if np.isnan(D).any():
                self._add_with_holes(index, numbers, D, weight)
                return
        low, high = D.min(axis=0), D.max(axis=0)
        if not self.survey.support.holds(D, low, high):
            self._outside += _first(index, numbers, D, self.survey.support.outside(D))
        origin = D[0].copy()
        D -= origin
        if weight is None:
            weighted, total = D, float(b)
        else:
            np.multiply(D, weight[:, None], out=weighted)
            total = float(weight.sum())
        first = weighted.sum(axis=0)
        scatter = self._scatter(D, weighted)
        if self.survey.joint:
            scatter -= np.outer(first, first / total)
            scatter = (scatter + scatter.T) / 2
        else:
            scatter -= first**2 / total
        self._moments += Moments(total, origin + first / total, scatter, low, high)

    def _scatter(self, D: Array, weighted: Array) -> Array:
        """Return sums of products of columns, or of their squares alone."""
        if self.survey.joint:
            return np.asarray(D.T @ weighted)
        return np.asarray(np.einsum("nd,nd->d", D, weighted))

    def _add_with_holes(self, index: int, numbers: Array, D: Array, weight: Array | None) -> None:
        """Add rows of which values are missing, which the family allows."""
        hole = np.isnan(D)
        low = np.where(hole, np.inf, D).min(axis=0)
        high = np.where(hole, -np.inf, D).max(axis=0)
        if not self.survey.support.holds(D, low, high):
            self._outside += _first(index, numbers, D, self.survey.support.outside(D))
        w = np.ones(len(D)) if weight is None else weight
        observed = w @ ~hole
        origin = np.where(np.isfinite(low), low, 0.0)
        D -= origin
        D[hole] = 0.0
        mean = w @ D / np.where(observed > 0, observed, 1.0)
        D -= mean
        D[hole] = 0.0
        scatter = self._scatter(D, D * w[:, None])
        if self.survey.joint:
            scatter = (scatter + scatter.T) / 2
        self._moments += Moments(float(w.sum()), origin + mean, scatter, low, high, observed)

    def result(self) -> Surveyed:
        """Return the survey of the chunks given so far."""
        return Surveyed(
            self._n_rows,
            self._n_weighted,
            self._moments,
            self._non_finite,
            self._outside,
            self._sample,
        )


def _first(index: int, numbers: Array, block: Array, bad: Array) -> NonFinite:
    row = int(bad.any(axis=1).argmax())
    column = int(bad[row].argmax())
    n_rows = int(bad.any(axis=1).sum())
    return NonFinite(n_rows, (index, int(numbers[row]), column, float(block[row, column])))


def survey_seed(random: np.random.RandomState) -> int:
    """Return the seed of a fit's survey, and of all else that it draws.

    Examples
    --------
    >>> survey_seed(np.random.RandomState(0))
    209652396
    """
    return int(random.randint(np.iinfo(np.int32).max))


def fingerprint_of(surveyed: Surveyed) -> str:
    """Compute the sha256 of what the survey summed: other data, another fingerprint.

    Examples
    --------
    >>> from dask_em.backends.serial import SerialBackend
    >>> from dask_em.data.memory import ArraySource
    >>> def fingerprint(X):
    ...     return fingerprint_of(SerialBackend().map_reduce(ArraySource(X), Survey(0, 2, 2, 3)))
    >>> X = np.eye(3, 2)
    >>> fingerprint(X) == fingerprint(X.copy()), fingerprint(X) == fingerprint(X + 1)
    (True, False)
    """
    digest = hashlib.sha256(f"{surveyed.n_rows}:{surveyed.moments.weight!r}".encode())
    m = surveyed.moments
    for array in (m.mean, m.scatter, m.low, m.high, *([] if m.observed is None else [m.observed])):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
