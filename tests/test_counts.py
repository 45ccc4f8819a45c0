"""Poisson and multinomial mixtures: densities, M-steps, references that are not ours, exposures."""

from __future__ import annotations

import warnings
from decimal import Decimal, getcontext
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dask_em import GaussianMixture, MultinomialMixture, PoissonMixture, load, select
from dask_em.core.additive import Array
from dask_em.core.family import Family
from dask_em.core.moments import Moments
from dask_em.core.tuning import tuning
from dask_em.errors import DataError
from dask_em.families.canonical import CanonicalStatistics, Reference
from dask_em.families.counts import RowSize
from dask_em.families.multinomial import Multinomial, MultinomialOptions
from dask_em.families.poisson import Poisson, PoissonOptions
from dask_em.families.special import log_factorials, log_poisson
from dask_em.testing.families import FamilyTests

RATES = np.array([[2.0, 9.0, 4.0], [6.0, 3.0, 8.0], [1.0, 12.0, 0.5]])
SHARES = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])

# Deaths of women over 80 in The Times, days with so many (Hasselblad 1969).
DEATHS = np.repeat(np.arange(10), [162, 267, 271, 185, 111, 61, 27, 8, 3, 1])[:, None]


def exposed(n: int, seed: int = 0) -> Array:
    """Rows of an exposure in the middle, and counts at half of the rates or so."""
    rng = np.random.default_rng(seed)
    e = rng.gamma(4.0, 0.25, n)
    counts = rng.poisson(e[:, None] * RATES[rng.integers(0, 3, n)])
    return np.column_stack([counts[:, 0], e, counts[:, 1:]])


def counts(n: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return rng.poisson(RATES[rng.integers(0, 3, n)])


def shared(n: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    totals = rng.poisson(12.0, n)
    return rng.multinomial(totals, SHARES[rng.integers(0, 2, n)])


class TestPoisson(FamilyTests):
    def family(self) -> Family[Any]:
        return Poisson(np.log(RATES), Reference(RATES.mean(axis=0)))

    def rows(self) -> Array:
        return counts(400).astype(np.uint16)


class TestPoissonOfAnExposure(FamilyTests):
    def family(self) -> Family[Any]:
        reference = Reference(RATES.mean(axis=0))
        return Poisson(np.log(RATES), reference, 1, RowSize(1.0, 0.25))

    def rows(self) -> Array:
        return exposed(400)


class TestMultinomial(FamilyTests):
    def family(self) -> Family[Any]:
        return Multinomial(np.log(SHARES) + 3.0, Reference(np.ones(3)), RowSize(12.0, 20.0))

    def rows(self) -> Array:
        return shared(400).astype(np.uint8)


class TestMultinomialOfEqualTotals(FamilyTests):
    def family(self) -> Family[Any]:
        return Multinomial(np.log(SHARES), Reference(np.ones(3)), RowSize(12.0, 0.0))

    def rows(self) -> Array:
        rng = np.random.default_rng(0)
        return rng.multinomial(12, SHARES[rng.integers(0, 2, 400)])


# -- densities -----------------------------------------------------------------------------


def test_the_density_is_that_of_scipy() -> None:
    rows = counts(200)
    expected = np.stack([stats.poisson(r).logpmf(rows).sum(axis=1) for r in RATES], axis=1)
    np.testing.assert_allclose(TestPoisson().family().log_prob(rows), expected, rtol=1e-12)


def test_an_exposure_multiplies_the_rates() -> None:
    rows = exposed(200)
    e, x = rows[:, 1, None], rows[:, [0, 2, 3]]
    expected = np.stack([stats.poisson(e * r).logpmf(x).sum(axis=1) for r in RATES], axis=1)
    found = TestPoissonOfAnExposure().family().log_prob(rows)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_density_has_the_coefficient() -> None:
    rows = np.concatenate([shared(200), np.zeros((1, 3), dtype=int)])
    expected = np.stack(
        [stats.multinomial.logpmf(rows, n=rows.sum(axis=1), p=p) for p in SHARES], axis=1
    )
    found = TestMultinomial().family().log_prob(rows)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1e3, 1e5, 1e9])
def test_large_counts_keep_their_digits(size: float) -> None:
    x = np.rint(size * np.array([0.99, 1.0, 1.001, 1.3]))
    found = Poisson(np.log([[1.001 * size]]), Reference(np.array([size]))).log_prob(x[:, None])
    getcontext().prec = 50
    mean = Decimal(float(np.exp(np.log(1.001 * size))))
    expected = [float(Decimal(v) * mean.ln() - mean - exact_log_factorial(v)) for v in x]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-10, atol=1e-16 * size)


