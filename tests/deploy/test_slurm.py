"""deploy/slurm on a real Slurm of two nodes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import DASK_EM, UNDER_WAY, Job, Processes
from helpers import wait_until
from real_slurm import Slurm, running_slurm

pytest.importorskip("dask_jobqueue", reason="pip install dask-jobqueue")
pytestmark = pytest.mark.deploy

FILES = Path(__file__).parents[2] / "deploy" / "slurm"
N_WORKERS = 2
SMALL = ["--ntasks=4", "--nodes=2", "--mem-per-cpu=1G", "--time=10"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with running_slurm(tmp_path_factory.mktemp("slurm")) as slurm:
        python = Path(sys.executable).parent
        slurm.environment["PATH"] = f"{python}{os.pathsep}{slurm.environment['PATH']}"
        slurm.environment["INTERFACE"] = "lo"
        yield slurm


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with a copy of the job files."""
    for file in FILES.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    return tmp_path


def log_of(folder: Path, number: str) -> str:
    log = folder / f"dask-em-{number}.log"
    return log.read_text() if log.exists() else ""


def test_a_job_gives_the_bits_of_a_local_cluster(slurm: Slurm, folder: Path, job: Job) -> None:
    number = slurm.submit(*SMALL, "fit.sbatch", *job.fit(folder / "m.npz"), cwd=folder)
    slurm.wait_for(number, "COMPLETED", "FAILED")
    assert slurm.about(number)["ExitCode"] == "0:0", log_of(folder, number)
    job.check(folder / "m.npz")
    assert not list(folder.glob("scheduler-*.json"))


def test_an_encrypted_job_gives_the_bits(
    slurm: Slurm, folder: Path, job: Job, need: Callable[..., None]
) -> None:
    need("openssl")
    tls = folder / "tls"
    maker = FILES.parent / "hosts" / "make_certificates.sh"
    subprocess.run([maker, tls, "node"], check=True, timeout=60)
    prefix = "DASK_DISTRIBUTED__COMM__"
    keys = {f"{prefix}REQUIRE_ENCRYPTION": "true", f"{prefix}TLS__CA_FILE": f"{tls}/ca.pem"}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        keys[f"{prefix}TLS__{role}__CERT"] = f"{tls}/node.pem"
        keys[f"{prefix}TLS__{role}__KEY"] = f"{tls}/node-key.pem"
    encrypted = Slurm({**slurm.environment, **keys})
    number = encrypted.submit(*SMALL, "fit.sbatch", *job.fit(folder / "m.npz"), cwd=folder)
    slurm.wait_for(number, "COMPLETED", "FAILED")
    assert slurm.about(number)["ExitCode"] == "0:0", log_of(folder, number)
    assert "tls://" in log_of(folder, number)
    assert "tcp://" not in log_of(folder, number)
    job.check(folder / "m.npz")


def test_a_worker_killed_is_replaced_and_the_bits_stay(
    slurm: Slurm, folder: Path, job: Job
) -> None:
    number = slurm.submit(*SMALL, "fit.sbatch", *job.fit(folder / "m.npz", long=True), cwd=folder)
    wait_until(lambda: UNDER_WAY in log_of(folder, number), 90)
    os.kill(worker_of(number), signal.SIGKILL)
    slurm.wait_for(number, "COMPLETED", "FAILED")
    assert slurm.about(number)["ExitCode"] == "0:0", log_of(folder, number)
    assert "Restarting worker" in log_of(folder, number)
    job.check(folder / "m.npz", long=True)


