"""The first pass: moments by either sweep, and a sample by the place of rows alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from dask_em.core.engine import Engine
from dask_em.core.passes import LoggingPass
from dask_em.core.support import COUNTS, REAL, Support
from dask_em.fitting.row_keys import RowKeys
from dask_em.fitting.survey import Survey, Surveyed

N = 5000

Name = Literal["numpy", "numba"]


@pytest.fixture(params=["numpy", "numba"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "numba":
        pytest.importorskip("numba")
    return Engine(request.param)


def survey(
    X: np.ndarray,
    engine: Engine,
    weight: np.ndarray | None = None,
    parts: int = 0,
    support: Support = REAL,
    **options: Any,
) -> Surveyed:
    """The survey of two chunks of rows, each given at once, or in parts of whole blocks."""
    d = X.shape[1] - options.get("n_beside", 0)
    work = Survey(3, 100, d, len(X), support, engine=engine, **options)
    fold = work.fold()
    half = len(X) // 2
    for index, (a, b) in enumerate([(0, half), (half, len(X))]):
        step = parts * work.block_rows or len(X)
        for start in range(a, b, step):
            rows = slice(start, min(start + step, b))
            fold.update(index, X[rows], None if weight is None else weight[rows])
    return fold.result()


def assert_same(a: Surveyed, b: Surveyed) -> None:
    """Equal to the bit."""
    assert (a.n_rows, a.n_weighted, a.non_finite, a.outside) == (
        b.n_rows, b.n_weighted, b.non_finite, b.outside,
    )  # fmt: skip
    for x, y in ((a.moments, b.moments), (a.sample, b.sample)):
        for name, value in vars(x).items():
            np.testing.assert_array_equal(value, vars(y)[name], err_msg=name)


def assert_moments(found: Surveyed, X: np.ndarray, weight: np.ndarray | None = None) -> None:
    """Equal to NumPy's in long double."""
    wide = X.astype(np.longdouble)
    w = np.ones(len(X)) if weight is None else weight
    mean = w @ wide / w.sum()
    scatter = np.einsum("n,ni,nj->ij", w, wide - mean, wide - mean)
    m = found.moments
    np.testing.assert_allclose(m.weight, w.sum(), rtol=1e-13)
    root = np.sqrt(np.diagonal(scatter))
    assert (np.abs(m.scatter - scatter) <= 1e-12 * np.outer(root, root)).all()
    assert (np.abs(m.mean - mean) <= 1e-15 * np.abs(mean) + 1e-13 * root / np.sqrt(w.sum())).all()
    np.testing.assert_array_equal(m.low, X[w > 0].min(axis=0))
    np.testing.assert_array_equal(m.high, X[w > 0].max(axis=0))


# -- moments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3, 8, 9, 33, 70])
@pytest.mark.parametrize("weighted", [False, True])
def test_moments_keep_their_digits_far_from_zero(engine: Engine, d: int, weighted: bool) -> None:
    rng = np.random.default_rng(d)
    X = rng.normal(size=(N, d)) @ rng.normal(size=(d, d)) + 1e8 * rng.normal(size=d)
    weight = rng.integers(0, 3, N) * rng.random(N) if weighted else None
    found = survey(X, engine, weight)
    assert_moments(found, X, weight)
    assert found.n_weighted == (N if weight is None else (weight > 0).sum())


