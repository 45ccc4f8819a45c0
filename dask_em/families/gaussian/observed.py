"""Gaussian components of which a row tells some columns: densities, and what the others are.

For a row x with observed columns o and missing ones m, log p(x_o | k) is the marginal density,
and given x_o the missing ones are normal about mu_m + B (x_o - mu_o) with the covariance C, where
B = Sigma_mo Sigma_oo^{-1} and C = Sigma_mm - B Sigma_om (Little and Rubin, Statistical Analysis
with Missing Data, 2002, section 11.2.2). What EM sums are the deviations so completed, and r C
(Ghahramani and Jordan 1994).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ...core.additive import Array
from .patterns import Patterns


@dataclass(frozen=True)
class Sums:
    """Hold sums that are added to in place, about the means.

    Attributes
    ----------
    first : (k, d) array
    scatter : array
        Of the shape of the covariance structure.
    half_log_det : (k,) array
        sum_n r_nk log |C| / 2, C the covariance of what is missing of row n given the rest.
    """

    first: Array
    scatter: Array
    half_log_det: Array


class ObservedColumns(ABC):
    """Compute with rows of which values are missing, in coordinates of single columns.

    Rows Z (n, d) are in the order of `Patterns`, and zero where a value is missing. Densities are
    per unit of these coordinates, and without the factor (2 pi)^(-|o| / 2).
    """

    @abstractmethod
    def log_prob(self, Z: Array, patterns: Patterns) -> Array:
        """Return -(log |Sigma_oo| + squared Mahalanobis distance) / 2 of each row, (k, n)."""

    @abstractmethod
    def add(self, Z: Array, patterns: Patterns, resp: Array, sums: Sums) -> None:
        """Add the completed sums under `resp` (k, n) to `sums`."""

    @abstractmethod
    def finish(self, sums: Sums) -> None:
        """Add what `add` has put off to the same `sums`."""

    @abstractmethod
    def completed(self, component: int, Z: Array, patterns: Patterns) -> Array:
        """Return Z - mu of one component with its conditional mean where values are missing."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that it holds, at most, beside a block of rows."""
