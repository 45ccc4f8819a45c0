"""Several hosts on one machine: network namespaces on a bridge, one address each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from jobs import DEPLOY, Job, Processes, block

README = DEPLOY / "hosts" / "README.md"
N_WORKERS = 2


@dataclass(frozen=True)
class Host:
    """A network namespace."""

    name: str
    address: str

    def command(self, *words: object) -> list[str]:
        """The command that runs `words` there."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def cut_off(self) -> None:
        """Drop what comes and goes; nobody is told."""
        rules = """
            table inet cut {
                chain in { type filter hook input priority 0; policy drop; iif lo accept; };
                chain out { type filter hook output priority 0; policy drop; oif lo accept; };
            }"""
        subprocess.run(self.command("nft", rules), check=True, timeout=20)

    def heal(self) -> None:
        """Let everything through again."""
        subprocess.run(self.command("nft", "delete table inet cut"), check=True, timeout=20)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=20)


@contextmanager
def network(n: int) -> Iterator[list[Host]]:
    """`n` hosts that see each other and nothing else."""
    if os.geteuid():
        pytest.skip("network namespaces need root")
    if absent := [p for p in ("ip", "nft") if shutil.which(p) is None]:
        pytest.skip(f"this machine has no {', '.join(absent)}: apt-get install iproute2 nftables")
    own = f"em{os.getpid()}"
    with ExitStack() as stack:

        def namespace(name: str) -> str:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
            ip("-n", name, "link", "set", "lo", "up")
            return name

        switch = namespace(f"{own}s")
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        hosts = []
        for i in range(1, n + 1):
            host = Host(namespace(f"{own}h{i}"), f"10.77.0.{i}")
            port = f"port{i}"
            ip("-n", switch, "link", "add", port, "type", "veth",
               "peer", "name", "net0", "netns", host.name)  # fmt: skip
            ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "net0")
            ip("-n", host.name, "link", "set", "net0", "up")
            hosts.append(host)
        yield hosts


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
        capture_output=True, text=True, timeout=120,
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
