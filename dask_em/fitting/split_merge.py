"""Split-and-merge moves by which a fit to the sample leaves a local optimum.

EM cannot carry a component from where there are too many to where there is one too few. A
move does: two components become one, and another is born, as half of a third (Ueda, Nakano,
Ghahramani and Hinton 2000) or beside all of them (Verbeek, Vlassis and Krose 2003), which is
how a component comes to be that lies under others. With the responsibilities held, what the
merger loses and what the split gains are known before any EM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import expit, xlogy

from ..core.additive import Array
from ..core.mixture import Mixture
from ..core.scoring import Predict
from ..core.tuning import tuning


@dataclass(frozen=True)
class SplitProposal:
    """A component that takes a share of some rows from their components.

    Attributes
    ----------
    parents : frozenset of int
        The components that give, and the number behind them for noise.
    rows : (s,) array of int
    shares : (s,) array
        Of what the parents have of each row.
    gain : float
        Nats gained.
    """

    parents: frozenset[int]
    rows: Array
    shares: Array
    gain: float


@dataclass(frozen=True)
class Move:
    """Two components that become one, and a split in the place of the second.

    Attributes
    ----------
    merged : (int, int)
    split : SplitProposal
    gain : float
        Nats gained before EM goes on: at least so many where the split is a split and EM had
        converged, about so many otherwise.
    """

    merged: tuple[int, int]
    split: SplitProposal
    gain: float

    def disjoint(self, other: Move) -> bool:
        """Return whether the two have no component in common."""
        ours, theirs = ({*m.merged} | m.split.parents for m in (self, other))
        return not ours & theirs


class SplitMerge:
    """Propose the mixtures that are one move away from one that was fitted to rows.

    Parameters
    ----------
    mixture : Mixture
    rows : (m, d) array
    weights : (m,) array
    n_splits : int, optional
        How many components are split to see what that gains, the least normal ones; all of them
        by default.
    """

    def __init__(
        self, mixture: Mixture, rows: Array, weights: Array, n_splits: int | None = None
    ) -> None:
        self.mixture, self.rows, self.weights = mixture, rows, weights
        self.n_splits = n_splits
        # Noise, where there is some, is in the last column: new components take of it, too.
        self.resp = Predict(mixture, ("proba",))(rows)["proba"]
        self.k = len(mixture.log_weights)
        self.totals = (weights @ self.resp)[: self.k]

    def best(self, n: int) -> list[Mixture]:
        """Return at most `n` mixtures, first the one after all gaining moves that are disjoint."""
        moves = self.moves()
        together: list[Move] = []
        for move in moves:
            if move.gain > 0 and all(move.disjoint(other) for other in together):
                together.append(move)
        chosen = [[move] for move in _various(moves, n)]
        return [self.after(m) for m in ([together] * (len(together) > 1) + chosen)[:n]]

    def moves(self) -> list[Move]:
        """Return the moves that may gain, those of the largest gain first."""
        if self.k < 3:
            return []
        losses = self._losses()
        splits = [self._split(one) for one in self._worth_splitting(losses)]
        splits.append(self._insert_component())
        found = [
            Move(pair, split, split.gain - loss)
            for pair, loss in losses.items()
            for split in splits
            if split is not None
            and (len(split.parents) > 1 or not split.parents & {*pair})
            and split.gain > max(0.0, tuning().split_merge.worth_a_try * loss)
        ]
        return sorted(found, key=lambda move: -move.gain)

    def after(self, moves: Sequence[Move]) -> Mixture:
        """Return the M-step of the responsibilities after moves that are disjoint."""
        resp = self.resp.copy()
        for move in moves:
            (i, j), split = move.merged, move.split
            resp[:, i] += resp[:, j]
            resp[:, j] = 0.0
            parents = np.ix_(split.rows, np.array(sorted(split.parents)))
            given = resp[parents] * split.shares[:, None]
            resp[parents] -= given
            resp[split.rows, j] += given.sum(axis=1)
        return self.mixture.of_responsibilities(self.rows, resp * self.weights[:, None])

    # -- what mergers lose ---------------------------------------------------------------

    def _losses(self) -> dict[tuple[int, int], float]:
        """Compute what sum r log p loses, in nats, where two components become one."""
        k, weights, totals = self.k, self.weights, self.totals
        resp = self.resp[:, :k]
        whole = [j for j in range(k) if totals[j] > 0]
        pairs = list(combinations(whole, 2))
        components = self.mixture.components.merge_losses(
            pairs, totals, self.rows, resp * weights[:, None]
        )
        least = dict(zip(pairs, components, strict=True))
        if not self.mixture.components.equal_weights:
            for i, j in pairs:
                shares = totals[[i, j]] / (totals[i] + totals[j])
                least[i, j] += float(xlogy(totals[[i, j]], shares).sum())
        for pair in sorted(least, key=least.__getitem__)[tuning().split_merge.mergers * k :]:
            del least[pair]
        if self.mixture.assignment == "hard":
            return least
        # The rest of the loss, which is positive, is of every row that is not of one alone.
        entropies = weights @ xlogy(resp, resp)
        columns = np.ascontiguousarray(resp.T)
        for i, j in least:
            both = columns[i] + columns[j]
            unclear = weights @ xlogy(both, both) - entropies[i] - entropies[j]
            least[i, j] += float(unclear)
        return least

    # -- what splits gain ----------------------------------------------------------------

    @property
    def _fewest(self) -> float:
        """Weight of the rows that a component must have."""
        fewest = fewest_rows(self.mixture.n_parameters) / self.k
        if self.mixture.components.variational:
            # Rows may stand for many.
            fewest *= float(self.weights.mean())
        return fewest

    def _worth_splitting(self, losses: dict[tuple[int, int], float]) -> list[Parent]:
        """Return the components whose split may gain enough, the least normal ones."""
        found = []
        for j in range(self.k):
            rows = np.flatnonzero(self.resp[:, j] > tuning().split_merge.least_resp)
            weights = self.resp[rows, j] * self.weights[rows]
            if len(rows) == 0 or weights.sum() < 2 * self._fewest:
                continue
            parent = Parent.of(j, self.mixture, self.rows[rows], rows, weights)
            least = min((loss for pair, loss in losses.items() if j not in pair), default=np.inf)
            least *= tuning().split_merge.worth_a_try
            by_chance = self.mixture.n_parameters / self.k
            if least > by_chance and parent.skew < tuning().split_merge.hopeless * least:
                continue
            found.append(parent)
        found.sort(key=lambda parent: -parent.skew)
        return sorted(found[: self.n_splits], key=lambda parent: parent.component)

    def _split(self, parent: Parent) -> SplitProposal | None:
        """The best of some ways to make two of a component."""
        j, X, weights = parent.component, parent.X, parent.weights
        density = _log_density(self.mixture.take([j]), X)
        first = self.mixture.take([j, j])
        tried = []
        for half in (*parent.sides, density > np.median(density)):
            resp = np.stack([~half, half], axis=1) * weights[:, None]
            tried.append(
                _iterated(
                    first.of_responsibilities(X, resp),
                    X,
                    weights,
                    tuning().split_merge.first_iterations,
                )
            )
        best, _ = max(tried, key=lambda one: one[1])
        local, _ = _iterated(
            best,
            X,
            weights,
            tuning().split_merge.split_iterations - tuning().split_merge.first_iterations,
        )
        answers = Predict(local, ("proba", "log_density"))(X)
        if not (weights @ answers["proba"][:, :2]).min() >= self._fewest:
            return None
        gain = float(weights @ (answers["log_density"] - density))
        return SplitProposal(frozenset({j}), parent.rows, answers["proba"][:, 1], gain)

    def _insert_component(self) -> SplitProposal | None:
        """A component that begins as wide as all rows."""
        if self.mixture.components.shares_statistics or self.mixture.components.equal_weights:
            # Of equal weights none begins small.
            return None
        X, weights = self.rows, self.weights
        others = _log_density(self.mixture, X)
        constants, total = tuning().split_merge, weights.sum()
        share, resp = constants.first_weight, np.ones(len(X))
        born = self.mixture.take([0])
        for number in range(constants.split_iterations):
            if number == constants.first_iterations and (
                share * total < constants.stunted * self._fewest
            ):
                return None
            born = born.of_responsibilities(X, (resp * weights)[:, None])
            odds = np.log(share / (1 - share)) + _log_density(born, X) - others
            resp = expit(odds)
            share = float(resp @ weights / total)
            if not 0 < share < 1:
                return None
        if not min(share, 1 - share) * total >= self._fewest:
            return None
        gain = float(weights @ (np.log1p(-share) + np.logaddexp(0.0, odds)))
        parts = frozenset(range(self.mixture.n_parts))
        return SplitProposal(parts, np.arange(len(X)), resp, gain)


@dataclass(frozen=True)
class Parent:
    """A component that may be split, and its rows.

    Attributes
    ----------
    component : int
    X : (s, d) array
    rows : (s,) array of int
        Their numbers.
    weights : (s,) array
        What the component has of each.
    sides : list of (s,) array of bool
        Halves of the rows, each on one side of their mean: across the longest axis, and in the
        directions of least and most kurtosis.
    skew : float
        Nats that the rows differ from a normal distribution by, along those axes, about; of
        components whose variance is fixed, those that their longest axis costs.
    """

    component: int
    X: Array
    rows: Array
    weights: Array
    sides: list[Array]
    skew: float

    @classmethod
    def of(cls, component: int, mixture: Mixture, X: Array, rows: Array, weights: Array) -> Parent:
        """Return one component of a mixture with its rows."""
        axes = _axes(mixture.components.coordinates(X), weights)
        if mixture.components.equal_weights:
            skew = float(weights @ axes[0] ** 2)
        else:
            skew = max(_negentropy(axis, weights) for axis in axes)
        return cls(component, X, rows, weights, [axis > 0 for axis in axes], skew)


def _axes(Z: Array, weights: Array) -> list[Array]:
    """Coordinates of the rows Z (s, d) about their mean, along a few axes.

    The longest one, and those of least and most kurtosis: two clusters of like size have
    little along the line between them, a small one beside a large one has much. They are the
    extreme eigenvectors of E[|z|^2 z z^T] of whitened rows (Cardoso 1989).
    """
    total = weights.sum()
    D = Z - weights @ Z / total
    lengths, axes = np.linalg.eigh((D * weights[:, None]).T @ D / total)
    longest = D @ axes[:, -1]
    if not lengths[0] > tuning().split_merge.flat * lengths[-1] or len(lengths) == 1:
        return [longest]
    white = D @ (axes / np.sqrt(lengths))
    weight = weights * (white**2).sum(1)
    _, directions = np.linalg.eigh((white * weight[:, None]).T @ white)
    return [longest, white @ directions[:, 0], white @ directions[:, -1]]


def _negentropy(z: Array, weights: Array) -> float:
    """Compute about how many nats a normal distribution loses on centred numbers (s,).

    By their skewness and their excess kurtosis, n (g1^2 / 12 + g2^2 / 48) (Jones and Sibson
    1987, equation 6): too little far from normal, but not zero.
    """
    total = weights.sum()
    squares = z * z
    variance = weights @ squares / total
    if not variance**2 > 0:
        # None, or too little to be squared.
        return 0.0
    skewness = weights @ (squares * z) / (total * variance**1.5)
    excess = weights @ (squares * squares) / (total * variance**2) - 3.0
    return float(total * (skewness**2 / 12 + excess**2 / 48))


def fewest_rows(n_parameters: int) -> float:
    """Return the rows of which each component of so many parameters can have enough.

    Examples
    --------
    >>> fewest_rows(100)
    300.0
    """
    return tuning().split_merge.rows_per_parameter * n_parameters


def _iterated(mixture: Mixture, X: Array, weights: Array, n_iter: int) -> tuple[Mixture, float]:
    """The mixture after EM, and the log-likelihood before its last M-step."""
    value = -np.inf
    for _ in range(n_iter):
        fold = mixture.fold()
        fold.update(0, X, weights)
        statistics = fold.result()
        value = statistics.log_likelihood + mixture.log_prior_density
        mixture, _ = mixture.m_step(statistics)
    return mixture, value


def _various(moves: Sequence[Move], n: int) -> list[Move]:
    """The first `n` moves, but for those too much like the ones before them."""
    chosen: list[Move] = []
    for move in moves:
        merged = sum(move.merged == other.merged for other in chosen)
        born = sum(move.split is other.split for other in chosen)
        if max(merged, born) < tuning().split_merge.repeats:
            chosen.append(move)
        if len(chosen) == n:
            break
    return chosen


def _log_density(mixture: Mixture, X: Array) -> Array:
    return Predict(mixture, ("log_density",))(X)["log_density"]
