"""Addition of many sums in a tree whose shape, and so the bits of the total, is fixed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Generic

import numpy as np

from .additive import Additive, S, are_records
from .tuning import tuning


def fan_in(nbytes: int) -> int:
    """Return how many sums of `nbytes` each one node of the tree adds.

    It depends on the sums' size alone, which the data and the options fix, so
    every backend builds the same tree.

    Examples
    --------
    >>> fan_in(1000), fan_in(10 * 2**20), fan_in(2**30)
    (8, 6, 2)
    """
    return min(
        max(tuning().reduction.node_bytes // max(nbytes, 1), tuning().reduction.least_fan_in),
        tuning().reduction.fan_in,
    )


def tree_levels(n: int, fan_in: int | None = None) -> list[list[range]]:
    """Return which neighbours are added at each level of the tree of `n` sums.

    The tree depends on `n` and `fan_in` alone, never on who finishes first, so
    the bits of the total do not depend on the number of workers.

    Returns
    -------
    list of list of range
        One list a level; each range names the nodes of the level below that
        one node adds, from left to right.

    Examples
    --------
    >>> tree_levels(5, fan_in=2)
    [[range(0, 2), range(2, 4), range(4, 5)], [range(0, 2), range(2, 3)], [range(0, 2)]]
    """
    width = fan_in or tuning().reduction.fan_in
    levels = []
    while n > 1:
        levels.append([range(i, min(i + width, n)) for i in range(0, n, width)])
        n = len(levels[-1])
    return levels


Node = tuple[int, int]
"""A node of the tree: levels above the leaves, and its number from the left."""


class Adder(Generic[S]):
    """Add parts from left to right, in one record that nobody else holds.

    The parts are never changed, because whoever made them may use them again: the
    first addition makes a new record, and the later ones are made in its arrays.
    """

    def __init__(self) -> None:
        self.n_parts = 0
        self._total: Any = None

    def add(self, part: S) -> None:
        """Add one more part."""
        if self.n_parts == 0:
            self._total = part
        elif self.n_parts == 1:
            self._total = self._total + part
        else:
            self._total = _add_into(self._total, part)
        self.n_parts += 1

    def take(self) -> S:
        """Return the sum of the parts so far, at least one, and be empty again."""
        assert self.n_parts, "the sum of no parts is not known"
        total: S = self._total
        self.n_parts, self._total = 0, None
        return total


def _add_into(total: Any, part: Any) -> Any:
    """`total` + `part`, in the arrays of `total` where they were made by an addition."""
    if isinstance(total, Additive) and type(total).__add__ is Additive.__add__:
        names = [f.name for f in fields(total)]
        return type(total)(**{n: _field_into(getattr(total, n), getattr(part, n)) for n in names})
    if _like(total, part):
        return np.add(total, part, out=total)
    # What adds in its own way may have handed on an array of one of its parts.
    return total + part


def _field_into(total: Any, part: Any) -> Any:
    """The same of one field of a record, which may hold several values."""
    if are_records(total):
        return tuple(_add_into(a, b) for a, b in zip(total, part, strict=True))
    return _add_into(total, part)


def _like(a: Any, b: Any) -> bool:
    both = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
    return both and a.shape == b.shape and a.dtype == b.dtype


def add_all(parts: Iterable[S]) -> S:
    """Return the sum of `parts`, of which there is at least one, from left to right.

    Examples
    --------
    >>> add_all([1.0, 2.0, 3.0])
    6.0
    """
    adder: Adder[S] = Adder()
    for part in parts:
        adder.add(part)
    return adder.take()


def add_tree(parts: Iterable[S], fan_in: int | None = None) -> S:
    """Return the sum of `parts`, of which there is at least one, by the tree of `tree_levels`.

    The parts are taken one by one, and beside the part in hand there is at most
    one unfinished sum for each level of the tree.

    Examples
    --------
    >>> add_tree(iter("abcde"), fan_in=2)
    'abcde'
    """
    width = fan_in or tuning().reduction.fan_in
    levels: list[Adder[S]] = [Adder()]
    for part in parts:
        _add_at(levels, part, width)
        # The next part is made while this loop waits.
        del part
    for depth, adder in enumerate(levels):
        if adder.n_parts and depth + 1 < len(levels):
            _add_at(levels, adder.take(), width, depth + 1)
    return levels[-1].take()


def _add_at(levels: list[Adder[S]], part: S, fan_in: int, depth: int = 0) -> None:
    """Add `part` to the node that is open at `depth`, and what that completes to the next."""
    levels[depth].add(part)
    if levels[depth].n_parts == fan_in:
        if depth + 1 == len(levels):
            levels.append(Adder())
        _add_at(levels, levels[depth].take(), fan_in, depth + 1)
