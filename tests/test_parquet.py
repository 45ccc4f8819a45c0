"""Tables of Parquet and Arrow: types of columns, files that differ, and what is refused by name."""

from __future__ import annotations

import datetime
import decimal
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import HANG, Tune

from dask_em import GaussianMixture
from dask_em.core.protocols import StoredSource
from dask_em.core.reading import fold_range
from dask_em.data.open import as_source, stored_source
from dask_em.data.options import ReadOptions
from dask_em.errors import DataError, StoreAccessError
from dask_em.testing.passes import RowsFold

pq = pytest.importorskip("pyarrow.parquet", reason="the extra `table` is not installed")
import pyarrow as pa  # noqa: E402
from pyarrow import feather  # noqa: E402

N = 40
COLUMN = np.arange(N) % 7


def write(path: Path, columns: Any, **options: Any) -> Path:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".arrow":
        feather.write_feather(table, str(path), chunksize=options.get("row_group_size", 1000))
    else:
        pq.write_table(table, path, **options)
    return path


def opened(path: Path | str, weights: Any = None, **options: Any) -> StoredSource:
    return stored_source(path, weights, ReadOptions.of(**options))


def rows_of(source: StoredSource) -> np.ndarray:
    chunks = [
        chunk for part in source.ranges() for chunk in fold_range(source, RowsFold(), part, None)
    ]
    return np.concatenate([X for _, X, _ in chunks])


