"""The job that plans a pass before it starts: its memory, tasks and seconds."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from ..backends import backend_in_force
from ..backends.blas import one_blas_thread
from ..core.additive import Array
from ..core.beside import Beside
from ..core.mixture import Mixture
from ..core.protocols import Source, StoredSource
from ..core.reading import rows_with_noise
from ..core.support import Support
from ..core.tuning import tuning
from ..data.open import (
    labels_beside,
    names_column,
    noise_beside,
    stored_source,
    with_columns_beside,
)
from ..data.options import ReadChoices, ReadOptions
from ..errors import DataError, UsageError
from ..estimators.load import family_name, known_tags, mixture_class
from ..machine import usable_cpus, usable_memory
from .arguments import check_data, check_noise_path
from .cluster import (
    ClusterOptions,
    Worker,
    cluster_client,
    overcommitted,
    workers_for,
    workers_here,
    workers_there,
)
from .files import FleetChoices
from .memory import FitMemory, WorkerMemory

if TYPE_CHECKING:
    from ..estimators.base import MixtureEstimator

logger = logging.getLogger("dask_em")


@dataclass(frozen=True)
class Probe:
    """Times of one thread for a row.

    Attributes
    ----------
    rows_read, rows_computed : int
        Rows that the times were taken of.
    read_seconds, compute_seconds : float
        For one row.
    """

    rows_read: int
    rows_computed: int
    read_seconds: float
    compute_seconds: float


@dataclass(frozen=True)
class Plan:
    """Costs of one pass, known before it starts.

    Attributes
    ----------
    source, n_rows, n_features, dtype
        The data.
    n_chunks, chunk_bytes : int
        Chunks as they are read, and the size of one.
    n_ranges : int
        Tasks of a pass.
    bytes_per_pass, statistics_bytes, parameter_bytes : int
        Read by a pass; of the sums of one task; of what every task is given.
    task_bytes, worker_bytes : int
        Held by a task, and by a worker with all its threads busy, in the phase of a fit that
        takes the most.
    worker_limit, worker_threads : int
        Of the worker that comes closest to its limit (0 for no limit).
    n_workers, n_threads : int
        Of the whole cluster; 0 where it has no workers yet.
    machine_bytes : int
        Memory that the workers of a LocalCluster share, 0 where they are on other machines.
    probe : Probe or None
        Times taken of two chunks, None where nobody took any.
    untimed : str
        Why not, where they were asked for.
    memory : WorkerMemory or None
        Of what `worker_bytes` is the sum.
    factors : int
        Where covariances do not fit into a worker, the number of factors with which those of
        factor analyzers do; else 0.
    sample_bytes : int
        Of the rows that stay with the model, in its file.

    Examples
    --------
    >>> sizes = {"n_chunks": 8, "chunk_bytes": 2**22, "n_ranges": 8, "bytes_per_pass": 2**25}
    >>> needs = {"statistics_bytes": 1_000, "parameter_bytes": 1_000, "task_bytes": 8_000_000}
    >>> workers = {"worker_bytes": 16_000_000, "worker_limit": 2**30, "worker_threads": 2}
    >>> cluster = {"n_workers": 1, "n_threads": 2, "probe": Probe(1_000, 1_000, 1e-6, 4e-6)}
    >>> known = Plan("X.zarr", 1_000_000, 4, "float64", **sizes, **needs, **workers, **cluster)
    >>> known.fits, known.limited_by, round(known.seconds_per_pass, 3)
    (True, 'computing', 2.0)
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
    machine_bytes: int = 0
    probe: Probe | None = None
    untimed: str = ""
    memory: WorkerMemory | None = None
    factors: int = 0
    sample_bytes: int = 0

    @property
    def fits(self) -> bool:
        """Whether each worker fits within its limit, and all of them within the machine."""
        return self.fits_worker and self.fits_machine

    @property
    def fits_worker(self) -> bool:
        """Whether a worker stays below the share of its limit at which Dask pauses it."""
        return not self.worker_limit or self.worker_bytes <= tuning().plan.pause * self.worker_limit

    @property
    def fits_machine(self) -> bool:
        """Whether the workers of a LocalCluster stay within the memory that they share."""
        return not self.machine_bytes or self.n_workers * self.worker_bytes <= self.machine_bytes

    @property
    def read_seconds(self) -> float | None:
        """Seconds of reading in one pass over all threads, estimated."""
        return None if self.probe is None else self._per_pass(self.probe.read_seconds)

    @property
    def compute_seconds(self) -> float | None:
        """Seconds of the E-step in one pass over all threads, estimated."""
        return None if self.probe is None else self._per_pass(self.probe.compute_seconds)

    def _per_pass(self, seconds: float) -> float | None:
        # More threads than tasks have nothing to do.
        busy = min(self.n_threads, self.n_ranges)
        return seconds * self.n_rows / busy if busy else None

    @property
    def seconds_per_pass(self) -> float | None:
        """Seconds of a pass, estimated: the longer of both, which run side by side."""
        read, compute = self.read_seconds, self.compute_seconds
        return None if read is None or compute is None else max(read, compute)

    @property
    def limited_by(self) -> str | None:
        """The longer of the two: "reading" or "computing"."""
        read, compute = self.read_seconds, self.compute_seconds
        if read is None or compute is None:
            return None
        return "reading" if read > compute else "computing"

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON holds it, estimates included."""
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
        if not self.fits_worker:
            raise UsageError(
                f"a worker of {self.worker_threads} threads needs about "
                f"{mebibytes(self.worker_bytes)}, and Dask pauses it at "
                f"{mebibytes(tuning().plan.pause * self.worker_limit)} of its "
                f"{mebibytes(self.worker_limit)}: "
                "raise --memory-limit, lower --threads, or store the data in chunks smaller than "
                f"{mebibytes(self.chunk_bytes)}{self._fewer}"
            )
        if not self.fits_machine:
            raise UsageError(
                f"{self.n_workers} local workers need about "
                f"{mebibytes(self.n_workers * self.worker_bytes)} in all, and "
                f"{mebibytes(self.machine_bytes)} may be used here: lower --workers"
            )

    @property
    def _fewer(self) -> str:
        told = "; or fit covariances of few factors, which fit: --family factor --n-factors "
        return f"{told}{self.factors}" if self.factors else ""


def mebibytes(n: float) -> str:
    """Format bytes as a person reads them.

    Examples
    --------
    >>> mebibytes(3 * 2**20)
    '3 MiB'
    """
    return f"{n / 2**20:,.0f} MiB" if n >= 2**20 else f"{n / 2**10:,.1f} KiB"


def fleet_of(
    ks: int | Sequence[int],
    kinds: str | Sequence[str],
    family: str | Sequence[str] = "gaussian",
    **reading: Unpack[FleetChoices],
) -> Sequence[MixtureEstimator]:
    """Return a model of every family, K, kind and number of factors, which reads as it is told.

    Examples
    --------
    >>> [(m.n_components, m.covariance_type) for m in fleet_of([2, 3], "full")]
    [(2, 'full'), (3, 'full')]
    """
    ks = [ks] if isinstance(ks, int) else ks
    kinds = [kinds] if isinstance(kinds, str) else kinds
    families = [family] if isinstance(family, str) else family
    told: dict[str, Any] = {n: value for n, value in reading.items() if value is not None}
    found = []
    for name in families:
        estimator = class_named(name)
        # "full" is what a command has that was not told.
        if estimator.kind_option is None and list(kinds) != ["full"] and len(families) == 1:
            raise UsageError(f"--family {name} has no --covariance: leave it out")
        chosen = kinds_of(estimator, kinds)
        alike: list[dict[str, Any]] = [{}]
        if chosen is not None:
            alike = [{str(estimator.kind_option): kind} for kind in chosen]
        # Other families refuse NaN anyway, and have neither factors nor noise.
        has = signature(estimator.__init__).parameters
        of_some = FleetChoices.__annotations__.keys() - ReadChoices.__annotations__.keys()
        own = {n: value for n, value in told.items() if n not in of_some or n in has}
        for option in estimator.swept_options:
            given = own.pop(option, None)
            if given is not None:
                values = given if isinstance(given, Sequence) else [given]
                alike = [{**one, option: value} for one in alike for value in values]
        found += [estimator(k, **kind, **own) for kind in alike for k in ks]
    return found


def reading_of(fleet: Sequence[MixtureEstimator]) -> ReadOptions:
    """Return how the models read the data, which all of them share.

    Raises
    ------
    UsageError
        A value is not one of those allowed.
    """
    return max(fleet, key=lambda model: model.n_components).read_options


def class_named(family: str) -> type[MixtureEstimator]:
    """Return the class of mixtures of this name.

    Raises
    ------
    UsageError
        There is none.
    """
    try:
        return mixture_class(family)
    except ValueError as e:
        known = ", ".join(map(family_name, known_tags()))
        raise UsageError(f"--family {family}: expected one of {known}") from e


def kinds_of(estimator: type[MixtureEstimator], kinds: Sequence[str]) -> Sequence[str] | None:
    """Return the kinds of components that a command asked for; None for the estimator's own."""
    name = estimator.kind_option
    told = name == "covariance_type" or [*kinds] != ["full"]
    return kinds if told and name is not None else None


