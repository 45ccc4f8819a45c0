"""Covariances stored as standard deviations: of each column, or one for all columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ...core.additive import Array
from ...core.codec import record
from .covariance import Covariance


def diagonal_of(ridge: Array) -> Array:
    """Return the diagonal of a matrix (d, d), or what is one already (d,)."""
    return ridge if ridge.ndim == 1 else np.diagonal(ridge)


@dataclass(frozen=True)
class Uncorrelated(Covariance):
    """Covariances without off-diagonal entries: `factor` is standard deviations."""

    def factorized(self, covariances: Array, k: int) -> tuple[Self, Sequence[int]]:
        """Return the factors of covariances, and those of k components that are singular."""
        usable = np.isfinite(covariances) & (covariances > 0)
        whole = usable.reshape(k, -1).all(axis=1)
        roots = np.sqrt(np.where(covariances > 0, covariances, 1))
        keep = whole.reshape(-1, *[1] * (covariances.ndim - 1))
        return type(self)(np.where(keep, roots, self.factor)), np.flatnonzero(~whole).tolist()

    @staticmethod
    def positive(factor: Array) -> Array:
        """Return all of `factor`: standard deviations are positive."""
        return factor

    @classmethod
    def from_precisions(cls, precisions: Array) -> Self:
        """Return the structure of scikit-learn's `precisions_`."""
        return cls(precisions**-0.5)

    @classmethod
    def from_precisions_cholesky(cls, precisions_cholesky: Array) -> Self:
        """Return the structure of scikit-learn's `precisions_cholesky_`."""
        return cls(1 / precisions_cholesky)

    def whitened(self, root: Array) -> tuple[Array, Array]:
        """Return the products of standard deviations and their inverses, and ones."""
        return root * self.factor, np.ones_like(root)

    @staticmethod
    def squared(root: Array) -> Array:
        """Return the precisions of inverse standard deviations."""
        return np.asarray(root**2)

    @staticmethod
    def magnitude(covariances: Array) -> Array:
        """Return the variances themselves."""
        return covariances

    def conditional(self, given: Sequence[int], asked: Sequence[int]) -> tuple[Self, Array]:
        """Return the covariances of the columns `asked`, of which others tell nothing."""
        return self.of_columns(asked), np.zeros((1, len(asked), len(given)))

    @property
    def covariances(self) -> Array:
        return np.asarray(self.factor**2)

    @property
    def precisions_cholesky(self) -> Array:
        return np.asarray(1 / self.factor)

    @property
    def precisions(self) -> Array:
        return np.asarray(self.factor**-2.0)


@record("covariance-diag")
@dataclass(frozen=True)
class Diagonal(Uncorrelated):
    """Columns are independent within a component; `factor` is the (k, d) standard deviations."""

    kind = "diag"
    compiled = True
    whitening_kind = "diagonal"

    @staticmethod
    def n_features(d: int) -> int:
        """Return the number of features: the columns and their squares."""
        return 2 * d

    def natural(self, means: Array) -> Array:
        """Compute theta (k, 1 + F) of log N(z; mu_k, Sigma_k) = theta_k . (1, phi(z))."""
        d = means.shape[1]
        precision = self.factor**-2.0
        constant = -0.5 * (d * np.log(2 * np.pi) + (means**2 * precision).sum(1)) - self.log_det(d)
        return np.concatenate([constant[:, None], means * precision, -0.5 * precision], axis=1)

    def features(self, Z: Array, out: Array, work: Array) -> None:
        """Write the squares of the columns of Z (d, b) into `out` (2 d, b), below Z."""
        np.multiply(Z, Z, out=out[len(Z) :])

    def whitener(self, means: Array) -> tuple[Array, ...]:
        """Return the means and the inverse standard deviations, (k, d) both."""
        return means, 1 / self.factor

    @staticmethod
    def distances(whitener: tuple[Array, ...], phi: Array, out: Array, work: Array) -> None:
        """Write sum_i ((z_i - mu_ki) / sigma_ki)^2 into `out` (k, b)."""
        means, inverse = whitener
        deviation = work[: means.shape[1]]
        for k, mean in enumerate(means):
            np.subtract(phi[1:], mean[:, None], out=deviation)
            deviation *= inverse[k][:, None]
            np.einsum("ib,ib->b", deviation, deviation, out=out[k])

    def log_det(self, d: int) -> Array:
        """Compute log |Sigma_k| / 2 of each component, (k,)."""
        return np.asarray(np.log(self.factor).sum(1))

    @staticmethod
    def zeros(k: int, d: int) -> Array:
        """Return a scatter of zeros, (k, d)."""
        return np.zeros((k, d))

    @staticmethod
    def add_scatter(scatter: Array, k: int, D: Array, resp: Array, work: Array) -> None:
        """Add the weighted sums of the squares of D (n, d) to component k of `scatter`."""
        scatter[k] += resp @ np.multiply(D, D, out=work)

    @staticmethod
    def scatter_of_features(sums: Array, first: Array, resp_sum: Array, means: Array) -> Array:
        """Compute the scatter about `means`, (k, d), from the sums of the squares."""
        return np.asarray(sums - 2 * first * means + resp_sum[:, None] * means**2)

    def unconstrained(self, resp_sum: Array, shift: Array, scatter: Array, ridge: Array) -> Array:
        """Compute the most likely covariances from the scatter about the old means."""
        return np.asarray(scatter / resp_sum[:, None] - shift**2 + diagonal_of(ridge))

    @staticmethod
    def log_dets(covariances: Array) -> Array:
        """Compute log |Sigma| of the diagonals of matrices (n, d, d), (n,)."""
        return np.asarray(np.log(np.einsum("nii->ni", covariances)).sum(1))

    @staticmethod
    def pairs(d: int) -> tuple[Array, Array]:
        """Return the columns i and j of each quadratic feature z_i z_j: i = j."""
        return np.arange(d), np.arange(d)

    def of_columns(self, columns: Sequence[int]) -> Self:
        """Return the variances of some columns, in this order."""
        return type(self)(self.factor[:, list(columns)])

    def scaled(self, scale: Array) -> Self:
        """Return the structure after the linear map `scale` (d,) or lower triangular (d, d)."""
        return type(self)(self.factor * scale)

    @classmethod
    def of_data(cls, covariance: Array, k: int) -> Self:
        """Return k components with the variance of each column of all data."""
        return cls(np.tile(np.sqrt(np.diagonal(covariance)), (k, 1)))

    def full(self, k: int, d: int) -> Array:
        """Return the covariances as diagonal matrices, (k, d, d)."""
        return np.asarray(self.covariances[:, :, None] * np.eye(d))

    def variances(self, d: int) -> Array:
        """Return the variance of each column, (k, d)."""
        return self.covariances

    def traces(self, d: int) -> Array:
        """Compute the trace of each covariance, (k,)."""
        return np.asarray((self.factor**2).sum(1))

    def tightness(self) -> Array:
        """Return the largest precision of each component, (k,)."""
        return np.asarray((self.factor**-2.0).max(1))


