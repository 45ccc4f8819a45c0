"""Advice of latent class models: probabilities at bounds, missing answers, what is no answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from advice.following import Followed, keywords, refused, said
from dask_em import BernoulliMixture, CategoricalMixture

RNG = np.random.default_rng(0)
CLASSES = RNG.integers(0, 2, 400)[:, None]
# One class gives one answer to the first question, always.
SHARP = (RNG.random((400, 5)) < np.where(CLASSES, [1.0, 0.9, 0.8, 0.9, 0.9], [0.2] * 5)) * 1
BINARY = (RNG.random((400, 3)) < np.where(CLASSES, 0.7, 0.3)) * 1
CODES = RNG.integers(0, 4, (400, 3))
HOLES = np.where(RNG.random((400, 3)) < 0.2, np.nan, CODES)


def latent(rows: Any, k: int = 2, make: Any = BernoulliMixture, **options: Any) -> str:
    """What a fit says that ends by itself."""
    made = make(k, **{"random_state": 0, "tol": 1e-10, "max_iter": 5000, **options})
    return said(lambda: made.fit(rows))


ANSWERS = [
    Followed("probabilities at 0 or 1", lambda here: latent(SHARP), {
        "alpha=1": lambda here, words: latent(SHARP, **keywords(words)),
        "lower n_components": lambda here, words: latent(SHARP, 1),
    }),
    Followed("not identified", lambda here: latent(BINARY, 3), {
        "lower n_components": lambda here, words: latent(BINARY, 1),
    }),
    Followed(
        "where NaN is a missing answer",
        lambda here: refused(lambda: CategoricalMixture(2).fit(HOLES)), {
            'missing_values="mar"': lambda here, words: refused(
                lambda: CategoricalMixture(2, **keywords(words)).fit(HOLES)
            ),
        },
    ),
    Followed("X holds other numbers than 0 and 1", lambda here: latent(CODES, 1), {
        "Set binarize": lambda here, words: latent(CODES, 1, binarize=1.5),
        "fit categories": lambda here, words: latent(CODES, 1, CategoricalMixture),
    }),
]  # fmt: skip
