"""Grids: the cells of any dimensions as rows, in memory, in blocks, in stores, and answers back."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from distributed import Client
from helpers import digest

from dask_em import GaussianMixture, load
from dask_em.cli import main
from dask_em.core.grid import Grid
from dask_em.core.reading import fold_range
from dask_em.data.open import as_source, stored_source
from dask_em.data.options import ReadOptions
from dask_em.data.packing import Packing
from dask_em.data.zarr.grid import GridSource
from dask_em.errors import DataError, UsageError
from dask_em.testing.passes import RowsFold

xr = pytest.importorskip("xarray", reason="the extra `xarray` is not installed")
pytestmark = [
    pytest.mark.usefixtures("many_chunks", "synchronous"),
    # Texts in version 3 of the format.
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning"),
    pytest.mark.filterwarnings("ignore:X does not have valid feature names"),
]

BANDS, HEIGHT, WIDTH = ["blue", "green", "red", "nir"], 24, 36
K = 3


def ground() -> np.ndarray:
    """Which kind of ground each place is of."""
    return np.add.outer(np.arange(HEIGHT) // 9, np.arange(WIDTH) // 19) % K


def scene(clouds: bool = False) -> Any:
    """Reflectances of three kinds of ground, without those under two clouds."""
    rng = np.random.default_rng(3)
    bands = np.stack([0.1 + 0.2 * ((ground() + b) % K) for b in range(len(BANDS))])
    bands += rng.normal(scale=0.01, size=bands.shape)
    if clouds:
        bands[:, 3:8, 10:17] = np.nan
        bands[2, 20, 30] = np.nan
    coords = {
        "band": BANDS,
        "y": np.linspace(50, 51, HEIGHT)[::-1],
        "x": np.linspace(8, 9, WIDTH),
        "slope": (("y", "x"), rng.normal(size=(HEIGHT, WIDTH))),
        "time": np.datetime64("2026-06-01", "ns"),
        "wavelength": ("band", [490, 560, 665, 842]),
    }
    attrs = {"units": "1", "grid_mapping": "crs"}
    return xr.DataArray(bands, coords, ("band", "y", "x"), "reflectance", attrs)


ROWS = np.moveaxis(scene().values, 0, -1).reshape(-1, len(BANDS))
PACKED: dict[str, Any] = {"dtype": "i2", "scale_factor": 1e-4, "_FillValue": -32768}


def written(folder: Path, clouds: bool = False, **encoding: Any) -> Path:
    """A store of xarray's, in chunks of one band that divide neither side."""
    path = folder / "scene.zarr"
    if not path.exists():
        data = scene(clouds).chunk(band=1, y=10, x=16).to_dataset()
        data.to_zarr(path, encoding={"reflectance": encoding}, consolidated=False)
    return path


def variables(folder: Path) -> Path:
    path = folder / "variables.zarr"
    blocks = scene().drop_vars("wavelength").chunk(y=10, x=16).to_dataset("band")
    blocks.to_zarr(path, consolidated=False)
    return path


def opened(path: Path, **options: Any) -> Any:
    return xr.open_zarr(path, consolidated=False, **options)


# What holds the scene, and whether its answers are lazy.
KINDS: dict[str, tuple[Callable[[Path], Any], bool]] = {
    "array": (lambda folder: scene(), False),
    "array, bands last": (lambda folder: scene().transpose("y", "x", "band"), False),
    "array, bands between": (lambda folder: scene().transpose("y", "band", "x"), False),
    "blocks": (lambda folder: scene().chunk(band=1, y=10, x=16), True),
    "blocks of all bands": (lambda folder: scene().chunk(y=7), True),
    "set of one variable": (lambda folder: scene().to_dataset(), False),
    "lazy": (lambda folder: opened(written(folder))["reflectance"], True),
    "lazily indexed": (lambda folder: opened(written(folder), chunks=None)["reflectance"], True),
    "path of the group": (lambda folder: written(folder), True),
    "path of the array": (lambda folder: str(written(folder) / "reflectance"), True),
    "member": (lambda folder: f"{written(folder)}::reflectance", True),
    "zarr.Array": (lambda folder: zarr.open_array(written(folder) / "reflectance"), True),
    "zarr.Group": (lambda folder: zarr.open_group(written(folder)), True),
}


