"""The parts of a mixture: its components, noise beside them, and the record of their sums."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from .additive import Additive, Array
from .box import Box
from .codec import record
from .responsibilities import Arithmetic


@record("mixture-statistics")
@dataclass(frozen=True)
class MixtureStatistics(Additive):
    """Hold everything that one pass over the data at fixed parameters sums.

    Attributes
    ----------
    n_rows : int
        Rows seen, those of weight zero included.
    weight : float
        Sum of the sample weights; `n_rows` where there are none.
    log_likelihood : float
        sum_n w_n log p(x_n), in nats; of a hard assignment sum_n w_n max_k log w_k p(x_n | k).
    resp_sum : (k,) array
        sum_n w_n r_nk.
    components : Additive
        The family's sufficient statistics.

    Examples
    --------
    >>> one = MixtureStatistics(2, 2.0, -3.0, np.array([2.0]), Additive())
    >>> other = MixtureStatistics(1, 1.0, -6.0, np.array([1.0]), Additive())
    >>> (one + other).n_rows, (one + other).mean_log_likelihood
    (3, -3.0)
    """

    n_rows: int
    weight: float
    log_likelihood: float
    resp_sum: Array
    components: Additive

    @property
    def mean_log_likelihood(self) -> float:
        """Log-likelihood per unit of weight."""
        return self.log_likelihood / self.weight

    @property
    def noise_sum(self) -> float:
        """sum_n w_n r_n of the noise; zero where the mixture has none."""
        return 0.0

    @property
    def evidence_sum(self) -> float:
        """sum_nk w_n r_nk log z_nk of responsibilities z that are kept; zero of labels."""
        return 0.0

    def with_evidence(self, evidence: float) -> EvidentStatistics:
        """Return the same with what responsibilities say that are kept."""
        return EvidentStatistics(**vars(self), noise=0.0, evidence=evidence)

    def plus_sums(self, other: Self, factor: float | Array) -> Self:
        """Return self + factor * other, sums about the same centres; `factor` is a number or (k,).

        The rows, the weight and the log-likelihood stay those of `self`.
        """
        return replace(
            self,
            resp_sum=self.resp_sum + factor * other.resp_sum,
            components=self.components.plus(other.components, factor),
        )


@record("noisy-statistics")
@dataclass(frozen=True)
class NoisyStatistics(MixtureStatistics):
    """Hold what a pass sums where there is noise.

    Attributes
    ----------
    noise : float
        sum_n w_n r_n of the noise.

    Examples
    --------
    >>> one = NoisyStatistics(2, 2.0, -3.0, np.array([1.5]), Additive(), 0.5)
    >>> (one + one).noise_sum, one.plus_sums(one, -1.0).noise_sum
    (1.0, 0.0)
    """

    noise: float

    @property
    def noise_sum(self) -> float:
        """sum_n w_n r_n of the noise."""
        return self.noise

    def plus_sums(self, other: Self, factor: float | Array) -> Self:
        """Return self + factor * other; of factors of the components noise has the largest."""
        found = super().plus_sums(other, factor)
        return replace(found, noise=self.noise + float(np.max(factor)) * other.noise)

    def with_evidence(self, evidence: float) -> EvidentStatistics:
        """Return the same with what responsibilities say that are kept."""
        return EvidentStatistics(**vars(self), evidence=evidence)


@record("evident-statistics")
@dataclass(frozen=True)
class EvidentStatistics(NoisyStatistics):
    """Hold what a pass sums where responsibilities z of rows are kept.

    Attributes
    ----------
    evidence : float
        sum_nk w_n r_nk log z_nk, in nats.

    Examples
    --------
    >>> one = MixtureStatistics(1, 1.0, -3.0, np.array([1.0]), Additive()).with_evidence(-0.5)
    >>> (one + one).evidence_sum, one.noise_sum
    (-1.0, 0.0)
    """

    evidence: float

    @property
    def evidence_sum(self) -> float:
        """sum_nk w_n r_nk log z_nk."""
        return self.evidence


class Parts:
    """The half of a mixture that says what it has beside its components: here nothing.

    Attributes
    ----------
    log_weights : (k,) array
        Of the components, among themselves.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> mixture = GaussianMixture(1).fit([[0.0], [2.0]]).state_.result
    >>> mixture.n_parts, mixture.shares.tolist(), mixture.noise_weight
    (1, [1.0], 0.0)
    """

    log_weights: Array

    @property
    def n_parts(self) -> int:
        """Terms of the sum: the components, and noise behind them where there is some."""
        return len(self.log_weights)

    @property
    def shares(self) -> Array:
        """Shares of the rows that the components have, (k,): with that of noise they sum to one."""
        weights = np.exp(self.log_weights)
        return np.asarray(weights / weights.sum())

    @property
    def noise_weight(self) -> float:
        """Share of the rows that are noise."""
        return 0.0

    @property
    def noise_box(self) -> Box | None:
        """The box in which noise lies, where there is some."""
        return None

    def log_densities(self, arithmetic: Arithmetic, log_prob: Array) -> Array:
        """Return log-densities of the parts of the mixture (p, b), given those of the components.

        Parameters
        ----------
        arithmetic : Arithmetic
        log_prob : (k, b) array
        """
        return log_prob

    def statistics(
        self,
        n_rows: int,
        weight: float,
        log_likelihood: float,
        resp_sum: Array,
        components: Additive,
        noise_sum: float,
    ) -> MixtureStatistics:
        """Return the record of what a pass summed."""
        return MixtureStatistics(n_rows, weight, log_likelihood, resp_sum, components)

    def validate_held(self) -> None:
        """Raise `ValueError` where what is held in a file are no parameters of the components."""

    def validate_noise(self, statistics: MixtureStatistics, n_features: int) -> None:
        """Raise `ValueError` that names what of noise in a file is wrong.

        Parameters
        ----------
        statistics : MixtureStatistics
            Of the mixture, or of one whose M-step it is.
        n_features : int
        """
