"""The Dask cluster of a job: a running one, or a LocalCluster made for it."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.tuning import tuning
from ..errors import UsageError
from ..machine import usable_cpus, usable_memory
from ..runtime import current_job
from ..storage.urls import describe_url

if TYPE_CHECKING:
    from distributed import Client
    from distributed.security import Security

logger = logging.getLogger("dask_em")


@dataclass(frozen=True)
class ClusterOptions:
    """Options of the cluster to run on: a running one, or a LocalCluster made for the job.

    Attributes
    ----------
    scheduler, scheduler_file : str or None
        Address or file of a running scheduler.
    workers, threads : int or None
        Processes, and threads in each, of the LocalCluster; by default as many processes as
        keep the usable processors busy.
    memory_limit : str
        Of each worker: "2GiB", 0.25 of the usable memory, 0 for no limit, or "auto" for a share
        of it such that all workers together stay within.
    tls_ca_file, tls_cert, tls_key : str or None
        Certificates for a scheduler that speaks TLS.
    require_tls : bool
        Refuse any other scheduler.

    Examples
    --------
    >>> ClusterOptions(scheduler="tcp://127.0.0.1:8786").remote
    True
    >>> ClusterOptions(workers=2, memory_limit="1GiB").worker_limit
    1073741824
    """

    scheduler: str | None = None
    scheduler_file: str | None = None
    workers: int | None = None
    threads: int = 1
    memory_limit: str = "auto"
    tls_ca_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    require_tls: bool = False

    @property
    def remote(self) -> bool:
        """Whether a running cluster is used."""
        return bool(self.scheduler or self.scheduler_file)

    @property
    def chosen(self) -> bool:
        """Whether workers were asked for, whatever the data."""
        return self != ClusterOptions()

    @property
    def address(self) -> str:
        """The scheduler's address or file, without credentials."""
        return describe_url(self.scheduler) if self.scheduler else str(self.scheduler_file)

    @property
    def n_workers(self) -> int:
        """Processes of the LocalCluster."""
        return self.workers or max(1, usable_cpus() // self.threads)

    @property
    def worker_limit(self) -> int:
        """Bytes that a worker of the LocalCluster may hold, 0 for no limit."""
        from dask.utils import parse_bytes

        memory = usable_memory()
        if self.memory_limit == "auto":
            return int(memory * min(1.0, self.threads / usable_cpus(), 1.0 / self.n_workers))
        with suppress(ValueError):
            share = float(self.memory_limit)
            if 0 < share <= 1:
                # As in Dask.
                return int(share * memory)
        try:
            return min(int(parse_bytes(self.memory_limit)), memory)
        except ValueError as e:
            raise UsageError(f"--memory-limit {self.memory_limit}: {e}; try 2GiB") from e


@contextmanager
def workers_for(cluster: ClusterOptions, nbytes: int) -> Iterator[Client | None]:
    """Connect the workers of a job on data of so many bytes; small ones need threads alone.

    Yields
    ------
    Client or None
        None where this process computes.

    Raises
    ------
    UsageError
        As `cluster_client`.
    """
    if cluster.chosen or nbytes > tuning().plan.small_bytes:
        with cluster_client(cluster) as client:
            yield client
        return
    logger.info(
        "%.1f MB: no cluster started, threads of this process compute (--workers 1 starts one)",
        nbytes / 1e6,
    )
    yield None


@contextmanager
def cluster_client(cluster: ClusterOptions) -> Iterator[Client]:
    """Connect a Dask client, closed at the end; a LocalCluster is started and stopped.

    Raises
    ------
    UsageError
        No scheduler answers, its address holds credentials, or TLS is required and not spoken.
    """
    if cluster.require_tls and not (cluster.scheduler or "tls://").startswith("tls://"):
        raise UsageError(f"--require-tls: {cluster.address} does not begin with tls://")
    if set("@?#") & set(cluster.scheduler or ""):
        # Dask's own words would show what may be a password.
        raise UsageError(
            "--scheduler: an address holds no user, password, query or fragment; expected "
            "tcp://HOST:PORT or tls://HOST:PORT"
        )
    if cluster.require_tls and not cluster.remote:
        raise UsageError("--require-tls needs --scheduler tls://HOST:PORT or --scheduler-file")
    connected = _remote_client(cluster) if cluster.remote else _local_client(cluster)
    with connected as client, _lost_workers_counted(client):
        yield client


@contextmanager
def _remote_client(cluster: ClusterOptions) -> Iterator[Client]:
    from distributed import Client

    security = _security(cluster)
    try:
        # One that never connects would stay the client of this process, and passes wait for it.
        client = Client(
            cluster.scheduler,
            scheduler_file=cluster.scheduler_file,
            security=security,
            set_as_default=False,
        )
    except (OSError, TimeoutError, ValueError, RuntimeError, TypeError) as e:
        raise UsageError(f"no Dask scheduler answers at {cluster.address}: {e}") from e
    with client, client.as_current():
        yield client


@contextmanager
def _local_client(cluster: ClusterOptions) -> Iterator[Client]:
    if multiprocessing.current_process().daemon:
        # The cluster would try to start them again and again.
        raise UsageError(
            "a daemonic process starts no workers (those of multiprocessing.Pool are such): use "
            "threads, or a running cluster (--scheduler tcp://HOST:PORT)"
        )
    import dask.config
    from distributed import Client, LocalCluster

    from ..backends.dask.quiet import QuietFailures
    from ..backends.dask.recovery import cluster_settings, scheduler_extensions

    with (
        dask.config.set(cluster_settings()),
        LocalCluster(
            n_workers=cluster.n_workers,
            threads_per_worker=cluster.threads,
            memory_limit=cluster.worker_limit,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            # Zarr's own threads would compete with Dask's.
            env={"ZARR_THREADING__MAX_WORKERS": "2"},
            scheduler_kwargs={"extensions": scheduler_extensions()},
            silence_logs="ERROR",
        ) as local,
        Client(local) as client,
    ):
        client.register_plugin(QuietFailures())
        yield client


@contextmanager
def _lost_workers_counted(client: Client) -> Iterator[None]:
    """Count and log every worker that leaves without being asked to."""
    job = current_job()

    def seen(event: tuple[float, dict[str, Any]]) -> None:
        message = event[1]
        if message.get("action") == "remove-worker" and not message.get("expected"):
            job.lost_workers += 1
            logger.warning("worker %s was lost", message.get("worker"))

    client.subscribe_topic("all", seen)
    try:
        yield
    finally:
        # A scheduler that is gone tells nothing more; one that lives would tell a closed client.
        with suppress(Exception):
            client.unsubscribe_topic("all")


def _security(cluster: ClusterOptions) -> Security | None:
    """Return the requirements of the connection; None leaves it to Dask's own configuration."""
    from distributed.security import Security

    files = {
        "tls_ca_file": cluster.tls_ca_file,
        "tls_client_cert": cluster.tls_cert,
        "tls_client_key": cluster.tls_key,
    }
    given = {name: file for name, file in files.items() if file}
    for name, file in given.items():
        if not Path(file).is_file():
            option = name.replace("client_", "").replace("_", "-")
            raise UsageError(f"--{option} {file}: no such file")
    security = Security(require_encryption=True, **given) if given or cluster.require_tls else None
    if (cluster.scheduler or "").startswith("tls://"):
        # By the options, or else by Dask's configuration.
        found = (security or Security()).get_tls_config_for_role("client")
        if not (found["ca_file"] and found["cert"]):
            # Dask's client would say so too, and then not be able to close.
            raise UsageError(
                f"no Dask scheduler answers at {cluster.address}: there is no certificate to show; "
                "pass --tls-ca-file, --tls-cert and --tls-key"
            )
    return security


def scheduler_address(client: Client) -> str:
    """Return the address of the scheduler that a client is connected to."""
    assert client.scheduler is not None
    return str(client.scheduler.address)


@dataclass(frozen=True)
class Worker:
    """Threads of one worker, and bytes that it may hold (0 for no limit)."""

    threads: int
    limit: int


def workers_here(cluster: ClusterOptions) -> list[Worker]:
    """Return the workers that the LocalCluster will have."""
    return [Worker(cluster.threads, cluster.worker_limit)] * cluster.n_workers


def overcommitted(workers: Sequence[Worker]) -> str:
    """Return by how much the workers of a LocalCluster may pass the usable memory; empty if not.

    Examples
    --------
    >>> overcommitted([Worker(1, 2**20)])
    ''
    >>> overcommitted([Worker(1, 0)]).partition(":")[0]
    '1 local workers without a limit share the memory that may be used here'
    """
    memory, limits = usable_memory(), [worker.limit for worker in workers]
    if not all(limits):
        return (
            f"{limits.count(0)} local workers without a limit share the memory that may be used "
            f"here: {memory / 2**20:,.0f} MiB; a --memory-limit would protect it"
        )
    if sum(limits) > memory:
        return (
            f"{len(limits)} local workers may take {sum(limits) / 2**20:,.0f} MiB in all, and "
            f"{memory / 2**20:,.0f} MiB may be used here: lower --memory-limit or --workers"
        )
    return ""


def workers_there(client: Client) -> list[Worker]:
    """Return the workers of a running cluster at this moment; it may have none yet."""
    try:
        # Some versions tell of the first five only, unless told otherwise.
        info = client.scheduler_info(n_workers=-1)
    except TypeError:
        info = client.scheduler_info()
    return [
        Worker(int(w["nthreads"]), int(w["memory_limit"] or 0)) for w in info["workers"].values()
    ]
