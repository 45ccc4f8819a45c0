"""How far apart joint log-densities must be for rounding not to decide which is the larger."""

from __future__ import annotations

import numpy as np

from ...core.additive import Array
from ...core.family import Kernel
from .compiled_kernel import CentredKernel, FeaturesKernel
from .matrices import Full
from .parameters import GaussianParameters
from .statistics import GaussianStatistics

# Bounds of rounding errors, of four values, are taken twice.
_SAFETY = 8.0


class LabelMargins:
    """Bound what a kernel of all components, and the listed pairs, lose by rounding.

    A whitened deviation y = W (z - mu) of a row, half of whose square is taken from a constant, is
    wrong by some eps (|W| |z| + |W| |mu|), and its square by 2 |y| times that. Of features all
    terms of the square count, also those that cancel.

    Parameters
    ----------
    gaussian : GaussianParameters
        Of full or diagonal covariances.
    kernel : Kernel
        What computes all components.
    """

    def __init__(self, gaussian: GaussianParameters, kernel: Kernel[GaussianStatistics]) -> None:
        d, covariance = gaussian.n_features, gaussian.covariance
        dtype = kernel.dtype if isinstance(kernel, CentredKernel) else np.dtype(np.float64)
        self._largest = float(np.finfo(dtype).max)
        self._n_terms = d + 8
        self._eps, double = float(np.finfo(dtype).eps), float(np.finfo(np.float64).eps)
        n_features = covariance.n_features(d) if isinstance(kernel, FeaturesKernel) else 0
        self._of_features = double * n_features
        inverse = covariance.inverse if isinstance(covariance, Full) else 1 / covariance.factor
        with np.errstate(all="ignore"):
            norms = np.sqrt((inverse**2).reshape(len(inverse), -1).sum(axis=1) / 2)
            self._norm = float(norms.max())
            self._of_means = float((norms * np.sqrt((gaussian.means**2).sum(axis=1))).max())
        whitening = gaussian.whitening
        rotated = whitening.scale.ndim == 2
        # Of the product that rotates rows, whose order of additions is of their number.
        rotation = float(np.sqrt((whitening.inverse_scale**2).sum())) if rotated else 0.0
        self._of_rotation = double * d * rotation * self._norm
        self._peaks = gaussian.log_peaks

    def of(self, Z: Array, raw: Array, best: Array, log_prior: Array) -> Array:
        """Return what the largest joint density of each row must be ahead of all others, (b,).

        Parameters
        ----------
        Z : (b, d) array
            Whitened rows.
        raw : (b, d) array
            The same before they are rotated.
        best : (b,) array
            A joint log-density of each row, no larger than the largest.
        log_prior : (k,) array
        """
        tops = self._peaks + log_prior
        tops = tops[np.isfinite(tops)]
        highest, size = tops.max(initial=-np.inf), np.abs(tops).max(initial=0.0)
        size += np.abs(self._peaks).max()
        with np.errstate(all="ignore"):
            reach = self._norm * np.sqrt(np.einsum("bd,bd->b", Z, Z)) + self._of_means
            error = self._n_terms * self._eps * reach
            if self._of_rotation:
                error += self._of_rotation * np.sqrt(np.einsum("bd,bd->b", raw, raw))
            square = np.maximum(highest - best, 0.0)
            margin = error * (np.sqrt(square) + error)
            margin += self._n_terms * self._eps * (square + size + 1.0)
            margin += self._of_features * reach**2
            # Nothing is known of what overflows.
            return np.where(reach**2 < 1e-6 * self._largest, _SAFETY * margin, np.inf)
