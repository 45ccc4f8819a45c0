"""Components of Student's t: a family with its M-step and its changes of parameters."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Self

import numpy as np

from ...core.additive import Array
from ...core.engine import NUMPY, Engine
from ...core.family import Family, Kernel, register_family
from ...core.tuning import tuning
from ...core.validation import require, require_array
from ..gaussian.statistics import GaussianStatistics, without_first
from .degrees import Bound, candidates, digamma_gap, level, power_bound
from .kernel import StudentTArrayKernel, StudentTKernel
from .parameters import StudentTParameters
from .scales import Scales
from .statistics import StudentTStatistics


@register_family("student-t")
@dataclass(frozen=True)
class StudentT(StudentTParameters, Family[StudentTStatistics]):
    """Hold K multivariate t distributions (Peel and McLachlan 2000).

    Attributes
    ----------
    scales, log_df, fixed, shared
        As in `StudentTParameters`.

    Examples
    --------
    >>> from dask_em.families.gaussian.matrices import Full
    >>> from dask_em.families.gaussian.whitening import Whitening
    >>> unit = Whitening(np.zeros(2), np.ones(2))
    >>> scales = Scales(np.zeros((1, 2)), Full(np.eye(2)[None]), unit)
    >>> StudentT(scales, np.log([3.0])).log_prob(np.zeros((1, 2))).round(4)
    array([[-1.8379]])
    """

    linear = False
    # Its bound touches the likelihood at the parameters of the E-step alone.
    carries = False
    holdable = MappingProxyType({"means": "means"})

    def validate(self, statistics: StudentTStatistics) -> None:
        """Raise `ValueError` that names the parameter or sum that is wrong."""
        require("statistics", statistics, isinstance(statistics, StudentTStatistics))
        self.scales.validate(statistics.weighted)
        k = self.scales.n_components
        most = tuning().student_t.normal_df
        require_array("log_df", self.log_df, (k,), largest=np.log(most) + 1e-9)
        largest = np.finfo(np.float64).max
        for name in ("excess", "logs", "values"):
            require_array(name, vars(statistics)[name], (k,), largest=largest)
        require_array("powers", statistics.powers, (k, 3), largest=largest)

    def take(self, components: Sequence[int]) -> Self:
        """Return the family of some components, in this order."""
        index = list(components)
        return replace(self, scales=self.scales.take(index), log_df=self.log_df[index])

    def joined(self, parts: Sequence[Self]) -> Self:
        """Return the components of all parts side by side."""
        scales = self.scales.joined([part.scales for part in parts])
        return replace(self, scales=scales, log_df=np.concatenate([p.log_df for p in parts]))

    def join_key(self, engine: Engine) -> Hashable:
        """Return the key that families to be `joined` share; None if this one is computed alone."""
        key = self.scales.join_key(engine)
        return None if key is None else ("student-t", key)

    def from_unconstrained(self, vector: Array) -> Self:
        """Return the family whose `to_unconstrained` is this vector."""
        scales, free = np.split(vector, [len(vector) - self._n_free])
        log_df = self.log_df
        if self._n_free:
            constants = tuning().student_t
            ends = np.log(constants.least_df), np.log(constants.normal_df)
            log_df = np.broadcast_to(np.clip(free, *ends), log_df.shape).copy()
        return replace(self, scales=self.scales.from_unconstrained(scales), log_df=log_df)

    def kernel(self, engine: Engine = NUMPY) -> Kernel[StudentTStatistics]:
        """Return a kernel of zero sums around that of a Gaussian."""
        kind = StudentTKernel if engine.device == "cpu" else StudentTArrayKernel
        return kind(self.scales, self.df, engine)

    def constrained(self, resp_sum: Array) -> Self:
        """Return the components nearest to these that obey what joins them, of weights (k,)."""
        return replace(self, scales=self.scales.constrained(resp_sum))

    def near(self, X: Array, resp: Array) -> Self:
        """Return components with the means of the rows X (n, d) under `resp` (n, k)."""
        return replace(self, scales=self.scales.near(X, resp))

    def sample(self, component: int, n: int, rng: np.random.Generator) -> Array:
        """Draw n rows (n, d) of one component: normal ones, over the root of u."""
        df, d = self.df[component], self.n_features
        factor = np.linalg.cholesky(self.scales.spreads[component])
        normal = rng.standard_normal((n, d)) @ factor.T
        u = rng.gamma(df / 2, 2 / df, n)
        means = self.scales.means[component]
        return self.scales.whitening.unwhiten(means + normal / np.sqrt(u)[:, None])

    def maximize(
        self, resp_sum: Array, statistics: StudentTStatistics
    ) -> tuple[Self, Sequence[int]]:
        """Return components of a higher sum r log p, by the bounds of `degrees`.

        Locations are S1 / S0 and scale matrices S2 / S0 + ridge, as constrained, of sums under
        r u; the degrees of freedom are those of the highest bound. A component, or all of them
        where the constraint or shared degrees of freedom join them, keeps its location and scale
        if that is worth more by degrees of freedom nearer to the normal's.
        """
        rows = np.maximum(resp_sum, 0.0)
        scales, weighted, kept = self._maximized_scales(rows, statistics)
        if self.fixed:
            return replace(self, scales=scales), kept
        live = np.ones(len(rows), dtype=bool)
        live[kept] = False
        df, gain = self.df.copy(), np.zeros(len(rows))
        if live.any():
            bound = self._bound(live, rows, statistics, _distances(scales, weighted))
            best = bound.best(self.shared)
            df[live] = best
            if self.shared:
                df[:] = best[0]
            reached = self._reached(rows, statistics) + rows * self._volumes(scales)
            gain[live] = bound(best) - reached[live]
        rows = np.where(live, rows, 0.0)
        stepped = replace(self, scales=scales, log_df=self._logs(df))
        return self._or_held(stepped, gain, rows, statistics), kept

    def maximize_holding(
        self, resp_sum: Array, statistics: StudentTStatistics, held: Mapping[str, Sequence[int]]
    ) -> tuple[Self, Sequence[int]]:
        """Return the step of `maximize` with some locations as they are, and scales about them.

        The bounds of `degrees` hold for any location.
        """
        weighted = without_first(statistics.weighted, held.get("means", ()))
        return self.maximize(resp_sum, replace(statistics, weighted=weighted))

    def _maximized_scales(
        self, rows: Array, statistics: StudentTStatistics
    ) -> tuple[Scales, GaussianStatistics, list[int]]:
        """Return locations and scales after the step, the sums about them, and what was kept."""
        here, sums = self.scales, statistics.weighted
        empty = tuning().numerics.empty
        weight = rows + statistics.excess
        usable = (rows > empty) & (weight > empty * rows)
        safe = np.where(usable, weight, 1.0)
        shift = np.where(usable[:, None], sums.first / safe[:, None], 0.0)
        moved = replace(here, means=here.means + shift)
        about = here.recentre(np.where(usable, weight, 0.0), sums, moved)
        total = weight
        if here.rule.joins:
            # One factor for all keeps the constraint (parameter expansion: Liu, Rubin, Wu 1998).
            by_df = self.df * usable
            share = 1 + (by_df @ statistics.excess) / max(by_df @ rows, empty)
            total = rows * share if share > 0 else rows
        scales, kept = moved.maximize(np.where(usable, total, 0.0), about)
        return self._with_kept(scales, kept), about, list(kept)

    def _with_kept(self, scales: Scales, kept: Sequence[int]) -> Scales:
        """Return scales in which components that were not estimated are where they were."""
        means, factor = scales.means.copy(), scales.covariance.factor.copy()
        kept = list(kept)
        means[kept] = self.scales.means[kept]
        if scales.one_matrix and 0 < len(kept) < len(means):
            factor[kept] = factor[next(k for k in range(len(means)) if k not in kept)]
        return replace(scales, means=means, covariance=type(scales.covariance)(factor))

    def _or_held(
        self, stepped: Self, gain: Array, rows: Array, statistics: StudentTStatistics
    ) -> Self:
        """Return `stepped`, or what only changes the degrees of freedom where that gains more."""
        df = candidates()
        found = power_bound(df, self.n_features, rows, statistics.powers)
        found = found - self._reached(rows, statistics)[:, None]
        found[rows == 0] = 0.0
        if self.shared:
            found = np.repeat(found.sum(axis=0, keepdims=True), len(rows), axis=0) / len(rows)
        best, held_gain = df[found.argmax(axis=1)], np.maximum(found.max(axis=1), 0.0)
        best = np.where(held_gain > 0, best, self.df)
        least = np.maximum(gain, 0.0) + tuning().student_t.least_gain * rows
        if self.shared or self.scales.rule.joins:
            held = np.full(len(rows), held_gain.sum() > least.sum())
        else:
            held = held_gain > least
        if not held.any():
            return stepped
        means, factor = stepped.scales.means.copy(), stepped.scales.covariance.factor.copy()
        means[held] = self.scales.means[held]
        factor[held] = self.scales.covariance.factor[held]
        covariance = type(stepped.scales.covariance)(factor)
        scales = replace(stepped.scales, means=means, covariance=covariance)
        return replace(self, scales=scales, log_df=np.where(held, self._logs(best), stepped.log_df))

    def _logs(self, df: Array) -> Array:
        constants = tuning().student_t
        least = min(constants.least_df, float(self.df.min()))
        return np.asarray(np.log(np.clip(df, least, constants.normal_df)))

    def _bound(
        self, live: Array, rows: Array, statistics: StudentTStatistics, distances: Array
    ) -> Bound:
        """Return the bound of those components that are `live`, which have rows."""
        sums = (rows, statistics.excess, statistics.logs, distances)
        return Bound(self.df[live], self.n_features, *(one[live] for one in sums))

    def _reached(self, rows: Array, statistics: StudentTStatistics) -> Array:
        """Return sum r log p of each component, but for the volumes of the scales."""
        d = self.n_features
        return np.asarray(rows * level(self.df, d) - (self.df + d) / 2 * statistics.logs)

    def _volumes(self, scales: Scales) -> Array:
        """Return by how much other scales have a larger logarithm of the volume, (k,)."""
        d = self.n_features
        return scales.covariance.log_det(d) - self.scales.covariance.log_det(d)

    def expected_log_joint(
        self, log_weights: Array, resp_sum: Array, statistics: StudentTStatistics
    ) -> float:
        """Compute sum_nk r_nk (log w_k + log p(x_n | k)) from sums at these parameters."""
        return float(resp_sum @ log_weights + statistics.values.sum())

    def gain(self, resp_sum: Array, statistics: StudentTStatistics, after: Self) -> float:
        """Bound what sum r log p gains by going from here to `after`; see `degrees`."""
        moved = self.scales.recentre(
            resp_sum + statistics.excess, statistics.weighted, after.scales
        )
        live = resp_sum > 0
        distances = _distances(after.scales, moved)
        bound = self._reached(resp_sum, statistics)
        bound[live] = self._bound(live, resp_sum, statistics, distances)(after.df[live])
        held = np.all(after.scales.means == self.scales.means, axis=1)
        same = after.scales.covariance.factor == self.scales.covariance.factor
        held &= same.reshape(len(held), -1).all(axis=1)
        by_powers = np.diagonal(power_bound(after.df, self.n_features, resp_sum, statistics.powers))
        bound = np.where(held, np.fmax(bound, by_powers), bound)
        volumes = resp_sum * self._volumes(after.scales)
        return float((bound - self._reached(resp_sum, statistics) - volumes).sum())

    def recentre(
        self, resp_sum: Array, statistics: StudentTStatistics, to: Self
    ) -> StudentTStatistics:
        """Return sums at these parameters as sums at those of `to`, to the first order.

        log p is no linear function of any sums. What is returned is linear in them, and so tells
        of a difference of sums what it tells of both: values along the tangent of log nu at these
        parameters, and with the weights u that rows have here; and sums at which the slope of
        `to` is that of the values.
        """
        if to is self or _alike(to, self):
            return statistics
        d, excess = self.n_features, statistics.excess
        sums = statistics.weighted
        moved = self.scales.recentre(resp_sum + excess, sums, to.scales)
        before, after = _distances(self.scales, sums), _distances(to.scales, moved)
        slope = self.df * (resp_sum * digamma_gap(self.df, d) - statistics.logs - excess) / 2
        values = statistics.values - resp_sum * self._volumes(to.scales)
        values = values - (after - before) / 2 + (to.log_df - self.log_df) * slope
        # What sums at parameters have in common: sum r u delta + nu sum r u = (nu + d) sum r.
        excess = (d * resp_sum - after) / to.df
        logs = resp_sum * digamma_gap(to.df, d) - excess - 2 * slope / to.df
        powers = np.full_like(statistics.powers, np.nan)
        return StudentTStatistics(moved, excess, logs, powers, values)

    def merge_losses(
        self, pairs: Sequence[tuple[int, int]], totals: Array, X: Array, resp: Array
    ) -> list[float]:
        """Estimate the loss of sum r log p, in nats, by the wider scale of each merged pair."""
        return self.scales.merge_losses(pairs, totals, X, resp)


def _distances(scales: Scales, about: GaussianStatistics) -> Array:
    """Return sum r u delta of each component, (k,), of sums about its location."""
    products = scales.covariance.precisions * about.scatter
    return np.asarray(products.reshape(len(products), -1).sum(axis=1))


def _alike(one: StudentT, other: StudentT) -> bool:
    """Whether two have the same parameters, to the bit."""
    theirs = other.arrays()
    return all(np.array_equal(array, theirs[name]) for name, array in one.arrays().items())