@record("covariance-spherical")
@dataclass(frozen=True)
class Spherical(Uncorrelated):
    """One variance for all columns of a component; `factor` is the (k,) standard deviations."""

    kind = "spherical"
    whitening_kind = "scalar"

    @staticmethod
    def n_features(d: int) -> int:
        """Return the number of features: the columns and the sum of their squares."""
        return d + 1

    def natural(self, means: Array) -> Array:
        """Compute theta (k, 1 + F) of log N(z; mu_k, Sigma_k) = theta_k . (1, phi(z))."""
        d = means.shape[1]
        precision = self.factor[:, None] ** -2.0
        squares = (means**2).sum(1, keepdims=True) * precision
        constant = -0.5 * (d * np.log(2 * np.pi) + squares) - self.log_det(d)[:, None]
        return np.concatenate([constant, means * precision, -0.5 * precision], axis=1)

    def features(self, Z: Array, out: Array, work: Array) -> None:
        """Write the sum of squares of the columns of Z (d, b) into `out` (d + 1, b), below Z."""
        np.einsum("ib,ib->b", Z, Z, out=out[len(Z)])

    def whitener(self, means: Array) -> tuple[Array, ...]:
        """Return the means and the inverse standard deviations, (k, d) both."""
        return means, np.broadcast_to(1 / self.factor[:, None], means.shape)

    distances = staticmethod(Diagonal.distances)

    def of_columns(self, columns: Sequence[int]) -> Self:
        """Return the same: one variance is that of any columns."""
        return self

    def log_det(self, d: int) -> Array:
        """Compute log |Sigma_k| / 2 of each component, (k,)."""
        return np.asarray(d * np.log(self.factor))

    @staticmethod
    def zeros(k: int, d: int) -> Array:
        """Return a scatter of zeros, (k,)."""
        return np.zeros(k)

    @staticmethod
    def add_scatter(scatter: Array, k: int, D: Array, resp: Array, work: Array) -> None:
        """Add the weighted sum of the squares of D (n, d) to component k of `scatter`."""
        scatter[k] += (resp @ np.multiply(D, D, out=work)).sum()

    @staticmethod
    def scatter_of_features(sums: Array, first: Array, resp_sum: Array, means: Array) -> Array:
        """Compute the scatter about `means`, (k,), from the sums of the squares."""
        return np.asarray(sums[:, 0] - 2 * (first * means).sum(1) + resp_sum * (means**2).sum(1))

    def unconstrained(self, resp_sum: Array, shift: Array, scatter: Array, ridge: Array) -> Array:
        """Compute the most likely covariances from the scatter about the old means."""
        d = shift.shape[1]
        within = (scatter / resp_sum - (shift**2).sum(1)) / d
        return np.asarray(within + diagonal_of(ridge).mean())

    def recentred(self, scatter: Array, first: Array, resp_sum: Array, shift: Array) -> Array:
        """Return the scatter about means that lie `shift` (k, d) from those of `scatter`."""
        return self.scatter_of_features(scatter[:, None], first, resp_sum, shift)

    @staticmethod
    def log_dets(covariances: Array) -> Array:
        """Compute d log of the mean variance of matrices (n, d, d), (n,)."""
        diagonal = np.einsum("nii->ni", covariances)
        return np.asarray(diagonal.shape[1] * np.log(diagonal.mean(1)))

    def scaled(self, scale: Array) -> Self:
        """Return the structure after the linear map `scale` (d,) or lower triangular (d, d)."""
        return type(self)(self.factor * scale.flat[0])

    @classmethod
    def of_data(cls, covariance: Array, k: int) -> Self:
        """Return k components with the mean variance of the columns of all data."""
        return cls(np.full(k, np.sqrt(np.diagonal(covariance).mean())))

    def full(self, k: int, d: int) -> Array:
        """Return the covariances as multiples of the identity, (k, d, d)."""
        return np.asarray(self.covariances[:, None, None] * np.eye(d))

    def variances(self, d: int) -> Array:
        """Return the variance of each column, (k, d)."""
        return np.broadcast_to(self.covariances[:, None], (len(self.factor), d))

    def traces(self, d: int) -> Array:
        """Compute the trace of each covariance, (k,)."""
        return np.asarray(d * self.factor**2)

    def tightness(self) -> Array:
        """Return the precision of each component, (k,)."""
        return np.asarray(self.factor**-2.0)
