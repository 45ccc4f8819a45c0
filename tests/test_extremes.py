"""Extremes of shape, scale and weight: right, or refused by the name of what is extreme."""

from __future__ import annotations

import logging
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from helpers import KINDS, Tune, blobs, random_mixture

from dask_em import GaussianMixture
from dask_em.data.open import as_source
from dask_em.errors import DataError
from dask_em.fitting import starts

X = np.concatenate(
    [
        np.random.default_rng(0).normal(size=(300, 3)) + at
        for at in ([0, 0, 0], [6, 0, 0], [0, 6, 6])
    ]
)
N = len(X)
SOME = np.where(np.arange(N) < 3, 1.0, 0.0)


def fitted(X: Any, weight: Any = None, k: int = 3, **options: Any) -> GaussianMixture:
    """A fit during which nothing but a warning of ours is heard."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", UserWarning)
        return GaussianMixture(k, random_state=0, **options).fit(X, sample_weight=weight)


@pytest.fixture(scope="module")
def plain(kind: str) -> GaussianMixture:
    return fitted(X, covariance_type=kind, reg_covar=0)


# -- scale ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-150, 1e-100, 1e100, 1e148], ids="{:g}".format)
def test_a_scale_changes_nothing_but_the_units(
    scale: float, kind: str, plain: GaussianMixture
) -> None:
    model = fitted(X * scale, covariance_type=kind, reg_covar=0)
    order, expected = np.argsort(model.means_[:, 0]), np.argsort(plain.means_[:, 0])
    np.testing.assert_allclose(model.means_[order], plain.means_[expected] * scale, rtol=1e-5)
    moved = plain.lower_bound_ - X.shape[1] * np.log(scale)
    assert model.lower_bound_ == pytest.approx(moved, abs=1e-6)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "spherical"])
def test_columns_of_wildly_different_scales(kind: str) -> None:
    scales = np.array([1e-100, 1.0, 1e100])
    model, alike = (fitted(X * s, covariance_type=kind, reg_covar=0) for s in (scales, 1.0))
    assert model.lower_bound_ == pytest.approx(alike.lower_bound_, abs=1e-6)
    assert (model.predict(X * scales) == alike.predict(X)).mean() > 0.99


@pytest.mark.parametrize("scale", [1e-42, 3e36], ids=["subnormal", "near the largest"])
def test_float32_at_the_ends_of_its_range(scale: float, kind: str, plain: GaussianMixture) -> None:
    rows = (X * scale).astype(np.float32)
    model = fitted(rows, covariance_type=kind, reg_covar=0)
    for name in ("means_", "covariances_", "precisions_", "precisions_cholesky_"):
        assert np.isfinite(getattr(model, name)).all()
    assert np.abs(model.covariances_).max() > 0
    assert len(np.unique(model.predict(rows))) == 3
    # Squares that float32 does not hold are told in float64.
    assert model.covariances_.dtype == np.float64


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (X * 1e307, r"column 0 holds numbers \(up to .*e\+307\) beyond what can be squared"),
        (X * 1e154, "beyond what can be squared: divide X by a constant"),
        (np.full((9, 3), 1e200), "beyond what can be squared"),
        (X * 1e-160, "column 0, column 1, column 2 varies by too little to be squared"),
        (X * 1e-308, "varies by too little to be squared"),
        (X * [1, 1e-200, 1], r"column 1 varies by too little .* multiply X by a constant, or"),
        (X[:2], r"X has 2 rows \(of positive weight\) and n_components=3: lower it"),
    ],
    ids=["1e307", "1e154", "all 1e200", "1e-160", "1e-308", "a column of 1e-200", "n < K"],
)
@pytest.mark.parametrize("reg_covar", [0, 1e-6])
def test_rows_that_cannot_be_fitted_are_refused_by_name(
    rows: np.ndarray, words: str, reg_covar: float
) -> None:
    with pytest.raises(DataError, match=words):
        fitted(rows, reg_covar=reg_covar)


# -- weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [1e-8, 1e50, 1e97], ids="{:g}".format)
def test_the_scale_of_weights_does_not_matter(
    weight: float, kind: str, plain: GaussianMixture
) -> None:
    model = fitted(X, np.full(N, weight), covariance_type=kind, reg_covar=0)
    assert model.lower_bound_ == pytest.approx(plain.lower_bound_, abs=1e-6)


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (np.full(N, 1e307), "sample_weight sums to inf, which is too much .* divide sample_weight"),
        (np.full(N, 1e300), r"sums to 9e\+302, which is too much .* divide sample_weight by a"),
        (np.where(SOME, 1e300, 1), r"sample_weight sums to 3e\+300, which is too much"),
        (np.full(N, 1e-300), "sums to 9e-298, which is too little .* multiply sample_weight by a"),
        (np.full(N, 5e-324), "which is too little to compute with .expected 1e-06 to 1e.100"),
        (np.where(SOME, np.inf, 1), "3 entries that are negative, NaN or infinite"),
    ],
    ids=["1e307", "1e300", "a few of 1e300", "1e-300", "subnormal", "infinite"],
)
def test_weights_that_cannot_be_summed_are_refused_by_name(weight: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        fitted(X, weight)


@pytest.mark.parametrize("extreme", [1e-300, 1e90], ids="{:g}".format)
def test_a_few_extreme_weights(extreme: float, kind: str) -> None:
    model = fitted(X, np.where(SOME, extreme, 1.0), covariance_type=kind)
    assert np.isfinite(model.means_).all()
    assert model.weights_.sum() == pytest.approx(1.0)
    if extreme > 1:
        # The others weigh nothing beside them.
        assert min(np.abs(X[:3] - mean).sum(axis=1).min() for mean in model.means_) < 1e-6


# -- few distinct rows ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "k", "labels"),
    [
        (np.ones((100, 3)), 3, 1),
        (np.repeat(np.arange(6.0).reshape(2, 3), 50, axis=0), 5, 2),
        (X[:7], 7, 7),
    ],
    ids=["all equal", "K beyond the distinct rows", "n = K"],
)
def test_few_distinct_rows(rows: np.ndarray, k: int, labels: int, kind: str) -> None:
    model = fitted(rows, k=k, covariance_type=kind)
    assert np.isfinite(model.lower_bound_)
    assert model.weights_.sum() == pytest.approx(1.0)
    if kind != "tied":
        assert len(np.unique(model.predict(rows))) == labels
    with pytest.raises(DataError, match=r"has a covariance of its own.*increase reg_covar"):
        fitted(np.ones((100, 3)), k=k, covariance_type=kind, reg_covar=0)


# -- many components, many columns, many chunks ------------------------------------------------


@pytest.mark.parametrize("init_params", ["random_from_data", "k-means++", "kmeans"])
@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_a_start_by_groups_of_components_is_the_start(
    init_params: str, kind: str, tune: Tune
) -> None:
    rows, weight = blobs(500, 3, 5)[0], np.random.default_rng(1).random(500)
    options = {"covariance_type": kind, "init_params": init_params, "algorithm": "em"}
    together = fitted(rows, weight, 17, max_iter=1, tol=0, **options)
    tune(sample={"hard_numbers": 2000})
    groups = fitted(rows, weight, 17, max_iter=1, tol=0, **options)
    np.testing.assert_allclose(groups.means_, together.means_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(groups.covariances_, together.covariances_, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(groups.weights_, together.weights_, rtol=1e-9)


def test_rows_that_wait_for_very_many_components_are_few() -> None:
    mixture = random_mixture("diag", 50_000, 2, np.random.default_rng(0))
    # Four thousand rows of their responsibilities are 1.6 GB.
    assert mixture.fold().nbytes < 2**30


def test_many_components_take_no_memory_in_their_square() -> None:
    k, rows = 6000, np.random.default_rng(0).normal(size=(12_000, 2))
    options = {"covariance_type": "spherical", "init_params": "random_from_data"}
    tracemalloc.start()
    try:
        model = fitted(rows, k=k, algorithm="em", max_iter=0, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert model.means_.shape == (k, 2)
    # (k, k) alone would be 275 MiB, and (n, k) 550 MiB.
    assert peak < 700 * 2**20


@pytest.mark.parametrize(("k", "init", "most"), [(3, "k-means++", 300), (10**5, "random", 3)])
def test_kmeans_of_very_many_components_is_cut_down(k: int, init: str, most: int) -> None:
    made = starts._kmeans(10**5, 2, k, 0)
    assert (made.init, made.max_iter) == (init, most)


@pytest.mark.parametrize("shards", [False, True], ids=["chunks", "shards"])
def test_tiny_chunks_are_read_by_few_and_told(
    shards: bool, tmp_path: Path, tune: Tune, caplog: pytest.LogCaptureFixture
) -> None:
    n = 1200
    array: Any = zarr.create_array(
        str(tmp_path / "x.zarr"), shape=(n, 3), chunks=(1, 3), dtype="f8", shards=(n, 3) if shards
        else None,
    )  # fmt: skip
    array[:] = X[:n] if len(X) >= n else np.resize(X, (n, 3))
    tune(reading={"most_together": 100, "many_chunks": 1000})
    source = as_source(array)
    assert source.n_chunks == 12
    with caplog.at_level(logging.INFO, "dask_em"):
        model = fitted(array)
    assert "lies in 1,200 chunks of 24 bytes" in caplog.text
    np.testing.assert_allclose(model.score(array), fitted(array[:]).score(array[:]), rtol=1e-6)
