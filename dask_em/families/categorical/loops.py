"""Loops of categorical components compiled by Numba: lookups in tables of neighbouring columns.

A table has a line of eight components for each combination of answers, so that a lookup is one
cache line, and what a row needs of it one addition of vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ...core.additive import Array
from ...core.compiled import _JIT

# Components of a line of a table: the doubles of a cache line.
WIDTH = 8

_ADDING: dict[str, Any] = {"fastmath": {"contract", "nsz"}, **_JIT}


@njit(**_JIT)
def place(
    X: Array, known: Array, levels: Array, strides: Array, groups: Array, firsts: Array,
    slots: Array,
) -> None:  # fmt: skip
    """Number the combination of answers in each group of columns, (g, b).

    What is none of the `known` codes of a column is its last level.
    """
    b, d = X.shape
    for g in range(len(slots)):
        for r in range(b):
            slots[g, r] = firsts[g]
    # Column by column the loops are of vectors.
    for j in range(d):
        g, n, last, stride = groups[j], known[j], levels[j] - np.int32(1), strides[j]
        for r in range(b):
            x = X[r, j]
            c = np.int32(x) if 0 <= x < n else last
            slots[g, r] += stride * c


@njit(**_ADDING)
def look_up(slots: Array, tables: Array, out: Array) -> None:
    """Add up the lines of each row's slots (g, b): tables (parts, s, WIDTH), out (k, b)."""
    n_groups, b = slots.shape
    for part in range(len(tables)):
        first = WIDTH * part
        for r in range(b):
            a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = 0.0
            for g in range(n_groups):
                s = slots[g, r]
                a0 += tables[part, s, 0]
                a1 += tables[part, s, 1]
                a2 += tables[part, s, 2]
                a3 += tables[part, s, 3]
                a4 += tables[part, s, 4]
                a5 += tables[part, s, 5]
                a6 += tables[part, s, 6]
                a7 += tables[part, s, 7]
            out[first, r] = a0
            out[first + 1, r] = a1
            out[first + 2, r] = a2
            out[first + 3, r] = a3
            out[first + 4, r] = a4
            out[first + 5, r] = a5
            out[first + 6, r] = a6
            out[first + 7, r] = a7


@njit(**_ADDING)
def count(slots: Array, resp: Array, sums: Array) -> None:
    """Add responsibilities (k, b) to the lines of each row's slots, sums (parts, s, WIDTH)."""
    n_groups, b = slots.shape
    for part in range(len(sums)):
        first = WIDTH * part
        for r in range(b):
            a0 = resp[first, r]
            a1 = resp[first + 1, r]
            a2 = resp[first + 2, r]
            a3 = resp[first + 3, r]
            a4 = resp[first + 4, r]
            a5 = resp[first + 5, r]
            a6 = resp[first + 6, r]
            a7 = resp[first + 7, r]
            for g in range(n_groups):
                s = slots[g, r]
                sums[part, s, 0] += a0
                sums[part, s, 1] += a1
                sums[part, s, 2] += a2
                sums[part, s, 3] += a3
                sums[part, s, 4] += a4
                sums[part, s, 5] += a5
                sums[part, s, 6] += a6
                sums[part, s, 7] += a7
