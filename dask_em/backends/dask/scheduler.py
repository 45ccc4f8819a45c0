"""The Dask scheduler in force: a cluster's, from inside a task too, or one of this process."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import dask.base
import dask.config
import dask.threaded

from ...core.executor import ThreadPool
from ...errors import UsageError
from ...machine import usable_cpus
from ...runtime import current_job

Get = Callable[..., Any]
"""A scheduler's function: a graph, and the keys whose results are wanted -> these results."""

# How long the event loop of a client that was not used yet may take to answer.
ANSWER_SECONDS = 5.0

# Clients whose event loops run in this process, and those that a fork has left in the parent.
_answering: weakref.WeakSet[Any] = weakref.WeakSet()
_inherited: weakref.WeakSet[Any] = weakref.WeakSet()

# Pools and executors that were configured when this process was forked.
_left_behind: list[Any] = []


def client_in_force() -> Any:
    """Return the client whose scheduler is in force, None where this process computes.

    In a task it is a client of the worker's cluster, as `distributed.get_client` finds it. In a
    thread that a task has started it is none: that task may wait for the thread and hold its
    place in the worker, for which the tasks of a pass would wait for ever.

    Raises
    ------
    UsageError
        The client is asynchronous, and this is the thread of its event loop; or it is that of
        the process from which this one was forked.
    """
    try:
        client = _current_client()
    except RuntimeError as e:
        if "asynchronous" not in str(e):
            raise
        raise UsageError(
            "the Dask client in force is asynchronous, and results cannot be waited for in the "
            "thread of its event loop: call this in another one (await "
            "asyncio.to_thread(model.fit, X)), or compute in threads of this process (with "
            'dask.config.set(scheduler="threads"))'
        ) from e
    if client is None:
        return None
    refuse_inherited(client)
    return None if _beside_a_task(client) else client


def _current_client() -> Any:
    if "distributed" not in sys.modules and dask.config.get("scheduler", None) is None:
        # Nobody has made a client; to ask would import the library, in the time of a small fit.
        return None
    return getattr(dask.base.get_scheduler(), "__self__", None)


def refuse_inherited(client: Any) -> None:
    """Refuse a client that a fork has left to its parent, where the event loop's thread is.

    Raises
    ------
    UsageError
        The client's event loop does not answer.
    """
    if client in _answering:
        return
    if client not in _inherited:
        answer = threading.Event()
        client.loop.add_callback(answer.set)
        if answer.wait(ANSWER_SECONDS):
            _answering.add(client)
            return
    address = getattr(client.scheduler, "address", "inproc:")
    if address.startswith("inproc:"):
        # That of a cluster within the parent.
        address = "tcp://HOST:PORT"
    raise UsageError(
        f"the Dask client in force does not answer in process {os.getpid()}: a client that was "
        "made before a fork works in the parent alone. Make one in this process (with "
        f'distributed.Client("{address}")), or compute in threads of this process (with '
        'dask.config.set(scheduler="threads"))'
    )


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
    configured = dask.config.get("scheduler", None)
    if configured is not None and not _is_left_behind(configured):
        # A client that is configured may be missing, or asynchronous: it is not needed.
        with suppress(RuntimeError):
            get: Get = dask.base.get_scheduler()
            if not hasattr(get, "__self__") and get is not dask.threaded.get:
                return get
    return _by_threads


def _by_threads(graph: Any, keys: Any, **options: Any) -> Any:
    """Compute by threads of this call alone; Dask's own outlive it, though not a fork."""
    configured = dask.config.get("pool", None)
    if configured is not None and not _is_left_behind(configured):
        return dask.threaded.get(graph, keys, **options)
    pool = ThreadPool(dask.config.get("num_workers", None) or usable_cpus())
    try:
        return dask.threaded.get(graph, keys, pool=pool, **options)
    finally:
        # Where this is left by an exception, nobody waits for what still runs.
        pool.shutdown(wait=False, cancel_futures=True)


def check_answers() -> None:
    """Check that lazy answers can be computed where Dask would compute them.

    Raises
    ------
    UsageError
        The client in force is that of the process from which this one was forked.
    """
    # An asynchronous one is the caller's to wait for.
    with suppress(RuntimeError):
        client = _current_client()
        if client is not None:
            refuse_inherited(client)


def _is_left_behind(configured: Any) -> bool:
    """Tell whether what is configured holds threads or processes of the parent of a fork."""
    return not isinstance(configured, str) and any(configured is one for one in _left_behind)


def _forked() -> None:
    """Know that no thread is in the child of a fork: not those of clients, nor Dask's pools.

    Dask keeps pools for whoever calls `compute`, of lazy answers too.
    """
    _inherited.update(_answering)
    _answering.clear()
    distributed = sys.modules.get("distributed")
    if distributed is not None:
        with suppress(ValueError, AttributeError):
            _inherited.add(distributed.default_client())
    _left_behind[:] = [dask.config.get(name, None) for name in ("pool", "scheduler")]
    dask.threaded.pools_lock = threading.Lock()
    dask.threaded.default_pool = None
    dask.threaded.pools.clear()


os.register_at_fork(after_in_child=_forked)


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
