"""Progress of a fit for people: a bar on a terminal, a line that lives in a notebook, or lines."""

from __future__ import annotations

import html
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO, TypeAlias

from ..foreign import shown
from .observers import (
    SAMPLE,
    Event,
    LogLines,
    Observer,
    PassEnded,
    PassFailed,
    PassRecord,
    PassStarted,
    RowsDone,
    logger,
)

# An output of a notebook by its MIME types.
Output: TypeAlias = dict[str, str]

# Shows an output, and returns what shows the next one in its place.
Show: TypeAlias = Callable[[Output], Callable[[Output], object]]


class PrintedLines(Observer):
    """Print one line a pass, where there is neither a terminal nor anybody who reads the log.

    Examples
    --------
    >>> lines = PrintedLines(sys.stdout)
    >>> lines.notify(PassEnded(PassRecord("em", 3, 0.5, rows=1000, bytes=0, log_likelihood=-2.5)))
    em pass 3: 1000 rows in 0.50 s (2e+03 rows/s), -2.500000 nats/row
    """

    follows_rows = False

    def __init__(self, file: TextIO | None = None) -> None:
        self.file = file or sys.stderr

    def notify(self, event: Event) -> None:
        """Print the line of a pass that has ended."""
        if isinstance(event, PassEnded):
            print(event.record.line, file=self.file, flush=True)


class NotebookProgress(Observer):
    """Show one line a phase in a notebook: a bar while a pass is made, and what it came to.

    The line is an output that is shown again in its place, so that a hundred passes leave one.

    Parameters
    ----------
    show : callable, optional
        Shows an output as MIME types tell it, and returns what is to be called with the next one
        in its place; IPython's display, unless given.

    Examples
    --------
    >>> shown = []
    >>> def show(output):
    ...     shown.append([output])
    ...     return shown[-1].append
    >>> progress = NotebookProgress(show)
    >>> for number in (1, 2):
    ...     progress.notify(PassStarted("em", number, 1000))
    ...     progress.notify(PassEnded(PassRecord("em", number, 0.5, rows=1000, bytes=0)))
    >>> [outputs[-1]["text/plain"] for outputs in shown]
    ['em pass 2: 1000 rows in 0.50 s (2e+03 rows/s); 2 passes in 1.0 s']
    """

    # Between two outputs of the same line: each is a message to the browser.
    seconds = 0.5

    def __init__(self, show: Show | None = None) -> None:
        self._show = show or _shown_by_ipython
        self._phase = ""
        self._n_passes, self._took = 0, 0.0

    def notify(self, event: Event) -> None:
        """Show the progress of the pass that the event is about in the line of its phase."""
        match event:
            case PassStarted():
                self._begin(event)
            case RowsDone(n_rows):
                self._done += n_rows
                if time.monotonic() >= self._updated + self.seconds:
                    self._update(self._running(), self._done)
            case PassEnded(record):
                self._end(record)
            case PassFailed(phase, number):
                self._update(f"{title_of(phase, number)}: stopped after {self._done:,} rows")

    def _begin(self, started: PassStarted) -> None:
        self._title = title_of(started.phase, started.number)
        self._of, self._done = started.n_rows, 0
        self._start = time.monotonic()
        if started.phase == self._phase:
            self._update(self._running(), 0)
            return
        self._phase, self._n_passes, self._took, self._last = started.phase, 0, 0.0, ""
        self._again = self._show(self._output(self._running(), 0))
        self._updated = time.monotonic()

    def _end(self, record: PassRecord) -> None:
        self._n_passes += 1
        self._took += record.seconds
        self._last = "" if record.reported is None else f", {record.reported.line}"
        several = f"; {self._n_passes} passes in {self._took:.1f} s" * (self._n_passes > 1)
        self._update(record.line + several)

    def _running(self) -> str:
        seconds = time.monotonic() - self._start
        of = f" of {self._of:,}" if self._of else ""
        line = f"{self._title}: {self._done:,}{of} rows"
        if self._done > 0 and seconds > 0:
            rate = self._done / seconds
            line += f", {rate:.3g} rows/s"
            line += f", {max(self._of - self._done, 0) / rate:.0f} s left" if self._of else ""
        return line + self._last if self._n_passes else line

    def _update(self, line: str, done: int | None = None) -> None:
        self._updated = time.monotonic()
        self._again(self._output(line, done))

    def _output(self, line: str, done: int | None) -> Output:
        words = html.escape(shown(line, None))
        bar = ""
        if done is not None:
            at = f' value="{min(done, self._of)}" max="{self._of}"' if self._of else ""
            bar = f'<progress{at} style="width:12em;vertical-align:middle"></progress> '
        page = f'<div style="font-variant-numeric:tabular-nums">{bar}{words}</div>'
        return {"text/plain": line, "text/html": page}


def _shown_by_ipython(output: Output) -> Callable[[Output], object]:
    from IPython.display import display

    # An output that has a number can be shown again in its place.
    handle = display(output, raw=True, display_id=True)
    return lambda again: handle.update(again, raw=True)


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
                self._last = "" if record.reported is None else f"  {record.reported.line}"
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
            label=title_of(started.phase, started.number),
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


def title_of(phase: str, number: int) -> str:
    """Return what a pass is called while it is made.

    Examples
    --------
    >>> title_of("em", 3), title_of("start", 1)
    ('em 3', 'start on the sample')
    """
    return SAMPLE if phase == "start" else f"{phase} {number}"


def reporter(file: TextIO | None = None, verbose: bool = False) -> Observer:
    """Return a progress bar on a terminal, log lines otherwise, and where they are for machines.

    Parameters
    ----------
    file : file, optional
        Standard error, unless given.
    verbose : bool
        Whether the lines are to be seen even where nobody reads the log, as in a notebook.

    Examples
    --------
    >>> import io
    >>> type(reporter(io.StringIO())).__name__
    'LogLines'
    """
    file = file or sys.stderr
    machines = any(getattr(handler.formatter, "structured", False) for handler in logger.handlers)
    if file.isatty() and not machines:
        return ProgressBar(file)
    if not verbose or (logger.isEnabledFor(logging.INFO) and logger.hasHandlers()):
        return LogLines()
    # The streams of a kernel are no terminals, and its front-end shows outputs in their place.
    notebook = type(file).__module__.partition(".")[0] == "ipykernel"
    return NotebookProgress() if notebook else PrintedLines(file)
