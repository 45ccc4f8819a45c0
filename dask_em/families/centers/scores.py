"""How well centres describe rows: inertia and simplified silhouette from one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.additive import Array
from ...core.mixture import Mixture
from ...core.protocols import Fold, Pass
from ...core.scoring import Scores, loaded_blocks


@dataclass(frozen=True)
class ClusterScores(Scores):
    """Hold sums that tell how well centres describe rows.

    Attributes
    ----------
    n_rows, weight, log_likelihood, entropy
        As in `Scores`, of a hard assignment: the entropy is zero.
    inertia : float
        sum_n w_n |x_n - c|^2 of the nearest centre, in squared units of the data.
    silhouette : float
        sum_n w_n (b_n - a_n) / max(a_n, b_n), where a and b are the distances to the nearest
        and the second centre (Hruschka, de Castro and Campello 2004); 0 where both are zero, or
        there is one centre.
    sizes : (k,) array
        sum_n w_n of the rows of each cluster.
    """

    inertia: float
    silhouette: float
    sizes: Array


@dataclass(frozen=True)
class ClusterScore(Pass[ClusterScores]):
    """The description of a pass that scores centres.

    Examples
    --------
    >>> from dask_em.families.centers.family import Centers
    >>> two = Centers(np.array([[0.0], [4.0]]), np.zeros(1), 1.0)
    >>> fold = ClusterScore(Mixture(np.log([0.5, 0.5]), two, assignment="hard")).fold()
    >>> fold.update(0, np.array([[1.0], [4.0]]), None)
    >>> fold.result().inertia, round(fold.result().silhouette, 3)
    (1.0, 1.667)
    """

    mixture: Mixture

    def fold(self) -> ClusterScoreFold:
        """Return the fold of one range, before its first chunk."""
        return ClusterScoreFold(self.mixture)


class ClusterScoreFold(Fold[ClusterScores]):
    """Score chunks of rows."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture
        k = len(mixture.log_weights)
        self._scores = ClusterScores(0, 0.0, 0.0, 0.0, 0.0, 0.0, np.zeros(k))

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add the rows X (n, d) with weights (n,)."""
        kept = None
        if sample_weight is not None:
            # A row of weight zero is a row left out, whatever it holds.
            kept = (sample_weight > 0) & np.isfinite(sample_weight)
        mixture = self.mixture
        log_likelihood, silhouette = 0.0, 0.0
        sizes, components = np.zeros(len(mixture.log_weights)), None
        for rows, kernel, _ in loaded_blocks(mixture, X, kept):
            weight = None if sample_weight is None else sample_weight[rows]
            silhouettes = simplified_silhouettes(-kernel.log_prob())
            silhouette += float(silhouettes.sum() if weight is None else silhouettes @ weight)
            added = kernel.add_assigned(mixture.log_prior, weight)
            assert added is not None, "centres assign rows by themselves"
            log_likelihood += added[0]
            sizes += added[1]
            components = kernel
        inertia = _inertia(mixture, components)
        self._scores += ClusterScores(
            len(X), float(sizes.sum()), log_likelihood, 0.0, inertia, silhouette, sizes
        )

    def result(self) -> ClusterScores:
        """Return the sums over the chunks given so far."""
        return self._scores


def _inertia(mixture: Mixture, kernel: Any) -> float:
    if kernel is None:
        return 0.0
    found = mixture.components.inertia(kernel.statistics())
    return 0.0 if found is None else found


def simplified_silhouettes(squares: Array) -> Array:
    """Compute (b - a) / max(a, b) of each row from squared distances (k, b), overwritten.

    Examples
    --------
    >>> simplified_silhouettes(np.array([[1.0, 0.0], [4.0, 0.0]])).tolist()
    [0.5, 0.0]
    """
    if len(squares) == 1:
        return np.zeros(squares.shape[1])
    rows = np.arange(squares.shape[1])
    nearest = squares.argmin(axis=0)
    first = squares[nearest, rows]
    squares[nearest, rows] = np.inf
    second = squares.min(axis=0)
    return np.asarray(1 - np.sqrt(np.where(second > 0, first / np.where(second > 0, second, 1), 1)))
