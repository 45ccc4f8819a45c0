"""Loops that find which components count for a row, and sum for these alone, compiled by Numba.

Upper bounds on all joint densities are one product in float32, made in tiles as in `simd`. Pairs
of a row and a component that its bound does not rule out are listed by component.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from ...core.additive import Array
from ...core.compiled import _I64, _JIT, _exp, log
from .simd import (
    TALL_ROWS,
    TILE_ROWS,
    TILE_VECTORS,
    _at,
    _load,
    _multiply_add,
    _pointer,
    _raise_best,
    _subtract_squares,
    _tile,
    _vector_type,
)


def _write_scores(n_rows: int) -> Any:
    @intrinsic
    def write_scores(
        typing: Any, A: Any, a: Any, Z: Any, z: Any, n: Any, first: Any, out: Any, o: Any,
        best: Any, labels: Any, r: Any,
    ) -> Any:  # fmt: skip
        """out[i, r] = sum_j A[j, i] Z[j, r], some i, 3 vectors of r; raise best, note its i."""
        i = types.intp
        signature = types.void(A, i, Z, i, i, i, out, i, best, labels, i)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            vector = _vector_type(context, sig.args[0])
            A_, Z_, out_ = (
                _pointer(context, builder, sig.args[j], args[j], args[j + 1]) for j in (0, 2, 6)
            )
            best_, labels_ = (
                _pointer(context, builder, sig.args[j], args[j], args[10]) for j in (8, 9)
            )
            tile = _tile(builder, [vector] * TILE_VECTORS, n_rows)
            columns = ir.Constant(_I64, TILE_VECTORS * vector.count)
            _multiply_add(builder, tile, A_, ir.Constant(_I64, n_rows), Z_, columns, args[4])
            _raise_best(builder, tile, args[5], best_, labels_, out_)
            return context.get_dummy_value()

        return signature, codegen

    return write_scores


_write_scores_low, _write_scores_tall = (_write_scores(n) for n in (TILE_ROWS, TALL_ROWS))


@intrinsic
def _reaching(typing: Any, A: Any, a: Any, B: Any, b: Any) -> Any:
    """The bits r of a tile's rows for which A[a + r] < B[b + r] is not true."""
    i = types.intp
    signature = types.int64(A, i, B, i)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = _vector_type(context, sig.args[0])
        A_, B_ = (_pointer(context, builder, sig.args[j], args[j], args[j + 1]) for j in (0, 2))
        found = ir.Constant(_I64, 0)
        for v in range(TILE_VECTORS):
            x, y = (_load(builder, _at(builder, p, v * vector.count), vector) for p in (A_, B_))
            # What is no number is not ruled out.
            reached = builder.fcmp_unordered(">=", x, y)
            bits = builder.zext(builder.bitcast(reached, ir.IntType(vector.count)), _I64)
            found = builder.or_(found, builder.shl(bits, ir.Constant(_I64, v * vector.count)))
        return found

    return signature, codegen


