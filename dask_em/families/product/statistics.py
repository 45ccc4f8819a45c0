"""Sums of products of families: those of the groups side by side."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.additive import Additive
from ...core.codec import record


@record("product-statistics")
@dataclass(frozen=True)
class ProductStatistics(Additive):
    """Hold the sufficient statistics of each group of columns.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em.core.moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> normal = GaussianOptions().of_data(Moments.unit(1), 2)
    >>> sums = normal.sufficient_statistics(np.array([[2.0]]), np.array([[0.5, 0.5]]))
    >>> both = ProductStatistics((sums, sums))
    >>> (both + both).parts[1].first.tolist()
    [[2.0], [2.0]]
    """

    parts: tuple[Additive, ...]
