"""The commands of deploy/hosts/README.md on network namespaces as hosts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from by_hand import N_WORKERS, run, start, start_all, the_job, with_certificates
from helpers import HANG
from hosts import Host
from jobs import UNDER_WAY, Job, Processes

pytestmark = pytest.mark.deploy


@pytest.fixture
def folder(tmp_path: Path, need: Callable[..., None]) -> Path:
    """A folder with certificates, as on every host."""
    need("openssl")
    return with_certificates(tmp_path)


@pytest.fixture
def cluster(hosts: list[Host], folder: Path, processes: Processes) -> list[Host]:
    """Scheduler and workers by the commands of the README."""
    start_all(hosts, folder, processes)
    return hosts


def test_a_host_that_is_cut_off_does_not_change_the_bits(
    cluster: list[Host], folder: Path, job: Job, processes: Processes
) -> None:
    command, variables = the_job(job, cluster, folder / "m.npz", *job.long_options)
    fit = processes.start("fit", *command, env=variables, cwd=folder)
    processes.wait_for("fit", UNDER_WAY)
    cluster[1].cut_off()
    try:
        assert fit.wait(HANG) == 0, processes.log("fit").read_text()
        job.check(folder / "m.npz", long=True)
        # What is cut off ends too, and whoever watches it starts it again.
        processes.wait_for("host1", "End worker")
    finally:
        cluster[1].heal()
    assert who_enters(cluster, folder, "tls") == str(N_WORKERS - 1)
    start(cluster, 1, "worker", folder, processes)
    processes.wait_for("host1", "Registered to:")
    assert who_enters(cluster, folder, "tls") == str(N_WORKERS)


CONNECT = """
import sys
from distributed import Client, Security
scheduler, folder = sys.argv[1:]
security = Security(
    tls_ca_file=f"{folder}/ca.pem",
    tls_client_cert=f"{folder}/client.pem",
    tls_client_key=f"{folder}/client-key.pem",
) if folder else None
try:
    client = Client(scheduler, security=security, timeout="3s")
except OSError as e:
    sys.exit(f"refused: {e}")
print(len(client.scheduler_info()["workers"]))
"""


def who_enters(hosts: list[Host], folder: Path, certificates: str, protocol: str = "tls") -> str:
    """How many workers a client with these certificates sees, or what it is told."""
    address = f"{protocol}://{hosts[0].address}:8786"
    done = subprocess.run(
        hosts[-1].command(sys.executable, "-c", CONNECT, address, certificates),
        cwd=folder, capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    return done.stdout.strip() or done.stderr


@pytest.mark.parametrize(
    ("protocol", "certificates", "expected"),
    [("tls", "tls", str(N_WORKERS)), ("tls", "other", "refused:"), ("tcp", "", "refused:")],
)
def test_only_certificates_of_the_authority_enter(
    cluster: list[Host], folder: Path, protocol: str, certificates: str, expected: str
) -> None:
    assert run(folder, "./make_certificates.sh other client").returncode == 0
    assert who_enters(cluster, folder, certificates, protocol).startswith(expected)


def test_certificates_are_strict_private_and_never_replaced(folder: Path) -> None:
    tls = folder / "tls"
    for name in ("node", "client"):
        done = run(folder, f"openssl verify -x509_strict -CAfile tls/ca.pem tls/{name}.pem")
        assert done.returncode == 0, done.stderr
    assert {path.stat().st_mode & 0o077 for path in (tls, *tls.iterdir())} == {0}
    before = {path: path.read_bytes() for path in tls.glob("*.pem")}
    assert run(folder, "./make_certificates.sh tls third node").returncode == 73
    assert run(folder, "./make_certificates.sh tls ../node").returncode == 2
    assert run(folder, "./make_certificates.sh tls").returncode == 2
    assert {path: path.read_bytes() for path in tls.glob("*.pem")} == before
    assert run(folder, "./make_certificates.sh tls third").returncode == 0
    assert run(folder, "openssl verify -CAfile tls/ca.pem tls/third.pem").returncode == 0
