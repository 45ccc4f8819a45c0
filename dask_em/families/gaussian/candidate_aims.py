"""Costs by which pairs of rows and Gaussian components are listed, and the margins of labels."""

# Annotations are evaluated here: of a named tuple nobody could do so later.
from typing import NamedTuple

import numpy as np

from ...core.family import Kernel
from ...core.responsibilities import NEGLIGIBLE
from ...core.tuning import tuning
from .compiled_kernel import CentredKernel
from .diagonals import Diagonal
from .label_margins import LabelMargins
from .parameters import GaussianParameters
from .statistics import GaussianStatistics


class Aim(NamedTuple):
    """Say what pairs are listed for, and what that takes in multiplications of float32.

    Attributes
    ----------
    dense, listed : float
        Of a pair where all are computed, and of one that is listed.
    untried : int
        Blocks that are not tried after one that was in vain.
    base : float
        Of a pair, for what a row takes whatever is listed.
    margins : LabelMargins, optional
        For labels; else for responsibilities.
    """

    dense: float
    listed: float
    untried: int
    base: float = 0.0
    margins: LabelMargins | None = None

    @property
    def negligible(self) -> float:
        """By how much more than margins a joint density may be below the largest."""
        return NEGLIGIBLE if self.margins is None else 0.0

    @property
    def most(self) -> float:
        """Return what a pair may take for enough to be saved."""
        return (1 - tuning().candidates.least_saving) * self.dense - self.base


def aim_of_sums(gaussian: GaussianParameters) -> Aim:
    """Return what pairs are listed for in the E-step."""
    d, sizes = gaussian.n_features, tuning().candidates
    if isinstance(gaussian.covariance, Diagonal):
        # Products for densities and for sums, in float64.
        dense, listed = 4.0 * (2 * d + 1) + sizes.pair, 6.0 * d + sizes.listed_diagonal
    else:
        dense = d * (d + 8.0) + sizes.pair
        listed = sizes.filling * d * (d + 8.0) + sizes.listed_pair
    return Aim(dense, listed, sizes.blocks_untried)


def aim_of_answers(
    gaussian: GaussianParameters, dense: Kernel[GaussianStatistics], labels: bool
) -> Aim:
    """Return what pairs are listed for where nothing is summed; of labels, without margins."""
    k, d = gaussian.means.shape
    sizes = tuning().candidates
    double = not isinstance(dense, CentredKernel) or dense.dtype == np.float64
    products = (2.0 if double else 1.0) * (1 + gaussian.covariance.n_features(d))
    listed = aim_of_sums(gaussian).listed
    pair = sizes.labelled_pair if labels else sizes.pair
    base = (sizes.answered_row + listed) / k
    return Aim(products + pair, listed, sizes.answers_untried, base)
