"""Questions to a fitted mixture: every number beside one that was computed in another way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from helpers import KINDS, write_zarr
from scipy import stats
from scipy.cluster.hierarchy import fcluster, is_valid_linkage
from scipy.special import xlogy
from scipy.stats import multivariate_normal

from dask_em import (
    BayesianGaussianMixture,
    FactorMixture,
    GaussianMixture,
    KMeans,
    StudentTMixture,
    kl_divergence,
    load,
)
from dask_em.cli.main import main
from dask_em.core.information import inverse_information
from dask_em.core.merging import Mergers, merged_by_entropy
from dask_em.core.mixture import Mixture
from dask_em.errors import DataError, UsageError
from dask_em.estimators.fitted import FittedEstimator
from dask_em.families.gaussian.conditional import in_columns
from dask_em.families.gaussian.covariance import Covariance
from dask_em.families.gaussian.diagonals import Diagonal, Spherical
from dask_em.families.gaussian.family import Gaussian
from dask_em.families.gaussian.information import KINDS as WITH_ERRORS
from dask_em.families.gaussian.information import Information, standard_errors
from dask_em.families.gaussian.matrices import Full, Tied
from dask_em.families.gaussian.missing import with_missing
from dask_em.families.gaussian.overlap import divergences
from dask_em.families.gaussian.quadratic import quadratic_cdf
from dask_em.families.gaussian.whitening import Whitening

pytestmark = pytest.mark.usefixtures("many_chunks")

N, D, K, CHUNK = 900, 3, 3, 120
NAMES = ["size", "flux", "hue"]
MIX = np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.4, 0.3, 0.9]])
MEANS = np.array([[0.0, 0.0, 0.0], [2.0, -1.0, 1.0], [-1.0, 3.0, 2.0]])


def rows(n: int = N, seed: int = 0, offset: float = 0.0, scale: Any = 1.0) -> np.ndarray:
    """Rows of three overlapping components with covariances of their own."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(K, size=n)
    widths = np.array([1.0, 0.7, 1.3])[labels, None]
    return (MEANS[labels] + widths * rng.normal(size=(n, D)) @ MIX.T) * scale + offset


X = rows()
HOLES = np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.nan, X)


def fit(data: Any = X, **options: Any) -> GaussianMixture:
    return GaussianMixture(**{"n_components": K, "random_state": 0, **options}).fit(data)


def matrices(model: GaussianMixture) -> np.ndarray:
    """The covariances as (k, d, d), whatever is stored."""
    k, d = model.means_.shape
    found = model.covariances_
    if found.shape == (k, d, d):
        return found
    if found.shape == (d, d) and model.covariance_type in ("tied", "EEE"):
        return np.broadcast_to(found, (k, d, d))
    diagonals = found if found.shape == (k, d) else np.repeat(found[:, None], d, axis=1)
    return diagonals[:, :, None] * np.eye(d)


def log_joint(model: GaussianMixture, data: np.ndarray, columns: Any = None) -> np.ndarray:
    """log w_k + log p(x | k) of some columns by SciPy, (n, k)."""
    columns = range(model.means_.shape[1]) if columns is None else columns
    index = list(columns)
    return np.stack(
        [
            np.log(w) + multivariate_normal(m[index], S[np.ix_(index, index)]).logpdf(data)
            for w, m, S in zip(model.weights_, model.means_, matrices(model), strict=True)
        ],
        axis=-1,
    ).reshape(len(data), -1)


# -- quadratic forms of normal variables -----------------------------------------------


@pytest.mark.parametrize("limit", [1e-3, 0.5, 4.0, 40.0])
@pytest.mark.parametrize("m", [1, 2, 9])
def test_quadratic_forms_have_the_distributions_of_scipy(limit: float, m: int) -> None:
    found = quadratic_cdf(np.ones(m), np.zeros(m), limit)
    assert np.isclose(found, stats.chi2.cdf(limit, m), rtol=1e-9, atol=1e-12)
    # Of small probabilities all digits are there, too.
    upper = quadratic_cdf(-np.ones(m), np.zeros(m), -limit)
    assert np.isclose(upper, stats.chi2.sf(limit, m), rtol=1e-9, atol=0)
    # (v + 3)^2 has the noncentrality 9.
    shifted = quadratic_cdf(np.ones(m), np.r_[6.0, np.zeros(m - 1)], limit - 9)
    assert np.isclose(shifted, stats.ncx2.cdf(limit, m, 9), rtol=1e-8, atol=1e-11)


def test_straight_and_degenerate_forms() -> None:
    for limit in (-12.0, -1.0, 0.0, 3.0):
        found = quadratic_cdf(np.zeros(2), np.array([0.6, 0.8]), limit)
        assert np.isclose(found, stats.norm.cdf(limit), rtol=1e-9, atol=0)
    # What rounding leaves of the difference of two equal covariances is none.
    linear = np.array([-0.67, 0.05, 0.58, -0.46])
    for left in (-2.6e-17, 1e-16):
        found = quadratic_cdf(np.array([0.0, 0.0, 0.0, left]), linear, -4.3)
        wanted = stats.norm.cdf(-4.3 / np.linalg.norm(linear))
        assert np.isclose(found, wanted, rtol=1e-9, atol=0)
    assert quadratic_cdf(np.zeros(1), np.zeros(1), 1.0) == 1.0
    assert quadratic_cdf(np.zeros(1), np.zeros(1), -1.0) == 0.0
    # Beyond the least value of a form, which is -1/4 here.
    assert quadratic_cdf(np.ones(1), np.ones(1), -0.25) == 0.0
    assert quadratic_cdf(-np.ones(1), np.ones(1), 0.25) == 1.0


