"""Observers of a fit: progress on a terminal, lines in a log, totals, the user's callbacks.

A fit tells what happens as events; an observer knows neither who computes nor where data lie.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, TextIO

from ..core.codec import record
from ..core.em import EMState
from ..runtime import current_job
from ..storage.outputs.files import remove_unfinished, write_durably

logger = logging.getLogger("dask_em")


@record("pass")
@dataclass(frozen=True)
class PassRecord:
    """Record one pass over the data.

    Attributes
    ----------
    phase : {"survey", "start", "slice", "em", "score", "predict", "drift"}
    number : int
        Counted from one within the phase.
    seconds : float
    rows : int
    bytes : int
        Decoded bytes read, 0 where the source does not know.
    log_likelihood : float or None
        Mean log-likelihood per row at the parameters of this pass, in nats.
    retries, lost_workers : int
        How often the pass was made again because the cluster failed, and workers that were
        lost meanwhile, where the cluster tells of them.

    Examples
    --------
    >>> record = PassRecord("em", 3, seconds=0.5, rows=1000, bytes=16_000, log_likelihood=-2.5)
    >>> record.as_dict()["rows"], record.retries
    (1000, 0)
    """

    phase: str
    number: int
    seconds: float
    rows: int
    bytes: int
    log_likelihood: float | None = None
    retries: int = 0
    lost_workers: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the record for `history_` and JSON."""
        return asdict(self)


# -- events ------------------------------------------------------------------------------


@dataclass(frozen=True)
class PassStarted:
    """The start of a pass; `n_rows` is None where unknown."""

    phase: str
    number: int
    n_rows: int | None


@dataclass(frozen=True)
class RowsDone:
    """The number of rows done since the last event; negative where a lost part is made again."""

    n_rows: int


@dataclass(frozen=True)
class PassEnded:
    """The end of a pass."""

    record: PassRecord


@dataclass(frozen=True)
class PassFailed:
    """The end of a pass by an exception."""

    phase: str
    number: int


@dataclass(frozen=True)
class StateReached:
    """A new state of a model, which is in the checkpoint if there is one."""

    state: EMState


Event = PassStarted | RowsDone | PassEnded | PassFailed | StateReached


class Observer(ABC):
    """Receive the events of a fit.

    Attributes
    ----------
    follows_rows : bool
        Whether it wants `RowsDone`, which costs the scheduler something.

    Examples
    --------
    >>> class Counter(Observer):
    ...     n_states = 0
    ...     def notify(self, event):
    ...         self.n_states += isinstance(event, StateReached)
    >>> Counter().n_states
    0
    """

    follows_rows: ClassVar[bool] = True

    @abstractmethod
    def notify(self, event: Event) -> None:
        """Receive an event; `RowsDone` may come from another thread."""


class StateCallback(Observer):
    """Call a function with every state of a fit."""

    follows_rows = False

    def __init__(self, callback: Callable[[EMState], object]) -> None:
        self._callback = callback

    def notify(self, event: Event) -> None:
        """Call the function if the event is a new state."""
        if isinstance(event, StateReached):
            self._callback(event.state)


def observers_of(callbacks: Sequence[Observer | Callable[[EMState], object]]) -> list[Observer]:
    """Return callbacks as observers: a plain function is called with every state.

    Examples
    --------
    >>> [type(observer).__name__ for observer in observers_of([print, Totals()])]
    ['StateCallback', 'Totals']
    """
    return [c if isinstance(c, Observer) else StateCallback(c) for c in callbacks]


def tell_observers(observers: Sequence[Observer], event: Event) -> None:
    """Tell every observer of an event."""
    for observer in observers:
        observer.notify(event)


class ObservedPass:
    """Time one pass and report it to the observers.

    Used as a context: `with ObservedPass(observers, "em", 3, n_rows, nbytes) as running: ...`.

    Attributes
    ----------
    advance : callable or None
        To be told of rows that are done; None where no observer follows them.
    log_likelihood : float or None
        To be set by whoever makes the pass.
    record : PassRecord or None
        After the end.

    Examples
    --------
    >>> with ObservedPass([], "em", 3, n_rows=100, nbytes=1600) as running:
    ...     running.log_likelihood = -2.5
    >>> running.finished.phase, running.finished.rows, running.finished.log_likelihood
    ('em', 100, -2.5)
    """

    def __init__(
        self,
        observers: Sequence[Observer],
        phase: str,
        number: int,
        n_rows: int | None,
        nbytes: int,
    ) -> None:
        self.observers = observers
        self.phase, self.number = phase, number
        self.n_rows, self.nbytes = n_rows, nbytes
        followed = any(observer.follows_rows for observer in observers)
        self.advance = self._advance if followed else None
        self.log_likelihood: float | None = None
        self.record: PassRecord | None = None
        self._job = current_job()

    def __enter__(self) -> ObservedPass:
        self._start = time.perf_counter()
        self._before = (self._job.retries, self._job.lost_workers)
        tell_observers(self.observers, PassStarted(self.phase, self.number, self.n_rows))
        return self

    def _advance(self, n_rows: int) -> None:
        if self.phase == "start":
            # No backend waits there, which would look.
            self._job.check()
        event = RowsDone(n_rows)
        for observer in self.observers:
            if observer.follows_rows:
                observer.notify(event)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.record = PassRecord(
            self.phase,
            self.number,
            time.perf_counter() - self._start,
            self.n_rows or 0,
            self.nbytes,
            self.log_likelihood,
            self._job.retries - self._before[0],
            self._job.lost_workers - self._before[1],
        )
        tell_observers(
            self.observers,
            PassEnded(self.record) if kind is None else PassFailed(self.phase, self.number),
        )

    @property
    def finished(self) -> PassRecord:
        """The record of a pass that is over."""
        assert self.record is not None, "the pass is not over"
        return self.record


