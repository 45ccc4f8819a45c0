"""The limit of one BLAS thread for each thread that computes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import threadpoolctl
from threadpoolctl import ThreadpoolController

_lock = threading.Lock()

_users = 0

_limiter: Any = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread in this process while any caller is inside.

    The setting belongs to the process, so callers in several threads share one
    limit: the first to enter sets it and the last to leave restores it.

    Examples
    --------
    >>> with one_blas_thread():
    ...     blas = ThreadpoolController().select(user_api="blas").info()
    >>> all(library["num_threads"] == 1 for library in blas)
    True
    """
    global _users, _limiter
    with _lock:
        _users += 1
        if _users == 1:
            _take_control()
            _limiter = _controller().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _take_control()
                _limiter.restore_original_limits()
                _limiter = None
                _take_control()


@cache
def _controller() -> ThreadpoolController:
    """The libraries of this process: those of NumPy and SciPy, which are imported by now."""
    return ThreadpoolController()


def _take_control() -> None:
    """Let this thread set the process's limit of OpenBLAS, whoever set it last.

    Since version 3.8 threadpoolctl lets one thread alone do so, and does nothing, without a
    word, for all others: here the last to leave may be another than the first to enter.
    """
    openblas: Any = getattr(threadpoolctl, "OpenBLASController", None)
    if hasattr(openblas, "clear_controlling_thread"):
        openblas.clear_controlling_thread(force=True)
