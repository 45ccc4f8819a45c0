"""A fixed set of fits, each reduced to one sha256: whether a change of the code kept all bits.

Every case uses the public interface alone: `GaussianMixture`, `select`, `load`, `Checkpointing`
and the command line. It prints a line `name  sha256`. The hash is of the fitted parameters, of how
the fit ended, and of the model's answers, with types and shapes. Data are made from fixed seeds,
in a temporary folder. The package is the one of the checkout that this file lies in.

    python tests/witness.py -o before.txt         # before a change
    python tests/witness.py --compare before.txt  # after it: names of cases whose bits differ
    python tests/witness.py --only 'select*'      # some cases, by a shell pattern
    python tests/witness.py --parts --only full-numpy  # a hash of each array, to find what differs

The exit code is 1 where a case fails, differs or is lacking; cases that FILE does not have are not
compared. It takes one to two minutes on two cores. Lines are comparable only on one type of CPU
with the same versions of NumPy, SciPy, scikit-learn and Numba: other ones may round differently.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from fnmatch import fnmatchcase
from functools import cached_property, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import array_api_strict
import dask
import dask.array as da
import numpy as np
import xarray as xr
import zarr
from distributed import Client, LocalCluster
from zarr.codecs import Crc32cCodec, ZstdCodec

from dask_em import Checkpointing, GaussianMixture, load, select
from dask_em.fitting.observers import Event, Observer, PassStarted, RowsDone

ROOT = str(Path(__file__).resolve().parents[1])
KINDS = ("full", "tied", "diag", "spherical")
ENGINES = {"numpy": False, "compiled": True}
SETTINGS = {"dask_em.fast": True, "dask_em.float32": True}
ATTRIBUTES = (
    *("weights_", "means_", "covariances_", "precisions_cholesky_"),
    *("converged_", "n_iter_", "lower_bound_", "lower_bounds_"),
)
ROWS_ANSWERS, TOTALS = ("predict", "predict_proba", "score_samples"), ("score", "bic", "icl")
COLUMNS = (
    *("n_components", "covariance_type", "n_parameters", "log_likelihood", "aic", "bic", "icl"),
    *("holdout", "n_passes", "status"),
)
Parts = dict[str, Any]
"""What a case gave: arrays, numbers and words, by name."""


# -- data --------------------------------------------------------------------------------


def blobs(n: int, d: int, k: int, apart: float = 2.0) -> np.ndarray:
    """Rows of k normals of different shapes, weights and widths."""
    rng = np.random.default_rng([n, d, k])
    means = rng.normal(size=(k, d)) * apart
    shapes = rng.normal(size=(k, d, d)) / np.sqrt(d) + np.eye(d)
    labels = rng.choice(k, n, p=rng.dirichlet(np.full(k, 8.0)))
    return means[labels] + np.einsum("nij,nj->ni", shapes[labels], rng.normal(size=(n, d)))


class Data:
    """Data of the cases, made when a case asks for them, and where they and all files lie."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack

    @cached_property
    def small(self) -> np.ndarray:
        return blobs(3000, 4, 3)

    @cached_property
    def overlapping(self) -> np.ndarray:
        return blobs(4000, 3, 4, apart=1.2)

    @cached_property
    def many(self) -> np.ndarray:
        """Enough bytes to be read in several chunks, of which the last is smaller."""
        return blobs(350_000, 6, 3)

    @cached_property
    def swept(self) -> np.ndarray:
        return blobs(8000, 3, 4, apart=1.4)

    @cached_property
    def holed(self) -> np.ndarray:
        rows = self.small.copy()
        rows[[5, 1234, 2999], [0, 3, 1]] = np.nan, np.inf, -np.inf
        return rows

    def weights(self, n: int) -> np.ndarray:
        found = np.random.default_rng(n).uniform(0.0, 2.0, n)
        found[::50] = 0.0
        return found

    def stored(self, name: str, rows: np.ndarray, chunks: int, **options: Any) -> str:
        """The path of these rows as a Zarr array."""
        path = self.folder / f"{name}.zarr"
        if not path.exists():
            array = zarr.create_array(
                str(path),
                shape=rows.shape,
                dtype=rows.dtype,
                chunks=(chunks, *rows.shape[1:]),
                **{"compressors": [Crc32cCodec()], **options},
            )
            array[:] = rows
        return str(path)

    def stored_many(self) -> str:
        return self.stored("many", self.many, 90_000)

    @cached_property
    def cluster(self) -> Any:
        """Two worker processes."""
        options: Any = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
        return self._stack.enter_context(LocalCluster(processes=True, **options))


