"""Gaussian components of rows that are not observed whole: EM by completed sums."""

from __future__ import annotations

from typing import Self

import numpy as np

from ...core.additive import Array
from ...core.validation import require, require_array
from .family import Gaussian
from .statistics import CompletedStatistics, GaussianStatistics


class CompletedGaussian(Gaussian):
    """Hold Gaussian components of rows that the E-step completes by what is expected of them.

    Sums of a pass tell of other parameters by a bound, as what completes rows is expected under
    the parameters of the pass: the gain in likelihood is at least that of the completed sums.
    """

    linear = False

    @property
    def statistics_bytes(self) -> int:
        return super().statistics_bytes + 8 * len(self.means)

    def validate(self, statistics: GaussianStatistics) -> None:
        """Raise `ValueError` that names the parameter or sum that is wrong."""
        super().validate(statistics)
        known = isinstance(statistics, CompletedStatistics)
        require("statistics", statistics, known)
        assert isinstance(statistics, CompletedStatistics)
        largest = np.finfo(np.float64).max
        require_array("entropy", statistics.entropy, (len(self.means),), largest=largest)

    def recentre(
        self, resp_sum: Array, statistics: GaussianStatistics, to: Self
    ) -> GaussianStatistics:
        """Return sums about these means as sums about those of `to`; entropies stay."""
        moved = super().recentre(resp_sum, statistics, to)
        return CompletedStatistics(moved.first, moved.scatter, entropy_of(statistics))

    def expected_log_joint(
        self, log_weights: Array, resp_sum: Array, statistics: GaussianStatistics
    ) -> float:
        """Compute sum_nk r_nk log(w_k p(x_n | k)) of what is observed, or a bound of it.

        At the parameters of the pass it is exact, and at others below what it is there.
        """
        found = super().expected_log_joint(log_weights, resp_sum, statistics)
        return found + float(entropy_of(statistics).sum())


def entropy_of(statistics: GaussianStatistics) -> Array:
    """Return the entropies (k,) of completed sums; zero where nothing was completed.

    Examples
    --------
    >>> entropy_of(GaussianStatistics(np.zeros((2, 1)), np.zeros((2, 1)))).tolist()
    [0.0, 0.0]
    """
    if isinstance(statistics, CompletedStatistics):
        return statistics.entropy
    return np.zeros(len(statistics.first))
