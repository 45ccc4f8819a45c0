"""deploy/slurm on a real Slurm of two nodes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import HANG, wait_until
from jobs import DASK_EM, UNDER_WAY, Job, Processes, block
from real_slurm import FILES, SMALL, Slurm, copy_files, log_of

pytestmark = pytest.mark.deploy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with a copy of the job files."""
    return copy_files(tmp_path)


def encrypted(slurm: Slurm, folder: Path) -> Slurm:
    """Submits jobs as the README says under "Encrypted"."""
    tls = folder / "tls"
    maker = FILES.parent / "hosts" / "make_certificates.sh"
    subprocess.run([maker, tls, "node"], check=True, timeout=HANG)
    script = f"{block(FILES / 'README.md', 'encrypted')}\nenv -0"
    done = subprocess.run(
        ["bash", "-euc", script], env={**slurm.environment, "TLS": str(tls)},
        capture_output=True, text=True, check=True, timeout=HANG,
    )  # fmt: skip
    return Slurm(dict(line.split("=", 1) for line in done.stdout.split("\0") if line))


def test_an_encrypted_job_gives_the_bits(
    slurm: Slurm, folder: Path, job: Job, need: Callable[..., None]
) -> None:
    need("openssl")
    arguments = [*SMALL, "fit.sbatch", *job.fit(folder / "m.npz")]
    user = encrypted(slurm, folder)
    user.environment["DASK_LOGGING__DISTRIBUTED"] = "info"
    number = user.submit(*arguments, cwd=folder)
    slurm.wait_for(number, "COMPLETED", "FAILED")
    assert slurm.about(number)["ExitCode"] == "0:0", log_of(folder, number)
    assert "tls://" in log_of(folder, number)
    assert "tcp://" not in log_of(folder, number)
    job.check(folder / "m.npz")


def test_a_worker_killed_is_replaced_and_the_bits_stay(
    slurm: Slurm, folder: Path, job: Job
) -> None:
    number = slurm.submit(*SMALL, "fit.sbatch", *job.fit(folder / "m.npz", long=True), cwd=folder)
    wait_until(lambda: UNDER_WAY in log_of(folder, number))
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


def passes(log: str) -> list[int]:
    """Numbers of the EM passes that a log tells of."""
    return [int(number) for number in re.findall(r" em pass (\d+):", log)]


@pytest.mark.parametrize("how", ["time limit", "preemption", "scontrol requeue"])
def test_a_job_that_is_put_back_goes_on_from_its_checkpoint(
    how: str, slurm: Slurm, folder: Path, job: Job
) -> None:
    model = folder / "m.npz"
    number = slurm.submit(*SMALL, "fit.sbatch", *job.fit(model, long=True), cwd=folder)
    wait_until(lambda: UNDER_WAY in log_of(folder, number))
    if how == "time limit":
        # What Slurm does when --signal=TERM comes due: every step, not the batch script.
        slurm.run("scancel", "--signal=TERM", number)
    elif how == "preemption":
        urgent = ["--partition=urgent", "--nodes=2", "--exclusive", "--wrap=sleep 1"]
        slurm.submit(*urgent, cwd=folder)
    else:
        slurm.run("scontrol", "requeue", number)
    wait_until(lambda: slurm.about(number)["Restarts"] == "1")
    slurm.wait_for(number, "COMPLETED", "FAILED")

    log = log_of(folder, number)
    assert slurm.about(number)["ExitCode"] == "0:0", log
    assert slurm.about(number)["Restarts"] == "1"
    before, resumed, after = log.partition("resuming from ")
    assert f"Error: interrupted by SIGTERM; what was done is kept in {folder}/.m.npz." in before
    assert resumed, log
    # The signal lost no pass that was made, and none was made twice.
    assert passes(before)[-1] >= 5
    assert passes(before) + passes(after) == list(range(1, 41))
    assert re.search(r"done: .* resumed after \d+ passes", after)
    assert "Traceback" not in log
    job.check(model, long=True)
    assert (folder / "m.html").read_text().startswith("<!DOCTYPE html>")
    # Neither checkpoint nor lock nor scheduler file is left.
    assert {p.name for p in folder.iterdir()} - {p.name for p in FILES.iterdir()} <= {
        "m.npz", "m.html", f"dask-em-{number}.log", "points.zarr",
    } | {p.name for p in folder.glob("slurm-*.out")}  # fmt: skip


