"""The additive monoid: whatever a pass over the data sums up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Additive:
    """A record of sums: two of them add field by field.

    Fields are arrays, numbers, or records of sums themselves. Addition is
    associative up to rounding, so whoever adds many must fix the order of the
    additions to fix the bits: see `tree_levels`.
    """

    def __add__(self, other: Self) -> Self:
        return type(self)(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    @property
    def nbytes(self) -> int:
        """Bytes that the sums take."""
        values = (getattr(self, f.name) for f in fields(self))
        return sum(v.nbytes if isinstance(v, Additive) else np.asarray(v).nbytes for v in values)


S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)

FAN_IN = 8


def tree_levels(n: int) -> list[list[range]]:
    """Which neighbours are added at each level of the reduction of `n` sums.

    The tree depends on `n` alone, never on who finishes first, so the bits of
    the total do not depend on the number of workers.

    Returns
    -------
    list of list of range
        One list a level; each range names the nodes of the level below that
        one node adds, from left to right.
    """
    levels = []
    while n > 1:
        levels.append([range(i, min(i + FAN_IN, n)) for i in range(0, n, FAN_IN)])
        n = len(levels[-1])
    return levels


def add_all(parts: Sequence[S]) -> S:
    """Sum of `parts` from left to right."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part  # type: ignore[operator]
    return total


def add_tree(parts: Sequence[S]) -> S:
    """Sum of `parts` by the tree of `tree_levels`."""
    for level in tree_levels(len(parts)):
        parts = [add_all([parts[i] for i in group]) for group in level]
    return parts[0]


class Fold(Protocol[S_co]):
    """Sums something over the chunks of one range: made, fed chunk by chunk, read once."""

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows `X` (n, d) and weights (n,)."""

    def result(self) -> S_co:
        """Sums over all chunks given so far."""


class Foldable(Protocol[S_co]):
    """The description of a pass: small, picklable, and the same for every range."""

    def fold(self) -> Fold[S_co]:
        """A fold of this pass that has seen no chunk yet."""
