"""Scale and place: what the data look like must not cost digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import (
    KINDS,
    add_up,
    gaussian_of,
    mixture_of,
    precisions_like,
    random_precisions,
    start,
    states,
    write_zarr,
)

from dask_em import GaussianMixture
from dask_em.core.tuning import tuning
from dask_em.families.gaussian.constraints import CONSTRAINTS
from dask_em.families.gaussian.numpy_kernel import GaussianKernel
from dask_em.families.gaussian.whitening import Whitening

pytestmark = pytest.mark.usefixtures("engine", "many_chunks", "synchronous")

N, D, K = 6000, 3, 3
# Standard error of a variance from the N / K rows of a component, four times.
FOUR_SIGMA = 4 * np.sqrt(2 / (N / K))
MEANS = np.array([[0.0, 0, 0], [14, 0, 5], [0, 15, -10]])


def separated(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of well separated components, their labels, and the true covariances (k, d, d)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, N)
    truth = CONSTRAINTS[kind].storage.from_precisions(random_precisions(kind, K, D, rng)).full(K, D)
    factors = np.linalg.cholesky(truth)
    X = MEANS[labels] + np.einsum("nij,nj->ni", factors[labels], rng.normal(size=(N, D)))
    return X, labels, truth


def fitted(rows: Any, kind: str, **options: Any) -> GaussianMixture:
    """A fit that begins on a part of the rows."""
    options = {"random_state": 0, "sample_size": 1000, **options}
    return GaussianMixture(K, covariance_type=kind, **options).fit(rows)


def matrices(model: GaussianMixture) -> np.ndarray:
    """The fitted covariances as (k, d, d), in the order of the true means."""
    covariance = gaussian_of(model.state_.result).data_coordinates()[1]
    return covariance.full(model.n_components, model.n_features_in_)


def assert_variances(model: GaussianMixture, truth: np.ndarray, scale: np.ndarray | float) -> None:
    """Within sampling error of the truth, after the components are put in its order."""
    centres = MEANS * scale
    found = model.means_ - model.means_.mean(axis=0)
    gaps = (found[:, None] - (centres - centres.mean(axis=0))) / scale
    order = (gaps**2).sum(axis=2).argmin(axis=0)
    assert sorted(order) == list(range(K))
    variances = np.diagonal(matrices(model)[order], axis1=1, axis2=2) / np.square(scale)
    np.testing.assert_allclose(variances, np.diagonal(truth, axis1=1, axis2=2), rtol=FOUR_SIGMA)


@pytest.mark.parametrize(("offset", "dtype"), [(0, "f8"), (-1e8, "f8"), (1e4, "f4")])
def test_variances_are_right_far_from_zero(kind: str, offset: float, dtype: str, tmp_path) -> None:
    X, _, truth = separated(kind, seed=0)
    rows = write_zarr(tmp_path / "x.zarr", (X + offset).astype(dtype), 311)
    model = fitted(rows, kind)
    assert model.converged_
    assert_variances(model, truth, 1.0)


def test_variances_are_right_on_any_scale_of_the_columns(kind: str) -> None:
    # One variance for all columns can only have one scale for all columns.
    scale = np.full(D, 1e6) if kind == "spherical" else np.array([1e-3, 1.0, 1e6])
    X, _, truth = separated(kind, seed=1)
    assert_variances(fitted(X * scale, kind, reg_covar=0), truth, scale)


@pytest.mark.parametrize("scale", [1e-100, 1e100])
def test_variances_are_right_in_any_unit(kind: str, scale: float) -> None:
    X, _, truth = separated(kind, seed=2)
    assert_variances(fitted(X * scale, kind, reg_covar=0), truth, scale)


def hard_moments(X: np.ndarray, labels: np.ndarray, kind: str) -> np.ndarray:
    """Covariances (k, d, d) of the labelled rows in long double, as far as `kind` holds them."""
    wide = X.astype(np.longdouble)
    parts = [wide[labels == k] - wide[labels == k].mean(axis=0) for k in range(labels.max() + 1)]
    full = np.stack([part.T @ part / len(part) for part in parts])
    if kind == "tied":
        full = np.broadcast_to(np.average(full, axis=0, weights=np.bincount(labels)), full.shape)
    elif kind != "full":
        diagonal = np.diagonal(full, axis1=1, axis2=2)
        if kind == "spherical":
            diagonal = np.broadcast_to(diagonal.mean(axis=1, keepdims=True), diagonal.shape)
        full = diagonal[:, :, None] * np.eye(full.shape[1])
    return full.astype(float)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("kind", ["full", "tied"])
def test_collinear_columns_come_out_right(kind: str, offset: float) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 4000)
    base = rng.normal(size=(4000, 2)) + 30.0 * labels[:, None]
    X = np.column_stack([base, base.sum(axis=1) + 1e-3 * rng.normal(size=4000)]) + offset
    assert np.linalg.cond(np.cov(X[labels == 0].T)) > 1e6
    options: dict[str, Any] = {"covariance_type": kind, "reg_covar": 0, "random_state": 0}
    model = GaussianMixture(2, **options).fit(X)
    order = np.argsort(model.means_[:, 0])
    expected = hard_moments(X, labels, kind)
    np.testing.assert_allclose(matrices(model)[order], expected, rtol=1e-7)
    # The narrow direction too, not only the large entries.
    along = np.array([1.0, 1.0, -1.0])
    narrow = np.einsum("i,kij,j->k", along, matrices(model)[order], along)
    exact = hard_moments((X @ along)[:, None], labels, kind)[:, 0, 0]
    np.testing.assert_allclose(narrow, exact, rtol=1e-5)


def tight(kind: str, width: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One component `width` wide among others of unit width; tied: all of them `width` wide."""
    rng = np.random.default_rng(4)
    means = np.array([[0.0, 0, 0], [12, 3, 0], [0, 12, -5], [-12, 2, 12]])
    labels = rng.integers(0, 4, 4000)
    widths = np.full(4, width) if kind == "tied" else np.array([1.0, 1, width, 1])
    return means[labels] + widths[labels, None] * rng.normal(size=(4000, 3)), labels, means


