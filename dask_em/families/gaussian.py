"""Gaussian components and the kernel that evaluates them and sums their statistics."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..frame import Frame
from ..statistics import Additive, Array
from .base import NUMPY, Engine, Kernel, blocks
from .covariance import Covariance

# The features kernel loses about eps * amplification of a covariance's digits
# (measured: tests/test_kernels.py). Above this share of a covariance the centred
# kernel takes over.
ALLOWED_LOSS = 1e-10
# Doubles in a block's features, which are made, multiplied by theta, and multiplied
# by the responsibilities: within the level-3 cache. Smaller blocks, which would fit
# level 2, lose more to the calls (100 us a block) than they gain.
CACHED = 3 * 2**17
LEAST_ROWS, MOST_ROWS = 128, 4096
# Rows whose sums are put off until there are enough of each component.
DEFERRED_ROWS = 4096
# Doubles of the deferred rows that are gathered at a time.
GATHERED = 2**15
# Nanoseconds (Zen 3), for the choice between the dense and the sparse way: one
# multiply-add of a product, to make one feature and copy it into both products, to
# gather one number, and to call on one component.
MULTIPLY, FEATURE, GATHER, CALL = 0.045, 1.0, 8.0, 40_000.0
# The share of a component's width that float32 may lose of a deviation.
SINGLE_LOSS = 1e-5
# The compiled loops go by features up to this many columns, if there are components enough
# to share what it takes to make the features (measured for d 1..24, k 1..64 where every
# responsibility counts).
FEW_COLUMNS = 16
# The compiled loops have nothing to share between the components of full covariances beyond.
SHARED_COLUMNS = 48
# A component with less than this much data has no rows.
EMPTY = 1e-12


@dataclass(frozen=True)
class GaussianStatistics(Additive):
    """Sums about the means that the E-step used, in the coordinates of its frame.

    Attributes
    ----------
    first : (k, d) array
        sum_n r_nk (z_n - mu_k).
    scatter : array
        sum_n r_nk (z_n - mu_k)(z_n - mu_k)^T, in the shape of the covariance structure.
    """

    first: Array
    scatter: Array

    def part(self, components: slice) -> GaussianStatistics:
        """Those of some components, where each has a scatter of its own."""
        return GaussianStatistics(self.first[components].copy(), self.scatter[components].copy())


@dataclass(frozen=True)
class Gaussian:
    """K multivariate normal distributions in the coordinates of a frame.

    Attributes
    ----------
    means : (k, d) array
    covariance : Covariance
    frame : Frame
    ridge : float
        What the M-step adds to each variance, in squared units of the data
        (scikit-learn's `reg_covar`).
    """

    means: Array
    covariance: Covariance
    frame: Frame
    ridge: float = 0.0

    @property
    def n_components(self) -> int:
        return len(self.means)

    @property
    def n_features(self) -> int:
        return int(self.means.shape[1])

    @property
    def n_parameters(self) -> int:
        k, d = self.means.shape
        return int(k * d + self.covariance.n_parameters(k, d))

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters."""
        return int(self.means.nbytes + self.covariance.factor.nbytes)

    @property
    def statistics_bytes(self) -> int:
        """Bytes of the sufficient statistics of any number of rows."""
        k, d = self.means.shape
        # Nobody writes these zeros, so they take no memory.
        return GaussianStatistics(np.zeros((k, d)), self.covariance.zeros(k, d)).nbytes

    def log_prob(self, X: Array) -> Array:
        """log N(x_n; mu_k, Sigma_k), (n, k), in units of the data."""
        kernel = self.kernel()
        out = np.empty((len(X), self.n_components))
        for rows in blocks(len(X), kernel.block_rows):
            kernel.load(X[rows])
            out[rows] = kernel.log_prob().T
        return out

    def sufficient_statistics(self, X: Array, resp: Array) -> GaussianStatistics:
        """Sums over the rows of X (n, d) under `resp` (n, k)."""
        kernel = self.kernel()
        for rows in blocks(len(X), kernel.block_rows):
            kernel.load(X[rows])
            kernel.accumulate(np.ascontiguousarray(resp[rows].T))
        statistics = kernel.statistics()
        assert isinstance(statistics, GaussianStatistics)
        return statistics

    def maximize(
        self, resp_sum: Array, statistics: GaussianStatistics
    ) -> tuple[Self, Sequence[int]]:
        """The M-step: mu += S1 / S0 and Sigma = S2 / S0 - shift shift^T + ridge.

        A component that holds no rows or whose covariance is singular keeps
        its mean and covariance, which leaves its part of the expected
        log-likelihood where it was: the log-likelihood still cannot fall.
        """
        empty = ~(resp_sum > EMPTY)
        total = np.where(empty, 1.0, resp_sum)
        shift = np.where(empty[:, None], 0.0, statistics.first / total[:, None])
        covariance, singular = self.covariance.maximize(
            np.where(empty, EMPTY, resp_sum), shift, statistics.scatter, self._ridge()
        )
        kept = sorted({*np.flatnonzero(empty).tolist(), *singular})
        means = self.means + shift
        if not covariance.shared_scatter:
            factor = covariance.factor.copy()
            factor[kept] = self.covariance.factor[kept]
            covariance = type(covariance)(factor)
            means[kept] = self.means[kept]
        return type(self)(means, covariance, self.frame, self.ridge), kept

    def _ridge(self) -> Array:
        inverse = self.frame.inverse_scale
        full = np.diag(inverse) if inverse.ndim == 1 else inverse
        return np.asarray(self.ridge * (full @ full.T))

    @property
    def amplification(self) -> float:
        """How many times the features kernel magnifies rounding errors, at most.

        The largest, over components, of (squared distance from the frame's
        origin to the component's rows) x (largest eigenvalue of its precision):
        the cancellation in Sigma = E[z z^T] - mu mu^T and in the expanded
        quadratic form.
        """
        reach = (self.means**2).sum(1) + self.covariance.traces(self.n_features)
        return float((reach * self.covariance.tightness()).max())

    @property
    def features_are_safe(self) -> bool:
        """Whether the features kernel keeps its errors below `ALLOWED_LOSS`."""
        # `not (x > limit)` would call NaN safe.
        return bool(np.finfo(np.float64).eps * self.amplification <= ALLOWED_LOSS)

    @property
    def single_loss(self) -> float:
        """The share of the tightest width that float32 loses of a deviation, about.

        Rounding moves a row by eps times its distance from the origin, in a random
        direction: by 1/sqrt(d) of that along the tightest one.
        """
        return float(np.finfo(np.float32).eps * np.sqrt(self.amplification / self.n_features))

    @property
    def single_is_safe(self) -> bool:
        """Whether float32 keeps what deviations lose below `SINGLE_LOSS` of a width."""
        return self.single_loss <= SINGLE_LOSS

    def kernel(self, engine: Engine = NUMPY) -> Kernel:
        """A kernel of zero sums: of the ways that are safe, the one that costs least."""
        if engine.name == "numba" and self.covariance.kind in ("full", "diag"):
            return self._compiled_kernel(engine)
        fits = LEAST_ROWS * self.covariance.n_features(self.n_features) <= CACHED
        return GaussianKernel(self, features_allowed=fits and self.features_are_safe)

    def joins(self, engine: Engine) -> Hashable:
        """What Gaussians have in common that can be `joined`; None if this one stays alone.

        One that is tight beside the spread of the data would take the others along on the
        way that is safe for it.
        """
        by_component = engine.name == "numba" and self.covariance.kind == "full"
        if self.covariance.shared_scatter or (by_component and self.n_features > SHARED_COLUMNS):
            return None
        safe = self.features_are_safe, engine.single and self.single_is_safe
        frame = self.frame.shift.tobytes(), self.frame.scale.tobytes()
        return self.covariance.kind, self.n_features, *frame, *safe

    def joined(self, parts: Sequence[Self]) -> Self:
        """The components of all parts side by side."""
        means = np.concatenate([part.means for part in parts])
        factor = np.concatenate([part.covariance.factor for part in parts])
        return replace(self, means=means, covariance=type(self.covariance)(factor))

    def _compiled_kernel(self, engine: Engine) -> Kernel:
        from .fused import CentredKernel, FeaturesKernel

        if self.covariance.kind == "diag":
            if self.features_are_safe:
                return FeaturesKernel(self)
            return GaussianKernel(self, features_allowed=False)
        if engine.single and self.single_is_safe:
            return CentredKernel(self, np.float32)
        k, d = self.means.shape
        cheaper = d <= FEW_COLUMNS and 2 * k > d + 2
        return FeaturesKernel(self) if cheaper and self.features_are_safe else CentredKernel(self)

    # -- between the frame and the data ----------------------------------------------

    @classmethod
    def from_data_coordinates(
        cls, means: Array, covariance: Covariance, frame: Frame, ridge: float = 0.0
    ) -> Self:
        """Components given in the units of the data, expressed in `frame`."""
        inverse = frame.inverse_scale
        return cls(frame.points_to_frame(means), covariance.scaled(inverse), frame, ridge)

    def data_coordinates(self) -> tuple[Array, Covariance]:
        """Means (k, d) and covariances in the units of the data."""
        return (
            self.frame.points_from_frame(self.means),
            self.covariance.scaled(self.frame.scale),
        )


class GaussianKernel:
    """Gaussian log-densities and statistics of blocks of rows, in buffers made once.

    Two ways to the log-density, equal within `ALLOWED_LOSS`:

    - by features: theta (1, z, z z^T), one matrix product for all components;
    - centred: |C_k^{-1} (z - mu_k)|^2, the components' factors stacked.

    And two to the sums: the responsibilities times the features, or the
    scatter about each mean over the rows in which that component has a
    responsibility other than zero, which never cancels. The second is quicker
    where most responsibilities are exactly zero. Where features are safe, each
    block goes the way that the block before it showed to be the quicker.

    Parameters
    ----------
    gaussian : Gaussian
    features_allowed : bool
        False keeps every block on the centred ways.
    """

    def __init__(self, gaussian: Gaussian, features_allowed: bool) -> None:
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
        frame_log_det = gaussian.frame.log_det
        self._constant = -0.5 * d * np.log(2 * np.pi) - structure.log_det(d) - frame_log_det

        self._deferred = 0
        deferred_rows = max(b, DEFERRED_ROWS)
        self._deferred_Z = np.empty((deferred_rows, d))
        self._deferred_resp = np.empty((k, deferred_rows))
        self._not_zero = np.empty(k * deferred_rows, dtype=bool)
        self._gathered = np.empty((2, max(GATHERED // d, 1), d))
        self._first = np.zeros((k, d))
        self._scatter = structure.zeros(k, d)

        if features_allowed:
            self._theta = structure.natural(gaussian.means)
            self._theta[:, 0] -= frame_log_det
            self._sums = np.zeros((k, 1 + n_features))
            self._product = np.empty_like(self._sums)
            self._shared = np.zeros((d, d))

    def load(self, X: Array) -> None:
        """Take the rows X (b, d) as the current block, in the frame's coordinates."""
        self._rows = b = len(X)
        d = X.shape[1]
        Z = self._phi[1 : 1 + d, :b]
        self.gaussian.frame.to_frame(X, out=Z, work=self._work[:d, :b])
        if self.by_features:
            self.structure.features(Z, self._phi[1:, :b], self._work[:, :b])

    def log_prob(self) -> Array:
        """log N(x; mu_k, Sigma_k) of the current block in the units of the data, (k, b)."""
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
        dense = len(self._phi) * (FEATURE + 2 * MULTIPLY * k)
        distances = MULTIPLY * k * d * (d / 2 + 12)
        scatter = GATHER * d * responsible / b + CALL * k / len(self._deferred_Z)
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
            for piece in blocks(len(every), self._gathered.shape[1]):
                self._add_rows(k, every[piece])
        self._deferred = 0

    def _add_rows(self, k: int, rows: NDArray[np.intp]) -> None:
        """Add the sums of component k over some of the deferred rows."""
        D, work = self._gathered[:, : len(rows)]
        np.take(self._deferred_Z, rows, axis=0, out=D, mode="clip")
        D -= self.gaussian.means[k]
        weights = self._deferred_resp[k, rows]
        self._first[k] += weights @ D
        self.structure.add_scatter(self._scatter, k, D, weights, work)

    def statistics(self) -> GaussianStatistics:
        """Sums over all blocks so far, about the current means."""
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
    """Rows of a block of which `widest` numbers each stay in cache: an odd multiple of 8.

    Rows that are a power of two apart in memory would fall on the same
    cache lines: 488 rows take 0.7 of the time of 512.
    """
    rows = min(max(CACHED // widest, LEAST_ROWS), MOST_ROWS)
    return rows // 16 * 16 - 8