def plan(
    data: str,
    k: int | Sequence[int],
    covariance: str | Sequence[str],
    cluster: ClusterOptions,
    probe: bool = False,
    family: str | Sequence[str] = "gaussian",
    noise_covariance: str | None = None,
    labels: str | None = None,
    keep_sample: int = 0,
    **reading: Unpack[FleetChoices],
) -> Plan:
    """Plan a pass over `data`; with `probe`, read two chunks and take the time.

    Memory is that of a pass with `labels` beside the rows, where there are some. Of several
    families, K or structures, it is the pass that serves all of them. On a running cluster one of
    its workers reads the chunks, else this process. `keep_sample` rows stay with the model.
    """
    check_data(data)
    check_noise_path(noise_covariance)
    fleet = fleet_of(k, covariance, family, **reading)
    options = with_columns_beside(reading_of(fleet), labels, noise_covariance)
    source = stored_source(data, options=options)
    if labels is not None:
        if not names_column(labels):
            check_data(labels, "--labels")
        most = max(model.n_labels for model in fleet)
        source = labels_beside(source, data, labels, most, options)
    if noise_covariance is not None:
        source = noise_beside(source, data, noise_covariance, options)
    if source.lacks_checksum:
        logger.warning("%s has no checksum: %s", source.description, source.lacks_checksum)
    # As `fit` keeps what it has.
    needed = partial(count, source, fleet, kept=True, keep_sample=keep_sample)
    if not cluster.remote:
        planned = planned_here(cluster, needed)
        probed = partial(probe_chunks, source)
        return _timed(planned, source, fleet, probed) if probe else planned
    with cluster_client(cluster) as client:
        planned = needed(workers_there(client))

        def on_a_worker(probed: Probed) -> Probe | None:
            with backend_in_force().executor(source) as executor:
                (measured,) = executor.map(probe_chunks, [probed])
            return measured

        return _timed(planned, source, fleet, on_a_worker) if probe else planned


