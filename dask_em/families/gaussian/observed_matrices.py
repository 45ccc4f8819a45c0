"""Rows with missing values under covariance matrices, by patterns and one by one.

Rows of one pattern share a factor of Sigma_oo. Of a pattern with few rows there is nothing to
share, and the precision P = Sigma^{-1} is quicker: with zero deviations where values are missing
and u = P (x - mu), the squared distance of the rest is (x - mu)^T u - u_m^T P_mm^{-1} u_m, its
volume |Sigma| |P_mm|, the conditional mean mu_m - P_mm^{-1} u_m, and the covariance P_mm^{-1}. So
only matrices as large as the number of missing values are factorized, those of many rows side by
side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...core.additive import Array
from ...core.family import array_bytes, blocks
from ...core.tuning import tuning
from .factors import inverse_factors
from .observed import ObservedColumns, Sums
from .patterns import Patterns


@dataclass(frozen=True)
class _Pattern:
    """What rows of one pattern share, of g covariances: one of each component, or one.

    Attributes
    ----------
    observed, missing : arrays of int
        The columns.
    whitener : (g, o, o) array
        W with W Sigma_oo W^T = 1.
    white_means : (k, o) array
        W mu_o.
    log_det : (g, 1) array
        log |Sigma_oo| / 2.
    regression : (g, m, o) array
        B = Sigma_mo Sigma_oo^{-1}.
    conditional : (g, m, m) array
        C = Sigma_mm - B Sigma_om.
    """

    observed: Array
    missing: Array
    whitener: Array
    white_means: Array
    log_det: Array
    regression: Array
    conditional: Array

    @classmethod
    def of(cls, missing: Array, factor: Array, means: Array) -> _Pattern:
        """Return what rows share that lack these columns (d,) of bool.

        The rows C_o of the Cholesky factors are made triangular by rotations, which keep all
        digits: Sigma_oo = C_o C_o^T, whose factor is R^T of C_o^T = Q R.
        """
        m, o = np.flatnonzero(missing), np.flatnonzero(~missing)
        rotation, upper = np.linalg.qr(factor[:, o].transpose(0, 2, 1))
        lower = upper.transpose(0, 2, 1)
        whitener = np.ascontiguousarray(inverse_factors(lower) if len(o) else lower)
        along = factor[:, m] @ rotation
        apart = factor[:, m] - along @ rotation.transpose(0, 2, 1)
        diagonal = np.abs(np.einsum("goo->go", upper))
        return cls(
            o,
            m,
            whitener,
            (whitener @ means[:, o, None])[:, :, 0],
            np.log(diagonal).sum(axis=1)[:, None],
            along @ whitener,
            apart @ apart.transpose(0, 2, 1),
        )

    @property
    def nbytes(self) -> int:
        return array_bytes(*vars(self).values())

    @property
    def stacked(self) -> Array:
        """The whiteners, one below the other, (g o, o)."""
        g, o, _ = self.whitener.shape
        return self.whitener.reshape(g * o, o)

    def filled(self, Z: Array, means: Array, which: Array | slice) -> Array:
        """Return the deviations of rows (n, d) from some means (a, d), completed, (a, n, d)."""
        seen = Z[None][:, :, self.observed] - means[:, None, self.observed]
        D = np.empty((len(means), *Z.shape))
        D[:, :, self.observed] = seen
        one = len(self.regression) == 1
        B = self.regression if one else self.regression[which]
        D[:, :, self.missing] = seen @ B.transpose(0, 2, 1)
        return D


class ObservedMatrices(ObservedColumns):
    """Compute with rows whose values are missing under full covariances, or one that is shared.

    Parameters
    ----------
    means : (k, d) array
    factor : (g, d, d) array
        Lower triangular factors of the covariances: of each component, or one.

    Examples
    --------
    >>> factor = np.linalg.cholesky(np.array([[[1.0, 0.5], [0.5, 1.0]]]))
    >>> one = ObservedMatrices(np.zeros((1, 2)), factor)
    >>> rows, Z = Patterns.of(np.array([[False, True]])), np.array([[2.0, 0.0]])
    >>> one.log_prob(Z, rows).round(9).tolist(), one.completed(0, Z, rows).round(9).tolist()
    ([[-2.0]], [[2.0, 1.0]])
    >>> sums = Sums(np.zeros((1, 2)), np.zeros((1, 2, 2)), np.zeros(1))
    >>> one.add(Z, rows, np.ones((1, 1)), sums)
    >>> sums.scatter.round(9).tolist()
    [[[4.0, 2.0], [2.0, 1.75]]]
    """

    def __init__(self, means: Array, factor: Array) -> None:
        self._means, self._factor = means, factor
        inverse = inverse_factors(factor)
        self._precision = np.asarray(inverse.transpose(0, 2, 1) @ inverse)
        self._half_log_det = np.log(np.einsum("gii->gi", factor)).sum(axis=1)[:, None]
        self._shared: dict[bytes, _Pattern] = {}
        self._held = 0
        least = tuning().missing.least_rows
        self._least = least if self._precision_is_safe else 1

    @property
    def _precision_is_safe(self) -> bool:
        """Whether the inverse of each covariance, in units of its columns, keeps its digits."""
        widths = np.sqrt((self._factor**2).sum(axis=2))
        sizes = np.abs(self._precision) * widths[:, :, None] * widths[:, None, :]
        loss = np.finfo(np.float64).eps * sizes.sum(axis=2).max() * self._means.shape[1]
        return bool(loss <= tuning().numerics.allowed_loss)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, at most, beside a block of rows."""
        own = array_bytes(self._precision)
        return int(own + tuning().missing.pattern_bytes + 6 * 8 * tuning().missing.piece)

    @property
    def _is_one(self) -> bool:
        return len(self._factor) == 1

    def _pattern(self, missing: Array) -> _Pattern:
        key = np.packbits(missing).tobytes()
        found = self._shared.get(key)
        if found is None:
            found = _Pattern.of(missing, self._factor, self._means)
            if self._held + found.nbytes > tuning().missing.pattern_bytes:
                self._shared.clear()
                self._held = 0
            self._shared[key] = found
            self._held += found.nbytes
        return found

    def _rows_of_piece(self, n_components: int) -> int:
        return max(16, int(tuning().missing.piece // (n_components * self._means.shape[1])))

    # -- the density -------------------------------------------------------------------

    def log_prob(self, Z: Array, patterns: Patterns) -> Array:
        """Return -(log |Sigma_oo| + squared Mahalanobis distance) / 2 of each row, (k, n)."""
        k = len(self._means)
        out = np.empty((k, len(Z)))
        size = self._rows_of_piece(k)
        for group in patterns.groups(self._least):
            shared = self._pattern(patterns.missing[group.start])
            for rows in _cut(group, size):
                z = Z[rows][:, shared.observed].T
                white = (shared.stacked @ z).reshape(*shared.whitener.shape[:2], z.shape[1])
                white = white - shared.white_means[:, :, None]
                squares = np.einsum("kon,kon->kn", white, white)
                out[:, rows] = -0.5 * squares - shared.log_det
        for rare, columns in patterns.others(self._least):
            for piece in blocks(len(rare), size):
                chosen = rare[piece]
                seen = ~patterns.missing[chosen]
                out[:, chosen] = self._log_prob_each(Z[chosen], seen, columns[piece])
        return out

    def _log_prob_each(self, Z: Array, seen: Array, columns: Array) -> Array:
        """Return what `log_prob` does of rows that lack as many values each, (k, n)."""
        n, d = Z.shape
        count = columns.shape[1]
        if count == d:
            return np.zeros((len(self._means), n))
        D = Z[None] - self._means[:, None, :]
        D *= seen
        U = D @ self._precision
        squares = np.einsum("knd,knd->kn", D, U)
        u = np.take_along_axis(U, columns[None], axis=2).transpose(0, 2, 1).copy()
        A = _gathered(self._precision, columns)
        log_det = np.zeros((len(A), n))
        for j in range(count):
            pivot, t = A[:, j, j], u[:, j]
            log_det += np.log(pivot)
            squares -= t * t / pivot
            if j + 1 < count:
                row = A[:, j, j + 1 :] / pivot[:, None]
                u[:, j + 1 :] -= row * t[:, None]
                A[:, j + 1 :, j + 1 :] -= A[:, j + 1 :, None, j] * row[:, None]
        return np.asarray(-0.5 * (squares + log_det) - self._half_log_det)

    # -- sums ----------------------------------------------------------------------------

    def add(self, Z: Array, patterns: Patterns, resp: Array, sums: Sums) -> None:
        """Add the completed sums under `resp` (k, n) to `sums`."""
        # A view: one scatter for all is that of the first.
        sums = Sums(sums.first, sums.scatter.reshape(self._factor.shape), sums.half_log_det)
        size = self._rows_of_piece(len(self._means))
        for group in patterns.groups(self._least):
            shared = self._pattern(patterns.missing[group.start])
            for rows in _cut(group, size):
                self._add_alike(shared, Z[rows], resp[:, rows], sums)
        for rare, columns in patterns.others(self._least):
            for piece in blocks(len(rare), tuning().missing.lanes):
                chosen = rare[piece]
                seen = ~patterns.missing[chosen]
                self._add_each(Z[chosen], seen, columns[piece], resp[:, chosen], sums)

    def _add_alike(self, shared: _Pattern, Z: Array, resp: Array, sums: Sums) -> None:
        """Add rows of one pattern to sums of the components that have a part in them."""
        which = np.flatnonzero(resp.any(axis=1))
        r = resp[which]
        D = shared.filled(Z, self._means[which], which)
        weighted = D * r[:, :, None]
        sums.first[which] += weighted.sum(axis=1)
        products = weighted.transpose(0, 2, 1) @ D
        totals = r.sum(axis=1)
        half = np.broadcast_to((self._half_log_det - shared.log_det)[:, 0], len(resp))
        sums.half_log_det[which] += totals * half[which]
        m = np.ix_(shared.missing, shared.missing)
        if self._is_one:
            sums.scatter[0] += products.sum(axis=0)
            sums.scatter[0][m] += totals.sum() * shared.conditional[0]
            return
        sums.scatter[which] += products
        for k, total in zip(which, totals, strict=True):
            sums.scatter[k][m] += total * shared.conditional[k]

    def _add_each(self, Z: Array, seen: Array, columns: Array, resp: Array, sums: Sums) -> None:
        """Add rows that lack as many values each."""
        d = Z.shape[1]
        places = (columns[:, :, None] * d + columns[:, None, :]).transpose(1, 2, 0)

        def add_covariances(inverses: Array, weights: Array, cells: Array, g: int) -> None:
            found = np.bincount(cells.ravel(), (inverses * weights).ravel(), d * d)
            sums.scatter[g] += found.reshape(d, d)

        if self._is_one:
            every, all_half = _inverses(_gathered(self._precision, columns)[0])
            add_covariances(every, resp.sum(axis=0), places, 0)
        for k, r in enumerate(resp):
            chosen = np.flatnonzero(r)
            if not len(chosen):
                continue
            own, w, g = columns[chosen], r[chosen], 0 if self._is_one else k
            if self._is_one:
                inverses, half = every[:, :, chosen], all_half[chosen]
            else:
                inverses, half = _inverses(_gathered(self._precision[k : k + 1], own)[0])
                add_covariances(inverses, w, places[:, :, chosen], k)
            D = self._filled_each(k, Z[chosen], seen[chosen], own, inverses)
            sums.first[k] += w @ D
            sums.scatter[g] += (D * w[:, None]).T @ D
            sums.half_log_det[k] += w @ half

    def _filled_each(self, k: int, Z: Array, seen: Array, columns: Array, inverses: Array) -> Array:
        """Return the completed deviations (n, d) from one mean, given P_mm^{-1} (c, c, n)."""
        D: Array = Z - self._means[k]
        D *= seen
        U = D @ self._precision[0 if self._is_one else k]
        u = np.take_along_axis(U, columns, axis=1).T
        means = np.einsum("ijn,jn->in", inverses, u)
        np.put_along_axis(D, columns, -means.T, axis=1)
        return D

    def completed(self, component: int, Z: Array, patterns: Patterns) -> Array:
        """Return Z - mu of one component with its conditional mean where values are missing."""
        out = np.empty_like(Z)
        mean = self._means[component : component + 1]
        for group in patterns.groups(self._least):
            shared = self._pattern(patterns.missing[group.start])
            which = slice(component, component + 1)
            for rows in _cut(group, self._rows_of_piece(1)):
                out[rows] = shared.filled(Z[rows], mean, which)[0]
        g = 0 if self._is_one else component
        for rare, columns in patterns.others(self._least):
            for piece in blocks(len(rare), tuning().missing.lanes):
                chosen, own = rare[piece], columns[piece]
                inverses, _ = _inverses(_gathered(self._precision[g : g + 1], own)[0])
                seen = ~patterns.missing[chosen]
                out[chosen] = self._filled_each(component, Z[chosen], seen, own, inverses)
        return out


def _cut(group: slice, size: int) -> list[slice]:
    """Cut the rows of a group into pieces of at most `size`."""
    n = group.stop - group.start
    return [slice(group.start + p.start, group.start + p.stop) for p in blocks(n, size)]


def _gathered(matrices: Array, columns: Array) -> Array:
    """Return the rows and columns (n, c) of matrices (g, d, d), rows of data last, (g, c, c, n)."""
    g, d, _ = matrices.shape
    places = np.ascontiguousarray(columns.T)
    flat = places[:, None] * d + places[None, :]
    return np.asarray(np.take(matrices.reshape(g, d * d), flat, axis=1))


def _inverses(A: Array) -> tuple[Array, Array]:
    """Invert positive definite matrices (c, c, n) in place, n of them side by side.

    By Gauss-Jordan steps, which need no exchange of rows where matrices are positive definite.

    Returns
    -------
    (c, c, n) array
    (n,) array
        Half the logarithms of the determinants of the inverses.
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