def fitted(X: Any, **options: Any) -> GaussianMixture:
    given = {"features": "band", "random_state": 0, **options}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* rows that hold NaN")
        return GaussianMixture(K, **given).fit(X)


def same_parts(found: Any, expected: Any) -> bool:
    """Whether labels part places alike, whatever the components' numbers."""
    found, expected = np.asarray(found), np.asarray(expected)
    pairs = {*zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True)}
    return np.shape(found) == np.shape(expected) and len(pairs) == len(np.unique(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_rows_and_answers_are_a_grid(kind: str, tmp_path: Path) -> None:
    make, lazy = KINDS[kind]
    data = make(tmp_path)
    model = fitted(data)
    assert model.feature_names_in_.tolist() == BANDS
    assert model.n_features_in_ == len(BANDS)
    found = {
        "predict": model.predict(data),
        "predict_proba": model.predict_proba(data),
        "score_samples": model.score_samples(data),
    }
    for answer, got in found.items():
        assert got.shape == (HEIGHT, WIDTH, *((K,) if answer == "predict_proba" else ()))
        assert (getattr(got, "chunks", None) is not None) == lazy
        expected = np.asarray(getattr(model, answer)(ROWS)).reshape(got.shape)
        np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-9, atol=1e-12)
    assert same_parts(found["predict"], ground())
    assert model.score(data) == pytest.approx(model.score(ROWS))
    if "array" in kind and "path" not in kind and "zarr" not in kind:
        labels = found["predict"]
        assert set(labels.dims) == {"y", "x"}
        assert set(labels.coords) == {"y", "x", "slope", "time"}
        assert found["predict_proba"].dims[-1] == "component"
        assert labels.attrs == {"grid_mapping": "crs"}


@pytest.mark.parametrize("make", [
    lambda folder: scene().to_dataset("band"),
    lambda folder: scene().chunk(y=10, x=16).to_dataset("band"),
    lambda folder: opened(variables(folder)),
    lambda folder: variables(folder),
])  # fmt: skip
@pytest.mark.parametrize("features", [None, "variable"])
def test_variables_that_share_their_dimensions_are_columns(
    make: Any, features: Any, tmp_path: Path
) -> None:
    data = make(tmp_path)
    model = fitted(data, features=features)
    assert set(model.feature_names_in_) == set(BANDS)
    labels = model.predict(data)
    assert same_parts(np.asarray(labels), ground())
    assert getattr(labels, "chunks", None) in (None, ((10, 10, 4), (16, 16, 4)))
    # By name, whatever their order; of others nothing is read.
    some = fitted(data, features=features, columns=["red", "blue"])
    plain = GaussianMixture(K, random_state=0).fit(ROWS[:, [2, 0]])
    np.testing.assert_allclose(np.sort(some.means_, 0), np.sort(plain.means_, 0), rtol=1e-6)
    assert some.feature_names_in_.tolist() == ["red", "blue"]
    assert same_parts(np.asarray(some.predict(scene().to_dataset("band"))), ground())


@pytest.mark.parametrize("kind", ["array", "blocks", "path of the group", "set of one variable"])
def test_bands_are_chosen_by_name(kind: str, tmp_path: Path) -> None:
    data = KINDS[kind][0](tmp_path)
    model = fitted(data, columns=["nir", "blue"])
    assert model.feature_names_in_.tolist() == ["nir", "blue"]
    plain = GaussianMixture(K, random_state=0).fit(ROWS[:, [3, 0]])
    np.testing.assert_allclose(np.sort(model.means_, 0), np.sort(plain.means_, 0), rtol=1e-6)
    # A model finds its bands by name.
    turned = scene().isel(band=[3, 1, 0, 2])
    np.testing.assert_array_equal(model.predict(turned), np.asarray(model.predict(data)))
    with pytest.raises(DataError, match="nir"):
        model.predict(scene().sel(band=["blue", "green", "red"]))


def test_grids_chunked_alike_give_the_same_bits(tmp_path: Path) -> None:
    """And blocks of places those of the rows in that order."""
    blocks = scene().chunk(band=1, y=10, x=16)
    path = tmp_path / "blocks.zarr"
    blocks.to_dataset().to_zarr(path, consolidated=False)
    source = as_source(path, options=ReadOptions(features="band"))
    assert isinstance(source, GridSource)
    found = {digest(fitted(data)) for data in (path, opened(path)["reflectance"], path)}
    assert len(found) == 1
    # Rows in the order of a grid that is cut along its first dimension are those of a matrix.
    strips = scene().transpose("y", "x", "band").chunk(y=4, x=-1, band=-1)
    stacked = strips.stack(row=("y", "x")).transpose("row", "band")
    assert digest(fitted(strips)) == digest(fitted(stacked, features=None))


def test_every_cell_is_read_once_with_its_weight(tmp_path: Path) -> None:
    weights = np.arange(HEIGHT * WIDTH, dtype=float).reshape(HEIGHT, WIDTH)
    stored = xr.DataArray(weights.T, dims=("x", "y"), name="w").to_dataset()
    stored.to_zarr(tmp_path / "w.zarr", consolidated=False)
    options = ReadOptions(features="band")
    for weight in (weights, weights.ravel(), tmp_path / "w.zarr" / "w"):
        source = as_source(written(tmp_path), weight, options)
        assert source.n_rows == HEIGHT * WIDTH
        cells = []
        for part in source.ranges():
            given = source.shipped_weights(part)
            for chunk, X, weight_found in fold_range(source, RowsFold(), part, given):
                assert weight_found is not None
                cells += [(w, *row) for w, row in zip(weight_found, X, strict=True)]
                assert len(X) == source.rows_of(range(chunk, chunk + 1))
        found = np.array(sorted(cells))
        np.testing.assert_array_equal(found[:, 0], weights.ravel())
        np.testing.assert_array_equal(found[:, 1:], ROWS)


def test_weights_go_by_the_cells(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).integers(0, 3, (HEIGHT, WIDTH)).astype(float)
    expected = GaussianMixture(1).fit(ROWS, sample_weight=weights.ravel())
    labelled = xr.DataArray(weights, scene()["slope"].coords, ("y", "x"))
    scene_and_weight = scene().to_dataset("band").assign(w=(("y", "x"), weights))
    for data, weight in (
        (scene(), weights),
        (scene(), labelled.transpose("x", "y")),
        (scene().chunk(y=7, x=5), labelled),
        (scene().chunk(y=7, x=5), labelled.chunk(y=3)),
        (written(tmp_path), weights),
    ):
        found = GaussianMixture(1, features="band").fit(data, sample_weight=weight)
        np.testing.assert_allclose(found.means_, expected.means_, rtol=1e-9)
    for data in (scene_and_weight, scene_and_weight.chunk(y=7)):
        found = GaussianMixture(1).fit(data, sample_weight="w")
        assert found.feature_names_in_.tolist() == BANDS
        np.testing.assert_allclose(found.means_, expected.means_, rtol=1e-9)
    with pytest.raises(DataError, match="those of X's rows"):
        fitted(scene()).fit(scene(), sample_weight=labelled.isel(y=0))
    with pytest.raises(DataError, match=r"expected one number a cell of X, \(24, 36\)"):
        fitted(scene()).fit(scene(), sample_weight=weights[1:])


# -- which dimension ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["array", "blocks", "path of the array", "path of the group",
                                  "set of one variable", "zarr.Array"])  # fmt: skip