@pytest.fixture(params=[".parquet", ".arrow"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- types -------------------------------------------------------------------------------

FLOATS = {"float16": "f2", "float32": "f4", "float64": "f8"}
WHOLE = {"int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8", "uint8": "u1", "uint16": "u2",
         "uint32": "u4", "uint64": "u8"}  # fmt: skip


@pytest.mark.parametrize("name", FLOATS)
def test_floats_are_read_in_their_own_type(name: str, suffix: str, tmp_path: Path) -> None:
    values = pa.array(COLUMN.astype(FLOATS[name]))
    source = opened(write(tmp_path / f"x{suffix}", {"a": values, "b": values}, row_group_size=9))
    assert source.dtype == FLOATS[name]
    np.testing.assert_array_equal(rows_of(source), np.stack([COLUMN, COLUMN], axis=1))
    assert source.columns is not None
    assert [column.kind for column in source.columns] == ["continuous"] * 2


@pytest.mark.parametrize("name", FLOATS)
def test_what_is_missing_of_floats_is_nan(name: str, suffix: str, tmp_path: Path) -> None:
    values = COLUMN.astype(FLOATS[name]).tolist()
    values[3] = None
    column = pa.array([None if v is None else np.dtype(FLOATS[name]).type(v) for v in values],
                      getattr(pa, name)())  # fmt: skip
    source = opened(write(tmp_path / f"x{suffix}", {"a": column}))
    assert source.dtype == FLOATS[name]
    expected = COLUMN.astype(float)
    expected[3] = np.nan
    np.testing.assert_array_equal(rows_of(source)[:, 0], expected)


@pytest.mark.parametrize("name", WHOLE)
def test_integers_are_read_as_such_where_none_is_missing(name: str, tmp_path: Path) -> None:
    whole = pa.array(COLUMN.astype(WHOLE[name]))
    source = opened(write(tmp_path / "x.parquet", {"a": whole}))
    assert source.dtype == WHOLE[name]
    assert source.columns is not None
    assert source.columns[0].kind == "count"
    np.testing.assert_array_equal(rows_of(source)[:, 0], COLUMN)

    holey = pa.array([None, *COLUMN[1:].tolist()], getattr(pa, name)())
    source = opened(write(tmp_path / "y.parquet", {"a": holey}))
    assert source.dtype.kind == "f"
    np.testing.assert_array_equal(rows_of(source)[:, 0], [np.nan, *COLUMN[1:]])
    # Where nobody counted them, there may be some.
    path = write(tmp_path / "z.parquet", {"a": whole}, write_statistics=False)
    assert opened(path).dtype.kind == "f"


def test_booleans_are_zero_and_one(suffix: str, tmp_path: Path) -> None:
    truth = [bool(n % 2) for n in COLUMN]
    source = opened(write(tmp_path / f"x{suffix}", {"a": truth, "b": [None, *truth[1:]]}))
    assert source.columns is not None
    assert [column.kind for column in source.columns] == ["binary"] * 2
    expected = np.array(truth, dtype=float)
    np.testing.assert_array_equal(rows_of(source)[:, 0], expected)
    np.testing.assert_array_equal(rows_of(source)[:, 1], [np.nan, *expected[1:]])


@pytest.mark.parametrize("kind", [pa.decimal128(38, 4), pa.decimal256(50, 4)])
def test_decimals_are_float64(kind: Any, tmp_path: Path) -> None:
    values = [decimal.Decimal(int(n)) / 4 for n in COLUMN]
    path = write(tmp_path / "x.parquet", {"a": pa.array([None, *values[1:]], kind)})
    np.testing.assert_array_equal(rows_of(opened(path))[:, 0], [np.nan, *COLUMN[1:] / 4])


def test_numbers_that_are_stored_once_each_are_numbers(suffix: str, tmp_path: Path) -> None:
    encoded = pa.array(COLUMN.astype("f8")).dictionary_encode()
    source = opened(write(tmp_path / f"x{suffix}", {"a": encoded}))
    np.testing.assert_array_equal(rows_of(source)[:, 0], COLUMN)


def test_columns_of_several_types_have_the_type_of_all(tmp_path: Path) -> None:
    columns = {"a": COLUMN.astype("f4"), "b": COLUMN.astype("i2"), "c": COLUMN.astype("u1")}
    assert opened(write(tmp_path / "x.parquet", columns)).dtype == np.float32
    assert opened(write(tmp_path / "y.parquet", {**columns, "d": COLUMN})).dtype == np.float64


@pytest.mark.parametrize("dtype", ["i8", "u8"])
@pytest.mark.parametrize("missing", [False, True])
def test_integers_that_float64_cannot_hold_are_named(
    dtype: str, missing: bool, suffix: str, tmp_path: Path
) -> None:
    values = COLUMN.astype(dtype).tolist()
    values[31] = 2**53
    first = None if missing else values[0]
    path = write(tmp_path / f"ok{suffix}", {"id": pa.array([first, *values[1:]], WIDE[dtype])})
    assert rows_of(opened(path))[31, 0] == 2**53
    values[31] += 1
    path = write(
        tmp_path / f"x{suffix}", {"id": pa.array([first, *values[1:]], WIDE[dtype])},
        row_group_size=10,
    )  # fmt: skip
    with pytest.raises(DataError, match=rf"column 'id' holds {2**53 + 1} at row 31 of .*x\."):
        rows_of(opened(path))
    if dtype == "i8":
        path = write(tmp_path / f"y{suffix}", {"id": np.array([1, -(2**53) - 1])})
        with pytest.raises(DataError, match=rf"holds {-(2**53) - 1} at row 1"):
            rows_of(opened(path))


WIDE = {"i8": pa.int64(), "u8": pa.uint64()}

NO_NUMBERS: dict[str, Any] = {
    "string": ["a", "b"],
    "large_string": pa.array(["a", "b"], pa.large_string()),
    "category": pa.array(["a", "b"]).dictionary_encode(),
    "date32": [datetime.date(2024, 1, 1)] * 2,
    "timestamp": [datetime.datetime(2024, 1, 1)] * 2,
    "time": [datetime.time(1)] * 2,
    "duration": [datetime.timedelta(1)] * 2,
    "list": [[1.0], [2.0]],
    "struct": [{"x": 1.0}, {"x": 2.0}],
    "binary": [b"a", b"b"],
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_a_column_of_no_numbers_is_named_with_what_to_do(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    values = NO_NUMBERS[kind]
    path = write(tmp_path / f"x{suffix}", pa.table({"a": [1.0, 2.0], "odd one": values}))
    with pytest.raises(DataError, match=r"hold no numbers, odd one \(.*exclude=\['odd one'\]"):
        opened(path)
    np.testing.assert_array_equal(rows_of(opened(path, exclude=["odd one"])), [[1.0], [2.0]])
    np.testing.assert_array_equal(rows_of(opened(path, columns="a")), [[1.0], [2.0]])


def test_many_columns_of_no_numbers_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {f"s{j}": ["a"] for j in range(20)} | {"x": [1.0]})
    with pytest.raises(DataError, match=r"s4 \(string\), \.\.\. \(20 in all\)"):
        opened(path)
    assert opened(path, exclude="s*").n_features == 1


# -- columns -----------------------------------------------------------------------------


def test_columns_are_chosen_in_the_order_asked_for_and_no_others_decoded(
    suffix: str, tmp_path: Path
) -> None:
    columns = {f"x{j}": np.full(N, float(j)) for j in range(6)} | {"s": ["text"] * N}
    path = write(tmp_path / f"x{suffix}", columns, row_group_size=7)
    source = opened(path, columns=["x4", "x1"])
    np.testing.assert_array_equal(rows_of(source), np.tile([4.0, 1.0], (N, 1)))
    assert source.columns is not None
    assert [column.name for column in source.columns] == ["x4", "x1"]


def test_a_model_finds_its_columns_by_name(tmp_path: Path, synchronous: None) -> None:
    X = np.random.default_rng(0).normal(size=(500, 2))
    X[::2] += 9
    fitted_to = write(tmp_path / "a.parquet", {"u": X[:, 0], "v": X[:, 1], "w": X[:, 0]})
    model = GaussianMixture(2, random_state=0, columns=["u", "v"]).fit(fitted_to)
    assert model.feature_names_in_.tolist() == ["u", "v"]
    turned = write(tmp_path / "b.parquet", {"t": ["x"] * 500, "v": X[:, 1], "u": X[:, 0]})
    np.testing.assert_array_equal(model.predict(turned), model.predict(fitted_to))
    lacking = write(tmp_path / "c.parquet", {"u": X[:, 0]})
    with pytest.raises(DataError, match="'v'"):
        model.predict(lacking)


def test_columns_of_one_name_are_refused(suffix: str, tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], ["a", "a"])
    with pytest.raises(DataError, match="several columns of one name, 'a'"):
        opened(write(tmp_path / f"x{suffix}", twice))


def test_names_may_be_of_any_letters(suffix: str, tmp_path: Path) -> None:
    names = ["größe", "温度 (°C)", "a.b", "x,y", "flux[0]"]
    path = write(tmp_path / f"x{suffix}", {name: COLUMN * 1.0 + j for j, name in enumerate(names)})
    assert rows_of(opened(path))[0].tolist() == [0, 1, 2, 3, 4]
    assert rows_of(opened(path, columns=["flux[0]", "a.b"]))[0].tolist() == [4, 2]


def test_units_are_those_of_the_fields(suffix: str, tmp_path: Path) -> None:
    schema = pa.schema([pa.field("t", pa.float64(), metadata={"units": "K"})])
    source = opened(write(tmp_path / f"x{suffix}", pa.table([pa.array([1.0, 2.0])], schema)))
    assert source.columns is not None
    assert source.columns[0].unit == "K"


def test_weights_are_a_column_that_is_no_feature(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"x{suffix}", {"a": COLUMN * 1.0, "w": COLUMN}, row_group_size=7)
    source = opened(path, "w")
    assert source.weighted
    assert source.n_features == 1
    chunks = [c for part in source.ranges() for c in fold_range(source, RowsFold(), part, None)]
    np.testing.assert_array_equal(np.concatenate([w for _, _, w in chunks]), COLUMN)
    text = write(tmp_path / f"y{suffix}", {"a": [1.0], "w": ["heavy"]})
    with pytest.raises(DataError, match=r"w \(string\)"):
        opened(text, "w")


# -- files -------------------------------------------------------------------------------


def test_a_pattern_is_all_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, value in (("b", 1.0), ("a", 0.0), ("c", 2.0), ("other", 9.0)):
        write(tmp_path / f"{name}.parquet", {"x": [value] * 3})
    source = opened(f"{tmp_path}/?.parquet")
    assert rows_of(source)[:, 0].tolist() == [0.0] * 3 + [1.0] * 3 + [2.0] * 3
    assert source.locate(0, 4).startswith("row 4 (row 1 of ")
    assert source.locate(0, 4).endswith("b.parquet)")
    with pytest.raises(DataError, match="no such file"):
        opened(f"{tmp_path}/z*.parquet")


def test_what_is_hidden_in_a_folder_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "x/part-0.parquet", {"x": [1.0]})
    write(tmp_path / "x/deep/part-1.parquet", {"x": [2.0]})
    write(tmp_path / "x/_metadata.parquet", {"x": [3.0]})
    write(tmp_path / "x/.part-2.parquet", {"x": [4.0]})
    write(tmp_path / "x/_temporary/part-3.parquet", {"x": [5.0]})
    (tmp_path / "x/_SUCCESS").touch()
    assert sorted(rows_of(opened(tmp_path / "x"))[:, 0]) == [1.0, 2.0]


def test_empty_files_and_groups_are_passed_over(tmp_path: Path) -> None:
    schema = pa.schema([("x", pa.float64())])
    with pq.ParquetWriter(tmp_path / "x.parquet", schema) as writer:
        for values in ([], [1.0, 2.0], [], [], [3.0]):
            writer.write_table(pa.table({"x": pa.array(values, pa.float64())}))
    assert rows_of(opened(tmp_path / "x.parquet"))[:, 0].tolist() == [1.0, 2.0, 3.0]
    empty = write(tmp_path / "y.parquet", pa.table({"x": pa.array([], pa.float64())}))
    with pytest.raises(DataError, match=r"y\.parquet has no rows"):
        opened(empty)


def test_files_that_differ_are_named(tmp_path: Path) -> None:
    write(tmp_path / "x/a.parquet", {"u": [1.0], "v": [1.0]})
    write(tmp_path / "x/b.parquet", {"v": [2.0]})
    with pytest.raises(DataError, match=r"b\.parquet has no column 'u', and .*a\.parquet has one"):
        opened(tmp_path / "x")
    assert rows_of(opened(tmp_path / "x", exclude="u"))[:, 0].tolist() == [1.0, 2.0]
    write(tmp_path / "x/b.parquet", {"u": ["text"], "v": [2.0]})
    with pytest.raises(DataError, match=r"'u' is double in .*a\.parquet and string in .*b\.parq"):
        opened(tmp_path / "x")
    # Other orders, more columns and narrower numbers are no matter.
    write(tmp_path / "x/b.parquet", {"more": ["text"], "v": [2], "u": np.array([7], "f4")})
    assert rows_of(opened(tmp_path / "x")).tolist() == [[1.0, 1.0], [7.0, 2.0]]


def test_columns_of_folders_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    for year in (2023, 2024):
        write(tmp_path / f"x/year={year}/kind=a%20b/0.parquet", {"v": [float(year)] * 2})
    assert opened(tmp_path / "x").n_features == 1
    source = opened(tmp_path / "x", columns=["year", "v"])
    assert rows_of(source).tolist() == [[2023.0, 2023.0]] * 2 + [[2024.0, 2024.0]] * 2
    with pytest.raises(DataError, match=r"kind \(words in names of folders\)"):
        opened(tmp_path / "x", columns=["kind", "v"])
    (carried,) = [source.carried(["kind", "year"]).open()]
    assert pa.table(carried.read(1, 3)).to_pydict() == {
        "kind": ["a b", "a b"], "year": ["2023", "2024"],
    }  # fmt: skip
    carried.close()


def test_categories_that_differ_between_files_are_kept_as_they_are(tmp_path: Path) -> None:
    for name, colours in (("a", ["red", "green"]), ("b", ["blue", "red"])):
        coded = pa.array(colours).dictionary_encode()
        write(tmp_path / f"x/{name}.parquet", {"v": [1.0, 2.0], "colour": coded})
    source = opened(tmp_path / "x", exclude="colour")
    reader = source.carried(["colour"]).open()
    assert pa.table(reader.read(0, 4)).to_pydict() == {"colour": ["red", "green", "blue", "red"]}
    reader.close()
    with pytest.raises(DataError, match=r"no column.*'color'|'color'.*did you mean 'colour'"):
        source.carried(["color"])


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda data: b"a,b\n1,2\n",
    "empty": lambda data: b"",
    "cut": lambda data: data[:-20],
    "no footer": lambda data: data[: len(data) // 2],
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_file_that_is_no_table_is_named(how: str, suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"x{suffix}", {"a": np.arange(1000.0)})
    path.write_bytes(DAMAGED[how](path.read_bytes()))
    with pytest.raises(DataError, match=rf"x\{suffix} cannot be read \(.*restore it from a copy"):
        opened(path)


def test_flipped_bits_are_found_where_pages_have_checksums(tmp_path: Path) -> None:
    values = {"a": np.random.default_rng(0).normal(size=5000)}
    path = write(
        tmp_path / "x.parquet", values, write_page_checksum=True, compression="none",
        use_dictionary=False, row_group_size=1000,
    )  # fmt: skip
    source = opened(path)
    assert source.lacks_checksum == ""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"row group 2 \(rows 2000 to 2999\) of .*x\.parquet"):
        rows_of(source)
    plain = opened(write(tmp_path / "y.parquet", values))
    assert "write_page_checksum=True" in plain.lacks_checksum


def test_other_row_groups_than_at_first_are_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"a": np.arange(100.0)}, row_group_size=10)
    source = as_source(path)
    write(path, {"a": np.arange(100.0)}, row_group_size=20)
    with pytest.raises(DataError, match=r"x\.parquet has other row groups than when"):
        fold_range(source, RowsFold(), source.ranges()[0], None)
    with pytest.raises(DataError, match=r"x\.parquet changed since it was opened"):
        source.check()


