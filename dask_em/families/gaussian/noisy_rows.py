"""Rows of known noise under Gaussian components: densities, and what is expected without noise.

A row is x = v + e with v ~ N(mu, Sigma) and e ~ N(0, S), S its own. With Sigma = C C^T,
y = C^{-1} (x - mu) and the noise relative to the component, M = C^{-1} S C^{-T}, the density is
that of y under N(0, I + M), and given x the row without noise is normal about mu + C Q y with the
covariance C (I - Q) C^T, where Q = (I + M)^{-1} (Bovy, Hogg and Roweis, Annals of Applied
Statistics 5, 2011, section 3). The eigenvalues of Q lie between 0 and 1, whatever S and Sigma are,
so that no digits are lost where the noise is small, large, or singular.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ...core.additive import Array
from ...core.family import blocks
from ...core.tuning import tuning
from .factors import inverse_factors
from .observed import Sums
from .single_rows import inverted


class NoisyRows(ABC):
    """Compute with rows of known noise, in whitened coordinates.

    Noise (m, s) is in the units of the data, of each row, or one for all (m = 1): variances, or
    the lower triangles of matrices.
    """

    @abstractmethod
    def log_prob(self, Z: Array, noise: Array) -> Array:
        """Return -(log |Sigma + S| + squared Mahalanobis distance) / 2 of rows (n, d), (k, n)."""

    @abstractmethod
    def add(self, Z: Array, noise: Array, resp: Array, sums: Sums) -> None:
        """Add the sums of what is expected without noise under `resp` (k, n).

        To `half_log_det` is added what `CompletedStatistics.entropy` sums, the
        log-density of S relative to C among it: r (log |Q| - q^T M q + tr(I - Q)) / 2, q = Q y.
        """

    @abstractmethod
    def finish(self, sums: Sums) -> None:
        """Add to the same `sums` what `add` has put off."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that it holds, at most, beside a block of rows and a few of its size."""


