"""What a pass costs on many workers, beside what they compute: scheduler, driver and messages.

    python tests/benchmarks/workers.py [--save] [--small] [--plots FOLDER]

A range is a wait of known length, which holds no processor, and its sums are of any size. All
workers live in one process, the scheduler in another and the driver in a third, so that the
processor time of each is told apart: that of the workers is the machine's that runs them all.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from common import table
from stores import MIB, Held, options, parse, publish

# isort: split
import dask.config
import numpy as np
from distributed import Client, Scheduler, Worker, get_worker
from scipy.optimize import nnls

from dask_em.backends.dask.backend import DaskBackend
from dask_em.backends.dask.recovery import cluster_settings, scheduler_extensions
from dask_em.core.additive import Additive, Array
from dask_em.core.protocols import Fold, Pass, Reader, Source
from dask_em.core.ranges import even_ranges

PLOTS = Path(__file__).parent / "plots"
K = 8
# Bytes of the sums of K full components of so many columns, and of the parameters too.
SIZES = {d: 8 * K * (1 + d + d * d) for d in (8, 64, 200)}
ROUNDS = 3
# What a worker does beside its tasks is the same 1 024 times over in one process: less of it.
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.http.routes": [],
    "distributed.scheduler.http.routes": [],
    "distributed.admin.tick.interval": "10s",
    "distributed.admin.system-monitor.interval": "60s",
    "distributed.admin.event-loop": "tornado",
    "distributed.comm.timeouts.connect": "120s",
    "distributed.scheduler.worker-ttl": None,
}


# -- the processes ---------------------------------------------------------------------


async def run_scheduler() -> None:
    """Run a scheduler, set as for a job, until standard input ends."""
    with dask.config.set(cluster_settings()), dask.config.set(QUIET):
        extensions = scheduler_extensions()
        async with Scheduler(
            host="127.0.0.1", port=0, dashboard=False, extensions=extensions
        ) as scheduler:
            print(scheduler.address, flush=True)
            await asyncio.to_thread(sys.stdin.read)
    os._exit(0)


async def one_worker(address: str, number: int) -> Worker:
    return await Worker(
        address, name=f"w{number}", nthreads=1, memory_limit=0, dashboard=False, host="127.0.0.1"
    )


async def run_workers(address: str) -> None:
    """Run as many workers as a line of standard input says; `lose N` ends one N times a minute."""
    workers: list[Worker] = []
    losing: asyncio.Task[None] | None = None
    rng = random.Random(0)

    lost = 0

    async def lose(a_minute: float) -> None:
        nonlocal lost
        number = 10**6
        while True:
            await asyncio.sleep(60 / a_minute)
            gone = workers.pop(rng.randrange(len(workers)))
            # Without a word to anybody, as where a machine is taken away.
            if gone.batched_stream is not None and gone.batched_stream.comm is not None:
                gone.batched_stream.comm.abort()
            with suppress(OSError, asyncio.TimeoutError):
                await gone.close(executor_wait=False, reason="lost")
            lost, number = lost + 1, number + 1
            workers.append(await one_worker(address, number))

    with dask.config.set(cluster_settings()), dask.config.set(QUIET):
        while line := await asyncio.to_thread(sys.stdin.readline):
            what, number = line.split()
            if what == "lose":
                if losing is not None:
                    losing.cancel()
                    with suppress(asyncio.CancelledError, OSError):
                        await losing
                losing = asyncio.create_task(lose(float(number))) if float(number) else None
            else:
                while len(workers) < int(number):
                    some = min(32, int(number) - len(workers))
                    names = range(len(workers), len(workers) + some)
                    workers += await asyncio.gather(*(one_worker(address, i) for i in names))
            print(f"done {lost}", flush=True)
    os._exit(0)


class Process:
    """One of the processes, told what to do by lines."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.pid = self._process.pid

    def read(self) -> str:
        assert self._process.stdout is not None
        found = self._process.stdout.readline().strip()
        if not found:
            raise RuntimeError(f"process {self.pid} ended")
        return found

    def tell(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.read()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()

    @property
    def cpu(self) -> float:
        """Seconds of processors so far."""
        return cpu_of(self.pid)


def cpu_of(pid: int) -> float:
    """Seconds of processors that a process has taken, of user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def fleet() -> Iterator[tuple[Process, Process, Client]]:
    """Scheduler, workers (none yet) and client."""
    scheduler = Process("--scheduler")
    try:
        address = scheduler.read()
        workers = Process("--workers", address)
        try:
            with dask.config.set(QUIET), Client(address) as client:
                yield scheduler, workers, client
        finally:
            workers.end()
    finally:
        scheduler.end()


# -- a pass that waits -----------------------------------------------------------------


@dataclass(frozen=True)
class Ranges(Source):
    """So many ranges of one chunk with one row each."""

    count: int

    n_features = 1
    dtype = np.dtype("f8")
    description = "ranges of nothing"

    @property
    def n_chunks(self) -> int:
        return self.count

    @property
    def n_rows(self) -> int:
        return self.count

    def ranges(self) -> list[range]:
        return [range(i, i + 1) for i in range(self.count)]

    def rows_of(self, chunks: range) -> int:
        return len(chunks)

    def reader(self) -> Reader:
        return Held([np.empty((1, 1))])


@dataclass(frozen=True)
class Sums(Additive):
    """Sums of any size, of which the first number counts rows."""

    total: Array


@dataclass(frozen=True)
class Wait(Pass[Sums]):
    """Wait so many seconds for each range; every tenth worker so many times longer."""

    seconds: float
    parameters: Array
    slower: float = 1.0

    @property
    def result_bytes(self) -> int:
        return int(self.parameters.nbytes)

    def fold(self) -> Fold[Sums]:
        return WaitFold(self)


class WaitFold(Fold[Sums]):
    def __init__(self, wait: Wait) -> None:
        self._wait, self._rows = wait, 0

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        slow = self._wait.slower != 1.0 and int(str(get_worker().name)[1:]) % 10 == 0
        time.sleep(self._wait.seconds * (self._wait.slower if slow else 1.0))
        self._rows += len(X)

    def result(self) -> Sums:
        total = np.zeros_like(self._wait.parameters)
        total[0] = self._rows
        return Sums(total)


@dataclass(frozen=True)
class Case:
    """What is measured."""

    workers: int
    ranges: int
    nbytes: int
    seconds: float = 1.0
    slower: float = 1.0
    lost: float = 0.0

    @property
    def ideal(self) -> float:
        """Seconds of the waits alone, where every worker takes the next range as it is free."""
        slow = -(-self.workers // 10) if self.slower != 1.0 else 0
        ends = [(0.0, 1.0)] * (self.workers - slow) + [(0.0, self.slower)] * slow
        done = sorted(
            k * speed * self.seconds
            for _, speed in ends
            for k in range(1, self.ranges // max(1, self.workers - slow) + 2)
        )
        return done[self.ranges - 1]


@dataclass(frozen=True)
class Measured:
    """Seconds of a pass, and of processors."""

    case: Case
    seconds: float
    scheduler: float
    driver: float
    workers: float

    @property
    def overhead(self) -> float:
        return self.seconds - self.case.ideal

    def row(self) -> list[str]:
        c = self.case
        size = f"{c.nbytes / MIB:.2f}" if c.nbytes > 2**17 else f"{c.nbytes / 1024:.1f} KiB"
        return [
            f"{c.workers:,}",
            f"{c.ranges:,}",
            size,
            f"{c.lost:.0f}" if c.lost else "",
            f"{c.slower:.0f} x" if c.slower != 1 else "",
            f"{c.ideal:.1f}",
            f"{self.seconds:.2f}",
            f"{self.overhead:.2f}",
            f"{self.scheduler:.2f}",
            f"{self.driver:.2f}",
            f"{1e3 * self.workers / c.ranges:.1f}",
        ]


HEADER = ["workers", "ranges", "sums, MiB", "lost a minute", "every tenth slower", "waits, s",
          "pass, s", "overhead, s", "scheduler's CPU, s", "driver's CPU, s",
          "workers' CPU a range, ms"]  # fmt: skip


def measure(
    case: Case, scheduler: Process, workers: Process, client: Client, rounds: int
) -> Measured:
    """The median of some passes, after one that warms up; with no rounds that one."""
    workers.tell(f"start {case.workers}")
    client.wait_for_workers(case.workers, timeout=600)
    parameters = np.random.default_rng(0).normal(size=case.nbytes // 8)
    work, source = Wait(case.seconds, parameters, case.slower), Ranges(case.ranges)
    if case.lost:
        workers.tell(f"lose {case.lost}")
    found = []
    for turn in range(rounds + 1):
        before = (scheduler.cpu, cpu_of(os.getpid()), workers.cpu)
        start = time.perf_counter()
        total = DaskBackend().map_reduce(source, work)
        took = time.perf_counter() - start
        assert total.total[0] == case.ranges
        after = (scheduler.cpu, cpu_of(os.getpid()), workers.cpu)
        if turn or not rounds:
            found.append((took, *(b - a for a, b in zip(before, after, strict=True))))
    if case.lost:
        assert int(workers.tell("lose 0").split()[1]) > 0
    middle = [statistics.median(column) for column in zip(*found, strict=True)]
    measured = Measured(case, *middle)
    print(*measured.row(), sep=" | ", flush=True)
    return measured


# -- the law ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Law:
    """Seconds of processors that scheduler and driver take for a pass.

    Attributes
    ----------
    one_pass : float
    each_range : float
    each_worker : float
        Of which a pass hears: what they tell of themselves each second, and connections.
    mib : float
        Of the parameters, which go through the scheduler once.
    """

    one_pass: float
    each_range: float
    each_worker: float
    mib: float

    @classmethod
    def of(cls, found: list[Measured]) -> Law:
        """Fit it by non-negative least squares of relative errors."""
        took = np.array([m.scheduler + m.driver for m in found])
        rows = [[1, m.case.ranges, m.case.workers, m.case.nbytes / MIB] for m in found]
        work = np.array(rows) / took[:, None]
        scale = np.linalg.norm(work, axis=0)
        solution, _ = nnls(work / scale, np.ones(len(found)))
        return cls(*(solution / scale).tolist())

    def seconds(self, case: Case) -> float:
        """Seconds of a pass."""
        of_cluster = case.ranges * self.each_range + case.workers * self.each_worker
        return self.one_pass + of_cluster + case.nbytes / MIB * self.mib

    def words(self) -> str:
        """The law, for people."""
        return (
            f"{1e3 * self.one_pass:.0f} ms + {1e3 * self.each_range:.2f} ms a range + "
            f"{1e3 * self.each_worker:.2f} ms a worker + {1e3 * self.mib:.1f} ms a MiB of sums"
        )


def plot(found: list[Measured], law: Law, folder: Path) -> None:
    """Save a picture of the processor time of scheduler and driver beside the law."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.5, 3.2), layout="constrained")
    for color, size in zip(
        ("C0", "C1", "C2"), sorted({m.case.nbytes for m in found}), strict=False
    ):
        some = [m for m in found if m.case.nbytes == size]
        x = [m.case.ranges for m in some]
        label = f"{size / MIB:.2g} MiB" if size > 2**17 else f"{size / 1024:.1f} KiB"
        axes.plot(x, [m.scheduler + m.driver for m in some], "o", color=color, label=label)
        axes.plot(x, [law.seconds(m.case) for m in some], "_", ms=12, color=color)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("ranges (a bar: the law)")
    axes.set_ylabel("CPU of scheduler and driver, s")
    axes.legend(frameon=False, fontsize="small", title="sums")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "workers.png", dpi=100)
    pyplot.close(figure)


