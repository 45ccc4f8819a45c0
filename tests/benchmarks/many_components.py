"""Many components: what is gained by those that do not count for a row, beside other libraries.

    python tests/benchmarks/many_components.py [--save] [--small] [--before PATH] [--parts ...]
        [--peers ...]

Three parts. `mixtures`: an EM iteration of components of one shape, each contestant a process of
its own as in `peers.py`; "all" is the same kernel told to leave no component out, "before" that of
an earlier tree. `unlike`: an E-step of components of unlike shapes, with and without leaving out.
`centers`: an iteration of K-means from given centres, beside faiss and scikit-learn where they are
installed. One thread, in memory, alternating, medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from common import alternate, machine, save, table

# isort: split
import numpy as np
from cases import clusters
from peers.child import Child, ChildError
from peers.environments import DEFAULT, InstallError, python_of
from peers.worker import Case
from threadpoolctl import threadpool_limits

from dask_em.core.engine import Engine
from dask_em.core.mixture import Mixture
from dask_em.core.tuning import Tuning, tuning, use_tuning
from dask_em.families.centers.family import Centers
from dask_em.families.gaussian.constraints import CONSTRAINTS
from dask_em.families.gaussian.family import Gaussian
from dask_em.families.gaussian.whitening import Whitening

CASES = [
    Case(100_000, 32, 256, 3.0, "full"),
    Case(50_000, 32, 256, 1.0, "full"),
    Case(100_000, 16, 64, 3.0, "full"),
    Case(500_000, 8, 8, 1.0, "full"),
    Case(50_000, 40, 2048, 3.0, "diag"),
    Case(25_000, 40, 2048, 1.0, "diag"),
]
# Rows, columns, components, distance of the means in columns of all rows, structure.
UNLIKE = [
    (60_000, 32, 256, 3.0, "full"),
    (60_000, 32, 256, 1.0, "full"),
    (60_000, 32, 256, 0.3, "full"),
    (30_000, 64, 512, 1.0, "full"),
    (60_000, 40, 2048, 1.0, "diag"),
]
CENTERS = [
    (200_000, 64, 1024, 3.0, "float32"),
    (200_000, 64, 1024, 1.0, "float32"),
    (200_000, 64, 1024, 3.0, "float64"),
    (200_000, 64, 1024, 1.0, "float64"),
]
PEERS = {
    "ours": ("ours", ["ours", "float64", "fast"]),
    "all": ("ours", ["ours", "float64", "all"]),
    "before": ("ours", ["ours", "float64", "fast"]),
    "scikit-learn": ("scikit-learn", ["scikit_learn", "float64"]),
    "oneDAL": ("oneDAL", ["onedal", "float64"]),
}
FAST = Engine("numba")


def without() -> Tuning:
    """All components are computed."""
    never = {"least_components": sys.maxsize}
    return tuning().with_changes(candidates=never, center_candidates=never)


# -- EM iterations, beside others ------------------------------------------------------


class Contestant:
    """One library in a process of its own, until it fails."""

    def __init__(self, name: str, limit: float, before: Path | None) -> None:
        self.name, self.seconds, self.note = name, list[float](), ""
        self._limit, self._tree = limit, before if name == "before" else None
        self._child: Child | None = None

    def load(self, case: Case) -> None:
        """Take the rows of a case."""
        self.seconds, self.note = [], ""
        peer, arguments = PEERS[self.name]
        try:
            if self._child is None or not self._child.alive:
                self._child = Child(python_of(peer, DEFAULT), arguments, self._limit, self._tree)
            self._child.ask(load=asdict(case))
        except (ChildError, InstallError) as error:
            self.note = str(error)

    def turn(self) -> None:
        """Time an iteration: half of what three take more than one."""
        if self.note or self._child is None:
            return
        try:
            one, three = (self._child.ask(run=n)["seconds"] for n in (1, 3))
            self.seconds.append((three - one) / 2)
        except ChildError as error:
            self.note = str(error)

    def stop(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.stop()


def mixtures(rounds: int, shrink: int, peers: Sequence[str], before: Path | None) -> str:
    """Seconds of an EM iteration of each contestant, and their ratios to ours."""
    taking_part = [name for name in peers if before or name != "before"]
    contestants = [Contestant(name, 1800.0, before) for name in taking_part]
    rows, notes = [], []
    try:
        for case in (replace(c, n=max(c.n // shrink, 20 * c.k)) for c in CASES):
            for one in contestants:
                one.load(case)
            for _ in range(rounds + 1):
                for one in contestants:
                    one.turn()
            medians = {
                one.name: statistics.median(one.seconds[1:]) if one.seconds[1:] else np.nan
                for one in contestants
            }
            notes += [f"{case.name}, {one.name}: {one.note}" for one in contestants if one.note]
            ours = medians["ours"]
            cells = [f"{s:.3f} s, x{s / ours:.2f}" for s in medians.values()]
            rows.append([f"{case.n:,}, {case.d}, {case.k}", case.kind, case.sep, *cells])
            print(*rows[-1], flush=True)
    finally:
        for one in contestants:
            one.stop()
    header = ["n, d, K", "covariance", "means apart, widths", *taking_part]
    return "\n\n".join([table(header, rows), *notes])


# -- components of unlike shapes -------------------------------------------------------


def unlike_mixture(n: int, d: int, k: int, apart: float, kind: str) -> tuple[Mixture, np.ndarray]:
    """Rows of components of unlike shapes, and the mixture after one M-step of their labels."""
    rows, labels = clusters(n, k, d, apart, 0)
    structure = CONSTRAINTS[kind].storage
    whitening = Whitening.of_moments(
        rows.mean(0), np.cov(rows.T, bias=True), structure.whitening_kind
    )
    covariance = structure.of_data(np.eye(d), k)
    start = Mixture(np.full(k, -np.log(k)), Gaussian(np.zeros((k, d)), covariance, whitening, 1e-6))
    resp = np.zeros((n, k))
    resp[np.arange(n), labels] = 1.0
    return replace(start.of_responsibilities(rows, resp), engine=FAST), rows


def a_pass(mixture: Mixture, rows: np.ndarray, constants: Tuning) -> None:
    """One E-step with its sums."""
    with use_tuning(constants):
        fold = mixture.fold()
        fold.update(0, rows, None)
        fold.result()


def unlike(rounds: int, shrink: int) -> str:
    """Seconds of an E-step, with and without leaving out."""
    rows = []
    for n, d, k, apart, kind in UNLIKE:
        mixture, X = unlike_mixture(max(n // shrink, 20 * k), d, k, apart, kind)
        seconds = alternate(
            {
                "ours": partial(a_pass, mixture, X, tuning()),
                "all": partial(a_pass, mixture, X, without()),
            },
            rounds,
        )
        ratio = seconds["all"] / seconds["ours"]
        cells = [f"{s:.3f} s" for s in seconds.values()]
        rows.append([f"{len(X):,}, {d}, {k}", kind, apart, *cells, f"x{ratio:.2f}"])
        print(*rows[-1], flush=True)
    return table(["n, d, K", "covariance", "means apart", "ours", "all", "all / ours"], rows)


# -- K-means -----------------------------------------------------------------------------


def faiss_iteration(rows: np.ndarray, centers: np.ndarray) -> Callable[[], object]:
    """One assignment of all rows by an exact index, and the sums by label."""
    import faiss

    faiss.omp_set_num_threads(1)
    single = rows.astype(np.float32)

    def run() -> object:
        index = faiss.IndexFlatL2(centers.shape[1])
        index.add(centers.astype(np.float32))
        _, labels = index.search(single, 1)
        sums = np.zeros_like(centers)
        np.add.at(sums, labels[:, 0], single)
        return sums

    return run


def scikit_learn_iteration(rows: np.ndarray, centers: np.ndarray) -> Callable[[], object]:
    """One iteration of Lloyd's algorithm: what two take more than one."""
    from sklearn.cluster import KMeans

    def run() -> object:
        model = KMeans(len(centers), init=centers.astype(rows.dtype), n_init=1, max_iter=1, tol=0.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model.fit(rows)

    return run


def centers(rounds: int, shrink: int) -> str:
    """Seconds of an iteration of K-means."""
    found = []
    for n, d, k, apart, dtype in CENTERS:
        rng = np.random.default_rng(0)
        truth = rng.normal(size=(k, d)) * apart
        X = truth[rng.integers(0, k, n // shrink)]
        X = (X + rng.normal(size=X.shape)).astype(dtype)
        engine = replace(FAST, single=dtype == "float32")
        family = Centers(truth, X.mean(axis=0, dtype=np.float64), 1.0)
        family = family.with_arrays({"centers": truth - family.origin})
        mixture = Mixture(np.full(k, -np.log(k)), family, engine, "hard")
        contestants: dict[str, Callable[[], object]] = {
            "ours": partial(a_pass, mixture, X, tuning()),
            "all": partial(a_pass, mixture, X, without()),
            "scikit-learn (fit of one iteration)": scikit_learn_iteration(X, truth),
        }
        if find_spec("faiss"):
            contestants["faiss (exact search, sums by NumPy)"] = faiss_iteration(X, truth)
        with threadpool_limits(1):
            seconds = alternate(contestants, rounds)
        ours = seconds["ours"]
        lines = "; ".join(f"{name} {s:.3f} s, x{s / ours:.2f}" for name, s in seconds.items())
        found.append([f"{len(X):,}, {d}, {k}", dtype, apart, lines])
        print(*found[-1], flush=True)
    return table(["n, d, K", "type", "centres apart, widths", "seconds, and those of ours"], found)


PARTS: dict[str, str] = {
    "mixtures": "An EM iteration of components of one shape, float64",
    "unlike": "An E-step of components of unlike shapes, float64",
    "centers": "An iteration of K-means",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--save", action="store_true", help="write the tables into RESULTS.md")
    parser.add_argument("--small", action="store_true", help="a tenth of the rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--before", type=Path, metavar="PATH", help="a tree of an earlier commit")
    options = parser.parse_args()
    shrink = 10 if options.small else 1
    texts = []
    began = time.perf_counter()
    for part in options.parts:
        if part == "mixtures":
            text = mixtures(options.rounds, shrink, options.peers, options.before)
        else:
            text = (unlike if part == "unlike" else centers)(options.rounds, shrink)
        texts.append(f"### {PARTS[part]}\n\n{text}")
    found = machine("numpy", "numba", "scikit-learn", "faiss-cpu")
    head = (
        f"`python tests/benchmarks/{Path(__file__).name}`; {found}. One thread, in memory, "
        f"alternating, medians of {options.rounds}; {time.perf_counter() - began:.0f} s in all. "
        "*all* is the same kernel told to leave no component out, *before* that of the commit "
        "before it could. Of 2,048 components scikit-learn makes several arrays of rows x "
        "components anew in each fit, and what their pages cost differs by more than an iteration "
        "takes: its cells there tell nothing."
    )
    text = "\n\n".join([head, *texts])
    print("\n" + text)
    if options.save:
        save("Many components", text)


if __name__ == "__main__":
    main()
