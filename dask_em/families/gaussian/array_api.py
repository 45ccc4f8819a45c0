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

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np

from ...core.additive import Array
from ...core.device import Device, namespace
from ...core.family import blocks
from ...core.protocols import Fold
from ...core.responsibilities import NEGLIGIBLE
from .covariance import Covariance, Diagonal, Full, Spherical, Tied
from .family import Gaussian
from .statistics import GaussianStatistics

# Bytes of the device that one block and its temporaries take at most, in each thread.
DEVICE_BYTES = 256 * 2**20

# Arrays of a group's (components, rows, columns) or of all (components, rows) that live at
# once, with what a product copies (measured: tests/test_arrays.py).
TEMPORARIES = 7

# More rows would gain little speed, and their sums in float32 would lose digits.
MOST_ROWS = 2**15

# Types that every namespace can take over as they are; others become float64 first.
MOVABLE = {np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)}

MOVABLE |= {np.dtype(np.float32), np.dtype(np.float64)}


Precision = Literal["float32", "float64"]

S = TypeVar("S")


def precision(gaussian: Gaussian, dtype: np.dtype[Any]) -> Precision:
    """The type to multiply rows of `dtype` in.

    float32 for float32 data, where the bound of the tightest component allows (rows
    are shifted into the frame in float64 first); float64 for all else. Parameters and
    type alone decide, never the worker.
    """
    single = dtype == np.float32 and gaussian.single_is_safe
    return "float32" if single else "float64"


# -- covariance structures -------------------------------------------------------------


class _Structure:
    """What a covariance structure does with the deviations D (g, b, d) of g components."""

    shared: ClassVar[bool] = False
    """Whether the scatters of groups add up, rather than stand side by side."""

    @staticmethod
    def whitener(covariance: Any) -> Array:
        """What `whiten` needs of all components: axis k, or one entry for all, leads."""
        raise NotImplementedError

    @staticmethod
    def whiten(xp: Any, D: Any, whitener: Any) -> Any:
        """C_k^{-1} d of each deviation, (g, b, d)."""
        raise NotImplementedError

    @staticmethod
    def scatter(xp: Any, A: Any) -> Any:
        """Sums over rows of a a^T, as far as the structure holds them; A is (g, b, d)."""
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


