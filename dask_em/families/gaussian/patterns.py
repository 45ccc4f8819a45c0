"""Patterns of missing values: rows in an order in which those alike lie together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...core.additive import Array


@dataclass(frozen=True)
class Patterns:
    """Hold the rows of a block by their patterns of missing values.

    Attributes
    ----------
    order : (n,) array of int
        Numbers of the rows, those of one pattern one after the other.
    missing : (n, d) array of bool
        Which values are missing, in this order.
    starts : (p + 1,) array of int
        Where each of the p patterns begins in this order, and n.

    Examples
    --------
    >>> found = Patterns.of(np.array([[True, False], [False, False], [True, False]]))
    >>> found.order.tolist(), found.starts.tolist()
    ([1, 0, 2], [0, 1, 3])
    """

    order: Array
    missing: Array
    starts: Array

    @classmethod
    def of(cls, missing: Array) -> Patterns:
        """Return the patterns of rows (n, d) of bool, and the rows that have each."""
        keys = pattern_keys(missing)
        # Of few columns the keys are so short that they are counted, not compared.
        order = np.argsort(keys, kind="stable")
        missing = missing[order]
        keys = keys[order]
        changes = np.flatnonzero(keys[1:] != keys[:-1]) + 1
        starts = np.concatenate([[0], changes, [len(keys)]])
        return cls(order, missing, starts)

    def groups(self, least: int) -> Iterator[slice]:
        """Yield where the rows of each pattern lie that has at least so many."""
        for a, b in zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            if b - a >= least:
                yield slice(a, b)

    def others(self, least: int) -> Iterator[tuple[Array, Array]]:
        """Yield rows of rarer patterns: those with as many missing values at a time.

        Yields
        ------
        (m,) array of int
            Where the rows are in the order.
        (m, c) array of int
            The columns in which their values are missing.
        """
        sizes = np.diff(self.starts)
        rare = np.flatnonzero(np.repeat(sizes < least, sizes))
        if not len(rare):
            return
        counts = self.missing[rare].sum(axis=1)
        for count in np.unique(counts).tolist():
            rows = rare[counts == count]
            columns = np.nonzero(self.missing[rows])[1].reshape(len(rows), count)
            yield rows, columns


def pattern_keys(missing: Array) -> Array:
    """Return a key of each row (n, d) of bool, equal where the rows are, (n,).

    Examples
    --------
    >>> pattern_keys(np.array([[False, True], [True, False], [False, True]])).tolist()
    [2, 1, 2]
    """
    packed = np.packbits(missing, axis=1, bitorder="little")
    width = packed.shape[1]
    size = next((s for s in (1, 2, 4, 8) if s >= width), width)
    padded = np.zeros((len(packed), size), np.uint8)
    padded[:, :width] = packed
    if size > 8:
        return padded.view(np.dtype((np.void, size))).ravel()
    return padded.view(f"<u{size}").ravel()
