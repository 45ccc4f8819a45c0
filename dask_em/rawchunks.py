"""Chunk files of a local Zarr store that hold plain numbers, read without a copy.

Zarr reads a chunk into fresh memory and copies it into an array; for a pass that
costs two chunks of memory, tens of thousands of page faults, and about 2 ms. Where
the bytes of a file are the numbers (no compression, with or without a checksum) they
are read straight into a buffer that is used again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError
from .statistics import Array

if TYPE_CHECKING:
    import zarr

CACHE_LINE = 64
CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class RawChunks:
    """The chunk files of one array.

    Attributes
    ----------
    folder : str
        Of the array, in a local store.
    metadata : zarr metadata
        Knows the names of the chunks.
    chunk_shape : (rows, columns)
        All columns lie in one chunk.
    dtype : dtype
    checksum : bool
        Whether each file ends with the CRC-32C of its numbers.
    fill_value : number
        What a missing chunk stands for.
    """

    folder: str
    metadata: Any
    chunk_shape: tuple[int, int]
    dtype: np.dtype[Any]
    checksum: bool
    fill_value: Any

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> RawChunks | None:
        """The raw chunks of a two-dimensional array, None where its files hold anything else."""
        from zarr.codecs import BytesCodec, Crc32cCodec
        from zarr.storage import LocalStore

        store = array.store
        codecs = getattr(array.metadata, "codecs", None)
        if not isinstance(store, LocalStore) or not codecs or array.shards:
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
        return cls(
            str(Path(store.root, array.path)),
            array.metadata,
            (int(array.chunks[0]), int(array.chunks[1])),
            dtype,
            bool(rest),
            array.fill_value,
        )

    def read_into(self, out: Array, first: int) -> None:
        """Fill `out` (m x chunk rows, chunk columns) with the chunks from number `first` on."""
        rows = self.chunk_shape[0]
        for j in range(len(out) // rows):
            self._read_one(out[j * rows : (j + 1) * rows], first + j)

    def _read_one(self, out: Array, number: int) -> None:
        path = os.path.join(self.folder, self.metadata.encode_chunk_key((number, 0)))
        wanted = out.reshape(-1).view(np.uint8).data
        tail = bytearray(CHECKSUM_BYTES if self.checksum else 0)
        expected = len(wanted) + len(tail)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            out[...] = self.fill_value
            return
        try:
            size = os.fstat(descriptor).st_size
            if size != expected:
                raise DataError(
                    f"chunk {number} ({path}) holds {size} bytes, expected {expected}: "
                    "the file was cut or written by something else; restore it"
                )
            done = os.readv(descriptor, [wanted, tail])
            while done < expected:
                # One call reads 2 GiB at most.
                more = os.preadv(descriptor, _rest(wanted, tail, done), done)
                if more == 0:
                    raise DataError(f"chunk {number} ({path}) shrank while it was read")
                done += more
        finally:
            os.close(descriptor)
        if self.checksum:
            self._verify(out, bytes(tail), number, path)

    def _verify(self, numbers: Array, claimed: bytes, number: int, path: str) -> None:
        from google_crc32c import value

        if value(numbers).to_bytes(CHECKSUM_BYTES, "little") != claimed:
            raise DataError(
                f"chunk {number} ({path}) does not match its checksum: the file is damaged; "
                "restore it from a copy or write the array again"
            )


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


def _rest(numbers: memoryview, tail: bytearray, done: int) -> list[Any]:
    parts = [memoryview(numbers)[done:], memoryview(tail)[max(0, done - len(numbers)) :]]
    return [part for part in parts if len(part)]
