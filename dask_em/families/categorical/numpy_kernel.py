"""Kernel of categorical components on NumPy: products with the indicators of the answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...core.additive import Array
from ...core.family import Kernel
from ...core.tuning import tuning
from .binary import binarized, whole_part
from .statistics import CategoricalStatistics


class IndicatorKernel(Kernel[CategoricalStatistics]):
    """Compute log p(x | k) = log p @ indicators, and counts = resp @ indicators^T.

    What is none of a column's codes, such as NaN, has no indicator: a factor of one.

    Parameters
    ----------
    log_probabilities : (k, m) array
        The categories of all columns side by side.
    n_categories : sequence of int
        Of each column; they sum to m.
    threshold : float or None
        Where there is one, the answers are which numbers are above it.

    Examples
    --------
    >>> kernel = IndicatorKernel(np.log([[0.5, 0.5, 0.2, 0.8]]), (2, 2))
    >>> kernel.load(np.array([[0.0, 1.0], [1.0, np.nan]]))
    >>> np.exp(kernel.log_prob()).round(3).tolist()
    [[0.4, 0.5]]
    """

    def __init__(
        self, log_probabilities: Array, n_categories: Sequence[int], threshold: float | None = None
    ) -> None:
        k, m = log_probabilities.shape
        constants = tuning().categorical
        rows = constants.indicators // m
        self.block_rows = min(max(rows, constants.least_rows), constants.most_rows)
        self._log_p, self._threshold = log_probabilities, threshold
        starts = np.cumsum([0, *n_categories[:-1]])
        self._places = [slice(i, i + n) for i, n in zip(starts, n_categories, strict=True)]
        self._codes = np.arange(max(n_categories))[:, None]
        self._phi = np.empty((m, self.block_rows))
        self._out = np.empty((k, self.block_rows))
        self._rows = 0
        self._counts = np.zeros((k, m))

    def load(self, X: Array) -> None:
        """Take the rows X (b, d) as the current block."""
        self._rows = b = len(X)
        X = whole_part(binarized(X, self._threshold))
        for j, place in enumerate(self._places):
            n = place.stop - place.start
            np.equal(X[:, j], self._codes[:n], out=self._phi[place, :b])

    def log_prob(self) -> Array:
        """Return log p(x | component) of the current block (k, b)."""
        b = self._rows
        return np.matmul(self._log_p, self._phi[:, :b], out=self._out[:, :b])

    def accumulate(self, resp: Array) -> None:
        """Add the current block's counts under `resp` (k, b)."""
        self._counts += resp @ self._phi[:, : self._rows].T

    def statistics(self) -> CategoricalStatistics:
        """Return the counts over all blocks so far."""
        return CategoricalStatistics(self._counts.copy())
