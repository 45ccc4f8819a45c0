"""TODO data.zarr.source."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...core import ranges
from ...core.additive import Array
from ...core.chunk_log import Notes
from ...core.ranges import even_bounds
from ...errors import DataError
from ...storage.object_store import UrlStore
from ...storage.urls import describe_url

if TYPE_CHECKING:
    import zarr

    from .layout import Missing

logger = logging.getLogger("dask_em")
# Read at once from a store on the network, for one task: what a line of 100 MB/s brings while
# a chunk waits out a tenth of a second and is computed at once. A disk needs one chunk ahead.
AHEAD_BYTES = 32 * 2**20

MOST_AHEAD = 4


@dataclass(frozen=True)
class ZarrSource:
    """A two-dimensional Zarr array, read in whole chunks (or shards) of rows.

    Attributes
    ----------
    array : zarr.Array
    stored_weight : zarr.Array or None
        One weight a row, read beside the rows.
    memory_weight : array or None
        The same from memory; it stays with the caller and travels by range.
    read_bytes : int
        Small chunks are read together up to this size.
    missing : {"error", "fill"}
        Whether a missing chunk is an error or stands for the fill value.
    expected : (n_chunks,) array or None
        The fingerprint that each chunk must have: what a first pass noted.
    dropping : frozenset of int
        Chunks whose rows of NaN or infinity are left out.
    n_dropped : int
        Such rows, as a first pass counted them.
    stamp : tuple or None
        Of the file that describes the array, when the array was found to be as it is here.
    """

    array: zarr.Array[Any]
    stored_weight: zarr.Array[Any] | None = None
    memory_weight: Array | None = None
    read_bytes: int = field(default_factory=lambda: ranges.READ_BYTES)
    missing: Missing = "error"
    expected: Array | None = None
    dropping: frozenset[int] = frozenset()
    n_dropped: int = 0
    stamp: tuple[int, int] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Whoever receives the source must cut it in the same places. Weights in memory
        # stay with the caller.
        values = {f.name: getattr(self, f.name) for f in fields(self)} | {"memory_weight": None}
        return (type(self), tuple(values.values()))

    @property
    def n_rows(self) -> int:
        return int(self.array.shape[0])

    @property
    def n_features(self) -> int:
        return int(self.array.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.array.dtype)

    @property
    def nbytes(self) -> int:
        return self.n_rows * self.n_features * self.dtype.itemsize

    @property
    def n_chunks(self) -> int:
        return len(self.bounds) - 1

    @property
    def in_process(self) -> bool:
        from zarr.storage import MemoryStore

        arrays = [self.array] + ([self.stored_weight] if self.stored_weight is not None else [])
        return any(isinstance(a.store, MemoryStore) for a in arrays)

    @property
    def description(self) -> str:
        return describe_url(str(self.array.store_path))

    @cached_property
    def chunk_rows(self) -> int:
        """Rows read at once: whole chunks of the store, several where they are small."""
        row_bytes = max(1, self.n_features * self.dtype.itemsize)
        inner = int(self.array.chunks[0])
        unit = int(self.array.shards[0]) if self.array.shards else inner
        if unit * row_bytes > self.read_bytes:
            # A large shard is read in parts: the most inner chunks that divide it.
            per_unit = unit // inner
            fitting = [m for m in range(1, per_unit + 1) if per_unit % m == 0]
            fitting = [m for m in fitting if m * inner * row_bytes <= self.read_bytes] or [1]
            return inner * fitting[-1]
        return int(unit * max(1, self.read_bytes // (unit * row_bytes)))

    @cached_property
    def bounds(self) -> Array:
        return even_bounds(self.n_rows, self.chunk_rows)

    def reader(self) -> Callable[[int], tuple[Array, Array | None]]:
        return ZarrReader(self)

    @property
    def chunks_held(self) -> int:
        """Chunks that a task holds: the one in hand, and those being read with their decoding."""
        from .raw import RawChunks

        dropping = bool(self.dropping)
        if RawChunks.of(self.array) is not None:
            return 2 + dropping
        return 1 + self.read_ahead * (3 if self.array.compressors else 2) + dropping

    @property
    def read_ahead(self) -> int:
        """Chunks read at once: one of a disk, up to `AHEAD_BYTES` of a store on the network."""
        if not isinstance(self.array.store, UrlStore):
            return 1
        chunk_bytes = self.chunk_rows * max(1, self.n_features * self.dtype.itemsize)
        return max(1, min(MOST_AHEAD, AHEAD_BYTES // chunk_bytes))

    def check(self) -> None:
        """Look for all chunks in the store, at the cost of a listing, and for checksums.

        Raises
        ------
        DataError
            Chunks are missing, or links to another place, or the array is not what it was when it
            was opened.
        """
        from .layout import check_links, check_present, check_same, has_checksum

        for array, name in self._arrays():
            check_same(array, name)
            check_links(array, name)
            if self.missing == "error":
                check_present(array, name)
            if not has_checksum(array):
                logger.warning(
                    "%s (%s) has no checksum, so flipped bits would pass for data: write it with "
                    "zarr.codecs.Crc32cCodec() as the last of its compressors",
                    name,
                    describe_url(str(array.store_path)),
                )

    def _arrays(self) -> Iterable[tuple[zarr.Array[Any], str]]:
        yield self.array, "X"
        if self.stored_weight is not None:
            yield self.stored_weight, "sample_weight"

    def held_to(self, notes: Notes) -> Self:
        """The same rows, without those that a first pass dropped.

        A chunk that is not what that pass read is an error from now on.
        """
        return replace(
            self,
            expected=notes.in_order(),
            dropping=notes.dropping,
            n_dropped=notes.n_dropped,
        )

    def shipped_weights(self, chunks: range) -> Array | None:
        if self.memory_weight is None:
            return None
        return self.memory_weight[self.bounds[chunks.start] : self.bounds[chunks.stop]]


class ZarrReader:
    """Reads chunks of a Zarr array with their weights, and holds them to what they must be.

    Attributes
    ----------
    prints : dict of int to int
        The fingerprint of each chunk read so far, as `Notes` has it.
    """

    def __init__(self, source: ZarrSource) -> None:
        from .layout import check_same, document_stamp
        from .readers import row_reader

        self.prints: dict[int, int] = {}
        self._source = source
        if source.stamp is None or document_stamp(source.array) != source.stamp:
            check_same(source.array)
        self._rows = row_reader(source.array, source.chunk_rows, source.missing)
        self._weights = None
        if source.stored_weight is not None:
            self._weights = row_reader(
                source.stored_weight, source.chunk_rows, source.missing, "sample_weight"
            )

    def __call__(
        self, chunk: int, hand: Callable[[Array, Array | None, int], None] | None = None
    ) -> tuple[Array, Array | None]:
        """Rows and weights of a chunk; `hand` may be given them, and how many rows are there."""
        source = self._source
        rows = slice(int(source.bounds[chunk]), int(source.bounds[chunk + 1]))
        weight = None if source.memory_weight is None else source.memory_weight[rows]
        of_weight = 0
        if self._weights is not None:
            stored, of_weight = self._weights(rows)
            weight = stored.astype(np.float64)
        filling = None if hand is None else lambda X, there: hand(X, weight, there)
        X, seen = self._rows(rows, filling)
        seen |= of_weight << 32
        self.prints[chunk] = seen
        if source.expected is not None:
            self._compare(rows, seen, int(source.expected[chunk]))
        return X, weight

    def close(self) -> None:
        """Give up the buffers that were read into, and the rows in them."""
        for rows in (self._rows, self._weights):
            if rows is not None:
                rows.close()

    def _compare(self, rows: slice, seen: int, expected: int) -> None:
        if seen == expected:
            return
        from .layout import chunk_place, file_shape

        name, array = next(self._changed(seen ^ expected))
        shape = file_shape(array)
        numbers = range(rows.start // shape[0], -(-rows.stop // shape[0]))
        place = chunk_place(array, (numbers[0],) + (0,) * (array.ndim - 1), shape)
        if len(numbers) > 1:
            place = f"one of the chunks {numbers[0]} to {numbers[-1]}, from {place} on,"
        raise DataError(
            f"{place} of {name} changed since the first pass read it: rows {rows.start} to "
            f"{rows.stop - 1} are other numbers now; fit again when nobody writes to {name}"
        )

    def _changed(self, difference: int) -> Iterator[tuple[str, zarr.Array[Any]]]:
        if difference % 2**32:
            yield "X", self._source.array
        if self._source.stored_weight is not None:
            yield "sample_weight", self._source.stored_weight
