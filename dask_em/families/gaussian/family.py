"""Gaussian components and the kernel that evaluates them and sums their statistics."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ...core.additive import Array
from ...core.codec import record
from ...core.engine import NUMPY, Engine
from ...core.family import Kernel, blocks
from ...core.validation import require, require_array
from .covariance import Covariance
from .numpy_kernel import CACHED, LEAST_ROWS, GaussianKernel
from .statistics import GaussianStatistics
from .whitening import Frame

# The features kernel loses about eps * amplification of a covariance's digits
# (measured: tests/test_kernels.py). Above this share of a covariance the centred
# kernel takes over.
ALLOWED_LOSS = 1e-10

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


@record("gaussian")
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

    def validate(self, statistics: GaussianStatistics) -> None:
        """Raise `ValueError` that names what of the parameters or their statistics is wrong."""
        k, d = self.means.shape if self.means.ndim == 2 else (0, 0)
        # No memory is touched, whatever a file claims.
        shape = self.covariance.zeros(k, d).shape
        scale = self.frame.scale
        require_array("means", self.means, (k, d))
        require_array("factor", self.covariance.factor, shape)
        require_array("shift", self.frame.shift, (d,))
        require_array("scale", scale, (d,) if scale.ndim == 1 else (d, d))
        diagonal = scale if scale.ndim == 1 else np.diagonal(scale)
        require("scale", scale, bool((diagonal > 0).all()))
        require("ridge", self.ridge, 0 <= self.ridge < np.inf)
        require_array("first", statistics.first, (k, d))
        require_array("scatter", statistics.scatter, shape)

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
        from .compiled_kernel import CentredKernel, FeaturesKernel

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
