"""The power of the alarm of drift, and its false alarms: shares of sets, by shift and rows.

    python tests/benchmarks/alarm.py [--save] [--sets 200]

Each set has a fit of its own, to 4 000 rows of three normals in two columns, and rows of the same
in four parts of which one column moved in all, or a share of the rows changed its component.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from common import machine, save, table

# isort: split
import numpy as np

from dask_em import GaussianMixture
from dask_em.core.additive import Array
from dask_em.core.scoring import Predict
from dask_em.report.alarm import Baseline, drift_told
from dask_em.report.drift import ChunkDensities, Densities

CENTERS = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
SHARES = np.array([0.5, 0.3, 0.2])
FITTED, LEVEL = 4000, 0.01
ROWS = (500, 1000, 4000, 16_000)
MEANS, WEIGHTS, WIDTHS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4), (0.01, 0.02, 0.05, 0.1), (1.05, 1.1, 1.3)
SECTION = "Power of the alarm of drift"


def drawn(rng: np.random.Generator, n: int, shares: Array = SHARES, width: float = 1.0) -> Array:
    """Draw rows of the three normals."""
    of = rng.choice(len(CENTERS), n, p=shares)
    return np.asarray(width * rng.normal(size=(n, 2)) + CENTERS[of])


def parts_of(model: GaussianMixture, X: Array) -> ChunkDensities:
    """Return the densities of rows in four parts."""
    answer = Predict(model.state_.mixture, ("log_density", "proba"))
    fold = Densities(answer, 3, 2, False).fold()
    for number, rows in enumerate(np.array_split(X, 4)):
        fold.update(number, rows, None)
    return fold.result()


def power(make: Callable[[np.random.Generator, int], Array], n: int, sets: int) -> float:
    """Return the share of alarms."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(sets):
        model = GaussianMixture(3, means_init=CENTERS, algorithm="em").fit(drawn(rng, FITTED))
        told = drift_told(Baseline.of(model), parts_of(model, make(rng, n)), LEVEL)
        found += told["alarm"]
    return found / sets


def moved(shift: float) -> Callable[[np.random.Generator, int], Array]:
    def make(rng: np.random.Generator, n: int) -> Array:
        X = drawn(rng, n)
        return X + np.array([0.0, shift]) * X.std(axis=0)

    return make


def changed(share: float) -> Callable[[np.random.Generator, int], Array]:
    shares = SHARES + np.array([-share, 0.0, share])
    return lambda rng, n: drawn(rng, n, shares)


def widened(width: float) -> Callable[[np.random.Generator, int], Array]:
    return lambda rng, n: drawn(rng, n, width=width)


def main() -> None:
    """Measure, print, and save where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--sets", type=int, default=200)
    given = parser.parse_args()
    cases = [(f"a mean by {s:g} standard deviations", moved(s)) for s in MEANS]
    cases += [(f"{w:.0%} of the rows change component", changed(w)) for w in WEIGHTS]
    cases += [(f"components {w:g} times as wide", widened(w)) for w in WIDTHS]
    rows: list[list[object]] = [
        [name, *(f"{power(make, n, given.sets):.0%}" for n in ROWS)] for name, make in cases
    ]
    text = "\n\n".join([
        f"`python tests/benchmarks/alarm.py --save --sets {given.sets}`; {machine('numpy')}. Share "
        f"of alarms at the limit {LEVEL:g}, over sets with a fit of their own to {FITTED:,} rows "
        "of three normals in two columns, whose error counts too; rows in four parts. The first "
        "line is of false alarms.",
        table(["what moved", *(f"{n:,} rows" for n in ROWS)], rows),
    ])  # fmt: skip
    print(text)
    if given.save:
        save(SECTION, text)


if __name__ == "__main__":
    main()
