"""What is opened and what is refused: paths, groups, tables, and advice that works."""

from __future__ import annotations

import json
import logging
import re
import shutil
import warnings
from ast import literal_eval
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
from zarr.storage import LocalStore, LoggingStore, MemoryStore, WrapperStore

from dask_em import GaussianMixture
from dask_em.cli import main
from dask_em.core.em import EMState
from dask_em.data.open import as_source
from dask_em.errors import DataError
from dask_em.storage.urls import describe_store, local_path

pytestmark = pytest.mark.usefixtures("many_chunks", "synchronous")

N, D = 600, 3
X, _, _ = blobs(N, D, 3)


def fitted(data: Any, n_components: int = 2, **options: Any) -> GaussianMixture:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*out of iterations")
        return GaussianMixture(n_components, random_state=0, **options).fit(data)


def advised(data: Any, pattern: str, known: dict[str, Any]) -> Any:
    """The value of the expression in the advice of the error that a fit raises."""
    with pytest.raises(DataError, match=pattern) as e:
        fitted(data)
    (code,) = re.findall(pattern, str(e.value))
    return eval(code, {"X": data, "np": np, "da": da, **known})


# -- paths -----------------------------------------------------------------------------


def zipped(path: Path) -> Path:
    shutil.make_archive(str(path), "zip", path)
    return path.with_name(path.name + ".zip")


def zipped_with_its_folder(path: Path) -> Path:
    shutil.make_archive(str(path), "zip", path.parent, path.name)
    return path.with_name(path.name + ".zip")


PLACES: dict[str, Callable[[Path], Any]] = {
    "a path": lambda path: path,
    "home": lambda path: f"~/{path.name}",
    "an escaped URL": lambda path: f"file://{path.parent}/{path.name.replace(' ', '%20')}",
    "an URL that is not escaped": lambda path: f"file://{path}",
    "an archive": zipped,
    "an archive of the folder": zipped_with_its_folder,
    "a folder in an archive": lambda path: zipped_with_its_folder(path) / path.name,
}


@pytest.mark.parametrize("place", PLACES)
def test_every_name_of_a_store_opens_it(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "my points.zarr"
    write_zarr(path, X, 100)
    data = PLACES[place](path)
    expected, model = fitted(path), fitted(data)
    assert digest(model) == digest(expected)
    np.testing.assert_array_equal(model.predict(data), expected.predict(path))
    # By the name in its provenance a report finds the data of a model.
    assert digest(fitted(model.provenance_["source"])) == digest(expected)


def test_a_percent_sign_in_a_name_is_itself(tmp_path: Path) -> None:
    (tmp_path / "a%20b").mkdir()
    assert local_path(f"file://{tmp_path}/a%20b").name == "a%20b"
    assert local_path(f"{tmp_path}/c%20d").name == "c%20d"
    assert local_path(f"file://{tmp_path}/c%20d").name == "c d"


def test_what_is_no_archive_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.zarr.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"x\.zarr\.zip: not a Zarr array \(BadZipFile"):
        fitted(tmp_path / "x.zarr.zip")


# -- groups ----------------------------------------------------------------------------


def filled(group: zarr.Group) -> zarr.Group:
    for path, shape, dtype in (
        ("cube", (3, 4, 5), "f4"),
        ("labels", (N,), "i8"),
        ("run/deep/points", (N, D), "f8"),
        ("texts", (4, 2), "bool"),
    ):
        group.create_array(path, shape=shape, dtype=dtype)
    group["run/deep/points"][:] = X
    return group


@pytest.mark.parametrize("where", ["path", "archive", "local group", "group in memory"])
def test_a_group_lists_its_tree_with_rows_first(where: str, tmp_path: Path) -> None:
    path = tmp_path / "g.zarr"
    group = filled(zarr.open_group({} if "memory" in where else str(path), mode="w"))
    data: Any = {"path": path, "archive": zipped(path) if where == "archive" else None}.get(
        where, group
    )
    with pytest.raises(DataError, match="is a group, not an array") as e:
        fitted(data)
    listed = str(e.value).partition("arrays are: ")[2].split("; ")
    assert [line.partition(", ")[2] for line in listed] == [
        "600 x 3 float64", "4 x 2 bool", "3 x 4 x 5 float32", "600 int64"
    ]  # fmt: skip
    place = listed[0].partition(", ")[0]
    inside: Any = eval(place, {"X": group}) if place.startswith("X[") else place
    assert digest(fitted(inside)) == digest(fitted(group["run/deep/points"]))


