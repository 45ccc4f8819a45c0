"""Chunk files of plain numbers, read without a copy.

Zarr reads a chunk into fresh memory and copies it into an array, which for a pass costs two
chunks of memory, tens of thousands of page faults, and about 2 ms. Where the bytes of a file
are the numbers (no compression, with or without a checksum) they are read straight into a
buffer that is used again.
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
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.storage import LocalStore

from ...core.additive import Array
from ...core.tuning import tuning
from ...errors import DataError, naming
from ..options import MissingChunks
from .fingerprints import Checksum, Fingerprint, combined
from .layout import chunk_key, chunk_place, fill_value, lacks, no_file

CACHE_LINE = 64

CHECKSUM_BYTES = 4


# Of a missing chunk, where that is allowed: it must not appear between passes either.
ABSENT = 0


@dataclass(frozen=True)
class RawChunks:
    """Read the chunk files of one two-dimensional array, of which each holds all columns.

    Attributes
    ----------
    array : zarr.Array
        In a local store.
    checksum : bool
        Whether each file ends with the CRC-32C of its numbers.
    missing_chunks : {"error", "fill"}
    name : str
        What an error calls the array.
    """

    array: zarr.Array[Any]
    checksum: bool
    missing_chunks: MissingChunks = "error"
    name: str = "X"

    @classmethod
    def of(
        cls, array: zarr.Array[Any], missing_chunks: MissingChunks = "error", name: str = "X"
    ) -> RawChunks | None:
        """Take a two-dimensional array; return None where its files hold anything else."""
        codecs = getattr(array.metadata, "codecs", None)
        if not isinstance(array.store, LocalStore) or not codecs or array.shards:
            return None
        first, *rest = codecs
        if not isinstance(first, BytesCodec) or array.chunks[1] < array.shape[1]:
            return None
        if any(not isinstance(codec, Crc32cCodec) for codec in rest) or len(rest) > 1:
            return None
        dtype = np.dtype(array.dtype)
        stored_order = getattr(first.endian, "value", first.endian)
        if dtype.itemsize > 1 and (stored_order != "little" or not _is_little(dtype)):
            return None
        return cls(array, bool(rest), missing_chunks, name)

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """Rows and columns of a chunk."""
        rows, columns = self.array.chunks
        return int(rows), int(columns)

    def read_into(self, out: Array, first: int, found: list[int]) -> Iterator[int]:
        """Fill `out` (m x chunk rows, chunk columns) with the chunks from number `first` on.

        The fingerprint of each is added to `found` when it is known to be sound.

        Yields
        ------
        int
            Rows that are there already, before it is known whether their chunk is sound.
        """
        rows = self.chunk_shape[0]
        for j in range(len(out) // rows):
            for n_rows in self._read_one(out[j * rows : (j + 1) * rows], first + j, found):
                yield j * rows + n_rows

    def _read_one(self, out: Array, number: int, found: list[int]) -> Iterator[int]:
        store: Any = self.array.store
        path = os.path.join(store.root, chunk_key(self.array, (number, 0)))
        with naming(path):
            yield from self._read_file(path, out, number, found)

    def _read_file(self, path: str, out: Array, number: int, found: list[int]) -> Iterator[int]:
        numbers = out.reshape(-1).view(np.uint8)
        check = Checksum() if self.checksum else Fingerprint()
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            if self.missing_chunks == "error":
                raise lacks(self.array, self._place(number), self.name) from None
            out[...] = fill_value(self.array)
            found.append(ABSENT)
            return
        try:
            self._check_size(descriptor, number, len(numbers) + CHECKSUM_BYTES * self.checksum)
            yield from self._read_pieces(descriptor, numbers, number, check)
            tail = os.read(descriptor, CHECKSUM_BYTES) if self.checksum else b""
        finally:
            os.close(descriptor)
        if self.checksum and check.value.to_bytes(CHECKSUM_BYTES, "little") != tail:
            raise DataError(
                f"{self._place(number)} of {self.name} does not match its checksum: the file is "
                "damaged; restore it from a copy or write the array again"
            )
        found.append(check.value)

    def _check_size(self, descriptor: int, number: int, expected: int) -> None:
        file = os.fstat(descriptor)
        if not stat.S_ISREG(file.st_mode):
            raise no_file(self._place(number), self.name)
        if file.st_size != expected:
            raise DataError(
                f"{self._place(number)} of {self.name} holds {file.st_size} bytes, expected "
                f"{expected}: the file was cut or written by something else; restore it"
            )

    def _read_pieces(
        self, descriptor: int, numbers: Array, number: int, check: Checksum | Fingerprint
    ) -> Iterator[int]:
        """Fill `numbers` from the file and give them to `check`; yield how many rows are there."""
        row_bytes = len(numbers) // self.chunk_shape[0]
        for start in range(0, len(numbers), tuning().reading.piece_bytes):
            piece = numbers[start : start + tuning().reading.piece_bytes]
            done = 0
            while done < len(piece):
                more = os.readv(descriptor, [piece[done:].data])
                if more == 0:
                    raise DataError(
                        f"{self._place(number)} of {self.name} shrank while it was read: fit again "
                        "when nobody writes to it"
                    )
                done += more
            # While it is in cache.
            check.update(piece)
            yield (start + len(piece)) // row_bytes

    def _place(self, number: int) -> str:
        return chunk_place(self.array, (number, 0), self.chunk_shape)


class RawReader:
    """Read rows of raw chunk files into two buffers in turn.

    Attributes
    ----------
    fingerprints : dict of int to int
        Of the chunks of each read, by its first row.
    """

    def __init__(self, raw: RawChunks, chunk_rows: int) -> None:
        stored_rows, columns = raw.chunk_shape
        self.raw = raw
        self.fingerprints: dict[int, int] = {}
        self.n_features = int(raw.array.shape[1])
        shape = (min(chunk_rows, -(-raw.array.shape[0] // stored_rows) * stored_rows), columns)
        self._buffers = [_pool.take(shape, raw.array.dtype) for _ in range(2)]
        self._turn = 0

    def close(self) -> None:
        """Leave the buffers to the next reader of this thread; what was read is over."""
        _pool.put(self._buffers)
        self._buffers = []

    def arriving(self, rows: slice) -> Iterator[tuple[Array, int]]:
        """Yield the rows, and how many of them are there before they are known to be sound."""
        stored_rows = self.raw.chunk_shape[0]
        n = rows.stop - rows.start
        whole = -(-n // stored_rows) * stored_rows
        self._turn = 1 - self._turn
        buffer: Array = self._buffers[self._turn]
        X = buffer[:n, : self.n_features]
        found: list[int] = []
        for n_there in self.raw.read_into(buffer[:whole], rows.start // stored_rows, found):
            yield X, min(n_there, n)
        self.fingerprints[rows.start] = combined(found)
        yield X, 0


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


def _is_little(dtype: np.dtype[Any]) -> bool:
    return dtype.newbyteorder("<") == dtype
