"""Devices other than the CPU: which one, its array namespace, and the E-step's operations."""

from __future__ import annotations

import os
import socket
from typing import Any, TypeAlias

import numpy as np

from ..errors import UsageError
from .additive import Array
from .labels import log_restriction
from .responsibilities import NEGLIGIBLE

Device: TypeAlias = Any
"""`"cpu"`, `"cuda"`, or a namespace of the array API itself."""


DEVICE_NAMES = ("cpu", "cuda", "auto")


# -- where -----------------------------------------------------------------------------


def resolve_device(device: Device) -> Device:
    """Return the device that `device=` asks for, decided once, before the first pass.

    `"auto"` is `"cuda"` where the process that starts the fit has CuPy and a CUDA
    device, and `"cpu"` elsewhere. Workers are given the answer, not the question: one
    that decided for itself would change the bits with the cluster it runs in.
    On a cluster whose client has no GPU, say `"cuda"`.

    Parameters
    ----------
    device : {"cpu", "cuda", "auto"} or namespace
        A namespace of the array API, such as the module `cupy`, is taken as it is. It
        must be importable on every worker.

    Returns
    -------
    "cpu", "cuda" or namespace

    Raises
    ------
    UsageError
        `device` is none of these.

    Examples
    --------
    >>> resolve_device("cpu"), resolve_device(np) is np
    ('cpu', True)
    """
    if isinstance(device, str) and device in DEVICE_NAMES:
        if device != "auto":
            return device
        return "cuda" if why_no_cupy() is None else "cpu"
    if not isinstance(device, str) and all(hasattr(device, n) for n in ("asarray", "matmul")):
        return device
    raise UsageError(
        f"device must be one of {', '.join(map(repr, DEVICE_NAMES))}, or an array namespace "
        f"such as the module cupy; got {device!r}"
    )


def namespace(device: Device) -> Any:
    """Return the array namespace of a resolved device, in the process that computes.

    CUDA work goes to the process's current device: one process a GPU, each shown its
    own by CUDA_VISIBLE_DEVICES.

    Raises
    ------
    UsageError
        This process cannot compute on that device.

    Examples
    --------
    >>> namespace(np) is np
    True
    """
    if not isinstance(device, str):
        return device
    if device != "cuda":
        raise UsageError(f"device={device!r} has no array namespace; expected 'cuda'")
    reason = why_no_cupy()
    if reason is not None:
        process = f"process {os.getpid()} on {socket.gethostname()}"
        raise UsageError(f"device='cuda' cannot be had in {process}: {reason}, or use device='cpu'")
    import cupy  # type: ignore[import-not-found, unused-ignore]

    return cupy


def why_no_cupy() -> str | None:
    """Return what keeps this process from computing with CuPy and what to do, None if nothing."""
    try:
        import cupy
    except ImportError as error:
        first = str(error).strip("=\n ").partition("\n")[0]
        return f"CuPy cannot be imported ({first}): pip install cupy-cuda12x there"
    try:
        n_devices = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy's own type, which cannot be named without CuPy
        return f"CUDA does not answer ({error}): check the driver with nvidia-smi"
    if n_devices == 0:
        return "it sees no CUDA device: check nvidia-smi and CUDA_VISIBLE_DEVICES"
    if os.environ.get("CUPY_TF32", "0") not in ("", "0"):
        return "CUPY_TF32 makes products of float32 keep 3 digits: unset it"
    return None


def fetch(xp: Any, values: Any) -> Array:
    """Return numbers of the device as float64 in this process; waits until they are there.

    Examples
    --------
    >>> fetch(np, np.float32([1, 2]))
    array([1., 2.])
    """
    to_numpy = getattr(xp, "asnumpy", np.asarray)  # CuPy converts by that name only
    return np.asarray(to_numpy(values), dtype=np.float64)