def test_nobody_guesses_which_dimension_holds_the_variables(kind: str, tmp_path: Path) -> None:
    data = KINDS[kind][0](tmp_path)
    with pytest.raises(DataError, match=r"band \(4\), y \(24\), x \(36\): which of them") as e:
        fitted(data, features=None)
    assert "-k 8 -o model.npz --features band; in Python" in str(e.value)
    assert "GaussianMixture(n_components=8, features='band')" in str(e.value)
    with pytest.raises(DataError, match="features='bands' names no dimension of"):
        fitted(data, features="bands")


def test_two_dimensions_may_be_turned(tmp_path: Path) -> None:
    wide = xr.DataArray(ROWS.T, {"band": BANDS}, ("band", "place"), "x")
    wide.chunk(place=100).to_dataset().to_zarr(tmp_path / "wide.zarr", consolidated=False)
    for data in (wide, wide.chunk(place=100), tmp_path / "wide.zarr" / "x"):
        model = fitted(data)
        assert model.means_.shape == (K, len(BANDS))
        assert same_parts(np.asarray(model.predict(data)), ground().ravel())


def test_variables_of_other_dimensions_are_named(tmp_path: Path) -> None:
    data = scene().to_dataset("band").assign(height=("x", np.arange(WIDTH) * 1.0))
    data["crs"] = 0
    data.to_zarr(tmp_path / "set.zarr", consolidated=False)
    for held in (data, tmp_path / "set.zarr"):
        with pytest.raises(DataError, match="do not share their dimensions") as e:
            fitted(held, features=None)
        assert "'height' (" in str(e.value)
        assert fitted(held, features=None, exclude="height").n_features_in_ == len(BANDS)
    texts = scene().to_dataset("band").assign(name=(("y", "x"), np.full((HEIGHT, WIDTH), "a")))
    for held in (texts, texts.chunk(y=9)):
        with pytest.raises(DataError, match=r"without numbers, 'name'.*exclude=\['name'\]"):
            fitted(held, features=None)
        assert fitted(held, features=None, exclude="name").n_features_in_ == len(BANDS)