@pytest.mark.parametrize("weighted", [False, True])
def test_a_chunk_in_parts_is_the_chunk(engine: Engine, weighted: bool) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40_000, 3))
    X[[7, 20_000]] = np.inf
    weight = rng.integers(1, 3, len(X)).astype(float) if weighted else None
    whole = survey(X, engine, weight)
    assert whole.non_finite.n_rows == 2
    for parts in (1, 2):
        assert_same(survey(X, engine, weight, parts), whole)


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f8", "i8", "u1", "?"])
def test_rows_of_any_type_and_layout_are_surveyed(engine: Engine, dtype: str) -> None:
    rng = np.random.default_rng(1)
    X = rng.integers(0, 2 if dtype == "?" else 200, (N, 5)).astype(dtype)
    if X.dtype.kind == "f":
        X += rng.normal(size=X.shape).astype(dtype)
    expected = survey(X, engine)
    assert_moments(expected, X.astype(np.float64))
    # Numbers behind the columns, which whole vectors of them reach, mean nothing.
    beside = np.full((N, 7), 1 if X.dtype.kind in "iub" else np.nan).astype(dtype)
    beside[:, :5] = X
    frozen = X.copy()
    frozen.flags.writeable = False
    for rows in (np.asfortranarray(X), beside[:, :5], X[::-1][::-1], frozen):
        assert_same(survey(rows, engine), expected)
    found = survey(beside, engine, n_beside=2)
    np.testing.assert_array_equal(found.moments.scatter, expected.moments.scatter)
    np.testing.assert_array_equal(found.sample.rows[:, :5], expected.sample.rows)


def test_both_sweeps_tell_of_what_is_not_finite(engine: Engine) -> None:
    X = np.random.default_rng(2).normal(size=(60_000, 4))
    X[100, 3], X[40_001, 0], X[59_999, 2] = np.inf, np.nan, -np.inf
    weight = np.ones(len(X))
    found = survey(X, engine)
    assert (found.non_finite.n_rows, found.non_finite.first) == (3, (0, 100, 3, np.inf))
    # A row of weight zero is left out, whatever it holds.
    weight[[100, 59_999]] = 0.0
    left = survey(X, engine, weight)
    assert left.non_finite.n_rows == 1
    assert left.non_finite.first is not None
    assert left.non_finite.first[:3] == (1, 10_001, 0)
    # Sums that overflow, of numbers that do not.
    X = np.full((N, 1), 1.7e308)
    X[::2] = -1.7e308
    assert survey(X, engine).non_finite.n_rows == 0


def test_both_sweeps_tell_of_what_a_family_does_not_describe(engine: Engine) -> None:
    X = np.random.default_rng(3).poisson(3.0, (30_000, 3)).astype(float)
    assert survey(X, engine, support=COUNTS).outside.n_rows == 0
    X[[5, 20_000], [1, 2]] = 0.5, -1.0
    found = survey(X, engine, support=COUNTS)
    assert (found.outside.n_rows, found.outside.first) == (2, (0, 5, 1, 0.5))
    # They are finite, and counted.
    assert_moments(found, X)


def test_moments_of_rows_that_lack_values_are_of_those_that_they_have(engine: Engine) -> None:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(30_000, 3)) * [1.0, 5.0, 2.0] + 1e4
    X[20_000:][rng.random((10_000, 3)) < 0.3] = np.nan
    found = survey(X, engine, support=Support(missing=(True,)))
    assert found.non_finite.n_rows == 0
    seen = ~np.isnan(X)
    assert found.moments.observed is not None
    np.testing.assert_array_equal(found.moments.observed, seen.sum(axis=0))
    np.testing.assert_allclose(found.moments.mean, np.nanmean(X, axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.moments.variances, np.nanvar(X, axis=0), rtol=1e-9)
    np.testing.assert_array_equal(found.moments.high, np.nanmax(X, axis=0))


def test_squares_alone_are_those_of_the_products(engine: Engine) -> None:
    X = np.random.default_rng(5).normal(size=(N, 6)) + 1e6
    joint, single = survey(X, engine), survey(X, engine, joint=False)
    np.testing.assert_allclose(single.moments.variances, joint.moments.variances, rtol=1e-12)


# -- the sample ------------------------------------------------------------------------------------


def test_a_rows_key_depends_on_its_place_alone() -> None:
    edges = [0, 1, 4096, 5000, 32_768, 70_000, 600_000]
    rows, keys = RowKeys(3).below(1.0, 5, 0, edges[-1])
    np.testing.assert_array_equal(rows, np.arange(edges[-1]))
    for bound in (1e-5, 0.01, 0.2, 0.3):
        expected = np.flatnonzero(keys < bound)
        one = RowKeys(3)
        parts = [one.below(bound, 5, a, b) for a, b in pairwise(edges)]
        np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), expected)
        np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), keys[expected])
    for seed, chunk in ((4, 5), (3, 6)):
        assert not np.isin(RowKeys(seed).below(1.0, chunk, 0, 1000)[1], keys).any()


