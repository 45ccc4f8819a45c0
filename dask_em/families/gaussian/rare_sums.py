"""Sums of rows that share no pattern of missing values, in loops compiled by Numba.

The mathematics of `single_rows`. Pairs of a row and a component that has a part in it go side by
side, those that lack as many values, so that nothing is done for components that have none.
"""

# Annotations are evaluated here: of named tuples nobody could do so later.
from typing import NamedTuple

import numpy as np
from numba import njit

from ...core.additive import Array
from ...core.compiled import _JIT, log
from . import simd
from .lanes import (
    INLINE,
    LANES,
    TOGETHER,
    dots_of_rows,
    factorize_bordered,
    multiply,
    multiply_pivots,
    subtract_dots,
    write_minus_dots,
)

# Completed rows of a component that are summed together.
_ROWS = 96


@njit(**INLINE)
def _invert(m: int, L: Array, zeros: Array, W: Array) -> None:
    """Write W = L^{-T}, upper triangular, so that P_mm^{-1} = W diag(1 / p) W^T.

    What W holds below its diagonal is zero, and stays; ones on its diagonal stay.
    """
    by = L.shape[1] * LANES
    for j in range(0, m, TOGETHER):
        last = min(j + TOGETHER, m)
        for i in range(j + 1, last):
            for r in range(j, i):
                multiply(zeros, 0, zeros, 0, W, r * by + i * LANES)
            at = j * LANES
            subtract_dots(W, j * by + i * LANES, by, W, j * by + at, by, L, i * by + at, i - j)
        for i in range(last, m):
            at = j * LANES
            write_minus_dots(W, j * by + i * LANES, by, W, j * by + at, by, L, i * by + at, i - j)


class Columns(NamedTuple):
    """Hold how columns are moved, then multiplied, and what one adds to a log-density, (d,)."""

    shift: Array
    scale: Array
    log_factor: Array


class RareSums(NamedTuple):
    """Hold sums that are added to in place, with D the columns in whole registers.

    Attributes
    ----------
    first, scatter : (k, D) and (k, D, D) arrays
        Of completed deviations; the lower triangles.
    conditional : (k, d, d) array
        The covariances of what is missing, their lower triangles.
    half_log, entropy : (k,) arrays
        log |C| / 2, and what units of the columns add to the entropy of what is missing.
    """

    first: Array
    scatter: Array
    conditional: Array
    half_log: Array
    entropy: Array


class _Pairs(NamedTuple):
    """Hold pairs (d + 1, lanes) that wait, by how many values they lack, and their counts."""

    rows: Array
    components: Array
    weights: Array
    counts: Array


class _Completed(NamedTuple):
    """Hold completed rows (k, n, D) with their weights, their numbers, and work of their sums."""

    rows: Array
    weights: Array
    counts: Array
    numbers: Array
    roots: Array
    work: Array
    partial: Array
    centre: Array


class _Work(NamedTuple):
    """Hold the arrays of a turn: of each lane, or of lanes."""

    deviations: Array
    missing: Array
    starts: Array
    found: Array
    M: Array
    L: Array
    W: Array
    inverse: Array
    scaled: Array
    row: Array
    filled: Array
    half: Array
    product: Array
    ones: Array
    zeros: Array


@njit(**_JIT)
def _new_work(d: int, width: int) -> _Work:
    """Return work of rows of d columns; rows of matrices beyond mean nothing."""
    size = d + 1 + TOGETHER
    W = np.zeros((size, size, LANES))
    for j in range(size):
        W[j, j] = 1.0
    return _Work(
        np.zeros((LANES, width)),
        np.empty((LANES, d + 1), np.uint64),
        np.empty(LANES, np.int64),
        np.empty(LANES),
        np.zeros((size, size, LANES)),
        np.zeros((size, size, LANES)),
        W,
        np.empty((size, LANES)),
        np.empty((size, LANES)),
        np.zeros((size, LANES)),
        np.zeros((size, LANES)),
        np.empty(LANES),
        np.empty(LANES),
        np.ones(LANES),
        np.zeros(LANES),
    )


@njit(**INLINE)
def _lay_out(
    n: int, m: int, X: Array, rows: Array, components: Array, columns: Columns, means: Array,
    precision: Array, work: _Work,
) -> None:  # fmt: skip
    """Write deviations and missing columns of n pairs that lack m values, and P_mm above -u_m."""
    d, width = X.shape[1], means.shape[1]
    shift, scale, _ = columns
    for lane in range(LANES):
        # The last pair fills up the lanes.
        k = components[min(lane, n - 1)]
        x, centre = X[rows[min(lane, n - 1)]], means[k]
        D, which = work.deviations[lane], work.missing[lane]
        for j in range(d):
            value = (x[j] - shift[j]) * scale[j] - centre[j]
            D[j] = 0.0 if np.isnan(value) else value
        # Unsigned numbers need not be looked at for whether they count from the end.
        lacking = np.uint64(0)
        for j in range(d):
            which[lacking] = j
            lacking += np.uint64(np.isnan(x[j]))
        for i in range(0, m, LANES):
            for r in range(LANES):
                work.starts[r] = (k * d + np.int64(which[min(i + r, m - 1)])) * width
            dots_of_rows(
                precision, work.starts, width // LANES, work.deviations, lane * width, work.found
            )
            for r in range(min(LANES, m - i)):
                work.M[m, i + r, lane] = -work.found[r]
        for i in range(m):
            own, target = precision[k, which[i]], work.M[i]
            for j in range(i + 1):
                target[j, lane] = own[which[j]]


