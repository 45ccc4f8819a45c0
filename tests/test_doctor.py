"""`dask-em doctor`: real stores, clusters and certificates, sound and not."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.base
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from distributed import Client, LocalCluster
from distributed.security import Security
from helpers import HANG, blobs, wait_until, write_zarr
from sklearn.exceptions import ConvergenceWarning
from zarr.codecs import Crc32cCodec

from dask_em import GaussianMixture
from dask_em.cli.main import main
from dask_em.data.open import stored_source
from dask_em.jobs.checks import cluster as cluster_checks
from dask_em.jobs.checks import machine
from dask_em.jobs.checks.check import Check, attempt
from dask_em.jobs.cluster import ClusterOptions, workers_here
from dask_em.jobs.doctor import examine, exit_code
from dask_em.jobs.plan import count, fleet_of
from dask_em.storage.checkpoint import Checkpointing


@pytest.fixture(autouse=True)
def _no_client_is_left() -> Iterator[None]:
    """A scheduler that was asked in vain is not what the next pass of this process waits for."""
    yield
    left = getattr(dask.base.get_scheduler(), "__self__", None)
    assert left is None, left


@pytest.fixture(scope="module", name="points")
def stored_points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "points.zarr"
    X, _, _ = blobs(2000, 3, 3)
    write_zarr(path, X, 250, compressors=[Crc32cCodec()])
    return path


@pytest.fixture
def where(client: Client) -> ClusterOptions:
    """Two worker processes that run already."""
    return ClusterOptions(scheduler=client.scheduler.address)


def found(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def wrong(checks: list[Check]) -> list[tuple[str, int]]:
    return [(check.name, check.exit_code) for check in checks if not check.ok]


# -- all is well ---------------------------------------------------------------------


def test_all_is_well(points: Path, tmp_path: Path) -> None:
    options = ["--workers", "1", "--memory-limit", "1GiB", "--checkpoint", str(tmp_path)]
    result = subprocess.run(
        [sys.executable, "-m", "dask_em.cli", "doctor", str(points), *options, "--json"],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    said = json.loads(result.stdout)
    assert said["ok"]
    assert [check["name"] for check in said["checks"]] == [
        "versions", "extras", "BLAS", "store", "checksum", "chunks", "checkpoint",
        "scheduler", "TLS", "workers", "workers' BLAS", "workers' store", "memory",
    ]  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_a_running_cluster_is_looked_at_and_left_running(
    where: ClusterOptions, client: Client
) -> None:
    result = CliRunner().invoke(main, ["doctor", "--scheduler", str(where.scheduler)])
    assert result.exit_code == 0, result.output
    assert "2 workers, 2 threads" in result.output
    assert "plain TCP" in result.output
    assert "WRONG" not in result.output
    assert client.submit(sum, [1, 2]).result() == 3


# -- data ----------------------------------------------------------------------------


def test_a_store_without_a_checksum(where: ClusterOptions, tmp_path: Path) -> None:
    write_zarr(tmp_path / "points.zarr", np.ones((100, 2)), 50)
    command = ["doctor", str(tmp_path / "points.zarr"), "--scheduler", str(where.scheduler)]
    # A fit would run, and log a warning.
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.output.splitlines() if not line.startswith("ok "))
    assert line.startswith("WARN  checksum ")
    assert "Crc32cCodec" in line
    said = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert said["ok"]
    assert [check["name"] for check in said["checks"] if check["warning"]] == ["checksum"]


def test_a_missing_chunk_is_named(where: ClusterOptions, tmp_path: Path) -> None:
    path = tmp_path / "points.zarr"
    write_zarr(path, np.ones((100, 2)), 10, compressors=[Crc32cCodec()])
    (path / "c/7/0").unlink()
    checks = examine(where, str(path))
    assert wrong(checks) == [("chunks", 65)]
    assert "chunk 7 (rows 70 to 79" in found(checks, "chunks").text
    assert exit_code(examine(where, str(path), missing_chunks="fill")) == 0


@pytest.mark.parametrize("what", ["damaged", "not there", "not Zarr"])
def test_a_store_that_cannot_be_read(where: ClusterOptions, tmp_path: Path, what: str) -> None:
    path = tmp_path / "points.zarr"
    if what == "damaged":
        write_zarr(path, np.ones((100, 2)), 100, compressors=[Crc32cCodec()])
        file = path / "c/0/0"
        data = bytearray(file.read_bytes())
        data[11] ^= 1
        file.write_bytes(data)
    elif what == "not Zarr":
        path.mkdir()
    checks = examine(where, str(path))
    assert wrong(checks) == [("store", 65)]
    # What needs no data was looked at all the same.
    assert found(checks, "scheduler").ok


# -- disk and memory -----------------------------------------------------------------


def test_checkpoints_take_no_more_than_is_said(tmp_path: Path) -> None:
    X, _, _ = blobs(4000, 12, 4, apart=0.5)
    write_zarr(tmp_path / "points.zarr", X, 500, compressors=[Crc32cCodec()])
    source, kept = stored_source(tmp_path / "points.zarr"), tmp_path / "kept"
    sizes = []

    def weigh(state: Any) -> None:
        sizes.append(sum(file.stat().st_size for file in kept.iterdir()))

    how = Checkpointing(kept, interval=0)
    options: dict[str, Any] = {"random_state": 0, "max_iter": 6, "sample_size": 500}
    model = GaussianMixture(4, tol=0, checkpoint=how, callbacks=[weigh], **options)
    with pytest.warns(ConvergenceWarning):
        model.fit(tmp_path / "points.zarr")
    assert len(sizes) == 6
    planned = count(source, fleet_of(4, "full"), [])
    # What is replaced is there while it is replaced.
    assert max(sizes) < machine.checkpoint_bytes(source, planned) - 2**20


def test_a_disk_that_is_full(
    where: ClusterOptions, points: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": 2**15})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    checks = examine(where, str(points))
    assert wrong(checks) == [("checkpoint", 74)]
    assert "make room" in found(checks, "checkpoint").text


@pytest.mark.parametrize(("kind", "code"), [("a file", 2), ("read only", 74)])
def test_a_folder_that_cannot_be_written(tmp_path: Path, kind: str, code: int) -> None:
    (tmp_path / "a file").write_text("")
    # Nobody may write there, not even root.
    folder = "/proc/self" if kind == "read only" else str(tmp_path / kind / "checkpoint")
    check = attempt("checkpoint", machine.describe_disk, folder, None, None)
    assert check.exit_code == code, check


def test_workers_too_small_for_a_chunk(tmp_path: Path) -> None:
    path = tmp_path / "points.zarr"
    zarr.create_array(
        path, shape=(2**22, 8), chunks=(2**21, 8), dtype="f8", compressors=[Crc32cCodec()]
    )
    with LocalCluster(
        n_workers=1, processes=False, memory_limit="400MiB", dashboard_address=":0"
    ) as cluster:
        there = ClusterOptions(scheduler=cluster.scheduler_address)
        checks = examine(there, str(path), missing_chunks="fill")
    assert wrong(checks) == [("memory", 2)]
    assert "raise --memory-limit" in found(checks, "memory").text
    # The words and the verdict of `plan`.
    local = ClusterOptions(workers=1, memory_limit="400MiB")
    planned = count(stored_source(path), fleet_of(8, "full"), workers_here(local))
    assert not planned.fits


# -- packages ------------------------------------------------------------------------


def test_an_extra_that_the_data_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert "not needed here: " in machine.extras_here(None)
    check = attempt("extras", machine.extras_here, "s3://bucket/points.zarr")
    assert (check.exit_code, "pip install 'dask-em[s3]'" in check.text) == (2, True)


def test_an_extra_that_does_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if machine.find_spec("cupy") is not None:
        pytest.skip("cupy is installed here")
    (tmp_path / "cupy.py").write_text("raise ImportError('libcuda.so.1: not found')")
    monkeypatch.syspath_prepend(tmp_path)
    check = attempt("extras", machine.extras_here, None)
    assert check.exit_code == 2
    assert "cupy is installed but does not import" in check.text
    assert "libcuda.so.1" in check.text


def test_a_requirement_that_is_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_requirements", lambda: ["numpy>=99", "nothing-of-the-kind>=1"])
    check = attempt("versions", machine.versions_here)
    assert check.exit_code == 2
    assert f"numpy {np.__version__} (needs >=99)" in check.text
    assert "nothing-of-the-kind is missing" in check.text


def test_blas_that_keeps_its_threads_is_named() -> None:
    assert "one thread within a pass" in machine.blas_here()
    free = {"tcp://a": [("openblas 0.3", 1, 2)], "tcp://b": [("mkl 2025", 2, 2)]}
    check = attempt("BLAS", machine.blas_line, free)
    assert (check.exit_code, check.text.startswith("tcp://b: mkl 2025 cannot")) == (2, True)
    differ = {"tcp://a": [("openblas for Zen", 1, 2)], "tcp://b": [("openblas for Haswell", 1, 2)]}
    assert "last digits depend on who computes" in machine.blas_line(differ)


# -- clusters ------------------------------------------------------------------------


@contextmanager
def worker(address: str, folder: Path, **environment: str) -> Iterator[None]:
    """A `dask worker` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard",
         "--nthreads", "1", "--local-directory", str(folder), "--name", "odd"],
        env={**os.environ, **environment},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with Client(address) as client:
            wait_until(lambda: len(client.nthreads()) == 1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(HANG)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_a_worker_of_other_versions_is_named(tmp_path: Path, points: Path) -> None:
    other = tmp_path / "site/zarr-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: zarr\nVersion: 0.0.1\n")
    with LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        address = cluster.scheduler_address
        empty = examine(ClusterOptions(scheduler=address), str(points))
        assert wrong(empty) == [("scheduler", 75)]
        assert f"dask worker {address}" in found(empty, "scheduler").text
        with worker(address, tmp_path, PYTHONPATH=str(tmp_path / "site")):
            checks = examine(ClusterOptions(scheduler=address), str(points))
    assert wrong(checks) == [("workers", 2)]
    assert "zarr is 0.0.1 on tcp://" in found(checks, "workers").text
    assert f"{zarr.__version__} here" in found(checks, "workers").text


