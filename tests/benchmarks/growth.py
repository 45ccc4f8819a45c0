"""How a pass grows with rows, components, columns, chunks and workers, beside a cost model.

    python tests/benchmarks/growth.py [--save] [--small] [--folder FOLDER] [--plots FOLDER]

The model: a pass takes max(read, compute) + overhead. Its constants are measured in the
same run, one part at a time, never fitted to the passes that it is drawn beside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from common import RESULTS, alternate, table
from stores import (
    MIB,
    Count,
    Held,
    Points,
    drop_page_cache,
    options,
    parse,
    publish,
    scratch,
    stored,
    take_turns,
)

# isort: split
import numpy as np
from scipy.optimize import nnls

from dask_em.backends.dask.backend import DaskBackend
from dask_em.core.mixture import Mixture
from dask_em.core.protocols import Reader, Source
from dask_em.families.gaussian.constraints import CONSTRAINTS
from dask_em.jobs.cluster import ClusterOptions, cluster_client

ROUNDS = 3
# Columns and components whose computing in memory gives the constants of computing.
CALIBRATED = [(2, 8), (4, 32), (8, 2), (8, 8), (16, 16), (32, 8), (64, 4)]
FEW_TASKS, MANY_TASKS = 16, 512
TERABYTE = 10**12
PLOTS = RESULTS.parent / "plots"


# -- the model -------------------------------------------------------------------------


@cache
def work_of(d: int, k: int) -> tuple[float, float, float]:
    """Flops, responsibilities and kernel blocks of one row (full covariance)."""
    n_features = 1 + CONSTRAINTS["full"].storage.n_features(d)
    block_rows = Points(1, d, 1, k).mixture().fold().kernel.block_rows
    return 4.0 * k * n_features, float(k), 1 / block_rows


@dataclass(frozen=True)
class Costs:
    """Seconds of each part, measured on one worker with one thread.

    Attributes
    ----------
    byte, chunk : float
        Of reading, from a warm cache.
    flop, responsibility, block : float
        Of computing.
    task, one_pass : float
        Of Dask: each range, and each pass.
    cold_byte : float
        Of reading from the disk.
    """

    byte: float
    chunk: float
    flop: float
    responsibility: float
    block: float
    task: float
    one_pass: float
    cold_byte: float

    def compute(self, n: int, d: int, k: int) -> float:
        """Seconds of one thread for the E-step of n rows."""
        costs = (self.flop, self.responsibility, self.block)
        return n * sum(c * w for c, w in zip(costs, work_of(d, k), strict=True))

    def read(self, nbytes: int, n_chunks: int, cold: bool = False) -> float:
        """Seconds of one thread for reading."""
        return nbytes * (self.cold_byte if cold else self.byte) + n_chunks * self.chunk

    def passing(self, points: Points, n_tasks: int, workers: int, cold: bool = False) -> float:
        """Seconds of a pass: the busiest worker's ranges, and the overhead of all."""
        n_chunks = points.n_rows / points.chunk_rows
        read = self.read(points.nbytes, math.ceil(n_chunks), cold)
        compute = self.compute(points.n_rows, points.d, points.k)
        share = math.ceil(n_tasks / workers) / n_tasks
        return share * max(read, compute) + self.overhead(n_tasks)

    def overhead(self, n_tasks: int) -> float:
        """Seconds of a pass that Dask takes."""
        return self.one_pass + n_tasks * self.task

    def table(self) -> str:
        """The constants, in units that a person knows."""
        rows = [
            ["reading, warm cache", f"{1e-6 / self.byte:,.0f} MB/s"],
            ["reading, from the disk", f"{1e-6 / self.cold_byte:,.0f} MB/s"],
            ["each chunk", f"{1e6 * self.chunk:,.0f} us"],
            ["products", f"{rate(self.flop)} GFLOP/s"],
            ["each responsibility", f"{1e9 * self.responsibility:.1f} ns"],
            ["each block of rows", f"{1e6 * self.block:,.0f} us"],
            ["each range (task)", f"{1e3 * self.task:.1f} ms"],
            ["each pass", f"{1e3 * self.one_pass:.0f} ms"],
        ]
        return table(["constant", "measured"], rows)


def rate(seconds: float) -> str:
    """How many billions a second, "no limit" for what takes no time."""
    return f"{1e-9 / seconds:.1f}" if seconds > 0 else "no limit"


# -- its constants ---------------------------------------------------------------------


