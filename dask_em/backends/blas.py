"""The limit of one thread of BLAS, and of OpenMP, for each thread that computes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import threadpoolctl
from threadpoolctl import ThreadpoolController


@dataclass
class _Limit:
    """The limit of BLAS that all threads of this process share, and how many are inside."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    limiter: Any = None

    def restore(self) -> None:
        """Give BLAS the threads that it had."""
        if self.limiter is None:
            return
        _take_control()
        self.limiter.restore_original_limits()
        self.limiter = None
        _take_control()


_limit = _Limit()


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
    # The child of a fork has another one from then on.
    limit = _limit
    with limit.lock:
        limit.users += 1
        if limit.users == 1:
            _take_control()
            limit.limiter = _controller().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with limit.lock:
            limit.users -= 1
            if limit.users == 0:
                limit.restore()


def _forked() -> None:
    """Begin anew in the child of a fork: threads that were inside have stayed in the parent."""
    global _limit
    inherited, _limit = _limit, _Limit()
    inherited.lock = threading.Lock()
    inherited.restore()


os.register_at_fork(after_in_child=_forked)


@contextmanager
def one_openmp_thread() -> Iterator[None]:
    """Hold OpenMP to one thread where the calling thread enters it, as in scikit-learn's k-means.

    Its threads add in an order of their own, so more of them would make bits depend on the
    machine; and in the child of a fork a team of threads waits for those that stayed in the
    parent.

    Examples
    --------
    >>> import sklearn.cluster
    >>> with one_openmp_thread():
    ...     teams = ThreadpoolController().select(user_api="openmp").info()
    >>> all(library["num_threads"] == 1 for library in teams)
    True
    """
    with _openmp_controller().limit(limits=1, user_api="openmp"):
        yield


@cache
def _openmp_controller() -> ThreadpoolController:
    """The libraries of this process: that of scikit-learn, which is imported by now."""
    return ThreadpoolController()


def _controller() -> ThreadpoolController:
    """The libraries of this process: that of NumPy, and SciPy's own from when it is imported."""
    return _controller_with("scipy.linalg" in sys.modules)


@cache
def _controller_with(scipy: bool) -> ThreadpoolController:
    return ThreadpoolController()


def _take_control() -> None:
    """Let this thread set the process's limit of OpenBLAS, whoever set it last.

    Since version 3.8 threadpoolctl lets one thread alone do so, and does nothing, without a
    word, for all others: here the last to leave may be another than the first to enter.
    """
    openblas: Any = getattr(threadpoolctl, "OpenBLASController", None)
    if hasattr(openblas, "clear_controlling_thread"):
        openblas.clear_controlling_thread(force=True)
