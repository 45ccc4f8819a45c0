"""The additive monoid: whatever a pass over the data sums up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Generic

import numpy as np

from .additive import Additive, S

# A node of the reduction adds as many sums as these bytes hold, within two limits.
NODE_BYTES = 64 * 2**20

LEAST_FAN_IN, FAN_IN = 2, 8


def fan_in(nbytes: int) -> int:
    """How many sums of `nbytes` each one node of the reduction adds.

    It depends on the sums' size alone, which the data and the options fix, so
    every backend builds the same tree.
    """
    return min(max(NODE_BYTES // max(nbytes, 1), LEAST_FAN_IN), FAN_IN)


def tree_levels(n: int, fan_in: int = FAN_IN) -> list[list[range]]:
    """Which neighbours are added at each level of the reduction of `n` sums.

    The tree depends on `n` and `fan_in` alone, never on who finishes first, so
    the bits of the total do not depend on the number of workers.

    Returns
    -------
    list of list of range
        One list a level; each range names the nodes of the level below that
        one node adds, from left to right.
    """
    levels = []
    while n > 1:
        levels.append([range(i, min(i + fan_in, n)) for i in range(0, n, fan_in)])
        n = len(levels[-1])
    return levels


Node = tuple[int, int]
"""A node of the reduction: levels above the leaves, and its number from the left."""


# Sums that are kept of an unfinished pass take at most these bytes, or are so few.
KEPT_BYTES, KEPT_FEW = 64 * 2**20, 4


def kept_depth(n: int, fan_in: int, nbytes: int) -> int:
    """The level of the reduction of `n` sums of `nbytes` whose nodes are kept one by one.

    The leaves, or the lowest level above them whose sums fit into `KEPT_BYTES`.
    """
    counts = [n, *(len(level) for level in tree_levels(n, fan_in))]
    few = (d for d, c in enumerate(counts) if c <= KEPT_FEW or c * nbytes <= KEPT_BYTES)
    return next(few)


def kept_bytes(n: int, nbytes: int) -> int:
    """Bytes of what is kept of the reduction of `n` sums of `nbytes` before it is fetched."""
    counts = [n, *(len(level) for level in tree_levels(n, fan_in(nbytes)))]
    kept = counts[kept_depth(n, fan_in(nbytes), nbytes)]
    return kept * nbytes if kept > 1 else 0


class PartialTree(Generic[S]):
    """Sums of some whole nodes of the reduction of `n` sums, each node as high as it can be.

    Neighbours that make a node whole are added at once, in the order in which every
    backend adds them, so what is put together has the bits of the reduction itself.

    Attributes
    ----------
    sums : dict of Node to sums
        No node in it lies below another.
    root : Node
    """

    def __init__(self, n: int, fan_in: int) -> None:
        self._levels, self._fan_in = tree_levels(n, fan_in), fan_in
        self.root: Node = (len(self._levels), 0)
        self.sums: dict[Node, S] = {}

    def put(self, node: Node, sums: S) -> None:
        """Take the sums of a whole node."""
        if any(self._within(node, known) for known in self.sums):
            return
        self.sums = {n: s for n, s in self.sums.items() if not self._within(n, node)}
        self.sums[node] = sums
        depth, j = node
        if node == self.root:
            return
        parent = (depth + 1, j // self._fan_in)
        children = self._children(parent)
        if all(child in self.sums for child in children):
            self.put(parent, add_all([self.sums[child] for child in children]))

    def missing(self, node: Node | None = None) -> list[Node]:
        """The highest nodes, from left to right, of which nothing is known."""
        node = self.root if node is None else node
        if node in self.sums:
            return []
        if not any(self._within(known, node) for known in self.sums):
            return [node]
        return [m for child in self._children(node) for m in self.missing(child)]

    def _children(self, node: Node) -> list[Node]:
        depth, j = node
        return [(depth - 1, i) for i in self._levels[depth - 1][j]]

    def _within(self, node: Node, other: Node) -> bool:
        """Whether `node` is `other` or lies below it."""
        up = other[0] - node[0]
        return up >= 0 and node[1] // self._fan_in**up == other[1]


class Adder(Generic[S]):
    """Adds parts from left to right, in one record that nobody else holds.

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
        """Sum of the parts so far, at least one; the adder is empty again."""
        assert self.n_parts, "the sum of no parts is not known"
        total: S = self._total
        self.n_parts, self._total = 0, None
        return total


def _add_into(total: Any, part: Any) -> Any:
    """`total` + `part`, in the arrays of `total` where they were made by an addition."""
    if isinstance(total, Additive) and type(total).__add__ is Additive.__add__:
        names = [f.name for f in fields(total)]
        return type(total)(**{n: _add_into(getattr(total, n), getattr(part, n)) for n in names})
    if _like(total, part):
        return np.add(total, part, out=total)
    # What adds in its own way may have handed on an array of one of its parts.
    return total + part


def _like(a: Any, b: Any) -> bool:
    both = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
    return both and a.shape == b.shape and a.dtype == b.dtype


def add_all(parts: Iterable[S]) -> S:
    """Sum of `parts`, of which there is at least one, from left to right."""
    adder: Adder[S] = Adder()
    for part in parts:
        adder.add(part)
    return adder.take()


def add_tree(parts: Iterable[S], fan_in: int = FAN_IN) -> S:
    """Sum of `parts`, of which there is at least one, by the tree of `tree_levels`.

    The parts are taken one by one, and beside the part in hand there is at most
    one unfinished sum for each level of the tree.
    """
    levels: list[Adder[S]] = [Adder()]
    for part in parts:
        _climb(levels, part, fan_in)
        # The next part is made while this loop waits.
        del part
    for depth, adder in enumerate(levels):
        if adder.n_parts and depth + 1 < len(levels):
            _climb(levels, adder.take(), fan_in, depth + 1)
    return levels[-1].take()


def _climb(levels: list[Adder[S]], part: S, fan_in: int, depth: int = 0) -> None:
    """Give `part` to the node that is open at `depth`, and what that completes to the next."""
    levels[depth].add(part)
    if levels[depth].n_parts == fan_in:
        if depth + 1 == len(levels):
            levels.append(Adder())
        _climb(levels, levels[depth].take(), fan_in, depth + 1)
