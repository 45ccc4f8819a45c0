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


@record("poisson-statistics")
@dataclass(frozen=True)
class PoissonStatistics(Additive):
    counts: Array  # sum_n r_nk x_n, (k, d)
    log_factorials: Array  # sum_n r_nk sum_j log x_nj!, (k,)


class PoissonKernel(Kernel[PoissonStatistics]):
    block_rows = 1024

    def __init__(self, poisson: Poisson) -> None:
        self._poisson = poisson
        self._sums = PoissonStatistics(0 * poisson.log_rates, np.zeros(len(poisson.log_rates)))

    def load(self, X: Array) -> None:
        self._X = np.asarray(X, dtype=np.float64)
        self._log_factorials = gammaln(self._X + 1).sum(axis=1)

    def log_prob(self) -> Array:
        log_rates = self._poisson.log_rates
        mean = log_rates @ self._X.T - np.exp(log_rates).sum(axis=1, keepdims=True)
        return np.asarray(mean - self._log_factorials)

    def accumulate(self, resp: Array) -> None:
        self._sums += PoissonStatistics(resp @ self._X, resp @ self._log_factorials)

    def statistics(self) -> PoissonStatistics:
        return self._sums


@register_family("poisson")
@dataclass(frozen=True)
class Poisson(Family[PoissonStatistics]):
    log_rates: Array  # (k, d)

    def kernel(self, engine: Engine = NUMPY) -> PoissonKernel:
        return PoissonKernel(self)

    def maximize(
        self, resp_sum: Array, statistics: PoissonStatistics
    ) -> tuple[Self, Sequence[int]]:
        usable = (resp_sum > 1e-12) & (statistics.counts > 0).all(axis=1)
        rates = statistics.counts / np.where(usable, resp_sum, 1.0)[:, None]
        log_rates = np.where(usable[:, None], np.log(np.maximum(rates, 1e-300)), self.log_rates)
        return type(self)(log_rates), np.flatnonzero(~usable).tolist()

    def expected_log_joint(
        self, log_weights: Array, resp_sum: Array, statistics: PoissonStatistics
    ) -> float:
        constants = log_weights - np.exp(self.log_rates).sum(axis=1)
        linear = (self.log_rates * statistics.counts).sum() - statistics.log_factorials.sum()
        return float(resp_sum @ constants + linear)

    def sample(self, component: int, n: int, rng: np.random.Generator) -> Array:
        rates = np.exp(self.log_rates[component])
        return rng.poisson(rates, (n, len(rates))).astype(np.float64)


class PoissonOptions(FamilyOptions):
    label = "poisson"

    def of_data(self, moments: Moments, k: int) -> Poisson:
        return Poisson(np.log(np.tile(np.maximum(moments.mean, 1e-3), (k, 1))))


@register_estimator("poisson-mixture")
class PoissonMixture(MixtureEstimator):
    def family_options(self) -> PoissonOptions:
        return PoissonOptions()