def test_a_large_group_is_read_in_parts(tmp_path: Path, tune: Tune) -> None:
    """Memory is bounded, and each part is where it should be whoever asks for it."""
    X = np.random.default_rng(0).normal(size=(20_000, 2))
    tune(reading={"bytes": 2**14})
    path = write(tmp_path / "x.parquet", {"a": X[:, 0], "b": X[:, 1]})
    source = opened(path)
    assert source.n_chunks == 20
    assert source.ranges() == [range(20)]
    np.testing.assert_array_equal(rows_of(source), X)
    reader = source.reader()
    for chunk in (17, 3, 3, 4, 0):
        start, stop = source.bounds[chunk : chunk + 2]
        np.testing.assert_array_equal(reader.read(chunk)[0], X[start:stop])
    reader.close()


@pytest.mark.parametrize(
    ("rows", "changed", "said"),
    [
        (2, {"many_chunks": 100}, "row groups of 2 rows"),
        (1000, {"bytes": 512}, "row groups of up to 1,000 rows"),
        (100, {}, ""),
    ],
)
def test_groups_that_are_too_small_or_too_large_are_said(
    rows: int, changed: dict[str, object], said: str, tmp_path: Path, tune: Tune,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    tune(reading=changed)
    source = opened(write(tmp_path / "x.parquet", {"a": np.arange(1000.0)}, row_group_size=rows))
    source.check()
    assert said in source.storage_notes()
    assert said in caplog.text
    assert bool(source.storage_notes()) == bool(said)


def test_nan_is_located_by_file_and_row(tmp_path: Path, synchronous: None) -> None:
    for name in ("a", "b"):
        values = np.arange(50.0)
        values[30] = np.nan if name == "b" else 0
        write(tmp_path / f"x/{name}.parquet", {"u": values, "v": values})
    with pytest.raises(DataError, match=r"row 80 \(row 30 of .*b\.parquet\), column"):
        GaussianMixture(1).fit(tmp_path / "x")


def test_wide_tables_are_read_by_the_columns_wanted(tmp_path: Path) -> None:
    wide = pa.table({f"c{j}": [float(j)] * 3 for j in range(2000)})
    path = write(tmp_path / "x.parquet", wide)
    assert rows_of(opened(path, columns=["c1999", "c7"]))[0].tolist() == [1999.0, 7.0]
    assert rows_of(opened(path)).shape == (3, 2000)


# -- arrays in files ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u2", "i4", "i8", "?", ">f4", ">i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_files_are_read_in_their_own_type(
    dtype: str, order: Any, tmp_path: Path, tune: Tune
) -> None:
    tune(reading={"bytes": 256})
    X = np.asarray(np.arange(600).reshape(200, 3) % 5, dtype, order=order)
    np.save(tmp_path / "x.npy", X)
    source = stored_source(tmp_path / "x.npy")
    assert source.n_chunks > 1
    assert source.dtype == X.dtype.newbyteorder("=")
    np.testing.assert_array_equal(rows_of(source), X)


