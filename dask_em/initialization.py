"""The survey of the data, and where the fit starts.

One pass counts rows, sums moments, finds what is not finite, and draws a
uniform sample of rows. The start is made from the sample alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .em import Convergence, em
from .families.base import Engine, blocks
from .families.covariance import Covariance
from .families.gaussian import Gaussian
from .frame import Frame, FrameKind, ridged_factor
from .mixture import Mixture, MixtureStatistics
from .statistics import Additive, Array

SURVEY_ROWS = 2048
# The sample's optimum misses the data's by about p / (2 m) nats per row for p
# parameters and m rows, so rows are drawn by the number of parameters.
ROWS_PER_PARAMETER = 100
FEWEST_SAMPLED, MOST_SAMPLED = 20_000, 100_000
SAMPLE_BYTES = 64 * 2**20
# Iterations of the start's EM on the sample, at most.
SAMPLE_ITERATIONS = 100
# The sample's EM reads nothing, so it goes on until this share of `tol` is left.
FINER = 0.1
# Keeps the covariance of all data definite, where a component has to take it.
POOLED_RIDGE = 1e-6


@dataclass(frozen=True)
class Moments(Additive):
    """Weight, mean and scatter of rows; they add by Chan, Golub and LeVeque (1983).

    Attributes
    ----------
    weight : float
    mean : (d,) array
    scatter : (d, d) array
        sum_n w_n (x_n - mean)(x_n - mean)^T.
    """

    weight: float
    mean: Array
    scatter: Array

    def __add__(self, other: Moments) -> Moments:
        weight = self.weight + other.weight
        if weight == 0:
            return self
        gap = other.mean - self.mean
        share = other.weight / weight
        scatter = self.scatter + other.scatter + np.outer(gap, gap) * (self.weight * share)
        return Moments(weight, self.mean + gap * share, scatter)


@dataclass(frozen=True)
class Sample(Additive):
    """The rows with the smallest random keys: a uniform sample without replacement.

    Each row's key depends on the seed and the row's place alone, so samples of
    parts of the data add up to the sample of the whole.
    """

    size: int
    keys: Array
    rows: Array
    weights: Array

    def __add__(self, other: Sample) -> Sample:
        keys = np.concatenate([self.keys, other.keys])
        rows = np.concatenate([self.rows, other.rows])
        weights = np.concatenate([self.weights, other.weights])
        return Sample(self.size, keys, rows, weights).smallest()

    def smallest(self) -> Sample:
        """The sample cut to its size, in the order of the keys."""
        order = np.argsort(self.keys, kind="stable")[: self.size]
        return Sample(self.size, self.keys[order], self.rows[order], self.weights[order])


@dataclass(frozen=True)
class NonFinite(Additive):
    """How many rows hold NaN or infinity, and where the first is.

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


