"""The memory of a worker process during a fit, beside what a plan of that fit said."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import zarr
from sklearn.exceptions import ConvergenceWarning
from zarr.codecs import Crc32cCodec, ZstdCodec

from dask_em import GaussianMixture, select
from dask_em.data.open import as_source
from dask_em.fitting.observers import Event, Observer, PassEnded, PassStarted
from dask_em.jobs.cluster import ClusterOptions, cluster_client, workers_there
from dask_em.jobs.plan import Plan, count

MIB = 2**20
# A fit that is not begun on the sample.
QUICK: dict[str, Any] = {"init_params": "random_from_data", "max_iter": 1}


@dataclass(frozen=True)
class Case:
    """A fit, whose worker is measured.

    Attributes
    ----------
    ks : sequence of int
        Numbers of components, and with each of `kinds` a model: several are a sweep.
    d, chunk_rows, n_chunks : int
        Columns, and rows and number of the chunks of the store.
    kinds : sequence of str
    dtype : str
    layout : {"raw", "zstd", "sharded", "columns", "parquet", "arrow", "npy"} or of GRIDS
    weights : {"", "dask", "memory", "stored", "column"}
    threads : int
        Of the worker.
    fast : bool or None
        Whether compiled loops compute; None as the size of the data decides.
    holdout : float
    kept : bool
        Whether the fit has a checkpoint.
    options : mapping
        Of the estimator.
    """

    ks: Sequence[int]
    d: int
    chunk_rows: int
    n_chunks: int
    kinds: Sequence[str] = ("full",)
    dtype: str = "f8"
    layout: str = "raw"
    weights: str = ""
    threads: int = 1
    fast: bool | None = True
    holdout: float = 0.0
    kept: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def models(self) -> list[GaussianMixture]:
        """The estimators of the fit."""
        own = {name: v for name, v in self.options.items() if name != "exhaustive"}
        return [
            GaussianMixture(k, covariance_type=kind, **own) for kind in self.kinds for k in self.ks
        ]

    @property
    def n_rows(self) -> int:
        """Rows of the data."""
        return self.chunk_rows * self.n_chunks

    def write(self, path: Path) -> Any:
        """Write rows of some clusters, a chunk at a time."""
        if self.layout == "npy":
            mode: Any = "w+"
            path = path.with_suffix(".npy")
            whole = np.lib.format.open_memmap(path, mode, self.dtype, (self.n_rows, self.d))
            for first, rows in self.chunks():
                whole[first : first + len(rows)] = rows
            return str(path)
        if self.layout in GRIDS:
            return self.write_grid(path)
        if self.layout in ("parquet", "zipped arrow", "arrow"):
            return str(self.write_table(path.with_suffix(f".{self.layout.split()[-1]}")))
        chunks: tuple[int, ...] = (self.chunk_rows, self.d)
        options: dict[str, Any] = {"compressors": [Crc32cCodec()]}
        if self.layout == "zstd":
            options["compressors"] = [ZstdCodec(), Crc32cCodec()]
        if self.layout == "columns":
            chunks = (self.chunk_rows, -(-self.d // 4))
        if self.layout == "sharded":
            chunks, options["shards"] = (self.chunk_rows // 8, self.d), chunks
        array = zarr.create_array(
            str(path), shape=(self.n_rows, self.d), chunks=chunks, dtype=self.dtype, **options
        )
        for first, rows in self.chunks():
            array[first : first + self.chunk_rows] = rows
        return array

    def write_table(self, path: Path) -> Path:
        """Write the same with a column of text, which is not read, a chunk a row group."""
        import pyarrow as pa
        from pyarrow import ipc, parquet

        kinds = [(f"x{j}", pa.from_numpy_dtype(np.dtype(self.dtype))) for j in range(self.d)]
        schema = pa.schema([*kinds, ("w", pa.float64()), ("text", pa.string())])
        options = {}
        if self.layout == "zipped arrow":
            options["options"] = ipc.IpcWriteOptions(compression="zstd")
        kind = parquet.ParquetWriter if self.layout == "parquet" else ipc.new_file
        with kind(path, schema, **options) as writer:
            for _, rows in self.chunks():
                arrays = [pa.array(column) for column in rows.T.copy()]
                more = [pa.array(np.full(len(rows), 1.5)), pa.array(["text"] * len(rows))]
                table = pa.table([*arrays, *more], schema)
                if self.layout == "parquet":
                    writer.write_table(table, row_group_size=self.chunk_rows)
                else:
                    writer.write_table(table, self.chunk_rows)
        return path

    def write_grid(self, path: Path) -> Any:
        """Write a map a thousand cells wide, whose variables are bands or arrays of a group."""
        height = self.n_rows // WIDTH
        tall = self.chunk_rows // WIDTH
        packed = self.layout == "packed bands"
        options: dict[str, Any] = {"compressors": [Crc32cCodec()]}
        if self.layout == "zipped bands":
            options["compressors"] = [ZstdCodec(), Crc32cCodec()]
        if packed:
            options["attributes"] = {"scale_factor": 0.01, "add_offset": 1.0, "_FillValue": -9999}
        options["dtype"] = "i2" if packed else self.dtype
        if self.layout == "variables":
            group: Any = zarr.create_group(str(path))
            bands = [
                group.create_array(
                    f"x{j}", shape=(height, WIDTH), chunks=(tall, WIDTH),
                    dimension_names=("y", "x"), **options,
                )
                for j in range(self.d)
            ]  # fmt: skip
        else:
            together = 1 if self.layout != "bands together" else self.d
            group = zarr.create_array(
                str(path), shape=(self.d, height, WIDTH), chunks=(together, tall, WIDTH),
                dimension_names=("band", "y", "x"), **options,
            )  # fmt: skip
        for first, rows in self.chunks():
            window = slice(first // WIDTH, (first + self.chunk_rows) // WIDTH)
            found = (rows * 100 if packed else rows).T.reshape(self.d, tall, WIDTH)
            if self.layout != "variables":
                group[:, window] = found.astype(options["dtype"])
                continue
            for band, values in zip(bands, found, strict=True):
                band[window] = values
        return group

    def chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield rows of some clusters, a chunk at a time, with the number of the first."""
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(8, self.d)) * 3
        for first in range(0, self.n_rows, self.chunk_rows):
            rows = rng.normal(size=(self.chunk_rows, self.d))
            rows += centres[rng.integers(0, 8, self.chunk_rows)]
            if np.dtype(self.dtype).kind == "u":
                rows = np.clip(8 * rows + 100, 0, 255)
            yield first, rows.astype(self.dtype)

    def write_weights(self, path: Path) -> Any:
        """Make the weights; those that are stored are written."""
        if self.weights == "column":
            return "w"
        values = np.random.default_rng(1).uniform(0.5, 1.5, self.n_rows)
        if self.weights == "dask":
            return da.from_array(values, chunks=self.chunk_rows)
        if self.weights == "stored":
            rows = (self.chunk_rows,)
            return zarr.create_array(
                str(path), data=values, chunks=rows, compressors=[Crc32cCodec()]
            )
        return values if self.weights else None

    def fit(self, array: Any, weights: Any, observer: Observer, checkpoint: Path | None) -> None:
        """Fit the models."""
        shared: dict[str, Any] = {"random_state": 0, "max_iter": 2, "tol": 0.0, **self.options}
        shared |= {"callbacks": [observer], "checkpoint": checkpoint}
        models = self.models
        if len(models) > 1 or self.holdout:
            select(
                array, self.ks, self.kinds, sample_weight=weights, holdout=self.holdout, **shared
            )
        else:
            models[0].set_params(**shared).fit(array, sample_weight=weights)