def test_npy_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"x\.npy holds Python objects"):
        as_source(path)
    np.save(path, np.arange(3.0))
    with pytest.raises(DataError, match="X must be 2-D"):
        as_source(path)
    np.save(path, np.empty((0, 3)))
    with pytest.raises(DataError, match="there is nothing to cluster"):
        as_source(path)
    np.save(path, np.eye(100))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"x\.npy holds .* bytes, and its header counts"):
        as_source(path)
    path.write_bytes(b"1,2\n3,4\n")
    with pytest.raises(DataError, match=r"x\.npy: not a \.npy file"):
        as_source(path)
    with pytest.raises(DataError, match="no such"):
        as_source(tmp_path / "nowhere.npy")


# -- where it is not installed -----------------------------------------------------------


def test_without_pyarrow_one_line_says_what_to_install(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"a": [1.0, 2.0]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(StoreAccessError, match=r"pip install 'dask-em\[table\]'"):
            as_source(path)


def test_what_needs_no_table_loads_no_pyarrow(tmp_path: Path) -> None:
    code = """
import sys, numpy as np
from dask_em.data.open import as_source
np.save("x.npy", np.eye(3))
as_source("x.npy").reader().read(0)
print("pyarrow" in sys.modules)"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        timeout=HANG,
    )  # fmt: skip
    assert done.stdout.strip() == "False"


def test_what_is_ignored_is_said(
    tmp_path: Path, synchronous: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = write(tmp_path / "x.parquet", {"a": COLUMN * 1.0, "b": COLUMN * 2.0})
    model = GaussianMixture(1, columns="a").fit(path)
    model.score(path)
    assert "'b'" in caplog.text
