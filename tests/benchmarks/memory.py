"""Peak memory of a worker beside the size of a chunk.

python tests/benchmarks/memory.py [--save] [--small] [--folder FOLDER]
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from common import table
from stores import MIB, Peaks, Points, options, parse, publish, resident, scratch, stored

# isort: split
from dask_em.core.additive import Array
from dask_em.core.mixture import Mixture
from dask_em.core.reading import fold_range
from dask_em.data.open import stored_source
from dask_em.data.zarr.source import ZarrSource

K, D = 8, 10
# MiB of a chunk, and chunks; each is measured again with twice the chunks.
CASES = [(8, 64), (32, 48), (128, 16)]
SMALL_CASES = [(8, 16), (32, 8)]
PASSES = 2
# What a worker may hold above its idle level.
ALLOWED_CHUNKS, AIM_CHUNKS, ALLOWED_MIB = 4, 3, 64


def get_ready(path: str, mixture: Mixture, X: Array) -> tuple[int, int]:
    """Resident bytes of a worker with its imports done and the store open, then warm.

    The first E-step, here of a few rows, loads what computes: BLAS, or compiled loops.
    """
    import dask_em.fitting.survey  # noqa: F401

    stored_source(path).reader()
    imported = resident(os.getpid())
    fold = mixture.fold()
    fold.update(0, X, None)
    fold.result()
    return imported, resident(os.getpid())


def sum_one_range(source: ZarrSource, mixture: Mixture, n_chunks: int) -> int:
    """The E-step over one range of several chunks, read ahead; the number of rows."""
    return fold_range(source, mixture.fold(), range(n_chunks), None).n_rows


def measure(chunk: int, n_chunks: int, folder: Path) -> dict[str, float]:
    """MiB that a fresh worker of one thread holds: imported, idle, and at most above idle."""
    # Here and in `fit`, because workers import this file and need no scikit-learn.
    from dask_em.jobs.cluster import ClusterOptions, cluster_client

    points = Points.of_bytes(n_chunks * chunk * MIB, D, chunk * MIB, k=K)
    with stored(points, folder) as source, cluster_client(ClusterOptions(workers=1)) as client:
        mixture, few = points.mixture(), source.array[:100]
        (pid,) = client.run(os.getpid).values()
        ((imported, idle),) = client.run(get_ready, source.description, mixture, few).values()
        with Peaks({"worker": pid}) as fitting:
            fit(source)
        # A range of the fit holds one chunk where chunks are large: nothing to read ahead.
        with Peaks({"worker": pid}) as ahead:
            client.submit(sum_one_range, source, mixture, min(8, n_chunks)).result()
        (same,) = client.run(os.getpid).values()
        spilled = sum(client.run(n_spilled).values())
    if same != pid or spilled:
        raise RuntimeError(f"the worker was {'restarted' if same != pid else 'made to spill'}")
    return {
        "imported": imported / MIB,
        "idle": idle / MIB,
        "fit": (fitting.bytes["worker"] - idle) / MIB,
        "ahead": (ahead.bytes["worker"] - idle) / MIB,
        "per range": n_chunks / len(source.ranges()),
    }


def fit(source: ZarrSource) -> None:
    """The survey and some passes."""
    from sklearn.exceptions import ConvergenceWarning

    from dask_em import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        GaussianMixture(K, random_state=0, max_iter=PASSES, tol=0).fit(source.array)


def n_spilled(dask_worker: Any) -> int:
    """Keys that the worker has written to disk."""
    return len(dask_worker.data.slow)


def main() -> None:
    arguments = parse(options(__doc__))
    rows = []
    with scratch(arguments) as folder:
        for chunk, n_chunks in SMALL_CASES if arguments.small else CASES:
            once = measure(chunk, n_chunks, folder)
            twice = measure(chunk, 2 * n_chunks, folder)
            allowed = ALLOWED_CHUNKS * chunk + ALLOWED_MIB
            peak = max(once["fit"], once["ahead"], twice["fit"], twice["ahead"])
            rows.append(
                [
                    chunk,
                    f"{n_chunks}, {2 * n_chunks}",
                    f"{once['per range']:.1f}, {twice['per range']:.1f}",
                    f"{once['imported']:.0f}",
                    f"{once['idle']:.0f}",
                    f"{once['fit']:.0f}, {twice['fit']:.0f}",
                    f"{once['ahead']:.0f}, {twice['ahead']:.0f}",
                    AIM_CHUNKS * chunk + ALLOWED_MIB,
                    allowed,
                    "yes" if peak <= allowed else "no",
                ]
            )
            print(*rows[-1], flush=True)
    header = ["chunk, MiB", "chunks", "chunks a range", "imported", "idle", "fit"]
    text = table([*header, "range of 8", "3 chunks + 64", "4 chunks + 64", "kept"], rows)
    publish(
        arguments,
        "Memory of a worker",
        "MiB of a fresh worker process with one thread: imports done and store opened, then idle "
        "after a first E-step of 100 rows, which loads what computes; and the peak above idle "
        f"during a fit (survey and {PASSES} EM passes; K = {K} full, d = {D}, "
        "float64, crc32c) and during one range of 8 chunks, for some chunks and for twice as "
        f"many.\n\n{text}",
    )


if __name__ == "__main__":
    main()
