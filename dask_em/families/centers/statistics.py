"""Sufficient statistics of centres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from ...core.additive import Additive, Array
from ...core.codec import record


@record("center-statistics")
@dataclass(frozen=True)
class CenterStatistics(Additive):
    """Hold sums about the centres that the E-step used, and the farthest row of each.

    Attributes
    ----------
    first : (k, d) array
        sum_n w_n (x_n - c_k) over the rows of cluster k, in the units of the data.
    squares : (k,) array
        sum_n w_n |x_n - c_k|^2: the inertia of each cluster.
    far : (k, d) array
        The row of each cluster that is farthest from its centre, about the family's origin.
    far_squares : (k,) array
        Its squared distance, 0 where the cluster has no rows. Of equal ones the first counts.

    Examples
    --------
    >>> one = CenterStatistics(np.ones((1, 2)), np.ones(1), np.ones((1, 2)), np.array([2.0]))
    >>> other = CenterStatistics(np.ones((1, 2)), np.ones(1), np.zeros((1, 2)), np.array([3.0]))
    >>> (one + other).squares.tolist(), (one + other).far.tolist()
    ([2.0], [[0.0, 0.0]])
    """

    first: Array
    squares: Array
    far: Array
    far_squares: Array

    def __add__(self, other: Self) -> Self:
        farther = other.far_squares > self.far_squares
        return type(self)(
            self.first + other.first,
            self.squares + other.squares,
            np.where(farther[:, None], other.far, self.far),
            np.maximum(self.far_squares, other.far_squares),
        )

    def plus(self, other: Self, factor: float | Array) -> Self:
        """Return self + factor * other; the farthest rows stay those of this record."""
        by_row = factor if np.ndim(factor) == 0 else np.reshape(factor, (-1, 1))
        first = self.first + by_row * other.first
        squares = self.squares + factor * other.squares
        return type(self)(first, squares, self.far, self.far_squares)

    def times(self, factor: float) -> Self:
        """Return the sums of rows that weigh `factor` times as much; the farthest rows stay."""
        return type(self)(factor * self.first, factor * self.squares, self.far, self.far_squares)

    @classmethod
    def zero(cls, k: int, d: int) -> Self:
        """Return the sums of no rows."""
        return cls(np.zeros((k, d)), np.zeros(k), np.zeros((k, d)), np.zeros(k))
