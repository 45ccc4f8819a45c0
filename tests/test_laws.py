"""Laws of the E-step and of EM, over every covariance structure."""

from __future__ import annotations

from itertools import pairwise

import dask
import dask.array as da
import numpy as np
import pytest
from helpers import (
    KINDS,
    add_up,
    assert_fits_close,
    assert_sums_close,
    blobs,
    gaussian_of,
    mixture_of,
    precisions_like,
    random_mixture,
    start,
    states,
    sums_of,
    write_zarr,
)
from hypothesis import given
from hypothesis import strategies as st

from dask_em import GaussianMixture
from dask_em.core.mixture import Mixture
from dask_em.core.reduction import add_all, add_tree, tree_levels
from dask_em.core.tuning import tuning

pytestmark = pytest.mark.usefixtures("engine", "many_chunks", "synchronous")

N, D, K = 900, 3, 3
X, LABELS, MEANS = blobs(N, D, K, apart=2.0)


def cuts(n: int) -> st.SearchStrategy[list[int]]:
    """Borders of uneven pieces of n rows, empty ones among them."""
    return st.lists(st.integers(0, n), max_size=12).map(lambda inner: [0, *sorted(inner), n])


def fit(X, kind: str, means: np.ndarray = MEANS, precision: float = 1.0, **options):
    """A few iterations of plain EM from a given start."""
    options = {"tol": 0, "max_iter": 4, "reg_covar": 0, **start(kind, means, precision), **options}
    with pytest.warns(match="max_iter passes"):
        return GaussianMixture(len(means), covariance_type=kind, **options).fit(X)


# -- sums ------------------------------------------------------------------------


@given(kind=st.sampled_from(KINDS), edges=cuts(N), weighted=st.booleans(), seed=st.integers(0, 9))
def test_pieces_add_up_to_the_whole(kind: str, edges: list[int], weighted: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mixture = random_mixture(kind, K, D, rng)
    weight = rng.random(N) if weighted else None
    parts = [
        add_up(mixture, X[a:b], None if weight is None else weight[a:b]) for a, b in pairwise(edges)
    ]
    whole = add_up(mixture, X, weight)
    assert_sums_close(add_tree(parts), whole, rtol=1e-12)
    assert_sums_close(add_all(parts), whole, rtol=1e-12)


@given(n=st.integers(1, 700))
def test_the_tree_adds_every_part_once_and_in_order(n: int) -> None:
    assert add_tree([(i,) for i in range(n)]) == tuple(range(n))
    assert all(
        len(group) <= tuning().reduction.fan_in for level in tree_levels(n) for group in level
    )


def test_sums_add_field_by_field_and_know_their_size(kind: str) -> None:
    mixture = random_mixture(kind, K, D, np.random.default_rng(0))
    one = add_up(mixture, X)
    both = one + one
    assert both.n_rows == 2 * N
    assert both.mean_log_likelihood == one.mean_log_likelihood
    np.testing.assert_array_equal(sums_of(both).scatter, 2 * sums_of(one).scatter)
    assert one.nbytes >= sums_of(one).scatter.nbytes


def test_chunks_fed_to_one_fold_are_one_chunk(kind: str) -> None:
    mixture = random_mixture(kind, K, D, np.random.default_rng(1))
    fold = mixture.fold()
    for index, part in enumerate(np.array_split(X, 7)):
        fold.update(index, part, None)
    assert_sums_close(fold.result(), add_up(mixture, X), rtol=1e-12)


# -- chunkings -------------------------------------------------------------------


@given(kind=st.sampled_from(KINDS), edges=cuts(N))
def test_any_blocks_of_a_dask_array_give_the_fit_of_one_chunk(kind: str, edges: list[int]) -> None:
    lengths = tuple(b - a for a, b in pairwise(edges) if b > a)
    chunked = da.from_array(X, chunks=(lengths, (1, D - 1)))
    assert_fits_close(fit(chunked, kind), fit(X, kind), rtol=1e-10)


@pytest.mark.parametrize(
    "layout",
    [
        {"chunks": (37, D)},
        {"chunks": (1000, D)},
        {"chunks": (100, 1)},
        {"chunks": (64, 2)},
        {"chunks": (10, D), "shards": (250, D)},
        {"chunks": (50, 1), "shards": (1000, D)},
        {"chunks": (90, D), "compressors": None},
    ],
    ids=str,
)
def test_any_zarr_layout_gives_the_fit_of_one_chunk(layout: dict, tmp_path) -> None:
    array = write_zarr(tmp_path / "x.zarr", X, 1, **layout)
    assert_fits_close(fit(array, "full"), fit(X, "full"), rtol=1e-10)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("full", dtype) for dtype in ("f4", "f8", ">f8", "i2", "u1", "i8", "f2")]
    + [(kind, "f4") for kind in KINDS if kind != "full"],
)
def test_any_dtype_is_summed_in_float64(kind: str, dtype: str, tmp_path) -> None:
    rounded = np.abs(X * 10).astype(dtype)
    array = write_zarr(tmp_path / "x.zarr", rounded, 100)
    means = np.abs(MEANS * 10)
    plain = fit(rounded.astype("f8"), kind, means, 0.01)
    with dask.config.set({"dask_em.float32": False}):
        assert_fits_close(fit(array, kind, means, 0.01), plain, rtol=1e-10)
    assert_fits_close(fit(array, kind, means, 0.01), plain, rtol=1e-5 if dtype == "f4" else 1e-10)


