"""What the chaos suite shares: the program as a process that is harmed, and rows of its table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from helpers import HANG, blobs, digest, wait_until, write_zarr

from dask_em import load

DASK_EM = [sys.executable, "-m", "dask_em.cli"]
# How a process of ours, and all that it starts, is known even when its parent is gone.
MARK = "CHAOS_MARK"


@dataclass(frozen=True)
class Row:
    """One line of RESULTS.md."""

    fault: str
    injected: str
    happened: str
    seconds: str = "-"
    lost: str = "-"
    bits: str = "-"


def tell(record_property: Callable[[str, object], None], *row: str, **more: str) -> None:
    """Put a `Row` into the table of whoever runs the suite, and on the screen."""
    found = Row(*row, **more)
    print("\n" + " | ".join(asdict(found).values()))
    record_property("row", asdict(found))


def spread(values: Sequence[float]) -> str:
    """Median and largest of some seconds."""
    if not values:
        return "-"
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.1f} (at most {ordered[-1]:.1f})"


def points(
    path: Path, n: int, d: int = 4, k: int = 4, chunk: int = 10_000, apart: float = 0.8
) -> Path:
    """Rows of some clusters that EM is slow to tell apart, in a new array at `path`."""
    write_zarr(path, blobs(n, d, k, seed=3, apart=apart)[0], chunk)
    return path


def marked(mark: str) -> list[psutil.Process]:
    """The processes that live and have `mark`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


class Job:
    """One command, run again and again in one folder; each run has a log of its own.

    Parameters
    ----------
    folder : path
        Of its own: the model is `m.npz` in it.
    data : path
    options : str
        Of `dask-em fit`.
    before : sequence of str
        What runs the program elsewhere, as `ip netns exec HOST`.
    program : sequence of str
        What stands for `dask-em`.
    """

    def __init__(
        self,
        folder: Path,
        data: Path | str,
        *options: object,
        before: Sequence[str] = (),
        program: Sequence[str] = DASK_EM,
        **variables: str,
    ) -> None:
        self.folder, self.mark = folder, uuid.uuid4().hex
        folder.mkdir(exist_ok=True)
        self.logs = folder.with_name(f"{folder.name}-logs")
        self.logs.mkdir(exist_ok=True)
        self.scratch = folder.with_name(f"{folder.name}-tmp")
        self.scratch.mkdir(exist_ok=True)
        self.model = folder / "m.npz"
        self.checkpoint = folder / ".m.npz.checkpoint"
        words = ["fit", data, "-o", self.model, "--log-json", *options]
        self.command = [*before, *program, *map(str, words)]
        self.variables = {MARK: self.mark, "TMPDIR": str(self.scratch), **variables}
        self.runs = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Of the latest run."""
        return self.logs / f"{self.runs}.log"

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Begin a run."""
        self.runs += 1
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*self.command, *more],
                env={**os.environ, **self.variables},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.process

    def wait(self) -> int:
        """The exit code of the run."""
        assert self.process is not None
        return self.process.wait(HANG)

    def run(self, *more: str) -> int:
        """Run to the end; its exit code."""
        self.start(*more)
        return self.wait()

    def wait_for(self, text: str) -> None:
        """Until the run logs `text`."""

        def there() -> bool:
            if text in self.log.read_text():
                return True
            assert self.process is not None
            assert self.process.poll() is None, f"it ended: {self.log.read_text()}"
            return False

        wait_until(there)

    def kill(self) -> float:
        """kill -9; seconds until nothing of the run is left."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(HANG)
        began = time.monotonic()
        wait_until(lambda: not marked(self.mark))
        return time.monotonic() - began

    def end(self) -> None:
        """End whatever still lives of it."""
        for process in marked(self.mark):
            with suppress(psutil.Error):
                process.kill()
        if self.process is not None:
            self.process.wait(HANG)

    # -- what the log says ---------------------------------------------------------

    def lines(self, run: int | None = None) -> list[dict[str, Any]]:
        """The JSON lines of a run, the latest by default."""
        found = []
        log = self.log if run is None else self.logs / f"{run}.log"
        for line in log.read_text().splitlines():
            # A run that is killed may die within a line.
            with suppress(ValueError):
                one = json.loads(line)
                if isinstance(one, dict) and "message" in one:
                    found.append(one)
        return found

    def passes(self, run: int | None = None) -> list[tuple[str, int]]:
        """The passes over the data that a run finished."""
        return [
            (line["phase"], line["number"])
            for line in self.lines(run)
            if line.get("phase") in ("survey", "em")
        ]

    def seconds_of_passes(self) -> list[float]:
        """What each pass of EM of the latest run took."""
        return [line["seconds"] for line in self.lines() if line.get("phase") == "em"]

    def first_pass_after(self, began: float) -> float | None:
        """Seconds from `began`, by the clock, to the first pass that the run finished."""
        times = [when(line) for line in self.lines() if line.get("phase") in ("survey", "em")]
        return min((t - began for t in times if t >= began), default=None)

    # -- what is left --------------------------------------------------------------

    def check_whole(self, expected: str) -> None:
        """The model has these bits, and nothing else is left: no file, no process."""
        assert digest(load(self.model)) == expected, "the bits differ"
        assert [p.name for p in self.folder.iterdir()] == ["m.npz"]
        wait_until(lambda: not marked(self.mark))

    def check_resumable(self) -> None:
        """The last line of the run is the command that goes on, and there is what it needs."""
        last = self.log.read_text().splitlines()[-1]
        assert f"-o {self.model}" in last, self.log.read_text()
        assert list(self.checkpoint.glob("pass-*.npz"))

    def clear(self) -> None:
        """Make room for another run."""
        self.model.unlink()


def when(line: dict[str, Any]) -> float:
    """Seconds since the epoch at which a line was logged."""
    import datetime

    return datetime.datetime.fromisoformat(line["time"]).timestamp()


@contextmanager
def job(*args: Any, **options: Any) -> Iterator[Job]:
    """A `Job` of which nothing lives at the end."""
    made = Job(*args, **options)
    try:
        yield made
    finally:
        made.end()


def twice_done(before: Sequence[tuple[str, int]], after: Sequence[tuple[str, int]]) -> int:
    """Passes that were finished and had to be made again."""
    return len(set(before) & set(after))
