"""Chunks of a Zarr array, read so that none is taken for what it is not.

Zarr reads a missing chunk as the fill value without a word, in every version; here it is an
error with the chunk's name, and so is a damaged one. With every read comes a fingerprint,
by which later passes see whether the data changed.

Chunk files of a local store that hold plain numbers are read without a copy: Zarr reads a
chunk into fresh memory and copies it into an array, which for a pass costs two chunks of
memory, tens of thousands of page faults, and about 2 ms. Where the bytes of a file are the
numbers (no compression, with or without a checksum) they are read straight into a buffer
that is used again.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import zarr
from google_crc32c import extend
from google_crc32c import value as crc32c
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.storage import LocalStore, StorePath, WrapperStore

from .errors import DataError, StoreAccessError, UsageError
from .statistics import Array

logger = logging.getLogger("dask_em")

CACHE_LINE = 64
CHECKSUM_BYTES = 4
LANES_BYTES = 8192
# Read and checked at a time: what stays in cache between the two, whole multiples of the lanes.
PIECE_BYTES = 2**20
# A buffer up to this size is kept for the next range.
SPARE_BYTES = 2**26
# Of a missing chunk, where that is allowed: it must not appear between passes either.
ABSENT = 0
# Codecs that verify what they decode; zstd does where it is asked to.
VERIFYING = {"crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3", "gzip", "zlib"}
# A shard's index holds this in place of the offset and the length of a missing chunk.
NO_CHUNK = 2**64 - 1
# Missing chunks that an error names.
NAMED = 3

# What may not change of an array while it is read.
LAYOUT = (
    "shape",
    "dtype",
    "chunks",
    "shards",
    "fill_value",
    "filters",
    "serializer",
    "compressors",
)

Missing = Literal["error", "fill"]
Index = tuple[int, ...]


Filled = Callable[[int], None]
"""Told how many rows are there already."""
Hand = Callable[[Array, int], None]
"""Told of a chunk that is being read, and how many of its rows are there already."""


class RowReader(Protocol):
    """Reads rows of one array."""

    def __call__(self, rows: slice, hand: Hand | None = None) -> tuple[Array, int]:
        """The rows and the fingerprint of their chunks.

        Rows stay as they are until two more reads: there may be two buffers used in turn.
        A reader that knows may tell `hand` before its end how many rows are there.
        """

    def close(self) -> None:
        """End reading: what was read last is given up too."""


def row_reader(
    array: zarr.Array[Any], chunk_rows: int, missing: Missing = "error", name: str = "X"
) -> RowReader:
    """The quickest reader of an array, for reads of whole chunks of at most `chunk_rows` rows.

    Parameters
    ----------
    array : zarr.Array
        (n, d) or (n,); a reader of (n,) takes any rows.
    chunk_rows : int
    missing : {"error", "fill"}
        Whether a missing chunk is an error or stands for the fill value.
    name : str
        What an error calls the array.
    """
    raw = RawChunks.of(array, missing, name) if array.ndim == 2 else None
    return RawReader(raw, chunk_rows) if raw else WatchedReader(array, missing, name)


# -- where a chunk is, in words ------------------------------------------------------


def file_shape(array: zarr.Array[Any]) -> Index:
    """Rows (and columns) that lie in one file or object: a chunk, or a shard of them."""
    return tuple(map(int, array.shards or array.chunks))


def chunk_key(array: zarr.Array[Any], index: Index) -> str:
    """The key of a chunk (or shard) in the array's store."""
    key = array.metadata.encode_chunk_key(index)
    return f"{array.path}/{key}" if array.path else key


def chunk_place(array: zarr.Array[Any], index: Index, shape: Index, key: str = "") -> str:
    """Number, rows and key of a chunk, as an error tells them."""
    spans = [
        f"{what} {i * size} to {min((i + 1) * size, n) - 1}"
        for what, i, size, n in zip(("rows", "columns"), index, shape, array.shape, strict=False)
    ]
    one_column = len(index) == 1 or shape[1] >= array.shape[1]
    number = str(index[0]) if one_column else str(index)
    store: Any = array.store
    where = key or chunk_key(array, index[: len(shape)])
    where = os.path.join(store.root, where) if isinstance(store, LocalStore) else where
    return f"chunk {number} ({', '.join(spans[:1] if one_column else spans)}; {where})"


