"""Mixtures with noise: beside the components one part of constant density, for all other rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from .additive import Additive, Array
from .box import Box
from .codec import record
from .engine import Engine
from .family import Family
from .held import Held, HeldMixture
from .mixture import Mixture
from .parts import MixtureStatistics, NoisyStatistics
from .responsibilities import Arithmetic, Assignment
from .validation import require

# Of the share of noise, which neither vanishes nor leaves the components nothing.
LEAST_LOG_SHARE = float(np.log(np.finfo(np.float64).tiny))
MOST_LOG_SHARE = float(np.log1p(-np.finfo(np.float64).eps))


@record("noisy-mixture")
@dataclass(frozen=True)
class NoisyMixture(HeldMixture):
    """Hold the density p(x) = (1 - s) sum_k w_k p(x | component k) + s / V.

    Noise has the share s and the constant density 1 / V (Banfield and Raftery, Biometrics 49,
    1993; Fraley and Raftery, The Computer Journal 41, 1998), wherever a row lies: what is far from
    every component is noise. The components' weights w sum to one.

    Attributes
    ----------
    box : Box
        Of volume V.
    log_share : float
        log s; -inf where nothing is noise, and never will be.

    Examples
    --------
    >>> from dask_em.core.moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> normal = GaussianOptions().of_data(Moments.unit(1), 1)
    >>> box = Box.of(np.array([-50.0]), np.array([50.0]))
    >>> one = NoisyMixture(np.zeros(1), normal, box=box, log_share=np.log(0.5))
    >>> fold = one.fold()
    >>> fold.update(0, np.array([[0.0], [40.0]]), None)
    >>> after, _ = one.m_step(fold.result())
    >>> round(after.noise_weight, 2), after.components.means.round(2).tolist(), one.n_parameters
    (0.51, [[0.0]], 3)
    """

    held: Held = field(default_factory=Held)
    box: Box = field(default_factory=lambda: Box(np.zeros(0), np.zeros(0), 0.0))
    log_share: float = -np.inf

    @property
    def n_parts(self) -> int:
        """The components, and noise behind them."""
        return len(self.log_weights) + 1

    @property
    def noise_weight(self) -> float:
        """Share of the rows that are noise."""
        return float(np.exp(self.log_share))

    @property
    def noise_box(self) -> Box:
        """The box in which noise lies."""
        return self.box

    @property
    def shares(self) -> Array:
        """Shares of the rows that the components have, (k,): with that of noise they sum to one."""
        return np.asarray(super().shares * (1.0 - self.noise_weight))

    @property
    def _log_rest(self) -> float:
        """The logarithm of the share of all components."""
        return float(np.log1p(-self.noise_weight))

    @property
    def log_prior(self) -> Array:
        """Log weights of the parts as the E-step takes them, (k + 1,)."""
        return np.append(super().log_prior + self._log_rest, self.log_share)

    @property
    def n_parameters(self) -> int:
        """Free parameters, the share of noise among them."""
        return super().n_parameters + 1

    @property
    def movable(self) -> bool:
        """Whether components may be split and merged: not where some are known."""
        return not self.held.parts

    def log_densities(self, arithmetic: Arithmetic, log_prob: Array) -> Array:
        """Return log-densities of the components and of noise, (k + 1, b)."""
        return arithmetic.with_row(log_prob, -self.box.log_volume)

    def statistics(
        self,
        n_rows: int,
        weight: float,
        log_likelihood: float,
        resp_sum: Array,
        components: Additive,
        noise_sum: float,
    ) -> NoisyStatistics:
        """Return the record of what a pass summed."""
        return NoisyStatistics(n_rows, weight, log_likelihood, resp_sum, components, noise_sum)

    # -- the M-step ----------------------------------------------------------------------

    def m_step(self, statistics: MixtureStatistics) -> tuple[Self, tuple[int, ...]]:
        """Return the mixture that maximizes the expected log-likelihood, and what collapsed."""
        found, collapsed = super().m_step(statistics)
        return found.with_noise(statistics.noise_sum, float(statistics.resp_sum.sum())), collapsed

    def of_responsibilities(self, X: Array, resp: Array) -> Self:
        """Return the M-step of responsibilities times weights (n, k + 1) given for the rows X.

        Of responsibilities (n, k) of the components alone the share of noise stays.
        """
        k = len(self.log_weights)
        found = super().of_responsibilities(X, resp[:, :k])
        if resp.shape[1] == k:
            return found
        return found.with_noise(float(resp[:, k].sum()), float(resp[:, :k].sum()))

    def with_noise(self, noise: float, rest: float) -> Self:
        """Return the same with noise in proportion to its rows, and to those of all components."""
        if self.log_share == -np.inf:
            return self
        with np.errstate(divide="ignore"):
            log_share = np.log(noise / (noise + rest))
        return replace(self, log_share=float(np.clip(log_share, LEAST_LOG_SHARE, MOST_LOG_SHARE)))

    def with_shares(self, resp_sum: Array) -> Self:
        """Return the components with weights in proportion to these sums (k,); all may be zero."""
        return super().with_shares(resp_sum) if resp_sum.sum() > 0 else self

    def m_step_gain(self, statistics: MixtureStatistics, after: Mixture | None = None) -> float:
        """Compute the gain in the expected objective by the M-step, in nats per unit of weight."""
        after = self.m_step(statistics)[0] if after is None else after
        gained = super().m_step_gain(statistics, after) * statistics.weight
        now, before = (np.log1p(-one.noise_weight) for one in (after, self))
        gained += float(statistics.resp_sum.sum() * (now - before))
        if statistics.noise_sum > 0:
            gained += statistics.noise_sum * float(after.log_prior[-1] - self.log_share)
        return gained / statistics.weight

    def expected_log_joint(self, statistics: MixtureStatistics) -> float:
        """Compute the sum of r log(w p(x)) over components and noise, from sums about its centres.

        The statistics may be differences of sums.
        """
        log_weights, noise = self.log_prior[:-1], statistics.noise_sum
        found = self.components.expected_log_joint(
            log_weights, statistics.resp_sum, statistics.components
        )
        return found + noise * (self.log_share - self.box.log_volume) if noise else found

    def take(self, components: Sequence[int]) -> Self:
        """Return a mixture of some components in equal shares, without noise."""
        return replace(super().take(components), log_share=-np.inf)

    def reordered(self, order: Sequence[int]) -> Self:
        """Return the same of all components in another order."""
        return replace(super().reordered(order), log_share=self.log_share)

    # -- as one vector -------------------------------------------------------------------

    def to_unconstrained(self) -> Array:
        """Return the log odds of noise, log-weights and parameters as one vector, (p,)."""
        return np.append(self.log_share - self._log_rest, super().to_unconstrained())

    def from_unconstrained(self, vector: Array) -> Self:
        """Return the mixture of such a vector."""
        odds = float(vector[0])
        found = super().from_unconstrained(vector[1:])
        log_share = np.clip(-np.logaddexp(0.0, -odds), LEAST_LOG_SHARE, MOST_LOG_SHARE)
        return replace(found, log_share=float(log_share))

    def information_scale(self) -> Array:
        """Return what multiplies each unconstrained parameter for it to count as it matters."""
        share = self.noise_weight
        rest = super().information_scale() * np.sqrt(1.0 - share)
        return np.append(np.sqrt(share * (1.0 - share)), rest)

    def validate_noise(self, statistics: MixtureStatistics, n_features: int) -> None:
        """Raise `ValueError` that names what of noise in a file is wrong."""
        self.box.validate(n_features)
        within = LEAST_LOG_SHARE <= self.log_share <= MOST_LOG_SHARE
        require("log_share", self.log_share, within)
        noise = statistics.noise_sum
        require("noise", noise, 0.0 <= noise <= float(np.finfo(np.float64).max))


def beside_noise(
    box: Box,
    share: float,
    log_weights: Array,
    components: Family[Any],
    engine: Engine,
    assignment: Assignment = "soft",
    held: Mapping[str, Sequence[int] | None] | None = None,
) -> NoisyMixture:
    """Return the mixture of these values beside noise, of which parts are held where there are any.

    Examples
    --------
    >>> from dask_em.core.engine import NUMPY
    >>> from dask_em.core.moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> normal = GaussianOptions().of_data(Moments.unit(1), 1)
    >>> box = Box.of(np.array([-8.0]), np.array([8.0]))
    >>> noisy = beside_noise(box, 0.25, np.zeros(1), normal, NUMPY)
    >>> noisy.shares.tolist(), round(noisy.noise_weight, 9)
    ([0.75], 0.25)
    """
    parts, log_share = Held.of(held or {}, len(log_weights)), float(np.log(share))
    log_weights = log_weights - np.logaddexp.reduce(log_weights)
    return NoisyMixture(log_weights, components, engine, assignment, parts, box, log_share)
