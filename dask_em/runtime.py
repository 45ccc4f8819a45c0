"""Control of a running job: a wish that it stops, its deadline, and counters of its faults."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from .errors import OutOfTimeError, StoppedError


@dataclass
class JobControl:
    """Control one job of this process; loops that wait for long call `check` now and then.

    Attributes
    ----------
    retries : int
        Passes that were made again because the cluster failed.
    lost_workers : int
        Workers that left without being asked to.
    reason : str
        Why the job is to stop, once it was asked to.
    deadline : float
        `time.monotonic()` from which on the job is to stop.
    locks : dict
        Locks that the job holds, by the names of what nobody else writes meanwhile.

    Examples
    --------
    >>> job = JobControl()
    >>> job.check()
    >>> job.request_stop("interrupted by SIGTERM")
    >>> job.check()
    Traceback (most recent call last):
        ...
    dask_em.errors.StoppedError: interrupted by SIGTERM
    """

    retries: int = 0
    lost_workers: int = 0
    reason: str = ""
    deadline: float = float("inf")
    locks: dict[str, Any] = field(default_factory=dict, repr=False)
    _requested: threading.Event = field(default_factory=threading.Event, repr=False)

    def request_stop(self, reason: str) -> None:
        """Ask the job to keep what it has and to end; the first reason counts."""
        if not self._requested.is_set():
            self.reason = reason
            self._requested.set()

    @property
    def stop_requested(self) -> bool:
        """Whether the job is to stop: it was asked to, or its deadline has passed."""
        return self._requested.is_set() or time.monotonic() >= self.deadline

    def check(self) -> None:
        """Raise if the job is to stop.

        Raises
        ------
        StoppedError
            The job was asked to stop.
        OutOfTimeError
            Its deadline has passed.
        """
        if self._requested.is_set():
            raise StoppedError(self.reason)
        if self.stop_requested:
            raise OutOfTimeError("the time limit is reached")

    def wait(self, seconds: float) -> None:
        """Sleep for some seconds, at most until the job is to stop, and `check`."""
        self._requested.wait(max(0.0, min(seconds, self.deadline - time.monotonic())))
        self.check()

    @contextmanager
    def until(self, deadline: float) -> Iterator[None]:
        """Lower the deadline while the block runs; one that is earlier already stays."""
        before = self.deadline
        self.deadline = min(before, deadline)
        try:
            yield
        finally:
            self.deadline = before


_current: ContextVar[JobControl | None] = ContextVar("dask_em_job", default=None)

# The child of a fork, as of a callback that starts processes, has jobs and locks of its own.
os.register_at_fork(after_in_child=lambda: _current.set(None))


def current_job() -> JobControl:
    """Return the control of the job that this thread works for; a new one where there is none.

    Examples
    --------
    >>> current_job().stop_requested
    False
    """
    return _current.get() or JobControl()


@contextmanager
def as_job(job: JobControl) -> Iterator[JobControl]:
    """Make `job` the one that this thread works for while the block runs.

    Examples
    --------
    >>> with as_job(JobControl()) as job:
    ...     current_job() is job
    True
    >>> current_job() is job
    False
    """
    token = _current.set(job)
    try:
        yield job
    finally:
        _current.reset(token)