def test_a_worker_that_sees_other_data(
    where: ClusterOptions, client: Client, points: Path, tmp_path: Path
) -> None:
    # The same path, and something else to each process.
    here_and_there = "/proc/self/cwd/points.zarr"
    here, there = Path.cwd(), tmp_path / "there"
    folders = client.run(os.getcwd)
    write_zarr(there / "points.zarr", np.ones((2000, 3)), 250, compressors=[Crc32cCodec()])
    try:
        os.chdir(points.parent)
        for place, said in ((tmp_path, "cannot read"), (there, "finds other data")):
            client.run(os.chdir, place)
            checks = examine(where, here_and_there)
            assert wrong(checks) == [("workers' store", 65)], checks
            assert said in found(checks, "workers' store").text
    finally:
        os.chdir(here)
        for name, folder in folders.items():
            client.run(os.chdir, folder, workers=[name])


def test_no_scheduler_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_checks, "CONNECT", "1s")
    checks = examine(ClusterOptions(scheduler="tcp://127.0.0.1:9"))
    assert wrong(checks) == [("scheduler", 2)]
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in found(checks, "scheduler").text
    checks = examine(ClusterOptions(scheduler="tcp://127.0.0.1:9", require_tls=True))
    assert (wrong(checks), "does not begin with tls://" in checks[-1].text) == (
        [("scheduler", 2)],
        True,
    )


