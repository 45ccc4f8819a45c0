"""What a chunk costs by its codec: read and decoded here, and by Zarr as before.

python tests/benchmarks/chunk_codecs.py [--save] [--small] [--folder FOLDER]
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import alternate, table
from stores import Count, options, parse, publish, scratch

# isort: split
import numcodecs
import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from dask_em.core.additive import Array
from dask_em.core.reading import fold_range
from dask_em.data.open import stored_source
from dask_em.data.zarr.chunk_files import ChunkFiles
from dask_em.data.zarr.readers import read_rows
from dask_em.data.zarr.source import ZarrSource
from dask_em.data.zarr.watched import WatchedReader

ROWS, D, CHUNKS, ROUNDS = 100, 8, 6_400, 3
# Version of the format, and what makes the chunks.
CODECS: dict[str, tuple[int, Any]] = {
    "none": (3, None),
    "crc32c": (3, [Crc32cCodec()]),
    "zstd (the default)": (3, [ZstdCodec()]),
    "zstd, crc32c": (3, [ZstdCodec(), Crc32cCodec()]),
    "blosc": (3, [BloscCodec()]),
    "gzip": (3, [GzipCodec()]),
    "none, version 2": (2, None),
    "zstd, version 2": (2, numcodecs.Zstd()),
    "blosc, version 2": (2, numcodecs.Blosc()),
    "gzip, version 2": (2, numcodecs.GZip()),
}


def written(folder: Path, version: int, codec: Any, X: Array) -> ZarrSource:
    """The rows in a new array."""
    path = folder / "x.zarr"
    array = zarr.create_array(
        path,
        shape=X.shape,
        chunks=(ROWS, D),
        dtype=X.dtype,
        zarr_format=version,
        compressors=codec,
        overwrite=True,
    )
    array[:] = X
    return stored_source(path)


def ways(source: ZarrSource) -> dict[str, Callable[[], object]]:
    """A pass that only counts rows, the same by Zarr's codecs, and nothing but decoding."""
    files, by_zarr = ChunkFiles.of(source.array), WatchedReader(source.array)
    assert files is not None
    n = source.array.nchunks
    folder = Path(source.array.store.root)
    keys = [source.array.metadata.encode_chunk_key((i, 0)) for i in range(n)]
    stored = [np.frombuffer((folder / key).read_bytes(), np.uint8) for key in keys]
    out = np.empty(files.chunk_shape, source.dtype)

    def ours() -> None:
        ranges = source.ranges()
        counts = [fold_range(source, Count().fold(), chunks, None) for chunks in ranges]
        assert sum(counts) == source.n_rows

    def zarrs() -> None:
        bounds = source.bounds.tolist()
        for start, stop in pairwise(bounds):
            read_rows(by_zarr, slice(start, stop))

    def decoding() -> None:
        for one in stored:
            files.pipeline.decode(one, out)

    return {"ours": ours, "Zarr": zarrs, "decoding": decoding}


def main() -> None:
    arguments = parse(options(__doc__))
    chunks, rounds = (400, 1) if arguments.small else (CHUNKS, ROUNDS)
    X = np.random.default_rng(0).normal(size=(chunks * ROWS, D))
    found = []
    with scratch(arguments) as folder:
        for name, (version, codec) in CODECS.items():
            seconds = alternate(ways(written(folder, version, codec, X)), rounds)
            each = {way: 1e6 * s / chunks for way, s in seconds.items()}
            above = each["ours"] - each["decoding"]
            row = [name, f"{seconds['Zarr']:.2f}", f"{seconds['ours']:.2f}", f"{each['Zarr']:.0f}"]
            row += [f"{each['ours']:.0f}", f"{each['decoding']:.0f}", f"{above:.0f}"]
            found.append([*row, f"{seconds['Zarr'] / seconds['ours']:.1f}"])
            print(*found[-1], flush=True)
    header = ["codec", "pass by Zarr, s", "pass, s", "us a chunk by Zarr", "us a chunk"]
    header += ["us of decoding", "us above it", "times as fast"]
    publish(
        arguments,
        "What a codec costs",
        f"A pass that counts the rows of {chunks:,} chunks of {ROWS} x {D} float64 noise from a "
        f"warm cache, one thread, median of {rounds}, alternating: read and decoded by the thread "
        "that reads, beside Zarr's own reading, which is what is left to other codecs. The bytes "
        "in memory are decoded, and checked, by themselves in the column before the last two "
        f"(wanted: at most 50 us above them).\n\n{table(header, found)}",
    )


if __name__ == "__main__":
    main()