@pytest.mark.parametrize("shape", [(1, HEIGHT, WIDTH), (HEIGHT, 1, WIDTH), (HEIGHT, WIDTH, 1)])
def test_a_dimension_of_one_place(shape: tuple[int, ...], tmp_path: Path) -> None:
    cube = xr.DataArray(ROWS.reshape(*shape, 4), dims=("t", "y", "x", "band"))
    for data in (cube, cube.chunk(y=5, x=7)):
        labels = fitted(data).predict(data)
        assert same_parts(labels.values.reshape(HEIGHT, WIDTH), ground())


def test_no_cell_is_read_that_is_not_wanted(tmp_path: Path) -> None:
    """Chunks of one variable may be gone where another is fitted."""
    path = variables(tmp_path)
    for file in (path / "green" / "c").rglob("*"):
        if file.is_file():
            file.unlink()
    fitted(path, features=None, exclude="green")
    with pytest.raises(DataError, match=r"lacks .* chunk.*\(y 0 to 9, x|lacks 9 of 9 chunks"):
        fitted(path, features=None)


def test_a_missing_and_a_damaged_chunk_are_named(tmp_path: Path) -> None:
    path = written(tmp_path)
    chunk = path / "reflectance" / "c" / "1" / "0" / "1"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"chunk .*band 1 to 1, y 0 to 9, x 16 to 31"):
        fitted(path)
    chunk.unlink()
    with pytest.raises(DataError, match=r"lacks 1 of 36 chunks: .*band 1 to 1, y 0 to 9, x 16"):
        fitted(path)
    chunk.write_bytes(whole)
    fitted(path)


def test_memory_is_counted(tmp_path: Path) -> None:
    source = stored_source(written(tmp_path), options=ReadOptions(features="band"))
    block = source.chunk_rows * source.n_features * 8
    # Two blocks of rows, and the files and windows of one band after the other.
    assert 2 * block <= source.held_bytes <= 8 * block


def test_small_chunks_are_read_together_and_answers_have_the_chunks_of_the_store() -> None:
    array = zarr.create_array({}, shape=(3, 400, 500), chunks=(1, 10, 10), dtype="f4",
                              dimension_names=("band", "y", "x"))  # fmt: skip
    source = as_source(array, options=ReadOptions(features="band"))
    grid = source.grid
    assert grid is not None
    assert 100 < source.chunk_rows <= 2**13
    assert all(n % 10 == 0 for along in grid.chunks for n in along)
    assert {*grid.pieces[0], *grid.pieces[1]} == {10}


