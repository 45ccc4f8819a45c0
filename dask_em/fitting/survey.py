"""The survey of the data: the first pass of a fit.

One pass counts rows, sums moments, finds what is not finite, and draws a
uniform sample of rows. The start is made from the sample alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.additive import Additive, Array
from ..core.codec import record
from ..core.engine import NUMPY, Engine, check_engine
from ..core.family import blocks
from ..core.moments import Moments
from ..core.protocols import Fold, Pass
from ..core.support import REAL, Support
from ..core.tuning import tuning
from .row_keys import RowKeys
from .sweep import ColumnBlock, NumpySweep, Sweep


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
    engine : Engine
        Whether the compiled loop sums them.

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
    engine: Engine = NUMPY

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
        if self.compiled:
            return constants.survey_rows
        numbers = constants.survey_numbers if self.joint else constants.survey_single_numbers
        return max(1, min(constants.survey_most_rows, numbers // self.n_features))

    @property
    def compiled(self) -> bool:
        """Whether the compiled loop is taken, which sums products of columns."""
        return self.engine.name == "numba" and self.joint

    def sweep(self) -> Sweep:
        """Return what sums the moments of usual blocks."""
        check_engine(self.engine)
        if not self.compiled:
            return NumpySweep(self.n_features, self.block_rows, self.support, self.joint)
        from ..families.gaussian.compiled_moments import CompiledSweep

        return CompiledSweep(self.n_features, self.block_rows, self.support)

    @property
    def threshold(self) -> float:
        """A key above this is not in the sample (but once in 1e9 surveys)."""
        if self.n_rows is None:
            return 1.0
        most = self.sample_size + 6 * np.sqrt(self.sample_size) + 10
        return float(min(1.0, most / self.n_rows))


class SurveyFold(Fold[Surveyed]):
    """Survey chunks of rows, block by block; a chunk may come in parts."""

    def __init__(self, survey: Survey) -> None:
        d = survey.n_features
        self.survey, self.block_rows = survey, survey.block_rows
        self._chunk = -1
        # Rows of the chunk that came before.
        self._done = 0
        self._n_rows = self._n_weighted = 0
        self._sweep = survey.sweep()
        self._unusual = Moments.none(d, survey.joint)
        self._non_finite = NonFinite()
        self._outside = NonFinite()
        self._drawn = DrawnRows(survey)

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows X (n, d + n_beside)."""
        if index != self._chunk:
            self._chunk, self._done = index, 0
        self._n_rows += len(X)
        data = X[:, : self.survey.n_features]
        usable = None
        if sample_weight is not None:
            usable = (sample_weight > 0) & np.isfinite(sample_weight)
            if usable.all():
                usable = None
        self._n_weighted += len(X) if usable is None else int(usable.sum())
        # What overflows is found, and named, when the survey is checked.
        with np.errstate(over="ignore", invalid="ignore"):
            if usable is None:
                numbers = range(self._done, self._done + len(X))
                self._add(index, numbers, data, sample_weight)
            else:
                assert sample_weight is not None
                for rows in blocks(len(X), self.block_rows):
                    some = rows.start + np.flatnonzero(usable[rows])
                    self._add(index, self._done + some, data[some], sample_weight[some])
        self._drawn.add(index, self._done, X, usable, sample_weight)
        self._done += len(X)

    def _add(
        self, index: int, numbers: Sequence[int] | Array, X: Array, weight: Array | None
    ) -> None:
        """Add rows of these numbers in their chunk, usual blocks by the sweep."""
        done = 0
        while done < len(X):
            done += self._sweep.add(X[done:], None if weight is None else weight[done:])
            rows = slice(done, done + self.block_rows)
            if len(block := X[rows]):
                self._look_at(index, numbers[rows], block, None if weight is None else weight[rows])
            done += len(block)

    def _look_at(
        self, index: int, numbers: Sequence[int] | Array, block: Array, weight: Array | None
    ) -> None:
        """Add a block of numbers that are missing, or are not what they should be."""
        support, joint = self.survey.support, self.survey.joint
        columns = ColumnBlock(self.survey.n_features, len(block))
        D = columns.load(block)
        bad = support.not_finite(D.T)
        if bad.any():
            self._non_finite += _first(index, numbers, D.T, bad)
            return
        outside = support.outside(D.T)
        if outside.any():
            self._outside += _first(index, numbers, D.T, outside)
        if np.isnan(D).any():
            self._unusual += columns.moments_with_holes(weight, joint)
        else:
            low, high = D.min(axis=1), D.max(axis=1)
            self._unusual += columns.moments(low, high, weight, joint, 0.0)

    def result(self) -> Surveyed:
        """Return the survey of the chunks given so far."""
        moments = self._sweep.moments()
        return Surveyed(
            self._n_rows,
            self._n_weighted,
            moments + self._unusual if self._unusual.weight else moments,
            self._non_finite,
            self._outside,
            self._drawn.sample(),
        )


class DrawnRows:
    """Draw the sample of one range: the rows of the smallest keys.

    Parameters
    ----------
    survey : Survey
    """

    def __init__(self, survey: Survey) -> None:
        self._size, self._threshold = survey.sample_size, survey.threshold
        self._keys = RowKeys(survey.seed)
        nothing = np.empty((0, survey.n_features + survey.n_beside))
        self._sample = Sample(survey.sample_size, np.empty(0), nothing, np.empty(0))
        self._waiting: list[Sample] = []
        self._n_waiting = 0
        # Nobody knows how many rows have a weight before all are read; of a sample that is full,
        # the largest key is the limit.
        self._limit = 1.0

    def add(
        self, index: int, start: int, X: Array, usable: Array | None, sample_weight: Array | None
    ) -> None:
        """Draw some of the rows X of a chunk, of which the first has the number `start`."""
        if self._size == 0:
            return
        bound = self._limit if sample_weight is not None else min(self._threshold, self._limit)
        rows, keys = self._keys.below(bound, index, start, start + len(X))
        rows = rows - start
        if usable is not None:
            rows, keys = rows[usable[rows]], keys[usable[rows]]
        if len(rows) == 0:
            return
        weights = np.ones(len(rows)) if sample_weight is None else sample_weight[rows]
        drawn = np.asarray(X[rows], dtype=np.float64)
        self._waiting.append(Sample(self._size, keys, drawn, weights))
        self._n_waiting += len(rows)
        if self._n_waiting > self._size // 4:
            self._join()

    def _join(self) -> None:
        """Join what waits to the sample: each time, all that it holds is copied."""
        if not self._waiting:
            return
        keys, rows, weights = (
            np.concatenate([vars(part)[name] for part in self._waiting])
            for name in ("keys", "rows", "weights")
        )
        self._waiting, self._n_waiting = [], 0
        self._sample += Sample(self._size, keys, rows, weights)
        if len(self._sample.keys) == self._size:
            self._limit = float(self._sample.keys[-1])

    def sample(self) -> Sample:
        """Return the sample of the rows so far."""
        self._join()
        return self._sample


def _first(index: int, numbers: Sequence[int] | Array, block: Array, bad: Array) -> NonFinite:
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
