"""Single cells: dense and sparse matrices of AnnData, in its stores and in memory."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from click.testing import CliRunner
from distributed import Client
from helpers import digest

from dask_em import GaussianMixture
from dask_em.cli import main
from dask_em.core.tuning import tuning, use_tuning
from dask_em.data.checks import tell_once
from dask_em.data.open import as_source, stored_source
from dask_em.data.options import ReadOptions
from dask_em.data.zarr.sparse import Stretch
from dask_em.errors import DataError

pytestmark = [
    pytest.mark.usefixtures("many_chunks", "synchronous"),
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning"),
    pytest.mark.filterwarnings("ignore:X does not have valid feature names"),
]

N, GENES, K = 500, ["Actb", "Cd3e", "Gapdh", "Ms4a1", "Nkg7", "Lyz"], 2
D = len(GENES)


def counts() -> np.ndarray:
    """Two kinds of cells, of which most genes are silent in one."""
    rng = np.random.default_rng(1)
    kind = np.arange(N) * K // N
    loud = np.where(np.add.outer(kind, np.arange(D)) % 2, 4.0, 0.5)
    found = rng.gamma(2.0, loud / 2) * (rng.random((N, D)) < 0.6)
    return found.astype("f4")


X = counts()
COMPONENTS = (X @ np.random.default_rng(2).normal(size=(D, 3))).astype("f4")


def by_hand(path: Path, values: np.ndarray, encoding: str = "csr_matrix", **options: Any) -> Path:
    """Write a store of AnnData's layout, as its specification has it."""
    root = zarr.open_group(path, mode="w", zarr_format=2)
    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    for name in ("X", "layers/counts"):
        write_sparse(root, name, values, encoding, **options)
    for name, dense in (("obsm/X_pca", COMPONENTS), ("layers/dense", values)):
        made = root.create_array(name, shape=dense.shape, chunks=(70, dense.shape[1]), dtype="f4")
        made[:] = dense
        made.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    for table, names in (("var", GENES), ("obs", [f"cell {i}" for i in range(N)])):
        frame = root.create_group(table)
        frame.attrs.update({"encoding-type": "dataframe", "_index": "names"})
        frame.create_array("names", shape=(len(names),), dtype=str)[:] = np.array(names)
    return path


def write_sparse(
    root: zarr.Group, name: str, values: np.ndarray, encoding: str, chunk: int = 100
) -> None:
    make = scipy.sparse.csr_matrix if encoding == "csr_matrix" else scipy.sparse.csc_matrix
    matrix = make(values)
    group = root.create_group(name)
    group.attrs.update({"encoding-type": encoding, "shape": list(values.shape)})
    for part in ("data", "indices", "indptr"):
        numbers = getattr(matrix, part)
        made = group.create_array(part, shape=numbers.shape, chunks=(chunk,), dtype=numbers.dtype)
        made[:] = numbers


