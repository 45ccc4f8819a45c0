"""The laws that the package ships for sources and backends, on all of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from distributed import Client
from helpers import write_zarr

from dask_em import GaussianMixture
from dask_em.backends import backend_in_force
from dask_em.backends.dask.backend import DaskBackend
from dask_em.backends.serial import SerialBackend
from dask_em.backends.threads import ThreadsBackend
from dask_em.core.protocols import Backend, Source
from dask_em.data import open as opening
from dask_em.data.memory import ArraySource
from dask_em.data.open import Opener, as_source, register_source
from dask_em.data.options import ReadOptions
from dask_em.data.xarray import Labelled
from dask_em.testing.backends import BackendTests
from dask_em.testing.passes import NumberedRows
from dask_em.testing.sources import SourceTests


class TestSerialBackend(BackendTests):
    def backend(self) -> Backend:
        return SerialBackend()


class TestThreadsBackend(BackendTests):
    def backend(self) -> Backend:
        return ThreadsBackend(3)


class TestDaskThreads(BackendTests):
    def backend(self) -> Backend:
        return DaskBackend()


class TestDaskSynchronous(BackendTests):
    @pytest.fixture(autouse=True)
    def scheduler(self, synchronous: None) -> None:
        pass

    def backend(self) -> Backend:
        return backend_in_force()


class TestDaskCluster(BackendTests):
    @pytest.fixture(autouse=True)
    def scheduler(self, client: Client) -> None:
        pass

    def backend(self) -> Backend:
        return backend_in_force()


class TestArraySource(SourceTests):
    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        return ArraySource(X, sample_weight)


class TestRawZarr(SourceTests):
    """Files of plain numbers, and weights in memory."""

    layout: dict[str, Any] = {"compressors": None}  # noqa: RUF012

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        return as_source(write_zarr(folder / "x.zarr", X, 37, **self.layout), sample_weight)


class TestCompressedZarr(TestRawZarr):
    """Chunks that Zarr decodes, and weights in another array."""

    layout: dict[str, Any] = {}  # noqa: RUF012

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        if sample_weight is None:
            return super().source(folder, X, None)
        return super().source(folder, X, write_zarr(folder / "w.zarr", sample_weight, 77))


class TestShardedZarr(TestRawZarr):
    layout: dict[str, Any] = {"chunks": (10, 3), "shards": (100, 3)}  # noqa: RUF012


class TestZippedZarr(SourceTests):
    """An array in an archive, which a worker opens for itself."""

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        write_zarr(folder / "x.zarr", X, 37)
        return as_source(
            shutil.make_archive(str(folder / "x.zarr"), "zip", folder / "x.zarr"), sample_weight
        )


class TestDaskSource(SourceTests):
    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        return as_source(da.from_array(X, chunks=(37, -1)) + 0, sample_weight)


class TestDaskSourceOfUnknownLengths(SourceTests):
    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        rows = da.from_array(X, chunks=(37, -1))
        known = da.ones(len(X), chunks=37, dtype=bool)
        weight = None if sample_weight is None else da.from_array(sample_weight, chunks=37)[known]
        return as_source(rows[known], weight)

    def test_its_identity_is_that_of_the_data(self, tmp_path: Path) -> None:
        pytest.skip("lengths that nobody knows are no identity")


class TestDaskFrame(TestDaskSourceOfUnknownLengths):
    """Partitions of a Dask DataFrame, and weights that are a column of it."""

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        pd = pytest.importorskip("pandas", reason="pandas is not installed")
        dd = pytest.importorskip("dask.dataframe", reason="Dask's DataFrame is not installed")
        frame = pd.DataFrame(X, columns=["a", "b", "c"])
        if sample_weight is None:
            return as_source(dd.from_pandas(frame, npartitions=9))
        frame.insert(0, "weight", sample_weight)
        return as_source(dd.from_pandas(frame, npartitions=9), "weight")


class TestPandasTable(SourceTests):
    """Columns of a table in memory, of which one holds the weights."""

    def table(self, columns: dict[str, np.ndarray]) -> Any:
        return pytest.importorskip("pandas").DataFrame(columns)

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        columns = {name: X[:, j] for j, name in enumerate("abc")}
        if sample_weight is None:
            return as_source(self.table(columns))
        source = as_source(self.table({"w": sample_weight, **columns}), "w")
        assert source.columns is not None
        assert [column.name for column in source.columns] == ["a", "b", "c"]
        return source


class TestPolarsTable(TestPandasTable):
    def table(self, columns: dict[str, np.ndarray]) -> Any:
        return pytest.importorskip("polars").DataFrame(columns)


class TestArrowTable(TestPandasTable):
    """In several pieces, as files of row groups are read."""

    def table(self, columns: dict[str, np.ndarray]) -> Any:
        pa = pytest.importorskip("pyarrow")
        table = pa.table(columns)
        return pa.concat_tables([table[:123], table[123:]])


class TestWhateverHandsItsColumnsToArrow(TestArrowTable):
    def table(self, columns: dict[str, np.ndarray]) -> Any:
        return Handing(super().table(columns))


class TestWhateverExchangesDataFrames(TestArrowTable):
    def table(self, columns: dict[str, np.ndarray]) -> Any:
        return Exchanging(super().table(columns))


class Handing:
    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


class Exchanging:
    def __init__(self, table: Any) -> None:
        self._table = table

    def __dataframe__(self, **options: Any) -> Any:
        return self._table.__dataframe__(**options)


class TestSlicedRows(SourceTests):
    """An array of another library that is sliced by rows, in the other order of bytes."""

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        return as_source(Sliced(X.astype(">f8")), sample_weight)


class Sliced:
    def __init__(self, X: np.ndarray) -> None:
        self._X, self.shape, self.dtype, self.chunks = X, X.shape, X.dtype, (7, X.shape[1])

    def __getitem__(self, rows: slice) -> np.ndarray:
        assert isinstance(rows, slice)
        # Whole chunks are read.
        assert rows.start % self.chunks[0] == 0
        return self._X[rows]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise AssertionError("it was read whole")


# -- packed and masked ---------------------------------------------------------------------

# Numbers that are packed without rounding.
PACKED = np.round(4 * SourceTests.X) / 4 + 20


class TestPackedZarr(TestRawZarr):
    """Numbers that are scaled and shifted, of which one value stands for NaN."""

    X = PACKED

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        stored = np.where(np.isnan(X), -999.0, (X - 20) * 4)
        packing = {"scale_factor": 0.25, "add_offset": 20.0, "missing_value": -999.0}
        layout = {"attributes": packing, **self.layout}
        return as_source(write_zarr(folder / "x.zarr", stored, 37, **layout), sample_weight)


class TestPackedCompressedZarr(TestPackedZarr):
    layout: dict[str, Any] = {}  # noqa: RUF012


class TestMaskedArray(SourceTests):
    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        return as_source(masked(X), sample_weight)


class TestMaskedDaskSource(SourceTests):
    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        return as_source(da.from_array(masked(X), chunks=(37, -1)), sample_weight)


class TestMaskedBlocksUnderAPlainMeta(SourceTests):
    """As `da.from_delayed` makes them."""

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        plain = da.from_array(X, chunks=(37, -1))
        return as_source(plain.map_blocks(masked, meta=np.empty((0, 0))), sample_weight)


class TestGridOfVariables(SourceTests):
    """One array a column, as a store of xarray has them, and weights that are another one."""

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        group = zarr.open_group(folder / "set.zarr", mode="w")
        values = dict(zip("abc", X.T, strict=True))
        if sample_weight is not None:
            values["w"] = sample_weight
        for name, numbers in values.items():
            made = group.create_array(name, shape=numbers.shape, chunks=(37,), dtype=X.dtype,
                                      dimension_names=("row",))  # fmt: skip
            made[:] = numbers
        return as_source(folder / "set.zarr", None if sample_weight is None else "w")


class TestGrid(SourceTests):
    """Rows of 2 x 250 cells in blocks of several dimensions, the variables first."""

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        cells = np.moveaxis(X.reshape(-1, 5, X.shape[1]), -1, 0)
        made = zarr.create_array(folder / "grid.zarr", shape=cells.shape, chunks=(2, 11, 5),
                                 dtype=X.dtype, dimension_names=("band", "y", "x"))  # fmt: skip
        made[:] = cells
        weight = None if sample_weight is None else sample_weight.reshape(cells.shape[1:])
        return as_source(folder / "grid.zarr", weight, ReadOptions(features="band"))


class TestTurnedGrid(TestGrid):
    """Two dimensions, of which the first holds the variables, and weights in another array."""

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        made = zarr.create_array(folder / "grid.zarr", shape=X.T.shape, chunks=(1, 37),
                                 dtype=X.dtype, dimension_names=("band", "x"))  # fmt: skip
        made[:] = X.T
        weight = None
        if sample_weight is not None:
            weight = write_zarr(folder / "w.zarr", sample_weight, 77)
        return as_source(folder / "grid.zarr", weight, ReadOptions(features="band"))


class TestPackedGrid(SourceTests):
    X = PACKED

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        stored = np.where(np.isfinite(X), (X - 20) * 4, -999.0)
        made = zarr.create_array(
            folder / "grid.zarr", shape=X.T.shape, chunks=(1, 37), dtype="f8",
            dimension_names=("band", "x"),
            attributes={"scale_factor": 0.25, "add_offset": 20.0, "valid_min": -990.0},
        )  # fmt: skip
        made[:] = stored.T
        return as_source(folder / "grid.zarr", sample_weight, ReadOptions(features="band"))


class TestGridOfXarray(SourceTests):
    """A DataArray in memory, whose variables lie between the dimensions of rows."""

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        xr = pytest.importorskip("xarray", reason="the extra `xarray` is not installed")
        cells = xr.DataArray(X.reshape(-1, 5, X.shape[1]), dims=("y", "x", "band"))
        labelled = Labelled.of(self.held(cells.transpose("y", "band", "x")), FEATURES)
        assert labelled is not None
        return as_source(labelled.data, sample_weight, FEATURES)

    def held(self, cells: Any) -> Any:
        return cells


FEATURES = ReadOptions(features="band")


class TestBlocksOfXarray(TestGridOfXarray):
    def held(self, cells: Any) -> Any:
        return cells.chunk(y=7, band=1)


class TestSparseBlocks(SourceTests):
    X = np.where(SourceTests.X > 0, SourceTests.X, 0)

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        blocks = da.from_array(X, chunks=(37, -1))
        return as_source(blocks.map_blocks(scipy.sparse.csr_matrix, meta=NO_ROWS), sample_weight)


NO_ROWS = scipy.sparse.csr_matrix((0, 3))


class TestSparseZarr(TestSparseBlocks):
    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        matrix = scipy.sparse.csr_matrix(X)
        group = zarr.open_group(folder / "x.zarr", mode="w")
        group.attrs.update({"encoding-type": "csr_matrix", "shape": list(X.shape)})
        for name in ("data", "indices", "indptr"):
            write_zarr(folder / "x.zarr" / name, getattr(matrix, name), 41)
        return as_source(folder / "x.zarr", sample_weight)


def masked(X: np.ndarray) -> np.ma.MaskedArray:
    return np.ma.masked_array(np.where(np.isnan(X), -999.0, X), np.isnan(X))


# -- tables and arrays in files ----------------------------------------------------------


class TestNpy(SourceTests):
    """A file that is read by ranges, and weights of another one."""

    order: Literal["C", "F"] = "C"
    dtype = "f8"

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        np.save(folder / "x.npy", np.asarray(X, self.dtype, order=self.order))
        if sample_weight is None:
            return as_source(folder / "x.npy")
        np.save(folder / "w.npy", sample_weight)
        return as_source(folder / "x.npy", folder / "w.npy")


class TestNpyOfColumns(TestNpy):
    order = "F"


class TestNpyOfAnotherMachine(TestNpy):
    dtype = ">f8"


class TestParquet(SourceTests):
    """A file whose row groups are chunks, and weights that are a column of it."""

    group_rows = 37

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        pytest.importorskip("pyarrow", reason="the extra `table` is not installed")
        table = named(X, {} if sample_weight is None else {"w": sample_weight})
        return as_source(self.write(folder, table), None if sample_weight is None else "w")

    def write(self, folder: Path, table: Any) -> Path:
        from pyarrow import parquet

        parquet.write_table(table, folder / "x.parquet", row_group_size=self.group_rows)
        return folder / "x.parquet"


class TestSmallRowGroups(TestParquet):
    """Several are read together."""

    group_rows = 5


class TestLargeRowGroups(TestParquet):
    """They are read in parts."""

    group_rows = 210


class TestParquetFolder(TestParquet):
    """Files of other lengths, one of which has no rows."""

    def write(self, folder: Path, table: Any) -> Path:
        from pyarrow import parquet

        edges = [0, 61, 61, 300, table.num_rows]
        (folder / "x").mkdir()
        for number, (start, stop) in enumerate(pairwise(edges)):
            part = table.slice(start, max(0, stop - start))
            parquet.write_table(part, folder / f"x/part-{number}.parquet", row_group_size=37)
        return folder / "x"


class TestParquetAndWeightsInMemory(TestParquet):
    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        pytest.importorskip("pyarrow", reason="the extra `table` is not installed")
        return as_source(self.write(folder, named(X)), sample_weight)


class TestArrow(TestParquet):
    def write(self, folder: Path, table: Any) -> Path:
        from pyarrow import feather

        feather.write_feather(table, str(folder / "x.feather"), chunksize=37)
        return folder / "x.feather"


def named(X: np.ndarray, more: dict[str, np.ndarray] | None = None) -> Any:
    """A table of the rows, whose columns are x0, x1, ..."""
    import pyarrow as pa

    return pa.table({**{f"x{j}": column for j, column in enumerate(X.T)}, **(more or {})})


# -- the registry ------------------------------------------------------------------------


@pytest.fixture
def numbers(tmp_path: Path) -> Iterator[str]:
    """A kind of source from outside: a text file that says how many chunks there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "OPENERS", [*opening.OPENERS])
        patch.setattr(opening, "SUFFIXES", {**opening.SUFFIXES})
        opener = Opener(lambda X: isinstance(X, NumberedRows), lambda X, sample_weight, options: X)
        register_source(opener, ".count", lambda path: NumberedRows(int(Path(path).read_text())))
        (tmp_path / "rows.count").write_text("200")
        yield str(tmp_path / "rows.count")


def test_a_source_from_outside_is_fitted_by_its_path(numbers: str) -> None:
    assert as_source(numbers).n_rows == 600
    model = GaussianMixture(2, random_state=0).fit(numbers)
    X = np.arange(600.0)[:, None]
    expected = GaussianMixture(2, random_state=0).fit(X)
    found, means = np.sort(model.means_, axis=0), np.sort(expected.means_, axis=0)
    np.testing.assert_allclose(found, means, rtol=1e-6)
    np.testing.assert_array_equal(model.predict(numbers), model.predict(X))


def test_options_of_reading_are_those_of_the_model() -> None:
    model = GaussianMixture(2, missing_chunks="fill", nonfinite="drop")
    assert model.read_options == ReadOptions("fill", "drop")
    for wrong in ({"missing_chunks": "skip"}, {"nonfinite": None}):
        with pytest.raises(ValueError, match="expected one of error, "):
            ReadOptions(**wrong)
