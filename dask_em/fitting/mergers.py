"""Mergers of components that a bound on the evidence does not ask for.

Variational EM takes rows from a needless component a few at a time: hundreds of iterations. With
the responsibilities held, what the merger of two components gains follows from sums that are
known: those of both are added, and the M-step of the total is judged (Hughes and Sudderth 2013).
Where that loses, a few iterations may still make up for it: then they are what is judged.
"""

from __future__ import annotations

import numpy as np
from scipy.special import xlogy

from ..core.additive import Array
from ..core.em import Convergence, em
from ..core.mixture import Mixture
from ..core.parts import MixtureStatistics
from ..core.scoring import Predict
from ..core.tuning import tuning
from .sample import Sampled

Pair = tuple[int, int]
"""The component that stays, the one of more rows, and the one whose rows it gets."""


def merged(mixture: Mixture, sample: Sampled) -> Mixture | None:
    """Return the M-step after all mergers that raise the bound; None where none does.

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


def worth_iterations(mixture: Mixture, sample: Sampled) -> list[Mixture]:
    """Return the M-steps after one merger each, of those that lose least, the best first.

    One for each component that would be left without rows, and few in all.
    """
    state = Mergers(mixture, sample)
    gains = state.gains()
    found: dict[int, Pair] = {}
    for pair in sorted(gains, key=lambda pair: -gains[pair]):
        found.setdefault(pair[1], pair)
    return [state.after(pair) for pair in [*found.values()][: tuning().bayesian.trials]]


def overtakes(rows: Sampled, mixture: Mixture, height: float) -> tuple[Mixture | None, int]:
    """Return a mixture after the iterations that take it above a height, and how many were made.

    None once the gains of the last two, made over and over, would not reach it.
    """
    most = tuning().bayesian.trial_iterations
    below, before = np.inf, np.inf
    for state in em(rows.accumulate, mixture, Convergence(0.0, most)):
        gap = height - state.objective
        if gap < 0 and not state.collapsed:
            return state.result, state.n_iter
        last = below - gap
        if not max(last, before) * (most - state.n_iter) > gap:
            break
        below, before = gap, last
    return None, state.n_iter


def allowance(mixture: Mixture, sample: Sampled) -> float:
    """Return the nats that a needless component gains by chance on rows that stand for more.

    Each row gains again what it gains by chance for each that it stands for, so many nats a
    parameter; nothing where the rows are all.
    """
    per_component = mixture.n_parameters / len(mixture.log_weights)
    others = max(0.0, float(sample.weights.sum()) / max(1, len(sample.rows)) - 1.0)
    return tuning().bayesian.by_chance * per_component * others


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
        # sum_n w_n r_ni r_nj of all pairs.
        self._shared = (self._resp * self._weights) @ proba
        self._value = self._reached(self.mixture, self.sums)
        self._known: dict[Pair, float] = {}
        self._allowance = allowance(mixture, sample)

    def gains(self) -> dict[Pair, float]:
        """Return what the mergers of the pairs that are worth a try gain, in nats."""
        found = {}
        for pair in self._worth_a_try():
            if pair not in self._known:
                self._known[pair] = self._gain(pair)
            found[pair] = self._known[pair]
        return found

    def best(self) -> Pair | None:
        """Return a pair whose merger gains, more than others gained before; None where none does.

        Other mergers change what a pair gains by its weight alone: before it is the best, it is
        judged again, and so are all before none is.
        """
        fresh = not self._known
        while True:
            gains = self.gains()
            pair = max(gains, key=gains.__getitem__, default=None)
            if pair is not None and gains[pair] > 0:
                self._known[pair] = self._gain(pair)
                if self._known[pair] > 0:
                    return pair
            elif fresh:
                return None
            else:
                self._known, fresh = {}, True

    def merge(self, pair: Pair) -> None:
        """Give the rows of the second component to the first."""
        self.mixture, self.sums = self.mixture.with_merged(self.sums, pair)
        i, j = pair
        self._resp[i] += self._resp[j]
        self._resp[j] = 0.0
        self._entropies[[i, j]] = self._entropy(self._resp[i]), 0.0
        for shared in (self._shared, self._shared.T):
            shared[i] += shared[j]
            shared[j] = 0.0
        self._value = self._reached(self.mixture, self.sums)
        self._known = {other: gain for other, gain in self._known.items() if not {*other} & {*pair}}
        self.n_mergers += 1

    def after(self, pair: Pair) -> Mixture:
        """Return the M-step after one merger, which is not made."""
        mixture, sums = self.mixture.with_merged(self.sums, pair)
        return mixture.m_step(sums)[0]

    def _entropy(self, resp: Array) -> float:
        return -float(self._weights @ xlogy(resp, resp))

    def _worth_a_try(self) -> list[Pair]:
        """Return the pairs that share rows most, beside those with a component of few rows."""
        constants = tuning().bayesian
        totals = self.sums.resp_sum
        # Those of less are the prior's, and have rows again after the next E-step.
        some = np.flatnonzero(totals >= constants.used_rows)
        shared = self._shared[np.ix_(some, some)]
        lengths = np.maximum(np.sqrt(np.diagonal(shared)), np.finfo(np.float64).tiny)
        first, second = np.triu_indices(len(some), 1)
        order = np.argsort(-(shared / np.outer(lengths, lengths))[first, second], kind="stable")
        chosen = order[: constants.mergers * len(some)]
        pairs = zip(some[first[chosen]].tolist(), some[second[chosen]].tolist(), strict=True)
        return [(i, j) if totals[i] >= totals[j] else (j, i) for i, j in pairs]

    def _reached(self, mixture: Mixture, sums: MixtureStatistics) -> float:
        """Return the bound after the M-step of these sums, but for the entropy."""
        after = mixture.m_step(sums)[0]
        joint = after.expected_log_joint(mixture.recentre(sums, after))
        return joint + after.log_prior_density

    def _gain(self, pair: Pair) -> float:
        """Return the nats that the bound gains where the two become one."""
        reached = self._reached(*self.mixture.with_merged(self.sums, pair))
        both = self._entropy(self._resp[pair[0]] + self._resp[pair[1]])
        entropy = both - self._entropies[list(pair)].sum()
        return float(reached - self._value + entropy + self._allowance)
