"""Memory is known before the start and kept: workers measured from outside."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
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
