"""Options of an estimator that describe centres before they are fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core.additive import Array
from ...core.family import FamilyOptions
from ...core.finite import as_finite
from ...core.moments import Moments
from .family import Centers
from .kernel import unit_rows


@dataclass(frozen=True, eq=False)
class CentersOptions(FamilyOptions):
    """Hold the options by which centres are initialized.

    Attributes
    ----------
    spherical : bool
        Whether rows are taken as directions.
    init : (k, d) array, optional
        The user's own centres, in the units of the data.

    Examples
    --------
    >>> options = CentersOptions()
    >>> options.n_parameters(k=3, d=2), options.all_given
    (7, False)
    >>> options.of_data(Moments.of(np.array([[2.0], [8.0]])), k=2).unit
    3.0
    """

    spherical: bool = False
    init: npt.ArrayLike | None = None

    @property
    def kind(self) -> str:
        return "cosine" if self.spherical else ""

    @property
    def all_given(self) -> bool:
        return self.init is not None

    def of_data(self, moments: Moments, k: int) -> Centers:
        """Return k centres in the mean; directions vary by about 1 / d in each of d columns."""
        d = len(moments.mean)
        if self.spherical:
            direction = unit_rows(moments.mean[None, :])
            if not direction.any():
                direction[0, 0] = 1.0
            return Centers(np.tile(direction, (k, 1)), np.zeros(d), float(d**-0.5), True)
        variance = float(np.diagonal(moments.covariance).mean())
        unit = float(np.sqrt(variance)) if variance > 0 else 1.0
        return Centers(np.zeros((k, d)), moments.mean, unit)

    def start_coordinates(self, rows: Array, moments: Moments) -> Array:
        """Return sampled rows (m, d) as K-means sees them: no column is scaled."""
        found = np.asarray(rows, dtype=np.float64)
        return unit_rows(found) if self.spherical else found - moments.mean

    def with_given(self, components: Any) -> Centers:
        """Return the components with the user's centres.

        Raises
        ------
        ValueError
            `init` is no array of such centres.
        """
        found: Centers = components
        if self.init is None:
            return found
        given, shape = np.asarray(self.init), found.centers.shape
        if given.shape != shape:
            raise ValueError(
                f"init has shape {given.shape}, expected {shape} for this n_clusters and this X. "
                f"The shape of the initial centers {given.shape} does not match the number of "
                f"clusters {shape[0]}, or the number of features of the data {shape[1]}."
            )
        centers = as_finite("init", given, shape)
        assert centers is not None
        centers = unit_rows(centers) if self.spherical else centers - found.origin
        return replace(found, centers=centers)

    def warnings(
        self, moments: Moments, constant: Sequence[int], called: Callable[[Sequence[int]], str]
    ) -> list[str]:
        """Return nothing: a column that does not vary is in no distance."""
        return []