def test_the_cell_of_a_hole_is_named(tmp_path: Path) -> None:
    clouded = scene(clouds=True)
    for data in (clouded, clouded.chunk(y=10, x=16), written(tmp_path, clouds=True)):
        with pytest.raises(DataError, match=r"NaN at row .*\(the cell y 3, x 1[06]\)"):
            fitted(data)


# -- clouds ------------------------------------------------------------------------------


def holes() -> np.ndarray:
    return np.asarray(np.isnan(scene(clouds=True)).any("band"))


@pytest.mark.parametrize("encoding", [{}, PACKED], ids=["plain", "packed"])
def test_a_raster_with_clouds_through_the_library(encoding: Any, tmp_path: Path) -> None:
    path = written(tmp_path, clouds=True, **encoding)
    for data in (scene(clouds=True), opened(path), path):
        model = fitted(data, nonfinite="drop")
        assert model.n_dropped_ == holes().sum() == 36
        labels = np.asarray(model.predict(data))
        np.testing.assert_array_equal(labels == -1, holes())
        assert same_parts(labels[~holes()], ground()[~holes()])
        proba = np.asarray(model.predict_proba(data))
        np.testing.assert_array_equal(np.isnan(proba).all(axis=-1), holes())


def run(*words: object) -> str:
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("encoding", [{}, PACKED], ids=["plain", "packed"])
@pytest.mark.filterwarnings("ignore:36 rows that hold NaN")
def test_a_raster_with_clouds_through_the_command_line(encoding: Any, tmp_path: Path) -> None:
    path, model = written(tmp_path, clouds=True, **encoding), tmp_path / "m.npz"
    answers = tmp_path / "answers.zarr"
    run("fit", path, "-k", K, "-o", model, "--features", "band", "--nonfinite", "drop")
    # The model knows the dimension, and what to leave out.
    run("predict", model, path, answers, "--proba", "--log-density")
    with warnings.catch_warnings():
        # Documents of all arrays are in that of the group, where xarray looks for them.
        warnings.simplefilter("error")
        found = xr.open_zarr(answers)
    assert dict(found.sizes) == {"y": HEIGHT, "x": WIDTH, "component": K}
    assert set(found.coords) == {"y", "x", "slope", "time"}
    for name in ("y", "x", "slope", "time"):
        np.testing.assert_array_equal(found[name], scene()[name])
    labels = found["labels"].values
    assert labels.dtype.kind == "i"
    np.testing.assert_array_equal(labels == -1, holes())
    assert same_parts(labels[~holes()], ground()[~holes()])
    for name in ("proba", "log_density"):
        np.testing.assert_array_equal(np.isnan(found[name]).any("component") if name == "proba"
                                      else np.isnan(found[name]), holes())  # fmt: skip
    library = load(model)
    np.testing.assert_array_equal(labels, np.asarray(library.predict(path)))
    np.testing.assert_array_equal(found["proba"], np.asarray(library.predict_proba(path)))
    assert found["labels"].chunks == ((10, 10, 4), (16, 16, 4))
    assert re.search(r"left out +36 rows", run("score", model, path))
    assert "each cell of y (24) x x (36) is a row" in run(
        "doctor", path, "-k", K, "--features", "band", "--workers", 1
    )
    assert "memory of a worker" in run("plan", path, "-k", K, "--features", "band")


