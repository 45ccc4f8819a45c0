"""Loops over listed pairs of rows and Gaussian components, compiled by Numba.

What is computed of a pair has the order of additions of the loops that compute all, whatever else
is listed.
"""

from __future__ import annotations

import math

from numba import njit

from ...core.additive import Array
from ...core.compiled import _JIT
from .simd import TILE_ROWS, _add_lower, _deviations, _subtract_squares, place


@njit(**_JIT)
def compute_matrices(
    W: Array, m: Array, constant: Array, Z: Array, d: int, starts: Array, rows: Array,
    skipped: Array, ones: Array, gathered: Array, placed: Array, columns: Array, out: Array,
    values: Array,
) -> None:  # fmt: skip
    """Compute constant minus squared distance of listed pairs, as `subtract_distances` does.

    Parameters
    ----------
    W, m, constant : (k, size), (k, padded), (k,) arrays
        See `simd.subtract_distances`.
    Z : (b, D) array
    d : int
    starts, rows : (k + 1,), (pairs,) arrays
    skipped : (k + 1,) array
        Of how many leading pairs of each component the values are known: the difference of two.
    ones, gathered, placed, columns, out : arrays
        Work: of `simd.place` for one tile, and (1, tile_columns).
    values : (pairs,) array
    """
    width = columns.shape[2]
    padded = m.shape[1]
    for k in range(len(constant)):
        start = starts[k] + skipped[k + 1] - skipped[k]
        for p in range(start, starts[k + 1], width):
            n = min(width, starts[k + 1] - p)
            for q in range(n):
                row = rows[p + q]
                for j in range(d):
                    gathered[q * d + j] = Z[row, j]
            for q in range(n * d, width * d):
                gathered[q] = 0
            place(gathered, d, ones, placed, columns)
            out[:] = constant[k]
            w = k * W.shape[1]
            for i in range(0, padded, TILE_ROWS):
                reach = min(i + TILE_ROWS, d)
                _subtract_squares(W, w, columns, 0, reach, m, k * padded + i, out, 0)
                w += reach * TILE_ROWS
            for q in range(n):
                values[p + q] = out[q]


@njit(fastmath={"reassoc", "contract"}, **_JIT)
def _squared_distance(Z: Array, row: int, means: Array, inverse: Array, k: int, d: int) -> float:
    total = 0.0
    for j in range(d):
        y = (Z[row, j] - means[k, j]) * inverse[k, j]
        total += y * y
    return total


@njit(**_JIT)
def compute_diagonals(
    means: Array, inverse: Array, constant: Array, Z: Array, d: int, starts: Array, rows: Array,
    skipped: Array, values: Array,
) -> None:  # fmt: skip
    """Compute constant minus half the squared distance of listed pairs.

    Parameters
    ----------
    means, inverse, constant : (k, >= d), (k, >= d), (k,) arrays
        Inverse standard deviations.
    Z, d, starts, rows, skipped, values
        See `compute_matrices`.
    """
    for k in range(len(constant)):
        start = starts[k] + skipped[k + 1] - skipped[k]
        for p in range(start, starts[k + 1]):
            square = _squared_distance(Z, rows[p], means, inverse, k, d)
            values[p] = constant[k] - 0.5 * square


@njit(**_JIT)
def add_listed_matrices(
    Z: Array, d: int, means: Array, starts: Array, rows: Array, resp: Array, offsets: Array,
    roots: Array, D: Array, sums: Array, first: Array, scatter: Array,
) -> None:  # fmt: skip
    """Add the sums about each mean over listed pairs, as `simd.add_scatter` over all.

    Parameters
    ----------
    Z, d, means, D, sums, first, scatter
        See `simd.add_scatter`.
    starts, rows, resp : (k + 1,), (pairs,), (pairs,) arrays
    offsets, roots : (b + 1,) arrays
        Work.
    """
    n_components, width = means.shape
    for k in range(n_components):
        n = 0
        for p in range(starts[k], starts[k + 1]):
            offsets[n] = rows[p] * width
            roots[n] = math.sqrt(resp[p])
            n += resp[p] != 0
        if n == 0:
            continue
        sums[:] = 0
        for start in range(0, n, D.shape[0]):
            size = min(D.shape[0], n - start)
            _deviations(Z, offsets, roots, start, size, means, k * width, D, sums, width)
            _add_lower(D, size, d, scatter, k)
        for j in range(width):
            first[k, j] += sums[j]


@njit(**_JIT)
def add_listed_diagonals(
    Z: Array, means: Array, starts: Array, rows: Array, resp: Array, first: Array, squares: Array
) -> None:
    """Add weighted deviations and their squares over listed pairs, to (k, d) both."""
    d = means.shape[1]
    for k in range(len(means)):
        for p in range(starts[k], starts[k + 1]):
            weight, r = resp[p], rows[p]
            if weight == 0:
                continue
            for j in range(d):
                deviation = Z[r, j] - means[k, j]
                first[k, j] += weight * deviation
                squares[k, j] += weight * deviation * deviation
