"""Results of tasks: values, errors that trying again does not heal, values of unlike workers.

An exception in a task is tried again by Dask, and logged by the worker each time with its
traceback. A damaged chunk stays damaged, and its message is for whoever asked for the pass; a
worker that runs another program stays such a one, and refuses.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Concatenate, ParamSpec

from ...core.reduction import add_all
from ...errors import DaskEMError
from ..software import Software, describe_workers, other_digits, refuse_other, software_here

logger = logging.getLogger("dask_em")

P = ParamSpec("P")


@dataclass(frozen=True)
class Failure:
    """The result of a task that cannot have another."""

    error: DaskEMError


@dataclass(frozen=True)
class Unlike:
    """The result of tasks of which some ran where digits are rounded otherwise than here.

    Attributes
    ----------
    value : object
        The result.
    workers : dict of str to str
        The addresses of those workers, with processor and libraries.
    """

    value: Any
    workers: dict[str, str]


def on_worker(function: Callable[P, Any]) -> Callable[Concatenate[Software | None, P], Any]:
    """Return the function of a task, which is given what software whoever sends it has.

    It returns an error of ours where to try again is of no use: that of a worker with other
    software, too. None is the software of tasks that stay in this process.

    Examples
    --------
    >>> from dask_em.errors import DataError, StoreError
    >>> @on_worker
    ... def read(error):
    ...     raise error
    >>> read(None, DataError("chunk 7 is damaged"))
    Failure(error=DataError('chunk 7 is damaged'))
    >>> read(None, StoreError("the store does not answer"))
    Traceback (most recent call last):
        ...
    dask_em.errors.StoreError: the store does not answer
    """

    @functools.wraps(function)
    def task(sender: Software | None, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            unlike = {} if sender is None else hold_to(sender)
            value = function(*args, **kwargs)
        except DaskEMError as e:
            if e.transient:
                raise
            return Failure(e)
        return _together([value], unlike, itemgetter(0))

    return task


def hold_to(sender: Software) -> dict[str, str]:
    """Refuse to compute where this process runs another program than the sender of a task.

    Returns
    -------
    dict of str to str
        Empty, or the name of this process and its computer, where it rounds otherwise.

    Raises
    ------
    WorkerError
        It names this process.
    """
    here = software_here(bool(sender.get("numba")))
    if here == sender:
        return {}
    refuse_other(sender, here, name_here())
    return {name_here(): here["computer"]} if other_digits(sender, here) else {}


def name_here() -> str:
    """Return the address of the worker that this thread computes for, for people."""
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:
        return "of this process"


def value_of(found: Any) -> Any:
    """Return the result of a task, or raise the error that it is.

    The log says once a kind of computer that its digits are other ones.
    """
    if isinstance(found, Failure):
        raise found.error
    if isinstance(found, Unlike):
        tell_of(found.workers)
        return found.value
    return found


_told: set[str] = set()


def tell_of(workers: Mapping[str, str]) -> None:
    """Log which workers round otherwise than this process, once a kind of computer."""
    for computer, sentence in describe_workers(workers).items():
        if computer not in _told:
            _told.add(computer)
            logger.warning("%s", sentence)


@on_worker
def add_unless_failed(parts: Sequence[Any]) -> Any:
    """Add sums as `add_all` does; of parts that failed, return the first."""
    return first_failure(parts) or _together(parts, {}, add_all)


@on_worker
def all_unless_failed(parts: Sequence[Any]) -> Any:
    """Return the parts; of those that failed, the first."""
    return first_failure(parts) or _together(parts, {}, list)


def first_failure(parts: Sequence[Any]) -> Failure | None:
    """Return the first of the parts that failed."""
    return next((part for part in parts if isinstance(part, Failure)), None)


def _together(
    parts: Sequence[Any], workers: dict[str, str], join: Callable[[Sequence[Any]], Any]
) -> Any:
    """Join the values of parts, with some workers and those that the parts are to tell of."""
    values = []
    for part in parts:
        if isinstance(part, Unlike):
            workers = workers | part.workers
            part = part.value
        values.append(part)
    joined = join(values)
    return Unlike(joined, workers) if workers and not isinstance(joined, Failure) else joined


@dataclass(frozen=True)
class HeldTask:
    """A task of a graph, held from Dask, and the keys of those whose results it needs."""

    task: Callable[[Mapping[Hashable, Any]], Any]
    needs: tuple[Hashable, ...]


@on_worker
def run_held(held: HeldTask, *results: Any) -> Any:
    """Run a task with the results that it needs; of those that failed, return the first."""
    return first_failure(results) or held.task(dict(zip(held.needs, results, strict=True)))
