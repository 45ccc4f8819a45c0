"""A sample that stays with a model, so that updates know how rows would move that are not read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from ..core.additive import Array
from ..core.codec import record
from ..core.finite import not_finite
from ..core.incremental import Carried
from ..core.mixture import Mixture
from ..core.parts import MixtureStatistics
from ..core.scoring import Predict
from ..core.support import Support
from ..core.tuning import tuning
from ..core.validation import require, require_array
from .sample import Sampled


@record("kept-sample")
@dataclass(frozen=True)
class KeptSample:
    """Hold rows that stand for all that a model has read, in random order.

    Attributes
    ----------
    size : int
        Rows that are kept at most.
    rows : (m, d) array
    weights : (m,) array
        What each counts as: those of all together are those of the rows that were read, of which
        some may count for less by now.

    Examples
    --------
    >>> one = KeptSample.of(Sampled(np.zeros((4, 1)), np.ones(4)), 2, 10.0)
    >>> one.weights.tolist()
    [5.0, 5.0]
    >>> both = one.joined(1.0, KeptSample.of(Sampled(np.ones((2, 1)), np.ones(2)), 2, 15.0), 7)
    >>> sorted(zip(both.rows.ravel().tolist(), both.weights.tolist()))
    [(0.0, 10.0), (1.0, 15.0)]
    """

    size: int
    rows: Array
    weights: Array

    @classmethod
    def of(cls, sample: Sampled, size: int, weight: float) -> Self:
        """Return the first `size` rows of a sample, to stand for all rows of this weight."""
        first = sample.first(size).standing_for(weight)
        return cls(size, first.rows, first.weights)

    @property
    def sampled(self) -> Sampled:
        """The rows as data for EM in memory."""
        return Sampled(self.rows, self.weights)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and their weights, as a model's file holds them."""
        return int(self.rows.nbytes + self.weights.nbytes)

    def joined(self, factor: float, new: KeptSample, seed: int) -> KeptSample:
        """Return the sample of both, of the newer's size, in which ours count for `factor` of it.

        Of each as many rows as its share of the weight, as far as there are so many, and of each
        the first, which are a uniform sample of it.
        """
        old = self.weights.sum() * factor
        total = old + new.weights.sum()
        size = min(new.size, len(self.rows) + len(new.rows))
        wanted = round(size * float(old / total)) if total > 0 else 0
        n_old = max(size - len(new.rows), min(wanted, len(self.rows)))
        n_new = size - n_old
        rows = np.concatenate([self.rows[:n_old], new.rows[:n_new]])
        weights = np.concatenate(
            [_in_all(self.weights[:n_old], old), _in_all(new.weights[:n_new], total - old)]
        )
        order = np.random.default_rng(seed).permutation(size)
        # Where one of both has no row left, the other stands for it, too.
        return KeptSample(new.size, rows[order], _in_all(weights[order], total))

    def validate(self, n_features: int, support: Support) -> None:
        """Raise `ValueError` that names what is wrong where a sample from a file is none."""
        m = len(self.weights) if self.weights.ndim == 1 else -1
        require("size", self.size, isinstance(self.size, int) and 0 < self.size < 2**53)
        require("weights of the sample", self.weights, 0 < m <= self.size)
        require_array("weights of the sample", self.weights, (m,))
        require("weights of the sample", self.weights, bool((self.weights > 0).all()))
        require("rows of the sample", self.rows, self.rows.shape == (m, n_features))
        require("rows of the sample", self.rows, self.rows.dtype == np.float64)
        bad = not_finite(self.rows, support.missing) | support.outside(self.rows)
        require("rows of the sample", self.rows, not bool(bad.any()))


_LEAST = np.finfo(np.float64).tiny


def _in_all(weights: Array, total: float) -> Array:
    """Return weights in the same proportions that sum to a total; none where there are none."""
    return weights * (total / weights.sum()) if len(weights) else weights


