"""Kernel of categorical components on the compiled loops of `loops`: the extra `fast`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...core.additive import Array
from ...core.family import Kernel
from ...core.tuning import tuning
from . import loops
from .binary import binarized
from .statistics import CategoricalStatistics


class LookupKernel(Kernel[CategoricalStatistics]):
    """Look up the log-probability of the answers to several questions at once.

    The columns are cut into groups of neighbours with few combinations of answers: a row is one
    lookup a group. Its responsibilities are counted by combination, and these counts are summed
    to those of each answer at the end.

    Parameters
    ----------
    log_probabilities : (k, m) array
        The categories of all columns side by side.
    n_categories : sequence of int
        Of each column; they sum to m.
    missing : bool
        Whether answers may be missing.
    threshold : float or None
        Where there is one, the answers are which numbers are above it.

    Examples
    --------
    >>> kernel = LookupKernel(np.log([[0.5, 0.5, 0.2, 0.8]]), (2, 2), missing=True)
    >>> kernel.load(np.array([[0.0, 1.0], [1.0, np.nan]]))
    >>> np.exp(kernel.log_prob()).round(3).tolist()
    [[0.4, 0.5]]
    """

    def __init__(
        self,
        log_probabilities: Array,
        n_categories: Sequence[int],
        missing: bool,
        threshold: float | None = None,
    ) -> None:
        k, d = len(log_probabilities), len(n_categories)
        self._n_components, self._threshold = k, threshold
        self._known = np.array(n_categories, dtype=np.int32)
        self._levels = self._known + np.int32(missing)
        constants = tuning().categorical
        self._groups = grouped(self._levels.tolist(), constants.most_combinations)
        sizes = [int(np.prod(self._levels[group])) for group in self._groups]
        self._firsts = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
        self._group_of, self._strides = np.empty((2, d), dtype=np.int32)
        for i, group in enumerate(self._groups):
            self._group_of[group] = i
            self._strides[group] = np.cumprod([1, *self._levels[group][:0:-1]])[::-1]
        self._tables = self._tables_of(log_probabilities, sum(sizes))
        self._sums = np.zeros_like(self._tables)
        padded = loops.WIDTH * len(self._tables)
        row_bytes = 8 * padded + 4 * len(sizes) + 8 * d
        rows = constants.block_bytes // row_bytes
        self.block_rows = min(max(rows, constants.least_rows), constants.most_rows)
        self._room = np.empty(self.block_rows * len(sizes), dtype=np.int32)
        self._slots = self._room[:0].reshape(len(sizes), 0)
        # The rows as bytes, or in doubles.
        self._X = np.empty(self.block_rows * d)
        self._out = np.empty(padded * self.block_rows)
        self._buffer = self._out[:0].reshape(padded, 0)

    def _tables_of(self, log_probabilities: Array, n_slots: int) -> Array:
        """Return the log-probabilities of all combinations, (parts, s, WIDTH)."""
        k = len(log_probabilities)
        parts = -(-k // loops.WIDTH)
        lines = np.zeros((n_slots, parts * loops.WIDTH))
        for first, group in zip(self._firsts, self._groups, strict=True):
            levels = self._levels[group]
            size = int(np.prod(levels))
            table = np.zeros((*levels, k))
            for axis, j in enumerate(range(group.start, group.stop)):
                shape = [1] * len(levels)
                shape[axis] = levels[axis]
                column = np.zeros((levels[axis], k))
                column[: self._known[j]] = log_probabilities[:, self._place(j)].T
                table += column.reshape(*shape, k)
            lines[first : first + size, :k] = table.reshape(size, k)
        cut = lines.reshape(n_slots, parts, loops.WIDTH)
        return np.ascontiguousarray(cut.transpose(1, 0, 2))

    def _place(self, j: int) -> slice:
        first = int(self._known[:j].sum())
        return slice(first, first + int(self._known[j]))

    def load(self, X: Array) -> None:
        """Take the rows X (b, d) as the current block."""
        b = len(X)
        d = X.shape[1]
        X = binarized(X, self._threshold)
        # A code of one byte stays one, and one below zero is none of the codes.
        room: Array = self._X
        if X.dtype.itemsize == 1:
            room, X = room.view(np.uint8), X.view(np.uint8)
        rows = room[: b * d].reshape(b, d)
        rows[:] = X
        self._slots = self._room[: b * len(self._groups)].reshape(-1, b)
        loops.place(
            rows, self._known, self._levels, self._strides, self._group_of, self._firsts,
            self._slots,
        )  # fmt: skip
        padded = loops.WIDTH * len(self._tables)
        self._buffer = self._out[: padded * b].reshape(padded, b)

    def log_prob(self) -> Array:
        """Return log p(x | component) of the current block (k, b)."""
        loops.look_up(self._slots, self._tables, self._buffer)
        return self._buffer[: self._n_components]

    def accumulate(self, resp: Array) -> None:
        """Add the current block's counts under `resp` (k, b)."""
        # What `log_prob` gave is where it must be.
        if resp.base is not self._out:
            self._buffer[: len(resp)] = resp
            self._buffer[len(resp) :] = 0
        loops.count(self._slots, self._buffer, self._sums)

    def statistics(self) -> CategoricalStatistics:
        """Return the counts over all blocks so far."""
        k = self._n_components
        lines = self._sums.transpose(1, 0, 2).reshape(len(self._sums[0]), -1)[:, :k]
        counts = np.empty((k, int(self._known.sum())))
        for first, group in zip(self._firsts, self._groups, strict=True):
            levels = self._levels[group]
            table = lines[first : first + int(np.prod(levels))].reshape(*levels, k)
            for axis, j in enumerate(range(group.start, group.stop)):
                others = tuple(i for i in range(len(levels)) if i != axis)
                counts[:, self._place(j)] = table.sum(axis=others)[: self._known[j]].T
        return CategoricalStatistics(counts)


def grouped(levels: Sequence[int], most: int) -> list[slice]:
    """Cut columns of so many levels into groups of neighbours of at most `most` combinations.

    Examples
    --------
    >>> grouped([2, 2, 2, 9, 3], 8)
    [slice(0, 3, None), slice(3, 4, None), slice(4, 5, None)]
    """
    groups, first, size = [], 0, 1
    for j, n in enumerate(levels):
        if j > first and size * n > most:
            groups.append(slice(first, j))
            first, size = j, 1
        size *= n
    return [*groups, slice(first, len(levels))]
