"""Data, models and answers in an object store: a real S3 server, and a network that fails."""

from __future__ import annotations

import json
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from distributed import Client
from helpers import HANG, Tune, blobs, digest, wait_until, write_zarr
from object_stores import KEY, SECRET, Proxy, environment, s3_server
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.codecs import Crc32cCodec

from dask_em import Checkpointing, GaussianMixture, load, select
from dask_em.cli.main import main
from dask_em.core.protocols import Fold
from dask_em.core.reading import fold_range
from dask_em.core.tuning import tuning
from dask_em.data.open import as_source, stored_source
from dask_em.data.options import ReadOptions
from dask_em.data.zarr.fetching import FetchAhead, Line
from dask_em.data.zarr.opening import matrix_source, open_zarr
from dask_em.data.zarr.source import ZarrSource
from dask_em.errors import (
    DataError,
    LockedError,
    ModelFileError,
    OutputExistsError,
    StoreAccessError,
    StoreError,
    UsageError,
)
from dask_em.jobs import cluster as cluster_jobs
from dask_em.jobs import plan as planning
from dask_em.jobs import predict as applying
from dask_em.jobs import report as report_jobs
from dask_em.runtime import JobControl, as_job
from dask_em.storage import locks, url_store
from dask_em.storage import object_store as stores
from dask_em.storage.checkpoint import remove_checkpoint
from dask_em.storage.folders import BucketFolder
from dask_em.storage.object_store import read_bytes, write_bytes
from dask_em.storage.url_store import Fetched, open_store

pytest.importorskip("obstore", reason="the extra `s3` is not installed")
pytestmark = pytest.mark.usefixtures("many_chunks")

N, D, K, ROWS = 4000, 3, 3, 500
CHECKED: dict[str, Any] = {"compressors": [Crc32cCodec()]}


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with s3_server("data") as endpoint, Proxy(endpoint).running() as proxy:
        yield proxy


@pytest.fixture
def s3(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The server as this process's S3, with no faults yet."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in environment(proxy.url).items():
        monkeypatch.setenv(name, value)
    stores._object_store.cache_clear()
    url_store._opened.cache_clear()
    proxy.requests.clear()
    with dask.config.set({"dask_em.store-timeout": HANG, "scheduler": "threads"}):
        yield proxy
    proxy.fault, proxy.latency = (lambda method, path: None), 0.0


def put_zarr(url: str, X: np.ndarray, chunk_rows: int = ROWS, **options: Any) -> zarr.Array:
    options = {"chunks": (chunk_rows, *X.shape[1:]), **CHECKED, **options}
    array = zarr.create_array(
        open_store(url, read_only=False), shape=X.shape, dtype=X.dtype, **options
    )
    array[:] = X
    return array


@pytest.fixture(scope="module", name="X")
def rows() -> np.ndarray:
    return blobs(N, D, K)[0]


@pytest.fixture
def url(s3: Proxy, X: np.ndarray, request: pytest.FixtureRequest) -> str:
    """The same rows as `X`, in the bucket."""
    name = f"s3://data/{request.node.name.translate(str.maketrans('[]', '--'))}/points.zarr"
    put_zarr(name, X)
    s3.requests.clear()
    return name


def fitted(data: Any, **options: Any) -> GaussianMixture:
    options = {"random_state": 0, "tol": 0.1, "sample_size": 400, **options}
    return GaussianMixture(K, **options).fit(data)


# -- the same bits --------------------------------------------------------------------


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"compressors": "auto"},
        {"chunks": (1000, D), "shards": (2000, D)},
        {"chunks": (100, D), "shards": (2000, D)},
        {"chunks": (600, 2)},
    ],
    ids=["raw", "zstd", "sharded", "parts of shards", "cut columns"],
)
def test_a_bucket_gives_the_bits_of_a_disk(
    s3: Proxy, X: np.ndarray, tmp_path: Path, layout: dict[str, Any], request: Any
) -> None:
    name = f"s3://data/bits-{request.node.callspec.id.replace(' ', '-')}/points.zarr"
    put_zarr(name, X, **layout)
    write_zarr(tmp_path / "points.zarr", X, ROWS, **{**CHECKED, **layout})
    assert digest(fitted(name)) == digest(fitted(tmp_path / "points.zarr"))


def test_workers_open_the_url_by_themselves(
    s3: Proxy, url: str, client: Client, tmp_path: Path, X: np.ndarray
) -> None:
    write_zarr(tmp_path / "points.zarr", X, ROWS, **CHECKED)
    here = environment(s3.url)
    before = client.run(lambda: dict(os.environ))
    client.run(set_environment, here)
    try:
        with client.as_current(), dask.config.set(scheduler=client):
            assert digest(fitted(url)) == digest(fitted(tmp_path / "points.zarr"))
    finally:
        for worker, old in before.items():
            client.run(set_environment, {k: old.get(k) for k in here}, workers=[worker])


