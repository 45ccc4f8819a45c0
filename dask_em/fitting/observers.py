"""Observers of a fit: what happens as events, lines in a log, totals, the user's callbacks.

A fit tells what happens as events; an observer knows neither who computes nor where data lie.
"""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from ..core.codec import record
from ..core.em import EMState
from ..core.objective import Objective
from ..errors import UsageError
from ..runtime import current_job
from ..storage.outputs.writer import output_file

logger = logging.getLogger("dask_em")

# What people are told of a start.
SAMPLE = "start on the sample"

# The phase of a survey that was kept beside the data, and took no pass.
KEPT_SURVEY = "kept-survey"

UNREAD = ("start", KEPT_SURVEY)


@record("pass", 2)
@dataclass(frozen=True)
class PassRecord:
    """Record one pass over the data.

    Attributes
    ----------
    phase : {"survey", "kept-survey", "labels", "start", "slice", "em", "score", "predict", ...}
        A start is work on the sample, and a kept survey lies beside the data, which read nothing;
        every other phase reads the data once.
    number : int
        Counted from one within the phase.
    seconds : float
    rows : int
        Rows read; of labels, rows that have some; of a start, rows of the sample times the times
        that each was computed with.
    bytes : int
        Decoded bytes read, 0 where the source does not know.
    log_likelihood : float or None
        Mean log-likelihood per row at the parameters of this pass, in nats.
    objective : Objective or None
        What people are told of the parameters; where it is not given, the log-likelihood.
    retries, lost_workers : int
        How often the pass was made again because the cluster failed, and workers that were
        lost meanwhile, where the cluster tells of them.

    Examples
    --------
    >>> record = PassRecord("em", 3, seconds=0.5, rows=1000, bytes=16_000, log_likelihood=-2.5)
    >>> record.as_dict()["rows"], record.line
    (1000, 'em pass 3: 1000 rows in 0.50 s (2e+03 rows/s), -2.500000 nats/row')
    >>> inertia = Objective("inertia", 2.28e6)
    >>> PassRecord("em", 3, 0.5, 1000, 16_000, -1.5, objective=inertia).as_dict()["inertia"]
    2280000.0
    """

    phase: str
    number: int
    seconds: float
    rows: int
    bytes: int
    log_likelihood: float | None = None
    retries: int = 0
    lost_workers: int = 0
    objective: Objective | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the record for `history_` and JSON, the objective under its name."""
        values = {name: v for name, v in asdict(self).items() if name != "objective"}
        told = self.reported
        return values if told is None else {**values, told.key: told.value}

    @property
    def reported(self) -> Objective | None:
        """The objective that people are told of; None of a pass that measured none."""
        if self.objective is not None or self.log_likelihood is None:
            return self.objective
        return Objective.log_likelihood(self.log_likelihood)

    @property
    def reads(self) -> bool:
        """Whether the data were read, not only what is known of them."""
        return self.phase not in UNREAD

    @property
    def line(self) -> str:
        """The record in words."""
        rate = self.rows / self.seconds if self.seconds else 0.0
        took = f"{self.seconds:.2f} s ({rate:.3g} rows/s)"
        value = "" if self.reported is None else f", {self.reported.line}"
        if self.phase == KEPT_SURVEY:
            return "survey: kept beside the data, no pass made"
        if self.reads:
            return f"{self.phase} pass {self.number}: {self.rows} rows in {took}{value}"
        return f"{SAMPLE}: work on {self.rows} rows in {took}, none read{value}"


def n_reads(history: Sequence[Mapping[str, Any]]) -> int:
    """Return how often the data were read in the passes of a history.

    Examples
    --------
    >>> n_reads([{"phase": "kept-survey"}, {"phase": "em"}])
    1
    """
    return sum(record["phase"] not in UNREAD for record in history)


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
        To be set by whoever makes the pass, as `objective` is where people are told another number.
    objective : Objective or None
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
        self.objective: Objective | None = None
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
            self.objective,
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
        numbers = {**record.as_dict(), "reads": record.reads}
        if record.reported is not None and record.reported.key != "log_likelihood":
            # A number that is none for people is none for machines.
            del numbers["log_likelihood"]
        logger.info("%s", record.line, extra={"numbers": numbers})


class Totals(Observer):
    """Sum rows, bytes and seconds of all passes of a job, for the last line and a metrics file.

    Parameters
    ----------
    path : path or URL, optional
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
        self.path = path
        self.passes = self.rows = self.bytes = self.retries = self.lost_workers = 0
        self.sample_rows = 0
        self.seconds = 0.0
        self.objective: Objective | None = None

    def notify(self, event: Event) -> None:
        """Add a pass that has ended, and replace the metrics file."""
        if not isinstance(event, PassEnded):
            return
        record = event.record
        if not record.reads:
            self.sample_rows += record.rows
            return
        self.passes += 1
        self.rows += record.rows
        self.bytes += record.bytes
        self.seconds += record.seconds
        self.retries += record.retries
        self.lost_workers += record.lost_workers
        self.objective = record.reported
        if self.path is None:
            return
        try:
            with output_file(self.path, overwrite=True) as output, output.open() as file:
                file.write(self.prometheus().encode())
        except (OSError, UsageError) as e:
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
        if self.objective is not None:
            gauge = f"dask_em_{self.objective.key}"
            lines += [f"# TYPE {gauge} gauge", f"{gauge} {self.objective.value!r}"]
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
            "sample_rows": self.sample_rows,
            "rows_per_second": rate,
            "bytes": self.bytes,
            "retries": self.retries,
            "lost_workers": self.lost_workers,
            "resumed_after_passes": passes_before,
        }
        logger.info(
            "done: %d passes over the data, %.3g rows/s, %.3g GB read, work on %d rows of the "
            "sample, %d passes made again, %d workers lost%s",
            self.passes,
            rate,
            self.bytes / 1e9,
            self.sample_rows,
            self.retries,
            self.lost_workers,
            resumed,
            extra={"numbers": numbers},
        )
