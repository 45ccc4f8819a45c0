"""A Dask scheduler and workers as one starts them by hand, each a process that can be harmed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from chaos import MARK, marked
from helpers import HANG, wait_until
from hosts import Host

# What README.md recommends for a scheduler of one's own, but sooner.
SETTINGS = {
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "10",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "15s",
    "DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "60s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Cluster:
    """A scheduler and workers, on this host or each on one of its own.

    Parameters
    ----------
    folder : path
        For what they print.
    protocol : {"tcp", "tls"}
    options : sequence of str
        Of the scheduler and the workers, as the files of certificates.
    hosts : sequence of Host
        The scheduler's and the workers'; none is this one.
    nanny : bool
        Whether something starts a worker again that ended.
    """

    def __init__(
        self,
        folder: Path,
        protocol: str = "tcp",
        options: Sequence[object] = (),
        hosts: Sequence[Host] = (),
        nanny: bool = True,
        **variables: str,
    ) -> None:
        self.folder, self.hosts, self.nanny = folder, hosts, nanny
        self.options, self.protocol = list(map(str, options)), protocol
        self.mark = uuid.uuid4().hex
        self.variables = {**os.environ, **SETTINGS, **variables, MARK: self.mark}
        address = hosts[0].address if hosts else "127.0.0.1"
        self.port = 8786 if hosts else free_port()
        self.address = f"{protocol}://{address}:{self.port}"
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        """What `name` printed."""
        return self.folder / f"{name}.log"

    def _start(self, name: str, host: int, *words: object) -> None:
        command = [sys.executable, "-m", "dask", *map(str, words), *self.options]
        if self.hosts:
            command = self.hosts[host].command(*command)
        with self.log(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env=self.variables
            )

    def start_scheduler(self) -> None:
        """Start it, and wait until it listens."""
        host = self.address.rpartition("/")[2].rpartition(":")[0]
        before = self._told("scheduler", "Scheduler at:")
        words = ("scheduler", "--host", host, "--port", self.port, "--protocol", self.protocol)
        self._start("scheduler", 0, *words, "--no-dashboard", "--no-show")
        wait_until(lambda: self._told("scheduler", "Scheduler at:") > before)

    def start_worker(self, i: int) -> None:
        """Start worker `i`, from 1, and wait until it is registered."""
        name = f"worker{i}"
        before = self._told(name, "Registered to:")
        where = ["--host", self.hosts[i].address] if self.hosts else []
        self.start_stray(i, *where)
        wait_until(lambda: self._told(name, "Registered to:") > before)

    def start_stray(self, i: int, *where: str) -> None:
        """Start worker `i`, which may be refused."""
        words = ["worker", self.address, "--nthreads", "1", "--no-dashboard", *where]
        words += ["--memory-limit", "1GiB", "--nanny" if self.nanny else "--no-nanny"]
        self._start(f"worker{i}", i, *words)

    def _told(self, name: str, text: str) -> int:
        return self.log(name).read_text().count(text) if self.log(name).exists() else 0

    def wait_for(self, name: str, text: str) -> None:
        """Until `name` printed `text`."""
        wait_until(lambda: self._told(name, text) > 0)

    def registered(self, i: int) -> int:
        """How often worker `i` found the scheduler."""
        return self._told(f"worker{i}", "Registered to:")

    def refused(self, i: int) -> float:
        """How often worker `i` looked for the scheduler in vain; infinite where it gave up."""
        given_up = self.running[f"worker{i}"].poll() not in (None, 0)
        return float("inf") if given_up else self._told(f"worker{i}", "Waiting to connect") - 1

    def processes(self, i: int) -> list[psutil.Process]:
        """Worker `i`: the process that computes, without its nanny."""
        top = psutil.Process(self.running[f"worker{i}"].pid)
        found = [
            p
            for p in (top, *top.children(recursive=True))
            if "spawn_main" in " ".join(_words(p)) or not self.nanny
        ]
        # Beside a worker its nanny keeps a process that tracks resources.
        return [p for p in found if "resource_tracker" not in " ".join(_words(p))]

    def signal_worker(self, i: int, number: int) -> list[psutil.Process]:
        """Send a signal to worker `i`; the processes that it went to."""
        found = self.processes(i)
        assert found, f"worker{i} has no process"
        for process in found:
            process.send_signal(number)
        return found

    def kill_scheduler(self) -> None:
        """kill -9 of it."""
        process = self.running.pop("scheduler")
        process.kill()
        process.wait(HANG)

    def end_worker(self, i: int) -> None:
        """kill -9 of worker `i` with its nanny."""
        process = self.running.pop(f"worker{i}")
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for one in tree:
            with suppress(psutil.Error):
                one.kill()
        process.wait(HANG)

    def end(self) -> None:
        """End all that lives of it."""
        for process in marked(self.mark):
            with suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
                process.kill()
        for process in self.running.values():
            process.wait(HANG)
        wait_until(lambda: not marked(self.mark))


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def cluster(folder: Path, n_workers: int, **options: object) -> Iterator[Cluster]:
    """A scheduler and so many workers, of which nothing lives at the end."""
    folder.mkdir(exist_ok=True)
    made = Cluster(folder, **options)  # type: ignore[arg-type]
    try:
        made.start_scheduler()
        for i in range(1, n_workers + 1):
            made.start_worker(i)
        yield made
    finally:
        made.end()