def exact_log_factorial(x: float) -> Decimal:
    """log x! to many digits by Stirling's series from where it is exact."""
    z, steps = Decimal(x) + 1, Decimal(1)
    while z < 100:
        steps *= z
        z += 1
    two_pi = Decimal("6.28318530717958647692528676655900576839433879875021")
    series = sum(
        (Decimal(a) / Decimal(b)) / z**n
        for a, b, n in ((1, 12, 1), (-1, 360, 3), (1, 1260, 5), (-1, 1680, 7), (1, 1188, 9))
    )
    return (z - Decimal("0.5")) * z.ln() - z + two_pi.ln() / 2 + series - steps.ln()


def test_looked_up_and_computed_constants_are_alike() -> None:
    last = len(log_factorials()) - 1
    x = np.arange(last - 2.0, last + 3.0)
    found = log_poisson(x, np.full(len(x), float(last)))
    np.testing.assert_allclose(found, stats.poisson.logpmf(x, last), rtol=1e-9)


@pytest.mark.parametrize("least", [2, 2**16])
def test_blocks_of_few_large_counts_are_computed_alike(least: int, tune: Any) -> None:
    for test in (TestPoisson(), TestPoissonOfAnExposure(), TestMultinomial()):
        rows, family = test.rows(), test.family()
        by_table = family.log_prob(rows)
        tune(canonical={"factorials": least})
        np.testing.assert_allclose(family.log_prob(rows), by_table, rtol=1e-6 if least == 2 else 0)
        tune(canonical={"factorials": 2**16})


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "i8", ">i4", "f4", "f8", "?"])
def test_any_type_is_summed_in_float64(dtype: str) -> None:
    for test in (TestPoisson(), TestMultinomial()):
        rows, family = test.rows().astype(dtype), test.family()
        resp = np.random.default_rng(1).dirichlet(np.ones(family.n_components), len(rows))
        found = family.sufficient_statistics(rows, resp).sums
        expected = family.sufficient_statistics(rows.astype(np.float64), resp).sums
        np.testing.assert_array_equal(found, expected)


# -- the M-step ----------------------------------------------------------------------------


def test_a_component_without_counts_is_kept_from_zero_and_named() -> None:
    family: Any = TestPoisson().family()
    rows = np.array([[0, 5, 0], [0, 7, 1], [3, 4, 2]])
    resp = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    after, collapsed = family.maximize(resp.sum(axis=0), family.sufficient_statistics(rows, resp))
    assert list(collapsed) == []
    least = tuning().canonical.least_share
    np.testing.assert_allclose(after.rates[0], [3.0 * least, 5.0, least * 25 / 6], rtol=1e-12)
    assert np.isfinite(after.log_prob(rows)).all()
    assert [(one.component, one.columns) for one in after.degenerate(np.ones(3))] == [
        (0, (0, 2)),
        (1, (0,)),
    ]
    (said,) = after.warnings(np.ones(3), lambda columns: f"columns {list(columns)}")
    assert "component 0 (33.3% of the rows) in columns [0, 2]" in said


@pytest.mark.parametrize("name", ["Poisson", "PoissonOfAnExposure", "Multinomial"])
def test_sums_of_no_data_keep_the_component(name: str) -> None:
    test: FamilyTests = globals()[f"Test{name}"]()
    family, rows, resp = test.family(), test.rows(), test.resp()
    sums = family.sufficient_statistics(rows, resp).sums.copy()
    sums[1, 0] = -1.0
    after, collapsed = family.maximize(resp.sum(axis=0), CanonicalStatistics(sums))
    assert list(collapsed) == [1]
    np.testing.assert_array_equal(after.take([1]).log_prob(rows), family.take([1]).log_prob(rows))


def test_rows_without_counts_leave_the_probabilities() -> None:
    family: Any = TestMultinomial().family()
    rows = np.array([[0, 0, 0], [1, 2, 3]])
    after, collapsed = family.maximize(np.ones(2), family.sufficient_statistics(rows, np.eye(2)))
    assert list(collapsed) == []
    np.testing.assert_allclose(after.probabilities, [SHARES[0], [1 / 6, 2 / 6, 3 / 6]], rtol=1e-12)


def test_data_of_no_counts_can_be_fitted() -> None:
    X = np.zeros((30, 2), dtype=np.uint8)
    for kind in (PoissonMixture, MultinomialMixture):
        with pytest.warns(UserWarning, match="does not vary"):
            model = kind(1).fit(X)
        assert model.score_samples(X) == pytest.approx(0.0, abs=1e-9)
        assert model.degenerate_ == []


