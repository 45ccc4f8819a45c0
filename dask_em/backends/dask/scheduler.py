"""The Dask scheduler in force: a cluster's, from inside a task too, or one of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import dask.base
import dask.config
import dask.threaded

from ...errors import UsageError
from ...machine import usable_cpus
from ...runtime import current_job

Get = Callable[..., Any]
"""A scheduler's function: a graph, and the keys whose results are wanted -> these results."""


def client_in_force() -> Any:
    """Return the client whose scheduler is in force, None where this process computes.

    In a task it is a client of the worker's cluster, as `distributed.get_client` finds it. In a
    thread that a task has started it is none: that task may wait for the thread and hold its
    place in the worker, for which the tasks of a pass would wait for ever.

    Raises
    ------
    UsageError
        The client is asynchronous, and this is the thread of its event loop.
    """
    try:
        client = getattr(dask.base.get_scheduler(), "__self__", None)
    except RuntimeError as e:
        if "asynchronous" not in str(e):
            raise
        raise UsageError(
            "the Dask client in force is asynchronous, and results cannot be waited for in the "
            "thread of its event loop: call this in another one (await "
            "asyncio.to_thread(model.fit, X)), or compute in threads of this process (with "
            'dask.config.set(scheduler="threads"))'
        ) from e
    return None if client is None or _beside_a_task(client) else client


def _beside_a_task(client: Any) -> bool:
    """Tell whether this thread was started by a task of a worker."""
    from distributed import get_worker

    try:
        get_worker().get_current_task()
    except KeyError:
        return True
    except ValueError:
        # In no worker's context. The client that a worker makes for its tasks is that of all
        # threads of its process.
        return str(client.id).startswith("Client-worker-")
    return False


def local_scheduler() -> Get:
    """Return the function of a scheduler of this process: that configured, else of threads."""
    if dask.config.get("scheduler", None) is not None:
        # A client that is configured may be missing, or asynchronous: it is not needed.
        with suppress(RuntimeError):
            get: Get = dask.base.get_scheduler()
            if not hasattr(get, "__self__"):
                return get
    return _by_threads


def _by_threads(graph: Any, keys: Any) -> Any:
    n_threads = dask.config.get("num_workers", None) or usable_cpus()
    return dask.threaded.get(graph, keys, num_workers=n_threads)


@contextmanager
def seceded() -> Iterator[None]:
    """Give a task's place in its worker to others for the block, and take one again after it.

    Whoever waits in a task for results of the cluster does so in this block, as in
    `distributed.worker_client`. Outside a task, and within another such block, it does nothing.
    A job that is to stop waits for no place.
    """
    from distributed import rejoin, secede

    try:
        secede()
    except (ValueError, KeyError, AttributeError):
        # In turn: no worker, a thread that has no place now, a thread that never had one.
        yield
        return
    try:
        yield
    finally:
        if not current_job().stop_requested:
            rejoin()