def what_it_says(law: Law, data: int = 100 * 10**12, rate: float = 200e6) -> str:
    """What 100 TB on 1 000 workers would cost, in words."""
    case = Case(1000, even(data), 2**20)
    reading = data / rate / case.workers
    busiest = math.ceil(case.ranges / case.workers) / (case.ranges / case.workers)
    return (
        f"100 TB in chunks of 16 MiB are {case.ranges:,} ranges of {data / case.ranges / 1e9:.0f} "
        f"GB. On 1,000 workers that read and sum {rate / 1e6:.0f} MB/s each a pass reads for "
        f"{reading:,.0f} s, times {busiest:.2f} where one worker takes two ranges, and scheduler "
        f"and driver compute for {law.seconds(case):.1f} s of it with sums of 1 MiB."
    )


def even(data: int) -> int:
    """How many ranges there are of so many bytes."""
    return len(even_ranges(data // (16 * MIB)))


def cases(small: bool) -> tuple[list[Case], list[Case]]:
    """What the law is fitted to, and what goes wrong."""
    few, large = SIZES[8], 2**20
    if small:
        return [Case(4, 16, few, 0.2), Case(8, 16, large, 0.2), Case(8, 64, few, 0.2)], []
    law = [Case(16, 16, few), Case(64, 64, few), Case(64, 256, few), Case(256, 256, few)]
    law += [Case(64, 256, size) for size in (large, SIZES[200])]
    law += [Case(256, 1024, large), Case(1024, 1024, few, 5.0)]
    wrong = [Case(64, 256, few, 1.0, 4.0), Case(64, 256, few, 1.0, 1.0, 30.0)]
    return law, wrong


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--most", type=int, default=1024, help="no more workers than these")
    parser.add_argument("--plots", type=Path, default=PLOTS, help="where the picture goes")
    arguments = parse(parser)
    regular, wrong = cases(arguments.small)
    regular = [case for case in regular if case.workers <= arguments.most]
    found: dict[Case, Measured] = {}
    with fleet() as (scheduler, workers, client):
        # Workers are only added.
        for case in sorted([*regular, *wrong], key=lambda c: (c.workers, c.ranges, c.lost)):
            rounds = ROUNDS if case.workers < 256 and not arguments.small else 1
            # A pass of so many workers in one process takes minutes.
            rounds = rounds if case.workers < 1024 else 0
            found[case] = measure(case, scheduler, workers, client, rounds)
    fitted = [found[case] for case in regular]
    law = Law.of(fitted)
    rows = [[*m.row(), f"{law.seconds(m.case):.2f}"] for m in found.values()]
    text = (
        f"All workers are one process, with one interpreter: what they compute beside the waits, "
        f"on so few cores, is in the overhead and not in the law. Medians of {ROUNDS}, from 256 "
        "workers on one pass, and with 1,024 the first.\n\n"
        f"The law is fitted to {max(m.case.workers for m in fitted):,} workers at most, and "
        "extrapolated beyond.\n\n"
        f"{table([*HEADER, 'the law, s'], rows)}\n\n"
        f"The law of scheduler's and driver's CPU: {law.words()}.\n\n{what_it_says(law)}"
    )
    if arguments.save:
        plot(fitted, law, arguments.plots)
    publish(arguments, "Many workers", text)


if __name__ == "__main__":
    if "--scheduler" in sys.argv:
        asyncio.run(run_scheduler())
    elif "--workers" in sys.argv:
        asyncio.run(run_workers(sys.argv[-1]))
    else:
        main()
