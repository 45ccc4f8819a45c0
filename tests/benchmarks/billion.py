"""A billion rows, on two workers of 1 GiB.

    python tests/benchmarks/billion.py [--before PATH] [--rounds N] [--save] [--small]
        [--folder FOLDER] [--rows N]

With --before the same rows are fitted by the code of an earlier tree, too, in turn. Needs 32 GB of
disk for the data and 10 GB to spare; with less, the largest power of ten of rows that fits is
taken.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
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
    workers_and_driver,
)
from trees import SERVE, add_before, serve, trees

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


def workers() -> Any:
    """The cluster of a fit."""
    return cluster_client(ClusterOptions(workers=2, memory_limit="1GiB"))


def points_of(n_rows: int) -> Points:
    """The rows."""
    return Points(n_rows, D, CHUNK_BYTES // ROW_BYTES, K, dtype="f4")


def fit(path: str, n_rows: int) -> dict[str, Any]:
    """Fit the rows from a cold cache, in a process of one tree; what came of it, for JSON."""
    drop_page_cache(Path(path))
    with workers() as client:
        processes = workers_and_driver(client)
        model = GaussianMixture(K, random_state=0, verbose=1)
        start = time.perf_counter()
        with Peaks(processes) as peaks:
            model.fit(path)
        seconds = time.perf_counter() - start
        if set(workers_and_driver(client).values()) != set(processes.values()):
            raise RuntimeError("a worker was restarted during the fit")
    passes = [r for r in model.history_ if r["phase"] != "start"]
    return {
        "seconds": seconds,
        "passes": [[r["phase"], r["number"], r["seconds"], r["rows"]] for r in passes],
        "n_passes": float(model.n_passes_),
        "status": model.status_.name.lower(),
        "peaks": peaks.bytes,
        "error": error_of_means(model, points_of(n_rows)),
    }


def words_of(found: dict[str, Any], n_rows: int) -> str:
    """A sentence of one fit."""
    held = ", ".join(f"{name} {peak / MIB:.0f} MiB" for name, peak in found["peaks"].items())
    read = n_rows * found["n_passes"] / found["seconds"]
    return (
        f"{found['status']} after {found['n_passes']:.2f} passes in {found['seconds']:.0f} s, "
        f"{read:,.0f} rows/s over all. Peak resident memory: {held}. Largest error of a mean: "
        f"{found['error']:.2g} widths of its cluster."
    )


def table_of(fits: dict[str, Sequence[dict[str, Any]]]) -> str:
    """The passes of the last fit of each tree, and the median of all seconds."""
    rows: list[list[object]] = []
    for name, found in fits.items():
        for phase, number, seconds, n_rows in found[-1]["passes"]:
            rows.append([name, phase, number, f"{seconds:.1f}", f"{n_rows / seconds:,.0f}"])
        median = statistics.median(one["seconds"] for one in found)
        rows.append([name, f"whole fit, median of {len(found)}", "", f"{median:.1f}", ""])
    return table(["tree", "pass", "number", "seconds", "rows/s"], rows)


def arguments_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line, with how many rows are wanted."""
    parser.add_argument("--rows", type=int, help="rows (default 1 000 000 000, small 4 000 000)")
    parser.add_argument("--rounds", type=int, default=1, help="fits by each tree (default 1)")
    arguments = parse(parser)
    if arguments.rows is None:
        arguments.rows = 4_000_000 if arguments.small else 1_000_000_000
    if arguments.rows < FEWEST_ROWS:
        parser.error(f"--rows {arguments.rows}: expected {FEWEST_ROWS:,} at least")
    return arguments


def main() -> None:
    arguments = arguments_of(add_before(options(__doc__)))
    start = time.perf_counter()
    free = shutil.disk_usage(arguments.folder or tempfile.gettempdir()).free
    points = points_of(rows_that_fit(arguments.rows, free))
    n_rows = points.n_rows
    with scratch(arguments) as folder, trees(arguments) as made:
        path = folder / "points.zarr"
        with workers() as client:
            points.write(path, client)
        written = time.perf_counter() - start
        print(f"wrote {n_rows:,} rows in {written:.0f} s", flush=True)
        fits: dict[str, list[dict[str, Any]]] = {name: [] for name in made}
        for _ in range(arguments.rounds):
            for name, tree in made.items():
                fits[name].append(tree.ask(what="fit", path=str(path), n_rows=n_rows))
                print(name, words_of(fits[name][-1], n_rows), flush=True)
    total = time.perf_counter() - start
    words = "\n\n".join(f"{name}: {words_of(found[-1], n_rows)}" for name, found in fits.items())
    publish(
        arguments,
        "Many rows on small workers",
        f"Two workers of 1 GiB and one thread each. {n_rows:,} rows x {D} float32 "
        f"({points.nbytes / 1e9:.1f} GB, chunks of {points.chunk_rows:,} rows, "
        f"{CHUNK_BYTES // MIB} MiB, crc32c), made by the workers in {written:.0f} s. K = {K} full. "
        f"In all, with making and deleting the data, {total:.0f} s.\n\n{words}\n\n"
        f"{table_of(fits)}",
    )


if __name__ == "__main__":
    if sys.argv[1:] == [SERVE]:
        serve({"fit": fit})
    else:
        main()
