"""A real Slurm of two nodes on this machine, under the account that runs the tests."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import HANG, wait_until
from jobs import DEPLOY, Processes

FILES = DEPLOY / "slurm"
# A scheduler, dask-em, and two workers.
SMALL = ["--ntasks=4", "--nodes=2", "--mem-per-cpu=1G", "--time=10"]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
NODES = ("n1", "n2")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 RealMemory=16000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]} CPUs=8 RealMemory=16000
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=60 State=UP
PartitionName=urgent Nodes=n1,n2 MaxTime=60 State=UP PriorityTier=10
"""


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


@dataclass(frozen=True)
class Slurm:
    """Commands to a running Slurm."""

    environment: dict[str, str]

    def run(self, *command: object, **options: Any) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(
            list(map(str, command)), env=self.environment, capture_output=True, text=True,
            timeout=HANG, **options,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return str(done.stdout)

    def submit(self, *arguments: object, cwd: Path) -> str:
        """The number of a new job."""
        return self.run("sbatch", "--parsable", *arguments, cwd=cwd).strip()

    def about(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says."""
        words = self.run("scontrol", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_for(self, job: str, *states: str) -> None:
        """Until the job is in one of the states."""
        wait_until(lambda: self.about(job)["JobState"] in states)

    def jobs(self) -> list[str]:
        """Numbers of the jobs that run."""
        return self.run("squeue", "--noheader", "--states=RUNNING", "--format=%A").split()


@contextmanager
def running_slurm(folder: Path) -> Iterator[Slurm]:
    """Start munge and Slurm, wait for both nodes, and stop them at the end."""
    absent = [p for p in PROGRAMS if shutil.which(p, path=PATH) is None]
    if absent:
        pytest.skip(f"this machine has no {', '.join(absent)}: apt-get install slurm-wlm munge")
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    (folder / "state").mkdir()
    text = CONFIGURATION.format(
        host=socket.gethostname(), user=getpass.getuser(), folder=folder, ports=free_ports(4)
    )
    (folder / "slurm.conf").write_text(text)
    environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}
    slurm = Slurm(environment)
    processes = Processes(folder)
    options = {"env": environment, "cwd": folder}
    try:
        processes.start(
            "munged", "munged", "--foreground", "--force", f"--key-file={key}",
            f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
            f"--seed-file={folder}/munged.seed", **options,
        )  # fmt: skip
        wait_until(lambda: (folder / "munge.socket").exists())
        processes.start("ctld", "slurmctld", "-D", **options)
        for node in NODES:
            processes.start(node, "slurmd", "-D", "-N", node, **options)
        wait_until(lambda: up(slurm))
        yield slurm
        # What a failed test left would outlive the daemons.
        slurm.run("scancel", "--user", getpass.getuser())
        wait_until(lambda: not slurm.jobs())
    finally:
        processes.stop()


def up(slurm: Slurm) -> bool:
    """Whether both nodes wait for work."""
    done = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--partition=all", "--format=%T"],
        env=slurm.environment, capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    return done.stdout.split() == ["idle"] * len(NODES)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Slurm as a user meets it, with the programs of this environment."""
    pytest.importorskip("dask_jobqueue", reason="pip install dask-jobqueue")
    with running_slurm(tmp_path_factory.mktemp("slurm")) as slurm:
        python = Path(sys.executable).parent
        slurm.environment["PATH"] = f"{python}{os.pathsep}{slurm.environment['PATH']}"
        slurm.environment["INTERFACE"] = "lo"
        yield slurm


def copy_files(folder: Path) -> Path:
    """A user's folder with a copy of the job files."""
    for file in FILES.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    return folder


def log_of(folder: Path, number: str) -> str:
    """What a job printed so far."""
    log = folder / f"dask-em-{number}.log"
    return log.read_text() if log.exists() else ""
