"""The survey of the data and the start that is made from its sample."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from helpers import assert_sums_close, blobs, start, write_zarr
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import chisquare
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from dask_em import GaussianMixture, StudentTMixture, select
from dask_em.backends.dask.backend import DaskBackend
from dask_em.backends.serial import SerialBackend
from dask_em.core.mixture import Mixture
from dask_em.core.reduction import add_tree
from dask_em.data.memory import ArraySource
from dask_em.data.open import as_source
from dask_em.families.gaussian.options import GaussianOptions
from dask_em.fitting.sample import Sampled, default_sample_size
from dask_em.fitting.seeding import grouped_columns
from dask_em.fitting.starts import best_start
from dask_em.fitting.survey import Survey, Surveyed

pytestmark = pytest.mark.usefixtures("many_chunks")

N, D = 4000, 3
# Column 0 is the number of the row, so that a sample shows where it came from.
X = np.column_stack([np.arange(N), np.random.default_rng(0).normal(size=(N, D - 1))])


def survey(
    rows: np.ndarray, edges: Sequence[int], size: int = 500, weight: np.ndarray | None = None
) -> Surveyed:
    """The survey of chunks of rows between `edges`, one fold each."""
    work = Survey(0, size, rows.shape[1], len(rows))
    parts = []
    for index, (a, b) in enumerate(pairwise(edges)):
        fold = work.fold()
        fold.update(index, rows[a:b], None if weight is None else weight[a:b])
        parts.append(fold.result())
    return add_tree(parts)


def test_the_sample_has_the_asked_size_and_no_row_twice() -> None:
    for size in (1, 10, 500, N - 1, N, 2 * N):
        rows = Sampled.of(survey(X, range(0, N + 1, 250), size)).rows
        assert len(rows) == min(size, N)
        assert len(np.unique(rows[:, 0])) == len(rows)
        np.testing.assert_array_equal(rows, X[rows[:, 0].astype(int)])


@pytest.mark.parametrize("seed", range(3))
def test_the_sample_is_uniform(seed: int) -> None:
    work = Survey(seed, 2000, D, 10 * N)
    fold = work.fold()
    for index in range(10):
        fold.update(index, X, None)
    numbers = Sampled.of(fold.result()).rows[:, 0]
    assert chisquare(np.bincount((numbers // 100).astype(int), minlength=40)).pvalue > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_each_chunk_gives_its_share_of_the_sample(seed: int) -> None:
    edges = [0, 100, 1500, 1600, 3000, 3900, N]
    work = Survey(seed, 1000, D, N)
    fold = work.fold()
    for index, (a, b) in enumerate(pairwise(edges)):
        fold.update(index, X[a:b], None)
    numbers = Sampled.of(fold.result()).rows[:, 0]
    counts = np.histogram(numbers, edges)[0]
    assert chisquare(counts, 1000 * np.diff(edges) / N).pvalue > 1e-3


def test_the_sample_is_full_where_most_rows_weigh_nothing() -> None:
    weight = np.zeros(N)
    weight[::100] = 1.0
    sample = Sampled.of(survey(X, range(0, N + 1, 500), size=30, weight=weight))
    assert len(sample.rows) == 30


def test_few_weighted_rows_among_many_can_be_fitted() -> None:
    rows = blobs(N, D, 2)[0]
    weight = np.zeros(N)
    weight[::100] = 1.0
    options: dict[str, Any] = {"sample_size": 40, "random_state": 0}
    model = GaussianMixture(2, **options).fit(rows, sample_weight=weight)
    assert model.converged_


def test_the_survey_is_the_same_on_every_backend(client, tmp_path) -> None:
    source = as_source(write_zarr(tmp_path / "x.zarr", X, 100))
    work = Survey(3, 200, D, N)
    expected = SerialBackend().map_reduce(source, work)
    found = [DaskBackend().map_reduce(source, work)]
    for scheduler in ("threads", "synchronous"):
        with dask.config.set(scheduler=scheduler):
            found.append(DaskBackend().map_reduce(source, work))
    for other in found:
        np.testing.assert_array_equal(other.sample.rows, expected.sample.rows)
        assert_sums_close(other.moments, expected.moments, rtol=0)


def assert_moments(found: Surveyed, rows: np.ndarray) -> None:
    """Equal to NumPy's in long double, up to what a float64 sum over the rows rounds away."""
    wide = rows.astype(np.longdouble)
    mean = wide.mean(axis=0)
    covariance = (wide - mean).T @ (wide - mean) / len(wide)
    rounding = np.finfo(float).eps * np.abs(rows).max()
    np.testing.assert_allclose(found.moments.mean, mean.astype(float), rtol=0, atol=8 * rounding)
    np.testing.assert_allclose(found.covariance, covariance.astype(float), atol=rounding + 1e-13)


