"""A billion rows, on two workers of 1 GiB.

    python tests/benchmarks/billion.py [--save] [--small] [--folder FOLDER] [--rows N]

Needs 32 GB of disk for the data and 10 GB to spare; with less, the largest power of
ten of rows that fits is taken.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from common import table
from stores import (
    MIB,
    Peaks,
    Points,
    drop_page_cache,
    options,
    parse,
    publish,
    scratch,
    stored,
    workers_and_driver,
)

# isort: split
import numpy as np

from dask_em import GaussianMixture
from dask_em.jobs.cluster import ClusterOptions, cluster_client

D, K = 8, 8
ROW_BYTES = 4 * D
CHUNK_BYTES = 16 * MIB
SPARE_BYTES = 10 * 10**9
FEWEST_ROWS = 10**6


def rows_that_fit(wanted: int, free: int) -> int:
    """`wanted`, or the largest power of ten below it whose data leave room to spare.

    Raises
    ------
    SystemExit
        Not even a million rows fit.
    """
    room = (free - SPARE_BYTES) / ROW_BYTES
    if wanted <= room:
        return wanted
    if room < FEWEST_ROWS:
        raise SystemExit(
            f"{free / 1e9:.1f} GB are free, and {SPARE_BYTES / 1e9:.0f} GB of them must stay: "
            "name a larger disk with --folder"
        )
    fitting = int(10.0 ** int(np.log10(room)))
    print(f"{free / 1e9:.0f} GB are free: {fitting:,} rows instead of {wanted:,}", flush=True)
    return fitting


def error_of_means(model: GaussianMixture, points: Points) -> float:
    """Largest distance of a true center from the nearest mean, in widths of its cluster."""
    centers, widths = points.truth
    apart = np.abs(centers[:, None] - model.means_[None]) / widths[:, None]
    return float(apart.max(axis=2).min(axis=1).max())


def run(client: Any, folder: Path, points: Points) -> tuple[str, str]:
    """Write the rows, fit them; a table of passes and a sentence of everything else."""
    processes = workers_and_driver(client)
    start = time.perf_counter()
    with stored(points, folder, client) as source:
        written = time.perf_counter() - start
        print(f"wrote {points.n_rows:,} rows in {written:.0f} s", flush=True)
        drop_page_cache(folder)
        model = GaussianMixture(K, random_state=0, verbose=1)
        start = time.perf_counter()
        with Peaks(processes) as peaks:
            model.fit(source.array)
        fitted = time.perf_counter() - start
    if set(workers_and_driver(client).values()) != set(processes.values()):
        raise RuntimeError("a worker was restarted during the fit")
    rows = [
        [r["phase"], r["number"], f"{r['seconds']:.1f}", f"{r['rows'] / r['seconds']:,.0f}"]
        for r in model.history_
        if r["phase"] != "start"
    ]
    held = ", ".join(f"{name} {peak / MIB:.0f} MiB" for name, peak in peaks.bytes.items())
    read = points.n_rows * model.n_passes_ / fitted
    words = (
        f"{points.n_rows:,} rows x {D} float32 ({points.nbytes / 1e9:.1f} GB, chunks of "
        f"{points.chunk_rows:,} rows, {CHUNK_BYTES // MIB} MiB, crc32c), made by the workers in "
        f"{written:.0f} s. K = {K} full: {model.status_.name.lower()} after "
        f"{model.n_passes_:.2f} passes in {fitted:.0f} s, {read:,.0f} rows/s over all. Peak "
        f"resident memory: {held}. Largest error of a mean: {error_of_means(model, points):.2g} "
        "widths of its cluster."
    )
    return table(["pass", "number", "seconds", "rows/s"], rows), words


def arguments_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line, with how many rows are wanted."""
    parser.add_argument("--rows", type=int, help="rows (default 1 000 000 000, small 4 000 000)")
    arguments = parse(parser)
    if arguments.rows is None:
        arguments.rows = 4_000_000 if arguments.small else 1_000_000_000
    if arguments.rows < FEWEST_ROWS:
        parser.error(f"--rows {arguments.rows}: expected {FEWEST_ROWS:,} at least")
    return arguments


def main() -> None:
    arguments = arguments_of(options(__doc__))
    start = time.perf_counter()
    free = shutil.disk_usage(arguments.folder or tempfile.gettempdir()).free
    n_rows = rows_that_fit(arguments.rows, free)
    points = Points(n_rows, D, CHUNK_BYTES // ROW_BYTES, K, dtype="f4")
    with (
        scratch(arguments) as folder,
        cluster_client(ClusterOptions(workers=2, memory_limit="1GiB")) as client,
    ):
        passes, words = run(client, folder, points)
    total = time.perf_counter() - start
    publish(
        arguments,
        "Many rows on small workers",
        f"Two workers of 1 GiB and one thread each. {words} In all, with making and deleting the "
        f"data, {total:.0f} s.\n\n{passes}",
    )


if __name__ == "__main__":
    main()
