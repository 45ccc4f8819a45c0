"""Calls of pure functions, several at a time; who makes them is decided above."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

In = TypeVar("In")

Out = TypeVar("Out")


class Each(Protocol):
    """Calls a function of what all calls share and of each of some arguments."""

    def __call__(
        self,
        function: Callable[[Any, In], Out],
        arguments: Sequence[In],
        advance: Callable[[int], None] | None = None,
    ) -> list[Out]:
        """The results in their order; `advance` is told how many more calls are done.

        `function` is pure: it may be called in any process, and again where one is lost.
        """


Together = Callable[[Any], AbstractContextManager[Each]]
"""Makes an `Each` of what all calls share."""


@contextmanager
def in_turn(shared: Any) -> Iterator[Each]:
    """One call after the other, in this thread."""

    def each(
        function: Callable[[Any, In], Out],
        arguments: Sequence[In],
        advance: Callable[[int], None] | None = None,
    ) -> list[Out]:
        found = []
        for argument in arguments:
            found.append(function(shared, argument))
            if advance:
                advance(1)
        return found

    yield each


def in_threads(function: Callable[[In], Out], arguments: Sequence[In]) -> list[Out]:
    """`function` of each argument, in their order, by as many threads as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, arguments))