@njit(**INLINE)
def _expect(n: int, m: int, components: Array, weights: Array, work: _Work, sums: RareSums) -> None:
    """Write minus what is expected of missing values, and add their covariances times weights."""
    W, L, scaled, row = work.W, work.L, work.scaled, work.row
    by = W.shape[1] * LANES
    for i in range(0, m, TOGETHER):
        at = i * LANES
        # The border is that of -u.
        write_minus_dots(work.filled, at, LANES, W, i * by + at, by, L, m * by + at, m - i)
    for i in range(m):
        for t in range(i, m):
            multiply(W, i * by + t * LANES, work.inverse, t * LANES, scaled, t * LANES)
        at = i * LANES
        for j in range(0, i + 1, TOGETHER):
            write_minus_dots(row, j * LANES, LANES, W, j * by + at, by, scaled, at, m - i)
        for lane in range(n):
            which, w = work.missing[lane], weights[lane]
            own = sums.conditional[components[lane], which[i]]
            for j in range(i + 1):
                own[which[j]] -= w * row[j, lane]


@njit(**_JIT)
def _add_completed(k: int, completed: _Completed, sums: RareSums) -> None:
    """Add the sums of the completed rows of one component that there are so far."""
    n = completed.counts[k]
    simd.add_scatter(
        completed.rows[k], sums.first.shape[1], completed.centre,
        completed.weights[k : k + 1, :n], completed.numbers, completed.roots, completed.work,
        completed.partial, sums.first[k : k + 1], sums.scatter[k : k + 1],
    )  # fmt: skip
    completed.counts[k] = 0


@njit(**INLINE)
def _keep(
    n: int, m: int, components: Array, weights: Array, log_factor: Array, work: _Work,
    completed: _Completed, sums: RareSums,
) -> None:  # fmt: skip
    """Keep n completed rows for the sums of their components, and add their entropies."""
    for lane in range(n):
        k, w, which = components[lane], weights[lane], work.missing[lane]
        place = completed.counts[k]
        row, unit = completed.rows[k, place], 0.0
        row[:] = work.deviations[lane]
        for i in range(m):
            row[which[i]] = -work.filled[i, lane]
            unit += 0.5 - log_factor[which[i]]
        completed.weights[k, place] = w
        completed.counts[k] = place + 1
        if place + 1 == _ROWS:
            _add_completed(k, completed, sums)
        sums.half_log[k] -= w * (work.half[lane] + 0.5 * log(work.product[lane]))
        sums.entropy[k] += w * unit


@njit(**INLINE)
def _complete(
    m: int, X: Array, columns: Columns, means: Array, precision: Array, pairs: _Pairs,
    work: _Work, completed: _Completed, sums: RareSums,
) -> None:  # fmt: skip
    """Complete the pairs that lack m values."""
    n, components, weights = pairs.counts[m], pairs.components[m], pairs.weights[m]
    _lay_out(n, m, X, pairs.rows[m], components, columns, means, precision, work)
    factorize_bordered(m, work.ones, work.M, work.L, work.inverse)
    multiply_pivots(work.M, m, work.ones, work.product, work.half)
    _invert(m, work.L, work.zeros, work.W)
    _expect(n, m, components, weights, work, sums)
    _keep(n, m, components, weights, columns.log_factor, work, completed, sums)
    pairs.counts[m] = 0


@njit(**_JIT)
def add(
    X: Array, rows: Array, columns: Columns, means: Array, precision: Array, resp: Array,
    sums: RareSums,
) -> None:  # fmt: skip
    """Add the completed sums of some rows of X (b, d) under `resp` (k, b).

    Parameters
    ----------
    X : (b, d) array
    rows : (n,) int64 array
    columns : Columns
    means, precision : (k, D) and (k, d, D) arrays
        D the columns in whole registers, zero beyond.
    resp : (k, b) array
    sums : RareSums
    """
    d, (k, width) = X.shape[1], sums.first.shape
    work = _new_work(d, width)
    pairs = _Pairs(
        np.empty((d + 1, LANES), np.int64),
        np.empty((d + 1, LANES), np.int64),
        np.empty((d + 1, LANES)),
        np.zeros(d + 1, np.int64),
    )
    completed = _Completed(
        np.zeros((k, _ROWS, width)),
        np.zeros((k, _ROWS)),
        np.zeros(k, np.int64),
        np.empty(_ROWS + 1, np.int64),
        np.empty(_ROWS + 1),
        np.empty((_ROWS, width)),
        np.empty(width),
        np.zeros((1, width)),
    )
    for row in rows:
        m = np.isnan(X[row]).sum()
        for component in range(k):
            if resp[component, row] == 0:
                continue
            place = pairs.counts[m]
            pairs.rows[m, place], pairs.components[m, place] = row, component
            pairs.weights[m, place] = resp[component, row]
            pairs.counts[m] = place + 1
            if place + 1 == LANES:
                _complete(m, X, columns, means, precision, pairs, work, completed, sums)
    for m in range(d + 1):
        if pairs.counts[m]:
            _complete(m, X, columns, means, precision, pairs, work, completed, sums)
    for component in range(k):
        if completed.counts[component]:
            _add_completed(component, completed, sums)
