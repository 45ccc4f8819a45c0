"""What a pass over Parquet costs, beside the same rows in Zarr and beside reading alone.

python tests/benchmarks/parquet.py [--save] [--small] [--rows N] [--folder FOLDER]

A pass is an E-step of 8 components over 8 float32 columns of 20, computed by the threads of this
process. Beside it stand the same pass over a Zarr array of the 8 columns, and `pyarrow.dataset`
that only reads the 8 columns, by as many threads. The ways take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from common import alternate, table
from stores import MIB, Points, options, parse, publish, scratch

# isort: split
import dask
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dask_em.backends.dask.backend import DaskBackend
from dask_em.core.protocols import Source
from dask_em.data.open import stored_source
from dask_em.data.options import ReadOptions

D, WIDE, K = 8, 20, 8
GROUP_ROWS = 2**18
ROUNDS = 3
CODECS = ("snappy", "zstd")
NAMES = [f"c{j:02}" for j in range(WIDE)]
# Every second column and then some, so that what is wanted does not lie together.
WANTED = NAMES[::2][:D]


def columns(points: Points) -> Iterator[NDArray[np.float32]]:
    """Rows of all columns, a row group at a time; those that are wanted are of clusters."""
    rng = np.random.default_rng(0)
    for number in range(len(points.pieces)):
        rows = points.piece(number)
        whole = rng.normal(size=(len(rows), WIDE)).astype(np.float32)
        whole[:, [NAMES.index(name) for name in WANTED]] = rows
        yield whole


def write(points: Points, folder: Path) -> None:
    """The same rows as tables of all columns, a file each codec."""
    schema = pa.schema([(name, pa.float32()) for name in NAMES])
    writers = {
        codec: pq.ParquetWriter(folder / f"{codec}.parquet", schema, compression=codec)
        for codec in CODECS
    }
    for rows in columns(points):
        group = pa.table([pa.array(column) for column in rows.T.copy()], schema)
        for writer in writers.values():
            writer.write_table(group, row_group_size=GROUP_ROWS)
    for writer in writers.values():
        writer.close()


def read_only(path: Path, threads: int) -> int:
    """Rows of a table of which the wanted columns are read, and nothing else is done."""
    pa.set_cpu_count(threads)
    found = pa.dataset.dataset(path).to_batches(columns=WANTED)
    return sum(batch.num_rows for batch in found)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parse(parser)
    n_rows = 300_000 if arguments.small else arguments.rows
    points = Points(n_rows, D, GROUP_ROWS, K, "f4", checksum=False)
    with scratch(arguments) as folder, dask.config.set(
        scheduler="threads", num_workers=arguments.threads
    ):  # fmt: skip
        write(points, folder)
        sources: dict[str, Source] = {"Zarr": points.write(folder / "x.zarr")}
        chosen = ReadOptions.of(columns=WANTED)
        for codec in CODECS:
            path = folder / f"{codec}.parquet"
            sources[f"Parquet, {codec}"] = stored_source(path, options=chosen)
        contestants: dict[str, Callable[[], object]] = {
            name: partial(DaskBackend().map_reduce, source, points.mixture())
            for name, source in sources.items()
        }
        for codec in CODECS:
            path = folder / f"{codec}.parquet"
            contestants[f"pyarrow.dataset reads, {codec}"] = partial(
                read_only, path, arguments.threads
            )
        seconds = alternate(contestants, ROUNDS)
        sizes = {name: _size(folder, name) for name in contestants}
    rows = [
        [name, f"{sizes[name] / MIB:,.0f}", f"{took:.3f}", f"{1e9 * took / n_rows:.1f}"]
        for name, took in seconds.items()
    ]
    text = (
        f"{n_rows:,} rows, {D} float32 columns of {WIDE}, K={K}, {arguments.threads} threads.\n\n"
    )
    header = ["", "MiB on disk", "s a pass", "ns a row"]
    publish(arguments, "Parquet where it lies", text + table(header, rows))


def _size(folder: Path, name: str) -> int:
    codec = next((codec for codec in CODECS if codec in name), "")
    path = folder / (f"{codec}.parquet" if codec else "x.zarr")
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


if __name__ == "__main__":
    main()