def test_what_cells_lack_is_filled(tmp_path: Path) -> None:
    holes = scene().copy()
    holes.values[np.random.default_rng(1).random(holes.shape) < 0.2] = np.nan
    rows = np.moveaxis(holes.values, 0, -1).reshape(-1, len(BANDS))
    known = ~np.isnan(rows)
    path, filled = tmp_path / "scene.zarr", tmp_path / "filled.zarr"
    holes.chunk(band=1, y=10, x=16).to_dataset().to_zarr(path, consolidated=False)
    model = fitted(holes, missing_values="mar")
    expected = model.impute(rows).reshape(HEIGHT, WIDTH, -1)
    found = model.impute(holes)
    assert found.dims == ("y", "x", "feature")
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    lazy = model.impute(opened(path)["reflectance"])
    assert lazy.chunks is not None
    np.testing.assert_allclose(lazy.compute(), expected, rtol=1e-12)
    several = [one.compute() for one in model.impute(str(path), draws=2)]
    assert not np.array_equal(*several)
    for one in several:
        np.testing.assert_array_equal(one.reshape(rows.shape)[known], rows[known])
    model.save(tmp_path / "m.npz")
    for words, names in (([], ["imputed"]), (["--draws", "2"], ["imputed_0", "imputed_1"])):
        given = ["impute", tmp_path / "m.npz", path, filled, "--overwrite", *words]
        said = CliRunner().invoke(main, [str(word) for word in given])
        assert said.exit_code == 0, said.output
        written_ = xr.open_zarr(filled, consolidated=False)
        assert [name for name in written_ if str(name).startswith("imputed")] == names
        for name in names:
            assert written_[name].dims[:2] == ("y", "x")
            answers = written_[name].values.reshape(rows.shape)
            assert not np.isnan(answers).any()
            np.testing.assert_array_equal(answers[known], rows[known])
        if not words:
            np.testing.assert_allclose(written_["imputed"], expected, rtol=1e-12)


def test_unfinished_answers_of_a_grid_are_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dask_em.jobs.predict import predict
    from dask_em.storage.outputs.grid_answers import GridRegion

    path, model = written(tmp_path), tmp_path / "m.npz"
    fitted(path).save(model)
    run("predict", model, path, tmp_path / "whole.zarr")
    finish = GridRegion.finish
    done: list[GridRegion] = []

    def stops(self: GridRegion) -> None:
        if len(done) == 1:
            raise OSError("out of electricity")
        done.append(self)
        finish(self)

    from dask_em.jobs.cluster import ClusterOptions

    with monkeypatch.context() as patch:
        patch.setattr(GridRegion, "finish", stops)
        with pytest.raises(OSError, match="electricity"):
            predict(str(model), str(path), str(tmp_path / "half.zarr"), ClusterOptions())
    result = predict(str(model), str(path), str(tmp_path / "half.zarr"), ClusterOptions())
    assert 0 < result["n_rows_kept"] < HEIGHT * WIDTH
    for file in (tmp_path / "whole.zarr" / "labels").rglob("*"):
        if file.is_file():
            other = tmp_path / "half.zarr" / file.relative_to(tmp_path / "whole.zarr")
            assert other.read_bytes() == file.read_bytes()


def test_answers_of_a_grid_are_no_table(tmp_path: Path) -> None:
    from dask_em.jobs.cluster import ClusterOptions
    from dask_em.jobs.predict import predict

    fitted(written(tmp_path)).save(tmp_path / "m.npz")
    with pytest.raises(UsageError, match="in its shape"):
        predict(str(tmp_path / "m.npz"), str(written(tmp_path)), str(tmp_path / "a.parquet"),
                ClusterOptions())  # fmt: skip


def test_workers_read_grids(client: Client, tmp_path: Path) -> None:
    import dask

    path = written(tmp_path, **PACKED)
    with dask.config.set(scheduler="synchronous"):
        expected = digest(fitted(path)), digest(fitted(opened(path)))
    with dask.config.set(scheduler=client):
        assert (digest(fitted(path)), digest(fitted(opened(path)))) == expected
        labels = fitted(path).predict(path).compute()
    assert same_parts(labels, ground())


# -- packed ------------------------------------------------------------------------------

