"""The Gaussian kernel of rows whose noise is known: its covariance stands beside each row."""

from __future__ import annotations

import numpy as np

from ...core.additive import Array
from ...core.family import Kernel, array_bytes
from .diagonals import Uncorrelated
from .noisy_rows import NoisyDiagonals, NoisyMatrices, NoisyRows
from .observed import Sums
from .parameters import GaussianParameters
from .statistics import CompletedStatistics, GaussianStatistics


class NoisyKernel(Kernel[GaussianStatistics]):
    """Give blocks without noise to another kernel, and sum what is expected without it of others.

    Rows are X (b, d + s): behind the columns stand the s numbers of the noise, variances or the
    lower triangle of a matrix. Rows (b, d) have none.

    Parameters
    ----------
    gaussian : GaussianParameters
    plain : Kernel
        Of the same parameters, for rows without noise.
    """

    def __init__(self, gaussian: GaussianParameters, plain: Kernel[GaussianStatistics]) -> None:
        k, d = gaussian.means.shape
        self._gaussian, self._plain = gaussian, plain
        self.block_rows = plain.block_rows
        self._constant = -0.5 * d * np.log(2 * np.pi) - gaussian.whitening.log_det
        self._rows: NoisyRows | None = None
        self._sums = Sums(np.zeros((k, d)), np.zeros(0), np.zeros(k))
        self._block: tuple[Array, Array] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that it holds once it has seen a whole block, at most."""
        k, d = self._gaussian.means.shape
        widest = d * (d + 1) // 2
        # Rows as they are and whitened, and what is computed of them for one component.
        block = 8 * self.block_rows * (4 * d + 2 * widest + k)
        rows = self._rows_of(widest)
        own = array_bytes(self._sums.first) + self._sums_like(rows).scatter.nbytes
        return int(self._plain.nbytes + block + own + rows.nbytes)

    def _rows_of(self, width: int) -> NoisyRows:
        """Return what computes with noise of so many numbers a row."""
        gaussian = self._gaussian
        k, d = gaussian.means.shape
        covariance, whitening = gaussian.covariance, gaussian.whitening
        if not isinstance(covariance, Uncorrelated):
            factor = covariance.factor.reshape(-1, d, d)
            return NoisyMatrices(gaussian.means, factor, whitening.inverse_scale)
        # One variance for all columns is that of each.
        factor = np.broadcast_to(covariance.factor.reshape(k, -1), (k, d))
        if width == d and whitening.scale.ndim == 1:
            return NoisyDiagonals(gaussian.means, factor, whitening.scale)
        matrices = factor[:, :, None] * np.eye(d)
        return NoisyMatrices(gaussian.means, matrices, whitening.inverse_scale)

    def _sums_like(self, rows: NoisyRows) -> Sums:
        """Return zero sums of the shape that `rows` adds to."""
        k, d = self._gaussian.means.shape
        scatter = self._gaussian.covariance.zeros(k, d)
        if isinstance(rows, NoisyMatrices):
            one = self._gaussian.covariance.shared_scatter
            scatter = np.zeros((1 if one else k, d, d))
        return Sums(np.zeros((k, d)), scatter, np.zeros(k))

    def load(self, X: Array) -> None:
        """Take the rows X (b, d) or (b, d + s) as the current block."""
        d = self._gaussian.n_features
        noise = X[:, d:]
        if not noise.any():
            self._block = None
            self._plain.load(X[:, :d])
            return
        if self._rows is None:
            self._rows = self._rows_of(noise.shape[1])
            self._sums = self._sums_like(self._rows)
        if (noise == noise[0]).all():
            # One factorization serves all rows.
            noise = noise[:1]
        whitened = self._gaussian.coordinates(X[:, :d])
        self._block = whitened, np.asarray(noise, dtype=np.float64)

    def log_prob(self) -> Array:
        """Return log N(x; mu_k, Sigma_k + S) of the current block in the units of the data."""
        if self._block is None:
            return self._plain.log_prob()
        assert self._rows is not None
        found = self._rows.log_prob(*self._block)
        found += self._constant
        return found

    def accumulate(self, resp: Array) -> None:
        """Add the current block's expected sums without noise under `resp` (k, b)."""
        if self._block is None:
            self._plain.accumulate(resp)
            return
        assert self._rows is not None
        self._rows.add(*self._block, resp, self._sums)

    def statistics(self) -> CompletedStatistics:
        """Return the sums over all blocks so far, about the current means."""
        found = self._plain.statistics()
        first, scatter = found.first, found.scatter
        # The bits of the plain kernel are kept where it did all.
        if self._rows is not None:
            self._rows.finish(self._sums)
            first, scatter = first + self._sums.first, scatter + self._own_scatter()
        return CompletedStatistics(first, scatter, self._sums.half_log_det.copy())

    def _own_scatter(self) -> Array:
        """Return the scatter in the shape of the covariance structure."""
        scatter, covariance = self._sums.scatter, self._gaussian.covariance
        if not isinstance(self._rows, NoisyMatrices):
            return scatter
        if not isinstance(covariance, Uncorrelated):
            return scatter.reshape(covariance.factor.shape)
        diagonals = np.einsum("kii->ki", scatter)
        return np.asarray(diagonals if covariance.factor.ndim == 2 else diagonals.sum(axis=1))
