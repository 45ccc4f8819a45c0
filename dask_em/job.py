"""Jobs: what the command line asks for, as plain functions that return plain results."""

from __future__ import annotations

import hashlib
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import dask.config
import numpy as np

from . import __version__
from .backends.blas import one_blas_thread
from .backends.dask import DaskBackend
from .backends.faults import recovering_settings
from .callbacks import Pass, Totals, reporter
from .checkpoint import remove_unfinished
from .em import Status
from .errors import DataError, ModelFileError, OutOfTimeError, UsageError
from .estimators import GaussianMixture, engine_for, load
from .families.covariance import STRUCTURES
from .families.gaussian import Gaussian
from .frame import Frame
from .locks import Lock, locked
from .mixture import Answer, Predict, answer_dtype
from .resume import Checkpoint, Checkpointing, is_kept, remove_checkpoint
from .run import current_run
from .sinks import (
    WriteAnswers,
    check_free,
    create_outputs,
    new_folder,
    resumable,
    source_stamp,
)
from .sources import ZarrSource, open_zarr, ranges, stored_source
from .statistics import Array, fan_in, kept_bytes
from .stores import LARGEST_MODEL, describe_url, is_url, read_bytes, split_url
from .sweep import Selection, Sweeping

logger = logging.getLogger("dask_em")

# What a worker process holds before its first chunk: Python, NumPy, SciPy, Dask and Zarr.
IDLE_BYTES = 165 * 2**20
# What Numba adds to it, with LLVM and the compiled loops: 125 MiB measured.
COMPILER_BYTES = 130 * 2**20
# Dask pauses a worker at this share of its limit.
PAUSE = 0.8
# The probe of a plan computes about this many products of a responsibility and a feature:
# about a second of one core.
PROBE_PRODUCTS = 10**10


@dataclass(frozen=True)
class Where:
    """The cluster to run on: a running one, or a LocalCluster made for the job.

    Attributes
    ----------
    scheduler, scheduler_file : str or None
        Address or file of a running scheduler.
    workers, threads : int or None
        Processes, and threads in each, of the LocalCluster.
    memory_limit : str
        Of each worker: "2GiB", or "auto" for an even share of the machine.
    tls_ca_file, tls_cert, tls_key : str or None
        Certificates for a scheduler that speaks TLS.
    require_tls : bool
        Refuse any other scheduler.
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
    def n_workers(self) -> int:
        """Processes of the LocalCluster."""
        return self.workers or os.cpu_count() or 1

    @property
    def worker_limit(self) -> int:
        """Bytes that a worker of the LocalCluster may hold, 0 for no limit."""
        from dask.system import CPU_COUNT
        from dask.utils import parse_bytes
        from distributed.system import MEMORY_LIMIT

        if self.memory_limit == "auto":
            return int(MEMORY_LIMIT * min(1.0, self.threads / CPU_COUNT))
        try:
            return int(parse_bytes(self.memory_limit))
        except ValueError as e:
            raise UsageError(f"--memory-limit {self.memory_limit}: {e}; try 2GiB") from e


@contextmanager
def connected(where: Where) -> Iterator[Any]:
    """A Dask client of the cluster, closed at the end; a LocalCluster is stopped too."""
    from distributed import Client, LocalCluster

    if where.require_tls and not (where.scheduler or "tls://").startswith("tls://"):
        raise UsageError(f"--require-tls: {_address(where)} does not begin with tls://")
    if set("@?#") & set(where.scheduler or ""):
        # Dask's own words would show what may be a password.
        raise UsageError(
            "--scheduler: an address holds no user, password, query or fragment; expected "
            "tcp://HOST:PORT or tls://HOST:PORT"
        )
    if where.remote:
        try:
            # One that never connects would stay the client of this process, and passes wait for it.
            client = Client(
                where.scheduler,
                scheduler_file=where.scheduler_file,
                security=_security(where),
                set_as_default=False,
            )
        except (OSError, TimeoutError, ValueError, RuntimeError, TypeError) as e:
            # A TypeError: tls:// without certificates.
            raise UsageError(f"no Dask scheduler answers at {_address(where)}: {e}") from e
        with client, client.as_current(), _lost_workers_counted(client):
            yield client
        return
    if where.require_tls:
        raise UsageError("--require-tls needs --scheduler tls://HOST:PORT or --scheduler-file")
    with (
        dask.config.set(recovering_settings()),
        LocalCluster(
            n_workers=where.n_workers,
            threads_per_worker=where.threads,
            memory_limit=where.memory_limit,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            # Zarr's own threads would compete with Dask's.
            env={"ZARR_THREADING__MAX_WORKERS": "2"},
            silence_logs="ERROR",
        ) as cluster,
        Client(cluster) as client,
        _lost_workers_counted(client),
    ):
        yield client


@contextmanager
def _lost_workers_counted(client: Any) -> Iterator[None]:
    """Tell of every worker that leaves without being asked to."""
    run = current_run()

    def seen(event: tuple[float, dict[str, Any]]) -> None:
        message = event[1]
        if message.get("action") == "remove-worker" and not message.get("expected"):
            run.lost_workers += 1
            logger.warning("worker %s was lost", message.get("worker"))

    client.subscribe_topic("all", seen)
    try:
        yield
    finally:
        # A scheduler that is gone tells nothing more; one that lives would tell a closed client.
        with suppress(Exception):
            client.unsubscribe_topic("all")


def _security(where: Where) -> Any:
    """What the connection must be like; None leaves it to Dask's own configuration."""
    from distributed.security import Security

    files = {
        "tls_ca_file": where.tls_ca_file,
        "tls_client_cert": where.tls_cert,
        "tls_client_key": where.tls_key,
    }
    given = {name: file for name, file in files.items() if file}
    if not given and not where.require_tls:
        return None
    return Security(require_encryption=True, **given)


