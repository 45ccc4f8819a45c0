"""Decode the bytes of one chunk by its codec's own library, in the thread that read them.

Zarr passes each chunk through its event loop and a thread for every codec, about 0.4 ms beside
what a codec takes. The codecs that it writes by default, and those of version 2 of its format,
are a call each.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numcodecs import blosc, zstd
from zarr.codecs import BytesCodec, Crc32cCodec, TransposeCodec

from ...core.additive import Array
from .fingerprints import Checksum, fingerprint

CHECKSUM_BYTES = 4

# Of zlib: what is before and after the compressed bytes.
GZIP, ZLIB = 31, 15


@dataclass(frozen=True)
class Pipeline:
    """The codecs of a two-dimensional array, of which each chunk holds all columns.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of a chunk.
    dtype : dtype
        Of the rows, as Zarr would give them.
    compressor : str
        The name of its codec, empty where there is none.
    checksum : bool
        Whether the bytes end with the CRC-32C of those before.
    swapped : bool
        Whether the stored numbers have their bytes in the other order.
    transposed : bool
        Whether columns lie one after the other.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    compressor: str = ""
    checksum: bool = False
    swapped: bool = False
    transposed: bool = False

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> Pipeline | None:
        """Return the codecs of an array; None where they are others, or it has other chunks.

        Examples
        --------
        >>> Pipeline.of(zarr.zeros((6, 2), chunks=(3, 2))).compressor
        'zstd'
        >>> Pipeline.of(zarr.zeros((6, 2), chunks=(3, 1))) is None
        True
        """
        metadata: Any = array.metadata
        if array.shards or not _whole_rows(array):
            return None
        if metadata.zarr_format == 2:
            return cls._numbers(array)._of_version_2(metadata)
        return cls._numbers(array)._of_codecs(list(metadata.codecs))

    @classmethod
    def of_inner_chunks(cls, array: zarr.Array[Any]) -> Pipeline | None:
        """Return the codecs of the chunks in shards; None where they are others, or there are none.

        Examples
        --------
        >>> array = zarr.create_array({}, shape=(6, 2), chunks=(1, 2), shards=(3, 2), dtype="f8")
        >>> Pipeline.of_inner_chunks(array).shape
        (1, 2)
        """
        if not array.shards or not _whole_rows(array) or array.shards[1] != array.chunks[1]:
            return None
        metadata: Any = array.metadata
        return cls._numbers(array)._of_codecs(list(metadata.codecs[0].codecs))

    @classmethod
    def _numbers(cls, array: zarr.Array[Any]) -> Pipeline:
        rows, columns = map(int, array.chunks)
        return cls((rows, columns), np.dtype(array.dtype))

    def _of_version_2(self, metadata: Any) -> Pipeline | None:
        if metadata.filters:
            return None
        codec = metadata.compressor
        name = "" if codec is None else _compressor(codec.get_config())
        if name is None:
            return None
        # The order of bytes is that of the numbers, which Zarr keeps.
        return self._with(compressor=name, transposed=metadata.order == "F")

    def _of_codecs(self, codecs: list[Any]) -> Pipeline | None:
        transposed = checksum = False
        if codecs and isinstance(codecs[0], TransposeCodec):
            if tuple(codecs.pop(0).order) != (1, 0):
                return None
            transposed = True
        if not codecs or not isinstance(codecs[0], BytesCodec):
            return None
        endian = codecs.pop(0).endian
        if codecs and isinstance(codecs[-1], Crc32cCodec):
            codecs.pop()
            checksum = True
        if len(codecs) > 1:
            return None
        name = _compressor(codecs[0].to_dict()) if codecs else ""
        if name is None:
            return None
        big = getattr(endian, "value", endian) == "big"
        swapped = self.dtype.newbyteorder(">" if big else "<") != self.dtype
        return self._with(
            compressor=name, checksum=checksum, swapped=swapped, transposed=transposed
        )

    def _with(self, **changes: Any) -> Pipeline:
        return Pipeline(self.shape, self.dtype, **changes)

    @property
    def plain(self) -> bool:
        """Whether the bytes of a file are the numbers, before a checksum."""
        return not (self.compressor or self.swapped or self.transposed)

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers of a chunk."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def scratch_bytes(self) -> int:
        """Bytes that decoding a chunk takes at most, beside its numbers and the stored bytes."""
        # zstd and Blosc write into the rows, whose number their headers tell.
        returned = self.compressor in ("gzip", "zlib")
        return (returned + self.transposed) * self.nbytes

    def decode(self, stored: Array, out: Array) -> int:
        """Decode the bytes of a chunk into `out` (rows, columns), and return their fingerprint.

        It is the checksum where there is one, and that of the numbers elsewhere.

        Raises
        ------
        ValueError
            They cannot be decoded, or are not as many numbers; the message says how.
        """
        check = 0
        if self.checksum:
            stored, check = checked(stored)
        numbers = out.reshape(-1).view(np.uint8)
        if self.plain:
            _same_size(len(stored), len(numbers))
            numbers[:] = stored
        else:
            self._decode_into(stored, numbers, out)
        return check if self.checksum else fingerprint(out)

    def _decode_into(self, stored: Array, numbers: Array, out: Array) -> None:
        target = np.empty_like(numbers) if self.transposed else numbers
        try:
            if self.compressor:
                DECOMPRESS[self.compressor](stored, target)
            else:
                _same_size(len(stored), len(target))
                target[:] = stored
        except (RuntimeError, zlib.error) as e:
            raise ValueError(f"{type(e).__name__}: {e}") from e
        if self.transposed:
            out[...] = target.view(self.dtype).reshape(self.shape[::-1]).T
        if self.swapped:
            out.byteswap(inplace=True)


