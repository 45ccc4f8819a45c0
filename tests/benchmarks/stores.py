"""What the benchmarks of scale share: data written chunk by chunk, the page cache, memory.

Import this before NumPy: it pins BLAS and OpenMP to one thread.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import machine, save

# isort: split
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from dask_em.core.additive import Array
from dask_em.core.mixture import Mixture
from dask_em.core.protocols import Block, Fold, Pass, Reader
from dask_em.data.open import stored_source
from dask_em.data.zarr.source import ZarrSource

MIB = 2**20
# Mean distance between two components in units of their own spread: neighbours overlap,
# so that nearly all responsibilities count and no work can be skipped.
DISTANCE = 5.0
# Rows made at a time, so that making them takes little memory.
BLOCK_ROWS = 2**15
# Rows that a benchmark of computing keeps in memory.
KEPT_BYTES = 256 * MIB


# -- the programs ------------------------------------------------------------------


def options(description: str | None) -> argparse.ArgumentParser:
    """The options of every program."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", action="store_true", help="write the section of RESULTS.md")
    parser.add_argument("--small", action="store_true", help="a quick run for trying it out")
    parser.add_argument("--folder", help="where the data go until the end (default: temporary)")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line; a small run is never saved as a result."""
    arguments = parser.parse_args()
    if arguments.small and arguments.save:
        parser.error("--save with --small: a quick run is no result; leave one of them out")
    return arguments


def publish(arguments: argparse.Namespace, section: str, text: str) -> None:
    """Print a section under its command and machine, and save it where asked."""
    command = f"`python tests/benchmarks/{Path(sys.argv[0]).name} --save`"
    whole = f"{command}; {machine('numpy', 'dask', 'zarr')}.\n\n{text}"
    print("\n" + whole)
    if arguments.save:
        save(section, whole)


@contextmanager
def scratch(arguments: argparse.Namespace) -> Iterator[Path]:
    """A folder that is gone afterwards, also when the program fails or is told to end."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with tempfile.TemporaryDirectory(prefix="dask-em-", dir=arguments.folder) as folder:
            yield Path(folder)
    finally:
        signal.signal(signal.SIGTERM, before)


# -- data --------------------------------------------------------------------------


