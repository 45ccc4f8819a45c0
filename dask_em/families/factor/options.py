"""Options of an estimator that describe factor analyzers before they are fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core.family import FamilyOptions
from ...core.finite import as_finite
from ...core.moments import Moments
from ...errors import DataError
from ..gaussian.options import GaussianOptions
from ..gaussian.whitening import Whitening
from .constraints import FactorConstraint
from .family import FactorAnalyzers
from .principal import principal_factors


@dataclass(frozen=True, eq=False)
class FactorOptions(FamilyOptions):
    """Hold the options by which factor analyzers are initialized.

    Attributes
    ----------
    n_factors : int
    constraint : str
        One of `constraints.NAMES`.
    ridge : float
        Added to every variance of the noise, in squared units of the data.
    means_init : (k, d) array, optional

    Examples
    --------
    >>> options = FactorOptions(2, "UUC")
    >>> options.kind, options.n_parameters(k=3, d=27)
    ('UUC', 243)
    """

    n_factors: int = 1
    constraint: str = "UUU"
    ridge: float = 0.0
    means_init: npt.ArrayLike | None = None

    @property
    def kind(self) -> str:
        return self.constraint

    @property
    def rule(self) -> FactorConstraint:
        """The constraint: which parameters components and columns share."""
        return FactorConstraint.named(self.constraint)

    def n_parameters(self, k: int, d: int) -> int:
        """Count the free parameters of k components in d columns."""
        return k * d + self.rule.n_parameters(k, d, self.n_factors)

    def n_parameters_of(self, k: int, moments: Moments) -> int:
        """Count the free parameters of k components, as many whatever the data."""
        return self.n_parameters(k, len(moments.mean))

    def of_data(self, moments: Moments, k: int) -> FactorAnalyzers:
        """Return k components alike, with the principal factors of all data.

        Raises
        ------
        DataError
            There are no more columns than factors.
        """
        d, isotropic = len(moments.mean), self.rule.isotropic
        if self.n_factors >= d:
            raise DataError(
                f"n_factors={self.n_factors} with X of {d} column{'s' * (d != 1)}: factors are "
                "fewer than columns; lower n_factors, or fit a GaussianMixture"
            )
        covariance = moments.covariance
        whitening = Whitening.of_moments(
            moments.mean, covariance, "scalar" if isotropic else "diagonal"
        )
        inverse = whitening.inverse_scale[:, None]
        diagonal = np.diagonal(covariance) * whitening.inverse_scale**2
        loadings, noise = principal_factors(
            lambda V: inverse * (covariance @ (inverse * V)), diagonal, self.n_factors, isotropic
        )
        return FactorAnalyzers(
            np.zeros((k, d)),
            np.repeat(loadings[None], k, axis=0),
            np.repeat(np.log(noise)[None], k, axis=0),
            whitening,
            self.ridge,
            self.constraint,
        )

    def warnings(
        self, moments: Moments, constant: Sequence[int], called: Callable[[Sequence[int]], str]
    ) -> list[str]:
        """Return warnings of columns that vary so little that the ridge is not small."""
        return GaussianOptions("diag", self.ridge).warnings(moments, constant, called)

    def with_given(self, components: Any) -> FactorAnalyzers:
        """Return the components with the user's means.

        Raises
        ------
        ValueError
            `means_init` is none.
        """
        found: FactorAnalyzers = components
        means = as_finite("means_init", self.means_init, found.means.shape, "means")
        if means is None:
            return found
        return replace(found, means=found.whitening.whiten(means))
