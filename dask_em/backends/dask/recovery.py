"""Recovery from a Dask cluster that fails: wait and try again, or stop and say why."""

from __future__ import annotations

import logging
import time
from concurrent.futures import CancelledError
from typing import Any

import dask.config

from ...errors import StoppedError
from ...runtime import JobControl

logger = logging.getLogger("dask_em")

# Of a cluster that is to recover soon. A task may hold the interpreter for a while, so a
# worker is not taken for hung before a minute; below 11 s nothing connects. The cleanup delay
# and the three lengths bound what a scheduler remembers of passes and workers that are gone,
# sooner than Dask does: the messages to a killed worker stay until the garbage is collected.
SETTINGS = {
    "distributed.scheduler.allowed-failures": 10,
    "distributed.scheduler.worker-ttl": "60s",
    "distributed.scheduler.no-workers-timeout": "5 minutes",
    "distributed.comm.timeouts.tcp": "15s",
    "distributed.scheduler.events-cleanup-delay": "5 minutes",
    "distributed.admin.log-length": 200,
    "distributed.admin.low-level-log-length": 50,
    "distributed.admin.system-monitor.log-length": 600,
    # Dask has workers give memory back so eagerly that each E-step on the sample takes its
    # buffers anew, page by page, for as long as it computes. Chunks are larger than this.
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**22,
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**24,
}


def cluster_settings() -> dict[str, Any]:
    """Return `SETTINGS`, but for those that somebody has configured.

    Examples
    --------
    >>> with dask.config.set({"distributed.scheduler.worker-ttl": "9s"}):
    ...     "distributed.scheduler.worker-ttl" in cluster_settings()  # the user's own stays
    False
    """
    defaults = dask.config.merge(*dask.config.defaults)
    return {
        name: value
        for name, value in SETTINGS.items()
        if dask.config.get(name, None) == dask.config.get(name, None, config=defaults)
    }


def scheduler_extensions() -> dict[str, Any]:
    """Return what a scheduler has beside its tasks, but for records that grow with every pass.

    Dask keeps the groups of all tasks that ever were, by spans, for its page of fine
    performance metrics: about 18 KiB a pass. Of the last 100 000 keys it keeps the prefix,
    about 2 KiB a pass of few tasks, and no key comes again in another pass.

    Examples
    --------
    >>> scheduler_extensions()["spans"].__name__
    'NoSpans'
    """
    from dask.utils import key_split
    from distributed.scheduler import DEFAULT_EXTENSIONS
    from distributed.spans import SpansSchedulerExtension

    class NoSpans(SpansSchedulerExtension):
        """Knows no spans, whatever it is told, and no keys of earlier passes."""

        def observe_tasks(self, *_: Any, **__: Any) -> dict[Any, Any]:
            key_split.cache_clear()
            return {}

        def heartbeat(self, *_: Any) -> None:
            pass

    extensions = {**DEFAULT_EXTENSIONS, "spans": NoSpans}
    if not dask.config.get("distributed.scheduler.work-stealing"):
        del extensions["stealing"]
    return extensions


# How often a pass is made again because the connection broke, with pauses that double, and
# how long the scheduler may stay away each time.
PASS_RETRIES, FIRST_PAUSE, AWAY_SECONDS = 5, 1.0, 60.0


class TaskMemoryError(MemoryError):
    """A task could not get memory on its worker; here there may be enough."""


def of_the_cluster(e: Exception) -> bool:
    """Tell whether the cluster failed, and not what was computed on it."""
    from distributed.comm.core import CommClosedError

    if isinstance(e, TaskMemoryError | CancelledError | CommClosedError):
        return True
    return type(e).__module__.partition(".")[0] == "distributed"


def recover(client: Any, e: Exception, attempt: int, run: JobControl) -> None:
    """Wait until the pass may be made again.

    Raises
    ------
    StoppedError
        It is of no use; the message says why and what to do.
    """
    from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

    if isinstance(e, KilledWorker):
        raise StoppedError(_killed(client, e)) from e
    if isinstance(e, TaskMemoryError):
        raise StoppedError(f"a task could not get memory on a worker ({e}); {MORE_MEMORY}") from e
    if isinstance(e, NoWorkerError | NoValidWorkerError):
        raise StoppedError(
            f"the cluster had no worker for {e.timeout:.0f} s: start workers again"
        ) from e
    if attempt > PASS_RETRIES:
        raise StoppedError(
            f"the cluster failed {attempt} times in one pass, last: {_short(e)}"
        ) from e
    logger.warning("the cluster failed (%s); the pass is made again", _short(e))
    run.wait(FIRST_PAUSE * 2 ** (attempt - 1))
    deadline = time.monotonic() + AWAY_SECONDS
    while client.status != "running":
        if client.status == "closed" or time.monotonic() > deadline:
            raise StoppedError(
                "the Dask scheduler was lost and did not come back: start it again"
            ) from e
        run.wait(0.1)
    run.retries += 1


MORE_MEMORY = (
    "give workers more memory (memory_limit) or fewer threads, or store the data in smaller chunks"
)


def _killed(client: Any, e: Any) -> str:
    """Return why workers died of one task."""
    try:
        events = client.get_events("worker-restart-memory")
    except Exception:
        # Whatever asks for the reason must not hide it.
        events = ()
    if events:
        held = max(int(event["rss"]) for _, event in events) / 2**20
        most = getattr(e.last_worker, "memory_limit", 0)
        limit = f" of {most / 2**20:,.0f} MiB" if most else ""
        return (
            f"workers ran out of memory: {len(events)} times one came close to its limit{limit} "
            f"(it held {held:,.0f} MiB) and was ended; {MORE_MEMORY}"
        )
    return (
        f"one task ended {e.allowed_failures + 1} workers, the last at {e.last_worker.address}: "
        f"read the workers' logs; where the system ended them for memory, {MORE_MEMORY}"
    )


def _short(e: Exception) -> str:
    return f"{type(e).__name__}: {e}".splitlines()[0][:200]