# -- TLS -----------------------------------------------------------------------------


def certificates(folder: Path, days: float) -> dict[str, str]:
    """An authority, and one certificate of it that ends after so many days, as files."""
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)

    def signed(name: str, issuer: Any, key: Any, ca: bool, end: float) -> tuple[Any, Any]:
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=end))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(key or own, hashes.SHA256())
        )
        return certificate, own

    authority, authority_key = signed("authority", None, None, True, 30)
    certificate, key = signed("node", authority.subject, authority_key, False, days)
    pem = serialization.Encoding.PEM
    files = {
        "tls_ca_file": authority.public_bytes(pem),
        "tls_cert": certificate.public_bytes(pem),
        "tls_key": key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {name: str(folder / name) for name in files}


def security(files: dict[str, str]) -> Security:
    roles = {
        f"tls_{role}_{part}": files[f"tls_{part}"]
        for role in ("client", "scheduler", "worker")
        for part in ("cert", "key")
    }
    return Security(require_encryption=True, tls_ca_file=files["tls_ca_file"], **roles)


@pytest.mark.parametrize(("days", "expected"), [(20, []), (0.5, [("TLS", 2)])])
def test_an_encrypted_cluster(
    tmp_path: Path, points: Path, days: float, expected: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    files: dict[str, Any] = certificates(tmp_path / "ours", days)
    with LocalCluster(
        n_workers=1,
        processes=False,
        protocol="tls",
        security=security(files),
        dashboard_address=":0",
    ) as cluster:
        address = cluster.scheduler_address
        checks = examine(ClusterOptions(scheduler=address, require_tls=True, **files), str(points))
        assert wrong(checks) == expected, checks
        if expected:
            assert "in 0.5 days: make new ones" in found(checks, "TLS").text
            return
        assert "lasts 20 days more" in found(checks, "TLS").text
        # Of another authority, and none at all.
        monkeypatch.setattr(cluster_checks, "CONNECT", "2s")
        others: dict[str, Any] = certificates(tmp_path / "others", 20)
        for refused in (
            ClusterOptions(scheduler=address, **others),
            ClusterOptions(scheduler=address),
        ):
            assert wrong(examine(refused)) == [("scheduler", 2)]


def test_certificates_that_are_not_there(tmp_path: Path) -> None:
    files: dict[str, Any] = {
        "tls_ca_file": str(tmp_path / "ca.pem"),
        "tls_cert": "c",
        "tls_key": "k",
    }
    checks = examine(ClusterOptions(scheduler="tls://127.0.0.1:9", **files))
    assert wrong(checks) == [("TLS", 2)]
    assert "--tls-ca-file" in found(checks, "TLS").text
    (tmp_path / "ca.pem").write_text("")
    checks = examine(
        ClusterOptions(scheduler="tls://127.0.0.1:9", tls_ca_file=files["tls_ca_file"])
    )
    assert "--tls-ca-file alone" in found(checks, "TLS").text
