"""Clusters of few rows by Ward's tree: one tree tells them for every K."""

from __future__ import annotations

import numpy as np

from ..core.additive import Array
from ..core.moments import Moments


def ward_trees(rows: Array, moments: Moments) -> list[Array]:
    """Return Ward's tree (1963) of rows (n, d), in two or three coordinates.

    In the units of the data, in which balls of one size are found; in widths of the columns; and
    in widths of the principal components, in which long and thin clusters are wide (as by mclust's
    default start: Scrucca and Raftery, Advances in Data Analysis and Classification 9, 2015), where
    the moments tell those.

    Parameters
    ----------
    rows : (n, d) array
    moments : Moments
        Of all data.

    Returns
    -------
    list of (n - 1, 4) array
        As SciPy's `linkage` has them; none of rows that are not finite, or fewer than two.

    Examples
    --------
    >>> rows = np.array([[0.0], [1.0], [9.0]])
    >>> clusters_of(ward_trees(rows, Moments.of(rows))[0], 2).tolist()
    [0, 0, 1]
    """
    from scipy.cluster.hierarchy import linkage

    if len(rows) < 2 or not np.isfinite(rows).all():
        return []
    apart = np.asarray(rows, dtype=np.float64) - moments.mean
    coordinates = [apart, moments.standardized(rows)]
    if moments.joint:
        values, axes = np.linalg.eigh(moments.covariance)
        widths = np.sqrt(np.maximum(values, np.finfo(np.float64).eps * max(values[-1], 1e-300)))
        coordinates.append(apart @ axes / widths)
    return [np.asarray(linkage(Z, "ward")) for Z in coordinates]


def clusters_of(tree: Array, k: int) -> Array:
    """Return the numbers of the clusters (n,), at most k, of the rows of a tree."""
    from scipy.cluster.hierarchy import fcluster

    return np.asarray(fcluster(tree, k, "maxclust") - 1)
