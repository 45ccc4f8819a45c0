"""Write data chunk by chunk, fit them on two small workers, label them, watch the memory.

    python examples/out_of_core.py [ROWS] [MEGABYTES A CHUNK] [FOLDER]

The data are 10 columns of float64: 100 000 000 rows are 8 GB.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import zarr
from distributed import Client, LocalCluster
from zarr.codecs import Crc32cCodec

from dask_em import GaussianMixture

COLUMNS, CLUSTERS = 10, 8


def write(path: Path, n_rows: int, chunk_rows: int) -> None:
    """Rows of eight clusters, a chunk at a time: never more than one in memory."""
    array = zarr.create_array(
        path,
        shape=(n_rows, COLUMNS),
        chunks=(chunk_rows, COLUMNS),
        dtype="f8",
        compressors=[Crc32cCodec()],
    )
    centers = np.random.default_rng(0).normal(scale=3, size=(CLUSTERS, COLUMNS))
    for i, start in enumerate(range(0, n_rows, chunk_rows)):
        rng = np.random.default_rng([1, i])
        stop = min(start + chunk_rows, n_rows)
        rows = rng.standard_normal((stop - start, COLUMNS))
        rows += centers[rng.integers(0, CLUSTERS, stop - start)]
        array[start:stop] = rows


def resident(pid: int) -> float:
    """Resident memory of a process in MiB, 0 once it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Watch:
    """The peak of the resident memory of some processes, sampled in a thread."""

    def __init__(self, processes: dict[str, int]) -> None:
        self.processes = processes
        self.peak = dict.fromkeys(processes, 0.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            for name, pid in self.processes.items():
                self.peak[name] = max(self.peak[name], resident(pid))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def main(folder: Path, n_rows: int, chunk_megabytes: float) -> None:
    store = folder / "points.zarr"
    chunk_rows = max(1, min(n_rows, int(chunk_megabytes * 1e6 / (8 * COLUMNS))))
    start = time.perf_counter()
    write(store, n_rows, chunk_rows)
    print(f"wrote {n_rows:,} rows in chunks of {chunk_rows:,}: {time.perf_counter() - start:.0f} s")

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit="640MiB",
            dashboard_address="127.0.0.1:0",
            env={"ZARR_THREADING__MAX_WORKERS": "2"},
        ) as cluster,
        Client(cluster) as client,
    ):
        workers = client.run(os.getpid)
        names = {f"worker {i}": pid for i, pid in enumerate(workers.values())}
        with Watch({**names, "driver": os.getpid()}) as watch:
            gm = GaussianMixture(n_components=CLUSTERS, random_state=0)
            gm.fit(str(store))
            fitting = dict(watch.peak)
            first = int((gm.predict(str(store)) == 0).sum().compute())
        spilled = sum(client.run(lambda dask_worker: len(dask_worker.data.slow)).values())
        restarted = set(client.run(os.getpid).values()) != set(workers.values())

    print(f"{gm.status_.name.lower()} after {gm.n_reads_} passes over the data")
    for record in gm.history_:
        rate = record["rows"] / record["seconds"]
        print(f"  {record['phase']:7s} {record['seconds']:7.2f} s  {rate:13,.0f} rows/s")
    for name, peak in watch.peak.items():
        print(f"peak resident memory of {name}: {fitting[name]:.0f} MiB fitting, {peak:.0f} in all")
    print(f"keys spilled to disk: {spilled}; worker restarted: {restarted}")
    print(f"labelled 0: {first / n_rows:.4f} of all rows; its weight: {gm.weights_[0]:.4f}")


if __name__ == "__main__":
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    megabytes = float(sys.argv[2]) if len(sys.argv) > 2 else 8
    with tempfile.TemporaryDirectory(dir=sys.argv[3] if len(sys.argv) > 3 else None) as scratch:
        main(Path(scratch), rows, megabytes)
