"""scikit-learn as the reference: the same start, the same fit."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from dask.distributed import Client
from helpers import assert_fits_close, blobs, gaussian_of, random_precisions, start, write_zarr
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from dask_em import GaussianMixture

pytestmark = pytest.mark.usefixtures("engine", "many_chunks")

N, D, K = 1201, 4, 3
X, LABELS, MEANS = blobs(N, D, K, seed=1, apart=1.5)


def some_start(kind: str) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    return {
        "weights_init": rng.dirichlet(np.full(K, 9.0)),
        "means_init": MEANS + rng.normal(size=(K, D)) / 2,
        "precisions_init": random_precisions(kind, K, D, rng),
    }


def ours(rows: Any, kind: str, sample_weight: Any = None, **options: Any) -> GaussianMixture:
    options = {"tol": 0, "max_iter": 15, **some_start(kind), **options}
    model = GaussianMixture(K, covariance_type=kind, algorithm="em", **options)
    with pytest.warns(ConvergenceWarning, match="out of iterations"):
        return model.fit(rows, sample_weight=sample_weight)


def theirs(rows: np.ndarray, kind: str, **options: Any) -> Reference:
    options = {"tol": 0, "max_iter": 15, **some_start(kind), **options}
    with pytest.warns(ConvergenceWarning):
        return Reference(K, covariance_type=kind, **options).fit(rows)


@pytest.fixture
def stored(tmp_path) -> zarr.Array:
    """The rows in chunks that do not divide them."""
    return write_zarr(tmp_path / "x.zarr", X, 97)


@pytest.mark.parametrize("max_iter", [1, 15])
def test_iterations_equal_scikit_learn_s(
    kind: str, max_iter: int, stored: zarr.Array, synchronous: None
) -> None:
    actual = ours(stored, kind, max_iter=max_iter)
    assert actual.n_iter_ == max_iter
    assert_fits_close(actual, theirs(X, kind, max_iter=max_iter), rtol=1e-9)


@pytest.mark.parametrize("reg_covar", [0.0, 1e-2])
def test_reg_covar_is_scikit_learn_s(kind: str, reg_covar: float) -> None:
    rows = X * [1.0, 2.0, 0.5, 1.0] @ np.linalg.qr(np.ones((D, D)) + np.eye(D))[0]
    expected = theirs(rows, kind, reg_covar=reg_covar)
    assert_fits_close(ours(rows, kind, reg_covar=reg_covar), expected, rtol=1e-9)


def test_reg_covar_is_in_units_of_the_data_where_the_frame_is_a_matrix(kind: str) -> None:
    rows = X.copy()
    rows[:, 3] = rows[:, 2] + 1e-3 * rows[:, 3]
    inits = start(kind, np.column_stack([MEANS[:, :3], MEANS[:, 2]]))
    with pytest.warns(ConvergenceWarning):
        expected = Reference(K, covariance_type=kind, tol=0, max_iter=10, **inits).fit(rows)
    actual = ours(rows, kind, max_iter=10, **inits)
    assert_fits_close(actual, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("place", "holder"),
    [("zarr", "numpy"), ("zarr", "zarr"), ("zarr", "dask"), ("dask", "dask"), ("numpy", "numpy")],
)
def test_integer_weights_equal_repeated_rows(kind: str, place: str, holder: str, tmp_path) -> None:
    weights = np.random.default_rng(3).integers(0, 4, N)
    stored = {
        "numpy": lambda: weights,
        "zarr": lambda: write_zarr(tmp_path / "w.zarr", weights, 311),
        "dask": lambda: da.from_array(weights, chunks=300) + 0,
    }[holder]()
    rows = {
        "numpy": lambda: X,
        "zarr": lambda: write_zarr(tmp_path / "x.zarr", X, 97),
        "dask": lambda: da.from_array(X, chunks=(400, D)) + 0,
    }[place]()
    actual = ours(rows, kind, sample_weight=stored, max_iter=3)
    repeated = ours(np.repeat(X, weights, axis=0), kind, max_iter=3)
    assert_fits_close(actual, repeated, rtol=1e-12)


def test_weights_reach_the_workers(kind: str, stored: zarr.Array, client: Client) -> None:
    weights = np.random.default_rng(4).random(N)
    assert_fits_close(
        ours(stored, kind, sample_weight=weights, max_iter=3),
        ours(X, kind, sample_weight=weights, max_iter=3),
        rtol=1e-12,
    )


def test_weights_have_a_path_too(stored: zarr.Array, tmp_path) -> None:
    weights = np.random.default_rng(4).random(N)
    write_zarr(tmp_path / "w.zarr", weights, 311)
    actual = ours(stored, "full", sample_weight=str(tmp_path / "w.zarr"), max_iter=3)
    assert_fits_close(actual, ours(X, "full", sample_weight=weights, max_iter=3), rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 1e3, np.nan, np.inf])
def test_a_row_of_weight_zero_is_left_out(kind: str, value: float, tmp_path) -> None:
    left_out = np.random.default_rng(5).random(N) < 0.3
    rows = write_zarr(tmp_path / "x.zarr", np.where(left_out[:, None], value, X), 97)
    actual = ours(rows, kind, sample_weight=1.0 - left_out, max_iter=3)
    assert_fits_close(actual, ours(X[~left_out], kind, max_iter=3), rtol=1e-12)


@pytest.fixture(scope="module")
def fitted(kind: str, many_chunks: None) -> GaussianMixture:
    return GaussianMixture(K, covariance_type=kind, random_state=0).fit(X)


def test_answers_equal_scikit_learn_s(fitted: GaussianMixture, tmp_path) -> None:
    reference = fitted.to_sklearn()
    stored = write_zarr(tmp_path / "x.zarr", X, 97)
    np.testing.assert_array_equal(fitted.predict(X), reference.predict(X))
    np.testing.assert_allclose(
        fitted.predict_proba(X), reference.predict_proba(X), rtol=1e-9, atol=1e-15
    )
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(fitted.score_samples(X), reference.score_samples(X), rtol=1e-11)
    for rows in (X, stored):
        np.testing.assert_allclose(fitted.score(rows), reference.score(X), rtol=1e-12)
        np.testing.assert_allclose(fitted.aic(rows), reference.aic(X), rtol=1e-12)
        np.testing.assert_allclose(fitted.bic(rows), reference.bic(X), rtol=1e-12)


def test_icl_is_bic_and_twice_the_entropy(fitted: GaussianMixture) -> None:
    proba = fitted.predict_proba(X)
    entropy = -(proba * np.log(np.maximum(proba, 1e-300))).sum()
    np.testing.assert_allclose(fitted.icl(X), fitted.bic(X) + 2 * entropy, rtol=1e-10)


def test_samples_are_scikit_learn_s(fitted: GaussianMixture) -> None:
    rows, labels = fitted.sample(50)
    expected_rows, expected_labels = fitted.to_sklearn().sample(50)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(labels, expected_labels)


def test_samples_come_from_the_mixture(fitted: GaussianMixture) -> None:
    rows, labels = fitted.sample(40_000)
    np.testing.assert_allclose(np.bincount(labels) / len(labels), fitted.weights_, atol=0.02)
    for k in range(K):
        full = gaussian_of(fitted.state_.result).data_coordinates()[1].full(K, D)[k]
        np.testing.assert_allclose(rows[labels == k].mean(axis=0), fitted.means_[k], atol=0.06)
        np.testing.assert_allclose(np.cov(rows[labels == k].T), full, atol=0.1)


@pytest.mark.parametrize("holder", ["zarr", "path", "dask"])
def test_lazy_answers_equal_those_in_memory(
    fitted: GaussianMixture, holder: str, client: Client, tmp_path
) -> None:
    stored = write_zarr(tmp_path / "x.zarr", X, 97)
    rows = {
        "zarr": stored,
        "path": str(tmp_path / "x.zarr"),
        "dask": da.from_array(X, chunks=(400, 3)) + 0,
    }[holder]
    for method in ("predict", "predict_proba", "score_samples"):
        lazy = getattr(fitted, method)(rows)
        assert isinstance(lazy, da.Array)
        now = getattr(fitted, method)(X)
        assert (lazy.shape, lazy.dtype) == (now.shape, now.dtype)
        np.testing.assert_allclose(lazy.compute(), now, rtol=1e-10, atol=1e-15)
