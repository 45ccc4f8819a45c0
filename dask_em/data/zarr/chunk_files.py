"""Chunk files, read and decoded into buffers that are used again.

Zarr reads a chunk into fresh memory and copies it into an array, which for a pass costs two
chunks of memory, tens of thousands of page faults, and 0.4 to 2 ms. Where the bytes of a file
are the numbers (no compression, with or without a checksum) they are read straight into the
buffer; where a codec made them that `Pipeline` knows, they are decoded into it.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from ...core.additive import Array
from ...core.tuning import tuning
from ...errors import DataError, naming
from ..options import MissingChunks
from .fingerprints import Checksum, Fingerprint, combined
from .layout import chunk_key, chunk_place, damaged, fill_value, lacks, no_file, was_cut
from .pipeline import CHECKSUM_BYTES, Pipeline

CACHE_LINE = 64

# Of a missing chunk, where that is allowed: it must not appear between passes either.
ABSENT = 0


@dataclass(frozen=True)
class ChunkFiles:
    """Read the chunk files of one two-dimensional array, of which each holds all columns.

    Attributes
    ----------
    array : zarr.Array
        In a local store.
    pipeline : Pipeline
        What the files are decoded by.
    missing_chunks : {"error", "fill"}
    name : str
        What an error calls the array.
    """

    array: zarr.Array[Any]
    pipeline: Pipeline
    missing_chunks: MissingChunks = "error"
    name: str = "X"

    @classmethod
    def of(
        cls, array: zarr.Array[Any], missing_chunks: MissingChunks = "error", name: str = "X"
    ) -> ChunkFiles | None:
        """Return the files of an array; None where it has others, or Zarr must decode them."""
        if not isinstance(array.store, LocalStore):
            return None
        pipeline = Pipeline.of(array)
        return None if pipeline is None else cls(array, pipeline, missing_chunks, name)

    def reader(self, chunk_rows: int) -> ChunkFileReader:
        """Return a reader of up to so many rows at once."""
        return ChunkFileReader(self, chunk_rows)

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """Rows and columns of a chunk."""
        return self.pipeline.shape

    @property
    def checksum(self) -> bool:
        """Whether each file ends with the CRC-32C of what is before it."""
        return self.pipeline.checksum

    @property
    def decoding_bytes(self) -> int:
        """Bytes that reading takes beside the rows: those of one file, and what decoding takes."""
        if self.pipeline.plain:
            return 0
        # What no codec makes smaller it makes hardly larger.
        return self.pipeline.nbytes + self.pipeline.scratch_bytes

    def read_into(
        self, out: Array, first: int, found: list[int], scratch: Scratch
    ) -> Iterator[int]:
        """Fill `out` (m x chunk rows, chunk columns) with the chunks from number `first` on.

        The fingerprint of each is added to `found` when it is known to be sound.

        Yields
        ------
        int
            Rows that are there already, before it is known whether their chunk is sound.
        """
        rows = self.chunk_shape[0]
        read = self._read_plain if self.pipeline.plain else self._read_encoded
        for j in range(len(out) // rows):
            store: Any = self.array.store
            part, number = out[j * rows : (j + 1) * rows], first + j
            path = os.path.join(store.root, chunk_key(self.array, (number, 0)))
            with naming(path):
                try:
                    descriptor = os.open(path, os.O_RDONLY)
                except (FileNotFoundError, NotADirectoryError):
                    self.fill_missing(part, self.place(number), found)
                    continue
                try:
                    for n_rows in read(descriptor, part, number, found, scratch):
                        yield j * rows + n_rows
                finally:
                    os.close(descriptor)

    def fill_missing(self, out: Array, place: str, found: list[int]) -> None:
        """Put the fill value in place of a chunk that is missing.

        Raises
        ------
        DataError
            It may not be missing.
        """
        if self.missing_chunks == "error":
            raise lacks(self.array, place, self.name) from None
        out[...] = fill_value(self.array)
        found.append(ABSENT)

    def _read_plain(
        self, descriptor: int, out: Array, number: int, found: list[int], _: Scratch
    ) -> Iterator[int]:
        numbers = out.reshape(-1).view(np.uint8)
        check = Checksum() if self.checksum else Fingerprint()
        self._check_size(descriptor, number, len(numbers) + CHECKSUM_BYTES * self.checksum)
        yield from self._read_pieces(descriptor, numbers, number, check)
        tail = os.read(descriptor, CHECKSUM_BYTES) if self.checksum else b""
        if self.checksum and check.value.to_bytes(CHECKSUM_BYTES, "little") != tail:
            raise DataError(
                f"{self.place(number)} of {self.name} does not match its checksum: the file is "
                "damaged; restore it from a copy or write the array again"
            )
        found.append(check.value)

    def _read_encoded(
        self, descriptor: int, out: Array, number: int, found: list[int], scratch: Scratch
    ) -> Iterator[int]:
        stored = scratch.take(self._size(descriptor, number))
        self._fill(descriptor, stored, number)
        found.append(self.decode(stored, out, number))
        yield len(out)

    def decode(self, stored: Array, out: Array, number: int) -> int:
        """Decode the bytes of a chunk into `out`, and return their fingerprint.

        Raises
        ------
        DataError
            They are damaged; the message names the chunk.
        """
        if not len(stored):
            raise was_cut(self.place(number), self.name)
        try:
            return self.pipeline.decode(stored, out)
        except ValueError as e:
            raise damaged(self.place(number), self.name, e) from e

    def _size(self, descriptor: int, number: int) -> int:
        size = file_size(descriptor)
        if size is None:
            raise no_file(self.place(number), self.name)
        return size

    def _check_size(self, descriptor: int, number: int, expected: int) -> None:
        size = self._size(descriptor, number)
        if size != expected:
            raise DataError(
                f"{self.place(number)} of {self.name} holds {size} bytes, expected "
                f"{expected}: the file was cut or written by something else; restore it"
            )

    def _read_pieces(
        self, descriptor: int, numbers: Array, number: int, check: Checksum | Fingerprint
    ) -> Iterator[int]:
        """Fill `numbers` from the file and give them to `check`; yield how many rows are there."""
        row_bytes = len(numbers) // self.chunk_shape[0]
        for start in range(0, len(numbers), tuning().reading.piece_bytes):
            piece = numbers[start : start + tuning().reading.piece_bytes]
            self._fill(descriptor, piece, number)
            # While it is in cache.
            check.update(piece)
            yield (start + len(piece)) // row_bytes

    def _fill(self, descriptor: int, piece: Array, number: int) -> None:
        """Fill `piece` with the next bytes of a file."""
        done = 0
        while done < len(piece):
            more = os.readv(descriptor, [piece[done:].data])
            if more == 0:
                raise DataError(
                    f"{self.place(number)} of {self.name} shrank while it was read: fit again "
                    "when nobody writes to it"
                )
            done += more

    def place(self, number: int) -> str:
        """Return number, rows and path of a chunk, for a message."""
        return chunk_place(self.array, (number, 0), self.chunk_shape)


def file_size(descriptor: int) -> int | None:
    """Return the bytes of an open file, None of a folder or a device."""
    file = os.fstat(descriptor)
    return file.st_size if stat.S_ISREG(file.st_mode) else None


class Scratch:
    """Hold memory for the bytes of one file after the other.

    Examples
    --------
    >>> scratch = Scratch()
    >>> scratch.take(3).shape, scratch.take(2).shape
    ((3,), (2,))
    """

    def __init__(self) -> None:
        self._memory = np.empty(0, dtype=np.uint8)

    def take(self, size: int) -> Array:
        """Return (size,) uint8, which mean nothing, and are taken back by the next call."""
        if len(self._memory) < size:
            self._memory = aligned_empty((size,), np.uint8)
        return self._memory[:size]


class ChunkFileReader:
    """Read rows of chunk files into two buffers in turn.

    Attributes
    ----------
    fingerprints : dict of int to int
        Of the chunks of each read, by its first row.
    """

    def __init__(self, files: ChunkFiles, chunk_rows: int) -> None:
        stored_rows, columns = files.chunk_shape
        self.files = files
        self.fingerprints: dict[int, int] = {}
        self.n_features = int(files.array.shape[1])
        shape = (min(chunk_rows, -(-files.array.shape[0] // stored_rows) * stored_rows), columns)
        self._buffers = [_pool.take(shape, files.array.dtype) for _ in range(2)]
        self._scratch = Scratch()
        self._turn = 0

    def expect(self, rows: slice) -> None:
        """Do nothing: a disk is read one chunk ahead."""

    def close(self) -> None:
        """Leave the buffers to the next reader of this thread; what was read is over."""
        _pool.put(self._buffers)
        self._buffers = []

    def arriving(self, rows: slice) -> Iterator[tuple[Array, int]]:
        """Yield the rows, and how many of them are there before they are known to be sound."""
        stored_rows = self.files.chunk_shape[0]
        n = rows.stop - rows.start
        whole = -(-n // stored_rows) * stored_rows
        self._turn = 1 - self._turn
        buffer: Array = self._buffers[self._turn]
        X = buffer[:n, : self.n_features]
        found: list[int] = []
        first = rows.start // stored_rows
        for n_there in self._read_into(buffer[:whole], first, found):
            # What completes them is known to be sound at once.
            if n_there < n:
                yield X, n_there
        self.fingerprints[rows.start] = combined(found)
        yield X, 0

    def _read_into(self, out: Array, first: int, found: list[int]) -> Iterator[int]:
        return self.files.read_into(out, first, found, self._scratch)


class BufferPool(threading.local):
    """Hold buffers that a thread's reader left to the next: fresh ones cost as much as reading."""

    def __init__(self) -> None:
        self._buffers: list[Array] = []

    def take(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return a buffer of that shape; what it holds means nothing."""
        buffers, self._buffers = self._buffers, []
        if buffers and buffers[-1].shape == shape and buffers[-1].dtype == dtype:
            *self._buffers, found = buffers
            return found
        return aligned_empty(shape, dtype)

    def put(self, buffers: list[Array]) -> None:
        """Take back buffers that are not too large to lie about."""
        self._buffers = [
            buffer for buffer in buffers if buffer.nbytes <= tuning().reading.pooled_bytes
        ]


_pool = BufferPool()


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an array that is not filled, whose first byte lies on a cache line.

    The kernel copies a file's pages eight times as fast to such an address as to the one
    16 bytes past a page at which NumPy puts large arrays.
    """
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(count + CACHE_LINE, dtype=np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return np.ndarray(shape, dtype, memory, start)
