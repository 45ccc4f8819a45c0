"""Mergers of components that a bound on the evidence does not ask for.

Variational EM takes rows from a needless component a few at a time: hundreds of iterations. With
the responsibilities held, what the merger of two components gains follows from sums that are
known: those of both are added, and the M-step of the total is judged (Hughes and Sudderth 2013).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from scipy.special import xlogy

from ..core.additive import Array
from ..core.mixture import Mixture
from ..core.parts import MixtureStatistics
from ..core.scoring import Predict
from ..core.tuning import tuning
from .sample import Sampled


def merged(mixture: Mixture, sample: Sampled) -> Mixture | None:
    """Return the M-step after all mergers that raise the bound; None where none does.

    The rows may stand for more than they are, by their weights. A component that they only seem to
    ask for gains some nats by chance, which each row gains again that one stands for: so many are
    taken off, by its parameters.

    Parameters
    ----------
    mixture : Mixture
        Of a variational family.
    sample : Sampled
    """
    state = Mergers(mixture, sample)
    while (pair := state.best()) is not None:
        state.merge(pair)
    return state.mixture.m_step(state.sums)[0] if state.n_mergers else None


class Mergers:
    """Sums and responsibilities of a mixture whose components are merged one pair at a time.

    Parameters
    ----------
    mixture : Mixture
    sample : Sampled

    Attributes
    ----------
    mixture : Mixture
        The parameters about which the sums are.
    sums : MixtureStatistics
    n_mergers : int
    """

    def __init__(self, mixture: Mixture, sample: Sampled) -> None:
        self.mixture, self.sums = mixture, sample.accumulate(mixture)
        self.n_mergers = 0
        self._weights = sample.weights
        # Components in rows, each of them contiguous.
        proba = Predict(mixture, ("proba",))(sample.rows)["proba"]
        self._resp = np.ascontiguousarray(proba.T)
        self._entropies = np.array([self._entropy(resp) for resp in self._resp])
        self._value = self._reached(self.mixture, self.sums)
        k = len(self._resp)
        by_chance = mixture.n_parameters / k
        rows = max(1, len(sample.rows))
        others = max(0.0, float(sample.weights.sum()) / rows - 1.0)
        self._allowance = tuning().bayesian.by_chance * by_chance * others

    def best(self) -> tuple[int, int] | None:
        """Return the pair whose merger gains most; None where none gains."""
        gains = {pair: self._gain(pair) for pair in self._worth_a_try()}
        pair = max(gains, key=gains.__getitem__, default=None)
        return pair if pair is not None and gains[pair] > 0 else None

    def merge(self, pair: tuple[int, int]) -> None:
        """Give the rows of the second component to the first."""
        self.mixture, self.sums = self.mixture.with_merged(self.sums, pair)
        i, j = pair
        self._resp[i] += self._resp[j]
        self._resp[j] = 0.0
        self._entropies[[i, j]] = self._entropy(self._resp[i]), 0.0
        self._value = self._reached(self.mixture, self.sums)
        self.n_mergers += 1

    def _entropy(self, resp: Array) -> float:
        return -float(self._weights @ xlogy(resp, resp))

    def _worth_a_try(self) -> Iterator[tuple[int, int]]:
        """Yield the pairs that share rows most, beside those with a component of few rows."""
        constants = tuning().bayesian
        totals = self.sums.resp_sum
        # Those of less are the prior's, and have rows again after the next E-step.
        some = np.flatnonzero(totals >= constants.used_rows)
        weighted = self._resp[some] * self._weights
        shared = weighted @ self._resp[some].T
        lengths = np.sqrt(np.diagonal(shared))
        shared /= np.maximum(np.outer(lengths, lengths), np.finfo(np.float64).tiny)
        pairs = sorted(combinations(range(len(some)), 2), key=lambda pair: -shared[pair])
        for i, j in pairs[: constants.mergers * len(some)]:
            first, second = int(some[i]), int(some[j])
            # The one of more rows stays.
            yield (first, second) if totals[first] >= totals[second] else (second, first)

    def _reached(self, mixture: Mixture, sums: MixtureStatistics) -> float:
        """Return the bound after the M-step of these sums, but for the entropy."""
        after = mixture.m_step(sums)[0]
        joint = after.expected_log_joint(mixture.recentre(sums, after))
        return joint + after.log_prior_density

    def _gain(self, pair: tuple[int, int]) -> float:
        """Return the nats that the bound gains where the two become one."""
        reached = self._reached(*self.mixture.with_merged(self.sums, pair))
        both = self._entropy(self._resp[pair[0]] + self._resp[pair[1]])
        entropy = both - self._entropies[list(pair)].sum()
        return float(reached - self._value + entropy + self._allowance)
