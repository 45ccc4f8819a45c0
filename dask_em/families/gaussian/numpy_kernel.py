"""The Gaussian kernel on NumPy's products."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...core.additive import Array
from ...core.family import Kernel, blocks
from ...core.tuning import tuning
from .parameters import GaussianParameters
from .statistics import GaussianStatistics


class GaussianKernel(Kernel[GaussianStatistics]):
    """Compute Gaussian log-densities and statistics of blocks of rows, in buffers made once.

    The log-density is computed in one of two ways, equal within `ALLOWED_LOSS`:

    - by features: theta (1, z, z z^T), one matrix product for all components;
    - centred: |C_k^{-1} (z - mu_k)|^2, the components' factors stacked.

    So are the sums: the responsibilities times the features, or the
    scatter about each mean over the rows in which that component has a
    responsibility other than zero, which never cancels. The second is quicker
    where most responsibilities are exactly zero. Where features are safe, each
    block is computed in the way that was the quicker for the block before it.

    Parameters
    ----------
    gaussian : GaussianParameters
    features_allowed : bool
        False keeps every block on the centred ways.
    """

    def __init__(self, gaussian: GaussianParameters, features_allowed: bool) -> None:
        k, d = gaussian.means.shape
        structure = gaussian.covariance
        self.gaussian = gaussian
        self.structure = structure
        self.features_allowed = self.by_features = features_allowed
        n_features = structure.n_features(d)
        work_rows = structure.work_rows(k, d)
        widest = max(n_features if features_allowed else 0, work_rows)
        self.block_rows = b = block_rows(widest)

        self._rows = 0
        self._out = np.empty(k * b)
        self._phi = np.empty((1 + (n_features if features_allowed else d), b))
        self._phi[0] = 1.0
        self._work = np.empty((work_rows, b))
        self._whitener = structure.whitener(gaussian.means)
        frame_log_det = gaussian.whitening.log_det
        self._constant = -0.5 * d * np.log(2 * np.pi) - structure.log_det(d) - frame_log_det

        self._deferred = 0
        most = tuning().numpy_kernel.deferred // k
        deferred_rows = max(b, min(tuning().numpy_kernel.deferred_rows, most))
        self._deferred_Z = np.empty((deferred_rows, d))
        self._deferred_resp = np.empty((k, deferred_rows))
        self._not_zero = np.empty(k * deferred_rows, dtype=bool)
        self._gathered = np.empty((2, max(tuning().numpy_kernel.gathered // d, 1), d))
        self._first = np.zeros((k, d))
        self._scatter = structure.zeros(k, d)

        if features_allowed:
            self._theta = structure.natural(gaussian.means)
            self._theta[:, 0] -= frame_log_det
            self._sums = np.zeros((k, 1 + n_features))
            self._product = np.empty_like(self._sums)
            self._shared = np.zeros((d, d))

    def load(self, X: Array) -> None:
        """Take the rows X (b, d) as the current block, in whitened coordinates."""
        self._rows = b = len(X)
        d = X.shape[1]
        Z = self._phi[1 : 1 + d, :b]
        self.gaussian.whitening.whiten_columns(X, out=Z, work=self._work[:d, :b])
        if self.by_features:
            self.structure.features(Z, self._phi[1:, :b], self._work[:, :b])

    def log_prob(self) -> Array:
        """Return log N(x; mu_k, Sigma_k) of the current block in the units of the data, (k, b)."""
        k, b = self.gaussian.n_components, self._rows
        out = self._out[: k * b].reshape(k, b)
        if self.by_features:
            np.matmul(self._theta, self._phi[:, :b], out=out)
        else:
            phi = self._phi[: 1 + self.gaussian.n_features, :b]
            self.structure.distances(self._whitener, phi, out, self._work[:, :b])
            out *= -0.5
            out += self._constant[:, None]
        return out

    def accumulate(self, resp: Array) -> None:
        """Add the current block's sums under `resp` (k, b)."""
        dense = self.features_allowed and not self._sparse(resp)
        if dense and self.by_features:
            self._add_features(resp)
            return
        self.by_features = dense
        d, b = self.gaussian.n_features, self._rows
        if self._deferred + b > len(self._deferred_Z):
            self._add_deferred()
        rows = slice(self._deferred, self._deferred + b)
        self._deferred_Z[rows] = self._phi[1 : 1 + d, :b].T
        self._deferred_resp[:, rows] = resp
        self._deferred += b

    def _sparse(self, resp: Array) -> bool:
        """Whether the centred ways, over non-zero responsibilities, cost less than features."""
        k, b = resp.shape
        d = self.gaussian.n_features
        # Counting booleans is many times quicker than counting floats.
        responsible = np.count_nonzero(self._responsible(resp))
        dense = len(self._phi) * (
            tuning().numpy_kernel.feature + 2 * tuning().numpy_kernel.multiply * k
        )
        distances = tuning().numpy_kernel.multiply * k * d * (d / 2 + 12)
        scatter = (
            tuning().numpy_kernel.gather * d * responsible / b
            + tuning().numpy_kernel.call * k / len(self._deferred_Z)
        )
        return bool(distances + scatter < dense)

    def _responsible(self, resp: Array) -> NDArray[np.bool_]:
        """Where `resp` is not zero."""
        return np.not_equal(resp, 0, out=self._not_zero[: resp.size].reshape(resp.shape))

    def _add_features(self, resp: Array) -> None:
        d, b = self.gaussian.n_features, self._rows
        np.matmul(resp, self._phi[:, :b].T, out=self._product)
        self._sums += self._product
        if self.structure.shared_scatter:
            weight = np.sqrt(resp.sum(0))
            weighted = np.multiply(self._phi[1 : 1 + d, :b], weight, out=self._work[:d, :b])
            self._shared += weighted @ weighted.T

    def _add_deferred(self) -> None:
        resp = self._deferred_resp[:, : self._deferred]
        for k, responsible in enumerate(self._responsible(resp)):
            every = np.flatnonzero(responsible)
            whole = len(every) == self._deferred
            for piece in blocks(len(every), self._gathered.shape[1]):
                # Nothing need be gathered where there is nothing to leave out.
                self._add_rows(k, piece if whole else every[piece])
        self._deferred = 0

    def _add_rows(self, k: int, rows: slice | NDArray[np.intp]) -> None:
        """Add the sums of component k over some of the deferred rows."""
        weights = self._deferred_resp[k, rows]
        D, work = self._gathered[:, : len(weights)]
        if isinstance(rows, slice):
            np.subtract(self._deferred_Z[rows], self.gaussian.means[k], out=D)
        else:
            np.take(self._deferred_Z, rows, axis=0, out=D, mode="clip")
            D -= self.gaussian.means[k]
        self._first[k] += weights @ D
        self.structure.add_scatter(self._scatter, k, D, weights, work)

    def statistics(self) -> GaussianStatistics:
        """Return the sums over all blocks so far, about the current means."""
        self._add_deferred()
        first, scatter = self._first, self._scatter
        if self.features_allowed:
            means = self.gaussian.means
            d = means.shape[1]
            resp_sum, moments = self._sums[:, 0], self._sums[:, 1 : 1 + d]
            shared = self.structure.shared_scatter
            quadratic = self._shared if shared else self._sums[:, 1 + d :]
            about_means = self.structure.scatter_of_features(quadratic, moments, resp_sum, means)
            first = first + moments - resp_sum[:, None] * means
            scatter = scatter + about_means
        return GaussianStatistics(first, scatter)


def block_rows(widest: int) -> int:
    """Return how many rows of `widest` numbers stay in cache: an odd multiple of 8.

    Rows that are a power of two apart in memory would fall on the same
    cache lines: 488 rows take 0.7 of the time of 512.
    """
    rows = min(
        max(tuning().numpy_kernel.cached // widest, tuning().numpy_kernel.least_rows),
        tuning().numpy_kernel.most_rows,
    )
    return rows // 16 * 16 - 8
