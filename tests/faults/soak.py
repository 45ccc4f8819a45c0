"""Fit for a long time on two workers, one of which is killed every 20 seconds.

    python tests/faults/soak.py --minutes 30 --save

A LocalCluster of two workers, in this process, with its scheduler, as `dask-em fit` starts
one; the fits run in a driver process of their own, one after another, each with a checkpoint.
Every fit must have the bits of one that nobody disturbed, and neither the driver nor the
scheduler may grow: over the last half, by a line through the medians of tenths of it, and two
standard errors more. A worker is killed while it computes. Few rows and a pause after each pass
leave most of the machine to others. --save puts a line into RESULTS.md, and the picture beside
it (soak.png).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]

N_ROWS, N_COLUMNS, K, CHUNK, PASSES = 200_000, 4, 4, 10_000, 12
# Of memory, over the last half of the time.
ALLOWED_GROWTH = 0.02
PARTS = 10


def driver(address: str, data: str, folder: str, minutes: float, pause: float) -> None:
    """Fit again and again until time is over, and print a line for each fit."""
    import warnings

    from distributed import Client
    from helpers import digest

    from dask_em import GaussianMixture
    from dask_em.storage.checkpoint import remove_checkpoint

    def rest(state: Any) -> None:
        time.sleep(pause)

    warnings.simplefilter("ignore")
    checkpoint = Path(folder, "checkpoint")
    options: dict[str, Any] = {
        "n_components": K, "algorithm": "em", "tol": 0, "max_iter": PASSES, "random_state": 0,
        "sample_size": 5000,
    }  # fmt: skip
    expected = digest(GaussianMixture(**options).fit(data))
    deadline = time.monotonic() + 60 * minutes
    with Client(address):
        while time.monotonic() < deadline:
            model = GaussianMixture(**options, checkpoint=checkpoint, callbacks=[rest]).fit(data)
            remove_checkpoint(checkpoint)
            made_again = sum(record["retries"] for record in model.history_)
            line = {"equal": digest(model) == expected, "retries": made_again}
            print(json.dumps(line), flush=True)


@dataclass
class Found:
    """What was seen: seconds and MiB of each sample, kills, fits."""

    seconds: list[float] = field(default_factory=list)
    driver: list[float] = field(default_factory=list)
    scheduler: list[float] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    fits: list[dict[str, Any]] = field(default_factory=list)

    def growth(self, name: str) -> tuple[float, float]:
        """MiB by which a process grew in the last half of the time, and two standard errors.

        Of a line through the medians of tenths of that half: single samples are no news, for
        memory goes in steps.
        """
        n = len(self.seconds) // 2 // PARTS * PARTS
        times = np.median(np.reshape(self.seconds[-n:], (PARTS, -1)), axis=1)
        held = np.median(np.reshape(getattr(self, name)[-n:], (PARTS, -1)), axis=1)
        (slope, _), covariance = np.polyfit(times, held, 1, cov=True)
        half = self.seconds[-1] - self.seconds[-n]
        return float(slope * half), float(2 * np.sqrt(covariance[0, 0]) * half)

    def told(self, name: str) -> str:
        """The same in words, after what it holds."""
        grown, error = self.growth(name)
        return f"{getattr(self, name)[-1]:.0f} MiB ({grown:+.1f} ± {error:.1f} in the last half)"

    def flat(self, name: str) -> bool:
        """Whether that is within what is allowed."""
        return sum(self.growth(name)) <= ALLOWED_GROWTH * getattr(self, name)[-1]


@contextmanager
def fitting(address: str, data: Path, folder: Path, minutes: float, pause: float) -> Iterator[Any]:
    """The driver, as a process of its own."""
    words = ["--driver", address, str(data), str(folder), str(minutes), str(pause)]
    with (folder / "driver.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, *words], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def busy_worker(cluster: Any, rng: random.Random) -> Any:
    """A nanny whose worker computes at this moment, or None."""
    states = cluster.scheduler.workers.values()
    computing = {state.address for state in states if state.processing}
    busy = [n for n in cluster.workers.values() if n.worker_address in computing and n.pid]
    return rng.choice(busy) if busy else None


def soak(minutes: float, every: float, pause: float, folder: Path) -> Found:
    """Run the driver for so long, and kill a worker now and then."""
    import dask
    import psutil
    from chaos import points
    from helpers import start_cluster

    from dask_em.backends.dask.recovery import cluster_settings, scheduler_extensions

    found, rng = Found(), random.Random(0)
    data = points(folder / "points.zarr", N_ROWS, N_COLUMNS, K, CHUNK)
    # Nobody kills a worker for its tasks' sake here, however often it is the same task's.
    # Dask keeps the events of a worker that left for an hour, longer than this takes: for a minute
    # here, so that what grows is not they.
    settings = {
        **cluster_settings(),
        "distributed.scheduler.allowed-failures": 1000,
        "distributed.scheduler.events-cleanup-delay": "60s",
    }
    ours = {"extensions": scheduler_extensions()}
    with dask.config.set(settings), start_cluster(2, scheduler_kwargs=ours) as cluster:
        address = cluster.scheduler_address
        with fitting(address, data, folder, minutes, pause) as process:
            here, there = psutil.Process(), psutil.Process(process.pid)
            began = time.monotonic()
            next_kill, next_sample, lost = every, 0.0, 0.0
            while process.poll() is None:
                now = time.monotonic() - began
                if now >= next_sample:
                    found.seconds.append(now)
                    found.scheduler.append(here.memory_info().rss / 2**20)
                    found.driver.append(there.memory_info().rss / 2**20)
                    next_sample = now + max(0.5, minutes / 4)
                if now >= next_kill and (nanny := busy_worker(cluster, rng)) is not None:
                    os.kill(nanny.pid, signal.SIGKILL)
                    found.kills.append(now)
                    next_kill += every
                if len(cluster.scheduler.workers) < 2:
                    lost = lost or now
                elif lost:
                    found.back.append(now - lost)
                    lost = 0.0
                time.sleep(0.01)
            found.fits = [json.loads(line) for line in process.stdout]
            if process.returncode:
                raise RuntimeError((folder / "driver.log").read_text())
    return found


def draw(found: Found, path: Path) -> None:
    """Memory over time, with a mark for every kill."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
    for name in ("driver", "scheduler"):
        label = f"{name}: {found.told(name)}"
        axes.plot([s / 60 for s in found.seconds], getattr(found, name), label=label)
    for i, kill in enumerate(found.kills):
        once = f"a worker is killed ({len(found.kills)})" if not i else None
        axes.axvline(kill / 60, color="0.85", lw=0.6, zorder=0, label=once)
    axes.set(xlabel="minutes", ylabel="resident memory, MiB", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)


