"""Rows with missing values under covariance matrices, one by one, in loops compiled by Numba.

The mathematics of `single_rows`. `LANES` rows that lack as many values each go side by side through
the factorization of their matrices: every innermost loop is over these rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ...core.additive import Array
from ...core.compiled import _JIT, log
from .observed import Sums
from .single_rows import SingleRows

# Rows side by side: loops over fewer are unrolled before LLVM makes vectors of them (measured on
# Zen: 8 rows take 7 times as long a row, 32 rows 2 to 7 times).
LANES = 64

_LOOPS: dict[str, Any] = {**_JIT, "fastmath": {"contract", "nsz"}}


class CompiledRows(SingleRows):
    """Compute with rows that lack as many values each; see `SingleRows`."""

    def log_prob(self, Z: Array, columns: Array) -> Array:
        """Return -(log |Sigma_oo| + squared Mahalanobis distance) / 2 of each row, (k, n)."""
        if len(Z) < LANES // 4 or columns.shape[1] == Z.shape[1]:
            return super().log_prob(Z, columns)
        out = np.empty((len(self._means), len(Z)))
        write_log_prob(
            np.ascontiguousarray(Z), np.ascontiguousarray(columns), self._means,
            self._precision, self._half_log_det[:, 0], out,
        )  # fmt: skip
        return out

    def add(self, Z: Array, columns: Array, resp: Array, sums: Sums) -> None:
        """Add the completed sums under `resp` (k, n); scatters are (g, d, d)."""
        d = Z.shape[1]
        if len(Z) < LANES // 4:
            super().add(Z, columns, resp, sums)
            return
        for k, r in enumerate(resp):
            rows = np.flatnonzero(r)
            if not len(rows):
                continue
            g, w = 0 if self._is_one else k, r[rows]
            D, lower = np.empty((len(rows), d)), np.zeros((d, d))
            half = complete(Z[rows], columns[rows], w, self._means[k], self._precision[g], D, lower)
            sums.scatter[g] += lower + lower.T - np.diag(np.diagonal(lower))
            sums.scatter[g] += (D * w[:, None]).T @ D
            sums.first[k] += w @ D
            sums.half_log_det[k] += half


@njit(**_LOOPS)
def _lay_deviations(Z: Array, columns: Array, first: int, mean: Array, D: Array) -> None:
    """Write deviations of the rows from `first` on, zero where values are missing, in lanes."""
    n, count = columns.shape
    for lane in range(LANES):
        # The last row fills up the lanes.
        row = min(first + lane, n - 1)
        for j in range(len(mean)):
            D[j, lane] = Z[row, j] - mean[j]
        for i in range(count):
            D[columns[row, i], lane] = 0.0


@njit(**_LOOPS)
def _multiply(precision: Array, D: Array, U: Array, squares: Array) -> None:
    """Write U = P D and the products of D and U of each lane."""
    d = len(D)
    squares[:] = 0.0
    for i in range(d):
        U[i, :] = 0.0
        for j in range(d):
            p = precision[i, j]
            for lane in range(LANES):
                U[i, lane] += p * D[j, lane]
        for lane in range(LANES):
            squares[lane] += D[i, lane] * U[i, lane]


@njit(**_LOOPS)
def _take_rows(
    Z: Array, columns: Array, first: int, mean: Array, precision: Array, D: Array, U: Array,
    u: Array, A: Array, squares: Array,
) -> None:  # fmt: skip
    """Lay out deviations D, U = P D, and P_mm with u_m of the rows from `first` on, in lanes."""
    n, count = columns.shape
    _lay_deviations(Z, columns, first, mean, D)
    _multiply(precision, D, U, squares)
    for lane in range(LANES):
        row = min(first + lane, n - 1)
        for i in range(count):
            column = columns[row, i]
            u[i, lane] = U[column, lane]
            for j in range(i + 1):
                A[i, j, lane] = precision[column, columns[row, j]]


@njit(**_LOOPS)
def _factorize(A: Array, L: Array, pivots: Array, factor: Array) -> None:
    """Write P_mm = L diag(p) L^T of each lane, of the lower triangle of A, which is overwritten."""
    count = len(A)
    for j in range(count):
        for lane in range(LANES):
            pivots[j, lane] = A[j, j, lane]
        for i in range(j + 1, count):
            for lane in range(LANES):
                factor[lane] = A[i, j, lane] / pivots[j, lane]
                L[i, j, lane] = factor[lane]
            for m in range(j + 1, i + 1):
                for lane in range(LANES):
                    A[i, m, lane] -= factor[lane] * A[m, j, lane]


@njit(**_LOOPS)
def write_log_prob(
    Z: Array, columns: Array, means: Array, precision: Array, half_log_det: Array, out: Array
) -> None:
    """Write -(log |Sigma_oo| + squared Mahalanobis distance) / 2 of each row, (k, n).

    Parameters
    ----------
    Z : (n, d) array
    columns : (n, c) array of int
        Where values are missing, in ascending order.
    means : (k, d) array
    precision : (g, d, d) array
        Of each component, or one.
    half_log_det : (g,) array
    out : (k, n) array
    """
    n, count = columns.shape
    n_components, d = means.shape
    D, U, u = np.empty((d, LANES)), np.empty((d, LANES)), np.empty((count, LANES))
    A, L = np.empty((count, count, LANES)), np.empty((count, count, LANES))
    pivots, factor, squares = np.empty((count, LANES)), np.empty(LANES), np.empty(LANES)
    for first in range(0, n, LANES):
        for k in range(n_components):
            g = k if len(precision) > 1 else 0
            _take_rows(Z, columns, first, means[k], precision[g], D, U, u, A, squares)
            _factorize(A, L, pivots, factor)
            for j in range(count):
                for i in range(j + 1, count):
                    for lane in range(LANES):
                        u[i, lane] -= L[i, j, lane] * u[j, lane]
                for lane in range(LANES):
                    squares[lane] += (
                        log(pivots[j, lane]) - u[j, lane] * u[j, lane] / pivots[j, lane]
                    )
            for lane in range(min(LANES, n - first)):
                out[k, first + lane] = -0.5 * squares[lane] - half_log_det[g]


@njit(**_LOOPS)
def _invert_triangle(L: Array, W: Array, factor: Array) -> None:
    """Write the inverse of each L, whose diagonal is ones, below the diagonal of W."""
    count = len(L)
    for j in range(count):
        for i in range(j + 1, count):
            for lane in range(LANES):
                factor[lane] = L[i, j, lane]
            for m in range(j + 1, i):
                for lane in range(LANES):
                    factor[lane] += L[i, m, lane] * W[m, j, lane]
            for lane in range(LANES):
                W[i, j, lane] = -factor[lane]


@njit(**_LOOPS)
def _invert(L: Array, W: Array, pivots: Array, factor: Array) -> None:
    """Write C = W^T diag(1 / p) W, W = L^{-1}, to the lower triangle of L; W is overwritten."""
    _invert_triangle(L, W, factor)
    count = len(L)
    for j in range(count):
        for i in range(j, count):
            for lane in range(LANES):
                own = 1.0 if i == j else W[i, j, lane]
                factor[lane] = own / pivots[i, lane]
            for m in range(i + 1, count):
                for lane in range(LANES):
                    factor[lane] += W[m, i, lane] * W[m, j, lane] / pivots[m, lane]
            for lane in range(LANES):
                L[i, j, lane] = factor[lane]


@njit(**_LOOPS)
def _write_row(
    lane: int, columns: Array, w: float, C: Array, u: Array, D: Array, out: Array, sums: Array
) -> None:
    """Write the deviations (d,) of the row in a lane, with means -C u, and add w C to `sums`."""
    for j in range(len(out)):
        out[j] = D[j, lane]
    for i in range(len(columns)):
        value = 0.0
        for j in range(i + 1):
            value += C[i, j, lane] * u[j, lane]
            sums[columns[i], columns[j]] += w * C[i, j, lane]
        for j in range(i + 1, len(columns)):
            value += C[j, i, lane] * u[j, lane]
        out[columns[i]] = -value


@njit(**_LOOPS)
def complete(
    Z: Array, columns: Array, weights: Array, mean: Array, precision: Array, out: Array, sums: Array
) -> float:
    """Write the completed deviations from a mean, and add the covariances of what is missing.

    Parameters
    ----------
    Z : (n, d) array
    columns : (n, c) array of int
        Where values are missing, in ascending order.
    weights : (n,) array
    mean : (d,) array
    precision : (d, d) array
    out : (n, d) array
        The deviations.
    sums : (d, d) array
        The covariances times weights are added to its lower triangle.

    Returns
    -------
    float
        sum_n w_n log |C_n| / 2.
    """
    n, count = columns.shape
    d = len(mean)
    D, U, u = np.empty((d, LANES)), np.empty((d, LANES)), np.empty((count, LANES))
    A, L = np.empty((count, count, LANES)), np.empty((count, count, LANES))
    pivots, factor, squares = np.empty((count, LANES)), np.empty(LANES), np.empty(LANES)
    total = 0.0
    for first in range(0, n, LANES):
        _take_rows(Z, columns, first, mean, precision, D, U, u, A, squares)
        _factorize(A, L, pivots, factor)
        _invert(L, A, pivots, factor)
        for lane in range(min(LANES, n - first)):
            row = first + lane
            _write_row(lane, columns[row], weights[row], L, u, D, out[row], sums)
            for i in range(count):
                total -= 0.5 * weights[row] * log(pivots[i, lane])
    return total