def _timed(
    planned: Plan,
    source: Source,
    fleet: Sequence[MixtureEstimator],
    measure: Callable[[Probed], Probe | None],
) -> Plan:
    """Return the plan with the times of two chunks, or why there are none."""
    if not (planned.fits and planned.n_workers):
        return planned
    d, most = planned.n_features, max(model.n_components for model in fleet)
    if any(m.start_options().n_parameters(d) * d > tuning().plan.probe_factors for m in fleet):
        why = f"timing two chunks would take minutes with {most} components in {d} columns"
        return replace(planned, untimed=why)
    chunks = 0, source.n_chunks // 2
    beside = [source.shipped_beside(range(chunk, chunk + 1)) for chunk in chunks]
    measured = measure(Probed(fleet, chunks, beside))
    why = "" if measured else f"two chunks hold too few finite rows for -k {most}"
    return replace(planned, probe=measured, untimed=why)


def planned_here(cluster: ClusterOptions, needed: Callable[[Sequence[Worker]], Plan]) -> Plan:
    """Return what is `needed` on a LocalCluster, and whether this machine has it."""
    planned = needed(workers_here(cluster))
    # Processes beyond the processors take turns.
    n_threads = min(planned.n_threads, usable_cpus())
    return replace(planned, n_threads=n_threads, machine_bytes=usable_memory())


def count(
    source: Source,
    fleet: Sequence[MixtureEstimator],
    workers: Sequence[Worker],
    holdout: float = 0.0,
    exhaustive: bool = False,
    kept: bool = False,
    keep_sample: int = 0,
) -> Plan:
    """Count what a pass over `source` takes on these workers, without reading any of it.

    Memory is that of the whole fit, see `FitMemory`: of one model, or of several of which some
    are given up, unless `exhaustive`. With a checkpoint, sums are `kept`; `keep_sample` rows go
    into the model's file.
    """
    for model in fleet:
        model.take_columns(source)
    several = len(fleet) > 1 or holdout > 0
    screened = several and not exhaustive
    counted = FitMemory(source, fleet, holdout, screened, kept)
    memory = counted.worker
    tightest = min(
        workers,
        key=lambda w: (
            tuning().plan.pause * w.limit - memory.of_threads(w.threads) if w.limit else np.inf
        ),
        default=Worker(1, 0),
    )
    models = [(8 * len(mixture.log_weights), mixture.components) for mixture in counted.mixtures]
    planned = Plan(
        source.description,
        source.n_rows or 0,
        source.n_features,
        str(source.dtype),
        source.n_chunks,
        source.chunk_rows * source.n_features * source.dtype.itemsize,
        len(source.ranges()),
        source.nbytes + 8 * source.beside.width * (source.n_rows or 0),
        sum(weights + components.statistics_bytes for weights, components in models),
        sum(weights + components.nbytes for weights, components in models),
        memory.largest(tightest.threads).task,
        memory.of_threads(tightest.threads),
        tightest.limit,
        tightest.threads,
        len(workers),
        sum(w.threads for w in workers),
        memory=memory,
        # Rows in float64, and the weight of each.
        sample_bytes=8 * min(keep_sample, source.n_rows or 0) * (source.n_features + 1),
    )
    if planned.fits_worker:
        return planned

    def fitting(q: int) -> bool:
        fewer = replace(counted, models=_of_factors(fleet, q)).worker
        found = replace(planned, worker_bytes=fewer.of_threads(tightest.threads))
        return found.fits_worker

    return replace(planned, factors=_most_factors(fleet, source.n_features, fitting))


