"""Rows with missing values under covariance matrices: those of one pattern share a factor.

Of a pattern with few rows there is nothing to share: see `single_rows`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...core.additive import Array
from ...core.family import array_bytes, blocks
from ...core.tuning import tuning
from .factors import inverse_factors, symmetric_pairs, symmetric_products
from .matrices import Full
from .numpy_kernel import block_rows
from .observed import ObservedColumns, Sums
from .patterns import Patterns
from .single_rows import SingleRows


@dataclass(frozen=True)
class _Pattern:
    """Hold all that rows of one pattern share, of g covariances: one of each component, or one.

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
    theta : (k, 1 + F) array
        Of log p(x_o) = theta (1, x_o, x_o x_o^T), but for (2 pi)^(-o / 2).
    """

    observed: Array
    missing: Array
    whitener: Array
    white_means: Array
    log_det: Array
    regression: Array
    conditional: Array
    theta: Array

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
        log_det = np.log(np.abs(np.einsum("goo->go", upper))).sum(axis=1)[:, None]
        white_means = (whitener @ means[:, o, None])[:, :, 0]
        i, j = symmetric_pairs(len(o))
        precision = (whitener.transpose(0, 2, 1) @ whitener)[:, i, j]
        constant = -0.5 * (white_means**2).sum(axis=1, keepdims=True) - log_det
        linear = (white_means[:, None] @ whitener)[:, 0]
        quadratic = np.where(i == j, -0.5, -1.0) * precision
        quadratic = np.broadcast_to(quadratic, (len(means), len(i)))
        return cls(
            o,
            m,
            whitener,
            white_means,
            log_det,
            along @ whitener,
            apart @ apart.transpose(0, 2, 1),
            np.concatenate([constant, linear, quadratic], axis=1),
        )

    @property
    def nbytes(self) -> int:
        return array_bytes(*vars(self).values())

    @property
    def stacked(self) -> Array:
        """The whiteners, one below the other, (g o, o)."""
        g, o, _ = self.whitener.shape
        return self.whitener.reshape(g * o, o)

    def features(self, Z: Array) -> Array:
        """Return ones, the observed columns of rows (n, d) and their products, (1 + F, n)."""
        n, o = len(Z), len(self.observed)
        phi = np.empty((self.theta.shape[1], n))
        phi[0] = 1.0
        phi[1 : 1 + o] = Z.T[self.observed]
        if o:
            symmetric_products(phi[1 : 1 + o], np.empty((o + o // 2, n)), phi[1 + o :])
        return phi

    def scatter(self, sums: Array, means: Array) -> tuple[Array, Array]:
        """Return completed sums about the means, (k, d) and (k, d, d), of features' sums."""
        d, o = means.shape[1], len(self.observed)
        if o == 0:
            return np.zeros_like(means), np.zeros((len(means), d, d))
        totals, own = sums[:, 0], means[:, self.observed]
        of_products = Full.scatter_of_features(sums[:, 1 + o :], sums[:, 1 : 1 + o], totals, own)
        fill = np.zeros((len(self.regression), d, o))
        fill[:, self.observed, np.arange(o)] = 1.0
        fill[:, self.missing] = self.regression
        first = sums[:, 1 : 1 + o] - totals[:, None] * own
        return (fill @ first[:, :, None])[:, :, 0], fill @ of_products @ fill.transpose(0, 2, 1)

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
    features_allowed : bool
        Whether products of columns keep the digits of deviations from the means, which are quicker
        where rows share a pattern.
    compiled : bool
        Whether rows that share none go through loops of Numba.

    Attributes
    ----------
    means : (k, d) array
    by_features : bool
        Whether such products are used.
    precision : (g, d, d) array
    rows : SingleRows
        What computes rows that share no pattern.

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

    def __init__(
        self, means: Array, factor: Array, features_allowed: bool = False, compiled: bool = False
    ) -> None:
        # What stands above the diagonal means nothing.
        self.means, self._factor = means, np.tril(factor)
        self.by_features = features_allowed
        inverse = inverse_factors(factor)
        self.precision = np.asarray(inverse.transpose(0, 2, 1) @ inverse)
        self._half_log_det = np.log(np.einsum("gii->gi", factor)).sum(axis=1)[:, None]
        self.rows = rows_of(compiled)(self.means, self.precision, self._half_log_det)
        self._shared: dict[bytes, _Pattern] = {}
        # Of each of these, the sums of features that are still to be completed.
        self._totals: dict[bytes, Array] = {}
        self._held = 0
        least = tuning().missing.least_rows
        self._least = least if self._precision_is_safe else 1

    @property
    def covariances(self) -> Array:
        """Sigma of each component, or of all, (g, d, d)."""
        return np.asarray(self._factor @ self._factor.transpose(0, 2, 1))

    @property
    def half_log_det(self) -> Array:
        """log |Sigma| / 2 of each component, or of all, (g,)."""
        return np.asarray(self._half_log_det[:, 0])

    @property
    def compilable(self) -> bool:
        """Whether each component has a covariance, whose inverse keeps its digits."""
        return len(self._factor) == len(self.means) and self._precision_is_safe

    @property
    def _precision_is_safe(self) -> bool:
        """Whether the inverse of each covariance, in units of its columns, keeps its digits."""
        widths = np.sqrt((self._factor**2).sum(axis=2))
        sizes = np.abs(self.precision) * widths[:, :, None] * widths[:, None, :]
        loss = np.finfo(np.float64).eps * sizes.sum(axis=2).max() * self.means.shape[1]
        return bool(loss <= tuning().numerics.allowed_loss)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, at most, beside a block of rows."""
        own = array_bytes(self.precision)
        return int(own + tuning().missing.pattern_bytes + 6 * 8 * tuning().missing.piece)

    @property
    def _is_one(self) -> bool:
        return len(self._factor) == 1

    def _pattern(self, missing: Array) -> _Pattern:
        """Return what rows that lack these columns (d,) share, made once while there is room."""
        key = _key(missing)
        found = self._shared.get(key)
        if found is None:
            found = _Pattern.of(missing, self._factor, self.means)
            if self._held < tuning().missing.pattern_bytes:
                self._shared[key] = found
                self._held += found.nbytes + found.theta.nbytes
        return found

    def _rows_of_piece(self, n_components: int) -> int:
        return max(16, int(tuning().missing.piece // (n_components * self.means.shape[1])))

    # -- the density -------------------------------------------------------------------

    def log_prob(self, Z: Array, patterns: Patterns) -> Array:
        """Return -(log |Sigma_oo| + squared Mahalanobis distance) / 2 of each row, (k, n)."""
        k = len(self.means)
        out = np.empty((k, len(Z)))
        size = self._rows_of_piece(k)
        for group in patterns.groups(self._least):
            shared = self._pattern(patterns.missing[group.start])
            if self.by_features:
                for rows in _cut(group, block_rows(shared.theta.shape[1])):
                    out[:, rows] = shared.theta @ shared.features(Z[rows])
                continue
            for rows in _cut(group, size):
                z = Z[rows][:, shared.observed].T
                white = (shared.stacked @ z).reshape(*shared.whitener.shape[:2], z.shape[1])
                white = white - shared.white_means[:, :, None]
                squares = np.einsum("kon,kon->kn", white, white)
                out[:, rows] = -0.5 * squares - shared.log_det
        for rare, columns in patterns.others(self._least):
            out[:, rare] = self.rows.log_prob(Z[rare], columns)
        return out

    # -- sums ----------------------------------------------------------------------------

    def add(self, Z: Array, patterns: Patterns, resp: Array, sums: Sums) -> None:
        """Add the completed sums under `resp` (k, n) to `sums`."""
        sums = self._by_component(sums)
        size = self._rows_of_piece(len(self.means))
        for group in patterns.groups(self._least):
            shared = self._pattern(patterns.missing[group.start])
            if self.by_features:
                self._add_features(shared, Z[group], resp[:, group], sums)
                continue
            for rows in _cut(group, size):
                self._add_alike(shared, Z[rows], resp[:, rows], sums)
        for rare, columns in patterns.others(self._least):
            self.rows.add(Z[rare], columns, resp[:, rare], sums)

    def _add_alike(self, shared: _Pattern, Z: Array, resp: Array, sums: Sums) -> None:
        """Add rows of one pattern to sums of the components that have a part in them."""
        which = np.flatnonzero(resp.any(axis=1))
        r = resp[which]
        D = shared.filled(Z, self.means[which], which)
        weighted = D * r[:, :, None]
        first, products = weighted.sum(axis=1), weighted.transpose(0, 2, 1) @ D
        self._add_completed(shared, which, r.sum(axis=1), first, products, sums)

    def _add_features(self, shared: _Pattern, Z: Array, resp: Array, sums: Sums) -> None:
        """Add rows of one pattern by sums of products of their columns."""
        key = _key(~np.isin(np.arange(Z.shape[1]), shared.observed))
        totals = self._totals.get(key)
        if totals is None:
            totals = np.zeros_like(shared.theta)
        for rows in blocks(len(Z), block_rows(shared.theta.shape[1])):
            totals += resp[:, rows] @ shared.features(Z[rows]).T
        if key in self._shared:
            self._totals[key] = totals
        else:
            self._add_totals(shared, totals, sums)

    def finish(self, sums: Sums) -> None:
        """Complete the sums of features of patterns, and add them to the same `sums`."""
        sums = self._by_component(sums)
        for key, totals in self._totals.items():
            self._add_totals(self._shared[key], totals, sums)
        self._totals.clear()

    def _add_totals(self, shared: _Pattern, totals: Array, sums: Sums) -> None:
        first, products = shared.scatter(totals, self.means)
        which = np.arange(len(totals))
        self._add_completed(shared, which, totals[:, 0], first, products, sums)

    def _by_component(self, sums: Sums) -> Sums:
        """Return a view of the sums; one scatter for all is that of the first component."""
        return Sums(sums.first, sums.scatter.reshape(self._factor.shape), sums.half_log_det)

    def _add_completed(
        self,
        shared: _Pattern,
        which: Array,
        totals: Array,
        first: Array,
        products: Array,
        sums: Sums,
    ) -> None:
        """Add completed sums of some components over rows of one pattern, and r C."""
        sums.first[which] += first
        half = np.broadcast_to((self._half_log_det - shared.log_det)[:, 0], len(self.means))
        sums.half_log_det[which] += totals * half[which]
        m = np.ix_(shared.missing, shared.missing)
        if self._is_one:
            sums.scatter[0] += products.sum(axis=0)
            sums.scatter[0][m] += totals.sum() * shared.conditional[0]
            return
        sums.scatter[which] += products
        for k, total in zip(which, totals, strict=True):
            sums.scatter[k][m] += total * shared.conditional[k]

    def completed(self, component: int, Z: Array, patterns: Patterns) -> Array:
        """Return Z - mu of one component with its conditional mean where values are missing."""
        out = np.empty_like(Z)
        mean = self.means[component : component + 1]
        for group in patterns.groups(self._least):
            shared = self._pattern(patterns.missing[group.start])
            which = slice(component, component + 1)
            for rows in _cut(group, self._rows_of_piece(1)):
                out[rows] = shared.filled(Z[rows], mean, which)[0]
        for rare, columns in patterns.others(self._least):
            out[rare] = self.rows.completed(component, Z[rare], columns)
        return out


def rows_of(compiled: bool) -> type[SingleRows]:
    """Return what computes rows one by one, on NumPy or in compiled loops.

    Examples
    --------
    >>> rows_of(False).__name__
    'SingleRows'
    """
    if not compiled:
        return SingleRows
    from .compiled_rows import CompiledRows

    return CompiledRows


def _key(missing: Array) -> bytes:
    """Return the name of a pattern (d,) of bool."""
    return np.packbits(missing).tobytes()


def _cut(group: slice, size: int) -> list[slice]:
    """Cut the rows of a group into pieces of at most `size`."""
    n = group.stop - group.start
    return [slice(group.start + p.start, group.start + p.stop) for p in blocks(n, size)]
