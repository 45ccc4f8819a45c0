"""Advice of mixtures of counts, times and amounts."""

from __future__ import annotations

from typing import Any

import numpy as np

from advice.following import Followed, said
from dask_em import GammaMixture, PoissonMixture

RNG = np.random.default_rng(0)
HALF = np.arange(400) % 2 == 0
# Counts, of which the second column's are zeros in one of two components.
COUNTS = np.column_stack([
    RNG.poisson(np.where(HALF, 5, 20)), np.where(HALF, 0, RNG.poisson(4, 400))
])  # fmt: skip
# Times, of which half are the same.
TIMES = np.column_stack([
    np.where(HALF, 5.0, RNG.gamma(3.0, 2.0, 400)), RNG.gamma(9.0, np.where(HALF, 1.0, 30.0))
])  # fmt: skip


def poisson(rows: Any = COUNTS, n_components: int = 2, **options: Any) -> str:
    return said(lambda: PoissonMixture(n_components, random_state=0, **options).fit(rows))


def gamma(rows: Any = TIMES, n_components: int = 2) -> str:
    return said(lambda: GammaMixture(n_components, random_state=0).fit(rows))


def named(**options: Any) -> str:
    """What is said of an exposure by its name."""
    import pandas as pd

    rows = pd.DataFrame({"calls": COUNTS[:, 0], "hours": RNG.gamma(4.0, 1.0, 400)})
    return poisson(rows, **options)


COUNTED = [
    Followed("computes on the CPU", lambda here: poisson(device="cuda"), {
        "CPU": lambda here, words: poisson(COUNTS[:, :1], device=words.lower()),
    }, "estimators/cpu.py"),
    Followed("the columns of X have no names", lambda here: poisson(exposure="hours"), {
        "give the number of the column": lambda here, words: poisson(COUNTS + 1, exposure=1),
    }),
    Followed("is no column of X that is read", lambda here: named(exposure="hour"), {
        r"did you mean '(\w+)'": lambda here, words: named(exposure=words),
    }),
    Followed("columns, numbered from 0", lambda here: poisson(COUNTS + 1, 1, exposure=2), {
        "numbered from (0)": lambda here, words: poisson(COUNTS + 1, 1, exposure=int(words)),
    }),
    Followed("the {} is zero of", lambda here: poisson(), {
        "leave the column out": lambda here, words: poisson(COUNTS[:, :1]),
        "lower n_components": lambda here, words: poisson(n_components=1),
    }),
    Followed("They stand for single values", lambda here: gamma(), {
        "add to such a column uniform noise": lambda here, words: gamma(
            TIMES + np.column_stack([RNG.uniform(0.0, 1.0, 400), np.zeros(400)])
        ),
        "fit the rows of that value apart": lambda here, words: gamma(TIMES[~HALF]),
        "lower n_components": lambda here, words: gamma(n_components=1),
    }),
]  # fmt: skip
