"""Starts of a fit: by scikit-learn's methods on the sample, or from the user's arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..backends.blas import one_openmp_thread
from ..core.additive import Array
from ..core.em import Convergence, EMState, Rank, em, rank
from ..core.engine import Engine
from ..core.executor import serial_executor
from ..core.family import Family, FamilyOptions
from ..core.finite import as_finite
from ..core.held import WEIGHTS, Held, mixture_holding, n_held
from ..core.mixture import Mixture
from ..core.moments import Moments
from ..core.parts import MixtureStatistics
from ..core.protocols import ExecutorFactory
from ..core.responsibilities import Assignment
from ..core.tuning import tuning
from ..errors import DataError
from .checks import check_weights_init
from .multistart import Multistart
from .noise import NoiseOptions
from .observers import ObservedPass, Observer
from .sample import Sampled, Start
from .seeding import best_of_runs, grouped_columns, oversampled
from .survey import Surveyed

if TYPE_CHECKING:
    from sklearn.cluster import KMeans


def _nearest(rows: Array, centers: Array) -> Array:
    squares = (centers**2).sum(axis=1)
    most = max(1, tuning().sample.hard_numbers // len(centers))
    found = [(squares - 2 * X @ centers.T).argmin(axis=1) for X in _blocks(rows, most)]
    return np.concatenate(found)


def _blocks(rows: Array, most: int) -> list[Array]:
    return [rows[first : first + most] for first in range(0, len(rows), most)]


def _places(rows: Array, k: int) -> Array | None:
    """Number the distinct rows where there are fewer than k; None where there are enough."""
    if len(np.unique(rows[: 4 * k], axis=0)) >= k:
        return None
    places, labels = np.unique(rows, axis=0, return_inverse=True)
    return labels.ravel() if len(places) < k else None


def _by_kmeans(rows: Array, weights: Array, k: int, seed: int, n_restarts: int = 1) -> Array:
    distinct = _places(rows, k)
    if distinct is not None:
        # scikit-learn would find as many clusters, and warn.
        return distinct
    made = _kmeans(len(rows), rows.shape[1], k, seed, n_restarts)
    with one_openmp_thread():
        return np.asarray(made.fit(rows, sample_weight=weights).labels_)


def _kmeans(n: int, d: int, k: int, seed: int, n_restarts: int = 1) -> KMeans:
    """Return scikit-learn's k-means, cut down where there are so many components."""
    # Workers, which import this file, start nothing: scikit-learn would take 150 MB of each.
    from sklearn.cluster import KMeans

    constants = tuning().sample
    # In products of all rows and all centers; k-means++ takes some for each center.
    budget = constants.kmeans_work / (n * k * (d + constants.distance_work))
    plus_plus = 2 + np.log(k)
    if budget > plus_plus:
        most = int(max(1, min(constants.kmeans_iterations, budget - plus_plus)))
        runs = int(max(1, min(n_restarts, budget / (plus_plus + most))))
        return KMeans(k, n_init=runs, random_state=seed, max_iter=most)
    most = int(max(1, budget))
    return KMeans(k, n_init=1, random_state=seed, max_iter=most, init="random")


def _by_kmeans_plusplus(rows: Array, weights: Array, k: int, seed: int) -> Array:
    from sklearn.cluster import kmeans_plusplus

    centers, _ = kmeans_plusplus(rows, k, sample_weight=weights, random_state=seed)
    return _nearest(rows, centers)


def _by_kmeans_parallel(rows: Array, weights: Array, k: int, seed: int) -> Array:
    from sklearn.cluster import kmeans_plusplus

    drawn, shares = oversampled(rows, weights, k, seed)
    centers, _ = kmeans_plusplus(drawn, k, sample_weight=shares, random_state=seed)
    return _nearest(rows, centers)


def _by_seeds(rows: Array, weights: Array, k: int, seed: int) -> Array:
    """Label rows by seeds of K-means, or of few rows by the best of several runs of it."""
    distinct = _places(rows, k)
    if distinct is not None:
        return distinct
    constants = tuning().sample
    runs = min(int(constants.restarts_work / (rows.size * k)), constants.restarts)
    if runs > 1:
        return best_of_runs(rows, weights, k, seed, runs)
    return _by_kmeans_plusplus(rows, weights, k, seed)