def test_a_sparse_matrix_of_anndata_is_named(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata", reason="anndata is not installed")
    scipy_sparse = pytest.importorskip("scipy.sparse")
    data = anndata.AnnData(scipy_sparse.csr_matrix(X))
    data.obsm["X_pca"] = X
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.write_zarr(tmp_path / "a.zarr")
        with pytest.raises(
            DataError, match=r"arrays are: .*/obsm/X_pca, 600 x 3 float64; .*sparse"
        ):
            fitted(tmp_path / "a.zarr")
        dense = fitted(da.from_array(X, chunks=(N, D)))
        np.testing.assert_allclose(fitted(tmp_path / "a.zarr/X").means_, dense.means_)
        lazy = anndata.experimental.read_elem_lazy(zarr.open_group(tmp_path / "a.zarr/X"))
        assert digest(fitted(lazy)) == digest(fitted(da.from_array(X, chunks=lazy.chunks)))


# -- arrays and tables of other shapes ---------------------------------------------------


@pytest.mark.parametrize("meta", ["sparse", "dense"])
def test_sparse_blocks_are_made_dense(meta: str) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    rows = da.from_array(X, chunks=(100, D))
    empty = sparse.csr_matrix((0, 0)) if meta == "sparse" else np.empty((0, 0))
    data = rows.map_blocks(sparse.csr_matrix, dtype="f8", meta=empty)
    assert digest(fitted(data)) == digest(fitted(rows))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr", "path", "HDF5"])
def test_more_dimensions_are_asked_for_their_variables(
    kind: str, axis: int, tmp_path: Path
) -> None:
    cube = np.moveaxis(X.reshape(20, 30, D), -1, axis)
    data: Any = cube
    if kind == "dask":
        data = da.from_array(cube, chunks=7)
    elif kind in ("zarr", "path"):
        data = write_zarr(tmp_path / "x.zarr", cube, 7)
        data = str(tmp_path / "x.zarr") if kind == "path" else data
    elif kind == "HDF5":
        h5py = pytest.importorskip("h5py", reason="h5py is not installed")
        data = h5py.File(tmp_path / "x.h5", "w").create_dataset("x", data=cube)
    rows = advised(data, rf"If it is axis {axis}, pass (.*\.reshape\(-1, 3\))", {})
    np.testing.assert_array_equal(np.asarray(rows), X)
    assert fitted(rows).n_features_in_ == D


@pytest.mark.parametrize("kind", ["dask", "zarr"])
def test_one_column_is_made_a_table(kind: str) -> None:
    data = da.from_array(X[:, 0], chunks=100) if kind == "dask" else zarr.array(X[:, 0])
    rows = advised(data, r"if it is one column, pass (.*)$", {})
    np.testing.assert_allclose(fitted(rows, 1).means_[0, 0], X[:, 0].mean())


@pytest.mark.parametrize("dims", [("band", "y", "x"), ("y", "x", "band"), ("t", "band", "y", "x")])
@pytest.mark.parametrize("named", [False, True])
def test_a_map_is_asked_for_its_variables(dims: tuple[str, ...], named: bool) -> None:
    xr = pytest.importorskip("xarray", reason="the extra `xarray` is not installed")
    sizes = {"band": D, "y": 20, "x": 30, "t": 1 if named else 5}
    values = np.random.default_rng(0).normal(size=[sizes[dim] for dim in dims])
    coords = {"band": ["red", "green", "blue"]} if named else {}
    data = xr.DataArray(values, coords, dims)
    model = advised(
        data, r"in Python, (GaussianMixture\(.*\))", {"GaussianMixture": GaussianMixture}
    )
    model.set_params(n_components=2, random_state=0).fit(data)
    assert model.n_features_in_ == D
    assert hasattr(model, "feature_names_in_") == named
    assert model.predict(data).dims == tuple(dim for dim in dims if dim != "band")


@pytest.mark.parametrize("dims", [("time",), ("time", "y", "x")])
def test_variables_of_a_dataset_are_columns(dims: tuple[str, ...]) -> None:
    xr = pytest.importorskip("xarray", reason="the extra `xarray` is not installed")
    rng = np.random.default_rng(0)
    size = (6, 10, 10)[: len(dims)] if len(dims) > 1 else (N,)
    data = xr.Dataset({name: (dims, rng.normal(size=size)) for name in ("u", "v", "w")})
    model = fitted(data)
    assert model.feature_names_in_.tolist() == ["u", "v", "w"]
    assert model.predict(data).dims == dims


def test_one_column_with_labels_is_made_a_table() -> None:
    xr = pytest.importorskip("xarray", reason="the extra `xarray` is not installed")
    rows = advised(xr.DataArray(X[:, 0], dims="time"), r"if it is one column, pass (.*)$", {})
    assert fitted(rows).n_features_in_ == 1


@pytest.fixture
def frame() -> Any:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    dd = pytest.importorskip("dask.dataframe", reason="Dask's DataFrame is not installed")
    table = pd.DataFrame(X, columns=["a", "b", "c"])
    table["text"] = "x"
    table["count"] = pd.array(np.arange(N) % 4, dtype="Int64")
    return dd.from_pandas(table, npartitions=6)


def test_a_dask_frame_is_fitted_by_partitions(frame: Any) -> None:
    rows = frame[["a", "b", "c"]]
    model = fitted(rows)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    blocks = da.from_array(X, chunks=(100, D))
    assert digest(model) == digest(fitted(blocks))
    for answer in ("predict", "predict_proba", "score_samples"):
        found = getattr(model, answer)(rows)
        assert found.divisions == rows.divisions
        expected = getattr(model, answer)(blocks)
        assert found.compute().index.equals(rows.index.compute())
        np.testing.assert_array_equal(found.compute(), expected.compute())
    assert model.score(rows) == model.score(blocks)
    weighted = GaussianMixture(2, random_state=0).fit(rows, sample_weight=frame["count"])
    weights = da.from_array(np.arange(N) % 4, chunks=100)
    expected = GaussianMixture(2, random_state=0).fit(blocks, sample_weight=weights)
    assert digest(weighted) == digest(expected)
    named = GaussianMixture(2, random_state=0, columns=["a", "b", "c"])
    assert digest(named.fit(frame, sample_weight="count")) == digest(expected)
    turned = model.predict(frame[["text", "c", "b", "a"]])
    np.testing.assert_array_equal(turned.compute(), model.predict(blocks).compute())
    with pytest.raises(DataError, match="X lacks columns that the model was fitted to, 'b'"):
        model.predict(frame[["c", "a"]])


def test_columns_of_a_dask_frame_that_hold_no_numbers_are_named(frame: Any) -> None:
    with pytest.raises(
        DataError, match=r"no numbers, text \(.*\): leave them out by exclude="
    ) as e:
        fitted(frame)
    (left_out,) = re.findall(r"by exclude=(\[.*?\]), or", str(e.value))
    model = GaussianMixture(2, random_state=0, exclude=literal_eval(left_out)).fit(frame)
    assert model.feature_names_in_.tolist() == ["a", "b", "c", "count"]
    column = advised(frame["a"], r"pass (X\.to_frame\(\))", {})
    assert fitted(column).n_features_in_ == 1


def test_missing_numbers_of_a_dask_frame_are_nan(frame: Any) -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")

    def without(part: Any) -> Any:
        return part.assign(count=part["count"].mask(part["count"] == 3, pd.NA))

    rows = frame[["a", "count"]].map_partitions(without)
    with pytest.raises(DataError, match="column 'count'; 150 rows hold NaN"):
        fitted(rows)


def test_a_query_of_polars_is_told_to_be_run() -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    table = advised(
        polars.DataFrame(X, schema=["a", "b", "c"]).lazy(), r"pass (X\.collect\(\))", {}
    )
    assert fitted(table).feature_names_in_.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["numpy", "list", "dask", "unknown", "zarr", "masked"])
