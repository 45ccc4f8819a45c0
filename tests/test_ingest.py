"""Ingest: all inputs give the numbers of NumPy, wrong ones are named, fits need no survey."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from forked import ForkedJobs, forked_jobs
from helpers import HANG, PARAMETERS, Tune, write_zarr
from object_stores import environment, s3_server
from zarr.codecs import Crc32cCodec

import dask_em
from dask_em import GaussianMixture
from dask_em.cli.main import main
from dask_em.data.open import stored_source
from dask_em.errors import DataError, OutputExistsError, UsageError
from dask_em.storage.folders import DiskFolder

pa = pytest.importorskip("pyarrow", reason="the extra `table` is not installed")
pq = pytest.importorskip("pyarrow.parquet")
feather = pytest.importorskip("pyarrow.feather")
pd = pytest.importorskip("pandas")

N, NAMES = 3011, ["a", "b", "ä c"]
X = np.random.default_rng(0).normal(size=(N, 3))
X[: N // 2] += 4
FRAME = pd.DataFrame(X, columns=NAMES)


@pytest.fixture(autouse=True)
def small(tune: Tune) -> None:
    """Many chunks, blocks and batches of a few rows."""
    tune(reading={"bytes": 4096}, ingest={"text_bytes": 8192, "batch_rows": 500})


def matrix(path: Path) -> np.ndarray:
    return np.asarray(zarr.open_array(path / "X", mode="r")[:])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# -- inputs that are right ---------------------------------------------------------------


def csv_file(folder: Path) -> Any:
    FRAME.to_csv(folder / "x.csv", index=False)
    return folder / "x.csv"


def packed(folder: Path) -> Any:
    # Of two members, as `cat a.gz b.gz` makes.
    text = csv_file(folder).read_bytes()
    (folder / "y.csv.gz").write_bytes(gzip.compress(text[:9000]) + gzip.compress(text[9000:]))
    return folder / "y.csv.gz"


def quoted(folder: Path) -> Any:
    frame = FRAME.assign(note=["line one\nline, two", 'a "word"'] * (N // 2) + ["x"])
    frame.to_csv(folder / "q.csv", index=False)
    return folder / "q.csv"


def several(folder: Path) -> Any:
    # Columns by their names, in whatever order.
    FRAME[:1000].to_csv(folder / "part-0.csv", index=False)
    FRAME[1000:1001][NAMES[::-1]].to_csv(folder / "part-1.csv", index=False)
    pq.write_table(pa.Table.from_pandas(FRAME[1001:]), folder / "part-2.parquet")
    return folder


def german(folder: Path) -> Any:
    FRAME.to_csv(folder / "d.csv", index=False, sep=";", decimal=",")
    return folder / "d.csv"


def parquet(folder: Path) -> Any:
    pq.write_table(pa.Table.from_pandas(FRAME), folder / "x.parquet", row_group_size=250)
    return folder / "x.parquet"


def one_row_group(folder: Path) -> Any:
    pq.write_table(pa.Table.from_pandas(FRAME), folder / "x.parquet", row_group_size=10**6)
    return folder / "x.parquet"


def empty_groups(folder: Path) -> Any:
    with pq.ParquetWriter(folder / "x.parquet", pa.Schema.from_pandas(FRAME)) as writer:
        for rows in (FRAME[:0], FRAME[:7], FRAME[:0], FRAME[7:], FRAME[:0]):
            writer.write_table(pa.Table.from_pandas(rows))
    return folder / "x.parquet"


def arrow_file(folder: Path) -> Any:
    feather.write_feather(pa.Table.from_pandas(FRAME), str(folder / "x.feather"), chunksize=700)
    return folder / "x.feather"


def npy(folder: Path) -> Any:
    np.save(folder / "x.npy", X)
    return folder / "x.npy"


def big_endian(folder: Path) -> Any:
    np.save(folder / "x.npy", X.astype(">f8"))
    return folder / "x.npy"


def two_arrays(folder: Path) -> Any:
    np.save(folder / "1.npy", X[:1234])
    return [folder / "1.npy", X[1234:]]


def hdf5(folder: Path) -> Any:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("group/points", data=X, chunks=(300, 3))
    return f"{folder}/x.h5::group/points"


def hdf5_alone(folder: Path) -> Any:
    return hdf5(folder).partition("::")[0]


def zarr_array(folder: Path) -> Any:
    write_zarr(folder / "x.zarr", X, 400)
    return folder / "x.zarr"


def ingested(folder: Path) -> Any:
    dask_em.ingest(FRAME, folder / "first.zarr")
    return folder / "first.zarr"


def polars_frame(folder: Path) -> Any:
    return pytest.importorskip("polars").DataFrame({n: X[:, j] for j, n in enumerate(NAMES)})


def dask_array(folder: Path) -> Any:
    import dask.array as da

    return da.from_array(X, chunks=(900, 3))


def dask_frame(folder: Path) -> Any:
    dd = pytest.importorskip("dask.dataframe")
    return dd.from_pandas(FRAME, npartitions=4)


def data_array(folder: Path) -> Any:
    xr = pytest.importorskip("xarray")
    return xr.DataArray(X, dims=("row", "band"), coords={"band": NAMES})


def dataset(folder: Path) -> Any:
    xr = pytest.importorskip("xarray")
    return xr.Dataset({name: ("row", X[:, j]) for j, name in enumerate(NAMES)})


NAMED: list[Callable[[Path], Any]] = [
    csv_file, packed, quoted, several, german, parquet, one_row_group, empty_groups, arrow_file,
    polars_frame, dask_frame, data_array, dataset, ingested,
]  # fmt: skip
NUMBERED: list[Callable[[Path], Any]] = [
    npy, big_endian, two_arrays, hdf5, hdf5_alone, zarr_array, dask_array,
]  # fmt: skip
OPTIONS: dict[Any, dict[str, Any]] = {
    german: {"delimiter": ";", "decimal": ","},
    quoted: {"exclude": "note"},
}


@pytest.mark.parametrize("make", [*NAMED, *NUMBERED, lambda _: FRAME, lambda _: X])
def test_every_kind_of_input_gives_the_same_matrix(make: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    out = tmp_path / "out.zarr"
    done = dask_em.ingest(make(tmp_path / "in"), out, **OPTIONS.get(make, {}))
    np.testing.assert_array_equal(matrix(out), X)
    named = make in NAMED
    if named:
        assert done.columns == tuple(NAMES)
    source = stored_source(str(out))
    assert [column.name for column in source.columns or ()] == list(done.columns)
    assert source.n_chunks == done.n_chunks > 10
    array = zarr.open_array(out / "X", mode="r")
    assert isinstance(array.metadata.codecs[-1], Crc32cCodec)
    source.check()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_same_rows_are_the_same_bytes_whatever_the_input_and_the_threads(
    tmp_path: Path,
) -> None:
    found = []
    for i, (make, threads) in enumerate([(csv_file, 1), (parquet, 2), (one_row_group, 3)]):
        (tmp_path / f"in{i}").mkdir()
        dask_em.ingest(make(tmp_path / f"in{i}"), tmp_path / f"{i}.zarr", threads=threads)
        found.append(contents(tmp_path / f"{i}.zarr"))
    assert found[0] == found[1] == found[2]


def test_columns_of_all_types_and_xarray_opens_them(tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray")
    rng = np.random.default_rng(1)
    when = pd.Timestamp("2024-02-28") + pd.to_timedelta(rng.integers(0, 10**8, N), unit="s")
    frame = pd.DataFrame(
        {
            "x": X[:, 0],
            "count": rng.integers(0, 200, N),
            "flag": rng.random(N) < 0.5,
            "colour": rng.choice(["red", "dark green", "blå"], N),
            "when": when,
            "day": when.date,
            "id": rng.integers(2**53 + 1, 2**62, N),
            "hole": pd.array(np.where(np.arange(N) % 7, rng.integers(-5, 9, N), -1)),
        }
    )
    frame["hole"] = frame["hole"].astype("Int64").where(np.arange(N) % 7 > 0)
    frame["colour"] = frame["colour"].where(np.arange(N) % 11 > 0)
    frame.to_csv(tmp_path / "t.csv", index=False)
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "t.parquet", row_group_size=300)
    for name in ("t.csv", "t.parquet"):
        out = tmp_path / f"{name}.zarr"
        done = dask_em.ingest(tmp_path / name, out)
        assert done.columns == ("x", "count", "flag", "hole")
        kinds = [column.kind for column in stored_source(str(out)).columns or ()]
        assert kinds == ["continuous", "count", "binary", "count"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ds = xr.open_zarr(out).load()
        assert ds["X"].dims == ("row", "feature")
        assert ds["feature"].values.tolist() == list(done.columns)
        got = ds["X"].to_pandas()
        np.testing.assert_array_equal(got["x"], frame["x"])
        np.testing.assert_array_equal(got["count"], frame["count"])
        np.testing.assert_array_equal(got["flag"], frame["flag"])
        np.testing.assert_array_equal(got["hole"], frame["hole"].to_numpy(float, na_value=np.nan))
        np.testing.assert_array_equal(ds["when"].values, frame["when"].to_numpy())
        np.testing.assert_array_equal(ds["day"].values, pd.to_datetime(frame["day"]).to_numpy())
        np.testing.assert_array_equal(ds["id"].values, frame["id"])
        raw = zarr.open_array(out / "colour", mode="r")
        words = dict(enumerate(raw.attrs["categories"])) | {-1: None}
        assert raw.attrs["flag_meanings"] == "blå dark_green red"
        assert raw.attrs["_FillValue"] == -1
        expected = [None if w is None or w != w else w for w in frame["colour"].tolist()]
        assert [words[code] for code in raw[:].tolist()] == expected


@pytest.mark.parametrize(
    ("low", "high", "holes", "dtype"),
    [
        (0, 255, False, "uint8"),
        (-1, 255, False, "int16"),
        (0, 70_000, False, "uint32"),
        (0, 255, True, "float32"),
        (0, 70_000, True, "float64"),
    ],
)
def test_whole_numbers_take_the_bytes_they_need(
    low: int, high: int, holes: bool, dtype: str, tmp_path: Path
) -> None:
    values = np.r_[np.full(2000, 7), low, high]
    text = [str(v) for v in values]
    if holes:
        # Beyond what anybody would look at first.
        text[1990] = ""
    (tmp_path / "n.csv").write_text("n,m\n" + "".join(f"{t},1\n" for t in text))
    dask_em.ingest(tmp_path / "n.csv", tmp_path / "n.zarr")
    found = matrix(tmp_path / "n.zarr")
    assert found.dtype == dtype
    assert np.isnan(found[1990, 0]) if holes else True
    kept = np.arange(len(values)) != 1990
    np.testing.assert_array_equal(found[kept, 0], values[kept])


def test_integers_that_become_floats_at_the_end_are_floats(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("n\n" + "5\n" * 5000 + "0.25\n")
    dask_em.ingest(tmp_path / "n.csv", tmp_path / "n.zarr")
    assert matrix(tmp_path / "n.zarr")[-2:].tolist() == [[5.0], [0.25]]


def test_words_that_look_like_numbers_in_some_blocks_are_words(tmp_path: Path) -> None:
    words = ["1"] * 4000 + ["a", "b"] * 4000
    (tmp_path / "n.csv").write_text("x,w\n" + "".join(f"0.5,{w}\n" for w in words))
    dask_em.ingest(tmp_path / "n.csv", tmp_path / "n.zarr")
    raw = zarr.open_array(tmp_path / "n.zarr/w", mode="r")
    assert raw.attrs["categories"] == ["1", "a", "b"]
    assert [raw.attrs["categories"][code] for code in raw[:]] == words


def test_no_column_takes_the_name_of_another_array(tmp_path: Path) -> None:
    words = np.array(["u", "v"] * 50)
    frame = pd.DataFrame(
        {"x": X[:100, 0], "X": words, "a/b": words, "a_b": words, "feature": words}
    )
    done = dask_em.ingest(frame, tmp_path / "n.zarr")
    assert done.others == {"X": "X_2", "a/b": "a_b", "a_b": "a_b_2", "feature": "feature_2"}
    group = zarr.open_group(tmp_path / "n.zarr", mode="r")
    assert group["a_b"].attrs["long_name"] == "a/b"


def test_columns_are_chosen_by_name_and_pattern(tmp_path: Path) -> None:
    frame = pd.DataFrame({f"{c}{i}": X[:, 0] + i for c in "xy" for i in range(3)})
    done = dask_em.ingest(frame, tmp_path / "1.zarr", columns=["y*", "x2"], exclude="y1")
    assert done.columns == ("y0", "y2", "x2")
    done = dask_em.ingest(X, tmp_path / "2.zarr", exclude="x1", dtype="float32")
    np.testing.assert_array_equal(matrix(tmp_path / "2.zarr"), X[:, [0, 2]].astype("f4"))
    with pytest.raises(
        DataError, match=r"columns='z\*' matches no column of the sources: .*'x0', 'x1'"
    ):
        dask_em.ingest(frame, tmp_path / "3.zarr", columns="z*")


# -- inputs that are wrong ---------------------------------------------------------------

ROWS = "".join(f"{i},{i / 4}\n" for i in range(4000))


@dataclass(frozen=True)
class Wrong:
    """A file that a person gets wrong: what it holds, and what is said of it."""

    text: str | bytes
    said: tuple[str, ...]
    name: str = "x.csv"
    options: tuple[str, ...] = ()


WRONG = {
    "a word at 99 %": Wrong(
        "n,x\n" + ROWS + "4000,oops\n" + ROWS[:200],
        ("x.csv, line 4002", "column 'x' holds 'oops'", "--null oops", "--exclude x"),
    ),
    "a word among integers": Wrong("n\n1\n2\nthree\n4\n", ("x.csv, line 4", "'three'")),
    "after quoted lines": Wrong(
        'w,x\n"a\nb",1\n"c\n\nd",2\n\nz,3\nz,bad\nz,4\n', ("x.csv, line 9", "'bad'")
    ),
    "semicolons": Wrong("a;b\n1;2\n", ("one column, 'a;b'", "--delimiter ';'")),
    "tabs": Wrong("a\tb\n1\t2\n", ("one column", "--delimiter '\\t'")),
    "decimal commas": Wrong(
        "a;b\n1,5;1\n2,5;2\n", ("column 'a' holds '1,5'", "--decimal ,"),
        options=("--delimiter", ";"),
    ),
    "duplicate names": Wrong("a,b,a\n1,2,3\n", ("columns 1 and 3 are both called 'a'", "rename")),
    "an empty name": Wrong(",b\n1,2\n", ("column 1 has no name", "index=False")),
    "no header": Wrong("1.5,2\n3,4\n", ("begins with numbers", "--no-header")),
    "a short row": Wrong("a,b\n" + ROWS + "1\n" + ROWS, ("line 4002 has 1 fields, expected 2",)),
    "a long row": Wrong("a,b\n1,2\n1,2,3\n", ("line 3 has 3 fields, expected 2",)),
    "UTF-16": Wrong("a,b\n1,2\n".encode("utf-16"), ("is not UTF-8", "iconv")),
    "Latin-1": Wrong("a,w\n1,f\xfcr\n".encode("latin-1"), ("is not UTF-8", "iconv")),
    "too many words": Wrong(
        "x,id\n" + "".join(f"1,id-{i}\n" for i in range(4000)),
        ("column 'id' holds text of more than 1000 different values", "'id-0'", "--exclude id"),
    ),
    "nothing but holes": Wrong("a,b\n1,\n2,NA\n", ("column 'b' holds no value", "--exclude b")),
    "no numbers": Wrong("a,b\nu,v\nw,u\n", ("no column holds numbers",)),
    "0 rows": Wrong("a,b\n", ("holds no rows",)),
    "an empty file": Wrong("", ("x.csv is empty",)),
    "a quote that is not closed": Wrong(
        "a,b\n" + ROWS + '1,"2\n' + ROWS, ("x.csv, line 4002 does not end", "close its quotes")
    ),
    "a cut gzip": Wrong(
        gzip.compress(b"a,b\n" + ROWS.encode())[:-9], ("ends too early",), "x.csv.gz"
    ),
    "a damaged gzip": Wrong(
        gzip.compress(os.urandom(1) * 9 + b"a,b\n" + ROWS.encode())[:40] + b"\0" * 200,
        ("cannot be unpacked", "damaged"),
        "x.csv.gz",
    ),
    "no gzip at all": Wrong("a,b\n1,2\n", ("cannot be unpacked",), "x.csv.gz"),
    "a cut Parquet file": Wrong(b"PAR1" + b"\0" * 50, ("x.parquet cannot be read",), "x.parquet"),
    "an unknown kind": Wrong("a", ("is of no kind that is known", ".csv"), "x.sas7bdat"),
    "no such column": Wrong(
        "a,b\n1,2\n", ("--columns c is no column of the sources", "columns are 'a', 'b'"),
        options=("--columns", "c"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named_with_place_and_remedy(name: str, tmp_path: Path) -> None:
    wrong = WRONG[name]
    path = tmp_path / wrong.name
    path.write_bytes(wrong.text.encode() if isinstance(wrong.text, str) else wrong.text)
    out = tmp_path / "out.zarr"
    result = CliRunner().invoke(main, ["ingest", str(path), str(out), *wrong.options])
    assert result.exit_code == 65, result.output
    for part in wrong.said:
        assert part in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


REMEDIES = [
    ("a word at 99 %", ["--null", "oops"]),
    ("a word at 99 %", ["--exclude", "x"]),
    ("semicolons", ["--delimiter", ";"]),
    ("tabs", ["--delimiter", "\\t"]),
    ("decimal commas", ["--decimal", ","]),
    ("no header", ["--no-header"]),
    ("too many words", ["--exclude", "id"]),
    ("nothing but holes", ["--exclude", "b"]),
]


@pytest.mark.parametrize(("name", "more"), REMEDIES, ids=[f"{n}: {m}" for n, m in REMEDIES])
def test_what_is_advised_helps(name: str, more: list[str], tmp_path: Path) -> None:
    wrong, path = WRONG[name], tmp_path / "x.csv"
    path.write_bytes(str(wrong.text).encode())
    words = ["ingest", str(path), str(tmp_path / "out.zarr"), *wrong.options, *more]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output


def tables(folder: Path) -> dict[str, tuple[Any, str]]:
    """Tables that a person gets wrong, and what is said of each."""
    nested = pa.table({"x": [1.0, 2.0], "list": [[1], [2, 3]]})
    pq.write_table(nested, folder / "nested.parquet")
    pq.write_table(pa.table({"x": [1.0]}), folder / "lacks-1.parquet")
    pq.write_table(pa.table({"y": [1.0]}), folder / "lacks-2.parquet")
    return {
        "nested": (folder / "nested.parquet", "column 'list' holds list<.*exclude='list'"),
        "lacks": (f"{folder}/lacks-*.parquet", r"lacks-1.parquet lacks the column 'y' that .*2"),
        "nothing": (folder / "none-*.csv", "no such file"),
        "twice": (pd.DataFrame(np.eye(2), columns=["a", "a"]), "two columns of the name 'a'"),
        "both": ([FRAME, X], "is a table and ndarray an array: ingest them apart"),
        "others": ([X, X[:, :2]], "has the 2 columns"),
        "complex": (X.astype(complex), "not a real number"),
        "3-D": (np.zeros((3, 4, 5)), "X must be 2-D"),
        "0 rows": (FRAME[:0], "holds no rows"),
        "mixed": (pd.DataFrame({"x": [1.0, "a"]}), "cannot be read as a table: .*column x"),
        "binary": (pa.table({"x": [1.0], "b": [b"a"]}), "column 'b' holds binary"),
        "time of day": (
            pa.table({"x": [1.0], "t": pa.array([1], pa.time32("s"))}), "column 't' holds time32"
        ),
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["nested", "lacks", "nothing", "twice", "both", "others", "complex", "3-D",
     "0 rows", "mixed", "binary", "time of day"],
)  # fmt: skip
def test_a_wrong_table_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    source, said = tables(tmp_path / "in")[name]
    with pytest.raises(DataError, match=said):
        dask_em.ingest(source, tmp_path / "out.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


RIGHT: dict[str, tuple[Any, list[list[float]]]] = {
    "float16": (pa.table({"x": np.array([0.5, 2], "f2")}), [[0.5], [2.0]]),
    "decimal128": (
        pa.table({"x": pa.array([1, 2]).cast(pa.decimal128(30, 3))}), [[1.0], [2.0]]
    ),
    "bool with a hole": (pa.table({"x": [True, None]}), [[1.0], [np.nan]]),
    "nulls in integers": (pa.table({"x": [3, None]}), [[3.0], [np.nan]]),
    "uint64 up to 2**53": (pa.table({"x": pa.array([2**53, 1], pa.uint64())}), [[2.0**53], [1.0]]),
    "unicode names": (pa.table({"größe µ 😀": [1.0, 2.0]}), [[1.0], [2.0]]),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_an_odd_table_is_taken_as_it_is_meant(name: str, tmp_path: Path) -> None:
    table, expected = RIGHT[name]
    pq.write_table(table, tmp_path / "t.parquet")
    for i, source in enumerate((table, tmp_path / "t.parquet")):
        done = dask_em.ingest(source, tmp_path / f"{i}.zarr")
        np.testing.assert_array_equal(matrix(tmp_path / f"{i}.zarr"), expected)
        assert done.columns == tuple(table.column_names)


def test_categories_that_differ_between_files_are_joined(tmp_path: Path) -> None:
    for i, words in enumerate((["b", "a"], ["c", "b"])):
        column = pa.array(words).dictionary_encode()
        pq.write_table(pa.table({"x": [1.0, 2.0], "w": column}), tmp_path / f"{i}.parquet")
    dask_em.ingest(f"{tmp_path}/*.parquet", tmp_path / "out.zarr")
    raw = zarr.open_array(tmp_path / "out.zarr/w", mode="r")
    assert [raw.attrs["categories"][code] for code in raw[:]] == ["b", "a", "c", "b"]


def test_byte_order_marks_and_line_ends_are_none_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbf\r\na,b\r\n1,2\r\n\r\n3,4")
    done = dask_em.ingest(tmp_path / "x.csv", tmp_path / "out.zarr")
    assert done.columns == ("a", "b")
    assert matrix(tmp_path / "out.zarr").tolist() == [[1, 2], [3, 4]]


def test_a_hundred_thousand_columns(tmp_path: Path, tune: Tune) -> None:
    tune(reading={"bytes": 2**23})
    wide = np.random.default_rng(0).normal(size=(5, 100_000))
    np.save(tmp_path / "x.npy", wide)
    done = dask_em.ingest(tmp_path / "x.npy", tmp_path / "out.zarr")
    assert not done.survey_kept
    np.testing.assert_array_equal(matrix(tmp_path / "out.zarr"), wide)


def test_wrong_options_are_named(tmp_path: Path) -> None:
    for options, said in (
        ({"dtype": "int8"}, "dtype 'int8': expected float32 or float64"),
        ({"delimiter": "::"}, "delimiter='::': expected one character"),
        ({"random_state": -1}, "random_state -1"),
        ({"threads": 0}, "threads=0"),
    ):
        with pytest.raises(UsageError, match=said):
            dask_em.ingest(X, tmp_path / "x.zarr", **options)  # type: ignore[arg-type]
    write_zarr(tmp_path / "x.zarr", X, 400)
    with pytest.raises(UsageError, match="would replace the source"):
        dask_em.ingest(tmp_path / "x.zarr", tmp_path / "x.zarr", overwrite=True)


def test_without_the_extra_it_is_named(tmp_path: Path) -> None:
    csv_file(tmp_path)
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        f"from dask_em.cli import main; main(['ingest', {str(tmp_path / 'x.csv')!r}, 'out.zarr'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=HANG
    )
    assert (done.returncode, "pip install 'dask-em[table]'" in done.stderr) == (2, True), done


# -- resume ------------------------------------------------------------------------------


def failing_at(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk fail before the n-th region is marked."""
    write, left = DiskFolder.write, [n]

    def fail(self: DiskFolder, name: str, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        write(self, name, data)

    monkeypatch.setattr(DiskFolder, "write", fail)


@pytest.mark.parametrize("make", [csv_file, packed, parquet, one_row_group, npy])
def test_interrupted_it_goes_on_to_the_same_bytes(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    source, straight, out = make(tmp_path / "in"), tmp_path / "1.zarr", tmp_path / "2.zarr"
    dask_em.ingest(source, straight)
    with monkeypatch.context() as patch:
        failing_at(5, patch)
        with pytest.raises(OSError, match="No space left") as failed:
            dask_em.ingest(source, out)
    assert "regions are whole and kept in" in "".join(failed.value.__notes__)
    assert not out.exists()
    done = dask_em.ingest(source, out)
    assert 0 < done.n_rows_kept < N
    assert contents(out) == contents(straight)
    assert not (tmp_path / ".2.zarr.partial").exists()


def test_a_source_that_changed_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = csv_file(tmp_path), tmp_path / "out.zarr"
    with monkeypatch.context() as patch:
        failing_at(5, patch)
        with pytest.raises(OSError, match="No space left"):
            dask_em.ingest(source, out)
    FRAME[::-1].to_csv(source, index=False)
    assert dask_em.ingest(source, out).n_rows_kept == 0
    np.testing.assert_array_equal(matrix(out), X[::-1])


def test_other_work_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = csv_file(tmp_path), tmp_path / "out.zarr"
    with monkeypatch.context() as patch:
        failing_at(5, patch)
        with pytest.raises(OSError, match="No space left"):
            dask_em.ingest(source, out)
    with pytest.raises(OutputExistsError, match="unfinished work of another kind"):
        dask_em.ingest(source, out, exclude="a")
    dask_em.ingest(source, out, exclude="a", resume=False)
    np.testing.assert_array_equal(matrix(out), X[:, 1:])


@pytest.mark.parametrize("what", ["gone", "changed", "shorter"])
@pytest.mark.parametrize("make", [csv_file, parquet, packed])
def test_a_source_that_changes_while_it_is_read_is_named(
    make: Any, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    source, out = Path(make(tmp_path / "in")), tmp_path / "out.zarr"
    write, left = DiskFolder.write, [3]

    def change(self: DiskFolder, name: str, data: bytes) -> None:
        left[0] -= 1
        if left[0] == 0 and what == "gone":
            source.unlink()
        elif left[0] == 0 and what == "changed":
            os.utime(source, (0, 0))
        elif left[0] == 0:
            os.truncate(source, source.stat().st_size // 3)
        write(self, name, data)

    monkeypatch.setattr(DiskFolder, "write", change)
    with pytest.raises(
        DataError, match=f"{source.name} (is gone|was written|cannot be read)|source"
    ):
        dask_em.ingest(source, out, threads=2)
    assert not out.exists()


# -- the survey that is kept -------------------------------------------------------------


def fitted(path: Path, **options: Any) -> GaussianMixture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GaussianMixture(3, **{"random_state": 0, **options}).fit(str(path))


def same(one: GaussianMixture, other: GaussianMixture) -> bool:
    arrays = all((getattr(one, a) == getattr(other, a)).all() for a in PARAMETERS)
    return arrays and one.lower_bounds_ == other.lower_bounds_


@pytest.fixture
def store(tmp_path: Path) -> Path:
    dask_em.ingest(FRAME, tmp_path / "store.zarr")
    return tmp_path / "store.zarr"


@pytest.mark.parametrize(
    "options",
    [{}, {"sample_size": 50}, {"sample_size": 2000}, {"covariance_type": "diag"},
     {"nonfinite": "drop"}, {"max_passes": 3}],
    ids=str,
)  # fmt: skip
def test_a_fit_needs_no_survey_and_has_the_same_bits(
    store: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "dask_em"):
        without = fitted(store, **options)
    assert "the survey is kept beside the data" in caplog.text
    assert without.history_[0]["phase"] == "kept-survey"
    shutil.rmtree(store / "dask_em")
    made = fitted(store, **options)
    assert made.history_[0]["phase"] == "survey"
    assert same(without, made)
    assert made.n_reads_ == without.n_reads_ + 1
    assert made.n_passes_ == pytest.approx(without.n_passes_ + 1)


def test_the_sums_are_those_of_every_tree(store: Path, tune: Tune) -> None:
    """A sample of another size makes a tree of another width."""
    tune(reduction={"node_bytes": 20_000})
    again = store.with_name("again.zarr")
    dask_em.ingest(FRAME, again)
    for size in (10, 100, 1000):
        without = fitted(again, sample_size=size)
        assert without.history_[0]["phase"] == "kept-survey"
        assert same(without, fitted_anew(again, sample_size=size))


def fitted_anew(path: Path, **options: Any) -> GaussianMixture:
    copy = path.with_name("anew.zarr")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path, copy)
    shutil.rmtree(copy / "dask_em")
    return fitted(copy, **options)


def test_a_sweep_and_a_resumed_fit_need_none_too(store: Path) -> None:
    found = dask_em.select(str(store), [1, 2, 3], random_state=0)
    assert found.history[0]["phase"] == "kept-survey"
    assert found.n_reads == len(found.history) - 1


def test_it_serves_wherever_the_store_is_moved(store: Path) -> None:
    copy = store.with_name("copy.zarr")
    shutil.copytree(store, copy)
    shutil.rmtree(store)
    for path in (copy, copy / "X"):
        assert fitted(path).history_[0]["phase"] == "kept-survey"


def rewritten(store: Path) -> None:
    array = zarr.open_array(store / "X", mode="r+")
    array[100] = 7.0


def moved_chunks(store: Path) -> None:
    a, b = (store / f"X/c/{i}/0" for i in (1, 2))
    (store / "tmp").write_bytes(a.read_bytes())
    a.write_bytes(b.read_bytes())
    (store / "tmp").replace(b)


def damaged_survey(store: Path) -> None:
    path = next((store / "dask_em/survey/c").iterdir())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


CHANGES: dict[str, tuple[Callable[[Path], None], dict[str, Any], str]] = {
    "rows written": (rewritten, {}, "chunks were written to since"),
    "chunks exchanged": (moved_chunks, {}, "chunks were written to since"),
    "a damaged survey": (damaged_survey, {}, "is damaged"),
    "another seed": (lambda _: None, {"random_state": 1}, "drawn by another seed"),
    "a larger sample": (lambda _: None, {"sample_size": 200_000}, "its sample holds 100000 rows"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_survey_that_does_not_serve_is_made_again(
    name: str, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change, options, said = CHANGES[name]
    change(store)
    with caplog.at_level("INFO", "dask_em"):
        model = fitted(store, **options)
    assert said in caplog.text
    assert model.history_[0]["phase"] == "survey"
    assert same(model, fitted_anew(store, **options))


def test_weights_and_held_out_rows_need_a_survey(store: Path) -> None:
    weight = np.arange(N) % 3
    model = GaussianMixture(3, random_state=0).fit(str(store), sample_weight=weight)
    assert model.history_[0]["phase"] == "survey"
    found = dask_em.select(str(store), [2, 3], holdout=0.2, random_state=0)
    assert found.history[0]["phase"] == "survey"


def test_holes_are_left_out_of_it_and_refused_without(tmp_path: Path) -> None:
    holes = FRAME.copy()
    holes.iloc[::17, 1] = np.nan
    dask_em.ingest(holes, tmp_path / "h.zarr")
    model = fitted(tmp_path / "h.zarr", nonfinite="drop")
    assert model.history_[0]["phase"] == "kept-survey"
    assert model.n_dropped_ == len(range(0, N, 17))
    assert same(model, fitted_anew(tmp_path / "h.zarr", nonfinite="drop"))
    with pytest.raises(DataError, match="NaN at row 0, column 'b'"):
        fitted(tmp_path / "h.zarr")


def test_it_serves_the_seed_that_it_was_made_for(tmp_path: Path) -> None:
    dask_em.ingest(FRAME, tmp_path / "s.zarr", random_state=5)
    assert fitted(tmp_path / "s.zarr", random_state=5).history_[0]["phase"] == "kept-survey"
    assert fitted(tmp_path / "s.zarr", random_state=0).history_[0]["phase"] == "survey"
    anyhow = fitted(tmp_path / "s.zarr", random_state=None)
    assert anyhow.history_[0]["phase"] == "kept-survey"
    assert anyhow.n_reads_ == len(anyhow.history_) - 1 - sum(
        record["phase"] == "start" for record in anyhow.history_
    )


def test_a_bucket_is_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore", reason="the extra `s3` is not installed")
    with s3_server("bucket") as endpoint:
        for name, value in environment(endpoint).items():
            monkeypatch.setenv(name, value)
        done = dask_em.ingest(FRAME, "s3://bucket/x.zarr")
        assert not done.survey_kept
        model = GaussianMixture(3, random_state=0).fit("s3://bucket/x.zarr")
        dask_em.ingest("s3://bucket/x.zarr", tmp_path / "back.zarr")
    np.testing.assert_array_equal(matrix(tmp_path / "back.zarr"), X)
    assert same(model, fitted_anew(tmp_path / "back.zarr"))


# -- the command -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jobs() -> Any:
    with forked_jobs() as found:
        yield found


def test_the_command_and_those_after_it(tmp_path: Path, jobs: ForkedJobs) -> None:
    FRAME.assign(colour=["red", "blue", "red"] * (N // 3) + ["blue"] * (N % 3)).to_csv(
        tmp_path / "x.csv", index=False
    )
    out, model = tmp_path / "x.zarr", tmp_path / "m.npz"
    ended = jobs.run("ingest", tmp_path / "x.csv", out)
    assert ended.code == 0, ended.said
    for part in (f"{N:,} rows", "3 columns of numbers as float64", "beside them colour", "MB/s"):
        assert part in ended.said
    ended = jobs.run("fit", out, "-k", "2", "-o", model, "--json")
    assert ended.code == 0, ended.said
    assert "the survey is kept beside the data" in ended.said
    for words in (["predict", model, out, tmp_path / "a.zarr"], ["score", model, out]):
        ended = jobs.run(*words)
        assert ended.code == 0, ended.said
    assert "X" in jobs.run("doctor", out).said
    ended = jobs.run("ingest", tmp_path / "x.csv", out, "--json")
    assert ended.code == 73, ended.said
    ended = jobs.run("ingest", tmp_path / "x.csv", out, "--overwrite", "--json")
    said = json.loads(next(line for line in ended.said.splitlines() if line.startswith("{")))
    assert said["n_rows"] == N
    assert said["columns"] == NAMES
    assert said["survey_kept"]
