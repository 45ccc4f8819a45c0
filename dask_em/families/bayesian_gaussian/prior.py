"""The prior of a Bayesian mixture of Gaussians: of its weights, its means and its precisions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ...core.additive import Array
from ...core.codec import record
from ...core.validation import LARGEST, require, require_array
from ..gaussian.whitening import Whitening

WeightPrior = Literal["dirichlet_process", "dirichlet_distribution"]

WEIGHT_PRIORS: tuple[WeightPrior, ...] = ("dirichlet_process", "dirichlet_distribution")


@record("weight-prior")
@dataclass(frozen=True)
class WeightsPrior:
    """Hold the prior of mixing weights, and tell their posterior by the rows of each component.

    Attributes
    ----------
    kind : {"dirichlet_process", "dirichlet_distribution"}
        The process is that of stick-breaking, truncated to K pieces (Blei and Jordan 2006): the
        piece of component k is Beta(1, `concentration`) of what those before it left.
    concentration : float
        Of each component, or of the process: the smaller, the fewer components have rows.

    Examples
    --------
    >>> prior = WeightsPrior("dirichlet_distribution", 1.0)
    >>> prior.means(np.array([3.0, 0.0, 0.0])).round(3).tolist()
    [0.667, 0.167, 0.167]
    >>> prior.divergence(np.zeros(3))
    0.0
    """

    kind: WeightPrior
    concentration: float

    @property
    def is_process(self) -> bool:
        """Whether weights are pieces of a stick, whose order matters."""
        return self.kind == "dirichlet_process"

    def validate(self) -> None:
        """Raise `ValueError` that names what is wrong."""
        require("kind of the weights' prior", self.kind, self.kind in WEIGHT_PRIORS)
        right = 0 < self.concentration <= LARGEST
        require("concentration of the weights' prior", self.concentration, right)

    def sticks(self, counts: Array) -> tuple[Array, Array]:
        """Return both parameters of the Beta posterior of each piece, (k,) and (k,)."""
        later = np.append(np.cumsum(counts[::-1])[-2::-1], 0.0)
        return 1.0 + counts, self.concentration + later

    def concentrations(self, counts: Array) -> Array:
        """Return the parameters of the Dirichlet posterior, (k,)."""
        return self.concentration + counts

    def means(self, counts: Array) -> Array:
        """Return the mean weights (k,), made to sum to one."""
        if not self.is_process:
            found = self.concentrations(counts)
            return np.asarray(found / found.sum())
        first, rest = self.sticks(counts)
        total = first + rest
        found = first / total * np.append(1.0, np.cumprod((rest / total)[:-1]))
        return np.asarray(found / found.sum())

    def mean_logs(self, counts: Array) -> Array:
        """Return the means of the log weights, (k,): their exponentials sum to less than one."""
        from scipy.special import digamma

        if not self.is_process:
            found = self.concentrations(counts)
            return np.asarray(digamma(found) - digamma(found.sum()))
        first, rest = self.sticks(counts)
        both = digamma(first + rest)
        left = np.append(0.0, np.cumsum(digamma(rest) - both)[:-1])
        return np.asarray(digamma(first) - both + left)

    def divergence(self, counts: Array) -> float:
        """Compute the Kullback-Leibler divergence of the posterior from the prior, in nats."""
        from scipy.special import betaln, digamma, gammaln

        given = self.concentration
        if not self.is_process:
            found = self.concentrations(counts)
            total, k = found.sum(), len(found)
            norm = gammaln(total) - gammaln(k * given) - gammaln(found).sum() + k * gammaln(given)
            return float(norm + counts @ (digamma(found) - digamma(total)))
        first, rest = self.sticks(counts)
        both = digamma(first + rest)
        norm = betaln(1.0, given) - betaln(first, rest)
        gaps = counts * (digamma(first) - both) + (rest - given) * (digamma(rest) - both)
        return float((norm + gaps).sum())


@record("normal-wishart-prior")
@dataclass(frozen=True)
class NormalWishart:
    """Hold the prior of means and precisions, in whitened coordinates.

    A precision is Wishart of `df` degrees of freedom, whose scale is the inverse of `scatter`;
    given it a mean is normal about `mean`, with `mean_precision` times that precision.

    Attributes
    ----------
    mean : (d,) array
    mean_precision : float
        Rows that it counts as for a mean.
    df : float
        More than d - 1.
    scatter : array
        scikit-learn's `covariance_prior_`: (d, d) of matrices, (d,) of variances of columns, (1,)
        of one variance for all.

    Examples
    --------
    >>> prior = NormalWishart(np.zeros(2), 1.0, 2.0, np.full(1, 4.0))
    >>> prior.matrix.tolist(), round(prior.log_det, 3)
    ([4.0, 4.0], 2.773)
    """

    mean: Array
    mean_precision: float
    df: float
    scatter: Array

    @property
    def matrix(self) -> Array:
        """The scatter as a matrix (d, d), or its diagonal (d,) where it is one."""
        d = len(self.mean)
        return self.scatter if self.scatter.ndim == 2 else np.broadcast_to(self.scatter, (d,))

    @property
    def log_det(self) -> float:
        """Logarithm of the determinant of the scatter."""
        if self.scatter.ndim == 2:
            return float(2 * np.log(np.diagonal(np.linalg.cholesky(self.scatter))).sum())
        return float(np.log(self.matrix).sum())

    def validate(self, shape: tuple[int, ...]) -> None:
        """Raise `ValueError` that names what is wrong; `shape` is that of `scatter`."""
        d = len(self.mean)
        require_array("mean of the prior", self.mean, (d,))
        precision = self.mean_precision
        require("mean_precision of the prior", precision, 0 < precision <= LARGEST)
        require("df of the prior", self.df, d - 1 < self.df <= LARGEST)
        require_array("scatter of the prior", self.scatter, shape)
        diagonal = np.diagonal(self.scatter) if self.scatter.ndim == 2 else self.scatter
        require("scatter of the prior", self.scatter, bool((diagonal > 0).all()))

    def whitened(self, whitening: Whitening) -> NormalWishart:
        """Return a prior that is given in the units of the data, in whitened coordinates."""
        mean = whitening.whiten(self.mean[None])[0]
        return replace(self, mean=mean, scatter=_scaled(self.scatter, whitening.inverse_scale))

    def unwhitened(self, whitening: Whitening) -> NormalWishart:
        """Return a whitened prior in the units of the data."""
        mean = whitening.unwhiten(self.mean[None])[0]
        return replace(self, mean=mean, scatter=_scaled(self.scatter, whitening.scale))


def _scaled(scatter: Array, scale: Array) -> Array:
    """Return a scatter after the linear map `scale`, (d,) or (d, d)."""
    if scatter.ndim == 1:
        return np.asarray(scatter * scale[: len(scatter)] ** 2)
    if scale.ndim == 1:
        return np.asarray(scale[:, None] * scatter * scale)
    found = scale @ scatter @ scale.T
    return np.asarray((found + found.T) / 2)