def test_a_job_that_is_put_back_with_its_model_written_draws_the_report(
    slurm: Slurm, folder: Path, job: Job
) -> None:
    number = slurm.submit(*SMALL, "fit.sbatch", *job.fit(folder / "m.npz"), cwd=folder)
    wait_until((folder / "m.npz").exists)
    slurm.run("scontrol", "requeue", number)
    wait_until(lambda: slurm.about(number)["Restarts"] == "1")
    slurm.wait_for(number, "COMPLETED", "FAILED")
    assert slurm.about(number)["ExitCode"] == "0:0", log_of(folder, number)
    job.check(folder / "m.npz")
    assert (folder / "m.html").exists()


def test_exit_75_goes_back_to_the_queue_and_other_codes_do_not(slurm: Slurm, folder: Path) -> None:
    (folder / "dask_em_in_slurm.py").write_text(
        "import os, sys; sys.exit(75 if 'SLURM_RESTART_COUNT' not in os.environ else 65)"
    )
    number = slurm.submit(*SMALL, "fit.sbatch", cwd=folder)
    wait_until(lambda: slurm.about(number)["Restarts"] == "1")
    slurm.wait_for(number, "COMPLETED", "FAILED")
    assert slurm.about(number)["ExitCode"] == "65:0"
    assert slurm.about(number)["Restarts"] == "1"


def start_cluster(
    slurm: Slurm, folder: Path, processes: Processes, *options: object, **variables: str
) -> subprocess.Popen[bytes]:
    """Run cluster.py, whose jobs are small, until it has its first."""
    cluster = processes.start(
        "cluster", sys.executable, "cluster.py", "--cores", 1, "--memory", "1GiB", "--minutes", 20,
        "--interface", "lo", *options, cwd=folder, env={**slurm.environment, **variables},
    )  # fmt: skip
    wait_until(lambda: bool(slurm.jobs()))
    return cluster


def end(cluster: subprocess.Popen[bytes], slurm: Slurm, folder: Path, log: Path) -> None:
    """The jobs of a cluster end with it, and so does its file."""
    cluster.terminate()
    assert cluster.wait(HANG) == 0, log.read_text()
    wait_until(lambda: not slurm.jobs())
    assert not (folder / "scheduler.json").exists()


def test_a_standing_cluster_encrypted_survives_scancel(
    slurm: Slurm, folder: Path, job: Job, processes: Processes, need: Callable[..., None]
) -> None:
    need("openssl")
    variables = encrypted(slurm, folder).environment
    cluster = start_cluster(slurm, folder, processes, "--minimum", 2, "--maximum", 3, **variables)
    wait_until(lambda: len(slurm.jobs()) >= 2)
    fit = processes.start(
        "fit", *DASK_EM, *job.fit(folder / "m.npz", long=True),
        "--scheduler-file", folder / "scheduler.json", "--require-tls", env=variables,
    )  # fmt: skip
    processes.wait_for("fit", UNDER_WAY)
    first = slurm.jobs()[0]
    slurm.run("scancel", first)
    assert fit.wait(HANG) == 0, processes.log("fit").read_text()
    job.check(folder / "m.npz", long=True)
    wait_until(lambda: len([n for n in slurm.jobs() if n != first]) >= 2)
    end(cluster, slurm, folder, processes.log("cluster"))


def test_a_standing_cluster_grows_with_the_work_and_shrinks_after_it(
    slurm: Slurm, folder: Path, job: Job, processes: Processes
) -> None:
    # By default Dask adds a worker for every five seconds of work at hand.
    soon = {"DASK_DISTRIBUTED__ADAPTIVE__TARGET_DURATION": "100ms"}
    cluster = start_cluster(slurm, folder, processes, "--minimum", 1, "--maximum", 2, **soon)
    assert len(slurm.jobs()) == 1
    endless = ["--algorithm", "em", "--tol", "0", "--max-iter", "100000"]
    where = ["--scheduler-file", folder / "scheduler.json"]
    fit = processes.start("fit", *DASK_EM, *job.fit(folder / "m.npz"), *endless, *where)
    wait_until(lambda: len(slurm.jobs()) == 2)
    assert fit.poll() is None, processes.log("fit").read_text()
    fit.terminate()
    assert fit.wait(HANG) == 75, processes.log("fit").read_text()
    wait_until(lambda: len(slurm.jobs()) == 1)
    end(cluster, slurm, folder, processes.log("cluster"))
