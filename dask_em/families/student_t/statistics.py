"""Sufficient statistics of components of Student's t."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.additive import Additive, Array
from ...core.codec import record
from ..gaussian.statistics import GaussianStatistics


@record("student-t-statistics")
@dataclass(frozen=True)
class StudentTStatistics(Additive):
    """Hold sums at the parameters that the E-step used; delta is the squared Mahalanobis distance.

    With u = (nu + d) / (nu + delta), the weight of a row in a component:

    Attributes
    ----------
    weighted : GaussianStatistics
        Those of a Gaussian under r u.
    excess : (k,) array
        sum_n r_nk (u_nk - 1): where the degrees of freedom are many, u itself has lost its digits.
    logs : (k,) array
        sum_n r_nk log(1 + delta_nk / nu_k).
    powers : (k, 3) array
        sum_n r_nk delta_nk^p of p = 1, 2, 3; NaN of sums that were taken at other parameters.
    values : (k,) array
        sum_n r_nk log p(x_n | k).
    """

    weighted: GaussianStatistics
    excess: Array
    logs: Array
    powers: Array
    values: Array
