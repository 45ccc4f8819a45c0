"""Calls of pure functions in this process: one after the other, or by threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Generic

from ..machine import usable_cpus
from .protocols import Advance, Executor, In, Out, T, T_co


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
    with ThreadPoolExecutor(usable_cpus()) as pool:
        # Each thread works in the context of the caller: its job, its tuning.
        calls = [pool.submit(copy_context().run, function, item) for item in items]
        return [call.result() for call in calls]