@dataclass(frozen=True)
class NoRows(Source):
    """A source of ranges with nothing in them: what is left of a pass is Dask's."""

    chunks: int

    n_features = 1
    dtype = np.dtype("f8")
    description = "no rows"

    @property
    def n_chunks(self) -> int:
        return self.chunks

    @property
    def n_rows(self) -> int:
        return self.chunks

    @property
    def nbytes(self) -> int:
        return self.chunks

    def rows_of(self, chunks: range) -> int:
        return len(chunks)

    def reader(self) -> Reader:
        return Held([np.empty((1, 1))])


def seconds_in_memory(points: Points, mixture: Mixture) -> float:
    """Seconds of the E-step of the first piece in memory, in this thread."""
    X = points.piece(0)
    return alternate({"compute": lambda: mixture.fold().update(0, X, None)}, ROUNDS)["compute"]


def costs_of_computing(client: Any, n: int) -> tuple[float, float, float]:
    """Seconds of a flop, a responsibility and a block, by non-negative least squares."""
    work, seconds = [], []
    for d, k in CALIBRATED:
        rows = max(20_000, int(n * 8 / (d * k)))
        points = Points(rows, d, rows, k)
        took = client.submit(seconds_in_memory, points, points.mixture(), pure=False).result()
        # Relative errors count alike.
        work.append(rows * np.array(work_of(d, k)) / took)
        seconds.append(1.0)
    scale = np.linalg.norm(work, axis=0)
    solution, _ = nnls(np.array(work) / scale, np.array(seconds))
    flop, responsibility, block = (solution / scale).tolist()
    return flop, responsibility, block