class ArrayKernel:
    """log w_k + log N(x; mu_k, Sigma_k) of blocks of rows, and their sums, on a device.

    Every deviation is taken from the component's own mean before it is multiplied, so
    nothing cancels and no bound is needed in float64.

    Parameters
    ----------
    gaussian : Gaussian
    log_weights : (k,) array
    xp : namespace
        As `namespace` returns it.
    dtype : {"float64", "float32"}
        What to multiply in; see `precision`.
    device_bytes : int
        Components are taken in groups, and rows in blocks, so that one block and its
        temporaries take less than this, if one row does.
    """

    def __init__(
        self,
        gaussian: Gaussian,
        log_weights: Array,
        xp: Any,
        dtype: Precision = "float64",
        device_bytes: int = DEVICE_BYTES,
    ) -> None:
        k, d = gaussian.means.shape
        covariance, frame = gaussian.covariance, gaussian.frame
        self.xp = xp
        self._dtype = getattr(xp, dtype)
        self._structure = _STRUCTURES[type(covariance)]
        numbers = device_bytes // (TEMPORARIES * np.dtype(dtype).itemsize)
        self.block_rows = int(np.clip(numbers // max(k, d), 1, MOST_ROWS))
        size = max(numbers // (self.block_rows * d), 1)
        self._groups = list(blocks(k, size))

        self._shift = xp.asarray(frame.shift, dtype=xp.float64)
        self._to_frame = xp.asarray(np.ascontiguousarray(frame.inverse_scale.T), dtype=xp.float64)
        self._means = self._put(gaussian.means[:, None, :])
        self._whitener = self._put(self._structure.whitener(covariance))
        constant = log_weights - covariance.log_det(d) - 0.5 * d * np.log(2 * np.pi)
        self._constant = self._put((constant - frame.log_det)[:, None])
        # The device's means less the true ones: rounding, in float32.
        self._means_gap = self._fetch(self._means)[:, 0, :] - gaussian.means

    def _put(self, values: Array) -> Any:
        return self.xp.asarray(np.ascontiguousarray(values), dtype=self._dtype)

    def _fetch(self, values: Any) -> Array:
        """Numbers of the device as float64 in this process; waits until they are there."""
        to_numpy = getattr(self.xp, "asnumpy", np.asarray)  # CuPy converts by that name only
        return np.asarray(to_numpy(values), dtype=np.float64)

    def total(self, values: Any) -> float:
        """The sum of all numbers of an array of the device, in float64."""
        return float(self._fetch(self.xp.sum(values, dtype=self.xp.float64)))

    def load(self, X: Array) -> Any:
        """Rows X (b, d) of any numeric dtype, on the device in the frame's coordinates."""
        xp = self.xp
        rows = xp.asarray(X if X.dtype in MOVABLE else X.astype(np.float64))
        Z = xp.asarray(rows, dtype=xp.float64) - self._shift
        Z = Z * self._to_frame if self._to_frame.ndim == 1 else xp.matmul(Z, self._to_frame)
        return xp.asarray(Z, dtype=self._dtype)

    def _deviations(self, Z: Any, group: slice) -> Any:
        return Z[None, :, :] - self._means[group, :, :]

    def log_joint(self, Z: Any) -> Any:
        """log w_k + log p(x | k) in the units of the data, (k, b), of loaded rows Z (b, d)."""
        xp, W = self.xp, self._whitener
        squares: list[Any] = []
        for group in self._groups:
            part = W if W.shape[0] == 1 else W[group, :, :]
            white = self._structure.whiten(xp, self._deviations(Z, group), part)
            distance = xp.sum(white * white, axis=2)
            squares += [distance[i, :] for i in range(distance.shape[0])]
        return self._constant - 0.5 * xp.stack(squares)

    def responsibilities(self, log_joint: Any) -> tuple[Any, Any]:
        """Responsibilities (k, b) and log p(x) (b,); NaN where log_joint is."""
        xp = self.xp
        largest = xp.max(log_joint, axis=0)
        below = log_joint - largest
        ratio = xp.exp(below)
        ratio = xp.where(below <= NEGLIGIBLE, xp.zeros_like(ratio), ratio)
        total = xp.sum(ratio, axis=0)
        return ratio / total, largest + xp.log(total)

    def sums(self, Z: Any, resp: Any) -> tuple[Array, GaussianStatistics]:
        """sum_n r_nk (k,) and the statistics of loaded rows Z (b, d) under `resp` (k, b)."""
        xp, structure = self.xp, self._structure
        root = xp.sqrt(resp)
        parts = []
        for group in self._groups:
            r = root[group, :]
            weighted = self._deviations(Z, group) * r[:, :, None]
            first = xp.matmul(r[:, None, :], weighted)
            parts.append((first, structure.scatter(xp, weighted)))
        # A fetch waits for the device, so all groups are under way before the first.
        resp_sum = self._fetch(xp.sum(resp, axis=1, dtype=xp.float64))
        first = np.concatenate([self._fetch(f)[:, 0, :] for f, _ in parts])
        first += resp_sum[:, None] * self._means_gap
        scatters = [self._fetch(s) for _, s in parts]
        scatter = np.sum(scatters, axis=0) if structure.shared else np.concatenate(scatters)
        return resp_sum, GaussianStatistics(first, scatter)

    # -- answers about rows --------------------------------------------------------------

    def _joint_blocks(self, X: Array) -> Iterator[tuple[slice, Any]]:
        for rows in blocks(len(X), self.block_rows):
            yield rows, self.log_joint(self.load(X[rows]))

    def answers(self, X: Array, wanted: Sequence[str]) -> dict[str, Array]:
        """What `wanted` names of the rows X (n, d), in the rows' order.

        Parameters
        ----------
        X : (n, d) array
        wanted : sequence of {"labels", "proba", "log_density"}
            The most likely component (n,), the responsibilities (n, k), or
            log p(x) (n,) in nats.
        """
        k = len(self._means_gap)
        out: dict[str, Array] = {
            name: np.empty(
                (len(X), k) if name == "proba" else (len(X),),
                dtype=np.int64 if name == "labels" else np.float64,
            )
            for name in wanted
        }
        for rows, log_joint in self._joint_blocks(X):
            if "labels" in out:
                out["labels"][rows] = self._fetch(self.xp.argmax(log_joint, axis=0))
            if out.keys() <= {"labels"}:
                continue
            resp, log_prob = self.responsibilities(log_joint)
            if "proba" in out:
                out["proba"][rows] = self._fetch(resp).T
            if "log_density" in out:
                out["log_density"][rows] = self._fetch(log_prob)
        return out

    def scores(self, X: Array) -> tuple[float, float]:
        """sum_n log p(x_n) and -sum_nk r_nk log r_nk of the rows X (n, d), in nats."""
        xp = self.xp
        log_likelihood = entropy = 0.0
        for _, log_joint in self._joint_blocks(X):
            resp, log_prob = self.responsibilities(log_joint)
            # Where r is exactly zero its logarithm may be -inf, and r log r is zero.
            log_resp = xp.where(resp > 0, log_joint - log_prob, xp.zeros_like(resp))
            log_likelihood += self.total(log_prob)
            entropy -= self.total(resp * log_resp)
        return log_likelihood, entropy


# -- the fold --------------------------------------------------------------------------


class ArrayEStep(Fold[S], Generic[S]):
    """Sums a Gaussian mixture's sufficient statistics over chunks of rows, on a device.

    Parameters
    ----------
    gaussian : Gaussian
    log_weights : (k,) array
    device : "cuda" or namespace
        Resolved, see `resolve_device`.
    record : callable
        Makes the result of (n_rows, weight, log_likelihood, resp_sum, components), such
        as `MixtureStatistics`.
    device_bytes : int
        See `ArrayKernel`.
    single : bool
        False multiplies float32 data in float64 too.

    Raises
    ------
    UsageError
        This process cannot compute on that device.
    """

    def __init__(
        self,
        gaussian: Gaussian,
        log_weights: Array,
        device: Device,
        record: Callable[[int, float, float, Array, GaussianStatistics], S],
        device_bytes: int = DEVICE_BYTES,
        single: bool = True,
    ) -> None:
        k, d = gaussian.means.shape
        self._single = single
        self._gaussian, self._log_weights = gaussian, log_weights
        self._xp, self._device_bytes = namespace(device), device_bytes
        self._record = record
        self._kernels: dict[Precision, ArrayKernel] = {}
        self._n_rows = 0
        self._weight = 0.0
        self._log_likelihood = 0.0
        self._resp_sum = np.zeros(k)
        self._statistics = GaussianStatistics(np.zeros((k, d)), gaussian.covariance.zeros(k, d))

    def _kernel(self, dtype: np.dtype[Any]) -> ArrayKernel:
        """The kernel for rows of `dtype`; its parameters go to the device once."""
        chosen = precision(self._gaussian, dtype) if self._single else "float64"
        if chosen not in self._kernels:
            self._kernels[chosen] = ArrayKernel(
                self._gaussian, self._log_weights, self._xp, chosen, self._device_bytes
            )
        return self._kernels[chosen]

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add the rows X (n, d) with weights (n,)."""
        self._n_rows += len(X)
        if sample_weight is not None and not sample_weight.all():
            # A row of weight zero is a row left out, whatever it holds.
            X, sample_weight = X[sample_weight > 0], sample_weight[sample_weight > 0]
        kernel = self._kernel(X.dtype)
        for rows in blocks(len(X), kernel.block_rows):
            self._add(kernel, X[rows], None if sample_weight is None else sample_weight[rows])

    def _add(self, kernel: ArrayKernel, X: Array, weight: Array | None) -> None:
        xp = self._xp
        Z = kernel.load(X)
        resp, log_prob = kernel.responsibilities(kernel.log_joint(Z))
        scale = 1.0
        if weight is None:
            self._weight += len(X)
        else:
            self._weight += float(weight.sum())
            # A power of two takes no digits, and keeps any weight within float32.
            scale = float(np.ldexp(1.0, np.frexp(weight.max())[1] - 1))
            scaled = xp.asarray(weight / scale, dtype=resp.dtype)
            resp, log_prob = resp * scaled, log_prob * scaled
        resp_sum, sums = kernel.sums(Z, resp)
        self._log_likelihood += scale * kernel.total(log_prob)
        self._resp_sum += scale * resp_sum
        self._statistics += GaussianStatistics(scale * sums.first, scale * sums.scatter)

    def result(self) -> S:
        """Sums over all chunks given so far."""
        return self._record(
            self._n_rows, self._weight, self._log_likelihood, self._resp_sum, self._statistics
        )
