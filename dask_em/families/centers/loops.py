"""Loops of the assignment of rows to centres, compiled by Numba.

The product of rows with centres is made in tiles, as in `gaussian.simd`, and a tile is compared
with the best so far while it is in registers: products are never stored. The order of additions
is that of the rows, and within a row fixed by the shapes alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from ...core.additive import Array
from ...core.compiled import _I64, _JIT
from ..gaussian.candidate_loops import _lowest, _reaching, bound_joints
from ..gaussian.simd import (
    TALL_ROWS,
    TILE_ROWS,
    TILE_VECTORS,
    _multiply_add,
    _pointer,
    _raise_best,
    _tile,
    _vector_type,
)


def _compare(n_rows: int) -> Any:
    @intrinsic
    def compare(
        typing: Any, A: Any, a: Any, Z: Any, z: Any, n: Any, first: Any, best: Any, labels: Any,
        r: Any,
    ) -> Any:  # fmt: skip
        """Raise best[r] to the largest sum_j A[j, i] Z[j, r] above it, and note i + first.

        Of some i and 3 vectors of r.
        """
        i = types.intp
        signature = types.void(A, i, Z, i, i, i, best, labels, i)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            vector = _vector_type(context, sig.args[0])
            A_, Z_ = (_pointer(context, builder, sig.args[j], args[j], args[j + 1]) for j in (0, 2))
            best_, labels_ = (
                _pointer(context, builder, sig.args[j], args[j], args[8]) for j in (6, 7)
            )
            tile = _tile(builder, [vector] * TILE_VECTORS, n_rows)
            columns = ir.Constant(_I64, TILE_VECTORS * vector.count)
            _multiply_add(builder, tile, A_, ir.Constant(_I64, n_rows), Z_, columns, args[4])
            _raise_best(builder, tile, args[5], best_, labels_)
            return context.get_dummy_value()

        return signature, codegen

    return compare


_compare_low, _compare_tall = (_compare(n) for n in (TILE_ROWS, TALL_ROWS))


@njit(**_JIT)
def nearest(theta: Array, columns: Array, best: Array, labels: Array) -> None:
    """Find the first k of the largest theta_k . z_r of each row.

    Parameters
    ----------
    theta : (k * F,) array
        Coefficients in groups of centres (`gaussian.compiled_kernel.pack_groups`), k a multiple
        of four.
    columns : (n_tiles, F, tile_columns) array
        The rows z, by columns.
    best : (n_tiles * tile_columns,) array
        Receives the largest.
    labels : (n_tiles * tile_columns,) array
        int32 for float32, else int64: receives the k.
    """
    n_tiles, n_features, width = columns.shape
    k = len(theta) // n_features
    best[:] = -np.inf
    labels[:] = 0
    for t in range(n_tiles):
        first = 0
        while first + TALL_ROWS <= k:
            _compare_tall(
                theta, first * n_features, columns, t * n_features * width, n_features, first,
                best, labels, t * width,
            )  # fmt: skip
            first += TALL_ROWS
        while first < k:
            _compare_low(
                theta, first * n_features, columns, t * n_features * width, n_features, first,
                best, labels, t * width,
            )  # fmt: skip
            first += TILE_ROWS


@njit(**_JIT)
def centre(X: Array, origin: Array, rows: Array) -> None:
    """Write rows X (b, d) about the origin (d,) into `rows` (b, d) float64."""
    for r in range(X.shape[0]):
        for j in range(X.shape[1]):
            rows[r, j] = X[r, j] - origin[j]


@njit(fastmath={"reassoc", "contract"}, **_JIT)
def _squared_distance(rows: Array, r: int, centers: Array, c: int) -> float:
    total = 0.0
    for j in range(rows.shape[1]):
        deviation = rows[r, j] - centers[c, j]
        total += deviation * deviation
    return total


@njit(**_JIT)
def add_by_label(
    rows: Array, centers: Array, labels: Array, weights: Array, counts: Array, first: Array,
    squares: Array, far: Array, far_squares: Array,
) -> float:  # fmt: skip
    """Add weights, deviations and squared distances of rows to the sums of their centres.

    Parameters
    ----------
    rows, centers : (b, d), (k, d) arrays
        About one origin.
    labels : (b,) array of int
    weights : (b,) array
    counts, first, squares : (k,), (k, d), (k,) float64 arrays
        Of weights, weighted deviations, and weighted squared distances: added to.
    far, far_squares : (k, d), (k,) float64 arrays
        The farthest row of each centre and its squared distance.

    Returns
    -------
    float
        The sum of what was added to `squares`.
    """
    total = 0.0
    for r in range(rows.shape[0]):
        c, weight = labels[r], weights[r]
        square = _squared_distance(rows, r, centers, c)
        for j in range(rows.shape[1]):
            first[c, j] += weight * (rows[r, j] - centers[c, j])
        counts[c] += weight
        squares[c] += weight * square
        total += weight * square
        if square > far_squares[c]:
            far_squares[c] = square
            for j in range(rows.shape[1]):
                far[c, j] = rows[r, j]
    return total


@njit(fastmath={"reassoc", "contract"}, **_JIT)
def _product(rows: Array, r: int, centers: Array, c: int) -> float:
    total = 0.0
    for j in range(rows.shape[1]):
        total += rows[r, j] * centers[c, j]
    return total


@njit(**_JIT)
def nearest_by_bounds(
    theta: Array, columns: Array, sizes: Array, reach: Array, most: int, rows: Array,
    centers: Array, constants: Array, bounds: Array, highest: Array, slack: Array, best: Array,
    labels: Array,
) -> int:  # fmt: skip
    """Find the first k of the largest c_k . x + constant of each row, tile by tile.

    Parameters
    ----------
    theta, columns, sizes, reach
        See `bound_joints`.
    most : int
        How many pairs may be computed beside one of each row.
    rows, centers, constants : (b, d), (k, d), (k,) arrays
    bounds : (1, >= k, tile_columns) float32 array
    highest, slack : (tile_columns,) float32 arrays
        Work.
    best, labels : (>= b,) arrays
        Receive the scores and the k.

    Returns
    -------
    int
        How many were computed beside one of each row; beyond `most` not all are found.
    """
    n_tiles, _, width = columns.shape
    n_rows, found = len(rows), 0
    for t in range(n_tiles):
        start = t * width
        bound_joints(
            theta, columns[t : t + 1], sizes, reach, bounds, highest,
            labels[start : start + width], slack,
        )  # fmt: skip
        for q in range(min(width, n_rows - start)):
            r = start + q
            best[r] = _product(rows, r, centers, labels[r]) + constants[labels[r]]
            below = best[r] - slack[q]
            # What a bound must reach, rounded down by more than float32 rounds.
            slack[q] = below - 1e-6 * abs(below)
        for c in range(len(centers)):
            if found > most:
                return found
            mask = _reaching(bounds, c * width, slack, 0)
            while mask:
                r = start + _lowest(mask)
                mask &= mask - 1
                if r < n_rows and labels[r] != c:
                    found += 1
                    score = _product(rows, r, centers, c) + constants[c]
                    if score > best[r] or (score == best[r] and c < labels[r]):
                        best[r] = score
                        labels[r] = c
    return found