@pytest.mark.parametrize("width", [1e-3, 1e-6])
def test_a_component_much_tighter_than_the_data_comes_out_right(kind: str, width: float) -> None:
    X, labels, means = tight(kind, width)
    inits = start(kind, means)
    model = GaussianMixture(4, covariance_type=kind, reg_covar=0, **inits).fit(X)
    expected = hard_moments(X, labels, kind)
    actual = matrices(model)
    for k in range(4):
        np.testing.assert_allclose(actual[k], expected[k], rtol=1e-7, atol=1e-8 * expected[k].max())


def test_the_bound_hands_tight_components_to_the_centred_kernel(kind: str) -> None:
    def allowed(width: float) -> bool:
        X, _, means = tight(kind, width)
        mixture = mixture_of(kind, means, precisions_like(kind, width**-2, 4, 3), X)
        kernel = gaussian_of(mixture).kernel()
        assert isinstance(kernel, GaussianKernel)
        return kernel.features_allowed

    assert [allowed(w) for w in (1.0, 0.1, 1e-3, 1e-4)] == [True, True, False, False]


def test_forcing_features_on_a_tight_component_would_be_wrong(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    width = 1e-6
    X, labels, means = tight(kind, width)
    mixture = mixture_of(kind, means, precisions_like(kind, width**-2, 4, 3), X)
    exact = hard_moments(X, labels, kind)[2, 0, 0]

    def loss() -> float:
        result, _ = mixture.m_step(add_up(mixture, X))
        return abs(gaussian_of(result).data_coordinates()[1].full(4, 3)[2, 0, 0] / exact - 1)

    right = loss()
    forced = type(mixture.components)
    monkeypatch.setattr(
        forced, "kernel", lambda self, engine: GaussianKernel(self, features_allowed=True)
    )
    monkeypatch.setattr(GaussianKernel, "_sparse", lambda self, resp: False)
    assert right < 1e-8
    assert not loss() < 1e4 * right


def test_far_rows_belong_to_someone_and_overflow_nothing(kind: str) -> None:
    X, _, _ = separated(kind, seed=5)
    model = fitted(X, kind)
    far = np.array([[1e6, 0, 0], [-1e100, 1e100, 0]])
    np.testing.assert_allclose(model.predict_proba(far).sum(axis=1), 1)
    assert np.isfinite(model.score_samples(far)).all()


def test_the_last_digits_settle(kind: str) -> None:
    X, _, _ = separated(kind, seed=6)
    begin = mixture_of(kind, MEANS + 1e8, precisions_like(kind, 1.0, K, D), X + 1e8)
    last = states(X + 1e8, begin, max_iter=15, tol=0)[-5:]
    values = [s.log_likelihood for s in last]
    assert np.ptp(values) < 1e-12


# Full covariances of 60 columns have more parameters than there are rows.
@pytest.mark.filterwarnings("ignore:degenerate components. .* fewer than parameters")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [25, 60])
def test_many_columns_still_tell_components_apart(kind: str, d: int) -> None:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 2, 1000)
    X = rng.normal(size=(1000, d)) + 2.0 * labels[:, None]
    model = GaussianMixture(2, covariance_type=kind, random_state=0).fit(X)
    found = model.predict(X)
    assert max((found == labels).mean(), (found != labels).mean()) > 0.999
    assert np.isfinite(model.lower_bound_)


@pytest.mark.parametrize("d", [2, 5, 60])
@pytest.mark.parametrize("mix", [0.0, 1e-3, 0.1, 0.9, 0.9999, 1.0])
def test_columns_are_whitened_together_where_eigenvalues_say_so(d: int, mix: float) -> None:
    # Bounds on the eigenvalues save their computation; they never decide otherwise.
    rng = np.random.default_rng(d)
    X = (1 - mix) * rng.normal(size=(500, d)) + mix * rng.normal(size=(500, 1))
    covariance = np.cov(X.T)
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(X.T))
    together = eigenvalues[0] * tuning().numerics.collinear < eigenvalues[-1]
    found = Whitening.of_moments(X.mean(axis=0), covariance, "matrix")
    assert (found.scale.ndim == 2) == together
