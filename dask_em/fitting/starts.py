"""Where a fit starts: in one of scikit-learn's ways on the sample, or from the user's arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from sklearn.cluster import KMeans, kmeans_plusplus

from ..core.additive import Array
from ..core.em import Convergence, em
from ..core.engine import Engine
from ..core.executor import serial_executor
from ..core.mixture import Mixture
from ..core.protocols import ExecutorFactory
from ..families.gaussian.covariance import STRUCTURES, Covariance
from ..families.gaussian.family import Gaussian
from ..families.gaussian.whitening import Frame, ridged_factor
from .multistart import Race
from .observers import ObservedPass
from .sample import FINER, SAMPLE_ITERATIONS, Sampled, Start
from .survey import Surveyed


def _nearest(rows: Array, centers: Array) -> Array:
    squares = (centers**2).sum(axis=1)
    return np.asarray((squares - 2 * rows @ centers.T).argmin(axis=1))


def _by_kmeans(rows: Array, weights: Array, k: int, seed: int) -> Array:
    fitted = KMeans(k, n_init=1, random_state=seed).fit(rows, sample_weight=weights)
    return hard(fitted.labels_, k)


def _by_kmeans_plusplus(rows: Array, weights: Array, k: int, seed: int) -> Array:
    centers, _ = kmeans_plusplus(rows, k, sample_weight=weights, random_state=seed)
    return hard(_nearest(rows, centers), k)


def _by_random_rows(rows: Array, weights: Array, k: int, seed: int) -> Array:
    chosen = np.random.default_rng(seed).choice(len(rows), k, replace=False)
    return hard(_nearest(rows, rows[chosen]), k)


def _by_random(rows: Array, weights: Array, k: int, seed: int) -> Array:
    resp = np.random.default_rng(seed).random((len(rows), k))
    return np.asarray(resp / resp.sum(axis=1, keepdims=True))


LABELLERS: dict[str, Callable[[Array, Array, int, int], Array]] = {
    "auto": _by_kmeans,
    "kmeans": _by_kmeans,
    "k-means++": _by_kmeans_plusplus,
    "random": _by_random,
    "random_from_data": _by_random_rows,
}


@dataclass(frozen=True, eq=False)
class Starts:
    """How a mixture is to start: options of a `GaussianMixture`, by their names there."""

    n_components: int
    covariance_type: str
    tol: float
    reg_covar: float
    max_iter: int
    n_init: int
    init_params: str
    weights_init: Any
    means_init: Any
    precisions_init: Any
    algorithm: str

    @classmethod
    def of(cls, model: Any) -> Starts:
        """The options of an estimator that has them all."""
        return cls(**{field.name: getattr(model, field.name) for field in fields(cls)})

    @property
    def _structure(self) -> type[Covariance]:
        return STRUCTURES[self.covariance_type]

    def start(
        self,
        surveyed: Surveyed,
        engine: Engine,
        seed: int,
        callbacks: Sequence[Any],
        executor: ExecutorFactory = serial_executor,
    ) -> Start:
        """The mixture to start from, and what it cost; `callbacks` are told of the sample's fits.

        `executor` makes what calls the fits where many are raced.

        Raises
        ------
        ValueError
            `weights_init`, `means_init` or `precisions_init` is none.
        """
        weights, means, covariance = self._given(surveyed)
        if weights is not None and means is not None and covariance is not None:
            frame = surveyed.frame(self._structure.frame_kind)
            components = Gaussian.from_data_coordinates(means, covariance, frame, self.reg_covar)
            return Start(Mixture(_log(weights), components, engine), 0.0, 0.0)
        make = self.maker(surveyed, engine)
        if self.algorithm == "auto" and self.init_params == "auto":
            return self._race(surveyed, make, seed, callbacks, executor)
        refine = Convergence(self.tol, min(SAMPLE_ITERATIONS, self.max_iter))
        convergence = refine if self.init_params == "auto" else None
        n_rows = self.n_init * len(surveyed.sample.rows)
        nbytes = n_rows * surveyed.sample.rows[0].nbytes
        with ObservedPass(callbacks, "start", 1, n_rows, nbytes) as running:
            start = best_start(surveyed, make, self.n_init, seed, convergence, running.advance)
            running.log_likelihood = start.log_likelihood or None
        return start

    def _race(
        self,
        surveyed: Surveyed,
        make: Callable[[Sampled, int], Mixture],
        seed: int,
        callbacks: Sequence[Any],
        executor: ExecutorFactory,
    ) -> Start:
        """The best of many starts on the sample."""
        n_sampled, d = surveyed.sample.rows.shape
        race = Race.of(
            n_parameters(self.covariance_type, self.n_components, d), n_sampled, self.n_init
        )
        limits = Convergence(FINER * self.tol, min(SAMPLE_ITERATIONS, self.max_iter))
        n_rows = race.n_rows(n_sampled)
        nbytes = n_rows * surveyed.sample.rows[0].nbytes
        with ObservedPass(callbacks, "start", 1, n_rows, nbytes) as running:
            start = race.run(surveyed, make, seed, limits, executor, running.advance)
            running.log_likelihood = start.log_likelihood
        return start

    def maker(self, surveyed: Surveyed, engine: Engine) -> Callable[[Sampled, int], Mixture]:
        """A function from the sample and a seed to a mixture to start from."""
        scaled = surveyed.frame("diagonal")
        labeller = LABELLERS[self.init_params]
        weights, means, covariance = self._given(surveyed)
        frame = surveyed.frame(self._structure.frame_kind)

        def make(sample: Sampled, seed: int) -> Mixture:
            rows = scaled.points_to_frame(sample.rows)
            resp = labeller(rows, sample.weights, self.n_components, seed)
            mixture = from_responsibilities(sample, resp, self._structure, surveyed, self.reg_covar)
            old = mixture.components
            components = Gaussian(
                old.means if means is None else frame.points_to_frame(means),
                old.covariance if covariance is None else covariance.scaled(frame.inverse_scale),
                frame,
                self.reg_covar,
            )
            log_weights = mixture.log_weights if weights is None else _log(weights)
            return Mixture(log_weights, components, engine)

        return make

    def _given(self, surveyed: Surveyed) -> tuple[Array | None, Array | None, Covariance | None]:
        """The user's weights, means and covariances, checked; each may be None."""
        k, d = self.n_components, len(surveyed.moments.mean)
        weights = _init("weights_init", self.weights_init, (k,))
        means = _init("means_init", self.means_init, (k, d))
        if weights is not None and (
            (weights < 0).any() or (weights > 1).any() or not np.isclose(weights.sum(), 1)
        ):
            raise ValueError(
                "weights_init must lie between 0 and 1 and sum to 1, got numbers from "
                f"{weights.min():.5g} to {weights.max():.5g} that sum to {weights.sum():.5g}"
            )
        shape = self._structure.zeros(k, d).shape
        precisions = _init("precisions_init", self.precisions_init, shape)
        return weights, means, None if precisions is None else self._covariance(precisions)

    def _covariance(self, precisions: Array) -> Covariance:
        """Of the user's precisions."""
        if self._structure.kind in ("full", "tied"):
            transposed = np.swapaxes(precisions, -1, -2)
            if not np.allclose(precisions, transposed):
                raise ValueError(
                    "precisions_init must be symmetric matrices (inverse covariances), got numbers "
                    f"that are {np.abs(precisions - transposed).max():.5g} from their mirror images"
                )
        try:
            with np.errstate(invalid="ignore", divide="ignore"):
                covariance = self._structure.from_precisions(precisions)
        except np.linalg.LinAlgError:
            covariance = None
        if covariance is None or not np.isfinite(covariance.factor).all():
            raise ValueError(
                "precisions_init must be positive (positive definite matrices): expected inverse "
                f"covariances, got numbers from {precisions.min():.5g} to {precisions.max():.5g}"
            )
        return covariance


def n_parameters(covariance_type: str, k: int, d: int) -> int:
    """Free parameters of a mixture of `k` Gaussians in `d` dimensions."""
    return k - 1 + k * d + STRUCTURES[covariance_type].n_parameters(k, d)


def _log(weights: Array) -> Array:
    return np.asarray(np.log(np.maximum(weights, np.finfo(np.float64).tiny)))


def _init(name: str, value: Any, shape: tuple[int, ...]) -> Array | None:
    if value is None:
        return None
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{name}={value!r:.80}: expected numbers of shape {shape}") from e
    if array.shape != shape:
        raise ValueError(
            f"{name} has shape {array.shape}, expected {shape} for these n_components and "
            "covariance_type and this X"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity: expected finite numbers")
    return array


# Keeps the covariance of all data definite, where a component has to take it.
POOLED_RIDGE = 1e-6


Labeller = Callable[[Array, Array, int], Array]
"""(scaled rows, weights, seed) -> responsibilities (m, k)."""


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
