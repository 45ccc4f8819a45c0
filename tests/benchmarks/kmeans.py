"""K-means of rows in Zarr: a pass beside the product that it cannot do without, and whole fits.

    python tests/benchmarks/kmeans.py [--save] [--small] [--threads N] [--case N] [--rows N]

A pass gives each row to its nearest centre and sums rows by cluster. Beside it stand the same pass
over rows that are in memory, the matrix product of the rows with the centres alone (what a pass
would take if nothing else took time), and reading alone. Whole fits, from the same rows and by as
many threads, stand beside scikit-learn's `KMeans` and `MiniBatchKMeans`, whose rows are in memory,
and, where they are installed, scikit-learn-intelex, faiss (25 iterations, all rows) and dask-ml,
which reads the same Zarr array. All take turns after a warm-up with some of the rows; the inertia
is of all rows at the centres that each ends with, by one pass of ours.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from common import alternate, table
from stores import Count, Points, Resident, options, parse, publish, scratch, stored

# isort: split
import dask
import numpy as np
import sklearn.cluster
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from dask_em import KMeans
from dask_em.backends.dask.backend import DaskBackend
from dask_em.core.additive import Array
from dask_em.core.executor import in_threads
from dask_em.core.mixture import Mixture
from dask_em.data.zarr.source import ZarrSource

CASES = ((10_000_000, 16, 50), (10_000_000, 64, 256))
CHUNK_BYTES = 8 * 2**20
# Rows of a product, as many as a block of ours may have.
PRODUCT_ROWS = 512
# Rows of MiniBatchKMeans at a time: by its default, 1024, it takes a quarter of an hour for 1e7.
BATCH = 2**15
# Rows of the fits that warm up.
WARM_UP = 20_000
SEED = 0


@dataclass
class Entry:
    """How a contestant did: seconds of each turn, and the inertia of the last."""

    seconds: list[float] = field(default_factory=list)
    inertia: float = np.nan
    note: str = ""


def points_of(n_rows: int, d: int, k: int) -> Points:
    """Float32 rows of k overlapping clusters, in whole chunks."""
    return Points.of_bytes(4 * n_rows * d, d, CHUNK_BYTES, k=k, dtype="f4")


def start_of(points: Points) -> Mixture:
    """The true centres, as a pass has them."""
    some = replace(points, n_rows=points.chunk_rows).piece(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(points.k, init=points.truth[0], max_iter=1, algorithm="lloyd").fit(some)
    return replace(model.state_.mixture, engine=model.engine(np.float32))


def products_only(points: Points, threads: int) -> None:
    """As many products as a pass takes, of rows in cache, by as many threads."""
    rng = np.random.default_rng(0)

    def share(number: int) -> None:
        rows = rng.normal(size=(PRODUCT_ROWS, points.d)).astype("f4")
        centers = points.truth[0].astype("f4")
        out = np.empty((points.k, PRODUCT_ROWS), "f4")
        for _ in range(points.n_rows // PRODUCT_ROWS // threads):
            np.matmul(centers, rows.T, out=out)

    in_threads(share, range(threads))


def cost_of_a_pass(points: Points, source: ZarrSource, rounds: int, threads: int) -> str:
    """Seconds of a pass and of its parts."""
    backend, mixture = DaskBackend(), start_of(points)
    resident = Resident(source.array)
    contestants: dict[str, Callable[[], object]] = {
        "products alone": partial(products_only, points, threads),
        "reading alone": partial(backend.map_reduce, source, Count()),
        "a pass, rows in memory": partial(backend.map_reduce, resident, mixture),
        "a pass, rows in Zarr": partial(backend.map_reduce, source, mixture),
    }
    with threadpool_limits(1):
        seconds = alternate(contestants, rounds)
    limit, flops = seconds["products alone"], 2.0 * points.n_rows * points.d * points.k
    rows = [
        [
            name,
            f"{s:.3f}",
            f"{1e9 * s / points.n_rows:.1f}",
            f"{flops / s / 1e9:.1f}",
            f"{limit / s:.0%}",
        ]
        for name, s in seconds.items()
    ]
    return table(["", "s", "ns a row", "GFLOP/s of the product", "of the product"], rows)


# -- whole fits --------------------------------------------------------------------------


def ours(path: Path | Array, points: Points, entry: Entry) -> Array:
    model = KMeans(points.k, random_state=SEED).fit(str(path) if isinstance(path, Path) else path)
    entry.note = (
        f"{model.n_reads_} reads, {model.n_sample_passes_:.1f} passes of work on the sample"
    )
    return np.asarray(model.cluster_centers_)


def scikit_learn(rows: Array, points: Points, entry: Entry) -> Array:
    model = sklearn.cluster.KMeans(points.k, random_state=SEED).fit(rows)
    entry.note = f"{model.n_iter_} iterations"
    return np.asarray(model.cluster_centers_)


def mini_batch(rows: Array, points: Points, entry: Entry) -> Array:
    model = sklearn.cluster.MiniBatchKMeans(points.k, batch_size=BATCH, random_state=SEED)
    model.fit(rows)
    entry.note = f"{model.n_steps_} steps of {BATCH:,} rows"
    return np.asarray(model.cluster_centers_)


def faiss_on_all(rows: Array, points: Points, entry: Entry) -> Array:
    import faiss

    most = len(rows) // points.k + 1
    model = faiss.Kmeans(points.d, points.k, niter=25, max_points_per_centroid=most, seed=SEED)
    model.train(rows)
    entry.note = "25 iterations"
    return np.asarray(model.centroids)


def intelex(rows: Array, points: Points, entry: Entry) -> Array:
    from sklearnex.cluster import KMeans as Accelerated

    model = Accelerated(points.k, random_state=SEED).fit(rows)
    entry.note = f"{model.n_iter_} iterations"
    return np.asarray(model.cluster_centers_)


def dask_ml(rows: Path | Array, points: Points, entry: Entry) -> Array:
    import dask.array as da
    from dask_ml.cluster import KMeans as OfDask

    lazy = da.from_zarr(str(rows)) if isinstance(rows, Path) else da.from_array(rows)
    model = OfDask(points.k, random_state=SEED).fit(lazy)
    entry.note = f"{model.n_iter_} iterations"
    return np.asarray(model.cluster_centers_)


Runner = Callable[[Path | Array, Points, Entry], Array]

# What each takes, the path of an array in Zarr or its rows in memory, and what it needs.
RUNNERS: dict[str, tuple[Runner, type, str]] = {
    "ours, from Zarr": (ours, Path, "zarr"),
    "scikit-learn KMeans": (scikit_learn, np.ndarray, "sklearn"),
    "scikit-learn MiniBatchKMeans": (mini_batch, np.ndarray, "sklearn"),
    "scikit-learn-intelex KMeans": (intelex, np.ndarray, "sklearnex"),
    "faiss": (faiss_on_all, np.ndarray, "faiss"),
    "dask-ml KMeans, from Zarr": (dask_ml, Path, "dask_ml"),
}


def inertia_of(source: ZarrSource, mixture: Mixture, centers: Array) -> float:
    """The inertia of all rows at some centres, by a pass in float64."""
    components = mixture.components
    moved = components.with_arrays({"centers": centers - vars(components)["origin"]})
    exact = replace(mixture, components=moved, engine=replace(mixture.engine, single=False))
    found = components.inertia(DaskBackend().map_reduce(source, exact).components)
    assert found is not None
    return found


def whole_fits(
    points: Points,
    source: ZarrSource,
    path: Path,
    rounds: int,
    threads: int,
    without: Sequence[str] = (),
) -> str:
    """Seconds and inertia of fits, in turn."""
    rows = np.asarray(source.array[:])
    runners = {
        name: (run, takes)
        for name, (run, takes, module) in RUNNERS.items()
        if find_spec(module) and module not in without
    }
    if find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(threads)
    mixture = start_of(points)
    entries = {name: Entry() for name in runners}
    for turn in range(rounds + 1):
        for name, (run, takes) in runners.items():
            entry = entries[name]
            given = path if takes is Path else rows
            with threadpool_limits(threads), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if not turn:
                    run(rows[:WARM_UP], points, entry)
                    continue
                began = time.perf_counter()
                centers = run(given, points, entry)
                took = time.perf_counter() - began
            entry.seconds.append(took)
            entry.inertia = inertia_of(source, mixture, centers.astype(np.float64))
            print(name, f"{took:.2f} s, inertia {entry.inertia:.7g}, {entry.note}", flush=True)
    least = min(entry.inertia for entry in entries.values())
    lines = [
        [
            name,
            f"{np.median(e.seconds):.2f}",
            f"{e.inertia:.7g}",
            f"{e.inertia / least - 1:+.3%}",
            e.note,
        ]
        for name, e in entries.items()
    ]
    return table(["", "s", "inertia", "above the least", ""], lines)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fits", type=int, default=1, help="turns of whole fits after a warm-up")
    parser.add_argument("--rows", type=int, help="fewer than there should be")
    parser.add_argument("--without", nargs="*", default=[], help="modules of peers left out")
    parser.add_argument("--case", type=int, choices=range(len(CASES)), help="one of them alone")
    arguments = parse(parser)
    shrink = 250 if arguments.small else 1
    parts = [f"Medians of {arguments.rounds}, alternating; one turn of fits by each."]
    cases = CASES if arguments.case is None else CASES[arguments.case : arguments.case + 1]
    with scratch(arguments) as folder, dask.config.set(
        scheduler="threads", num_workers=arguments.threads
    ):  # fmt: skip
        for n_rows, d, k in cases:
            points = points_of(arguments.rows or n_rows // shrink, d, k)
            with stored(points, folder) as source:
                path = next(folder.glob("points-*/points.zarr"))
                parts.append(f"### {points.n_rows:,} x {d} float32, K = {k}")
                parts.append(cost_of_a_pass(points, source, arguments.rounds, arguments.threads))
                fits, peers = arguments.fits, arguments.without
                parts.append(whole_fits(points, source, path, fits, arguments.threads, peers))
    many = "one thread" if arguments.threads == 1 else f"{arguments.threads} threads"
    one = "" if arguments.case is None else f", {cases[0][1]} columns"
    publish(arguments, f"K-means, {many}{one}", "\n\n".join(parts))


if __name__ == "__main__":
    main()
