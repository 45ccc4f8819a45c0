"""Where rows come from: what is a chunk, how is it read, and who may read it.

A source cuts its rows into numbered chunks, and the chunks into ranges, by the
data alone. Whoever sums over ranges in that order gets the same bits anywhere.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, runtime_checkable

import numpy as np

from .errors import DataError
from .statistics import Additive, Array, Fold, Foldable, S, result_bytes
from .stores import UrlStore, check_bucket, describe_url, is_url, open_store

if TYPE_CHECKING:
    import dask.array as da
    import zarr

    from .rawchunks import Missing

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


# -- what the first pass notes of the chunks, so that later ones hold to it ----------------


def finite_rows(X: Array, weight: Array | None) -> tuple[Array, Array | None, int]:
    """Rows (and their weights) without NaN and infinity, and how many rows were left out."""
    with np.errstate(over="ignore", invalid="ignore"):
        if X.dtype.kind != "f" or np.isfinite(X.sum(dtype=np.float64)):
            return X, weight, 0
    finite = np.isfinite(X).all(axis=1)
    n_dropped = len(X) - int(finite.sum())
    if n_dropped == 0:
        return X, weight, 0
    return X[finite], None if weight is None else weight[finite], n_dropped


@runtime_checkable
class TakesPrints(Protocol):
    """A fold that wants to know what the chunks looked like."""

    def take_prints(self, prints: Mapping[int, int]) -> None:
        """The fingerprint of each chunk that was read for the fold."""


@dataclass(frozen=True)
class Notes(Additive):
    """What the first pass noted of each chunk.

    Attributes
    ----------
    chunks, prints : array
        Numbers of chunks, and their fingerprints: that of the rows in the lower 32 bits,
        that of stored weights in the upper.
    dropped : tuple of (int, int)
        Chunks that hold rows of NaN or infinity, and how many such rows.
    """

    chunks: Array = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    prints: Array = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    dropped: tuple[tuple[int, int], ...] = ()

    def __add__(self, other: Notes) -> Notes:
        return Notes(
            np.concatenate([self.chunks, other.chunks]),
            np.concatenate([self.prints, other.prints]),
            self.dropped + other.dropped,
        )

    @property
    def n_dropped(self) -> int:
        """Rows of NaN or infinity."""
        return sum(n for _, n in self.dropped)

    @property
    def dropping(self) -> frozenset[int]:
        """Chunks that hold such rows."""
        return frozenset(chunk for chunk, _ in self.dropped)

    def in_order(self) -> Array:
        """The fingerprints of all chunks by number, as they came from the whole data."""
        prints = np.empty_like(self.prints)
        prints[self.chunks] = self.prints
        return prints


@dataclass(frozen=True)
class Noted(Additive, Generic[S]):
    """Sums of a pass, and the notes that it took."""

    sums: S
    notes: Notes


@dataclass(frozen=True)
class Noting(Generic[S]):
    """A pass that takes notes of the chunks besides.

    Attributes
    ----------
    work : Foldable
        The pass.
    drop : bool
        Whether `work` is spared rows that hold NaN or infinity.
    """

    work: Foldable[S]
    drop: bool = False

    def fold(self) -> NotingFold[S]:
        """The pass over one range, before its first chunk."""
        return NotingFold(self.work.fold(), self.drop)

    @property
    def result_bytes(self) -> int:
        """Bytes of what the pass sums; notes are small beside it."""
        return result_bytes(self.work)


class NotingFold(Generic[S]):
    """Hands chunks on, and notes what they look like."""

    def __init__(self, fold: Fold[S], drop: bool) -> None:
        self._fold, self._drop = fold, drop
        self._dropped: dict[int, int] = {}
        self._prints: Mapping[int, int] = {}

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows X (n, d)."""
        if self._drop:
            X, sample_weight, n_dropped = finite_rows(X, sample_weight)
            if n_dropped:
                self._dropped[index] = n_dropped
        self._fold.update(index, X, sample_weight)

    def take_prints(self, prints: Mapping[int, int]) -> None:
        """The fingerprint of each chunk that was read for the fold."""
        self._prints = prints

    def result(self) -> Noted[S]:
        """Sums and notes of the chunks given so far."""
        notes = Notes(
            np.fromiter(self._prints, dtype=np.int64),
            np.fromiter(self._prints.values(), dtype=np.uint64),
            tuple(self._dropped.items()),
        )
        return Noted(self._fold.result(), notes)


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
        from .rawchunks import RawChunks

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
        from .rawchunks import check_links, check_present, check_same, has_checksum

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
        from .rawchunks import check_same, document_stamp, row_reader

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
        from .rawchunks import chunk_place, file_shape

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


