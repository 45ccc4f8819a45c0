"""Weight, mean, scatter and extremes of all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from .additive import Additive, Array
from .codec import record


@record("moments", 3)
@dataclass(frozen=True)
class Moments(Additive):
    """Weight, mean, scatter and extremes of rows; they add by Chan, Golub and LeVeque (1983).

    Attributes
    ----------
    weight : float
    mean : (d,) array
    scatter : (d, d) or (d,) array
        sum_n w_n (x_n - mean)(x_n - mean)^T, or its diagonal where columns are taken one by one.
    low, high : (d,) array
        Smallest and largest number of each column.
    observed : (d,) array or None
        Where values are missing, the weight of the rows that have one; else None. Means, variances
        and extremes are then of these rows. Off the diagonal a missing value counts as the mean of
        its column among its neighbours, so that covariances are about right, and definite.

    Examples
    --------
    >>> import numpy as np
    >>> total = Moments.of(np.array([[0.0]])) + Moments.of(np.array([[2.0]]))
    >>> total.covariance, total.high
    (array([[1.]]), array([2.]))
    """

    weight: float
    mean: Array
    scatter: Array
    low: Array
    high: Array
    observed: Array | None = None

    def __add__(self, other: Moments) -> Moments:
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        weight = self.weight + other.weight
        if weight == 0:
            return replace(self, low=low, high=high)
        gap = other.mean - self.mean
        if self.observed is not None or other.observed is not None:
            return self._with_holes(other, gap, low, high)
        share = other.weight / weight
        scatter = self.scatter + other.scatter + self._products(gap) * (self.weight * share)
        return Moments(weight, self.mean + gap * share, scatter, low, high)

    def _with_holes(self, other: Moments, gap: Array, low: Array, high: Array) -> Moments:
        ours, theirs = self.weights, other.weights
        total = ours + theirs
        share = theirs / np.where(total > 0, total, 1.0)
        apart = gap * np.sqrt(ours * share)
        return Moments(
            self.weight + other.weight,
            self.mean + gap * share,
            self.scatter + other.scatter + self._products(apart),
            low,
            high,
            total,
        )

    def _products(self, vector: Array) -> Array:
        """Return the products of the numbers of a vector (d,) that `scatter` holds."""
        return np.outer(vector, vector) if self.joint else vector**2

    @property
    def joint(self) -> bool:
        """Whether products of two columns were summed, and not squares alone."""
        return self.scatter.ndim == 2

    @property
    def weights(self) -> Array:
        """Weight of the rows that have a value in each column, (d,)."""
        return np.full(len(self.mean), self.weight) if self.observed is None else self.observed

    @classmethod
    def none(cls, d: int, joint: bool = True) -> Self:
        """Return the moments of no row of d columns."""
        empty = np.full(d, np.inf)
        return cls(0.0, np.zeros(d), np.zeros((d, d) if joint else d), empty, -empty)

    @classmethod
    def of(cls, X: Array) -> Self:
        """Return the moments of rows (n, d) in memory, each of weight one."""
        mean = X.mean(axis=0, dtype=np.float64)
        D = X - mean
        low, high = (np.asarray(f(X, axis=0), dtype=np.float64) for f in (np.min, np.max))
        return cls(float(len(X)), mean, D.T @ D, low, high)

    @classmethod
    def unit(cls, d: int, joint: bool = True) -> Self:
        """Return the moments of d columns of mean zero and the identity as their covariance."""
        scatter = np.eye(d) if joint else np.ones(d)
        return cls(1.0, np.zeros(d), scatter, -np.ones(d), np.ones(d))

    def columns(self, chosen: Sequence[int]) -> Self:
        """Return the moments of some columns alone."""
        index = list(chosen)
        scatter = self.scatter[np.ix_(index, index) if self.joint else index]
        vectors = self.low[index], self.high[index]
        observed = None if self.observed is None else self.observed[index]
        return type(self)(self.weight, self.mean[index], scatter, *vectors, observed)

    @property
    def covariance(self) -> Array:
        """Maximum-likelihood covariance, (d, d)."""
        assert self.joint, "the survey summed no products of columns"
        if self.observed is None:
            return self.scatter / self.weight
        root = np.sqrt(np.where(self.observed > 0, self.observed, 1.0))
        return np.asarray(self.scatter / np.outer(root, root))

    @property
    def variances(self) -> Array:
        """Maximum-likelihood variance of each column, (d,)."""
        squares = np.diagonal(self.scatter).copy() if self.joint else self.scatter
        if self.observed is None:
            return squares / self.weight
        root = np.sqrt(np.where(self.observed > 0, self.observed, 1.0))
        return np.asarray(squares / (root * root))

    @property
    def widths(self) -> Array:
        """Standard deviation of each column, (d,); one where a column does not vary."""
        variance = self.variances
        return np.sqrt(np.where(variance > 0, variance, 1.0))

    def standardized(self, rows: Array) -> Array:
        """Return rows (n, d) shifted by the mean, in units of the columns' widths."""
        return (np.asarray(rows, dtype=np.float64) - self.mean) * (1.0 / self.widths)