def test_moments_of_data_begin_a_fit() -> None:
    rows = exposed(2000).astype(np.float64)
    found = PoissonOptions(1, 4).of_data(Moments.of(rows), 2)
    expected = rows[:, [0, 2, 3]].sum(axis=0) / rows[:, 1].sum()
    np.testing.assert_allclose(found.rates, [expected] * 2, rtol=1e-12)
    totals = shared(2000).sum(axis=1)
    size = MultinomialOptions().of_data(Moments.of(shared(2000).astype(float)), 1).size
    assert (size.mean, size.variance) == pytest.approx((totals.mean(), totals.var()))


# -- references that are not ours ----------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "weights", "rates", "total"),
    [
        (1, [1.0], [2.156934306569], -2001.397847371757),
        (2, [0.35988769, 0.64011231], [1.25609909, 2.66340716], -1989.945859883035),
    ],
)
def test_the_death_notices(k: int, weights: list, rates: list, total: float) -> None:
    model = PoissonMixture(k, random_state=0, tol=1e-11, max_iter=500).fit(DEATHS.astype(np.uint8))
    assert model.lower_bound_ * len(DEATHS) == pytest.approx(total, abs=1e-4)
    order = np.argsort(model.rates_[:, 0])
    np.testing.assert_allclose(model.weights_[order], weights, atol=2e-3)
    np.testing.assert_allclose(model.rates_[order, 0], rates, atol=5e-3)


@pytest.mark.parametrize(
    ("k", "weights", "rates", "total"),
    [
        (1, [1.0], None, -1742.5734750527),
        (2, [0.79970921, 0.20029079], [1.06602824, 4.19581734], -1624.7223403895),
        (
            3,
            [0.65406892, 0.33810914, 0.00782194],
            [0.85307881, 3.07292023, 12.26568787],
            -1604.7528287836,
        ),
    ],
)
def test_articles_of_biochemists(k: int, weights: list, rates: list | None, total: float) -> None:
    articles = np.repeat(
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 19],
        [275, 246, 178, 84, 67, 27, 17, 12, 1, 2, 1, 1, 2, 1, 1],
    )
    assert len(articles) == 915
    model = PoissonMixture(k, random_state=0, tol=1e-11, max_iter=500, n_init=4)
    model.fit(articles[:, None])
    assert model.lower_bound_ * 915 == pytest.approx(total, abs=1e-4)
    order = np.argsort(model.rates_[:, 0])
    np.testing.assert_allclose(model.weights_[order], weights, atol=1e-3)
    if rates is not None:
        np.testing.assert_allclose(model.rates_[order, 0], rates, atol=0.02)


# -- exposures -----------------------------------------------------------------------------


def table(rows: Array) -> Any:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    return pd.DataFrame(rows, columns=["calls", "hours", "visits", "orders"])


def test_an_exposure_is_a_column_by_name_or_number(tmp_path: Any) -> None:
    rows = exposed(3000)
    options: dict[str, Any] = {"random_state": 0, "tol": 1e-6}
    named = PoissonMixture(3, exposure="hours", **options).fit(table(rows))
    numbered = PoissonMixture(3, exposure=1, **options).fit(rows)
    np.testing.assert_array_equal(named.rates_, numbered.rates_)
    assert named.rates_.shape == (3, 3)
    order = [int(np.abs(named.rates_ - r).sum(axis=1).argmin()) for r in RATES]
    np.testing.assert_allclose(named.rates_[order], RATES, rtol=0.15, atol=0.1)
    mixed = table(rows)[["orders", "visits", "calls", "hours"]]
    chosen = PoissonMixture(3, exposure="hours", columns=["visits", "calls", "orders"], **options)
    chosen.fit(mixed)
    assert chosen.n_features_in_ == 4
    assert chosen.lower_bound_ == pytest.approx(named.lower_bound_, abs=1e-6)
    named.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert isinstance(again, PoissonMixture)
    assert again.exposure == "hours"
    np.testing.assert_array_equal(again.predict(table(rows)), named.predict(table(rows)))
    assert again.state_.result.n_parameters == 3 * 3 + 2


def test_a_sweep_has_the_exposure_too() -> None:
    found: Any = select(
        table(exposed(2000)), range(1, 5), estimator=PoissonMixture, exposure="hours",
        random_state=0,
    )  # fmt: skip
    assert found.best.n_components == 3
    assert found.best.rates_.shape == (3, 3)


def test_an_exposure_of_zero_is_refused_by_its_row() -> None:
    rows = exposed(50)
    rows[17, 1] = 0.0
    with pytest.raises(DataError, match=r"contains 0 at .*17.*column 1, where positive numbers"):
        PoissonMixture(2, exposure=1).fit(rows)


