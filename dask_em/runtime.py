"""What befalls a job beside its numbers: a wish that it stops, and what it lost on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from .errors import OutOfTimeError, StoppedError


@dataclass
class Run:
    """One job of this process; whoever waits for long calls `check` now and then.

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
        What the job holds, by the names of what nobody else writes meanwhile.
    """

    retries: int = 0
    lost_workers: int = 0
    reason: str = ""
    deadline: float = float("inf")
    locks: dict[str, Any] = field(default_factory=dict, repr=False)
    _asked: threading.Event = field(default_factory=threading.Event, repr=False)

    def ask_to_stop(self, reason: str) -> None:
        """Ask the job to keep what it has and to end; the first reason counts."""
        if not self._asked.is_set():
            self.reason = reason
            self._asked.set()

    @property
    def asked(self) -> bool:
        """Whether the job is to stop."""
        return self._asked.is_set() or time.monotonic() >= self.deadline

    def check(self) -> None:
        """Raise `StoppedError` if the job is to stop; `OutOfTimeError` if only its time is over."""
        if self._asked.is_set():
            raise StoppedError(self.reason)
        if self.asked:
            raise OutOfTimeError("the time limit is reached")

    def wait(self, seconds: float) -> None:
        """Sleep, but not for longer than the job goes on, and `check`."""
        self._asked.wait(max(0.0, min(seconds, self.deadline - time.monotonic())))
        self.check()

    @contextmanager
    def until(self, deadline: float) -> Iterator[None]:
        """Stop at `deadline` if the block lasts so long, or sooner if that is set already."""
        before = self.deadline
        self.deadline = min(before, deadline)
        try:
            yield
        finally:
            self.deadline = before


_current: ContextVar[Run | None] = ContextVar("dask_em_run", default=None)


def current_run() -> Run:
    """The job that this thread works for; one that nobody stops where there is none."""
    return _current.get() or Run()


@contextmanager
def as_run(run: Run) -> Iterator[Run]:
    """Make `run` the job that this thread works for."""
    token = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(token)
