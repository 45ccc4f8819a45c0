"""Which columns, and pairs of columns, separate the components best, whatever the family.

How far two components are apart in some columns is told by the Bhattacharyya distance of their
marginals: of columns of numbers that of normals of the same means and covariances, so that widths
and correlations separate too; of answers the exact one. The sum over pairs of components of
sqrt(w_i w_j) exp(-D_ij) bounds how many rows the columns leave in doubt (Fukunaga, Introduction to
Statistical Pattern Recognition, 1990, section 3.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from ..core.additive import Array
from ..estimators.describe import ComponentDescription, FittedMixture

# Components whose pairs are looked at, the heaviest; columns of which all pairs are.
MOST_COMPARED, MOST_PAIRED = 40, 100

# Share of a column's largest variance below which no variance of it counts: rounding.
LEAST_VARIANCE = 1e-9


class Separation:
    """Tell how well columns separate the components of a fitted mixture.

    Parameters
    ----------
    model : fitted mixture
    columns : sequence of int, optional
        Which are looked at, by default all: of very many, the best by themselves.

    Attributes
    ----------
    doubts : (d,) array
        Bounds on the share of rows that each column alone leaves in doubt, which the pairs of
        components add up to.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(600, 3))
    >>> X[:300, 1] += 6
    >>> found = Separation(GaussianMixture(2, random_state=0).fit(X))
    >>> found.columns(1), 1 in found.pairs(1)[0]
    ([1], True)
    """

    def __init__(self, model: FittedMixture, columns: Sequence[int] | None = None) -> None:
        heaviest = np.sort(np.argsort(-model.weights_, kind="stable")[:MOST_COMPARED])
        weights = model.weights_[heaviest] / model.weights_[heaviest].sum()
        components = model.describe()
        self._pairs = [*combinations(range(len(heaviest)), 2)]
        self._roots = np.array([np.sqrt(weights[i] * weights[j]) for i, j in self._pairs])
        asked = np.arange(len(components.columns)) if columns is None else np.array(columns, int)
        means, variances = (
            np.asarray(part, dtype=np.float64)[np.ix_(heaviest, asked)]
            for part in (components.means, components.variances)
        )
        alone = self._distances_alone(means, variances, components, heaviest, asked)
        doubts = self._roots @ np.exp(-alone)
        kept = np.sort(np.argsort(doubts, kind="stable")[:MOST_PAIRED])
        self._asked, self.doubts = asked[kept], doubts[kept]
        self._means, self._alone = means[:, kept], alone[:, kept]
        self._of_numbers = np.array([int(j) not in components.answers for j in self._asked], bool)
        self._covariances = self._described(components, heaviest, variances[:, kept])

    def _distances_alone(
        self, means: Array, variances: Array, components: ComponentDescription, heaviest: Array,
        asked: Array,
    ) -> Array:  # fmt: skip
        """Compute the distances of each pair in each column by itself, (p, d)."""
        variances = np.maximum(variances, _least(variances))
        found = np.empty((len(self._pairs), len(asked)))
        for place, (i, j) in enumerate(self._pairs):
            mean = (variances[i] + variances[j]) / 2
            apart = (means[i] - means[j]) ** 2 / mean / 8
            found[place] = apart + np.log(mean**2 / (variances[i] * variances[j])) / 4
        for column, j in enumerate(asked.tolist()):
            if (answers := components.answers.get(j)) is not None:
                roots = np.sqrt(answers[heaviest])
                # The overlap of two that never give the same answer is zero.
                inner = np.maximum(roots @ roots.T, 1e-300)
                found[:, column] = [-np.log(min(1.0, inner[pair])) for pair in self._pairs]
        return found

    def _described(
        self, components: ComponentDescription, heaviest: Array, variances: Array
    ) -> Array:
        """Return the covariances of the columns, (k, d, d); answers are independent of all else."""
        k, d = variances.shape
        found = np.zeros((k, d, d))
        numbers = np.flatnonzero(self._of_numbers)
        chosen = self._asked[numbers].tolist()
        for place, component in enumerate(heaviest.tolist()):
            if chosen:
                block = components.covariance(component, chosen)
                found[place][np.ix_(numbers, numbers)] = block
        diagonal = np.arange(d)
        least = _least(variances)
        found[:, diagonal, diagonal] = np.maximum(variances, least) * (1 + LEAST_VARIANCE)
        return found

    def pairs(self, most: int = 6) -> list[tuple[int, int]]:
        """Return the pairs of columns of numbers that leave fewest rows in doubt, best first."""
        numbers = np.flatnonzero(self._of_numbers)
        if len(numbers) < 2:
            return []
        doubt = self._pair_doubts(numbers)
        upper = np.triu_indices(len(numbers), 1)
        order = np.argsort(doubt[upper], kind="stable")[:most]
        places = self._asked[numbers]
        return [(int(places[upper[0][n]]), int(places[upper[1][n]])) for n in order]

    def _pair_doubts(self, chosen: Array) -> Array:
        """Bound the share of rows that each two columns of numbers leave in doubt, (m, m)."""
        m = len(chosen)
        means = self._means[:, chosen]
        covariances = self._covariances[:, chosen[:, None], chosen]
        widths = np.diagonal(covariances, axis1=1, axis2=2)
        dets = widths[:, :, None] * widths[:, None, :] - covariances**2
        # Of two columns that are one, the determinant is rounding.
        dets = np.maximum(dets, LEAST_VARIANCE * widths[:, :, None] * widths[:, None, :])
        found = np.zeros((m, m))
        for root, (i, j) in zip(self._roots, self._pairs, strict=True):
            mean = (covariances[i] + covariances[j]) / 2
            width, apart = np.diagonal(mean), means[i] - means[j]
            det = np.maximum(
                np.multiply.outer(width, width) - mean**2,
                LEAST_VARIANCE * np.multiply.outer(width, width),
            )
            cross = mean * np.multiply.outer(apart, apart)
            squares = np.multiply.outer(width, apart**2)
            distance = (squares + squares.T - 2 * cross) / det
            found += root * np.exp(-distance / 8) * (dets[i] * dets[j]) ** 0.25 / np.sqrt(det)
        return found

    def columns(self, most: int) -> list[int]:
        """Return the columns that together leave fewest rows in doubt, in their order.

        The best one, or the best two, and then always the one that helps most beside those that
        are chosen: of columns that tell the same only one.
        """
        d = len(self._asked)
        if most >= d or not self._pairs:
            return [int(j) for j in np.sort(self._asked)[:most]]
        chosen = [int(self.doubts.argmin())]
        numbers = np.flatnonzero(self._of_numbers)
        if most > 1 and len(numbers) > 1:
            pair = self._pair_doubts(numbers)
            pair[np.tril_indices(len(numbers))] = np.inf
            best = np.unravel_index(int(pair.argmin()), pair.shape)
            if pair[best] < min(self._joint([*chosen, j]) for j in range(d) if j != chosen[0]):
                chosen = [int(numbers[n]) for n in best]
        while len(chosen) < most:
            others = [j for j in range(d) if j not in chosen]
            doubt = [self._joint([*chosen, j]) for j in others]
            chosen.append(others[int(np.argmin(doubt))])
        return sorted(int(self._asked[j]) for j in chosen)

    def _joint(self, chosen: Sequence[int]) -> float:
        """Bound the share of rows that these columns together leave in doubt."""
        numbers = [j for j in chosen if self._of_numbers[j]]
        answers = [j for j in chosen if not self._of_numbers[j]]
        distances = self._alone[:, answers].sum(axis=1)
        if numbers:
            covariances = self._covariances[:, np.array(numbers)[:, None], numbers]
            i, j = (np.array(side, dtype=int) for side in zip(*self._pairs, strict=True))
            mean = (covariances[i] + covariances[j]) / 2
            apart = (self._means[i] - self._means[j])[:, numbers]
            solved = np.linalg.solve(mean, apart[:, :, None])[:, :, 0]
            logs = np.linalg.slogdet(covariances)[1]
            distances = distances + (apart * solved).sum(axis=1) / 8
            distances = distances + (np.linalg.slogdet(mean)[1] - (logs[i] + logs[j]) / 2) / 2
        return float(self._roots @ np.exp(-distances))


def _least(variances: Array) -> Array:
    """Return the least variance that counts of each column, (d,)."""
    largest = variances.max(axis=0)
    return np.where(largest > 0, LEAST_VARIANCE * largest, 1.0)


def telling_columns(
    model: FittedMixture, most: int = 4, among: Sequence[int] | None = None
) -> list[int]:
    """Choose the columns that together separate the components best, at most so many, in order.

    They are chosen `among` some columns, by default all.
    """
    return Separation(model, among).columns(most)