# Hypothesis tries constants of whatever modules are loaded, so this one is asked for by name.
@example(inner=[1, 2048], offset=0.0)
@given(inner=st.lists(st.integers(0, N), max_size=8), offset=st.sampled_from([0.0, 1e4, 1e8]))
def test_moments_are_numpy_s_for_any_chunks(inner: list[int], offset: float) -> None:
    rows = X[:, 1:] + offset
    edges = [0, *sorted({*inner} - {0, N}), N]
    found = survey(rows, edges)
    assert (found.n_rows, found.n_weighted, found.moments.weight) == (N, N, N)
    assert_moments(found, rows)
    np.testing.assert_array_equal(found.moments.low, rows.min(axis=0))
    np.testing.assert_array_equal(found.moments.high, rows.max(axis=0))


def test_weighted_moments_are_numpy_s() -> None:
    rows, weight = X[:, 1:] + 1e8, np.random.default_rng(1).integers(0, 4, N).astype(float)
    found = survey(rows, [0, 999, 1000, N], weight=weight)
    repeated = np.repeat(rows, weight.astype(int), axis=0)
    assert found.n_weighted == np.count_nonzero(weight)
    assert found.moments.weight == weight.sum()
    assert_moments(found, repeated)


def test_a_constant_column_is_named() -> None:
    rows = X.copy()
    rows[:, 1] = 7.0
    assert survey(rows, [0, 1000, N]).constant_columns == [1]


def test_the_default_sample_grows_with_the_parameters_within_limits() -> None:
    sizes = [default_sample_size(p, 10) for p in (10, 500, 10_000)]
    assert sizes == sorted(sizes)
    assert sizes[0] >= 20_000
    assert default_sample_size(10**6, 2**20) * 8 * 2**20 <= 64 * 2**20


def test_the_best_of_several_starts_goes_on() -> None:
    rows = blobs(600, 2, 4, seed=5)[0]
    surveyed = survey(rows, [0, 600])
    scores = []

    def make(sample: Sampled, seed: int):
        resp = np.random.default_rng(seed).dirichlet(np.ones(4), len(sample.rows))
        pooled = GaussianOptions().of_data(surveyed.moments, 4).near(sample.rows, resp)
        mixture = Mixture(np.full(4, -np.log(4)), pooled).of_responsibilities(sample.rows, resp)
        scores.append(sample.accumulate(mixture).mean_log_likelihood)
        return mixture

    advanced: list[int] = []
    found = best_start(surveyed, make, 5, 0, convergence=None, advance=advanced.append)
    assert len(scores) == len(advanced) == 5
    assert found.log_likelihood == max(scores)


def test_rows_sorted_by_cluster_reach_the_optimum_of_shuffled_rows(kind: str, tmp_path) -> None:
    rows, labels, _ = blobs(6000, 3, 4, seed=6)
    tidy = write_zarr(tmp_path / "sorted.zarr", rows[np.argsort(labels, kind="stable")], 111)
    mixed = write_zarr(tmp_path / "mixed.zarr", rows, 111)
    options: dict[str, Any] = {
        "covariance_type": kind,
        "tol": 1e-5,
        "random_state": 0,
        "sample_size": 1000,
    }
    one = GaussianMixture(4, **options).fit(tidy)
    other = GaussianMixture(4, **options).fit(mixed)
    assert abs(one.score(rows) - other.score(rows)) < 1e-3


@pytest.mark.parametrize(
    "init_params", ["auto", "kmeans", "k-means++", "random", "random_from_data"]
)
def test_every_way_to_start_works(kind: str, init_params: str) -> None:
    rows = blobs(1500, 2, 3, seed=7)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianMixture(
            3, covariance_type=kind, init_params=init_params, max_iter=30, random_state=0
        ).fit(rows)
    assert np.isfinite(model.lower_bound_)
    assert (np.diff(model.lower_bounds_) > -1e-4).all()


