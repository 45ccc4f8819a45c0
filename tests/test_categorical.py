"""Categorical and Bernoulli components: their laws, their kernels, and what holes are."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import bernoulli

from dask_em.core.additive import Array
from dask_em.core.engine import Engine
from dask_em.core.family import Family
from dask_em.core.mixture import Mixture
from dask_em.core.moments import Moments
from dask_em.core.passes import LoggingPass
from dask_em.core.support import Support
from dask_em.core.tuning import tuning
from dask_em.families.categorical.family import AnswerFamily, Bernoulli, Categorical, support_of
from dask_em.families.categorical.options import BernoulliOptions, CategoricalOptions
from dask_em.fitting.survey import Survey, Surveyed
from dask_em.testing.families import FamilyTests

NUMBERS = (2, 5, 1, 3)

ENGINES = (Engine("numpy"), Engine("numba"))


def probabilities(k: int, numbers: tuple[int, ...], seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.dirichlet(np.full(n, 2.0), k) for n in numbers], axis=1)


def answers(n: int, numbers: tuple[int, ...], seed: int = 1, holes: float = 0.0) -> Array:
    rng = np.random.default_rng(seed)
    X = np.stack([rng.integers(c, size=n) for c in numbers], axis=1).astype(np.float64)
    X[rng.random(X.shape) < holes] = np.nan
    return X


def categorical(k: int = 3, **options: Any) -> Categorical:
    return Categorical(np.log(probabilities(k, NUMBERS)), NUMBERS, **options)


class TestCategorical(FamilyTests):
    def family(self) -> Family[Any]:
        return categorical()

    def rows(self) -> Array:
        return answers(500, NUMBERS)


class TestSmoothedCategorical(TestCategorical):
    def family(self) -> Family[Any]:
        return categorical(alpha=0.5)


class TestCategoricalWithHoles(TestCategorical):
    def family(self) -> Family[Any]:
        return categorical(missing=True)

    def rows(self) -> Array:
        return answers(500, NUMBERS, holes=0.3)


def bernoullis(**options: Any) -> Bernoulli:
    p = np.array([[0.2, 0.5, 0.9], [0.7, 0.4, 0.6]])
    return Bernoulli(np.log(np.stack([1 - p, p], axis=2).reshape(2, -1)), (2, 2, 2), **options)


class TestBernoulli(FamilyTests):
    def family(self) -> Family[Any]:
        return bernoullis()

    def rows(self) -> Array:
        return answers(400, (2, 2, 2))


class TestSmoothedBernoulliWithHoles(TestBernoulli):
    def family(self) -> Family[Any]:
        return bernoullis(alpha=1.0, missing=True)

    def rows(self) -> Array:
        return answers(400, (2, 2, 2), holes=0.2)


class TestBinarized(TestBernoulli):
    def family(self) -> Family[Any]:
        return bernoullis(binarize=0.5)

    def rows(self) -> Array:
        return np.random.default_rng(0).random((400, 3))


def test_the_density_is_that_of_scipy() -> None:
    family = bernoullis()
    X = answers(50, (2, 2, 2))
    p = family.attributes()["probabilities_"]
    expected = np.stack([bernoulli(one).logpmf(X).sum(axis=1) for one in p], axis=1)
    assert_allclose(family.log_prob(X), expected, rtol=1e-12)


def test_a_missing_answer_is_a_factor_of_one() -> None:
    family = categorical(missing=True)
    X = answers(60, NUMBERS, holes=0.4)
    p = family.attributes()["probabilities_"]
    expected = np.ones((len(X), 3))
    for n, j in np.argwhere(~np.isnan(X)):
        expected[n] *= p[:, j, int(X[n, j])]
    assert np.isnan(X).any()
    assert_allclose(np.exp(family.log_prob(X)), expected, rtol=1e-12)


def test_one_iteration_is_that_of_plain_numpy() -> None:
    family = categorical(missing=True, alpha=0.25)
    mixture = Mixture(np.log([0.5, 0.3, 0.2]), family)
    X, w = answers(300, NUMBERS, holes=0.2), np.random.default_rng(3).random(300)
    fold = mixture.fold()
    fold.update(0, X, w)
    sums = fold.result()
    after, collapsed = mixture.m_step(sums)
    joint = np.exp(family.log_prob(X)) * [0.5, 0.3, 0.2]
    assert sums.log_likelihood == pytest.approx(w @ np.log(joint.sum(axis=1)), rel=1e-12)
    resp = w[:, None] * joint / joint.sum(axis=1, keepdims=True)
    for j, n in enumerate(NUMBERS):
        counts = np.stack([resp[X[:, j] == c].sum(axis=0) for c in range(n)], axis=1) + 0.25
        expected = counts / counts.sum(axis=1, keepdims=True)
        found = after.components.attributes()["probabilities_"][:, j, :n]
        assert_allclose(found, expected, rtol=1e-10)
    assert_allclose(after.weights, resp.sum(axis=0) / w.sum(), rtol=1e-12)
    assert collapsed == ()


# -- kernels ---------------------------------------------------------------------------


def sums_of(family: AnswerFamily, X: Array, engine: Engine, cut: int | None = None) -> Any:
    mixture = Mixture(np.log(np.arange(1.0, 1 + family.n_components)), family, engine)
    mixture = replace(mixture, log_weights=mixture.log_weights - np.log(mixture.weights.sum()))
    fold = mixture.fold()
    for part in (X[:cut], X[cut:]) if cut else (X,):
        fold.update(0, part, None)
    return fold.result()


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u4", "i8", "f2", "f4", "f8", ">i4", ">f8"])
@pytest.mark.parametrize("k", [1, 3, 8, 11])
def test_engines_agree_whatever_the_type(dtype: str, k: int) -> None:
    family, X = categorical(k), answers(3000, NUMBERS)
    expected = sums_of(family, X, Engine("numpy"))
    for engine in ENGINES:
        found = sums_of(family, X.astype(dtype), engine)
        assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-12)
        assert_allclose(found.components.counts, expected.components.counts, rtol=1e-10)


@pytest.mark.parametrize("k", [2, 9])
def test_engines_agree_with_holes(k: int) -> None:
    family, X = categorical(k, missing=True), answers(3000, NUMBERS, holes=0.3)
    expected, found = (sums_of(family, X, engine) for engine in ENGINES)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-12)
    assert_allclose(found.components.counts, expected.components.counts, rtol=1e-10)


@pytest.mark.parametrize("engine", ENGINES, ids=["numpy", "numba"])
def test_booleans_are_answers(engine: Engine) -> None:
    if engine.name == "numba":
        pytest.importorskip("numba", reason="the extra `fast` is not installed")
    family, X = bernoullis(), answers(700, (2, 2, 2))
    expected = sums_of(family, X, Engine("numpy"))
    for rows in (X.astype(bool), X.astype(bool)[::-1][::-1], np.asfortranarray(X.astype(bool))):
        found = sums_of(family, rows, engine)
        assert_allclose(found.components.counts, expected.components.counts, rtol=1e-10)


@pytest.mark.parametrize("engine", ENGINES, ids=["numpy", "numba"])
def test_whole_blocks_have_the_bits_of_the_chunk(engine: Engine) -> None:
    if engine.name == "numba":
        pytest.importorskip("numba", reason="the extra `fast` is not installed")
    family, X = categorical(5), answers(5000, NUMBERS).astype(np.uint8)
    rows = family.kernel(engine).block_rows
    whole, parts = sums_of(family, X, engine), sums_of(family, X, engine, 2 * rows)
    assert whole.components.counts.tobytes() == parts.components.counts.tobytes()
    assert whole.log_likelihood == parts.log_likelihood


def test_garbage_of_a_damaged_chunk_breaks_no_memory() -> None:
    # Its checksum says so when it is read to its end; until then it is summed.
    family = categorical(4)
    for X in (
        np.full((100, 4), 255, np.uint8),
        np.full((100, 4), -1, np.int8),
        np.full((100, 4), 1e300),
        np.full((100, 4), -7.5),
        np.full((100, 4), np.inf),
        np.full((100, 4), np.nan),
    ):
        for engine in ENGINES:
            sums = sums_of(family, X, engine)
            assert np.isfinite(sums.components.counts).all()


def test_groups_hold_few_combinations() -> None:
    pytest.importorskip("numba", reason="the extra `fast` is not installed")
    from dask_em.families.categorical.compiled_kernel import LookupKernel

    kernel = LookupKernel(np.log(probabilities(8, (5,) * 20)), (5,) * 20, missing=False)
    assert len(kernel._groups) == 10
    # Tables and sums stay in the caches, whatever the rows.
    assert kernel._tables.nbytes <= 2**15
    assert kernel.nbytes < 2**19


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.5, 1.0, 300.0])
@pytest.mark.parametrize("dtype", ["u1", "i1", "?", "i8", "f4", "f8"])
def test_numbers_are_cut_in_two(threshold: float, dtype: str) -> None:
    family = bernoullis(binarize=threshold)
    X = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 1], [0, 0, 0]]).astype(dtype)
    if dtype != "?":
        X = X * 2
    plain = bernoullis()
    expected = plain.log_prob((X.astype(float) > threshold).astype(float))
    for engine in ENGINES:
        kernel = family.kernel(engine)
        kernel.load(X)
        assert_allclose(kernel.log_prob().T, expected, rtol=1e-12)


# -- the M-step --------------------------------------------------------------------------


def test_counts_below_zero_are_those_of_no_data() -> None:
    family = categorical()
    sums = family.sufficient_statistics(answers(100, NUMBERS), np.full((100, 3), 1 / 3))
    sums.counts[1, 3] = -2.0
    after, collapsed = family.maximize(np.full(3, 100 / 3), sums)
    assert list(collapsed) == [1]
    assert_allclose(after.log_probabilities[1], family.log_probabilities[1])


def test_a_question_that_nobody_answered_keeps_its_probabilities() -> None:
    family, X = categorical(missing=True), answers(100, NUMBERS)
    X[:, 1] = np.nan
    resp = np.full((100, 3), 1 / 3)
    after, collapsed = family.maximize(resp.sum(axis=0), family.sufficient_statistics(X, resp))
    assert not list(collapsed)
    place = family.places[1]
    assert_allclose(after.log_probabilities[:, place], family.log_probabilities[:, place])
    assert not np.allclose(after.log_probabilities[:, :2], family.log_probabilities[:, :2])


def test_no_probability_is_zero() -> None:
    family = categorical()
    X = np.zeros((50, 4))
    after, _ = family.maximize(
        np.full(3, 50 / 3), family.sufficient_statistics(X, np.full((50, 3), 1 / 3))
    )
    least = np.log(tuning().categorical.least_probability)
    assert_allclose(after.log_probabilities.min(), least, rtol=1e-6)
    far = family.from_unconstrained(np.linspace(-1e6, 1e6, family.log_probabilities.size))
    assert np.isfinite(far.log_prob(answers(20, NUMBERS))).all()
    assert far._sum_to_one()


def test_the_draws_are_codes() -> None:
    drawn = categorical().sample(1, 1000, np.random.default_rng(0))
    assert drawn.dtype == np.int64
    assert categorical().support.kept(drawn) is None
    assert drawn.max(axis=0).tolist() == [1, 4, 0, 2]


def test_marginals_are_densities() -> None:
    family = categorical()
    x = np.linspace(-1, 6, 70001)
    for j in range(4):
        area = np.trapezoid(family.marginal(j, x), x, axis=1)
        assert_allclose(area, 1.0, rtol=1e-3)


# -- before the fit ------------------------------------------------------------------------


def test_the_number_of_categories_is_that_of_the_data() -> None:
    moments = Moments.of(answers(300, NUMBERS))
    assert CategoricalOptions().of_data(moments, 2).n_categories == NUMBERS
    assert CategoricalOptions().n_parameters_of(2, moments) == 2 * (1 + 4 + 0 + 2)
    assert BernoulliOptions().n_parameters_of(2, moments) == 2 * 4


def surveyed(X: Array, missing: tuple[bool, ...], cuts: list[int], w: Array | None) -> Surveyed:
    survey = Survey(0, 10, X.shape[1], len(X), Support(missing=missing))
    total = None
    edges = [0, *cuts, len(X)]
    for i, (a, b) in enumerate(pairwise(edges)):
        fold = survey.fold()
        fold.update(i, X[a:b], None if w is None else w[a:b])
        total = fold.result() if total is None else total + fold.result()
    assert total is not None
    return total


@pytest.mark.parametrize("cuts", [[], [1, 2, 50], [199]])
@pytest.mark.parametrize("weighted", [False, True])
def test_moments_are_of_what_is_there(cuts: list[int], weighted: bool) -> None:
    X = answers(200, NUMBERS, holes=0.4) + 1e4
    X[:, 2] = np.nan
    w = np.random.default_rng(0).random(200) if weighted else None
    found = surveyed(X, (True,), cuts, w).moments
    weights = np.ones(200) if w is None else w
    assert found.weight == pytest.approx(weights.sum())
    for j in (0, 1, 3):
        there = ~np.isnan(X[:, j])
        mean = np.average(X[there, j], weights=weights[there])
        variance = np.average((X[there, j] - mean) ** 2, weights=weights[there])
        assert found.weights[j] == pytest.approx(weights[there].sum())
        assert found.mean[j] == pytest.approx(mean, rel=1e-13)
        assert found.covariance[j, j] == pytest.approx(variance, rel=1e-9)
        assert (found.low[j], found.high[j]) == (np.nanmin(X[:, j]), np.nanmax(X[:, j]))
    assert found.weights[2] == 0
    assert np.isfinite(found.covariance).all()
    assert np.linalg.eigvalsh(found.covariance).min() > -1e-9


def test_holes_are_found_where_they_may_not_be() -> None:
    X = answers(200, NUMBERS, holes=0.1)
    X[7, 0] = np.inf
    found = surveyed(X, (True,), [], None)
    assert found.non_finite.n_rows == 1
    assert found.non_finite.first is not None
    assert found.non_finite.first[:3] == (0, 7, 0)
    X[7, 0] = 0.0
    strict = surveyed(X, (True, False, True, True), [], None)
    assert strict.non_finite.n_rows == np.isnan(X[:, 1]).sum()


def test_a_log_says_which_holes_keep_a_row() -> None:
    X = answers(100, NUMBERS, holes=0.2)
    X[3, 1] = np.inf
    support = Support(missing=(True,))
    fold = LoggingPass(Survey(0, 10, 4, 100, support), True, support).fold()
    fold.update(0, X, None)
    log = fold.result().log
    assert (log.n_dropped, log.missing) == (1, (True,))


def test_supports_know_holes() -> None:
    support = categorical(missing=True).support
    X = np.array([[0, np.nan, 0, 2], [0, 1, 0, np.inf], [0, 5, 0, 0], [0, 0.5, 0, 0.0]])
    kept = support.kept(X)
    assert kept is not None
    assert kept.tolist() == [True, False, False, True]
    whole = support_of(NUMBERS, missing=True).kept(X)
    assert whole is not None
    assert whole.tolist() == [True, False, False, False]
    assert categorical().support.kept(X[:1]) is not None
