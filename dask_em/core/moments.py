"""Weight, mean and scatter of all rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from .additive import Additive, Array
from .codec import record


@record("moments")
@dataclass(frozen=True)
class Moments(Additive):
    """Weight, mean and scatter of rows; they add by Chan, Golub and LeVeque (1983).

    Attributes
    ----------
    weight : float
    mean : (d,) array
    scatter : (d, d) array
        sum_n w_n (x_n - mean)(x_n - mean)^T.

    Examples
    --------
    >>> import numpy as np
    >>> one = Moments(1.0, np.array([0.0]), np.zeros((1, 1)))
    >>> other = Moments(1.0, np.array([2.0]), np.zeros((1, 1)))
    >>> (one + other).covariance
    array([[1.]])
    """

    weight: float
    mean: Array
    scatter: Array

    def __add__(self, other: Moments) -> Moments:
        weight = self.weight + other.weight
        if weight == 0:
            return self
        gap = other.mean - self.mean
        share = other.weight / weight
        scatter = self.scatter + other.scatter + np.outer(gap, gap) * (self.weight * share)
        return Moments(weight, self.mean + gap * share, scatter)

    @classmethod
    def of(cls, X: Array) -> Self:
        """Return the moments of rows (n, d) in memory, each of weight one."""
        mean = X.mean(axis=0, dtype=np.float64)
        D = X - mean
        return cls(float(len(X)), mean, D.T @ D)

    @classmethod
    def unit(cls, d: int) -> Self:
        """Return the moments of d columns of mean zero and the identity as their covariance."""
        return cls(1.0, np.zeros(d), np.eye(d))

    @property
    def covariance(self) -> Array:
        """Maximum-likelihood covariance, (d, d)."""
        return self.scatter / self.weight

    @property
    def widths(self) -> Array:
        """Standard deviation of each column, (d,); one where a column does not vary."""
        variance = np.diagonal(self.covariance).copy()
        return np.sqrt(np.where(variance > 0, variance, 1.0))

    def standardized(self, rows: Array) -> Array:
        """Return rows (n, d) shifted by the mean, in units of the columns' widths."""
        return (np.asarray(rows, dtype=np.float64) - self.mean) * (1.0 / self.widths)
