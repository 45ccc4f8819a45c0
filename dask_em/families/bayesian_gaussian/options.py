"""Options of an estimator that describe a Bayesian mixture of Gaussians before it is fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core.additive import Array
from ...core.family import FamilyOptions
from ...core.finite import as_finite
from ...core.moments import Moments
from ...core.tuning import tuning
from ...errors import UsageError
from ..gaussian.family import Gaussian
from ..gaussian.options import OF_STRUCTURE, GaussianOptions
from ..gaussian.whitening import ridged_factor
from .family import BayesianGaussian
from .prior import NormalWishart, WeightPrior, WeightsPrior


@dataclass(frozen=True, eq=False)
class BayesianGaussianOptions(FamilyOptions):
    """Hold the options by which the posterior of Gaussian components is initialized.

    Attributes
    ----------
    normal : GaussianOptions
        Of the structure of the covariances.
    weights_prior : {"dirichlet_process", "dirichlet_distribution"}
    concentration : float, optional
        By default 1 / K.
    mean_precision : float, optional
        By default 1.
    mean : (d,) array, optional
        By default that of the data.
    df : float, optional
        By default d.
    covariance : array or float, optional
        By default the unbiased covariance of the data, their variances, or the mean of those.

    Examples
    --------
    >>> options = BayesianGaussianOptions(GaussianOptions("diag"))
    >>> options.kind, options.n_parameters(k=3, d=2)
    ('diag', 12)
    >>> options.of_data(Moments.unit(2), 4).weights_prior.concentration
    0.25
    """

    normal: GaussianOptions = field(default_factory=GaussianOptions)
    weights_prior: WeightPrior = "dirichlet_process"
    concentration: float | None = None
    mean_precision: float | None = None
    mean: npt.ArrayLike | None = None
    df: float | None = None
    covariance: npt.ArrayLike | None = None

    @property
    def kind(self) -> str:
        return self.normal.kind

    @property
    def variational(self) -> bool:
        """Whether models are compared by a bound on the evidence: they are."""
        return True

    def n_parameters(self, k: int, d: int) -> int:
        """Count the free parameters of k components in d columns."""
        return self.normal.n_parameters(k, d)

    def n_parameters_of(self, k: int, moments: Moments) -> int:
        """Count the free parameters of k components, as many whatever the data."""
        return self.normal.n_parameters(k, len(moments.mean))

    def of_data(self, moments: Moments, k: int) -> BayesianGaussian:
        """Return k components alike, each with the covariance of all data, in equal shares.

        Raises
        ------
        ValueError
            A parameter of the prior is none for such data.
        """
        plain = self.normal.of_data(moments, k)
        known = {f.name: getattr(plain, f.name) for f in fields(Gaussian)}
        concentration = 1 / k if self.concentration is None else float(self.concentration)
        return BayesianGaussian(
            **known,
            weights_prior=WeightsPrior(self.weights_prior, concentration),
            prior=self._prior(moments, plain),
            counts=np.full(k, moments.weight / k),
        )

    def _prior(self, moments: Moments, plain: Gaussian) -> NormalWishart:
        """Return the prior of means and precisions, in the whitened coordinates of `plain`."""
        d = len(moments.mean)
        mean = as_finite("mean_prior", self.mean, (d,), "means")
        df = float(d if self.df is None else self.df)
        if not df > d - 1:
            raise UsageError(
                f"degrees_of_freedom_prior={self.df!r}: expected a number above {d - 1}, for there "
                f"are {d} columns. The parameter 'degrees_of_freedom_prior' should be greater than "
                f"{d - 1}, but got {df:.3f}."
            )
        prior = NormalWishart(
            np.asarray(moments.mean if mean is None else mean, dtype=np.float64),
            1.0 if self.mean_precision is None else float(self.mean_precision),
            df,
            self._scatter(moments),
        )
        return prior.whitened(plain.whitening)

    def _scatter(self, moments: Moments) -> Array:
        d, kind = len(moments.mean), self.normal.constraint.storage.kind
        shape = {"diag": (d,), "spherical": ()}.get(kind, (d, d))
        name = f"{kind} covariance_prior"
        given = as_finite("covariance_prior", self.covariance, shape, name, OF_STRUCTURE)
        if given is None:
            # The unbiased covariance, unless all weigh next to nothing.
            found = moments.scatter / max(moments.weight - 1, moments.weight / 2)
            if kind in ("full", "tied"):
                return _definite(found)
            variances = np.diagonal(found)
            found = variances if kind == "diag" else variances.mean(keepdims=True)
            least = tuning().numerics.pooled_ridge * max(variances.mean(), 1e-300)
            return np.asarray(np.maximum(found, least))
        _check_definite(given, name)
        return np.atleast_1d(given)

    def start_coordinates(self, rows: Array, moments: Moments) -> Array:
        """Return sampled rows (m, d) as the clustering of a start sees them."""
        return self.normal.start_coordinates(rows, moments)

    def with_given(self, components: Any) -> BayesianGaussian:
        """Return the components: nothing is given of them."""
        found: BayesianGaussian = components
        return found

    def warnings(
        self, moments: Moments, constant: Sequence[int], called: Callable[[Sequence[int]], str]
    ) -> list[str]:
        """Return warnings of columns that vary so little that the ridge is not small."""
        return self.normal.warnings(moments, constant, called)


def _check_definite(given: Array, name: str) -> None:
    """Raise `ValueError` unless a matrix, or variances, are those of a distribution."""
    if given.ndim < 2:
        if not (given > 0).all():
            raise ValueError(
                f"covariance_prior must be positive, got {given}: expected variances. The "
                f"parameter '{name}' should be positive"
            )
        return
    symmetric = bool(np.allclose(given, given.T))
    least = float(np.linalg.eigvalsh(given)[0]) if symmetric else np.nan
    if not least > 0:
        found = f"one of the eigenvalue {least:.5g}" if symmetric else "one that is not symmetric"
        raise ValueError(
            f"covariance_prior must be a symmetric matrix, positive definite, got {found}. The "
            f"parameter '{name}' should be symmetric, positive-definite"
        )


def _definite(covariance: Array) -> Array:
    """Return a covariance, after the least ridge with which it is definite where it is not."""
    widths = np.sqrt(np.diagonal(covariance))
    widths = np.where(widths > 0, widths, widths.max() or 1.0)
    correlation = covariance / np.outer(widths, widths)
    if np.linalg.eigvalsh(correlation)[0] > np.finfo(np.float64).eps * len(widths):
        return covariance
    factor = ridged_factor(correlation, tuning().numerics.pooled_ridge)
    return np.asarray(factor @ factor.T * np.outer(widths, widths))
