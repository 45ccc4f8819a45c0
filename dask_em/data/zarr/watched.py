"""Chunks of any layout, read through Zarr by a store that watches what is read.

Zarr reads a missing chunk as the fill value without a word, in every version; here it is an
error with the chunk's name, and so is a damaged one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.codecs import ShardingCodec
from zarr.storage import LocalStore, StorePath, WrapperStore

from ...core.additive import Array
from ...errors import DataError, UsageError, naming
from ...storage.urls import describe_store
from ..options import MissingChunks, ReadOptions
from .fingerprints import fingerprint
from .layout import (
    Index,
    all_codecs,
    chunk_key,
    chunk_place,
    damaged,
    file_shape,
    lacks,
    no_file,
    packing_of,
    was_cut,
)
from .shard_index import NO_CHUNK, index_request

Window = tuple[slice, ...]


class Watch(WrapperStore[Store]):
    """Record what was read of a store, and what was not there to be read.

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
        """Return the bytes of a key, or None where there is none."""
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
        """Return parts of a key, each by `get`; newer versions of Zarr ask for several at once."""
        return Store.get_ranges(self, *args, **kwargs)  # type: ignore[attr-defined]

    def _note_index(self, key: str, byte_range: ByteRequest | None, found: Any) -> None:
        if byte_range == self._index:
            self.indices[key] = found.to_bytes()
        elif byte_range is None and isinstance(self._index, SuffixByteRequest):
            self.indices[key] = found[-self._index.suffix :].to_bytes()
        elif byte_range is None and isinstance(self._index, RangeByteRequest):
            self.indices[key] = found[: self._index.end].to_bytes()


class WatchedReader:
    """Read rows of an array of any layout through Zarr, and check what Zarr does not.

    Attributes
    ----------
    fingerprints : dict of int to int
        Of the rows of each read, by its first row.
    """

    def __init__(
        self, array: zarr.Array[Any], missing_chunks: MissingChunks = "error", name: str = "X"
    ) -> None:
        self.array, self.missing_chunks, self.name = array, missing_chunks, name
        self.fingerprints: dict[int, int] = {}
        self._index = index_request(array)
        codecs = getattr(array.metadata, "codecs", ())
        sharded = any(isinstance(codec, ShardingCodec) for codec in all_codecs(codecs))
        if sharded and self._index is None and missing_chunks == "error":
            raise DataError(
                f"{name} lies in shards within shards, or behind other codecs: chunks that are "
                "missing in them cannot be seen; write it in plain shards, or pass "
                'missing_chunks="fill" to read such chunks as the fill '
                "value"
            )

    def expect(self, rows: slice) -> None:
        """Do nothing: nothing is read ahead here."""

    def close(self) -> None:
        """Do nothing: no buffers are held."""

    def arriving(self, rows: slice) -> Iterator[tuple[Array, int]]:
        """Yield the rows once, when they are decoded and known to be sound."""
        found = self.read(rows)
        self.fingerprints[rows.start] = fingerprint(found)
        yield found, 0

    def read(self, *window: slice) -> Array:
        """Return a window of the array: slices of its first axes, and all of the others.

        Raises
        ------
        DataError
            A chunk is missing, empty, cut or damaged; the message names it.
        """
        whole = tuple(slice(0, n) for n in self.array.shape[len(window) :])
        window = (*window, *whole)
        watch = Watch(self.array.store, self._index)
        try:
            with naming(describe_store(str(self.array.store_path))):
                found = np.ascontiguousarray(self._read(watch, *window))
        except Exception as e:
            if watch.failed or isinstance(e, MemoryError) or not watch.lengths:
                raise
            # Reading ended at the damaged chunk; what is behind it was not asked for.
            self._check_files(watch, window, partly=True)
            raise self._damaged(window, e) from e
        self._check_files(watch, window)
        if self._index is not None and self.missing_chunks == "error":
            self._check_inner(watch, window)
        return found

    def _read(self, watch: Watch, *window: slice) -> Array:
        place = StorePath(watch, self.array.path)
        array: zarr.Array[Any] = zarr.Array(zarr.AsyncArray(self.array.metadata, place))
        return np.asarray(array[window])

    def _chunks(self, window: Window, shape: Index) -> list[range]:
        """Numbers of the chunks of this shape that hold a window, along each axis."""
        return [
            range(part.start // size, -(-min(part.stop, n) // size))
            for part, n, size in zip(window, self.array.shape, shape, strict=True)
        ]

    def _check_files(self, watch: Watch, window: Window, partly: bool = False) -> None:
        shape = file_shape(self.array)
        for index in product(*self._chunks(window, shape)):
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
                    raise was_cut(place, self.name)

    def _check_absent(self, index: Index, shape: Index, key: str) -> None:
        place, store = chunk_place(self.array, index, shape), self.array.store
        if isinstance(store, LocalStore) and os.path.lexists(os.path.join(store.root, key)):
            raise no_file(place, self.name)
        if self.missing_chunks == "error":
            raise lacks(self.array, place, self.name)

    def _check_inner(self, watch: Watch, window: Window) -> None:
        """Raise `DataError` where a shard's index says that a chunk of the window is missing."""
        inner = tuple(map(int, self.array.chunks))
        per_shard = tuple(s // c for s, c in zip(file_shape(self.array), inner, strict=True))
        tables: dict[str, Array] = {}
        for index in product(*self._chunks(window, inner)):
            shard, place = zip(*map(divmod, index, per_shard), strict=True)
            key = chunk_key(self.array, shard)
            if key not in tables:
                table = np.frombuffer(watch.indices[key], "<u8", 2 * int(np.prod(per_shard)))
                tables[key] = table.reshape(*per_shard, 2)
            if (tables[key][place] == NO_CHUNK).all():
                named = "inner " + chunk_place(self.array, index, inner, key)
                raise lacks(self.array, named, self.name)

    def _damaged(self, window: Window, error: Exception) -> DataError:
        """Make the error that names the damaged chunk of a window: each is read by itself."""
        shape = tuple(map(int, self.array.chunks))
        inner = "inner " if self.array.shards else ""
        named = f"rows {window[0].start} to {window[0].stop - 1}"
        for index in product(*self._chunks(window, shape)):
            part = [slice(i * s, (i + 1) * s) for i, s in zip(index, shape, strict=True)]
            try:
                self._read(Watch(self.array.store), *part)
            except Exception as e:
                shard = [i * c // s for i, c, s in zip(index, shape, file_shape(self.array),
                                                       strict=True)]  # fmt: skip
                key = chunk_key(self.array, tuple(shard))
                named, error = inner + chunk_place(self.array, index, shape, key), e
                break
        return damaged(named, self.name, f"{type(error).__name__}: {error}")


class CheckedRows:
    """Slice a Zarr array by rows under the same checks: for Dask, which reads through Zarr."""

    def __init__(self, array: zarr.Array[Any], options: ReadOptions, name: str) -> None:
        self.shape, self.ndim, self._packing = array.shape, array.ndim, packing_of(array, options)
        self.dtype = self._packing.dtype if self._packing else np.dtype(array.dtype)
        self._reader = WatchedReader(array, options.missing_chunks, name)

    def __getitem__(self, window: Any) -> Array:
        rows, *others = window if isinstance(window, tuple) else (window,)
        found = self._reader.read(slice(*rows.indices(self.shape[0])))
        found = self._packing.decode(found) if self._packing else found
        return found[(slice(None), *others)] if others else found