def test_forms_of_any_signs_and_scales_have_the_distribution_of_draws() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        m = int(rng.integers(1, 6))
        a, b = (rng.normal(size=m) * 10.0 ** rng.uniform(-6, 2, size=m) for _ in range(2))
        v = rng.normal(size=(20_000, m))
        drawn = (a * v * v + b * v).sum(axis=1)
        for p in (0.01, 0.3, 0.9):
            found = quadratic_cdf(a, b, float(np.quantile(drawn, p)))
            assert abs(found - p) < 6 * np.sqrt(p * (1 - p) / len(drawn)), (a, b, p)


# -- some of the columns, alone or given others ----------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "EEI", "VEI", "EVI", "VEE", "VEV"])
def test_a_marginal_is_that_of_scipy(kind: str) -> None:
    model = fit(covariance_type=kind)
    part = model.marginal([2, 0])
    expected = np.logaddexp.reduce(log_joint(model, X[:, [2, 0]], [2, 0]), axis=1)
    np.testing.assert_allclose(part.score_samples(X[:, [2, 0]]), expected, rtol=1e-9)
    assert part.n_features_in_ == 2
    assert part.covariance_type in {"full", "tied", "diag", "spherical", "EEI", "VEI", "VEE"}
    np.testing.assert_allclose(part.means_, model.means_[:, [2, 0]], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [*KINDS, "EEI", "VEE", "EVE"])
def test_a_conditional_is_the_joint_over_the_marginal(kind: str) -> None:
    model = fit(covariance_type=kind)
    value = 0.7
    part = model.conditional({1: value})
    whole = np.insert(X[:50, [0, 2]], 1, value, axis=1)
    expected = np.logaddexp.reduce(log_joint(model, whole), axis=1)
    expected -= np.logaddexp.reduce(log_joint(model, np.array([[value]]), [1]), axis=1)
    np.testing.assert_allclose(part.score_samples(X[:50, [0, 2]]), expected, rtol=1e-9)
    assert part.weights_.sum() == pytest.approx(1)


def test_a_derived_model_is_a_model(tmp_path: Path) -> None:
    model = fit()
    part = model.marginal([0, 1]).conditional({1: 0.0})
    assert part.status_.name == "GIVEN"
    assert part.lower_bound_ == -np.inf
    part.save(tmp_path / "part.npz")
    again = load(tmp_path / "part.npz")
    np.testing.assert_array_equal(again.means_, part.means_)
    np.testing.assert_array_equal(again.predict(X[:, :1]), part.predict(X[:, :1]))
    assert again.bic(X[:, :1]) == part.bic(X[:, :1])
    assert part.sample(10)[0].shape == (10, 1)
    # And a start.
    refit = again.set_params(warm_start=True, tol=1.0).fit(X[:, :1])
    assert refit.lower_bound_ >= part.score(X[:, :1])
    told = CliRunner().invoke(main, ["inspect", str(tmp_path / "part.npz")])
    assert told.exit_code == 0
    assert "the parameters were given" in told.output


