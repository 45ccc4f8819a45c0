"""One range of a pass: its chunks are read ahead and fed to a fold."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import closing
from queue import SimpleQueue

import numpy as np

from .additive import Array, S
from .beside import NOTHING, Beside, RowField, joined
from .executor import ThreadPool
from .finite import finite_mask, finite_rows, located
from .protocols import Block, Fold, Reader, Source

Arriving = SimpleQueue[Block | BaseException | None]
"""The parts of one chunk, then None, or the error that ended its reading."""


def fold_range(
    source: Source,
    fold: Fold[S],
    chunks: range,
    weights: Array | None,
    beside: Beside = NOTHING,
) -> S:
    """Feed a range's chunks to a fold, and return its result.

    The next chunks are read while one is summed; one chunk is held beside those being read,
    never more.

    Parameters
    ----------
    source : Source
    fold : Fold
    chunks : range
        Numbers of the chunks.
    weights : (n,) array or None
        The range's `shipped_weights`.
    beside : Beside
        The range's `shipped_beside`.

    Raises
    ------
    DataError
        A chunk is missing, damaged, or not what a first pass read.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em.data.memory import ArraySource
    >>> from dask_em.fitting.survey import Survey
    >>> fold = Survey(seed=0, sample_size=2, n_features=2, n_rows=3).fold()
    >>> fold_range(ArraySource(np.eye(3, 2)), fold, range(1), None).n_rows
    3
    """
    try:
        return _folded(source, fold, chunks, weights, beside)
    except BaseException:
        fold.abandon()
        raise


def _folded(
    source: Source, fold: Fold[S], chunks: range, weights: Array | None, beside: Beside
) -> S:
    reader, row = source.reader(), 0
    reader.expect(chunks)
    known = aligned(source, beside.labels if fold.takes_labels else None, chunks)
    noise = aligned(source, beside.noise, chunks)
    if known is not None:
        fold.begin_labelled(known.width)
    with closing(_read_ahead(source, reader, chunks, fold.block_rows)) as parts:
        for chunk, X, weight in parts:
            if weights is not None:
                weight = weights[row : row + len(X)]
            n = len(X)
            row += n
            labels = None if known is None else known.next(chunk, n)
            X = X if noise is None else joined(X, noise.next(chunk, n))
            if chunk in source.dropping:
                if labels is not None:
                    labels = labels[finite_mask(X, source.missing)]
                X, weight, _ = finite_rows(X, weight, source.missing)
            # What is not finite here is of a damaged chunk, as the end of its reading tells.
            with (
                np.errstate(over="ignore", invalid="ignore"),
                located(source.locate, chunk, source.columns),
            ):
                if labels is None:
                    fold.update(chunk, X, weight)
                else:
                    fold.update_labelled(chunk, X, weight, labels)
            del X, weight, labels
    fold.take_fingerprints(reader.fingerprints)
    reader.close()
    return fold.result()


class Aligned:
    """Give what stands beside the parts of chunks, each chunk's read at once.

    Parameters
    ----------
    source : Source
    field : RowField
    chunks : range
        Those of a range, which come in order.
    """

    def __init__(self, source: Source, field: RowField, chunks: range) -> None:
        self._source, self._reader, self.width = source, field.open(), field.width
        self._start = source.rows_of(range(chunks.start))
        self._chunk, self._done = -1, 0
        self._values = np.empty((0, self.width))

    def next(self, chunk: int, n: int) -> Array:
        """Return that of the next n rows of a chunk."""
        if chunk != self._chunk:
            stop = self._start + self._source.rows_of(range(chunk, chunk + 1))
            # Of a chunk that is skipped there are no rows.
            if n:
                self._values = self._reader.read(chunk, self._start, stop)
            self._chunk, self._start, self._done = chunk, stop, 0
        self._done += n
        return self._values[self._done - n : self._done]


def aligned(source: Source, field: RowField | None, chunks: range) -> Aligned | None:
    """Return what reads a field beside the rows of chunks; None where there is none."""
    return None if field is None else Aligned(source, field, chunks)


def rows_with_noise(source: Source, beside: Beside, chunk: int, X: Array) -> Array:
    """Return the rows X (n, d) of a chunk with their noise behind, where there is some.

    Parameters
    ----------
    source : Source
    beside : Beside
        What stands beside this chunk.
    chunk : int
    X : (n, d) array
    """
    noise = aligned(source, beside.noise, range(chunk, chunk + 1))
    return X if noise is None else joined(X, noise.next(chunk, len(X)))


def _read_ahead(
    source: Source, reader: Reader, chunks: range, block_rows: int
) -> Generator[tuple[int, Array, Array | None], None, None]:
    """Yield the parts of chunks in order, while later chunks are read by other threads."""

    def rows_of_parts(chunk: int) -> int:
        # Rows that are left out may leave no whole blocks.
        return 0 if chunk in source.dropping else block_rows

    if source.in_process:
        # There is nothing to wait for.
        for chunk in chunks:
            for part in reader.blocks(chunk, rows_of_parts(chunk)):
                yield chunk, *part
        return
    depth = source.read_ahead
    with ThreadPool(depth, thread_name_prefix="read-ahead") as ahead:

        def begin(chunk: int) -> Arriving:
            parts: Arriving = SimpleQueue()
            rows = rows_of_parts(chunk)
            ahead.submit(_bring, reader, chunk, rows, parts)
            return parts

        pending = deque(begin(chunk) for chunk in chunks[:depth])
        for chunk in chunks:
            parts = pending.popleft()
            if chunk + depth in chunks:
                pending.append(begin(chunk + depth))
            while (arrived := parts.get()) is not None:
                if isinstance(arrived, BaseException):
                    raise arrived
                yield chunk, *arrived
                del arrived


def _bring(reader: Reader, chunk: int, block_rows: int, parts: Arriving) -> None:
    """Put the parts of a chunk into a queue, then None; or the error that came."""
    try:
        for part in reader.blocks(chunk, block_rows):
            parts.put(part)
        parts.put(None)
    except BaseException as e:
        parts.put(e)
