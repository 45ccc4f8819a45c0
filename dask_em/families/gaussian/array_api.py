"""The Gaussian E-step on any namespace of the Python array API, such as CuPy's on a GPU.

The same mathematics as the NumPy kernel's centred way, in the shape that suits a
GPU: large blocks, all components of a group in one batched product, nothing
written in place. Rows go to the device in their own type; only sums, or one
answer a row, come back. Only functions of the standard (data-apis.org/array-api)
that CuPy has in its main namespace are called.

Where the work is done is no part of a mixture: a `Device` travels beside the
parameters, and every worker either computes there or raises, so the bits never
depend on who computed what. They are the same on GPUs of one model with one
version of CuPy and CUDA; another model may round differently.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from ...core.additive import Array
from ...core.device import DeviceArithmetic, fetch, namespace
from ...core.engine import Engine
from ...core.family import Kernel, blocks
from ...core.responsibilities import Arithmetic
from ...core.tuning import tuning
from .covariance import Covariance
from .diagonals import Diagonal, Spherical
from .matrices import Full, Tied
from .parameters import GaussianParameters
from .statistics import GaussianStatistics

# Types that every namespace can take over as they are; others become float64 first.
MOVABLE = {np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)}

MOVABLE |= {np.dtype(np.float32), np.dtype(np.float64)}


Precision = Literal["float32", "float64"]


# -- covariance structures -------------------------------------------------------------


class _Structure:
    """Compute with the deviations D (g, b, d) of g components, as a covariance structure does."""

    shared: ClassVar[bool] = False
    """Whether the scatters of groups add up, rather than stand side by side."""

    @staticmethod
    def whitener(covariance: Any) -> Array:
        """Return the array for `whiten`: axis k, or one entry for all components, leads."""
        raise NotImplementedError

    @staticmethod
    def whiten(xp: Any, D: Any, whitener: Any) -> Any:
        """Compute C_k^{-1} d of each deviation, (g, b, d)."""
        raise NotImplementedError

    @staticmethod
    def scatter(xp: Any, A: Any) -> Any:
        """Sum a a^T over rows, as far as the structure holds it; A is (g, b, d)."""
        raise NotImplementedError


class _Full(_Structure):
    @staticmethod
    def whitener(covariance: Full) -> Array:
        return covariance.inverse.transpose(0, 2, 1)

    @staticmethod
    def whiten(xp: Any, D: Any, whitener: Any) -> Any:
        return xp.matmul(D, whitener)

    @staticmethod
    def scatter(xp: Any, A: Any) -> Any:
        return xp.matmul(xp.moveaxis(A, 2, 1), A)


class _Tied(_Full):
    shared = True

    @staticmethod
    def whitener(covariance: Tied) -> Array:  # type: ignore[override]
        return covariance.inverse.T[None]

    @staticmethod
    def scatter(xp: Any, A: Any) -> Any:
        return xp.sum(_Full.scatter(xp, A), axis=0)


class _Diagonal(_Structure):
    @staticmethod
    def whitener(covariance: Diagonal) -> Array:
        return np.asarray(1 / covariance.factor[:, None, :])

    @staticmethod
    def whiten(xp: Any, D: Any, whitener: Any) -> Any:
        return D * whitener

    @staticmethod
    def scatter(xp: Any, A: Any) -> Any:
        return xp.sum(A * A, axis=1)


class _Spherical(_Diagonal):
    @staticmethod
    def whitener(covariance: Spherical) -> Array:  # type: ignore[override]
        return np.asarray(1 / covariance.factor[:, None, None])

    @staticmethod
    def scatter(xp: Any, A: Any) -> Any:
        return xp.sum(A * A, axis=(1, 2))


_STRUCTURES: dict[type[Covariance], type[_Structure]] = {
    Full: _Full,
    Tied: _Tied,
    Diagonal: _Diagonal,
    Spherical: _Spherical,
}


# -- the kernel ------------------------------------------------------------------------


class ArrayKernel(Kernel[GaussianStatistics]):
    """Compute log N(x; mu_k, Sigma_k) of blocks of rows, and their sums, on a device.

    Every deviation is taken from the component's own mean before it is multiplied, so
    nothing cancels and no bound is needed in float64.

    Parameters
    ----------
    gaussian : GaussianParameters
    xp : namespace
        As `core.device.namespace` returns it.
    dtype : {"float64", "float32"}
        What to multiply in.
    device_bytes : int
        Components are taken in groups, and rows in blocks, so that one block and its
        temporaries take less than this, if one row does.
    """

    def __init__(
        self,
        gaussian: GaussianParameters,
        xp: Any,
        dtype: Precision = "float64",
        device_bytes: int | None = None,
    ) -> None:
        k, d = gaussian.means.shape
        covariance, whitening = gaussian.covariance, gaussian.whitening
        self.xp = xp
        self._dtype = getattr(xp, dtype)
        self._structure = _STRUCTURES[type(covariance)]
        device_bytes = device_bytes or tuning().device_kernel.bytes
        numbers = device_bytes // (tuning().device_kernel.temporaries * np.dtype(dtype).itemsize)
        self.block_rows = int(np.clip(numbers // max(k, d), 1, tuning().device_kernel.most_rows))
        size = max(numbers // (self.block_rows * d), 1)
        self._groups = list(blocks(k, size))

        self._shift = xp.asarray(whitening.shift, dtype=xp.float64)
        inverse = np.ascontiguousarray(whitening.inverse_scale.T)
        self._inverse_scale = xp.asarray(inverse, dtype=xp.float64)
        self._means = self._put(gaussian.means[:, None, :])
        self._whitener = self._put(self._structure.whitener(covariance))
        constant = np.zeros(k) - covariance.log_det(d) - 0.5 * d * np.log(2 * np.pi)
        self._constant = self._put((constant - whitening.log_det)[:, None])
        # The device's means less the true ones: rounding, in float32.
        self._means_gap = fetch(xp, self._means)[:, 0, :] - gaussian.means
        self._arithmetic = DeviceArithmetic(xp)
        self._Z: Any = None
        self._sums = GaussianStatistics(np.zeros((k, d)), covariance.zeros(k, d))

    @classmethod
    def of(cls, gaussian: GaussianParameters, engine: Engine) -> ArrayKernel:
        """Return the kernel on the engine's device.

        It multiplies in float32 for float32 data where the bound of the tightest component
        allows (rows are whitened in float64 first), in float64 for all else. Parameters and
        type alone decide, never the worker.

        Raises
        ------
        UsageError
            This process cannot compute on that device.
        """
        single = engine.single and gaussian.single_is_safe
        return cls(gaussian, namespace(engine.device), "float32" if single else "float64")

    def arithmetic(self, engine: Engine, k: int) -> Arithmetic:
        """Return the operations on the device's arrays."""
        return self._arithmetic

    def _put(self, values: Array) -> Any:
        return self.xp.asarray(np.ascontiguousarray(values), dtype=self._dtype)

    def load(self, X: Array) -> None:
        """Take rows X (b, d) of any numeric dtype to the device, in whitened coordinates."""
        xp = self.xp
        rows = xp.asarray(X if X.dtype in MOVABLE else X.astype(np.float64))
        Z = xp.asarray(rows, dtype=xp.float64) - self._shift
        scale = self._inverse_scale
        Z = Z * scale if scale.ndim == 1 else xp.matmul(Z, scale)
        self._Z = xp.asarray(Z, dtype=self._dtype)

    def _deviations(self, group: slice) -> Any:
        return self._Z[None, :, :] - self._means[group, :, :]

    def log_prob(self) -> Array:
        """Return log p(x | k) in the units of the data, (k, b), on the device."""
        xp, W = self.xp, self._whitener
        squares: list[Any] = []
        for group in self._groups:
            part = W if W.shape[0] == 1 else W[group, :, :]
            white = self._structure.whiten(xp, self._deviations(group), part)
            distance = xp.sum(white * white, axis=2)
            squares += [distance[i, :] for i in range(distance.shape[0])]
        found: Array = self._constant - 0.5 * xp.stack(squares)
        return found

    def accumulate(self, resp: Array) -> None:
        """Add the sums of the current block under `resp` (k, b), on the device."""
        xp, structure = self.xp, self._structure
        root = xp.sqrt(resp)
        parts = []
        for group in self._groups:
            r = root[group, :]
            weighted = self._deviations(group) * r[:, :, None]
            first = xp.matmul(r[:, None, :], weighted)
            parts.append((first, structure.scatter(xp, weighted)))
        # A fetch waits for the device, so all groups are under way before the first.
        resp_sum = fetch(xp, xp.sum(resp, axis=1, dtype=xp.float64))
        first = np.concatenate([fetch(xp, f)[:, 0, :] for f, _ in parts])
        first += resp_sum[:, None] * self._means_gap
        scatters = [fetch(xp, s) for _, s in parts]
        scatter = np.sum(scatters, axis=0) if structure.shared else np.concatenate(scatters)
        scale = self._arithmetic.take_scale()
        self._sums += GaussianStatistics(scale * first, scale * scatter)

    def statistics(self) -> GaussianStatistics:
        """Return the sums over all blocks so far, about the current means."""
        return self._sums
