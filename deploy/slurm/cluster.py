"""Keep a Dask cluster whose workers are Slurm jobs: as many as the work at hand deserves."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

import dask
from dask.utils import parse_bytes
from dask_jobqueue import SLURMCluster
from distributed import Security

from dask_em.backends.dask.recovery import cluster_settings

# Of a job's memory: the nannies, which watch the workers, live in the rest.
SHARE = 0.9


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scheduler-file", default="scheduler.json", help="written for dask-em")
    parser.add_argument("--minimum", type=int, default=1, help="jobs, also when idle")
    parser.add_argument("--maximum", type=int, default=16, help="jobs at most")
    parser.add_argument("--cores", type=int, default=4, help="of a job; a process each")
    parser.add_argument("--memory", default="16GiB", help="of a job")
    parser.add_argument("--minutes", type=int, default=60, help="that a job may run")
    parser.add_argument("--queue", help="partition")
    parser.add_argument("--account")
    parser.add_argument("--interface", help="network of the workers, as ib0")
    return parser.parse_args()


def main() -> None:
    """Run until SIGTERM or Ctrl-C; the jobs end with it."""
    asked = options()
    if asked.minutes < 10:
        raise SystemExit("--minutes: at least 10, for workers leave 5 minutes before Slurm's limit")
    memory = parse_bytes(asked.memory)
    encrypted = dask.config.get("distributed.comm.tls.ca-file", None)
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with (
        dask.config.set(cluster_settings()),
        SLURMCluster(
            cores=asked.cores,
            processes=asked.cores,
            memory=int(SHARE * memory),
            job_mem=f"{memory // 2**20}M",
            walltime=f"{asked.minutes // 60:02d}:{asked.minutes % 60:02d}:00",
            queue=asked.queue,
            account=asked.account,
            interface=asked.interface,
            security=Security() if encrypted else None,
            # A worker leaves of its own accord, and hands on what it holds, before Slurm ends it.
            worker_extra_args=f"--lifetime {asked.minutes - 5}m --lifetime-stagger 4m".split(),
            job_script_prologue=[
                "export ZARR_THREADING__MAX_WORKERS=2",
                "export DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP=15s",
            ],
            scheduler_options={"scheduler_file": asked.scheduler_file, "dashboard": False},
        ) as cluster,
    ):
        try:
            cluster.adapt(minimum_jobs=asked.minimum, maximum_jobs=asked.maximum)
            print(f"{cluster.scheduler_address}: see {asked.scheduler_file}", flush=True)
            signal.sigwait(signals)
        finally:
            Path(asked.scheduler_file).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
