"""Options of an estimator that describe factor analyzers before they are fitted."""

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
from ...core.tuning import tuning
from ...errors import DataError
from ..gaussian.options import GaussianOptions
from ..gaussian.whitening import Whitening
from .constraints import FactorConstraint
from .family import FactorAnalyzers
from .principal import principal_factors
from .scatters import Scatter, orthonormal


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

    @property
    def many_optima(self) -> bool:
        return True

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
        whitening = Whitening.of_variances(moments.mean, moments.variances, isotropic)
        inverse = whitening.inverse_scale
        if moments.joint:
            scatter = Scatter.of_matrix(inverse[:, None] * moments.covariance * inverse)
            loadings, noise = principal_factors(scatter, self.n_factors, isotropic)
        else:
            # Nothing is known of factors but that there are some.
            noise = np.maximum(moments.variances * inverse**2, np.finfo(np.float64).eps)
            noise = noise.mean(keepdims=True) if isotropic else noise
            loadings = orthonormal(d, self.n_factors) * np.sqrt(tuning().factor.least_strength)
        return self._alike(loadings, noise, whitening, k)

    def _alike(
        self, loadings: Array, noise: Array, whitening: Whitening, k: int
    ) -> FactorAnalyzers:
        return FactorAnalyzers(
            np.zeros((k, len(loadings))),
            np.repeat(loadings[None], k, axis=0),
            np.repeat(np.log(noise)[None], k, axis=0),
            whitening,
            self.ridge,
            self.constraint,
        )

    def joint_moments(self, d: int) -> bool:
        """Return whether columns are so few that their products are, too."""
        return d <= tuning().factor.few_columns

    # -- labels ------------------------------------------------------------------------------

    def to_sum_labels(self, moments: Moments, k: int) -> FactorAnalyzers:
        """Return k components of more factors than q, by which sums show covariances.

        Under responsibilities that do not depend on parameters, the cross products of a pass are
        the images of the factors' columns by each component's covariance: of few columns they
        tell it, and of many what a random subspace shows of it.
        """
        alike = self.of_data(moments, k)
        d, constants = alike.n_features, tuning().factor
        m = d if d <= constants.few_columns else min(d, constants.sketched * self.n_factors)
        noise = np.ones(alike.log_noise.shape[1])
        return self._alike(orthonormal(d, m), noise, alike.whitening, k)

    def of_labels(
        self, moments: Moments, at: Any, resp_sum: Array, statistics: Any
    ) -> Sequence[FactorAnalyzers]:
        """Return the likeliest factors of each class, and its principal components."""
        sketch, sums = at.loadings[0], statistics
        safe = np.maximum(resp_sum, 1e-300)[:, None]
        mean, latent = sums.first / safe, sums.latent / safe
        # With orthonormal loadings and noise of one, z = Q^T (x - mu) / 2.
        images = 2 * (sums.cross / safe[:, :, None] - mean[:, :, None] * latent[:, None, :])
        variances = np.maximum(sums.squares / safe - mean**2, 0.0)
        scatters = [Scatter.of_sketch(*each) for each in zip(
            images, [sketch] * len(images), variances, strict=True
        )]  # fmt: skip
        alike = replace(self.of_data(moments, len(resp_sum)), means=at.means + mean)
        return alike.both_of_scatters(resp_sum, scatters)

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
