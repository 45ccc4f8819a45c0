"""Where rows come from: what is a chunk, how is it read, and who may read it.

A source cuts its rows into numbered chunks, and the chunks into ranges, by the
data alone. Whoever sums over ranges in that order gets the same bits anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from .errors import DataError
from .rawchunks import RawChunks, aligned_empty
from .statistics import Array, Fold, S

if TYPE_CHECKING:
    import dask.array as da
    import zarr

# Small chunks are read together up to this size; one larger is read whole.
READ_BYTES = 8 * 2**20
# Chunks of a range, where there are enough for the fewest ranges: the first of them is
# read while nothing is computed.
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

        What it returns stays as it is until the function was called twice more: it
        may read into two buffers in turn.
        """

    def shipped_weights(self, chunks: range) -> Array | None:
        """Weights of these chunks that the reader cannot read and must be given."""


def ranges(source: RangeSource) -> list[range]:
    """Groups of whole neighbouring chunks, tens to a thousand, by the data alone.

    Few enough that the scheduler's cost per pass does not grow with the number of
    chunks; enough that a slow worker does not hold up the rest.
    """
    wanted = max(source.n_chunks // RANGE_CHUNKS, FEWEST_RANGES)
    wanted = min(wanted, MOST_RANGES, source.n_chunks)
    edges = np.linspace(0, source.n_chunks, wanted + 1).round().astype(int)
    return [range(a, b) for a, b in pairwise(edges.tolist())]


def fold_range(source: RangeSource, fold: Fold[S], chunks: range, weights: Array | None) -> S:
    """Feed a range's chunks to `fold`, reading the next one while this one is summed.

    One chunk is held beside the one being read, never more. `weights` are the
    range's `shipped_weights`.
    """
    origin = source.bounds[chunks.start]
    read = source.reader()
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as ahead:
        pending = ahead.submit(read, chunks.start)
        for chunk in chunks:
            X, weight = pending.result()
            if chunk + 1 in chunks:
                pending = ahead.submit(read, chunk + 1)
            if weights is not None:
                weight = weights[source.bounds[chunk] - origin : source.bounds[chunk + 1] - origin]
            fold.update(chunk, X, weight)
            del X, weight
    return fold.result()


def even_bounds(n_rows: int, rows: int) -> Array:
    """Chunk borders every `rows` rows."""
    return np.append(np.arange(0, n_rows, rows), n_rows)


@dataclass(frozen=True)
class ArraySource:
    """A NumPy array in this process."""

    X: Array
    sample_weight: Array | None = None

    in_process = True

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
    """

    array: zarr.Array[Any]
    stored_weight: zarr.Array[Any] | None = None
    memory_weight: Array | None = None
    read_bytes: int = field(default_factory=lambda: READ_BYTES)

    def __reduce__(self) -> tuple[Any, ...]:
        # Whoever receives the source must cut it in the same places.
        return (type(self), (self.array, self.stored_weight, None, self.read_bytes))

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
        raw = RawChunks.of(self.array)
        rows_of = self._read_rows if raw is None else RawReader(raw, self.chunk_rows, self.array)

        def read(chunk: int) -> tuple[Array, Array | None]:
            rows = slice(int(self.bounds[chunk]), int(self.bounds[chunk + 1]))
            X = rows_of(rows)
            if self.stored_weight is not None:
                return X, np.asarray(self.stored_weight[rows], dtype=np.float64)
            return X, None if self.memory_weight is None else self.memory_weight[rows]

        return read

    @property
    def chunks_held(self) -> int:
        """Chunks that a task holds: the one in hand, and the one being read with its decoding."""
        if RawChunks.of(self.array) is not None:
            return 2
        return 4 if self.array.compressors else 3

    def _read_rows(self, rows: slice) -> Array:
        return np.asarray(self.array[rows])

    def shipped_weights(self, chunks: range) -> Array | None:
        if self.memory_weight is None:
            return None
        return self.memory_weight[self.bounds[chunks.start] : self.bounds[chunks.stop]]


class RawReader:
    """Reads rows of raw chunk files into two buffers in turn."""

    def __init__(self, raw: RawChunks, chunk_rows: int, array: zarr.Array[Any]) -> None:
        stored_rows, columns = raw.chunk_shape
        self.raw = raw
        self.n_features = int(array.shape[1])
        shape = (min(chunk_rows, -(-array.shape[0] // stored_rows) * stored_rows), columns)
        self._buffers = [aligned_empty(shape, raw.dtype) for _ in range(2)]
        self._turn = 0

    def __call__(self, rows: slice) -> Array:
        stored_rows = self.raw.chunk_shape[0]
        n = rows.stop - rows.start
        whole = -(-n // stored_rows) * stored_rows
        self._turn = 1 - self._turn
        buffer: Array = self._buffers[self._turn]
        self.raw.read_into(buffer[:whole], rows.start // stored_rows)
        return buffer[:n, : self.n_features]


@dataclass(frozen=True)
class DaskSource:
    """A Dask array with a graph of its own: its blocks of rows are the chunks."""

    X: da.Array
    sample_weight: da.Array | None = None

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


def describe_url(url: str) -> str:
    """A path or URL without user, password and query, where credentials hide."""
    if url.startswith("file://"):
        return str(Path(url.removeprefix("file://")).absolute())
    if "://" not in url:
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def open_zarr(path: str | os.PathLike[str]) -> zarr.Array[Any]:
    """The Zarr array at a path or URL, members of groups included (`store.zarr/points`).

    Raises
    ------
    DataError
        No such path, not a Zarr array, or a group, whose arrays are then named.
    """
    import zarr
    from zarr.errors import GroupNotFoundError

    url = os.fspath(path)
    name = describe_url(url)
    if "://" not in url and not os.path.exists(url):
        raise DataError(f"{name}: no such path")
    try:
        found = zarr.open(url, mode="r")
    except (FileNotFoundError, GroupNotFoundError, ValueError, NotADirectoryError, KeyError) as e:
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


def as_source(X: Any, sample_weight: Any = None) -> ArraySource | ZarrSource | DaskSource:
    """A source for whatever holds rows.

    Parameters
    ----------
    X : NumPy array, Dask array, zarr.Array, or path or URL of a Zarr array
        (n, d), numeric.
    sample_weight : the same, (n,), optional

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
            return _zarr_source(X, sample_weight)
        import dask.array as da

        X = da.from_zarr(X, chunks=(ZarrSource(X).chunk_rows, X.shape[1]))
    if _is_dask(X):
        return _dask_source(X, sample_weight)
    X = np.asarray(X)
    _check_array("X", X, 2)
    if sample_weight is not None:
        sample_weight = _memory_weight(sample_weight, len(X))
    return ArraySource(X, sample_weight)


def stored_source(path: str | os.PathLike[str], weights: str | None = None) -> ZarrSource:
    """The source of the Zarr array at a path or URL, with weights from another one."""
    array = open_zarr(path)
    _check_array("X", array, 2)
    return _zarr_source(array, None if weights is None else open_zarr(weights))


def _zarr_source(X: zarr.Array[Any], sample_weight: Any) -> ZarrSource:
    import zarr

    source = ZarrSource(X)
    if sample_weight is None:
        return source
    if isinstance(sample_weight, zarr.Array):
        _check_weight(sample_weight, source.n_rows)
        return replace(source, stored_weight=sample_weight)
    return replace(source, memory_weight=_memory_weight(sample_weight, source.n_rows))


def _dask_source(X: da.Array, sample_weight: Any) -> DaskSource:
    import dask.array as da
    import zarr

    X = X.rechunk({1: -1}) if len(X.chunks[1]) > 1 else X
    if sample_weight is None:
        return DaskSource(X)
    if isinstance(sample_weight, zarr.Array):
        sample_weight = da.from_zarr(sample_weight)
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
