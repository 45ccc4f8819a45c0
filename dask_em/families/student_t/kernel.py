"""Kernels of Student's t around those of the Gaussian, which know the Mahalanobis distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.additive import Array
from ...core.device import fetch, namespace
from ...core.engine import Engine
from ...core.family import Kernel
from ...core.responsibilities import Arithmetic
from ..gaussian.statistics import GaussianStatistics
from .degrees import level
from .scales import Scales
from .statistics import StudentTStatistics

if TYPE_CHECKING:
    from collections.abc import Callable

# Cubes of larger squared distances would overflow, and say no more.
FAR = 1e50


class StudentTSums:
    """Add what the E-step sums beside a Gaussian's statistics, and make the statistics of it.

    Parameters
    ----------
    scales : Scales
    df : (k,) array

    Attributes
    ----------
    constant : (k,) array
        log N(x; mu_k, Sigma_k) is this less delta/2.
    level : (k,) array
        log p(x | k) is this less `half` times log(1 + delta/nu).
    half : (k,) array
    sums : (k, 6) array
        sum r of 1, u - 1, log(1 + delta/nu), delta, delta^2, delta^3.
    """

    def __init__(self, scales: Scales, df: Array) -> None:
        k, d = scales.means.shape
        self.df, self.d = df, d
        constant = -0.5 * d * np.log(2 * np.pi) - scales.covariance.log_det(d)
        self.constant = constant - scales.whitening.log_det
        self.level = self.constant + level(df, d)
        self.half = (df + d) / 2
        self.sums = np.zeros((k, 6))

    def statistics(self, weighted: GaussianStatistics) -> StudentTStatistics:
        """Return the sums of all blocks so far."""
        rows, excess, logs = self.sums[:, :3].T
        values = rows * self.level - self.half * logs
        powers = self.sums[:, 3:].copy()
        return StudentTStatistics(weighted, excess.copy(), logs.copy(), powers, values)


class StudentTKernel(Kernel[StudentTStatistics]):
    """Compute log-densities and sums of blocks of rows, in buffers made once.

    Parameters
    ----------
    scales : Scales
    df : (k,) array
    engine : Engine
    """

    def __init__(self, scales: Scales, df: Array, engine: Engine) -> None:
        self._normal = scales.kernel_of_all(engine)
        self._own = StudentTSums(scales, df)
        self.block_rows = self._normal.block_rows
        k = len(df)
        # Distances, logarithms, and log-densities, which are not the Gaussian's own: whoever
        # overwrites them needs them after the Gaussian's statistics are summed.
        self._buffers = np.empty((3, k * self.block_rows))
        self._shape = (k, 0)
        self._has_distances = False
        self._density: Callable[..., None] = _density
        self._weigh: Callable[..., None] = _weigh
        if engine.name == "numba":
            from .compiled import density, weigh

            self._density, self._weigh = density, weigh

    @property
    def nbytes(self) -> int:
        """Bytes that it holds once it has seen a whole block, at most."""
        return super().nbytes + self._own.sums.nbytes + self._normal.nbytes

    def arithmetic(self, engine: Engine, k: int) -> Arithmetic:
        """Return the operations on what `log_prob` returns, for at most k components at a time."""
        return self._normal.arithmetic(engine, k)

    def load(self, X: Array) -> None:
        """Take the rows X (b, d) as the current block."""
        self._normal.load(X)
        self._shape = (len(self._own.df), len(X))
        self._has_distances = False

    def _blocks(self) -> tuple[Array, Array, Array]:
        k, b = self._shape
        distances, logs, out = self._buffers[:, : k * b].reshape(3, k, b)
        return distances, logs, out

    def log_prob(self) -> Array:
        """Return log p(x | k) of the current block (k, b), for the caller to overwrite."""
        distances, logs, out = self._blocks()
        own = self._own
        normal = self._normal.log_prob()
        self._density(normal, own.constant, own.df, own.level, own.half, distances, logs, out)
        self._has_distances = True
        return out

    def accumulate(self, resp: Array) -> None:
        """Add the current block's sums under `resp` (k, b)."""
        if not self._has_distances:
            self.log_prob()
        distances, logs, _ = self._blocks()
        self._weigh(resp, float(self._own.d), self._own.df, distances, logs, self._own.sums)
        self._has_distances = False
        self._normal.accumulate(distances)

    def statistics(self) -> StudentTStatistics:
        """Return the sums over all blocks so far."""
        return self._own.statistics(self._normal.statistics())