class LogLines(Observer):
    """Write one log line a pass, for jobs without a terminal."""

    follows_rows = False

    def notify(self, event: Event) -> None:
        """Write the line of a pass that has ended."""
        if not isinstance(event, PassEnded):
            return
        record = event.record
        rate = record.rows / record.seconds if record.seconds else 0.0
        value = "" if record.log_likelihood is None else f", {record.log_likelihood:.6f} nats/row"
        logger.info(
            "%s pass %d: %d rows in %.2f s (%.3g rows/s)%s",
            record.phase,
            record.number,
            record.rows,
            record.seconds,
            rate,
            value,
            extra={"numbers": record.as_dict()},
        )


class Totals(Observer):
    """Sum rows, bytes and seconds of all passes of a job, for the last line and a metrics file.

    Parameters
    ----------
    path : path, optional
        A file for Prometheus' text collector, replaced as a whole after every pass.

    Examples
    --------
    >>> totals = Totals()
    >>> for number in (1, 2):
    ...     totals.notify(PassEnded(PassRecord("em", number, 0.5, rows=100, bytes=1600)))
    >>> totals.passes, totals.rows, totals.seconds
    (2, 200, 1.0)
    """

    follows_rows = False

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else Path(path)
        if self.path is not None:
            remove_unfinished(self.path)
        self.passes = self.rows = self.bytes = self.retries = self.lost_workers = 0
        self.seconds = 0.0
        self.log_likelihood: float | None = None

    def notify(self, event: Event) -> None:
        """Add a pass that has ended, and replace the metrics file."""
        # The start is made of the sample, without reading.
        if not isinstance(event, PassEnded) or event.record.phase == "start":
            return
        record = event.record
        self.passes += 1
        self.rows += record.rows
        self.bytes += record.bytes
        self.seconds += record.seconds
        self.retries += record.retries
        self.lost_workers += record.lost_workers
        self.log_likelihood = record.log_likelihood
        if self.path is None:
            return
        try:
            write_durably(self.path, self.prometheus().encode())
        except OSError as e:
            # The fit is worth more.
            logger.warning("the metrics of this pass could not be written: %s", e)

    def prometheus(self) -> str:
        """Return the totals in Prometheus' text format."""
        counters = {
            "passes": self.passes,
            "rows": self.rows,
            "bytes": self.bytes,
            "seconds": self.seconds,
            "retries": self.retries,
            "lost_workers": self.lost_workers,
        }
        lines = []
        for name, value in counters.items():
            lines += [f"# TYPE dask_em_{name}_total counter", f"dask_em_{name}_total {value}"]
        if self.log_likelihood is not None:
            lines += ["# TYPE dask_em_log_likelihood gauge"]
            lines += [f"dask_em_log_likelihood {self.log_likelihood!r}"]
        lines += ["# TYPE dask_em_last_pass_timestamp_seconds gauge"]
        lines += [f"dask_em_last_pass_timestamp_seconds {time.time():.3f}"]
        return "\n".join(lines) + "\n"

    def log(self, passes_before: int) -> None:
        """Log in one line what the job took, and after how many passes it was resumed."""
        rate = self.rows / self.seconds if self.seconds else 0.0
        resumed = f", resumed after {passes_before} passes" if passes_before else ""
        numbers = {
            "summary": True,
            "passes": self.passes,
            "rows_per_second": rate,
            "bytes": self.bytes,
            "retries": self.retries,
            "lost_workers": self.lost_workers,
            "resumed_after_passes": passes_before,
        }
        logger.info(
            "done: %d passes, %.3g rows/s, %.3g GB read, %d passes made again, %d workers lost%s",
            self.passes,
            rate,
            self.bytes / 1e9,
            self.retries,
            self.lost_workers,
            resumed,
            extra={"numbers": numbers},
        )


class ProgressBar(Observer):
    """Show a bar for each pass with rows per second and the time left, on a terminal."""

    def __init__(self, file: TextIO | None = None) -> None:
        self.file = file or sys.stderr
        self._bar: Any = None
        self._last = ""

    def notify(self, event: Event) -> None:
        """Draw the progress of the pass that the event is about."""
        match event:
            case PassStarted():
                self._begin(event)
            case RowsDone(n_rows):
                self._done += n_rows
                self._bar.update(n_rows)
            case PassEnded(record):
                value = record.log_likelihood
                self._last = "" if value is None else f"  {value:.6f} nats/row"
                self._bar.update(0)
                self._bar.render_progress()
                self._end()
            case PassFailed():
                self._end()

    def _begin(self, started: PassStarted) -> None:
        import click

        self._done, self._start = 0, time.perf_counter()
        self._bar = click.progressbar(
            length=started.n_rows or 0,
            label=f"{started.phase} {started.number}",
            file=self.file,
            show_eta=True,
            item_show_func=lambda _: self._rate(),
            width=24,
        )
        self._bar.__enter__()

    def _rate(self) -> str:
        seconds = time.perf_counter() - self._start
        return f"{self._done / seconds:,.0f} rows/s{self._last}" if self._done else ""

    def _end(self) -> None:
        # Ends the line and shows the cursor again.
        self._bar.__exit__(None, None, None)


def reporter(file: TextIO | None = None) -> Observer:
    """Return a progress bar on a terminal, log lines otherwise, and where they are for machines.

    Examples
    --------
    >>> import io
    >>> type(reporter(io.StringIO())).__name__
    'LogLines'
    """
    file = file or sys.stderr
    machines = any(getattr(handler.formatter, "structured", False) for handler in logger.handlers)
    return ProgressBar(file) if file.isatty() and not machines else LogLines()