LIMITED: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "range": ({"valid_range": [0, 100]}, [np.nan, 0, 7, 100, np.nan]),
    "least": ({"valid_min": 0}, [np.nan, 0, 7, 100, 200]),
    "greatest": ({"valid_max": 100}, [-5, 0, 7, 100, np.nan]),
    # As they are stored, where integers tell.
    "of stored": (
        {"valid_range": [0, 100], "scale_factor": 0.5}, [np.nan, 0, 3.5, 50, np.nan],
    ),
    "of decoded": (
        {"valid_range": [0.0, 60.0], "scale_factor": 0.5}, [np.nan, 0, 3.5, 50, np.nan],
    ),
    "flags": (
        {"flag_values": [0, 7, 200], "flag_meanings": "water forest ice"},
        [np.nan, 0, 1, np.nan, 2],
    ),
    "their own codes": (
        {"flag_values": [0, 1, 2], "flag_meanings": "a b c"}, [-5, 0, 7, 100, 200],
    ),
}  # fmt: skip
STORED = np.array([-5, 0, 7, 100, 200], dtype="i2")


@pytest.mark.parametrize("kind", LIMITED)
def test_numbers_beyond_their_limits_are_missing(kind: str, tmp_path: Path) -> None:
    attributes, expected = LIMITED[kind]
    grid = np.repeat(STORED, 8).reshape(5, 4, 2)
    array = zarr.create_array(tmp_path / "x", shape=grid.shape, chunks=(2, 2, 2), dtype="i2",
                              dimension_names=("y", "x", "band"), attributes=attributes,
                              config={"write_empty_chunks": True})  # fmt: skip
    array[:] = grid
    data = xr.DataArray(grid, dims=("y", "x", "band"), attrs=attributes)
    wanted = np.repeat(expected, 8).reshape(20, 2)
    for held in (tmp_path / "x", data, data.chunk(y=2)):
        for raw in (False, True):
            model = GaussianMixture(1, features="band", raw=raw)
            source = model.source(held, reset=True)
            read = [source.reader().read(i)[0].copy() for i in range(source.n_chunks)]
            found = np.concatenate(read)
            np.testing.assert_array_equal(np.sort(found, 0), np.sort(grid.reshape(20, 2) if raw
                                                                     else wanted, 0))  # fmt: skip
            assert bool(source.decoding) == (not raw and kind != "their own codes")


def test_flags_are_categories(tmp_path: Path) -> None:
    attributes = {"flag_values": [1, 2], "flag_meanings": "land sea", "units": "1"}
    data = xr.Dataset({
        "kind": (("y", "x"), np.ones((4, 5), "i1"), attributes),
        "heat": (("y", "x"), np.ones((4, 5), "f4"), {"units": "K"}),
        "seen": (("y", "x"), np.ones((4, 5), "i4")),
    })  # fmt: skip
    data.to_zarr(tmp_path / "set.zarr", consolidated=False)
    for held in (data, tmp_path / "set.zarr"):
        source = GaussianMixture(1).source(held, reset=True)
        known = {c.name: (c.kind, c.categories, c.unit) for c in source.columns or ()}
        assert known == {
            "kind": ("categorical", ("land", "sea"), "1"),
            "heat": ("continuous", (), "K"),
            "seen": ("count", (), ""),
        }


def test_limits_of_stored_numbers_that_xarray_decoded(tmp_path: Path) -> None:
    """xarray scales the numbers, and leaves `valid_range` as it was."""
    grid = np.repeat(STORED, 8).reshape(5, 4, 2)
    data = xr.DataArray(grid, dims=("y", "x", "band"), name="x",
                        attrs={"scale_factor": 0.1, "valid_range": [0, 100]})  # fmt: skip
    data.to_dataset().to_zarr(tmp_path / "set.zarr", consolidated=False)
    decoded = opened(tmp_path / "set.zarr")["x"]
    assert decoded.attrs["valid_range"] == [0, 100]
    for held in (decoded, decoded.compute(), tmp_path / "set.zarr"):
        source = GaussianMixture(1, features="band").source(held, reset=True)
        found = np.concatenate([source.reader().read(i)[0] for i in range(source.n_chunks)])
        assert np.isnan(found).sum() == 16
        assert (np.nanmin(found), np.nanmax(found)) == (0, 10)


def test_unsigned_limits() -> None:
    packing = Packing.of({"_Unsigned": "true", "valid_range": [0, -56]}, np.dtype("i1"))
    assert packing is not None
    found = packing.decode(np.array([-1, -56, -57, 5], dtype="i1"))
    np.testing.assert_array_equal(found, [np.nan, 200, 199, 5])


