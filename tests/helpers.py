"""The table of structures that every law runs over, and data to run it on."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import numpy as np
import zarr
from distributed import Client, LocalCluster
from small_reads import SMALL_READ as SMALL_READ
from small_reads import SMALL_READS as SMALL_READS
from small_reads import SmallReads as SmallReads

from dask_em.backends.dask.config import engine_for
from dask_em.backends.serial import SerialBackend
from dask_em.core.em import Convergence, EMState, em
from dask_em.core.mixture import Mixture
from dask_em.core.parts import MixtureStatistics
from dask_em.estimators.fitted import FittedEstimator
from dask_em.families.gaussian.constraints import CONSTRAINTS
from dask_em.families.gaussian.family import Gaussian
from dask_em.families.gaussian.statistics import GaussianStatistics
from dask_em.families.gaussian.whitening import Whitening
from dask_em.testing.waiting import HANG as HANG
from dask_em.testing.waiting import wait_until as wait_until

# Every way to store covariances; other constraints are kept in one of them.
KINDS = ["full", "tied", "diag", "spherical"]


class Tune(Protocol):
    """Change tuning constants for the rest of a test, in groups: `tune(reading={"bytes": 1})`."""

    def __call__(self, **groups: dict[str, object]) -> None: ...


PARAMETERS = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")


def start_cluster(n_workers: int, **options: Any) -> LocalCluster:
    """Worker processes of one thread; without a dashboard port that others may hold."""
    options = {"processes": True, "dashboard_address": ":0", **options}
    return LocalCluster(n_workers=n_workers, threads_per_worker=1, **options)


def beside_a_client(work: Callable[[], Awaitable[Any]], limit: float = HANG) -> Any:
    """What a coroutine returns while an asynchronous client is in force."""

    async def main() -> Any:
        async with (
            LocalCluster(
                n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0",
                asynchronous=True,
            ) as cluster,
            Client(cluster, asynchronous=True),
        ):  # fmt: skip
            return await asyncio.wait_for(work(), limit)

    return asyncio.run(main())


# The program, with all the time it needs to keep what is done once a signal has come.
PATIENT = [
    sys.executable,
    "-c",
    f"from dask_em.cli import main, signals; signals.LEAVE_SECONDS = {HANG}; main()",
]


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What a program says on standard error up to the line that holds `text`."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


# How programs begin that run `dask-em fit` many times, each in a fork: without a cluster and
# compiled loops, and with all imported that is not to be counted.
FORKED = '''
import os, sys
from contextlib import contextmanager
from pathlib import Path
import dask, distributed, sklearn.cluster, sklearn.mixture, zarr
from dask_em import cli, load
from dask_em.core import tuning
from dask_em.jobs import plan as planning

@contextmanager
def here(where, nbytes):
    with dask.config.set({"scheduler": "synchronous", "dask_em.fast": False}):
        yield

dask.config.set({"dask_em.fast": False})
planning.workers_for = here
tuning.DEFAULTS = tuning.DEFAULTS.with_changes(reading={"bytes": 8192})

def fit(data, output, *options, prepare):
    """The program's exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    prepare()
    try:
        cli.main(["fit", data, "-k", "2", "-o", str(output), "--tol", "1e-9", "--sample-size",
                  "100", "--init-params", "random_from_data", "--checkpoint-interval", "0",
                  *options])
    except SystemExit as e:
        os._exit(e.code or 0)
    os._exit(1)

def parameters(output):
    model = load(output)
    arrays = (model.means_, model.covariances_, model.weights_)
    return [a.tobytes() for a in arrays], model.lower_bounds_, model.n_iter_
