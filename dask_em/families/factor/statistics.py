"""Sufficient statistics of factor analyzers."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.additive import Additive, Array
from ...core.codec import record


@record("factor-statistics")
@dataclass(frozen=True)
class FactorStatistics(Additive):
    """Hold sums of rows x about the means, and of what is expected of their factors f.

    z_n is the mean of f given x_n, V its covariance, both under the parameters of the pass.

    Attributes
    ----------
    first : (k, d) array
        sum_n r_nk x_n.
    squares : (k, d) array
        sum_n r_nk x_n^2, column by column.
    cross : (k, d, q) array
        sum_n r_nk x_n z_n^T.
    latent : (k, q) array
        sum_n r_nk z_n.
    products : (k, q, q) array
        sum_n r_nk (z_n z_n^T + V_k).
    entropy : (k,) array
        sum_n r_nk times the entropy of f given x_n, in nats: by so much the expected log-density
        of rows and factors is below that of rows.
    """

    first: Array
    squares: Array
    cross: Array
    latent: Array
    products: Array
    entropy: Array
