"""Passes to the optimum of mixtures of each family, beside plain EM.

python tests/benchmarks/families.py [--save] [--small] [--families "poisson,gamma"]

A family joins by its cases in CASES: a name, K, rows, and what makes the estimator.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from common import machine, save, table

# isort: split
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from dask_em import (
    BernoulliMixture,
    CategoricalMixture,
    ExponentialMixture,
    GammaMixture,
    MixedMixture,
    MultinomialMixture,
    PoissonMixture,
)
from dask_em.backends.blas import one_blas_thread
from dask_em.core.em import Convergence, EMState, PlainEM, run_algorithm
from dask_em.core.engine import NUMPY
from dask_em.core.mixture import Mixture
from dask_em.core.parts import MixtureStatistics
from dask_em.fitting.control_variate import ControlVariateEM

# Nats per row from the optimum at which passes are counted.
NEAR = (1e-3,)
# A restart goes to the optimum where it ends so near it.
SAME = 1e-5
# Where plain EM is given up.
MOST_PASSES = 300
# The best of the restarts goes on until so much is estimated to be left.
LIMIT = Convergence(1e-8, 1000, window=20)

Rows = Callable[[int, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Case:
    """Rows that suit a family, and how many components are fitted."""

    name: str
    k: int
    rows: Rows
    estimator: Callable[..., Any]


# -- rows ------------------------------------------------------------------------------


def labels(n: int, k: int, rng: np.random.Generator, zipf: bool = False) -> np.ndarray:
    """Components of n rows, equally many or by Zipf's law."""
    weights = 1 / np.arange(1, k + 1) if zipf else np.ones(k)
    return rng.choice(k, n, p=weights / weights.sum())


