"""Densities of rows that share no pattern of missing values, in loops compiled by Numba.

The mathematics of `single_rows`, row after row, with components side by side: what is missing of a
row is so under all of them, so nothing is gathered, and rows may lack as many values as they like.
With u = P (x - mu), the factor of P_mm bordered by u_m takes the part of what is missing out of the
squared distance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ...core.additive import Array
from ...core.compiled import _JIT, log
from .lanes import (
    INLINE,
    LANES,
    TOGETHER,
    dots_of_columns,
    factorize_bordered,
    multiply,
    multiply_add,
    multiply_pivots,
    write_deviation,
)
from .rare_sums import Columns

# Rows whose logarithms are taken together.
_ROWS = 32


class _Work(NamedTuple):
    """Hold the arrays of a row, most of them of lanes, and what is found of some rows."""

    seen: Array
    missing: Array
    values: Array
    starts: Array
    D: Array
    M: Array
    L: Array
    inverse: Array
    dots: Array
    half: Array
    ones: Array
    products: Array
    densities: Array
    counts: Array


@njit(**_JIT)
def _new_work(d: int) -> _Work:
    """Return work of rows of d columns; rows of matrices beyond mean nothing."""
    size = d + 1 + TOGETHER
    return _Work(
        np.empty(d + 1, np.int64),
        np.empty(d + 1, np.int64),
        np.empty(d + 1),
        np.empty(TOGETHER, np.int64),
        np.empty((d, LANES)),
        np.zeros((size, size, LANES)),
        np.zeros((size, size, LANES)),
        np.empty((size, LANES)),
        np.empty((TOGETHER, LANES)),
        np.empty(LANES),
        np.ones(LANES),
        np.empty((_ROWS, LANES)),
        np.empty((_ROWS, LANES)),
        np.empty(_ROWS, np.int64),
    )


@njit(**INLINE)
def _take_row(
    X: Array, row: int, shift: Array, scale: Array, columns: Array, missing: Array, values: Array
) -> int:
    """Write which columns a row has, which it lacks, and its values; return how many it has."""
    # No branch: nobody could guess it.
    o = 0
    for j in range(len(shift)):
        columns[o], missing[j - o] = j, j
        values[o] = (X[row, j] - shift[j]) * scale[j]
        o += X[row, j] == X[row, j]
    return o


@njit(**INLINE)
def _factorize(precision: Array, means: Array, g: int, o: int, m: int, work: _Work) -> None:
    """Factorize P_mm = L diag(p) L^T, bordered by -u_m: M = L diag(p), the border its last row.

    Parameters
    ----------
    precision, means : (g, d, d, lanes) and (g, d, lanes) arrays
    g : int
        The group of components.
    o, m : int
        How many columns are observed, and missing.
    work : _Work
        Holds which, and takes the deviations D of what is observed.
    """
    d, by = precision.shape[1], work.M.shape[1] * LANES
    seen, missing, starts, M = work.seen, work.missing, work.starts, work.M
    for t in range(o):
        write_deviation(means, (g * d + seen[t]) * LANES, work.values[t], work.D, t * LANES)
    for i in range(0, m, TOGETHER):
        for r in range(TOGETHER):
            starts[r] = (g * d + missing[min(i + r, m - 1)]) * d * LANES
        dots_of_columns(precision, starts, seen, o, work.D, M, m * by + i * LANES)
    for i in range(m):
        start = (g * d + missing[i]) * d * LANES
        for j in range(i + 1):
            multiply(precision, start + missing[j] * LANES, work.ones, 0, M, i * by + j * LANES)
    factorize_bordered(m, work.ones, M, work.L, work.inverse)


@njit(**INLINE)
def _square(triangle: Array, g: int, o: int, work: _Work, square: Array) -> None:
    """Write minus half the squared length (lanes,) of the deviations that `work` holds.

    By the precision of what is observed, had nothing been missing: `triangle` (g, d, d, lanes) is
    its lower half, and half its diagonal.
    """
    d = triangle.shape[1]
    square[:] = 0.0
    for t in range(0, o, TOGETHER):
        n = min(TOGETHER, o - t)
        for r in range(TOGETHER):
            work.starts[r] = (g * d + work.seen[min(t + r, o - 1)]) * d * LANES
        dots_of_columns(triangle, work.starts, work.seen, t + n, work.D, work.dots, 0)
        for r in range(n):
            multiply_add(work.dots, r * LANES, work.D, (t + r) * LANES, square, 0)


@njit(**INLINE)
def _write_one(
    X: Array, row: int, columns: Columns, means: Array, precision: Array, triangle: Array, g: int,
    i: int, work: _Work,
) -> None:  # fmt: skip
    """Write the density of a row under a group of components, but for its pivots' logarithms."""
    o = _take_row(X, row, columns.shift, columns.scale, work.seen, work.missing, work.values)
    m = X.shape[1] - o
    work.counts[i] = o
    work.products[i] = 1.0
    if o == 0:
        return
    _factorize(precision, means, g, o, m, work)
    multiply_pivots(work.M, m, work.ones, work.products[i], work.half)
    density = work.densities[i]
    _square(triangle, g, o, work, density)
    constant = 0.0
    for t in range(o):
        constant += columns.log_factor[work.seen[t]]
    border = m * work.M.shape[1] * LANES
    work.dots[0] = 0.0
    for j in range(m):
        at = border + j * LANES
        multiply_add(work.M, at, work.L, at, work.dots, 0)
    for lane in range(LANES):
        density[lane] += 0.5 * work.dots[0, lane] + constant - work.half[lane]


@njit(**_JIT)
def write_log_prob(
    X: Array, rows: Array, columns: Columns, means: Array, precision: Array, triangle: Array,
    half_log_det: Array, out: Array,
) -> None:  # fmt: skip
    """Write log p(x_o | k) of some rows of X (b, d) to their places in `out` (k, b).

    Parameters
    ----------
    X : (b, d) array
    rows : (n,) int64 array
    columns : Columns
    means : (g, d, lanes) array
        Of the components, in groups of lanes.
    precision, triangle : (g, d, d, lanes) arrays
        The latter is the lower half of the former, and half its diagonal.
    half_log_det : (g, lanes) array
        log |Sigma| / 2.
    out : (k, b) array
    """
    work = _new_work(X.shape[1])
    for g in range(len(means)):
        base = g * LANES
        for first in range(0, len(rows), _ROWS):
            n = min(_ROWS, len(rows) - first)
            for i in range(n):
                _write_one(X, rows[first + i], columns, means, precision, triangle, g, i, work)
            for i in range(n):
                for lane in range(LANES):
                    work.products[i, lane] = 0.5 * log(work.products[i, lane])
            for lane in range(min(LANES, len(out) - base)):
                for i in range(n):
                    value = work.densities[i, lane] - work.products[i, lane]
                    seen = work.counts[i] > 0
                    # Of nothing the density is one, whatever rounding says.
                    own = value - half_log_det[g, lane] if seen else 0.0
                    out[base + lane, rows[first + i]] = own