def test_one_row_is_refused_wherever_it_lies(kind: str) -> None:
    row = X[:1]
    lazy = da.from_array(row) + 0
    data = {
        "numpy": row,
        "list": row.tolist(),
        "dask": lazy,
        "unknown": lazy[lazy[:, 0] == row[0, 0]],
        "zarr": zarr.array(row),
        "masked": np.ma.masked_array(row),
    }[kind]
    with pytest.raises(ValueError, match=r"1 row|1 sample"):
        fitted(data, 1)


# -- links -----------------------------------------------------------------------------


def test_the_links_of_an_annex_are_followed_when_asked(tmp_path: Path) -> None:
    expected = fitted(write_zarr(tmp_path / "x.zarr", X, 100))
    for file in [file for file in (tmp_path / "x.zarr").rglob("*") if file.is_file()]:
        kept = tmp_path / "annex" / file.relative_to(tmp_path)
        kept.parent.mkdir(parents=True, exist_ok=True)
        file.rename(kept)
        file.symlink_to(kept)
    with pytest.raises(DataError, match=r"is a link to .*DataLad") as e:
        fitted(tmp_path / "x.zarr")
    (switch,) = re.findall(r"dask\.config\.set\((.*?)\)", str(e.value))
    with dask.config.set(eval(switch)):
        assert digest(fitted(tmp_path / "x.zarr")) == digest(expected)
    (variable,) = re.findall(r"\((DASK_\w+)=true\)", str(e.value))
    with dask.config.set(dask.config.collect_env({variable: "true"})):
        assert digest(fitted(tmp_path / "x.zarr")) == digest(expected)