def remedy(array: zarr.Array[Any]) -> str:
    """What to do about missing chunks."""
    return (
        "restore them; or, if they were never written because every number in them is the fill "
        f"value {array.fill_value} (Zarr leaves such chunks out unless it is told "
        'write_empty_chunks=True), pass missing="fill" (--missing fill)'
    )


def check_present(array: zarr.Array[Any], name: str = "X") -> None:
    """Look for the array's chunks (or shards) in its store, without reading them.

    Raises
    ------
    DataError
        Some are missing; how many, and the first of them.
    """
    shape, is_stored = file_shape(array), _presence(array)
    grid = [-(-n // size) for n, size in zip(array.shape, shape, strict=True)]
    absent = [index for index in product(*map(range, grid)) if not is_stored(index)]
    if absent:
        first = ", ".join(chunk_place(array, index, shape) for index in absent[:NAMED])
        more = ", ..." if len(absent) > NAMED else ""
        raise DataError(
            f"{name} lacks {len(absent)} of {int(np.prod(grid))} chunks: {first}{more}: "
            f"{remedy(array)}"
        )


def check_links(array: zarr.Array[Any], name: str = "X") -> None:
    """Follow no link out of an array's folder: it could lead to any file of the machine.

    Raises
    ------
    DataError
        A chunk, or a folder of chunks, is a link to a place outside.
    """
    store: Any = array.store
    if not isinstance(store, LocalStore):
        return
    top, shape = os.path.join(store.root, array.path), file_shape(array)
    root, plain = os.path.realpath(top), set[str]()
    for index in product(*(range(-(-n // s)) for n, s in zip(array.shape, shape, strict=True))):
        path = top
        for part in array.metadata.encode_chunk_key(index).split("/"):
            path = os.path.join(path, part)
            if path in plain:
                continue
            target = os.path.realpath(path) if Path(path).is_symlink() else root
            if os.path.commonpath([root, target]) != root:
                raise DataError(
                    f"{chunk_place(array, index, shape)} of {name}: {path} is a link to {target}, "
                    "outside of the array: put the chunks themselves there"
                )
            plain.add(path)


def _presence(array: zarr.Array[Any]) -> Callable[[Index], bool]:
    """Whether a chunk is there, as the store's listing tells."""
    store: Any = array.store
    if isinstance(store, LocalStore):
        # To list a folder for each chunk takes forty times as long as to ask for its file.
        return lambda index: Path(store.root, chunk_key(array, index)).is_file()
    if not store.supports_listing:
        return lambda index: True
    from zarr.core.sync import sync

    prefix = f"{array.path}/" if array.path else ""
    try:
        keys = sync(_listed(store, prefix))
    except StoreAccessError as e:
        logger.warning("missing chunks are found only when they are read: %s", e)
        return lambda index: True
    # Some web servers have listings of something else, or empty ones.
    if keys.isdisjoint((f"{prefix}zarr.json", f"{prefix}.zarray")):
        return lambda index: True
    return lambda index: chunk_key(array, index) in keys


async def _listed(store: Store, prefix: str) -> set[str]:
    return {key async for key in store.list_prefix(prefix)}


def has_checksum(array: zarr.Array[Any]) -> bool:
    """Whether a codec of the array finds flipped bits."""
    metadata: Any = array.metadata
    if metadata.zarr_format == 2:
        codecs = [*(metadata.filters or ()), metadata.compressor]
        return any(_verifies(codec.get_config()) for codec in codecs if codec is not None)
    return any(_verifies(codec.to_dict()) for codec in _all_codecs(metadata.codecs))


def _all_codecs(codecs: Iterable[Any]) -> Iterator[Any]:
    for codec in codecs:
        yield codec
        if isinstance(codec, ShardingCodec):
            yield from _all_codecs(codec.codecs)


def _verifies(codec: Mapping[str, Any]) -> bool:
    name = str(codec.get("name", codec.get("id"))).removeprefix("numcodecs.")
    options = codec.get("configuration", codec)
    return name in VERIFYING or (name == "zstd" and bool(options.get("checksum")))


class Fingerprint:
    """32 bits that tell whether bytes are still the same, given piece by piece.

    The CRC-32C of the sums of 64-bit words 8 KiB apart: any flipped bit changes one of them,
    at half the cost of a checksum of the bytes themselves. All pieces but the last are whole
    multiples of 8 KiB.
    """

    def __init__(self) -> None:
        self._sums = np.zeros(LANES_BYTES // 8, dtype=np.uint64)
        self._rest = np.empty(0, dtype=np.uint8)

    def update(self, piece: Array) -> None:
        """Take the next bytes, (n,) uint8."""
        whole = len(piece) // LANES_BYTES * LANES_BYTES
        words = piece[:whole].view(np.uint64).reshape(-1, LANES_BYTES // 8)
        # `words.sum(axis=0)` takes microseconds longer, which counts in pieces of a file.
        self._sums += np.add.reduce(words, axis=0)
        self._rest = piece[whole:]

    @property
    def value(self) -> int:
        """Of all pieces so far."""
        return int(crc32c(np.concatenate([self._sums.view(np.uint8), self._rest])))


def fingerprint(numbers: Array) -> int:
    """The `Fingerprint` of contiguous numbers."""
    found = Fingerprint()
    found.update(numbers.reshape(-1).view(np.uint8))
    return found.value


class Checksum:
    """The CRC-32C of bytes given piece by piece."""

    def __init__(self) -> None:
        self.value = 0

    def update(self, piece: Array) -> None:
        """Take the next bytes, (n,) uint8."""
        self.value = int(extend(self.value, piece))


# -- files of plain numbers ----------------------------------------------------------


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
        return _print_of_prints(
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
                raise _lacks(self.array, self._place(number), self.name) from None
            out[...] = _fill_value(self.array)
            return ABSENT
        try:
            file = os.fstat(descriptor)
            if not stat.S_ISREG(file.st_mode):
                raise _no_file(self._place(number), self.name)
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


def _fill_value(array: zarr.Array[Any]) -> Any:
    # Version 2 of the format knows arrays without one, and Zarr reads zeros there.
    return 0 if array.fill_value is None else array.fill_value


def _print_of_prints(prints: Iterable[int]) -> int:
    return int(crc32c(np.fromiter(prints, dtype="<u4").tobytes()))


def _lacks(array: zarr.Array[Any], place: str, name: str) -> DataError:
    return DataError(f"{name} lacks {place}: {remedy(array)}")


def _no_file(place: str, name: str) -> DataError:
    return DataError(f"{place} of {name} is not a file: restore it")


# -- everything else, through Zarr ---------------------------------------------------


class Watch(WrapperStore[Store]):
    """A store that notes what was read of it, and what was not there to be read.

    Attributes
    ----------
    lengths : dict of str to list
        Of each key that was read: bytes expected (None for all of them) and bytes found
        (None where there is no such key).
    indices : dict of str to bytes
        The indices of the shards that were read.
    failed : bool
        Whether an exception came from the store itself.
    """

    # Newer versions of Zarr would read around `get`.
    _supports_sync_io = False

    def __init__(self, store: Store, index: ByteRequest | None = None) -> None:
        super().__init__(store)
        self.lengths: dict[str, list[tuple[int | None, int | None]]] = {}
        self.indices: dict[str, bytes] = {}
        self.failed = False
        self._index = index

    async def get(
        self, key: str, prototype: Any = None, byte_range: ByteRequest | None = None
    ) -> Any:
        """Bytes of a key, or None where there is none."""
        try:
            found = await self._store.get(key, prototype, byte_range)
        except BaseException:
            self.failed = True
            raise
        wanted = None
        if isinstance(byte_range, RangeByteRequest):
            wanted = byte_range.end - byte_range.start
        length = None if found is None else len(found)
        self.lengths.setdefault(key, []).append((wanted, length))
        if found is not None and self._index is not None:
            self._note_index(key, byte_range, found)
        return found

    def get_ranges(self, *args: Any, **kwargs: Any) -> Any:
        """Parts of a key, each by `get`; newer versions of Zarr ask for several at once."""
        return Store.get_ranges(self, *args, **kwargs)  # type: ignore[attr-defined]

    def _note_index(self, key: str, byte_range: ByteRequest | None, found: Any) -> None:
        if byte_range == self._index:
            self.indices[key] = found.to_bytes()
        elif byte_range is None and isinstance(self._index, SuffixByteRequest):
            self.indices[key] = found[-self._index.suffix :].to_bytes()
        elif byte_range is None and isinstance(self._index, RangeByteRequest):
            self.indices[key] = found[: self._index.end].to_bytes()


class WatchedReader:
    """Reads rows of an array of any layout through Zarr, and sees what Zarr keeps silent of."""

    def __init__(self, array: zarr.Array[Any], missing: Missing = "error", name: str = "X") -> None:
        self.array, self.missing, self.name = array, missing, name
        self._index = _index_request(array)
        codecs = getattr(array.metadata, "codecs", ())
        sharded = any(isinstance(codec, ShardingCodec) for codec in _all_codecs(codecs))
        if sharded and self._index is None and missing == "error":
            raise DataError(
                f"{name} lies in shards within shards, or behind other codecs: chunks that are "
                'missing in them cannot be seen; write it in plain shards, or pass missing="fill" '
                "(--missing fill) to read such chunks as the fill value"
            )

    def close(self) -> None:
        """Nothing is kept."""

    def __call__(self, rows: slice, hand: Hand | None = None) -> tuple[Array, int]:
        watch = Watch(self.array.store, self._index)
        try:
            found = np.ascontiguousarray(self._read(watch, rows))
        except Exception as e:
            if watch.failed or isinstance(e, MemoryError) or not watch.lengths:
                raise
            # Reading ended at the damaged chunk; what is behind it was not asked for.
            self._check_files(watch, rows, partly=True)
            raise self._damaged(rows, e) from e
        self._check_files(watch, rows)
        if self._index is not None and self.missing == "error":
            self._check_inner(watch, rows)
        return found, fingerprint(found)

    def _read(self, watch: Watch, *window: slice) -> Array:
        place = StorePath(watch, self.array.path)
        array: zarr.Array[Any] = zarr.Array(zarr.AsyncArray(self.array.metadata, place))
        return np.asarray(array[window])

    def _windows(self, rows: slice, shape: Index) -> list[range]:
        """Numbers of the chunks of this shape that hold the rows, along each axis."""
        stop = min(rows.stop, self.array.shape[0])
        first = range(rows.start // shape[0], -(-stop // shape[0]))
        others = zip(self.array.shape[1:], shape[1:], strict=True)
        return [first, *(range(-(-n // size)) for n, size in others)]

    def _check_files(self, watch: Watch, rows: slice, partly: bool = False) -> None:
        shape = file_shape(self.array)
        for index in product(*self._windows(rows, shape)):
            key = chunk_key(self.array, index)
            if key not in watch.lengths and not partly:
                raise UsageError(
                    f"the codec pipeline that Zarr is set to reads {self.name} past its store, so "
                    "missing chunks cannot be seen: set codec_pipeline.path of zarr.config to its "
                    "default"
                )
            for wanted, length in watch.lengths.get(key, ()):
                if length is None:
                    self._check_absent(index, shape, key)
                elif length == 0 or (wanted is not None and length < wanted):
                    place = chunk_place(self.array, index, shape)
                    raise DataError(
                        f"{place} of {self.name} is empty or was cut: restore it from a copy or "
                        "write the array again"
                    )

    def _check_absent(self, index: Index, shape: Index, key: str) -> None:
        place, store = chunk_place(self.array, index, shape), self.array.store
        if isinstance(store, LocalStore) and os.path.lexists(os.path.join(store.root, key)):
            raise _no_file(place, self.name)
        if self.missing == "error":
            raise _lacks(self.array, place, self.name)

    def _check_inner(self, watch: Watch, rows: slice) -> None:
        """Raise `DataError` where a shard's index says that a chunk of the rows is missing."""
        inner = tuple(map(int, self.array.chunks))
        per_shard = tuple(s // c for s, c in zip(file_shape(self.array), inner, strict=True))
        tables: dict[str, Array] = {}
        for index in product(*self._windows(rows, inner)):
            shard, place = zip(*map(divmod, index, per_shard), strict=True)
            key = chunk_key(self.array, shard)
            if key not in tables:
                table = np.frombuffer(watch.indices[key], "<u8", 2 * int(np.prod(per_shard)))
                tables[key] = table.reshape(*per_shard, 2)
            if (tables[key][place] == NO_CHUNK).all():
                named = "inner " + chunk_place(self.array, index, inner, key)
                raise _lacks(self.array, named, self.name)

    def _damaged(self, rows: slice, error: Exception) -> DataError:
        """What is damaged among the chunks of these rows: each is read by itself."""
        shape = tuple(map(int, self.array.chunks))
        inner = "inner " if self.array.shards else ""
        named = f"rows {rows.start} to {rows.stop - 1}"
        for index in product(*self._windows(rows, shape)):
            window = [slice(i * s, (i + 1) * s) for i, s in zip(index, shape, strict=True)]
            try:
                self._read(Watch(self.array.store), *window)
            except Exception as e:
                shard = [i * c // s for i, c, s in zip(index, shape, file_shape(self.array),
                                                       strict=True)]  # fmt: skip
                key = chunk_key(self.array, tuple(shard))
                named, error = inner + chunk_place(self.array, index, shape, key), e
                break
        return DataError(
            f"{named} of {self.name} cannot be decoded ({type(error).__name__}: {error}): it is "
            "damaged or was cut; restore it from a copy or write the array again"
        )


def _index_request(array: zarr.Array[Any]) -> ByteRequest | None:
    """The part of a shard that is its index, None where there are no shards of a plain kind."""
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


class CheckedRows:
    """A Zarr array as something that is sliced by rows: for Dask, which reads through Zarr."""

    def __init__(self, array: zarr.Array[Any], missing: Missing, name: str) -> None:
        self.shape, self.dtype, self.ndim = array.shape, np.dtype(array.dtype), array.ndim
        self._reader = WatchedReader(array, missing, name)

    def __getitem__(self, window: Any) -> Array:
        rows, *others = window if isinstance(window, tuple) else (window,)
        found, _ = self._reader(slice(*rows.indices(self.shape[0])))
        return found[(slice(None), *others)] if others else found


# -- whether the array is still what it was -------------------------------------------


def document_stamp(array: zarr.Array[Any]) -> tuple[int, int] | None:
    """Size and time of the file that describes the array, None where nobody can tell cheaply."""
    store: Any = array.store
    if not isinstance(store, LocalStore):
        return None
    document = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
    try:
        file = Path(store.root, array.path, document).stat()
    except OSError:
        return None
    return file.st_size, file.st_mtime_ns


def _part(array: zarr.Array[Any], name: str) -> Any:
    found = getattr(array, name)
    # The order of bytes on the disk is the codec's, and Zarr forgets that of the numbers.
    return np.dtype(found).newbyteorder("=") if name == "dtype" else found


def check_same(array: zarr.Array[Any], name: str = "X") -> None:
    """Raise `DataError` where the stored array has another shape, type or layout by now."""
    from zarr.errors import GroupNotFoundError

    zarr_format = array.metadata.zarr_format
    try:
        now = zarr.open_array(array.store_path, mode="r", zarr_format=zarr_format)
    except (FileNotFoundError, GroupNotFoundError, ValueError, NotADirectoryError, KeyError) as e:
        gone = f"{type(e).__name__}: {e}"
    else:
        gone = ""
    if gone:
        # Not where Zarr's error is caught: as its context it would come along from a worker,
        # where it cannot be unpacked.
        raise DataError(
            f"{name} changed after it was opened: {array.store_path} is not a Zarr array any more "
            f"({gone})"
        )
    for part in LAYOUT:
        before, after = str(_part(array, part)), str(_part(now, part))
        if before != after:
            raise DataError(
                f"{name} changed after it was opened: its {part.replace('_', ' ')} was {before} "
                f"and is {after}: fit again when nobody writes to it"
            )
