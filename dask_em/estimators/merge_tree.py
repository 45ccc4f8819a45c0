"""Clusters of several components of a fitted mixture, as a tree of mergers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.additive import Array
from ..core.merging import Mergers
from ..errors import UsageError


@dataclass(frozen=True)
class MergeTree:
    """Hold the mergers of the components of a mixture, by the entropy of its responsibilities.

    Attributes
    ----------
    mergers : Mergers
    weights : (k,) array
        Of the components.
    n_rows : int
        Rows of the sample that the entropies are of.
    label_rows : callable
        (X, cluster of each component) -> labels of the rows of X.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(0, 1, (900, 1)), rng.uniform(9, 19, (900, 1))])
    >>> model = GaussianMixture(4, random_state=0).fit(X)
    >>> tree = model.merge(X)
    >>> tree.pairs.shape, tree.entropies.shape, np.unique(tree.clusters(2)).tolist()
    ((3, 2), (4,), [0, 1])
    >>> labels = tree.combine(X, n_clusters=2)
    >>> bool(labels[0] == labels[899] != labels[900])
    True
    """

    mergers: Mergers
    weights: Array
    n_rows: int
    label_rows: Callable[[Any, Array], Any] = field(repr=False)

    @property
    def n_components(self) -> int:
        """K."""
        return self.mergers.n_components

    @property
    def pairs(self) -> Array:
        """Clusters that become one, first merger first, (k - 1, 2): K + i is what merger i made."""
        return self.mergers.pairs

    @property
    def entropies(self) -> Array:
        """Mean entropy of a row's responsibilities in nats, of K, K - 1, ..., 1 clusters, (k,)."""
        return self.mergers.entropies

    @property
    def n_clusters(self) -> int:
        """Number of clusters at the elbow of the entropies (Baudry et al. 2010, section 4)."""
        return self.mergers.elbow(self.weights)

    @property
    def linkage(self) -> Array:
        """The tree as `scipy.cluster.hierarchy.dendrogram` draws it, (k - 1, 4).

        The height of a merger is how far entropies have fallen by then; the last number of a row,
        that of rows in other trees, that of components.
        """
        k = self.n_components
        sizes = dict.fromkeys(range(k), 1)
        for i, (one, other) in enumerate(self.pairs.tolist()):
            sizes[k + i] = sizes[one] + sizes[other]
        heights = np.maximum.accumulate(self.entropies[0] - self.entropies)[1:]
        counts = [sizes[k + i] for i in range(k - 1)]
        return np.column_stack([self.pairs.astype(np.float64), heights, counts])

    def clusters(self, n_clusters: int) -> Array:
        """Return the cluster of each component, (k,), where so many are left.

        Raises
        ------
        UsageError
            There are not so many.
        """
        whole = isinstance(n_clusters, int | np.integer) and not isinstance(n_clusters, bool)
        if not whole or not 1 <= n_clusters <= self.n_components:
            raise UsageError(
                f"n_clusters is {n_clusters!r}: expected an integer from 1 to {self.n_components}, "
                "the number of components"
            )
        return self.mergers.clusters(int(n_clusters))

    def combine(self, X: Any, n_clusters: int) -> Any:
        """Label rows by their likeliest cluster of so many, (n,); lazy unless X is in memory.

        The responsibility of a cluster is the sum of those of its components.
        """
        return self.label_rows(X, self.clusters(n_clusters))
