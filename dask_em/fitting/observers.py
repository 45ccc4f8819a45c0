"""Consumers of a fit's states: progress on a terminal, lines in a log, the history."""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

from ..core.codec import record
from ..core.em import EMState
from ..runtime import current_job
from ..storage.outputs.files import remove_unfinished, write_durably

logger = logging.getLogger("dask_em")


@record("pass")
@dataclass(frozen=True)
class PassRecord:
    """One pass over the data.

    Attributes
    ----------
    phase : {"survey", "start", "em", "score", "predict"}
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
        """The record for `history_` and JSON."""
        return asdict(self)


@runtime_checkable
class PassObserver(Protocol):
    """A callback that also wants to see passes while they run."""

    def begin_pass(self, phase: str, number: int, n_rows: int | None) -> None:
        """A pass starts; `n_rows` is None where unknown."""

    def advance(self, n_rows: int) -> None:
        """So many more rows are done. May be called from another thread."""

    def end_pass(self, record: PassRecord) -> None:
        """The pass is over."""

    def fail_pass(self) -> None:
        """The pass was ended by an exception."""


class ObservedPass:
    """Times one pass and tells whoever observes it.

    Used as a context: `with ObservedPass(callbacks, "em", 3, n_rows, nbytes) as running: ...`.
    """

    def __init__(
        self, callbacks: Any, phase: str, number: int, n_rows: int | None, nbytes: int
    ) -> None:
        self.observers = [c for c in callbacks if isinstance(c, PassObserver)]
        self.phase, self.number = phase, number
        self.n_rows, self.nbytes = n_rows, nbytes
        # To follow every part of a pass costs the scheduler something, so nobody
        # does it where nobody looks.
        self.advance = self._advance if self.observers else None
        self.log_likelihood: float | None = None
        self.record: PassRecord | None = None
        self._run = current_job()

    def __enter__(self) -> ObservedPass:
        self._start = time.perf_counter()
        self._before = (self._run.retries, self._run.lost_workers)
        for observer in self.observers:
            observer.begin_pass(self.phase, self.number, self.n_rows)
        return self

    def _advance(self, n_rows: int) -> None:
        if self.phase == "start":
            # No backend waits there, which would look.
            self._run.check()
        for observer in self.observers:
            observer.advance(n_rows)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.record = PassRecord(
            self.phase,
            self.number,
            time.perf_counter() - self._start,
            self.n_rows or 0,
            self.nbytes,
            self.log_likelihood,
            self._run.retries - self._before[0],
            self._run.lost_workers - self._before[1],
        )
        for observer in self.observers:
            if kind is None:
                observer.end_pass(self.record)
            else:
                observer.fail_pass()


class LogLines:
    """One log line a pass, for jobs that nobody watches."""

    def begin_pass(self, phase: str, number: int, n_rows: int | None) -> None:
        self._n_rows = n_rows

    def advance(self, n_rows: int) -> None:
        pass

    def end_pass(self, record: PassRecord) -> None:
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

    def fail_pass(self) -> None:
        pass

    def __call__(self, state: EMState) -> None:
        pass


class Totals:
    """What all passes of a job took together, for the last line and for a metrics file.

    Parameters
    ----------
    path : path, optional
        A file for Prometheus' text collector, replaced as a whole after every pass.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else Path(path)
        if self.path is not None:
            remove_unfinished(self.path)
        self.passes = self.rows = self.bytes = self.retries = self.lost_workers = 0
        self.seconds = 0.0
        self.log_likelihood: float | None = None

    def begin_pass(self, phase: str, number: int, n_rows: int | None) -> None:
        pass

    def advance(self, n_rows: int) -> None:
        pass

    def end_pass(self, record: PassRecord) -> None:
        # The start is made of the sample, without reading.
        if record.phase == "start":
            return
        self.passes += 1
        for name in ("rows", "bytes", "seconds", "retries", "lost_workers"):
            setattr(self, name, getattr(self, name) + getattr(record, name))
        self.log_likelihood = record.log_likelihood
        if self.path is None:
            return
        try:
            write_durably(self.path, self.prometheus().encode())
        except OSError as e:
            # The fit is worth more.
            logger.warning("the metrics of this pass could not be written: %s", e)

    def fail_pass(self) -> None:
        pass

    def __call__(self, state: EMState) -> None:
        pass

    def prometheus(self) -> str:
        """The totals in Prometheus' text format."""
        counters = ("passes", "rows", "bytes", "seconds", "retries", "lost_workers")
        lines = []
        for name in counters:
            lines += [f"# TYPE dask_em_{name}_total counter"]
            lines += [f"dask_em_{name}_total {getattr(self, name)}"]
        if self.log_likelihood is not None:
            lines += ["# TYPE dask_em_log_likelihood gauge"]
            lines += [f"dask_em_log_likelihood {self.log_likelihood!r}"]
        lines += ["# TYPE dask_em_last_pass_timestamp_seconds gauge"]
        lines += [f"dask_em_last_pass_timestamp_seconds {time.time():.3f}"]
        return "\n".join(lines) + "\n"

    def log(self, passes_before: int) -> None:
        """Say in one line what the job took, and where it was resumed."""
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


class ProgressBar:
    """A bar for each pass with rows per second and the time left, on a terminal."""

    def __init__(self, file: TextIO | None = None) -> None:
        self.file = file or sys.stderr
        self._bar: Any = None
        self._last = ""

    def begin_pass(self, phase: str, number: int, n_rows: int | None) -> None:
        import click

        self._done, self._start = 0, time.perf_counter()
        self._bar = click.progressbar(
            length=n_rows or 0,
            label=f"{phase} {number}",
            file=self.file,
            show_eta=True,
            item_show_func=lambda _: self._rate(),
            width=24,
        )
        self._bar.__enter__()

    def _rate(self) -> str:
        seconds = time.perf_counter() - self._start
        return f"{self._done / seconds:,.0f} rows/s{self._last}" if self._done else ""

    def advance(self, n_rows: int) -> None:
        self._done += n_rows
        self._bar.update(n_rows)

    def end_pass(self, record: PassRecord) -> None:
        self._last = ""
        if record.log_likelihood is not None:
            self._last = f"  {record.log_likelihood:.6f} nats/row"
        self._bar.update(0)
        self._bar.render_progress()
        self.fail_pass()

    def fail_pass(self) -> None:
        # Ends the line and shows the cursor again.
        self._bar.__exit__(None, None, None)

    def __call__(self, state: EMState) -> None:
        pass


def reporter(file: TextIO | None = None) -> ProgressBar | LogLines:
    """A progress bar on a terminal, log lines otherwise, and where they are for machines."""
    file = file or sys.stderr
    machines = any(getattr(handler.formatter, "structured", False) for handler in logger.handlers)
    return ProgressBar(file) if file.isatty() and not machines else LogLines()