AnySource = ArraySource | ZarrSource | DaskSource


def _finite_block(
    X: Array, *weight: Array, dropping: frozenset[int], block_id: tuple[int, int]
) -> Array:
    """The rows of a block of X, or of its weights, where those of X are finite."""
    values = weight[0] if weight else X
    return values[np.isfinite(X).all(axis=1)] if block_id[0] in dropping else values


def open_zarr(path: str | os.PathLike[str]) -> zarr.Array[Any]:
    """The Zarr array at a path or URL, members of groups included (`store.zarr/points`).

    Raises
    ------
    DataError
        No such path, not a Zarr array, or a group, whose arrays are then named.
    StoreError
        A store on the network that cannot be reached, or refuses.
    """
    import zarr
    from zarr.errors import GroupNotFoundError

    url = os.fspath(path)
    name = describe_url(url)
    place: Any = url.removeprefix("file://")
    if is_url(url):
        place = open_store(url)
    elif not os.path.exists(place):
        raise DataError(f"{name}: no such path")
    try:
        found = zarr.open(place, mode="r")
    except (FileNotFoundError, GroupNotFoundError, ValueError, NotADirectoryError, KeyError) as e:
        check_bucket(url)
        raise DataError(
            f"{name}: not a Zarr array ({type(e).__name__}: {e}); give the path of an array, "
            "or of an array in a group as group.zarr/array"
        ) from e
    if isinstance(found, zarr.Group):
        members = ", ".join(f"{name.rstrip('/')}/{key}" for key in sorted(found.array_keys()))
        raise DataError(f"{name} is a group, not an array; its arrays are: {members or 'none'}")
    return found


def zarr_behind(X: da.Array) -> zarr.Array[Any] | None:
    """The Zarr array that a Dask array is nothing but a view of, else None."""
    import zarr

    layers = X.dask.layers
    if len(layers) != 2 or X.name not in layers:
        return None
    (below,) = layers.keys() - {X.name}
    values = list(layers[below].values()) if len(layers[below]) == 1 else []
    array = values[0] if values else None
    array = getattr(array, "value", array)
    if not isinstance(array, zarr.Array) or not X.name.startswith("from-zarr-"):
        return None
    if array.shape != X.shape or array.dtype != X.dtype:
        return None
    # `da.from_zarr(path)` opens local files through fsspec, which reads them slowly.
    files = getattr(array.store, "fs", None)
    local = "file" in getattr(files, "protocol", ()) if files is not None else False
    path = Path(getattr(array.store, "path", ""), array.path)
    return zarr.open_array(path, mode="r") if local and path.is_dir() else array


def _is_dask(X: object) -> bool:
    return type(X).__module__.partition(".")[0] == "dask" and hasattr(X, "__dask_graph__")


def as_source(X: Any, sample_weight: Any = None, missing: Missing = "error") -> AnySource:
    """A source for whatever holds rows.

    Parameters
    ----------
    X : NumPy array, Dask array, zarr.Array, or path or URL of a Zarr array
        (n, d), numeric.
    sample_weight : the same, (n,), optional
    missing : {"error", "fill"}
        Whether a missing chunk of a Zarr array is an error or stands for the fill value.

    Raises
    ------
    DataError
        Wrong number of dimensions, no rows, a dtype that is not numeric, or
        weights of another length.
    """
    import zarr

    if isinstance(X, str | os.PathLike):
        X = open_zarr(X)
    if isinstance(sample_weight, str | os.PathLike):
        sample_weight = open_zarr(sample_weight)
    if _is_dask(X):
        if not hasattr(X, "chunks"):
            raise DataError(
                f"X is a {type(X).__name__}; pass a Dask array (df.to_dask_array(lengths=True))"
            )
        _check_array("X", X, 2)
        X = zarr_behind(X) if zarr_behind(X) is not None else X
    if isinstance(X, zarr.Array):
        _check_array("X", X, 2)
        if not _is_dask(sample_weight):
            return _zarr_source(X, sample_weight, missing)
        X = _checked_dask(X, missing, "X")
    if _is_dask(X):
        return _dask_source(X, sample_weight, missing)
    X = np.asarray(X)
    _check_array("X", X, 2)
    if sample_weight is not None:
        sample_weight = _memory_weight(sample_weight, len(X))
    return ArraySource(X, sample_weight)


