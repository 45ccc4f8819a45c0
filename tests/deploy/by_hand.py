"""The commands of deploy/hosts/README.md, run on network namespaces as hosts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import HANG
from hosts import Host, network
from jobs import DEPLOY, Job, Processes, block

README = DEPLOY / "hosts" / "README.md"
N_WORKERS = 2


@pytest.fixture(scope="session")
def hosts() -> Iterator[list[Host]]:
    """A scheduler's, workers', and one to start jobs from."""
    with network(N_WORKERS + 2) as hosts:
        yield hosts


def environment(**variables: object) -> dict[str, str]:
    """Of a host with the programs of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    small = {"CORES": "1", "MEMORY": "1GiB"}
    return {**os.environ, "PATH": path, **small, **{k: str(v) for k, v in variables.items()}}


def run(folder: Path, script: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run commands of the README in this network."""
    return subprocess.run(
        ["bash", "-eu", "-c", script], cwd=folder, env=environment(**variables),
        capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip


def with_certificates(folder: Path) -> Path:
    """The folder, with certificates by the command of the README."""
    shutil.copy(DEPLOY / "hosts" / "make_certificates.sh", folder)
    run(folder, block(README, "certificates"))
    return folder


def start(
    hosts: list[Host], i: int, role: str, folder: Path, processes: Processes
) -> subprocess.Popen[bytes]:
    """Start a scheduler or worker by the README; its log is `host{i}`."""
    variables = environment(SCHEDULER=hosts[0].address, HERE=hosts[i].address)
    # exec: what is stopped at the end is Dask and not a shell around it.
    script = block(README, role).replace("dask ", "exec dask ", 1)
    command = hosts[i].command("bash", "-eu", "-c", script)
    return processes.start(f"host{i}", *command, cwd=folder, env=variables)


def start_all(hosts: list[Host], folder: Path, processes: Processes) -> None:
    """A scheduler on the first host and workers on those between it and the last."""
    start(hosts, 0, "scheduler", folder, processes)
    processes.wait_for("host0", "Scheduler at:")
    for i in range(1, N_WORKERS + 1):
        start(hosts, i, "worker", folder, processes)
        processes.wait_for(f"host{i}", "Registered to:")


def the_job(job: Job, hosts: list[Host], model: Path, *options: str) -> tuple[list[str], dict]:
    """The README's command of the job on the last host, and its environment."""
    script = f"{block(README, 'job')} {' '.join(options)}"
    variables = environment(DATA=job.data, MODEL=model, SCHEDULER=hosts[0].address)
    return hosts[-1].command("bash", "-eu", "-c", script), variables