def test_keys_are_uniform_and_independent_of_the_row() -> None:
    drawn = [RowKeys(1).below(0.1, chunk, 0, 100_000) for chunk in range(20)]
    rows, keys = (np.concatenate(part) for part in zip(*drawn, strict=True))
    assert kstest(keys, "uniform", (0, 0.1)).pvalue > 1e-3
    assert chisquare(np.bincount(rows // 1000, minlength=100)).pvalue > 1e-3
    assert abs(np.corrcoef(rows, keys)[0, 1]) < 4 / np.sqrt(len(rows))
    # How many there are in a stretch is binomial.
    counts = np.concatenate([np.bincount(part // 1000, minlength=100) for part, _ in drawn])
    assert 0.9 < counts.var() / (1000 * 0.1 * 0.9) < 1.1


def test_the_sample_is_the_same_whoever_sums(engine: Engine) -> None:
    X = np.random.default_rng(6).normal(size=(20_000, 2))
    expected = survey(X, Engine())
    for found in (survey(X, engine), survey(X, engine, np.ones(len(X)))):
        np.testing.assert_array_equal(found.sample.rows, expected.sample.rows)
    # Rows that weigh nothing leave the luck of the others as it is.
    weight = np.ones(len(X))
    weight[::2] = 0.0
    every = Survey(3, len(X), 2, len(X), engine=engine).fold()
    for index in range(2):
        every.update(index, X[10_000 * index : 10_000 * (index + 1)], None)
    kept = np.isin(every.result().sample.rows[:, 0], X[1::2, 0])
    wanted = every.result().sample.rows[kept][:100]
    np.testing.assert_array_equal(survey(X, engine, weight).sample.rows, wanted)


def test_a_full_sample_limits_what_is_drawn() -> None:
    """Of rows with weights all keys count, until there are as many smaller ones."""
    X = np.arange(60_000.0)[:, None]
    fold = Survey(0, 50, 1, None).fold()
    drawn = []
    for index in range(3):
        fold.update(index, X[20_000 * index : 20_000 * (index + 1)], None)
        drawn.append(fold.result().sample)
    assert [len(sample.rows) for sample in drawn] == [50] * 3
    for index in range(3):
        keys = np.concatenate([RowKeys(0).below(1.0, i, 0, 20_000)[1] for i in range(index + 1)])
        np.testing.assert_array_equal(drawn[index].keys, np.sort(keys)[:50])
        np.testing.assert_array_equal(drawn[index].rows[:, 0], np.argsort(keys)[:50])


def test_a_log_of_parts_is_that_of_the_chunk() -> None:
    X, weight = np.zeros((30_000, 1)), np.ones(30_000)
    weight[[20_000, 20_001]] = -1.0, np.nan
    fold = LoggingPass(Survey(0, 5, 1, len(X))).fold()
    assert fold.block_rows
    for start in range(0, len(X), fold.block_rows):
        rows = slice(start, start + fold.block_rows)
        fold.update(4, X[rows], weight[rows])
    bad = fold.result().log.bad_weights
    assert (bad.n, bad.first) == (2, (4, 20_000, -1.0))
    # Rows that are left out would leave no whole blocks.
    assert LoggingPass(Survey(0, 5, 1, len(X)), drop=True).fold().block_rows == 0
