"""Checks of the cluster, from here and from its workers: TLS, versions, BLAS, store, memory."""

from __future__ import annotations

import os
import platform
import socket
import ssl
import time
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dask.config

from ...backends.dask.config import engine_for, software_of_fits
from ...backends.dask.workers import compare_workers
from ...backends.software import describe_workers
from ...core.protocols import StoredSource
from ...errors import DataError, StoppedError, StoreError, UsageError
from ..cluster import (
    ClusterOptions,
    cluster_client,
    overcommitted,
    scheduler_address,
    workers_here,
    workers_there,
)
from ..plan import count, mebibytes, planned_here
from .check import Check, SafetyWarning, attempt
from .data import first_chunk
from .machine import SAME, blas_line, held_blas, version_here

if TYPE_CHECKING:
    from distributed import Client

    from ...estimators.base import MixtureEstimator

# How long a scheduler may take to answer.
CONNECT = "10s"

# A certificate that ends sooner may end a job of the night.
SHORTEST_DAYS = 1.0


def look_at_cluster(
    cluster: ClusterOptions, source: StoredSource | None, fleet: Sequence[MixtureEstimator]
) -> list[Check]:
    """Connect, or start a local cluster, and check it from here and from its workers."""
    files = attempt("TLS", tls_files, cluster)
    if not files.ok:
        return [files]
    checks: list[Check] = []

    def look() -> str:
        with cluster_client(cluster) as client:
            checks.append(attempt("TLS", describe_tls, cluster, client))
            workers = sorted(client.nthreads())
            if not workers:
                raise StoppedError(
                    f"{scheduler_address(client)} answers but has no workers: start some (dask "
                    f"worker {scheduler_address(client)}) and look again"
                )
            same = attempt("workers", compare_versions, client, workers)
            checks.append(same)
            if same.ok:
                checks.append(attempt("workers' BLAS", describe_blas, client))
                if source is not None:
                    checks.append(attempt("workers' store", compare_store, client, source))
            checks.append(attempt("memory", describe_memory, cluster, client, source, fleet))
            threads = sum(worker.threads for worker in workers_there(client))
            kind = "answers" if cluster.remote else "was started here"
            return f"{scheduler_address(client)} {kind}: {len(workers)} workers, {threads} threads"

    with dask.config.set({"distributed.comm.timeouts.connect": CONNECT}):
        reached = attempt("scheduler", look)
    return [reached, *checks]


def tls_files(cluster: ClusterOptions) -> str:
    """Check that the certificates are files that can be read."""
    given = {
        "--tls-ca-file": cluster.tls_ca_file,
        "--tls-cert": cluster.tls_cert,
        "--tls-key": cluster.tls_key,
    }
    for option, file in given.items():
        if file is not None and not os.access(file, os.R_OK):
            raise UsageError(f"{option} {file}: no such file, or it may not be read")
    some = [option for option, file in given.items() if file is not None]
    if some and len(some) < len(given):
        raise UsageError(f"{', '.join(some)} alone: TLS needs {', '.join(given)}")
    return ""


def describe_tls(cluster: ClusterOptions, client: Client) -> str:
    """Check the encryption of the scheduler, and for how long its certificate lasts."""
    address = scheduler_address(client)
    if not address.startswith("tls://"):
        if not cluster.remote:
            return "not needed: the cluster listens on this machine alone"
        return (
            "plain TCP, which nobody asked to be TLS (--require-tls): whoever can connect to "
            f"{address} can run code on its workers"
        )
    parts = urlsplit(address)
    context = client.security.get_connection_args("client")["ssl_context"]
    with (
        socket.create_connection((parts.hostname, parts.port), timeout=10) as plain,
        context.wrap_socket(plain) as encrypted,
    ):
        certificate, version = encrypted.getpeercert(), encrypted.version()
    days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / 86400
    if days < SHORTEST_DAYS:
        raise UsageError(
            f"the scheduler's certificate ends {certificate['notAfter']}, in {days:.1f} days: make "
            "new ones (deploy/hosts/make_certificates.sh) and start the cluster with them"
        )
    return f"{version}, both sides by certificate; the scheduler's lasts {days:.0f} days more"


def compare_versions(client: Client, workers: Sequence[str]) -> str:
    """Hold every worker to the versions of this process, as its tasks do, and compare others."""
    compare_workers(client, software_of_fits())
    # What else is sent between them, and how.
    here: dict[str, Any] = {name: version_here(name) for name in SAME}
    there = {name: client.run(metadata.version, name, on_error="return") for name in SAME}
    here["Python"] = _minor(platform.python_version())
    there["Python"] = client.run(platform.python_version, on_error="return")
    wrong = []
    for name, mine in here.items():
        for worker in workers:
            found = there[name].get(worker)
            theirs = None if isinstance(found, Exception) else found
            if name == "Python" and theirs is not None:
                theirs = _minor(theirs)
            if name == "numba" and engine_for("f8").name != "numba":
                continue
            if theirs != mine:
                wrong.append(f"{name} is {theirs or 'not installed'} on {worker}, {mine} here")
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UsageError(
            f"{'; '.join(wrong[:5])}{more}: install the same versions here and on every worker"
        )
    return f"{len(workers)}, all with the versions of here"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def describe_blas(client: Client) -> str:
    """Check the BLAS of all workers, and that they round as this process does."""
    line = blas_line(client.run(held_blas))
    unlike = compare_workers(client, software_of_fits())
    if unlike:
        raise SafetyWarning("; ".join([line, *describe_workers(unlike).values()]))
    return line


def compare_store(client: Client, source: StoredSource) -> str:
    """Check that every worker reads the same first chunk as this process."""
    # What a fit sends: the source, not its path.
    source = source.filling()
    expected = first_chunk(source)
    found = client.run(first_chunk, source, on_error="return")
    for worker, theirs in sorted(found.items()):
        if isinstance(theirs, StoreError):
            raise type(theirs)(f"on worker {worker}: {theirs}")
        if isinstance(theirs, Exception):
            raise DataError(
                f"worker {worker} cannot read {source.description} ({theirs}): mount it there "
                "under the same path, or use a URL"
            )
        if theirs != expected:
            raise DataError(
                f"worker {worker} finds other data at {source.description} than this process: a "
                "path must name the same files everywhere"
            )
    return f"{len(found)} workers read the first chunk, and it is the same"


def describe_memory(
    cluster: ClusterOptions,
    client: Client,
    source: StoredSource | None,
    fleet: Sequence[MixtureEstimator],
) -> str:
    """Check the memory of a worker against its limit, and of all against the machine.

    By what a fit decides by: `checked`.
    """
    workers = workers_there(client) if cluster.remote else workers_here(cluster)
    limits = [worker.limit for worker in workers]
    planned = None
    if source is not None:
        needed = partial(count, source, fleet, kept=True)
        planned = needed(workers) if cluster.remote else planned_here(cluster, needed)
        planned.check()
    if not cluster.remote and (text := overcommitted(workers)):
        raise SafetyWarning(text)
    unlimited = f"; {limits.count(0)} workers have no limit" if 0 in limits else ""
    if planned is None:
        return f"workers of {mebibytes(min(limits))} to {mebibytes(max(limits))}{unlimited}"
    return (
        f"a worker of {planned.worker_threads} threads needs about "
        f"{mebibytes(planned.worker_bytes)}"
        + (f" of its {mebibytes(planned.worker_limit)}" if planned.worker_limit else "")
        + f"; a task {mebibytes(planned.task_bytes)}{unlimited}"
    )