def test_blocks_of_unknown_length_are_read(kind: str) -> None:
    chunked = da.from_array(X, chunks=(200, D))
    kept = chunked[chunked[:, 0] > 0]
    assert np.isnan(kept.shape[0])
    assert_fits_close(fit(kept, kind), fit(X[X[:, 0] > 0], kind), rtol=1e-10)


def test_blocks_that_turn_out_empty_hold_no_rows(kind: str) -> None:
    ordered = X[np.argsort(X[:, 0])]
    chunked = da.from_array(ordered, chunks=(100, D))
    kept = chunked[chunked[:, 0] > 0]
    assert_fits_close(fit(kept, kind), fit(ordered[ordered[:, 0] > 0], kind), rtol=1e-10)


# -- EM --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_log_likelihood_never_falls(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = blobs(500, 4, 3, seed, apart=1.0)[0]
    begin = mixture_of(kind, rng.normal(size=(5, 4)), precisions_like(kind, 1.0, 5, 4), rows)
    values = [s.log_likelihood for s in states(rows, begin, max_iter=60, tol=0)]
    assert len(values) == 60
    assert (np.diff(values) > -1e-12).all()


def test_components_may_stand_in_any_order(kind: str) -> None:
    order = [2, 0, 1]
    inits = start(kind, MEANS)
    inits["weights_init"] = np.array([0.2, 0.3, 0.5])
    permuted = {
        name: value if kind == "tied" and name == "precisions_init" else value[order]
        for name, value in inits.items()
    }
    one, other = fit(X, kind, **inits), fit(X, kind, **permuted)
    np.testing.assert_allclose(other.weights_, one.weights_[order], rtol=1e-11)
    np.testing.assert_allclose(other.means_, one.means_[order], rtol=1e-11)
    covariances = one.covariances_ if kind == "tied" else one.covariances_[order]
    np.testing.assert_allclose(other.covariances_, covariances, rtol=1e-10, atol=1e-11)


def test_rows_may_stand_in_any_order(kind: str) -> None:
    order = np.random.default_rng(2).permutation(N)
    assert_fits_close(fit(X[order], kind), fit(X, kind), rtol=1e-11)


@pytest.mark.parametrize(("offset", "rtol"), [(-7.0, 1e-12), (1e4, 1e-10), (1e8, 1e-6)])
def test_shifted_rows_give_the_shifted_mixture(kind: str, offset: float, rtol: float) -> None:
    # What the shift itself rounds away of the rows bounds what can be asked for.
    one, other = fit(X, kind), fit(X + offset, kind, MEANS + offset)
    np.testing.assert_allclose(other.weights_, one.weights_, rtol=rtol)
    np.testing.assert_allclose(other.means_ - offset, one.means_, atol=10 * rtol)
    np.testing.assert_allclose(other.covariances_, one.covariances_, rtol=rtol, atol=10 * rtol)
    np.testing.assert_allclose(other.lower_bound_, one.lower_bound_, rtol=rtol)


@pytest.mark.parametrize("factor", [1e-6, 1e-2, 1e3, 1e9])
def test_scaled_rows_give_the_scaled_mixture(kind: str, factor: float) -> None:
    one, other = fit(X, kind), fit(X * factor, kind, MEANS * factor, factor**-2)
    np.testing.assert_allclose(other.weights_, one.weights_, rtol=1e-10)
    np.testing.assert_allclose(other.means_ / factor, one.means_, rtol=1e-10)
    scaled = other.covariances_ / factor**2
    np.testing.assert_allclose(scaled, one.covariances_, rtol=1e-10, atol=1e-11)
    moved = other.lower_bound_ + D * np.log(factor)
    np.testing.assert_allclose(moved, one.lower_bound_, rtol=1e-10)


@pytest.mark.parametrize("kind", ["full", "tied", "diag"])
def test_each_column_may_have_its_own_scale(kind: str) -> None:
    factors = np.array([1e-3, 1.0, 1e6])
    inits = start(kind, MEANS * factors)
    scale = factors if kind == "diag" else np.outer(factors, factors)
    inits["precisions_init"] = inits["precisions_init"] / (scale**2 if kind == "diag" else scale)
    one, other = fit(X, kind), fit(X * factors, kind, **inits)
    np.testing.assert_allclose(other.means_ / factors, one.means_, rtol=1e-10)
    spread = factors**2 if kind == "diag" else scale
    np.testing.assert_allclose(other.covariances_ / spread, one.covariances_, rtol=1e-9, atol=1e-10)


def test_twice_the_weight_changes_nothing(kind: str) -> None:
    one = fit(X, kind)
    with pytest.warns(match="max_iter passes"):
        other = GaussianMixture(**one.get_params()).fit(X, sample_weight=np.full(N, 2.0))
    assert_fits_close(other, one, rtol=1e-12)


def test_a_mixture_of_equal_components_is_one_component(kind: str) -> None:
    one = random_mixture(kind, 1, D, np.random.default_rng(3))
    g = gaussian_of(one)
    factor = g.covariance.factor if kind == "tied" else np.repeat(g.covariance.factor, 4, axis=0)
    copies = type(g)(np.repeat(g.means, 4, axis=0), type(g.covariance)(factor), g.whitening)
    mixture = Mixture(np.log(np.full(4, 0.25)), copies)
    actual, expected = add_up(mixture, X), add_up(one, X)
    np.testing.assert_allclose(actual.log_likelihood, expected.log_likelihood, rtol=1e-13)
    np.testing.assert_allclose(actual.resp_sum, np.full(4, N / 4), rtol=1e-13)