@intrinsic
def _lowest(typing: Any, mask: Any) -> Any:
    """The number of the lowest bit that is set."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), codegen


@njit(**_JIT)
def write_squares(columns: Array, apart: bool, d: int) -> None:
    """Write the squares of the first d columns of each tile behind them, or their sum."""
    n_tiles, _, width = columns.shape
    for t in range(n_tiles):
        if not apart:
            for r in range(width):
                columns[t, d, r] = 0
        for j in range(d):
            to = d + j if apart else d
            for r in range(width):
                z = columns[t, j, r]
                columns[t, to, r] = z * z if apart else columns[t, to, r] + z * z


@njit(**_JIT)
def bound_joints(
    theta: Array, columns: Array, sizes: Array, reach: Array, out: Array, best: Array,
    labels: Array, slack: Array,
) -> None:  # fmt: skip
    """Bound what is linear in columns of rows: out + slack is above it.

    Parameters
    ----------
    theta : (k * F,) float32 array
        Coefficients in groups of components (`pack_groups`), k a multiple of four.
    columns : (n_tiles, F, tile_columns) float32 array
        Rows by columns.
    sizes : (F,) float32 array
        What a column may add to the rounding errors of a product, for each unit of it.
    reach : (n_tiles * tile_columns,) float32 array
        What rounding of the columns themselves adds to the errors.
    out : (n_tiles, k, tile_columns) float32 array
    best, labels : (n_tiles * tile_columns,) arrays
        Receive the largest, and of which component it is.
    slack : (n_tiles * tile_columns,) float32 array
    """
    n_tiles, n_columns, width = columns.shape
    k = out.shape[1]
    best[:] = -np.inf
    labels[:] = 0
    for t in range(n_tiles):
        start = t * width
        for r in range(width):
            slack[start + r] = reach[start + r]
        for j in range(n_columns):
            for r in range(width):
                slack[start + r] += sizes[j] * abs(columns[t, j, r])
        first = 0
        while first + TALL_ROWS <= k:
            _write_scores_tall(
                theta, first * n_columns, columns, t * n_columns * width, n_columns, first, out,
                (t * k + first) * width, best, labels, start,
            )  # fmt: skip
            first += TALL_ROWS
        while first < k:
            _write_scores_low(
                theta, first * n_columns, columns, t * n_columns * width, n_columns, first, out,
                (t * k + first) * width, best, labels, start,
            )  # fmt: skip
            first += TILE_ROWS


@njit(**_JIT)
def bound_joints_along(
    W: Array, m: Array, constant: Array, n_directions: int, columns: Array, sizes: Array,
    base: float, factor: float, out: Array, best: Array, labels: Array, slack: Array,
) -> None:  # fmt: skip
    """Bound the joint log-densities of rows by a few directions of each component.

    Parameters
    ----------
    W : (k, size) float32 array
        Directions, four at a time, each four transposed.
    m : (k, padded) float32 array
        Minus the images of the means.
    constant : (k,) float32 array
    n_directions : int
        Those that are taken, a multiple of four.
    columns : (n_tiles, d, tile_columns) float32 array
        Rows by columns.
    sizes : (d,) float32 array
        What a column may add to the rounding error of a product, for each unit of it.
    base, factor : float
        The slack of a row is base + factor * error^2; the error begins with 1.
    out, best, labels, slack
        See `bound_joints`.
    """
    n_tiles, d, width = columns.shape
    for t in range(n_tiles):
        start = t * width
        for r in range(width):
            slack[start + r] = 1
            best[start + r] = -np.inf
            labels[start + r] = 0
        for j in range(d):
            for r in range(width):
                slack[start + r] += sizes[j] * abs(columns[t, j, r])
        for r in range(width):
            slack[start + r] = base + factor * slack[start + r] * slack[start + r]
        for k in range(len(constant)):
            for r in range(width):
                out[t, k, r] = constant[k]
            for i in range(0, n_directions, TILE_ROWS):
                _subtract_squares(
                    W, k * W.shape[1] + i * d, columns, t * d * width, d, m,
                    k * m.shape[1] + i, out, (t * out.shape[1] + k) * width,
                )  # fmt: skip
            for r in range(width):
                higher = out[t, k, r] > best[start + r]
                best[start + r] = out[t, k, r] if higher else best[start + r]
                labels[start + r] = np.int32(k) if higher else labels[start + r]


@njit(**_JIT)
def group_rows(labels: Array, n: int, starts: Array, rows: Array) -> None:
    """List the first n rows by their labels: those of k are rows[starts[k] : starts[k + 1]]."""
    starts[:] = 0
    for r in range(n):
        starts[labels[r] + 1] += 1
    for k in range(len(starts) - 1):
        starts[k + 1] += starts[k]
    for r in range(n - 1, -1, -1):
        # From the last to the first: the ends become the starts, and rows stay in order.
        starts[labels[r] + 1] -= 1
        rows[starts[labels[r] + 1]] = r
    for k in range(len(starts) - 1):
        starts[k] = starts[k + 1]
    starts[len(starts) - 1] = n


@njit(**_JIT)
def note_candidates(
    bounds: Array, labels: Array, least: Array, n: int, masks: Array, counts: Array
) -> int:
    """Find which rows each component is not ruled out for, beside that of their label.

    Parameters
    ----------
    bounds : (n_tiles, >= k, tile_columns) float32 array
    labels : (n_tiles * tile_columns,) array of int
    least : (n_tiles * tile_columns,) float32 array
        What the bound must reach.
    n : int
        Rows.
    masks : (k, >= n_tiles) int64 array
        Receives bits of rows of each tile.
    counts : (k,) int64 array
        Receives their number.

    Returns
    -------
    int
        The sum of `counts`.
    """
    n_tiles, stride, width = bounds.shape
    total = 0
    for k in range(len(counts)):
        counts[k] = 0
    for t in range(n_tiles):
        for k in range(len(counts)):
            mask = _reaching(bounds, (t * stride + k) * width, least, t * width)
            kept = 0
            while mask:
                r = _lowest(mask)
                mask &= mask - 1
                row = t * width + r
                if row < n and labels[row] != k:
                    kept |= 1 << r
                    counts[k] += 1
                    total += 1
            masks[k, t] = kept
    return total


@njit(**_JIT)
def list_pairs(
    masks: Array, n_tiles: int, width: int, counts: Array, own_starts: Array, own_rows: Array,
    own: Array, starts: Array, rows: Array, values: Array,
) -> None:  # fmt: skip
    """List all pairs by component: the rows of its label with their values, then the others.

    Parameters
    ----------
    masks, counts : (k, >= n_tiles), (k,) arrays
        As `note_candidates` made them.
    own_starts, own_rows, own : (k + 1,), (>= n,), (>= n,) arrays
        Rows by label, and their values.
    starts : (k + 1,) int64 array
    rows, values : (>= n + sum of counts,) arrays
    """
    p = 0
    for k in range(len(counts)):
        starts[k] = p
        for q in range(own_starts[k], own_starts[k + 1]):
            rows[p] = own_rows[q]
            values[p] = own[q]
            p += 1
        if counts[k] == 0:
            continue
        for t in range(n_tiles):
            mask = masks[k, t]
            while mask:
                rows[p] = t * width + _lowest(mask)
                mask &= mask - 1
                p += 1
    starts[len(counts)] = p


@njit(**_JIT)
def set_least(
    starts: Array, rows: Array, values: Array, log_prior: Array, slack: Array, negligible: float,
    least: Array,
) -> None:  # fmt: skip
    """Write what a bound of a row must reach for its component to count beside the listed one."""
    for k in range(len(starts) - 1):
        for p in range(starts[k], starts[k + 1]):
            r = rows[p]
            joint = values[p] + log_prior[k]
            # Rounded down by more than float32 rounds.
            below = joint + negligible - slack[r]
            least[r] = below - 1e-6 * abs(below)


@njit(**_JIT)
def divide_pairs(
    starts: Array, rows: Array, values: Array, log_prior: Array, negligible: float,
    weights: Array, log_density: Array, total: Array, resp_sum: Array,
) -> float:  # fmt: skip
    """Turn log-densities of listed pairs into weighted responsibilities, in place.

    Parameters
    ----------
    starts, rows, values : (k + 1,), (pairs,), (pairs,) arrays
    log_prior : (k,) array
    negligible : float
        What is below the largest by more becomes zero.
    weights : (n,) array
    log_density : (n,) array
        Receives log p(x).
    total : (n,) array
        Work.
    resp_sum : (k,) array
        Receives the sums of responsibilities.

    Returns
    -------
    float
        sum_n w_n log p(x_n).
    """
    n, best = len(weights), log_density
    for r in range(n):
        best[r] = -np.inf
        total[r] = 0.0
    for k in range(len(log_prior)):
        for p in range(starts[k], starts[k + 1]):
            x = values[p] + log_prior[k]
            values[p] = x
            r = rows[p]
            # NaN stays: it must be seen, not replaced.
            best[r] = best[r] if x <= best[r] else x
    for p in range(starts[len(log_prior)]):
        r = rows[p]
        x = values[p] - best[r]
        e = _exp(max(x, negligible))
        e = 0.0 if x < negligible else e
        values[p] = e
        total[r] += e
    log_likelihood = 0.0
    for r in range(n):
        log_density[r] = best[r] + log(total[r])
        log_likelihood += weights[r] * log_density[r]
        total[r] = weights[r] / total[r]
    for k in range(len(log_prior)):
        sum_ = 0.0
        for p in range(starts[k], starts[k + 1]):
            values[p] *= total[rows[p]]
            sum_ += values[p]
        resp_sum[k] = sum_
    return log_likelihood


@njit(**_JIT)
def likeliest_pairs(
    starts: Array, rows: Array, values: Array, log_prior: Array, best: Array, lead: Array,
    labels: Array,
) -> None:  # fmt: skip
    """Find the largest joint log-density of each row among its listed pairs.

    Parameters
    ----------
    starts, rows, values : (k + 1,), (pairs,), (pairs,) arrays
    log_prior : (k,) array
    best : (n,) array
        Work.
    lead : (n,) array
        Receives by how much the largest is above the second largest; NaN where one is NaN.
    labels : (n,) array of int
        Receive the component of the largest.
    """
    second = lead
    for r in range(len(labels)):
        best[r], second[r], labels[r] = -np.inf, -np.inf, 0
    for k in range(len(log_prior)):
        for p in range(starts[k], starts[k + 1]):
            x, r = values[p] + log_prior[k], rows[p]
            if x > best[r]:
                second[r], best[r], labels[r] = best[r], x, k
            elif x != x:
                # Nothing is larger than NaN.
                best[r] = x
            elif x > second[r]:
                second[r] = x
    for r in range(len(labels)):
        lead[r] = best[r] - second[r]
