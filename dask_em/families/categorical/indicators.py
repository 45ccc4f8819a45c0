"""Answers as coordinates: what k-means and the directions of splits see of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...core.additive import Array
from ...core.family import blocks
from ...core.tuning import tuning
from .binary import whole_part


def answered(X: Array, n_categories: Sequence[int]) -> tuple[Array, Array]:
    """Return which answers were given, and to which questions any was, (n, m) of 0 and 1 both.

    Examples
    --------
    >>> given, there = answered(np.array([[1.0, np.nan]]), (2, 2))
    >>> given.tolist(), there.tolist()
    ([[0.0, 1.0, 0.0, 0.0]], [[1.0, 1.0, 0.0, 0.0]])
    """
    ends, X = np.cumsum(n_categories), whole_part(X)
    given, there = np.empty((2, len(X), int(ends[-1])))
    for j, (n, end) in enumerate(zip(n_categories, ends.tolist(), strict=True)):
        place = slice(end - n, end)
        np.equal(X[:, j, None], np.arange(n), out=given[:, place])
        there[:, place] = ~np.isnan(X[:, j, None])
    return given, there


def indicators(X: Array, n_categories: Sequence[int], mean: Array) -> Array:
    """Return an indicator of each category (n, m), over the root of two, about the mean (m,).

    So two rows lie as far apart as the root of the number of their answers that differ. A missing
    answer is the mean one. Of very many categories there are random projections in place of the
    indicators, which keep distances about (Johnson and Lindenstrauss 1984).

    Examples
    --------
    >>> X = np.array([[0.0, 1.0], [1.0, np.nan]])
    >>> (indicators(X, (2, 2), np.array([0.5, 0.5, 0.0, 1.0])) * 2**0.5).round(3).tolist()
    [[0.5, -0.5, 0.0, 0.0], [-0.5, 0.5, 0.0, 0.0]]
    """
    m = sum(n_categories)
    most = tuning().categorical.most_coordinates
    onto = None
    if m > most:
        onto = np.random.default_rng(0).normal(size=(m, most)) / np.sqrt(most)
    out = np.empty((len(X), m if onto is None else most))
    for rows in blocks(len(X), tuning().categorical.most_rows):
        given, there = answered(X[rows], n_categories)
        found = np.sqrt(0.5) * (given - mean * there)
        out[rows] = found if onto is None else found @ onto
    return out