'''


def kill_when(text: str, command: Sequence[str], cwd: Any = None) -> None:
    """SIGKILL a program when it says `text` on standard error."""
    process = subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True)
    try:
        read_until(process, text)
    finally:
        process.kill()
        process.wait(timeout=HANG)
        assert process.stderr is not None
        process.stderr.close()


def blobs(
    n: int, d: int, k: int, seed: int = 0, apart: float = 3.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of k unit normals, their labels, and the true means."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(k, d)) * apart
    labels = rng.integers(0, k, n)
    return rng.normal(size=(n, d)) + means[labels], labels, means


def write_zarr(path: Any, X: np.ndarray, chunk_rows: int, **options: Any) -> zarr.Array:
    """X on disk in chunks of rows, of all columns unless `chunks` says otherwise."""
    options = {"chunks": (chunk_rows, *X.shape[1:]), **options}
    array = zarr.create_array(str(path), shape=X.shape, dtype=X.dtype, **options)
    array[:] = X
    return array


def random_precisions(kind: str, k: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Precisions of scikit-learn's shape, eigenvalues between about 1/2 and 2."""
    A = rng.normal(size=(k, d, d)) / np.sqrt(4 * d)
    full = A @ A.transpose(0, 2, 1) + 0.5 * np.eye(d)
    return {
        "full": full,
        "tied": full[0],
        "diag": np.diagonal(full, axis1=1, axis2=2).copy(),
        "spherical": full[:, 0, 0].copy(),
    }[kind]


def precisions_like(kind: str, value: float, k: int, d: int) -> np.ndarray:
    """`value` times the identity, in scikit-learn's shape."""
    shape = {"full": (k, 1, 1), "tied": (1, 1), "diag": (k, 1), "spherical": (k,)}[kind]
    unit: Any = {"full": np.eye(d), "tied": np.eye(d), "diag": np.ones(d), "spherical": 1.0}[kind]
    return value * np.ones(shape) * unit


def start(kind: str, means: np.ndarray, precision: float = 1.0) -> dict[str, Any]:
    """The three inits, with equal weights."""
    k, d = means.shape
    return {
        "weights_init": np.full(k, 1 / k),
        "means_init": means,
        "precisions_init": precisions_like(kind, precision, k, d),
    }


def random_mixture(kind: str, k: int, d: int, rng: np.random.Generator) -> Mixture:
    """A mixture of unit width or so, in the frame of the data's own coordinates."""
    frame = Whitening(np.zeros(d), np.ones(d))
    covariance = CONSTRAINTS[kind].storage.from_precisions(random_precisions(kind, k, d, rng))
    log_weights = np.log(rng.dirichlet(np.full(k, 5.0)))
    components = Gaussian(rng.normal(size=(k, d)), covariance, frame)
    return Mixture(log_weights, components, engine_for(np.float64))


def mixture_of(
    kind: str, means: np.ndarray, precisions: np.ndarray, X: np.ndarray, ridge: float = 0.0
) -> Mixture:
    """A mixture given in the data's coordinates, equal weights, in the frame of X."""
    d = X.shape[1]
    structure = CONSTRAINTS[kind].storage
    covariance = np.cov(X.T, bias=True).reshape(d, d)
    frame = Whitening.of_moments(X.mean(axis=0), covariance, structure.whitening_kind)
    given = structure.from_precisions(precisions)
    components = Gaussian.from_data_coordinates(means, given, frame, ridge)
    log_weights = np.full(len(means), -np.log(len(means)))
    return Mixture(log_weights, components, engine_for(np.float64))


def gaussian_of(mixture: Mixture) -> Gaussian:
    """The components of a mixture, whose own arrays a test looks at."""
    found = mixture.components
    assert isinstance(found, Gaussian)
    return found


def sums_of(statistics: MixtureStatistics) -> GaussianStatistics:
    """The sums of its components."""
    found = statistics.components
    assert isinstance(found, GaussianStatistics)
    return found


def add_up(
    mixture: Mixture, X: np.ndarray, sample_weight: np.ndarray | None = None
) -> MixtureStatistics:
    """The E-step over all rows as one chunk."""
    fold = mixture.fold()
    fold.update(0, X, sample_weight)
    return fold.result()


def states(
    X: np.ndarray, mixture: Mixture | EMState, max_iter: int = 100, tol: float = 1e-3
) -> list[EMState]:
    """Every state of EM over rows in memory."""
    return list(em(lambda m: add_up(m, X), mixture, Convergence(tol, max_iter)))


def serial_states(source: Any, mixture: Mixture, max_iter: int) -> list[EMState]:
    """Every state of EM over a source, read in this thread."""
    backend = SerialBackend()
    return list(em(lambda m: backend.map_reduce(source, m), mixture, Convergence(0.0, max_iter)))


def leaves(value: Any) -> list[np.ndarray]:
    """The numbers in a record of sums, in the order of its fields."""
    if hasattr(value, "__dataclass_fields__"):
        return [
            leaf for name in value.__dataclass_fields__ for leaf in leaves(getattr(value, name))
        ]
    if isinstance(value, tuple):
        return [leaf for one in value for leaf in leaves(one)]
    return [] if value is None else [np.asarray(value)]


def assert_sums_close(actual: Any, expected: Any, rtol: float) -> None:
    """Equal to `rtol` of the largest number in each field."""
    for a, b in zip(leaves(actual), leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(np.abs(b).max(), 1e-300))


def assert_fits_close(actual: Any, expected: Any, rtol: float, **offsets: Any) -> None:
    """The same parameters, to `rtol` of the largest number in each."""
    for name in PARAMETERS:
        a, b = (
            m.fitted_array(name) if isinstance(m, FittedEstimator) else getattr(m, name)
            for m in (actual, expected)
        )
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max(), err_msg=name)
    np.testing.assert_allclose(actual.lower_bound_, expected.lower_bound_, rtol=rtol)


def digest(model: Any) -> str:
    """sha256 of every fitted parameter, of a model of any family."""
    names = model.public_arrays
    parts = [np.ascontiguousarray(getattr(model, name)).tobytes() for name in names]
    return hashlib.sha256(b"".join([*parts, np.float64(model.lower_bound_).tobytes()])).hexdigest()


def kill(cluster: LocalCluster) -> int:
    """SIGKILL one worker process of a cluster that the caller started."""
    pid = next(iter(cluster.workers.values())).pid
    os.kill(pid, signal.SIGKILL)
    return pid
