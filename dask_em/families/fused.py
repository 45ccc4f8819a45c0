"""Kernels of the Gaussian family on the compiled loops of `simd`: the extra `fast`.

The same mathematics as `GaussianKernel`, and the same protocol. Centred, the flops are
those of the features and nothing cancels, so it is right for any parameters and in
float32 too; and it skips the rows in which a component has no part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..statistics import Array
from . import simd
from .covariance import Diagonal, Full

if TYPE_CHECKING:
    from .gaussian import Gaussian, GaussianStatistics

# Bytes of one block's rows in both layouts, their responsibilities and their deviations.
BLOCK_BYTES = 3 * 2**17
LEAST_ROWS, MOST_ROWS = 480, 3840
# Bytes of the deviations that one component gathers at a time.
GATHERED_BYTES = 24 * 2**10
LEAST_GATHERED = 64
# Bytes of the columns and responsibilities whose moments are summed at a time.
SUMMED_BYTES = 2**16


def round_up(n: int, unit: int) -> int:
    """The least multiple of `unit` that is not less than `n`."""
    return -(-n // unit) * unit


class FusedKernel:
    """What both kernels share: rows in the frame, laid out in tiles.

    Parameters
    ----------
    gaussian : Gaussian
    dtype : float64 or float32
        Of the products; sums are float64.
    """

    def __init__(self, gaussian: Gaussian, dtype: Any = np.float64) -> None:
        k, d = gaussian.means.shape
        self.gaussian = gaussian
        self.dtype = np.dtype(dtype)
        frame = gaussian.frame
        width = simd.tile_columns(dtype)
        # Forty tiles of any register are whole tiles of every other.
        unit = 480
        numbers = BLOCK_BYTES // (self.dtype.itemsize * (2 * d + k))
        self.block_rows = b = min(max(numbers // unit * unit, LEAST_ROWS), MOST_ROWS)
        rotated = frame.scale.ndim == 2
        D = round_up(d, simd.lanes(dtype))
        self._rotate = frame.inverse_scale if rotated else None
        self._scale = np.zeros(D)
        self._scale[:d] = 1.0 if rotated else frame.inverse_scale
        self._shift = np.tile(frame.shift, (b, 1))
        # Reading whole vectors goes beyond the last row.
        self._shifted = np.zeros(b * d + D)
        self._rotated = np.zeros_like(self._shifted if rotated else self._shifted[:0])
        self._Z = np.zeros((b, D), dtype)
        self._columns = np.empty((b // width, d, width), dtype)
        self._padded_components = round_up(k, simd.TILE_ROWS)
        self._out = np.zeros(self._padded_components * b, dtype)
        self._rows = 0
        self._tiles, self._buffer = self._columns[:0], self._out[:0, None]
        self._constant = -0.5 * d * np.log(2 * np.pi) - frame.log_det

    def load(self, X: Array) -> None:
        """Take the rows X (b, d) as the current block, in the frame's coordinates."""
        self._rows = b = len(X)
        d = X.shape[1]
        laid = self._shifted
        rows = laid[: b * d].reshape(b, d)
        np.subtract(X, self._shift[:b], out=rows, dtype=np.float64)
        if self._rotate is not None:
            laid = self._rotated
            np.matmul(rows, self._rotate.T, out=laid[: b * d].reshape(b, d))
        width = self._columns.shape[2]
        n_tiles = -(-b // width)
        self._tiles = tiles = self._columns[:n_tiles]
        # Room for the log-densities of the block, components and rows padded.
        buffer = self._out[: self._padded_components * n_tiles * width]
        self._buffer = buffer.reshape(-1, n_tiles * width)
        # Rows that fill up the last tile must be numbers.
        laid[b * d : n_tiles * width * d] = 0
        simd.place(laid, d, self._scale, self._Z, tiles)


class CentredKernel(FusedKernel):
    """|C_k^{-1} (z - mu_k)|^2 and the scatter about each mean, for full covariances."""

    def __init__(self, gaussian: Gaussian, dtype: Any = np.float64) -> None:
        super().__init__(gaussian, dtype)
        k, d = gaussian.means.shape
        D = self._Z.shape[1]
        # The halved square is the square of what is divided by the root of two.
        assert isinstance(gaussian.covariance, Full)
        whitener = gaussian.covariance.inverse * np.sqrt(0.5)
        self._whitener = pack_lower(whitener).astype(dtype)
        images = np.zeros((k, round_up(d, simd.TILE_ROWS)))
        images[:, :d] = -np.einsum("kij,kj->ki", whitener, gaussian.means)
        self._images = images.astype(dtype)
        self._constants = (self._constant - gaussian.covariance.log_det(d)).astype(dtype)
        self._means = np.zeros((k, D), dtype)
        self._means[:, :d] = gaussian.means
        gathered = max(GATHERED_BYTES // (self.dtype.itemsize * D), LEAST_GATHERED)
        self._deviations = np.empty((gathered, D), dtype)
        self._indices = np.empty(self.block_rows + 1, np.int64)
        self._roots = np.empty(self.block_rows + 1, dtype)
        self._sums = np.empty(D, dtype)
        self._first = np.zeros((k, D))
        self._scatter = np.zeros((k, D, D))

    def log_prob(self) -> Array:
        """log N(x; mu_k, Sigma_k) of the current block, (k, b), for the caller to overwrite."""
        out = self._buffer[: len(self._means)]
        simd.subtract_distances(self._whitener, self._images, self._tiles, self._constants, out)
        return out[:, : self._rows]

    def accumulate(self, resp: Array) -> None:
        """Add the current block's sums under `resp` (k, b)."""
        simd.add_scatter(
            self._Z, self.gaussian.n_features, self._means, np.ascontiguousarray(resp),
            self._indices, self._roots, self._deviations, self._sums, self._first, self._scatter,
        )  # fmt: skip

    def statistics(self) -> GaussianStatistics:
        """Sums over all blocks so far, about the current means."""
        from .gaussian import GaussianStatistics

        d = self.gaussian.n_features
        lower = np.tril(self._scatter[:, :d, :d])
        scatter = lower + np.tril(lower, -1).transpose(0, 2, 1)
        return GaussianStatistics(self._first[:, :d].copy(), scatter)


class FeaturesKernel(FusedKernel):
    """theta (1, z, products) and its transpose, for few columns: products by `structure.pairs`."""

    def __init__(self, gaussian: Gaussian) -> None:
        super().__init__(gaussian)
        k, d = gaussian.means.shape
        structure = gaussian.covariance
        assert isinstance(structure, Full | Diagonal)
        left, right = structure.pairs(d)
        self._n_features = n_features = 1 + d + len(left)
        width = simd.tile_columns(np.float64)
        # A column of ones makes every feature a product of two columns.
        self._columns = np.ones((len(self._columns), d + 1, width))
        padded = round_up(n_features, simd.TILE_VECTORS)
        self._left, self._right = np.full((2, padded), d * width)
        self._left[1:n_features] = width * np.concatenate([np.arange(d), left])
        self._right[1 + d : n_features] = width * right
        self._step = max(SUMMED_BYTES // (8 * width * (d + 1 + self._padded_components)), 1)
        theta = np.zeros((self._padded_components, n_features))
        theta[:k] = structure.natural(gaussian.means)
        theta[:, 0] -= gaussian.frame.log_det
        groups = theta.reshape(-1, simd.TILE_ROWS, n_features)
        self._theta = np.ascontiguousarray(groups.transpose(0, 2, 1))
        self._sums = np.zeros((self._padded_components, padded, simd.lanes(np.float64)))

    def log_prob(self) -> Array:
        """log N(x; mu_k, Sigma_k) of the current block, (k, b), for the caller to overwrite."""
        out = self._buffer
        simd.linear(self._theta, self._tiles, self._left, self._right, out)
        return out[: self.gaussian.n_components, : self._rows]

    def accumulate(self, resp: Array) -> None:
        """Add the current block's sums under `resp` (k, b), in the buffer of `log_prob` or not."""
        buffer = self._buffer
        here = buffer[: len(resp), : self._rows]
        # What `log_prob` gave is where it must be.
        if resp.base is not self._out:
            here[:] = resp
        buffer[len(resp) :] = 0
        buffer[:, self._rows :] = 0
        simd.add_moments(buffer, self._tiles, self._left, self._right, self._step, self._sums)

    def statistics(self) -> GaussianStatistics:
        """Sums over all blocks so far, about the current means."""
        from .gaussian import GaussianStatistics

        means = self.gaussian.means
        k, d = means.shape
        sums = self._sums.sum(axis=2)[:k, : self._n_features]
        resp_sum, moments, quadratic = sums[:, 0], sums[:, 1 : 1 + d], sums[:, 1 + d :]
        scatter = self.gaussian.covariance.scatter_of_features(quadratic, moments, resp_sum, means)
        return GaussianStatistics(moments - resp_sum[:, None] * means, scatter)


def pack_lower(matrices: Array) -> Array:
    """Lower triangular matrices (k, d, d) in the order in which the tiles read them, (k, size).

    Four rows at a time, as far as the last of them reaches, column by column.
    """
    k, d, _ = matrices.shape
    strips = []
    for i in range(0, d, simd.TILE_ROWS):
        reach = min(i + simd.TILE_ROWS, d)
        strip = np.zeros((k, reach, simd.TILE_ROWS))
        strip[:, :, : reach - i] = matrices[:, i:reach, :reach].transpose(0, 2, 1)
        strips.append(strip.reshape(k, -1))
    return np.ascontiguousarray(np.concatenate(strips, axis=1))
