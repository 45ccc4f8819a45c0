"""What a job needs, looked at before it starts: each line is ok, or says what to do."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import dask.config
from packaging.requirements import Requirement
from threadpoolctl import threadpool_info

from ..backends.blas import one_blas_thread
from ..backends.dask.config import engine_for
from ..core.ranges import ranges
from ..core.reduction import kept_bytes
from ..data.open import stored_source
from ..data.zarr.layout import check_present, file_shape, has_checksum
from ..data.zarr.source import ZarrSource
from ..errors import DaskEMError, DataError, StoppedError, StoreError, UsageError
from ..fitting.sample import SAMPLE_BYTES
from ..storage.checkpoint import GENERATIONS
from ..storage.object_store import check_bucket, check_writable, is_object_url
from ..storage.outputs.files import write_durably
from ..storage.urls import describe_url, is_url
from .cluster import ClusterOptions, cluster_client, workers_there
from .plan import Plan, count, fleet_of, mebibytes

DISK_FAILED = 74

# Here and on every worker these must be the same: what is sent between them, or the bits.
SAME = ("dask-em", "dask", "distributed", "numpy", "scipy", "zarr", "numba")

# Each extra and the module that it brings.
EXTRAS = {
    "fast": "numba",
    "fsspec": "fsspec",
    "gpu": "cupy",
    "plot": "matplotlib",
    "s3": "obstore",
    "xarray": "xarray",
}

# How long a scheduler may take to answer.
CONNECT = "10s"

# A certificate that ends sooner may end a job of the night.
SHORTEST_DAYS = 1.0

# One file of what a fit knows after a pass, in units of its parameters and its sums: the
# states that it looks back on are among them. Measured: 6.0 to 6.6 where they are large.
STATES = 8


class SafetyWarning(UserWarning):
    """What a look raises where a job would run, but go without something that protects it."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    name : str
    text : str
        What was found; where that is not right, what to do.
    exit_code : int
        0 where a job would run, else that of a job that fails for it.
    warning : bool
        Whether a job would run, and somebody should know what it goes without.
    """

    name: str
    text: str
    exit_code: int = 0
    warning: bool = False

    @property
    def ok(self) -> bool:
        """Whether a job would run."""
        return self.exit_code == 0

    @property
    def verdict(self) -> str:
        """One word for people: ok, WARN or WRONG."""
        if not self.ok:
            return "WRONG"
        return "WARN" if self.warning else "ok"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ok": self.ok}


def attempt(name: str, look: Callable[..., str], *args: Any) -> Check:
    """What `look` finds, or what it raises, be it a warning, as a check."""
    try:
        return Check(name, look(*args))
    except SafetyWarning as e:
        return Check(name, str(e), warning=True)
    except DaskEMError as e:
        return Check(name, str(e), e.exit_code)
    except OSError as e:
        return Check(name, f"{type(e).__name__}: {e}", DISK_FAILED)


def examine(
    cluster: ClusterOptions,
    data: str | None = None,
    k: int | Sequence[int] = 8,
    covariance: str | Sequence[str] = "full",
    folder: str = ".",
    missing: Literal["error", "fill"] = "error",
) -> list[Check]:
    """Look at everything that a fit of `data` would need, and at what needs no data.

    Parameters
    ----------
    where : Where
        The cluster; a local one is started and stopped.
    data : str, optional
        Path or URL of a Zarr array.
    k, covariance
        What would be fitted: memory and disk depend on it.
    folder : str
        Where checkpoints would go.
    missing : {"error", "fill"}
        Whether missing chunks are an error.
    """
    checks = [
        attempt("versions", versions_here),
        attempt("extras", extras_here, data),
        attempt("BLAS", blas_here),
    ]
    source = None
    if data is not None:
        checks.append(attempt("store", describe_store, data))
        if checks[-1].ok:
            source = stored_source(data, missing=missing)
            checks.append(attempt("checksum", describe_checksum, source))
            checks.append(attempt("chunks", describe_chunks, source))
    planned = None if source is None else count(source, fleet_of(k, covariance), [])
    checks.append(attempt("checkpoint", describe_disk, folder, source, planned))
    checks += look_at_cluster(cluster, source, fleet_of(k, covariance))
    return checks


def exit_code(checks: Sequence[Check]) -> int:
    """That of the first for which a job fails, 0 if there is none."""
    return next((check.exit_code for check in checks if not check.ok), 0)


# -- this process ------------------------------------------------------------------------


def versions_here() -> str:
    """Versions here, each as the package wants it."""
    wrong = []
    for line in _requirements():
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        found = _version(wanted.name)
        if found is None or not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} {found or 'is missing'} (needs {wanted.specifier})")
    if wrong:
        raise UsageError(f"{', '.join(wrong)}: install again: pip install --upgrade dask-em")
    found = ", ".join(f"{name} {_version(name)}" for name in SAME if _version(name))
    return f"{found}, Python {platform.python_version()}"


def _requirements() -> list[str]:
    try:
        return metadata.requires("dask-em") or []
    except metadata.PackageNotFoundError:
        # Run from a folder where nothing was installed.
        return []


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def extras_here(data: str | None) -> str:
    """Which extras are there; those that are must work, and so must what `data` needs."""
    needed = set()
    if data is not None and is_url(data):
        needed.add("s3" if is_object_url(data) else "fsspec")
    if dask.config.get("dask_em.fast", False):
        needed.add("fast")
    there: list[str] = []
    absent: list[str] = []
    wrong: list[str] = []
    for extra, module in EXTRAS.items():
        if find_spec(module) is None:
            (wrong if extra in needed else absent).append(extra)
            continue
        try:
            import_module(module)
        except Exception as e:
            # Whatever a package raises that does not fit the others.
            raise UsageError(
                f"{module} is installed but does not import ({type(e).__name__}: {e}): "
                f"pip install --upgrade 'dask-em[{extra}]', or uninstall {module}"
            ) from e
        there.append(extra)
    if wrong:
        raise UsageError(
            f"{', '.join(wrong)} needed here and not installed: pip install "
            f"'dask-em[{','.join(wrong)}]', here and on every worker"
        )
    found = f"installed: {', '.join(there) or 'none'}"
    if absent:
        found += f"; not needed here: {', '.join(absent)} (pip install 'dask-em[{absent[0]}]')"
    return found


def blas_here() -> str:
    """How many threads BLAS takes within a pass, which must be one."""
    return blas_line({"here": held_blas()})


def held_blas() -> list[tuple[str, int, int]]:
    """Each BLAS of this process: name, threads within a pass, threads outside."""
    outside = {lib["filepath"]: lib["num_threads"] for lib in threadpool_info()}
    with one_blas_thread():
        return [
            (
                " ".join(str(lib.get(part) or "") for part in ("internal_api", "version"))
                + (f" for {lib['architecture']}" if lib.get("architecture") else ""),
                int(lib["num_threads"]),
                int(outside.get(lib["filepath"], 1)),
            )
            for lib in threadpool_info()
            if lib["user_api"] == "blas"
        ]


def blas_line(found: Mapping[str, list[tuple[str, int, int]]]) -> str:
    """One line about the BLAS of some processes."""
    for place, libraries in found.items():
        free = [name for name, within, _ in libraries if within != 1]
        if free or not libraries:
            raise UsageError(
                f"{place}: {', '.join(free) or 'BLAS'} cannot be held to one thread: start the "
                "processes with OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1"
            )
    kinds = Counter(name for libraries in found.values() for name, _, _ in libraries)
    outside = max(n for libraries in found.values() for _, _, n in libraries)
    text = f"one thread within a pass ({outside} outside): {', '.join(sorted(kinds))}"
    if len({tuple(sorted(name for name, _, _ in libs)) for libs in found.values()}) > 1:
        text += "; these differ between workers, so the last digits depend on who computes"
    return text


# -- the data ----------------------------------------------------------------------------


def describe_store(data: str) -> str:
    """What the array is, after its first chunk was read."""
    source = stored_source(data, missing="fill")
    begin = time.perf_counter()
    first_chunk(source)
    seconds = time.perf_counter() - begin
    return (
        f"{source.description}: {source.n_rows:,} x {source.n_features} {source.dtype}, "
        f"{source.n_chunks:,} chunks of {mebibytes(source.nbytes / source.n_chunks)}; the first "
        f"was read in {seconds:.2g} s"
    )


def first_chunk(source: ZarrSource) -> int:
    """Read the first chunk; its fingerprint."""
    reader: Any = source.reader()
    reader(0)
    reader.close()
    return int(reader.prints[0])


def describe_checksum(source: ZarrSource) -> str:
    """Whether flipped bits would be found."""
    if not has_checksum(source.array):
        raise SafetyWarning(
            "no codec has one, so bits that flipped before the first pass would pass for data: "
            "write the array again with zarr.codecs.Crc32cCodec() as the last of its compressors"
        )
    return "a codec finds flipped bits"


def describe_chunks(source: ZarrSource) -> str:
    """Whether all files of the array are there, by a listing."""
    shape = file_shape(source.array)
    n_files = 1
    for n, size in zip(source.array.shape, shape, strict=True):
        n_files *= -(-n // size)
    if source.missing == "fill":
        return f"{n_files:,} expected; missing ones read as {source.array.fill_value}"
    check_present(source.array)
    return f"all {n_files:,} are there"


# -- the disk ----------------------------------------------------------------------------


def describe_disk(folder: str, source: ZarrSource | None, planned: Plan | None) -> str:
    """Room for checkpoints, and whether the disk keeps what it says it keeps."""
    if is_url(folder):
        check_writable(folder)
        check_bucket(folder)
        return f"{describe_url(folder)} is in a bucket that answers"
    path = Path(folder)
    while not path.exists() and path != path.parent:
        # A checkpoint's own folder is made when there is something to keep.
        path = path.parent
    if not path.is_dir():
        raise UsageError(f"--checkpoint {folder}: {path} is a file; expected a folder")
    probe = path / f".dask-em-doctor.{socket.gethostname()}.{os.getpid()}"
    try:
        # Written, synced and renamed as checkpoints are.
        write_durably(probe, b"x")
    finally:
        probe.unlink(missing_ok=True)
    free = shutil.disk_usage(path).free
    if source is None or planned is None:
        return f"{path.absolute()} can be written; {mebibytes(free)} free"
    needed = checkpoint_bytes(source, planned)
    text = f"{path.absolute()} has {mebibytes(free)} free, checkpoints take up to "
    text += mebibytes(needed)
    if free < needed:
        raise StoreError(f"{text}: make room, or pass --checkpoint FOLDER of another disk")
    return text


def checkpoint_bytes(source: ZarrSource, planned: Plan) -> int:
    """What an unfinished fit takes on the disk at most, about."""
    sample = min(SAMPLE_BYTES, 8 * source.n_rows * (source.n_features + 2))
    notes = 16 * source.n_chunks
    state = STATES * (planned.parameter_bytes + planned.statistics_bytes)
    kept = kept_bytes(len(ranges(source)), planned.statistics_bytes)
    # A file is written before the one that it replaces is removed.
    return sample + notes + (GENERATIONS + 1) * state + 2 * kept + 2**20


# -- the cluster -------------------------------------------------------------------------


def look_at_cluster(
    cluster: ClusterOptions, source: ZarrSource | None, fleet: Sequence[tuple[int, str]]
) -> list[Check]:
    """Connect, or start a local cluster, and look at it from here and from its workers."""
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
                    f"{client.scheduler.address} answers but has no workers: start some (dask "
                    f"worker {client.scheduler.address}) and look again"
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
            return f"{client.scheduler.address} {kind}: {len(workers)} workers, {threads} threads"

    with dask.config.set({"distributed.comm.timeouts.connect": CONNECT}):
        reached = attempt("scheduler", look)
    return [reached, *checks]


def tls_files(cluster: ClusterOptions) -> str:
    """The certificates, which must be files that can be read."""
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


def describe_tls(cluster: ClusterOptions, client: Any) -> str:
    """How the scheduler speaks, and for how long its certificate lasts."""
    address = client.scheduler.address
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


def compare_versions(client: Any, workers: Sequence[str]) -> str:
    """Versions on every worker, against those here."""
    # By functions of the standard library: dask_em itself may be what is not there.
    here: dict[str, Any] = {name: _version(name) for name in SAME}
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


def describe_blas(client: Any) -> str:
    """One line about the BLAS of all workers."""
    return blas_line(client.run(held_blas))


def compare_store(client: Any, source: ZarrSource) -> str:
    """Whether every worker sees the data that this process sees."""
    # What a fit sends: the source, not its path.
    source = replace(source, missing="fill")
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
    client: Any,
    source: ZarrSource | None,
    fleet: Sequence[tuple[int, str]],
) -> str:
    """What a worker needs of what it may take, and what all of them may of the machine."""
    workers = workers_there(client)
    limits = [worker.limit for worker in workers]
    if not cluster.remote:
        from distributed.system import MEMORY_LIMIT

        if not all(limits) or sum(limits) > MEMORY_LIMIT:
            raise UsageError(
                f"{len(limits)} local workers may take {mebibytes(sum(limits))} in all (0 for no "
                f"limit), and this machine has {mebibytes(MEMORY_LIMIT)}: lower --memory-limit or "
                "--workers"
            )
    unlimited = f"; {limits.count(0)} workers have no limit" if 0 in limits else ""
    if source is None:
        return f"workers of {mebibytes(min(limits))} to {mebibytes(max(limits))}{unlimited}"
    planned = count(source, fleet, workers)
    planned.check()
    return (
        f"a worker of {planned.worker_threads} threads needs about "
        f"{mebibytes(planned.worker_bytes)}"
        + (f" of its {mebibytes(planned.worker_limit)}" if planned.worker_limit else "")
        + f"; a task {mebibytes(planned.task_bytes)}{unlimited}"
    )
