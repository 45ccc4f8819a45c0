"""Ingest of tables wherever they lie: at URLs, in folders whose names are columns, in Dask."""

from __future__ import annotations

import gzip
import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from helpers import Tune
from object_stores import environment, s3_server

import dask_em
from dask_em import GaussianMixture
from dask_em.errors import DataError, StoreAccessError, UsageError

pa = pytest.importorskip("pyarrow", reason="the extra `table` is not installed")
pq = pytest.importorskip("pyarrow.parquet")
feather = pytest.importorskip("pyarrow.feather")
pd = pytest.importorskip("pandas")
fsspec = pytest.importorskip("fsspec")

N = 2011
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 2))
FRAME = pd.DataFrame(
    {"a": X[:, 0], "b": X[:, 1], "n": np.arange(N) % 200, "w": ["u", "v v"] * 1005 + ["u"]}
)


@pytest.fixture(autouse=True)
def small(tune: Tune) -> None:
    """Many chunks, blocks and batches of a few rows."""
    tune(reading={"bytes": 4096}, ingest={"text_bytes": 8192, "batch_rows": 500})


def matrix(path: Path) -> np.ndarray:
    return np.asarray(zarr.open_array(path / "X", mode="r")[:])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def files() -> dict[str, bytes]:
    """The same rows in every format, by the name of a file."""
    table = pa.Table.from_pandas(FRAME)
    text = FRAME.to_csv(index=False).encode()
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet, row_group_size=300)
    feather.write_feather(table, arrow, chunksize=400)
    return {
        "x.csv": text,
        "x.csv.gz": gzip.compress(text),
        "x.parquet": parquet.getvalue(),
        "x.feather": arrow.getvalue(),
    }


FILES = files()


# -- at URLs -----------------------------------------------------------------------------


def in_memory(name: str, data: bytes) -> str:
    with fsspec.open(f"memory://ingested/{name}", "wb") as file:
        file.write(data)
    return f"memory://ingested/{name}"


@pytest.fixture
def memory() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").rm("/ingested", recursive=True)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_table_at_a_url_becomes_the_bytes_of_one_on_a_disk(
    name: str, threads: int, memory: None, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    here = dask_em.ingest(tmp_path / name, tmp_path / "here.zarr", threads=threads)
    there = dask_em.ingest(in_memory(name, FILES[name]), tmp_path / "there.zarr", threads=threads)
    assert contents(tmp_path / "there.zarr") == contents(tmp_path / "here.zarr")
    assert there.bytes_read == here.bytes_read
    assert there.survey_kept
    found = matrix(tmp_path / "there.zarr")
    np.testing.assert_array_equal(found, FRAME[["a", "b", "n"]])


def test_folders_and_patterns_of_urls(memory: None, tmp_path: Path) -> None:
    for part in range(3):
        data = FRAME[part * 700 : (part + 1) * 700].to_csv(index=False).encode()
        in_memory(f"folder/part-{part}.csv", data)
    in_memory("folder/_SUCCESS", b"")
    in_memory("folder/notes.md", b"# none of the data")
    for i, source in enumerate(("memory://ingested/folder", "memory://ingested/fol*/part-*.csv")):
        dask_em.ingest(source, tmp_path / f"{i}.zarr")
        np.testing.assert_array_equal(matrix(tmp_path / f"{i}.zarr")[:, :2], X)
    with pytest.raises(DataError, match=r"memory://ingested/none.csv: no such object"):
        dask_em.ingest("memory://ingested/none.csv", tmp_path / "none.zarr")
    with pytest.raises(DataError, match="HDF5 is read from disks: copy it here first"):
        dask_em.ingest("memory://ingested/x.h5", tmp_path / "none.zarr")


def test_arrays_at_urls(memory: None, tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, X)
    url = in_memory("x.npy", stream.getvalue())
    zarr.save_array(f"{tmp_path}/z.zarr", X)
    dask_em.ingest([url, tmp_path / "z.zarr"], tmp_path / "out.zarr")
    np.testing.assert_array_equal(matrix(tmp_path / "out.zarr"), np.vstack([X, X]))


