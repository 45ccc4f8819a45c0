"""Mixtures of factor analyzers of very many columns, out of core on two workers of 2 GiB.

python tests/benchmarks/factor.py [--save] [--small] [--rows N] [--folder FOLDER]
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import table
from stores import (
    BLOCK_ROWS,
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

from dask_em.core.additive import Array
from dask_em.jobs.cluster import ClusterOptions, cluster_client

D, Q, K = 2000, 5, 8
CHUNK_BYTES = 8 * MIB
# Passes of EM that are timed; the first also opens the data in each worker.
PASSES = 4
# Multiply-adds of a row: products with d x k (q + 2) numbers, once for densities, once for sums.
PRODUCTS = 2 * D * K * (Q + 2)
# Rows of a product of the same shape.
PRODUCT_ROWS = 4096


@dataclass(frozen=True)
class Factors(Points):
    """Rows of clusters that have a few factors each, and noise that varies by column."""

    q: int = Q

    def piece(self, number: int) -> Array:
        """The rows of one piece."""
        start, stop = self.pieces[number]
        rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(number,)))
        centers, widths = (part.astype(self.dtype) for part in self.truth)
        of_all = np.random.default_rng([self.k, self.d, self.q])
        loadings = of_all.normal(size=(self.k, self.q, self.d)).astype(self.dtype)
        rows = np.empty((stop - start, self.d), dtype=self.dtype)
        for first in range(0, len(rows), BLOCK_ROWS):
            block = rows[first : first + BLOCK_ROWS]
            labels = rng.integers(0, self.k, len(block))
            rng.standard_normal(out=block, dtype=block.dtype)
            block *= widths[labels]
            block += centers[labels]
            factors = rng.standard_normal((len(block), self.q), dtype=block.dtype)
            for k in range(self.k):
                block[labels == k] += factors[labels == k] @ loadings[k]
        return rows


def products_a_second() -> float:
    """Multiply-adds a second of a plain product with as many columns as a pass has."""
    from dask_em.backends.blas import one_blas_thread

    rng = np.random.default_rng(0)
    X, right = rng.normal(size=(PRODUCT_ROWS, D)), rng.normal(size=(D, K * (Q + 2)))
    best = np.inf
    with one_blas_thread():
        for _ in range(5):
            begin = time.perf_counter()
            np.matmul(X, right)
            best = min(best, time.perf_counter() - begin)
    return X.shape[0] * right.size / best


def run(client: Any, folder: Path, points: Factors) -> str:
    """Write the rows, fit them; a table and a sentence."""
    # Here, because workers import this file and need no scikit-learn.
    from sklearn.exceptions import ConvergenceWarning

    from dask_em import FactorMixture

    processes = workers_and_driver(client)
    begin = time.perf_counter()
    with stored(points, folder, client) as source:
        written = time.perf_counter() - begin
        print(f"wrote {points.n_rows:,} rows in {written:.0f} s", flush=True)
        drop_page_cache(folder)
        model = FactorMixture(
            K, n_factors=Q, algorithm="em", init_params="k-means++", tol=0, max_iter=PASSES,
            random_state=0, verbose=1,
        )  # fmt: skip
        with warnings.catch_warnings(), Peaks(processes) as peaks:
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(source.array)
    if set(workers_and_driver(client).values()) != set(processes.values()):
        raise RuntimeError("a worker was restarted during the fit")
    limit = sum(client.run(products_a_second).values()) / PRODUCTS
    rows = []
    for record in model.history_:
        if record["phase"] in ("survey", "em"):
            speed = record["rows"] / record["seconds"]
            share = f"{speed / limit:.0%}" if record["phase"] == "em" else "-"
            seconds = f"{record['seconds']:.1f}"
            rows.append([record["phase"], record["number"], seconds, f"{speed:,.0f}", share])
    held = ", ".join(f"{name} {peak / MIB:.0f} MiB" for name, peak in peaks.bytes.items())
    words = (
        f"{points.n_rows:,} rows x {D} float32 ({points.nbytes / 1e9:.1f} GB, chunks of "
        f"{CHUNK_BYTES // MIB} MiB, crc32c), made by the workers in {written:.0f} s; K = {K}, "
        f"q = {Q}, UUU, plain EM on 2 workers of one thread and 2 GiB. Peak resident memory: "
        f"{held}. A pass at the limit takes {PRODUCTS:,} multiply-adds a row, which the workers "
        f"make of a plain product of {PRODUCT_ROWS} x {D} and {D} x {K * (Q + 2)} at a time at "
        f"{limit:,.0f} rows/s; rows that belong to one component take fewer for their sums."
    )
    header = ["pass", "number", "seconds", "rows/s", "of the products' limit"]
    return f"{words}\n\n{table(header, rows)}"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, help="rows (default 2 000 000, small 20 000)")
    arguments = parse(parser)
    n_rows = arguments.rows or (20_000 if arguments.small else 2_000_000)
    points = Factors(n_rows, D, CHUNK_BYTES // (4 * D), K, dtype="f4")
    with (
        scratch(arguments) as folder,
        cluster_client(ClusterOptions(workers=2, memory_limit="2GiB")) as client,
    ):
        text = run(client, folder, points)
    publish(arguments, "Factor analyzers of very many columns", text)


if __name__ == "__main__":
    main()
