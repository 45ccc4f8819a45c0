"""Ingest beside only reading: megabytes a second, peak memory, and the fit after it.

A CSV file, a folder of Parquet files and an HDF5 file of the same rows are read by pyarrow or h5py
alone, and written to a store by `dask-em ingest` on two threads, each in a process of its own. Then
a model is fitted to the store with the survey that is kept beside it, and without.

python tests/benchmarks/ingest.py [--save] [--small] [--megabytes 900] [--folder DIR]
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stores import BLOCK_ROWS, options, parse, publish, scratch

# isort: split
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from common import table

D = 8
NAMES = [f"x{j}" for j in range(D)]
PARTS = 4

CHILD = """
import json, sys, time, resource
began = time.perf_counter()
{code}
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({{"seconds": time.perf_counter() - began, "mib": usage.ru_maxrss / 1024}}))
"""

READ = {
    "csv": """
import pyarrow.csv
for path in paths:
    for batch in pyarrow.csv.open_csv(path):
        pass
""",
    "parquet": """
import pyarrow.dataset
for batch in pyarrow.dataset.dataset(paths).to_batches():
    pass
""",
    "hdf5": """
import h5py
with h5py.File(paths[0]) as file:
    X = file["X"]
    for start in range(0, len(X), 2**17):
        X[start : start + 2**17]
""",
}

INGEST = """
import dask_em
dask_em.ingest(paths, out, threads=2)
"""

FIT = """
import dask, dask_em
with dask.config.set(num_workers=2):
    model = dask_em.GaussianMixture(8, random_state=0).fit(out)
print(model.n_reads_, file=sys.stderr)
"""


def blocks(n_rows: int) -> Any:
    """Rows of eight clusters, some at a time."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(8, D)) * 4
    for start in range(0, n_rows, BLOCK_ROWS):
        n = min(BLOCK_ROWS, n_rows - start)
        yield rng.normal(size=(n, D)) + means[rng.integers(0, 8, n)]


def write_csv(folder: Path, n_rows: int) -> list[Path]:
    path = folder / "x.csv"
    schema = pa.schema([(name, pa.float64()) for name in NAMES])
    with pa.csv.CSVWriter(path, schema) as writer:
        for X in blocks(n_rows):
            writer.write_table(pa.table(dict(zip(NAMES, X.T.round(6), strict=True))))
    return [path]


def write_parquet(folder: Path, n_rows: int) -> list[Path]:
    paths = [folder / f"x-{i}.parquet" for i in range(PARTS)]
    schema = pa.schema([(name, pa.float64()) for name in NAMES])
    writers = [pq.ParquetWriter(path, schema) for path in paths]
    for i, X in enumerate(blocks(n_rows)):
        part = pa.table(dict(zip(NAMES, X.T, strict=True)))
        writers[i * BLOCK_ROWS * PARTS // max(n_rows, 1)].write_table(part)
    for writer in writers:
        writer.close()
    return paths


def write_hdf5(folder: Path, n_rows: int) -> list[Path]:
    path = folder / "x.h5"
    with h5py.File(path, "w") as file:
        made = file.create_dataset("X", (n_rows, D), "f8", chunks=(BLOCK_ROWS // 4, D))
        start = 0
        for X in blocks(n_rows):
            made[start : start + len(X)] = X
            start += len(X)
    return [path]


# Each with the bytes of a row, about.
KINDS: dict[str, tuple[Callable[[Path, int], list[Path]], int]] = {
    "csv": (write_csv, 75),
    "parquet": (write_parquet, 66),
    "hdf5": (write_hdf5, 64),
}


def measured(code: str, paths: list[Path], out: Path) -> dict[str, float]:
    """Seconds of some code in a fresh process, and the most memory that it held."""
    head = f"paths, out = {[str(p) for p in paths]!r}, {str(out)!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(code=head + code)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    found["reads"] = float(done.stderr.split()[-1]) if "model" in code else 0.0
    return found


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--megabytes", type=int, default=900, help="of each input")
    arguments = parse(parser)
    megabytes = 20 if arguments.small else arguments.megabytes
    rows, fits = [], []
    with scratch(arguments) as folder:
        for kind, (write, row_bytes) in KINDS.items():
            paths, out = write(folder, megabytes * 10**6 // row_bytes), folder / "out.zarr"
            size = sum(path.stat().st_size for path in paths) / 1e6
            reading = measured(READ[kind], paths, out)
            done = measured(INGEST, paths, out)
            rows.append(
                [
                    kind, f"{size:.0f}", f"{size / reading['seconds']:.0f}",
                    f"{size / done['seconds']:.0f}", f"{reading['mib']:.0f}",
                    f"{done['mib']:.0f}",
                ]
            )  # fmt: skip
            kept = measured(FIT, paths, out)
            shutil.rmtree(out / "dask_em")
            made = measured(FIT, paths, out)
            fits.append(
                [
                    kind, f"{kept['reads']:.0f} / {kept['seconds']:.2f}",
                    f"{made['reads']:.0f} / {made['seconds']:.2f}",
                ]
            )  # fmt: skip
            for path in [*paths, out]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = table(
        ["input", "MB", "MB/s only read", "MB/s ingested", "MiB only read", "MiB ingested"], rows
    )
    text += "\n\nThe fit after it (K = 8, passes / seconds of the process):\n\n"
    text += table(["input", "survey kept", "survey made"], fits)
    publish(arguments, "Ingest", text)


if __name__ == "__main__":
    main()
