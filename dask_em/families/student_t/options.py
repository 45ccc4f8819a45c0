"""Options of an estimator that describe components of Student's t before they are fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from ...core.additive import Array
from ...core.family import FamilyOptions
from ...core.moments import Moments
from ...core.tuning import tuning
from ..gaussian.options import GaussianOptions
from .family import StudentT
from .scales import Scales

# Between the quartiles of a normal of unit width.
QUARTILES = 1.349


@dataclass(frozen=True, eq=False)
class StudentTOptions(FamilyOptions):
    """Hold the options by which components of Student's t are initialized.

    Attributes
    ----------
    normal : GaussianOptions
        Of the locations and scale matrices.
    df : float or None
        Degrees of freedom, infinity for the normal; None to estimate them.
    shared_df : bool
        Whether all components have the same.

    Examples
    --------
    >>> options = StudentTOptions(GaussianOptions("diag"), shared_df=True)
    >>> options.kind, options.n_parameters(k=3, d=2)
    ('diag', 13)
    >>> options.of_data(Moments.unit(2), 3).scales.means.shape
    (3, 2)
    """

    normal: GaussianOptions = field(default_factory=GaussianOptions)
    df: float | None = None
    shared_df: bool = False

    @property
    def kind(self) -> str:
        return self.normal.kind

    def n_parameters(self, k: int, d: int) -> int:
        """Count the free parameters of k components in d columns."""
        degrees = 0 if self.df is not None else 1 if self.shared_df else k
        return self.normal.n_parameters(k, d) + degrees

    def of_data(self, moments: Moments, k: int) -> StudentT:
        """Return k components alike, each with the covariance of all data as its scale."""
        constants = tuning().student_t
        # Stored apart, whatever they share.
        kind = "full" if self.normal.constraint.storage.shared_scatter else self.kind
        pooled = replace(self.normal, covariance_type=kind).of_data(moments, k)
        known = {f.name: getattr(pooled, f.name) for f in fields(pooled)}
        scales = Scales(**{**known, "constraint": self.kind})
        df = constants.start_df if self.df is None else min(self.df, constants.normal_df)
        log_df = np.full(k, np.log(df))
        return StudentT(scales, log_df, self.df is not None, self.shared_df)

    def warnings(
        self, moments: Moments, constant: Sequence[int], called: Callable[[Sequence[int]], str]
    ) -> list[str]:
        """Return warnings of columns that vary so little that the ridge is not small."""
        return self.normal.warnings(moments, constant, called)

    def start_coordinates(self, rows: Array, moments: Moments) -> Array:
        """Return sampled rows (m, d) as the clustering of a start sees them.

        About the median in quartiles' widths, and by their logarithms from a few of these on:
        clusters of squared distances would be those of the outliers.
        """
        low, centre, high = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
        width = (high - low) / QUARTILES
        apart = (rows - centre) / np.where(width > 0, width, moments.widths)
        reach = tuning().student_t.start_reach
        return np.asarray(reach * np.arcsinh(apart / reach))

    def with_given(self, components: Any) -> StudentT:
        """Return the components with the user's locations, whitened.

        Raises
        ------
        ValueError
            `means_init` is none.
        """
        found: StudentT = components
        given = self.normal.with_given(found.scales)
        return replace(found, scales=replace(found.scales, means=given.means))
