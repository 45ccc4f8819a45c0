"""Mixtures of factor analyzers: the papers' formulas, the laws, and pgmm's values."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from click.testing import CliRunner, Result
from helpers import write_zarr
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal

from dask_em import FactorMixture, GaussianMixture, load, select
from dask_em.backends.serial import SerialBackend
from dask_em.cli.main import main
from dask_em.core.additive import Array
from dask_em.core.moments import Moments
from dask_em.core.tuning import tuning, use_tuning
from dask_em.data.memory import ArraySource
from dask_em.families.factor.constraints import NAMES
from dask_em.families.factor.family import FactorAnalyzers
from dask_em.families.factor.options import FactorOptions
from dask_em.families.factor.principal import leading
from dask_em.families.factor.scatters import Scatter
from dask_em.fitting.survey import Survey
from dask_em.testing.families import N_DRAWS, FamilyTests

pytestmark = [
    pytest.mark.usefixtures("many_chunks"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

REFERENCES = Path(__file__).resolve().parents[2] / "shared/references/data"
WINE, COFFEE = REFERENCES / "pgmm_wine27.csv", REFERENCES / "pgmm_coffee.csv"

# pgmm 1.2.8 from the types of the wines, K = 3, q = 2: 2 log L - p log n.
PGMM = {"CUU": -12022.574219, "CCC": -12454.748946, "UUU": -11844.567176, "UCU": -11929.205763}
# By how much the optimum next to the types, in nats of all rows, is below where pgmm stopped: one
# row lies in another class.
BELOW = {"UCU": 0.22}


@cache
def drawn(n: int = 600, d: int = 6, q: int = 2, k: int = 2, seed: int = 0) -> Array:
    """Rows of k clusters that overlap, each with q factors."""
    rng = np.random.default_rng(seed)
    parts = []
    for i in range(k):
        loadings = rng.normal(size=(q, d))
        noise = np.sqrt(rng.uniform(0.3, 1.0, d))
        rows = rng.normal(size=(n // k, q)) @ loadings + noise * rng.normal(size=(n // k, d))
        parts.append(rows + 3.0 * i * rng.normal(size=d))
    return np.concatenate(parts)


def family_of(X: Array, constraint: str = "UUU", k: int = 2, q: int = 2) -> FactorAnalyzers:
    """Components near the halves of the rows."""
    found = FactorOptions(q, constraint).of_data(Moments.of(X), k)
    resp = np.full((len(X), k), 0.2 / k)
    for i, rows in enumerate(np.array_split(np.arange(len(X)), k)):
        resp[rows, i] += 0.8
    return found.near(X, resp)


class FactorTests(FamilyTests):
    constraint = "UUU"

    def rows(self) -> Array:
        return drawn()

    def family(self) -> FactorAnalyzers:
        return family_of(self.rows(), self.constraint)

    def test_the_m_step_of_draws_finds_the_component(self) -> None:
        # One step is not the likeliest of these, and where a column has next to no noise many are
        # needed: they are made on the covariance of the draws, which is all that they see of them.
        family = self.family()
        rows = family.sample(0, N_DRAWS, np.random.default_rng(2))
        resp = np.zeros((len(rows), family.n_components))
        resp[:, 0] = 1.0
        start = family.near(rows, resp + 1e-3)
        spread = start.whitening.whiten(rows) - start.means[0]
        seen = [Scatter.of_matrix(spread.T @ spread / len(rows))] * family.n_components
        gains = [
            (part.log_prob(rows)[:, 0] - family.log_prob(rows)[:, 0]).sum()
            for part in (start.fitted_to(resp.sum(axis=0), seen, n) for n in (0, 1, 10, 1500))
        ]
        assert (np.diff(gains) > -1e-6 * len(rows)).all(), gains
        # Twice the gain is about chi-squared of as many degrees as there are parameters.
        assert -1e-6 * len(rows) <= gains[-1] < 10 + 3 * family.n_parameters


class TestUUU(FactorTests):
    pass


@pytest.mark.slow
class TestUUC(FactorTests):
    constraint = "UUC"


@pytest.mark.slow
class TestUCU(FactorTests):
    constraint = "UCU"


@pytest.mark.slow
class TestCUU(FactorTests):
    constraint = "CUU"


@pytest.mark.slow
class TestUCC(FactorTests):
    constraint = "UCC"


@pytest.mark.slow
class TestCUC(FactorTests):
    constraint = "CUC"


@pytest.mark.slow
class TestCCU(FactorTests):
    constraint = "CCU"


class TestCCC(FactorTests):
    constraint = "CCC"


def covariances(family: FactorAnalyzers) -> Array:
    """Full matrices in the units of the data."""
    found = family.attributes()
    loadings, noise = found["loadings_"], found["noise_variances_"]
    noise = noise[:, None] if noise.ndim == 1 else noise
    eye = np.eye(loadings.shape[1])
    return loadings @ np.swapaxes(loadings, 1, 2) + noise[:, :, None] * eye


@pytest.mark.parametrize("constraint", NAMES)
def test_densities_are_those_of_the_full_covariance(constraint: str) -> None:
    X = drawn()
    family = family_of(X, constraint)
    found, means = family.log_prob(X), family.attributes()["means_"]
    for k, matrix in enumerate(covariances(family)):
        assert_allclose(found[:, k], multivariate_normal.logpdf(X, means[k], matrix), rtol=1e-10)


def plain_step(X: Array, resp: Array, family: FactorAnalyzers) -> tuple[Array, Array, Array]:
    """One step of EM by Ghahramani and Hinton's equations, of explicit matrices."""
    told = family.attributes()
    means, loadings, noise = [], [], []
    for k, L in enumerate(told["loadings_"]):
        q = L.shape[1]
        beta = L.T @ np.linalg.inv(L @ L.T + np.diag(told["noise_variances_"][k]))
        D, r = X - told["means_"][k], resp[:, k]
        z = D @ beta.T
        V = np.eye(q) - beta @ L
        augmented = np.column_stack([z, np.ones(len(X))])
        second = (augmented * r[:, None]).T @ augmented
        second[:q, :q] += r.sum() * V
        both = (X * r[:, None]).T @ augmented @ np.linalg.inv(second)
        psi = ((X * r[:, None]).T @ X - both @ ((augmented * r[:, None]).T @ X)) / r.sum()
        means.append(both[:, q])
        loadings.append(both[:, :q])
        noise.append(np.diag(psi))
    return np.array(means), np.array(loadings), np.array(noise)


