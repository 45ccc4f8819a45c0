"""Rows of Student's t, and components and fits of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dask_em import StudentTMixture
from dask_em.core.additive import Array
from dask_em.core.moments import Moments
from dask_em.families.gaussian.options import GaussianOptions
from dask_em.families.student_t.family import StudentT
from dask_em.families.student_t.options import StudentTOptions

N, D, K = 600, 2, 2


def t_rows(n: int = N, seed: int = 0, d: int = D, df: tuple[float, ...] = (3.0, 6.0)) -> Array:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(df)
    u = rng.gamma(np.array(df)[labels] / 2, 2 / np.array(df)[labels])
    widths = np.linspace(1.0, 2.0, d)
    return rng.normal(size=(n, d)) * widths / np.sqrt(u)[:, None] + 5.0 * labels[:, None]


def family_of(kind: str, rows: Array, k: int = K, **options: Any) -> StudentT:
    """Components about rows of their own, none of them alike."""
    made = StudentTOptions(GaussianOptions(kind), **options).of_data(Moments.of(rows), k)
    labels = np.arange(len(rows)) % k
    resp = np.eye(k)[labels] + 0.1
    near = made.near(rows, resp)
    found, _ = near.maximize(resp.sum(axis=0), near.sufficient_statistics(rows, resp))
    if "df" in options:
        return found
    log_df = np.log(np.linspace(4.0, 9.0, k))
    return replace(found, log_df=np.full(k, log_df.mean()) if found.shared else log_df)


def normal_rows(n: int = N, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=(n, D)) + 4.0 * (np.arange(n) % 2)[:, None]


def light_rows(n: int = N, seed: int = 1) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (n, D)) + 4.0 * (np.arange(n) % 2)[:, None]


def fit(X: Any, k: int = K, **options: Any) -> StudentTMixture:
    options = {"random_state": 0, "reg_covar": 0, "tol": 1e-9, "max_iter": 500, **options}
    return StudentTMixture(k, **options).fit(X)
