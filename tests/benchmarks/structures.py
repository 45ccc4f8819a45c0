"""The fourteen structures beside mclust's tables: which cells of K = 1..9 end below them.

    python tests/benchmarks/structures.py REFERENCES [NAME=ROWS.npy ...]

REFERENCES is the folder with mclust_bic_NAME.csv. iris comes with scikit-learn, diabetes with the
references; other tables are given as arrays of rows.
"""

from __future__ import annotations

import csv
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris

from dask_em import select
from dask_em.families.gaussian.structures import NAMES, is_nested

KS = range(1, 10)
# In all, of both what is told from mclust's, and of what is nested.
LEAST = 1e-2


def tables(folder: Path, given: list[str]) -> dict[str, np.ndarray]:
    """Return rows by the names of the tables."""
    found = {"iris": load_iris().data}
    diabetes = folder / "data" / "mclust_diabetes.csv"
    if diabetes.exists():
        found["diabetes"] = np.loadtxt(diabetes, delimiter=",", skiprows=1, usecols=(1, 2, 3))
    for word in given:
        name, _, path = word.partition("=")
        found[name] = np.load(path)
    return found


def known(path: Path) -> dict[tuple[int, str], float]:
    """Return mclust's BIC by K and structure, of cells that have one."""
    with path.open() as lines:
        rows = list(csv.DictReader(lines))
    cells = {(int(row[""]), kind): row[kind] for row in rows for kind in NAMES}
    return {cell: float(value) for cell, value in cells.items() if value != "NA"}


def compare(name: str, X: np.ndarray, theirs: dict[tuple[int, str], float]) -> None:
    """Print the cells below mclust's, and the larger models below one nested in them."""
    begun, n = time.perf_counter(), len(X)
    found = select(X, KS, "all", random_state=0, exhaustive=True, tol=1e-6, max_iter=1000)
    rows = {(row["n_components"], row["covariance_type"]): row for row in found.table}
    reached = {cell: n * row["log_likelihood"] for cell, row in rows.items()}
    gains = {
        cell: reached[cell] - (bic + rows[cell]["n_parameters"] * np.log(n)) / 2
        for cell, bic in theirs.items()
    }
    below = {cell: gain for cell, gain in gains.items() if gain < -LEAST}
    nested = [
        (k, inner, outer)
        for k in KS
        for inner in NAMES
        for outer in NAMES
        if is_nested(inner, outer) and reached[k, outer] < reached[k, inner] - LEAST
    ]
    print(
        f"{name}: {len(below)} of {len(gains)} cells below mclust's, {len(nested)} models below "
        f"one nested in them, {sum(gains.values()):.1f} nats above in all, "
        f"{time.perf_counter() - begun:.0f} s"
    )
    for (k, kind), gain in below.items():
        print(f"  K = {k} {kind}: {gain:.3f}, {rows[k, kind]['status']}")
    for k, inner, outer in nested:
        print(f"  K = {k} {outer} below {inner}: {reached[k, outer] - reached[k, inner]:.3f}")


def main() -> None:
    folder = Path(sys.argv[1])
    warnings.filterwarnings("ignore")
    for name, X in tables(folder, sys.argv[2:]).items():
        compare(name, X, known(folder / f"mclust_bic_{name}.csv"))


if __name__ == "__main__":
    main()
