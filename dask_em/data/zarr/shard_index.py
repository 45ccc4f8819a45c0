"""The index of a shard: where each of its inner chunks lies (the sharding codec of Zarr 3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.codecs import Crc32cCodec, ShardingCodec

from ...core.additive import Array
from .pipeline import CHECKSUM_BYTES, checked

# An index holds this in place of the offset and the length of a missing chunk.
NO_CHUNK = 2**64 - 1

# Inner chunks that begin at pages of a file have gaps below this between them.
PAGE_BYTES = 4096


@dataclass(frozen=True)
class Run:
    """Neighbouring inner chunks of a shard, which lie in one stretch of its bytes.

    Attributes
    ----------
    numbers : range
        Of the inner chunks in their shard.
    start, stop : int
        Where they lie; nowhere, if all are missing.
    """

    numbers: range
    start: int = 0
    stop: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the stretch."""
        return self.stop - self.start


@dataclass(frozen=True)
class ShardIndex:
    """Hold the places of the inner chunks of one shard.

    Attributes
    ----------
    places : (n, 2) array of uint64
        Offset and length of each.
    """

    places: Array

    @classmethod
    def of(cls, stored: Array, n: int, is_checked: bool) -> ShardIndex:
        """Return the index of n inner chunks that these bytes are.

        Raises
        ------
        ValueError
            They do not match their checksum.
        """
        if is_checked:
            stored, _ = checked(stored)
        return cls(np.frombuffer(stored.tobytes(), "<u8", 2 * n).reshape(n, 2))

    def place(self, number: int) -> tuple[int, int] | None:
        """Return offset and length of an inner chunk, None where it is missing."""
        offset, length = self.places[number].tolist()
        return None if offset == length == NO_CHUNK else (offset, length)

    def first_outside(self, size: int) -> int | None:
        """Return the number of the first inner chunk that ends beyond so many bytes."""
        offsets, lengths = self.places.T
        limit = np.uint64(size)
        # In this order nothing overflows.
        beyond = (lengths > limit) | (offsets > limit - np.minimum(lengths, limit))
        beyond &= ~(self.places == NO_CHUNK).all(axis=1)
        return int(np.argmax(beyond)) if beyond.any() else None

    def runs(self, numbers: range, most_bytes: int) -> Iterator[Run]:
        """Cut inner chunks into runs of at most so many bytes, or of one chunk, in their order.

        Examples
        --------
        >>> index = ShardIndex(np.array([[0, 4], [4, 4], [8, 4], [90000, 4]], dtype="u8"))
        >>> [run.numbers for run in index.runs(range(4), 9)]
        [range(0, 2), range(2, 3), range(3, 4)]
        """
        first, start, stop = numbers.start, 0, 0
        for number in numbers:
            place = self.place(number)
            if place is None:
                continue
            offset, length = place
            near = stop <= offset < stop + PAGE_BYTES and offset + length - start <= most_bytes
            if stop > start and not near:
                yield Run(range(first, number), start, stop)
                first, start, stop = number, offset, offset
            elif stop == start:
                start = offset
            stop = offset + length
        if first < numbers.stop:
            yield Run(range(first, numbers.stop), start, stop)


@dataclass(frozen=True)
class Shard:
    """A shard whose index was looked for.

    Attributes
    ----------
    number : int
    index : ShardIndex or None
        None where the shard is missing.
    version : str
        Of the object that it was in, empty where that is not told.
    """

    number: int
    index: ShardIndex | None = None
    version: str = ""


def index_request(array: zarr.Array[Any]) -> ByteRequest | None:
    """Return which part of a shard is its index, None where there are no shards of a plain kind.

    Examples
    --------
    >>> index_request(zarr.create_array({}, shape=(6, 2), chunks=(1, 2), shards=(3, 2), dtype="f8"))
    SuffixByteRequest(suffix=52)
    """
    codec = getattr(array.metadata, "codecs", (None,))[0]
    if not array.shards or not isinstance(codec, ShardingCodec):
        return None
    first, *rest = codec.index_codecs
    little = getattr(getattr(first, "endian", None), "value", None) == "little"
    checked = all(isinstance(c, Crc32cCodec) for c in rest)
    if not little or not checked or any(isinstance(c, ShardingCodec) for c in codec.codecs):
        return None
    per_shard = [s // c for s, c in zip(array.shards, array.chunks, strict=True)]
    size = 16 * int(np.prod(per_shard)) + CHECKSUM_BYTES * len(rest)
    at_end = getattr(codec.index_location, "value", codec.index_location) == "end"
    return SuffixByteRequest(size) if at_end else RangeByteRequest(0, size)