def _address(where: Where) -> str:
    """The scheduler's address or file, without credentials."""
    return describe_url(where.scheduler) if where.scheduler else str(where.scheduler_file)


@dataclass(frozen=True)
class Worker:
    """What a worker has: threads, and bytes that it may hold (0 for no limit)."""

    threads: int
    limit: int


def workers_here(where: Where) -> list[Worker]:
    """The workers that the LocalCluster will have."""
    return [Worker(where.threads, where.worker_limit)] * where.n_workers


def workers_there(client: Any) -> list[Worker]:
    """The workers of a running cluster at this moment; it may have none yet."""
    try:
        # Some versions tell of the first five only, unless told otherwise.
        info = client.scheduler_info(n_workers=-1)
    except TypeError:
        info = client.scheduler_info()
    return [
        Worker(int(w["nthreads"]), int(w["memory_limit"] or 0)) for w in info["workers"].values()
    ]


@dataclass(frozen=True)
class Probe:
    """How long one thread takes for a row.

    Attributes
    ----------
    rows_read, rows_computed : int
        What the times were taken of.
    read_seconds, compute_seconds : float
        For one row.
    """

    rows_read: int
    rows_computed: int
    read_seconds: float
    compute_seconds: float


@dataclass(frozen=True)
class Plan:
    """What one pass costs, known before it starts.

    Attributes
    ----------
    source, n_rows, n_features, dtype
        The data.
    n_chunks, chunk_bytes : int
        Chunks as they are read, and the size of one.
    n_ranges : int
        Tasks of a pass.
    bytes_per_pass, statistics_bytes, parameter_bytes : int
        Read by a pass; the sums of one task; what every task is given.
    task_bytes, worker_bytes : int
        Held by a task, and by a worker with all its threads busy.
    worker_limit, worker_threads : int
        Of the worker that comes closest to its limit (0 for no limit).
    n_workers, n_threads : int
        Of the whole cluster; 0 where it has no workers yet.
    probe : Probe or None
        Times taken of two chunks, None where nobody took any.
    """

    source: str
    n_rows: int
    n_features: int
    dtype: str
    n_chunks: int
    chunk_bytes: int
    n_ranges: int
    bytes_per_pass: int
    statistics_bytes: int
    parameter_bytes: int
    task_bytes: int
    worker_bytes: int
    worker_limit: int
    worker_threads: int
    n_workers: int
    n_threads: int
    probe: Probe | None = None

    @property
    def fits(self) -> bool:
        """Whether a worker stays below the share of its limit at which Dask pauses it."""
        return not self.worker_limit or self.worker_bytes <= PAUSE * self.worker_limit

    @property
    def read_seconds(self) -> float | None:
        """Seconds that reading takes in one pass over all threads, about."""
        return None if self.probe is None else self._per_pass(self.probe.read_seconds)

    @property
    def compute_seconds(self) -> float | None:
        """Seconds that the E-step takes in one pass over all threads, about."""
        return None if self.probe is None else self._per_pass(self.probe.compute_seconds)

    def _per_pass(self, seconds: float) -> float | None:
        # More threads than tasks have nothing to do.
        busy = min(self.n_threads, self.n_ranges)
        return seconds * self.n_rows / busy if busy else None

    @property
    def seconds_per_pass(self) -> float | None:
        """The longer of both, about: a chunk is read while the one before is computed."""
        read, compute = self.read_seconds, self.compute_seconds
        return None if read is None or compute is None else max(read, compute)

    @property
    def limited_by(self) -> str | None:
        """Which of the two takes longer: "reading" or "computing"."""
        read, compute = self.read_seconds, self.compute_seconds
        if read is None or compute is None:
            return None
        return "reading" if read > compute else "computing"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        derived = ("fits", "read_seconds", "compute_seconds", "seconds_per_pass", "limited_by")
        return {**asdict(self), **{name: getattr(self, name) for name in derived}}

    def check(self) -> None:
        """Raise `UsageError` where a worker cannot hold a task."""
        if not self.n_workers:
            logger.warning(
                "the cluster has no workers yet: the job waits for one, and nobody can say whether "
                "it will have the %s that a worker needs",
                mebibytes(self.worker_bytes),
            )
        if not self.fits:
            raise UsageError(
                f"a worker of {self.worker_threads} threads needs about "
                f"{mebibytes(self.worker_bytes)}, and Dask pauses it at "
                f"{mebibytes(PAUSE * self.worker_limit)} of its {mebibytes(self.worker_limit)}: "
                "raise --memory-limit, lower --threads, or store the data in chunks smaller than "
                f"{mebibytes(self.chunk_bytes)}"
            )