def test_a_table_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    obstore = pytest.importorskip("obstore", reason="the extra `s3` is not installed")
    from dask_em.storage.object_store import object_store

    with s3_server("bucket") as endpoint:
        for name, value in environment(endpoint).items():
            monkeypatch.setenv(name, value)
        for name, data in FILES.items():
            obstore.put(object_store("s3://bucket"), f"in/{name}", data)
            dask_em.ingest(f"s3://bucket/in/{name}", tmp_path / f"{name}.zarr")
            np.testing.assert_array_equal(matrix(tmp_path / f"{name}.zarr")[:, :2], X)
        with pytest.raises(DataError, match=r"s3://bucket/in/none.parquet: no such object"):
            dask_em.ingest("s3://bucket/in/none.parquet", tmp_path / "none.zarr")
        with pytest.raises(UsageError, match="a URL may hold no user"):
            dask_em.ingest("s3://key:secret@bucket/in/x.csv", tmp_path / "none.zarr")


@contextmanager
def web_server(data: dict[str, bytes], ranges: bool) -> Iterator[str]:
    """Serve files by HTTP, with or without parts of them."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            found = data.get(self.path.lstrip("/"))
            if found is None:
                self.send_error(404)
                return
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            part = found[int(asked[1]) : int(asked[2]) + 1] if asked and ranges else found
            self.send_response(206 if asked and ranges else 200)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("ETag", f'"{hash(found)}"')
            if ranges:
                self.send_header("Accept-Ranges", "bytes")
            if asked and ranges:
                self.send_header("Content-Range", f"bytes {asked[1]}-{asked[2]}/{len(found)}")
            self.end_headers()
            if body:
                self.wfile.write(part)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_table_on_the_web(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="by which fsspec reads HTTP")
    with web_server(FILES, ranges=True) as url:
        for name in FILES:
            dask_em.ingest(f"{url}/{name}", tmp_path / f"{name}.zarr")
            np.testing.assert_array_equal(matrix(tmp_path / f"{name}.zarr")[:, :2], X)
        with pytest.raises(DataError, match="no such object"):
            dask_em.ingest(f"{url}/none.csv", tmp_path / "none.zarr")
    with (
        web_server(FILES, ranges=False) as url,
        pytest.raises(StoreAccessError, match="the server sends all of it where a part is asked"),
    ):
        dask_em.ingest(f"{url}/x.parquet", tmp_path / "none.zarr")


def test_a_url_that_changes_while_it_is_read_is_named(
    memory: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dask_em.data.ingest import tables

    url, looked = in_memory("x.csv", FILES["x.csv"]), tables.layout_of

    def touched(*args: Any) -> Any:
        in_memory("x.csv", FILES["x.csv"].replace(b"u", b"z"))
        return looked(*args)

    monkeypatch.setattr(tables, "layout_of", touched)
    with pytest.raises(DataError, match=r"x.csv was written to while it was read"):
        dask_em.ingest(url, tmp_path / "out.zarr")
    fsspec.filesystem("memory").rm("/ingested/x.csv")
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"x.csv: no such object"):
        dask_em.ingest(url, tmp_path / "out.zarr")


# -- folders whose names are columns -------------------------------------------------------


def partitioned(folder: Path, values: list[Any], name: str = "k", kind: str = "parquet") -> Path:
    """Two files for each value, in folders as Hive has them."""
    for i, value in enumerate(values):
        place = folder / f"{name}={value}"
        place.mkdir(parents=True)
        for part in range(2):
            rows = FRAME[i * 20 + part * 10 : i * 20 + part * 10 + 10]
            if kind == "csv":
                rows.to_csv(place / f"{part}.csv", index=False)
            else:
                pq.write_table(pa.Table.from_pandas(rows[["a", "w"]]), place / f"{part}.parquet")
    return folder


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_names_of_folders_are_a_column_of_numbers(kind: str, tmp_path: Path) -> None:
    source = partitioned(tmp_path / "in", [2019, 2021, 2020], kind=kind)
    done = dask_em.ingest(source, tmp_path / "out.zarr")
    assert done.columns == (("a", "k") if kind == "parquet" else ("a", "b", "n", "k"))
    order = [0, 2, 1]
    found = matrix(tmp_path / "out.zarr")
    np.testing.assert_array_equal(found[:, -1], np.repeat([2019, 2020, 2021], 20))
    expected = np.concatenate([X[20 * i : 20 * i + 20, 0] for i in order])
    np.testing.assert_array_equal(found[:, 0], expected)
    words = zarr.open_array(tmp_path / "out.zarr/w", mode="r")
    assert words.attrs["categories"] == ["u", "v v"]
    # As it is fitted where it lies, by its name.
    model = GaussianMixture(1, columns=["a", "k"]).fit(tmp_path / "out.zarr")
    if kind == "parquet":
        there = GaussianMixture(1, columns=["a", "k"]).fit(source)
        np.testing.assert_allclose(there.means_, model.means_, rtol=1e-12)


def test_names_of_folders_are_words_floats_or_missing(tmp_path: Path) -> None:
    missing = "__HIVE_DEFAULT_PARTITION__"
    cases: list[tuple[list[Any], list[Any]]] = [
        (["0.5", missing, "7"], [0.5, 7, np.nan]),
        (["north", "a%20b", "7"], ["7", "a b", "north"]),
        (["b", missing], [None, "b"]),
        ([str(2**60), "1"], ["1", str(2**60)]),
    ]
    for i, (values, expected) in enumerate(cases):
        source, out = partitioned(tmp_path / f"in{i}", values), tmp_path / f"{i}.zarr"
        dask_em.ingest(source, out)
        if i == 0:
            order = np.repeat(expected, 20)
            np.testing.assert_array_equal(matrix(out)[:, 1], order)
            continue
        raw = zarr.open_array(out / "k", mode="r")
        known = [*raw.attrs["categories"], None]
        found = [known[code] for code in raw[:].tolist()]
        assert sorted(found, key=str) == sorted(np.repeat(expected, 20), key=str)


def test_partitions_by_pattern_choice_and_url(memory: None, tmp_path: Path) -> None:
    source = partitioned(tmp_path / "in", [1, 2])
    dask_em.ingest(f"{source}/k=*/0.parquet", tmp_path / "0.zarr")
    assert matrix(tmp_path / "0.zarr")[:, 1].tolist() == [1.0] * 10 + [2.0] * 10
    done = dask_em.ingest(source, tmp_path / "1.zarr", exclude="k")
    assert done.columns == ("a",)
    done = dask_em.ingest(source, tmp_path / "2.zarr", columns=["k"])
    assert done.columns == ("k",)
    assert matrix(tmp_path / "2.zarr")[:, 0].tolist() == [1] * 20 + [2] * 20
    for path in source.rglob("*.parquet"):
        in_memory(f"in/{path.relative_to(source)}", path.read_bytes())
    done = dask_em.ingest("memory://ingested/in", tmp_path / "3.zarr")
    assert done.columns == ("a", "k")
    assert contents(tmp_path / "3.zarr") == contents(
        Path(dask_em.ingest(source, tmp_path / "4.zarr").destination)
    )
    # One file alone has no such column, and one beside them lacks it.
    assert dask_em.ingest(source / "k=1/0.parquet", tmp_path / "5.zarr").columns == ("a",)
    (source / "k=1/0.parquet").rename(source / "z.parquet")
    with pytest.raises(DataError, match=r"z.parquet lacks the column 'k' that .*k=1"):
        dask_em.ingest(source, tmp_path / "6.zarr")


def test_a_column_of_the_file_counts_before_the_name_of_its_folder(tmp_path: Path) -> None:
    source = partitioned(tmp_path / "in", [10, 20], name="n", kind="csv")
    dask_em.ingest(source, tmp_path / "out.zarr", columns="n")
    np.testing.assert_array_equal(matrix(tmp_path / "out.zarr")[:, 0], np.arange(40))


# -- types that differ ---------------------------------------------------------------------


def test_words_in_one_file_and_numbers_in_another_are_words(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0], "w": [7]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"x": [2.0] * 3, "w": ["a", "b", "c"]}), tmp_path / "1.parquet")
    dask_em.ingest(tmp_path, tmp_path / "out.zarr")
    raw = zarr.open_array(tmp_path / "out.zarr/w", mode="r")
    assert [raw.attrs["categories"][code] for code in raw[:]] == ["7", "a", "b", "c"]


# -- Dask ----------------------------------------------------------------------------------


def test_partitions_of_dask_are_computed_twice(tmp_path: Path) -> None:
    dd = pytest.importorskip("dask.dataframe")
    computed: list[int] = []

    def counted(part: Any) -> Any:
        computed.append(len(part))
        return part

    frame = dd.from_pandas(FRAME, npartitions=5).map_partitions(counted, meta=FRAME[:0])
    dask_em.ingest(frame, tmp_path / "out.zarr", threads=1)
    np.testing.assert_array_equal(matrix(tmp_path / "out.zarr"), FRAME[["a", "b", "n"]])
    assert len([n for n in computed if n]) == 2 * frame.npartitions
    words = zarr.open_array(tmp_path / "out.zarr/w", mode="r")
    assert [words.attrs["categories"][code] for code in words[:]] == FRAME["w"].tolist()
