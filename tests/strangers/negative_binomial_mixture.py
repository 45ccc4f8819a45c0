"""A stranger's family: counts, written to the public seam alone, as a package of its own would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import gammaln

from dask_em.core.additive import Additive, Array
from dask_em.core.codec import record
from dask_em.core.engine import NUMPY, Engine
from dask_em.core.family import Family, FamilyOptions, Kernel, register_family
from dask_em.core.moments import Moments
from dask_em.estimators.base import MixtureEstimator
from dask_em.estimators.load import register_estimator

# Counts of failures before so many successes: a variance of m + m^2 / SIZE at mean m.
SIZE = 40.0


@record("negative-binomial-statistics")
@dataclass(frozen=True)
class NegativeBinomialStatistics(Additive):
    counts: Array  # sum_n r_nk x_n, (k, d)
    log_coefficients: Array  # sum_n r_nk sum_j log binomial(x_nj + SIZE - 1, x_nj), (k,)


class NegativeBinomialKernel(Kernel[NegativeBinomialStatistics]):
    block_rows = 1024

    def __init__(self, family: NegativeBinomial) -> None:
        self._family = family
        self._sums = NegativeBinomialStatistics(
            0 * family.log_means, np.zeros(len(family.log_means))
        )

    def load(self, X: Array) -> None:
        self._X = np.asarray(X, dtype=np.float64)
        coefficients = gammaln(self._X + SIZE) - gammaln(SIZE) - gammaln(self._X + 1)
        self._log_coefficients = coefficients.sum(axis=1)

    def log_prob(self) -> Array:
        failed, succeeded = self._family.log_chances()
        linear = failed @ self._X.T + SIZE * succeeded.sum(axis=1, keepdims=True)
        return np.asarray(linear + self._log_coefficients)

    def accumulate(self, resp: Array) -> None:
        self._sums += NegativeBinomialStatistics(resp @ self._X, resp @ self._log_coefficients)

    def statistics(self) -> NegativeBinomialStatistics:
        return self._sums


@register_family("negative-binomial")
@dataclass(frozen=True)
class NegativeBinomial(Family[NegativeBinomialStatistics]):
    log_means: Array  # (k, d)

    def log_chances(self) -> tuple[Array, Array]:
        """Log-probabilities of a failure and of a success, (k, d) both."""
        odds = self.log_means - np.log(SIZE)
        return -np.logaddexp(0, -odds), -np.logaddexp(0, odds)

    def kernel(self, engine: Engine = NUMPY) -> NegativeBinomialKernel:
        return NegativeBinomialKernel(self)

    def maximize(
        self, resp_sum: Array, statistics: NegativeBinomialStatistics
    ) -> tuple[Self, Sequence[int]]:
        usable = (resp_sum > 1e-12) & (statistics.counts > 0).all(axis=1)
        means = statistics.counts / np.where(usable, resp_sum, 1.0)[:, None]
        log_means = np.where(usable[:, None], np.log(np.maximum(means, 1e-300)), self.log_means)
        return type(self)(log_means), np.flatnonzero(~usable).tolist()

    def expected_log_joint(
        self, log_weights: Array, resp_sum: Array, statistics: NegativeBinomialStatistics
    ) -> float:
        failed, succeeded = self.log_chances()
        constants = log_weights + SIZE * succeeded.sum(axis=1)
        linear = (failed * statistics.counts).sum() + statistics.log_coefficients.sum()
        return float(resp_sum @ constants + linear)

    def sample(self, component: int, n: int, rng: np.random.Generator) -> Array:
        success = SIZE / (SIZE + np.exp(self.log_means[component]))
        return rng.negative_binomial(SIZE, success, (n, len(success))).astype(np.float64)


class NegativeBinomialOptions(FamilyOptions):
    def of_data(self, moments: Moments, k: int) -> NegativeBinomial:
        return NegativeBinomial(np.log(np.tile(np.maximum(moments.mean, 1e-3), (k, 1))))


@register_estimator("negative-binomial-mixture")
class NegativeBinomialMixture(MixtureEstimator):
    def family_options(self) -> NegativeBinomialOptions:
        return NegativeBinomialOptions()
