"""The kernel of factor analyzers: Woodbury's identity, and sums of O(d q) a component."""

from __future__ import annotations

import numpy as np

from ...core.additive import Array
from ...core.family import Kernel
from ..gaussian.numpy_kernel import block_rows
from .parameters import FactorParameters
from .statistics import FactorStatistics


class FactorKernel(Kernel[FactorStatistics]):
    """Compute log-densities and statistics of blocks of rows, component by component.

    With z the mean of the factors given x, Woodbury's identity reads

        (x - mu)^T (Lambda Lambda^T + Psi)^-1 (x - mu) = e^T Psi^-1 e + z^T z,
        e = x - mu - Lambda z,

    a sum of squares, in which nothing cancels however small the noise is.

    Parameters
    ----------
    components : FactorParameters
    """

    def __init__(self, components: FactorParameters) -> None:
        k, d, q = components.loadings.shape
        self.components = components
        self.block_rows = b = block_rows(d)
        self._rows = 0
        self._out = np.empty(k * b)
        self._Z = np.empty((b, d))
        self._work = np.empty((2, b, d))
        self._factors = np.empty((k, b, q))
        self._known = False
        self._beta, self._posterior, log_dets = components.posterior()
        noise = np.broadcast_to(components.noise, (k, d))
        self._inverse_noise = 1.0 / noise
        volume = np.log(noise).sum(axis=1) + log_dets + d * np.log(2 * np.pi)
        self._constant = -0.5 * volume - components.whitening.log_det
        self._entropy = 0.5 * (q * (1 + np.log(2 * np.pi)) - log_dets)
        self._total = np.zeros(k)
        self._first, self._squares = np.zeros((k, d)), np.zeros((k, d))
        self._cross, self._latent = np.zeros((k, d, q)), np.zeros((k, q))
        self._products = np.zeros((k, q, q))

    def load(self, X: Array) -> None:
        """Take the rows X (b, d) as the current block, in whitened coordinates."""
        self._rows = b = len(X)
        whitening = self.components.whitening
        np.subtract(X, whitening.shift, out=self._Z[:b], dtype=np.float64)
        self._Z[:b] *= whitening.inverse_scale
        self._known = False

    def log_prob(self) -> Array:
        """Return log N(x; mu_k, Lambda_k Lambda_k^T + Psi_k) of the current block, (k, b)."""
        b, k = self._rows, self.components.n_components
        out = self._out[: k * b].reshape(k, b)
        apart, residual = self._work[:, :b]
        for i, loadings in enumerate(self.components.loadings):
            z = self._means_of_factors(i, apart)
            np.matmul(z, loadings.T, out=residual)
            np.subtract(apart, residual, out=residual)
            residual *= residual
            np.matmul(residual, self._inverse_noise[i], out=out[i])
            out[i] += np.einsum("nq,nq->n", z, z)
        self._known = True
        out *= -0.5
        out += self._constant[:, None]
        return out

    def _means_of_factors(self, component: int, apart: Array) -> Array:
        """Return z (b, q) of the block, and write x - mu into `apart` (b, d)."""
        b = self._rows
        np.subtract(self._Z[:b], self.components.means[component], out=apart)
        return np.matmul(apart, self._beta[component].T, out=self._factors[component, :b])

    def accumulate(self, resp: Array) -> None:
        """Add the current block's sums under `resp` (k, b)."""
        b = self._rows
        for k, r in enumerate(resp):
            apart, work = self._work[:, :b]
            rows = np.flatnonzero(r)
            if len(rows) == 0:
                continue
            if not self._known:
                z = self._means_of_factors(k, apart)
            else:
                z = self._factors[k, :b]
                apart, work = apart[: len(rows)], work[: len(rows)]
                some = self._Z[:b] if len(rows) == b else self._Z[rows]
                z, r = (z, r) if len(rows) == b else (z[rows], r[rows])
                np.subtract(some, self.components.means[k], out=apart)
            weighted = z * r[:, None]
            self._total[k] += r.sum()
            self._first[k] += r @ apart
            self._cross[k] += apart.T @ weighted
            self._latent[k] += weighted.sum(axis=0)
            self._products[k] += z.T @ weighted
            np.multiply(apart, apart, out=work)
            self._squares[k] += r @ work

    def statistics(self) -> FactorStatistics:
        """Return the sums over all blocks so far, about the current means."""
        total = self._total
        return FactorStatistics(
            self._first,
            self._squares,
            self._cross,
            self._latent,
            self._products + total[:, None, None] * self._posterior,
            total * self._entropy,
        )
