"""Exponential and gamma mixtures: densities, the shape's equation, spikes, scales, zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import optimize, special, stats

from dask_em import ExponentialMixture, GammaMixture
from dask_em.core.additive import Array
from dask_em.core.family import Family
from dask_em.core.tuning import tuning
from dask_em.errors import DataError
from dask_em.families.canonical import CanonicalStatistics, Reference
from dask_em.families.exponential import Exponential
from dask_em.families.gamma import Gamma, shape_of
from dask_em.families.special import log_gamma_ratio, log_less_digamma, trigamma
from dask_em.testing.families import FamilyTests

SCALES = np.array([[1.0, 20.0], [8.0, 3.0]])
SHAPES = np.array([[0.6, 9.0], [4.0, 1.5]])


class TestExponential(FamilyTests):
    def family(self) -> Family[Any]:
        return Exponential(np.log(SCALES), Reference(np.array([4.0, 10.0])))

    def rows(self) -> Array:
        rng = np.random.default_rng(0)
        return rng.exponential(SCALES[rng.integers(0, 2, 400)])


class TestGamma(FamilyTests):
    def family(self) -> Family[Any]:
        reference = Reference(np.array([4.0, 10.0]))
        return Gamma(np.log(SHAPES * SCALES), np.log(SHAPES), reference)

    def rows(self) -> Array:
        rng = np.random.default_rng(0)
        of = rng.integers(0, 2, 400)
        return rng.gamma(SHAPES[of], SCALES[of])


def both() -> list[FamilyTests]:
    return [TestExponential(), TestGamma()]


# -- special functions and densities -------------------------------------------------------


def test_special_functions_are_those_of_scipy() -> None:
    a = np.concatenate([np.logspace(-8, 3, 200), [15.999, 16.0, 16.001]])
    expected = np.log(a) - special.digamma(a)
    np.testing.assert_allclose(log_less_digamma(a), expected, rtol=1e-11)
    np.testing.assert_allclose(trigamma(a), special.polygamma(1, a), rtol=1e-13)
    expected = a * np.log(a) - a - special.gammaln(a)
    np.testing.assert_allclose(log_gamma_ratio(a), expected, rtol=1e-11, atol=1e-11)
    # Where SciPy's differences have lost their digits.
    np.testing.assert_allclose(log_less_digamma(np.array([1e12])), 0.5e-12, rtol=1e-12)


def test_the_shape_s_equation_is_solved() -> None:
    gaps = np.logspace(-9, 2.8, 300)
    found = shape_of(gaps)
    np.testing.assert_allclose(log_less_digamma(found), gaps, rtol=1e-13)
    for gap in (1e-3, 0.1, 1.0, 10.0, 300.0):

        def excess(u: float, gap: float = gap) -> float:
            return float(u - special.digamma(np.exp(u)) - gap)

        root = optimize.brentq(excess, -9, 9)
        np.testing.assert_allclose(shape_of(np.array([gap])), np.exp(root), rtol=1e-8)


def test_the_densities_are_those_of_scipy() -> None:
    for test in both():
        rows = test.rows()
        shapes = SHAPES if isinstance(test, TestGamma) else np.ones((2, 2))
        expected = np.stack(
            [
                stats.gamma.logpdf(rows, a, scale=scale).sum(axis=1)
                for a, scale in zip(shapes, SCALES, strict=True)
            ],
            axis=1,
        )
        family = test.family()
        np.testing.assert_allclose(family.log_prob(rows), expected, rtol=1e-12, atol=1e-12)
        x = np.linspace(0.1, 60, 50)
        found = stats.gamma.pdf(x, shapes[:, 1, None], scale=SCALES[:, 1, None])
        np.testing.assert_allclose(family.marginal(1, x), found, rtol=1e-12)


def test_narrow_components_keep_their_digits() -> None:
    family = Gamma(np.log([[3.0]]), np.log([[1e8]]), Reference(np.array([10.0])))
    x = 3.0 * (1 + np.array([-2e-4, 0.0, 1e-4]))
    # To leading orders a normal distribution.
    z = (x / 3.0 - 1) * 1e4
    expected = stats.norm.logpdf(z) - np.log(3e-4) - z / 1e4 + z**3 / 3e4
    np.testing.assert_allclose(family.log_prob(x[:, None])[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("factor", [2.0**-40, 1e-9, 3.0, 1e12])
def test_scaled_rows_give_the_scaled_mixture(factor: float) -> None:
    for kind, test in zip((ExponentialMixture, GammaMixture), both(), strict=True):
        rows = test.rows()
        options: dict[str, Any] = {"random_state": 0, "tol": 1e-7, "max_iter": 30}
        one, other = (kind(2, **options).fit(X) for X in (rows, factor * rows))
        np.testing.assert_allclose(other.weights_, one.weights_, rtol=1e-6)
        np.testing.assert_allclose(other.scales_ / factor, one.scales_, rtol=1e-6)
        moved = other.lower_bound_ + 2 * np.log(factor)
        assert moved == pytest.approx(one.lower_bound_, rel=1e-9, abs=1e-9)


def test_one_component_is_the_fit_of_scipy() -> None:
    rows = TestGamma().rows()[:, 1:]
    model = GammaMixture(1, tol=1e-9).fit(rows)
    shape, _, scale = stats.gamma.fit(rows[:, 0], floc=0)
    assert model.shapes_[0, 0] == pytest.approx(shape, rel=1e-5)
    assert model.scales_[0, 0] == pytest.approx(scale, rel=1e-5)
    assert ExponentialMixture(1).fit(rows).scales_[0, 0] == pytest.approx(rows.mean(), rel=1e-12)


# -- sums of no data, spikes, zeros --------------------------------------------------------


def test_sums_of_no_data_keep_the_component() -> None:
    for test in both():
        family, rows, resp = test.family(), test.rows(), test.resp()
        whole = family.sufficient_statistics(rows, resp).sums
        broken = [whole.copy()]
        broken[0][1, 0] = -1.0
        if isinstance(test, TestGamma):
            # Numbers of that mean have no such logarithms, by Jensen's inequality.
            broken.append(whole.copy())
            broken[1][1, 2] = resp.sum(axis=0)[1] * 3.0 * np.abs(np.log(whole[1, 0])) + 9.0
        for sums in broken:
            after, collapsed = family.maximize(resp.sum(axis=0), CanonicalStatistics(sums))
            assert list(collapsed) == [1]
            kept, before = (f.take([1]).log_prob(rows) for f in (after, family))
            np.testing.assert_array_equal(kept, before)


def test_rows_of_one_value_are_a_spike_that_is_named() -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.gamma(3.0, 2.0, (500, 1)), np.full((300, 1), 5.0)])
    with pytest.warns(match=r"component \d \(3\d\.\d% of the rows\) at 5 in column 0"):
        model = GammaMixture(2, random_state=0, init_params="kmeans", tol=1e-6).fit(
            np.column_stack([rows, np.repeat([1.0, 30.0], [500, 300]) * rng.gamma(9, 1, 800)])
        )
    (spike,) = model.degenerate_
    assert spike.columns == (0,)
    assert spike.values == pytest.approx((5.0,))
    assert model.shapes_.max() == pytest.approx(tuning().canonical.most_shape)
    assert np.isfinite(model.lower_bound_)


def test_rows_of_zeros_are_a_spike_of_exponentials() -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.exponential(3.0, (500, 1)), np.zeros((300, 1))])
    with pytest.warns(match="at 0 in column 0"):
        model = ExponentialMixture(2, random_state=0, tol=1e-9).fit(rows)
    (spike,) = model.degenerate_
    assert spike.values == (0.0,)
    other = 1 - spike.component
    assert model.scales_[other, 0] == pytest.approx(3.0, rel=0.1)
    assert model.weights_[other] == pytest.approx(5 / 8, abs=0.01)


def test_a_column_of_one_value_is_said_once() -> None:
    rows = np.column_stack([TestGamma().rows(), np.full(400, 7.0)])
    with pytest.warns(UserWarning, match="does not vary in column 2"):
        model = GammaMixture(2, random_state=0).fit(rows)
    assert model.degenerate_ == []


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_numbers_without_a_logarithm_are_refused_by_their_place(value: float) -> None:
    rows = TestGamma().rows()
    model = GammaMixture(2, random_state=0).fit(rows)
    rows[7, 1] = value
    with pytest.raises(DataError, match=rf"contains {value:g} at .*7.*column 1, where positive"):
        GammaMixture(2).fit(rows)
    with pytest.raises(DataError, match=rf"contains {value:g} at .*7"):
        model.score_samples(rows)
    if value == 0:
        assert np.isfinite(ExponentialMixture(2).fit(rows).lower_bound_)
    else:
        with pytest.raises(DataError, match="where numbers from 0"):
            ExponentialMixture(2).fit(rows)


def test_numbers_below_the_limit_of_detection_are_taken_for_it() -> None:
    rows = TestGamma().rows()
    limit = float(np.quantile(rows[:, 0], 0.05))
    zeros = np.where(rows < limit, 0.0, rows)
    options: dict[str, Any] = {"random_state": 0, "tol": 1e-8}
    found = GammaMixture(2, detection_limit=limit, **options).fit(zeros)
    expected = GammaMixture(2, **options).fit(np.maximum(rows, limit))
    assert found.lower_bound_ == pytest.approx(expected.lower_bound_, abs=1e-6)
    np.testing.assert_allclose(
        found.score_samples(zeros), found.score_samples(np.maximum(zeros, limit)), rtol=1e-12
    )
    wrongs: list[Any] = [-1.0, "small", np.nan]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="detection_limit="):
            GammaMixture(2, detection_limit=wrong).fit(rows)
