"""Covariances stored as matrices: one of each component, or one for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from ...core.additive import Array
from ...core.codec import record
from ...core.family import blocks
from ...core.tuning import tuning
from .covariance import Covariance
from .factors import (
    factor_of_precision,
    factor_or_none,
    factors_or_none,
    inverse_factor,
    inverse_factors,
    symmetric_pairs,
    symmetric_products,
    triangular,
)
from .whitening import apply_scale


def diagonal_of(factor: Array) -> Array:
    """Return a view of the diagonals of matrices (..., d, d)."""
    diagonal: Array = np.einsum("...ii->...i", factor)
    return diagonal


def matrix_of(ridge: Array) -> Array:
    """Return a matrix (d, d), or one of this diagonal (d,)."""
    return np.diag(ridge) if ridge.ndim == 1 else ridge


def few_matrices(k: int, d: int) -> Iterator[slice]:
    """Yield slices of k matrices (d, d), so few that what is made of them stays in cache."""
    return blocks(k, max(1, tuning().numpy_kernel.cached // d**2))


def per_length(scale: Array, factor: Array) -> Array:
    """Divide a scale by the lengths that the rows of `factor` have, but for its logarithms."""
    lengths = diagonal_of(factor)
    scale /= lengths[..., :, None]
    # The coordinate of the diagonal is a logarithm.
    diagonal_of(scale)[:] *= lengths
    return scale


@dataclass(frozen=True)
class Matrices(Covariance):
    """Covariances with all their entries: `factor` is lower triangular matrices."""

    def whitened(self, root: Array) -> tuple[Array, Array]:
        """Return root^T C of each matrix, and the identity."""
        product = root.swapaxes(-1, -2) @ self.factor
        return product, np.broadcast_to(np.eye(product.shape[-1]), product.shape)

    @staticmethod
    def squared(root: Array) -> Array:
        """Return root root^T of each matrix."""
        return np.asarray(root @ root.swapaxes(-1, -2))

    @staticmethod
    def magnitude(covariances: Array) -> Array:
        """Return the products of the standard deviations of each two columns."""
        widths = np.sqrt(diagonal_of(covariances))
        return np.asarray(widths[..., :, None] * widths[..., None, :])

    def of_columns(self, columns: Sequence[int]) -> Self:
        """Return the covariances of some columns, in this order."""
        return type(self)(triangular(self.factor[..., list(columns), :]))

    def conditional(self, given: Sequence[int], asked: Sequence[int]) -> tuple[Self, Array]:
        """Return the covariances of the columns `asked` given others, and their regressions."""
        o, m = len(given), len(given) + len(asked)
        lower = triangular(self.factor[..., [*given, *asked], :])
        apart = lower.reshape(-1, m, m)
        own, along = apart[:, :o, :o], apart[:, o:, :o]
        regression = along @ inverse_factors(own) if o else along
        return type(self)(np.ascontiguousarray(lower[..., o:, o:])), np.asarray(regression)


@record("covariance-full")
@dataclass(frozen=True)
class Full(Matrices):
    """Each component has its own covariance matrix; `factor` is (k, d, d)."""

    kind = "full"
    compiled = True
    whitening_kind = "matrix"

    @cached_property
    def inverse(self) -> Array:
        """C_k^{-1}, (k, d, d)."""
        return inverse_factors(self.factor)

    @staticmethod
    def n_features(d: int) -> int:
        """Return the number of features: the columns and the products of each two."""
        return d + d * (d + 1) // 2

    @staticmethod
    def pairs(d: int) -> tuple[Array, Array]:
        """Return the columns i and j of each quadratic feature z_i z_j, i <= j."""
        return symmetric_pairs(d)

    def natural(self, means: Array) -> Array:
        """Compute theta (k, 1 + F) of log N(z; mu_k, Sigma_k) = theta_k . (1, phi(z))."""
        d = means.shape[1]
        precision = self.inverse.transpose(0, 2, 1) @ self.inverse
        linear = np.einsum("kij,kj->ki", precision, means)
        white = np.einsum("kij,kj->ki", self.inverse, means)
        constant = -0.5 * (d * np.log(2 * np.pi) + (white**2).sum(1)) - self.log_det(d)
        i, j = symmetric_pairs(d)
        quadratic = np.where(i == j, -0.5, -1.0) * precision[:, i, j]
        return np.concatenate([constant[:, None], linear, quadratic], axis=1)

    def features(self, Z: Array, out: Array, work: Array) -> None:
        """Write the products of the columns of Z (d, b) into `out` (F, b), below Z."""
        symmetric_products(Z, work, out[len(Z) :])

    def whitener(self, means: Array) -> tuple[Array, ...]:
        """Return -C_k^{-1} mu_k and C_k^{-1} side by side, in strips of rows of all components."""
        # Rows C_k^{-1} (z - mu_k) of all components, stacked, in strips of a few rows
        # of each triangle, because the upper strips need only the first columns of z.
        d = means.shape[1]
        offset = -np.einsum("kij,kj->ki", self.inverse, means)
        rows = np.concatenate([offset[:, :, None], self.inverse], axis=2)
        ends = [
            min(start + tuning().numpy_kernel.strip, d)
            for start in range(0, d, tuning().numpy_kernel.strip)
        ]
        return tuple(
            rows[:, start:end, : 1 + end].reshape(-1, 1 + end)
            for start, end in zip([0, *ends], ends, strict=False)
        )

    @staticmethod
    def distances(whitener: tuple[Array, ...], phi: Array, out: Array, work: Array) -> None:
        """Write |C_k^{-1} (z - mu_k)|^2 into `out` (k, b), strip by strip."""
        k, b = out.shape
        out[:] = 0.0
        for rows in whitener:
            n, m = rows.shape
            white = np.matmul(rows, phi[:m], out=work[:n]).reshape(k, n // k, b)
            out += np.einsum("kib,kib->kb", white, white, out=work[n : n + k])

    @staticmethod
    def work_rows(k: int, d: int) -> int:
        """Return the number of rows of the work array of `distances` and of `features`."""
        return max(k * (min(tuning().numpy_kernel.strip, d) + 1), 2 * d)

    def log_det(self, d: int) -> Array:
        """Compute log |Sigma_k| / 2 of each component, (k,)."""
        return np.asarray(np.log(np.diagonal(self.factor, axis1=1, axis2=2)).sum(1))

    @staticmethod
    def zeros(k: int, d: int) -> Array:
        """Return a scatter of zeros, (k, d, d)."""
        return np.zeros((k, d, d))

    @staticmethod
    def add_scatter(scatter: Array, k: int, D: Array, resp: Array, work: Array) -> None:
        """Add sum_n r_n d_n d_n^T of the rows of D (n, d) to component k of `scatter`."""
        weighted = np.multiply(D, np.sqrt(resp)[:, None], out=work)
        scatter[k] += weighted.T @ weighted

    @staticmethod
    def scatter_of_features(sums: Array, first: Array, resp_sum: Array, means: Array) -> Array:
        """Compute the scatter about `means`, (k, d, d), from the sums of the products."""
        k, d = means.shape
        i, j = symmetric_pairs(d)
        scatter = np.empty((k, d, d))
        scatter[:, i, j] = sums
        scatter[:, j, i] = sums
        for some in few_matrices(k, d):
            cross = first[some, :, None] * means[some, None, :]
            square = means[some, :, None] * means[some, None, :]
            scatter[some] -= cross
            scatter[some] -= cross.transpose(0, 2, 1)
            scatter[some] += resp_sum[some, None, None] * square
        return scatter

    def unconstrained(self, resp_sum: Array, shift: Array, scatter: Array, ridge: Array) -> Array:
        """Compute the most likely covariances from the scatter about the old means."""
        squares = shift[:, :, None] * shift[:, None, :]
        return np.asarray(scatter / resp_sum[:, None, None] - squares + matrix_of(ridge))

    def factorized(self, covariances: Array, k: int) -> tuple[Self, Sequence[int]]:
        """Return the factors of covariances, and those of k components that are singular."""
        factor = self.factor.copy()
        collapsed = []
        for j, new in enumerate(factors_or_none(covariances)):
            if new is None:
                collapsed.append(j)
            else:
                factor[j] = new
        return type(self)(factor), collapsed

    def recentred(self, scatter: Array, first: Array, resp_sum: Array, shift: Array) -> Array:
        """Return the scatter about means that lie `shift` (k, d) from those of `scatter`."""
        # Products about the origin lie as the features do.
        i, j = symmetric_pairs(shift.shape[1])
        return self.scatter_of_features(scatter[:, i, j], first, resp_sum, shift)

    positive = staticmethod(diagonal_of)

    def information_scale(self, root_weights: Array) -> Array:
        """Return the scale of each unconstrained number of the factors, (k, d, d)."""
        return per_length(super().information_scale(root_weights), self.factor)

    @staticmethod
    def log_dets(covariances: Array) -> Array:
        """Compute log |Sigma| of matrices (n, d, d), (n,)."""
        return np.asarray(np.linalg.slogdet(covariances)[1])

    def scaled(self, scale: Array) -> Self:
        """Return the structure after the linear map `scale` (d,) or lower triangular (d, d)."""
        return type(self)(np.stack([apply_scale(scale, c) for c in self.factor]))

    @classmethod
    def from_precisions(cls, precisions: Array) -> Self:
        """Return the structure of scikit-learn's `precisions_`."""
        return cls(np.stack([factor_of_precision(p) for p in precisions]))

    @classmethod
    def from_precisions_cholesky(cls, precisions_cholesky: Array) -> Self:
        """Return the structure of scikit-learn's `precisions_cholesky_`."""
        return cls(inverse_factors(precisions_cholesky.transpose(0, 2, 1)))

    @classmethod
    def of_data(cls, covariance: Array, k: int) -> Self:
        """Return k components with the covariance (d, d) of all data."""
        return cls(np.stack([np.linalg.cholesky(covariance)] * k))

    @property
    def covariances(self) -> Array:
        return np.asarray(self.factor @ self.factor.transpose(0, 2, 1))

    @property
    def precisions_cholesky(self) -> Array:
        return np.ascontiguousarray(self.inverse.transpose(0, 2, 1))

    @property
    def precisions(self) -> Array:
        return np.asarray(self.inverse.transpose(0, 2, 1) @ self.inverse)

    def full(self, k: int, d: int) -> Array:
        """Return the covariances, (k, d, d)."""
        return self.covariances

    def variances(self, d: int) -> Array:
        """Compute the variance of each column, (k, d)."""
        return np.asarray((self.factor**2).sum(2))

    def traces(self, d: int) -> Array:
        """Compute the trace of each covariance, (k,)."""
        return np.asarray((self.factor**2).sum((1, 2)))

    def tightness(self) -> Array:
        """Return a bound on the largest eigenvalue of each precision, (k,)."""
        size = np.abs(self.inverse)
        return np.asarray(size.sum(1).max(1) * size.sum(2).max(1))