@pytest.mark.parametrize("given", ["weights_init", "means_init", "precisions_init"])
def test_parts_of_a_start_may_be_given(kind: str, given: str, synchronous: None) -> None:
    rows, _, means = blobs(800, 2, 3, seed=8)
    value = start(kind, means)[given]
    seen: list[Any] = []
    options: dict[str, Any] = {
        "random_state": 0,
        "init_params": "kmeans",
        "callbacks": [seen.append],
    }
    GaussianMixture(3, covariance_type=kind, **{given: value}, **options).fit(rows)
    first = seen[0].mixture
    centres, covariance = first.components.data_coordinates()
    used = {
        "weights_init": first.weights,
        "means_init": centres,
        "precisions_init": covariance.precisions,
    }
    np.testing.assert_allclose(used.pop(given), value, rtol=1e-10, atol=1e-12)
    given_too = start(kind, means)
    assert not any(np.allclose(used[name], given_too[name]) for name in used)


def test_the_start_does_not_depend_on_who_computes(client, tmp_path) -> None:
    rows = blobs(2000, 2, 3, seed=9)[0]
    stored = write_zarr(tmp_path / "x.zarr", rows, 100)
    options: dict[str, Any] = {"n_init": 3, "random_state": 1, "sample_size": 300}
    far = GaussianMixture(3, **options).fit(stored)
    with dask.config.set(scheduler="threads"):
        near = GaussianMixture(3, **options).fit(stored)
    np.testing.assert_array_equal(far.means_, near.means_)


def test_another_seed_draws_another_sample() -> None:
    source = ArraySource(X)
    samples = [
        SerialBackend().map_reduce(source, Survey(seed, 50, D, N)).sample.rows for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])


def test_dask_blocks_of_unknown_length_are_sampled_whole(synchronous) -> None:
    lazy = da.from_array(X, chunks=(500, D))
    lazy = lazy[lazy[:, 0] >= 0]
    source = as_source(lazy)
    assert source.n_rows is None
    found = DaskBackend().map_reduce(source, Survey(0, 100, D, None))
    assert len(found.sample.smallest().rows) == 100
    assert found.n_rows == N


# -- groups that few columns show -----------------------------------------------------------


@pytest.mark.parametrize("family", [GaussianMixture, StudentTMixture])
@pytest.mark.parametrize("kind", ["full", "diag"])
def test_columns_without_groups_hide_none(family: Any, kind: str) -> None:
    """Two of eleven columns tell the groups apart: of standardized rows, nine are mere noise."""
    rng = np.random.default_rng(0)
    groups = np.repeat([[0.0, 0.0], [50.0, 9.0], [90.0, 9.0]], 300, axis=0)
    X = np.column_stack([rng.normal(size=(900, 9)), groups + rng.normal(size=(900, 2))])
    for seed in range(3):
        model = family(3, covariance_type=kind, random_state=seed).fit(X)
        assert adjusted_rand_score(np.repeat(range(3), 300), model.predict(X)) == 1
    found = select(X, [2, 3], [kind], estimator=family, n_init=1, random_state=0).best
    assert adjusted_rand_score(np.repeat(range(3), 300), found.predict(X)) == 1


def test_columns_that_show_groups_are_scaled_by_how_well() -> None:
    rng = np.random.default_rng(1)
    quiet, wide = rng.normal(size=(2000, 4)), rng.standard_t(3, size=2000)
    apart = np.repeat([-9.0, 0.0, 9.0, 30.0], 500) + rng.normal(size=2000)
    rows = np.column_stack([quiet, wide, apart])
    found = grouped_columns(rows, np.ones(2000), 4)
    assert found is not None
    np.testing.assert_allclose(found, rows[:, 5:] * (found[0, 0] / rows[0, 5]))
    # Its groups are a standard deviation wide within, but for what normal columns have of parts.
    assert 0.9 < found[:500].std() < 1.1

    def n_shown(rows: Any, weights: Any) -> int:
        """How many columns show groups."""
        found = grouped_columns(rows, weights, 4)
        return 0 if found is None else found.shape[1]

    # Weights are rows, units and empty columns are nothing.
    weights = np.repeat([1.0, 2.0], 1000)
    twice = np.concatenate([rows[:1000], rows[1000:].repeat(2, axis=0)])[: 2 * 1000 - 1]
    assert n_shown(rows * 1e6, np.ones(2000)) == 1
    assert n_shown(twice, np.ones(len(twice))) == n_shown(rows, weights) == 1
    assert n_shown(np.column_stack([rows, np.zeros(2000)]), weights) == 1
    assert n_shown(rows[:, :5], np.ones(2000)) == 0
    # Of more parts than there are places, too.
    few = np.round(rows[:600])
    assert n_shown(few, np.ones(600)) > 0
    assert np.isfinite(np.asarray(grouped_columns(few, np.ones(600), 200))).all()
    # Columns that show them alike are no other start.
    assert n_shown(np.repeat(rows[:, 5:], 2, axis=1), np.ones(2000)) == 0
