"""Started by srun in every task of a job: the first is the Dask scheduler, the second runs
dask-em with the arguments given here and draws the report of a fit, all others are workers."""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask
from dask_jobqueue.slurm import SLURMRunner
from distributed import Client, Security

from dask_em.backends.dask.recovery import cluster_settings
from dask_em.cli.main import main as dask_em
from dask_em.storage.urls import is_url

# Of a task's memory: the nanny, which watches the worker, lives in the rest.
SHARE = 0.9
WAIT_SECONDS = 300
# Run in every worker: one that has ended well says that it died, with a traceback.
QUIET = "import logging; logging.getLogger('distributed.nanny').setLevel(logging.CRITICAL)"
# Exit codes of dask-em: the output is taken; stopped before the end.
TAKEN, STOPPED = 73, 75


def encrypted() -> bool:
    """Whether Dask's configuration names certificates."""
    return bool(dask.config.get("distributed.comm.tls.ca-file", None))


def network() -> dict[str, Any]:
    """Where to listen, and how. What is plain HTTP stays on the node."""
    return {
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
        "interface": os.environ.get("INTERFACE"),
        "protocol": "tls" if encrypted() else "tcp",
    }


def worker() -> dict[str, Any]:
    """A worker as large as its task."""
    threads = int(os.environ.get("SLURM_CPUS_PER_TASK", 1))
    mebibytes = os.environ.get("SLURM_MEM_PER_CPU")
    limit = int(SHARE * int(mebibytes) * threads * 2**20) if mebibytes else "auto"
    return {
        "nthreads": threads,
        "memory_limit": limit,
        # One that comes when the others have gone must not keep the job.
        "death_timeout": 60,
        "preload": [QUIET],
        # Zarr's own threads would compete with Dask's.
        "env": {"ZARR_THREADING__MAX_WORKERS": "2"},
        **network(),
    }


def exit_code(arguments: list[str]) -> int:
    """Run dask-em."""
    try:
        dask_em(arguments, prog_name="dask-em")
    except SystemExit as e:
        return int(e.code or 0)
    return 0


def run(arguments: list[str], where: list[str], restarted: bool) -> int:
    """Run a command of dask-em, after a fit draw its report too; the exit code of both."""
    code = exit_code([*arguments, *where])
    if code not in (0, TAKEN):
        return code
    command, given = parsed(arguments)
    output = given.get("output") or given.get("dest", "")
    if code == TAKEN:
        if not restarted or given["overwrite"] or not Path(output).exists():
            return code
        print(f"{output} was written before this job went back to the queue", flush=True)
    if command != "fit":
        return 0
    if find_spec("matplotlib") is None:
        print("no report: it needs matplotlib, pip install 'dask-em[plot]'", flush=True)
        return 0
    page = Path(output.rpartition("/")[2] if is_url(output) else output).with_suffix(".html")
    words = ["report", output, str(page), "--data", given["data"], "--overwrite", *where]
    return exit_code(words)


def parsed(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The name of a command, and what it was given."""
    name = arguments[0]
    return name, dask_em.commands[name].make_context(name, arguments[1:]).params


def main() -> None:
    """Run this task's part; the part of dask-em ends with its exit code."""
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    # Slurm tells every task that time is up. Only dask-em has something to save, and it needs
    # the others for that; they leave when it is done.
    client = os.environ["SLURM_PROCID"] == "1"
    signal.signal(signal.SIGTERM, (lambda *_: sys.exit(STOPPED)) if client else signal.SIG_IGN)
    with (
        dask.config.set(cluster_settings()),
        SLURMRunner(
            # A job that was requeued has the number that it had, and perhaps the file of its
            # first run.
            scheduler_file=f"scheduler-{{job_id}}-{restarts}.json",
            scheduler_options=network(),
            worker_class="distributed.Nanny",
            worker_options=worker(),
        ) as runner,
    ):
        # The runner asks the scheduler to end, but without certificates unless told.
        runner.scheduler_comm.connection_args = Security().get_connection_args("client")
        file = Path(runner.scheduler_file)
        where = ["--scheduler-file", str(file), *(["--require-tls"] if encrypted() else [])]
        try:
            with Client(scheduler_file=str(file)) as connection:
                connection.wait_for_workers(1, timeout=WAIT_SECONDS)
            code = run(sys.argv[1:], where, restarted=restarts != "0")
        except TimeoutError:
            print(f"no worker came within {WAIT_SECONDS} s", flush=True)
            code = STOPPED
        finally:
            file.unlink(missing_ok=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
