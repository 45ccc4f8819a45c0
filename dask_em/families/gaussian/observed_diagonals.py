"""Rows with missing values under diagonal covariances: products of which the missing are zero."""

from __future__ import annotations

import numpy as np

from ...core.additive import Array
from ...core.family import blocks
from ...core.tuning import tuning
from .observed import ObservedColumns, Sums
from .patterns import Patterns


class ObservedDiagonals(ObservedColumns):
    """Leave missing values out: columns are independent within a component.

    Parameters
    ----------
    means, variances : (k, d) arrays

    Examples
    --------
    >>> rows = Patterns.of(np.array([[False, True]]))
    >>> one = ObservedDiagonals(np.zeros((1, 2)), np.ones((1, 2)))
    >>> one.log_prob(np.array([[2.0, 0.0]]), rows).tolist()
    [[-2.0]]
    >>> sums = Sums(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros(1))
    >>> one.add(np.array([[2.0, 0.0]]), rows, np.ones((1, 1)), sums)
    >>> sums.first.tolist(), sums.scatter.tolist()
    ([[2.0, 0.0]], [[4.0, 1.0]])
    """

    def __init__(self, means: Array, variances: Array) -> None:
        self._means, self._variances = means, variances

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, at most, beside a block of rows: deviations of a piece of it."""
        return 3 * 8 * tuning().missing.piece

    def _deviations(self, k: int, Z: Array, seen: Array) -> Array:
        """Return z - mu_k, zero where a value is missing, (n, d)."""
        D: Array = Z - self._means[k]
        D *= seen
        return D

    def _pieces(self, n: int) -> list[slice]:
        return [*blocks(n, max(64, tuning().missing.piece // self._means.shape[1]))]

    def log_prob(self, Z: Array, patterns: Patterns) -> Array:
        """Return -(log |Sigma_oo| + squared Mahalanobis distance) / 2 of each row, (k, n)."""
        out = np.empty((len(self._means), len(Z)))
        logs = np.log(self._variances)
        for rows in self._pieces(len(Z)):
            seen = (~patterns.missing[rows]).astype(np.float64)
            for k, variances in enumerate(self._variances):
                D = self._deviations(k, Z[rows], seen)
                D *= D
                out[k, rows] = D @ (1 / variances) + seen @ logs[k]
        out *= -0.5
        return out

    def add(self, Z: Array, patterns: Patterns, resp: Array, sums: Sums) -> None:
        """Add the completed sums under `resp` (k, n): the variance where a value is missing."""
        logs = np.log(self._variances)
        for rows in self._pieces(len(Z)):
            missing = patterns.missing[rows].astype(np.float64)
            seen = 1.0 - missing
            for k, r in enumerate(resp[:, rows]):
                D = self._deviations(k, Z[rows], seen)
                sums.first[k] += r @ D
                D *= D
                lacking = r @ missing
                squares = r @ D + lacking * self._variances[k]
                # One variance for all columns has one sum.
                sums.scatter[k] += squares if sums.scatter.ndim == 2 else squares.sum()
                sums.half_log_det[k] += 0.5 * lacking @ logs[k]

    def finish(self, sums: Sums) -> None:
        """Do nothing: all was added."""

    def completed(self, component: int, Z: Array, patterns: Patterns) -> Array:
        """Return Z - mu of one component, zero where values are missing."""
        return self._deviations(component, Z, (~patterns.missing).astype(np.float64))
