"""Sums of parts of an unfinished pass: collected, kept now and then, and recalled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic

from .additive import S
from .protocols import PartialSumsStore
from .reduction import Node, add_all, add_tree, fan_in, tree_levels
from .tuning import tuning


def partial_depth(n: int, fan_in: int, nbytes: int) -> int:
    """Return the level of the tree of `n` sums of `nbytes` whose nodes are kept one by one.

    The leaves, or the lowest level above them whose sums fit into `PARTIAL_BYTES`.

    Examples
    --------
    >>> partial_depth(100, 8, 1000), partial_depth(100, 8, 2**20)
    (0, 1)
    """
    counts = [n, *(len(level) for level in tree_levels(n, fan_in))]
    few = (
        d
        for d, c in enumerate(counts)
        if c <= tuning().reduction.partial_few or c * nbytes <= tuning().reduction.partial_bytes
    )
    return next(few)


def partial_bytes(n: int, nbytes: int) -> int:
    """Return the bytes of what is kept of `n` sums of `nbytes` before it is fetched.

    Examples
    --------
    >>> partial_bytes(100, 1000)
    100000
    """
    counts = [n, *(len(level) for level in tree_levels(n, fan_in(nbytes)))]
    kept = counts[partial_depth(n, fan_in(nbytes), nbytes)]
    return kept * nbytes if kept > 1 else 0


class PartialTree(Generic[S]):
    """Hold sums of some whole nodes of the tree of `n` sums, each node as high as it can be.

    SplitMerge that make a node whole are added at once, in the order in which every
    backend adds them, so what is put together has the bits of the whole tree.

    Attributes
    ----------
    sums : dict of Node to sums
        No node in it lies below another.
    root : Node

    Examples
    --------
    >>> tree = PartialTree(4, fan_in=2)
    >>> tree.put((0, 0), 1.0); tree.put((0, 1), 2.0)
    >>> tree.sums, tree.missing()
    ({(1, 0): 3.0}, [(1, 1)])
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
        """Return the highest nodes, from left to right, of which nothing is known."""
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
        """Tell whether `node` is `other` or lies below it."""
        up = other[0] - node[0]
        return up >= 0 and node[1] // self._fan_in**up == other[1]


class PartialSums(Generic[S]):
    """Collect what a backend has summed of a pass, for a store to keep.

    Parameters
    ----------
    store : PartialSumsStore
    n : int
        Leaves of the tree.
    nbytes : int
        Of the sums of each.

    Attributes
    ----------
    tree : PartialTree
    missing : list of Node
        Nodes that were not recalled when the pass began.
    depth : int
        Level whose nodes are collected one by one.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> store = SimpleNamespace(recall=lambda: {(0, 0): 10}, due=lambda: False)
    >>> sums = PartialSums(store, 3, 8)
    >>> sums.missing, sums.complete(iter)  # leaf 1 is 1, and leaf 2 is 2
    ([(0, 1), (0, 2)], 13)
    """

    def __init__(self, store: PartialSumsStore[S], n: int, nbytes: int) -> None:
        self._store, width = store, fan_in(nbytes)
        self._n, self._width = n, width
        self.tree: PartialTree[S] = PartialTree(n, width)
        for node, sums in store.recall().items():
            self.tree.put(node, sums)
        self.missing = self.tree.missing()
        self.depth = partial_depth(n, width, nbytes)

    @property
    def total(self) -> S:
        """Sum of all leaves, once nothing is missing."""
        return self.tree.sums[self.tree.root]

    def due(self) -> bool:
        """Tell whether it is time to keep again."""
        return self._store.due()

    def keep(self) -> None:
        """Have the store keep all that is known."""
        self._store.keep(self.tree.sums)

    def put(self, node: Node, sums: S) -> None:
        """Take the sums of a whole node, and keep all where it is time."""
        self.tree.put(node, sums)
        if self.due():
            self.keep()

    def complete(self, leaves: Callable[[range], Iterator[S]]) -> S:
        """Return the total, with what is missing summed leaf after leaf.

        Parameters
        ----------
        leaves : callable
            Numbers of leaves -> their sums, in order.
        """
        for node in self._nodes():
            span = self._width ** node[0]
            first = node[1] * span
            parts = leaves(range(first, min(first + span, self._n)))
            self.put(node, add_tree(parts, self._width))
        return self.total

    def _nodes(self) -> Iterator[Node]:
        """The nodes to sum: those of `depth` below each that is missing, or that itself."""
        for depth, j in self.missing:
            down = max(depth - self.depth, 0)
            span = self._width**down
            count = -(-self._n // self._width ** (depth - down))
            for i in range(j * span, min((j + 1) * span, count)):
                yield depth - down, i


def sum_leaves(
    leaves: Callable[[range], Iterator[S]],
    n: int,
    nbytes: int,
    store: PartialSumsStore[S] | None = None,
) -> S:
    """Return the sum of `n` leaves, added in their tree as they come.

    Parameters
    ----------
    leaves : callable
        Numbers of leaves -> their sums, in order.
    n : int
    nbytes : int
        Of the sums of each.
    store : PartialSumsStore, optional
        What it recalls is not asked for again.

    Examples
    --------
    >>> sum_leaves(lambda numbers: iter(numbers), 10, 8)
    45
    """
    if store is None:
        return add_tree(leaves(range(n)), fan_in(nbytes))
    return PartialSums(store, n, nbytes).complete(leaves)