# -- what is hashed ----------------------------------------------------------------------


def fitted(model: Any) -> Parts:
    """The parameters and the end of a fit."""
    return {**{name: getattr(model, name) for name in ATTRIBUTES}, "status": model.status_.name}


def answers(model: Any, X: Any) -> Parts:
    """What a model says of rows."""
    rows = {name: np.asarray(getattr(model, name)(X)) for name in ROWS_ANSWERS}
    return rows | {name: getattr(model, name)(X) for name in TOTALS}


def fit(X: Any, k: int = 3, sample_weight: Any = None, of: Any = None, **options: Any) -> Parts:
    """A fit, and its answers for the same data, or for those of `of`."""
    model = GaussianMixture(k, **{"random_state": 0, **options})
    model.fit(X, sample_weight=sample_weight)
    return fitted(model) | answers(model, X if of is None else of)


def sweep(X: Any, k: Iterable[int] = range(2, 6), kinds: Any = "full", **options: Any) -> Parts:
    """A sweep: the winner, its answers, the table and all models that were kept."""
    found = select(X, k, kinds, **{"random_state": 0, **options})
    rows = [[row[name] for name in COLUMNS] for row in found.table]
    parts = fitted(found.best) | answers(found.best, X)
    parts |= {"table": json.dumps(rows, default=float), "n_passes": found.n_passes}
    for i, model in enumerate(found.models):
        parts |= prefixed(f"model {i}", fitted(model))
    return parts


def prefixed(name: str, parts: Parts) -> Parts:
    return {f"{name} {part}": value for part, value in parts.items()}


def hash_of(value: Any) -> str:
    """sha256 of a value's type, shape and bytes."""
    if isinstance(value, str):
        return hashlib.sha256(value.encode()).hexdigest()
    array = np.asarray(value)
    return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()


