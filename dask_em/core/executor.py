"""Calls of pure functions in this process: one after the other, or by threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Generic, ParamSpec, TypeVar

from ..errors import UsageError
from ..machine import usable_cpus
from .protocols import Advance, Executor, In, Out, T, T_co

P = ParamSpec("P")
_T = TypeVar("_T")


class ThreadPool(ThreadPoolExecutor):
    """Threads that work in the context of whoever submits: for its job, with its tuning.

    One is made for a call and ends with it. None is kept: in the child of a fork its threads
    would not be there, and whoever submits would wait for ever.

    Examples
    --------
    >>> with ThreadPool(2) as pool:
    ...     list(pool.map(abs, [-1, -2, -3]))
    [1, 2, 3]
    """

    def submit(self, fn: Callable[P, _T], /, *args: P.args, **kwargs: P.kwargs) -> Future[_T]:
        """Have a thread call a function.

        Raises
        ------
        UsageError
            The system, or an interpreter that ends, starts no more threads.
        """
        context = copy_context()
        try:
            return super().submit(lambda: context.run(fn, *args, **kwargs))
        except RuntimeError as e:
            raise no_thread(e) from e


def no_thread(e: RuntimeError) -> UsageError:
    """Return the error that says what to do where Python starts no more threads.

    Examples
    --------
    >>> print(no_thread(RuntimeError("can't start new thread")))
    no thread can be started here (can't start new thread): while Python ends ...
    """
    return UsageError(
        f"no thread can be started here ({e}): while Python ends (in functions of atexit) nothing "
        "can be computed, so call this before; else raise the limit of threads (ulimit -u, or "
        "pids.max of the cgroup)"
    )


class SerialExecutor(Executor[T_co], Generic[T_co]):
    """Make one call after the other, in the calling thread.

    Examples
    --------
    >>> SerialExecutor(10).map(lambda shared, item: shared * item, [1, 2, 3])
    [10, 20, 30]
    """

    def __init__(self, shared: T_co) -> None:
        self._shared = shared

    def map(
        self,
        function: Callable[[T_co, In], Out],
        items: Sequence[In],
        advance: Advance | None = None,
    ) -> list[Out]:
        """Return `function(shared, item)` of each item, in order."""
        found = []
        for item in items:
            found.append(function(self._shared, item))
            if advance:
                advance(1)
        return found


@contextmanager
def serial_executor(shared: T) -> Iterator[Executor[T]]:
    """Make a `SerialExecutor`: an `ExecutorFactory` for whoever is given no backend.

    Examples
    --------
    >>> with serial_executor(10) as executor:
    ...     executor.map(lambda shared, item: shared * item, [1, 2, 3])
    [10, 20, 30]
    """
    yield SerialExecutor(shared)


def in_threads(function: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
    """Return `function(item)` of each item, in order, by a thread a usable processor.

    Examples
    --------
    >>> in_threads(abs, [-1, -2, -3])
    [1, 2, 3]
    """
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPool(usable_cpus()) as pool:
        return list(pool.map(function, items))