def mebibytes(n: float) -> str:
    """Bytes as a person reads them."""
    return f"{n / 2**20:,.0f} MiB" if n >= 2**20 else f"{n / 2**10:,.1f} KiB"


Fleet = Sequence[tuple[int, str]]
"""K and covariance structure of each model that a pass serves."""


def fleet_of(ks: int | Sequence[int], kinds: str | Sequence[str]) -> Fleet:
    """Every K with every covariance structure."""
    ks = [ks] if isinstance(ks, int) else ks
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return [(k, kind) for kind in kinds for k in ks]


def plan(
    data: str,
    k: int | Sequence[int],
    covariance: str | Sequence[str],
    where: Where,
    probe: bool = False,
) -> Plan:
    """Count what a pass over `data` takes; with `probe`, read two chunks and take the time.

    Of several K or structures, it is the pass that serves all of them. On a running
    cluster one of its workers reads the chunks, else this process.
    """
    source, fleet = stored_source(data), fleet_of(k, covariance)
    if not where.remote:
        planned = count(source, fleet, workers_here(where))
        # Processes beyond the cores take turns.
        planned = replace(planned, n_threads=min(planned.n_threads, os.cpu_count() or 1))
        if probe and planned.fits:
            planned = replace(planned, probe=probe_chunks(source, fleet))
        return planned
    with connected(where) as client:
        planned = count(source, fleet, workers_there(client))
        if probe and planned.fits and planned.n_workers:
            measured = client.submit(probe_chunks, source, fleet, pure=False).result()
            planned = replace(planned, probe=measured)
    return planned


def count(
    source: ZarrSource, fleet: Fleet, workers: Sequence[Worker], holdout: bool = False
) -> Plan:
    """What a pass over `source` takes on these workers, without reading any of it."""
    d = source.n_features
    needs = [_model_bytes(k, kind, d) for k, kind in fleet]
    parameters, parameters_used, kernels, statistics = (sum(n) for n in zip(*needs, strict=True))
    chunk = int(source.chunk_rows) * d * source.dtype.itemsize
    task = source.chunks_held * chunk + kernels + 2 * statistics
    if holdout:
        # Random numbers, weights and the mask of a chunk, and the rows that it holds out.
        task += chunk + 3 * 8 * int(source.chunk_rows)
    # A worker keeps the parameters as they came and as they are used, and it adds the
    # sums of some tasks while others run.
    shared = IDLE_BYTES + parameters + parameters_used + (fan_in(statistics) + 1) * statistics
    # What a checkpoint keeps of an unfinished pass waits for its time on the workers.
    shared += kept_bytes(len(ranges(source)), statistics)
    if len(fleet) > 1:
        # The sums of a fleet are not added in place.
        shared += statistics
    if engine_for(source.dtype).name == "numba":
        shared += COMPILER_BYTES
    tightest = min(
        workers,
        key=lambda w: PAUSE * w.limit - w.threads * task if w.limit else np.inf,
        default=Worker(1, 0),
    )
    return Plan(
        source.description,
        source.n_rows,
        d,
        str(source.dtype),
        source.n_chunks,
        chunk,
        len(ranges(source)),
        source.nbytes,
        statistics,
        parameters,
        task,
        shared + tightest.threads * task,
        tightest.limit,
        tightest.threads,
        len(workers),
        sum(w.threads for w in workers),
    )


def _model_bytes(k: int, kind: str, d: int) -> tuple[int, int, int, int]:
    """Bytes of one model's parameters as sent and as used, of its kernel, of its sums."""
    frame = Frame(np.zeros(d), np.ones(d))
    components = Gaussian(np.zeros((k, d)), STRUCTURES[kind].of_data(np.eye(d), k), frame)
    parameters = _array_bytes(components, components.covariance, frame) + 8 * k
    # Making a kernel adds what it derives from the parameters to them.
    kernel = components.kernel()
    parameters_used = _array_bytes(components, components.covariance, frame) + 8 * k
    statistics = kernel.statistics().nbytes + 8 * k
    return parameters, parameters_used, _array_bytes(kernel), statistics


