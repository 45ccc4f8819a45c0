"""The first pass beside an EM pass and beside only reading, for two trees in one run.

    python tests/benchmarks/first_pass.py [--before PATH] [--save] [--small] [--folder FOLDER]

One process a tree, one thread that computes beside one that reads ahead; rows in Zarr with
checksums, from a warm cache; at most 512 MiB on the disk at a time.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from common import table
from stores import MIB, Count, Points, options, parse, publish, scratch, stored
from trees import SERVE, add_before, serve, take_turns, trees

# isort: split
from dask_em.backends.blas import one_blas_thread
from dask_em.backends.serial import SerialBackend
from dask_em.core.engine import Engine
from dask_em.core.passes import LoggingPass
from dask_em.data.open import stored_source
from dask_em.fitting.sample import default_sample_size
from dask_em.fitting.survey import Survey

K, ROUNDS = 8, 3
# The sample is drawn as of so many times the rows: of 32 GiB it is nothing, of 512 MiB not.
AS_MANY = 64
COLUMNS, TYPES = (2, 8, 32, 128), ("f4", "f8")
ENGINES = ("numpy", "numba")


@cache
def opened(path: str) -> Any:
    """The rows at a path, opened once."""
    return stored_source(path)


@cache
def mixture_of(d: int, dtype: str) -> Any:
    """The mixture of the rows, made once."""
    return Points(1, d, 1, K, dtype=dtype).mixture()


def work_of(work: str, source: Any, engine: str) -> Any:
    """The pass of a name."""
    d, dtype = source.n_features, source.dtype.str[1:]
    if work == "read":
        return Count()
    if work == "em":
        return replace(mixture_of(d, dtype), engine=Engine(engine, dtype == "f4"))
    size = default_sample_size(K * (1 + d + d * (d + 1) // 2) - 1, d)
    # An earlier tree may know one way alone.
    known = {"engine": Engine(engine)} if "engine" in Survey.__dataclass_fields__ else {}
    return LoggingPass(Survey(0, size, d, AS_MANY * source.n_rows, **known))


def seconds_of(path: str, work: str, engine: str) -> float:
    """Seconds of a pass."""
    source = opened(path)
    pass_ = work_of(work, source, engine)
    with one_blas_thread():
        start = time.perf_counter()
        SerialBackend().map_reduce(source, pass_)
        return time.perf_counter() - start


def main() -> None:
    arguments = parse(add_before(options(__doc__)))
    total = (16 if arguments.small else 512) * MIB
    rounds = 2 if arguments.small else ROUNDS
    rows = []
    with scratch(arguments) as folder, trees(arguments) as made:
        for d in COLUMNS:
            for dtype in TYPES:
                # Very few and very many columns take long beside their bytes.
                nbytes = total // 8 if d in (2, 128) else total
                points = Points.of_bytes(nbytes, d, nbytes // 64, k=K, dtype=dtype)
                with stored(points, folder) as source:
                    rows += measured(made, Path(source.description), points, rounds)
                for row in rows[-2:]:
                    print(*row, flush=True)
    names = [f"first, {name}" for name in made]
    ratios = [f"first / {part}, {name}" for part in ("EM", "read") for name in made]
    header = ["d", "type", "engine", "rows", "read", "EM", *names, *ratios]
    publish(
        arguments,
        "The first pass",
        f"Nanoseconds a row, K = {K} full, 64 chunks with crc32c in 16 ranges, warm; one process, "
        f"one thread beside the one that reads; median of {rounds}, trees and passes in turn. The "
        f"first pass with its log of chunks, and a sample as a fit of {AS_MANY} times the rows "
        "draws. Wanted: at most 0.35 of an EM pass at 8 columns, and 1.2 of reading at 32, "
        "compiled.\n\n"
        f"{table(header, rows)}",
    )


def measured(made: Any, path: Path, points: Points, rounds: int) -> list[list[str]]:
    """The rows of the table for one store."""
    found = []
    questions = {
        (tree, f"{work} {engine}"): {"path": str(path), "work": work, "engine": engine}
        for engine in ENGINES
        for work in ("read", "first", "em")
        for tree in (made if work == "first" else ["now"])
    }
    seconds = take_turns(made, questions, rounds)
    for engine in ENGINES:
        read, em = (seconds["now", f"{work} {engine}"] for work in ("read", "em"))
        firsts = [seconds[tree, f"first {engine}"] for tree in made]
        times = [f"{1e9 * s / points.n_rows:.1f}" for s in (read, em, *firsts)]
        ratios = [f"{first / part:.2f}" for part in (em, read) for first in firsts]
        rows = f"{points.n_rows:,}"
        found.append([str(points.d), points.dtype, engine, rows, *times, *ratios])
    return found


if __name__ == "__main__":
    if sys.argv[1:] == [SERVE]:
        serve({"seconds": seconds_of})
    else:
        main()
