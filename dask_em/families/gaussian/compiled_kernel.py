"""Kernels of the Gaussian family on the compiled loops of `simd`: the extra `fast`.

The same mathematics as `GaussianKernel`, and the same protocol. Centred, the flops are
those of the features and nothing cancels, so it is right for any parameters and in
float32 too; and it skips the rows in which a component has no part.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.additive import Array
from ...core.family import Kernel, array_bytes
from ...core.tuning import tuning
from . import simd
from .diagonals import Diagonal
from .listed_loops import add_listed_matrices
from .matrices import Full, few_matrices
from .parameters import GaussianParameters
from .statistics import GaussianStatistics

# Where registers are 32 and components enough to share what a tile makes, sums are moments in
# blocks in which more than this share of the responsibilities is not zero (measured on Zen 4
# for d 10..80: the sums take 1.65 to 1.1 times as long by rows that are gathered).
MOST_MOMENT_COLUMNS = 64 if simd.AVX512 else 0


def round_up(n: int, unit: int) -> int:
    """Return the least multiple of `unit` that is not less than `n`."""
    return -(-n // unit) * unit


class FusedKernel(Kernel[GaussianStatistics]):
    """Whiten rows and lay them out in tiles: the base of both kernels.

    Parameters
    ----------
    gaussian : GaussianParameters
    dtype : float64 or float32
        Of the products; sums are float64.
    one : bool
        Whether the columns are followed by one of ones.
    """

    def __init__(
        self, gaussian: GaussianParameters, dtype: Any = np.float64, one: bool = False
    ) -> None:
        k, d = gaussian.means.shape
        self.gaussian = gaussian
        self.dtype = np.dtype(dtype)
        whitening = gaussian.whitening
        width = simd.tile_columns(dtype)
        # Forty tiles of any register are whole tiles of every other.
        self._unit = unit = 480
        numbers = tuning().compiled_kernel.block_bytes // (self.dtype.itemsize * (2 * d + k))
        self.block_rows = min(
            max(numbers // unit * unit, tuning().compiled_kernel.least_rows),
            tuning().compiled_kernel.most_rows,
        )
        rotated = whitening.scale.ndim == 2
        self._width, self._one, self._D = width, one, round_up(d, simd.lanes(dtype))
        self._rotate = whitening.inverse_scale if rotated else None
        self._scale = np.zeros(self._D)
        self._scale[:d] = 1.0 if rotated else whitening.inverse_scale
        self._padded_components = round_up(k, simd.TILE_ROWS)
        self._reserve(0)
        self._rows = 0
        self._tiles, self._buffer = self._columns, self._out[:, None]
        self._constant = -0.5 * d * np.log(2 * np.pi) - whitening.log_det

    def _reserve(self, b: int) -> None:
        """Make room for blocks of b rows: the small ones of small data need little."""
        whitening = self.gaussian.whitening
        d, dtype = len(whitening.shift), self.dtype
        self._shift = np.tile(whitening.shift, (b, 1))
        # Reading whole vectors goes beyond the last row.
        self._shifted = np.zeros(b * d + self._D)
        self._rotated = np.zeros_like(self._shifted[: None if self._rotate is not None else 0])
        self._Z = np.zeros((b, self._D), dtype)
        self._columns = np.ones((b // self._width, d + self._one, self._width), dtype)
        self._out = np.zeros(self._padded_components * b, dtype)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds when it has seen a block of all its rows, the family's apart."""
        d = self.gaussian.n_features
        doubles = d * (2 if self._rotate is None else 3)
        others = self._D + d + self._one + self._padded_components
        room = self.block_rows - len(self._Z)
        return super().nbytes + room * int(8 * doubles + self.dtype.itemsize * others)

    def load(self, X: Array) -> None:
        """Take the rows X (b, d) as the current block, in whitened coordinates."""
        self._rows = b = len(X)
        d = X.shape[1]
        if b > len(self._Z):
            self._reserve(round_up(b, self._unit))
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

    def _new_moments(self) -> Moments:
        return Moments(self.gaussian, self._width, self._padded_components)

    def _add_moments(self, moments: Moments, resp: Array) -> None:
        """Add the moments of the current block under `resp`, in the buffer or not."""
        buffer = self._buffer
        here = buffer[: len(resp), : self._rows]
        # What `log_prob` gave is where it must be.
        if resp.base is not self._out:
            here[:] = resp
        buffer[len(resp) :] = 0
        buffer[:, self._rows :] = 0
        moments.add(buffer, self._tiles)


