"""Bad input is named, with what was expected, and never clustered."""

from __future__ import annotations

import warnings
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from helpers import blobs, start, write_zarr

from dask_em import GaussianMixture
from dask_em.errors import DataError

pytestmark = pytest.mark.usefixtures("many_chunks", "synchronous")

N, D, K = 600, 3, 2
X, _, MEANS = blobs(N, D, K, seed=1)


def held_by(holder: str, rows: np.ndarray, tmp_path: Any) -> Any:
    if holder == "zarr":
        return write_zarr(tmp_path / "x.zarr", rows, 50)
    return da.from_array(rows, chunks={0: 50}) if holder == "dask" else rows


def fit(rows: Any, sample_weight: Any = None, **options: Any) -> GaussianMixture:
    model = GaussianMixture(**{"n_components": K, "random_state": 0, **options})
    return model.fit(rows, sample_weight=sample_weight)


# -- paths -----------------------------------------------------------------------


def test_no_such_path(tmp_path) -> None:
    with pytest.raises(DataError, match=r"nothing\.zarr: no such path"):
        fit(tmp_path / "nothing.zarr")


def test_a_group_names_its_arrays(tmp_path) -> None:
    group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w")
    for name in ("points", "labels"):
        group.create_array(name, shape=(5, 2), dtype="f8")
    with pytest.raises(DataError, match=r"is a group.*g\.zarr/labels, .*g\.zarr/points"):
        fit(tmp_path / "g.zarr")
    with pytest.raises(DataError, match=r"is a group.*g\.zarr/labels, .*g\.zarr/points"):
        fit(group)
    zarr.open_group(str(tmp_path / "empty.zarr"), mode="w")
    with pytest.raises(DataError, match=r"is a group.*none"):
        fit(tmp_path / "empty.zarr")


@pytest.mark.parametrize("name", ["x.csv", "folder"])
def test_what_is_not_zarr(name: str, tmp_path) -> None:
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_bytes(b"1,2\n3,4\n")
    with pytest.raises(DataError, match=r"not a Zarr array.*give the path of an array"):
        fit(path)


def test_a_path_below_an_array(tmp_path) -> None:
    write_zarr(tmp_path / "x.zarr", X, 50)
    with pytest.raises(DataError):
        fit(tmp_path / "x.zarr" / "points")


