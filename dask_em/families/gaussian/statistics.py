"""Sufficient statistics of Gaussian components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...core.additive import Additive, Array
from ...core.codec import record


@record("gaussian-statistics")
@dataclass(frozen=True)
class GaussianStatistics(Additive):
    """Hold sums about the means that the E-step used, in whitened coordinates.

    Attributes
    ----------
    first : (k, d) array
        sum_n r_nk (z_n - mu_k).
    scatter : array
        sum_n r_nk (z_n - mu_k)(z_n - mu_k)^T, in the shape of the covariance structure.

    Examples
    --------
    >>> import numpy as np
    >>> part = GaussianStatistics(np.ones((1, 2)), np.eye(2)[None])
    >>> (part + part).scatter.tolist()
    [[[2.0, 0.0], [0.0, 2.0]]]
    """

    first: Array
    scatter: Array


@record("gaussian-mar-statistics")
@dataclass(frozen=True)
class CompletedStatistics(GaussianStatistics):
    """Hold the sums of rows that are not observed whole, completed by what is expected of them.

    Attributes
    ----------
    entropy : (k,) array
        sum_n r_nk times what the log-density of what is observed of row n lies above the expected
        one of the completed row, in nats: where values are missing, their entropy given the others.

    Examples
    --------
    >>> import numpy as np
    >>> part = CompletedStatistics(np.ones((1, 2)), np.eye(2)[None], np.ones(1))
    >>> (part + part).entropy.tolist()
    [2.0]
    """

    entropy: Array


def without_first(statistics: GaussianStatistics, components: Sequence[int]) -> GaussianStatistics:
    """Return sums without the first moments of some components, whose means so stay in an M-step.

    Examples
    --------
    >>> import numpy as np
    >>> sums = GaussianStatistics(np.ones((2, 1)), np.ones((2, 1, 1)))
    >>> without_first(sums, [0]).first.tolist()
    [[0.0], [1.0]]
    """
    first = statistics.first.copy()
    first[list(components)] = 0.0
    return replace(statistics, first=first) if len(components) else statistics
