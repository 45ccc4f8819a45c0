"""Gaussian mixtures with a conjugate prior, and with a bound on the eigenvalues."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import KINDS, blobs, start_cluster, write_zarr
from scipy import optimize, stats
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

from dask_em import GaussianMixture, load, select
from dask_em.cli.main import main
from dask_em.core.additive import Array
from dask_em.core.codec import digest
from dask_em.core.family import Family
from dask_em.core.mixture import Mixture
from dask_em.core.moments import Moments
from dask_em.core.undetermined import undetermined, undetermined_warnings
from dask_em.families.gaussian.options import GaussianOptions
from dask_em.families.gaussian.regularized import RegularizedGaussian, least_eigenvalue
from dask_em.testing.families import FamilyTests

N, D, K = 400, 3, 3
pytestmark = pytest.mark.usefixtures("many_chunks")


def family_of(kind: str, rows: Array, k: int = K, **options: Any) -> RegularizedGaussian:
    made = GaussianOptions(kind, **options).of_data(Moments.of(rows), k)
    resp = np.eye(k)[np.arange(len(rows)) % k] + 0.1
    near = made.near(rows, resp)
    found, _ = near.maximize(resp.sum(axis=0), near.sufficient_statistics(rows, resp))
    assert isinstance(found, RegularizedGaussian)
    return found


class RegularizedTests(FamilyTests):
    kind = "full"
    options: dict[str, Any] = {"prior": "conjugate"}  # noqa: RUF012

    def rows(self) -> Array:
        return blobs(N, D, K, seed=2, apart=1.5)[0] * [1.0, 2.0, 0.5] + [0.0, 100.0, 0.0]

    def family(self) -> Family[Any]:
        return family_of(self.kind, self.rows(), **self.options)

    def test_an_m_step_is_never_worse(self) -> None:
        family, rows, resp = self.family(), self.rows(), self.resp()
        total = resp.sum(axis=0)
        after, _ = family.maximize(total, family.sufficient_statistics(rows, resp))
        before, now = (
            (resp * f.log_prob(rows)).sum() + f.log_prior_density() for f in (family, after)
        )
        assert now >= before
        # No other parameters are better.
        rng = np.random.default_rng(0)
        vector = after.to_unconstrained()
        for _ in range(30):
            other = after.from_unconstrained(vector + 1e-3 * rng.normal(size=len(vector)))
            assert (resp * other.log_prob(rows)).sum() + other.log_prior_density() <= now + 1e-9

    def test_plain_em_never_gets_worse(self) -> None:
        mixture, rows, values = self.mixture(), self.rows(), []
        for _ in range(30):
            fold = mixture.fold()
            fold.update(0, rows, None)
            sums = fold.result()
            values.append(mixture.objective(sums))
            mixture = mixture.m_step(sums)[0]
        assert (np.diff(values) >= -1e-12).all()

    def test_the_m_step_of_draws_finds_the_component(self) -> None:
        # Nearly: the prior is in it.
        pass


class TestFull(RegularizedTests):
    pass


class TestTied(RegularizedTests):
    kind = "tied"


class TestDiag(RegularizedTests):
    kind = "diag"


class TestSpherical(RegularizedTests):
    kind = "spherical"


class TestEqualSpheres(RegularizedTests):
    kind = "EII"


class TestEqualDiagonals(RegularizedTests):
    kind = "EEI"


class TestFullRatio(RegularizedTests):
    options = {"max_ratio": 1.5}  # noqa: RUF012


class TestTiedRatio(RegularizedTests):
    kind = "tied"
    options = {"max_ratio": 1.5}  # noqa: RUF012


class TestDiagRatio(RegularizedTests):
    kind = "diag"
    options = {"max_ratio": 1.5}  # noqa: RUF012


class TestSphericalRatio(RegularizedTests):
    kind = "spherical"
    options = {"max_ratio": 1.2}  # noqa: RUF012


class TestBoth(RegularizedTests):
    options = {"prior": "conjugate", "max_ratio": 2.0}  # noqa: RUF012


# -- references -------------------------------------------------------------------------


def fit(X: Any, k: int = K, **options: Any) -> GaussianMixture:
    options = {"random_state": 0, "reg_covar": 0, "tol": 1e-10, "max_iter": 2000, **options}
    return GaussianMixture(k, **options).fit(X)


def test_iris_with_the_prior_is_that_of_mclust() -> None:
    X, species = load_iris(return_X_y=True)
    means = np.stack([X[species == k].mean(axis=0) for k in range(3)])
    precisions = np.stack([np.linalg.inv(np.cov(X[species == k].T)) for k in range(3)])
    for algorithm in ("em", "auto"):
        model = fit(
            X, 3, prior="conjugate", algorithm=algorithm, means_init=means,
            precisions_init=precisions, weights_init=np.full(3, 1 / 3),
        )  # fmt: skip
        assert model.score(X) * len(X) == pytest.approx(-192.6952838649, abs=1e-4)


@pytest.mark.parametrize("kind", ["EII", "EEI", "EEE"])
def test_a_covariance_that_all_share_has_the_prior_once(kind: str) -> None:
    # Fraley and Raftery (2007), the modes of their table.
    X, labels = load_iris(return_X_y=True)
    n, d = X.shape
    for k in (1, 3):
        resp = np.eye(k)[labels % k]
        mixture = GaussianMixture(k, covariance_type=kind, prior="conjugate", reg_covar=0)
        start = mixture.start_options().of_responsibilities(Moments.of(X), X, resp)
        n_k = resp.sum(axis=0)
        means = resp.T @ X / n_k[:, None]
        about = np.einsum("nk,nki,nkj->kij", resp, *(2 * [X[:, None] - means])).sum(axis=0)
        shrinkage, df, apart = 0.01, d + 2, means - X.mean(axis=0)
        shares = shrinkage * n_k / (n_k + shrinkage)
        total = about + np.einsum("k,ki,kj->ij", shares, apart, apart)
        prior = np.cov(X.T) / k ** (2 / d)
        balls = np.trace(prior) / d
        expected: Any = {
            "EII": (balls + np.trace(total)) / (df + (n + k) * d + 2),
            "EEI": (balls + np.diagonal(total)) / (df + n + k + 2),
            "EEE": (prior + total) / (df + n + d + k + 1),
        }[kind]
        found = np.asarray(start.components.attributes()["covariances_"])
        shared = found if kind == "EEE" else found[0]
        np.testing.assert_allclose(shared, expected, rtol=1e-9)


def log_posterior(family: RegularizedGaussian, k: int) -> float:
    """The prior's density of one component by SciPy, in whitened coordinates."""
    prior = family.prior
    assert prior is not None
    mean, spread = family.means[k], family.spreads[k]
    of_mean = stats.multivariate_normal(prior.mean, spread / prior.shrinkage).logpdf(mean)
    if family.covariance.kind == "full":
        return float(of_mean + stats.invwishart(prior.df, prior.scatter).logpdf(spread))
    variances = np.diagonal(spread)[: len(prior.scatter)]
    gammas = stats.invgamma(prior.df / 2, scale=prior.scatter / 2).logpdf(variances)
    return float(of_mean + gammas.sum())


