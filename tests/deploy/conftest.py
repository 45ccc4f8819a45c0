"""What several ways of running need: the job, daemons, programs, Slurm, hosts, the image."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from by_hand import hosts  # noqa: F401
from containers import image  # noqa: F401
from helpers import HANG, blobs, write_zarr
from jobs import DASK_EM, Job, K, Processes
from real_slurm import slurm  # noqa: F401


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The job, done on a LocalCluster."""
    X, _, _ = blobs(400_000, 8, K, seed=1, apart=0.8)
    job = Job(tmp_path_factory.mktemp("job") / "points.zarr")
    write_zarr(job.data, X, 50_000)
    for long in (False, True):
        command = [*DASK_EM, *job.fit(job.expected(long), long), "--workers", "2"]
        subprocess.run(command, check=True, timeout=HANG)
    return job


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Daemons of a test, stopped at its end."""
    started = Processes(tmp_path)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def need() -> Callable[..., None]:
    """Skips where the machine lacks a program."""

    def need(*programs: str) -> None:
        absent = [p for p in programs if shutil.which(p) is None]
        if absent:
            pytest.skip(f"this machine has no {', '.join(absent)}")

    return need