def by_anndata(path: Path) -> Path:
    anndata = pytest.importorskip("anndata", reason="anndata is not installed")
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    matrix = scipy.sparse.csr_matrix(X)
    cells = anndata.AnnData(
        matrix, pd.DataFrame(index=[f"cell {i}" for i in range(N)]), pd.DataFrame(index=GENES),
        obsm={"X_pca": COMPONENTS}, layers={"counts": matrix, "dense": X},
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells.write_zarr(path)
    return path


STORES: dict[str, Callable[[Path], Path]] = {
    "by hand": lambda path: by_hand(path, X),
    "by anndata": by_anndata,
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return STORES[request.param](tmp_path / "cells.zarr")


def fitted(held: Any, **options: Any) -> GaussianMixture:
    return GaussianMixture(**{"n_components": K, "random_state": 0, **options}).fit(held)


@pytest.mark.parametrize("form", ["{}::{}", "{}/{}"])
@pytest.mark.parametrize("member", ["X", "layers/counts", "layers/dense", "obsm/X_pca"])
def test_members_are_fitted_by_their_path(form: str, member: str, store: Path) -> None:
    path = form.format(store, member)
    plain = COMPONENTS if member == "obsm/X_pca" else X
    model = fitted(path)
    expected = fitted(da.from_array(plain, chunks=(70, -1)))
    order = [np.argsort(one.weights_) for one in (model, expected)]
    np.testing.assert_allclose(model.means_[order[0]], expected.means_[order[1]], rtol=1e-4)
    if member == "obsm/X_pca":
        assert not hasattr(model, "feature_names_in_")
    else:
        assert model.feature_names_in_.tolist() == GENES
    np.testing.assert_array_equal(np.asarray(model.predict(path)), model.predict(plain))
    assert model.score(path) == pytest.approx(model.score(plain))


@pytest.mark.parametrize("member", ["X", "layers/dense"])
def test_genes_are_chosen_by_name(member: str, store: Path) -> None:
    path = f"{store}::{member}"
    model = fitted(path, columns=["Nkg7", "Cd3e"], n_components=1)
    np.testing.assert_allclose(model.means_[0], X[:, [4, 1]].mean(axis=0), rtol=1e-5)
    assert model.feature_names_in_.tolist() == ["Nkg7", "Cd3e"]
    weighted = GaussianMixture(1).fit(path, sample_weight="Actb")
    np.testing.assert_allclose(
        weighted.means_[0], np.average(X[:, 1:], axis=0, weights=X[:, 0]), rtol=1e-5
    )


def test_blocks_are_made_dense_and_each_chunk_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with use_tuning(tuning().with_changes(reading={"bytes": 2**10})):
        source = as_source(by_hand(tmp_path / "x.zarr", X, chunk=37) / "X")
        assert source.n_chunks > 10
    asked: list[tuple[int, int]] = []
    reader: Any = source.reader()
    for part in ("_data", "_indices", "_indptr"):
        stretch = getattr(reader._rows, part)
        read = stretch._reader.read

        def noted(window: slice, read: Any = read, part: str = part) -> Any:
            if part == "_data":
                asked.extend((i, i + 37) for i in range(window.start, window.stop, 37))
            return read(window)

        monkeypatch.setattr(stretch._reader, "read", noted)
    found = np.concatenate([reader.read(i)[0].copy() for i in range(source.n_chunks)])
    np.testing.assert_array_equal(found, X)
    assert len(asked) == len({*asked}) == -(-np.count_nonzero(X) // 37)


def test_stretches_may_begin_anywhere() -> None:
    array = zarr.create_array({}, shape=(100,), chunks=(7,), dtype="i4")
    array[:] = np.arange(100)
    rng, stretch = np.random.default_rng(0), Stretch(array, ReadOptions(), "X")
    for start in rng.integers(0, 101, 200):
        stop = int(rng.integers(start, 101))
        np.testing.assert_array_equal(stretch.read(int(start), stop), np.arange(start, stop))


def test_unsorted_indices_and_several_numbers_of_one_place(tmp_path: Path) -> None:
    path = by_hand(tmp_path / "x.zarr", np.ones((2, D), "f4"))
    group = zarr.open_group(path / "X")
    group["indices"][:] = [5, 4, 3, 2, 1, 0, 0, 0, 1, 2, 3, 4]
    group["data"][:] = np.arange(12)
    rows, _ = as_source(path / "X").reader().read(0)
    np.testing.assert_array_equal(rows, [[5, 4, 3, 2, 1, 0], [13, 8, 9, 10, 11, 0]])


@pytest.mark.parametrize(
    ("part", "at", "value"), [("indices", 7, D), ("indices", 7, -1), ("indptr", 3, 10**6)]
)
def test_numbers_that_make_no_matrix_are_refused(
    part: str, at: int, value: int, tmp_path: Path
) -> None:
    path = by_hand(tmp_path / "x.zarr", X)
    zarr.open_group(path / "X")[part][at] = value
    with pytest.raises(DataError, match=f"are no rows of a CSR matrix .*its {part} holds"):
        fitted(path / "X")


def test_a_missing_chunk_is_named(tmp_path: Path) -> None:
    path = by_hand(tmp_path / "x.zarr", X)
    (path / "X" / "data" / "2").unlink()
    with pytest.raises(DataError, match=r"X/data lacks 1 of .* chunks: chunk 2"):
        fitted(path / "X")


def test_columns_first_is_refused(tmp_path: Path) -> None:
    path = by_hand(tmp_path / "x.zarr", X, "csc_matrix")
    with pytest.raises(DataError, match=r"in the order of columns.*obsm/X_pca.*tocsr\(\)"):
        fitted(path / "X")


@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csr_array,
                                  scipy.sparse.csc_matrix])  # fmt: skip
def test_a_sparse_matrix_in_memory_is_given_in_blocks(kind: Any) -> None:
    matrix = kind(X)
    with pytest.raises(DataError, match=r"sparse matrix .* pass dask") as e:
        fitted(matrix)
    (words,) = re.findall(r"pass (dask.*, -1\)\))", str(e.value))
    blocks = eval(words, {"dask": dask, "X": matrix})
    assert digest(fitted(blocks)) == digest(fitted(da.from_array(X, chunks=blocks.chunks)))


@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csc_matrix])
def test_sparse_blocks_of_dask(kind: Any) -> None:
    blocks = da.from_array(X, chunks=(70, D)).map_blocks(kind, meta=kind((0, D), dtype="f4"))
    expected = fitted(da.from_array(X, chunks=(70, D)))
    model = fitted(blocks)
    assert digest(model) == digest(expected)
    assert model.predict(blocks).chunks == ((70,) * 7 + (10,),)
    np.testing.assert_array_equal(model.predict(blocks).compute(), expected.predict(X))


