"""Gaussian components: a family with its M-step, its bounds and its changes of coordinates."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from ...core.additive import Array
from ...core.engine import NUMPY, Engine
from ...core.family import Family, Kernel, blocks, register_family
from ...core.tuning import tuning
from ...core.validation import LARGEST, require, require_array
from .constraints import CONSTRAINTS, Constraint, constraint_of
from .covariance import ROUNDING, Covariance
from .numpy_kernel import GaussianKernel
from .parameters import GaussianParameters
from .statistics import GaussianStatistics, without_first
from .whitening import Whitening


@register_family("gaussian")
@dataclass(frozen=True)
class Gaussian(GaussianParameters, Family[GaussianStatistics]):
    """Hold K multivariate normal distributions in whitened coordinates.

    Attributes
    ----------
    means : (k, d) array
    covariance : Covariance
    whitening : Whitening
    ridge : float
    constraint : str
        What the M-step allows of the covariances, see `constraints`; by default all that
        `covariance` can store.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em.families.gaussian.matrices import Full
    >>> unit = Whitening(np.zeros(2), np.ones(2))
    >>> one = Gaussian(np.zeros((1, 2)), Full(np.eye(2)[None]), unit)
    >>> one.log_prob(np.zeros((1, 2))).round(4)
    array([[-1.8379]])
    """

    constraint: str = ""

    adaptable = True
    holdable = MappingProxyType({"means": "means", "covariances": "factor"})

    def __getstate__(self) -> dict[str, object]:
        # What is cached can be made again, and may be as large as the parameters.
        state = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**state, "registered_by": constraint_of(self.kind).module}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A worker has not imported what this process has.
        module = state.pop("registered_by")
        vars(self).update(state)
        if self.kind not in CONSTRAINTS:
            import_module(module)

    @property
    def kind(self) -> str:
        """The name of the constraint."""
        return self.constraint or self.covariance.kind

    @property
    def rule(self) -> Constraint:
        """The constraint of the M-step."""
        return constraint_of(self.kind)

    @property
    def structure(self) -> str:
        """The constraint in words."""
        return f"{self.kind} covariance"

    @property
    def shares_statistics(self) -> bool:  # type: ignore[override]
        """Whether all components share one scatter."""
        return self.covariance.shared_scatter

    @property
    def of_missing(self) -> str:
        return (
            '; where NaN is a missing value, pass missing_values="mar" to answer by what is '
            'observed of a row (a fitted model is told by set_params(missing_values="mar"))'
        )

    @property
    def n_parameters(self) -> int:
        k, d = self.means.shape
        return int(k * d + self.rule.n_parameters(k, d))

    @property
    def nbytes(self) -> int:
        return int(self.means.nbytes + self.covariance.factor.nbytes)

    @property
    def statistics_bytes(self) -> int:
        k, d = self.means.shape
        # Nobody writes these zeros, so they take no memory.
        return GaussianStatistics(np.zeros((k, d)), self.covariance.zeros(k, d)).nbytes

    def validate(self, statistics: GaussianStatistics) -> None:
        """Raise `ValueError` that names the parameter or sum that is wrong."""
        k, d = self.means.shape if self.means.ndim == 2 else (0, 0)
        allowed = self.rule.storage is type(self.covariance)
        require("constraint", self.constraint, allowed)
        # No memory is touched, whatever a file claims.
        shape = self.covariance.zeros(k, d).shape
        scale = self.whitening.scale
        require_array("means", self.means, (k, d))
        require_array("factor", self.covariance.factor, shape)
        require_array("shift", self.whitening.shift, (d,))
        require_array("scale", scale, (d,) if scale.ndim == 1 else (d, d))
        for name, factor, diagonal in (
            ("factor", self.covariance.factor, self.covariance.positive(self.covariance.factor)),
            ("scale", scale, scale if scale.ndim == 1 else np.diagonal(scale)),
        ):
            require(f"diagonal of {name}", diagonal, bool((diagonal >= 1 / LARGEST).all()))
            if diagonal.ndim < factor.ndim:
                require(f"{name} above its diagonal", factor, not np.triu(factor, 1).any())
        require("ridge", self.ridge, 0 <= self.ridge <= LARGEST)
        largest = np.finfo(np.float64).max
        require_array("first", statistics.first, (k, d), largest=largest)
        require_array("scatter", statistics.scatter, shape, largest=largest)

    # -- the E-step ------------------------------------------------------------------

    def kernel(self, engine: Engine = NUMPY) -> Kernel[GaussianStatistics]:
        """Return a kernel of zero sums: the one of the least cost among those that are accurate."""
        found = self.kernel_of_all(engine)
        if engine.device != "cpu" or engine.name != "numba" or not self.covariance.compiled:
            return found
        from .candidates import with_candidates

        return with_candidates(self, found)

    def kernel_of_all(self, engine: Engine = NUMPY) -> Kernel[GaussianStatistics]:
        """Return the kernel that computes all components for each row, whether they count."""
        if engine.device != "cpu":
            from .array_api import ArrayKernel

            return ArrayKernel.of(self, engine)
        if engine.name == "numba" and self.covariance.compiled:
            return self._compiled_kernel(engine)
        fits = (
            tuning().numpy_kernel.least_rows * self.covariance.n_features(self.n_features)
            <= tuning().numpy_kernel.cached
        )
        return GaussianKernel(self, features_allowed=fits and self.features_are_safe)

    def _compiled_kernel(self, engine: Engine) -> Kernel[GaussianStatistics]:
        from .compiled_kernel import CentredKernel, FeaturesKernel

        if self.covariance.kind == "diag":
            if self.features_are_safe:
                return FeaturesKernel(self)
            return GaussianKernel(self, features_allowed=False)
        if engine.single and self.single_is_safe:
            return CentredKernel(self, np.float32)
        k, d = self.means.shape
        cheaper = d <= tuning().compiled_kernel.few_columns and 2 * k > d + 2
        return FeaturesKernel(self) if cheaper and self.features_are_safe else CentredKernel(self)

    def join_key(self, engine: Engine) -> Hashable:
        """Return the key that families to be `joined` share; None if this one is computed alone."""
        # One that is tight beside the spread of the data would take the others along on the
        # way that is safe for it.
        by_component = engine.name == "numba" and self.covariance.kind == "full"
        if self.covariance.shared_scatter or (
            by_component and self.n_features > tuning().compiled_kernel.shared_columns
        ):
            return None
        safe = self.features_are_safe, engine.single and self.single_is_safe
        whitening = self.whitening.shift.tobytes(), self.whitening.scale.tobytes()
        return self.covariance.kind, self.n_features, *whitening, *safe

    def joined(self, parts: Sequence[Self]) -> Self:
        """Return the components of all parts side by side."""
        means = np.concatenate([part.means for part in parts])
        factor = np.concatenate([part.covariance.factor for part in parts])
        return replace(self, means=means, covariance=type(self.covariance)(factor))

    def take(self, components: Sequence[int]) -> Self:
        """Return the family of some components, in this order."""
        index = list(components)
        return replace(self, means=self.means[index], covariance=self.covariance.take(index))

    # -- the M-step --------------------------------------------------------------------

    def maximize(
        self, resp_sum: Array, statistics: GaussianStatistics
    ) -> tuple[Self, Sequence[int]]:
        """Return mu += S1 / S0 and Sigma = S2 / S0 - shift shift^T + ridge, as constrained.

        A component that holds no rows or whose covariance is singular keeps
        its mean and covariance, which leaves its part of the expected
        log-likelihood where it was: the log-likelihood still cannot fall.
        """
        empty = ~(resp_sum > tuning().numerics.empty)
        total = np.where(empty, 1.0, resp_sum)
        shift = np.where(empty[:, None], 0.0, statistics.first / total[:, None])
        total = np.where(empty, tuning().numerics.empty, resp_sum)
        found = self.covariance.unconstrained(total, shift, statistics.scatter, self._ridge())
        joins = self.rule.joins and not self.covariance.shared_scatter
        if joins and empty.any():
            # As near as it can be to where it was, for the others to be as they are without it.
            found[empty] = self.covariance.covariances[empty]
        covariance, singular = self.covariance.factorized(self.allowed(total, found), len(total))
        kept = sorted({*np.flatnonzero(empty).tolist(), *singular})
        means = self.means + shift
        if not covariance.shared_scatter:
            factor = covariance.factor.copy()
            held = list(singular) if joins else kept
            factor[held] = self.covariance.factor[held]
            covariance = type(covariance)(factor)
            means[kept] = self.means[kept]
        return replace(self, means=means, covariance=covariance), kept

    def maximize_holding(
        self, resp_sum: Array, statistics: GaussianStatistics, held: Mapping[str, Sequence[int]]
    ) -> tuple[Self, Sequence[int]]:
        """Return the M-step of what is not held; covariances are about the means that are.

        The sums are about these means: without its first moments a component stays where it is.
        """
        means = held.get("means", ())
        found, kept = self.maximize(resp_sum, without_first(statistics, means))
        whole = {*means} & {*held.get("covariances", ())}
        return found.holding(self, held), [k for k in kept if k not in whole]

    def holding(self, of: Self, held: Mapping[str, Sequence[int]]) -> Self:
        """Return these components with the means and covariances of `of` that are held."""
        found, at = self, list(held.get("means", ()))
        if at:
            means = self.means.copy()
            means[at] = of.means[at]
            found = replace(found, means=means)
        at = list(held.get("covariances", ()))
        if len(at) == len(self.means):
            found = replace(found, covariance=of.covariance)
        elif at:
            factor = self.covariance.factor.copy()
            factor[at] = of.covariance.factor[at]
            found = replace(found, covariance=type(self.covariance)(factor))
        return found

    def n_held(self, held: Mapping[str, Sequence[int]]) -> int:
        """Count the free parameters that are held."""
        k, d = self.means.shape
        n_covariances = len(held.get("covariances", ()))
        rule = self.rule
        of_covariances = (
            rule.n_parameters(k, d)
            if n_covariances == k
            else n_covariances * rule.n_parameters(1, d)
        )
        return int(d * len(held.get("means", ())) + of_covariances)

    def adapted(
        self, background: Self, resp_sum: Array, statistics: GaussianStatistics, relevance: float
    ) -> Self:
        """Return mu_k = alpha_k E_k(x) + (1 - alpha_k) mu_k of the background.

        alpha_k is n_k / (n_k + relevance): Reynolds, Quatieri and Dunn (2000), equations 12 and
        14. Written as a step from these means, about which the sums are, it keeps all digits; it
        is the M-step under the priors N(mu_k; mu_k of the background, Sigma_k / relevance).
        """
        total = resp_sum + relevance
        still = ~(total > tuning().numerics.empty)
        pull = relevance * (background.means - self.means)
        shift = (statistics.first + pull) / np.where(still, 1.0, total)[:, None]
        return replace(self, means=self.means + np.where(still[:, None], 0.0, shift))

    def allowed(self, resp_sum: Array, covariances: Array) -> Array:
        """Return the likeliest covariances that are allowed, given the unconstrained ones."""
        return self.rule.allowed(resp_sum, covariances, self.covariance.covariances)

    def constrained(self, resp_sum: Array) -> Self:
        """Return the components with the covariances that the constraint allows for these."""
        if not self.rule.joins:
            return self
        covariances = self.covariance.covariances
        if not np.isfinite(covariances).all():
            return self
        nearest = self.rule.allowed(resp_sum, covariances, covariances)
        covariance, _ = self.covariance.factorized(nearest, len(resp_sum))
        return replace(self, covariance=covariance)

    def _ridge(self) -> Array:
        """Return what is added to covariances, (d, d), or its diagonal (d,) where it is one."""
        inverse = self.whitening.inverse_scale
        return np.asarray(self.ridge * (inverse**2 if inverse.ndim == 1 else inverse @ inverse.T))

    def near(self, X: Array, resp: Array) -> Self:
        """Return components with the means of the rows X (n, d) under `resp` (n, k)."""
        whitening = self.whitening
        total = np.maximum(resp.sum(axis=0), 1e-300)[:, None]
        means = resp.T @ (X - whitening.shift) / total
        return replace(self, means=whitening.whiten(whitening.shift + means))

    def with_parameters(self, given: Mapping[str, Array]) -> Self:
        """Return components of means and covariances in the units of the data.

        Raises
        ------
        ValueError
            Covariances are not positive definite, or not of the structure.
        """
        found, covariances = super().with_parameters(given), given["covariances"]
        if self.rule.joins and not self.covariance.shared_scatter:
            k = len(self.means)
            nearest = self.rule.allowed(np.ones(k), covariances, covariances)
            apart = np.abs(nearest - covariances)
            if not (apart <= ROUNDING * self.covariance.magnitude(covariances)).all():
                raise ValueError(
                    f"covariances are none of the structure {self.kind!r}: those that are differ "
                    f"from them by {apart.max():.5g}"
                )
        return found

    # -- sums at other parameters ---------------------------------------------------------

    def recentre(
        self, resp_sum: Array, statistics: GaussianStatistics, to: Self
    ) -> GaussianStatistics:
        """Return sums about these means as sums about those of `to`.

        Sums about a mean are quadratic in it, so nothing but the sums is needed:
        sum r (z - a - s)(z - a - s)^T = S2 - S1 s^T - s S1^T + S0 s s^T. What is moved may be
        a difference of sums.
        """
        shift = to.means - self.means
        first, scatter = statistics.first, statistics.scatter
        scatter = self.covariance.recentred(scatter, first, resp_sum, shift)
        return GaussianStatistics(first - resp_sum[:, None] * shift, scatter)

    def expected_log_joint(
        self, log_weights: Array, resp_sum: Array, statistics: GaussianStatistics
    ) -> float:
        """Compute sum_nk r_nk log(w_k N(x_n; mu_k, Sigma_k)) from sums about the means."""
        d = self.n_features
        volume = self.covariance.log_det(d) + 0.5 * d * np.log(2 * np.pi) + self.whitening.log_det
        distances = (self.covariance.precisions * statistics.scatter).sum()
        return float(resp_sum @ (log_weights - volume) - 0.5 * distances)

    def merge_losses(
        self, pairs: Sequence[tuple[int, int]], totals: Array, X: Array, resp: Array
    ) -> list[float]:
        """Compute the loss of sum r log p, in nats, by the wider covariance of each merged pair."""
        i, j = np.array(pairs, dtype=int).reshape(-1, 2).T
        a, b = totals[i], totals[j]
        n = a + b
        apart = self.means[i] - self.means[j]
        spreads = self.spreads
        if self.covariance.shared_scatter:
            distances = (apart * np.linalg.solve(spreads[0], apart.T).T).sum(axis=1)
            total = totals.sum()
            return [float(x) for x in total * np.log1p(a * b / (n * total) * distances) / 2]
        volumes = self.covariance.log_dets(spreads)
        lost = np.empty(len(n))
        for part in blocks(len(n), max(1, tuning().numpy_kernel.cached // self.n_features**2)):
            p, q, m = i[part], j[part], n[part, None, None]
            outer = apart[part, :, None] * apart[part, None, :]
            share = a[part, None, None] / m
            merged = share * spreads[p] + (1 - share) * spreads[q] + share * (1 - share) * outer
            lost[part] = n[part] * self.covariance.log_dets(merged)
        return [float(x) for x in (lost - a * volumes[i] - b * volumes[j]) / 2]

    # -- as one vector ---------------------------------------------------------------------

    def from_unconstrained(self, vector: Array) -> Self:
        """Return the family whose `to_unconstrained` is this vector, within the constraint."""
        means, factor = np.split(vector, [self.means.size])
        factor = factor.reshape(self.covariance.factor.shape)
        diagonal = self.covariance.positive(factor)
        diagonal[:] = np.exp(diagonal)
        covariance = type(self.covariance)(factor)
        found = replace(self, means=means.reshape(self.means.shape), covariance=covariance)
        return found.constrained(np.ones(len(found.means)))

    # -- in the units of the data ------------------------------------------------------------

    @classmethod
    def from_data_coordinates(
        cls, means: Array, covariance: Covariance, whitening: Whitening, ridge: float = 0.0,
        constraint: str = "",
    ) -> Self:  # fmt: skip
        """Return components given in the units of the data, whitened."""
        inverse = whitening.inverse_scale
        return cls(
            whitening.whiten(means), covariance.scaled(inverse), whitening, ridge, constraint
        )

    def sample(self, component: int, n: int, rng: np.random.Generator) -> Array:
        """Draw n rows (n, d) of one component, in the units of the data."""
        means, covariance = self.data_coordinates()
        spread = covariance.full(*means.shape)[component]
        return np.asarray(rng.multivariate_normal(means[component], spread, n, method="cholesky"))
