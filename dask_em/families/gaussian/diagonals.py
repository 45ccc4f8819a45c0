"""Covariances stored as standard deviations: of each column, or one for all columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ...core.additive import Array
from ...core.codec import record
from .covariance import Covariance


@dataclass(frozen=True)
class Uncorrelated(Covariance):
    """Covariances without off-diagonal entries: `factor` is standard deviations."""

    def factorized(self, covariances: Array, k: int) -> tuple[Self, Sequence[int]]:
        usable = np.isfinite(covariances) & (covariances > 0)
        whole = usable.reshape(k, -1).all(axis=1)
        roots = np.sqrt(np.where(covariances > 0, covariances, 1))
        keep = whole.reshape(-1, *[1] * (covariances.ndim - 1))
        return type(self)(np.where(keep, roots, self.factor)), np.flatnonzero(~whole).tolist()

    @staticmethod
    def positive(factor: Array) -> Array:
        return factor

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
    compiled = True
    whitening_kind = "diagonal"

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

    def unconstrained(self, resp_sum: Array, shift: Array, scatter: Array, ridge: Array) -> Array:
        return np.asarray(scatter / resp_sum[:, None] - shift**2 + np.diagonal(ridge))

    @staticmethod
    def log_dets(covariances: Array) -> Array:
        return np.asarray(np.log(np.einsum("nii->ni", covariances)).sum(1))

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


@record("covariance-spherical")
@dataclass(frozen=True)
class Spherical(Uncorrelated):
    """One variance for all columns of a component; `factor` is the (k,) standard deviations."""

    kind = "spherical"
    whitening_kind = "scalar"

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

    def unconstrained(self, resp_sum: Array, shift: Array, scatter: Array, ridge: Array) -> Array:
        d = shift.shape[1]
        within = (scatter / resp_sum - (shift**2).sum(1)) / d
        return np.asarray(within + np.diagonal(ridge).mean())

    def recentred(self, scatter: Array, first: Array, resp_sum: Array, shift: Array) -> Array:
        return self.scatter_of_features(scatter[:, None], first, resp_sum, shift)

    @staticmethod
    def log_dets(covariances: Array) -> Array:
        diagonal = np.einsum("nii->ni", covariances)
        return np.asarray(diagonal.shape[1] * np.log(diagonal.mean(1)))

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
