"""The four covariance structures: what they sum, and how the sums become covariances.

Each structure holds Cholesky factors C of its covariances, Sigma = C C^T, which
keep twice the digits of Sigma, and knows four things: its features phi(x), in
which the log-density is linear; the Mahalanobis distance; the scatter about the
current means; and the M-step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from scipy.linalg import solve_triangular

from ...core.additive import Array
from ...core.codec import record
from .whitening import FrameKind, apply_scale

# Rows of each triangle that are multiplied at a time: less cuts off more of the
# zeros above the diagonal, more makes a quicker product.
STRIP = 8


def inverse_factor(factor: Array) -> Array:
    """Inverse of one lower triangular factor."""
    return np.asarray(solve_triangular(factor, np.eye(len(factor)), lower=True))


def factor_or_none(covariance: Array) -> Array | None:
    """Lower Cholesky factor of one matrix, None where it is not positive definite."""
    if not np.isfinite(covariance).all():
        return None
    try:
        return np.asarray(np.linalg.cholesky(covariance))
    except np.linalg.LinAlgError:
        return None


def factor_of_precision(precision: Array) -> Array:
    """Lower factor C of the covariance whose inverse is `precision`."""
    # P = U U^T with U upper triangular is the Cholesky factor of P read backwards.
    upper = np.linalg.cholesky(precision[::-1, ::-1])[::-1, ::-1]
    return np.asarray(solve_triangular(upper, np.eye(len(upper)), lower=False).T)


def symmetric_pairs(d: int) -> tuple[Array, Array]:
    """Row and column of each product z_i z_j, in the order of `symmetric_products`.

    The products run along the wrapped diagonals of the matrix z z^T (first
    j = i, then j = i + 1 mod d, ...), because each diagonal is one multiplication of two
    contiguous blocks. For even d the last diagonal holds each pair twice, and
    only its first half is taken.
    """
    i = np.arange(d)
    rows = [i] * ((d - 1) // 2 + 1) + ([i[: d // 2]] if d % 2 == 0 else [])
    columns = [(r + s) % d for s, r in enumerate(rows)]
    return np.concatenate(rows), np.concatenate(columns)


def symmetric_products(Z: Array, twice: Array, out: Array) -> None:
    """All products z_i z_j, i <= j, of the columns of Z (d, b), into `out` (d(d+1)/2, b).

    `twice` is a work array of at least 3d/2 rows; it is left holding Z and its first half.
    """
    d, b = Z.shape
    twice[:d], twice[d : d + d // 2] = Z, Z[: d // 2]
    row, item = twice.strides
    whole = (d - 1) // 2 + 1
    shifted = np.lib.stride_tricks.as_strided(twice, (whole, d, b), (row, row, item))
    np.multiply(Z, shifted, out=out[: whole * d].reshape(whole, d, b))
    if d % 2 == 0:
        np.multiply(Z[: d // 2], Z[d // 2 :], out=out[whole * d :])


@dataclass(frozen=True)
class Covariance(ABC):
    """Covariances of K components in d dimensions, in the coordinates of a frame.

    Attributes
    ----------
    factor : array
        Cholesky factors: (k, d, d) full, (d, d) tied, (k, d) diag, (k,) spherical.
    """

    factor: Array

    kind: ClassVar[str]
    frame_kind: ClassVar[FrameKind]
    shared_scatter: ClassVar[bool] = False
    """Whether all components share one scatter, which then is no sum of features."""

    def __getstate__(self) -> dict[str, Array]:
        # What is cached can be made again, and may be as large as the factors.
        return {"factor": self.factor}

    # -- what the E-step needs -------------------------------------------------

    @staticmethod
    @abstractmethod
    def n_features(d: int) -> int:
        """Length of phi(x), without the leading one."""

    @abstractmethod
    def natural(self, means: Array) -> Array:
        """Coefficients theta (k, 1 + F) of log N(z; mu_k, Sigma_k) = theta_k . (1, phi(z))."""

    def features(self, Z: Array, out: Array, work: Array) -> None:
        """phi of the columns of Z (d, b) into `out` (F, b), whose first d rows are Z."""
        raise NotImplementedError

    @abstractmethod
    def whitener(self, means: Array) -> tuple[Array, ...]:
        """What `distances` needs of the parameters, made once for many blocks."""

    @staticmethod
    @abstractmethod
    def distances(whitener: tuple[Array, ...], phi: Array, out: Array, work: Array) -> None:
        """Squared Mahalanobis distances |C_k^{-1} (z - mu_k)|^2.

        Parameters
        ----------
        whitener : tuple of array
        phi : (1 + d, b) array
            Ones, then the columns of z.
        out : (k, b) array
        work : (work_rows(k, d), b) array
        """

    @staticmethod
    def work_rows(k: int, d: int) -> int:
        """Rows of the work array of `distances` and of `features`."""
        return 2 * d

    @abstractmethod
    def log_det(self, d: int) -> Array:
        """log |Sigma_k| / 2 of each component, (k,) or (1,)."""

    # -- sums ------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def zeros(k: int, d: int) -> Array:
        """A scatter of zero, of this structure's shape."""

    @staticmethod
    @abstractmethod
    def add_scatter(scatter: Array, k: int, D: Array, resp: Array, work: Array) -> None:
        """Add sum_n r_n d_n d_n^T of component k to `scatter`; D and `work` (n, d), resp (n,)."""

    @staticmethod
    @abstractmethod
    def scatter_of_features(sums: Array, first: Array, resp_sum: Array, means: Array) -> Array:
        """Scatter about `means` from the sums of the quadratic features about the origin.

        `sums` is (k, F - d); with a shared scatter it is the total of w z z^T, (d, d).
        """

    # -- the M-step ------------------------------------------------------------

    @abstractmethod
    def maximize(
        self, resp_sum: Array, shift: Array, scatter: Array, ridge: Array
    ) -> tuple[Self, Sequence[int]]:
        """Covariances from the scatter about the old means.

        Parameters
        ----------
        resp_sum : (k,) array, all positive
        shift : (k, d) array
            New means less old means.
        scatter : array
            Of the shape of `zeros`.
        ridge : (d, d) array
            What is added to every covariance.
        """

    # -- in and out --------------------------------------------------------------

    @abstractmethod
    def scaled(self, scale: Array) -> Self:
        """The structure after the linear map `scale` (d,) or lower triangular (d, d)."""

    @classmethod
    @abstractmethod
    def from_precisions(cls, precisions: Array) -> Self:
        """From scikit-learn's `precisions_`."""

    @classmethod
    @abstractmethod
    def from_precisions_cholesky(cls, precisions_cholesky: Array) -> Self:
        """From scikit-learn's `precisions_cholesky_`, the inverse of `precisions_cholesky`."""

    @classmethod
    @abstractmethod
    def of_data(cls, covariance: Array, k: int) -> Self:
        """K times the covariance (d, d) of all data, as far as the structure can hold it."""

    @property
    @abstractmethod
    def covariances(self) -> Array:
        """scikit-learn's `covariances_`."""

    @property
    @abstractmethod
    def precisions_cholesky(self) -> Array:
        """scikit-learn's `precisions_cholesky_`."""

    @property
    @abstractmethod
    def precisions(self) -> Array:
        """scikit-learn's `precisions_`."""

    @abstractmethod
    def full(self, k: int, d: int) -> Array:
        """Covariances as (k, d, d) matrices."""

    @abstractmethod
    def traces(self, d: int) -> Array:
        """Trace of each covariance, (k,) or (1,)."""

    @abstractmethod
    def tightness(self) -> Array:
        """A bound on the largest eigenvalue of each precision, (k,) or (1,)."""

    @staticmethod
    @abstractmethod
    def n_parameters(k: int, d: int) -> int:
        """Free parameters of the covariances."""