def set_environment(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def test_weights_and_members_of_a_group_come_from_a_bucket(
    s3: Proxy, X: np.ndarray, tmp_path: Path
) -> None:
    w = np.random.default_rng(1).uniform(0.5, 2, N)
    put_zarr("s3://data/group.zarr/deep/points", X)
    put_zarr("s3://data/group.zarr/deep/weights", w)
    write_zarr(tmp_path / "p", X, ROWS, **CHECKED)
    write_zarr(tmp_path / "w", w, ROWS, **CHECKED)
    there = GaussianMixture(K, random_state=0).fit(
        "s3://data/group.zarr/deep/points", sample_weight="s3://data/group.zarr/deep/weights"
    )
    here = GaussianMixture(K, random_state=0).fit(tmp_path / "p", sample_weight=tmp_path / "w")
    assert digest(there) == digest(here)
    zarr.create_group(open_store("s3://data/listed.zarr", read_only=False))
    put_zarr("s3://data/listed.zarr/rows", X)
    with pytest.raises(DataError, match=r"arrays are: s3://data/listed\.zarr/rows"):
        open_zarr("s3://data/listed.zarr")


def test_another_fsspec_url_gives_the_same_bits(X: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="the extra `fsspec` is not installed")
    write_zarr(tmp_path / "points.zarr", X, ROWS, **CHECKED)
    with dask.config.set(scheduler="threads"):
        there = fitted(f"simplecache::file://{tmp_path}/points.zarr")
        assert digest(there) == digest(fitted(tmp_path / "points.zarr"))


# -- credentials ----------------------------------------------------------------------


def test_no_credential_travels_or_is_shown(
    s3: Proxy, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = matrix_source(open_zarr(url), None, ReadOptions())
    model = fitted(url)
    model.save(tmp_path / "model.npz")
    said = [
        pickle.dumps(source),
        pickle.dumps(open_store(url)),
        repr((source, source.array, source.array.store, vars(source.array.store))).encode(),
        repr((model, model.provenance_, model.history_)).encode(),
        (tmp_path / "model.npz").read_bytes(),
        caplog.text.encode(),
    ]
    assert not [i for i, text in enumerate(said) if SECRET.encode() in text or KEY.encode() in text]
    assert model.provenance_["source"] == url


def test_a_store_is_opened_once_and_again_after_the_environment_changed(
    s3: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = open_store(url)
    assert open_store(url) is here
    assert pickle.loads(pickle.dumps(here)) is here
    source = matrix_source(open_zarr(url), None, ReadOptions())
    assert pickle.loads(pickle.dumps(source)).array.store is source.array.store
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    assert open_store(url) is not here


@pytest.mark.parametrize(
    "given",
    [
        "s3://me:hunter2@data/points.zarr",
        "https://host/points.zarr?token=hunter2",
        "simplecache::s3://me:hunter2@data/points.zarr",
        "abfs://me:hunter2@account.dfs.core.windows.net/points.zarr",
    ],
)
def test_a_url_with_a_credential_is_refused_without_showing_it(given: str) -> None:
    for act in (
        open_zarr,
        as_source,
        lambda u: read_bytes(u, 9),
        lambda u: write_bytes(u, b"", True),
    ):
        with pytest.raises(UsageError, match="environment") as e:
            act(given)
        assert "hunter2" not in str(e.value)


# -- what is wrong, in words ----------------------------------------------------------


def run_plan(url: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["plan", url, "-k", "2", "--no-probe", "--workers", "1"])
    return result.exit_code, result.output


def deny(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, status: int, code: str) -> None:
    """Let the server answer every request with an error that repeats the key, as S3 does."""
    answer = (
        f"<Error><Code>{code}</Code><AWSAccessKeyId>{KEY}</AWSAccessKeyId>"
        f"<StringToSign>{SECRET}</StringToSign></Error>"
    ).encode()
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(answer)))]
    monkeypatch.setattr(proxy, "forward", lambda request, body: (status, headers, answer))


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "SignatureDoesNotMatch", "refuses the credentials.*AWS_SECRET_ACCESS_KEY"),
        (403, "InvalidAccessKeyId", "refuses the credentials.*AWS_SECRET_ACCESS_KEY"),
        (403, "AccessDenied", "refuses the credentials"),
        (301, "PermanentRedirect", "AWS_REGION"),
        (400, "AuthorizationHeaderMalformed", "AWS_REGION"),
    ],
)
def test_a_refusal_says_what_to_set_and_never_the_key(
    s3: Proxy, monkeypatch: pytest.MonkeyPatch, status: int, code: str, words: str
) -> None:
    deny(s3, monkeypatch, status, code)
    with pytest.raises(StoreAccessError, match=words) as e:
        open_zarr("s3://data/points.zarr")
    assert KEY not in str(e.value)
    assert SECRET not in str(e.value)
    assert e.value.__cause__ is None
    assert e.value.__suppress_context__
    assert run_plan("s3://data/points.zarr")[0] == 2


def test_a_missing_bucket_is_wrong_usage_and_missing_data_are_bad_data(s3: Proxy) -> None:
    code, said = run_plan("s3://nobody/points.zarr")
    assert (code, "there is no bucket nobody" in said) == (2, True), said
    code, said = run_plan("s3://data/nothing.zarr")
    assert (code, "s3://data/nothing.zarr: not a Zarr array" in said) == (65, True), said


