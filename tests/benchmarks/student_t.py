"""Passes of a mixture of Student's t to its optimum, beside plain EM from the same start.

python tests/benchmarks/student_t.py [--save] [--rows N]
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from common import machine, save, table
from sklearn.exceptions import ConvergenceWarning

from dask_em import StudentTMixture
from dask_em.core.em import Convergence, PlainEM, run_algorithm
from dask_em.core.mixture import Mixture
from dask_em.core.parts import MixtureStatistics

NEAR = 1e-4
MOST = 300


@dataclass(frozen=True)
class Case:
    """Clusters of t distributions, some rows of which are outliers."""

    name: str
    k: int
    d: int
    df: tuple[float, ...]
    apart: float
    outliers: float = 0.0

    def rows(self, n: int) -> np.ndarray:
        """Draw n rows."""
        rng = np.random.default_rng(0)
        labels = rng.integers(0, self.k, n)
        df = np.resize(self.df, self.k)[labels]
        normal = rng.normal(size=(n, self.d)) * np.linspace(1, 2, self.d)
        X = normal / np.sqrt(rng.gamma(df / 2, 2 / df))[:, None]
        X += (self.apart * rng.normal(size=(self.k, self.d)))[labels]
        far = rng.random(n) < self.outliers
        X[far] = rng.uniform(-100, 100, (int(far.sum()), self.d))
        return X


CASES = [
    Case("tails of 3, apart", 4, 4, (3.0,), 6.0),
    Case("tails of 2 to 30, overlapping", 5, 3, (2.0, 5.0, 30.0), 2.5),
    Case("normal with 3 % outliers", 4, 2, (1e9,), 5.0, 0.03),
    Case("one heavy of eight, d = 10", 8, 10, (50.0, 2.5), 2.5),
    Case("two, nearly one", 2, 2, (4.0,), 1.2),
]


def summed(mixture: Mixture, X: np.ndarray) -> MixtureStatistics:
    """Return the sums of a pass."""
    fold = mixture.fold()
    fold.update(0, X, None)
    return fold.result()


def passes_of(states: Any, enough: float) -> int | None:
    """Return the number of the first state that reaches `enough`."""
    return next((i for i, s in enumerate(states, 1) if s.log_likelihood >= enough), None)


def main() -> None:
    """Print a row a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--save", action="store_true", help="write the table to RESULTS.md")
    arguments = parser.parse_args()
    n = arguments.rows
    found = []
    reads = []
    for case in CASES:
        X = case.rows(n)
        states: list[Any] = []
        options = {"random_state": 0, "tol": 1e-7, "max_iter": 60}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = StudentTMixture(case.k, callbacks=[states.append], **options).fit(X)
        start = states[0].mixture
        limits = Convergence(tol=0.0, max_iter=MOST)
        plain = list(run_algorithm(lambda m, X=X: summed(m, X), PlainEM(start, limits)))
        # Where all k-means of a start see are distances, and nothing was fitted to a sample.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            cold = StudentTMixture(case.k, init_params="kmeans", max_iter=0, random_state=0).fit(X)
        begun = replace(cold.state_.result, engine=start.engine)
        from_kmeans = list(run_algorithm(lambda m, X=X: summed(m, X), PlainEM(begun, limits)))
        limit = max(s.log_likelihood for s in [*states, *plain, *from_kmeans])
        counts = [passes_of(s, limit - NEAR) for s in (states, plain, from_kmeans)]
        # The survey reads the data, too.
        reads.append(MOST if counts[0] is None else counts[0] + 1)
        df = " ".join(f"{v:.3g}" for v in np.sort(model.df_))
        shown = [f"> {MOST}" if c is None else str(c + 1) for c in counts]
        found.append([case.name, *shown, f"{limit - states[-1].log_likelihood:.1e}", df])
    head = ["case", "reads, auto", "plain EM, same start", "plain EM, k-means", "left", "df"]
    text = (
        f"`python tests/benchmarks/student_t.py --save`; {machine('numpy', 'scipy')}.\n\nReads of "
        f"{n:,} rows, the survey counted, to within {NEAR:g} nats per row of the best limit that "
        f"any of the three found; the median of ours is {statistics.median(reads):g}.\n\n"
        + table(head, found)
    )
    print(text)
    if arguments.save:
        save("Passes of mixtures of Student's t", text)


if __name__ == "__main__":
    main()
