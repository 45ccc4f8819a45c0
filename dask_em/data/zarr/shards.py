"""Inner chunks of shards, read by their index and decoded by the thread that reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import zarr
from zarr.abc.store import ByteRequest, SuffixByteRequest
from zarr.storage import LocalStore

from ...core.additive import Array
from ...core.tuning import tuning
from ...errors import naming
from ..options import MissingChunks
from .chunk_files import ChunkFiles, Scratch, file_size
from .layout import chunk_key, chunk_place, damaged, file_shape, no_file, was_cut
from .pipeline import Pipeline
from .shard_index import Run, Shard, ShardIndex, index_request

# Bytes of an index as it is stored, and as it is held.
HELD_TWICE = 2


@dataclass(frozen=True)
class ShardFiles(ChunkFiles):
    """Read the inner chunks of the shards of one two-dimensional array, each with all columns.

    Attributes
    ----------
    array : zarr.Array
        In a local store.
    pipeline : Pipeline
        What the inner chunks are decoded by.
    """

    @classmethod
    def of(
        cls, array: zarr.Array[Any], missing_chunks: MissingChunks = "error", name: str = "X"
    ) -> ShardFiles | None:
        """Return the shards of an array; None where it has none, or Zarr must read them."""
        if not cls.reads(array):
            return None
        pipeline = Pipeline.of_inner_chunks(array)
        request = None if pipeline is None else index_request(array)
        if pipeline is None or request is None:
            return None
        metadata: Any = array.metadata
        # One checksum, if any.
        plain = len(metadata.codecs[0].index_codecs) <= 2
        return cls(array, pipeline, missing_chunks, name) if plain else None

    @staticmethod
    def reads(array: zarr.Array[Any]) -> bool:
        """Tell whether files of the array's store are read here."""
        return isinstance(array.store, LocalStore)

    @cached_property
    def per_shard(self) -> int:
        """Inner chunks of a shard."""
        return file_shape(self.array)[0] // self.chunk_shape[0]

    @cached_property
    def index_range(self) -> ByteRequest:
        """Which part of a shard is its index."""
        found = index_request(self.array)
        assert found is not None
        return found

    @cached_property
    def index_bytes(self) -> int:
        """Bytes of the index of a shard, as it is stored."""
        where: Any = self.index_range
        return int(where.suffix if isinstance(where, SuffixByteRequest) else where.end)

    @property
    def run_bytes(self) -> int:
        """Bytes of inner chunks that are read together, at most."""
        # What no codec makes smaller it makes hardly larger.
        return max(tuning().reading.run_bytes, self.pipeline.nbytes)

    @property
    def decoding_bytes(self) -> int:
        """Bytes that reading takes beside the rows: an index, a run, and what decoding takes."""
        index = HELD_TWICE * self.index_bytes
        return index + self.run_bytes + self.pipeline.scratch_bytes

    def place(self, number: int) -> str:
        """Return number, rows and place of an inner chunk, for a message."""
        key = self.key(number // self.per_shard)
        return "inner " + chunk_place(self.array, (number, 0), self.chunk_shape, key)

    def shard_place(self, shard: int) -> str:
        """Return number, rows and place of a shard, for a message."""
        return chunk_place(self.array, (shard, 0), file_shape(self.array))

    def key(self, shard: int) -> str:
        """Return the key of a shard in the array's store."""
        return chunk_key(self.array, (shard, 0))

    def shard(self, number: int, stored: Array, size: int, version: str = "") -> Shard:
        """Return a shard of so many bytes, of the stored bytes of its index.

        Raises
        ------
        DataError
            The index is damaged, or the shard was cut.
        """
        expected = self.index_bytes
        if len(stored) != expected:
            raise was_cut(self.shard_place(number), self.name)
        try:
            index = ShardIndex.of(stored, self.per_shard, expected > 16 * self.per_shard)
        except ValueError as e:
            raise damaged(self.shard_place(number), self.name, f"its index: {e}") from e
        outside = index.first_outside(size)
        if outside is not None:
            raise was_cut(self.place(number * self.per_shard + outside), self.name)
        return Shard(number, index, version)

    def index_slice(self, size: int) -> slice:
        """Return where the index lies in a shard of so many bytes."""
        at_end = isinstance(self.index_range, SuffixByteRequest)
        start = max(0, size - self.index_bytes) if at_end else 0
        return slice(start, min(size, start + self.index_bytes))

    def in_shards(self, first: int, last: int) -> Iterator[tuple[int, range]]:
        """Yield the shards that hold these inner chunks, and the numbers of theirs in each."""
        each = self.per_shard
        for shard in range(first // each, -(-last // each)):
            start = shard * each
            yield shard, range(max(first - start, 0), min(last - start, each))

    def decode_run(
        self, shard: Shard, run: Run, stored: Array, out: Array, found: list[int]
    ) -> Iterator[int]:
        """Decode a run of inner chunks of a shard into `out`, or fill in those that are missing.

        Yields
        ------
        int
            Rows of `out` that are there.

        Raises
        ------
        DataError
            A chunk is damaged, or missing and may not be.
        """
        rows, before = self.chunk_shape[0], shard.number * self.per_shard
        for done, number in enumerate(run.numbers):
            part = out[done * rows : (done + 1) * rows]
            place = None if shard.index is None else shard.index.place(number)
            if place is not None:
                offset, length = place[0] - run.start, place[1]
                found.append(self.decode(stored[offset : offset + length], part, before + number))
            elif shard.index is None:
                self.fill_missing(part, self.shard_place(shard.number), found)
            else:
                self.fill_missing(part, self.place(before + number), found)
            yield (done + 1) * rows

    def read_into(
        self, out: Array, first: int, found: list[int], scratch: Scratch
    ) -> Iterator[int]:
        """Fill `out` (m x chunk rows, chunk columns) with the inner chunks from `first` on.

        Yields
        ------
        int
            Rows that are there already.
        """
        store: Any = self.array.store
        rows, done = self.chunk_shape[0], 0
        for number, inside in self.in_shards(first, first + len(out) // rows):
            path = os.path.join(store.root, self.key(number))
            with naming(path):
                for shard, run, stored in self._runs(path, number, inside, scratch):
                    part = out[done : done + len(run.numbers) * rows]
                    for n in self.decode_run(shard, run, stored, part, found):
                        yield done + n
                    done += len(part)

    def _runs(
        self, path: str, number: int, inside: range, scratch: Scratch
    ) -> Iterator[tuple[Shard, Run, Array]]:
        """Yield the runs of some inner chunks of a shard, and the bytes of each."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            yield Shard(number), Run(inside), scratch.take(0)
            return
        try:
            size, before = file_size(descriptor), number * self.per_shard
            if size is None:
                raise no_file(self.shard_place(number), self.name)
            where = self.index_slice(size)
            stored = self._part(descriptor, where.start, where.stop, before, scratch)
            shard = self.shard(number, stored, size)
            assert shard.index is not None
            for run in shard.index.runs(inside, self.run_bytes):
                first = before + run.numbers.start
                yield shard, run, self._part(descriptor, run.start, run.stop, first, scratch)
        finally:
            os.close(descriptor)

    def _part(self, descriptor: int, start: int, stop: int, number: int, scratch: Scratch) -> Array:
        stored = scratch.take(stop - start)
        os.lseek(descriptor, start, os.SEEK_SET)
        self._fill(descriptor, stored, number)
        return stored
