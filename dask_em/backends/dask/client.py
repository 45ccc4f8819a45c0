"""The client of a Dask cluster, trying again where it fails, and waiting for results."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import dask.config
from dask.utils import parse_bytes

from ...core.protocols import Advance, Out
from ...runtime import current_job
from .config import software_of_fits
from .recovery import TaskMemoryError, of_the_cluster, recover
from .scheduler import seceded
from .workers import compare_workers

logger = logging.getLogger("dask_em")

Key = tuple[str, int]

# How often what is awaited is looked at, and how often the workers that are to make it are counted.
LOOK_SECONDS, COUNT_SECONDS = 0.2, 5.0

# A task that failed for a passing reason (a store that hiccups) is tried again.
RETRIES = 2

# Above this size of a graph distributed warns that data may have got into it.
LARGE_GRAPH = "distributed.admin.large-graph-warning-threshold"

_raising_threshold = threading.Lock()


def _forked() -> None:
    global _raising_threshold
    _raising_threshold = threading.Lock()


os.register_at_fork(after_in_child=_forked)


def until_done(
    client: Any, advance: Advance | None, name: str, make: Callable[[Advance | None], Out]
) -> Out:
    """Return what `make` returns, called again where the cluster fails.

    A task of a worker that waits here leaves its place to the tasks that it waits for.

    Parameters
    ----------
    client : distributed.Client
    advance : callable, optional
        Told how much more is done; what a failed attempt told is taken back.
    name : str
        Of the pass, among the scheduler's events.
    make : callable
        What tells of its progress -> the result.

    Raises
    ------
    StoppedError
        The job was asked to stop, or the cluster failed for good.
    """
    run = current_job()
    with seceded():
        for attempt in count(1):
            run.check()
            told, began = Progress(advance), time.monotonic()
            try:
                found = make(told.advance if advance else None)
                _tell(client, name, time.monotonic() - began, attempt)
                return found
            except Exception as e:
                if isinstance(e, ImportError | AttributeError | TypeError):
                    # Of a worker that cannot even read the tasks, perhaps.
                    compare_workers(client, software_of_fits())
                if not of_the_cluster(e):
                    raise
                recover(client, e, attempt, run)
                told.take_back()
    raise AssertionError("unreachable")


class Progress:
    """Count what a pass has told of its rows, so that it can be taken back."""

    def __init__(self, advance: Advance | None) -> None:
        self._advance, self._n_rows = advance, 0

    def advance(self, n_rows: int) -> None:
        """Tell of so many more rows that are done."""
        self._n_rows += n_rows
        if self._advance:
            self._advance(n_rows)

    def take_back(self) -> None:
        """Tell that none of them is done."""
        self.advance(-self._n_rows)


def _tell(client: Any, name: str, seconds: float, attempt: int) -> None:
    """Put the pass among the scheduler's events, topic `dask-em`."""
    event = {"action": "pass", "of": name, "seconds": seconds, "attempt": attempt}
    with suppress(OSError):
        client.log_event("dask-em", event)


def result_of(root: Any, look: Callable[[], None] = lambda: None) -> Any:
    """Return the result of a future; while it is awaited, `look` is called now and then."""
    run, workers = current_job(), WorkerCount(root.client)
    done = threading.Event()
    root.add_done_callback(lambda _: done.set())
    # Not by the timeout of `result`: one that strikes while the result is fetched leaves a
    # cancelled fetch in the client, on which the next call fails.
    while not (root.done() or done.wait(LOOK_SECONDS)):
        look()
        workers.look()
        run.check()
    try:
        return root.result()
    except MemoryError as e:
        # A result that is there, and does not fit in here, is no fault of the cluster's.
        if root.status == "error":
            raise TaskMemoryError(e) from e
        raise


class WorkerCount:
    """Tell in the log when somebody waits for a cluster without workers, and when one has come."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._began = self._counted = time.monotonic()
        self._none = False

    def look(self) -> None:
        """Count the workers, if it is time to."""
        now = time.monotonic()
        if now - self._counted < COUNT_SECONDS:
            return
        self._counted = now
        try:
            none = not self._client.nthreads(callback_timeout=COUNT_SECONDS)
        except Exception:
            # A scheduler that does not answer is told of by whoever waits for the result.
            return
        if none and not self._none:
            logger.warning(
                "the cluster has no workers: waiting for one to join (start workers, or scale the "
                "cluster up)"
            )
        elif self._none and not none:
            logger.warning("a worker has joined after %.0f s: going on", now - self._began)
        self._none = none


def sent_bytes(parameters: Any) -> int:
    """Return the number of bytes in which parameters are sent."""
    from distributed.protocol.pickle import dumps

    buffers: list[Any] = []
    header: bytes = dumps(parameters, buffer_callback=buffers.append)
    return len(header) + sum(int(buffer.raw().nbytes) for buffer in buffers)


@contextmanager
def large_parameters_allowed(size: int) -> Iterator[None]:
    """Keep distributed's warning of a large graph to what is beside parameters of `size` bytes.

    They are in the graph once, as they must be for a lost worker's copy to be made
    again; data that somebody put into a graph are still warned of.
    """
    # The setting belongs to the process: two passes must not restore each other's.
    with _raising_threshold:
        threshold = parse_bytes(dask.config.get(LARGE_GRAPH, "10MB"))
        with dask.config.set({LARGE_GRAPH: threshold + size}):
            yield


def as_it_is(value: Any) -> Any:
    """Return the value: the task that holds what other tasks want."""
    return value


def producer(key: Key, function: Callable[..., Any], needs: Sequence[Key], *rest: Any) -> Any:
    """Return a task that any idle worker is given, whoever holds what it needs.

    Where a scheduler has more than half as many threads as there are such tasks, it would send all
    of them to the worker that holds the parameters, and move them once one of them is done. It
    knows tasks that read by this mark; a Dask without it takes the task as any other.

    Parameters
    ----------
    key : key
    function : callable
        (results of the tasks that are needed, and the rest) -> anything.
    needs : sequence of key
    *rest : object
        Values of this task alone.

    Examples
    --------
    >>> import dask
    >>> graph = {("two", 0): (as_it_is, 2), ("sum", 0): producer(("sum", 0), max, [("two", 0)], 1)}
    >>> dask.get(graph, ("sum", 0))
    2
    """
    try:
        # No public name makes such a task.
        from dask._task_spec import Task, TaskRef

        return Task(key, function, *map(TaskRef, needs), *rest, _data_producer=True)
    except (ImportError, TypeError):
        return (function, *needs, *rest)


def advance_by(rows: int, advance: Advance | None) -> Callable[[Any], None]:
    """Return what tells `advance` of so many rows when a future is finished."""

    def done(future: Any) -> None:
        if future.status == "finished" and advance:
            advance(rows)

    return done