def _density(
    normal: Array, constant: Array, df: Array, level: Array, half: Array, distances: Array,
    logs: Array, out: Array,
) -> None:  # fmt: skip
    """Write distances, log(1 + delta/nu) and log-densities (k, b) of a Gaussian's log-densities."""
    np.subtract(constant[:, None], normal, out=distances)
    distances *= 2.0
    # What rounding made of a row at the mean; NaN stays.
    np.maximum(distances, 0.0, out=distances)
    np.multiply(distances, 1 / df[:, None], out=logs)
    np.log1p(logs, out=logs)
    np.multiply(logs, -half[:, None], out=out)
    out += level[:, None]


def _weigh(resp: Array, d: float, df: Array, distances: Array, logs: Array, sums: Array) -> None:
    """Add the sums under `resp` (k, b), and overwrite the distances by r u."""
    sums[:, 0] += resp.sum(axis=1)
    sums[:, 2] += np.einsum("kb,kb->k", resp, logs)
    np.minimum(distances, FAR, out=distances)
    np.multiply(resp, distances, out=logs)
    sums[:, 3] += logs.sum(axis=1)
    sums[:, 4] += np.einsum("kb,kb->k", logs, distances)
    logs *= distances
    sums[:, 5] += np.einsum("kb,kb->k", logs, distances)
    np.add(distances, df[:, None], out=logs)
    np.subtract(d, distances, out=distances)
    distances /= logs
    distances *= resp
    sums[:, 1] += distances.sum(axis=1)
    distances += resp


class StudentTArrayKernel(Kernel[StudentTStatistics]):
    """Compute the same on a device, nothing of it in place.

    Parameters
    ----------
    scales : Scales
    df : (k,) array
    engine : Engine
    """

    def __init__(self, scales: Scales, df: Array, engine: Engine) -> None:
        self._normal = scales.kernel_of_all(engine)
        self._own = StudentTSums(scales, df)
        self.block_rows = self._normal.block_rows
        self._arithmetic: Any = self._normal.arithmetic(engine, len(df))
        self._xp = namespace(engine.device)
        self._distances: Any = None

    @property
    def nbytes(self) -> int:
        """Bytes that it holds here once it has seen a whole block, at most."""
        return super().nbytes + self._own.sums.nbytes + self._normal.nbytes

    def arithmetic(self, engine: Engine, k: int) -> Arithmetic:
        """Return the operations on the device's arrays."""
        found: Arithmetic = self._arithmetic
        return found

    def load(self, X: Array) -> None:
        """Take rows X (b, d) to the device."""
        self._normal.load(X)
        self._distances = None

    def _put(self, values: Array, like: Any) -> Any:
        return self._xp.asarray(np.ascontiguousarray(values[:, None]), dtype=like.dtype)

    def _measured(self) -> tuple[Any, Any, Any]:
        """Return distances, logarithms and degrees of freedom on the device."""
        normal = self._normal.log_prob()
        distances = 2.0 * (self._put(self._own.constant, normal) - normal)
        distances = self._xp.where(distances < 0, 0.0 * distances, distances)
        df = self._put(self._own.df, normal)
        return distances, self._xp.log1p(distances / df), df

    def log_prob(self) -> Array:
        """Return log p(x | k), (k, b), on the device."""
        self._distances = self._measured()
        logs = self._distances[1]
        found: Array = self._put(self._own.level, logs) - self._put(self._own.half, logs) * logs
        return found

    def accumulate(self, resp: Array) -> None:
        """Add the sums of the current block under `resp` (k, b), on the device."""
        if self._distances is None:
            self._distances = self._measured()
        distances, logs, df = self._distances
        part = resp * (self._own.d - distances) / (df + distances)
        parts = [resp, part, resp * logs]
        for _ in range(3):
            parts.append((parts[-1] if len(parts) > 3 else resp) * distances)
        xp, scale = self._xp, self._arithmetic.take_scale()
        for i, one in enumerate(parts):
            self._own.sums[:, i] += scale * fetch(xp, xp.sum(one, axis=1, dtype=xp.float64))
        self._distances = None
        self._normal.accumulate(resp + part)

    def statistics(self) -> StudentTStatistics:
        """Return the sums over all blocks so far."""
        return self._own.statistics(self._normal.statistics())
