"""The engine that computes, as the configuration of Dask says."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from ...core.engine import Engine
from ...core.tuning import tuning
from ..software import Software, software_here

logger = logging.getLogger("dask_em")


def engine_for(dtype: Any, device: Any = "cpu", n_responsibilities: float = float("inf")) -> Engine:
    """Return what computes on data of this type: compiled loops where `fast` is installed.

    Where they are missing on a CPU, and nobody chose so, the log says so once a process. Small
    data go without them, for it takes longer to load them than to fit. As that depends on the
    data alone, it is the same on every worker and whenever the fit goes on.

    `dask.config.set({"dask_em.fast": False})` (or DASK_DASK_EM__FAST=false) always goes without
    them, and True never; `{"dask_em.float32": False}` multiplies float32 data in float64.

    Parameters
    ----------
    dtype : type of numbers
    device : {"cpu", "cuda"} or namespace
    n_responsibilities : float
        Rows times components; infinite where nobody knows how many rows there are.

    Examples
    --------
    >>> engine_for("float64").single
    False
    """
    # Whoever imports an estimator need not have Dask in this process.
    import dask.config

    fast = dask.config.get("dask_em.fast", None)
    if fast is None:
        fast = find_spec("numba") is not None
        if not fast and device == "cpu":
            _log_that_numba_is_missing()
        fast = fast and n_responsibilities >= tuning().compiled_kernel.worth_loading
    single = np.dtype(dtype) == np.float32 and dask.config.get("dask_em.float32", True)
    return Engine("numba" if fast else "numpy", bool(single), device)


def survey_engine(n_rows: int | None) -> Engine:
    """Return what computes the first pass over so many rows; None where nobody has counted them.

    By the rows alone, so that whoever makes it takes the same: where they repay what it takes to
    load the compiled loops, every E-step of the fit has them too. Rows that nobody has counted may
    be few, and few of them are to give the bits of those that somebody has: NumPy's.

    Examples
    --------
    >>> survey_engine(1000).name, survey_engine(None).name
    ('numpy', 'numpy')
    """
    return engine_for(np.float64, n_responsibilities=0 if n_rows is None else n_rows)


def software_of_fits() -> Software:
    """Return what decides the bits of whatever this process starts, Numba where it computes."""
    return software_here(engine_for(np.float64).name == "numba")


@cache
def _log_that_numba_is_missing() -> None:
    logger.info(
        "Numba is not installed: a pass takes up to twice as long as with it; "
        "pip install 'dask-em[fast]', here and on every worker"
    )