@record("carried-sample")
@dataclass(frozen=True)
class CarriedSample(Carried):
    """Carry sums of rows that are not read again, which follow the parameters by a sample of them.

    The sums S(a) were taken at parameters a. At others, t, those of the sample are known at both,
    and S(t) is taken for S(a) + [S_m(t) - S_m(a)]: what the sample is wrong by at a it is taken to
    be wrong by at t (a control variate, as in `ControlVariateEM`). So responsibilities of old rows
    move with the parameters, whose error is that of the sample times how far they moved.

    The log-likelihood is the sample's, and what the correction adds is linear in the sums, so that
    an M-step of the total does not lower it. Of both a share is as `Carried` has it. Where the
    correction is large and negative for a component, the next step may be as `Carried` has it
    alone: then the objective can fall, and the update ends with the best parameters so far.

    Attributes
    ----------
    sample : KeptSample
        Its weights are those of `statistics` in all.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> X = np.array([[0.0], [1.0], [8.0], [9.0]])
    >>> state = GaussianMixture(2, random_state=0).fit(X).state_
    >>> sample = KeptSample.of(Sampled(X, np.ones(4)), 4, 4.0)
    >>> carried = CarriedSample(state.mixture, state.statistics, sample)
    >>> other = state.mixture.with_shares(np.array([0.9, 0.1]))
    >>> bool(np.allclose(carried.at(other).resp_sum, sample.sampled.accumulate(other).resp_sum))
    True
    """

    sample: KeptSample

    @property
    def exact(self) -> bool:
        """Whether the objective that they join never falls."""
        return False

    @cached_property
    def _here(self) -> MixtureStatistics:
        """The sample's sums at `mixture`."""
        return self.sample.sampled.accumulate(self.mixture.on_cpu)

    @cached_property
    def _difference(self) -> MixtureStatistics:
        """Return what the sample's sums lack, about the centres of `mixture`."""
        return self.statistics.plus_sums(self._here, -1.0)

    def at(self, mixture: Mixture) -> MixtureStatistics:
        """Return what the sums are at other parameters, about their centres.

        Where these are sums of no data, as a component has lost its rows, responsibilities stay.
        """
        held = super().at(mixture)
        there = self.sample.sampled.accumulate(mixture.on_cpu)
        moved = self.mixture.recentre(self._difference, mixture)
        found = moved.plus_sums(there, 1.0)
        least = tuning().control_variate.least_share
        lost = (found.resp_sum < least * there.resp_sum).any() or found.noise_sum < 0
        if lost or mixture.m_step(found)[1]:
            return held
        gained = there.log_likelihood - self._here.log_likelihood
        gained += mixture.expected_log_joint(moved)
        gained -= self.mixture.expected_log_joint(self._difference)
        found = replace(
            found,
            weight=self.statistics.weight,
            log_likelihood=self.statistics.log_likelihood + gained,
        )
        both = found.times(1 - self._error) + held.times(self._error)
        return replace(both, n_rows=self.statistics.n_rows)

    @cached_property
    def _error(self) -> float:
        """The relative error sqrt(p / m) of p parameters by m rows, of all rows that they are of.

        So much of the responsibilities stays: what EM has to go in a direction in which the
        likelihood is flatter than that the sample does not know.
        """
        m, n = self.sample.sampled.effective_rows, max(self.statistics.n_rows, 1)
        return float(np.sqrt(min(self.mixture.n_parameters / m, 1.0) * max(1 - m / n, 0.0)))

    def anew(self, mixture: Mixture) -> CarriedSample:
        """Return the sums at parameters of which some components are elsewhere.

        What the sample is wrong by in a component says nothing of another one that has its number.
        """
        there = self.sample.sampled.accumulate(mixture.on_cpu)
        same = (self._likeness(mixture) >= tuning().split_merge.same_component).astype(float)
        moved = self.mixture.recentre(self._difference, mixture)
        found = there.plus_sums(moved, same)
        found = replace(found, n_rows=self.statistics.n_rows, weight=self.statistics.weight)
        return CarriedSample(mixture, found, self.sample)

    def _likeness(self, mixture: Mixture) -> Array:
        """Return the share of rows that each component has in common with that of its number."""
        k, rows, weights = len(mixture.log_weights), self.sample.rows, self.sample.weights
        one, other = (
            Predict(at.on_cpu, ("proba",))(rows)["proba"][:, :k] for at in (self.mixture, mixture)
        )
        either = weights @ np.maximum(one, other)
        return np.asarray(weights @ np.minimum(one, other) / np.maximum(either, _LEAST))


def is_enough(sample: KeptSample, mixture: Mixture) -> bool:
    """Tell whether a sample has rows enough for the parameters of a mixture, to say how they move.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> mixture = GaussianMixture(1).fit([[0.0], [2.0]]).state_.result
    >>> [is_enough(KeptSample(n, np.zeros((n, 1)), np.ones(n)), mixture) for n in (10, 100)]
    [False, True]
    """
    return (
        sample.sampled.effective_rows >= tuning().sample.kept_per_parameter * mixture.n_parameters
    )
