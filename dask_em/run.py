"""What befalls a job beside its numbers: a wish that it stops, and what it lost on the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from .errors import StoppedError


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
        Why the job is to stop, once it is.
    """

    retries: int = 0
    lost_workers: int = 0
    reason: str = ""
    _asked: threading.Event = field(default_factory=threading.Event, repr=False)

    def ask_to_stop(self, reason: str) -> None:
        """Ask the job to keep what it has and to end; the first reason counts."""
        if not self._asked.is_set():
            self.reason = reason
            self._asked.set()

    @property
    def asked(self) -> bool:
        """Whether the job is to stop."""
        return self._asked.is_set()

    def check(self) -> None:
        """Raise `StoppedError` if the job is to stop."""
        if self._asked.is_set():
            raise StoppedError(self.reason)

    def wait(self, seconds: float) -> None:
        """Sleep, but not for longer than the job goes on, and `check`."""
        self._asked.wait(seconds)
        self.check()


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