class DeviceArithmetic:
    """Operations of the E-step on arrays of a device; see `responsibilities.Arithmetic`.

    Parameters
    ----------
    xp : namespace

    Examples
    --------
    >>> resp, log_density = DeviceArithmetic(np).normalize(np.zeros((2, 1)), np.log([0.25, 0.75]))
    >>> resp.round(3).tolist(), abs(log_density).round(3).tolist()
    ([[0.25], [0.75]], [0.0])
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self._scale = 1.0

    def joint(self, log_prob: Any, log_weights: Array) -> Any:
        """Return log w_k + log p(x | k), (k, b); `log_prob` may be overwritten."""
        log_prob += self.xp.asarray(log_weights[:, None], dtype=log_prob.dtype)
        return log_prob

    def normalize(self, log_prob: Any, log_weights: Array) -> tuple[Any, Any]:
        """Return responsibilities (k, b) and log p(x) (b,); NaN where `log_prob` is."""
        xp, log_joint = self.xp, self.joint(log_prob, log_weights)
        largest = xp.max(log_joint, axis=0)
        log_joint -= largest
        ratio = xp.exp(log_joint)
        ratio *= xp.asarray(log_joint > NEGLIGIBLE, dtype=ratio.dtype)
        total = xp.sum(ratio, axis=0)
        ratio /= total
        return ratio, largest + xp.log(total)

    def assign(self, log_prob: Any, log_weights: Array) -> tuple[Any, Any]:
        """Return 0 or 1 for the likeliest component (k, b), and its log w_k + log p(x | k) (b,)."""
        xp, log_joint = self.xp, self.joint(log_prob, log_weights)
        numbers = xp.arange(log_joint.shape[0])[:, None]
        chosen = numbers == xp.argmax(log_joint, axis=0)[None, :]
        return xp.asarray(chosen, dtype=log_joint.dtype), xp.max(log_joint, axis=0)

    def with_row(self, log_prob: Any, value: float) -> Any:
        """Return log-densities (k + 1, b), of which the last row is one number."""
        k, b = log_prob.shape
        found = self.xp.empty((k + 1, b), dtype=log_prob.dtype)
        found[:k, :], found[k, :] = log_prob, value
        return found

    def restrict(self, log_prob: Any, labels: Array) -> None:
        """Hold `log_prob` (k, b), in place, to labels (b,) or responsibilities (b, k)."""
        found = log_restriction(labels, log_prob.shape[0])
        log_prob += self.xp.asarray(found, dtype=log_prob.dtype)

    def weigh(self, resp: Any, weight: Array) -> Any:
        """Multiply responsibilities by the rows' weights (b,) over the scale; see `take_scale`."""
        # A power of two takes no digits, and keeps any weight within float32.
        self._scale = float(np.ldexp(1.0, np.frexp(weight.max())[1] - 1))
        return resp * self.xp.asarray(weight / self._scale, dtype=resp.dtype)

    def take_scale(self) -> float:
        """Return what the sums of the current block have to be multiplied by."""
        return self._scale

    def total(self, values: Any, weight: Array | None) -> float:
        """Return the weighted sum of one number a row, in float64."""
        found = fetch(self.xp, values)
        return float((found if weight is None else found * weight).sum())

    def totals(self, resp: Any) -> Array:
        """Return the sums over rows, multiplied by the scale, (k,) float64."""
        return self._scale * fetch(self.xp, self.xp.sum(resp, axis=1, dtype=self.xp.float64))

    def argmax(self, log_joint: Any) -> Array:
        """Return the number of the likeliest component of each row, (b,)."""
        return fetch(self.xp, self.xp.argmax(log_joint, axis=0)).astype(np.int64)

    def likeliest(self, log_prob: Any, log_weights: Array) -> Array:
        """Return the number of the likeliest component of each row, (b,)."""
        return self.argmax(self.joint(log_prob, log_weights))

    def fetch(self, values: Any) -> Array:
        """Return an array of the device as float64 of NumPy."""
        return fetch(self.xp, values)
