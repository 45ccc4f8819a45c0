"""Gamma components: independent positive numbers, such as times and amounts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ..core.additive import Array
from ..core.degenerate import Degenerate
from ..core.engine import Engine
from ..core.family import FamilyOptions, register_family
from ..core.formula import Formula, Operators, V
from ..core.moments import Moments
from ..core.support import POSITIVE, Support
from ..core.tuning import tuning
from ..core.validation import require
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
from .special import log_gamma_ratio, log_less_digamma, trigamma


@register_family("gamma")
@dataclass(frozen=True)
class Gamma(CanonicalFamily):
    """Hold K products of gamma distributions over d columns.

    log p(x | k) = sum_j (a - 1) log x_j - x_j / theta - log Gamma(a) - a log theta, with shape a
    and scale theta of column j in component k. Mean a theta and shape are the parameters, for their
    information matrix is diagonal.

    Attributes
    ----------
    log_means, log_shapes : (k, d) array
    reference : Reference
        Means of all data.
    detection_limit : float
        Smaller numbers are taken for it; 0 where all are as they are.

    Examples
    --------
    >>> one = Gamma(np.log([[6.0]]), np.log([[3.0]]), Reference(np.array([6.0])))
    >>> one.scales.round(6).tolist(), one.log_prob(np.array([[4.0]])).round(4).tolist()
    ([[2.0]], [[-2.0]])
    """

    log_means: Array
    log_shapes: Array
    reference: Reference
    detection_limit: float = 0.0

    @property
    def means(self) -> Array:
        """Means, (k, d)."""
        return clipped_exp(self.log_means)

    @property
    def shapes(self) -> Array:
        """Shapes, (k, d)."""
        return clipped_exp(self.log_shapes)

    @property
    def scales(self) -> Array:
        """Scales, (k, d): means over shapes."""
        return clipped_exp(self.log_means - self.log_shapes)

    @property
    def n_features(self) -> int:
        return int(self.log_means.shape[1])

    @property
    def support(self) -> Support:
        """Positive numbers, and zeros where there is a limit of detection."""
        return gamma_support(self.detection_limit)

    def validate(self, statistics: CanonicalStatistics) -> None:
        """Raise `ValueError` that names the parameter or sum that is wrong."""
        require("detection_limit", self.detection_limit, 0 <= self.detection_limit < np.inf)
        super().validate(statistics)

    def join_key(self, engine: Engine) -> Hashable:
        """Return what families must have in common to be `joined`."""
        return super().join_key(engine), self.detection_limit

    def attributes(self) -> dict[str, Array]:
        """Return shapes and scales, as scipy.stats.gamma has them."""
        return {"shapes_": self.shapes, "scales_": self.scales}

    def parameters(self) -> dict[str, Array]:
        """Return shapes and scales."""
        return {"shapes": self.shapes, "scales": self.scales}

    def with_parameters(self, given: Mapping[str, Array]) -> Self:
        """Return components of such shapes and scales."""
        log_shapes = logs_of_positive("shapes", given["shapes"])
        log_means = log_shapes + logs_of_positive("scales", given["scales"])
        return replace(self, log_means=log_means, log_shapes=log_shapes)

    def formula(self, operators: Operators[V], rows: V) -> Formula[V]:
        """Write theta . phi, phi the numbers and their logarithms in units of the reference."""
        d, natural = self.n_features, self.natural
        raised = operators.at_least(rows, self.detection_limit) if self.detection_limit else rows
        units = operators.scaled(raised, 1 / self.reference.values)
        of_logs = operators.product(
            operators.log(units), natural[:, d : 2 * d].T, natural[:, 2 * d]
        )
        return Formula(operators.add(operators.product(units, natural[:, :d].T), of_logs))

    # -- the E-step: x and log x in units of the reference, then 1 -------------------------------

    @property
    def natural(self) -> Array:
        """-a / m and a - 1 of each column, m its mean in units of the reference, and constants."""
        a, reference = self.shapes, self.reference.values
        log_m = self.log_means - np.log(reference)
        constants = log_gamma_ratio(a) + a * (1 - log_m) - np.log(reference)
        return np.concatenate(
            [-a * clipped_exp(-log_m), a - 1, constants.sum(axis=1, keepdims=True)], axis=1
        )

    def features(self, rows: int) -> Features:
        """Return what writes numbers and their logarithms."""
        return GammaFeatures(self.reference.values, self.detection_limit, rows)

    # -- the M-step -----------------------------------------------------------------------------

    def maximize(
        self, resp_sum: Array, statistics: CanonicalStatistics
    ) -> tuple[Self, Sequence[int]]:
        """Return the means, and the shapes of log a - psi(a) = log(mean) - mean(log x).

        That equation has one solution, which Newton's method finds; as the likelihood has no other
        maximum, the bound of the shapes is where it is highest below it.
        """
        total = np.where(has_rows(resp_sum), resp_sum, 1.0)[:, None]
        d, largest = self.n_features, tuning().canonical.most_shape
        means, logs = statistics.sums[:, :d] / total, statistics.sums[:, d : 2 * d] / total
        positive = means > 0
        gap = np.log(np.where(positive, means, 1.0)) - logs
        # By Jensen's inequality it is that of no rows below zero, but for rounding.
        possible = positive & (gap > -0.5 / largest) & np.isfinite(gap)
        usable = has_rows(resp_sum) & possible.all(axis=1)
        gap = np.where(possible, np.maximum(gap, 0.5 / largest), 1.0)
        shapes = np.minimum(shape_of(gap), largest)
        log_means = np.log(np.where(positive, means, 1.0)) + np.log(self.reference.values)
        kept = usable[:, None]
        found = replace(
            self,
            log_means=np.where(kept, log_means, self.log_means),
            log_shapes=np.where(kept, np.log(shapes), self.log_shapes),
        )
        return found, np.flatnonzero(~usable).tolist()

    def information_scale(self, root_weights: Array) -> Array:
        """Return the root of the information of log-means and log-shapes, (2 k d,)."""
        a, root = self.shapes, root_weights[:, None]
        # a^2 (psi'(a) - 1 / a), which falls from 1 to 1/2, in a form that does not cancel.
        of_shapes = np.clip(a * (a * trigamma(a) - 1), 0.5, 1.0)
        return np.concatenate([(root * np.sqrt(a)).ravel(), (root * np.sqrt(of_shapes)).ravel()])

    # -- in the units of the data -----------------------------------------------------------------

    def sample(self, component: int, n: int, rng: np.random.Generator) -> Array:
        """Draw n rows (n, d) of one component."""
        shapes, scales = self.shapes[component], self.scales[component]
        drawn = rng.gamma(shapes, scales, (n, len(shapes)))
        # Of a small shape the smallest draws are zero in floating point.
        return np.maximum(drawn, np.finfo(np.float64).tiny)

    def coordinates(self, X: Array) -> Array:
        """Return logarithms in units of the reference, (n, d)."""
        return logs_of(X, self.reference.values, self.detection_limit)

    def moments(self) -> tuple[Array, Array]:
        """Return mean and variance of each column in each component, (k, d) both."""
        return self.means, self.means * self.scales

    def correlations(self, component: int, columns: Sequence[int]) -> Array:
        """Return the correlations between columns, (m, m): none."""
        return np.eye(len(columns))

    def marginal(self, column: int, x: Array) -> Array:
        """Compute the density of one column under each component at m points, (k, m)."""
        # scipy.stats takes longer to import than all that reads a model file.
        from scipy.stats import gamma

        shapes, scales = self.shapes[:, column, None], self.scales[:, column, None]
        return np.asarray(gamma.pdf(x, shapes, scale=scales))

    # -- what is odd ------------------------------------------------------------------------------

    def degenerate(self, weights: Array) -> list[Degenerate]:
        """Return the components at one value of a column: their shape is at its bound."""
        spikes = self.shapes >= 0.5 * tuning().canonical.most_shape
        return spikes_of(spikes, self.means)

    def warnings(self, weights: Array, called: Callable[[Sequence[int]], str]) -> list[str]:
        """Return which components are spikes, where, and what to do."""
        return spike_warnings(self.degenerate(weights), weights, called)


class GammaFeatures(Features):
    """Write numbers in units of the reference, their logarithms, and 1.

    Parameters
    ----------
    reference : (d,) array
    detection_limit : float
    rows : int
        Rows of a block, at most.
    """

    def __init__(self, reference: Array, detection_limit: float, rows: int) -> None:
        self._scale, self._limit = 1 / reference[:, None], detection_limit

    def write(self, X: Array, out: Array) -> None:
        """Write phi of the rows X (b, d) into `out` (2 d + 1, b)."""
        d = X.shape[1]
        numbers, logs = out[:d], out[d : 2 * d]
        np.copyto(numbers, X.T)
        if self._limit:
            np.maximum(numbers, self._limit, out=numbers)
        numbers *= self._scale
        np.log(numbers, out=logs)
        out[-1] = 1.0


def shape_of(gap: Array) -> Array:
    """Solve log a - psi(a) = gap for the shape a, by Newton's method for the logarithms of both.

    The left side falls from 1 / a to 1 / (2 a), so that its logarithm is nearly a straight line of
    log a: from Minka's start (Estimating a Gamma distribution, 2002) five steps reach the last
    digit.

    Examples
    --------
    >>> a = np.array([1e-3, 1.0, 1e6])
    >>> np.allclose(shape_of(log_less_digamma(a)), a, rtol=1e-12)
    True
    """
    a = (3 - gap + np.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
    for _ in range(5):
        value = log_less_digamma(a)
        slope = a * (1 / a - trigamma(a))
        a = a * np.exp(-np.log(value / gap) * value / slope)
    return np.asarray(a)


def gamma_support(detection_limit: float) -> Support:
    """Return which numbers have a density where those below a limit are taken for it."""
    return FROM_ZERO if detection_limit > 0 else POSITIVE


@dataclass(frozen=True)
class GammaOptions(FamilyOptions):
    """Hold what is known of gamma components before they are fitted.

    Attributes
    ----------
    detection_limit : float

    Examples
    --------
    >>> GammaOptions().n_parameters(k=2, d=3)
    12
    """

    detection_limit: float = 0.0

    @property
    def support(self) -> Support:
        """Positive numbers, and zeros where there is a limit of detection."""
        return gamma_support(self.detection_limit)

    def of_data(self, moments: Moments, k: int) -> Gamma:
        """Return k components alike, of mean and variance of all data."""
        means = reference_means(moments)
        variances = np.diagonal(moments.covariance)
        least = means**2 / tuning().canonical.most_shape
        shapes = means**2 / np.maximum(variances, least)
        log_means, log_shapes = (np.tile(np.log(one), (k, 1)) for one in (means, shapes))
        return Gamma(log_means, log_shapes, Reference(means), self.detection_limit)

    def start_coordinates(self, rows: Array, moments: Moments) -> Array:
        """Return the logarithms of sampled rows, (m, d)."""
        return logs_of(rows, reference_means(moments), self.detection_limit)