def test_missing_credentials_are_wrong_usage(s3: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    # Where keys would be asked for on a machine of the cloud: nobody is there.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://169.254.169.254.invalid")
    with (
        dask.config.set({"dask_em.store-timeout": 0.5}),
        pytest.raises(StoreAccessError, match="found no credentials: set AWS_ACCESS_KEY_ID"),
    ):
        open_zarr("s3://data/points.zarr")


def test_a_store_that_is_away_fails_as_a_disk_does(
    s3: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with dask.config.set({"dask_em.store-timeout": 0.5}):
        code, said = run_plan("s3://data/points.zarr")
        assert code == 74, said
        assert "cannot be reached" in said
        assert "onnection refused" in said
        with pytest.raises(StoreError) as e:
            open_zarr("s3://data/points.zarr")
    assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stores._object_store.cache_clear()
    url_store._opened.cache_clear()
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(StoreAccessError, match=r"pip install 'dask-em\[s3\]'"):
        open_zarr("s3://data/points.zarr")
    with pytest.raises(StoreAccessError, match=r"pip install 'dask-em\[s3\]'"):
        write_bytes("s3://data/model.npz", b"", True)
    with pytest.raises(StoreAccessError, match="Protocol not known"):
        open_zarr("nothing-of-the-kind://data/points.zarr")


# -- a network that fails -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["500", "cut", "stall"])
def test_requests_that_fail_are_made_again(
    s3: Proxy, url: str, X: np.ndarray, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zarr(tmp_path / "points.zarr", X, ROWS, **CHECKED)
    expected = digest(fitted(tmp_path / "points.zarr"))
    if kind == "stall":
        monkeypatch.setattr(stores, "STALLED", stores.timedelta(seconds=1))
        stores._object_store.cache_clear()
        url_store._opened.cache_clear()
    s3.fail(kind, 3 if kind == "500" else 1, part="/c/")
    assert digest(fitted(url)) == expected


@pytest.mark.parametrize("kind", ["500", "cut"])
def test_a_store_that_keeps_failing_ends_the_fit(s3: Proxy, url: str, kind: str) -> None:
    s3.fault = lambda method, path: kind if "/c/5/" in path else None
    with dask.config.set({"dask_em.store-timeout": 0.5}), pytest.raises(StoreError, match="cannot"):
        fitted(url)


# -- missing and damaged chunks -------------------------------------------------------


def chunk_of(url: str, number: int) -> str:
    return f"{url}/c/{number}/0"


def remove(url: str) -> None:
    import obstore

    parent, _, name = url.rpartition("/")
    obstore.delete(stores.object_store(parent), name)


def test_a_missing_object_is_named_before_anything_is_read(s3: Proxy, url: str) -> None:
    remove(chunk_of(url, 7))
    s3.requests.clear()
    with pytest.raises(DataError, match=r"lacks 1 of 8 chunks: chunk 7 .*c/7/0"):
        fitted(url)
    assert s3.count(part="/c/") == 0
    rows, _ = stored_source(url, options=ReadOptions("fill")).reader().read(7)
    assert not rows.any()


def test_a_missing_object_is_found_by_reading_where_nobody_may_list(
    s3: Proxy, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forward = s3.forward

    def no_listing(request: Any, body: bytes) -> Any:
        if "list-type" in request.path:
            answer = b"<Error><Code>AccessDenied</Code></Error>"
            return 403, [("Content-Length", str(len(answer)))], answer
        return forward(request, body)

    monkeypatch.setattr(s3, "forward", no_listing)
    assert fitted(url).converged_
    assert "missing chunks are found only when they are read" in caplog.text
    remove(chunk_of(url, 7))
    with pytest.raises(DataError, match=r"lacks chunk 7 .*c/7/0"):
        fitted(url)


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_object_is_named(s3: Proxy, url: str, damage: str) -> None:
    data = bytearray(read_bytes(chunk_of(url, 3), 2**20))
    data[100] ^= 4
    keep = {"flipped": len(data), "cut": len(data) // 2, "empty": 0}[damage]
    write_bytes(chunk_of(url, 3), bytes(data[:keep]), overwrite=True)
    with pytest.raises(DataError, match="chunk 3 "):
        fitted(url)


# -- reading ahead --------------------------------------------------------------------


def test_reads_ahead_follow_from_the_chunk_and_stay_in_memorys_bound(
    s3: Proxy, X: np.ndarray, tmp_path: Path
) -> None:
    local = as_source(write_zarr(tmp_path / "x", X, ROWS, **CHECKED))
    assert (local.read_ahead, as_source(X).read_ahead) == (1, 1)
    store = open_store("s3://data/depths", read_only=False)
    for rows, depth in ((2**15, 4), (2**18, 4), (2**19, 2), (2**20, 1), (2**22, 1)):
        # Of columns apart Zarr reads some chunks at once; of others the reader fetches objects.
        for columns, expected in ((2, depth), (4, 1)):
            array = zarr.create_array(
                store,
                name=f"{rows}-{columns}",
                shape=(2**23, 4),
                chunks=(rows, columns),
                dtype="f8",
                **CHECKED,
            )
            source = ZarrSource(array, read_bytes=8 * 2**20)
            assert source.read_ahead == expected
            chunk = source.chunk_rows * 32
            if columns == 2:
                assert source.held_bytes <= 4 * max(32 * 2**20, chunk)
                continue
            # Buffers, what is on its way, and the object in hand.
            buffers = 1 if rows == 2**22 else 2
            on_its_way = max(64 * 2**20, rows * 32)
            assert source.held_bytes == buffers * chunk + on_its_way + rows * 32


def test_reads_overlap_where_the_store_is_slow(s3: Proxy, url: str) -> None:
    reading, most = [0], [0]
    forward = s3.forward

    def counted(request: Any, body: bytes) -> Any:
        chunk = "/c/" in request.path
        reading[0] += chunk
        most[0] = max(most[0], reading[0])
        try:
            return forward(request, body)
        finally:
            reading[0] -= chunk

    s3.latency = 0.005
    s3.forward = counted  # type: ignore[method-assign]
    try:
        source = stored_source(url)
        chunks = range(source.n_chunks)
        seen = []

        class Seen(Fold[Any]):
            def update(self, index: int, X: np.ndarray, weight: Any) -> None:
                seen.append(index)

            def result(self) -> Any:
                return seen

        assert fold_range(source, Seen(), chunks, None) == list(chunks)
    finally:
        del s3.forward
    assert 2 <= most[0] <= tuning().reading.most_requests


# -- single objects -------------------------------------------------------------------


def test_an_object_is_written_whole_once_and_read_within_a_limit(s3: Proxy) -> None:
    url, data = "s3://data/models/m.npz", os.urandom(70_000)
    with pytest.raises(FileNotFoundError, match=r"^s3://data/models/m.npz: no such object$"):
        read_bytes(url, 10)
    write_bytes(url, data, overwrite=False)
    assert read_bytes(url, len(data)) == data
    with pytest.raises(DataError, match="holds 70000 bytes, expected at most 69999"):
        read_bytes(url, len(data) - 1)
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        write_bytes(url, b"other", overwrite=False)
    assert read_bytes(url, len(data)) == data
    write_bytes(url, b"other", overwrite=True)
    assert read_bytes(url, 10) == b"other"
    for act in (lambda u: read_bytes(u, 9), lambda u: write_bytes(u, b"", False)):
        with pytest.raises(StoreAccessError, match="there is no bucket nobody"):
            act("s3://nobody/m.npz")


@pytest.mark.parametrize("kind", ["500", "lost"])
def test_a_write_whose_answer_is_lost_is_not_taken_for_anothers(
    s3: Proxy, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    forward, lost = s3.forward, list[Any]()

    def losing(request: Any, body: bytes) -> Any:
        answer = forward(request, body)
        if request.command == "PUT" and not lost:
            lost.append(1)
            return 503, [("Content-Length", "0")], b""
        return answer

    if kind == "500":
        s3.fail("500", 2, method="PUT")
    else:
        monkeypatch.setattr(s3, "forward", losing)
    write_bytes(f"s3://data/once-{kind}.npz", b"mine", overwrite=False)
    assert read_bytes(f"s3://data/once-{kind}.npz", 10) == b"mine"
    assert s3.count("PUT") > 1


def test_a_model_is_saved_to_a_bucket_and_loaded_from_it(s3: Proxy, X: np.ndarray) -> None:
    model, url = fitted(X), "s3://data/saved/model.npz"
    model.save(url)
    assert digest(load(url)) == digest(model)
    with pytest.raises(OutputExistsError, match="exists"):
        fitted(X, reg_covar=1e-3).save(url, overwrite=False)
    data = bytearray(read_bytes(url, 2**20))
    data[len(data) // 2] ^= 1
    write_bytes(url, bytes(data), overwrite=True)
    with pytest.raises(ModelFileError, match=r"damaged|not a whole"):
        load(url)
    with pytest.raises(ModelFileError, match="no such model file"):
        load("s3://data/saved/other.npz")
    s3.fault = lambda method, path: "500" if "model.npz" in path else None
    with (
        dask.config.set({"dask_em.store-timeout": 0.5}),
        pytest.raises(StoreError, match="run the same command again"),
    ):
        load(url)


def test_a_report_of_a_model_in_a_bucket_replaces_an_older_one(
    url: str, X: np.ndarray, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    model, page = "s3://data/reported/model.npz", tmp_path / "model.html"
    fitted(X).save(model)
    page.write_text("older")
    report_jobs.report(
        model, str(page), cluster_jobs.ClusterOptions(), url, drift=False, overwrite=True
    )
    assert model in page.read_text()


def test_a_page_in_a_bucket_is_written_as_one_on_a_disk(
    s3: Proxy, url: str, X: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    model, folder = tmp_path / "m.npz", BucketFolder("s3://data/pages")
    page = folder.at("page.html")
    fitted(X).save(model)

    def report(*more: str) -> tuple[int, str]:
        given = ["report", str(model), page, "--no-drift", "--sample-rows", "20", "--data", url]
        result = CliRunner().invoke(main, [*given, *more])
        return result.exit_code, result.stderr

    def meanwhile(url: str, data: bytes, overwrite: bool) -> None:
        write_bytes(url, b"theirs", overwrite=False)
        write_bytes(url, data, overwrite)

    with monkeypatch.context() as patch:
        patch.setattr("dask_em.storage.outputs.writer.write_bytes", meanwhile)
        code, said = report()
    assert (code, "page.html exists" in said) == (73, True), said
    assert (read_bytes(page, 10), folder.names()) == (b"theirs", ["page.html"])
    code, said = report()
    assert (code, "page.html exists" in said) == (73, True), said
    with locks.locked(page):
        code, said = report("--overwrite")
        assert (code, f"process {os.getpid()} on " in said) == (73, True), said
    code, said = report("--overwrite")
    assert (code, folder.names()) == (0, ["page.html"]), said
    (tmp_path / "page.html").write_bytes(read_bytes(page, 2**24))
    page = str(tmp_path / "page.html")
    assert report("--overwrite")[0] == 0
    assert (tmp_path / "page.html").read_bytes() == read_bytes(folder.at("page.html"), 2**24)


def test_where_a_write_cannot_depend_on_what_is_there_nothing_is_written() -> None:
    with pytest.raises(UsageError, match="s3://, gs:// and az://"):
        write_bytes("memory://models/m.npz", b"", overwrite=True)


# -- answers --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(X: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.npz"
    GaussianMixture(K, random_state=0).fit(X).save(path)
    return path


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's commands without a cluster."""
    for module in (planning, applying):
        monkeypatch.setattr(module, "workers_for", lambda where, nbytes: nullcontext())


def predict(model: Any, data: Any, dest: Any, *more: str) -> tuple[int, str]:
    given = ["predict", str(model), str(data), str(dest), "--log-density", *more]
    result = CliRunner().invoke(main, given)
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def objects(url: str) -> dict[str, bytes]:
    """Every object below a URL."""
    parent, _, name = url.rpartition("/")
    folder = BucketFolder(parent)
    return {
        key.removeprefix(f"{name}/"): folder.read(key) or b"" for key in folder.names(f"{name}/")
    }


def lock_of(url: str) -> str:
    parent, _, name = url.rpartition("/")
    return f"{parent}/.{name}.lock"


def hidden(url: str) -> str:
    parent, _, name = url.rpartition("/")
    return f"{parent}/.{name}.partial"


@pytest.fixture
def points(X: np.ndarray, tmp_path: Path) -> Path:
    write_zarr(tmp_path / "points.zarr", X, ROWS, **CHECKED)
    return tmp_path / "points.zarr"


@pytest.fixture
def undisturbed(model: Path, points: Path, tmp_path: Path, alone: None) -> dict[str, bytes]:
    with dask.config.set(scheduler="threads"):
        assert predict(model, points, tmp_path / "answers.zarr")[0] == 0
    root = tmp_path / "answers.zarr"
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def dest(s3: Proxy, request: pytest.FixtureRequest) -> str:
    return f"s3://data/{request.node.name.translate(str.maketrans('[]', '--'))}/answers.zarr"


def test_answers_in_a_bucket_are_the_bytes_of_a_disk(
    s3: Proxy, url: str, model: Path, dest: str, undisturbed: dict[str, bytes]
) -> None:
    s3.fail("500", 3, method="PUT")
    code, said = predict(model, url, dest)
    assert code == 0, said
    assert objects(dest) == undisturbed
    assert objects(hidden(dest)) == {}
    code, said = predict(model, url, dest)
    assert (code, "exists" in said) == (73, True), said
    write_bytes(f"{dest}/labels/c/99", b"of an older array", overwrite=True)
    code, said = predict(model, url, dest, "--overwrite")
    assert (code, objects(dest)) == (0, undisturbed), said


def test_answers_that_appear_during_the_work_stay(
    s3: Proxy, model: Path, points: Path, dest: str, undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    copy = BucketFolder.copy

    def meanwhile(self: BucketFolder, pairs: Any) -> None:
        copy(self, pairs)
        if BucketFolder(dest).read("zarr.json") is None:
            write_bytes(f"{dest}/zarr.json", b"theirs", overwrite=False)

    with monkeypatch.context() as patch:
        patch.setattr(BucketFolder, "copy", meanwhile)
        code, said = predict(model, points, dest)
    assert (code, "exists" in said) == (73, True), said
    assert objects(dest)["zarr.json"] == b"theirs"
    code, said = predict(model, points, dest, "--overwrite")
    assert (code, objects(dest), objects(hidden(dest))) == (0, undisturbed, {}), said


def stopped(s3: Proxy, model: Path, points: Any, dest: str, part: str, method: str = "PUT") -> str:
    """Fail every request that has `part` in its path until the command ends; what it said."""
    s3.fault = lambda m, path: "500" if m == method and part in path else None
    with dask.config.set({"dask_em.store-timeout": 0.3, "scheduler": "synchronous"}):
        code, said = predict(model, points, dest)
    s3.fault = lambda m, path: None
    assert code == 74, said
    return said


def test_interrupted_answers_go_on_and_end_with_the_same_bytes(
    s3: Proxy, model: Path, points: Path, dest: str, undisturbed: dict[str, bytes]
) -> None:
    said = stopped(s3, model, points, dest, "log_density/c/5")
    whole = int(re.search(r"(\d) of 8 regions are whole and kept in", said)[1])  # type: ignore[index]
    assert 0 < whole < 8
    assert objects(dest) == {}
    s3.requests.clear()
    code, said = predict(model, points, dest, "--json")
    assert (code, objects(dest)) == (0, undisturbed), said
    assert f'"n_rows_kept": {whole * ROWS}' in said
    assert s3.count("PUT", "partial/answers-") == 2 * (8 - whole)
    assert objects(hidden(dest)) == {}


# -- tables and .npy files ----------------------------------------------------------------


def write_files(folder: Path, X: np.ndarray) -> dict[str, str]:
    """The rows as files of several kinds, and how each is read, as a path below the folder."""
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra `table` is not installed")
    import pyarrow as pa
    from pyarrow import feather

    table = pa.table({f"x{j}": column for j, column in enumerate(X.T)})
    (folder / "tables/part=1").mkdir(parents=True)
    pq.write_table(table.slice(0, 2000), folder / "tables/part=1/a.parquet", row_group_size=ROWS)
    pq.write_table(table.slice(2000), folder / "tables/b.parquet", row_group_size=ROWS)
    feather.write_feather(table, str(folder / "x.arrow"), chunksize=ROWS)
    np.save(folder / "x.npy", X)
    return {
        "a folder": "tables/", "a pattern": "tables/**/*.parquet", "one file": "tables/b.parquet",
        "Arrow": "x.arrow", ".npy": "x.npy",
    }  # fmt: skip


def put_folder(folder: Path, url: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            write_bytes(f"{url}/{name}", path.read_bytes(), overwrite=True)


def test_files_in_a_bucket_give_the_bits_of_a_disk(
    s3: Proxy, X: np.ndarray, tmp_path: Path
) -> None:
    kinds = write_files(tmp_path, X)
    put_folder(tmp_path, "s3://data/files")
    for kind, name in kinds.items():
        there, here = f"s3://data/files/{name}", f"{tmp_path}/{name}"
        source, local = stored_source(there), stored_source(here)
        assert source.bounds.tolist() == local.bounds.tolist(), kind
        source.check()
        assert all(source.stamps().values()), kind
        assert SECRET.encode() not in pickle.dumps(source)
        assert digest(fitted(there)) == digest(fitted(here)), kind
    fsspec = pytest.importorskip("fsspec", reason="the extra `fsspec` is not installed")
    fsspec.filesystem("memory").put(f"{tmp_path}/tables", "/files/tables", recursive=True)
    assert digest(fitted("memory://files/tables")) == digest(fitted(tmp_path / "tables"))


def test_an_object_that_was_written_again_has_another_stamp(
    s3: Proxy, X: np.ndarray, tmp_path: Path
) -> None:
    write_files(tmp_path, X)
    put_folder(tmp_path, "s3://data/written")
    source = stored_source("s3://data/written/tables/")
    before = source.stamps()
    path = tmp_path / "tables/b.parquet"
    write_bytes("s3://data/written/tables/b.parquet", path.read_bytes() + b"x", overwrite=True)
    after = source.stamps()
    first, *_, last = before
    # b.parquet comes first.
    assert (before[first] == after[first], before[last] == after[last]) == (False, True)
    with pytest.raises(DataError, match=r"s3://data/written/tables/b.parquet changed since"):
        source.check()


def test_requests_for_a_table_that_fail_are_made_again(
    s3: Proxy, X: np.ndarray, tmp_path: Path
) -> None:
    write_files(tmp_path, X)
    put_folder(tmp_path, "s3://data/failing")
    expected = digest(fitted(tmp_path / "tables"))
    s3.fail("500", 3, part="b.parquet")
    assert digest(fitted("s3://data/failing/tables/")) == expected
    s3.fault = lambda method, path: "500" if "b.parquet" in path else None
    with dask.config.set({"dask_em.store-timeout": 0.3}), pytest.raises(StoreError) as told:
        fitted("s3://data/failing/tables/")
    assert "cannot be reached, or failed" in str(told.value)
    assert SECRET not in str(told.value)


def test_a_table_of_answers_in_a_bucket_is_that_of_a_disk(
    s3: Proxy, model: Path, points: Path, tmp_path: Path, alone: None
) -> None:
    pytest.importorskip("pyarrow", reason="the extra `table` is not installed")
    dest, here = "s3://data/table/answers.parquet", tmp_path / "answers.parquet"
    assert predict(model, points, here)[0] == 0
    expected = {path.name: path.read_bytes() for path in here.iterdir()}
    stopped(s3, model, points, dest, "part-00005")
    assert objects(dest) == {}
    code, said = predict(model, points, dest)
    assert (code, objects(dest), objects(hidden(dest))) == (0, expected, {}), said
    code, said = predict(model, points, dest)
    assert (code, "exists" in said) == (73, True), said


def test_answers_of_another_kind_are_not_mixed_with_unfinished_ones(
    s3: Proxy, X: np.ndarray, model: Path, points: Path, dest: str, tmp_path: Path,
    undisturbed: dict[str, bytes],
) -> None:  # fmt: skip
    stopped(s3, model, points, dest, "log_density/c/5")
    GaussianMixture(K, random_state=1).fit(X[:2000]).save(tmp_path / "other.npz")
    code, said = predict(tmp_path / "other.npz", points, dest)
    assert (code, "model sha256" in said) == (73, True), said
    code, said = predict(model, points, dest, "--no-resume")
    assert (code, objects(dest)) == (0, undisturbed), said


@pytest.mark.parametrize("part", ["answers.zarr/labels/c/6", "answers.zarr/labels/zarr.json",
                                  "/answers.zarr/zarr.json"])  # fmt: skip
def test_a_copy_that_was_interrupted_is_not_an_array_and_is_made_again(
    s3: Proxy, model: Path, points: Path, dest: str, undisturbed: dict[str, bytes], part: str
) -> None:
    # Objects of the unfinished work have `partial` in their path.
    s3.fault = lambda m, path: (
        "500" if m == "PUT" and path.endswith(part) and "partial" not in path else None
    )
    with dask.config.set({"dask_em.store-timeout": 0.3}):
        code, said = predict(model, points, dest)
    s3.fault = lambda m, path: None
    assert (code, "8 of 8 regions are whole" in said) == (74, True), said
    with pytest.raises(DataError, match="not a Zarr array"):
        open_zarr(dest)
    code, said = predict(model, points, dest, "--json")
    assert (code, objects(dest)) == (0, undisturbed), said
    assert f'"n_rows_kept": {N}' in said


def test_of_two_jobs_one_writes_and_a_job_that_is_gone_is_replaced(
    s3: Proxy, model: Path, points: Path, dest: str, undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    lock = lock_of(dest)
    owner = {"host": "elsewhere", "pid": 4711, "id": "x", "beats": 1}
    write_bytes(lock, json.dumps(owner).encode(), overwrite=False)
    code, said = predict(model, points, dest)
    assert (code, "another job (process 4711 on elsewhere" in said) == (73, True), said
    assert read_bytes(lock, 1000) == json.dumps(owner).encode()
    monkeypatch.setattr(locks, "STALE_SECONDS", -1.0)
    monkeypatch.setattr(locks.Lock, "check", lambda self: None)
    code, said = predict(model, points, dest)
    assert (code, objects(dest)) == (0, undisturbed), said


def test_the_lock_of_a_process_that_is_gone_is_taken_at_once(
    s3: Proxy, model: Path, points: Path, dest: str, undisturbed: dict[str, bytes]
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owner = {"host": socket.gethostname(), "pid": gone.pid, "id": "x", "beats": 1}
    # In another container of this machine, where that number may be alive.
    write_bytes(lock_of(dest), json.dumps({**owner, "space": "s"}).encode(), overwrite=False)
    code, said = predict(model, points, dest)
    assert (code, f"another job (process {gone.pid} on" in said) == (73, True), said
    here = {**owner, "space": locks._space()}
    write_bytes(lock_of(dest), json.dumps(here).encode(), overwrite=True)
    clock = lock_of(dest).removesuffix("lock") + "clock/left"
    write_bytes(clock, b"now", overwrite=False)
    code, said = predict(model, points, dest)
    assert (code, objects(dest)) == (0, undisturbed), said
    parent, _, name = clock.rpartition("/")
    assert BucketFolder(parent).names() == [], name


def test_a_lock_is_kept_up_and_its_loss_is_noticed(
    s3: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.02)
    folder, run = BucketFolder("s3://data/locks"), JobControl()

    def said() -> dict[str, Any]:
        return json.loads(folder.read(".x.lock") or b"{}")

    with as_job(run), locks.locked("s3://data/locks/x") as lock:
        wait_until(lambda: said().get("beats", 0) >= 3)
        lock.check()
        lock.note(done="all")
        assert said()["done"] == "all"
        with (
            as_job(JobControl()),
            pytest.raises(OutputExistsError, match="is writing s3://data/locks/x"),
            locks.locked("s3://data/locks/x"),
        ):
            pass
        folder.put(".x.lock", json.dumps({"host": "h", "pid": 1, "beats": 0}).encode())
        wait_until(lambda: run.stop_requested)
        assert "another job took over" in run.reason
        with pytest.raises(OutputExistsError, match="lost its lock"):
            lock.check()
    assert said()["host"] == "h"
    folder.remove([".x.lock"])


def test_what_a_job_that_is_gone_noted_is_told(s3: Proxy) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owner = {"host": socket.gethostname(), "space": locks._space(), "pid": gone.pid, "done": "all"}
    write_bytes("s3://data/locks/.y.lock", json.dumps(owner).encode(), overwrite=False)
    with locks.locked("s3://data/locks/y") as lock:
        assert lock.before == {"done": "all"}
    assert BucketFolder("s3://data/locks").names() == []


# -- checkpoints ----------------------------------------------------------------------


class StopAfter:
    """A callback that ends a fit after so many passes."""

    def __init__(self, passes: int) -> None:
        self.passes = passes

    def __call__(self, state: Any) -> None:
        self.passes -= 1
        if self.passes == 0:
            raise InterruptedError


LONG: dict[str, Any] = {
    "n_components": K, "random_state": 0, "tol": 1e-9, "max_iter": 5, "sample_size": 400
}  # fmt: skip


def long_fit(data: Any, stop_after: int = 0, **options: Any) -> GaussianMixture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GaussianMixture(**LONG, **options, callbacks=[StopAfter(stop_after)]).fit(data)


@pytest.fixture
def kept(s3: Proxy, request: pytest.FixtureRequest) -> str:
    return f"s3://data/{request.node.name.translate(str.maketrans('[]', '--'))}/kept"


def test_a_fit_goes_on_from_a_bucket(s3: Proxy, url: str, kept: str) -> None:
    straight, stops = long_fit(url), 0
    while True:
        try:
            found = long_fit(url, 1, checkpoint=Checkpointing(kept, interval=0.0))
            break
        except InterruptedError:
            stops += 1
    assert stops == straight.n_iter_ > 3
    assert digest(found) == digest(straight)
    assert found.lower_bounds_ == straight.lower_bounds_
    names = BucketFolder(kept).names()
    assert names == ["pass-000004.npz", "pass-000005.npz", "survey.npz"]
    with pytest.raises(UsageError, match=r"kept keeps the unfinished fit of tol=1e-09"):
        GaussianMixture(**{**LONG, "tol": 1.0}, checkpoint=kept).fit(url)
    remove_checkpoint(kept)
    assert BucketFolder(kept).names() == []


def test_a_sweep_goes_on_from_a_bucket(s3: Proxy, url: str, kept: str) -> None:
    options: dict[str, Any] = {"random_state": 0, "tol": 1e-3, "exhaustive": True}
    straight = select(url, [2, K], **options)
    with pytest.raises(InterruptedError):
        select(url, [2, K], **options, checkpoint=kept, callbacks=[StopAfter(2)])
    found = select(url, [2, K], **options, checkpoint=kept)
    assert (digest(found.best), found.table) == (digest(straight.best), straight.table)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_the_state_before_a_damaged_one_is_used(
    s3: Proxy, url: str, kept: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InterruptedError):
        long_fit(url, 3, checkpoint=kept)
    newest = f"{kept}/pass-000003.npz"
    data = bytearray(read_bytes(newest, 2**20))
    data[200] ^= 4
    write_bytes(newest, bytes(data[: -1 if damage == "cut" else None]), overwrite=True)
    assert digest(long_fit(url, checkpoint=kept)) == digest(long_fit(url))
    assert "going on with the one before it" in caplog.text


def test_who_writes_to_the_same_checkpoint_is_noticed(s3: Proxy, url: str, kept: str) -> None:
    """The store itself decides, by conditions on its objects, wherever locks did not help."""

    class Meddle:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, state: Any) -> None:
            write_bytes(f"{kept}/{self.name}", b"another job's", overwrite=True)

    for name in ("pass-000002.npz", "pass-000003.npz"):
        with pytest.raises(LockedError, match=rf"{name} was written by another job"):
            GaussianMixture(**LONG, checkpoint=kept, callbacks=[Meddle(name)]).fit(url)
        assert read_bytes(f"{kept}/{name}", 100) == b"another job's"
        remove_checkpoint(kept)


@pytest.mark.parametrize("kind", ["500", "lost"])
def test_states_whose_answers_are_lost_are_kept_once(
    s3: Proxy, url: str, kept: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, lost = s3.forward, list[Any]()

    def losing(request: Any, body: bytes) -> Any:
        answer = forward(request, body)
        if request.command == "PUT" and "/kept/" in request.path and len(lost) < 3:
            lost.append(request.path)
            return 503, [("Content-Length", "0")], b""
        return answer

    if kind == "500":
        s3.fail("500", 2, method="PUT", part="/kept/")
    else:
        monkeypatch.setattr(s3, "forward", losing)
    assert digest(long_fit(url, checkpoint=kept)) == digest(long_fit(url))


def run_fit(url: str, output: str, *more: str) -> tuple[int, str]:
    command = ["fit", url, "-k", str(K), "--tol", "1e-9", "--max-iter", "5", "--sample-size", "400"]
    command += ["-o", output, *more]
    result = CliRunner().invoke(main, command)
    assert "Traceback" not in result.output
    return result.exit_code, result.output


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_all_of_a_fit_lies_in_a_bucket(s3: Proxy, url: str, kept: str, alone: None) -> None:
    """Data, model, lock and checkpoint: stopped, refused, gone on with, and tidied up."""
    folder, output = BucketFolder(kept), f"{kept}/m.npz"
    s3.fault = lambda m, path: "500" if m == "PUT" and "pass-000003" in path else None
    with dask.config.set({"dask_em.store-timeout": 0.3}):
        code, said = run_fit(url, output)
    s3.fault = lambda m, path: None
    assert (code, f"what was done is kept in {kept}/.m.npz.checkpoint" in said) == (74, True), said
    assert {name.partition("/")[0] for name in folder.names()} == {".m.npz.checkpoint"}
    owner = {"host": "elsewhere", "pid": 4711, "id": "x", "beats": 1}
    write_bytes(lock_of(output), json.dumps(owner).encode(), overwrite=False)
    code, said = run_fit(url, output)
    assert (code, "another job (process 4711 on elsewhere" in said) == (73, True), said
    folder.remove([".m.npz.lock"])
    code, said = run_fit(url, output, "--max-time", "0")
    assert (code, "the time limit is reached" in said) == (75, True), said
    code, said = run_fit(url, output)
    assert code == 0, said
    assert digest(load(output)) == digest(long_fit(url))
    assert folder.names() == ["m.npz"]
    code, said = run_fit(url, output)
    assert (code, "exists" in said) == (73, True), said
    # As if it had been killed when all was written.
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    written = {"fit": load(output).provenance_["fit"]["id"], "outputs": [output]}
    owner = {"host": socket.gethostname(), "space": locks._space(), "pid": gone.pid}
    owner["written"] = written
    write_bytes(lock_of(output), json.dumps(owner).encode(), overwrite=False)
    code, said = run_fit(url, output)
    assert code == 0, said
    assert folder.names() == ["m.npz"]


def test_nothing_of_a_fit_in_a_bucket_holds_a_credential(
    s3: Proxy, url: str, kept: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InterruptedError):
        long_fit(url, 2, checkpoint=kept)
    folder = BucketFolder(kept)
    folder.names()
    said = [repr(folder).encode(), pickle.dumps(folder), caplog.text.encode()]
    said += [folder.read(name) or b"" for name in folder.names()]
    with locks.locked(f"{kept}/m.npz"):
        said.append(folder.read(".m.npz.lock") or b"")
    assert len(said) == 7
    assert not [i for i, text in enumerate(said) if SECRET.encode() in text or KEY.encode() in text]


@pytest.mark.parametrize("codec", ["plain", "zstd", "columns apart"])
def test_an_object_store_gives_the_bits_of_a_disk(
    s3: Proxy, X: np.ndarray, codec: str, tmp_path: Path
) -> None:
    layout: dict[str, Any] = {"chunks": (ROWS, X.shape[1]), "compressors": None}
    if codec == "zstd":
        layout["compressors"] = "auto"
    elif codec == "columns apart":
        layout["chunks"] = (ROWS, 2)
    stores = (str(tmp_path / "x"), open_store(f"s3://data/bits-{codec[:5]}", read_only=False))
    found = []
    for store in stores:
        array = zarr.create_array(store, shape=X.shape, dtype="f8", **layout)
        array[:] = X
        source = ZarrSource(array, read_bytes=2 * ROWS * 24)
        logs: list[Any] = []

        class Kept(Fold[Any]):
            def update(self, index: int, X: np.ndarray, weight: Any, logs: Any = logs) -> None:
                logs.append((index, X.tobytes()))

            def take_fingerprints(self, fingerprints: Any, logs: Any = logs) -> None:
                logs.append(dict(fingerprints))

            def result(self) -> Any:
                return None

        for part in source.ranges():
            fold_range(source, Kept(), part, None)
        # A chunk alone, and out of order.
        one = source.reader()
        logs += [one.read(i)[0].tobytes() for i in (3, 1, 2)]
        one.close()
        found.append(logs)
    assert found[0] == found[1]


class Fetching:
    """Objects of a size, fetched by threads that wait until they are let go."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked: list[int] = []
        self.free = threading.Event()

    def __call__(self, number: int) -> Fetched | None:
        self.asked.append(number)
        assert self.free.wait(HANG)
        if number == 7:
            raise StoreError("away")
        return None if number == 5 else Fetched(memoryview(bytes(self.size)), 0.05)

    def asked_for(self, n: int) -> bool:
        """Whether so many come to be asked for, and no more at once."""
        wait_until(lambda: len(self.asked) >= n)
        return len(self.asked) == n


def test_objects_are_fetched_in_order_and_within_bounds(tune: Tune) -> None:
    tune(reading={"line_bytes": 6000, "most_requests": 8})
    fetching, line = Fetching(1000), Line()
    ahead = FetchAhead(fetching, line, 1000)
    with ThreadPoolExecutor(1) as pool:
        # Nothing is known of the line: four at first.
        first = pool.submit(ahead.take, 0, 100)
        assert fetching.asked_for(4)
        fetching.free.set()
        assert first.result(HANG) is not None
        # A slow and wide line is filled up to the bound of memory: one in hand leaves its place.
        line.tell(0.05, 1e9)
        assert ahead.take(1, 100) is not None
        assert fetching.asked_for(7)
        assert ahead.take(2, 100) is not None
        assert fetching.asked_for(8)
    # What is left out is not waited for; what is missing, or failed, is told at its place.
    assert ahead.take(4, 100) is not None
    assert ahead.take(5, 100) is None
    assert ahead.take(6, 100) is not None
    with pytest.raises(StoreError, match="away"):
        ahead.take(7, 100)
    asked = set(fetching.asked)
    ahead.close()
    assert asked <= set(range(14))
    # Nothing beyond the end of a range is asked for.
    short = FetchAhead(fetching, line, 1000)
    assert [short.take(n, 3) is not None for n in range(3)] == [True] * 3
    assert set(fetching.asked[-3:]) == {0, 1, 2}
    short.close()


def test_nothing_is_asked_for_all_at_once_of_a_line_that_is_known(tune: Tune) -> None:
    tune(reading={"line_bytes": 8000})
    fetching, line = Fetching(1000), Line()
    fetching.free.set()
    assert line.seconds_between(1000) == 0.0
    line.tell(0.05, 1e6)
    line.tell(0.05, 0.5e6)
    assert line.seconds_between(1000) == 1000 / (tuning().reading.pace_gain * 1e6)
    # So slow that all but the first wait for their turn, until nobody wants them.
    tune(reading={"pace_gain": 1e-9})
    ahead = FetchAhead(fetching, line, 1000)
    assert ahead.take(0, 100) is not None
    ahead.close()
    ahead._pool.shutdown()
    assert fetching.asked == [0]


def test_rows_are_on_their_way_while_the_array_is_looked_at_again(
    s3: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, asked = s3.forward, threading.Event()

    def waiting(request: Any, body: bytes) -> Any:
        if "/c/" in request.path:
            asked.set()
        elif not asked.wait(HANG):
            raise AssertionError
        return forward(request, body)

    source = stored_source(url)
    monkeypatch.setattr(s3, "forward", waiting)
    reader = source.reader()
    reader.expect(range(source.n_chunks))
    reader.read(0)
    reader.close()
    # Of a range whose sums are kept nothing is asked for.
    monkeypatch.setattr(s3, "forward", forward)
    s3.requests.clear()
    done = source.skipping([range(source.n_chunks)])
    reader = done.reader()
    reader.expect(range(source.n_chunks))
    for chunk in range(source.n_chunks):
        assert len(reader.read(chunk)[0]) == 0
    reader.close()
    assert not s3.requests


def test_parts_of_objects_are_fetched(s3: Proxy, url: str) -> None:
    store, key = open_store(url), "c/3/0"
    whole = store.fetch(key)
    assert whole is not None
    data = bytes(whole.data)
    assert (whole.size, bool(whole.version)) == (len(data), True)
    for wanted, part in (
        (RangeByteRequest(3, 10), data[3:10]),
        (RangeByteRequest(len(data) - 2, len(data) + 9), data[-2:]),
        (SuffixByteRequest(12), data[-12:]),
        (SuffixByteRequest(len(data) + 5), data),
    ):
        found = store.fetch(key, wanted)
        assert found is not None
        assert (bytes(found.data), found.size, found.version) == (part, len(data), whole.version)
        assert store.fetch("c/99/0", wanted) is None


def test_an_azure_store_knows_no_suffix(
    s3: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore
    from obstore.exceptions import NotSupportedError

    get = obstore.get

    def without(store: Any, key: str, *, options: Any = None) -> Any:
        if options and "suffix" in options["range"]:
            raise NotSupportedError("suffix")
        return get(store, key, options=options)

    store = open_store(url)
    whole = store.fetch("c/3/0")
    assert whole is not None
    monkeypatch.setattr(obstore, "get", without)
    for n in (12, len(whole.data) + 5):
        found = store.fetch("c/3/0", SuffixByteRequest(n))
        assert found is not None
        assert bytes(found.data) == bytes(whole.data)[-n:]
    assert store.fetch("c/99/0", SuffixByteRequest(4)) is None


@pytest.mark.parametrize("damage", ["flipped", "index", "cut", "empty", "gone"])
def test_a_damaged_shard_is_named(s3: Proxy, X: np.ndarray, damage: str) -> None:
    url = f"s3://data/shard-{damage}/points.zarr"
    put_zarr(url, X, chunks=(50, D), shards=(2000, D))
    name = f"{url}/c/1/0"
    data = bytearray(read_bytes(name, 2**20))
    data[-9 if damage == "index" else 5] ^= 4
    if damage == "gone":
        remove(name)
    else:
        keep = {"cut": len(data) // 2, "empty": 0}.get(damage, len(data))
        write_bytes(name, bytes(data[:keep]), overwrite=True)
    source = stored_source(url)
    assert 50 <= source.chunk_rows < 2000
    reader = source.reader()
    reader.expect(range(source.n_chunks))
    with pytest.raises(DataError, match=r"chunk (1|40) \(rows 2000 to .*c/1/0\)"):
        _ = [reader.read(chunk) for chunk in range(source.n_chunks)]


def test_a_line_is_filled_and_forgets() -> None:
    line = Line()
    assert line.wanted_bytes(10) == 40
    for rate in (1e6, 5e6, 2e6):
        line.tell(0.2 - rate / 1e8, rate)
    # The widest and the quickest that were seen.
    assert line.wanted_bytes(10) == int(10 * 5e6 * 0.15)
    for _ in range(64):
        line.tell(0.01, 1e6)
    assert line.wanted_bytes(10) == 100_000
