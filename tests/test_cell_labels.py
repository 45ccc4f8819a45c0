"""Labels of the cells of a grid: any array of its shape beside any kind of grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from test_grids import BANDS, HEIGHT, WIDTH, K, ground, scene, written

from dask_em import GaussianMixture
from dask_em.backends.dask.backend import DaskBackend
from dask_em.backends.serial import SerialBackend
from dask_em.cli.main import main
from dask_em.core.additive import Array
from dask_em.core.codec import digest
from dask_em.data.open import as_source, labels_beside
from dask_em.data.options import ReadOptions
from dask_em.errors import DataError

xr = pytest.importorskip("xarray", reason="the extra `xarray` is not installed")
pytestmark = [
    pytest.mark.usefixtures("many_chunks", "synchronous"),
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:X does not have valid feature names", "ignore:.*left out"),
]

SHAPE = (HEIGHT, WIDTH)
SOME: Array = np.where(np.random.default_rng(1).random(SHAPE) < 0.3, ground(), -1)
SOFT: Array = np.where(SOME[..., None] < 0, -1.0, 0.1 + 0.7 * np.eye(K)[SOME])


def model(**options: Any) -> GaussianMixture:
    given = {"features": "band", "nonfinite": "drop", **options}
    return GaussianMixture(K, algorithm="em", max_iter=2, random_state=0, **given)


def fit(data: Any, z: Any, **options: Any) -> GaussianMixture:
    return model(**options).fit(data, labels_init=z, labels_fixed=True)


def expected(z: Array, clouds: bool = False) -> GaussianMixture:
    """The fit of a table of the cells."""
    cells = np.moveaxis(scene(clouds).values, 0, -1).reshape(-1, len(BANDS))
    whole = np.isfinite(cells).all(axis=1)
    flat = z.reshape(HEIGHT * WIDTH, *z.shape[2:])
    return fit(cells[whole], flat[whole], features=None)


def kept(at: GaussianMixture, data: Any, z: Any) -> float:
    """The log-likelihood of cells that keep their labels, by a pass at a model's parameters."""
    source = model().source(data, None, True, z)
    return SerialBackend().map_reduce(source, at.state_.mixture).mean_log_likelihood


def stored(folder: Path, z: Array, **options: Any) -> zarr.Array[Any]:
    path = folder / f"z{len([*folder.iterdir()])}.zarr"
    chunks = (7, 11, 2)[: z.ndim]
    array = zarr.create_array(path, shape=z.shape, dtype=z.dtype, chunks=chunks, **options)
    array[:] = z
    return array


@pytest.fixture
def grids(tmp_path: Path) -> list[Any]:
    """The same cells in memory, in blocks of Dask, and in a store."""
    blocks = scene().chunk(band=2, y=10, x=16)
    return [scene(), blocks, str(written(tmp_path) / "reflectance")]


def test_labels_follow_cells_that_are_left_out(tmp_path: Path) -> None:
    table = expected(SOME, clouds=True)
    store = str(written(tmp_path, True) / "reflectance")
    for data in (scene(True), scene(True).chunk(y=10, x=16), store):
        found = fit(data, SOME)
        np.testing.assert_allclose(found.means_, table.means_, rtol=1e-9)
        assert found.lower_bound_ == pytest.approx(table.lower_bound_, rel=1e-9)


def test_labels_of_any_kind_go_with_grids_of_any_kind(grids: list[Any], tmp_path: Path) -> None:
    at = expected(SOME)
    named = xr.DataArray(SOME, dims=("y", "x"))
    folder = tmp_path / "labels"
    folder.mkdir()
    named.astype("i1").rename("z").chunk(y=5, x=36).to_dataset().to_zarr(
        folder / "named", consolidated=False
    )
    turned = stored(folder, SOME.T, dimension_names=("x", "y"))
    kinds = [
        *(SOME, SOME.reshape(-1), named, named.T, np.ma.masked_equal(SOME, -1)),
        *(da.from_array(SOME, chunks=(5, 36)), named.where(named >= 0).chunk(y=9)),
        *(stored(folder, SOME), turned, str(folder / "named" / "z"), zarr.array(SOME)),
    ]
    for data in grids:
        for z in kinds:
            assert kept(at, data, z) == pytest.approx(at.lower_bound_, rel=1e-9)


def test_responsibilities_have_one_dimension_more(grids: list[Any], tmp_path: Path) -> None:
    at = expected(SOFT)
    named = xr.DataArray(SOFT, dims=("y", "x", "component"))
    kinds = [
        *(SOFT, SOFT.reshape(-1, K), named, named.transpose("component", "x", "y")),
        *(da.from_array(SOFT, chunks=(5, 36, 1)), stored(tmp_path, SOFT)),
    ]
    for data in grids:
        for z in kinds:
            assert kept(at, data, z) == pytest.approx(at.lower_bound_, rel=1e-9)


def test_masked_labels_are_unknown(grids: list[Any], tmp_path: Path) -> None:
    codes = np.where(SOME < 0, 255, SOME).astype("u1")
    masked = stored(tmp_path, codes, attributes={"_FillValue": 255})
    classes = np.where(SOME < 0, 99, 10 * SOME + 10).astype("i2")
    flags = {"flag_values": [10, 20, 30], "flag_meanings": "water sand wood"}
    named = stored(tmp_path, classes, attributes=flags)
    at = expected(SOME)
    for data in grids:
        for z in (masked, named):
            assert kept(at, data, z) == pytest.approx(at.lower_bound_, rel=1e-9)


def test_who_computes_does_not_matter(tmp_path: Path) -> None:
    options = ReadOptions(features="band")
    path = str(written(tmp_path) / "reflectance")
    mixture = expected(SOME).state_.mixture
    digests = set()
    for z in (SOME, stored(tmp_path, SOME)):
        source = labels_beside(as_source(path, None, options), path, z, K, options)
        assert source.beside.labels is not None
        assert "labels" in source.identity()
        for backend in (SerialBackend(), DaskBackend()):
            digests.add(digest(backend.map_reduce(source, mixture)))
    assert len(digests) == 1


def test_labels_that_are_none_are_named(grids: list[Any], tmp_path: Path) -> None:
    wrong = SOME.copy()
    wrong[3, 5] = 7
    for z in (wrong, stored(tmp_path, wrong)):
        with pytest.raises(DataError, match=r"labels_init is 7 at row \d+ \(the cell y 3, x 5\)"):
            kept(expected(SOME), grids[2], z)
    for z in (SOME.T, SOME[1:], np.zeros((*SHAPE, K + 1)), stored(tmp_path, SOME[1:])):
        for data in grids:
            with pytest.raises(DataError, match=r"expected one label a cell of y, x, \(24, 36\)"):
                model().source(data, None, True, z)
    moved = xr.DataArray(SOME, {"x": np.arange(WIDTH)}, dims=("y", "x"))
    with pytest.raises(DataError, match="labels_init has other coordinates along 'x'"):
        model().source(scene(), None, True, moved)


def test_the_command_line_takes_them(tmp_path: Path) -> None:
    z = stored(tmp_path, SOME)
    words = [
        *("fit", str(written(tmp_path) / "reflectance"), "--features", "band", "-k", str(K)),
        *("--labels", str(z.store_path).removeprefix("file://"), "--labels-fixed"),
        *("-o", str(tmp_path / "m.npz"), "--workers", "1", "--json"),
    ]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["labels"]["rows"] == int((SOME >= 0).sum())
