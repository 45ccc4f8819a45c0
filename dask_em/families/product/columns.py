"""Columns of the groups of a product: what they hold, and how messages name them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...core.support import REAL, Support, supports_of_columns


def support_of(parts: Sequence[tuple[Support, Sequence[int]]]) -> Support:
    """Return the support of columns of which each part describes some.

    Examples
    --------
    >>> support_of([(REAL, [1]), (REAL, [0])]) is REAL
    True
    """
    if all(support == REAL for support, _ in parts):
        return REAL
    return supports_of_columns(parts, sum(len(columns) for _, columns in parts))


def called_within(
    columns: Sequence[int], called: Callable[[Sequence[int]], str]
) -> Callable[[Sequence[int]], str]:
    """Return how messages name columns that are numbered within a group."""
    return lambda inside: called([columns[j] for j in inside])
