"""The Gaussian kernels: by features and centred, against scipy and against each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import (
    KINDS,
    assert_sums_close,
    gaussian_of,
    mixture_of,
    precisions_like,
    random_mixture,
    random_precisions,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from dask_em.core.family import Kernel, blocks
from dask_em.core.responsibilities import NEGLIGIBLE, responsibilities
from dask_em.core.scoring import Predict
from dask_em.core.tuning import tuning
from dask_em.families.gaussian.constraints import CONSTRAINTS
from dask_em.families.gaussian.factors import symmetric_pairs
from dask_em.families.gaussian.family import Gaussian
from dask_em.families.gaussian.numpy_kernel import GaussianKernel
from dask_em.families.gaussian.statistics import GaussianStatistics
from dask_em.families.gaussian.whitening import Whitening

EPS = np.finfo(float).eps


def evaluate(kernel: Kernel, X: np.ndarray, resp: np.ndarray):
    """Log-densities (n, k) and statistics, by one kernel."""
    log_prob = np.empty((len(X), resp.shape[1]))
    for rows in blocks(len(X), kernel.block_rows):
        kernel.load(X[rows])
        log_prob[rows] = kernel.log_prob().T
        kernel.accumulate(np.ascontiguousarray(resp[rows].T))
    return log_prob, kernel.statistics()


def exact_statistics(gaussian: Gaussian, X: np.ndarray, resp: np.ndarray) -> GaussianStatistics:
    """The sums in long double, one deviation at a time."""
    frame, kind = gaussian.whitening, gaussian.covariance.kind
    inverse = frame.inverse_scale
    inverse = np.diag(inverse) if inverse.ndim == 1 else inverse
    Z = (X.astype(np.longdouble) - frame.shift.astype(np.longdouble)) @ inverse.T
    D = Z[:, None, :] - gaussian.means
    r = resp.astype(np.longdouble)
    full = np.stack([(D[:, j] * r[:, j, None]).T @ D[:, j] for j in range(D.shape[1])])
    scatter = {
        "full": full,
        "tied": full.sum(0),
        "diag": np.diagonal(full, axis1=1, axis2=2),
        "spherical": np.trace(full, axis1=1, axis2=2),
    }[kind]
    return GaussianStatistics(np.einsum("nk,nkd->kd", r, D), scatter)


def draw_resp(n: int, k: int, rng: np.random.Generator, dense: bool) -> np.ndarray:
    return rng.dirichlet(np.ones(k), n) if dense else np.eye(k)[rng.integers(0, k, n)]


@pytest.mark.parametrize("features", [True, False])
@pytest.mark.parametrize("d", [1, 2, 3, 8, 17])
def test_log_prob_equals_scipy(kind: str, d: int, features: bool) -> None:
    rng = np.random.default_rng(d)
    k = 3
    X = rng.normal(size=(57, d)) * 2 + 1e3
    means, precisions = rng.normal(size=(k, d)) + 1e3, random_precisions(kind, k, d, rng)
    gaussian = gaussian_of(mixture_of(kind, means, precisions, X))
    resp = np.ones((len(X), k))
    actual, _ = evaluate(GaussianKernel(gaussian, features_allowed=features), X, resp)
    covariances = CONSTRAINTS[kind].storage.from_precisions(precisions).full(k, d)
    expected = [
        multivariate_normal(m, c).logpdf(X) for m, c in zip(means, covariances, strict=True)
    ]
    np.testing.assert_allclose(actual, np.transpose(expected), rtol=1e-10)
    np.testing.assert_allclose(gaussian.log_prob(X), np.transpose(expected), rtol=1e-10)


@given(
    kind=st.sampled_from(KINDS),
    d=st.integers(1, 40),
    k=st.integers(1, 6),
    n=st.integers(1, 700),
    dtype=st.sampled_from(["f8", "f4", "i4", "u1", "f2"]),
    dense=st.booleans(),
    seed=st.integers(0, 99),
)
def test_both_kernels_give_the_exact_sums(
    kind: str, d: int, k: int, n: int, dtype: str, dense: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    gaussian = gaussian_of(random_mixture(kind, k, d, rng))
    X = np.abs(rng.normal(size=(n, d)) * 3).astype(dtype)
    resp = draw_resp(n, k, rng, dense)
    fast = evaluate(GaussianKernel(gaussian, features_allowed=True), X, resp)
    exact = evaluate(GaussianKernel(gaussian, features_allowed=False), X, resp)
    assert gaussian.features_are_safe
    assert_sums_close(fast[1], exact_statistics(gaussian, X, resp), rtol=1e-11)
    assert_sums_close(exact[1], exact_statistics(gaussian, X, resp), rtol=1e-13)
    np.testing.assert_allclose(fast[0], exact[0], rtol=tuning().numerics.allowed_loss)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("width", [1.0, 1e-1, 1e-2])
def test_features_lose_what_amplification_states(kind: str, width: float, dense: bool) -> None:
    rng = np.random.default_rng(4)
    d, k, n = 5, 4, 3000
    labels = rng.integers(0, k, n)
    means = rng.normal(size=(k, d))
    X = means[labels] + width * rng.normal(size=(n, d))
    gaussian = gaussian_of(mixture_of(kind, means, precisions_like(kind, width**-2, k, d), X))
    resp = 0.9 * np.eye(k)[labels] + 0.1 / k if dense else np.eye(k)[labels]
    _, actual = evaluate(GaussianKernel(gaussian, features_allowed=True), X, resp)
    exact = exact_statistics(gaussian, X, resp)
    allowed = max(EPS * gaussian.amplification, 1e-13)
    assert_sums_close(actual.scatter, exact.scatter, rtol=allowed)


def test_wide_components_go_by_features_and_tight_ones_centred(kind: str) -> None:
    rng = np.random.default_rng(5)
    means = rng.normal(size=(3, 4))
    X = means[rng.integers(0, 3, 500)] + rng.normal(size=(500, 4))
    for width, fast in [(1.0, True), (0.1, True), (1e-4, False), (1e-6, False)]:
        precisions = precisions_like(kind, width**-2, 3, 4)
        gaussian = gaussian_of(mixture_of(kind, means, precisions, X))
        assert gaussian.features_are_safe is fast
        kernel = gaussian.kernel()
        assert isinstance(kernel, GaussianKernel)
        assert kernel.features_allowed is fast


def test_features_would_be_wrong_where_they_are_not_allowed(kind: str) -> None:
    rng = np.random.default_rng(6)
    d, k, n, width = 3, 6, 4000, 1e-6
    labels = rng.integers(0, k, n)
    means = rng.normal(size=(k, d))
    X = means[labels] + width * rng.normal(size=(n, d))
    gaussian = gaussian_of(mixture_of(kind, means, precisions_like(kind, width**-2, k, d), X))
    # No responsibility is zero, or the sums would go the sparse way, which is centred.
    resp = np.maximum(np.eye(k)[labels], 1e-25)
    exact = exact_statistics(gaussian, X, resp).scatter.astype(float)

    def loss(features: bool) -> float:
        kernel = GaussianKernel(gaussian, features_allowed=features)
        _, statistics = evaluate(kernel, X, resp)
        return float(np.abs(statistics.scatter - exact).max() / np.abs(exact).max())

    assert not gaussian.features_are_safe
    assert loss(features=False) < 1e-9
    assert loss(features=True) > 1e-6


def test_parameters_that_are_not_numbers_are_never_safe(kind: str) -> None:
    gaussian = gaussian_of(random_mixture(kind, 2, 3, np.random.default_rng(0)))
    broken = Gaussian(gaussian.means * np.nan, gaussian.covariance, gaussian.whitening)
    assert not broken.features_are_safe


def test_the_protocol_methods_are_the_kernel(kind: str) -> None:
    rng = np.random.default_rng(7)
    gaussian = gaussian_of(random_mixture(kind, 3, 4, rng))
    X, resp = rng.normal(size=(5000, 4)), draw_resp(5000, 3, rng, dense=True)
    log_prob, statistics = evaluate(gaussian.kernel(), X, resp)
    np.testing.assert_allclose(gaussian.log_prob(X), log_prob, rtol=1e-13)
    assert_sums_close(gaussian.sufficient_statistics(X, resp), statistics, rtol=1e-13)


def test_no_rows_sum_to_nothing(kind: str) -> None:
    gaussian = gaussian_of(random_mixture(kind, 3, 4, np.random.default_rng(0)))
    statistics = gaussian.sufficient_statistics(np.empty((0, 4)), np.empty((0, 3)))
    assert not statistics.first.any()
    assert not statistics.scatter.any()
    assert gaussian.log_prob(np.empty((0, 4))).shape == (0, 3)


def test_rows_are_not_changed(kind: str) -> None:
    rng = np.random.default_rng(8)
    mixture = random_mixture(kind, 3, 4, rng)
    X = rng.normal(size=(300, 4))
    X.flags.writeable = False
    weight = rng.random(300)
    weight.flags.writeable = False
    mixture.fold().update(0, X, weight)
    Predict(mixture, ("labels", "proba", "log_density"))(X)


@pytest.mark.parametrize("d", [*range(1, 13), 40])
def test_features_hold_each_pair_of_columns_once(d: int) -> None:
    pairs = {tuple(sorted(pair)) for pair in zip(*map(list, symmetric_pairs(d)), strict=True)}
    assert len(symmetric_pairs(d)[0]) == len(pairs) == d * (d + 1) // 2


def test_responsibilities_sum_to_one_and_drop_what_is_negligible() -> None:
    log_joint = np.array(
        [[0.0, -800.0, -1e5], [NEGLIGIBLE - 1, -800.0, -2e5], [-1.0, -801.0, -1e5]]
    )
    expected = np.logaddexp.reduce(log_joint, axis=0)
    resp, log_prob = responsibilities(log_joint.copy())
    np.testing.assert_allclose(resp.sum(axis=0), 1, rtol=1e-15)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-14)
    assert resp[1, 0] == 0
    assert resp[1, 2] == 0


def test_scikit_learn_s_shapes_round_trip(kind: str) -> None:
    precisions = random_precisions(kind, 3, 5, np.random.default_rng(9))
    structure = CONSTRAINTS[kind].storage
    made = structure.from_precisions(precisions)
    np.testing.assert_allclose(made.precisions, precisions, rtol=1e-12)
    again = structure.from_precisions_cholesky(made.precisions_cholesky)
    np.testing.assert_allclose(again.covariances, made.covariances, rtol=1e-12)
    product = made.full(3, 5) @ structure.from_precisions(precisions).full(3, 5)
    assert product.shape == (3, 5, 5)


@pytest.mark.parametrize("whitening_kind", ["scalar", "diagonal", "matrix"])
@pytest.mark.parametrize("collinear", [True, False])
def test_a_frame_is_an_invertible_map(whitening_kind: Any, collinear: bool) -> None:
    rng = np.random.default_rng(10)
    X = rng.normal(size=(400, 3)) * [1.0, 10.0, 0.1] + 1e3
    if collinear:
        X[:, 2] = X[:, 0] + 1e-4 * X[:, 2]
    frame = Whitening.of_moments(X.mean(axis=0), np.cov(X.T, bias=True), whitening_kind)
    assert frame.scale.ndim == (2 if collinear and whitening_kind == "matrix" else 1)
    Z = frame.whiten_columns(X, np.empty((3, 400)), np.empty((3, 400))).T
    np.testing.assert_allclose(frame.whiten(X), Z, atol=1e-8)
    np.testing.assert_allclose(frame.unwhiten(Z), X, rtol=1e-12)
    scale = np.diag(frame.scale) if frame.scale.ndim == 1 else frame.scale
    np.testing.assert_allclose(frame.log_det, np.linalg.slogdet(scale)[1], rtol=1e-10)


def test_exactly_collinear_columns_still_have_a_frame() -> None:
    X = np.random.default_rng(11).normal(size=(100, 2))
    X = np.column_stack([X, X[:, 0] + X[:, 1]])
    frame = Whitening.of_moments(X.mean(axis=0), np.cov(X.T, bias=True), "matrix")
    assert np.isfinite(frame.inverse_scale).all()
