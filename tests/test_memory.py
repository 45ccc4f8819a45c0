"""Memory is known before the start and kept: workers measured from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from helpers import HANG
from worker_memory import CASES, measure
from zarr.codecs import Crc32cCodec

from dask_em import GaussianMixture
from dask_em.jobs.cluster import ClusterOptions
from dask_em.jobs.plan import plan

LIMIT = 512 * 2**20


def resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """The largest resident memory of one process while the block runs."""

    def __init__(self, pid: int) -> None:
        self.pid, self.bytes = pid, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.bytes = max(self.bytes, resident(self.pid))

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("codec", ["raw", pytest.param("zstd", marks=pytest.mark.slow)])
def test_a_worker_stays_within_what_plan_said(codec: str, tmp_path: Path) -> None:
    # 5 chunks of 48 MB, or of 24 MB where a task holds four of them.
    rows, columns = 600_000 if codec == "raw" else 300_000, 10
    path = tmp_path / "points.zarr"
    options: dict[str, Any] = {"compressors": [Crc32cCodec()]} if codec == "raw" else {}
    array = zarr.create_array(
        path, shape=(5 * rows, columns), chunks=(rows, columns), dtype="f8", **options
    )
    for i in range(5):
        values = np.random.default_rng(i).normal(size=(rows, columns)).round(1)
        array[i * rows : (i + 1) * rows] = values + 4 * (i % 2)

    planned = plan(str(path), 4, "full", ClusterOptions(workers=1, memory_limit="512MiB"))
    assert planned.fits
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            memory_limit="512MiB",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        ((_, pid),) = client.run(os.getpid).items()
        with Peak(pid) as peak:
            GaussianMixture(4, random_state=0, tol=1e-2).fit(str(path))
        assert set(client.run(os.getpid).values()) == {pid}
        assert not any(client.run(lambda dask_worker: len(dask_worker.data.slow)).values())
    assert peak.bytes <= planned.worker_bytes < 0.8 * LIMIT


@pytest.mark.parametrize(
    "name",
    [
        "whole chunks, NumPy",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("Parquet, 2 threads", "a packed grid")
        ),
    ],
)
def test_a_worker_holds_about_what_plan_said(name: str, tmp_path: Path) -> None:
    # All others: tests/faults/test_plan.py.
    if CASES[name].fast:
        pytest.importorskip("numba", reason="the extra `fast` is not installed")
    if CASES[name].layout == "parquet":
        pytest.importorskip("pyarrow", reason="the extra `table` is not installed")
    found = measure(CASES[name], tmp_path)
    assert 0.8 <= found.ratio <= 1.0, f"{found}; by phases: {found.phases}"


# -- what is not read whole ------------------------------------------------------------

# Bytes of the data, and what memory may grow by: less.
SIZE, GROWTH = 64 * 2**20, 48 * 2**20

OPENED = {
    "np.memmap of uint8": ("u1", "np.memmap({path}, 'u1', 'r', shape={shape})"),
    "np.load of float16": ("f2", "np.load({path}, mmap_mode='r')"),
    "big-endian float32": ("f4", "np.memmap({path}, '>f4', 'r', shape={shape})"),
    "int16 in HDF5": ("i2", "h5py.File({path})['x']"),
    "uint8 in TensorStore": (
        "u1",
        "tensorstore.open(dict(driver='zarr3', kvstore='file://' + {path} + '/')).result()",
    ),
    "a mask": (
        "f4",
        "np.ma.array(np.memmap({path}, 'f4', 'r', shape={shape}))",
    ),
}

MEASURED = """
import sys, threading, warnings
from importlib.util import find_spec
import numpy as np
from dask_em import GaussianMixture
from dask_em.core import tuning
warnings.simplefilter("ignore")
# Blocks are small beside these data, as they are beside large ones; one engine for the few
# rows of before and for all, so that loading it does not count.
tuning.DEFAULTS = tuning.DEFAULTS.with_changes(
    reading={"bytes": 2**20}, compiled_kernel={"worth_loading": 0}
)

def own():
    # Pages of a mapped file are the file's.
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024

def work(X):
    model = GaussianMixture(2, covariance_type="diag", max_iter=1, sample_size=1000,
                            init_params="random_from_data", random_state=0).fit(X)
    return model, model.score(X), model.predict(X)

def growth(X):
    work(X[:5000])
    before, most, done = own(), 0, threading.Event()

    def watch():
        nonlocal most
        while not done.wait(0.002):
            most = max(most, own())

    watching = threading.Thread(target=watch)
    watching.start()
    _, _, labels = work(X)
    done.set()
    watching.join()
    return most - before - labels.nbytes

if find_spec("h5py"):
    import h5py
if find_spec("tensorstore"):
    import tensorstore
for opened in sys.argv[1:]:
    print(growth(eval(opened)))
"""


def shape_of(dtype: str) -> tuple[int, int]:
    columns = 16
    return SIZE // columns // np.dtype(dtype).itemsize // 10_000 * 10_000, columns


def store(kind: str, dtype: str, path: str) -> bool:
    """Write the data, if the library that reads them is installed."""
    shape, rng = shape_of(dtype), np.random.default_rng(0)
    block = rng.integers(0, 40, size=(10_000, shape[1])) + 60 * rng.integers(0, 2, (10_000, 1))
    X = np.tile(block.astype(dtype), (shape[0] // 10_000, 1))
    if "np.load" in kind:
        with Path(path).open("wb") as file:
            np.save(file, X)
    elif "HDF5" in kind:
        if find_spec("h5py") is None:
            return False
        import h5py

        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=X, chunks=(10_000, shape[1]))
    elif "TensorStore" in kind:
        if find_spec("tensorstore") is None:
            return False
        zarr.create_array(path, shape=shape, chunks=(10_000, shape[1]), dtype=dtype)[:] = X
    else:
        X.astype(">f4" if "big" in kind else dtype).tofile(path)
    return True


def test_rows_of_any_type_are_read_by_blocks(tmp_path: Path) -> None:
    kinds = []
    for i, (kind, (dtype, opened)) in enumerate(OPENED.items()):
        path = str(tmp_path / str(i))
        if store(kind, dtype, path):
            kinds.append((kind, opened.format(path=repr(path), shape=shape_of(dtype))))
    result = subprocess.run(
        [sys.executable, "-c", MEASURED, *(opened for _, opened in kinds)],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert result.returncode == 0, result.stderr
    grown = dict(zip([kind for kind, _ in kinds], map(int, result.stdout.split()), strict=True))
    assert {kind: n for kind, n in grown.items() if n > GROWTH} == {}
    assert GROWTH < SIZE
