"""Moments of all rows, block by block, and which blocks need a closer look."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from ..core.additive import Array
from ..core.family import blocks
from ..core.moments import Moments
from ..core.support import Support
from ..core.tuning import tuning


class Sweep(Protocol):
    """Sum moments of rows, as far as blocks of them are usual.

    A block is where all of its numbers are finite, and what they should be. The sums are the same
    wherever rows are cut into parts of whole blocks.
    """

    def add(self, X: Array, weight: Array | None) -> int:
        """Add the blocks of rows X (n, d), of positive weights (n,), before one that is unusual.

        Return how many rows were added.
        """

    def moments(self) -> Moments:
        """Return the moments of what was added."""


class NumpySweep:
    """Sum moments by NumPy, of rows that are laid out by columns where these are few.

    Parameters
    ----------
    n_features, block_rows : int
    support : Support
        What the numbers should be.
    joint : bool
        Whether products of two columns are summed.

    Examples
    --------
    >>> from dask_em.core.support import REAL
    >>> sweep = NumpySweep(1, 2, REAL, joint=True)
    >>> sweep.add(np.array([[0.0], [2.0], [4.0], [np.nan]]), None)
    2
    >>> sweep.moments().mean.tolist()
    [1.0]
    """

    def __init__(self, n_features: int, block_rows: int, support: Support, joint: bool) -> None:
        self._block_rows, self._support = block_rows, support
        self._columns = ColumnBlock(n_features, block_rows)
        self._moments = Moments.none(n_features, joint)
        self._origin = np.zeros(n_features)

    def add(self, X: Array, weight: Array | None) -> int:
        """Add the blocks of rows X (n, d), of positive weights (n,), before one that is unusual.

        Return how many rows were added.
        """
        for rows in blocks(len(X), self._block_rows):
            D = self._columns.load(X[rows])
            # NaN is the least and the most of its column.
            low, high = D.min(axis=1), D.max(axis=1)
            finite = np.isfinite(low).all() and np.isfinite(high).all()
            if not finite or not self._support.holds(D.T, low, high):
                return int(rows.start)
            if self._moments.weight == 0:
                self._origin = D[:, 0].copy()
            weights = None if weight is None else weight[rows]
            # Means less the first row: far from zero they keep their digits.
            self._moments += self._columns.moments(
                low, high, weights, self._moments.joint, self._origin
            )
        return len(X)

    def moments(self) -> Moments:
        """Return the moments of what was added."""
        return replace(self._moments, mean=self._origin + self._moments.mean)


class ColumnBlock:
    """Hold a block of rows as columns in float64, (d, b), to sum its moments.

    Parameters
    ----------
    n_features, block_rows : int
    """

    def __init__(self, n_features: int, block_rows: int) -> None:
        self._by_rows = n_features >= tuning().reading.survey_row_columns
        self._numbers = np.empty((2, n_features * block_rows))
        self._n_features = n_features
        self._block = self._laid(0, 0)

    def _laid(self, which: int, b: int) -> Array:
        d = self._n_features
        numbers = self._numbers[which, : d * b]
        return numbers.reshape(b, d).T if self._by_rows else numbers.reshape(d, b)

    def load(self, X: Array) -> Array:
        """Take rows X (b, d), and return their columns (d, b)."""
        self._block = self._laid(0, len(X))
        self._block[:] = X.T
        return self._block

    def moments(
        self, low: Array, high: Array, weight: Array | None, joint: bool, about: Array | float
    ) -> Moments:
        """Return the moments of the block, which it gives up, its mean less `about`.

        Its numbers are finite, and the least and the most of each column these.
        """
        D, total = self._block, float(len(self._block.T))
        origin = D[:, 0].copy()
        D -= origin[:, None]
        weighted = D
        if weight is not None:
            total = float(weight.sum())
            weighted = np.multiply(D, weight, out=self._laid(1, D.shape[1]))
        first = weighted.sum(axis=1)
        scatter = _products(D, weighted, joint)
        scatter -= np.outer(first, first / total) if joint else first**2 / total
        mean = (origin - about) + first / total
        return Moments(total, mean, _symmetric(scatter), low, high)

    def moments_with_holes(self, weight: Array | None, joint: bool) -> Moments:
        """Return the moments of the block, which it gives up, and of which values are missing."""
        D = self._block
        hole = np.isnan(D)
        low = np.where(hole, np.inf, D).min(axis=1)
        high = np.where(hole, -np.inf, D).max(axis=1)
        w = np.ones(D.shape[1]) if weight is None else weight
        observed = ~hole @ w
        origin = np.where(np.isfinite(low), low, 0.0)
        D -= origin[:, None]
        D[hole] = 0.0
        mean = D @ w / np.where(observed > 0, observed, 1.0)
        D -= mean[:, None]
        D[hole] = 0.0
        weighted = np.multiply(D, w, out=self._laid(1, D.shape[1]))
        scatter = _symmetric(_products(D, weighted, joint))
        return Moments(float(w.sum()), origin + mean, scatter, low, high, observed)


def _products(D: Array, weighted: Array, joint: bool) -> Array:
    """Return the sums of products of columns (d, b), or of their squares alone."""
    return np.asarray(D @ weighted.T if joint else np.einsum("db,db->d", D, weighted))


def _symmetric(scatter: Array) -> Array:
    return (scatter + scatter.T) / 2 if scatter.ndim == 2 else scatter