@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_the_prior_is_the_density_of_the_paper(kind: str) -> None:
    """But for a constant, which is the same whatever the parameters."""
    rows = TestFull().rows()
    found = []
    vector = (family := family_of(kind, rows, prior="conjugate")).to_unconstrained()
    for seed in range(3):
        # What is zero is above a diagonal.
        step = 0.1 * np.random.default_rng(seed).normal(size=len(vector)) * (vector != 0)
        other = family.from_unconstrained(vector + step)
        found.append(other.log_prior_density() - sum(log_posterior(other, k) for k in range(K)))
    np.testing.assert_allclose(found, found[0], rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("offset", "scale"), [(1e6, 1.0), (0.0, 1e-4), (0.0, 1e6)])
def test_units_do_not_matter(kind: str, offset: float, scale: float) -> None:
    X = TestFull().rows()
    options: dict[str, Any] = {"covariance_type": kind, "algorithm": "em", "tol": 1e-6}
    remedies: list[dict[str, Any]] = [{"prior": "conjugate"}, {"max_ratio": 3.0}]
    for remedy in remedies:
        one, other = fit(X, **remedy, **options), fit(scale * X + offset, **remedy, **options)
        np.testing.assert_allclose(other.weights_, one.weights_, rtol=1e-5)
        np.testing.assert_allclose(
            other.covariances_, scale**2 * one.covariances_, rtol=1e-4, atol=1e-6 * scale**2
        )


# -- the bound --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_the_truncation_is_the_best_that_there_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.lognormal(0, 3, 12)
    values[: seed % 4] = 0.0
    rows, ratio = rng.uniform(0.1, 50, 12), float(rng.uniform(1, 30))

    def cost(m: float) -> float:
        held = np.clip(values, m, ratio * m)
        return float(rows @ (np.log(held) + values / held))

    grid = np.geomspace(1e-6, 1e5, 20_000)
    best = grid[np.argmin([cost(m) for m in grid])]
    near = optimize.minimize_scalar(
        lambda s: cost(np.exp(s)), bounds=(np.log(best) - 0.01, np.log(best) + 0.01)
    )
    assert cost(least_eigenvalue(values, rows, ratio)) <= near.fun + 1e-9 * abs(near.fun)


