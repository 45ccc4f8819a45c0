"""Inner chunks of shards in an object store: whole shards, or runs of their inner chunks.

A shard that is one read is one request. Of a larger one the index is asked for first, ahead of its
turn, and then runs of neighbouring inner chunks, none of which crosses the end of a read.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import RangeByteRequest

from ...core.additive import Array
from ...core.executor import ThreadPool
from ...core.tuning import tuning
from ...errors import DataError, naming
from ...storage.url_store import Fetched, UrlStore
from ...storage.urls import describe_store
from ..options import MissingChunks
from .chunk_files import ChunkFileReader
from .chunk_objects import ObjectReader
from .fetching import FetchAhead, line_to
from .layout import file_shape
from .pipeline import Pipeline
from .shard_index import Run, Shard
from .shards import HELD_TWICE, ShardFiles


@dataclass(frozen=True)
class ShardObjects(ShardFiles):
    """Fetch and decode the inner chunks of the shards of one two-dimensional array.

    Attributes
    ----------
    array : zarr.Array
        In an object store.
    """

    # Again, for whoever looks here for the types of what makes one.
    pipeline: Pipeline
    missing_chunks: MissingChunks = "error"

    @staticmethod
    def reads(array: zarr.Array[Any]) -> bool:
        """Tell whether objects of the array's store are fetched here."""
        return isinstance(array.store, UrlStore) and array.store.fetches

    def reader(self, chunk_rows: int) -> ChunkFileReader:
        """Return a reader of up to so many rows at once."""
        whole = chunk_rows % file_shape(self.array)[0] == 0
        return (WholeShardReader if whole else ShardRunReader)(self, chunk_rows)

    @property
    def shard_bytes(self) -> int:
        """Bytes of a shard of numbers that no codec made smaller."""
        return self.per_shard * self.pipeline.nbytes + self.index_bytes

    @property
    def indices_ahead(self) -> int:
        """Shards behind that in hand of which the index is known: those of which parts may be."""
        return 1 + tuning().reading.line_bytes // self.shard_bytes

    @property
    def decoding_bytes(self) -> int:
        """Bytes that reading takes beside the rows: those on their way, and what decoding takes."""
        # A whole shard is fetched at once if it is no more than a read, or no more than one chunk.
        together = max(tuning().reading.bytes, self.pipeline.nbytes) + self.index_bytes
        unit = max(self.run_bytes, min(self.shard_bytes, together))
        indices = HELD_TWICE * (1 + self.indices_ahead) * self.index_bytes
        ahead = max(tuning().reading.line_bytes, unit)
        return ahead + unit + indices + self.pipeline.scratch_bytes


