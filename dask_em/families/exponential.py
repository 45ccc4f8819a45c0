"""Exponential components: independent times until something happens that may happen at any time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ..core.additive import Array
from ..core.degenerate import Degenerate
from ..core.family import FamilyOptions, register_family
from ..core.formula import Formula, Operators, V
from ..core.moments import Moments
from ..core.support import Support
from ..core.tuning import tuning
from .amounts import FROM_ZERO, logs_of, reference_means, spike_warnings, spikes_of
from .canonical import (
    CanonicalFamily,
    CanonicalStatistics,
    Features,
    Reference,
    clipped_exp,
    has_rows,
    logs_of_positive,
)


@register_family("exponential")
@dataclass(frozen=True)
class Exponential(CanonicalFamily):
    """Hold K products of exponential distributions over d columns.

    log p(x | k) = sum_j -log theta_kj - x_j / theta_kj, with scale, which is the mean, theta.

    Attributes
    ----------
    log_scales : (k, d) array
    reference : Reference
        Means of all data.

    Examples
    --------
    >>> two = Exponential(np.log([[1.0], [4.0]]), Reference(np.array([2.0])))
    >>> two.log_prob(np.array([[0.0], [2.0]])).round(4).tolist()
    [[0.0, -1.3863], [-2.0, -1.8863]]
    """

    log_scales: Array
    reference: Reference

    @property
    def scales(self) -> Array:
        """Scales, (k, d)."""
        return clipped_exp(self.log_scales)

    @property
    def n_features(self) -> int:
        return int(self.log_scales.shape[1])

    @property
    def support(self) -> Support:
        """Numbers from 0."""
        return FROM_ZERO

    def attributes(self) -> dict[str, Array]:
        """Return the scales."""
        return {"scales_": self.scales}

    def parameters(self) -> dict[str, Array]:
        """Return the scales."""
        return {"scales": self.scales}

    def with_parameters(self, given: Mapping[str, Array]) -> Self:
        """Return components of such scales."""
        return replace(self, log_scales=logs_of_positive("scales", given["scales"]))

    def formula(self, operators: Operators[V], rows: V) -> Formula[V]:
        """Write -sum_j log theta_j + x_j / theta_j."""
        return Formula(operators.product(rows, -1 / self.scales.T, -self.log_scales.sum(axis=1)))

    # -- the E-step: x in units of the reference, then 1 -----------------------------------------

    @property
    def natural(self) -> Array:
        """-1 / theta of each column, in units of the reference, and -sum_j log theta_j."""
        rates = self.reference.values * clipped_exp(-self.log_scales)
        return np.concatenate([-rates, -self.log_scales.sum(axis=1, keepdims=True)], axis=1)

    def features(self, rows: int) -> Features:
        """Return what writes numbers in units of the reference."""
        return ExponentialFeatures(self.reference.values)

    # -- the M-step -----------------------------------------------------------------------------

    def maximize(
        self, resp_sum: Array, statistics: CanonicalStatistics
    ) -> tuple[Self, Sequence[int]]:
        """Return the scales sum r x / sum r, but no less than a small share of all data's."""
        filled, constants = has_rows(resp_sum), tuning().canonical
        scales = statistics.sums[:, :-1] / np.where(filled, resp_sum, 1.0)[:, None]
        # A surrogate's corrected sums may be of no data: of less than nothing.
        usable = filled & (scales >= -constants.rounding).all(axis=1)
        log_scales = np.log(np.maximum(scales, constants.least_scale) * self.reference.values)
        log_scales = np.where(usable[:, None], log_scales, self.log_scales)
        return replace(self, log_scales=log_scales), np.flatnonzero(~usable).tolist()

    # -- in the units of the data -----------------------------------------------------------------

    def sample(self, component: int, n: int, rng: np.random.Generator) -> Array:
        """Draw n rows (n, d) of one component."""
        scales = self.scales[component]
        return rng.exponential(scales, (n, len(scales)))

    def coordinates(self, X: Array) -> Array:
        """Return logarithms in units of the reference, (n, d)."""
        return logs_of(X, self.reference.values)

    def moments(self) -> tuple[Array, Array]:
        """Return mean and variance of each column in each component, (k, d) both."""
        return self.scales, self.scales**2

    def correlations(self, component: int, columns: Sequence[int]) -> Array:
        """Return the correlations between columns, (m, m): none."""
        return np.eye(len(columns))

    def marginal(self, column: int, x: Array) -> Array:
        """Compute the density of one column under each component at m points, (k, m)."""
        # scipy.stats takes longer to import than all that reads a model file.
        from scipy.stats import expon

        return np.asarray(expon.pdf(x, scale=self.scales[:, column, None]))

    # -- what is odd ------------------------------------------------------------------------------

    def degenerate(self, weights: Array) -> list[Degenerate]:
        """Return the components that hold zeros alone: their scale is at its bound."""
        least = tuning().canonical.least_scale * self.reference.values
        return spikes_of(self.scales <= 2 * least, np.zeros_like(self.scales))

    def warnings(self, weights: Array, called: Callable[[Sequence[int]], str]) -> list[str]:
        """Return which components are spikes, where, and what to do."""
        return spike_warnings(self.degenerate(weights), weights, called)


class ExponentialFeatures(Features):
    """Write numbers in units of the reference, and 1.

    Parameters
    ----------
    reference : (d,) array
    """

    def __init__(self, reference: Array) -> None:
        self._scale = 1 / reference[:, None]

    def write(self, X: Array, out: Array) -> None:
        """Write phi of the rows X (b, d) into `out` (d + 1, b)."""
        numbers = out[:-1]
        np.copyto(numbers, X.T)
        numbers *= self._scale
        out[-1] = 1.0


@dataclass(frozen=True)
class ExponentialOptions(FamilyOptions):
    """Describe exponential components before they are fitted.

    Examples
    --------
    >>> ExponentialOptions().n_parameters(k=2, d=3)
    6
    """

    @property
    def support(self) -> Support:
        """Numbers from 0."""
        return FROM_ZERO

    def of_data(self, moments: Moments, k: int) -> Exponential:
        """Return k components alike, of the mean of all data."""
        means = reference_means(moments)
        return Exponential(np.tile(np.log(means), (k, 1)), Reference(means))

    def start_coordinates(self, rows: Array, moments: Moments) -> Array:
        """Return the logarithms of sampled rows, (m, d)."""
        return logs_of(rows, reference_means(moments))