def test_columns_are_found_by_name() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X, columns=NAMES)
    model = fit(table)
    part = model.marginal(["hue", "size"])
    assert part.feature_names_in_.tolist() == ["hue", "size"]
    np.testing.assert_array_equal(part.predict(table), part.predict(table[["hue", "size"]]))
    given = model.conditional({"flux": 1.0})
    assert given.feature_names_in_.tolist() == ["size", "hue"]
    found = model.regress("flux", table)
    np.testing.assert_allclose(found.mean, model.regress(1, table[["size", "hue"]]).mean)
    np.testing.assert_array_equal(model.sorted("flux").means_[:, 1], np.sort(model.means_[:, 1]))


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda model: model.marginal([3]), "columns has 3.*from 0 to 2"),
        (lambda model: model.marginal([]), r"columns is \[\]: expected one column or more"),
        (lambda model: model.marginal([1, 1]), "each once"),
        (lambda model: model.marginal("flux"), "have no names"),
        (lambda model: model.conditional({0: 1.0, 1: 1.0, 2: 1.0}), "no other is left"),
        (lambda model: model.conditional({0: np.nan}), "expected finite numbers"),
        (lambda model: model.conditional([0]), "expected a mapping"),
        (lambda model: model.regress([0, 1, 2], X), "no other tells of them"),
        (lambda model: model.sorted("mean"), "by has 'mean'"),
        (lambda model: kl_divergence(model, KMeans(2).fit(X)), "b is a KMeans"),
        (lambda model: kl_divergence(model, model.marginal(0)), "of other columns: 3"),
        (lambda model: model.merge(X).combine(X, 4), "from 1 to 3"),
    ],
)
def test_what_cannot_be_asked_is_refused(ask: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ask(fit(max_iter=0))


def test_data_in_other_units_give_answers_in_them() -> None:
    offset, scale = np.array([1e8, -3e5, 0.0]), np.array([1e-3, 1e4, 1.0])
    model, moved = fit(reg_covar=0), fit(X * scale + offset, reg_covar=0)
    mean = model.regress([0, 1], X[:, [2]])
    other = moved.regress([0, 1], X[:, [2]])
    np.testing.assert_allclose(
        (other.mean - offset[:2]) / scale[:2], mean.mean, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(other.std / scale[:2], mean.std, rtol=1e-4)
    np.testing.assert_allclose(
        moved.mahalanobis(X * scale + offset), model.mahalanobis(X), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(moved.overlap(), model.overlap(), atol=1e-4)
    np.testing.assert_allclose(moved.bhattacharyya(), model.bhattacharyya(), rtol=1e-4)
    shift = np.log(scale).sum()
    assert moved.entropy().value - shift == pytest.approx(model.entropy().value, abs=1e-3)
    ours, theirs = moved.standard_errors(X * scale + offset), model.standard_errors(X)
    np.testing.assert_allclose(ours["means_"] / scale, theirs["means_"], rtol=1e-3)
    square = scale[:, None] * scale
    np.testing.assert_allclose(ours["covariances_"] / square, theirs["covariances_"], rtol=1e-3)


# -- regression ------------------------------------------------------------------------


def test_a_regression_is_the_integral_of_the_conditional_density() -> None:
    model = fit()
    # The trapezoidal rule has all digits of an analytic integrand that ends at zero.
    y = np.linspace(-60, 60, 6001)
    for x in (X[3, [0, 2]], np.array([9.0, -9.0])):
        found = model.regress(1, x[None])
        density = np.exp(model.conditional({0: x[0], 2: x[1]}).score_samples(y[:, None]))
        density *= y[1] - y[0]
        mean = density @ y
        assert density.sum() == pytest.approx(1)
        assert found.mean[0] == pytest.approx(mean, rel=1e-9)
        assert found.std[0] == pytest.approx(np.sqrt(density @ (y - mean) ** 2), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_regression_of_rows_with_holes_is_what_they_are_filled_with(kind: str) -> None:
    model = fit(HOLES, missing_values="mar", covariance_type=kind)
    found = model.regress([1, 2], HOLES[:, [0]])
    unknown = np.column_stack([HOLES[:, 0], np.full((N, 2), np.nan)])
    np.testing.assert_allclose(found.mean, model.impute(unknown)[:, 1:], rtol=1e-9, atol=1e-9)
    # What tells nothing leaves the moments of the whole.
    nothing = model.regress(1, np.full((1, 2), np.nan))
    mean = model.weights_ @ model.means_[:, 1]
    spread = model.weights_ @ (matrices(model)[:, 1, 1] + (model.means_[:, 1] - mean) ** 2)
    assert (nothing.mean[0], nothing.std[0]) == pytest.approx((mean, np.sqrt(spread)))


def test_answers_are_lazy_and_have_the_chunks_of_the_rows(tmp_path: Path) -> None:
    model = fit()
    write_zarr(tmp_path / "x.zarr", X, CHUNK)
    write_zarr(tmp_path / "part.zarr", X[:, :2], CHUNK)
    path = str(tmp_path / "x.zarr")
    for ask in (
        lambda data: model.outlier_pvalues(data, n_draws=2000),
        lambda data: model.posterior_entropy(data),
        lambda data: model.mahalanobis(data),
    ):
        lazy, expected = ask(path), ask(X)
        assert isinstance(lazy, da.Array)
        assert lazy.chunks[0] == da.from_zarr(path).chunks[0]
        np.testing.assert_array_equal(lazy.compute(), expected)
    lazy = model.regress([2], str(tmp_path / "part.zarr"))
    expected = model.regress([2], X[:, :2])
    for name in ("mean", "std"):
        values = getattr(lazy, name)
        assert values.chunks == (da.from_zarr(path).chunks[0], (1,))
        np.testing.assert_allclose(values.compute(), getattr(expected, name), rtol=1e-12)
    assert model.regress(2, X[:, :2].astype("f4")).mean.dtype == np.float64
    single = fit(X.astype("f4"))
    assert single.regress(2, X[:, :2].astype("f4")).mean.dtype == np.float32
    assert single.mahalanobis(X.astype("f4")).dtype == np.float32
    assert single.marginal(0).means_.dtype == np.float32


def test_answers_of_tables_and_grids_are_theirs() -> None:
    pandas, xarray = pytest.importorskip("pandas"), pytest.importorskip("xarray")
    dd = pytest.importorskip("dask.dataframe")
    table = pandas.DataFrame(X, columns=NAMES, index=np.arange(N) + 7)
    model = fit(table)
    pvalues = model.outlier_pvalues(table, n_draws=500, as_frame=True)
    assert pvalues.name == "pvalues"
    assert pvalues.index.equals(table.index)
    lazy = model.regress("hue", dd.from_pandas(table, npartitions=3)).mean.compute()
    np.testing.assert_allclose(lazy, model.regress("hue", table).mean)
    assert lazy.index.equals(table.index)
    cells = xarray.DataArray(X.reshape(30, 30, D), dims=("y", "x", "v"))
    grid = GaussianMixture(2, features="v", random_state=0).fit(cells)
    assert grid.posterior_entropy(cells).dims == ("y", "x")
    found = grid.regress(2, cells[:, :, :2])
    assert found.mean.shape == (30, 30)
    np.testing.assert_allclose(
        found.std.values.ravel(), grid.set_params(features=None).regress(2, X[:, :2]).std
    )


# -- distances and outliers ------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_distances_are_those_of_observed_columns(kind: str) -> None:
    model = fit(HOLES, missing_values="mar", covariance_type=kind)
    data = np.concatenate([X[:20], HOLES[:40], np.full((1, D), np.nan)])
    found = model.mahalanobis(data)
    for n, row in enumerate(data):
        seen = np.flatnonzero(~np.isnan(row))
        for k, S in enumerate(matrices(model)):
            apart = row[seen] - model.means_[k, seen]
            expected = apart @ np.linalg.solve(S[np.ix_(seen, seen)], apart)
            assert found[n, k] == pytest.approx(np.sqrt(expected), rel=1e-9, abs=1e-9)


MODELS: dict[str, Callable[[], Any]] = {
    "full": fit,
    "one": lambda: fit(n_components=1),
    "tied": lambda: fit(X.astype("f4"), covariance_type="tied"),
    "bayesian": lambda: BayesianGaussianMixture(5, random_state=0).fit(X),
    "student-t": lambda: StudentTMixture(2, df=4, random_state=0).fit(X),
    "factor": lambda: FactorMixture(2, random_state=0).fit(X),
}


@pytest.mark.parametrize("name", MODELS)
def test_pvalues_are_uniform_on_the_model_s_own_data(name: str) -> None:
    model = MODELS[name]()
    drawn, _ = model.set_params(random_state=5).sample(3000)
    found = model.outlier_pvalues(drawn, n_draws=20_000)
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    assert abs((found < 0.01).sum() - 30) < 4 * np.sqrt(30)
    assert model.outlier_pvalues(drawn[:1] + 99.0)[0] <= 1e-5


def test_pvalues_of_one_component_are_exact_and_draws_find_them() -> None:
    model = fit(n_components=1)
    squared = model.mahalanobis(X)[:, 0] ** 2
    np.testing.assert_allclose(model.outlier_pvalues(X), stats.chi2.sf(squared, D), rtol=1e-9)
    # Two components that are the same have no other density.
    twice = GaussianMixture(
        2,
        max_iter=0,
        weights_init=[0.5, 0.5],
        means_init=np.repeat(model.means_, 2, axis=0),
        precisions_init=np.repeat(model.precisions_, 2, axis=0),
    ).fit(X)
    np.testing.assert_allclose(
        twice.outlier_pvalues(X, n_draws=40_000), model.outlier_pvalues(X), atol=0.012
    )


@pytest.mark.parametrize("k", [1, 3])
def test_pvalues_of_rows_with_holes_are_uniform_for_each_pattern(k: int) -> None:
    model = fit(HOLES, missing_values="mar", n_components=k)
    drawn, _ = model.set_params(random_state=1).sample(3000)
    drawn[::3, 1] = np.nan
    drawn[1::3, [0, 2]] = np.nan
    found = model.outlier_pvalues(drawn, n_draws=20_000)
    for first in range(3):
        assert stats.kstest(found[first::3], "uniform").pvalue > 1e-3
    assert model.outlier_pvalues(np.full((1, D), np.nan))[0] == 1.0


def test_rows_without_an_answer_have_none() -> None:
    model = fit()
    with pytest.raises(DataError, match="NaN at row 2"):
        model.mahalanobis(np.where(np.arange(5)[:, None] == 2, np.nan, X[:5]))
    model.set_params(nonfinite="drop")
    data = X[:6].copy()
    data[4, 1] = np.inf
    for found in (
        model.mahalanobis(data),
        model.outlier_pvalues(data, n_draws=100),
        model.posterior_entropy(data),
        model.regress(0, data[:, 1:]).mean,
    ):
        assert np.isnan(found[4]).all()
        assert not np.isnan(np.delete(found, 4, axis=0)).any()
    tree = model.merge(data)
    assert tree.combine(data, 2)[4] == -1


# -- entropy, overlap, divergence ------------------------------------------------------


def test_entropies_are_those_of_the_joint() -> None:
    model = fit()
    resp = np.exp(log_joint(model, X))
    resp /= resp.sum(axis=1, keepdims=True)
    expected = -xlogy(resp, resp).sum(axis=1)
    np.testing.assert_allclose(model.posterior_entropy(X), expected, atol=1e-12)
    flat = model.marginal([0, 1])
    grid = np.linspace(-9, 12, 211)
    cells = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    log_p = flat.score_samples(cells)
    exact = -float((np.exp(log_p) * log_p).sum()) * (grid[1] - grid[0]) ** 2
    found = flat.entropy(n_draws=50_000)
    assert abs(found.value - exact) < 5 * found.standard_error
    assert found.standard_error < 0.01
    low, high = flat.entropy_bounds()
    assert low <= exact <= high
    one = fit(n_components=1)
    normal = multivariate_normal(one.means_[0], one.covariances_[0]).entropy()
    assert one.entropy_bounds() == pytest.approx((normal, normal))


@pytest.mark.parametrize("kind", [*KINDS, "VEV"])
def test_overlap_is_that_of_draws(kind: str) -> None:
    model = fit(covariance_type=kind)
    found, n = model.overlap(), 20_000
    drawn = model.overlap(n_draws=n, random_state=3)
    assert np.diagonal(found).tolist() == [1.0] * K
    assert (np.abs(found - drawn) < 5 * np.sqrt(found * (1 - found) / n) + 3 / n).all()


def test_overlap_of_two_normals_is_the_integral() -> None:
    means, widths, weights = np.array([0.0, 1.5]), np.array([1.0, 0.4]), np.array([0.7, 0.3])
    model = GaussianMixture(
        2,
        max_iter=0,
        weights_init=weights,
        means_init=means[:, None],
        precisions_init=widths[:, None, None] ** -2,
    ).fit(np.array([[0.0], [1.0]]))
    grid = np.linspace(-12, 12, 2_400_001)
    p = stats.norm.pdf(grid[:, None], means, widths)
    ahead = weights[1] * p[:, 1] > weights[0] * p[:, 0]
    step = grid[1] - grid[0]
    expected = [p[ahead, 0].sum() * step, p[~ahead, 1].sum() * step]
    assert model.overlap()[[0, 1], [1, 0]].tolist() == pytest.approx(expected, abs=2e-5)
    distance = -np.log(np.sqrt(p[:, 0] * p[:, 1]).sum() * step)
    assert model.bhattacharyya()[0, 1] == pytest.approx(distance, rel=1e-9)
    normals = model.mixture(model.state_.result.engine).components
    divergence = (p[:, 0] * np.log(np.maximum(p[:, 0], 1e-300) / np.maximum(p[:, 1], 1e-300))).sum()
    assert isinstance(normals, Gaussian)
    assert divergences(normals)[0, 1] == pytest.approx(divergence * step, rel=1e-6)


def test_distances_of_normals_are_symmetric_and_closed() -> None:
    model = fit()
    found, covariances = model.bhattacharyya(), matrices(model)
    np.testing.assert_array_equal(found, found.T)
    for i, j in combinations(range(K), 2):
        mean = (covariances[i] + covariances[j]) / 2
        apart = model.means_[i] - model.means_[j]
        logs = [np.linalg.slogdet(S)[1] for S in (mean, covariances[i], covariances[j])]
        expected = (
            apart @ np.linalg.solve(mean, apart) / 8 + (logs[0] - (logs[1] + logs[2]) / 2) / 2
        )
        assert found[i, j] == pytest.approx(expected)


def test_a_divergence_is_the_closed_form_where_there_is_one() -> None:
    one, other = fit(n_components=1), fit(rows(seed=4, offset=0.5), n_components=1)
    found = kl_divergence(one, other, n_draws=50_000)
    S, T = one.covariances_[0], other.covariances_[0]
    apart = other.means_[0] - one.means_[0]
    exact = np.trace(np.linalg.solve(T, S)) - D + apart @ np.linalg.solve(T, apart)
    exact = (exact + np.linalg.slogdet(T)[1] - np.linalg.slogdet(S)[1]) / 2
    assert abs(found.value - exact) < 5 * found.standard_error
    assert kl_divergence(one, one).value == 0.0
    assert found == kl_divergence(one, other, n_draws=50_000)
    # Of families that are nearly the same it is nearly nothing, and never below it.
    t = StudentTMixture(1, df=1e5).fit(X)
    assert abs(kl_divergence(one, t).value) < 1e-3
    variational = BayesianGaussianMixture(3, random_state=0).fit(X)
    assert 0 < kl_divergence(fit(), variational).value < 0.05


# -- standard errors -------------------------------------------------------------------


def example(kind: str) -> tuple[Gaussian, np.ndarray]:
    """Two components of a structure, and the free entries of their covariances."""
    rng = np.random.default_rng(2)
    A = rng.normal(size=(2, D, D))
    S = A @ A.transpose(0, 2, 1) + 0.5 * np.eye(D)
    upper = np.triu_indices(D)
    full = Whitening(np.arange(D) * 10.0, np.tril(rng.normal(size=(D, D))) + 2 * np.eye(D))
    columns, ball = (Whitening(full.shift, np.array(w)) for w in ([1.0, 2, 3], [2.0, 2, 2]))
    variances = np.einsum("kii->ki", S)
    made: tuple[Covariance, Whitening]
    free: np.ndarray
    if kind == "full":
        made, free = (Full(np.linalg.cholesky(S)), full), np.concatenate([s[upper] for s in S])
    elif kind == "tied":
        made, free = (Tied(np.linalg.cholesky(S[0])), full), S[0][upper]
    elif kind in ("diag", "EEI"):
        values = variances if kind == "diag" else np.tile(variances[:1], (2, 1))
        made, free = (
            (Diagonal(np.sqrt(values)), columns),
            values[: 1 if kind == "EEI" else 2].ravel(),
        )
    else:
        values = variances[:, 0] if kind == "spherical" else np.tile(variances[:1, 0], 2)
        made, free = (Spherical(np.sqrt(values)), ball), values[: 1 if kind == "EII" else 2]
    covariance, whitening = made
    means = np.array([[0.0, 10.0, 20.0], [1.5, 9.0, 21.0]])
    scaled = covariance.scaled(whitening.inverse_scale)
    return Gaussian(whitening.whiten(means), scaled, whitening, 0.0, kind), free


def log_density(theta: np.ndarray, kind: str, data: np.ndarray) -> np.ndarray:
    """log p(x) of rows that may have holes, by SciPy, of parameters in one vector."""
    weights, rest = np.array([theta[0], 1 - theta[0]]), theta[1 + 2 * D :]
    means = theta[1 : 1 + 2 * D].reshape(2, D)
    n = len(rest) if kind in ("tied", "EEI", "EII") else len(rest) // 2
    joint = np.empty((len(data), 2))
    for k in range(2):
        own = rest[:n] if len(rest) == n else rest[k * n : (k + 1) * n]
        S = np.eye(D) * own[0] if n == 1 else np.diag(own) if n == D else np.zeros((D, D))
        if n > D:
            S[np.triu_indices(D)] = own
            S = S + np.triu(S, 1).T
        for pattern in np.unique(np.isnan(data), axis=0):
            alike, seen = (np.isnan(data) == pattern).all(axis=1), ~pattern
            normal = multivariate_normal(means[k][seen], S[np.ix_(seen, seen)])
            joint[alike, k] = np.log(weights[k]) + normal.logpdf(data[alike][:, seen])
    return np.asarray(np.logaddexp(joint[:, 0], joint[:, 1]))


@pytest.mark.parametrize("holes", [False, True], ids=["whole", "holes"])
@pytest.mark.parametrize("kind", WITH_ERRORS)
def test_standard_errors_are_those_of_numeric_scores(kind: str, holes: bool) -> None:
    normals, free = example(kind)
    rng = np.random.default_rng(3)
    data = np.concatenate([normals.sample(0, 120, rng), normals.sample(1, 180, rng)])
    weight = rng.integers(0, 3, len(data)).astype(float)
    if holes:
        data[rng.random(data.shape) < 0.15] = np.nan
        data = data[~np.isnan(data).all(axis=1)]
        weight, normals = weight[: len(data)], with_missing(normals)
    mixture = Mixture(np.log([0.4, 0.6]), normals)
    fold = Information(mixture, normals).fold()
    fold.update(0, data, weight)
    found = standard_errors(mixture, normals, fold.result().products, {})
    theta = np.concatenate([[0.4], normals.whitening.unwhiten(normals.means).ravel(), free])
    scores = []
    for j, step in enumerate(1e-5 * np.maximum(1, np.abs(theta))):
        ends = [theta + sign * step * (np.arange(len(theta)) == j) for sign in (1, -1)]
        up, down = (log_density(end, kind, data) for end in ends)
        scores.append((up - down) / (2 * step))
    S = np.array(scores)
    inverse = inverse_information((S * weight) @ S.T)
    assert inverse is not None
    expected = np.sqrt(np.diagonal(inverse))
    errors = found["covariances_"]
    if kind in ("full", "tied"):
        upper = np.triu_indices(D)
        of_free = np.concatenate([e[upper] for e in errors.reshape(-1, D, D)])
    else:
        of_free = errors.ravel()[: len(free)]
    np.testing.assert_allclose(found["weights_"], expected[[0, 0]], rtol=1e-6)
    np.testing.assert_allclose(found["means_"].ravel(), expected[1 : 1 + 2 * D], rtol=1e-6)
    np.testing.assert_allclose(of_free, expected[1 + 2 * D :], rtol=1e-6)


def test_standard_errors_are_one_pass_over_any_source(tmp_path: Path) -> None:
    model = fit()
    expected = model.standard_errors(X)
    write_zarr(tmp_path / "x.zarr", X, CHUNK)
    for name, errors in model.standard_errors(str(tmp_path / "x.zarr")).items():
        np.testing.assert_allclose(errors, expected[name], rtol=1e-9)
        assert errors.shape == getattr(model, name).shape
    # A row of weight four counts as four rows.
    four = model.standard_errors(X, sample_weight=np.full(N, 4.0))
    thrice = model.standard_errors(np.concatenate([X, X, X, X]))
    for name, errors in four.items():
        np.testing.assert_allclose(errors, expected[name] / 2, rtol=1e-9)
        np.testing.assert_allclose(errors, thrice[name], rtol=1e-9)


def test_standard_errors_of_what_is_held_are_none() -> None:
    known: dict[str, Any] = {
        "weights_init": np.full(2, 0.5),
        "means_init": MEANS[:2],
        "precisions_init": np.stack([np.eye(D)] * 2),
    }
    model = GaussianMixture(2, fixed={"means": [0], "weights": None}, **known).fit(X)
    found = model.standard_errors(X)
    assert found["weights_"].tolist() == [0.0, 0.0]
    assert not found["means_"][0].any()
    assert found["means_"][1].all()
    assert found["covariances_"].all()
    # Fewer parameters have no larger errors.
    free = GaussianMixture(2, max_iter=0, **known).fit(X)
    for name in ("means_", "covariances_", "weights_"):
        setattr(free, name, getattr(model, name))
    free.precisions_cholesky_ = model.precisions_cholesky_
    assert (free.standard_errors(X)["means_"][1] >= found["means_"][1] * (1 - 1e-9)).all()


def test_weights_that_share_what_others_leave_have_the_errors_of_one() -> None:
    normals, _ = example("full")
    three = normals.joined([normals, normals.take([0])])
    means = three.means + 0.7 * (np.arange(3) == 2)[:, None]
    shifted = Gaussian(means, three.covariance, three.whitening)
    mixture = Mixture(np.log([0.5, 0.3, 0.2]), shifted)
    rng = np.random.default_rng(0)
    data = np.concatenate([shifted.sample(k, 100, rng) for k in range(3)])
    fold = Information(mixture, shifted).fold()
    fold.update(0, data, None)
    held = {"weights": [1], "means": range(3), "covariances": range(3)}
    found = standard_errors(mixture, shifted, fold.result().products, held)["weights_"]
    joint = shifted.log_prob(data) + mixture.log_weights
    resp = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])
    # With w_2 = 0.7 - w_0 the score is r_0 / w_0 - r_2 / w_2.
    expected = ((resp[:, 0] / 0.5 - resp[:, 2] / 0.2) ** 2).sum() ** -0.5
    assert found.tolist() == pytest.approx([expected, 0.0, expected])


def test_standard_errors_that_nothing_tells_are_nan() -> None:
    twice = GaussianMixture(
        2,
        max_iter=0,
        weights_init=[0.5, 0.5],
        means_init=np.zeros((2, D)),
        precisions_init=np.stack([np.eye(D)] * 2),
    ).fit(X)
    assert all(np.isnan(errors).all() for errors in twice.standard_errors(X).values())
    with pytest.raises(UsageError, match="not of this model's: VEV"):
        fit(covariance_type="VEV").standard_errors(X)
    with pytest.raises(UsageError, match="max_ratio"):
        fit(max_ratio=10.0).standard_errors(X)


def covered(model: FittedEstimator, errors: dict[str, np.ndarray], truth: dict[str, Any]) -> Any:
    """Which true parameters lie within 1.96 standard errors of the estimates."""
    return np.concatenate(
        [
            (np.abs(getattr(model, name) - value) < 1.96 * errors[name]).ravel()
            for name, value in truth.items()
        ]
    )


def coverage(kind: str, n_fits: int, n_rows: int = 1000) -> dict[str, float]:
    """The share of intervals that cover the truth, of weights, means and covariances."""
    S = np.array([[[1.0, 0.4], [0.4, 1.0]], [[1.0, -0.3], [-0.3, 0.5]]])
    means, weights = np.array([[0.0, 0.0], [3.0, 1.0]]), np.array([0.4, 0.6])
    truths: dict[str, Any] = {
        "full": S,
        "tied": S[0],
        "diag": np.einsum("kii->ki", S),
        "spherical": np.array([1.0, 0.5]),
    }
    k = np.eye(2)
    spread = {
        "full": S,
        "tied": S[[0, 0]],
        "diag": truths["diag"][:, :, None] * k,
        "spherical": truths["spherical"][:, None, None] * k,
    }[kind]
    truth = {"weights_": weights, "means_": means, "covariances_": truths[kind]}
    inside = []
    for seed in range(n_fits):
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(n_rows, weights)
        data = np.concatenate(
            [rng.multivariate_normal(means[i], spread[i], m) for i, m in enumerate(counts)]
        )
        start: dict[str, Any] = {"means_init": means, "precisions_init": np.linalg.inv(spread)}
        if kind == "tied":
            start["precisions_init"] = start["precisions_init"][0]
        elif kind != "full":
            start["precisions_init"] = 1 / truths[kind]
        model = GaussianMixture(
            2, covariance_type=kind, tol=1e-7, reg_covar=0, weights_init=weights, **start
        ).fit(data)
        inside.append(covered(model, model.standard_errors(data), truth))
    share = np.mean(inside, axis=0)
    parts = np.cumsum([2, 4])
    return dict(zip(truth, (float(p.mean()) for p in np.split(share, parts)), strict=True))


@pytest.mark.parametrize("kind", ["full", "spherical"])
def test_intervals_cover_the_truth(kind: str) -> None:
    found = coverage(kind, 40)
    assert all(0.88 < share < 0.995 for share in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_intervals_cover_the_truth_in_95_of_100_fits(kind: str) -> None:
    found = coverage(kind, 400, 2000)
    assert all(0.93 <= share <= 0.97 for share in found.values()), found


# -- clusters of several components, and their order -----------------------------------


def by_hand(resp: np.ndarray, weights: np.ndarray) -> tuple[list[set[int]], list[float]]:
    """clustCombi as its paper writes it: merge what lowers sum t log t most, one at a time."""
    members = [{i} for i in range(resp.shape[1])]
    clusters, entropies = [*resp.T], list[float]()

    def entropy(parts: list[np.ndarray]) -> float:
        return -float(sum((weights * xlogy(t, t)).sum() for t in parts)) / float(weights.sum())

    entropies.append(entropy(clusters))
    merged = []
    while len(clusters) > 1:
        tried: dict[tuple[int, int], float] = {}
        for i, j in combinations(range(len(clusters)), 2):
            rest = [t for n, t in enumerate(clusters) if n not in (i, j)]
            tried[i, j] = entropy([*rest, clusters[i] + clusters[j]])
        i, j = min(tried, key=tried.__getitem__)
        both, group = clusters[i] + clusters[j], members[i] | members[j]
        clusters = [t for n, t in enumerate(clusters) if n not in (i, j)] + [both]
        members = [m for n, m in enumerate(members) if n not in (i, j)] + [group]
        entropies.append(entropy(clusters))
        merged.append(group)
    return merged, entropies


def groups_of(pairs: np.ndarray, k: int) -> list[set[int]]:
    members = [{i} for i in range(k)]
    for i, j in pairs:
        members.append(members[i] | members[j])
    return members[k:]


def test_mergers_are_those_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    resp = rng.dirichlet(np.full(7, 0.2), 300)
    weights = rng.integers(1, 4, 300).astype(float)
    found = merged_by_entropy(resp, weights)
    merged, entropies = by_hand(resp, weights)
    assert groups_of(found.pairs, 7) == merged
    np.testing.assert_allclose(found.entropies, entropies, atol=1e-12)
    repeated = merged_by_entropy(
        np.repeat(resp, weights.astype(int), axis=0), np.ones(int(weights.sum()))
    )
    assert repeated.pairs.tolist() == found.pairs.tolist()


def test_the_elbow_is_where_two_lines_part() -> None:
    # Steep while components of one cluster are merged, flat when clusters are.
    entropies = np.array([1.0, 0.7, 0.4, 0.1, 0.05, 0.0])
    chain = np.array([[0, 1], [2, 6], [3, 7], [4, 8], [5, 9]])
    assert Mergers(chain, entropies).elbow(np.array([1.0, 0, 1, 1, 1, 1])) == 3
    assert Mergers(chain[:0], np.zeros(1)).elbow(np.ones(1)) == 1


def test_clusters_that_are_no_normals_are_put_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    turn = rng.uniform(0, np.pi, 2000)
    half = np.repeat([0, 1], 1000)
    data = np.column_stack(
        [np.cos(turn) + half, np.where(half, 0.3 - np.sin(turn), np.sin(turn))]
    ) + rng.normal(scale=0.05, size=(2000, 2))
    model = GaussianMixture(8, random_state=0).fit(data)
    tree = model.merge(data)
    labels = tree.combine(data, 2)
    agree = (labels == half).mean()
    assert max(agree, 1 - agree) > 0.98
    assert (np.diff(tree.entropies) <= 1e-12).all()
    assert tree.entropies[0] == pytest.approx(model.posterior_entropy(data).mean())
    assert tree.n_rows == 2000
    assert 2 <= tree.n_clusters <= 6
    np.testing.assert_array_equal(tree.combine(data, 8), model.predict(data))
    assert not tree.combine(data, 1).any()
    assert is_valid_linkage(tree.linkage)
    cut = fcluster(tree.linkage, 2, "maxclust")
    assert len({*zip(cut.tolist(), tree.clusters(2).tolist(), strict=True)}) == 2
    write_zarr(tmp_path / "moons.zarr", data, 300)
    lazy = tree.combine(str(tmp_path / "moons.zarr"), 2)
    np.testing.assert_array_equal(lazy.compute(), labels)
    some = model.merge(str(tmp_path / "moons.zarr"), sample_size=1500)
    assert some.n_rows == 1500
    np.testing.assert_allclose(some.entropies, tree.entropies, atol=0.05)


def test_components_are_put_in_order() -> None:
    model = fit(fixed=None)
    for found, keys in (
        (model.sorted(), -model.weights_),
        (model.sorted(2), model.means_[:, 2]),
    ):
        order = np.argsort(keys)
        np.testing.assert_array_equal(found.weights_, model.weights_[order])
        np.testing.assert_array_equal(found.means_, model.means_[order])
        np.testing.assert_array_equal(order[found.predict(X)], model.predict(X))
        np.testing.assert_allclose(found.score_samples(X), model.score_samples(X), rtol=1e-12)
        assert found.lower_bound_ == model.lower_bound_
        assert found.get_params() == model.get_params()
    held = GaussianMixture(
        2, fixed={"means": [0]}, means_init=[[2.0], [0.0]], precisions_init=np.ones((2, 1, 1))
    ).fit(X[:, :1])
    assert held.sorted(0).fixed == {"means": [1]}
    t = StudentTMixture(2, random_state=0).fit(X).sorted(0)
    assert t.means_[0, 0] < t.means_[1, 0]


def test_in_columns_is_the_same_distribution() -> None:
    normals, _ = example("full")
    moved = in_columns(normals)
    data = normals.sample(0, 20, np.random.default_rng(0))
    assert moved.whitening.scale.ndim == 1
    np.testing.assert_allclose(moved.log_prob(data), normals.log_prob(data), rtol=1e-12)


# -- in a shell ------------------------------------------------------------------------


def test_a_shell_writes_pvalues_distances_and_entropies(tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", X, CHUNK)
    model = fit()
    model.save(tmp_path / "m.npz")
    paths = [str(tmp_path / name) for name in ("m.npz", "x.zarr", "out.zarr")]
    options = ["--pvalues", "--mahalanobis", "--entropy"]
    done = CliRunner().invoke(main, ["predict", *paths, *options])
    assert done.exit_code == 0, done.output
    assert "out.zarr/pvalues" in done.output
    written = zarr.open_group(paths[2], mode="r")
    for name, expected in (
        ("labels", model.predict(X)),
        ("pvalues", model.outlier_pvalues(X)),
        ("mahalanobis", model.mahalanobis(X)),
        ("entropy", model.posterior_entropy(X)),
    ):
        array: Any = written[name]
        np.testing.assert_array_equal(array[:], expected)
    parquet = pytest.importorskip("pyarrow.parquet")
    paths[2] = str(tmp_path / "out.parquet")
    assert CliRunner().invoke(main, ["predict", *paths, *options]).exit_code == 0
    names = ["labels", "entropy", "pvalues", *(f"mahalanobis_{k}" for k in range(K))]
    assert parquet.read_table(paths[2]).column_names == names
    KMeans(2, random_state=0).fit(X).save(tmp_path / "k.npz")
    for option, said in (("--pvalues", "no p-values"), ("--mahalanobis", "no Mahalanobis")):
        refused = ["predict", str(tmp_path / "k.npz"), paths[1], str(tmp_path / "no.zarr"), option]
        done = CliRunner().invoke(main, refused)
        assert done.exit_code == 2
        assert said in done.output
        assert not (tmp_path / "no.zarr").exists()


def test_questions_of_models_with_noise() -> None:
    """What is known of components alone is refused by name where some rows are noise."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(300, 2)), rng.uniform(-20, 20, (200, 2))])
    model = GaussianMixture(1, noise=True, random_state=0).fit(X)
    assert model.mahalanobis(X).shape == (500, 1)
    assert (model.posterior_entropy(X) <= np.log(2) + 1e-12).all()
    refused: dict[str, Any] = {
        "outlier_pvalues": lambda: model.outlier_pvalues(X),
        "the density": lambda: model.entropy(),
        "overlap": lambda: model.overlap(),
        "merge": lambda: model.merge(X),
        "marginal": lambda: model.marginal([0]),
        "conditional": lambda: model.conditional({0: 1.0}),
        "standard_errors": lambda: model.standard_errors(X),
    }
    for name, ask in refused.items():
        with pytest.raises(UsageError, match=f"^{name} is known of components alone"):
            ask()
    deconvolved = GaussianMixture(1, random_state=0).fit(X, noise_covariance=np.full((500, 2), 0.1))
    with pytest.raises(UsageError, match="without known noise"):
        deconvolved.standard_errors(X)
    assert deconvolved.marginal([0]).means_.shape == (1, 1)
