"""Rows in a Zarr array, with weights beside them: cut into chunks, read, held to a log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from ...core.additive import Array
from ...core.beside import NOTHING, Beside
from ...core.chunk_log import ChunkLog
from ...core.columns import Column
from ...core.executor import ThreadPool
from ...core.finite import NOWHERE
from ...core.protocols import Block, Reader, RowValues, StoredSource
from ...core.ranges import even_bounds
from ...core.tuning import tuning
from ...errors import DataError
from ...storage.outputs.stamps import source_stamps
from ...storage.url_store import UrlStore
from ...storage.urls import describe_store
from ..checks import tell_once
from ..identity import layout_identity, sha256_of
from ..options import ReadOptions
from ..packing import Packing

if TYPE_CHECKING:
    import zarr

    from .chunk_files import ChunkFiles
    from .readers import RowReader

T = TypeVar("T")

CHECKSUM = "write it with zarr.codecs.Crc32cCodec() as the last of its compressors"


def look_at(array: zarr.Array[Any], name: str, options: ReadOptions) -> None:
    """Look for all chunks of an array in its store, and log what it lacks or costs.

    Raises
    ------
    DataError
        Chunks are missing, or links to another place, or the array is not what it was.
    """
    from .layout import check_links, check_present, check_same, has_checksum, small_chunks

    check_same(array, name)
    check_links(array, name)
    if options.missing_chunks == "error":
        check_present(array, name)
    if small := small_chunks(array):
        tell_once(f"{name} ({describe_store(str(array.store_path))}) {small}")
    if not has_checksum(array):
        tell_once(
            f"{name} ({describe_store(str(array.store_path))}) has no checksum, so flipped bits "
            f"would pass for data: {CHECKSUM}"
        )


@dataclass(frozen=True)
class ZarrSource(StoredSource):
    """Cut a two-dimensional Zarr array into whole chunks (or shards) of rows.

    Attributes
    ----------
    array : zarr.Array
    stored_weight : zarr.Array or None
        One weight a row, read beside the rows.
    memory_weight : array or None
        The same from memory; it stays with the caller and travels by range.
    read_bytes : int
        Small chunks are read together up to this size.
    options : ReadOptions
    expected : (n_chunks,) array or None
        The fingerprint that each chunk must have: that of a first pass.
    dropping : frozenset of int
        Chunks whose rows of NaN or infinity are left out.
    n_dropped : int
        Such rows, as a first pass counted them.
    missing : tuple of bool
        In which columns NaN is a value that is missing, for which no row is left out.
    stamp : tuple or None
        Of the file that describes the array, when the array was found to be as it is here.
    skipped : sequence of range
        Chunks that are read as no rows, because whatever is done with them is done.
    blocks : sequence of int or None
        Rows of each block of lazy values: those of the Dask array that is a view of this one.
        None for the chunks of the store.
    columns : tuple of Column, or None

    Examples
    --------
    >>> import zarr
    >>> source = ZarrSource(zarr.ones((7, 2), chunks=(3, 2)), read_bytes=48)
    >>> source.n_rows, source.n_chunks, source.locate(1, 2)
    (7, 3, 'row 5')
    """

    array: zarr.Array[Any]
    stored_weight: zarr.Array[Any] | None = None
    memory_weight: Array | None = None
    read_bytes: int = field(default_factory=lambda: tuning().reading.bytes)
    options: ReadOptions = field(default_factory=ReadOptions)
    expected: Array | None = None
    dropping: frozenset[int] = frozenset()
    n_dropped: int = 0
    missing: tuple[bool, ...] = NOWHERE
    stamp: tuple[int, int] | None = None
    skipped: Sequence[range] = ()
    blocks: Sequence[int] | None = None
    columns: tuple[Column, ...] | None = None
    beside: Beside = NOTHING

    def __reduce__(self) -> tuple[Any, ...]:
        # Whoever receives the source must cut it in the same places. What stands beside
        # and what only lazy values need, stay with the caller.
        stay = {"memory_weight": None, "blocks": None, "beside": NOTHING}
        values = {f.name: getattr(self, f.name) for f in fields(self)} | stay
        return (type(self), tuple(values.values()))

    @property
    def n_rows(self) -> int:
        return int(self.array.shape[0])

    @property
    def n_features(self) -> int:
        return int(self.array.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.packing.dtype if self.packing else np.dtype(self.array.dtype)

    @cached_property
    def packing(self) -> Packing | None:
        """How the stored numbers are packed or masked, None where they are plain."""
        from .layout import packing_of

        return packing_of(self.array, self.options)

    @property
    def decoding(self) -> str:
        return str(self.packing or "")

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
        return describe_store(str(self.array.store_path))

    @cached_property
    def chunk_rows(self) -> int:
        """Rows read at once: whole chunks of the store, several where they are small."""
        row_bytes = max(1, self.n_features * self.dtype.itemsize)
        inner = int(self.array.chunks[0])
        unit = int(self.array.shards[0]) if self.array.shards else inner
        per_unit, most = unit // inner, tuning().reading.most_together
        if unit * row_bytes > self.read_bytes or per_unit > most:
            # A large shard is read in parts: the most inner chunks that divide it.
            most = min(most, self.read_bytes // (inner * row_bytes))
            fitting = [m for m in range(1, min(per_unit, most) + 1) if per_unit % m == 0] or [1]
            return inner * fitting[-1]
        together = min(self.read_bytes // (unit * row_bytes), most // per_unit)
        return int(unit * max(1, together))

    @cached_property
    def bounds(self) -> Array:
        """First row of each chunk, and the number of rows, (n_chunks + 1,)."""
        return even_bounds(self.n_rows, self.chunk_rows)

    def rows_of(self, chunks: range) -> int:
        """Return the number of rows in these chunks."""
        return int(self.bounds[chunks.stop] - self.bounds[chunks.start])

    def reader(self) -> Reader:
        """Open the source for one range."""
        return ZarrReader(self)

    @property
    def weighted(self) -> bool:
        """Whether rows have weights."""
        return self.stored_weight is not None or self.memory_weight is not None

    @property
    def held_bytes(self) -> int:
        """Bytes of rows and weights that a task holds, with those being read."""
        longest = max(map(len, self.ranges()))
        chunk = self.chunk_rows * self.n_features * self.dtype.itemsize
        # A chunk that rows are left out of is copied.
        copied = chunk * int(bool(self.dropping) or self.drops)
        # So are chunks that are decoded: the one in hand, and the next.
        copied += chunk * min(longest, 2) * int(self.packing is not None)
        beside = self.beside.row_bytes(self.n_features * self.dtype.itemsize) * self.chunk_rows
        return self._rows_held(longest) + copied + self._weights_held(longest) + beside

    def _rows_held(self, longest: int) -> int:
        """Bytes of stored rows, where the longest range has so many chunks."""
        files = self._files
        if files is not None:
            buffers = self.kept_bytes or min(longest, 2) * self._buffer_bytes
            return buffers + files.decoding_bytes
        from .layout import is_encoded

        # What Zarr read, what it decoded, and the array that is made of all chunk files.
        rows = min(self.chunk_rows, self.n_rows) * self.n_features * self.array.dtype.itemsize
        being_read = (1 + is_encoded(self.array)) * self._buffer_bytes + rows
        at_first = min(self.read_ahead, longest) * being_read
        later = rows + min(self.read_ahead, longest - 1) * being_read
        return max(at_first, later)

    def _weights_held(self, longest: int) -> int:
        """Bytes of weights: as they are read, decoded and as float64, and those in hand."""
        if self.stored_weight is None:
            return 0
        return (2 + min(longest, 2)) * 8 * self.chunk_rows

    @property
    def _buffer_bytes(self) -> int:
        """Bytes of a chunk as it is stored: all columns of whole chunk files."""
        width = int(self.array.chunks[1])
        columns = -(-int(self.array.shape[1]) // width) * width
        return min(self.chunk_rows, self.n_rows) * columns * int(self.array.dtype.itemsize)

    @property
    def _files(self) -> ChunkFiles | None:
        """Return what reads the array's files or objects, None where Zarr does."""
        from .readers import files_of

        return files_of(self.array)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the two buffers that a thread reads into in turn, unless they are large."""
        small = self._files is not None and self._buffer_bytes <= tuning().reading.pooled_bytes
        return min(self.n_chunks, 2) * self._buffer_bytes if small else 0

    @property
    def library_bytes(self) -> int:
        """Bytes of the threads of Zarr, or of the object store's library, where they read."""
        far = isinstance(self.array.store, UrlStore)
        return tuning().plan.zarr_threads_bytes if far or self._files is None else 0

    @property
    def shipped_bytes(self) -> int:
        """Bytes of the weights in memory, and of what else stands beside the rows."""
        return self.beside.shipped_bytes + (
            0 if self.memory_weight is None else int(self.memory_weight.nbytes)
        )

    @property
    def read_ahead(self) -> int:
        """Chunks read at once: one of a disk, up to `ahead_bytes` of a store on the network.

        One of an object store, too, of which the reader itself fetches the next objects.
        """
        if not isinstance(self.array.store, UrlStore) or self._files is not None:
            return 1
        chunk_bytes = self.chunk_rows * max(1, self.n_features * self.dtype.itemsize)
        return max(1, min(tuning().reading.most_ahead, tuning().reading.ahead_bytes // chunk_bytes))

    def check(self) -> None:
        """Look for all chunks in the store, at the cost of a listing, and for checksums.

        Raises
        ------
        DataError
            Chunks are missing, or links to another place, or the array is not what it was when it
            was opened.
        """
        for array, name in self._arrays():
            look_at(array, name, self.options)

    @property
    def lacks_checksum(self) -> str:
        """Say what to do where flipped bits of a chunk would pass for data; empty where none."""
        from .layout import has_checksum

        return "" if has_checksum(self.array) else CHECKSUM

    @property
    def stored_rows(self) -> int:
        """Rows of a chunk of the array."""
        return int(self.array.chunks[0])

    @property
    def drops(self) -> bool:
        """Whether rows of NaN or infinity are left out."""
        return self.options.nonfinite == "drop"

    def presence(self) -> str:
        """Check by a listing that all files of the array are there, and count them."""
        from .layout import describe_presence

        return describe_presence([(self.array, "X")], self.options.missing_chunks)

    def storage_notes(self) -> str:
        """Say how stored numbers are decoded."""
        return f"packed, and decoded by {self.decoding}" if self.decoding else ""

    def even(self) -> Self:
        """Return the source itself: chunks of an array are even."""
        return self

    def stamps(self) -> dict[range, str]:
        """Return the stamp of each range, see `source_stamps`."""
        return source_stamps(self.array, self.bounds, self.ranges())

    def _arrays(self) -> Iterable[tuple[zarr.Array[Any], str]]:
        yield self.array, "X"
        if self.stored_weight is not None:
            yield self.stored_weight, "sample_weight"

    def kept_beside(self, kind: type[T]) -> T | None:
        """Return a record that is kept in the group of the array; None where none is."""
        from .beside import kept_beside

        return kept_beside(self.array, kind)

    def unchanged_since(self, log: ChunkLog) -> bool:
        """Tell by the checksums in chunk files, where they are, whether they are those of a log."""
        from .beside import unchanged_since

        return unchanged_since(self.array, self.chunk_rows, log)

    def stamp_of(self, n_rows: int) -> str:
        """Return what checksums, or else files, say of the first rows, whatever was appended."""
        from .grown import stamp_of_first

        found = [stamp_of_first(array, n_rows) for array, _ in self._arrays()]
        return "-".join(found) if all(found) else ""

    def held_to(self, log: ChunkLog, forced: bool = False) -> Self:
        """Return the same rows without those that were dropped, and hold chunks to the log."""
        return replace(
            self,
            expected=None if forced else log.in_order(),
            dropping=log.dropping,
            n_dropped=log.n_dropped,
            missing=log.missing,
        )

    def filling(self) -> Self:
        """Return the same rows, with missing chunks read as the fill value."""
        return replace(self, options=replace(self.options, missing_chunks="fill"))

    def skipping(self, chunks: Sequence[range]) -> Self:
        """Return the same chunks in the same ranges, of which some are read as no rows.

        So what is left of a pass is computed as if nobody had stopped.
        """
        return replace(self, skipped=tuple(chunks))

    def shipped_weights(self, chunks: range) -> Array | None:
        """Return the weights in memory of these chunks."""
        if self.memory_weight is None:
            return None
        return self.memory_weight[self.bounds[chunks.start] : self.bounds[chunks.stop]]

    def with_beside(self, beside: Beside) -> Self:
        """Return the same rows with this beside them."""
        return replace(self, beside=beside)

    def shipped_beside(self, chunks: range) -> Beside:
        """Return what stands beside these chunks."""
        return self.beside.of_rows(int(self.bounds[chunks.start]), int(self.bounds[chunks.stop]))

    def map_rows(
        self, function: Callable[[Array], Array], width: int | None, dtype: np.dtype[Any]
    ) -> RowValues:
        """Compute a function of all rows, lazily and chunk by chunk."""
        from ..lazy import map_chunks

        stored = np.diff(even_bounds(self.n_rows, int(self.array.chunks[0])))
        blocks = stored.tolist() if self.blocks is None else self.blocks
        lengths = np.diff(self.bounds).tolist()
        return map_chunks(self, lengths, blocks, function, width, dtype)

    def identity(self) -> dict[str, object]:
        """Return what tells the data from others, by their place, for JSON."""
        weight: str | None = None
        if self.stored_weight is not None:
            weight = describe_store(str(self.stored_weight.store_path))
        elif self.memory_weight is not None:
            weight = sha256_of(self.memory_weight)
        known = {**layout_identity(self, self.bounds), "sample_weight": weight}
        return known | self.beside.identity()

    def locate(self, chunk: int, row: int) -> str:
        """Say which row of the data a chunk's row is."""
        return f"row {int(self.bounds[chunk]) + row}"


class ZarrReader(Reader):
    """Read chunks of a Zarr array with their weights, and hold them to what they must be."""

    def __init__(self, source: ZarrSource) -> None:
        from .readers import row_reader

        self.fingerprints: dict[int, int] = {}
        self._source, self._expected = source, range(0)
        self._begun, self._lock = False, Lock()
        self._rows = row_reader(source.array, source.chunk_rows, source.options)
        self._weights: RowReader | None = None
        if source.stored_weight is not None:
            self._weights = row_reader(
                source.stored_weight, source.chunk_rows, source.options, "sample_weight"
            )

    def expect(self, chunks: range) -> None:
        """Let the rows of these chunks be fetched ahead, from the first that is read."""
        self._expected = chunks

    def blocks(self, chunk: int, block_rows: int = 0) -> Iterator[Block]:
        """Yield the rows and weights of a chunk, whole blocks as they arrive."""
        source, done = self._source, 0
        if any(chunk in chunks for chunks in source.skipped):
            yield np.empty((0, source.n_features), dtype=source.dtype), None
            return
        self._begin(chunk)
        rows = slice(int(source.bounds[chunk]), int(source.bounds[chunk + 1]))
        weight, of_weight = self._weight(rows)
        for X, there in self._rows.arriving(rows):
            end = there // block_rows * block_rows if block_rows else 0
            if end > done:
                yield X[done:end], None if weight is None else weight[done:end]
                done = end
        self._log(chunk, rows, self._rows.fingerprints[rows.start] | of_weight << 32)
        if done < len(X):
            yield X[done:], None if weight is None else weight[done:]

    def _begin(self, chunk: int) -> None:
        """Check that the array is the same, and meanwhile have rows fetched from this chunk on."""
        source, bounds = self._source, self._source.bounds
        with self._lock:
            if self._begun:
                return
            rows = slice(int(bounds[chunk]), int(bounds[max(chunk + 1, self._expected.stop)]))
            if not isinstance(source.array.store, UrlStore):
                self._check()
                self._rows.expect(rows)
            else:
                # Asked for before them: its answer would wait behind theirs.
                with ThreadPool(1, thread_name_prefix="check") as pool:
                    same = pool.submit(self._check)
                    self._rows.expect(rows)
                    same.result()
            self._begun = True

    def _check(self) -> None:
        from .layout import check_same, document_stamp

        source = self._source
        if source.stamp is None or document_stamp(source.array) != source.stamp:
            check_same(source.array)

    def close(self) -> None:
        """Give up the buffers that were read into, and the rows in them."""
        for rows in (self._rows, self._weights):
            if rows is not None:
                rows.close()

    def _weight(self, rows: slice) -> tuple[Array | None, int]:
        """Weights of rows, and their fingerprint where they are stored."""
        from .readers import read_rows

        if self._weights is not None:
            stored, fingerprint = read_rows(self._weights, rows)
            return stored.astype(np.float64), fingerprint
        given = self._source.memory_weight
        return None if given is None else given[rows], 0

    def _log(self, chunk: int, rows: slice, fingerprint: int) -> None:
        """Log the fingerprint of a chunk, and compare it to that of the first pass."""
        self.fingerprints[chunk] = fingerprint
        expected = self._source.expected
        if expected is None or fingerprint == int(expected[chunk]):
            return
        from .layout import chunk_place, file_shape

        name, array = next(self._changed(fingerprint ^ int(expected[chunk])))
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