def stored_source(
    path: str | os.PathLike[str], weights: str | None = None, missing: Missing = "error"
) -> ZarrSource:
    """The source of the Zarr array at a path or URL, with weights from another one."""
    array = open_zarr(path)
    _check_array("X", array, 2)
    return _zarr_source(array, None if weights is None else open_zarr(weights), missing)


def _checked_dask(array: zarr.Array[Any], missing: Missing, name: str) -> Any:
    """A Dask array of whole chunks that are read as `ZarrSource` reads them."""
    import dask.array as da

    from .rawchunks import CheckedRows

    rows = ZarrSource(array).chunk_rows if array.ndim == 2 else int(array.chunks[0])
    return da.from_array(
        CheckedRows(array, missing, name),
        chunks=(rows, *array.shape[1:]),
        name=f"em-zarr-{uuid.uuid4().hex}",
        meta=np.empty((0,) * array.ndim, dtype=array.dtype),
    )


def _zarr_source(X: zarr.Array[Any], sample_weight: Any, missing: Missing) -> ZarrSource:
    import zarr

    from .rawchunks import check_same, document_stamp

    # In this order: what changes after the stamp was taken is found by it.
    stamp = document_stamp(X)
    check_same(X)
    source = ZarrSource(X, missing=missing, stamp=stamp)
    if sample_weight is None:
        return source
    if isinstance(sample_weight, zarr.Array):
        _check_weight(sample_weight, source.n_rows)
        return replace(source, stored_weight=sample_weight)
    return replace(source, memory_weight=_memory_weight(sample_weight, source.n_rows))


def _dask_source(X: da.Array, sample_weight: Any, missing: Missing) -> DaskSource:
    import dask.array as da
    import zarr

    X = X.rechunk({1: -1}) if len(X.chunks[1]) > 1 else X
    if sample_weight is None:
        return DaskSource(X)
    if isinstance(sample_weight, zarr.Array):
        sample_weight = _checked_dask(sample_weight, missing, "sample_weight")
    known = not np.isnan(X.shape[0])
    if not _is_dask(sample_weight):
        if not known:
            raise DataError(
                "sample_weight is in memory but the lengths of X's blocks are not known: "
                "call X.compute_chunk_sizes() first, or pass a Dask array of the same blocks"
            )
        sample_weight = da.from_array(_memory_weight(sample_weight, X.shape[0]), X.chunks[:1])
    elif known and not np.isnan(sample_weight.shape[0]):
        _check_weight(sample_weight, X.shape[0])
        sample_weight = sample_weight.rechunk(X.chunks[:1])
    elif sample_weight.numblocks != X.numblocks[:1]:
        raise DataError(
            f"sample_weight has {sample_weight.numblocks[0]} blocks and X has {X.numblocks[0]}, "
            "of unknown lengths: give both the same blocks"
        )
    return DaskSource(X, sample_weight)


def _check_array(name: str, X: Any, ndim: int) -> None:
    shape = tuple(X.shape)
    if len(shape) != ndim:
        wanted = "2-D, (rows, columns)" if ndim == 2 else "1-D, one number a row"
        raise DataError(f"{name} must be {wanted}, got {len(shape)}-D of shape {shape}")
    if shape[0] == 0 or shape[-1] == 0:
        raise DataError(f"{name} has shape {shape}: there is nothing to cluster")
    if np.dtype(X.dtype).kind not in "fiub":
        raise DataError(
            f"{name} has dtype {X.dtype}, which is not a real number; "
            f"convert it first, for example with {name}.astype('float64')"
        )


def _check_weight(weight: Any, n_rows: int) -> None:
    _check_array("sample_weight", weight, 1)
    if weight.shape[0] != n_rows:
        raise DataError(f"sample_weight has {weight.shape[0]} entries and X has {n_rows} rows")


def _memory_weight(weight: Any, n_rows: int) -> Array:
    array = np.asarray(weight, dtype=np.float64)
    _check_weight(array, n_rows)
    return array
