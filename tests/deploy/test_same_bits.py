"""One job, many ways of running: each gives the same model as the LocalCluster, bit for bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from by_hand import start_all, the_job, with_certificates
from containers import FILES, for_everybody, installed, run
from helpers import HANG
from jobs import DASK_EM, Job, K, Processes
from object_stores import environment, s3_server
from operated import play
from real_slurm import SMALL, copy_files, free_ports, log_of

from dask_em.storage.object_store import open_store

pytestmark = pytest.mark.deploy


@dataclass(frozen=True)
class Here:
    """What a way of running is given.

    Attributes
    ----------
    fixture : callable
        Starts a Slurm or hosts, builds the image.
    """

    job: Job
    folder: Path
    processes: Processes
    fixture: Callable[[str], Any]


def on_slurm(here: Here) -> object:
    slurm, folder = here.fixture("slurm"), copy_files(here.folder)
    arguments = [*SMALL, "fit.sbatch", *here.job.fit(folder / "m.npz")]
    number = slurm.submit(*arguments, cwd=folder)
    slurm.wait_for(number, "COMPLETED", "FAILED")
    assert slurm.about(number)["ExitCode"] == "0:0", log_of(folder, number)
    return folder / "m.npz"


def on_hosts_with_tls(here: Here) -> object:
    hosts, folder = here.fixture("hosts"), with_certificates(here.folder)
    start_all(hosts, folder, here.processes)
    command, variables = the_job(here.job, hosts, folder / "m.npz")
    done = subprocess.run(
        command, env=variables, cwd=folder, capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0, done.stderr
    return folder / "m.npz"


# No network of their own: the containers share this machine's.
ONE_NETWORK = """
services:
  scheduler: {network_mode: host}
  worker: {network_mode: host}
  job: {network_mode: host}
"""


def in_containers(here: Here) -> object:
    image, folders = here.fixture("image"), world(here)
    (here.folder / "host.yaml").write_text(ONE_NETWORK)
    own = {"IMAGE": image, "K": str(K), "SCHEDULER": "127.0.0.1"}
    variables = {**os.environ, **folders, **own}
    project = f"em{os.getpid()}"
    compose = [installed("podman-compose"), "-p", project, "-f", str(FILES / "compose.yaml"),
               "-f", str(here.folder / "host.yaml")]  # fmt: skip
    up = ["up", "--scale", "worker=2", "--exit-code-from", "job"]
    try:
        done = here.processes.start("compose", *compose, *up, env=variables)
        assert done.wait(HANG) == 0, here.processes.log("compose").read_text()
    finally:
        here.processes.stop()
        run(*compose, "down", "--timeout", "5", env=variables)
        # `down` forgets the workers that --scale added.
        ours = run("podman", "ps", "-aq", "--filter", f"name=^{project}_").split()
        run("podman", "rm", "--force", "--depend", "--ignore", *ours, "none")
    return Path(folders["OUT"]) / "model.npz"


def world(here: Here) -> dict[str, str]:
    """Folders as containers need them: data that all may read, and one for the model."""
    data, out = here.folder / "data", here.folder / "out"
    shutil.copytree(here.job.data, data / "points.zarr")
    for_everybody(data)
    out.mkdir()
    out.chmod(0o777)
    return {"DATA": str(data), "OUT": str(out)}


def as_a_dask_job(here: Here) -> object:
    folders = world(here)
    play(here.fixture("image"), folders["DATA"], folders["OUT"], K, here.folder)
    return Path(folders["OUT"]) / "fit.npz"


@pytest.fixture
def lake(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a real S3 server, which this process and its children can open."""
    with s3_server("lake") as endpoint:
        for name, value in environment(endpoint).items():
            monkeypatch.setenv(name, value)
        yield "s3://lake"


def from_an_object_store(here: Here) -> object:
    """Data, checkpoint and model in S3; each worker is a process that knows the keys by itself."""
    lake, stored = here.fixture("lake"), zarr.open_array(str(here.job.data))
    zarr.create_array(
        open_store(f"{lake}/points.zarr", read_only=False),
        data=np.asarray(stored[:]), chunks=stored.chunks,
    )  # fmt: skip
    address = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    dask = Path(sys.executable).with_name("dask")
    here.processes.start("scheduler", dask, "scheduler", "--host", address, "--no-dashboard")
    here.processes.wait_for("scheduler", "Scheduler at:")
    for name in ("one", "two"):
        own = ["--nthreads", 1, "--memory-limit", "1GiB", "--no-dashboard"]
        here.processes.start(name, dask, "worker", address, *own)
        here.processes.wait_for(name, "Registered to:")
    command = here.job.fit(f"{lake}/m.npz", data=f"{lake}/points.zarr")
    fit = here.processes.start("fit", *DASK_EM, *command, "--scheduler", address)
    assert fit.wait(HANG) == 0, here.processes.log("fit").read_text()
    return f"{lake}/m.npz"


WAYS = [on_slurm, on_hosts_with_tls, in_containers, as_a_dask_job, from_an_object_store]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_job_gives_the_bits_of_a_local_cluster(
    way: Callable[[Here], object],
    job: Job,
    tmp_path: Path,
    processes: Processes,
    request: pytest.FixtureRequest,
) -> None:
    job.check(way(Here(job, tmp_path, processes, request.getfixturevalue)))