class NoisyDiagonals(NoisyRows):
    """Variances of the noise beside those of components: each column by itself.

    Parameters
    ----------
    means, factor : (k, d) arrays
        Factors are standard deviations.
    scale : (d,) array
        Widths of the whitened coordinates in the units of the data.

    Examples
    --------
    >>> one = NoisyDiagonals(np.zeros((1, 1)), np.ones((1, 1)), np.ones(1))
    >>> Z, noise = np.array([[2.0]]), np.array([[1.0]])
    >>> one.log_prob(Z, noise).round(6).tolist()
    [[-1.346574]]
    >>> sums = Sums(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1))
    >>> one.add(Z, noise, np.ones((1, 1)), sums)
    >>> sums.first.tolist(), sums.scatter.tolist()
    ([[1.0]], [[1.5]])
    """

    def __init__(self, means: Array, factor: Array, scale: Array) -> None:
        self._means, self._factor = means, factor
        self._per_noise = (factor * scale) ** -2.0

    def finish(self, sums: Sums) -> None:
        """Do nothing: all was added."""

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, at most, beside a block of rows and a few of its size."""
        return int(2 * self._per_noise.nbytes)

    def log_prob(self, Z: Array, noise: Array) -> Array:
        """Return -(log |Sigma + S| + squared Mahalanobis distance) / 2 of rows (n, d), (k, n)."""
        out = np.empty((len(self._means), len(Z)))
        for k, factor in enumerate(self._factor):
            squares = ((Z - self._means[k]) / factor) ** 2
            relative = noise * self._per_noise[k]
            squares /= 1.0 + relative
            log_det = np.log1p(relative).sum(axis=1) + 2 * np.log(factor).sum()
            out[k] = -0.5 * (squares.sum(axis=1) + log_det)
        return out

    def add(self, Z: Array, noise: Array, resp: Array, sums: Sums) -> None:
        """Add the sums of what is expected without noise under `resp` (k, n)."""
        for k, r in enumerate(resp):
            rows = np.flatnonzero(r)
            w, factor = r[rows], self._factor[k]
            relative = (noise if len(noise) == 1 else noise[rows]) * self._per_noise[k]
            kept = 1.0 / (1.0 + relative)
            q = (Z[rows] - self._means[k]) / factor * kept
            spread = np.broadcast_to(relative * kept, q.shape)
            squares = q * q
            sums.first[k] += factor * (w @ q)
            within = factor**2 * (w @ (squares + spread))
            # One variance for all columns has one sum.
            sums.scatter[k] += within if sums.scatter.ndim == 2 else within.sum()
            entropy = spread - squares * relative - np.log1p(relative)
            sums.half_log_det[k] += 0.5 * float(w @ entropy.sum(axis=1))


class NoisyMatrices(NoisyRows):
    """Covariances of noise, or of components, that are matrices: one factorization a row.

    Many rows go through each step side by side. Scatters are (g, d, d).

    Parameters
    ----------
    means : (k, d) array
    factor : (g, d, d) array
        Lower triangular factors of the covariances: of each component, or one for all.
    inverse_scale : (d,) or (d, d) array
        From the units of the data to whitened coordinates.

    Examples
    --------
    >>> factor = np.linalg.cholesky(np.array([[[1.0, 0.5], [0.5, 1.0]]]))
    >>> one = NoisyMatrices(np.zeros((1, 2)), factor, np.ones(2))
    >>> Z, noise = np.array([[2.0, 0.0]]), np.array([[0.0, 1.0]])
    >>> one.log_prob(Z, noise).round(6).tolist()
    [[-2.565522]]
    >>> sums = Sums(np.zeros((1, 2)), np.zeros((1, 2, 2)), np.zeros(1))
    >>> one.add(Z, noise, np.ones((1, 1)), sums)
    >>> one.finish(sums)
    >>> sums.first.round(6).tolist(), sums.scatter.round(6).tolist()
    ([[2.0, 0.571429]], [[[4.0, 1.142857], [1.142857, 0.755102]]])
    """

    def __init__(self, means: Array, factor: Array, inverse_scale: Array) -> None:
        g, d, _ = factor.shape
        self._means, self._factor = means, np.tril(factor)
        self._inverse = inverse_factors(self._factor)
        # From the units of the data to those of each component.
        within = inverse_scale.ndim == 1
        self._from_data = self._inverse * inverse_scale if within else self._inverse @ inverse_scale
        self._half_log_det = np.log(np.einsum("gii->gi", factor)).sum(axis=1)
        self._inner = np.zeros((g, d, d))

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, at most, beside a block of rows and a few of its size."""
        return int(4 * self._factor.nbytes + 6 * 8 * tuning().noisy_rows.side_by_side)

    def _pieces(self, n: int) -> list[slice]:
        constants, d = tuning().noisy_rows, self._means.shape[1]
        return [*blocks(n, max(constants.least_rows, constants.side_by_side // d**2))]

    def _relative(self, g: int, noise: Array) -> Array:
        """Return I + M of noise (m, s) relative to one factor, rows last, (d, d, m)."""
        A, d = self._from_data[g], self._means.shape[1]
        if noise.shape[1] == d:
            outer = (A[:, None, :] * A[None, :, :]).reshape(d * d, d)
            found = (outer @ noise.T).reshape(d, d, len(noise))
        else:
            half = A @ unpacked(noise, d).reshape(d, -1)
            half = half.reshape(d, d, -1).transpose(1, 0, 2).reshape(d, -1)
            found = (A @ half).reshape(d, d, -1)
        diagonal = np.arange(d)
        found[diagonal, diagonal] += 1.0
        return np.asarray(found)

    def _deviations(self, k: int, Z: Array) -> Array:
        """Return rows (n, d) in the coordinates of one component, rows last, (d, n)."""
        return np.asarray(self._inverse[k % len(self._inverse)] @ (Z - self._means[k]).T)

    def log_prob(self, Z: Array, noise: Array) -> Array:
        """Return -(log |Sigma + S| + squared Mahalanobis distance) / 2 of rows (n, d), (k, n)."""
        out, one = np.empty((len(self._means), len(Z))), len(self._factor) == 1
        for rows in self._pieces(len(Z)):
            own = noise if len(noise) == 1 else noise[rows]
            shared = self._relative(0, own) if one else None
            for k in range(len(out)):
                # What is shared is worked on, too.
                T = self._relative(k, own) if shared is None else shared.copy()
                log_det, squares = eliminated(T, self._deviations(k, Z[rows]))
                out[k, rows] = -0.5 * (squares + log_det) - self._half_log_det[0 if one else k]
        return out

    def add(self, Z: Array, noise: Array, resp: Array, sums: Sums) -> None:
        """Add the sums of what is expected without noise under `resp` (k, n)."""
        one = len(self._factor) == 1
        for k, r in enumerate(resp):
            responsible = np.flatnonzero(r)
            for piece in self._pieces(len(responsible)):
                some = responsible[piece]
                own = noise if len(noise) == 1 else noise[some]
                self._add(k, 0 if one else k, Z[some], own, r[some], sums)

    def _add(self, k: int, g: int, Z: Array, noise: Array, w: Array, sums: Sums) -> None:
        """Add rows with the weights w (n,) to the sums of one component."""
        y = self._deviations(k, Z)
        Q, half = inverted(self._relative(g, noise))
        q = np.einsum("ijn,jn->in", Q, y)
        total = float(w.sum())
        kept = Q[:, :, 0] * total if len(noise) == 1 else Q @ w
        sums.first[k] += self._factor[g] @ (q @ w)
        self._inner[g] += (q * w) @ q.T - kept
        self._inner[g][np.diag_indices(len(q))] += total
        # M q = y - q.
        entropy = half - 0.5 * (q * (y - q)).sum(axis=0)
        sums.half_log_det[k] += w @ entropy + 0.5 * (len(q) * total - np.trace(kept))

    def finish(self, sums: Sums) -> None:
        """Add the scatters that `add` summed in the coordinates of the components."""
        sums.scatter[:] += self._factor @ self._inner @ self._factor.transpose(0, 2, 1)
        self._inner[:] = 0.0


def eliminated(T: Array, y: Array) -> tuple[Array, Array]:
    """Return log |T| and y^T T^{-1} y of definite matrices (d, d, m) and vectors (d, n), in place.

    m is n, or 1 for one matrix.

    Examples
    --------
    >>> log_det, squares = eliminated(np.array([[[4.0]]]), np.array([[2.0, 4.0]]))
    >>> log_det.round(4).tolist(), squares.tolist()
    ([1.3863], [1.0, 4.0])
    """
    log_det, squares = np.zeros(T.shape[2]), np.zeros(y.shape[1])
    for j in range(len(T)):
        pivot, t = T[j, j], y[j]
        log_det += np.log(pivot)
        squares += t * t / pivot
        row = T[j, j + 1 :] / pivot
        y[j + 1 :] -= row * t
        T[j + 1 :, j + 1 :] -= T[j + 1 :, j, None] * row
    return log_det, squares


def unpacked(triangles: Array, d: int) -> Array:
    """Return symmetric matrices of their lower triangles, rows last, (d, d, n).

    Examples
    --------
    >>> unpacked(np.array([[1.0, 2.0, 3.0]]), 2)[:, :, 0].tolist()
    [[1.0, 2.0], [2.0, 3.0]]
    """
    i, j = np.tril_indices(d)
    out = np.empty((d, d, len(triangles)))
    out[i, j] = out[j, i] = triangles.T
    return out