def main() -> int:
    """Soak; 1 where bits differ, or where memory grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=20, help="seconds between two kills")
    parser.add_argument("--pause", type=float, default=0.7, help="seconds of rest after a pass")
    parser.add_argument("--save", action="store_true", help="write RESULTS.md and soak.png")
    parser.add_argument("--plot", type=Path, help="write the picture here")
    parser.add_argument("--driver", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.driver:
        address, data, folder, minutes, pause = options.driver
        driver(address, data, folder, float(minutes), float(pause))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = soak(options.minutes, options.every, options.pause, Path(folder))
    return report(found, options)


def report(found: Found, options: argparse.Namespace) -> int:
    """Say what was found, and whether it is well."""
    from all import line, write
    from chaos import spread

    equal = sum(fit["equal"] for fit in found.fits)
    memory = ", ".join(f"{name} {found.told(name)}" for name in ("driver", "scheduler"))
    row = [
        "soak: a worker killed again and again",
        f"{options.minutes:g} minutes, 2 workers, kill -9 of one that computes every "
        f"{options.every:g} s: {len(found.kills)} kills",
        f"{len(found.fits)} fits of {PASSES} passes one after another; {memory} ([plot](soak.png))",
        f"{spread(found.back)} until there were two workers again",
        "what the worker held of the pass",
        f"yes, {equal} of {len(found.fits)}",
    ]
    print("\n".join(row))
    plot = FOLDER / "soak.png" if options.save else options.plot
    if plot:
        draw(found, plot)
    if options.save:
        write({"soak.py": [line("soak.py", row)]})
    flat = all(found.flat(name) for name in ("driver", "scheduler"))
    return 0 if found.fits and equal == len(found.fits) and flat else 1


if __name__ == "__main__":
    sys.exit(main())