def test_damaged_metadata(tmp_path) -> None:
    write_zarr(tmp_path / "x.zarr", X, 50)
    (tmp_path / "x.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node')
    with pytest.raises(DataError, match="not a Zarr array"):
        fit(tmp_path / "x.zarr")


# -- shapes and types --------------------------------------------------------------


@pytest.mark.parametrize("holder", ["zarr", "dask"])
@pytest.mark.parametrize("shape", [(60,), (60, 2, 2)])
def test_rows_must_have_two_axes(holder: str, shape: tuple[int, ...], tmp_path) -> None:
    with pytest.raises(DataError, match=rf"must be 2-D.*got {len(shape)}-D"):
        fit(held_by(holder, np.ones(shape), tmp_path))


@pytest.mark.parametrize("holder", ["numpy", "zarr", "dask"])
@pytest.mark.parametrize("shape", [(0, 3), (60, 0)])
def test_there_must_be_something_to_cluster(holder: str, shape: tuple[int, int], tmp_path) -> None:
    rows: Any = np.ones(shape)
    if holder == "zarr":
        rows = zarr.create_array(str(tmp_path / "x"), shape=shape, chunks=(10, 3), dtype="f8")
    elif holder == "dask":
        rows = da.from_array(rows)
    with pytest.raises(ValueError, match=r"nothing to cluster|Found array with 0"):
        fit(rows)


@pytest.mark.parametrize("holder", ["numpy", "zarr", "dask"])
def test_there_must_be_a_row_for_each_component(holder: str, tmp_path) -> None:
    with pytest.raises(DataError, match=r"X has 3 rows.*n_components=4"):
        fit(held_by(holder, X[:3], tmp_path), n_components=4)


@pytest.mark.parametrize("dtype", ["c16", "U3", "M8[s]", "O"])
def test_rows_must_be_real_numbers(dtype: str) -> None:
    rows = np.ones((20, 2)).astype("i8").astype(dtype)
    with pytest.raises(DataError, match=r"dtype .*not a real number; convert it"):
        fit(da.from_array(rows, chunks=(10, 2)))


@pytest.mark.parametrize("dtype", ["c16", "U3"])
def test_stored_rows_must_be_real_numbers(dtype: str, tmp_path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = write_zarr(tmp_path / "x.zarr", np.ones((20, 2)).astype(dtype), 10)
    with pytest.raises(DataError, match=r"dtype .*not a real number; convert it"):
        fit(rows)


# -- values ------------------------------------------------------------------------


@pytest.mark.parametrize("holder", ["numpy", "zarr", "dask"])
@pytest.mark.parametrize(
    ("value", "what"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")]
)
def test_what_is_not_finite_is_named(holder: str, value: float, what: str, tmp_path) -> None:
    rows = X.copy()
    rows[223, 2] = rows[223, 1] = rows[500, 0] = value
    where = "row 23 of block 4" if holder == "dask" else "row 223"
    with pytest.raises(DataError, match=rf"X contains {what} at {where}, column 1; 2 rows"):
        fit(held_by(holder, rows, tmp_path))


def test_what_is_not_finite_is_named_by_its_column_s_name() -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pd.DataFrame(X.copy(), columns=["a", "b", "c"])
    frame.loc[7, "b"] = np.nan
    with pytest.raises(DataError, match="row 7, column 'b'"):
        fit(frame)


def test_what_is_not_finite_is_named_where_it_is_beside_rows_of_weight_zero(tmp_path) -> None:
    rows, weights = X.copy(), np.ones(N)
    rows[223, 1] = np.nan
    weights[:220] = 0
    with pytest.raises(DataError, match="row 223, column 1"):
        fit(write_zarr(tmp_path / "x.zarr", rows, 50), weights)


@pytest.mark.parametrize("holder", ["numpy", "zarr", "dask"])
@pytest.mark.parametrize("method", ["predict", "predict_proba", "score_samples", "score"])
def test_what_is_not_finite_gets_no_answer(holder: str, method: str, tmp_path) -> None:
    rows = X.copy()
    rows[223, 1] = np.nan
    model = fit(X)
    with pytest.raises(ValueError, match="NaN"), np.errstate(invalid="ignore"):
        np.asarray(getattr(model, method)(held_by(holder, rows, tmp_path)))


@pytest.mark.parametrize("holder", ["numpy", "zarr", "dask"])
def test_a_constant_column_is_named_and_fitted(kind: str, holder: str, tmp_path) -> None:
    rows = X.copy()
    rows[:, 1] = 4.0
    with pytest.warns(UserWarning, match="does not vary in column 1:.*leave it out"):
        model = fit(held_by(holder, rows, tmp_path), covariance_type=kind)
    np.testing.assert_allclose(model.means_[:, 1], 4.0)
    assert np.isfinite(model.covariances_).all()


def test_a_constant_column_that_has_a_name_comes_with_the_option() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": X[:, 0], "one": 1.0, "b": X[:, 1], "two": 2.0})
    with pytest.warns(UserWarning, match=r"leave it out by exclude=\['one', 'two'\]$"):
        fit(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(table, exclude=["one", "two"])
    with pytest.warns(UserWarning, match=r"leave it out$"):
        fit(table[["one"]], n_components=1)


def test_a_large_reg_covar_is_named(tmp_path) -> None:
    rows = X * [1.0, 1e-3, 1.0]
    with pytest.warns(UserWarning, match=r"reg_covar=1e-06 is not small.*column 1.*reg_covar=0"):
        fit(write_zarr(tmp_path / "x.zarr", rows, 50))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(rows, reg_covar=0)


def test_huge_values_are_refused_not_clustered() -> None:
    with np.errstate(all="ignore"), pytest.raises(DataError, match="beyond"):
        fit(X * 1e300)


# -- weights -----------------------------------------------------------------------


@pytest.mark.parametrize("holder", ["numpy", "zarr", "dask"])
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_weights_must_be_zero_or_positive(holder: str, value: float, tmp_path) -> None:
    weights = np.ones(N)
    weights[[3, 400]] = value
    with pytest.raises(DataError, match="sample_weight has 2 entries that are negative"):
        fit(held_by(holder, X, tmp_path), weights)


@pytest.mark.parametrize("holder", ["numpy", "zarr", "dask"])
def test_weights_must_not_all_be_zero(holder: str, tmp_path) -> None:
    with pytest.raises(DataError, match="sample_weight is zero for every row"):
        fit(held_by(holder, X, tmp_path), np.zeros(N))


@pytest.mark.parametrize("holder", ["numpy", "zarr", "dask"])
@pytest.mark.parametrize("of_weights", ["numpy", "zarr", "dask"])
def test_weights_must_be_one_for_each_row(holder: str, of_weights: str, tmp_path) -> None:
    weights: Any = np.ones(N - 1)
    if of_weights == "zarr":
        weights = write_zarr(tmp_path / "w.zarr", weights, 50)
    elif of_weights == "dask":
        weights = da.from_array(weights, chunks=50)
    with pytest.raises(DataError, match=f"sample_weight has {N - 1} entries and X has {N} rows"):
        fit(held_by(holder, X, tmp_path), weights)


def test_weights_have_one_axis() -> None:
    with pytest.raises(DataError, match="sample_weight must be 1-D"):
        fit(X, np.ones((N, 1)))


def test_weights_in_memory_need_known_blocks() -> None:
    rows = da.from_array(X, chunks=(50, D))
    with pytest.raises(DataError, match="compute_chunk_sizes"):
        fit(rows[rows[:, 0] > 0], np.ones(N))


def test_positive_weights_must_be_as_many_as_components() -> None:
    weights = np.zeros(N)
    weights[4] = 1
    with pytest.raises(DataError, match=r"X has 1 rows .*n_components=2"):
        fit(X, weights)


# -- options -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("n_components", 0, "an integer of at least 1"),
        ("n_components", 2.5, "an integer of at least 1"),
        ("n_components", True, "an integer of at least 1"),
        ("n_components", "8", "an integer of at least 1"),
        ("max_iter", -1, "an integer of at least 0"),
        ("n_init", 0, "an integer of at least 1"),
        ("tol", -1e-3, "a number of at least 0"),
        ("tol", np.nan, "a number of at least 0"),
        ("tol", None, "a number of at least 0"),
        ("reg_covar", -1, "a number of at least 0"),
        ("reg_covar", np.inf, "a number of at least 0"),
        ("sample_size", 0, "an integer of at least 1"),
        ("nonfinite", "ignore", "one of error, drop"),
        ("missing_chunks", "skip", "one of error, fill"),
        ("covariance_type", "fulll", "full, tied, diag, spherical"),
        ("covariance_type", None, "full, tied, diag, spherical"),
        ("init_params", "k-means", "kmeans, k-means"),
        ("algorithm", "stochastic", "one of auto, em"),
        ("random_state", -1, r"an integer from 0 to 2\*\*32 - 1"),
        ("random_state", "0", "RandomState"),
        ("random_state", np.random.default_rng(0), "RandomState"),
        ("callbacks", print, "a list of callables"),
        ("callbacks", ["print"], "a list of callables"),
    ],
)
def test_options_name_what_they_expect(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=.*expected .*{expected}"):
        fit(X, **{name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights_init": [0.5, 0.6]}, "weights_init must lie between 0 and 1 and sum to 1"),
        ({"weights_init": [1.5, -0.5]}, "weights_init must lie between 0 and 1"),
        ({"weights_init": [1.0]}, r"weights_init has shape \(1,\), expected \(2,\)"),
        ({"means_init": np.ones((3, 3))}, r"means_init has shape \(3, 3\), expected \(2, 3\)"),
        ({"means_init": np.full((2, 3), np.nan)}, "means_init holds NaN or infinity"),
        ({"means_init": "kmeans"}, r"means_init='kmeans': expected numbers of shape \(2, 3\)"),
        ({"precisions_init": np.ones((2, 3))}, r"precisions_init has shape .* \(2, 3, 3\)"),
        ({"precisions_init": -np.stack([np.eye(3)] * 2)}, "precisions_init must be positive"),
        (
            {"precisions_init": np.stack([np.triu(np.ones((3, 3)))] * 2)},
            "precisions_init must be symmetric",
        ),
    ],
)
def test_inits_name_what_they_expect(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(X, **{**start("full", MEANS), **change})


@pytest.mark.parametrize("kind", ["diag", "spherical"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_precisions_must_be_positive_in_every_structure(kind: str, value: float) -> None:
    inits = start(kind, MEANS)
    inits["precisions_init"] = inits["precisions_init"] * value
    with pytest.raises(ValueError, match="must be positive"):
        fit(X, covariance_type=kind, **inits)


@pytest.mark.parametrize("n", [0, -1, 2.0])
def test_samples_are_counted_from_one(n: Any) -> None:
    with pytest.raises(ValueError, match=rf"^n_samples={n!r}: expected an integer of at least 1"):
        fit(X).sample(n)


@pytest.mark.parametrize("holder", ["numpy", "zarr", "dask"])
@pytest.mark.parametrize("method", ["predict", "predict_proba", "score_samples", "score", "bic"])
def test_answers_need_the_columns_of_the_fit(holder: str, method: str, tmp_path) -> None:
    model = fit(X)
    with pytest.raises(ValueError, match=r"X has 2 (columns|features)"):
        getattr(model, method)(held_by(holder, X[:, :2].copy(), tmp_path))
