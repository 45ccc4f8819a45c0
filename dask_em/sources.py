"""Where rows come from: what is a chunk, how is it read, and who may read it.

A source cuts its rows into numbered chunks, and the chunks into ranges, by the
data alone. Whoever sums over ranges in that order gets the same bits anywhere.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import pairwise
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from .errors import DataError
from .notes import Notes, TakesPrints, finite_rows
from .statistics import Array, Fold, S
from .stores import UrlStore, describe_url

if TYPE_CHECKING:
    import dask.array as da
    import zarr

    from .chunks import Missing

logger = logging.getLogger("dask_em")

# Small chunks are read together up to this size; one larger is read whole.
READ_BYTES = 8 * 2**20
# Read at once from a store on the network, for one task: what a line of 100 MB/s brings while
# a chunk waits out a tenth of a second and is computed at once. A disk needs one chunk ahead.
AHEAD_BYTES = 32 * 2**20
MOST_AHEAD = 4
# Chunks of a range, where there are enough for the fewest ranges: the first of them, unless
# it is summed while it arrives, is read while nothing is computed.
RANGE_CHUNKS = 8
FEWEST_RANGES, MOST_RANGES = 16, 1024


class Source(Protocol):
    """Rows in numbered chunks."""

    @property
    def n_rows(self) -> int | None:
        """Rows, None where nobody knows before reading them."""

    @property
    def n_features(self) -> int:
        """Columns."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""

    @property
    def n_chunks(self) -> int:
        """How many chunks there are."""

    @property
    def nbytes(self) -> int:
        """Decoded bytes of one pass, 0 where unknown."""

    @property
    def in_process(self) -> bool:
        """Whether the rows lie in this process's memory, so that others cannot read them."""

    @property
    def description(self) -> str:
        """What a person would call it; never a credential."""


class RangeSource(Source, Protocol):
    """A source that any worker can read by itself."""

    @property
    def bounds(self) -> Array:
        """First row of each chunk, and the number of rows, (n_chunks + 1,)."""

    def reader(self) -> Callable[[int], tuple[Array, Array | None]]:
        """A function from a chunk's number to its rows (n, d) and weights (n,).

        What it returns stays as it is until the function was called twice more, or closed
        where it can be: it may read into two buffers in turn, which the next one takes over.
        """

    def shipped_weights(self, chunks: range) -> Array | None:
        """Weights of these chunks that the reader cannot read and must be given."""

    @property
    def read_ahead(self) -> int:
        """Chunks that are read at once while one is summed."""

    @property
    def dropping(self) -> frozenset[int]:
        """Chunks whose rows of NaN or infinity are left out."""

    @property
    def n_dropped(self) -> int:
        """Rows that are left out, as a first pass counted them."""


