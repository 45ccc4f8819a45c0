"""Errors that trying again does not heal, as results of tasks: the caller raises them.

An exception in a task is tried again by Dask, and logged by the worker each time with its
traceback. A damaged chunk stays damaged, and its message is for whoever asked for the pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from ...core.reduction import add_all
from ...errors import DaskEMError

P = ParamSpec("P")

Value = TypeVar("Value")


@dataclass(frozen=True)
class Failure:
    """The result of a task that cannot have another."""

    error: DaskEMError


def failing_once(function: Callable[P, Value]) -> Callable[P, Value | Failure]:
    """Return a function that returns an error of ours where to try again is of no use.

    Examples
    --------
    >>> from dask_em.errors import DataError, StoreError
    >>> @failing_once
    ... def read(error):
    ...     raise error
    >>> read(DataError("chunk 7 is damaged"))
    Failure(error=DataError('chunk 7 is damaged'))
    >>> read(StoreError("the store does not answer"))
    Traceback (most recent call last):
        ...
    dask_em.errors.StoreError: the store does not answer
    """

    @functools.wraps(function)
    def once(*args: P.args, **kwargs: P.kwargs) -> Value | Failure:
        try:
            return function(*args, **kwargs)
        except DaskEMError as e:
            if e.transient:
                raise
            return Failure(e)

    return once


def value_of(found: Value | Failure) -> Value:
    """Return the result of a task, or raise the error that it is."""
    if isinstance(found, Failure):
        raise found.error
    return found


def add_unless_failed(parts: Sequence[Any]) -> Any:
    """Add sums as `add_all` does; of parts that failed, return the first."""
    return first_failure(parts) or add_all(parts)


def all_unless_failed(parts: Sequence[Any]) -> Any:
    """Return the parts; of those that failed, the first."""
    return first_failure(parts) or parts


def first_failure(parts: Sequence[Any]) -> Failure | None:
    """Return the first of the parts that failed."""
    return next((part for part in parts if isinstance(part, Failure)), None)


@dataclass(frozen=True)
class HeldTask:
    """A task of a graph, held from Dask, and the keys of those whose results it needs."""

    task: Callable[[Mapping[Hashable, Any]], Any]
    needs: tuple[Hashable, ...]


@failing_once
def run_held(held: HeldTask, *results: Any) -> Any:
    """Run a task with the results that it needs."""
    return held.task(dict(zip(held.needs, results, strict=True)))
