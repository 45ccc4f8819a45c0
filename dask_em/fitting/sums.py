"""TODO fitting.sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..core.additive import Array
from ..core.mixture import Mixture, MixtureStatistics
from ..families.gaussian.family import Gaussian
from ..families.gaussian.statistics import GaussianStatistics

# -- sums about other means, and combinations of them -------------------------------


def moved(statistics: MixtureStatistics, mixture: Mixture, shift: Array) -> MixtureStatistics:
    """Sums about the means of `mixture` as sums about means that lie `shift` (k, d) from them.

    Sums about a mean are quadratic in it, so nothing but the sums is needed:
    sum r (z - a - s)(z - a - s)^T = S2 - S1 s^T - s S1^T + S0 s s^T. What is moved may be
    a difference of sums.
    """
    structure = mixture.components.covariance
    resp_sum, sums = statistics.resp_sum, statistics.components
    # The structure's own rule, which takes products about the origin as its features are.
    quadratic = sums.scatter
    if structure.kind == "full":
        i, j = structure.pairs(shift.shape[1])
        quadratic = quadratic[:, i, j]
    elif structure.kind == "spherical":
        quadratic = quadratic[:, None]
    scatter = structure.scatter_of_features(quadratic, sums.first, resp_sum, shift)
    first = sums.first - resp_sum[:, None] * shift
    return replace(statistics, components=GaussianStatistics(first, scatter))


def combined(
    one: MixtureStatistics, other: MixtureStatistics, factor: float | Array
) -> MixtureStatistics:
    """one + factor * other, sums about the same means; `factor` is a number or (k,).

    The rows, the weight and the log-likelihood stay those of `one`.
    """

    def add(x: Array, y: Array) -> Array:
        return np.asarray(x + _along(factor, y) * y)

    components = GaussianStatistics(
        add(one.components.first, other.components.first),
        add(one.components.scatter, other.components.scatter),
    )
    return replace(one, resp_sum=add(one.resp_sum, other.resp_sum), components=components)


def _along(factor: float | Array, values: Array) -> float | Array:
    """`factor` so that it multiplies the leading axis of `values`."""
    return factor if np.ndim(factor) == 0 else np.reshape(factor, (-1, *[1] * (values.ndim - 1)))


def expected_log_joint(mixture: Mixture, sums: MixtureStatistics) -> float:
    """sum_nk r_nk log(w_k N(x_n; mu_k, Sigma_k)) from sums about the means of `mixture`."""
    components: Gaussian = mixture.components
    covariance, d = components.covariance, components.n_features
    volume = covariance.log_det(d) + 0.5 * d * np.log(2 * np.pi) + components.frame.log_det
    distances = (covariance.precisions * sums.components.scatter).sum()
    return float(sums.resp_sum @ (mixture.log_weights - volume) - 0.5 * distances)