def test_what_it_costs_is_said(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path = by_hand(tmp_path / "x.zarr", X)
    dense = da.from_array(X, chunks=(70, D))
    for held, words in (
        (path / "X", f"is sparse: .* % of its {N} x {D} numbers are stored"),
        (dense.map_blocks(scipy.sparse.csr_matrix, meta=scipy.sparse.csr_matrix((0, D))),
         f"sparse blocks, and a pass computes with all {N} x {D} numbers"),
    ):  # fmt: skip
        tell_once.cache_clear()
        caplog.clear()
        with caplog.at_level("INFO", "dask_em"):
            fitted(held)
        (line,) = [r.message for r in caplog.records if "sparse" in r.message]
        assert re.search(words, line)


def test_dense_blocks_are_counted_by_plan(tmp_path: Path) -> None:
    path = by_hand(tmp_path / "x.zarr", X)
    with use_tuning(tuning().with_changes(reading={"bytes": 2**30})):
        whole = stored_source(path / "X")
        assert whole.held_bytes >= X.nbytes + np.count_nonzero(X) * (4 + 4)
    result = CliRunner().invoke(main, ["plan", f"{path}::X", "-k", "2"])
    assert result.exit_code == 0, result.output
    assert f"/X: {N} x {D} float32" in result.output


def test_the_command_line_takes_members(tmp_path: Path) -> None:
    path, model = by_hand(tmp_path / "x.zarr", X), tmp_path / "m.npz"
    for words in (
        ["fit", f"{path}::X", "-k", "2", "-o", model, "--columns", "Cd3e,Lyz"],
        ["predict", model, f"{path}::X", tmp_path / "a.zarr"],
        ["score", model, f"{path}::layers/dense"],
    ):
        result = CliRunner().invoke(main, [*map(str, words)])
        assert result.exit_code == 0, result.output
    labels = zarr.open_array(tmp_path / "a.zarr" / "labels")[:]
    expected = fitted(f"{path}::X", columns=["Cd3e", "Lyz"]).predict(f"{path}::X")
    np.testing.assert_array_equal(labels, np.asarray(expected))


def test_workers_read_sparse_rows(client: Client, tmp_path: Path) -> None:
    path = by_hand(tmp_path / "x.zarr", X) / "X"
    expected = digest(fitted(path))
    with dask.config.set(scheduler=client):
        assert digest(fitted(path)) == expected
