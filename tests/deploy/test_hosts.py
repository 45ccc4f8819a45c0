"""The commands of deploy/hosts/README.md on network namespaces as hosts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import DEPLOY, UNDER_WAY, Job, Processes, block
from hosts import Host, network

pytestmark = pytest.mark.deploy

README = DEPLOY / "hosts" / "README.md"
N_WORKERS = 2


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    """A scheduler's, workers', and one to start jobs from."""
    with network(N_WORKERS + 2) as hosts:
        yield hosts


@pytest.fixture
def folder(tmp_path: Path, need: Callable[..., None]) -> Path:
    """A folder with certificates, as on every host."""
    need("openssl")
    shutil.copy(DEPLOY / "hosts" / "make_certificates.sh", tmp_path)
    run(tmp_path, block(README, "certificates"))
    return tmp_path


def run(folder: Path, script: str, **variables: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-eu", "-c", script], cwd=folder, env=environment(**variables),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def environment(**variables: object) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quick = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s", "CORES": "1", "MEMORY": "1GiB"}
    return {**os.environ, "PATH": path, **quick, **{k: str(v) for k, v in variables.items()}}


@pytest.fixture
def cluster(hosts: list[Host], folder: Path, processes: Processes) -> list[Host]:
    """Scheduler and workers by the commands of the README."""
    start(hosts, 0, "scheduler", folder, processes)
    processes.wait_for("host0", "Scheduler at:")
    for i in range(1, N_WORKERS + 1):
        start(hosts, i, "worker", folder, processes)
        processes.wait_for(f"host{i}", "Registered to:")
    return hosts


def start(
    hosts: list[Host], i: int, role: str, folder: Path, processes: Processes
) -> subprocess.Popen[bytes]:
    variables = environment(SCHEDULER=hosts[0].address, HERE=hosts[i].address)
    # exec: what is stopped at the end is Dask and not a shell around it.
    script = block(README, role).replace("dask ", "exec dask ", 1)
    command = hosts[i].command("bash", "-eu", "-c", script)
    return processes.start(f"host{i}", *command, cwd=folder, env=variables)


def job_of(job: Job, hosts: list[Host], model: Path, *options: str) -> tuple[list[str], dict]:
    script = f"{block(README, 'job')} {' '.join(options)}"
    variables = environment(DATA=job.data, MODEL=model, SCHEDULER=hosts[0].address)
    return hosts[-1].command("bash", "-eu", "-c", script), variables


def test_the_commands_give_the_bits_of_a_local_cluster(
    cluster: list[Host], folder: Path, job: Job
) -> None:
    command, variables = job_of(job, cluster, folder / "m.npz")
    done = subprocess.run(
        command, env=variables, cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    job.check(folder / "m.npz")


def test_a_host_that_is_cut_off_does_not_change_the_bits(
    cluster: list[Host], folder: Path, job: Job, processes: Processes
) -> None:
    command, variables = job_of(job, cluster, folder / "m.npz", *job.long_options)
    fit = processes.start("fit", *command, env=variables, cwd=folder)
    processes.wait_for("fit", UNDER_WAY)
    cluster[1].cut_off()
    try:
        assert fit.wait(120) == 0, processes.log("fit").read_text()
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
        cwd=folder, capture_output=True, text=True, timeout=60,
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
