"""A mixture of K components: its E-step and its M-step."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from .additive import Additive, Array
from .codec import record
from .device import namespace
from .engine import NUMPY, Engine, check_engine
from .family import blocks
from .protocols import Fold, Pass
from .responsibilities import softmax_of


@record("mixture-statistics")
@dataclass(frozen=True)
class MixtureStatistics(Additive):
    """Everything that one pass over the data at fixed parameters tells.

    Attributes
    ----------
    n_rows : int
        Rows seen, those of weight zero included.
    weight : float
        Sum of the sample weights; `n_rows` where there are none.
    log_likelihood : float
        sum_n w_n log p(x_n), in nats.
    resp_sum : (k,) array
        sum_n w_n r_nk.
    components : Additive
        The family's sufficient statistics.
    """

    n_rows: int
    weight: float
    log_likelihood: float
    resp_sum: Array
    components: Any

    @property
    def mean_log_likelihood(self) -> float:
        """Log-likelihood per unit of weight."""
        return self.log_likelihood / self.weight


@record("mixture")
@dataclass(frozen=True)
class Mixture(Pass[MixtureStatistics]):
    """The density p(x) = sum_k w_k p(x | component k).

    Attributes
    ----------
    log_weights : (k,) array
    components : Family
    engine : Engine
        What computes; it travels with the parameters.
    """

    log_weights: Array
    components: Any
    engine: Engine = NUMPY

    @property
    def weights(self) -> Array:
        """Mixing weights (k,), which sum to one."""
        return np.exp(self.log_weights)

    @property
    def n_parameters(self) -> int:
        """Free parameters: the family's, and the weights but one."""
        return int(self.components.n_parameters) + len(self.log_weights) - 1

    def __sizeof__(self) -> int:
        # Schedulers ask this before they move the parameters of a pass.
        return int(object.__sizeof__(self) + self.log_weights.nbytes + self.components.nbytes)

    @property
    def rounding(self) -> float:
        """The share of itself by which the log-likelihood may fall from rounding alone."""
        return 1e-6 if self.engine.single else 1e-9

    @property
    def result_bytes(self) -> int:
        """Bytes of the sums of a pass."""
        return int(self.components.statistics_bytes + self.log_weights.nbytes)

    def fold(self) -> Fold[MixtureStatistics]:
        """The E-step of one range of chunks, before its first chunk."""
        if self.engine.device == "cpu":
            return EStep(self)
        from ..families.gaussian.array_api import ArrayEStep

        return ArrayEStep(
            self.components,
            self.log_weights,
            self.engine.device,
            MixtureStatistics,
            single=self.engine.single,
        )

    @property
    def joins(self) -> Hashable:
        """What mixtures have in common that can share a `JointEStep`; None if it stays alone."""
        joins = None if self.engine.device != "cpu" else self.components.joins(self.engine)
        return None if joins is None else (self.engine, joins)

    def array_kernel(self) -> Any:
        """The kernel of a device other than the CPU."""
        from ..families.gaussian.array_api import ArrayKernel

        return ArrayKernel(self.components, self.log_weights, namespace(self.engine.device))

    def log_joint(self, X: Array) -> Array:
        """log w_k + log p(x_n | k), (n, k)."""
        return np.asarray(self.components.log_prob(X) + self.log_weights)

    def m_step(self, statistics: MixtureStatistics) -> tuple[Self, tuple[int, ...]]:
        """The mixture that maximizes the expected log-likelihood, and the collapsed components."""
        components, collapsed = self.components.maximize(statistics.resp_sum, statistics.components)
        floor = np.finfo(np.float64).tiny
        weights = np.maximum(statistics.resp_sum / statistics.resp_sum.sum(), floor)
        return replace(self, log_weights=np.log(weights), components=components), tuple(collapsed)


class JointEStep:
    """Sums the sufficient statistics of mixtures over chunks of rows.

    The components of all mixtures are one to the kernel, which so makes what it needs of a
    row, and each product, once for all of them; only responsibilities are made apart.

    Parameters
    ----------
    mixtures : sequence of Mixture
        One, or some whose families can be `joined`.
    """

    def __init__(self, mixtures: Sequence[Mixture]) -> None:
        self.mixtures = mixtures
        first = mixtures[0]
        check_engine(first.engine)
        families = [mixture.components for mixture in mixtures]
        family = families[0] if len(families) == 1 else first.components.joined(families)
        self.kernel = family.kernel(first.engine)
        sizes = [len(mixture.log_weights) for mixture in mixtures]
        ends = np.cumsum(sizes)
        self._parts = [slice(end - k, end) for k, end in zip(sizes, ends, strict=True)]
        # Chunks may come in parts of whole blocks: the sums are the same to the bit.
        self.block_rows = self.kernel.block_rows
        self._softmax = [softmax_of(first.engine, k, self.block_rows) for k in sizes]
        self._n_rows = 0
        self._weight = 0.0
        self._log_likelihoods = np.zeros(len(mixtures))
        self._resp_sum = np.zeros(ends[-1])

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add the rows X (n, d) with weights (n,)."""
        for rows in blocks(len(X), self.block_rows):
            block, weight = X[rows], None if sample_weight is None else sample_weight[rows]
            self._n_rows += len(block)
            if weight is not None and not weight.all():
                # A row of weight zero is a row left out, whatever it holds.
                block, weight = block[weight > 0], weight[weight > 0]
            b = len(block)
            if b == 0:
                continue
            self.kernel.load(block)
            resp = self.kernel.log_prob()
            for i, mixture in enumerate(self.mixtures):
                _, log_prob = self._softmax[i](resp[self._parts[i]], mixture.log_weights)
                if weight is not None:
                    log_prob *= weight
                self._log_likelihoods[i] += float(log_prob.sum(dtype=np.float64))
            if weight is None:
                self._weight += b
            else:
                resp *= weight
                self._weight += float(weight.sum())
            self.kernel.accumulate(resp)
            self._resp_sum += resp.sum(axis=1, dtype=np.float64)

    def results(self) -> list[MixtureStatistics]:
        """Sums of each mixture over all chunks given so far."""
        sums = self.kernel.statistics()
        apart = [sums] if len(self._parts) == 1 else [sums.part(part) for part in self._parts]
        return [
            MixtureStatistics(
                self._n_rows, self._weight, float(value), self._resp_sum[part].copy(), own
            )
            for value, part, own in zip(self._log_likelihoods, self._parts, apart, strict=True)
        ]


class EStep(JointEStep, Fold[MixtureStatistics]):
    """Sums a mixture's sufficient statistics over chunks of rows."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__((mixture,))

    def result(self) -> MixtureStatistics:
        """Sums over all chunks given so far."""
        (found,) = self.results()
        return found
