"""Started by srun in every task of a job: the first is the Dask scheduler, the second runs
dask-em with the arguments given here, all others are workers."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import dask
from dask_jobqueue.slurm import SLURMRunner
from distributed import Client, Security

from dask_em.cli import main as dask_em

# Of a task's memory: the nanny, which watches the worker, lives in the rest.
SHARE = 0.9
WAIT_SECONDS = 300


def network() -> dict[str, Any]:
    """Where to listen: encrypted if Dask's configuration names certificates."""
    encrypted = dask.config.get("distributed.comm.tls.ca-file", None)
    return {
        "interface": os.environ.get("INTERFACE"),
        "protocol": "tls" if encrypted else "tcp",
    }


def worker() -> dict[str, Any]:
    """A worker as large as its task."""
    threads = int(os.environ.get("SLURM_CPUS_PER_TASK", 1))
    mebibytes = os.environ.get("SLURM_MEM_PER_CPU")
    limit = int(SHARE * int(mebibytes) * threads * 2**20) if mebibytes else "auto"
    return {
        "nthreads": threads,
        "memory_limit": limit,
        "dashboard": False,
        # One that comes when the others have gone must not keep the job.
        "death_timeout": 60,
        # Zarr's own threads would compete with Dask's.
        "env": {"ZARR_THREADING__MAX_WORKERS": "2"},
        **network(),
    }


def main() -> None:
    """Run this task's part; the part of dask-em ends with its exit code."""
    if os.environ["SLURM_PROCID"] != "1":
        # Slurm tells every task that time is up. Only dask-em has something to save, and it
        # needs the others for that; they leave when it is done.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A job that was requeued has the number that it had, and perhaps the file of its first run.
    name = f"scheduler-{{job_id}}-{os.environ.get('SLURM_RESTART_COUNT', '0')}.json"
    with SLURMRunner(
        scheduler_file=name,
        scheduler_options={"dashboard": False, **network()},
        worker_class="distributed.Nanny",
        worker_options=worker(),
    ) as runner:
        # The runner asks the scheduler to end, but without certificates unless told.
        runner.scheduler_comm.connection_args = Security().get_connection_args("client")
        file = Path(runner.scheduler_file)
        try:
            with Client(scheduler_file=str(file)) as client:
                client.wait_for_workers(1, timeout=WAIT_SECONDS)
            dask_em([*sys.argv[1:], "--scheduler-file", str(file)])
        finally:
            file.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