def _by_random_rows(rows: Array, weights: Array, k: int, seed: int) -> Array:
    chosen = np.random.default_rng(seed).choice(len(rows), k, replace=False)
    return _nearest(rows, rows[chosen])


def _by_random(rows: Array, weights: Array, k: int, seed: int) -> Array:
    resp = np.random.default_rng(seed).random((len(rows), k))
    return np.asarray(resp / resp.sum(axis=1, keepdims=True))


# By name, what makes of (rows, weights, k, seed) the labels (n,) or the responsibilities (n, k).
LABELLERS: dict[str, Callable[[Array, Array, int, int], Array]] = {
    "auto": _by_kmeans,
    "kmeans": _by_kmeans,
    "k-means++": _by_kmeans_plusplus,
    "random": _by_random,
    "random_from_data": _by_random_rows,
}


# Those that no mixture of soft assignment takes by their names.
OTHER_LABELLERS: dict[str, Callable[[Array, Array, int, int], Array]] = {
    "k-means||": _by_kmeans_parallel,
}


@dataclass(frozen=True, eq=False)
class Maker:
    """Make the starts of one model.

    Attributes
    ----------
    one : callable
        (sample, seed) -> a mixture to start from.
    more : callable
        (sample, seed) -> the mixtures of clusters that `one` does not see, of which there are few.
    """

    one: Callable[[Sampled, int], Mixture]
    more: Callable[[Sampled, int], list[Mixture]]