@pytest.mark.parametrize("kind", KINDS)
def test_no_ratio_is_above_the_bound(kind: str) -> None:
    X = np.column_stack([blobs(2000, 2, 3, seed=1)[0], np.arange(2000) % 2]) * [1.0, 3.0, 5.0]
    for ratio in (1.0, 5.0, 50.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = fit(X, 3, covariance_type=kind, max_ratio=ratio, tol=1e-4)
        described = model.describe()
        lengths = np.stack(
            [np.linalg.eigvalsh(described.covariance(k, [0, 1, 2])) for k in range(3)]
        )
        assert lengths.max() <= ratio * lengths.min() * (1 + 1e-7)


# -- count tables -----------------------------------------------------------------------


def quiet(X: Array, k: int, **options: Any) -> GaussianMixture:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*out of iterations")
        return GaussianMixture(k, random_state=0, **options).fit(X)


def customers(rng: np.random.Generator) -> Array:
    """Orders, returns and complaints."""
    orders = rng.poisson(np.where(rng.random(3000) < 0.5, 2, 8))
    others = rng.binomial(orders, 0.1), rng.poisson(0.4, 3000)
    return np.column_stack([orders, *others]).astype(float)


TABLES = {
    "counts": (np.random.default_rng(0).poisson(3, (3000, 1)).astype(float), 6),
    "rounded": (np.round(np.random.default_rng(1).normal(5, 0.2, (3000, 1)), 1), 8),
    "customers": (customers(np.random.default_rng(0)), 4),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_break_fits_are_named_and_the_bound_mends_them(name: str) -> None:
    X, k = TABLES[name]
    with pytest.warns(ConvergenceWarning, match="^degenerate components.*single values") as said:
        GaussianMixture(k, random_state=0).fit(X)
    assert any("max_ratio=10" in str(one.message) for one in said)
    model = quiet(X, k, max_ratio=10.0)
    assert model.degenerate_ == []
    # An honest optimum is wide beside the step between values, and no worse than one component.
    step = 0.1 if name == "rounded" else 1.0
    assert model.describe().variances.min() > 0.005 * step**2
    assert model.lower_bound_ >= quiet(X, 1).lower_bound_ - 1e-6


@pytest.mark.parametrize("name", ["counts", "rounded"])
def test_rows_that_no_prior_can_widen_are_named(name: str) -> None:
    """Of the posterior density, too, the maximum is at spikes: the prior is a few rows'."""
    X, k = TABLES[name]
    with pytest.warns(ConvergenceWarning, match="little but what the prior adds"):
        model = GaussianMixture(k, random_state=0, prior="conjugate").fit(X)
    assert model.degenerate_
    for one in model.degenerate_:
        near = np.abs(X[:, 0] - one.values[0]) < 1e-3
        assert near.mean() > 0.5 * model.weights_[one.component]


def test_few_rows_are_enough_with_a_prior() -> None:
    X = np.random.default_rng(0).normal(size=(212, 5))
    X[:5] += 20
    with pytest.warns(ConvergenceWarning, match="degenerate components"):
        GaussianMixture(2, random_state=0).fit(X)
    model = quiet(X, 2, prior="conjugate")
    assert sorted(np.round(model.weights_ * 212)) == [5, 207]
    assert model.describe().variances.min() > 0.05


# -- kept with the model ----------------------------------------------------------------


def test_files_and_warm_starts_keep_them(tmp_path: Path) -> None:
    X = TestFull().rows()
    remedies: list[dict[str, Any]] = [{"prior": "conjugate"}, {"max_ratio": 3.0}]
    for remedy in remedies:
        for kind in KINDS:
            model = fit(X, covariance_type=kind, tol=1e-5, **remedy)
            model.save(tmp_path / "m.npz", overwrite=True)
            again = load(tmp_path / "m.npz")
            assert isinstance(again, GaussianMixture)
            assert (again.prior, again.max_ratio) == (model.prior, model.max_ratio)
            assert digest(again.state_) == digest(model.state_)
            again.set_params(warm_start=True).fit(X)
            assert isinstance(again.state_.result.components, RegularizedGaussian)
            assert again.state_.objective >= model.state_.objective - 1e-9
            again.fit(X[::-1] + 0.01)
            assert isinstance(again.state_.result.components, RegularizedGaussian)


def test_checkpoints_and_sweeps_keep_them(tmp_path: Path) -> None:
    X = TestFull().rows()
    options: dict[str, Any] = {"random_state": 0, "prior": "conjugate", "reg_covar": 0, "tol": 1e-6}
    found = select(X, [2, 3], ["full", "diag"], exhaustive=True, n_init=1, keep_all=True, **options)
    for model in found.models:
        alone = GaussianMixture(
            model.n_components, covariance_type=model.covariance_type, **options
        ).fit(X)
        assert model.lower_bound_ == pytest.approx(alone.lower_bound_, abs=1e-9)
    fit(X, checkpoint=tmp_path / "kept", prior="conjugate", max_iter=2000)
    with pytest.raises(Exception, match="prior"):
        fit(X, checkpoint=tmp_path / "kept")


def test_options_that_are_none_are_named() -> None:
    for options, said in (
        ({"prior": "flat"}, "prior='flat': expected one of conjugate"),
        ({"max_ratio": 0.5}, "max_ratio=0.5: expected a number of at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            GaussianMixture(2, **options).fit(TestFull().rows())


def test_the_command_line_knows_them(tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", TABLES["customers"][0], 1000)
    with start_cluster(1) as cluster:
        words = [
            "fit", str(tmp_path / "x.zarr"), "-k", "2,3", "-o", str(tmp_path / "m.npz"), "--prior",
            "conjugate", "--max-ratio", "50", "--json", "--scheduler", cluster.scheduler_address,
        ]  # fmt: skip
        done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["degenerate"] == []
    model = load(tmp_path / "m.npz")
    assert isinstance(model, GaussianMixture)
    assert (model.prior, model.max_ratio) == ("conjugate", 50.0)


# -- what the data do not determine -----------------------------------------------------


def m_step(X: Array, resp: Array, kind: str = "full", **options: Any) -> tuple[Mixture, Any]:
    family = GaussianOptions(kind, **options).of_data(Moments.of(X), resp.shape[1]).near(X, resp)
    mixture = Mixture(np.full(resp.shape[1], -np.log(resp.shape[1])), family)
    fold = mixture.fold()
    fold.update(0, X, None)
    sums = replace(
        fold.result(),
        resp_sum=resp.sum(axis=0),
        components=family.sufficient_statistics(X, resp),
    )
    return mixture.m_step(sums)[0], sums


@pytest.mark.parametrize("kind", KINDS)
def test_equal_components_are_named(kind: str) -> None:
    X, labels, _ = blobs(600, 2, 2, apart=5.0)
    resp = np.column_stack([labels == 0, (labels == 1) / 3, (labels == 1) / 1.5]).astype(float)
    found = undetermined(*m_step(X, resp, kind))
    assert [(one.component, one.equal) for one in found] == [(1, (2,))]
    (message,) = undetermined_warnings(found)
    assert message.startswith("degenerate components: 1, 2 are equal")
    apart = np.eye(2)[labels]
    assert undetermined(*m_step(X, apart, kind)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_components_of_too_few_rows_are_named(kind: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4))
    parameters = {"full": 14, "tied": 4, "diag": 8, "spherical": 5}[kind]
    for few, said in ((parameters - 1, [1]), (parameters + 1, [])):
        labels = (np.arange(300) < few).astype(int)
        found = undetermined(*m_step(X, np.eye(2)[labels], kind, ridge=1e-3))
        assert [one.component for one in found] == said
        assert all("fewer than parameters" in m for m in undetermined_warnings(found))
        # A prior determines them.
        assert undetermined(*m_step(X, np.eye(2)[labels], kind, prior="conjugate")) == []


def test_a_sweep_leaves_degenerate_models_out(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(3)
    # Where a spike at zero, which a third component takes, is most of the likelihood.
    X = np.concatenate([rng.normal(-5, 1, 900), rng.normal(5, 1, 900), np.zeros(200)])[:, None]
    logger = logging.getLogger("dask_em")
    logger.addHandler(caplog.handler)
    try:
        found = select(X, [1, 2, 3], random_state=0, exhaustive=True)
    finally:
        logger.removeHandler(caplog.handler)
    assert found.best.n_components == 2
    assert found.best.degenerate_ == []
    rows = {row["n_components"]: row for row in found.table}
    assert rows[3]["status"] == "DEGENERATE"
    assert rows[3]["bic"] < rows[2]["bic"]
    assert "left out of the choice" in caplog.text
    assert "n_components=3 full" in caplog.text


def test_a_sweep_says_where_all_are_degenerate() -> None:
    X = TABLES["counts"][0]
    with pytest.warns(ConvergenceWarning, match="every one that was fitted to its end is such"):
        found = select(X, [6, 8], random_state=0, exhaustive=True)
    assert found.best.degenerate_
