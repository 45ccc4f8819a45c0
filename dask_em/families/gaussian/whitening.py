"""Whitened coordinates: data shifted and scaled so that nothing cancels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ...core.additive import Array
from ...core.codec import record
from ...core.tuning import tuning
from ...errors import DataError
from .factors import inverse_factor, solve_triangular

WhiteningKind = Literal["scalar", "diagonal", "matrix"]


@record("whitening")
@dataclass(frozen=True)
class Whitening:
    """The affine map x = shift + scale z between the data x and the whitened z.

    Attributes
    ----------
    shift : (d,) array
        Origin of the whitened coordinates, in the units of the data.
    scale : (d,) or (d, d) array
        Width of each column, or a lower triangular matrix.

    Examples
    --------
    >>> whitening = Whitening(shift=np.array([5.0, 0.0]), scale=np.array([2.0, 10.0]))
    >>> whitening.whiten(np.array([[7.0, 30.0]])).tolist()
    [[1.0, 3.0]]
    >>> whitening.unwhiten(np.array([[1.0, 3.0]])).tolist()
    [[7.0, 30.0]]
    """

    shift: Array
    scale: Array

    @classmethod
    def of_moments(cls, mean: Array, covariance: Array, kind: WhiteningKind) -> Whitening:
        """Return the coordinates in which data of this mean and covariance have about unit spread.

        Parameters
        ----------
        mean : (d,) array
        covariance : (d, d) array
        kind : {"scalar", "diagonal", "matrix"}
            The largest group of maps that leaves a family closed: one scale
            for all columns, one for each, or any triangular matrix. A matrix
            is used only where the columns are collinear.
        """
        plain = cls.of_variances(mean, np.diagonal(covariance), kind == "scalar")
        width = plain.scale
        if kind == "matrix":
            correlation = covariance / np.outer(width, width)
            correlation = (correlation + correlation.T) / 2
            if _is_collinear(correlation):
                return cls(
                    mean,
                    width[:, None]
                    * ridged_factor(correlation, tuning().numerics.correlation_ridge),
                )
        return plain

    @classmethod
    def of_variances(cls, mean: Array, variances: Array, alike: bool) -> Whitening:
        """Return coordinates by mean and variances (d,) of columns, of one scale where `alike`."""
        variance = np.full_like(variances, variances.mean()) if alike else variances
        return cls(mean, np.sqrt(np.where(variance > 0, variance, 1.0)))

    @cached_property
    def inverse_scale(self) -> Array:
        """(d,) or (d, d): z = inverse_scale (x - shift)."""
        if self.scale.ndim == 1:
            return 1.0 / self.scale
        return inverse_factor(self.scale)

    @property
    def log_det(self) -> float:
        """Logarithm of the volume of their unit cube, in the units of the data."""
        diagonal = self.scale if self.scale.ndim == 1 else np.diagonal(self.scale)
        return float(np.log(diagonal).sum())

    def whiten_columns(self, X: Array, out: Array, work: Array) -> Array:
        """Write rows X (n, d) of any numeric dtype as whitened columns Z (d, n) into `out`.

        `work` is (d, n).
        """
        if self.scale.ndim == 1:
            np.subtract(X.T, self.shift[:, None], out=out, dtype=np.float64)
            out *= self.inverse_scale[:, None]
        else:
            np.subtract(X.T, self.shift[:, None], out=work, dtype=np.float64)
            np.matmul(self.inverse_scale, work, out=out)
        return out

    def whiten(self, points: Array) -> Array:
        """Return points (k, d) of the data as points (k, d) whitened."""
        centred = np.asarray(points, dtype=np.float64) - self.shift
        if self.scale.ndim == 1:
            return centred * self.inverse_scale
        return solve_triangular(self.scale, centred.T).T

    def unwhiten(self, points: Array) -> Array:
        """Return points (k, d) whitened as points (k, d) of the data."""
        return np.asarray(self.shift + apply_scale(self.scale, points.T).T)


def _is_collinear(correlation: Array) -> bool:
    """Tell whether a correlation matrix (d, d) is too badly conditioned to work in its columns."""
    most = tuning().numerics.collinear
    centre = np.diagonal(correlation)
    radius = np.abs(correlation).sum(axis=1) - np.abs(centre)
    # Its eigenvalues lie in Gershgorin's discs: where these say enough, d^3 products are saved.
    if (centre - radius).min() * most >= (centre + radius).max():
        return False
    eigenvalues = np.linalg.eigvalsh(correlation)
    return bool(eigenvalues[0] * most < eigenvalues[-1])


def ridged_factor(covariance: Array, ridge: float) -> Array:
    """Compute the Cholesky factor of a covariance (d, d) after the least ridge that allows one."""
    while np.isfinite(ridge):
        try:
            return np.asarray(np.linalg.cholesky(covariance + ridge * np.eye(len(covariance))))
        except np.linalg.LinAlgError:
            ridge *= 10
    raise DataError("the covariance of X is not a finite matrix: are there values beyond 1e150?")


def apply_scale(scale: Array, columns: Array) -> Array:
    """Compute `scale` @ `columns`, for a diagonal (d,) or a matrix (d, d) `scale`."""
    return np.asarray(scale[:, None] * columns if scale.ndim == 1 else scale @ columns)
