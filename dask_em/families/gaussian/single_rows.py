"""Rows with missing values under covariance matrices, each of a pattern of its own.

By the precision P = Sigma^{-1} only matrices as large as the number of missing values are
factorized. With deviations that are zero where values are missing and u = P (x - mu), the squared
distance of what is observed is (x - mu)^T u - u_m^T P_mm^{-1} u_m, its volume |Sigma| |P_mm|, the
mean of the rest mu_m - P_mm^{-1} u_m, and its covariance P_mm^{-1}. NumPy does each step for many
rows side by side.
"""

from __future__ import annotations

import numpy as np

from ...core.additive import Array
from ...core.family import blocks
from ...core.tuning import tuning
from .observed import Sums


class SingleRows:
    """Compute with rows that lack as many values each, c of them, in any columns.

    Rows Z (n, d) are zero where a value is missing; `columns` (n, c) are those columns.

    Parameters
    ----------
    means : (k, d) array
    precision : (g, d, d) array
        Of each component, or one for all.
    half_log_det : (g, 1) array
        log |Sigma| / 2.

    Examples
    --------
    >>> precision = np.linalg.inv(np.array([[[1.0, 0.5], [0.5, 1.0]]]))
    >>> half = np.full((1, 1), np.log(0.75) / 2)
    >>> one = SingleRows(np.zeros((1, 2)), precision, half)
    >>> Z, columns = np.array([[2.0, 0.0]]), np.array([[1]])
    >>> one.log_prob(Z, columns).round(9).tolist(), one.completed(0, Z, columns).round(9).tolist()
    ([[-2.0]], [[2.0, 1.0]])
    """

    def __init__(self, means: Array, precision: Array, half_log_det: Array) -> None:
        self._means, self._precision = means, precision
        self._half_log_det = half_log_det

    @property
    def _is_one(self) -> bool:
        return len(self._precision) == 1

    def log_prob(self, Z: Array, columns: Array) -> Array:
        """Return -(log |Sigma_oo| + squared Mahalanobis distance) / 2 of each row, (k, n)."""
        k, d = self._means.shape
        n, count = columns.shape
        if count == d:
            return np.zeros((k, n))
        out = np.empty((k, n))
        # Matrices of all components, and deviations.
        widest = max(len(self._precision) * count**2, k * d)
        for rows in blocks(n, max(32, tuning().missing.side_by_side // widest)):
            out[:, rows] = self._log_prob(Z[rows], columns[rows])
        return out

    def _log_prob(self, Z: Array, columns: Array) -> Array:
        count = columns.shape[1]
        D = Z[None] - self._means[:, None, :]
        np.put_along_axis(D, columns[None], 0.0, axis=2)
        U = D @ self._precision
        squares = np.einsum("knd,knd->kn", D, U)
        u = np.take_along_axis(U, columns[None], axis=2).transpose(0, 2, 1).copy()
        A = gathered(self._precision, columns)
        log_det = np.zeros((len(A), len(Z)))
        for j in range(count):
            pivot, t = A[:, j, j], u[:, j]
            log_det += np.log(pivot)
            squares -= t * t / pivot
            if j + 1 < count:
                row = A[:, j, j + 1 :] / pivot[:, None]
                u[:, j + 1 :] -= row * t[:, None]
                A[:, j + 1 :, j + 1 :] -= A[:, j + 1 :, None, j] * row[:, None]
        return np.asarray(-0.5 * (squares + log_det) - self._half_log_det)

    def add(self, Z: Array, columns: Array, resp: Array, sums: Sums) -> None:
        """Add the completed sums under `resp` (k, n); scatters are (g, d, d)."""
        d, count = Z.shape[1], columns.shape[1]
        size = max(32, tuning().missing.side_by_side // max(count**2, d))
        if self._is_one:
            for rows in blocks(len(Z), size):
                self._add_shared(Z[rows], columns[rows], resp[:, rows], sums)
            return
        for k, r in enumerate(resp):
            responsible = np.flatnonzero(r)
            for piece in blocks(len(responsible), size):
                some = responsible[piece]
                own, w = columns[some], r[some]
                inverses, half = inverted(gathered(self._precision[k : k + 1], own)[0])
                sums.scatter[k] += scattered(inverses * w, own, d)
                self._add_deviations(k, Z[some], own, w, inverses, half, sums)

    def _add_shared(self, Z: Array, columns: Array, resp: Array, sums: Sums) -> None:
        """Add rows under one covariance, by what is inverted once for all components."""
        every, all_half = inverted(gathered(self._precision, columns)[0])
        sums.scatter[0] += scattered(every * resp.sum(axis=0), columns, Z.shape[1])
        for k, r in enumerate(resp):
            rows = np.flatnonzero(r)
            if len(rows):
                inverses, half = every[:, :, rows], all_half[rows]
                self._add_deviations(k, Z[rows], columns[rows], r[rows], inverses, half, sums)

    def _add_deviations(
        self, k: int, Z: Array, columns: Array, w: Array, inverses: Array, half: Array, sums: Sums
    ) -> None:
        """Add completed deviations under the weights w (n,) to the sums of one component."""
        D = self._filled(k, Z, columns, inverses)
        sums.first[k] += w @ D
        sums.scatter[0 if self._is_one else k] += (D * w[:, None]).T @ D
        sums.half_log_det[k] += w @ half

    def _filled(self, k: int, Z: Array, columns: Array, inverses: Array) -> Array:
        """Return the completed deviations (n, d) from one mean, given P_mm^{-1} (c, c, n)."""
        D: Array = Z - self._means[k]
        np.put_along_axis(D, columns, 0.0, axis=1)
        U = D @ self._precision[0 if self._is_one else k]
        u = np.take_along_axis(U, columns, axis=1).T
        means = np.einsum("ijn,jn->in", inverses, u)
        np.put_along_axis(D, columns, -means.T, axis=1)
        return D

    def completed(self, component: int, Z: Array, columns: Array) -> Array:
        """Return Z - mu of one component with its conditional mean where values are missing."""
        out, count = np.empty_like(Z), columns.shape[1]
        g = 0 if self._is_one else component
        size = max(32, tuning().missing.side_by_side // max(count**2, Z.shape[1]))
        for rows in blocks(len(Z), size):
            own = columns[rows]
            inverses, _ = inverted(gathered(self._precision[g : g + 1], own)[0])
            out[rows] = self._filled(component, Z[rows], own, inverses)
        return out


def gathered(matrices: Array, columns: Array) -> Array:
    """Return the rows and columns (n, c) of matrices (g, d, d), rows of data last, (g, c, c, n).

    Examples
    --------
    >>> gathered(np.arange(4.0).reshape(1, 2, 2), np.array([[0], [1]])).tolist()
    [[[[0.0, 3.0]]]]
    """
    g, d, _ = matrices.shape
    places = np.ascontiguousarray(columns.T)
    flat = places[:, None] * d + places[None, :]
    return np.asarray(np.take(matrices.reshape(g, d * d), flat, axis=1))


def scattered(matrices: Array, columns: Array, d: int) -> Array:
    """Add matrices (c, c, n) at their columns (n, c), (d, d).

    Examples
    --------
    >>> scattered(np.array([[[2.0, 3.0]]]), np.array([[1], [1]]), 2).tolist()
    [[0.0, 0.0], [0.0, 5.0]]
    """
    places = np.ascontiguousarray(columns.T)
    flat = places[:, None] * d + places[None, :]
    return np.bincount(flat.ravel(), matrices.ravel(), d * d).reshape(d, d)


def inverted(A: Array) -> tuple[Array, Array]:
    """Invert positive definite matrices (c, c, n) in place, n of them side by side.

    By Gauss-Jordan steps, which need no exchange of rows where matrices are positive definite.

    Returns
    -------
    (c, c, n) array
    (n,) array
        Half the logarithms of the determinants of the inverses.

    Examples
    --------
    >>> inverses, half = inverted(np.array([[[4.0]]]))
    >>> inverses.tolist(), half.round(3).tolist()
    ([[[0.25]]], [-0.693])
    """
    work = np.empty_like(A)
    half = np.zeros(A.shape[2])
    for j in range(len(A)):
        half -= 0.5 * np.log(A[j, j])
        pivot = 1.0 / A[j, j]
        row = A[j] * pivot
        column = A[:, j].copy()
        np.multiply(column[:, None], row[None, :], out=work)
        A -= work
        A[j] = row
        A[:, j] = -column * pivot
        A[j, j] = pivot
    return A, half