class WholeShardReader(ObjectReader):
    """Read rows of whole shards into two buffers in turn, while later shards are fetched."""

    def __init__(self, shards: ShardObjects, chunk_rows: int) -> None:
        super().__init__(shards, chunk_rows, shards.shard_bytes)
        self.shards = shards

    def _read_into(self, out: Array, first: int, found: list[int]) -> Iterator[int]:
        shards, done = self.shards, 0
        rows, place = shards.chunk_shape[0], describe_store(str(shards.array.store_path))
        inside = list(shards.in_shards(first, first + len(out) // rows))
        for number, numbers in inside:
            with naming(place):
                fetched = self._ahead.take(number, max(inside[-1][0] + 1, self._stop))
            stored = bytes_of(fetched)
            shard = Shard(number)
            if fetched is not None:
                shard = shards.shard(number, stored[shards.index_slice(len(stored))], len(stored))
            part = out[done : done + len(numbers) * rows]
            for n in shards.decode_run(shard, Run(numbers), stored, part, found):
                yield done + n
            # The next call asks for more in its place.
            del fetched, stored
            done += len(part)


class ShardRunReader(ChunkFileReader):
    """Read rows of parts of shards into two buffers in turn, while later ones are fetched."""

    def __init__(self, shards: ShardObjects, chunk_rows: int) -> None:
        super().__init__(shards, chunk_rows)
        self.shards = shards
        store: Any = shards.array.store
        self._store = store
        self._each = chunk_rows // shards.chunk_shape[0]
        # Shards and runs of them, by numbers in the order in which they are fetched.
        self._planned: dict[int, tuple[Shard, Run]] = {}
        self._count, self._next, self._stop = 0, 0, 0
        self._indices: dict[int, Future[Shard]] = {}
        self._pool = ThreadPool(tuning().reading.fewest_requests, thread_name_prefix="fetch-index")
        self._ahead = FetchAhead(self._fetch, line_to(store.url), shards.run_bytes, self._run_bytes)

    def expect(self, rows: slice) -> None:
        """Begin to fetch the first indices of these rows, and fetch ahead up to the last row."""
        chunk_rows = self.shards.chunk_shape[0]
        self._next, self._stop = rows.start // chunk_rows, -(-rows.stop // chunk_rows)
        self._ask_for_indices(self._next // self.shards.per_shard)

    def close(self) -> None:
        """Leave the buffers to the next reader, and give up what is on its way."""
        self._ahead.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()

    def _read_into(self, out: Array, first: int, found: list[int]) -> Iterator[int]:
        shards, done = self.shards, 0
        rows, place = shards.chunk_shape[0], describe_store(str(shards.array.store_path))
        last = first + len(out) // rows
        while done < len(out):
            with naming(place):
                shard, run, fetched = self._take(first + done // rows, last)
            stored = bytes_of(fetched)
            part = out[done : done + len(run.numbers) * rows]
            for n in shards.decode_run(shard, run, stored, part, found):
                yield done + n
            # The next call asks for more in its place.
            del fetched, stored
            done += len(part)

    def _take(self, number: int, last: int) -> tuple[Shard, Run, Fetched | None]:
        """Return the run that begins at an inner chunk, with its bytes, and ask for more."""
        self._stop = max(self._stop, last)
        if number != self._first():
            self._planned.clear()
            self._next = number
        self._plan(number // self.shards.per_shard)
        key = next(iter(self._planned))
        fetched = self._ahead.take(key, self._count)
        shard, run = self._planned.pop(key)
        if run.nbytes and (fetched is None or fetched.version != shard.version):
            raise DataError(
                f"{self.shards.shard_place(shard.number)} of {self.shards.name} changed while it "
                "was read: fit again when nobody writes to it"
            )
        return shard, run, fetched

    def _first(self) -> int:
        """Return the inner chunk with which begins what is planned."""
        for shard, run in self._planned.values():
            return shard.number * self.shards.per_shard + run.numbers.start
        return self._next

    def _plan(self, reading: int) -> None:
        """Cut what is expected into runs, as far as indices are known; wait for that in hand."""
        each = self.shards.per_shard
        self._ask_for_indices(reading)
        while self._next < self._stop and self._next // each in self._indices:
            index = self._indices[self._next // each]
            if self._planned and (not index.done() or index.exception()):
                # Its turn has not come.
                return
            shard = index.result()
            first, read = shard.number * each, self._next // self._each
            stop = min(self._stop, first + each, (read + 1) * self._each)
            numbers = range(self._next - first, stop - first)
            runs = [Run(numbers)]
            if shard.index is not None:
                runs = list(shard.index.runs(numbers, self.shards.run_bytes))
            for run in runs:
                self._planned[self._count] = shard, run
                self._count += 1
            self._next = stop

    def _ask_for_indices(self, shard: int) -> None:
        """Ask for the index of a shard and of some behind it, and forget those before."""
        for old in [one for one in self._indices if one < shard]:
            del self._indices[old]
        last = (self._stop - 1) // self.shards.per_shard
        for one in range(shard, min(last, shard + self.shards.indices_ahead) + 1):
            if one not in self._indices:
                self._indices[one] = self._pool.submit(self._fetch_index, one)

    def _fetch_index(self, number: int) -> Shard:
        shards = self.shards
        found: Fetched | None = self._store.fetch(shards.key(number), shards.index_range)
        if found is None:
            return Shard(number)
        return shards.shard(number, bytes_of(found), found.size, found.version)

    def _run_bytes(self, key: int) -> int:
        return self._planned[key][1].nbytes

    def _fetch(self, key: int) -> Fetched | None:
        # What is read out of turn was planned in vain.
        shard, run = self._planned.get(key, (None, Run(range(0))))
        if shard is None or not run.nbytes:
            return None
        where = RangeByteRequest(run.start, run.stop)
        found: Fetched | None = self._store.fetch(self.shards.key(shard.number), where)
        return found


def bytes_of(fetched: Fetched | None) -> Array:
    """Return what was fetched as (n,) uint8, none of what was not there."""
    return np.frombuffer(b"" if fetched is None else fetched.data, dtype=np.uint8)
