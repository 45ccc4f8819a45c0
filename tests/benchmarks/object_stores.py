"""Reading chunks from an S3 server beside reading them from a local disk, by read-ahead.

    python tests/benchmarks/object_stores.py [--save] [--small]

The server is moto's, in a process of its own on this machine, behind a proxy that waits before
each answer as a network does. Both are Python and share the cores with the reader, so the
throughput without a wait is theirs; what read-ahead gains from a wait is not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import table

# isort: split
import dask.config
import zarr
from stores import MIB, Count, Points, options, parse, publish, scratch, take_turns
from zarr.codecs import Crc32cCodec

from dask_em.core.reading import fold_range
from dask_em.core.tuning import tuning, use_tuning
from dask_em.data.open import stored_source
from dask_em.data.zarr.source import ZarrSource
from dask_em.storage.url_store import open_store

sys.path.insert(0, str(Path(__file__).parents[1]))
from object_stores import Proxy, environment, s3_server

DEPTHS = (1, 2, 4, 8)
# Seconds before each answer: none, a rack's, and a region's object store's.
WAITS = (0.0, 0.01, 0.05)


NOTE = (
    "float64 with crc32c, one reader, a pass that only counts rows. Small chunks are read together "
    "up to 8 MiB, so of 2 MiB a read is four requests. The library reads up to 32 MiB and at most "
    "four chunks ahead of a store, one of a disk."
)


def serve() -> None:
    """Serve S3 until standard input ends; each line of it is the next wait."""
    with s3_server("data") as endpoint, Proxy(endpoint).running() as proxy:
        print(proxy.url, flush=True)
        for line in sys.stdin:
            proxy.latency = float(line)
            print("set", flush=True)


def rate(source: ZarrSource, depth: int, rounds: int) -> float:
    """MiB/s of one pass that only counts rows, read `depth` chunks ahead."""
    changed = tuning().with_changes(reading={"most_ahead": depth, "ahead_bytes": 2**40})
    with use_tuning(changed):
        return _rate(source, depth, rounds)


def _rate(source: ZarrSource, depth: int, rounds: int) -> float:
    assert source.read_ahead in (1, depth)

    def read() -> None:
        count = fold_range(source, Count().fold(), range(source.n_chunks), None)
        assert count == source.n_rows

    return source.nbytes / MIB / take_turns({"read": read}, rounds, lambda: None)["read"]


def rows_of(chunk: int, nbytes: int, folder: Path, set_wait: Any, rounds: int) -> list[list[str]]:
    """A row of the table for each wait, of chunks of so many bytes."""
    points = Points.of_bytes(nbytes, 8, chunk)
    path = folder / f"points-{chunk}.zarr"
    local = points.write(path)
    url = f"s3://data/points-{chunk}.zarr"
    there = zarr.create_array(
        open_store(url, read_only=False),
        shape=local.array.shape,
        chunks=local.array.chunks,
        dtype=local.dtype,
        compressors=[Crc32cCodec()],
    )
    for start in range(0, points.n_rows, points.chunk_rows):
        stop = min(start + points.chunk_rows, points.n_rows)
        there[start:stop] = local.array[start:stop]
    size = f"{chunk // MIB} MiB"
    found = [[size, "local disk, cached", f"{rate(local, 1, rounds):,.0f}", "", "", ""]]
    for wait in WAITS:
        set_wait(wait)
        rates = [f"{rate(stored_source(url), depth, rounds):,.0f}" for depth in DEPTHS]
        found.append([size, f"S3, {1000 * wait:.0f} ms before each answer", *rates])
    set_wait(0.0)
    return found


def main() -> None:
    arguments = parse(options(__doc__))
    rounds, nbytes = (1, 32 * MIB) if arguments.small else (3, 64 * MIB)
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None

    def set_wait(seconds: float) -> None:
        server.stdin.write(f"{seconds}\n")
        server.stdin.flush()
        assert server.stdout.readline() == "set\n"

    try:
        os.environ.update(environment(server.stdout.readline().strip()))
        with scratch(arguments) as folder, dask.config.set(scheduler="synchronous"):
            found = [
                row
                for chunk in (2 * MIB, 8 * MIB)
                for row in rows_of(chunk, nbytes, folder, set_wait, rounds)
            ]
    finally:
        server.stdin.close()
        server.wait(30)
    header = ["chunk", "store", *(f"MiB/s, {d} ahead" for d in DEPTHS)]
    publish(arguments, "Object stores", table(header, found) + "\n\n" + NOTE)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve()
    else:
        begin = time.monotonic()
        main()
        print(f"{time.monotonic() - begin:.0f} s")