def worker_of(number: str) -> int:
    """A process of the job that computes, below the nanny of its task."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes().split(b"\0")
            started_by = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        ours = {f"SLURM_JOB_ID={number}".encode(), b"SLURM_PROCID=2"} <= set(variables)
        if ours and b"spawn_main" in started_by:
            return int(path.parent.name)
    raise AssertionError(f"job {number} has no worker")


def test_a_requeued_job_gives_the_bits(slurm: Slurm, folder: Path, job: Job) -> None:
    number = slurm.submit(*SMALL, "fit.sbatch", *job.fit(folder / "m.npz", long=True), cwd=folder)
    wait_until(lambda: UNDER_WAY in log_of(folder, number), 90)
    slurm.run("scontrol", "requeue", number)
    wait_until(lambda: slurm.about(number)["Restarts"] == "1")
    slurm.wait_for(number, "COMPLETED", "FAILED", seconds=120)
    assert slurm.about(number)["ExitCode"] == "0:0", log_of(folder, number)
    # Two runs wrote into one log.
    assert log_of(folder, number).count("Registered to") > N_WORKERS
    job.check(folder / "m.npz", long=True)


def test_exit_75_goes_back_to_the_queue_and_other_codes_do_not(slurm: Slurm, folder: Path) -> None:
    (folder / "dask_em_in_slurm.py").write_text(
        "import os, sys; sys.exit(75 if 'SLURM_RESTART_COUNT' not in os.environ else 65)"
    )
    number = slurm.submit(*SMALL, "fit.sbatch", cwd=folder)
    wait_until(lambda: slurm.about(number)["Restarts"] == "1")
    slurm.wait_for(number, "COMPLETED", "FAILED", seconds=60)
    assert slurm.about(number)["ExitCode"] == "65:0"
    assert slurm.about(number)["Restarts"] == "1"


def test_the_time_limit_reaches_dask_em_alone(slurm: Slurm, folder: Path, job: Job) -> None:
    # Stands for the client's own handler: whether the other tasks are still there then.
    program = (folder / "dask_em_in_slurm.py").read_text()
    handler = (
        "import signal, sys, time\n"
        "def stop(*_):\n"
        "    with Client(scheduler_file=next(Path().glob('scheduler-*.json'))) as client:\n"
        "        print('workers at the signal:', len(client.scheduler_info()['workers']))\n"
        "    sys.exit(65)\n"
        "def dask_em(arguments):\n"
        "    with Client(scheduler_file=arguments[-1]) as client:\n"
        f"        client.wait_for_workers({N_WORKERS}, timeout=60)\n"
        "    signal.signal(signal.SIGTERM, stop)\n"
        "    print('waiting', flush=True)\n"
        "    time.sleep(100)\n"
    )
    (folder / "dask_em_in_slurm.py").write_text(
        program.replace("\n# Of a task's memory", f"\n{handler}\n# Of a task's memory")
    )
    number = slurm.submit(*SMALL, "fit.sbatch", *job.fit(folder / "m.npz"), cwd=folder)
    wait_until(lambda: "waiting" in log_of(folder, number), 90)
    # What Slurm does when --signal=TERM comes due: every step, not the batch script.
    slurm.run("scancel", "--signal=TERM", number)
    slurm.wait_for(number, "COMPLETED", "FAILED", seconds=60)
    assert slurm.about(number)["ExitCode"] == "65:0", log_of(folder, number)
    assert f"workers at the signal: {N_WORKERS}" in log_of(folder, number)


def test_a_standing_cluster_survives_scancel(
    slurm: Slurm, folder: Path, job: Job, processes: Processes
) -> None:
    cluster = processes.start(
        "cluster", sys.executable, "cluster.py", "--minimum", 2, "--maximum", 3, "--cores", 1,
        "--memory", "1GiB", "--minutes", 20, "--interface", "lo",
        cwd=folder, env=slurm.environment,
    )  # fmt: skip
    wait_until(lambda: len(slurm.jobs()) >= 2, 60)
    where = ["--scheduler-file", folder / "scheduler.json"]
    fit = processes.start("fit", *DASK_EM, *job.fit(folder / "m.npz", long=True), *where)
    processes.wait_for("fit", UNDER_WAY)
    first = slurm.jobs()[0]
    slurm.run("scancel", first)
    assert fit.wait(120) == 0, processes.log("fit").read_text()
    job.check(folder / "m.npz", long=True)
    wait_until(lambda: len([n for n in slurm.jobs() if n != first]) >= 2, 60)
    cluster.terminate()
    assert cluster.wait(60) == 0, processes.log("cluster").read_text()
    wait_until(lambda: not slurm.jobs(), 60)
    assert not (folder / "scheduler.json").exists()