@dataclass(frozen=True, eq=False)
class StartOptions:
    """Hold the options of a start, by their names in the estimator.

    Attributes
    ----------
    components : FamilyOptions
        What the family knows of its components before there are any.
    start_from : callable, optional
        What is surveyed of the data -> in place of a start, the mixture of an earlier fit, or
        the state that it reached on the same data, to go on from.
    refined : bool
        Whether a start is fitted to the sample whatever `init_params` made it.
    family : str
        Name of the class of mixtures, by which those of a sweep are told apart.
    held : mapping of str to sequence of int or None, optional
        Parameters that no step changes, each with its components, None for all.
    tol_of_all : bool
        Whether `tol` is of all rows together, not of one.
    noise : NoiseOptions or None
        Beside the components.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> options = GaussianMixture(3, covariance_type="diag").start_options()
    >>> options.init_params, options.n_parameters(d=2)
    ('auto', 14)
    """

    components: FamilyOptions
    n_components: int
    tol: float
    max_iter: int
    n_init: int
    init_params: str
    weights_init: npt.ArrayLike | None
    algorithm: str
    assignment: Assignment = "soft"
    start_from: Callable[[Surveyed], Mixture | EMState] | None = None
    refined: bool = False
    family: str = ""
    held: Mapping[str, Sequence[int] | None] | None = None
    tol_of_all: bool = False
    noise: NoiseOptions | None = None

    def n_parameters(self, d: int) -> int:
        """Count the free parameters of the mixture in d columns."""
        k = self.n_components
        if self.held is not None:
            return self.n_parameters_of(Moments.unit(d))
        return k - 1 + self.components.n_parameters(k, d) + (self.noise is not None)

    def n_parameters_of(self, moments: Moments) -> int:
        """Count the free parameters of the mixture of data of these moments."""
        k = self.n_components
        free = k - 1 + self.components.n_parameters_of(k, moments) + (self.noise is not None)
        if self.held is None:
            return free
        alike = self.components.of_data(moments, k)
        return free - n_held(Held.of(self.held, k), alike, k)

    def holding(self, mixture: Mixture, moments: Moments, noise: float | None = None) -> Mixture:
        """Return a start whose held parameters no step changes; without weights they are equal.

        Where there is to be noise, it begins with about the share `noise`, if that is known.
        """
        held = self.held or {}
        log_weights = mixture.log_weights
        if Held.of(held, self.n_components)[WEIGHTS] and self.weights_init is None:
            log_weights = np.full(self.n_components, -np.log(self.n_components))
        if self.noise is not None:
            mixture = replace(mixture, log_weights=log_weights)
            return self.noise.beside(mixture, moments, noise, held)
        if self.held is None:
            return mixture
        return mixture_holding(
            self.held, log_weights, mixture.components, mixture.engine, mixture.assignment
        )

    def start(
        self,
        surveyed: Surveyed,
        engine: Engine,
        seed: int,
        observers: Sequence[Observer],
        executor: ExecutorFactory = serial_executor,
    ) -> Start:
        """Return the mixture to start from.

        Parameters
        ----------
        surveyed : Surveyed
        engine : Engine
        seed : int
        observers : sequence of Observer
            Told of the fits to the sample.
        executor : callable
            Makes what calls the fits where there are many.

        Raises
        ------
        ValueError
            What the user gave to start from are no such parameters.
        """
        if self.start_from is not None:
            found = self.start_from(surveyed)
            if isinstance(found, EMState):
                return Start(found.result, state=found)
            found = replace(found, engine=engine)
            return Start(self.holding(found, surveyed.moments, found.noise_weight or None))
        given = self._given(surveyed.moments)
        if self.weights_init is not None and self.components.all_given:
            return Start(self.holding(replace(given, engine=engine), surveyed.moments))
        fitted = self.is_fitted(len(surveyed.sample.rows), surveyed.n_weighted)
        if self.algorithm == "auto" and fitted:
            return self._multistart(surveyed, engine, seed, observers, executor)
        make = self.maker(surveyed, engine)
        convergence = self._limits(surveyed) if fitted else None
        n_rows = self.n_init * len(surveyed.sample.rows)
        with ObservedPass(observers, "start", 1, n_rows, 0) as running:
            start = best_start(surveyed, make.one, self.n_init, seed, convergence, running.advance)
            if start.log_likelihood:
                running.log_likelihood = start.log_likelihood
                running.objective = start.reported_objective(surveyed.moments.weight)
        return start

    def is_fitted(self, n_sampled: int, n_rows: int) -> bool:
        """Tell whether a start is fitted to the sample, of so many of all rows."""
        # Where the sample is all of the data, its iterations are those that `max_iter` counts.
        one_by_one = n_rows <= n_sampled and self.max_iter < tuning().sample.fewest_iterations
        return (self.init_params == "auto" or self.refined) and not one_by_one

    def _multistart(
        self,
        surveyed: Surveyed,
        engine: Engine,
        seed: int,
        observers: Sequence[Observer],
        executor: ExecutorFactory,
    ) -> Start:
        """Return the best of many starts on the sample."""
        n_sampled, p = len(surveyed.sample.rows), self.n_parameters_of(surveyed.moments)
        multistart = Multistart.of(
            p,
            self.n_components,
            n_sampled,
            surveyed.n_weighted,
            self.n_init,
            self.assignment,
            self.components.variational,
        )
        make = self.maker(surveyed, engine, multistart.n_restarts)
        limits = self._limits(surveyed)
        n_rows = multistart.n_rows(n_sampled)
        with ObservedPass(observers, "start", 1, n_rows, 0) as running:
            start = multistart.fit(
                surveyed, make.one, make.more, seed, limits, executor, running.advance
            )
            running.log_likelihood = start.log_likelihood
            running.objective = start.reported_objective(surveyed.moments.weight)
        return start

    def _limits(self, surveyed: Surveyed) -> Convergence:
        """Return the limits of a fit to the sample.

        Its iterations are the same for every few that `max_iter` allows.
        """
        constants = tuning().sample
        most = min(constants.iterations, max(constants.fewest_iterations, self.max_iter))
        found = Convergence(self.tol, most, of_all=self.tol_of_all)
        share = len(surveyed.sample.rows) / max(1, surveyed.n_weighted)
        return found.of_rows(share * surveyed.moments.weight)

    def maker(self, surveyed: Surveyed, engine: Engine, n_restarts: int = 1) -> Maker:
        """Return what makes starts of the sample and a seed.

        A component that gets too few rows of the sample to be fitted describes all data. By
        default ("auto") it is the best of `n_restarts` runs of k-means, and one more is of the
        columns alone that show groups by themselves.
        """
        labeller = {**LABELLERS, **OTHER_LABELLERS}[self.init_params]
        if self.init_params == "auto":
            labeller = partial(_by_kmeans, n_restarts=n_restarts)
            if self.assignment == "hard":
                # What follows is K-means itself, on rows of the sample.
                labeller = _by_seeds
        given = replace(self._given(surveyed.moments), engine=engine)
        moments = surveyed.moments
        pooled = self.components.of_data(moments, self.n_components)

        def of(sample: Sampled, rows: Array, seed: int) -> Mixture:
            noise = None
            if self.noise is not None:
                sample, rows, noise = self.noise.split(sample, rows, self.n_components)
            found = labeller(rows, sample.weights, self.n_components, seed)
            if found.ndim == 1:
                start = self._of_labels(pooled, given, sample, found)
            else:
                resp = found * sample.weights[:, None]
                start = self._of_responsibilities(pooled, given, sample.rows, resp)
            return self.holding(start, moments, noise)

        def coordinates(sample: Sampled) -> Array:
            return self.components.start_coordinates(sample.rows, moments)

        def one(sample: Sampled, seed: int) -> Mixture:
            return of(sample, coordinates(sample), seed)

        def more(sample: Sampled, seed: int) -> list[Mixture]:
            if not self._seeks_groups:
                return []
            found = grouped_columns(coordinates(sample), sample.weights, self.n_components)
            return [] if found is None else [of(sample, found, seed)]

        return Maker(one, more)

    @property
    def _seeks_groups(self) -> bool:
        """Whether a start may leave columns out: of densities, which have no scale of their own."""
        densities = set(self.components.base_measure) == {"a density"}
        several = self.n_components > 1 and self.init_params == "auto"
        return several and densities and self.assignment == "soft"

    def of_responsibilities(self, moments: Moments, X: Array, resp: Array | None) -> Mixture:
        """Return the M-step of `resp` for the rows X (n, d), but for what the user gave.

        They are (n, k), or (n, k + 1) with noise in the last column.
        """
        given, k = self._given(moments), self.n_components
        if resp is None:
            return self.holding(given, moments)
        pooled = self.components.of_data(moments, k)
        noise = float(resp[:, k:].sum() / resp.sum())
        return self.holding(
            self._of_responsibilities(pooled, given, X, resp[:, :k]), moments, noise
        )

    def starts_of(self, moments: Moments, X: Array, resp: Array) -> list[Mixture]:
        """Return the mixtures that may start from `resp` of the rows X (n, d).

        They are (n, k), or (n, k + 1) with noise in the last column.
        """
        given, k = self._given(moments), self.n_components
        pooled = self.components.of_data(moments, k)
        noise, resp = float(resp[:, k:].sum() / resp.sum()), resp[:, :k]
        return [
            self.holding(self._m_step(given, one, X, resp), moments, noise)
            for one in pooled.descriptions(X, resp)
        ]

    def to_sum_labels(self, moments: Moments) -> Mixture:
        """Return components alike, at which rows are summed that have labels."""
        k = self.n_components
        components = self.components.to_sum_labels(moments, k)
        alike = Mixture(np.full(k, -np.log(k)), components, assignment=self.assignment)
        return alike if self.noise is None else self.noise.beside(alike, moments)

    def of_sums(self, moments: Moments, at: Mixture, sums: MixtureStatistics) -> list[Mixture]:
        """Return the M-step of sums that labels give, or some, but for what the user gave.

        Parameters
        ----------
        moments : Moments
        at : Mixture
            About whose centres the sums are: `to_sum_labels`.
        sums : MixtureStatistics

        Raises
        ------
        DataError
            A component has no labelled row.
        """
        empty = np.flatnonzero(~(sums.resp_sum > 0)).tolist()
        if empty:
            raise DataError(
                f"labels_init gives no row to {'components' if len(empty) > 1 else 'component'} "
                f"{', '.join(map(str, empty))} of {self.n_components}: label some rows of each, or "
                "lower n_components"
            )
        given, shared = self._given(moments), at.with_shares(sums.resp_sum)
        noise = sums.noise_sum / (sums.noise_sum + float(sums.resp_sum.sum()))
        found = []
        rows, of_rows = sums.resp_sum, sums.components
        for one in self.components.of_labels(moments, at.components, rows, of_rows):
            mixture = shared.holding(one)
            components = self.components.with_given(one.softened())
            log_weights = mixture.log_weights if self.weights_init is None else given.log_weights
            begun = replace(mixture, log_weights=log_weights, components=components)
            found.append(self.holding(begun, moments, noise))
        return found

    def _of_labels(
        self, pooled: Family[Any], given: Mixture, sample: Sampled, labels: Array
    ) -> Mixture:
        """Return the M-step of labels (n,), by groups of components where (n, k) would be large."""
        rows, weights, k = sample.rows, sample.weights, self.n_components
        size = max(1, k * tuning().sample.hard_numbers // (len(rows) * k))
        if size >= k or pooled.shares_statistics:
            resp = hard(labels, k) * weights[:, None]
            return self._of_responsibilities(pooled, given, rows, resp)
        parts = []
        order = np.argsort(labels, kind="stable")
        for first in range(0, k, size):
            group = range(first, min(first + size, k))
            inside = order[slice(*np.searchsorted(labels[order], [group.start, group.stop]))]
            resp = hard(labels[inside] - first, len(group)) * weights[inside, None]
            near = pooled.take(group).near(rows[inside], resp)
            rough = replace(given.take(group), components=near)
            parts.append(rough.of_responsibilities(rows[inside], resp).components)
        sums = np.bincount(labels, weights, minlength=k)
        components = self.components.with_given(pooled.joined(parts).constrained(sums))
        log_weights = given.log_weights
        if self.weights_init is None:
            log_weights = np.log(np.maximum(sums / sums.sum(), np.finfo(np.float64).tiny))
        return replace(given, log_weights=log_weights).holding(components)

    def _of_responsibilities(
        self, pooled: Family[Any], given: Mixture, X: Array, resp: Array
    ) -> Mixture:
        return self._m_step(given, pooled.near(X, resp), X, resp)

    def _m_step(self, given: Mixture, near: Family[Any], X: Array, resp: Array) -> Mixture:
        mixture = replace(given, components=near).of_responsibilities(X, resp)
        components = self.components.with_given(mixture.components)
        if self.weights_init is not None:
            mixture = replace(mixture, log_weights=given.log_weights)
        return mixture.holding(components)

    def _given(self, moments: Moments) -> Mixture:
        """Return components alike of all data, but for what the user gave, checked."""
        k = self.n_components
        pooled = self.components.of_data(moments, k)
        components = self.components.with_given(pooled)
        weights = as_finite("weights_init", self.weights_init, (k,), "weights")
        if weights is None:
            weights = np.full(k, 1 / k)
        else:
            check_weights_init(weights)
        log_weights = np.log(np.maximum(weights, np.finfo(np.float64).tiny))
        return Mixture(log_weights, components, assignment=self.assignment).holding(components)


def best_start(
    surveyed: Surveyed,
    make: Callable[[Sampled, int], Mixture],
    n_init: int,
    seed: int,
    convergence: Convergence | None,
    advance: Callable[[int], None] | None = None,
) -> Start:
    """Return the best of `n_init` starts on the sample.

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
    candidates: list[tuple[Rank, Mixture, float]] = []
    n_passes = 0.0
    for one in seeds:
        mixture = make(sample, int(one))
        collapsed: tuple[int, ...] = ()
        log_likelihood = score = 0.0
        spiked = False
        if convergence is None:
            # A single start needs no score.
            if n_init > 1:
                found = sample.accumulate(mixture)
                score, log_likelihood = mixture.objective(found), mixture.reported(found)
                n_passes += share
        else:
            *_, state = em(sample.accumulate, mixture, convergence)
            mixture, score = state.result, state.objective
            log_likelihood = state.reported
            n_passes += share * state.n_iter
            collapsed, spiked = state.collapsed, state.spiked
        candidates.append((rank(score, collapsed, spiked), mixture, log_likelihood))
        if advance:
            advance(len(sample.rows))
    _, mixture, log_likelihood = max(candidates, key=lambda c: c[0])
    return Start(mixture, n_passes, log_likelihood)


def hard(labels: Sequence[int] | Array, k: int) -> Array:
    """Return responsibilities (m, k) that are one for each row's label and zero elsewhere."""
    return np.asarray(np.eye(k)[np.asarray(labels)])
