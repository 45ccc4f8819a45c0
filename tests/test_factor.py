"""Mixtures of factor analyzers: the papers' formulas, the laws, and pgmm's values."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal

from dask_em import FactorMixture, GaussianMixture, load, select
from dask_em.core.additive import Array
from dask_em.core.moments import Moments
from dask_em.families.factor.constraints import NAMES
from dask_em.families.factor.family import FactorAnalyzers
from dask_em.families.factor.options import FactorOptions
from dask_em.families.factor.principal import leading
from dask_em.testing.families import FamilyTests

pytestmark = [
    pytest.mark.usefixtures("many_chunks"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

WINE = Path(__file__).resolve().parents[2] / "shared/references/data/pgmm_wine27.csv"

# pgmm 1.2.8 from the types of the wines, K = 3, q = 2: 2 log L - p log n.
PGMM = {"CUU": -12022.574219, "CCC": -12454.748946}


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
    X = drawn(600, 400, 3)
    model = FactorMixture(2, n_factors=3, max_iter=10, random_state=0).fit(X)
    family = model.state_.result.components
    sums = model.state_.statistics.components
    assert sums.nbytes == family.statistics_bytes < 2 * 8 * 400 * 8
    assert {*np.bincount(model.predict(X)).tolist()} == {300}
    assert (
        model.lower_bound_
        > GaussianMixture(2, covariance_type="diag", random_state=0).fit(X).lower_bound_
    )
    assert family.structure.startswith("UUU")


@pytest.mark.skipif(not WINE.exists(), reason="the reference data are not here")
@pytest.mark.parametrize("constraint", PGMM)
def test_wine_is_as_likely_as_by_pgmm(constraint: str) -> None:
    with WINE.open() as file:
        _, *rows = csv.reader(file)
    table = np.array(rows, dtype=np.float64)
    types, X = table[:, 0].astype(int) - 1, table[:, 1:]
    X = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)
    model = FactorMixture(
        3, n_factors=2, factor_constraint=constraint, reg_covar=0, tol=1e-7, max_iter=2000
    ).fit(X, labels_init=types)
    assert -model.bic(X) >= PGMM[constraint] - 0.1
