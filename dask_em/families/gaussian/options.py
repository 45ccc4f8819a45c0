"""Options of an estimator that describe Gaussian components before they are fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core.additive import Array
from ...core.family import LEAVE_OUT, FamilyOptions
from ...core.finite import as_finite
from ...core.moments import Moments
from ...core.support import REAL, Support
from ...core.tuning import tuning
from ...errors import UsageError
from .constraints import Constraint, constraint_of
from .covariance import Covariance
from .family import Gaussian
from .missing import OBSERVED, GaussianMissing, drawn_from_one, with_missing
from .missing_kernel import has_missing
from .noisy import with_noise
from .regularized import ConjugatePrior, RegularizedGaussian
from .whitening import Whitening, ridged_factor

# What the shape of matrices follows from, in messages.
OF_STRUCTURE = "this covariance_type, and the components and columns of this fit"


@dataclass(frozen=True, eq=False)
class GaussianOptions(FamilyOptions):
    """Hold the options by which Gaussian components are initialized.

    Attributes
    ----------
    covariance_type : str
        Name of a registered constraint.
    ridge : float
        Added to every variance, in squared units of the data.
    means_init, precisions_init : array, optional
        The user's own start, of scikit-learn's shapes.
    prior : {"conjugate"} or None
        Fraley and Raftery's (2007), with their defaults.
    max_ratio : float or None
        Bound on the ratio of eigenvalues of the covariances, in the units of the data.
    missing : bool
        Whether values may be missing at random, which are NaN.
    of_noise : bool
        Whether behind the columns of rows stands their known noise.

    Examples
    --------
    >>> options = GaussianOptions("diag", ridge=1e-6)
    >>> options.n_parameters(k=3, d=2), options.all_given
    (12, False)
    >>> options.of_data(Moments.unit(2), k=3).means.shape
    (3, 2)
    """

    covariance_type: str = "full"
    ridge: float = 0.0
    means_init: npt.ArrayLike | None = None
    precisions_init: npt.ArrayLike | None = None
    prior: str | None = None
    max_ratio: float | None = None
    missing: bool = False
    of_noise: bool = False

    @property
    def kind(self) -> str:
        return self.covariance_type

    @property
    def support(self) -> Support:
        """Every finite number, and NaN where values may be missing."""
        return OBSERVED if self.missing else REAL

    @property
    def of_missing(self) -> str:
        """Say that rows can be fitted by what is observed of them."""
        return (
            ""
            if self.missing
            else (
                '; where NaN is a missing value, pass missing_values="mar" to fit each row by what '
                "is observed of it"
            )
        )

    @property
    def constraint(self) -> Constraint:
        """The constraint of the M-step."""
        return constraint_of(self.covariance_type)

    @property
    def all_given(self) -> bool:
        return self.means_init is not None and self.precisions_init is not None

    def n_parameters(self, k: int, d: int) -> int:
        """Count the free parameters of k components in d columns."""
        return k * d + self.constraint.n_parameters(k, d)

    def n_parameters_of(self, k: int, moments: Moments) -> int:
        """Count the free parameters of k components, as many whatever the data."""
        return self.n_parameters(k, len(moments.mean))

    def of_data(self, moments: Moments, k: int) -> Gaussian:
        """Return k components alike, each with the covariance of all data."""
        whitening = self.whitening(moments)
        inverse = whitening.inverse_scale
        if inverse.ndim == 1:
            covariance = inverse[:, None] * moments.covariance * inverse
        else:
            covariance = inverse @ moments.covariance @ inverse.T
        factor = ridged_factor(covariance, tuning().numerics.pooled_ridge)
        pooled = self.constraint.storage.of_data(np.asarray(factor @ factor.T), k)
        means = np.zeros((k, len(moments.mean)))
        plain = Gaussian(means, pooled, whitening, self.ridge, self.covariance_type)
        return self.regularized(plain, moments)

    def regularized(self, plain: Gaussian, moments: Moments) -> Gaussian:
        """Return components with the prior and the bound of these options, if there are any.

        They take missing values, or noise, where these options do.
        """
        found = self._regularized(plain, moments)
        if self.of_noise:
            return with_noise(found)
        return with_missing(found) if self.missing else found

    def of_noisy_rows(self) -> GaussianOptions:
        """Return the same options for rows behind whose columns stands their known noise.

        Raises
        ------
        UsageError
            Values may be missing, too.
        """
        if self.missing:
            raise UsageError(
                'noise_covariance with missing_values="mar": rows of known noise have no missing '
                'values; leave noise_covariance out, or pass missing_values="error"'
            )
        return replace(self, of_noise=True)

    def noisy(self, components: Any) -> Gaussian:
        """Return components for rows behind whose columns stands their known noise."""
        return with_noise(components)

    def _regularized(self, plain: Gaussian, moments: Moments) -> Gaussian:
        if self.prior is None and self.max_ratio is None:
            return plain
        prior = None
        if self.prior is not None:
            storage = self.constraint.storage.kind
            prior = ConjugatePrior.of_data(moments, storage, len(plain.means))
            prior = prior.whitened(plain.whitening)
        own = {f.name: getattr(plain, f.name) for f in fields(Gaussian)}
        return RegularizedGaussian(**own, prior=prior, max_ratio=self.max_ratio)

    def whitening(self, moments: Moments) -> Whitening:
        """Return the coordinates in which data of these moments have about unit spread."""
        kind = self.constraint.whitening_kind
        return Whitening.of_moments(moments.mean, moments.covariance, kind)

    def start_coordinates(self, rows: Array, moments: Moments) -> Array:
        """Return sampled rows (m, d) as the clustering of a start sees them.

        What is missing is drawn from one normal distribution, given what is observed: at means,
        rows would make clusters of their own. Noise is left out.
        """
        rows = rows[:, : len(moments.mean)]
        if self.missing and has_missing(rows):
            rows = drawn_from_one(self.one_normal(moments), rows)
        return super().start_coordinates(rows, moments)

    def one_normal(self, moments: Moments) -> GaussianMissing:
        """Return one component of full covariance, by which missing values are drawn."""
        kind = "full" if self.constraint.whitening_kind == "matrix" else "diag"
        found = GaussianOptions(kind, self.ridge, missing=True).of_data(moments, 1)
        assert isinstance(found, GaussianMissing)
        return found

    def refusal(self, moments: Moments, called: Callable[[Sequence[int]], str]) -> str:
        """Return which columns have no value at all; empty where each has one."""
        empty = np.flatnonzero(moments.weights <= 0).tolist()
        if not empty:
            return ""
        return f"X has no value in {called(empty)}, where every one is missing: {LEAVE_OUT}"

    def warnings(
        self, moments: Moments, constant: Sequence[int], called: Callable[[Sequence[int]], str]
    ) -> list[str]:
        """Return warnings of columns that vary so little that the ridge is not small."""
        found = []
        if constant:
            found.append(
                f"X does not vary in {called(constant)}: such a column tells components nothing "
                f"apart and its variance is reg_covar alone; {LEAVE_OUT}"
            )
        variances = moments.variances
        ridged = np.flatnonzero(self.ridge > tuning().numerics.large_ridge * variances).tolist()
        small = [j for j in ridged if j not in constant]
        if small:
            found.append(
                f"reg_covar={self.ridge:g} is not small beside the variance of {called(small)} "
                f"({variances[small].min():.3g}) and is added to it: pass reg_covar=0 or scale X"
            )
        return found

    def with_given(self, components: Any) -> Gaussian:
        """Return the components with the user's means and covariances, whitened.

        Covariances that the constraint does not allow are the likeliest that it does.

        Raises
        ------
        ValueError
            `means_init` or `precisions_init` is none.
        """
        found: Gaussian = components
        k, d = found.means.shape
        whitening = found.whitening
        means = as_finite("means_init", self.means_init, (k, d), "means")
        shape = self.constraint.storage.zeros(k, d).shape
        parameter = f"{self.covariance_type} precision"
        precisions = as_finite(
            "precisions_init", self.precisions_init, shape, parameter, OF_STRUCTURE
        )
        if means is not None:
            found = replace(found, means=whitening.whiten(means))
        if precisions is not None:
            covariance = self._covariance(precisions).scaled(whitening.inverse_scale)
            found = replace(found, covariance=covariance).constrained(np.ones(k))
        return found

    def _covariance(self, precisions: Array) -> Covariance:
        """Return the covariances of the user's precisions."""
        storage = self.constraint.storage
        matrices = storage.whitening_kind == "matrix"
        theirs = (
            f". The parameter '{self.covariance_type} precision' should be "
            f"{'symmetric, positive-definite' if matrices else 'positive'}"
        )
        if matrices:
            transposed = np.swapaxes(precisions, -1, -2)
            if not np.allclose(precisions, transposed):
                raise ValueError(
                    "precisions_init must be symmetric matrices (inverse covariances), got numbers "
                    f"that are {np.abs(precisions - transposed).max():.5g} from their mirror images"
                    + theirs
                )
        try:
            with np.errstate(invalid="ignore", divide="ignore"):
                covariance = storage.from_precisions(precisions)
        except np.linalg.LinAlgError:
            covariance = None
        if covariance is None or not np.isfinite(covariance.factor).all():
            raise ValueError(
                "precisions_init must be positive (positive definite matrices): expected inverse "
                f"covariances, got numbers from {precisions.min():.5g} to {precisions.max():.5g}"
                + theirs
            )
        return covariance
