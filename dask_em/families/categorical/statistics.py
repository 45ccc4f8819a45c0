"""Sufficient statistics of categorical components."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.additive import Additive, Array
from ...core.codec import record


@record("categorical-statistics")
@dataclass(frozen=True)
class CategoricalStatistics(Additive):
    """Hold how often each component gave each answer.

    Attributes
    ----------
    counts : (k, m) array
        sum_n w_n r_nk [x_nj = c], the categories of all columns side by side. A row that lacks an
        answer counts nowhere in its column.
    """

    counts: Array