# How maps are stored, and how wide they are.
GRIDS = ("bands", "zipped bands", "bands together", "packed bands", "variables")
WIDTH = 1000

LARGE: dict[str, Any] = {"d": 200, "chunk_rows": 5000, "n_chunks": 4, "options": QUICK}
MANY: dict[str, Any] = {
    "kinds": ("diag",),
    "d": 20,
    "chunk_rows": 50_000,
    "n_chunks": 4,
    "options": QUICK,
}
FEW: dict[str, Any] = {"d": 10, "chunk_rows": 300_000, "n_chunks": 8}
TABLE: dict[str, Any] = {**FEW, "options": {"exclude": ["text", "w"]}}
MAP: dict[str, Any] = {**FEW, "options": {"features": "band"}}
SWEEP: dict[str, Any] = {"kinds": ("full", "diag"), "d": 10, "chunk_rows": 100_000, "n_chunks": 8}

CASES = {
    "K = 50 full, d = 200": Case([50], **LARGE),
    "K = 50 full, d = 200, NumPy": Case([50], fast=False, **LARGE),
    "K = 50 full, d = 200, 2 threads": Case([50], threads=2, **LARGE),
    "K = 500 diagonal": Case([500], **MANY),
    "K = 500 diagonal, NumPy": Case([500], fast=False, **MANY),
    "K = 500 diagonal, 2 threads": Case([500], threads=2, **MANY),
    "a sweep of 20 models": Case(range(2, 12), **SWEEP),
    "a sweep of 20 models, NumPy": Case(range(2, 12), fast=False, **SWEEP),
    "a sweep of 20 models, 2 threads": Case(range(2, 12), threads=2, **SWEEP),
    "a sweep of 4 models, none given up": Case(
        [2, 3], options={"exhaustive": True, "n_init": 1}, **SWEEP
    ),
    "a sweep with rows held out": Case([2, 3, 4], holdout=0.1, **(SWEEP | {"kinds": ("full",)})),
    "weights as a Dask array": Case([4], weights="dask", **FEW),
    "weights as a Dask array, d = 200": Case([5], weights="dask", **(LARGE | {"n_chunks": 8})),
    "weights in memory": Case([4], weights="memory", **FEW),
    "stored weights": Case([4], weights="stored", **FEW),
    "stored weights, a large sample": Case(
        [5], 200, 700, 64, weights="stored", options=QUICK
    ),
    "column chunks": Case([4], layout="columns", **FEW),
    "small column chunks, NumPy": Case([4], 10, 100_000, 40, layout="columns", fast=False),
    "whole chunks": Case([4], **FEW),
    "whole chunks, 2 threads": Case([4], threads=2, **FEW),
    "whole chunks, NumPy": Case([4], fast=False, **FEW),
    "whole chunks, NumPy, 2 threads": Case([4], fast=False, threads=2, **FEW),
    "compressed": Case([4], layout="zstd", **FEW),
    "compressed float32, 2 threads": Case(
        [4], layout="zstd", dtype="f4", threads=2, **(FEW | {"n_chunks": 32})
    ),
    "shards": Case([4], layout="sharded", **(FEW | {"chunk_rows": 304_000})),
    "float32": Case([4], dtype="f4", **FEW),
    "uint8": Case([4], dtype="u1", **FEW),
    "rows of NaN left out": Case([4], options={"nonfinite": "drop"}, **FEW),
    "one chunk of 115 MiB": Case([4], 10, 1_500_000, 1),
    "chunks of 80 KiB": Case([4], 10, 1000, 400),
    "d = 1000 diagonal": Case([8], 1000, 2000, 8, kinds=("diag",), options=QUICK),
    "many sums": Case([20], 200, 700, 64, options=QUICK),
    "many sums, with a checkpoint": Case([20], 200, 700, 64, kept=True, options=QUICK),
    "a large sample": Case([20], 20, 20_000, 8, options={"sample_size": 40_000, "max_iter": 2}),
    "Parquet": Case([4], layout="parquet", **TABLE),
    "Parquet, 2 threads": Case([4], layout="parquet", threads=2, **TABLE),
    "Parquet, NumPy, weights in a column": Case(
        [4], layout="parquet", weights="column", fast=False, **TABLE
    ),
    "Parquet of small groups": Case(
        [4], 10, 10_000, 200, layout="parquet", options=TABLE["options"]
    ),
    "Arrow": Case([4], layout="arrow", **TABLE),
    "Arrow, one batch": Case(
        [4], layout="arrow", **(TABLE | {"chunk_rows": 2_400_000, "n_chunks": 1})
    ),
    "compressed Arrow, one batch": Case(
        [4], layout="zipped arrow", **(TABLE | {"chunk_rows": 2_400_000, "n_chunks": 1})
    ),
    "a grid": Case([4], layout="bands", **MAP),
    "a grid, 2 threads": Case([4], layout="bands", threads=2, **MAP),
    "a grid, NumPy": Case([4], layout="bands", fast=False, **MAP),
    "a compressed grid": Case([4], layout="zipped bands", dtype="f4", **MAP),
    "a grid of bands together": Case([4], layout="bands together", **MAP),
    "a packed grid": Case([4], layout="packed bands", **MAP),
    "a packed grid of small chunks": Case([4], 10, 20_000, 60, layout="packed bands",
                                          options={"features": "band"}),
    "a grid of variables": Case([4], layout="variables", **FEW),
    "a grid with cells left out": Case(
        [4], layout="bands",
        **(FEW | {"options": {"features": "band", "nonfinite": "drop"}}),
    ),
    "a .npy file": Case([4], layout="npy", **FEW),
    "hardly any data": Case([2], 4, 20_000, 8),
    "hardly any data, NumPy": Case([2], 4, 20_000, 8, fast=False),
    "hardly any data, NumPy by its size": Case([2], 4, 10_000, 8, fast=None),
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What a plan said of a worker, and what the worker held.

    Attributes
    ----------
    plan : Plan
    peak : int
        Bytes, at most.
    phases : dict of str to int
        The most in passes of each kind, and "" between them.
    """

    plan: Plan
    peak: int
    phases: dict[str, int]

    @property
    def ratio(self) -> float:
        """The peak as a share of the plan's figure."""
        return self.peak / self.plan.worker_bytes

    def __str__(self) -> str:
        return f"plan {self.plan.worker_bytes / MIB:.0f} MiB, peak {self.peak / MIB:.0f} MiB"


class Watch(Observer):
    """Notes the most memory that a process held in each kind of pass."""

    follows_rows = False

    def __init__(self, pid: int) -> None:
        self.folder, self.most = Path(f"/proc/{pid}"), dict[str, int]()

    def note(self, phase: str) -> None:
        """Take the kernel's high-water mark as that of a phase, and lower it to what is held."""
        text = (self.folder / "status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.M)
        assert found is not None
        self.most[phase] = max(self.most.get(phase, 0), int(found[1]) * 1024)
        (self.folder / "clear_refs").write_text("5")

    def notify(self, event: Event) -> None:
        """Note what was held between two events."""
        if isinstance(event, PassStarted):
            self.note("")
        elif isinstance(event, PassEnded):
            self.note(event.record.phase)


def measure(case: Case, folder: Path) -> Measured:
    """Fit by a fresh worker, and measure it from outside."""
    array, weights = case.write(folder / "points.zarr"), case.write_weights(folder / "w.zarr")
    options = ClusterOptions(workers=1, threads=case.threads, memory_limit="3GiB")
    with (
        dask.config.set({"dask_em.fast": case.fast}),
        cluster_client(options) as client,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", ConvergenceWarning)
        # The weights are in the graph of a Dask array of an array in memory.
        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
        warnings.filterwarnings("ignore", ".*largest that was tried", UserWarning)
        (pid,) = client.run(os.getpid).values()
        planned = count(
            as_source(array, weights, case.models[0].read_options), case.models,
            workers_there(client),
            holdout=case.holdout, exhaustive=bool(case.options.get("exhaustive")),
            kept=case.kept,
        )  # fmt: skip
        watch = Watch(pid)
        case.fit(array, weights, watch, folder / "checkpoint" if case.kept else None)
        watch.note("")
        assert [*client.run(os.getpid).values()] == [pid]
        assert not any(client.run(n_spilled).values())
    return Measured(planned, max(watch.most.values()), watch.most)


def n_spilled(dask_worker: Any) -> int:
    """Keys that the worker has written to disk."""
    return len(dask_worker.data.slow)