def test_a_step_is_that_of_the_paper() -> None:
    X = drawn()
    family = family_of(X)
    resp = np.random.default_rng(1).dirichlet([1.0, 1.0], len(X))
    after, kept = family.maximize(resp.sum(axis=0), family.sufficient_statistics(X, resp))
    assert not list(kept)
    told = after.attributes()
    for name, value in zip(
        ("means_", "loadings_", "noise_variances_"), plain_step(X, resp, family), strict=True
    ):
        assert_allclose(told[name], value, rtol=1e-8, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("constraint", NAMES)
def test_what_is_shared_stays_shared(constraint: str) -> None:
    X = drawn()
    family = family_of(X, constraint)
    resp = np.random.default_rng(1).dirichlet([1.0, 1.0], len(X))
    total = resp.sum(axis=0)
    for _ in range(3):
        sums = family.sufficient_statistics(X, resp)
        value = family.expected_log_joint(np.zeros(2), total, sums)
        family, _ = family.maximize(total, sums)
        after = family.expected_log_joint(np.zeros(2), total, family.sufficient_statistics(X, resp))
        assert after >= value - 1e-9 * abs(value)
    one, other = family.loadings
    assert np.array_equal(one, other) == (constraint[0] == "C")
    assert np.array_equal(*family.noise) == (constraint[1] == "C")
    assert family.noise.shape[1] == (1 if constraint[2] == "C" else X.shape[1])
    assert FactorOptions(2, constraint).n_parameters(2, 6) == family.n_parameters


def test_a_subspace_holds_the_largest_eigenvalues() -> None:
    rng = np.random.default_rng(0)
    d = 300
    factors = rng.normal(size=(d, 3))
    matrix = factors @ factors.T + np.diag(rng.uniform(0.5, 1.0, d))
    values, vectors = leading(lambda V: matrix @ V, d, 3)
    values, vectors = values[:3], vectors[:, :3]
    assert_allclose(values, np.linalg.eigvalsh(matrix)[:-4:-1], rtol=1e-9)
    assert_allclose(matrix @ vectors, vectors * values, atol=1e-3)


@pytest.mark.parametrize("constraint", ["UUU", "UUC", "CUU"])
def test_offsets_and_scales_change_nothing(constraint: str) -> None:
    X = drawn()
    few: dict[str, Any] = {
        "n_factors": 2,
        "factor_constraint": constraint,
        "reg_covar": 0,
        "random_state": 0,
    }
    here = FactorMixture(2, max_iter=5, **few).fit(X)
    there = FactorMixture(2, max_iter=5, **few).fit(64.0 * X + 1e8)
    assert there.lower_bound_ + 6 * np.log(64.0) == pytest.approx(here.lower_bound_, abs=1e-5)
    assert_allclose(there.loadings_**2, 64.0**2 * here.loadings_**2, rtol=1e-2, atol=1e-2)


def test_the_model_is_told_and_saved(tmp_path: Path) -> None:
    X = drawn()
    model = FactorMixture(2, n_factors=2, random_state=0).fit(X)
    components = model.state_.result.components
    assert isinstance(components, FactorAnalyzers)
    assert_allclose(model.covariances_, covariances(components))
    assert "2 factors, own loadings" in model.describe().structure
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert_allclose(again.score_samples(X), model.score_samples(X), rtol=1e-12)
    p = 2 * (6 + 6 * 2 - 1 + 6) + 1
    assert model.bic(X) == pytest.approx(-2 * len(X) * model.score(X) + p * np.log(len(X)))
    rows, _ = model.sample(300)
    assert rows.shape == (300, 6)
    warm = again.set_params(warm_start=True).fit(X)
    assert warm.lower_bound_ >= model.lower_bound_ - 1e-9


def test_a_sweep_takes_the_constraints() -> None:
    found = select(
        drawn(), [1, 2], ["UUU", "UUC", "CCC"], random_state=0,
        estimator=FactorMixture(n_factors=2),
    )  # fmt: skip
    assert len(found.table) == 6
    assert {row["factor_constraint"] for row in found.table} == {"UUU", "UUC", "CCC"}
    assert found.best.n_components == 2


def test_errors_say_what_to_do() -> None:
    X = drawn()
    with pytest.raises(ValueError, match=r"n_factors=6 with X of 6 columns.*lower n_factors"):
        FactorMixture(2, n_factors=6).fit(X)
    with pytest.raises(ValueError, match="n_factors"):
        FactorMixture(2, n_factors=0).fit(X)
    with pytest.raises(ValueError, match=r"FactorMixture.*'UUC'"):
        GaussianMixture(2, covariance_type="lowrank").fit(X)
    model = FactorMixture(2, n_factors=2, random_state=0, warm_start=True).fit(X)
    with pytest.raises(ValueError, match="warm_start=True, but the last fit was of"):
        model.set_params(n_factors=1).fit(X)


def test_many_columns_have_few_sums() -> None:
    X = drawn(300, 300, 3)
    model = FactorMixture(2, n_factors=3, max_iter=5, random_state=0).fit(X)
    family = model.state_.result.components
    sums = model.state_.statistics.components
    assert sums.nbytes == family.statistics_bytes < 2 * 8 * 300 * 8
    assert {*np.bincount(model.predict(X)).tolist()} == {150}
    assert (
        model.lower_bound_
        > GaussianMixture(2, covariance_type="diag", random_state=0).fit(X).lower_bound_
    )
    assert family.structure.startswith("UUU")


def table_of(path: Path, first: int) -> tuple[Array, Array]:
    """Classes and scaled columns of a table of pgmm's."""
    with path.open() as file:
        _, *rows = csv.reader(file)
    classes = np.array([int(row[0]) for row in rows]) - 1
    X = np.array([row[first:] for row in rows], dtype=np.float64)
    return classes, (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)


def to_the_end(k: int, constraint: str) -> FactorMixture:
    return FactorMixture(
        k, n_factors=2, factor_constraint=constraint, reg_covar=0, tol=1e-7, max_iter=2000,
        random_state=0,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not WINE.exists(), reason="the reference data are not here")
@pytest.mark.parametrize("constraint", PGMM)
def test_wine_is_as_likely_as_by_pgmm(constraint: str) -> None:
    types, X = table_of(WINE, 1)
    model = to_the_end(3, constraint).fit(X, labels_init=types)
    assert -model.bic(X) >= PGMM[constraint] - 2 * BELOW.get(constraint, 1e-2)
    if constraint not in BELOW:
        assert to_the_end(3, constraint).fit(X).score(X) >= model.score(X) - 1e-5


@pytest.mark.slow
@pytest.mark.skipif(not COFFEE.exists(), reason="the reference data are not here")
def test_nested_models_of_coffee_are_less_likely() -> None:
    varieties, X = table_of(COFFEE, 2)
    found = {}
    for name in NAMES:
        told = to_the_end(2, name).fit(X, labels_init=varieties).score(X) * len(X)
        found[name] = to_the_end(2, name).fit(X).score(X) * len(X)
        assert found[name] >= told - 1e-2
    for name in NAMES:
        for i in range(3):
            freer = name[:i] + "U" + name[i + 1 :]
            assert found[freer] >= found[name] - 1e-2, (freer, name)


def test_labels_give_each_class_its_own_factors() -> None:
    X = drawn()
    classes = np.repeat([0, 1], 300)
    model = FactorMixture(2, n_factors=2, reg_covar=0, algorithm="em", max_iter=1)
    model.fit(X, labels_init=classes)
    start = model.state_.mixture.components
    assert isinstance(start, FactorAnalyzers)
    for k, matrix in enumerate(covariances(start)):
        own = np.cov(X[classes == k].T, ddof=0)
        assert np.abs(matrix - own).max() < 0.1 * np.abs(own).max()
        assert_allclose(np.diagonal(matrix), np.diagonal(own), rtol=1e-6)


def test_a_sketch_shows_the_factors_of_very_many_columns() -> None:
    X, q = drawn(600, 400, 3), 3
    options, moments = FactorOptions(q), Moments.none(400, joint=False)
    moments += Moments(600.0, X.mean(axis=0), 600 * X.var(axis=0), X.min(axis=0), X.max(axis=0))
    at = options.to_sum_labels(moments, 2)
    resp = np.repeat(np.eye(2), 300, axis=0)
    sums = at.sufficient_statistics(X, resp)
    for found in options.of_labels(moments, at, np.array([300.0, 300.0]), sums):
        for k, L in enumerate(found.attributes()["loadings_"]):
            rows = X[300 * k : 300 * (k + 1)]
            _, _, axes = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
            shown = np.linalg.svd(axes[:q] @ np.linalg.qr(L)[0], compute_uv=False)
            assert shown.min() > 0.97


def test_many_factors_are_the_full_model() -> None:
    """With d (d + 1) / 2 free numbers and more, a covariance of factors is any."""
    X = drawn(600, 5, 2)
    classes = np.repeat([0, 1], 300)
    options: dict[str, Any] = {"reg_covar": 0, "tol": 1e-9, "max_iter": 5000}
    full = GaussianMixture(2, **options).fit(X, labels_init=classes)
    factors = FactorMixture(2, n_factors=4, **options).fit(X, labels_init=classes)
    assert factors.lower_bound_ == pytest.approx(full.lower_bound_, abs=1e-6)
    assert_allclose(factors.covariances_, full.covariances_, rtol=1e-2, atol=1e-2)
    assert_allclose(factors.means_, full.means_, atol=1e-3)


def test_rows_of_few_factors_are_as_likely_as_by_the_full_model() -> None:
    """Its likelihood is higher by chance alone: half a nat for each number that it has more."""
    X = drawn(10_000, 6, 2)
    options: dict[str, Any] = {"tol": 1e-8, "max_iter": 500, "random_state": 0}
    full = GaussianMixture(2, **options).fit(X)
    factors = FactorMixture(2, n_factors=2, **options).fit(X)
    more = full.state_.result.n_parameters - factors.state_.result.n_parameters
    gap = len(X) * (full.lower_bound_ - factors.lower_bound_)
    assert more > 0
    assert -1e-2 <= gap <= more / 2 + 4 * np.sqrt(more / 2)


@pytest.mark.parametrize("noise", [1e-8, 1e-2])
def test_both_ways_to_sum_are_one(noise: float) -> None:
    X = drawn()
    family = family_of(X)
    family = replace(family, log_noise=np.log(np.full_like(family.log_noise, noise)))
    resp = np.random.default_rng(1).dirichlet([0.3, 0.3], len(X))
    resp[resp < 0.3] = 0.0
    exact = tuning().with_changes(factor={"exact_below": 1e9})
    for dense in (0.0, 1.0):
        found = []
        with use_tuning(tuning().with_changes(factor={"exact_below": 0.0, "dense": dense})):
            found.append(answered(family, X, resp))
        with use_tuning(exact):
            found.append(answered(family, X, resp))
        for one, other in zip(*found, strict=True):
            assert_allclose(one, other, rtol=1e-15 / noise + 1e-9, atol=1e-7)


def answered(family: FactorAnalyzers, X: Array, resp: Array) -> list[Array]:
    """Log-densities, and sums of a kernel that has been asked for those."""
    kernel = family.kernel()
    kernel.load(X)
    log_prob = kernel.log_prob().copy()
    kernel.accumulate(np.ascontiguousarray(resp.T))
    return [log_prob, *vars(kernel.statistics()).values()]


def test_no_survey_sums_products_of_very_many_columns() -> None:
    X = drawn(600, 300, 3)
    joint = FactorOptions(3).joint_moments
    assert joint(200)
    assert not joint(300)
    survey = Survey(0, 10, 300, 600, joint=False)
    found = SerialBackend().map_reduce(ArraySource(X), survey)
    assert found.moments.scatter.shape == (300,)
    assert_allclose(found.moments.variances, X.var(axis=0), rtol=1e-10)
    assert found.nbytes < 1.1 * survey.result_bytes < 8 * 300 * 20
    weight = np.random.default_rng(0).integers(0, 3, 600).astype(float)
    weighted = SerialBackend().map_reduce(ArraySource(X, weight), survey)
    again = np.repeat(X, weight.astype(int), axis=0)
    assert_allclose(weighted.moments.variances, again.var(axis=0), rtol=1e-10)


def test_a_sweep_takes_numbers_of_factors(tmp_path: Path) -> None:
    X = drawn(400, 6, 2, k=1)
    found = select(
        X, [1, 2], estimator=FactorMixture, n_factors=[1, 2], random_state=0, keep_all=True,
        exhaustive=True, max_iter=20, n_init=1, checkpoint=tmp_path / "c",
    )  # fmt: skip
    rows = [(row["n_components"], row["n_factors"]) for row in found.table]
    assert rows == [(1, 1), (2, 1), (1, 2), (2, 2)]
    assert (found.best.n_components, found.best.n_factors) == (1, 2)
    for row, model in zip(found.table, found.models, strict=True):
        assert (row["n_components"], row["n_factors"]) == (model.n_components, model.n_factors)
    found.best.save(tmp_path / "m.npz")
    table = load(tmp_path / "m.npz").provenance_["sweep"]["table"]
    assert [row["n_factors"] for row in table] == [1, 1, 2, 2]
    with pytest.raises(ValueError, match="n_factors"):
        select(X, 1, estimator=FactorMixture, n_factors=[2, 2])


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


def test_the_shell_sweeps_numbers_of_factors(tmp_path: Path) -> None:
    write_zarr(data := tmp_path / "X.zarr", drawn(600, 8, 2, k=1), 300)
    output = tmp_path / "m.npz"
    found = run(
        "fit", data, "-k", 1, "--family", "factor", "--n-factors", "1:3", "--keep-all",
        "-o", output, "--threads", 1, "--exhaustive",
    )  # fmt: skip
    assert found.exit_code == 0, found.stderr
    assert "n_factors" in found.stdout.splitlines()[0]
    assert [line.split()[0] for line in found.stdout.splitlines()[1:4]] == ["1", "*", "1"]
    assert load(output).n_factors == 2
    assert load(tmp_path / "m-k1-UUU-q3.npz").n_factors == 3
    alone = run(
        "fit", data, "-k", 1, "--family", "factor", "--n-factors", 3, "-o", tmp_path / "n.npz",
        "--threads", 1,
    )  # fmt: skip
    assert alone.exit_code == 0, alone.stderr
    assert load(tmp_path / "n.npz").n_factors == 3
    for word, name in (("factor", "UUU"), ("lowrank", "UUC")):
        refused = run("fit", data, "-k", 1, "--covariance", word, "-o", tmp_path / "o.npz")
        assert f"--family factor --n-factors Q --covariance {name}" in refused.stderr


def test_a_plan_proposes_factors_where_covariances_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "wide.zarr"
    zarr.create_array(path, shape=(100_000, 600), chunks=(500, 600), dtype="f4")
    where = ("--memory-limit", "700MiB", "--threads", 1, "--no-probe")
    found = run("plan", path, "-k", 32, *where)
    assert found.exit_code == 2
    *_, words = found.stderr.partition("which fit: ")
    assert words.split() == ["--family", "factor", "--n-factors", "10"]
    fewer = run("plan", path, "-k", 32, *where, *words.split(), "--json")
    assert fewer.exit_code == 0, fewer.stderr
    told = json.loads(fewer.stdout)
    assert told["fits"]
    assert told["statistics_bytes"] < 8 * 32 * 600 * 14


@pytest.mark.parametrize(("word", "name"), [("factor", "UUU"), ("lowrank", "UUC")])
def test_names_of_others_lead_to_the_class(word: str, name: str) -> None:
    X = drawn()
    with pytest.raises(ValueError, match="covariances of few factors") as refused:
        GaussianMixture(2, covariance_type=word).fit(X)
    advice = str(refused.value).rpartition("those of ")[2].replace("=q", "=2")
    assert advice == f"FactorMixture(n_factors=2, factor_constraint='{name}')"
    model = FactorMixture(2, n_factors=2, factor_constraint=name, random_state=0).fit(X)
    assert model.noise_variances_.ndim == (1 if word == "lowrank" else 2)