def _whole_rows(array: zarr.Array[Any]) -> bool:
    """Whether an array is of rows of numbers, and each chunk holds all columns."""
    plain = array.ndim == 2 and array.dtype.kind in "iufb"
    return plain and array.chunks[1] >= array.shape[1]


def _compressor(config: Mapping[str, Any]) -> str | None:
    """Return the name of a compressor that is decoded here, None of any other codec."""
    name = str(config.get("name", config.get("id"))).removeprefix("numcodecs.")
    return name if name in DECOMPRESS else None


def checked(stored: Array) -> tuple[Array, int]:
    """Split stored bytes from the checksum behind them.

    Raises
    ------
    ValueError
        It is another.
    """
    stored, tail = stored[:-CHECKSUM_BYTES], stored[-CHECKSUM_BYTES:].tobytes()
    check = Checksum()
    check.update(stored)
    if check.value.to_bytes(CHECKSUM_BYTES, "little") != tail:
        raise ValueError("it does not match its checksum")
    return stored, check.value


def _same_size(found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"{found} bytes of numbers, expected {expected}")


# -- compressors -----------------------------------------------------------------------


def _zstd(stored: Array, target: Array) -> None:
    """Decompress frames of Zstandard (RFC 8878)."""
    n_numbers = _frame_bytes(stored)
    if n_numbers == len(target):
        # The library holds the frame to its header, and refuses another one behind it.
        zstd.decompress(stored, target)
        return
    if n_numbers is not None and n_numbers > len(target):
        # Of a damaged header, perhaps: memory for it is not asked for.
        _same_size(n_numbers, len(target))
    _put(zstd.decompress(stored), target)


def _frame_bytes(stored: Array) -> int | None:
    """Return how many bytes the first frame says that it becomes (RFC 8878, 3.1.1.1).

    None where it does not say.
    """
    header = stored[:18].tobytes()
    if len(header) < 6:
        return None
    flags = header[4]
    single, size_flag = flags >> 5 & 1, flags >> 6
    width = (single, 2, 4, 8)[size_flag]
    start = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    if not width:
        return None
    found = int.from_bytes(header[start : start + width], "little")
    return found + 256 if width == 2 else found


def _blosc(stored: Array, target: Array) -> None:
    """Decompress a buffer of Blosc 1, whose header says its sizes (Blosc's README_HEADER)."""
    if len(stored) < 16:
        raise ValueError(f"{len(stored)} bytes, expected a header of 16")
    n_numbers, _, n_stored = np.frombuffer(stored[4:16].tobytes(), "<u4").tolist()
    _same_size(n_numbers, len(target))
    if n_stored != len(stored):
        raise ValueError(f"{len(stored)} bytes, expected {n_stored} as its header says")
    blosc.decompress(stored, target)


def _gzip(stored: Array, target: Array) -> None:
    """Decompress members of gzip (RFC 1952), of which the last may be filled up with zeros."""
    _inflate(stored, target, GZIP)


def _zlib(stored: Array, target: Array) -> None:
    """Decompress a stream of zlib (RFC 1950)."""
    _inflate(stored, target, ZLIB)


def _inflate(stored: Array, target: Array, bits: int) -> None:
    parts: list[bytes] = []
    data: memoryview | bytes = stored.data
    left = len(target)
    while len(data):
        stream = zlib.decompressobj(bits)
        # One byte more than wanted is enough to tell that there are too many.
        part = stream.decompress(data, left + 1)
        left -= len(part)
        if left < 0:
            raise ValueError(f"more bytes of numbers than {len(target)}")
        if not stream.eof:
            raise ValueError("its end is missing")
        parts.append(part)
        data = stream.unused_data.lstrip(b"\0") if bits == GZIP else b""
    _put(b"".join(parts), target)


def _put(found: bytes, target: Array) -> None:
    _same_size(len(found), len(target))
    target[:] = np.frombuffer(found, dtype=np.uint8)


DECOMPRESS: dict[str, Callable[[Array, Array], None]] = {
    "zstd": _zstd,
    "blosc": _blosc,
    "gzip": _gzip,
    "zlib": _zlib,
}