def measure_costs(client: Any, folder: Path, total: int) -> Costs:
    """All constants, on a cluster of one worker with one thread."""
    sources = {n: NoRows(n) for n in (FEW_TASKS, MANY_TASKS)}
    idle = {str(n): (lambda s=s: DaskBackend().map_reduce(s, Count())) for n, s in sources.items()}
    took = alternate(idle, ROUNDS)
    task = (took[str(MANY_TASKS)] - took[str(FEW_TASKS)]) / (MANY_TASKS - FEW_TASKS)
    one_pass = took[str(FEW_TASKS)] - FEW_TASKS * task
    large = Points.of_bytes(total, 8, 8 * MIB)
    small = replace(large, chunk_rows=large.chunk_rows // 256, piece_rows=large.chunk_rows)
    with stored(large, folder, client) as few, stored(small, folder, client) as many:
        reading = {
            "few": lambda: DaskBackend().map_reduce(few, Count()),
            "many": lambda: DaskBackend().map_reduce(many, Count()),
        }
        read = alternate(reading, ROUNDS)
        fresh = take_turns({"read": reading["few"]}, ROUNDS, lambda: drop_page_cache(folder))
    overhead = one_pass + len(few.ranges()) * task
    chunk = (read["many"] - read["few"]) / (many.array.nchunks - few.array.nchunks)
    large_chunks = few.array.nchunks * chunk
    byte = (read["few"] - overhead - large_chunks) / large.nbytes
    cold_byte = (fresh["read"] - overhead - large_chunks) / large.nbytes
    if min(task, chunk, byte, cold_byte) <= 0:
        raise RuntimeError(
            f"a part of a pass took no time (task {task:.3g}, chunk {chunk:.3g}, byte {byte:.3g}, "
            f"from disk {cold_byte:.3g} s): the machine is too busy to measure, run again"
        )
    constants = costs_of_computing(client, total // 512)
    return Costs(byte, chunk, *constants, task, max(one_pass, 0.0), cold_byte)


# -- the series ------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """One pass measured, and what the model says."""

    x: int
    seconds: float
    model: float

    def row(self) -> list[str]:
        """For the table."""
        ratio = f"{self.seconds / self.model:.2f}"
        return [f"{self.x:,}", f"{self.seconds:.3f}", f"{self.model:.3f}", ratio]


Cases = dict[int, tuple[Points, int]]
"""What is varied -> data and number of workers."""


def series(n: int) -> dict[str, Cases]:
    """Each quantity varied alone, about n rows x 8 columns and 8 components."""

    def points(n_rows: int, d: int, k: int, chunks: int = 32) -> Points:
        rows = -(-n_rows // chunks)
        return Points(rows * chunks, d, rows, k)

    def split(chunks: int) -> Points:
        return replace(points(n, 8, 8, chunks), piece_rows=-(-n // chunks) * max(1, chunks // 64))

    return {
        "rows": {m: (points(m, 8, 8), 1) for m in (n // 4, n // 2, n, 2 * n, 4 * n)},
        "components": {k: (points(n, 8, k), 1) for k in (2, 4, 8, 16, 32)},
        "columns": {d: (points(8 * n // d, d, 8), 1) for d in (2, 4, 8, 16, 32, 64)},
        "chunks": {c: (split(c), 1) for c in (16, 64, 256, 1024, 4096)},
        "workers": {w: (points(4 * n, 8, 8), w) for w in (1, 2)},
    }


def measure(cases: Cases, clients: dict[int, Any], costs: Costs, folder: Path) -> list[Measured]:
    """Median seconds of a pass of each case, from a warm cache."""
    found = []
    for x, (points, workers) in cases.items():
        client, mixture = clients[workers], points.mixture()
        with stored(points, folder, client) as source, client.as_current():
            contestant = {"pass": lambda s=source, m=mixture: DaskBackend().map_reduce(s, m)}
            seconds = alternate(contestant, ROUNDS)["pass"]
            model = costs.passing(points, len(source.ranges()), workers)
        found.append(Measured(x, seconds, model))
        print(*found[-1].row(), flush=True)
    return found


def plot(name: str, found: list[Measured], folder: Path) -> None:
    """Save a picture of one series with the model's line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.5, 3.2), layout="constrained")
    x = [m.x for m in found]
    axes.plot(x, [m.model for m in found], color="0.5", label="max(read, compute) + overhead")
    axes.plot(x, [m.seconds for m in found], "o", color="C0", label="measured")
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xticks(x, [f"{value:,}" for value in x], rotation=30 if max(x) > 999 else 0)
    axes.minorticks_off()
    axes.set_xlabel(name)
    axes.set_ylabel("seconds a pass")
    axes.legend(frameon=False, fontsize="small")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"growth-{name}.png", dpi=100)
    pyplot.close(figure)


def terabyte(costs: Costs, workers: int = 100, passes: int = 6) -> str:
    """What 1 TB on many workers would cost, in words."""
    points = Points.of_bytes(TERABYTE, 8, 16 * MIB, k=8)
    n_chunks = points.n_rows // points.chunk_rows
    # So many chunks make as many ranges as there may be, whatever is in them.
    n_tasks = len(NoRows(n_chunks).ranges())
    busiest = math.ceil(n_tasks / workers)
    read = costs.read(points.nbytes, n_chunks, cold=True)
    compute = costs.compute(points.n_rows, points.d, points.k)
    seconds = costs.passing(points, n_tasks, workers, cold=True)
    even = max(read, compute) / workers + costs.overhead(n_tasks)
    bound = "reading" if read > compute else "computing"
    busy = busiest / n_tasks
    fit = passes * seconds
    return (
        f"What would 1 TB on {workers} workers cost? {points.n_rows / 1e9:.1f} billion rows x 8 "
        f"float64, K = 8 full, chunks of 16 MiB in {n_tasks} ranges; workers of one thread, each "
        f"as fast as here and with {1e-6 / costs.cold_byte:,.0f} MB/s of storage of its own, "
        f"what the disk gives here. The busiest worker has {busiest} ranges: {busy * read:.0f} s "
        f"of reading beside {busy * compute:.0f} s of computing; the overhead of a pass is "
        f"{costs.overhead(n_tasks):.1f} s. So a pass takes about {seconds:.0f} s, bound by {bound} "
        f"({even:.0f} s if the ranges could be shared out evenly), and the storage has to give "
        f"{points.nbytes / seconds / 1e9:.0f} GB/s in all. A fit of {passes} passes: "
        f"{fit:,.0f} s, {fit * workers / 3600:.1f} worker-hours."
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--plots", type=Path, help="where to (default with --save: plots/ here)")
    arguments = parse(parser)
    plots = arguments.plots or (PLOTS if arguments.save else None)
    n, total = (100_000, 128 * MIB) if arguments.small else (2_000_000, 1024 * MIB)
    rows = []
    with (
        scratch(arguments) as folder,
        cluster_client(ClusterOptions(workers=2)) as two,
        cluster_client(ClusterOptions(workers=1)) as one,
    ):
        with one.as_current():
            costs = measure_costs(one, folder, total)
        print(costs.table(), flush=True)
        for name, cases in series(n).items():
            found = measure(cases, {1: one, 2: two}, costs, folder)
            rows += [[name, *m.row()] for m in found]
            if plots:
                plot(name, found, plots)
    header = ["varied", "", "pass, s", "model, s", "measured / model"]
    publish(
        arguments,
        "Growth and cost",
        f"About {n:,} rows x 8 float64, K = 8 full, 32 chunks, one worker of one thread, warm "
        f"cache, median of {ROUNDS}; plots in `tests/benchmarks/plots/`. The model is "
        "max(read, compute) + overhead, of constants measured apart in the same run:\n\n"
        f"{costs.table()}\n\n{table(header, rows)}\n\n{terabyte(costs)}",
    )


if __name__ == "__main__":
    main()
