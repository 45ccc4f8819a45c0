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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.storage import LocalStore

from ...core.additive import Array
from ...errors import DataError
from .fingerprints import Checksum, Fingerprint, print_of_prints
from .layout import Missing, chunk_key, chunk_place, fill_value, lacks, no_file

CACHE_LINE = 64

CHECKSUM_BYTES = 4

# Read and checked at a time: what stays in cache between the two, whole multiples of the lanes.
PIECE_BYTES = 2**20

# A buffer up to this size is kept for the next range.
SPARE_BYTES = 2**26

# Of a missing chunk, where that is allowed: it must not appear between passes either.
ABSENT = 0


Filled = Callable[[int], None]
"""Told how many rows are there already."""

Hand = Callable[[Array, int], None]
"""Told of a chunk that is being read, and how many of its rows are there already."""


@dataclass(frozen=True)
class RawChunks:
    """The chunk files of one two-dimensional array, of which each holds all columns.

    Attributes
    ----------
    array : zarr.Array
        In a local store.
    checksum : bool
        Whether each file ends with the CRC-32C of its numbers.
    missing : {"error", "fill"}
    name : str
        What an error calls the array.
    """

    array: zarr.Array[Any]
    checksum: bool
    missing: Missing = "error"
    name: str = "X"

    @classmethod
    def of(
        cls, array: zarr.Array[Any], missing: Missing = "error", name: str = "X"
    ) -> RawChunks | None:
        """The raw chunks of a two-dimensional array, None where its files hold anything else."""
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
        return cls(array, bool(rest), missing, name)

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """Rows and columns of a chunk."""
        rows, columns = self.array.chunks
        return int(rows), int(columns)

    def read_into(self, out: Array, first: int, filled: Filled | None = None) -> int:
        """Fill `out` (m x chunk rows, chunk columns) with the chunks from number `first` on.

        `filled`, if given, is told every now and then how many rows are there already, before
        it is known whether the chunk they are of is sound.

        Returns
        -------
        int
            Their fingerprint.
        """
        rows = self.chunk_shape[0]
        return print_of_prints(
            self._read_one(out[j * rows : (j + 1) * rows], first + j, filled, j * rows)
            for j in range(len(out) // rows)
        )

    def _read_one(self, out: Array, number: int, filled: Filled | None, before: int) -> int:
        store: Any = self.array.store
        path = os.path.join(store.root, chunk_key(self.array, (number, 0)))
        numbers = out.reshape(-1).view(np.uint8)
        expected = len(numbers) + CHECKSUM_BYTES * self.checksum
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            if self.missing == "error":
                raise lacks(self.array, self._place(number), self.name) from None
            out[...] = fill_value(self.array)
            return ABSENT
        try:
            file = os.fstat(descriptor)
            if not stat.S_ISREG(file.st_mode):
                raise no_file(self._place(number), self.name)
            if file.st_size != expected:
                raise DataError(
                    f"{self._place(number)} of {self.name} holds {file.st_size} bytes, expected "
                    f"{expected}: the file was cut or written by something else; restore it"
                )
            found = self._read_pieces(descriptor, numbers, number, filled, before)
            tail = os.read(descriptor, CHECKSUM_BYTES) if self.checksum else b""
        finally:
            os.close(descriptor)
        if self.checksum and found.to_bytes(CHECKSUM_BYTES, "little") != tail:
            raise DataError(
                f"{self._place(number)} of {self.name} does not match its checksum: the file is "
                "damaged; restore it from a copy or write the array again"
            )
        return found

    def _read_pieces(
        self, descriptor: int, numbers: Array, number: int, filled: Filled | None, before: int
    ) -> int:
        """Fill `numbers` from the file, and their checksum or fingerprint."""
        row_bytes = len(numbers) // self.chunk_shape[0]
        found = Checksum() if self.checksum else Fingerprint()
        for start in range(0, len(numbers), PIECE_BYTES):
            piece = numbers[start : start + PIECE_BYTES]
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
            found.update(piece)
            if filled is not None:
                filled(before + (start + len(piece)) // row_bytes)
        return found.value

    def _place(self, number: int) -> str:
        return chunk_place(self.array, (number, 0), self.chunk_shape)


class RawReader:
    """Reads rows of raw chunk files into two buffers in turn."""

    def __init__(self, raw: RawChunks, chunk_rows: int) -> None:
        stored_rows, columns = raw.chunk_shape
        self.raw = raw
        self.n_features = int(raw.array.shape[1])
        shape = (min(chunk_rows, -(-raw.array.shape[0] // stored_rows) * stored_rows), columns)
        self._buffers = [_spare.take(shape, raw.array.dtype) for _ in range(2)]
        self._turn = 0

    def close(self) -> None:
        """Leave the buffers to the next reader of this thread; what was read is over."""
        _spare.keep(self._buffers)
        self._buffers = []

    def __call__(self, rows: slice, hand: Hand | None = None) -> tuple[Array, int]:
        stored_rows = self.raw.chunk_shape[0]
        n = rows.stop - rows.start
        whole = -(-n // stored_rows) * stored_rows
        self._turn = 1 - self._turn
        buffer: Array = self._buffers[self._turn]
        X = buffer[:n, : self.n_features]
        filled = None if hand is None else lambda n_rows: hand(X, min(n_rows, n))
        seen = self.raw.read_into(buffer[:whole], rows.start // stored_rows, filled)
        return X, seen


class Spare(threading.local):
    """Buffers that a thread's reader left to the next: fresh memory costs as much as reading."""

    def __init__(self) -> None:
        self._buffers: list[Array] = []

    def take(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A buffer of that shape; what it holds means nothing."""
        buffers, self._buffers = self._buffers, []
        if buffers and buffers[-1].shape == shape and buffers[-1].dtype == dtype:
            *self._buffers, found = buffers
            return found
        return aligned_empty(shape, dtype)

    def keep(self, buffers: list[Array]) -> None:
        """Keep buffers that are not too large to lie about."""
        self._buffers = [buffer for buffer in buffers if buffer.nbytes <= SPARE_BYTES]


_spare = Spare()


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array that is not filled, whose first byte lies on a cache line.

    The kernel copies a file's pages eight times as fast to such an address as to the one
    16 bytes past a page at which NumPy puts large arrays.
    """
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    spare = np.empty(count + CACHE_LINE, dtype=np.uint8)
    start = -spare.ctypes.data % CACHE_LINE
    return np.ndarray(shape, dtype, spare, start)


def _is_little(dtype: np.dtype[Any]) -> bool:
    return dtype.newbyteorder("<") == dtype