@record("covariance-tied")
@dataclass(frozen=True)
class Tied(Matrices):
    """All components share one covariance matrix; `factor` is (d, d).

    The quadratic term of the log-density is the same for all components, so
    one feature carries it: the squared length of C^{-1} z.
    """

    kind = "tied"
    whitening_kind = "matrix"
    shared_scatter = True

    @cached_property
    def inverse(self) -> Array:
        """C^{-1}, (d, d)."""
        return inverse_factor(self.factor)

    @staticmethod
    def n_features(d: int) -> int:
        """Return the number of features: the columns and one squared length."""
        return d + 1

    def natural(self, means: Array) -> Array:
        """Compute theta (k, 1 + F) of log N(z; mu_k, Sigma_k) = theta_k . (1, phi(z))."""
        d = means.shape[1]
        white = means @ self.inverse.T
        constant = -0.5 * (d * np.log(2 * np.pi) + (white**2).sum(1)) - self.log_det(d)
        quadratic = np.full((len(means), 1), -0.5)
        return np.concatenate([constant[:, None], white @ self.inverse, quadratic], axis=1)

    def features(self, Z: Array, out: Array, work: Array) -> None:
        """Write |C^{-1} z|^2 of the columns of Z (d, b) into `out` (d + 1, b), below Z."""
        white = np.matmul(self.inverse, Z, out=work[: len(Z)])
        np.einsum("ib,ib->b", white, white, out=out[len(Z)])

    def whitener(self, means: Array) -> tuple[Array, ...]:
        """Return C^{-1} (d, d) and the whitened means C^{-1} mu_k (k, d)."""
        return self.inverse, means @ self.inverse.T

    @staticmethod
    def distances(whitener: tuple[Array, ...], phi: Array, out: Array, work: Array) -> None:
        """Write |C^{-1} z - C^{-1} mu_k|^2 into `out` (k, b)."""
        inverse, white_means = whitener
        d = len(inverse)
        white = np.matmul(inverse, phi[1:], out=work[:d])
        for k, mean in enumerate(white_means):
            deviation = np.subtract(white, mean[:, None], out=work[d : 2 * d])
            np.einsum("ib,ib->b", deviation, deviation, out=out[k])

    def log_det(self, d: int) -> Array:
        """Compute log |Sigma| / 2, (1,)."""
        return np.asarray(np.log(np.diagonal(self.factor)).sum(keepdims=True))

    @staticmethod
    def zeros(k: int, d: int) -> Array:
        """Return a scatter of zeros, (d, d)."""
        return np.zeros((d, d))

    @staticmethod
    def add_scatter(scatter: Array, k: int, D: Array, resp: Array, work: Array) -> None:
        """Add sum_n r_n d_n d_n^T of the rows of D (n, d) to the shared `scatter`."""
        weighted = np.multiply(D, np.sqrt(resp)[:, None], out=work)
        scatter += weighted.T @ weighted

    @staticmethod
    def scatter_of_features(sums: Array, first: Array, resp_sum: Array, means: Array) -> Array:
        """Compute the scatter about `means`, (d, d), from the total of w z z^T."""
        cross = first.T @ means
        return np.asarray(sums - cross - cross.T + (means.T * resp_sum) @ means)

    def unconstrained(self, resp_sum: Array, shift: Array, scatter: Array, ridge: Array) -> Array:
        """Compute the most likely covariance from the scatter about the old means."""
        within = scatter - (shift.T * resp_sum) @ shift
        return np.asarray(within / resp_sum.sum() + matrix_of(ridge))

    def factorized(self, covariances: Array, k: int) -> tuple[Self, Sequence[int]]:
        """Return the factor of the covariance, and all k components if it is singular."""
        new = factor_or_none(covariances)
        return (self, range(k)) if new is None else (type(self)(new), ())

    positive = staticmethod(diagonal_of)
    log_dets = staticmethod(Full.log_dets)

    def information_scale(self, root_weights: Array) -> Array:
        """Return the scale of each unconstrained number of the factor, (d, d)."""
        return per_length(super().information_scale(root_weights), self.factor)

    def scaled(self, scale: Array) -> Self:
        """Return the structure after the linear map `scale` (d,) or lower triangular (d, d)."""
        return type(self)(apply_scale(scale, self.factor))

    @classmethod
    def from_precisions(cls, precisions: Array) -> Self:
        """Return the structure of scikit-learn's `precisions_`."""
        return cls(factor_of_precision(precisions))

    @classmethod
    def from_precisions_cholesky(cls, precisions_cholesky: Array) -> Self:
        """Return the structure of scikit-learn's `precisions_cholesky_`."""
        return cls(inverse_factor(precisions_cholesky.T))

    @classmethod
    def of_data(cls, covariance: Array, k: int) -> Self:
        """Return the covariance (d, d) of all data, shared by all components."""
        return cls(np.linalg.cholesky(covariance))

    @property
    def covariances(self) -> Array:
        return np.asarray(self.factor @ self.factor.T)

    @property
    def precisions_cholesky(self) -> Array:
        return np.ascontiguousarray(self.inverse.T)

    @property
    def precisions(self) -> Array:
        return np.asarray(self.inverse.T @ self.inverse)

    def full(self, k: int, d: int) -> Array:
        """Return the shared covariance for each component, (k, d, d)."""
        return np.broadcast_to(self.covariances, (k, d, d))

    def variances(self, d: int) -> Array:
        """Compute the variance of each column, (1, d)."""
        return np.asarray((self.factor**2).sum(1)[None])

    def traces(self, d: int) -> Array:
        """Compute the trace of the covariance, (1,)."""
        return np.asarray([(self.factor**2).sum()])

    def tightness(self) -> Array:
        """Return a bound on the largest eigenvalue of the precision, (1,)."""
        size = np.abs(self.inverse)
        return np.asarray([size.sum(0).max() * size.sum(1).max()])
