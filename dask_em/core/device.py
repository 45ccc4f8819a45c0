"""TODO core.device."""

from __future__ import annotations

import os
import socket
from typing import Any, TypeAlias

from ..errors import UsageError

Device: TypeAlias = Any
"""`"cpu"`, `"cuda"`, or a namespace of the array API itself."""


DEVICE_NAMES = ("cpu", "cuda", "auto")


# -- where -----------------------------------------------------------------------------


def resolve_device(device: Device) -> Device:
    """The device that `device=` asks for, decided once, before the first pass.

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
    """
    if isinstance(device, str) and device in DEVICE_NAMES:
        if device != "auto":
            return device
        return "cuda" if _why_no_cupy() is None else "cpu"
    if not isinstance(device, str) and all(hasattr(device, n) for n in ("asarray", "matmul")):
        return device
    raise UsageError(
        f"device must be one of {', '.join(map(repr, DEVICE_NAMES))}, or an array namespace "
        f"such as the module cupy; got {device!r}"
    )


def namespace(device: Device) -> Any:
    """The array namespace of a resolved device, in the process that computes.

    CUDA work goes to the process's current device: one process a GPU, each shown its
    own by CUDA_VISIBLE_DEVICES.

    Raises
    ------
    UsageError
        This process cannot compute on that device.
    """
    if not isinstance(device, str):
        return device
    if device != "cuda":
        raise UsageError(f"device={device!r} has no array namespace; expected 'cuda'")
    reason = _why_no_cupy()
    if reason is not None:
        process = f"process {os.getpid()} on {socket.gethostname()}"
        raise UsageError(f"device='cuda' cannot be had in {process}: {reason}, or use device='cpu'")
    import cupy  # type: ignore[import-not-found, unused-ignore]

    return cupy


def _why_no_cupy() -> str | None:
    """What keeps this process from computing with CuPy and what to do, None if nothing."""
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
