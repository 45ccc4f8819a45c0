"""The kernel of factor analyzers: Woodbury's identity, and sums of O(d q) a component."""

from __future__ import annotations

import numpy as np

from ...core.additive import Array
from ...core.family import Kernel
from ...core.tuning import tuning
from ..gaussian.numpy_kernel import block_rows
from .parameters import FactorParameters
from .statistics import FactorStatistics


class FactorKernel(Kernel[FactorStatistics]):
    """Compute log-densities and statistics of blocks of rows, component by component.

    With z the mean of the factors given x, Woodbury's identity reads

        (x - mu)^T (Lambda Lambda^T + Psi)^-1 (x - mu) = e^T Psi^-1 e + z^T z,
        e = x - mu - Lambda z,

    a sum of squares, in which nothing cancels however small the noise is. Where no noise is small
    beside the widths of the columns, two products of a block with all components are as exact, and
    take a third of the time:

        (x - mu)^T Psi^-1 (x - mu) - z^T (I + Lambda^T Psi^-1 Lambda) z,

    of which the first is that of x^2 and x.

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
        self._exact = bool(noise.min(initial=np.inf) < tuning().factor.exact_below)
        scaled = components.means * self._inverse_noise
        self._linear = np.concatenate([self._beta.reshape(k * q, d), scaled])
        self._offsets = np.einsum("kqd,kd->kq", self._beta, components.means)
        self._squared_means = (components.means * scaled).sum(axis=1)
        self._precision = np.linalg.inv(self._posterior)
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
        if self._exact:
            self._add_residuals(out)
        else:
            self._add_products(out)
        self._known = True
        out *= -0.5
        out += self._constant[:, None]
        return out

    def _add_products(self, out: Array) -> None:
        """Write the squared distances of the block to each component (k, b), by products of all."""
        (k, b), q = out.shape, self.components.n_factors
        Z, squares = self._Z[:b], self._work[0, :b]
        np.multiply(Z, Z, out=squares)
        np.matmul(self._inverse_noise, squares.T, out=out)
        found = self._linear @ Z.T
        for i in range(k):
            z = self._factors[i, :b]
            np.subtract(found[i * q : (i + 1) * q].T, self._offsets[i], out=z)
            out[i] += self._squared_means[i] - 2 * found[k * q + i]
            out[i] -= np.einsum("nq,nq->n", z @ self._precision[i], z)

    def _add_residuals(self, out: Array) -> None:
        """Write the squared distances of the block to each component (k, b), by residuals."""
        apart, residual = self._work[:, : out.shape[1]]
        for i, loadings in enumerate(self.components.loadings):
            z = self._means_of_factors(i, apart)
            np.matmul(z, loadings.T, out=residual)
            np.subtract(apart, residual, out=residual)
            residual *= residual
            np.matmul(residual, self._inverse_noise[i], out=out[i])
            out[i] += np.einsum("nq,nq->n", z, z)

    def _means_of_factors(self, component: int, apart: Array) -> Array:
        """Return z (b, q) of the block, and write x - mu into `apart` (b, d)."""
        b = self._rows
        np.subtract(self._Z[:b], self.components.means[component], out=apart)
        return np.matmul(apart, self._beta[component].T, out=self._factors[component, :b])

    def accumulate(self, resp: Array) -> None:
        """Add the current block's sums under `resp` (k, b)."""
        if self._exact or not self._known:
            self._add_apart(resp)
        elif np.count_nonzero(resp) < tuning().factor.dense * resp.size:
            self._add_some(resp)
        else:
            self._add_all(resp)

    def _add_all(self, resp: Array) -> None:
        """Add sums about the origin, by products of the block with all components."""
        (k, b), q = resp.shape, self.components.n_factors
        right = np.empty((k, q + 1, b))
        np.multiply(np.swapaxes(self._factors[:, :b], 1, 2), resp[:, None], out=right[:, :q])
        right[:, q] = resp
        found = (right.reshape(-1, b) @ self._Z[:b]).reshape(k, q + 1, -1)
        self._cross += np.swapaxes(found[:, :q], 1, 2)
        self._first += found[:, q]
        self._squares += resp @ self._work[0, :b]
        self._total += resp.sum(axis=1)
        self._latent += right[:, :q].sum(axis=2)
        self._products += right[:, :q] @ self._factors[:, :b]

    def _add_some(self, resp: Array) -> None:
        """Add sums about the origin, of each component by the rows that it has."""
        b = self._rows
        for k, of_all in enumerate(resp):
            rows = np.flatnonzero(of_all)
            if len(rows) == 0:
                continue
            r, z, Z = of_all[rows], self._factors[k, rows], self._Z[:b][rows]
            weighted = z * r[:, None]
            self._total[k] += r.sum()
            self._first[k] += r @ Z
            self._cross[k] += Z.T @ weighted
            self._latent[k] += weighted.sum(axis=0)
            self._products[k] += z.T @ weighted
            Z *= Z
            self._squares[k] += r @ Z

    def _add_apart(self, resp: Array) -> None:
        """Add sums about the means."""
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
            first, latent = r @ apart, weighted.sum(axis=0)
            cross = apart.T @ weighted
            np.multiply(apart, apart, out=work)
            squares = r @ work
            total = r.sum()
            if not self._exact:
                # All sums of this kernel are about the origin.
                mean = self.components.means[k]
                squares += mean * (2 * first + total * mean)
                cross += mean[:, None] * latent
                first += total * mean
            self._total[k] += total
            self._first[k] += first
            self._cross[k] += cross
            self._latent[k] += latent
            self._products[k] += z.T @ weighted
            self._squares[k] += squares

    def statistics(self) -> FactorStatistics:
        """Return the sums over all blocks so far, about the current means."""
        total, means = self._total, self.components.means
        first, squares, cross = self._first, self._squares, self._cross
        if not self._exact:
            cross = cross - means[:, :, None] * self._latent[:, None, :]
            squares = squares - means * (2 * first - total[:, None] * means)
            first = first - total[:, None] * means
        return FactorStatistics(
            first,
            squares,
            cross,
            self._latent,
            self._products + total[:, None, None] * self._posterior,
            total * self._entropy,
        )
