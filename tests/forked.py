"""Commands as processes that share their imports: together, signalled, or as another user.

Run as a program it forks a process for each job of a line of JSON on standard input, and answers
with a line about how they ended. Each is a process of its own, with real signals, locks and users.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """One command, or a call of the library.

    Attributes
    ----------
    words : sequence of str
        Of `dask-em`, or `save MODEL PATH`, or `die PATH` with the lock of an output.
    signal : int
        Sent `after` so many seconds, if it still runs.
    step : int
        Of what it does to files, before which it kills itself; 0 for none.
    uid, umask : int
        Whose process it is, and the rights of its files.
    """

    words: Sequence[str]
    signal: int = 0
    after: float = 0.0
    step: int = 0
    uid: int = 0
    umask: int = 0o022


@dataclass(frozen=True)
class Ended:
    """How a job ended: its exit code, or minus the signal that ended it."""

    pid: int
    code: int
    said: str
    seconds: float
    signalled: bool = field(default=False)


class ForkedJobs:
    """The program that forks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def together(self, *jobs: Job) -> list[Ended]:
        """Start jobs at one time, and wait for all of them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(job) for job in jobs]) + "\n")
        self._process.stdin.flush()
        return [Ended(**found) for found in json.loads(self._process.stdout.readline())]

    def run(self, *words: object, **more: Any) -> Ended:
        """Run one job."""
        return self.together(Job([str(word) for word in words], **more))[0]

    def close(self) -> None:
        """End it."""
        self._process.communicate()


@contextmanager
def forked_jobs() -> Iterator[ForkedJobs]:
    """The program, until the block ends."""
    jobs = ForkedJobs()
    try:
        yield jobs
    finally:
        jobs.close()


# -- signals -----------------------------------------------------------------------------


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)


@dataclass
class Interrupted:
    """How the runs of a command ended that a signal came to, and those after them.

    Attributes
    ----------
    codes : dict of str to int
        How many ended so.
    gone_on : list of float
        Seconds of each run after one.
    """

    codes: Counter[str] = field(default_factory=Counter)
    gone_on: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return ", ".join(f"{n} {code}" for code, n in sorted(self.codes.items()))


def interrupt(
    jobs: ForkedJobs, words: list[str], output: Path, bits: Callable[[], Any], n: int, seed: int
) -> Interrupted:
    """Signal a command at random instants, and see that it ends with the same bits run again.

    Parameters
    ----------
    jobs : ForkedJobs
    words : list of str
        That write `output`, alone in its folder.
    bits : callable
        What must be the same of the output.
    n : int
        How often: SIGTERM, SIGINT and SIGKILL in turn.
    seed : int
    """
    found, rng = Interrupted(), random.Random(seed)
    undisturbed = jobs.run(*words)
    assert undisturbed.code == 0, undisturbed.said
    expected, seconds = bits(), undisturbed.seconds
    sent = 0
    while sent < n:
        remove(output)
        number = SIGNALS[sent % len(SIGNALS)]
        ended = jobs.run(*words, signal=number, after=rng.uniform(0, seconds))
        if not ended.signalled:
            # It was quicker than the first one, and another instant is drawn.
            assert ended.code == 0, ended.said
            seconds = min(seconds, ended.seconds)
            continue
        sent += 1
        what = (sent, signal.Signals(number).name, ended.code, ended.said)
        # The signal's own before the program listens to it, and done where it came too late.
        assert ended.code in {0, -number} | ({75} if number != signal.SIGKILL else set()), what
        found.codes[f"{signal.Signals(number).name}: {ended.code}"] += 1
        whole = output.exists()
        if ended.code == 0:
            assert whole, what
        if ended.code == 75:
            assert words[-1] in ended.said.splitlines()[-1] or "nothing was written" in ended.said
        again = jobs.run(*words)
        # What is whole is not written twice.
        assert again.code == 0 or (again.code == 73 and whole), (*what, again.said)
        found.gone_on.append(again.seconds)
        assert bits() == expected, what
        left = sorted(path.name for path in output.parent.iterdir())
        assert left == [output.name], (*what, left)
    return found


def remove(output: Path) -> None:
    """Remove a file or a folder."""
    shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)


# -- the program -------------------------------------------------------------------------


def call(words: list[str]) -> int:
    """Run a command in this process; its exit code."""
    from dask_em import cli, load
    from dask_em.errors import DaskEMError
    from dask_em.storage.locks import locked

    try:
        if words[0] == "die":
            with locked(words[1]):
                os.kill(os.getpid(), signal.SIGKILL)
        elif words[0] == "save":
            load(words[1]).save(words[2], overwrite="--overwrite" in words)
        else:
            cli.main(words)
    except DaskEMError as e:
        print(f"Error: {e}", file=sys.stderr)
        return int(e.exit_code)
    except SystemExit as e:
        return int(e.code or 0)
    except KeyboardInterrupt:
        return -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def begin(job: dict[str, Any], gate: tuple[int, int]) -> tuple[int, Any]:
    """Fork a process that waits until the gate is closed, and then runs a job."""
    said = tempfile.TemporaryFile("w+")  # noqa: SIM115
    pid = os.fork()
    if pid:
        return pid, said
    os.close(gate[1])
    for number in (1, 2):
        os.dup2(said.fileno(), number)
    os.umask(job["umask"])
    if job["step"]:
        kill_at(job["step"])
    if job["uid"]:
        os.setgroups([])
        os.setgid(job["uid"])
        os.setuid(job["uid"])
    os.read(gate[0], 1)
    code = call(job["words"])
    sys.stdout.flush()
    sys.stderr.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def kill_at(step: int) -> None:
    """Kill this process before so many-th step of what it does to files."""
    left = [step]

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def do(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return do

    for name in ("fsync", "link", "replace", "rename", "unlink", "mkdir", "rmdir", "pwrite"):
        setattr(os, name, dying(getattr(os, name)))


def wait(pid: int, until: float) -> int | None:
    """The exit code of a process; None where it still runs at that time."""
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(0.002)


def finish(job: dict[str, Any], pid: int, said: Any, began: float) -> dict[str, Any]:
    """Signal a process when it is time, and wait until it has ended."""
    code = wait(pid, began + job["after"] if job["signal"] else float("inf"))
    signalled = code is None
    if code is None:
        os.kill(pid, job["signal"])
        code = wait(pid, float("inf"))
    said.seek(0)
    seconds = time.monotonic() - began
    return asdict(Ended(pid, code or 0, said.read(), seconds, signalled))


def warm_up() -> None:
    """Import what a first call imports: another user may not read where it lies."""
    import threading

    import numpy as np

    from dask_em import GaussianMixture, load

    with tempfile.TemporaryDirectory() as folder:
        data = np.arange(40.0)[:, None]
        GaussianMixture(2, random_state=0, max_iter=1, tol=1e9).fit(data).save(f"{folder}/m.npz")
        load(f"{folder}/m.npz").predict(data)
    # What forks has one thread.
    assert threading.active_count() == 1, threading.enumerate()


def main() -> None:
    """Serve lines of jobs."""
    import importlib
    import pkgutil
    import pwd  # noqa: F401

    import dask
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_svg  # noqa: F401
    import sklearn.cluster
    import sklearn.mixture  # noqa: F401
    import zarr  # noqa: F401

    import dask_em
    from dask_em.core import tuning

    for module in pkgutil.walk_packages(dask_em.__path__, "dask_em."):
        if "__main__" not in module.name and not module.name.startswith("dask_em.testing"):
            importlib.import_module(module.name)
    # Small data are many chunks, and no time goes to compiling.
    tuning.DEFAULTS = tuning.DEFAULTS.with_changes(reading={"bytes": 8192})
    dask.config.set({"dask_em.fast": False, "scheduler": "synchronous"})
    warm_up()
    for line in sys.stdin:
        jobs = json.loads(line)
        gate = os.pipe()
        begun = [begin(job, gate) for job in jobs]
        began = time.monotonic()
        os.close(gate[1])
        ended = [
            finish(job, pid, said, began) for job, (pid, said) in zip(jobs, begun, strict=True)
        ]
        os.close(gate[0])
        print(json.dumps(ended), flush=True)


if __name__ == "__main__":
    main()
