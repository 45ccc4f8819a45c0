"""Labels written to Zarr beside an EM pass over the same rows, for two trees in one run.

    python tests/benchmarks/predict.py [--before PATH] [--rows N] [--save] [--small]
        [--folder FOLDER]

One worker of one thread for each tree, rows and answers on a warm disk.
"""

from __future__ import annotations

import argparse
import inspect
import shutil
import sys
import time
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from common import table
from stores import MIB, Count, Points, options, parse, publish, scratch, stored
from trees import SERVE, add_before, serve, take_turns, trees

# isort: split
from dask_em import GaussianMixture, load
from dask_em.backends.dask.backend import DaskBackend
from dask_em.data.open import stored_source
from dask_em.jobs.cluster import ClusterOptions, cluster_client
from dask_em.jobs.predict import predict

D, K, ROUNDS = 8, 8, 3
CHUNK_BYTES = 16 * MIB

held = ExitStack()


@cache
def client() -> Any:
    """The worker of this tree, kept to the end."""
    return held.enter_context(cluster_client(ClusterOptions(workers=1)))


def seconds_of(path: str, model: str, work: str) -> float | None:
    """Seconds of a pass, or of writing labels of a type; None where this tree knows no types."""
    if work in ("read", "em"):
        source = stored_source(path)
        mixture = load(model).mixture(load(model).engine(source.dtype, source.n_rows))
        with client().as_current():
            start = time.perf_counter()
            DaskBackend().map_reduce(source, Count() if work == "read" else mixture)
            return time.perf_counter() - start
    known = "label_type" in inspect.signature(predict).parameters
    if work != "int64" and not known:
        return None
    types = {"label_type": work} if known else {}
    out = f"{path}-{work}"
    where = ClusterOptions(scheduler=client().scheduler.address)
    start = time.perf_counter()
    predict(model, path, out, where, **types)
    seconds = time.perf_counter() - start
    shutil.rmtree(out)
    return seconds


def main() -> None:
    parser = add_before(options(__doc__))
    parser.add_argument("--rows", type=int, default=10**7, help="rows (default 10 000 000)")
    arguments: argparse.Namespace = parse(parser)
    n_rows = 10**6 if arguments.small else arguments.rows
    rows, works = [], ("read", "em", "int64", "uint8")
    with scratch(arguments) as folder, trees(arguments) as made:
        for dtype in ("f4", "f8"):
            row_bytes = D * int(dtype[1:])
            points = Points(n_rows, D, CHUNK_BYTES // row_bytes, K, dtype=dtype)
            model = folder / f"{dtype}.npz"
            centers, _ = points.truth
            start = {"means_init": centers, "max_iter": 2, "algorithm": "em", "random_state": 0}
            GaussianMixture(K, **start).fit(points.piece(0)[:100_000]).save(model)
            with stored(points, folder) as source:
                path = str(Path(source.description))
                questions = {
                    (tree, work): {"path": path, "model": str(model), "work": work}
                    for work in works
                    for tree in made
                    if tree == "now" or work in ("em", "int64")
                }
                seconds = take_turns(made, questions, ROUNDS)
            for tree in made:
                found = {work: seconds.get((tree, work)) for work in works}
                rates = [f"{n_rows / s:,.0f}" if s else "" for s in found.values()]
                em = found["em"]
                shares = [
                    f"{em / s:.2f}" if em and s else "" for s in (found["int64"], found["uint8"])
                ]
                rows.append([dtype, tree, *rates, *shares])
                print(*rows[-1], flush=True)
    header = ["type", "tree", "read", "EM pass", "predict, int64", "predict, uint8"]
    publish(
        arguments,
        "Labels beside an EM pass",
        f"Rows a second, {n_rows:,} rows x {D}, K = {K} full, chunks of 16 MiB with crc32c, warm; "
        f"one worker of one thread; median of {ROUNDS}, in turn. `dask-em predict` to Zarr, from "
        "opening the model to the last file on the disk. Wanted: at least 0.8 of the EM pass.\n\n"
        f"{table([*header, 'int64 / EM', 'uint8 / EM'], rows)}",
    )


if __name__ == "__main__":
    if sys.argv[1:] == [SERVE]:
        with held:
            serve({"seconds": seconds_of})
    else:
        main()