@dataclass(frozen=True)
class Points:
    """Rows of `k` overlapping Gaussian clusters, made piece by piece from a seed.

    Attributes
    ----------
    n_rows, d : int
    chunk_rows : int
        Rows of a chunk of the store.
    k : int
    dtype : str
    piece_rows : int
        Rows made from one seed, whole chunks of them; 0 for one chunk. The same pieces
        give the same rows, whatever the chunks.
    checksum : bool
        Whether each chunk ends with its CRC-32C.
    """

    n_rows: int
    d: int
    chunk_rows: int
    k: int = 8
    dtype: str = "f8"
    piece_rows: int = 0
    checksum: bool = True

    @classmethod
    def of_bytes(cls, nbytes: int, d: int, chunk_bytes: int, **other: Any) -> Points:
        """As many whole chunks of `chunk_bytes` as `nbytes` hold, one at least."""
        rows = chunk_bytes // (d * np.dtype(other.get("dtype", "f8")).itemsize)
        return cls(max(1, nbytes // chunk_bytes) * rows, d, rows, **other)

    @property
    def nbytes(self) -> int:
        return self.n_rows * self.d * np.dtype(self.dtype).itemsize

    @property
    def truth(self) -> tuple[Array, Array]:
        """Centers and widths of the clusters, (k, d) each."""
        rng = np.random.default_rng([self.k, self.d])
        centers = rng.normal(scale=DISTANCE / np.sqrt(2 * self.d), size=(self.k, self.d))
        return centers, rng.uniform(0.7, 1.4, size=(self.k, self.d))

    def mixture(self) -> Mixture:
        """The mixture (full covariances) that the rows are drawn from, as a fit would start."""
        # Here, because workers import this module and need no scikit-learn.
        from sklearn.exceptions import ConvergenceWarning

        from dask_em import GaussianMixture

        centers, widths = self.truth
        model = GaussianMixture(
            self.k,
            weights_init=np.full(self.k, 1 / self.k),
            means_init=centers,
            precisions_init=np.stack([np.diag(width**-2) for width in widths]),
            max_iter=1,
            random_state=0,
        )
        some = replace(self, n_rows=BLOCK_ROWS, chunk_rows=BLOCK_ROWS, piece_rows=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(some.piece(0))
        return model.state_.mixture

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """First and last row of each piece."""
        step = self.piece_rows or self.chunk_rows
        return [(a, min(a + step, self.n_rows)) for a in range(0, self.n_rows, step)]

    def piece(self, number: int) -> Array:
        """The rows of one piece."""
        start, stop = self.pieces[number]
        rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(number,)))
        centers, widths = (part.astype(self.dtype) for part in self.truth)
        rows = np.empty((stop - start, self.d), dtype=self.dtype)
        for first in range(0, len(rows), BLOCK_ROWS):
            block = rows[first : first + BLOCK_ROWS]
            labels = rng.integers(0, self.k, len(block))
            rng.standard_normal(out=block, dtype=block.dtype)
            block *= widths[labels]
            block += centers[labels]
        return rows

    def write(self, path: Path, client: Any = None) -> ZarrSource:
        """Write the rows to a new Zarr array, in parallel where a Dask client is given."""
        zarr.create_array(
            path,
            shape=(self.n_rows, self.d),
            chunks=(self.chunk_rows, self.d),
            dtype=self.dtype,
            compressors=[Crc32cCodec()] if self.checksum else None,
        )
        numbers = np.array_split(np.arange(len(self.pieces)), min(64, len(self.pieces)))
        if client is None:
            for some in numbers:
                write_pieces(self, path, some)
        else:
            client.gather([client.submit(write_pieces, self, path, some) for some in numbers])
        return stored_source(path)


def write_pieces(points: Points, path: Path, numbers: Array) -> None:
    """Write some pieces, one in memory at a time."""
    array = zarr.open_array(path, mode="r+")
    for number in numbers.tolist():
        start, stop = points.pieces[number]
        array[start:stop] = points.piece(number)


@contextmanager
def stored(points: Points, folder: Path, client: Any = None) -> Iterator[ZarrSource]:
    """The source of a new store in `folder`, deleted when the block ends."""
    # A name is never used twice: workers remember what they read under it.
    path = Path(tempfile.mkdtemp(prefix="points-", dir=folder)) / "points.zarr"
    try:
        yield points.write(path, client)
    finally:
        shutil.rmtree(path.parent, ignore_errors=True)


# -- parts of a pass -----------------------------------------------------------------


class Count(Pass[int], Fold[int]):
    """The pass that only reads: it counts rows."""

    def fold(self) -> Count:
        self._n_rows = 0
        return self

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        self._n_rows += len(X)

    def result(self) -> int:
        return self._n_rows


class Resident(ZarrSource):
    """A store of equal chunks whose reader reads nothing: the rows are in memory already.

    The first chunks are kept in each process that reads, and given again and again.
    """

    def reader(self) -> Reader:
        assert self.n_rows % self.chunk_rows == 0
        return Held(_kept_chunks(self))


class Held(Reader):
    """Gives arrays in turn."""

    fingerprints: Mapping[int, int] = {}

    def __init__(self, chunks: list[Array]) -> None:
        self._chunks = chunks

    def blocks(self, chunk: int, block_rows: int = 0) -> Iterator[Block]:
        yield self._chunks[chunk % len(self._chunks)], None


_kept: dict[str, list[Array]] = {}


def _kept_chunks(source: ZarrSource) -> list[Array]:
    key = source.description
    if key not in _kept:
        _kept.clear()
        n = min(source.n_chunks, max(2, KEPT_BYTES // (source.nbytes // source.n_chunks)))
        reader = ZarrSource.reader(source)
        _kept[key] = [reader.read(chunk)[0].copy() for chunk in range(n)]
    return _kept[key]


# -- time ----------------------------------------------------------------------------


def take_turns(
    contestants: Mapping[str, Callable[[], object]], rounds: int, before: Callable[[], object]
) -> dict[str, float]:
    """Median seconds of each contestant, called in turn after `before`, which is not timed.

    One round more is run first and not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, call in contestants.items():
            before()
            start = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(s) for name, s in seconds.items()}


def drop_page_cache(folder: Path) -> None:
    """Make the next read of the files in `folder` come from the disk.

    The whole machine's cache is dropped where that is allowed, else these files'. What a
    host keeps for a virtual machine stays.
    """
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        for file in folder.rglob("*"):
            if file.is_file():
                _forget(file)


def _forget(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def disk_bytes() -> int:
    """Bytes that this process has had fetched from a disk since its start."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


# -- memory --------------------------------------------------------------------------


def resident(pid: int, field: str = "VmRSS") -> int:
    """Resident bytes of a process now (`VmRSS`) or at most (`VmHWM`).

    Raises
    ------
    RuntimeError
        The process is gone.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])
    except (OSError, StopIteration) as e:
        raise RuntimeError(f"process {pid} is gone: was it killed for its memory?") from e


class Peaks:
    """The largest resident memory of some processes, in bytes, while the block runs.

    The kernel keeps the maximum; where it may not be reset, memory is sampled instead.

    Parameters
    ----------
    processes : dict
        Name -> process id.
    """

    def __init__(self, processes: Mapping[str, int]) -> None:
        self.processes = dict(processes)
        self.bytes = dict.fromkeys(processes, 0)
        self._stop = threading.Event()
        self._sampler: threading.Thread | None = None

    def __enter__(self) -> Peaks:
        try:
            for pid in self.processes.values():
                Path(f"/proc/{pid}/clear_refs").write_text("5")
        except OSError:
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()
        return self

    def _sample(self) -> None:
        while not self._stop.wait(0.003):
            try:
                self._take("VmRSS")
            except RuntimeError:
                return  # told at the end of the block

    def _take(self, field: str) -> None:
        for name, pid in self.processes.items():
            self.bytes[name] = max(self.bytes[name], resident(pid, field))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if self._sampler is not None:
            self._sampler.join()
        if kind is None:
            self._take("VmRSS" if self._sampler is not None else "VmHWM")


def workers_and_driver(client: Any) -> dict[str, int]:
    """Process ids of a LocalCluster's workers, and of this process with the scheduler."""
    pids = client.run(os.getpid).values()
    return {f"worker {i}": pid for i, pid in enumerate(pids)} | {"driver": os.getpid()}