def hash_of_all(parts: Parts) -> str:
    lines = [f"{name} {hash_of(value)}\n" for name, value in sorted(parts.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# -- cases -------------------------------------------------------------------------------

Case = Callable[[Data], Parts]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__.replace("_", "-")] = function
    return function


def with_settings(settings: Mapping[str, Any], function: Case) -> Case:
    def run(data: Data) -> Parts:
        with dask.config.set(settings):
            return function(data)

    return run


def both_engines(function: Case) -> Case:
    """Make a case for each engine."""
    for name, fast in ENGINES.items():
        CASES[f"{function.__name__.replace('_', '-')}-{name}"] = with_settings(
            {"dask_em.fast": fast}, function
        )
    return function


def missing_chunks(value: str) -> Parts:
    """The option for chunks that are not there, by the name that the constructor has for it."""
    known = inspect.signature(GaussianMixture).parameters
    return {"missing_chunks" if "missing_chunks" in known else "missing": value}


def of_every_kind(make: Callable[[str], Parts]) -> Parts:
    """The parts of a fit of each type of covariance."""
    return {name: v for kind in KINDS for name, v in prefixed(kind, make(kind)).items()}


def start(means: np.ndarray, kind: str = "full") -> Parts:
    """A user's start of equal weights and covariances of half the identity."""
    k, d = means.shape
    full = np.tile(2 * np.eye(d), (k, 1, 1))
    precisions = {"full": full, "tied": full[0], "diag": full[:, 0] + 2, "spherical": full[:, 0, 0]}
    return {
        "weights_init": np.full(k, 1 / k),
        "means_init": means,
        "precisions_init": precisions[kind],
    }


def _of_kind(kind: str, data: Data) -> Parts:
    return fit(data.small, covariance_type=kind)


for _kind in KINDS:
    _function = partial(_of_kind, _kind)
    _function.__name__ = _kind  # type: ignore[attr-defined]
    both_engines(_function)


@both_engines
def float32_full(data: Data) -> Parts:
    return fit(data.small.astype(np.float32))


@both_engines
def float32_diag(data: Data) -> Parts:
    return fit(data.small.astype(np.float32), covariance_type="diag")


@case
def float32_in_float64(data: Data) -> Parts:
    with dask.config.set({"dask_em.float32": False}):
        return fit(data.small.astype(np.float32))


@both_engines
def offset_1e8(data: Data) -> Parts:
    return fit(data.small + 1e8)


@both_engines
def wide(data: Data) -> Parts:
    return fit(blobs(3000, 40, 3))


@case
def wide_float32(data: Data) -> Parts:
    return fit(blobs(3000, 40, 3).astype(np.float32))


@both_engines
def tight_and_collinear(data: Data) -> Parts:
    """A component much tighter than the spread, and columns that nearly repeat another one."""
    rows = data.small.copy()
    rows[:600] = [50.0, 50.0, 50.0, 50.0] + 1e-4 * rows[:600]
    rows = np.column_stack([rows, rows[:, 0] + 1e-6 * rows[:, 1]])
    options: Any = {"reg_covar": 1e-12, "max_iter": 10}
    return of_every_kind(lambda kind: fit(rows, covariance_type=kind, **options))


@case
def one_column(data: Data) -> Parts:
    return fit(data.small[:, :1], 2) | prefixed(
        "integers", fit((9 * data.small[:, :2]).astype(int))
    )


# -- options


@case
def algorithm_em(data: Data) -> Parts:
    return fit(data.overlapping, algorithm="em", tol=1e-5, max_iter=30)


@case
def rejected_passes(data: Data) -> Parts:
    return fit(data.overlapping, 6, tol=1e-9, max_iter=14, sample_size=60)


@case
def n_init(data: Data) -> Parts:
    parts = fit(data.overlapping, 5, n_init=6, sample_size=600)
    return parts | prefixed("kmeans", fit(data.overlapping, 5, n_init=3, init_params="kmeans"))


for _init in ("kmeans", "k-means++", "random", "random_from_data"):
    CASES[f"init-{_init.replace('_', '-')}"] = partial(
        lambda init, data: fit(data.overlapping, 4, init_params=init, max_iter=20), _init
    )


@case
def random_state(data: Data) -> Parts:
    return fit(data.overlapping, random_state=np.random.RandomState(7))


@case
def given_start(data: Data) -> Parts:
    means = data.small[:3]

    def make(kind: str) -> Parts:
        return fit(data.small, **start(means, kind), covariance_type=kind, tol=1e-6, max_iter=10)

    return of_every_kind(make) | prefixed("means alone", fit(data.small, means_init=means))


@case
def warm_start(data: Data) -> Parts:
    model = GaussianMixture(3, random_state=0, warm_start=True, max_iter=2, algorithm="em")
    first = fitted(model.fit(data.overlapping[:2000]))
    second = fitted(model.fit(data.overlapping))
    return second | prefixed("first", first) | answers(model, data.overlapping)


@case
def max_passes(data: Data) -> Parts:
    return fit(data.overlapping, 5, max_passes=3, tol=0.0)


@case
def collapsed(data: Data) -> Parts:
    """A point that is there fifty times and gets a component of its own."""
    point = np.array([30.0, 20.0, 10.0, 0.0])
    rows = np.vstack([data.small[:500], np.tile(point, (50, 1))])
    return fit(rows, 2, **start(np.stack([np.zeros(4), point])), reg_covar=0.0, tol=1e-6)


@case
def array_api_device(data: Data) -> Parts:
    options: Any = {"device": array_api_strict, "max_iter": 5}
    parts = of_every_kind(lambda kind: fit(data.small, covariance_type=kind, **options))
    weights, single = data.weights(3000), data.small.astype(np.float32)
    return parts | prefixed("float32", fit(single, sample_weight=weights, **options))


# -- weights, and rows that are left out


@case
def weights_numpy(data: Data) -> Parts:
    return fit(data.many, sample_weight=data.weights(len(data.many)))


@case
def weights_dask(data: Data) -> Parts:
    weights = da.from_array(data.weights(3000), chunks=1100)
    rows = da.from_array(data.small, chunks=((700, 1300, 1000), -1))
    return fit(rows, sample_weight=weights)


@case
def weights_zarr(data: Data) -> Parts:
    weights = data.stored("many-weights", data.weights(len(data.many)), 77_000)
    parts = fit(data.stored_many(), sample_weight=weights)
    loose = fit(data.stored_many(), sample_weight=data.weights(len(data.many)), max_iter=2)
    return parts | prefixed("in memory", loose)


@case
def nonfinite_drop(data: Data) -> Parts:
    return fit(data.holed, nonfinite="drop", of=data.small)


@case
def nonfinite_drop_zarr(data: Data) -> Parts:
    rows = data.stored("holed", data.holed, 400)
    weights = data.stored("holed-weights", data.weights(3000), 500)
    return fit(rows, sample_weight=weights, nonfinite="drop", of=data.small)


@case
def nonfinite_drop_dask(data: Data) -> Parts:
    rows = da.from_array(data.holed, chunks=(800, -1))
    return fit(rows, nonfinite="drop", sample_weight=data.weights(3000), of=data.small)


@case
def missing_fill(data: Data) -> Parts:
    parts: Parts = {}
    for name, codecs in {"raw": [Crc32cCodec()], "zstd": [ZstdCodec()]}.items():
        path = data.stored(f"missing-{name}", data.small, 300, fill_value=0.5, compressors=codecs)
        (Path(path) / "c" / "4" / "0").unlink()
        parts |= prefixed(name, fit(path, **missing_chunks("fill")))
    return parts


# -- where rows come from


@case
def zarr_raw_checksummed(data: Data) -> Parts:
    return fit(data.stored_many())


@case
def zarr_raw_float32(data: Data) -> Parts:
    rows = np.vstack([data.many, data.many]).astype(np.float32)
    return fit(data.stored("many-float32", rows, 180_000, compressors=None), max_iter=3)


@case
def zarr_small_chunks(data: Data) -> Parts:
    return fit(zarr.open_array(data.stored("small", data.small, 170), mode="r"))


@case
def zarr_shards(data: Data) -> Parts:
    shards = {"shards": (180_000, 6)}
    parts = fit(data.stored("shards", data.many, 30_000, **shards))
    zstd = data.stored("shards-zstd", data.small, 50, compressors=[ZstdCodec()], shards=(500, 4))
    return parts | prefixed("zstd", fit(zstd))


@case
def zarr_zstd(data: Data) -> Parts:
    return fit(data.stored("zstd", data.many, 90_000, compressors=[ZstdCodec(), Crc32cCodec()]))


@case
def zarr_column_chunks(data: Data) -> Parts:
    """Chunks that hold some of the columns, of the second format."""
    path = str(data.folder / "columns.zarr")
    array = zarr.create_array(
        path, shape=(3000, 4), chunks=(700, 3), dtype="f8", zarr_format=2, compressors=None
    )
    array[:] = data.small
    return fit(path)


@case
def numpy_many_chunks(data: Data) -> Parts:
    """So many bytes that ranges of chunks hold more than one, and are added in a tree."""
    rows = np.tile(data.many, (5, 1))
    return fit(rows, of=data.many[:3000], covariance_type="diag", max_iter=2, sample_size=3000)


@case
def dask_many_blocks(data: Data) -> Parts:
    return fit(da.from_array(data.overlapping, chunks=(50, -1)), 4)


@case
def dask_graph(data: Data) -> Parts:
    rows = da.from_array(data.small, chunks=((500, 900, 1600), (2, 2)))
    return fit((rows - rows.mean(axis=0)) * 2.0)


@case
def dask_from_zarr(data: Data) -> Parts:
    return fit(da.from_zarr(data.stored("small", data.small, 170)))


@case
def dask_unknown_lengths(data: Data) -> Parts:
    rows = da.from_array(data.small, chunks=(900, -1))
    return fit(rows[rows[:, 0] > 0], of=data.small)


@case
def xarray_rows(data: Data) -> Parts:
    coords = {"time": np.arange(3000), "feature": list("abcd")}
    dims = ("time", "feature")
    rows = xr.DataArray(da.from_array(data.small, chunks=(1000, -1)), coords, dims)
    weights = xr.DataArray(data.weights(3000), {"time": coords["time"]}, dims[:1])
    parts = fit(rows, sample_weight=weights)
    return parts | prefixed("in memory", fit(xr.DataArray(data.small, coords, dims)))


# -- sweeps


@case
def select_slices(data: Data) -> Parts:
    """Many rows beside the sample, so that slices of the data choose among the models."""
    return sweep(data.swept, kinds=("full", "spherical"), tol=1e-5, max_iter=6, sample_size=200)


@case
def select_all_kinds(data: Data) -> Parts:
    return sweep(data.small, (1, 3, 4), KINDS, criterion="aic", keep_all=True)


@case
def select_exhaustive(data: Data) -> Parts:
    return sweep(data.swept, (2, 4), ("full", "diag"), exhaustive=True, keep_all=True, n_init=2)


@case
def select_holdout(data: Data) -> Parts:
    options: Any = {"criterion": "holdout", "holdout": 0.1, "keep_all": True, "sample_size": 500}
    return sweep(data.swept, kinds=("full", "tied"), **options)


@case
def select_icl(data: Data) -> Parts:
    weights = data.weights(len(data.swept))
    return sweep(data.swept, kinds="diag", criterion="icl", holdout=0.2, sample_weight=weights)


@case
def select_em(data: Data) -> Parts:
    return sweep(data.overlapping, (2, 3, 4), algorithm="em", init_params="kmeans", max_iter=10)


@case
def select_zarr(data: Data) -> Parts:
    return sweep(data.stored_many(), (2, 3, 4), ("full", "diag"), sample_size=3000, n_init=2)


# -- fits that are stopped and go on


class StoppedError(Exception):
    """What ends a fit that is to be resumed."""


def stop_after_pass_2(state: Any) -> None:
    """A callback."""
    if state.n_iter >= 2:
        raise StoppedError


class StopWithin(Observer):
    """An observer that also sees the parts of a pass, and stops after some of pass 2 of a phase."""

    def __init__(self, phase: str, parts: int) -> None:
        self._phase, self._parts = phase, parts

    def notify(self, event: Event) -> None:
        if isinstance(event, PassStarted):
            wanted = (event.phase, event.number) == (self._phase, 2)
            self._left = self._parts if wanted else -1
        elif isinstance(event, RowsDone):
            self._left -= 1
            if self._left == 0:
                raise StoppedError


def resumed(make: Callable[..., Parts], callback: Any, folder: Path) -> Parts:
    """What a fit gives that a callback stopped and that then went on: the bits of a whole one."""
    keep = Checkpointing(folder, interval=0.0)
    try:
        make(callbacks=[callback], checkpoint=keep)
    except StoppedError:
        parts = make(checkpoint=keep)
    else:
        raise AssertionError("the callback did not stop the fit")
    if hash_of_all(parts) != hash_of_all(make()):
        raise AssertionError("the resumed fit has other bits than the undisturbed one")
    return parts


@case
def resume_fit(data: Data) -> Parts:
    make = partial(fit, data.overlapping, tol=1e-9, max_iter=6, sample_size=300)
    return resumed(make, stop_after_pass_2, data.folder / "kept-fit")


@case
def resume_em_zarr(data: Data) -> Parts:
    rows, weights = data.stored("holed", data.holed, 400), data.weights(3000)
    options: Any = {"algorithm": "em", "covariance_type": "diag", "nonfinite": "drop"}
    make = partial(fit, rows, sample_weight=weights, of=data.small, tol=1e-9, max_iter=5, **options)
    return resumed(make, stop_after_pass_2, data.folder / "kept-em")


@case
def resume_within_a_pass(data: Data) -> Parts:
    make = partial(fit, data.stored_many(), tol=1e-9, max_iter=3)
    return resumed(make, StopWithin("em", 2), data.folder / "kept-within")


@case
def resume_sweep(data: Data) -> Parts:
    options: Any = {"kinds": ("full", "spherical"), "tol": 1e-5, "max_iter": 5, "sample_size": 200}
    make = partial(sweep, data.swept, holdout=0.1, criterion="holdout", **options)
    return resumed(make, stop_after_pass_2, data.folder / "kept-sweep")


@case
def resume_slices(data: Data) -> Parts:
    options: Any = {"kinds": ("full", "spherical"), "tol": 1e-5, "max_passes": 6}
    make = partial(sweep, data.swept, sample_size=200, **options)
    return resumed(make, StopWithin("slice", 1), data.folder / "kept-slices")


# -- worker processes, files, the command line


@case
def cluster_fit(data: Data) -> Parts:
    with Client(data.cluster):
        return fit(data.stored_many())


@case
def cluster_checkpoint(data: Data) -> Parts:
    with Client(data.cluster):
        keep = Checkpointing(data.folder / "kept-cluster", interval=0.0)
        return fit(data.stored_many(), covariance_type="diag", checkpoint=keep)


@case
def cluster_sweep(data: Data) -> Parts:
    with Client(data.cluster):
        rows = da.from_zarr(data.stored("swept", data.swept, 900)) * 1.0
        return sweep(rows, (2, 3, 4), ("full", "diag"), sample_size=500, n_init=2)


@case
def save_and_load(data: Data) -> Parts:
    path = data.folder / "model.npz"
    GaussianMixture(3, random_state=0).fit(data.small, sample_weight=data.weights(3000)).save(path)
    model = load(path)
    parts = fitted(model) | answers(model, data.stored("small", data.small, 170))
    drawn, labels = model.sample(100)
    sklearn = model.to_sklearn()
    return parts | {
        "drawn": drawn,
        "labels": labels,
        "precisions_": model.precisions_,
        **prefixed("scikit-learn", answers_of_sklearn(sklearn, data.small)),
    }


def answers_of_sklearn(model: Any, X: np.ndarray) -> Parts:
    return {name: getattr(model, name)(X) for name in (*ROWS_ANSWERS, "score", "bic")}


def run(data: Data, *arguments: str) -> Any:
    """What a command prints as JSON."""
    env = os.environ | {"DASK_DASK_EM__FAST": "true", "DASK_DASK_EM__FLOAT32": "true"}
    command = [sys.executable, "-m", "dask_em.cli", *arguments, "--workers", "2", "--json"]
    done = subprocess.run(
        command, cwd=data.folder, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


@case
def cli_fit(data: Data) -> Parts:
    data.stored_many()
    data.stored("many-weights", data.weights(len(data.many)), 77_000)
    options = ("-k", "3", "--weights", "many-weights.zarr", "--seed", "5")
    run(data, "fit", "many.zarr", *options, "-o", "cli.npz")
    run(data, "predict", "cli.npz", "many.zarr", "answers.zarr", "--proba", "--log-density")
    group = zarr.open_group(str(data.folder / "answers.zarr"), mode="r")
    parts = {name: np.asarray(group[name]) for name in ("labels", "proba", "log_density")}
    return (
        parts | fitted(load(data.folder / "cli.npz")) | run(data, "score", "cli.npz", "many.zarr")
    )


@case
def cli_sweep(data: Data) -> Parts:
    path = Path(data.stored("swept", data.swept, 900)).name
    options = ("--covariance", "full,diag", "--holdout", "0.1", "--sample-size", "500")
    found = run(data, "fit", path, "-k", "2:4", *options, "--keep-all", "-o", "cli-sweep.npz")
    rows = [[row[name] for name in COLUMNS] for row in found["table"]]
    parts: Parts = {"table": json.dumps(rows)}
    for name in sorted(found["files"]):
        model = load(data.folder / name)
        parts |= prefixed(Path(name).name, fitted(model) | answers(model, data.swept))
    return parts


# -- the program -------------------------------------------------------------------------


def lines_of(data: Data, names: Iterable[str], parts: bool) -> Iterator[tuple[str, str | None]]:
    """The name and hash of each case, or of each part of it; None where a case fails."""
    for name in names:
        began = time.perf_counter()
        try:
            with dask.config.set(SETTINGS), warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                found = CASES[name](data)
        except Exception:
            print(f"{name} failed:\n{traceback.format_exc()}", file=sys.stderr)
            yield name, None
            continue
        print(f"{name}: {time.perf_counter() - began:.1f} s", file=sys.stderr)
        if parts:
            for part, value in found.items():
                yield f"{name}/{part.replace(' ', '/')}", hash_of(value)
        else:
            yield name, hash_of_all(found)


def differences(found: Mapping[str, str | None], path: Path, pattern: str) -> list[str]:
    """What is not as an earlier run printed it, in a line each."""
    lines = (line.split() for line in path.read_text().splitlines() if line)
    before = {name: value for name, value in lines if fnmatchcase(name.split("/")[0], pattern)}
    now = {name: value for name, value in found.items() if value is not None}
    told = [f"{name} differs" for name in before if now.get(name, before[name]) != before[name]]
    return told + [f"{name} is lacking" for name in before if name not in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cases by a shell pattern")
    parser.add_argument("--parts", action="store_true", help="a line for each part of a case")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="lines of an earlier run")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="write the lines here")
    parser.add_argument("--list", action="store_true", help="print the names of all cases")
    options = parser.parse_args()
    names = [name for name in CASES if fnmatchcase(name, options.only)]
    if options.list:
        print("\n".join(names))
        return 0
    # Worker processes and the command line import the same copy.
    others = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([ROOT, *([others] if others else [])])
    logging.getLogger("dask_em").setLevel(logging.CRITICAL)
    logging.getLogger("distributed").setLevel(logging.ERROR)
    found: dict[str, str | None] = {}
    with tempfile.TemporaryDirectory(prefix="witness-") as folder, ExitStack() as stack:
        for name, value in lines_of(Data(Path(folder), stack), names, options.parts):
            found[name] = value
            if value is not None:
                print(f"{name}  {value}", flush=True)
    if options.output:
        lines = [f"{name}  {value}\n" for name, value in found.items() if value is not None]
        options.output.write_text("".join(lines))
    told = [f"{name} failed" for name, value in found.items() if value is None]
    if options.compare:
        told += differences(found, options.compare, options.only)
    print(*told, sep="\n", end="\n" * bool(told), file=sys.stderr)
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main())