def _array_bytes(*objects: object) -> int:
    values = (value for o in objects for value in vars(o).values())
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray))


def probe_chunks(source: ZarrSource, fleet: Fleet) -> Probe | None:
    """Time one thread on two chunks, from the front and the middle of the data.

    The first chunk warms up and the second counts. The E-step is timed with a mixture
    made from these rows, so that its responsibilities are like real ones: the one of the
    fleet that costs most, and the others are taken to cost in proportion.

    Returns
    -------
    Probe or None
        None where the chunks hold too few finite rows for such a mixture.
    """
    # Whether chunks are missing, the fit will say, and be told what to make of it.
    read = replace(source, missing="fill").reader()
    front = read(0)[0]
    begin = time.perf_counter()
    middle = read(source.n_chunks // 2)[0]
    reading = time.perf_counter() - begin
    d = source.n_features
    costs = {model: model[0] * STRUCTURES[model[1]].n_features(d) for model in fleet}
    k, covariance = max(costs, key=lambda model: costs[model])
    per_row = costs[k, covariance]
    most = max(1000, 2 * k, PROBE_PRODUCTS // per_row)
    warm_up, timed = _finite_rows(front, most), _finite_rows(middle, most)
    if min(len(warm_up), len(timed)) < max(k, 2):
        return None
    fold = _quick_start(np.concatenate([warm_up, timed]), k, covariance, most).fold()
    with one_blas_thread():
        fold.update(0, warm_up, None)
        fold.result()
        begin = time.perf_counter()
        fold.update(1, timed, None)
        fold.result()
        computing = time.perf_counter() - begin
    computing *= sum(costs.values()) / per_row
    return Probe(len(middle), len(timed), reading / len(middle), computing / len(timed))


def _finite_rows(X: Array, most: int) -> Array:
    return np.asarray(X[np.isfinite(X).all(axis=1)][:most])


def _quick_start(rows: Array, k: int, covariance: str, most: int) -> Any:
    """A mixture that two iterations on some rows make of k-means++."""
    step = -(-len(rows) // max(most // 4, 4 * k))
    model = GaussianMixture(
        k, covariance_type=covariance, init_params="k-means++", max_iter=2, random_state=0
    )
    with warnings.catch_warnings():
        # Whatever is odd about the data, the fit will say.
        warnings.simplefilter("ignore")
        return model.fit(rows[::step]).predictor(()).mixture


def fit(
    data: str,
    output: str,
    where: Where,
    options: dict[str, Any],
    weights: str | None = None,
    overwrite: bool = False,
    checkpoint: Checkpointing | None = None,
    metrics: str | None = None,
) -> GaussianMixture:
    """Fit a mixture to the Zarr array at `data` and save it to `output`.

    With a checkpoint, one that was killed goes on; when the model is written it is removed.

    Raises
    ------
    OutputExistsError
        `output` is there, and is not of this very fit.
    OutOfTimeError
        `max_time` seconds were over. The best so far is in `output`, if a pass was made.
    """
    _check_folder(output)
    totals = Totals(metrics)
    model = GaussianMixture(**options, checkpoint=checkpoint, callbacks=[reporter(), totals])
    with _in_time(options), _alone(output, checkpoint) as lock:
        ending = Ending(lock, checkpoint, overwrite)
        if ending.reached([output], partial(model.unfinished, data, weights)):
            return load(output)
        source = _dropping(stored_source(data, weights), options)
        needed = partial(count, source, fleet_of(model.n_components, model.covariance_type))
        with _telling_what_is_kept(checkpoint):
            with checked(where, needed):
                model.fit(data, sample_weight=weights)
            ending.save({output: model})
            totals.log(len(model.history_) - totals.passes)
            _check_time(model, output)
        ending.done({output: model})
    return model


@contextmanager
def _alone(output: str, checkpoint: Checkpointing | None) -> Iterator[Lock]:
    """Lock the output, and the checkpoint where it is not beside it."""
    with ExitStack() as stack:
        lock = stack.enter_context(locked(output))
        if checkpoint is not None:
            kept = os.fspath(checkpoint.path)
            # Where there is no folder for it, whoever writes there says so.
            if kept != _beside(output) and (is_url(kept) or Path(kept).absolute().parent.is_dir()):
                stack.enter_context(locked(kept))
        yield lock


def _in_time(options: Mapping[str, Any]) -> AbstractContextManager[None]:
    """The time that a job is given, counted from here."""
    seconds = options.get("max_time")
    return current_run().until(np.inf if seconds is None else time.monotonic() + seconds)


def _check_time(model: GaussianMixture, output: str) -> None:
    """Raise where a fit ended because its time was over: it is not done."""
    if model.status_ is Status.OUT_OF_TIME:
        raise OutOfTimeError(
            f"the time limit is reached; the best so far, {model.lower_bound_:.6f} nats/row, is in "
            f"{output}"
        )


@dataclass(frozen=True)
class Ending:
    """The end of a fit: its models are written, and what was kept of it goes.

    Every model says of which fit it is, and so does what is kept of an unfinished one. When all
    are written the lock notes it: so the end of a job that was killed on the way is known.

    Attributes
    ----------
    lock : Lock
        Of the first output.
    checkpoint : Checkpointing or None
    overwrite : bool
        Whether models of others may be replaced.
    """

    lock: Lock
    checkpoint: Checkpointing | None
    overwrite: bool

    def reached(self, outputs: Sequence[str], unfinished: Callable[[], Checkpoint]) -> list[str]:
        """Which outputs a job wrote that was killed when it had written all; none if no job did.

        Raises
        ------
        OutputExistsError
            One is there that is not of the unfinished fit, and may not be replaced.
        """
        there = {output: fit for output in outputs if (fit := _fit_of(output))}
        kept = None
        if there and self.checkpoint is not None and self.checkpoint.resume:
            kept = unfinished()
            told = _as_dict(self.lock.before.get("written"))
            done = {"id": told.get("fit"), "identity": kept.identity}
            written = [output for output in outputs if output in told.get("outputs", ())]
            if outputs[0] in written and all(there.get(output) == done for output in written):
                self.tidy(written)
                return written
        for output in outputs:
            ours = kept is not None and output in there and there[output].get("id") == kept.id
            check_free(output, self.overwrite or ours)
        return []

    def save(self, models: Mapping[str, GaussianMixture]) -> None:
        """Write each model to its output."""
        self.lock.check()
        for output, model in models.items():
            model.set_params(callbacks=None, checkpoint=None)
            fit = model.provenance_.get("fit")
            ours = fit is not None and _fit_of(output) == fit
            model.save(output, overwrite=self.overwrite or ours)

    def done(self, models: Mapping[str, GaussianMixture]) -> None:
        """Note that all models are written, and remove what was kept."""
        fits = [model.provenance_["fit"]["id"] for model in models.values()
                if "fit" in model.provenance_]  # fmt: skip
        if fits:
            self.lock.note(written={"fit": fits[0], "outputs": list(models)})
        self.tidy(list(models))

    def tidy(self, outputs: Sequence[str]) -> None:
        """Remove what is left of the fit beside its models."""
        for output in outputs:
            if not is_url(output):
                remove_unfinished(output)
        if self.checkpoint is not None:
            remove_checkpoint(self.checkpoint.path)


def _fit_of(output: str) -> dict[str, Any] | None:
    """Of which fit the model at `output` is; None where it says nothing, or is none."""
    try:
        return _as_dict(load(output).provenance_.get("fit")) or None
    except ModelFileError:
        return None


def _as_dict(found: object) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def checkpointing(
    output: str, folder: str | None, resume: bool, force: bool, interval: float
) -> Checkpointing:
    """Where the fit of `output` is kept while it is unfinished: beside it, unless told."""
    return Checkpointing(_beside(output) if folder is None else folder, resume, force, interval)


def _beside(output: str) -> str:
    if is_url(output):
        parent, name = split_url(output)
        return f"{parent}/.{name}.checkpoint"
    path = Path(output)
    return str(path.with_name(f".{path.name}.checkpoint"))


@contextmanager
def _telling_what_is_kept(checkpoint: Checkpointing | None) -> Iterator[None]:
    """Add to whatever ends a fit what becomes of the work that is done."""
    try:
        yield
    except BaseException as e:
        with suppress(Exception):
            if checkpoint is not None and is_kept(checkpoint.path):
                after = ""
                if isinstance(e, DataError):
                    after = ", or add --no-resume to throw it away"
                e.add_note(
                    f"what was done is kept in {describe_url(os.fspath(checkpoint.path))}: run the "
                    f"same command again to go on{after}"
                )
        raise


@contextmanager
def checked(where: Where, needed: Callable[[Sequence[Worker]], Plan]) -> Iterator[None]:
    """A cluster whose workers can hold what is `needed`; a local one is asked before it starts."""
    if not where.remote:
        needed(workers_here(where)).check()
    with connected(where) as client:
        if where.remote:
            needed(workers_there(client)).check()
        yield


@dataclass(frozen=True)
class Sweep:
    """Which models a sweep fits, and how it chooses.

    Attributes
    ----------
    n_components : sequence of int
    covariance_types : sequence of str
    criterion : {"bic", "aic", "icl", "holdout"}
    holdout : float
        Share of the rows that no fit sees.
    exhaustive, keep_all : bool
        Give no model up; save every model that was not given up.
    """

    n_components: Sequence[int]
    covariance_types: Sequence[str]
    criterion: str = "bic"
    holdout: float = 0.0
    exhaustive: bool = False
    keep_all: bool = False

    @property
    def single(self) -> bool:
        """Whether there is nothing to choose and nothing to hold out."""
        return len(self.n_components) * len(self.covariance_types) == 1 and not self.holdout

    def path(self, output: str, n_components: int, covariance_type: str) -> str:
        """Where a model that did not win goes: MODEL-k8-full.npz beside MODEL.npz."""
        path = Path(output)
        return str(path.with_name(f"{path.stem}-k{n_components}-{covariance_type}{path.suffix}"))


def sweep(
    data: str,
    output: str,
    where: Where,
    wanted: Sweep,
    options: dict[str, Any],
    weights: str | None = None,
    overwrite: bool = False,
    checkpoint: Checkpointing | None = None,
    metrics: str | None = None,
) -> tuple[Selection, list[str]]:
    """Fit every model of a sweep to the Zarr array at `data`; save the winner to `output`.

    With a checkpoint, one that was killed goes on, as `fit` does.

    Returns
    -------
    Selection
    list of str
        The files written, the winner's first.

    Raises
    ------
    OutputExistsError
        A model is there, and is not of this very sweep.
    OutOfTimeError
        `max_time` seconds were over. The best so far is in `output`, if a pass was made.
    """
    _check_folder(output)
    totals = Totals(metrics)
    given = {"n_init": 5, **options, "checkpoint": checkpoint, "callbacks": [reporter(), totals]}
    try:
        sweeping = Sweeping(
            wanted.n_components,
            wanted.covariance_types,
            wanted.criterion,  # type: ignore[arg-type]
            wanted.holdout,
            wanted.exhaustive,
            given,
        )
    except ValueError as e:
        raise UsageError(str(e)) from e
    fleet = fleet_of(wanted.n_components, wanted.covariance_types)
    others = [wanted.path(output, *model) for model in fleet] if wanted.keep_all else []
    source = _dropping(stored_source(data, weights), options)
    needed = partial(count, source, fleet, holdout=bool(wanted.holdout))
    with _in_time(options), _alone(output, checkpoint) as lock:
        ending = Ending(lock, checkpoint, overwrite)
        written = ending.reached([output, *others], partial(sweeping.unfinished, data, weights))
        if written:
            return _selection_of([load(path) for path in written]), written
        with _telling_what_is_kept(checkpoint):
            with checked(where, needed):
                selection = sweeping.run(data, weights, wanted.keep_all)
            models = {output: selection.best}
            for model in selection.models:
                models[wanted.path(output, model.n_components, model.covariance_type)] = model
            ending.save(models)
            totals.log(len(selection.history) - totals.passes)
            _check_time(selection.best, output)
        ending.done(models)
    return selection, list(models)


def _selection_of(models: list[GaussianMixture]) -> Selection:
    """What a sweep found, from the models that it wrote, the winner first."""
    best, *others = models
    known = best.provenance_["sweep"]
    return Selection(
        best, known["table"], others, known["criterion"], best.n_passes_, best.history_
    )


def _dropping(source: ZarrSource, options: dict[str, Any]) -> ZarrSource:
    """The source as far as memory goes: a chunk that rows are left out of is copied."""
    if options.get("nonfinite") != "drop":
        return source
    return replace(source, dropping=frozenset(range(source.n_chunks)))


def _check_folder(output: str) -> None:
    if is_url(output):
        return
    folder = Path(output).absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{output}: there is no folder {folder}; make it first")


@dataclass(frozen=True)
class UnansweredChunks(ZarrSource):
    """A Zarr array of which the chunks that are answered already read as no rows.

    Chunks keep their numbers and their ranges, so what is left is computed as if
    nobody had stopped.
    """

    answered: Sequence[range] = ()

    def reader(self) -> Callable[[int], tuple[Array, Array | None]]:
        read = super().reader()
        nothing = np.empty((0, self.n_features), dtype=self.dtype)

        def read_unanswered(chunk: int) -> tuple[Array, Array | None]:
            if any(chunk in chunks for chunks in self.answered):
                return nothing, None
            return read(chunk)

        return read_unanswered


def predict(
    model_path: str,
    data: str,
    destination: str,
    where: Where,
    answers: Sequence[Answer] = ("labels",),
    overwrite: bool = False,
    resume: bool = True,
) -> dict[str, Any]:
    """Write answers for every row of `data` to a new Zarr group, one pass for all of them.

    What an interrupted call left is finished by the next one of the same model, data
    and answers, with the same bytes as if it had not been interrupted; `resume=False`
    throws it away.
    """
    check_free(destination, overwrite)
    _check_folder(destination)
    model = load(model_path)
    source = stored_source(data, missing=model.missing)
    if source.n_features != model.n_features_in_:
        raise DataError(
            f"{data} has {source.n_features} columns, but {model_path} was fitted to "
            f"{model.n_features_in_}"
        )
    kinds: dict[str, tuple[int | None, Any]] = {
        a: (model.n_components if a == "proba" else None, answer_dtype(a)) for a in answers
    }
    create = partial(
        create_outputs, n_rows=source.n_rows, chunk_rows=source.chunk_rows, kinds=kinds
    )
    predictor = model.predictor(answers)
    identity = _identity(model_path, source, predictor)
    stamps = _stamps(source)
    path = destination if is_url(destination) else Path(destination).absolute()
    n_rows = 0
    with resumable(path, identity, stamps, create, overwrite, resume) as unfinished:
        whole = unfinished.whole()
        if whole:
            logger.info("resuming: %d of %d regions are whole", len(whole), len(stamps))
        work = WriteAnswers(predictor, source.bounds, unfinished.outputs, unfinished.regions)
        if len(whole) < len(stamps):
            known = {f.name: getattr(source, f.name) for f in fields(source)}
            left = UnansweredChunks(**known, answered=whole)
            n_rows = _write(left, work, where)
    return {
        "destination": destination,
        "arrays": list(kinds),
        "n_rows": source.n_rows,
        "n_rows_kept": source.n_rows - n_rows,
    }


def _write(source: ZarrSource, work: WriteAnswers, where: Where) -> int:
    """Answer what is left on the cluster; return how many rows that was."""
    with (
        connected(where),
        Pass([reporter()], "predict", 1, source.n_rows, source.nbytes) as running,
    ):
        return DaskBackend().map_reduce(source, work, running.advance).n_rows


def _identity(model_path: str, source: ZarrSource, predictor: Predict) -> dict[str, Any]:
    """Everything that the bytes of the answers depend on, but for the data's contents."""
    return {
        "dask_em": __version__,
        "model_sha256": _sha256(model_path),
        "data": source.description,
        "shape": [source.n_rows, source.n_features],
        "dtype": str(source.dtype),
        "chunk_rows": source.chunk_rows,
        "answers": list(predictor.answers),
        "engine": predictor.mixture.engine.name,
    }


def _sha256(path: str) -> str:
    data = read_bytes(path, LARGEST_MODEL) if is_url(path) else Path(path).read_bytes()
    return hashlib.sha256(data).hexdigest()


def _stamps(source: ZarrSource) -> dict[range, str]:
    """Each range of chunks and what its files look like."""
    bounds = source.bounds
    return {
        chunks: source_stamp(source.array, int(bounds[chunks.start]), int(bounds[chunks.stop]))
        for chunks in ranges(source)
    }


def score(model_path: str, data: str, where: Where) -> dict[str, float]:
    """Mean log-likelihood per row, AIC, BIC and ICL of a saved model, in one pass."""
    model = load(model_path)
    model.set_params(callbacks=[reporter()])
    stored_source(data)
    with connected(where):
        return model.criteria(data)


def inspect(model_path: str) -> dict[str, Any]:
    """What is in a model file and where it came from."""
    model = load(model_path)
    return {
        "options": {
            name: value
            for name, value in model.get_params().items()
            if isinstance(value, str | int | float | bool | None)
        },
        "status": model.status_.name,
        "what": model.status_.value,
        "n_iter": model.n_iter_,
        "n_passes": model.n_passes_,
        "log_likelihood": model.lower_bound_,
        "provenance": model.provenance_,
        "weights": model.weights_.tolist(),
        "means": model.means_.tolist(),
        "history": model.history_,
    }


def report(
    model_path: str,
    output: str,
    where: Where,
    data: str | None = None,
    n_rows: int = 5000,
    drift: bool = True,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write one HTML page about a saved model and the data at `data`.

    Without `data` the model's own are used, if they are still where they were and have
    the same shape and type; else the page says what it lacks. `drift` takes one pass.
    """
    from .report import Evidence, check_columns, check_output, chunk_densities, sample_rows
    from .report import write_report as write

    check_output(output, overwrite)
    _check_folder(output)
    model = load(model_path)
    stored = is_url(model_path)
    if not stored and os.path.exists(output) and Path(output).samefile(model_path):
        raise UsageError(f"{output} is the model itself; choose another name for the page")
    source, reason = (stored_source(data), "") if data is not None else _own_data(model)
    missing = [reason] if reason else []
    rows = densities = None
    origin = {
        "model file": describe_url(model_path) if stored else str(Path(model_path).absolute()),
        "model sha256": _sha256(model_path),
    }
    if source is not None:
        check_columns(model, source)
        origin["rows from"] = source.description
        rows = sample_rows(source, n_rows)
        if drift:
            with connected(where):
                densities = chunk_densities(model, source.array, [reporter()])
        else:
            missing.append("The drift over chunks: run the report without --no-drift.")
    write(output, model, Evidence(rows, densities, origin, missing), overwrite)
    return {
        "report": output,
        "n_rows_drawn": 0 if rows is None else len(rows),
        "n_chunks": 0 if densities is None else len(densities.means),
        "missing": missing,
    }


def _own_data(model: GaussianMixture) -> tuple[ZarrSource | None, str]:
    """The data that a model was fitted to, or why they cannot be had."""
    known: dict[str, Any] = model.provenance_
    fix = "Pass --data DATA for pictures of rows and the drift over chunks."
    try:
        source = stored_source(known["source"])
    except Exception as e:
        # Stores fail in ways of their own, and the page can do without.
        return None, f"The data that the model was fitted to cannot be opened: {e}. {fix}"
    found = (source.n_rows, source.n_features, str(source.dtype))
    fitted = (known["n_rows"], known["n_features"], known["dtype"])
    if found != fitted:
        return None, (
            f"{known['source']} has changed: it is {found[0]:,} x {found[1]} {found[2]}, and the "
            f"model was fitted to {fitted[0]:,} x {fitted[1]} {fitted[2]}. {fix}"
        )
    return source, ""


def make_demo_data(path: Path, n_rows: int, seed: int = 0) -> None:
    """Write two-dimensional points of five overlapping clusters, sorted by cluster, to Zarr."""
    import zarr
    from zarr.codecs import Crc32cCodec

    rng = np.random.default_rng(seed)
    means = np.array([[0, 0], [5, 1], [1, 5], [6, 6], [-4, 3]], dtype=float)
    spreads = rng.normal(size=(5, 2, 2)) * 0.6 + np.eye(2)
    shares = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
    counts = np.floor(shares * n_rows).astype(int)
    counts[0] += n_rows - counts.sum()
    points = np.concatenate(
        [
            mean + rng.normal(size=(n, 2)) @ spread
            for mean, spread, n in zip(means, spreads, counts, strict=True)
        ]
    )
    array = zarr.create_array(
        path,
        shape=points.shape,
        chunks=(n_rows // 16, 2),
        dtype="f8",
        compressors=[Crc32cCodec()],
    )
    array[:] = points


def demo(
    folder: str, rows: int, where: Where, overwrite: bool, say: Callable[[str], None]
) -> tuple[str, str]:
    """Make data, fit, score, label and draw them in a new folder; return data and model."""
    data, model, answers, picture, page = (
        os.path.join(folder, name)
        for name in ("points.zarr", "model.npz", "answers.zarr", "picture.png", "report.html")
    )
    with new_folder(Path(folder), overwrite):
        say(f"1. {rows:,} points of five clusters, sorted by cluster -> {data}")
        make_demo_data(Path(data), rows)
        say("2. a mixture of five Gaussians, on one process a core")
        fitted = fit(data, model, where, {"n_components": 5, "random_state": 0})
        say(
            f"   {fitted.status_.name.lower()} after {fitted.n_passes_:.2f} passes; weights "
            + " ".join(f"{w:.3f}" for w in sorted(fitted.weights_, reverse=True))
            + " (made with 0.3 0.25 0.2 0.15 0.1)"
        )
        scores = score(model, data, where)
        say(f"3. score: {scores['log_likelihood']:.6f} nats/row, BIC {scores['bic']:,.0f}")
        predict(model, data, answers, where)
        say(f"4. a label for every row -> {answers}/labels")
        if draw(model, data, picture):
            say(f"5. a picture -> {picture}")
            report(model, page, where)
            say(f"6. a page about all of it, to open in a browser -> {page}")
        else:
            say("5. no picture: matplotlib is not installed (pip install 'dask-em[plot]')")
    return data, model


def draw(model_path: str, data: str, picture: str, n_rows: int = 5000) -> bool:
    """Draw a model over some rows of the data; False where matplotlib is not installed."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        return False
    matplotlib.use("Agg")
    from .plots import plot_components

    array = open_zarr(data)
    step = max(1, array.shape[0] // n_rows)
    axes = plot_components(load(model_path), np.asarray(array[:])[::step])
    axes.figure.savefig(picture, dpi=120)
    return True
