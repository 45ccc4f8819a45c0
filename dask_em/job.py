"""Jobs: what the command line asks for, as plain functions that return plain results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .backends.dask import DaskBackend
from .callbacks import Pass, reporter
from .errors import DataError, UsageError
from .estimators import GaussianMixture, load
from .families.covariance import STRUCTURES
from .families.gaussian import Gaussian
from .frame import Frame
from .mixture import Answer, answer_dtype
from .sinks import WriteAnswers, check_free, create_outputs, new_folder, whole_or_nothing
from .sources import open_zarr, ranges, stored_source

# What a worker process holds before its first chunk: Python, NumPy, SciPy, Dask and Zarr.
IDLE_BYTES = 150 * 2**20
# Dask pauses a worker at this share of its limit.
PAUSE = 0.8


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
    """

    scheduler: str | None = None
    scheduler_file: str | None = None
    workers: int | None = None
    threads: int = 1
    memory_limit: str = "auto"
    tls_ca_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None

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
    from distributed.security import Security

    if where.remote:
        security = None
        if where.tls_ca_file:
            security = Security(
                tls_ca_file=where.tls_ca_file,
                tls_client_cert=where.tls_cert,
                tls_client_key=where.tls_key,
                require_encryption=True,
            )
        try:
            client = Client(where.scheduler, scheduler_file=where.scheduler_file, security=security)
        except (OSError, TimeoutError, ValueError) as e:
            raise UsageError(
                f"no Dask scheduler answers at {where.scheduler or where.scheduler_file}: {e}"
            ) from e
        with client:
            yield client
        return
    with (
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
    ):
        yield client


@dataclass(frozen=True)
class Plan:
    """What one pass costs, known before it starts."""

    source: str
    n_rows: int
    n_features: int
    dtype: str
    n_chunks: int
    chunk_bytes: int
    n_ranges: int
    bytes_per_pass: int
    statistics_bytes: int
    task_bytes: int
    worker_bytes: int
    worker_limit: int

    @property
    def fits(self) -> bool:
        """Whether a worker stays below the share of its limit at which Dask pauses it."""
        return not self.worker_limit or self.worker_bytes <= PAUSE * self.worker_limit

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "fits": self.fits}

    def check(self) -> None:
        """Raise `UsageError` where a worker cannot hold a task."""
        if not self.fits:
            raise UsageError(
                f"a worker needs about {mebibytes(self.worker_bytes)}, and Dask pauses it at "
                f"{mebibytes(PAUSE * self.worker_limit)} of its {mebibytes(self.worker_limit)}: "
                "raise --memory-limit, lower --threads, or store the data in chunks smaller than "
                f"{mebibytes(self.chunk_bytes)}"
            )


def mebibytes(n: float) -> str:
    """Bytes as a person reads them."""
    return f"{n / 2**20:,.0f} MiB" if n >= 2**20 else f"{n / 2**10:,.1f} KiB"


def plan(data: str, k: int, covariance: str, where: Where) -> Plan:
    """Count what a pass over `data` takes, without reading any of it."""
    source = stored_source(data)
    d = source.n_features
    structure = STRUCTURES[covariance]
    frame = Frame(np.zeros(d), np.ones(d))
    components = Gaussian(np.zeros((k, d)), structure.of_data(np.eye(d), k), frame)
    kernel = components.kernel()
    buffers = sum(a.nbytes for a in vars(kernel).values() if isinstance(a, np.ndarray))
    chunk = int(source.chunk_rows) * d * source.dtype.itemsize
    statistics = kernel.statistics().nbytes + 8 * k
    task = source.chunks_held * chunk + buffers + 2 * statistics
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
        task,
        IDLE_BYTES + where.threads * task,
        0 if where.remote else where.worker_limit,
    )


def fit(
    data: str,
    output: str,
    where: Where,
    options: dict[str, Any],
    weights: str | None = None,
    overwrite: bool = False,
) -> GaussianMixture:
    """Fit a mixture to the Zarr array at `data` and save it to `output`."""
    check_free(output, overwrite)
    _check_folder(output)
    model = GaussianMixture(**options, callbacks=[reporter()])
    plan(data, model.n_components, model.covariance_type, where).check()
    stored_source(data, weights)
    with connected(where):
        model.fit(data, sample_weight=weights)
    model.set_params(callbacks=None)
    model.save(output, overwrite=overwrite)
    return model


def _check_folder(output: str) -> None:
    folder = Path(output).absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{output}: there is no folder {folder}; make it first")


def predict(
    model_path: str,
    data: str,
    destination: str,
    where: Where,
    answers: Sequence[Answer] = ("labels",),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write answers for every row of `data` to a new Zarr group, one pass for all of them."""
    check_free(destination, overwrite)
    _check_folder(destination)
    model = load(model_path)
    source = stored_source(data)
    if source.n_features != model.n_features_in_:
        raise DataError(
            f"{data} has {source.n_features} columns, but {model_path} was fitted to "
            f"{model.n_features_in_}"
        )
    kinds: dict[str, tuple[int | None, Any]] = {
        a: (model.n_components if a == "proba" else None, answer_dtype(a)) for a in answers
    }
    with whole_or_nothing(Path(destination), overwrite) as wip, connected(where):
        outputs = create_outputs(wip, source.n_rows, source.chunk_rows, kinds)
        work = WriteAnswers(model.predictor(answers), source.bounds, outputs)
        with Pass([reporter()], "predict", 1, source.n_rows, source.nbytes) as running:
            written = DaskBackend().map_reduce(source, work, running.advance)
    return {"destination": destination, "arrays": list(kinds), "n_rows": written.n_rows}


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
    data, model, answers, picture = (
        os.path.join(folder, name)
        for name in ("points.zarr", "model.npz", "answers.zarr", "picture.png")
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
