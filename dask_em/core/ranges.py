"""Where rows come from: what is a chunk, how is it read, and who may read it.

A source cuts its rows into numbered chunks, and the chunks into ranges, by the
data alone. Whoever sums over ranges in that order gets the same bits anywhere.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

import numpy as np

from .additive import Array, S
from .chunk_log import TakesPrints
from .finite import finite_rows
from .protocols import Fold, RangeSource

logger = logging.getLogger("dask_em")

# Small chunks are read together up to this size; one larger is read whole.
READ_BYTES = 8 * 2**20

# Chunks of a range, where there are enough for the fewest ranges: the first of them, unless
# it is summed while it arrives, is read while nothing is computed.
RANGE_CHUNKS = 8

FEWEST_RANGES, MOST_RANGES = 16, 1024


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
        if block_rows and hasattr(read, "close"):
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
    if hasattr(read, "close"):
        read.close()
    return fold.result()


def even_bounds(n_rows: int, rows: int) -> Array:
    """Chunk borders every `rows` rows."""
    return np.append(np.arange(0, n_rows, rows), n_rows)
