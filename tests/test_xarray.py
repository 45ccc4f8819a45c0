"""xarray in and out: the same numbers, and the coordinates of the rows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client
from helpers import blobs, digest, write_zarr
from zarr.codecs import Crc32cCodec

from dask_em import GaussianMixture, load
from dask_em.errors import DataError

xr = pytest.importorskip("xarray", reason="the extra `xarray` is not installed")
pytestmark = pytest.mark.usefixtures("many_chunks", "synchronous")

N, D, K = 600, 3, 3
X, _, _ = blobs(N, D, K)
TIMES = np.datetime64("2026-01-01") + np.arange(N).astype("timedelta64[h]")
NAMES = ["u", "v", "w"]


def labelled(values: Any) -> Any:
    """Rows with an index, another coordinate along them, and one of all of them."""
    coords = {
        "time": TIMES,
        "station": ("time", np.arange(N) % 7),
        "run": 4,
        "feature": NAMES,
        "unit": ("feature", ["m", "s", "K"]),
    }
    return xr.DataArray(values, coords, ("time", "feature"), "points", {"long_name": "wind"})


def fitted(data: Any, **options: Any) -> GaussianMixture:
    return GaussianMixture(K, random_state=0).fit(data, **options)


@pytest.fixture(params=["numpy", "dask", "zarr behind dask", "xarray's zarr", "xarray's lazy zarr"])
def wrapped(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any]:
    """A DataArray, and what it is without labels."""
    blocks = da.from_array(X, chunks=(100, -1))
    if request.param == "numpy":
        return labelled(X), X
    if request.param == "dask":
        return labelled(blocks), blocks
    if request.param == "zarr behind dask":
        stored = write_zarr(tmp_path / "x.zarr", X, 100, compressors=[Crc32cCodec()])
        return labelled(da.from_zarr(stored)), stored
    labelled(blocks).to_dataset().to_zarr(tmp_path / "set.zarr", zarr_format=2)
    chunks: dict[str, int] | None = {} if request.param == "xarray's zarr" else None
    return xr.open_zarr(tmp_path / "set.zarr", chunks=chunks)["points"], blocks


def test_a_data_array_gives_the_bits_of_its_data(wrapped: tuple[Any, Any]) -> None:
    data, plain = wrapped
    ours, theirs = fitted(data), fitted(plain)
    assert digest(ours) == digest(theirs)
    assert ours.score(data) == theirs.score(plain)
    for answer, name in (
        ("predict", "labels"),
        ("predict_proba", "proba"),
        ("score_samples", "log_density"),
    ):
        got, expected = getattr(ours, answer)(data), getattr(theirs, answer)(plain)
        assert isinstance(got, xr.DataArray)
        assert got.name == name
        # Lazy unless the rows are in memory.
        assert (got.chunks is None) == isinstance(expected, np.ndarray)
        np.testing.assert_array_equal(got.values, np.asarray(expected))


def test_nothing_is_read_before_it_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "set.zarr"
    labelled(da.from_array(X, chunks=(100, -1))).to_dataset().to_zarr(path, zarr_format=2)
    data = xr.open_zarr(path, chunks=None)["points"]
    model = fitted(data)
    for file in (path / "points/c").rglob("*"):
        if file.is_file():
            file.unlink()
    labels = model.predict(data)
    assert labels.chunks == ((100,) * 6,)
    assert not data.variable._in_memory


def test_answers_carry_the_coordinates_of_the_rows() -> None:
    data = labelled(X)
    model = fitted(data)
    labels, proba = model.predict(data), model.predict_proba(data)
    assert labels.dims == ("time",)
    assert set(labels.coords) == {"time", "station", "run"}
    for name in labels.coords:
        np.testing.assert_array_equal(labels[name].values, data[name].values)
    assert proba.dims == ("time", "component")
    assert proba.component.values.tolist() == [0, 1, 2]
    # As people go on: by label, by group, beside the data.
    assert int(labels.sel(time="2026-01-05T03")) == int(model.predict(data[99:100])[0])
    assert labels.groupby("station").count().sum() == N
    assert data.to_dataset().assign(label=labels)["label"].dims == ("time",)
    assert fitted(data).fit_predict(data).equals(labels)


def test_a_map_is_stacked_and_comes_back_as_a_map() -> None:
    field = xr.DataArray(
        X.reshape(20, 30, D), {"lat": np.arange(20.0), "lon": np.arange(30.0), "feature": NAMES},
        ("lat", "lon", "feature"),
    )  # fmt: skip
    with pytest.raises(DataError, match="if it is 'feature', in a shell"):
        fitted(field)
    rows = field.stack(row=("lat", "lon")).transpose("row", ...)
    labels = fitted(rows).predict(rows).unstack("row")
    assert labels.dims == ("lat", "lon")
    np.testing.assert_array_equal(labels.values.ravel(), fitted(X).predict(X))


def test_columns_are_named_by_their_coordinate(tmp_path: Path) -> None:
    data = labelled(X)
    model = fitted(data)
    assert model.feature_names_in_.tolist() == NAMES
    assert model.feature_names_in_.dtype == object
    model.save(tmp_path / "model.npz")
    again = load(tmp_path / "model.npz")
    assert again.predict(data[:, ::-1]).equals(again.predict(data))
    with pytest.raises(DataError, match="X lacks columns that the model was fitted to, 'w'"):
        again.predict(data[:, :2])
    # Without names nobody can tell, and nobody is warned.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert again.predict(data.drop_vars("feature")).equals(again.predict(data))
    numbered = data.assign_coords(feature=[10, 20, 30])
    assert not hasattr(fitted(numbered), "feature_names_in_")
    assert not hasattr(model.fit(X), "feature_names_in_")
    # A table's names are the same names.
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame(X, columns=NAMES)
    np.testing.assert_array_equal(again.predict(table), again.predict(data).values)


def test_a_nan_is_named_by_its_column() -> None:
    bad = X.copy()
    bad[17, 1] = np.nan
    with pytest.raises(DataError, match="NaN at row 17, column 'v'"):
        fitted(labelled(bad))


# These rows have no clusters, so with weights the likelihood still rises a little when they end.
@pytest.mark.filterwarnings("ignore:Best performing initialization did not converge")
def test_weights_may_carry_labels_too() -> None:
    data, w = labelled(X), np.random.default_rng(0).uniform(0.5, 2, N)
    expected = digest(fitted(X, sample_weight=w))
    weight = xr.DataArray(w, {"time": TIMES}, ("time",))
    assert digest(fitted(data, sample_weight=weight)) == expected
    assert digest(fitted(data, sample_weight=weight.drop_vars("time"))) == expected
    assert digest(fitted(X, sample_weight=weight)) == expected
    blocks = labelled(da.from_array(X, chunks=(100, -1)))
    assert digest(fitted(blocks, sample_weight=weight.chunk(time=100))) == digest(
        fitted(blocks.data, sample_weight=da.from_array(w, chunks=100))
    )
    with pytest.raises(DataError, match="other coordinates along 'time'"):
        fitted(data, sample_weight=weight[::-1])
    with pytest.raises(DataError, match=r"expected \('time',\)"):
        fitted(data, sample_weight=weight.rename(time="row"))


def test_a_data_set_of_one_variable_is_asked_which_dimension_holds_the_variables() -> None:
    with pytest.raises(DataError, match=r"time \(600\), feature \(3\): which of them holds"):
        fitted(labelled(X).to_dataset())


def test_rows_that_are_called_component() -> None:
    data = xr.DataArray(X, dims=("component", "feature"))
    assert fitted(data).predict_proba(data).dims == ("component", "k")


def test_workers_do_the_computing(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "set.zarr"
    labelled(da.from_array(X, chunks=(100, -1))).to_dataset().to_zarr(path, zarr_format=2)
    with dask.config.set(scheduler=client):
        data = xr.open_zarr(path)["points"]
        labels = fitted(data).predict(data).compute()
        blocks = da.from_array(X, chunks=(100, -1))
        np.testing.assert_array_equal(labels.values, fitted(blocks).predict(blocks).compute())
    np.testing.assert_array_equal(labels.time.values, TIMES)