def test_decoding_is_said(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path = written(tmp_path, **PACKED)
    with caplog.at_level("INFO", "dask_em"):
        fitted(path)
    assert "decoded by scale_factor=0.0001, missing=-32768" in caplog.text
    raw = fitted(path, raw=True)
    assert raw.means_.max() > 1000
    assert same_parts(np.asarray(raw.predict(path)), ground())


# -- other writers -----------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_in_several_resolutions(version: str, tmp_path: Path) -> None:
    """As OME-Zarr has them: each is an array, whose dimensions the group names."""
    pixels = np.moveaxis(ROWS.reshape(HEIGHT, WIDTH, 4), -1, 0).astype("f4")
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space"} for n in "yx")]
    levels = [{"path": "0"}, {"path": "1"}]
    image = {"version": version, "axes": axes, "datasets": levels}
    old = version == "0.4"
    attributes = {"multiscales": [image]} if old else {
        "ome": {"version": version, "multiscales": [image]}
    }  # fmt: skip
    group = zarr.open_group(tmp_path / "image.zarr", mode="w", zarr_format=2 if old else 3,
                            attributes=attributes)  # fmt: skip
    for level, step in (("0", 1), ("1", 2)):
        names = {} if old else {"dimension_names": ("c", "y", "x")}
        data = pixels[:, ::step, ::step]
        made = group.create_array(level, shape=data.shape, chunks=(1, 8, 8), dtype="f4", **names)
        made[:] = data
    with pytest.raises(DataError, match="2 resolutions") as e:
        fitted(tmp_path / "image.zarr", features="c")
    assert "image.zarr/0" in str(e.value)
    model = fitted(tmp_path / "image.zarr" / "0", features="c")
    assert same_parts(np.asarray(model.predict(tmp_path / "image.zarr/0")), ground())
    assert model.predict(tmp_path / "image.zarr/1").shape == (HEIGHT // 2, WIDTH // 2)


@pytest.mark.parametrize("order", ["C", "F"])
def test_version_2_with_filters(order: Any, tmp_path: Path) -> None:
    numcodecs = pytest.importorskip("numcodecs")
    stored = np.round(ROWS * 1e4).astype("i4")
    filters = [numcodecs.Delta(dtype="<i4")]
    matrix = zarr.create_array(tmp_path / "m.zarr", shape=stored.shape, chunks=(100, 3), dtype="i4",
                               zarr_format=2, order=order, filters=filters)  # fmt: skip
    matrix[:] = stored
    grid = zarr.create_array(tmp_path / "g.zarr", shape=(4, HEIGHT, WIDTH), chunks=(2, 10, 16),
                             dtype="i4", zarr_format=2, order=order, filters=filters,
                             attributes={"_ARRAY_DIMENSIONS": ["band", "y", "x"]})  # fmt: skip
    grid[:] = np.moveaxis(stored.reshape(HEIGHT, WIDTH, 4), -1, 0)
    expected = GaussianMixture(K, random_state=0).fit(stored)
    for path, features in ((tmp_path / "m.zarr", None), (tmp_path / "g.zarr", "band")):
        model = fitted(path, features=features)
        found, wanted = (np.sort(one.means_, 0) for one in (model, expected))
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
        assert same_parts(np.ravel(model.predict(path)), ground().ravel())


def test_a_grid_knows_its_cells() -> None:
    grid = Grid(("t", "y", "x"), ((2, 1), (3,), (2, 2)))
    numbers = np.arange(36).reshape(3, 3, 4)
    assert grid.shape == numbers.shape
    assert sum(grid.lengths) == numbers.size
    for block in range(grid.n_blocks):
        part = numbers[grid.window(block)]
        assert part.size == grid.lengths[block]
        for row, number in enumerate(part.ravel()):
            t, y, x = np.unravel_index(number, numbers.shape)
            assert grid.cell(block, row) == f"t {t}, y {y}, x {x}"
