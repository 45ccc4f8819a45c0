"""Packed and masked numbers: decoded as xarray does, missing where they are masked."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from helpers import blobs, digest, write_zarr

from dask_em import GaussianMixture, load
from dask_em.cli import main
from dask_em.data.open import as_source
from dask_em.data.packing import Packing
from dask_em.errors import DataError

pytestmark = pytest.mark.usefixtures("many_chunks", "synchronous")

# One component, which has one answer whatever the chunks.
N, D, K, FILL = 600, 3, 1, -9999
ROWS, _, _ = blobs(N, D, 3)
SCALE, OFFSET = 0.01, 280.0
STORED = np.round(ROWS / SCALE).astype("i2")
HOLES = np.zeros((N, D), dtype=bool)
HOLES[[5, 77, 599], [0, 2, 1]] = True
STORED[HOLES] = FILL
ATTRIBUTES = {"scale_factor": SCALE, "add_offset": OFFSET, "_FillValue": FILL}
# What they stand for.
X = STORED.astype("f8") * SCALE + OFFSET
X[HOLES] = np.nan
MASKED = np.ma.masked_array(np.where(HOLES, FILL, X), HOLES)


def stored(folder: Path, **options: Any) -> zarr.Array:
    return write_zarr(folder / "x.zarr", STORED, 100, attributes=ATTRIBUTES, **options)


def by_xarray(folder: Path, zarr_format: int) -> Any:
    xr = pytest.importorskip("xarray", reason="the extra `xarray` is not installed")
    encoding = {"dtype": "i2", **ATTRIBUTES, "chunks": (100, D)}
    data = xr.Dataset({"x": (("row", "feature"), X)})
    data.to_zarr(
        folder / "set.zarr", zarr_format=zarr_format, encoding={"x": encoding}, consolidated=False
    )
    return folder / "set.zarr"


def xarray_lazy(folder: Path) -> Any:
    path = by_xarray(folder, 3)
    import xarray as xr

    return xr.open_zarr(path, consolidated=False)["x"]


def hdf5(folder: Path) -> Any:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    data = h5py.File(folder / "x.h5", "w").create_dataset("x", data=STORED, chunks=(100, D))
    data.attrs.update(ATTRIBUTES)
    return data


def delayed(folder: Path) -> Any:
    """Masked blocks of which Dask knows nothing."""
    parts = [
        da.from_delayed(dask.delayed(MASKED[i : i + 100]), (100, D), "f8") for i in range(0, N, 100)
    ]
    return da.concatenate(parts)


KINDS: dict[str, Callable[[Path], Any]] = {
    "path": lambda folder: str(stored(folder).store_path).removeprefix("file://"),
    "zarr raw": lambda folder: stored(folder, compressors=None),
    "zarr sharded": lambda folder: stored(folder, chunks=(10, D), shards=(100, D)),
    "zarr 2": lambda folder: stored(folder, zarr_format=2),
    "xarray's zarr 2": lambda folder: by_xarray(folder, 2) / "x",
    "xarray's zarr 3": lambda folder: by_xarray(folder, 3) / "x",
    "xarray": xarray_lazy,
    "HDF5": hdf5,
    "masked array": lambda folder: MASKED,
    "masked Dask array": lambda folder: da.from_array(MASKED, chunks=(100, D)),
    "masked blocks": delayed,
}


def fitted(data: Any, **options: Any) -> GaussianMixture:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "3 rows that hold NaN")
        return GaussianMixture(K, random_state=0, **options).fit(data)


@pytest.fixture(params=KINDS)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return KINDS[request.param](tmp_path)


def test_masked_numbers_are_missing_and_packed_ones_decoded(data: Any) -> None:
    with pytest.raises(DataError, match=r'NaN.* 3 rows hold NaN.*nonfinite="drop"'):
        fitted(data)
    model = fitted(data, nonfinite="drop")
    assert model.n_dropped_ == 3
    plain = fitted(da.from_array(X, chunks=(100, D)), nonfinite="drop")
    for name in ("means_", "covariances_", "weights_"):
        np.testing.assert_allclose(getattr(model, name), getattr(plain, name), rtol=1e-9)
    assert model.provenance_["dtype"] == "float64"


def test_answers_are_of_the_decoded_numbers(data: Any) -> None:
    whole = X[~HOLES.any(axis=1)]
    model = fitted(whole)
    kept = np.asarray(~HOLES.any(axis=1))
    for answer in ("predict", "score_samples"):
        expected = getattr(model, answer)(whole)
        for rows in (slice(6, 77), slice(78, 599)):
            part = data[rows] if not isinstance(data, str | Path) else zarr.open(data)[rows]
            if isinstance(part, np.ndarray) and part.dtype == "i2":
                continue
            found = np.asarray(getattr(model, answer)(part))
            np.testing.assert_allclose(found, expected[np.cumsum(kept)[rows] - 1])
    with pytest.raises(ValueError, match="NaN"):
        np.asarray(model.predict(data))
    with pytest.raises(ValueError, match="NaN"):
        model.score(data)


PACKED = [name for name in KINDS if name not in ("xarray", "masked Dask array", "masked blocks")]


@pytest.mark.parametrize("kind", PACKED)
def test_the_model_tells_how_its_data_were_decoded(kind: str, tmp_path: Path) -> None:
    model = fitted(KINDS[kind](tmp_path), nonfinite="drop")
    model.save(tmp_path / "model.npz")
    said = load(tmp_path / "model.npz").provenance_["decoding"]
    expected = "its mask" if kind == "masked array" else "scale_factor=0.01, add_offset=280.0, "
    assert said.startswith(expected)
    assert "decoding" not in fitted(X[~HOLES.any(axis=1)]).provenance_


def test_all_stores_of_the_same_numbers_give_the_same_bits(tmp_path: Path) -> None:
    stores = [kind for kind in KINDS if "zarr" in kind or kind == "path"]
    found = set()
    for i, kind in enumerate(stores):
        folder = tmp_path / str(i)
        folder.mkdir()
        found.add(digest(fitted(KINDS[kind](folder), nonfinite="drop")))
    assert len(found) == 1


@pytest.mark.parametrize("attributes", [{}, {"units": "K"}, {"_FillValue": np.nan}])
def test_attributes_that_pack_nothing_change_no_bit(attributes: Any, tmp_path: Path) -> None:
    plain = write_zarr(tmp_path / "a.zarr", ROWS, 100, compressors=None)
    told = write_zarr(tmp_path / "b.zarr", ROWS, 100, compressors=None, attributes=attributes)
    assert digest(fitted(plain)) == digest(fitted(told))


def test_weights_are_decoded_too(tmp_path: Path) -> None:
    rows = write_zarr(tmp_path / "x.zarr", ROWS, 100)
    weights = np.arange(N) % 4
    packed = write_zarr(
        tmp_path / "w.zarr", weights.astype("u1"), 77, attributes={"scale_factor": 0.5}
    )
    plain = write_zarr(tmp_path / "v.zarr", weights / 2, 77)
    lazy = da.from_array(ROWS, chunks=(100, D))
    for X in (rows, lazy):
        one, other = (
            GaussianMixture(K, random_state=0).fit(X, sample_weight=w) for w in (packed, plain)
        )
        assert digest(one) == digest(other)
    masked = np.ma.masked_array(weights, weights == 3)
    with pytest.raises(DataError, match="sample_weight has 150 entries that are negative, NaN"):
        GaussianMixture(K).fit(rows, sample_weight=masked)


def test_a_dask_array_of_packed_numbers_is_told_both_ways(tmp_path: Path) -> None:
    array = stored(tmp_path)
    X = da.from_zarr(array)
    with pytest.raises(DataError, match=r"pass the zarr.Array itself.* or raw=True to take"):
        fitted(X)
    model = fitted(X, raw=True)
    np.testing.assert_allclose(model.means_[0], STORED.mean(axis=0))
    assert fitted(array, nonfinite="drop").means_.min() > 200


def test_a_data_array_of_packed_numbers_is_decoded_or_taken_as_it_is(tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray", reason="the extra `xarray` is not installed")
    lazy = xr.open_zarr(by_xarray(tmp_path, 3), mask_and_scale=False, consolidated=False)["x"]
    for held in (lazy, lazy.compute()):
        np.testing.assert_allclose(fitted(held, raw=True).means_[0], STORED.mean(axis=0))
        assert fitted(held, nonfinite="drop").means_.min() > 200
        for data in (held, held.drop_attrs()):
            assert fitted(data, raw=True).provenance_.get("decoding") is None


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["u1", "i4", "f4", "f2"])
def test_every_packing_is_decoded_as_xarray_does(
    zarr_format: Any, dtype: str, tmp_path: Path
) -> None:
    xr = pytest.importorskip("xarray", reason="the extra `xarray` is not installed")
    from xarray.backends.zarr import FillValueCoder

    rng = np.random.default_rng(0)
    group = zarr.open_group(str(tmp_path), mode="w", zarr_format=zarr_format)
    numbers = rng.integers(0 if dtype == "u1" else -3, 9, size=(40, 2)).astype(dtype)
    choices = itertools.product(
        (None, 0.1), (None, 3.5), (None, 5), (None, 7, [7, 8]), ("", "true")
    )
    given = {}
    for i, (scale, offset, fill, missing, unsigned) in enumerate(choices):
        if unsigned and np.dtype(dtype).kind == "f":
            continue
        attributes: dict[str, Any] = {
            "scale_factor": scale,
            "add_offset": offset,
            "missing_value": missing,
            "_Unsigned": unsigned or None,
        }
        attributes = {name: value for name, value in attributes.items() if value is not None}
        options: dict[str, Any] = {}
        if zarr_format == 2:
            attributes["_ARRAY_DIMENSIONS"] = ["row", "column"]
            options["fill_value"] = fill
        else:
            options["dimension_names"] = ("row", "column")
            if fill is not None:
                attributes["_FillValue"] = FillValueCoder.encode(fill, np.dtype(dtype))
        array = group.create_array(
            f"x{i}", shape=(40, 2), chunks=(10, 2), dtype=dtype, attributes=attributes,
            config={"write_empty_chunks": True}, **options,
        )  # fmt: skip
        array[:] = numbers
        given[f"x{i}"] = attributes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = xr.open_zarr(tmp_path, consolidated=False)
        for name, attributes in given.items():
            expected = theirs[name].to_numpy()
            source = as_source(tmp_path / name)
            reader = source.reader()
            found = np.concatenate([reader.read(i)[0].copy() for i in range(source.n_chunks)])
            assert found.dtype == source.dtype == expected.dtype, attributes
            np.testing.assert_array_equal(found, expected, err_msg=str(attributes))


@pytest.mark.parametrize(
    "attributes", [{"_FillValue": "none"}, {"scale_factor": "big"}, {"add_offset": [1, 2]}]
)
def test_an_attribute_that_cannot_be_understood_is_named(attributes: Any) -> None:
    (name,) = attributes
    with pytest.raises(DataError, match=f"the attribute {name}=.* is not "):
        Packing.of(attributes, np.dtype("i2"))


def test_a_packing_that_changes_between_passes_is_found(tmp_path: Path) -> None:
    source = as_source(stored(tmp_path))
    zarr.open(tmp_path / "x.zarr").attrs["scale_factor"] = 0.1
    with pytest.raises(DataError, match=r"its packing was scale_factor=0\.01.* and is .*=0\.1,"):
        source.reader().read(0)


def test_doctor_says_how_numbers_are_decoded(tmp_path: Path) -> None:
    array = stored(tmp_path)
    array.attrs["valid_max"] = 4000
    command = ["doctor", str(tmp_path / "x.zarr"), "-k", "2", "--workers", "1"]
    result = CliRunner().invoke(main, command)
    (line,) = [line for line in result.output.splitlines() if line.split()[1:2] == ["store"]]
    assert (
        "decoded by scale_factor=0.01, add_offset=280.0, missing=-9999, valid at most 4000, as "
        "float64" in line
    )
