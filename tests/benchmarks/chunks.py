"""What a chunk costs, beside a pass written by hand with `dask.array.map_blocks`.

python tests/benchmarks/chunks.py [--save] [--small] [--folder FOLDER]
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from common import alternate, table
from stores import MIB, Peaks, Points, options, parse, publish, scratch, stored, workers_and_driver

# isort: split
import dask.array as da
import numpy as np
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning

from dask_em import GaussianMixture
from dask_em.backends.dask.backend import DaskBackend
from dask_em.core.additive import Array
from dask_em.core.mixture import Mixture
from dask_em.data.zarr.source import ZarrSource
from dask_em.jobs.cluster import ClusterOptions, cluster_client

N_ROWS, D, K = 640_000, 8, 8
FEW, MANY = 64, 6_400
TINY, TINY_ROWS = 100_000, 20
ROUNDS = 3


# -- as a user would write it ----------------------------------------------------------


def chunk_sums(X: Array, log_weights: Array, means: Array, factors: Array) -> Array:
    """Sums of r, r x and r x x^T of one chunk, (1, k, 1 + d + d^2)."""
    d = X.shape[1]
    log_joint = np.empty((len(X), len(means)))
    for j, (mean, factor) in enumerate(zip(means, factors, strict=True)):
        y = (X - mean) @ factor
        constant = log_weights[j] + np.log(np.diag(factor)).sum() - d / 2 * np.log(2 * np.pi)
        log_joint[:, j] = constant - (y**2).sum(axis=1) / 2
    resp = np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True))
    scatter = [(X * r[:, None]).T @ X for r in resp.T]
    parts = [resp.sum(axis=0)[:, None], resp.T @ X, np.reshape(scatter, (len(means), d * d))]
    return np.concatenate(parts, axis=1)[None]


def pass_by_hand(stored_rows: Any, log_weights: Array, means: Array, factors: Array) -> Array:
    """Sums of all rows, (k, 1 + d + d^2): one task a chunk and a tree."""
    X = da.from_zarr(stored_rows)
    k, d = means.shape
    sums = da.map_blocks(
        chunk_sums,
        X,
        log_weights,
        means,
        factors,
        chunks=((1,) * X.numblocks[0], (k,), (1 + d + d * d,)),
        new_axis=2,
        dtype=float,
        meta=np.empty((0, 0, 0)),
    )
    return np.asarray(sums.sum(axis=0, split_every=8).compute())


# -- measurement -----------------------------------------------------------------------


def parameters(mixture: Mixture) -> tuple[Array, Array, Array]:
    """Log-weights, means, and Cholesky factors of the precisions, in units of the data."""
    means, covariance = mixture.components.data_coordinates()
    return mixture.log_weights, means, np.linalg.cholesky(covariance.precisions)


def cost_of_chunks(client: Any, folder: Path, few: int, many: int) -> str:
    """Seconds of a pass over the same rows in few chunks and in many, both ways."""
    layouts = {n: Points(N_ROWS, D, N_ROWS // n, K, piece_rows=N_ROWS // few) for n in (few, many)}
    mixture = layouts[few].mixture()
    given = parameters(mixture)
    with (
        stored(layouts[few], folder, client) as source_few,
        stored(layouts[many], folder, client) as source_many,
    ):
        sources = {few: source_few, many: source_many}
        same_sums(sources, mixture)
        contestants: dict[str, Callable[[], object]] = {}
        for n, source in sources.items():
            contestants[f"ours {n}"] = partial(DaskBackend().map_reduce, source, mixture)
            contestants[f"by hand {n}"] = partial(pass_by_hand, source.array, *given)
        seconds = alternate(contestants, ROUNDS)
    rows = []
    for name in ("ours", "by hand"):
        a, b = seconds[f"{name} {few}"], seconds[f"{name} {many}"]
        rows.append([name, f"{a:.3f}", f"{b:.3f}", f"{1e6 * (b - a) / (many - few):,.0f}"])
        print(*rows[-1], flush=True)
    header = ["", f"{few:,} chunks, s", f"{many:,} chunks, s", "us an extra chunk"]
    return table(header, rows)


def same_sums(sources: dict[int, ZarrSource], mixture: Mixture) -> None:
    """Raise where the ways do not sum the same, for then their times mean nothing."""
    by_hand = pass_by_hand(sources[min(sources)].array, *parameters(mixture))
    for n, source in sources.items():
        resp_sum = DaskBackend().map_reduce(source, mixture).resp_sum
        if not np.allclose(resp_sum, by_hand[:, 0], rtol=1e-9):
            raise RuntimeError(f"{n} chunks: sums {resp_sum}, by hand {by_hand[:, 0]}")


def many_tiny(client: Any, folder: Path, n_chunks: int) -> str:
    """A fit of very many tiny chunks, and what the driver with the scheduler holds."""
    points = Points(n_chunks * TINY_ROWS, D, TINY_ROWS, K, piece_rows=500 * TINY_ROWS)
    start = time.perf_counter()
    with stored(points, folder, client) as source:
        written = time.perf_counter() - start
        model = GaussianMixture(K, random_state=0, max_iter=10)
        with Peaks(workers_and_driver(client)) as peaks, warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(source.array)
    passes = [r for r in model.history_ if r["phase"] == "em"]
    seconds = np.median([r["seconds"] for r in passes])
    workers = max(peaks.bytes[name] for name in peaks.bytes if name != "driver")
    row = [
        f"{n_chunks:,}",
        f"{points.n_rows:,}",
        f"{written:.0f}",
        f"{model.history_[0]['seconds']:.2f}",
        f"{seconds:.2f}",
        len(passes),
        model.status_.name.lower(),
        f"{peaks.bytes['driver'] / MIB:.0f}",
        f"{workers / MIB:.0f}",
    ]
    print(*row, flush=True)
    header = ["chunks", "rows", "writing, s", "survey, s", "EM pass, s", "EM passes", "ended"]
    return table([*header, "driver and scheduler, MiB", "a worker, MiB"], [row])


def main() -> None:
    arguments = parse(options(__doc__))
    shrink = 10 if arguments.small else 1
    with scratch(arguments) as folder, cluster_client(ClusterOptions(workers=2)) as client:
        # First, so that the driver has not grown before it is measured.
        tiny = many_tiny(client, folder, TINY // shrink)
        cost = cost_of_chunks(client, folder, FEW, MANY // shrink)
    publish(
        arguments,
        "What a chunk costs",
        f"Two workers of one thread. The same {N_ROWS:,} rows (d = {D}, float64, K = {K} full, "
        f"crc32c) in few chunks and in many, seconds of a pass, median of {ROUNDS}, alternating, "
        "beside `dask.array.map_blocks` and a tree of sums, one task a chunk (wanted: at most "
        f"150 us):\n\n{cost}\n\n"
        f"A fit of tiny chunks, peak resident memory (wanted: driver below 1,024 MiB):\n\n{tiny}",
    )


if __name__ == "__main__":
    main()
