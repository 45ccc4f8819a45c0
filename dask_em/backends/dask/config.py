"""The engine that computes, as the configuration of Dask says."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import dask.config
import numpy as np

from ...core.engine import Engine


def engine_for(dtype: Any) -> Engine:
    """Return what computes on data of this type: compiled loops where `fast` is installed.

    `dask.config.set({"dask_em.fast": False})` (or DASK_DASK_EM__FAST=false) goes without them;
    `{"dask_em.float32": False}` multiplies float32 data in float64.

    Examples
    --------
    >>> engine_for("float64").single
    False
    """
    fast = dask.config.get("dask_em.fast", find_spec("numba") is not None)
    single = np.dtype(dtype) == np.float32 and dask.config.get("dask_em.float32", True)
    return Engine("numba" if fast else "numpy", bool(single))