# -- identities ------------------------------------------------------------------------


class Nameless(WrapperStore[Any]):
    """A store that nobody gave a name."""

    __str__ = object.__repr__
    __repr__ = object.__repr__

    def _with_store(self, store: Any) -> Any:
        return type(self)(store)


def of_icechunk(folder: Path) -> Any:
    icechunk = pytest.importorskip("icechunk", reason="icechunk is not installed")
    storage = icechunk.local_filesystem_storage(str(folder / "repository"))
    if not (folder / "repository").exists():
        repository = icechunk.Repository.create(storage)
        session = repository.writable_session("main")
        array = zarr.create_array(
            session.store, name="x", shape=X.shape, chunks=(50, D), dtype="f8"
        )
        array[:] = X
        session.commit("rows")
    repository = icechunk.Repository.open(storage)
    return zarr.open_array(repository.readonly_session("main").store, path="x", mode="r")


def stored(folder: Path) -> Any:
    if not (folder / "x").exists():
        write_zarr(folder / "x", X, 50)
    return LocalStore(folder / "x", read_only=True)


MEMORY = MemoryStore()

STORES: dict[str, Callable[[Path], Any]] = {
    "icechunk": of_icechunk,
    "no name": lambda folder: zarr.open_array(Nameless(stored(folder)), mode="r"),
    "logging": lambda folder: zarr.open_array(LoggingStore(stored(folder)), mode="r"),
    "memory": lambda folder: zarr.array(X, chunks=(50, D)),
}


@pytest.mark.parametrize("kind", STORES)
def test_a_checkpoint_of_a_store_without_a_name_resumes(kind: str, tmp_path: Path) -> None:
    first, again = STORES[kind](tmp_path), STORES[kind](tmp_path)
    assert first.store is not again.store
    said = json.dumps(as_source(first, np.ones(N)).identity())
    assert said == json.dumps(as_source(again, np.ones(N)).identity())
    for address in (id(first.store), id(getattr(first.store, "_store_dict", None))):
        assert str(address) not in said
        assert f"{address:x}" not in said
    straight = fitted(first, 3, tol=1e-9)
    assert straight.n_iter_ > 2

    def stop(state: EMState) -> None:
        if state.n_iter == 2:
            raise KeyboardInterrupt

    folder = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        fitted(first, 3, tol=1e-9, checkpoint=folder, callbacks=[stop])
    read: list[int] = []
    resumed = fitted(
        again, 3, tol=1e-9, checkpoint=folder, callbacks=[lambda state: read.append(state.n_iter)]
    )
    assert min(read) > 2
    assert digest(resumed) == digest(straight)
    assert "0x" not in resumed.provenance_["source"]


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("<some.Store object at 0x7f2dbb29cfd0>/x", "some.Store/x"),
        ("memory://139834806632128/x", "memory://x"),
        ("logging-memory://139834806632128", "logging-memory:"),
        ("Kept(0x7f2dbb29cfd0)", "Kept()"),
        ("file:///data/0xdeadbeef.zarr", "/data/0xdeadbeef.zarr"),
        ("s3://key:secret@bucket/0x1f.zarr", "s3://bucket/0x1f.zarr"),
        ("zip:///data/x.zarr.zip/points", "/data/x.zarr.zip/points"),
    ],
)
def test_no_name_of_a_store_holds_an_address_in_memory(name: str, described: str) -> None:
    assert describe_store(name) == described


# -- checksums -------------------------------------------------------------------------


def test_what_is_said_of_a_store_is_said_once_a_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        write_zarr(tmp_path / name, X, 100)
    with caplog.at_level(logging.INFO, logger="dask_em"):
        for name in ("a", "b", "a", "b"):
            fitted(tmp_path / name, 1)
    told = [r for r in caplog.records if "has no checksum" in r.message]
    assert [r.levelname for r in told] == ["INFO", "INFO"]
    assert all(str(tmp_path / name) in r.message for r, name in zip(told, "ab", strict=True))


def test_plan_warns_of_a_store_without_a_checksum(tmp_path: Path) -> None:
    write_zarr(tmp_path / "a", X, 100)
    result = CliRunner().invoke(main, ["plan", str(tmp_path / "a"), "-k", "2", "--no-probe"])
    assert result.exit_code == 0, result.output
    assert re.search("has no checksum: write it .*Crc32cCodec", result.stderr)