class Moments:
    """Sum 1, z and products of columns, by `structure.pairs`.

    Parameters
    ----------
    gaussian : GaussianParameters
        Of full or diagonal covariances.
    width : int
        Rows of a tile of columns, of which the last column is ones.
    padded_components : int
        Components that the responsibilities have room for.
    """

    def __init__(self, gaussian: GaussianParameters, width: int, padded_components: int) -> None:
        d = gaussian.n_features
        assert isinstance(gaussian.covariance, Full | Diagonal)
        left, right = gaussian.covariance.pairs(d)
        self.gaussian = gaussian
        self.n_features = n_features = 1 + d + len(left)
        padded = round_up(n_features, simd.TILE_VECTORS)
        # A column of ones makes every feature a product of two columns.
        self.left, self.right = np.full((2, padded), d * width)
        self.left[1:n_features] = width * np.concatenate([np.arange(d), left])
        self.right[1 + d : n_features] = width * right
        self._step = max(
            tuning().compiled_kernel.summed_bytes // (8 * width * (d + 1 + simd.TALL_ROWS)), 1
        )
        groups = -(-padded_components // simd.TALL_ROWS)
        self._sums = np.zeros((groups, padded, simd.TALL_ROWS))

    @property
    def nbytes(self) -> int:
        """Bytes of the sums, of their copy in order, and of what says where their columns are."""
        return array_bytes(*vars(self).values()) + self._sums.nbytes

    def add(self, resp: Array, tiles: Array) -> None:
        """Add the moments of the rows in `tiles` under `resp`, both padded."""
        simd.add_moments(resp, tiles, self.left, self.right, self._step, self._sums)

    def statistics(self) -> GaussianStatistics:
        """Return the sums of all rows so far, about the current means."""
        means = self.gaussian.means
        k, d = means.shape
        by_components = self._sums.transpose(0, 2, 1).reshape(-1, self._sums.shape[1])
        sums = by_components[:k, : self.n_features]
        resp_sum, first, quadratic = sums[:, 0], sums[:, 1 : 1 + d], sums[:, 1 + d :]
        scatter = self.gaussian.covariance.scatter_of_features(quadratic, first, resp_sum, means)
        return GaussianStatistics(first - resp_sum[:, None] * means, scatter)


class CentredKernel(FusedKernel):
    """Compute |C_k^{-1} (z - mu_k)|^2 and the scatter about each mean, for full covariances.

    Where features are safe and not too many, the sums of a block in which most
    responsibilities count are moments: no rows need be gathered for them.
    """

    def __init__(self, gaussian: GaussianParameters, dtype: Any = np.float64) -> None:
        k, d = gaussian.means.shape
        cheaper = d <= MOST_MOMENT_COLUMNS and k >= simd.TALL_ROWS
        double = np.dtype(dtype) == np.float64
        by_moments = cheaper and double and gaussian.features_are_safe
        super().__init__(gaussian, dtype, one=by_moments)
        self._moments = self._new_moments() if by_moments else None
        D = self._D
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
        gathered = max(
            tuning().compiled_kernel.gathered_bytes // (self.dtype.itemsize * D),
            tuning().compiled_kernel.least_gathered,
        )
        self._deviations = np.empty((gathered, D), dtype)
        self._indices = np.empty(self.block_rows + 1, np.int64)
        self._roots = np.empty(self.block_rows + 1, dtype)
        self._sums = np.empty(D, dtype)
        self._first = np.zeros((k, D))
        self._scatter = np.zeros((k, D, D))

    @property
    def nbytes(self) -> int:
        """Bytes that it holds when it has seen a block of all its rows, the family's apart."""
        if self._moments is None:
            return super().nbytes
        # The statistics of the moments are added to those of the rows that were gathered.
        return super().nbytes + self._moments.nbytes + self._scatter.nbytes

    def log_prob(self) -> Array:
        """Return log N(x; mu_k, Sigma_k) of the block (k, b), for the caller to overwrite."""
        out = self._buffer[: len(self._means)]
        simd.subtract_distances(
            self._whitener, self._images, self._tiles, self.gaussian.n_features,
            self._constants, out,
        )  # fmt: skip
        return out[:, : self._rows]

    def accumulate(self, resp: Array) -> None:
        """Add the current block's sums under `resp` (k, b)."""
        if (
            self._moments is not None
            and simd.count_nonzero(resp) > tuning().compiled_kernel.least_count * resp.size
        ):
            self._add_moments(self._moments, resp)
            return
        simd.add_scatter(
            self._Z, self.gaussian.n_features, self._means, np.ascontiguousarray(resp),
            self._indices, self._roots, self._deviations, self._sums, self._first, self._scatter,
        )  # fmt: skip

    @property
    def packed(self) -> tuple[Array, Array, Array]:
        """Return whiteners, minus the images of the means, and constants, as loops read them."""
        return self._whitener, self._images, self._constants

    def add_listed(
        self, Z: Array, starts: Array, rows: Array, resp: Array, offsets: Array, roots: Array
    ) -> None:
        """Add the sums of listed pairs of whitened rows Z (b, D) and components.

        Parameters
        ----------
        Z, starts, rows, resp, offsets, roots
            See `listed_loops.add_listed_matrices`.
        """
        add_listed_matrices(
            Z, self.gaussian.n_features, self._means, starts, rows, resp, offsets, roots,
            self._deviations, self._sums, self._first, self._scatter,
        )  # fmt: skip

    def statistics(self) -> GaussianStatistics:
        """Return the sums over all blocks so far, about the current means."""
        d = self.gaussian.n_features
        scatter = np.tril(self._scatter[:, :d, :d])
        for some in few_matrices(len(scatter), d):
            scatter[some] += np.tril(scatter[some], -1).transpose(0, 2, 1)
        first = self._first[:, :d].copy()
        if self._moments is not None:
            more = self._moments.statistics()
            first += more.first
            scatter += more.scatter
        return GaussianStatistics(first, scatter)


class FeaturesKernel(FusedKernel):
    """Compute theta (1, z, products) and its transpose, for few columns.

    The products are those of `structure.pairs`.
    """

    def __init__(self, gaussian: GaussianParameters) -> None:
        super().__init__(gaussian, one=True)
        self._moments = self._new_moments()
        structure = gaussian.covariance
        assert isinstance(structure, Full | Diagonal)
        theta = np.zeros((self._padded_components, self._moments.n_features))
        theta[: gaussian.n_components] = structure.natural(gaussian.means)
        theta[:, 0] -= gaussian.whitening.log_det
        self._theta = pack_groups(theta)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds when it has seen a block of all its rows, the family's apart."""
        return super().nbytes + self._moments.nbytes

    def log_prob(self) -> Array:
        """Return log N(x; mu_k, Sigma_k) of the block (k, b), for the caller to overwrite."""
        out = self._buffer
        simd.linear(self._theta, self._tiles, self._moments.left, self._moments.right, out)
        return out[: self.gaussian.n_components, : self._rows]

    def accumulate(self, resp: Array) -> None:
        """Add the current block's sums under `resp` (k, b)."""
        self._add_moments(self._moments, resp)

    def statistics(self) -> GaussianStatistics:
        """Return the sums over all blocks so far, about the current means."""
        return self._moments.statistics()


def pack_lower(matrices: Array) -> Array:
    """Return triangular matrices (k, d, d) in the order in which the tiles read them, (k, size).

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


def pack_groups(theta: Array) -> Array:
    """Return coefficients (k, F) in the order in which `simd.linear` reads them, (k * F,)."""
    k = len(theta)
    tall = k // simd.TALL_ROWS * simd.TALL_ROWS
    sizes = [simd.TALL_ROWS] * (tall // simd.TALL_ROWS)
    sizes += [simd.TILE_ROWS] * ((k - tall) // simd.TILE_ROWS)
    ends = np.cumsum(sizes)
    groups = [theta[end - size : end].T.ravel() for end, size in zip(ends, sizes, strict=True)]
    return np.concatenate(groups)
