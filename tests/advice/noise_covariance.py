"""Advice of the known noise of rows."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np

from advice.following import Followed, X, fit, keywords, logged, said
from dask_em import GaussianMixture

NOISE = np.full(X.shape, 0.1)
WRONG = np.where(np.arange(len(X))[:, None] == 7, np.nan, NOISE)
KNOWN = GaussianMixture(2, random_state=0).fit(X, noise_covariance=NOISE)


def noisy(S: Any = NOISE, **options: Any) -> str:
    """What a fit with noise says."""
    model = GaussianMixture(2, random_state=0, **options)
    return said(lambda: model.fit(X, noise_covariance=S))


def scored(**noise: Any) -> str:
    """What a model that was fitted with noise logs where it scores."""
    return logged(lambda: KNOWN.score(X, **noise))


def dropped(**options: Any) -> str:
    """What it says beside the count of rows that were left out."""
    found = noisy(WRONG, **options)
    return "" if "rows that hold NaN or infinity were left out" in found else found


NOISY = [
    Followed("expected finite numbers; pass", lambda here: noisy(WRONG), {
        'nonfinite="drop"': lambda here, words: dropped(**keywords(words)),
    }, "core/noise_covariance.py"),
    Followed("rows of known noise have no missing values", lambda here: noisy(
        missing_values="mar"
    ), {
        "leave noise_covariance out": lambda here, words: said(
            lambda: fit(missing_values="mar")
        ),
        'missing_values="error"': lambda here, words: noisy(**keywords(words)),
    }),
    Followed("noise are computed on the CPU", lambda here: noisy(device="cuda"), {
        'device="cpu"': lambda here, words: noisy(**keywords(words)),
    }),
    Followed("fitted to rows of known noise", lambda here: scored(), {
        "noise_covariance": lambda here, words: "of known noise" * (
            "of known noise" in scored(**{words: da.from_array(NOISE)})
        ),
    }),
]  # fmt: skip
