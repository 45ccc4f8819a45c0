"""Components that Bayesian mixtures find, and their passes, beside scikit-learn's iterations.

python tests/benchmarks/bayesian.py [--save] [--rows N] [--most K] [--cases N]
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from common import machine, save, table
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture as SklearnBayesianGaussianMixture

from dask_em import BayesianGaussianMixture, GaussianMixture, select
from dask_em.core.moments import Moments
from dask_em.families.bayesian_gaussian.family import BayesianGaussian


@dataclass(frozen=True)
class Case:
    """Normal clusters of covariances of their own."""

    k: int
    d: int
    apart: float

    def rows(self, n: int, seed: int) -> np.ndarray:
        """Draw n rows."""
        rng = np.random.default_rng(seed)
        means = rng.normal(size=(self.k, self.d)) * self.apart
        roots = 0.5 * rng.normal(size=(self.k, self.d, self.d)) + np.eye(self.d)
        labels = rng.choice(self.k, n, p=rng.dirichlet(np.full(self.k, 3.0)))
        normal = rng.normal(size=(n, self.d))
        return np.asarray(means[labels] + np.einsum("nij,nj->ni", roots[labels], normal))


CASES = [
    Case(2, 2, 4.0), Case(3, 2, 3.0), Case(4, 3, 3.0), Case(5, 2, 4.0), Case(6, 4, 3.0),
    Case(3, 5, 2.5), Case(5, 2, 5.0), Case(7, 3, 4.0), Case(4, 8, 2.0), Case(8, 2, 6.0),
]  # fmt: skip


def bound_of(theirs: Any, X: np.ndarray) -> float:
    """Return the variational bound of scikit-learn's posterior, with all constants."""
    options = BayesianGaussianMixture(theirs.n_components).start_options()
    like = options.of_responsibilities(Moments.of(X), X, None)
    family = like.components
    assert isinstance(family, BayesianGaussian)
    covariance = family.covariance.from_precisions_cholesky(theirs.precisions_cholesky_)
    found = replace(
        family,
        means=family.whitening.whiten(theirs.means_),
        covariance=covariance.scaled(family.whitening.inverse_scale),
        counts=np.maximum(theirs.mean_precision_ - theirs.mean_precision_prior_, 0.0),
    )
    mixture = like.holding(found)
    fold = mixture.fold()
    fold.update(0, X, None)
    return float(mixture.objective(fold.result()) * len(X))


def main() -> None:
    """Print a row a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--most", type=int, default=12, help="components at most")
    parser.add_argument("--cases", type=int, default=len(CASES))
    parser.add_argument("--save", action="store_true", help="write the table to RESULTS.md")
    arguments = parser.parse_args()
    n, most = arguments.rows, arguments.most
    found = []
    for seed, case in enumerate(CASES[: arguments.cases]):
        X = case.rows(n, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            seconds = [time.perf_counter()]
            ours = BayesianGaussianMixture(most, random_state=0).fit(X)
            seconds.append(time.perf_counter())
            theirs = SklearnBayesianGaussianMixture(n_components=most, random_state=0, max_iter=500)
            theirs.fit(X)
            seconds.append(time.perf_counter())
            by_bic = select(X, range(1, most + 1), estimator=GaussianMixture, random_state=0)
        used = int((theirs.mean_precision_ - theirs.mean_precision_prior_ >= 1).sum())
        took = np.diff(seconds)
        iterations = f"{theirs.n_iter_}" if theirs.converged_ else f"> {theirs.n_iter_}"
        reads = f"{ours.n_reads_}" if ours.converged_ else f"> {ours.n_reads_}"
        found.append(
            [
                *(case.k, case.d, ours.n_components_used_, used, by_bic.best.n_components),
                *(reads, f"{ours.n_passes_:.1f}", iterations),
                *(f"{ours.lower_bound_ - bound_of(theirs, X):+.1f}", f"{took[1] / took[0]:.1f}"),
            ]
        )
    head = [
        *("clusters", "columns", "found", "scikit-learn", "BIC"),
        *("reads", "passes", "its iterations", "bound, nats more", "times as quick"),
    ]
    command = "--save" if n == parser.get_default("rows") else f"--save --rows {n}"
    text = (
        f"`python tests/benchmarks/bayesian.py {command}`; "
        f"{machine('numpy', 'scikit-learn')}.\n\n"
        f"Components with a row or more, of {most} there may be, in {n:,} rows; beside them the "
        "choice of a sweep of Gaussian mixtures by BIC. Reads of the data, and passes with the "
        "work on the sample; the bound beside that of scikit-learn's posterior, with all "
        "constants; seconds of single runs.\n\n" + table(head, found)
    )
    print(text)
    if arguments.save:
        save("Components of Bayesian mixtures", text)


if __name__ == "__main__":
    main()