@record("covariance-full")
@dataclass(frozen=True)
class Full(Covariance):
    """Each component has its own covariance matrix; `factor` is (k, d, d)."""

    kind = "full"
    frame_kind = "matrix"

    @cached_property
    def inverse(self) -> Array:
        """C_k^{-1}, (k, d, d)."""
        return np.stack([inverse_factor(c) for c in self.factor])

    @staticmethod
    def n_features(d: int) -> int:
        return d + d * (d + 1) // 2

    @staticmethod
    def pairs(d: int) -> tuple[Array, Array]:
        return symmetric_pairs(d)

    def natural(self, means: Array) -> Array:
        d = means.shape[1]
        precision = self.inverse.transpose(0, 2, 1) @ self.inverse
        linear = np.einsum("kij,kj->ki", precision, means)
        white = np.einsum("kij,kj->ki", self.inverse, means)
        constant = -0.5 * (d * np.log(2 * np.pi) + (white**2).sum(1)) - self.log_det(d)
        i, j = symmetric_pairs(d)
        quadratic = np.where(i == j, -0.5, -1.0) * precision[:, i, j]
        return np.concatenate([constant[:, None], linear, quadratic], axis=1)

    def features(self, Z: Array, out: Array, work: Array) -> None:
        symmetric_products(Z, work, out[len(Z) :])

    def whitener(self, means: Array) -> tuple[Array, ...]:
        # Rows C_k^{-1} (z - mu_k) of all components, stacked, in strips of a few rows
        # of each triangle, because the upper strips need only the first columns of z.
        d = means.shape[1]
        offset = -np.einsum("kij,kj->ki", self.inverse, means)
        rows = np.concatenate([offset[:, :, None], self.inverse], axis=2)
        ends = [min(start + STRIP, d) for start in range(0, d, STRIP)]
        return tuple(
            rows[:, start:end, : 1 + end].reshape(-1, 1 + end)
            for start, end in zip([0, *ends], ends, strict=False)
        )

    @staticmethod
    def distances(whitener: tuple[Array, ...], phi: Array, out: Array, work: Array) -> None:
        k, b = out.shape
        out[:] = 0.0
        for rows in whitener:
            n, m = rows.shape
            white = np.matmul(rows, phi[:m], out=work[:n]).reshape(k, n // k, b)
            out += np.einsum("kib,kib->kb", white, white, out=work[n : n + k])

    @staticmethod
    def work_rows(k: int, d: int) -> int:
        return max(k * (min(STRIP, d) + 1), 2 * d)

    def log_det(self, d: int) -> Array:
        return np.asarray(np.log(np.diagonal(self.factor, axis1=1, axis2=2)).sum(1))

    @staticmethod
    def zeros(k: int, d: int) -> Array:
        return np.zeros((k, d, d))

    @staticmethod
    def add_scatter(scatter: Array, k: int, D: Array, resp: Array, work: Array) -> None:
        weighted = np.multiply(D, np.sqrt(resp)[:, None], out=work)
        scatter[k] += weighted.T @ weighted

    @staticmethod
    def scatter_of_features(sums: Array, first: Array, resp_sum: Array, means: Array) -> Array:
        k, d = means.shape
        i, j = symmetric_pairs(d)
        about_origin = np.empty((k, d, d))
        about_origin[:, i, j] = sums
        about_origin[:, j, i] = sums
        cross = first[:, :, None] * means[:, None, :]
        square = means[:, :, None] * means[:, None, :]
        return np.asarray(
            about_origin - cross - cross.transpose(0, 2, 1) + resp_sum[:, None, None] * square
        )

    def maximize(
        self, resp_sum: Array, shift: Array, scatter: Array, ridge: Array
    ) -> tuple[Self, Sequence[int]]:
        factor = self.factor.copy()
        collapsed = []
        for k, total in enumerate(resp_sum):
            new = factor_or_none(scatter[k] / total - np.outer(shift[k], shift[k]) + ridge)
            if new is None:
                collapsed.append(k)
            else:
                factor[k] = new
        return type(self)(factor), collapsed

    def scaled(self, scale: Array) -> Self:
        return type(self)(np.stack([apply_scale(scale, c) for c in self.factor]))

    @classmethod
    def from_precisions(cls, precisions: Array) -> Self:
        return cls(np.stack([factor_of_precision(p) for p in precisions]))

    @classmethod
    def from_precisions_cholesky(cls, precisions_cholesky: Array) -> Self:
        return cls(np.stack([inverse_factor(u.T) for u in precisions_cholesky]))

    @classmethod
    def of_data(cls, covariance: Array, k: int) -> Self:
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
        return self.covariances

    def traces(self, d: int) -> Array:
        return np.asarray((self.factor**2).sum((1, 2)))

    def tightness(self) -> Array:
        size = np.abs(self.inverse)
        return np.asarray(size.sum(1).max(1) * size.sum(2).max(1))

    @staticmethod
    def n_parameters(k: int, d: int) -> int:
        return k * d * (d + 1) // 2


@record("covariance-tied")
@dataclass(frozen=True)
class Tied(Covariance):
    """All components share one covariance matrix; `factor` is (d, d).

    The quadratic term of the log-density is the same for all components, so
    one feature carries it: the squared length of C^{-1} z.
    """

    kind = "tied"
    frame_kind = "matrix"
    shared_scatter = True

    @cached_property
    def inverse(self) -> Array:
        """C^{-1}, (d, d)."""
        return inverse_factor(self.factor)

    @staticmethod
    def n_features(d: int) -> int:
        return d + 1

    def natural(self, means: Array) -> Array:
        d = means.shape[1]
        white = means @ self.inverse.T
        constant = -0.5 * (d * np.log(2 * np.pi) + (white**2).sum(1)) - self.log_det(d)
        quadratic = np.full((len(means), 1), -0.5)
        return np.concatenate([constant[:, None], white @ self.inverse, quadratic], axis=1)

    def features(self, Z: Array, out: Array, work: Array) -> None:
        white = np.matmul(self.inverse, Z, out=work[: len(Z)])
        np.einsum("ib,ib->b", white, white, out=out[len(Z)])

    def whitener(self, means: Array) -> tuple[Array, ...]:
        return self.inverse, means @ self.inverse.T

    @staticmethod
    def distances(whitener: tuple[Array, ...], phi: Array, out: Array, work: Array) -> None:
        inverse, white_means = whitener
        d = len(inverse)
        white = np.matmul(inverse, phi[1:], out=work[:d])
        for k, mean in enumerate(white_means):
            deviation = np.subtract(white, mean[:, None], out=work[d : 2 * d])
            np.einsum("ib,ib->b", deviation, deviation, out=out[k])

    def log_det(self, d: int) -> Array:
        return np.asarray(np.log(np.diagonal(self.factor)).sum(keepdims=True))

    @staticmethod
    def zeros(k: int, d: int) -> Array:
        return np.zeros((d, d))

    @staticmethod
    def add_scatter(scatter: Array, k: int, D: Array, resp: Array, work: Array) -> None:
        weighted = np.multiply(D, np.sqrt(resp)[:, None], out=work)
        scatter += weighted.T @ weighted

    @staticmethod
    def scatter_of_features(sums: Array, first: Array, resp_sum: Array, means: Array) -> Array:
        cross = first.T @ means
        return np.asarray(sums - cross - cross.T + (means.T * resp_sum) @ means)

    def maximize(
        self, resp_sum: Array, shift: Array, scatter: Array, ridge: Array
    ) -> tuple[Self, Sequence[int]]:
        within = scatter - (shift.T * resp_sum) @ shift
        new = factor_or_none(within / resp_sum.sum() + ridge)
        if new is None:
            return self, range(len(resp_sum))
        return type(self)(new), ()

    def scaled(self, scale: Array) -> Self:
        return type(self)(apply_scale(scale, self.factor))

    @classmethod
    def from_precisions(cls, precisions: Array) -> Self:
        return cls(factor_of_precision(precisions))

    @classmethod
    def from_precisions_cholesky(cls, precisions_cholesky: Array) -> Self:
        return cls(inverse_factor(precisions_cholesky.T))

    @classmethod
    def of_data(cls, covariance: Array, k: int) -> Self:
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
        return np.broadcast_to(self.covariances, (k, d, d))

    def traces(self, d: int) -> Array:
        return np.asarray([(self.factor**2).sum()])

    def tightness(self) -> Array:
        size = np.abs(self.inverse)
        return np.asarray([size.sum(0).max() * size.sum(1).max()])

    @staticmethod
    def n_parameters(k: int, d: int) -> int:
        return d * (d + 1) // 2


@dataclass(frozen=True)
class Uncorrelated(Covariance):
    """Covariances without off-diagonal entries: `factor` is standard deviations."""

    @classmethod
    def from_precisions(cls, precisions: Array) -> Self:
        return cls(precisions**-0.5)

    @classmethod
    def from_precisions_cholesky(cls, precisions_cholesky: Array) -> Self:
        return cls(1 / precisions_cholesky)

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
    frame_kind = "diagonal"

    @staticmethod
    def n_features(d: int) -> int:
        return 2 * d

    def natural(self, means: Array) -> Array:
        d = means.shape[1]
        precision = self.factor**-2.0
        constant = -0.5 * (d * np.log(2 * np.pi) + (means**2 * precision).sum(1)) - self.log_det(d)
        return np.concatenate([constant[:, None], means * precision, -0.5 * precision], axis=1)

    def features(self, Z: Array, out: Array, work: Array) -> None:
        np.multiply(Z, Z, out=out[len(Z) :])

    def whitener(self, means: Array) -> tuple[Array, ...]:
        return means, 1 / self.factor

    @staticmethod
    def distances(whitener: tuple[Array, ...], phi: Array, out: Array, work: Array) -> None:
        means, inverse = whitener
        deviation = work[: means.shape[1]]
        for k, mean in enumerate(means):
            np.subtract(phi[1:], mean[:, None], out=deviation)
            deviation *= inverse[k][:, None]
            np.einsum("ib,ib->b", deviation, deviation, out=out[k])

    def log_det(self, d: int) -> Array:
        return np.asarray(np.log(self.factor).sum(1))

    @staticmethod
    def zeros(k: int, d: int) -> Array:
        return np.zeros((k, d))

    @staticmethod
    def add_scatter(scatter: Array, k: int, D: Array, resp: Array, work: Array) -> None:
        scatter[k] += resp @ np.multiply(D, D, out=work)

    @staticmethod
    def scatter_of_features(sums: Array, first: Array, resp_sum: Array, means: Array) -> Array:
        return np.asarray(sums - 2 * first * means + resp_sum[:, None] * means**2)

    def maximize(
        self, resp_sum: Array, shift: Array, scatter: Array, ridge: Array
    ) -> tuple[Self, Sequence[int]]:
        variance = scatter / resp_sum[:, None] - shift**2 + np.diagonal(ridge)
        whole = (np.isfinite(variance) & (variance > 0)).all(1)
        factor = np.where(whole[:, None], np.sqrt(np.where(variance > 0, variance, 1)), self.factor)
        return type(self)(factor), np.flatnonzero(~whole).tolist()

    @staticmethod
    def pairs(d: int) -> tuple[Array, Array]:
        return np.arange(d), np.arange(d)

    def scaled(self, scale: Array) -> Self:
        return type(self)(self.factor * scale)

    @classmethod
    def of_data(cls, covariance: Array, k: int) -> Self:
        return cls(np.tile(np.sqrt(np.diagonal(covariance)), (k, 1)))

    def full(self, k: int, d: int) -> Array:
        return np.asarray(self.covariances[:, :, None] * np.eye(d))

    def traces(self, d: int) -> Array:
        return np.asarray((self.factor**2).sum(1))

    def tightness(self) -> Array:
        return np.asarray((self.factor**-2.0).max(1))

    @staticmethod
    def n_parameters(k: int, d: int) -> int:
        return k * d


@record("covariance-spherical")
@dataclass(frozen=True)
class Spherical(Uncorrelated):
    """One variance for all columns of a component; `factor` is the (k,) standard deviations."""

    kind = "spherical"
    frame_kind = "scalar"

    @staticmethod
    def n_features(d: int) -> int:
        return d + 1

    def natural(self, means: Array) -> Array:
        d = means.shape[1]
        precision = self.factor[:, None] ** -2.0
        squares = (means**2).sum(1, keepdims=True) * precision
        constant = -0.5 * (d * np.log(2 * np.pi) + squares) - self.log_det(d)[:, None]
        return np.concatenate([constant, means * precision, -0.5 * precision], axis=1)

    def features(self, Z: Array, out: Array, work: Array) -> None:
        np.einsum("ib,ib->b", Z, Z, out=out[len(Z)])

    def whitener(self, means: Array) -> tuple[Array, ...]:
        return means, np.broadcast_to(1 / self.factor[:, None], means.shape)

    distances = staticmethod(Diagonal.distances)

    def log_det(self, d: int) -> Array:
        return np.asarray(d * np.log(self.factor))

    @staticmethod
    def zeros(k: int, d: int) -> Array:
        return np.zeros(k)

    @staticmethod
    def add_scatter(scatter: Array, k: int, D: Array, resp: Array, work: Array) -> None:
        scatter[k] += (resp @ np.multiply(D, D, out=work)).sum()

    @staticmethod
    def scatter_of_features(sums: Array, first: Array, resp_sum: Array, means: Array) -> Array:
        return np.asarray(sums[:, 0] - 2 * (first * means).sum(1) + resp_sum * (means**2).sum(1))

    def maximize(
        self, resp_sum: Array, shift: Array, scatter: Array, ridge: Array
    ) -> tuple[Self, Sequence[int]]:
        d = shift.shape[1]
        variance = (scatter / resp_sum - (shift**2).sum(1)) / d + np.diagonal(ridge).mean()
        whole = np.isfinite(variance) & (variance > 0)
        factor = np.where(whole, np.sqrt(np.where(variance > 0, variance, 1)), self.factor)
        return type(self)(factor), np.flatnonzero(~whole).tolist()

    def scaled(self, scale: Array) -> Self:
        return type(self)(self.factor * scale.flat[0])

    @classmethod
    def of_data(cls, covariance: Array, k: int) -> Self:
        return cls(np.full(k, np.sqrt(np.diagonal(covariance).mean())))

    def full(self, k: int, d: int) -> Array:
        return np.asarray(self.covariances[:, None, None] * np.eye(d))

    def traces(self, d: int) -> Array:
        return np.asarray(d * self.factor**2)

    def tightness(self) -> Array:
        return np.asarray(self.factor**-2.0)

    @staticmethod
    def n_parameters(k: int, d: int) -> int:
        return k


STRUCTURES: dict[str, type[Covariance]] = {c.kind: c for c in (Full, Tied, Diagonal, Spherical)}
"""The registry: a new structure is a class above and its name here."""