def death_notices(n: int, rng: np.random.Generator) -> np.ndarray:
    """Days by deaths of women over 80 in The Times (Hasselblad 1969), as often as it takes."""
    days = np.repeat(np.arange(10), [162, 267, 271, 185, 111, 61, 27, 8, 3, 1])[:, None]
    return rng.permutation(np.tile(days, (max(1, n // len(days)), 1))).astype(np.uint8)


def customers(n: int, rng: np.random.Generator) -> np.ndarray:
    """Orders, returns and complaints."""
    orders = rng.poisson(np.where(rng.random(n) < 0.5, 2, 8))
    return np.column_stack([orders, rng.binomial(orders, 0.1), rng.poisson(0.4, n)]).astype("u2")


def poisson(k: int, d: int, rate: float, zipf: bool, n: int, rng: np.random.Generator) -> Any:
    """Rates that vary by a factor of two or so."""
    rates = rate * rng.gamma(3.0, 1 / 3, (k, d))
    return rng.poisson(rates[labels(n, k, rng, zipf)]).astype(np.uint16)


def multinomial(k: int, d: int, total: int, zipf: bool, n: int, rng: np.random.Generator) -> Any:
    """Shares that differ as draws of a Dirichlet distribution do."""
    shares = rng.dirichlet(np.full(d, 1.0), k)
    return rng.multinomial(rng.poisson(total, n), shares[labels(n, k, rng, zipf)]).astype("u2")


def exponential(k: int, d: int, spread: float, zipf: bool, n: int, rng: Any) -> np.ndarray:
    """Scales whose logarithms have a standard deviation."""
    scales = np.exp(spread * rng.normal(size=(k, d)))
    found: np.ndarray = rng.exponential(scales[labels(n, k, rng, zipf)])
    return found


def gamma(k: int, d: int, spread: float, zipf: bool, n: int, rng: Any) -> np.ndarray:
    """Means as those, and shapes from 1 to 30 or so."""
    means, shapes = np.exp(spread * rng.normal(size=(k, d))), np.exp(rng.uniform(0, 3.4, (k, d)))
    of = labels(n, k, rng, zipf)
    found: np.ndarray = rng.gamma(shapes[of], (means / shapes)[of])
    return np.maximum(found, 1e-300)


def answers(k: int, d: int, most: int, zipf: bool, n: int, rng: np.random.Generator) -> np.ndarray:
    """Items of so many answers each, whose probabilities are draws of a Dirichlet distribution."""
    return answers_of(labels(n, k, rng, zipf), rng.dirichlet(np.ones(most), (k, d)), rng)


def answers_of(of: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Answers of rows of these components, by the probabilities (k, d, most)."""
    # An answer is where a uniform number falls among the cumulated probabilities.
    drawn, steps = rng.random((len(of), shares.shape[1])), shares.cumsum(axis=2)
    found = np.zeros(drawn.shape, np.uint8)
    for j in range(shares.shape[2] - 1):
        found += drawn > steps[of, :, j]
    return found


def mixed(k: int, d: int, apart: float, zipf: bool, n: int, rng: np.random.Generator) -> np.ndarray:
    """As many columns of each group: numbers, answers of three, counts."""
    of = labels(n, k, rng, zipf)
    numbers = apart * rng.normal(size=(k, d))[of] + rng.normal(size=(n, d))
    counts = rng.poisson((3.0 * rng.gamma(3.0, 1 / 3, (k, d)))[of])
    said = answers_of(of, rng.dirichlet(np.ones(3), (k, d)), rng)
    return np.column_stack([numbers, said, counts])


def table_of(d: int) -> Callable[..., MixedMixture]:
    """The estimator of such rows."""
    groups = {"gaussian": range(d), "categorical": range(d, 2 * d), "poisson": range(2 * d, 3 * d)}
    return partial(MixedMixture, columns={name: [*where] for name, where in groups.items()})


def of(kind: Any, make: Callable[..., Any], *shapes: tuple[Any, ...]) -> list[Case]:
    """Cases of k, d, how far components are apart, and whether their weights differ."""
    return [
        Case(f"d = {d}, {size:g}{', Zipf' * zipf}", k, partial(make, k, d, size, zipf), kind)
        for k, d, size, zipf in shapes
    ]


CASES: dict[str, list[Case]] = {
    "poisson": [
        Case("death notices", 2, death_notices, PoissonMixture),
        Case("customers", 4, customers, PoissonMixture),
        *of(PoissonMixture, poisson, (4, 3, 3.0, False), (8, 30, 1.0, False), (8, 6, 8.0, True)),
    ],
    "multinomial": of(
        MultinomialMixture, multinomial,
        (3, 5, 8, False), (5, 20, 30, False), (8, 15, 12, True), (4, 8, 5, False),
    ),
    "exponential": of(
        ExponentialMixture, exponential,
        (2, 1, 1.5, False), (3, 3, 1.0, False), (5, 6, 1.0, True), (4, 4, 0.7, False),
    ),
    "gamma": of(
        GammaMixture, gamma,
        (2, 1, 1.0, False), (4, 3, 0.5, False), (6, 4, 0.5, True), (3, 2, 0.4, False),
    ),
    "bernoulli": of(
        BernoulliMixture, answers,
        (2, 7, 2, False), (4, 12, 2, False), (6, 20, 2, True), (8, 30, 2, False),
    ),
    "categorical": of(
        CategoricalMixture, answers,
        (2, 5, 3, False), (4, 10, 5, False), (5, 12, 4, True), (8, 20, 5, False),
    ),
    "mixed": [
        Case(case.name, case.k, case.rows, table_of(d))
        for k, d, apart, zipf in (
            (2, 1, 1.0, False), (3, 2, 1.5, False), (5, 2, 2.0, True), (6, 3, 2.0, False),
        )
        for case in of(None, mixed, (k, d, apart, zipf))
    ],
}  # fmt: skip


# -- contestants -------------------------------------------------------------------------


def accumulator(rows: np.ndarray) -> Callable[[Mixture], MixtureStatistics]:
    """The pass over rows in memory."""

    def accumulate(mixture: Mixture) -> MixtureStatistics:
        fold = mixture.fold()
        fold.update(0, rows, None)
        return fold.result()

    return accumulate


def limit_from(rows: np.ndarray, start: Mixture) -> float:
    """Mean log-likelihood where the ascent from `start` ends, in nats per row."""
    here = replace(start, engine=NUMPY)
    *_, last = run_algorithm(accumulator(rows), ControlVariateEM(here, LIMIT))
    return last.log_likelihood


def plain(rows: np.ndarray, start: Mixture, enough: Sequence[float]) -> list[int]:
    """Passes of plain EM to each of some heights."""
    left, found = list(enough), [MOST_PASSES + 1] * len(enough)
    limits = Convergence(0.0, MOST_PASSES)
    for state in run_algorithm(accumulator(rows), PlainEM(start, limits)):
        for i, height in enumerate(left):
            if state.log_likelihood >= height:
                found[i] = min(found[i], state.n_iter)
        if max(found) <= MOST_PASSES:
            break
    return found


@dataclass(frozen=True)
class Compared:
    """One row of the table: reads to each of NEAR, the survey's among them."""

    ours: list[int]
    from_there: list[int]
    from_random: list[int]
    rose: bool
    cells: list[str]

    @classmethod
    def of(cls, family: str, case: Case, n: int, restarts: int) -> Compared:
        rows = case.rows(n, np.random.default_rng(3))
        states: list[EMState] = []
        model = case.estimator(case.k, random_state=0, callbacks=[states.append]).fit(rows)
        # Another fit goes on from where that one ends, and others begin at random rows.
        others = [
            case.estimator(
                case.k, random_state=seed, init_params="random_from_data", max_iter=0
            ).fit(rows).state_.result
            for seed in range(restarts)
        ]  # fmt: skip
        limits = [limit_from(rows, start) for start in (model.state_.result, *others)]
        optimum = max(limits)
        heights = [s.log_likelihood for s in states if s.accepted]
        ours = [
            next((s.n_iter for s in states if s.log_likelihood >= optimum - near), MOST_PASSES + 1)
            for near in NEAR
        ]
        enough = [optimum - near for near in NEAR]
        start = replace(states[0].mixture, engine=NUMPY)
        there = plain(rows, start, enough)
        # Of the restarts that go there at all, the first.
        good = [o for o, end in zip(others, limits[1:], strict=True) if end > optimum - SAME]
        random = (
            plain(rows, replace(good[0], engine=NUMPY), enough) if good else [10**9] * len(NEAR)
        )
        shape = f"{len(rows):,} x {rows.shape[1]}, K = {case.k}"
        columns = zip(ours, there, random, strict=True)
        cells = [
            family, case.name, shape,
            *(shown(passes) for each in columns for passes in each),
            f"{model.n_sample_passes_:.1f}", f"{1 + model.n_iter_}",
            f"{model.lower_bound_ - optimum:+.0e}",
        ]  # fmt: skip
        rose = bool((np.diff(heights) >= 0).all())
        return cls(*([1 + n for n in each] for each in (ours, there, random)), rose, cells)


HEADER = [
    "family", "case", "rows",
    *(f"{who}, {near:g}" for near in NEAR for who in ("ours", "plain EM", "plain EM, random rows")),
    "sample's share", "to its end", "end - optimum",
]  # fmt: skip


def shown(passes: int) -> str:
    """A number of passes with the survey's, or that there were too many."""
    if passes >= 10**9:
        return "never"
    return f"> {MOST_PASSES}" if passes > MOST_PASSES else str(1 + passes)


def summary(found: Sequence[Compared]) -> str:
    """What was wanted, and what came."""
    parts = [
        f"to {near:g} nats: ours median {np.median([c.ours[i] for c in found]):g}, most "
        f"{shown(max(c.ours[i] for c in found) - 1)}; plain EM from the same start median "
        f"{shown(int(np.median([c.from_there[i] for c in found])) - 1)}"
        for i, near in enumerate(NEAR)
    ]
    fell = sum(not c.rose for c in found)
    return f"{'. '.join(parts)} (wanted: median at most 5). Accepted states that fell: {fell}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--families", help="Names, separated by commas; all by default.")
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--restarts", type=int, default=8)
    arguments = parser.parse_args()
    n, restarts = (30_000, 3) if arguments.small else (arguments.rows, arguments.restarts)
    names = arguments.families.split(",") if arguments.families else [*CASES]
    warnings.simplefilter("ignore", ConvergenceWarning)
    found: list[Compared] = []
    with one_blas_thread():
        for family in names:
            for case in CASES[family]:
                found.append(Compared.of(family, case, n, restarts))
                print(*found[-1].cells, sep=" | ", flush=True)
    text = (
        f"`python tests/benchmarks/families.py --save`; {machine('numpy', 'scikit-learn')}.\n\n"
        "Passes over the data, the survey's counted, to so many nats per row below the best "
        f"optimum that our fit and {restarts} accelerated fits from random rows lead to; default "
        "settings. Plain EM begins where ours enters the full data, and at the first random rows "
        "from which the optimum is reached at all (no survey is needed there, but counted).\n\n"
        f"{table(HEADER, [c.cells for c in found])}\n\n{summary(found)}"
    )
    print(text)
    if arguments.save:
        save("Families: passes to the optimum", text)


if __name__ == "__main__":
    main()
