"""The order in which components are merged into clusters: by the entropy of responsibilities.

A cluster may need several components, as of normals where it is not normal. Of all pairs the two
are merged whose merger lowers the entropy most, until one is left (Baudry, Raftery, Celeux, Lo and
Gottardo, Combining Mixture Components for Clustering, Journal of Computational and Graphical
Statistics 19, 2010, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .additive import Array
from .mixture import Mixture
from .scoring import INT64, NO_LABEL, Predict

# Responsibilities below this tell nothing of an entropy in nats.
LEAST = 1e-14


@dataclass(frozen=True)
class Mergers:
    """Hold the mergers of K components, first to last.

    Attributes
    ----------
    pairs : (k - 1, 2) array of int
        Clusters that become one: components from 0 to K - 1, and K + i for what merger i made, as
        `scipy.cluster.hierarchy` numbers them.
    entropies : (k,) array
        Mean entropy of the responsibilities of a row, in nats: of all K components, and after each
        merger. The last is zero.

    Examples
    --------
    >>> found = Mergers(np.array([[0, 2], [1, 3]]), np.array([0.5, 0.1, 0.0]))
    >>> found.clusters(2).tolist(), found.clusters(1).tolist()
    ([0, 1, 0], [0, 0, 0])
    """

    pairs: Array
    entropies: Array

    @property
    def n_components(self) -> int:
        """K."""
        return len(self.entropies)

    def clusters(self, n_clusters: int) -> Array:
        """Return the cluster of each component, (k,), where so many are left.

        They are numbered in the order of their first components.
        """
        k = self.n_components
        members: dict[int, list[int]] = {i: [i] for i in range(k)}
        for i, (one, other) in enumerate(self.pairs[: k - n_clusters].tolist()):
            members[k + i] = members.pop(one) + members.pop(other)
        found = np.empty(k, dtype=np.int64)
        for number, group in enumerate(sorted(members.values(), key=min)):
            found[group] = number
        return found

    def elbow(self, sizes: Array) -> int:
        """Return the number of clusters at which the entropy stops to fall steeply.

        Two straight lines are fitted to the entropy against the number of rows that were merged so
        far, of components of these sizes (k,): it is where they part, with the least squares
        (Baudry et al. 2010, section 4). K where there are fewer than four components.
        """
        k = self.n_components
        rows, total = [0.0], {i: float(size) for i, size in enumerate(sizes)}
        for i, (one, other) in enumerate(self.pairs.tolist()):
            total[k + i] = total[one] + total[other]
            rows.append(rows[-1] + total[k + i])
        if k < 4:
            # Two lines through fewer points leave no residual.
            return k
        x, y = np.array(rows), self.entropies
        losses = [
            _residual(x[: i + 1], y[: i + 1]) + _residual(x[i:], y[i:]) for i in range(1, k - 1)
        ]
        return k - 1 - int(np.argmin(losses))


def _residual(x: Array, y: Array) -> float:
    """Return the sum of squares about the line of the least."""
    slope, level = np.polyfit(x, y, 1)
    return float(((y - slope * x - level) ** 2).sum())


def merged_by_entropy(resp: Array, weights: Array) -> Mergers:
    """Compute which components are merged one after the other, by responsibilities (n, k).

    Parameters
    ----------
    resp : (n, k) array
    weights : (n,) array
        A row of weight w counts as w rows.

    Examples
    --------
    >>> resp = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.4, 0.6, 0.0]])
    >>> found = merged_by_entropy(resp, np.ones(3))
    >>> found.pairs.tolist(), found.entropies.round(3).tolist()
    ([[0, 1], [2, 3]], [0.455, 0.0, 0.0])
    """
    k, total = resp.shape[1], float(weights.sum())
    parts = {i: np.ascontiguousarray(resp[:, i]) for i in range(k)}
    gains = np.full((2 * k - 1, 2 * k - 1), -np.inf)
    for i in parts:
        for j in range(i):
            gains[j, i] = _gain(parts[j], parts[i], weights)
    entropies = [sum(-_xlogx(part, weights) for part in parts.values()) / total]
    pairs: list[tuple[int, int]] = []
    for new in range(k, 2 * k - 1):
        one, other = (int(n) for n in np.unravel_index(int(gains.argmax()), gains.shape))
        entropies.append(max(entropies[-1] - float(gains[one, other]) / total, 0.0))
        pairs.append((one, other))
        both = parts.pop(one) + parts.pop(other)
        for gone in (one, other):
            gains[gone] = gains[:, gone] = -np.inf
        for i, part in parts.items():
            gains[i, new] = _gain(part, both, weights)
        parts[new] = both
    if k > 1:
        # One cluster is certain.
        entropies[-1] = 0.0
    return Mergers(np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(entropies))


def _gain(one: Array, other: Array, weights: Array) -> float:
    """Return by how much the entropy falls where the two become one; only rows of both count."""
    both = (one > LEAST) & (other > LEAST)
    a, b, w = one[both], other[both], weights[both]
    return _xlogx(a + b, w) - _xlogx(a, w) - _xlogx(b, w)


def _xlogx(resp: Array, weights: Array) -> float:
    # scipy takes longer to import than all that reads a model file.
    from scipy.special import xlogy

    return float(weights @ xlogy(resp, resp))


@dataclass(frozen=True)
class MergedLabels:
    """Label rows by clusters of several components: mapped over chunks.

    Attributes
    ----------
    mixture : Mixture
    clusters : (k,) array of int
        The cluster of each component.
    drop : bool
        Give rows of NaN or infinity the label -1; else they are an error.

    Examples
    --------
    >>> from .moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> normals = GaussianOptions().of_data(Moments.unit(1), 3)
    >>> mixture = Mixture(np.log([0.3, 0.4, 0.3]), normals)
    >>> MergedLabels(mixture, np.array([0, 1, 0]))(np.zeros((1, 1)))["labels"].tolist()
    [0]
    """

    mixture: Mixture
    clusters: Array
    drop: bool = False

    answers: ClassVar[tuple[str, ...]] = ("labels",)
    no_label: ClassVar[int] = NO_LABEL

    def dtype(self, answer: str) -> np.dtype[Any]:
        """Return the type of labels."""
        return INT64

    def width(self, answer: str) -> None:
        """Return None: one number a row."""
        return

    def __call__(self, X: Array) -> dict[str, Array]:
        """Return the clusters of the largest sums of responsibilities, (n,)."""
        resp = Predict(self.mixture, ("proba",), self.drop)(X)["proba"]
        belongs = self.clusters[:, None] == np.arange(int(self.clusters.max()) + 1)
        labels = (resp @ belongs).argmax(axis=1)
        return {"labels": np.where(np.isnan(resp[:, 0]), NO_LABEL, labels)}
