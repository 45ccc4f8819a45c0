"""Random keys of rows, of which only the small ones are drawn.

Who wants the rows of the smallest keys, a uniform sample, needs no number of the others: how many
keys lie below a bound is binomial, and which rows have them is a draw without replacement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.additive import Array
from ..core.tuning import tuning

# What else is drawn by a fit's seed has other streams: `core.passes.Drawn`.
STREAM = 3


class RowKeys:
    """Give the rows whose keys, uniform in [0, 1) and independent, are below a bound.

    A row's key depends on the seed, its chunk and its place there alone: not on how many rows the
    chunk has, on who asks, or on the bound. A chunk is cut into stretches, each with a generator of
    its own. The first, which short chunks have alone, draws a key for each row; the others draw the
    keys below 4^-m, then those from there to 4^-(m-1), and so on as far as they are wanted.

    Parameters
    ----------
    seed : int

    Examples
    --------
    >>> rows, keys = RowKeys(0).below(0.01, 7, 0, 100_000)
    >>> fewer, _ = RowKeys(0).below(0.001, 7, 0, 100_000)
    >>> bool((keys < 0.01).all()), 900 < len(rows) < 1100, set(fewer) < set(rows)
    (True, True, True)
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._found = _Stretch(-1, -1, 0.0, np.empty(0, np.int64), np.empty(0))

    def below(self, bound: float, chunk: int, start: int, stop: int) -> tuple[Array, Array]:
        """Return rows from `start` to `stop` of a chunk, in order, and their keys below a bound."""
        rows, keys = [], []
        while start < stop:
            number, first, end = stretch_of(start)
            own = self._stretch(bound, chunk, number, end - first)
            end = min(end, stop)
            a, b = np.searchsorted(own.rows, [start - first, end - first])
            small = np.flatnonzero(own.keys[a:b] < bound) + a
            rows.append(own.rows[small] + first)
            keys.append(own.keys[small])
            start = end
        if len(rows) == 1:
            return rows[0], keys[0]
        return np.concatenate([np.empty(0, np.int64), *rows]), np.concatenate([np.empty(0), *keys])

    def _stretch(self, bound: float, chunk: int, number: int, n: int) -> _Stretch:
        """Return the keys of a stretch up to a bound: the last one may come in several parts."""
        found = self._found
        if (found.chunk, found.number) != (chunk, number) or found.bound < bound:
            self._found = found = _Stretch.drawn(self._seed, chunk, number, n, bound)
        return found


def stretch_of(row: int) -> tuple[int, int, int]:
    """Return the number of the stretch in which a row of a chunk lies, its first row, and its end.

    Each ends at eight times as many rows as the one before, up to a limit, so that short chunks
    draw few keys of rows that they lack.

    Examples
    --------
    >>> stretch_of(4095), stretch_of(4096), stretch_of(1_000_000)
    ((0, 0, 4096), (1, 4096, 32768), (5, 786432, 1048576))
    """
    constants = tuning().reading
    end, longest = constants.shortest_stretch, constants.longest_stretch
    first = number = 0
    while row >= end:
        if end >= longest:
            past = row // longest
            return number + past, past * longest, (past + 1) * longest
        first, end, number = end, min(8 * end, longest), number + 1
    return number, first, end


@dataclass(frozen=True)
class _Stretch:
    """Hold the rows of a stretch, in order, whose keys are below a bound, and the keys."""

    chunk: int
    number: int
    bound: float
    rows: Array
    keys: Array

    @classmethod
    def drawn(cls, seed: int, chunk: int, number: int, n: int, bound: float) -> _Stretch:
        """Draw the keys of n rows below a bound, and some beyond it."""
        if number == 0:
            # Short chunks have no more: to draw them all takes no longer.
            sequence = np.random.SeedSequence(seed, spawn_key=(chunk,))
            return cls(chunk, number, 1.0, np.arange(n), np.random.default_rng(sequence).random(n))
        sequence = np.random.SeedSequence(seed, spawn_key=(chunk, STREAM, number))
        rng = np.random.default_rng(sequence)
        rows, keys, low = np.empty(0, np.int64), np.empty(0), 0.0
        # The fewest that are drawn at all, as numbers of rows go.
        steps = max(0, (n // tuning().reading.fewest_keys).bit_length() - 1) // 2
        for step in range(steps, 0, -1):
            high, left = 4.0**-step, n - len(rows)
            n_more = int(rng.binomial(left, (high - low) / (1.0 - low)))
            more = rng.choice(left, n_more, replace=False, shuffle=False)
            more_keys = low + (high - low) * rng.random(n_more)
            if len(rows):
                more = np.concatenate([rows, _without(rows, more, n)])
                more_keys = np.concatenate([keys, more_keys])
            rows, keys, low = *_in_order(more, more_keys, n), high
            if high >= bound:
                return cls(chunk, number, high, rows, keys)
        others, every = np.ones(n, dtype=bool), np.empty(n)
        others[rows], every[rows] = False, keys
        every[others] = low + (1.0 - low) * rng.random(n - len(rows))
        return cls(chunk, number, 1.0, np.arange(n), every)


def _without(rows: Array, ranks: Array, n: int) -> Array:
    """Return those of n rows that have these ranks among all but `rows`, which are in order."""
    if _few(ranks, n):
        return ranks + np.searchsorted(rows - np.arange(len(rows)), ranks, side="right")
    others = np.ones(n, dtype=bool)
    others[rows] = False
    return np.flatnonzero(others)[ranks]


def _in_order(rows: Array, keys: Array, n: int) -> tuple[Array, Array]:
    """Sort some of n rows, with their keys."""
    if _few(rows, n):
        order = np.argsort(rows)
        return rows[order], keys[order]
    chosen, every = np.zeros(n, dtype=bool), np.empty(n)
    chosen[rows], every[rows] = True, keys
    rows = np.flatnonzero(chosen)
    return rows, every[rows]


def _few(rows: Array, n: int) -> bool:
    """Tell whether to sort them takes less than to look at all n rows."""
    return 32 * len(rows) < n
