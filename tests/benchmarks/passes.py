"""Seconds of a pass beside its parts: only reading, only computing, two workers.

python tests/benchmarks/passes.py [--save] [--small] [--folder FOLDER]
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import alternate, table
from stores import (
    MIB,
    Count,
    Points,
    Resident,
    disk_bytes,
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

from dask_em.backends.dask.backend import DaskBackend
from dask_em.data.zarr.source import ZarrSource
from dask_em.jobs.cluster import ClusterOptions, cluster_client

ROUNDS = 5
# Columns and MiB of a chunk.
CASES = [(2, 8), (32, 8), (32, 64)]
CHUNKS = [8, 32, 128]


def one_pass(client: Any, source: ZarrSource, work: Any) -> Callable[[], object]:
    """A pass of `work` over `source` on the workers of `client`."""

    def run() -> object:
        with client.as_current():
            return DaskBackend().map_reduce(source, work)

    return run


def out_of_core(folder: Path, total: int) -> str:
    """Passes from a cold cache on one worker with one thread."""
    rows = []
    with cluster_client(ClusterOptions(workers=1)) as client:
        for d, chunk in CASES:
            points = Points.of_bytes(total, d, chunk * MIB)
            with stored(points, folder, client) as source:
                rows.append([d, chunk, *_cold(client, source, points, folder)])
            print(*rows[-1], flush=True)
    header = ["d", "chunk, MiB", "chunks a range", "rows", "read, s", "compute, s", "pass, s"]
    return table([*header, "pass / max(read, compute)", "from disk"], rows)


def _cold(client: Any, source: ZarrSource, points: Points, folder: Path) -> list[str]:
    mixture = points.mixture()
    contestants = {
        "read": one_pass(client, source, Count()),
        "compute": one_pass(client, Resident(source.array), mixture),
        "pass": one_pass(client, source, mixture),
    }
    fetched = sum(client.run(disk_bytes).values())
    seconds = take_turns(contestants, ROUNDS, lambda: drop_page_cache(folder))
    fetched = sum(client.run(disk_bytes).values()) - fetched
    # Two of the three contestants read; the third reads what it keeps once.
    share = fetched / (2 * (ROUNDS + 1) * source.nbytes)
    ratio = seconds["pass"] / max(seconds["read"], seconds["compute"])
    times = [f"{seconds[name]:.3f}" for name in contestants]
    per_range = f"{source.n_chunks / len(source.ranges()):.1f}"
    return [per_range, f"{source.n_rows:,}", *times, f"{ratio:.2f}", f"{min(share, 1):.0%}"]


def reading(folder: Path, total: int) -> str:
    """The source's reader beside `np.fromfile` of the same files, from a warm cache."""
    rows = []
    for chunk in CHUNKS:
        plain = Points.of_bytes(max(total, 2 * chunk * MIB), 32, chunk * MIB, checksum=False)
        checked = Points.of_bytes(plain.nbytes, 32, chunk * MIB)
        with (
            stored(plain, folder) as raw,
            stored(checked, folder) as crc,
        ):
            contestants = {
                "fromfile": lambda raw=raw: read_files(raw),
                "raw": lambda raw=raw: read_source(raw),
                "crc32c": lambda crc=crc: read_source(crc),
            }
            seconds = alternate(contestants, ROUNDS)
        rates = [plain.nbytes / 1e6 / seconds[name] for name in contestants]
        shares = [f"{rate / rates[0]:.0%}" for rate in rates[1:]]
        rows.append([chunk, *(f"{rate:,.0f}" for rate in rates), *shares])
        print(*rows[-1], flush=True)
    header = ["chunk, MiB", "np.fromfile, MB/s", "ours, MB/s", "ours with crc32c, MB/s"]
    return table([*header, "share", "share with crc32c"], rows)


def read_files(source: ZarrSource) -> None:
    """Every chunk file, into fresh memory."""
    path = Path(source.description)
    for number in range(source.array.nchunks):
        key = source.array.metadata.encode_chunk_key((number, 0))
        np.fromfile(path / key, dtype=source.dtype)


def read_source(source: ZarrSource) -> None:
    """Every chunk as a pass reads it: one reader a range."""
    for chunks in source.ranges():
        reader = source.reader()
        for chunk in chunks:
            reader.read(chunk)
        reader.close()


def two_workers(folder: Path, total: int) -> str:
    """A pass on one worker and on two, from a warm cache, anywhere and each on its own core.

    A worker that may go anywhere reads ahead on a core that a second worker would take.
    """
    found = {d: [f"{Points.of_bytes(total, d, 8 * MIB).n_rows:,}"] for d in (2, 32)}
    for held in (False, True):
        # What a cluster does when idle would cost the two workers a core's share.
        with (
            cluster_client(ClusterOptions(workers=1)) as one,
            cluster_client(ClusterOptions(workers=2)) as two,
        ):
            for client in (one, two) if held else ():
                for core, worker in enumerate(sorted(client.nthreads())):
                    client.run(hold_to_core, core, workers=[worker])
            for d, cells in found.items():
                points = Points.of_bytes(total, d, 8 * MIB)
                with stored(points, folder, two) as source:
                    mixture = points.mixture()
                    passes = {"one": one_pass(one, source, mixture)}
                    passes["two"] = one_pass(two, source, mixture)
                    seconds = alternate(passes, ROUNDS)
                cells += [f"{t:.3f}" for t in seconds.values()]
                cells.append(f"{seconds['one'] / seconds['two']:.2f}")
                print(d, held, *cells, flush=True)
    rows = [[d, *cells] for d, cells in found.items()]
    parts = ["one, s", "two, s", "speed-up"]
    return table(["d", "rows", *parts, *(f"{part}, on cores" for part in parts)], rows)


def hold_to_core(core: int) -> None:
    """Keep all threads of this process, and those they start, on one core."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def main() -> None:
    arguments = parse(options(__doc__))
    total = (256 if arguments.small else 1024) * MIB
    with scratch(arguments) as folder:
        cold = out_of_core(folder, total)
        warm = reading(folder, total)
        # Longer passes: what is wanted is of the work, not of what a pass costs beside it.
        pair = two_workers(folder, 2 * total)
    publish(
        arguments,
        "A pass and its parts",
        f"float64, K = 8 full, neighbours overlap, crc32c; median of {ROUNDS}, alternating.\n\n"
        "One worker with one thread, page cache dropped before each pass (wanted: at most "
        f"1.15 of the larger part; only within a range is the next chunk read ahead):\n\n{cold}\n\n"
        f"Reading from a warm cache, one thread (wanted: at least 70 %):\n\n{warm}\n\n"
        "Workers of one thread, warm cache, 8 MiB chunks, free to go to any core and each held to "
        f"one (wanted: at least 1.85):\n\n{pair}",
    )


if __name__ == "__main__":
    main()