@dataclass(frozen=True)
class Extent(Additive):
    """Smallest and largest number of each column, (d,)."""

    low: Array
    high: Array

    def __add__(self, other: Extent) -> Extent:
        return Extent(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


@dataclass(frozen=True)
class Surveyed(Additive):
    """What the survey pass found.

    Attributes
    ----------
    n_rows : int
        Rows, those of weight zero included.
    n_weighted : int
        Rows of positive weight; everything below is of these.
    bad_weights : int
        Weights that are negative or not finite.
    moments : Moments
    extent : Extent
    non_finite : NonFinite
    sample : Sample
    """

    n_rows: int
    n_weighted: int
    bad_weights: int
    moments: Moments
    extent: Extent
    non_finite: NonFinite
    sample: Sample

    @property
    def covariance(self) -> Array:
        """Maximum-likelihood covariance of all rows, (d, d)."""
        return self.moments.scatter / self.moments.weight

    def frame(self, kind: FrameKind) -> Frame:
        """The frame in which these data have about unit spread."""
        return Frame.of_moments(self.moments.mean, self.covariance, kind)

    @property
    def constant_columns(self) -> list[int]:
        """Columns that hold one value only."""
        return np.flatnonzero(self.extent.low == self.extent.high).tolist()


@dataclass(frozen=True)
class Survey:
    """The description of the survey pass.

    Attributes
    ----------
    seed : int
    sample_size : int
    n_features : int
    n_rows : int or None
        Where known, and rows have no weights, rows that cannot be in the sample are
        dropped at once.
    """

    seed: int
    sample_size: int
    n_features: int
    n_rows: int | None

    def fold(self) -> SurveyFold:
        """The survey of one range, before its first chunk."""
        return SurveyFold(self)

    @property
    def result_bytes(self) -> int:
        """Bytes of what the survey finds, at most."""
        d = self.n_features
        sample = self.sample_size if self.n_rows is None else min(self.sample_size, self.n_rows)
        return 8 * (d * d + 3 * d + sample * (d + 2))

    @property
    def threshold(self) -> float:
        """A key above this is not in the sample (but once in 1e9 surveys)."""
        if self.n_rows is None:
            return 1.0
        most = self.sample_size + 6 * np.sqrt(self.sample_size) + 10
        return float(min(1.0, most / self.n_rows))


class SurveyFold:
    """Surveys chunks of rows, block by block."""

    def __init__(self, survey: Survey) -> None:
        d = survey.n_features
        self.survey = survey
        self._n_rows = self._n_weighted = self._bad_weights = 0
        self._moments = Moments(0.0, np.zeros(d), np.zeros((d, d)))
        self._extent = Extent(np.full(d, np.inf), np.full(d, -np.inf))
        self._non_finite = NonFinite()
        self._sample = Sample(survey.sample_size, np.empty(0), np.empty((0, d)), np.empty(0))
        self._buffer = np.empty((SURVEY_ROWS, d))
        self._weighted = np.empty((SURVEY_ROWS, d))

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows X (n, d)."""
        self._n_rows += len(X)
        if sample_weight is None:
            usable = np.ones(len(X), dtype=bool)
        else:
            bad = ~(sample_weight >= 0) | np.isinf(sample_weight)
            self._bad_weights += int(bad.sum())
            usable = (sample_weight > 0) & ~bad
        self._n_weighted += int(usable.sum())
        for rows in blocks(len(X), SURVEY_ROWS):
            numbers = rows.start + np.flatnonzero(usable[rows])
            if len(numbers) == rows.stop - rows.start:
                block, weight = X[rows], None if sample_weight is None else sample_weight[rows]
            else:
                assert sample_weight is not None
                block, weight = X[numbers], sample_weight[numbers]
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
        if not np.isfinite(D.sum()) and not np.isfinite(D).all():
            self._non_finite += _first_non_finite(index, numbers, D)
            return
        self._extent += Extent(D.min(axis=0), D.max(axis=0))
        origin = D[0].copy()
        D -= origin
        if weight is None:
            total, first, scatter = float(b), D.sum(axis=0), D.T @ D
        else:
            np.multiply(D, weight[:, None], out=weighted)
            total, first, scatter = float(weight.sum()), weighted.sum(axis=0), D.T @ weighted
        scatter -= np.outer(first, first / total)
        self._moments += Moments(total, origin + first / total, (scatter + scatter.T) / 2)

    def result(self) -> Surveyed:
        """What was found in the chunks given so far."""
        return Surveyed(
            self._n_rows,
            self._n_weighted,
            self._bad_weights,
            self._moments,
            self._extent,
            self._non_finite,
            self._sample,
        )


def _first_non_finite(index: int, numbers: Array, block: Array) -> NonFinite:
    bad = ~np.isfinite(block)
    row = int(bad.any(axis=1).argmax())
    column = int(bad[row].argmax())
    n_rows = int(bad.any(axis=1).sum())
    return NonFinite(n_rows, (index, int(numbers[row]), column, float(block[row, column])))


def default_sample_size(n_parameters: int, n_features: int) -> int:
    """Rows of the sample: by the number of free parameters, within memory and a cap."""
    wanted = min(max(ROWS_PER_PARAMETER * n_parameters, FEWEST_SAMPLED), MOST_SAMPLED)
    return max(1, min(wanted, SAMPLE_BYTES // (8 * n_features)))


Labeller = Callable[[Array, Array, int], Array]
"""(scaled rows, weights, seed) -> responsibilities (m, k)."""


@dataclass(frozen=True)
class Start:
    """Where the fit starts, and what it cost.

    Attributes
    ----------
    mixture : Mixture
    n_passes : float
        Rows of the sample that were read, as a share of the data.
    log_likelihood : float
        Per row of the sample.
    rivals : tuple of Mixture
        Other starts, of which the sample cannot say that they are worse.
    """

    mixture: Mixture
    n_passes: float
    log_likelihood: float
    rivals: tuple[Mixture, ...] = ()

    def mixtures(self, engine: Engine) -> tuple[Mixture, ...]:
        """The mixture and its rivals, to be computed by `engine`."""
        return tuple(replace(one, engine=engine) for one in (self.mixture, *self.rivals))


@dataclass(frozen=True)
class Sampled:
    """The sample of a survey as data for EM in memory."""

    rows: Array
    weights: Array

    @classmethod
    def of(cls, surveyed: Surveyed) -> Sampled:
        """The sampled rows, in the random order of their keys."""
        sample = surveyed.sample.smallest()
        return cls(sample.rows, sample.weights)

    @cached_property
    def _uniform(self) -> bool:
        return bool((self.weights == 1).all())

    def first(self, n: int) -> Sampled:
        """The first `n` rows, a uniform sample too, because the rows lie in random order."""
        return Sampled(self.rows[:n], self.weights[:n])

    @cached_property
    def effective_rows(self) -> float:
        """Rows of equal weight that would tell as much (Kish 1965)."""
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())

    def variance(self, values: Array) -> Array:
        """Of values (..., m) of its rows, weighted."""
        weights = self.weights / self.weights.sum()
        return np.asarray(((values - (values @ weights)[..., None]) ** 2) @ weights)

    def accumulate(self, mixture: Mixture) -> MixtureStatistics:
        """The E-step over the sample."""
        fold = mixture.fold()
        fold.update(0, self.rows, None if self._uniform else self.weights)
        return fold.result()


def from_responsibilities(
    sample: Sampled, resp: Array, structure: type[Covariance], surveyed: Surveyed, ridge: float
) -> Mixture:
    """The M-step of responsibilities (m, k) given for the sample.

    A component that gets too few rows for a covariance takes that of all data.
    """
    k = resp.shape[1]
    frame = surveyed.frame(structure.frame_kind)
    pooled = structure.of_data(_pooled(surveyed, frame), k)
    resp = resp * sample.weights[:, None]
    resp_sum = resp.sum(axis=0)
    means = resp.T @ (sample.rows - frame.shift) / np.maximum(resp_sum, 1e-300)[:, None]
    rough = Gaussian(frame.points_to_frame(frame.shift + means), pooled, frame, ridge)
    components, _ = rough.maximize(resp_sum, rough.sufficient_statistics(sample.rows, resp))
    weights = np.maximum(resp_sum / resp_sum.sum(), np.finfo(np.float64).tiny)
    return Mixture(np.log(weights), components)


def _pooled(surveyed: Surveyed, frame: Frame) -> Array:
    """Covariance (d, d) of all data in the frame's coordinates, positive definite."""
    inverse = frame.inverse_scale
    inverse = np.diag(inverse) if inverse.ndim == 1 else inverse
    factor = ridged_factor(inverse @ surveyed.covariance @ inverse.T, POOLED_RIDGE)
    return np.asarray(factor @ factor.T)


def best_start(
    surveyed: Surveyed,
    make: Callable[[Sampled, int], Mixture],
    n_init: int,
    seed: int,
    convergence: Convergence | None,
    advance: Callable[[int], None] | None = None,
) -> Start:
    """The best of `n_init` starts on the sample.

    Parameters
    ----------
    surveyed : Surveyed
    make : callable
        (sample, seed) -> a mixture to start from.
    n_init : int
        Starts to try.
    seed : int
    convergence : Convergence or None
        How far each start is fitted to the sample; None takes it as it is.
    advance : callable, optional
        Called with the rows of the sample whenever another start is done.
    """
    sample = Sampled.of(surveyed)
    share = len(sample.rows) / max(1, surveyed.n_weighted)
    seeds = np.random.SeedSequence(seed).generate_state(n_init)
    candidates: list[tuple[float, Mixture]] = []
    n_passes = 0.0
    for one in seeds:
        mixture = make(sample, int(one))
        if convergence is None:
            # A single start needs no score.
            score = 0.0
            if n_init > 1:
                score = sample.accumulate(mixture).mean_log_likelihood
                n_passes += share
        else:
            *_, state = em(sample.accumulate, mixture, convergence)
            mixture, score = state.result, state.log_likelihood
            n_passes += share * state.n_iter
            if state.collapsed:
                score -= 1e300
        candidates.append((score if np.isfinite(score) else -np.inf, mixture))
        if advance:
            advance(len(sample.rows))
    score, mixture = max(candidates, key=lambda c: c[0])
    return Start(mixture, n_passes, score)


def hard(labels: Sequence[int] | Array, k: int) -> Array:
    """Responsibilities (m, k) that are one for each row's label and zero elsewhere."""
    return np.asarray(np.eye(k)[np.asarray(labels)])
