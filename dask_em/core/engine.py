"""Engines: what computes the E-step, with which precision, and on which device."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal


@dataclass(frozen=True)
class Engine:
    """Name what computes the E-step: chosen where the fit starts, the same on every worker.

    Two engines agree to rounding, not in their bits, so a worker that lacks the one
    that was chosen must fail rather than take another.

    Attributes
    ----------
    name : {"numpy", "numba"}
        NumPy and BLAS, or the loops that the extra `fast` compiles.
    single : bool
        Whether products may be made in float32 where the family's bound allows.
    device : "cpu", "cuda" or namespace
        As `core.device.resolve_device` returns it. Anything but "cpu" takes the
        array kernel, whatever `name` says.

    Examples
    --------
    >>> Engine(single=True)
    Engine(name='numpy', single=True, device='cpu')
    """

    name: Literal["numpy", "numba"] = "numpy"
    single: bool = False
    device: Any = "cpu"


NUMPY = Engine()


def compiler() -> tuple[str, str]:
    """Return the version of Numba, and for which vectors it compiles; empty where it is missing.

    The loops of AVX-512 have other tiles than those of AVX2, and add in another order.

    Examples
    --------
    >>> version, vectors = compiler()
    >>> bool(version) == bool(vectors)
    True
    """
    try:
        import llvmlite.binding
        import numba
    except Exception:
        # Beside a NumPy that it does not know it fails in many ways.
        return "", ""
    features = llvmlite.binding.get_host_cpu_features()
    vectors = [name for name in ("avx512f", "avx2", "fma") if features.get(name)]
    return str(numba.__version__), " ".join(["compiled", *vectors])


def check_engine(engine: Engine) -> None:
    """Raise `ImportError` where this process lacks what `engine` needs."""
    if engine.name == "numba" and find_spec("numba") is None:
        raise ImportError(
            "the fit was started with Numba, and this process has none: pip install "
            "'dask-em[fast]' on every worker, or set dask_em.fast to false where the fit starts"
        )
