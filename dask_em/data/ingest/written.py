"""Rows written while they are read: each chunk goes to its store, and is read from there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...core.additive import Array
from ...core.chunk_log import ChunkLog
from ...core.protocols import Block, Reader, RowValues, Source
from ...errors import naming
from ...storage.urls import describe_store
from ..zarr.source import ZarrSource
from .rows import Part, Rows, changed

if TYPE_CHECKING:
    import zarr

# The matrix among the arrays of a store.
MATRIX = "X"


@dataclass
class Streams:
    """Streams of rows, of which the last is left where a range ends for the next to go on with.

    Attributes
    ----------
    rows : Rows
    names : mapping of str to str
        The array of each column that is not of the matrix.
    """

    rows: Rows
    names: Mapping[str, str]
    _left: dict[int, Iterator[Part]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, start: int) -> Iterator[Part]:
        """Return the rows from number `start` on."""
        with self._lock:
            left = self._left.pop(start, None)
        return self.rows.read(start) if left is None else left

    def leave(self, start: int, stream: Iterator[Part]) -> None:
        """Leave a stream whose next row is number `start`; of the last one alone."""
        with self._lock:
            self._left = {start: stream}


@dataclass(frozen=True)
class WrittenSource(Source):
    """The rows of a Zarr array whose chunks are written as they are read the first time.

    Attributes
    ----------
    target : ZarrSource
        The matrix.
    streams : Streams
        Where rows come from.
    outputs : mapping of str to zarr.Array
        The matrix and the arrays beside it.
    whole : frozenset of int
        Chunks that an earlier call wrote.
    """

    target: ZarrSource
    streams: Streams
    outputs: Mapping[str, zarr.Array[Any]]
    whole: frozenset[int] = frozenset()

    in_process = False

    @property
    def n_rows(self) -> int:
        return self.target.n_rows

    @property
    def n_features(self) -> int:
        return self.target.n_features

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.target.dtype

    @property
    def n_chunks(self) -> int:
        return self.target.n_chunks

    @property
    def description(self) -> str:
        return self.target.description

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk."""
        return self.target.chunk_rows

    def rows_of(self, chunks: range) -> int:
        """Return the number of rows in these chunks."""
        return self.target.rows_of(chunks)

    def reader(self) -> Reader:
        """Open the source for one range, which is written by it alone."""
        return WritingReader(self)

    def map_rows(
        self, function: Callable[[Array], Array], width: int | None, dtype: np.dtype[Any]
    ) -> RowValues:
        """Compute a function of the rows that are written."""
        return self.target.map_rows(function, width, dtype)

    def held_to(self, log: ChunkLog, forced: bool = False) -> Self:
        """Return the same rows: what was written a moment ago is not looked at again."""
        return self

    def identity(self) -> dict[str, object]:
        """Return what tells the written rows from others."""
        return self.target.identity()

    def locate(self, chunk: int, row: int) -> str:
        """Say which row of the data a chunk's row is."""
        return self.target.locate(chunk, row)


class WritingReader(Reader):
    """Write chunks, unless they are whole, and read them from where they were written."""

    def __init__(self, source: WrittenSource) -> None:
        self._source = source
        self._reader = source.target.reader()
        self.fingerprints = self._reader.fingerprints
        self._stream: Iterator[Part] | None = None
        self._row = -1
        self._rest: Part | None = None

    def blocks(self, chunk: int, block_rows: int = 0) -> Iterator[Block]:
        """Yield the rows of a chunk that is written by then."""
        if chunk not in self._source.whole:
            self._write(chunk)
        yield from self._reader.blocks(chunk, block_rows)

    def close(self) -> None:
        """Give up the buffers, and leave the rows that follow to the next range."""
        self._reader.close()
        if self._stream is not None:
            rest = self._stream if self._rest is None else _before(self._rest, self._stream)
            self._source.streams.leave(self._row, rest)

    def _write(self, chunk: int) -> None:
        bounds = self._source.target.bounds
        start, stop = int(bounds[chunk]), int(bounds[chunk + 1])
        outputs, names = self._source.outputs, self._source.streams.names
        values = {
            name: np.empty((stop - start, *array.shape[1:]), dtype=array.dtype)
            for name, array in outputs.items()
        }
        if self._stream is None or self._row != start:
            self._stream, self._rest = self._source.streams.take(start), None
        done = 0
        while done < stop - start:
            X, asides = self._next()
            n = min(len(X), stop - start - done)
            values[MATRIX][done : done + n] = X[:n]
            for name, found in asides.items():
                values[names[name]][done : done + n] = found[:n]
            done += n
            if n < len(X):
                self._rest = X[n:], {name: found[n:] for name, found in asides.items()}
        self._row = stop
        for name, array in outputs.items():
            with naming(describe_store(str(array.store_path))):
                array[start:stop] = values[name]

    def _next(self) -> Part:
        if self._rest is not None:
            rest, self._rest = self._rest, None
            return rest
        assert self._stream is not None
        found = next(self._stream, None)
        if found is None:
            raise changed("an input")
        return found


def _before(first: Part, stream: Iterator[Part]) -> Iterator[Part]:
    yield first
    yield from stream