def _of_factors(fleet: Sequence[MixtureEstimator], q: int) -> list[MixtureEstimator]:
    """Return factor analyzers in place of each model."""
    make: Callable[..., MixtureEstimator] = class_named("factor")
    ks = dict.fromkeys(model.n_components for model in fleet)
    return [make(k, n_factors=q, sample_size=fleet[0].sample_size) for k in ks]


def _most_factors(fleet: Sequence[MixtureEstimator], d: int, fitting: Callable[[int], bool]) -> int:
    """Return the most factors of some that fit in place of Gaussian covariances, 0 where none."""
    if any(model.family != "gaussian" for model in fleet):
        return 0
    return next((q for q in tuning().plan.factors if q < d and fitting(q)), 0)


@dataclass(frozen=True)
class Probed:
    """Hold what a probe is made of.

    Attributes
    ----------
    fleet : sequence of MixtureEstimator
    chunks : (int, int)
        Numbers of the two that are read.
    beside : sequence of Beside
        What stands beside the rows of each.
    """

    fleet: Sequence[MixtureEstimator]
    chunks: tuple[int, int]
    beside: Sequence[Beside]


def probe_chunks(source: StoredSource, probed: Probed) -> Probe | None:
    """Time one thread on two chunks, from the front and the middle of the data.

    The first chunk warms up and the second counts. The E-step is timed with a mixture
    made from these rows, so that its responsibilities are like real ones: the one of the
    fleet that costs most, and the others are taken to cost in proportion.

    Returns
    -------
    Probe or None
        None where the chunks hold too few finite rows for such a mixture.
    """
    reader, fleet = source.reader(), probed.fleet

    def rows(which: int) -> Array:
        chunk = probed.chunks[which]
        return rows_with_noise(source, probed.beside[which], chunk, reader.read(chunk)[0])

    front = rows(0)
    begin = time.perf_counter()
    middle = rows(1)
    reading = time.perf_counter() - begin
    d = source.n_features
    # About one product a row and parameter.
    costs = [model.start_options().n_parameters(d) for model in fleet]
    per_row = max(costs)
    model = fleet[costs.index(per_row)]
    k = model.n_components
    most = max(1000, 2 * k, tuning().plan.probe_products // per_row)
    support = model.family_options().support
    warm_up, timed = (_usable_rows(X, most, support) for X in (front, middle))
    if min(len(warm_up), len(timed)) < max(k, 2):
        return None
    try:
        mixture = _quick_start(np.concatenate([warm_up, timed])[:, :d], model, most)
        if probed.beside[0].noise is not None:
            components = model.family_options().of_noisy_rows().noisy(mixture.components)
            mixture = mixture.holding(components)
        fold = mixture.fold()
    except DataError:
        # A fit of all rows says why, if it cannot be made either.
        return None
    with one_blas_thread():
        fold.update(0, warm_up, None)
        fold.result()
        begin = time.perf_counter()
        fold.update(1, timed, None)
        fold.result()
        computing = time.perf_counter() - begin
    computing *= sum(costs) / per_row
    return Probe(len(middle), len(timed), reading / len(middle), computing / len(timed))


def _usable_rows(X: Array, most: int, support: Support) -> Array:
    kept = support.kept(X)
    return np.asarray((X if kept is None else X[kept])[:most])


def _quick_start(rows: Array, model: MixtureEstimator, most: int) -> Mixture:
    """Fit a mixture to some rows by two iterations from k-means++."""
    step = -(-len(rows) // max(most // 4, 4 * model.n_components))
    with warnings.catch_warnings():
        # Whatever is odd about the data, the fit will say.
        warnings.simplefilter("ignore")
        mixture: Mixture = model.quick().fit(rows[::step]).predictor(()).mixture
    return mixture


@contextmanager
def checked(cluster: ClusterOptions, needed: Callable[[Sequence[Worker]], Plan]) -> Iterator[None]:
    """Open a cluster whose workers can hold what is `needed`; a local one is checked unstarted."""
    planned = planned_here(cluster, needed)
    if not cluster.remote:
        planned.check()
        if text := overcommitted(workers_here(cluster)):
            logger.warning("%s", text)
    with workers_for(cluster, planned.bytes_per_pass) as client:
        if cluster.remote and client is not None:
            needed(workers_there(client)).check()
        yield