@pytest.mark.parametrize(
    ("exposure", "message"),
    [
        ("hour", "no column of X that is read: did you mean 'hours'"),
        (4, "X has 4 columns, numbered from 0"),
    ],
)
def test_an_exposure_that_is_not_there_is_named(exposure: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        PoissonMixture(2, exposure=exposure).fit(table(exposed(50)))


def test_an_exposure_needs_names_or_a_number() -> None:
    with pytest.raises(DataError, match="have no names; give the number"):
        PoissonMixture(2, exposure="hours").fit(exposed(50))
    with pytest.raises(DataError, match="nothing to fit"):
        PoissonMixture(2, exposure=0).fit(exposed(50)[:, 1:2])
    wrongs: list[Any] = [-1, 0.5, "", ["hours"]]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="exposure="):
            PoissonMixture(2, exposure=wrong).fit(exposed(50))


# -- what is no count ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [PoissonMixture, MultinomialMixture])
@pytest.mark.parametrize("value", [-1.0, 2.5])
def test_what_is_no_count_is_refused_by_its_place(kind: Any, value: float) -> None:
    rows = counts(60).astype(np.float64)
    model = kind(2, random_state=0).fit(rows)
    rows[31, 2] = value
    with pytest.raises(DataError, match=rf"contains {value:g} at .*31.*column 2, where counts"):
        kind(2).fit(rows)
    with pytest.raises(DataError, match=f"contains {value:g} at .*31"):
        model.predict(rows)
    labels = model.set_params(nonfinite="drop").predict(rows)
    assert labels[31] == -1
    assert (np.delete(labels, 31) >= 0).all()


# -- after the fit -------------------------------------------------------------------------


def test_marginals_are_those_of_scipy() -> None:
    x = np.arange(30.0)
    family = TestPoisson().family()
    expected = stats.poisson.pmf(x, RATES[:, 1, None])
    np.testing.assert_allclose(family.marginal(1, x), expected, rtol=1e-12)
    np.testing.assert_array_equal(family.marginal(1, x + 0.4), family.marginal(1, x))
    halves = TestMultinomialOfEqualTotals().family()
    expected = stats.binom.pmf(x, 12, SHARES[:, 2, None])
    np.testing.assert_allclose(halves.marginal(2, x), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "name", ["Poisson", "PoissonOfAnExposure", "Multinomial", "MultinomialOfEqualTotals"]
)
def test_marginals_and_correlations_are_those_of_draws(name: str) -> None:
    family = globals()[f"Test{name}"]().family()
    rng = np.random.default_rng(0)
    x = np.arange(0.0, 40.0)
    for k in range(family.n_components):
        draws = family.sample(k, 40_000, rng)
        _, variances = family.moments()
        np.testing.assert_allclose(draws.var(axis=0), variances[k], rtol=0.06)
        columns = list(range(family.n_features))
        found = family.correlations(k, columns)
        np.testing.assert_allclose(np.corrcoef(draws.T), found, atol=0.03)
        for j in columns:
            if j != getattr(family, "exposure", None):
                shares = (draws[:, j, None] == x).mean(axis=0)
                np.testing.assert_allclose(family.marginal(j, x)[k], shares, atol=0.015)
    exposure = getattr(family, "exposure", None)
    if exposure is not None:
        fine = np.linspace(1e-3, 8, 4000)
        mass = family.marginal(exposure, fine)[0].sum() * (fine[1] - fine[0])
        assert mass == pytest.approx(1.0, abs=0.01)


# -- tables that break Gaussian mixtures ---------------------------------------------------


def customers(rng: np.random.Generator) -> Array:
    """Orders of two kinds of customers, returns, and complaints: as in tests/test_degenerate.py."""
    n = 20_000
    orders = rng.poisson(np.where(rng.random(n) < 0.5, 2, 8))
    return np.column_stack([orders, rng.binomial(orders, 0.1), rng.poisson(0.4, n)])


@pytest.mark.parametrize("name", ["poisson(3)", "customers"])
def test_counts_that_break_gaussian_mixtures_have_an_honest_optimum(name: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.poisson(3, (20_000, 1)) if name == "poisson(3)" else customers(rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        broken = GaussianMixture(6, random_state=0).fit(X.astype(float))
    assert broken.degenerate_
    # The optima of three components and more differ by little.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Any = select(
            X.astype(np.uint16), range(1, 7), estimator=PoissonMixture, random_state=0, tol=1e-5
        )
    # Returns are a part of the orders, which independent counts tell by more components.
    assert found.best.n_components == (1 if name == "poisson(3)" else 4)
    np.testing.assert_allclose(found.best.weights_ @ found.best.rates_, X.mean(axis=0), rtol=1e-6)
    if name == "customers":
        # The best of eight starts, each fitted to 1e-6.
        assert found.best.lower_bound_ == pytest.approx(-4.215125, abs=2e-5)
        assert found.best.weights_.min() > 0.05
    # Of few orders nothing is returned: a rate of zero is a maximum, and no spike.
    assert {one.columns for one in found.best.degenerate_} <= {(1,)}