def ranges(source: RangeSource) -> list[range]:
    """Groups of whole neighbouring chunks, tens to a thousand, by the data alone.

    Few enough that the scheduler's cost per pass does not grow with the number of
    chunks; enough that a slow worker does not hold up the rest.
    """
    wanted = max(source.n_chunks // RANGE_CHUNKS, FEWEST_RANGES)
    wanted = min(wanted, MOST_RANGES, source.n_chunks)
    edges = np.linspace(0, source.n_chunks, wanted + 1).round().astype(int)
    return [range(a, b) for a, b in pairwise(edges.tolist())]


def _bring(
    read: Callable[..., tuple[Array, Array | None]],
    chunk: int,
    block_rows: int,
    parts: SimpleQueue[Any],
) -> None:
    """Put the rows and weights of a chunk into `parts`, then None; or the error that came.

    Where there are blocks, whole ones are put as they arrive. If the chunk then turns out to
    be damaged, the error comes after them, and whoever took them gives up what was summed.
    """
    done = 0

    def hand(X: Array, weight: Array | None, there: int) -> None:
        nonlocal done
        end = there if there == len(X) else there // block_rows * block_rows
        if end > done:
            parts.put((X[done:end], None if weight is None else weight[done:end]))
            done = end

    try:
        if block_rows and isinstance(read, ZarrReader):
            X, weight = read(chunk, hand)
            hand(X, weight, len(X))
        else:
            parts.put(read(chunk))
        parts.put(None)
    except BaseException as e:
        parts.put(e)


def fold_range(source: RangeSource, fold: Fold[S], chunks: range, weights: Array | None) -> S:
    """Feed a range's chunks to `fold`, reading the next ones while this one is summed.

    One chunk is held beside those being read, never more. `weights` are the
    range's `shipped_weights`.
    """
    origin = source.bounds[chunks.start]
    read, depth = source.reader(), source.read_ahead
    with ThreadPoolExecutor(depth, thread_name_prefix="read-ahead") as ahead:

        def begin(chunk: int) -> SimpleQueue[Any]:
            block_rows = 0 if chunk in source.dropping else getattr(fold, "block_rows", 0)
            parts: SimpleQueue[Any] = SimpleQueue()
            ahead.submit(_bring, read, chunk, block_rows, parts)
            return parts

        pending = deque(begin(chunk) for chunk in chunks[:depth])
        for chunk in chunks:
            parts, row = pending.popleft(), source.bounds[chunk] - origin
            if chunk + depth in chunks:
                pending.append(begin(chunk + depth))
            while (part := parts.get()) is not None:
                if isinstance(part, BaseException):
                    raise part
                X, weight = part
                if weights is not None:
                    weight = weights[row : row + len(X)]
                row += len(X)
                if chunk in source.dropping:
                    X, weight, _ = finite_rows(X, weight)
                # What is not finite here is of a damaged chunk, as the end of its reading tells.
                with np.errstate(over="ignore", invalid="ignore"):
                    fold.update(chunk, X, weight)
                del part, X, weight
    if isinstance(fold, TakesPrints):
        fold.take_prints(getattr(read, "prints", {}))
    if isinstance(read, ZarrReader):
        read.close()
    return fold.result()


def even_bounds(n_rows: int, rows: int) -> Array:
    """Chunk borders every `rows` rows."""
    return np.append(np.arange(0, n_rows, rows), n_rows)


@dataclass(frozen=True)
class ArraySource:
    """A NumPy array in this process."""

    X: Array
    sample_weight: Array | None = None
    dropping: frozenset[int] = frozenset()
    n_dropped: int = 0

    in_process = True
    read_ahead = 1

    @property
    def n_rows(self) -> int:
        return len(self.X)

    @property
    def n_features(self) -> int:
        return int(self.X.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.X.dtype

    @property
    def nbytes(self) -> int:
        return self.X.nbytes

    @property
    def n_chunks(self) -> int:
        return len(self.bounds) - 1

    @property
    def description(self) -> str:
        return f"NumPy array {self.X.shape} {self.X.dtype}"

    @cached_property
    def bounds(self) -> Array:
        row_bytes = max(1, self.n_features * self.dtype.itemsize)
        return even_bounds(self.n_rows, max(1, READ_BYTES // 2 // row_bytes))

    def read(self, chunk: int) -> tuple[Array, Array | None]:
        """Rows (n, d) and weights (n,) of one chunk, as views."""
        rows = slice(self.bounds[chunk], self.bounds[chunk + 1])
        weight = self.sample_weight
        return self.X[rows], None if weight is None else weight[rows]

    def reader(self) -> Callable[[int], tuple[Array, Array | None]]:
        return self.read

    def shipped_weights(self, chunks: range) -> Array | None:
        return None

    def held_to(self, notes: Notes) -> Self:
        """The same rows, without those that a first pass dropped."""
        return replace(self, dropping=notes.dropping, n_dropped=notes.n_dropped)


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
    read_bytes: int = field(default_factory=lambda: READ_BYTES)
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
        from .chunks import RawChunks

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
        from .chunks import check_links, check_present, check_same, has_checksum

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
        from .chunks import check_same, document_stamp, row_reader

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
        from .chunks import chunk_place, file_shape

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


@dataclass(frozen=True)
class DaskSource:
    """A Dask array with a graph of its own: its blocks of rows are the chunks."""

    X: da.Array
    sample_weight: da.Array | None = None
    n_dropped: int = 0

    in_process = False

    @property
    def n_rows(self) -> int | None:
        return None if np.isnan(self.X.shape[0]) else int(self.X.shape[0])

    @property
    def n_features(self) -> int:
        return int(self.X.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.X.dtype)
        return dtype

    @property
    def n_chunks(self) -> int:
        return len(self.X.chunks[0])

    @property
    def nbytes(self) -> int:
        return 0 if self.n_rows is None else self.n_rows * self.n_features * self.dtype.itemsize

    @property
    def description(self) -> str:
        return f"Dask array {self.X.shape} {self.X.dtype}"

    def held_to(self, notes: Notes) -> Self:
        """The same rows, without those that a first pass dropped."""
        if not notes.dropping:
            return self
        import dask.array as da

        dropped = dict(notes.dropped)
        lengths = tuple(n - dropped.get(block, 0) for block, n in enumerate(self.X.chunks[0]))

        def filtered(*weight: da.Array) -> Any:
            like = weight[0] if weight else self.X
            return da.map_blocks(
                _finite_block,
                self.X,
                *weight,
                dropping=notes.dropping,
                chunks=(lengths, like.chunks[1]),
                dtype=like.dtype,
                meta=np.empty((0, 0), dtype=like.dtype),
            )

        if self.sample_weight is None:
            return replace(self, X=filtered(), n_dropped=notes.n_dropped)
        weight = filtered(self.sample_weight[:, None])[:, 0]
        return replace(self, X=filtered(), sample_weight=weight, n_dropped=notes.n_dropped)


def _finite_block(
    X: Array, *weight: Array, dropping: frozenset[int], block_id: tuple[int, int]
) -> Array:
    """The rows of a block of X, or of its weights, where those of X are finite."""
    values = weight[0] if weight else X
    return values[np.isfinite(X).all(axis=1)] if block_id[0] in dropping else values


AnySource = ArraySource | ZarrSource | DaskSource
