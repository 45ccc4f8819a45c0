"""Coordinates of single columns, in which a value is known whatever the others are."""

from __future__ import annotations

import numpy as np

from ...core.additive import Array
from ...core.engine import NUMPY, Engine
from .diagonals import Uncorrelated
from .observed import ObservedColumns, Sums
from .observed_diagonals import ObservedDiagonals
from .observed_matrices import ObservedMatrices
from .parameters import GaussianParameters
from .patterns import Patterns
from .whitening import apply_scale


class ColumnCoordinates:
    """Shift and scale each column alone, so that a value is known whatever the others are.

    Parameters
    ----------
    gaussian : GaussianParameters
        Whose whitening is of each column alone, or mixes them.
    engine : Engine
        What computes rows that share no pattern.

    Attributes
    ----------
    shift, width : (d,) arrays
        Of each column, in the units of the data.
    log_factor : (d,) array
        What a column that is observed adds to a log-density, in the units of the data.
    observed : ObservedColumns
        What computes in these coordinates.
    """

    def __init__(self, gaussian: GaussianParameters, engine: Engine = NUMPY) -> None:
        whitening, covariance, means = gaussian.whitening, gaussian.covariance, gaussian.means
        scale = whitening.scale
        self.shift = whitening.shift
        self._from_whitened: Array | None = None
        if scale.ndim == 1:
            width = scale
        else:
            width = np.sqrt((scale**2).sum(axis=1))
            self._from_whitened = scale / width[:, None]
            means = apply_scale(self._from_whitened, means.T).T
            covariance = covariance.scaled(self._from_whitened)
        self.width = width
        self.log_factor = -0.5 * np.log(2 * np.pi) - np.log(width)
        k, d = means.shape
        self.observed: ObservedColumns
        if isinstance(covariance, Uncorrelated):
            variances = np.broadcast_to(covariance.variances(d), (k, d))
            self.observed = ObservedDiagonals(means, variances)
        else:
            own = GaussianParameters(means, covariance, whitening)
            factor = covariance.factor.reshape(-1, d, d)
            self.observed = ObservedMatrices(
                means, factor, own.features_are_safe, engine.name == "numba"
            )

    def take(self, X: Array, patterns: Patterns) -> Array:
        """Return rows (n, d) in the order of their patterns, zero where a value is missing."""
        Z = np.take(X, patterns.order, axis=0).astype(np.float64)
        Z -= self.shift
        Z /= self.width
        Z[patterns.missing] = 0.0
        return Z

    def log_prob(self, Z: Array, patterns: Patterns) -> Array:
        """Return log p(x_o | k) in the units of the data, in the order of the rows, (k, n)."""
        found = self.observed.log_prob(Z, patterns)
        found += ~patterns.missing @ self.log_factor
        out = np.empty_like(found)
        out[:, patterns.order] = found
        return out

    def add(self, Z: Array, patterns: Patterns, resp: Array, sums: Sums) -> Array:
        """Add completed sums under `resp` (k, n); return the rest of the missing ones' entropy.

        Of a value it is that of a unit normal in the units of the data, under each component (k,).
        """
        ordered = np.take(resp, patterns.order, axis=1)
        self.observed.add(Z, patterns, ordered, sums)
        return np.asarray(ordered @ (patterns.missing @ (0.5 - self.log_factor)))

    def whitened(self, sums: Sums) -> tuple[Array, Array]:
        """Return first and scatter of these coordinates as those of the whitened ones."""
        if self._from_whitened is None:
            return sums.first, sums.scatter
        inverse = np.linalg.inv(self._from_whitened)
        return sums.first @ inverse.T, inverse @ sums.scatter @ inverse.T

    def completed(self, component: int, mean: Array, Z: Array, patterns: Patterns) -> Array:
        """Return rows with the conditional means of one component, in the units of the data."""
        D = self.observed.completed(component, Z, patterns)
        out = np.empty_like(D)
        out[patterns.order] = D * self.width
        return np.asarray(out + mean)
