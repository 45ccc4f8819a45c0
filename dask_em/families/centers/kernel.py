"""The kernel of centres on NumPy: one matrix product and an arg-max for each block of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.additive import Array
from ...core.family import Kernel
from ...core.tuning import tuning
from .statistics import CenterStatistics


def unit_rows(rows: Array) -> Array:
    """Divide rows (n, d) by their lengths; one of zeros stays.

    Examples
    --------
    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    # Squares of what is large or small would not be finite, or not positive.
    scaled = rows / np.where(largest > 0, largest, 1.0)
    lengths = np.sqrt(np.einsum("nd,nd->n", scaled, scaled))[:, None]
    return np.asarray(scaled / np.where(lengths > 0, lengths, 1.0))


class CentersKernel(Kernel[CenterStatistics]):
    """Find the nearest of K centres, and sum rows by their labels.

    The nearest centre has the largest c.x - |c|^2 / 2, one product of rows about the origin with
    the centres. The distance to it, and all that is summed, is of the rows themselves in float64:
    nothing cancels, and what float32 may get wrong is which of two equally near centres it is.

    Parameters
    ----------
    centers, origin : (k, d), (d,) arrays
    unit : float
    spherical : bool
    dtype : float64 or float32
        Of the products.
    """

    def __init__(
        self, centers: Array, origin: Array, unit: float, spherical: bool, dtype: Any = np.float64
    ) -> None:
        k, d = centers.shape
        self.centers, self.origin, self.spherical = centers, origin, spherical
        self._per_nat = unit**2
        self.dtype = np.dtype(dtype)
        self.block_rows = self._rows_of_block()
        self._halves = np.einsum("kd,kd->k", centers, centers) / -2
        self._prior = np.full(k, np.nan)
        self._n = 0
        self._make_room()
        self._counts = np.zeros(k)
        self._sums = CenterStatistics.zero(k, d)

    def _rows_of_block(self) -> int:
        """Return how many rows a block has."""
        sizes = tuning().centers_kernel
        rows = sizes.score_bytes // int(self.dtype.itemsize * len(self.centers))
        return min(max(rows // 8 * 8, sizes.least_rows), sizes.most_rows)

    def _make_room(self) -> None:
        """Make the buffers of a block of rows."""
        b, (k, d) = self.block_rows, self.centers.shape
        self._rows, self._deviations = np.empty((2, b, d))
        # A column of ones makes the constants a part of the product.
        self._Z = np.ones((b, d + 1), self.dtype)
        self._coefficients = np.empty((k, d + 1), self.dtype)
        self._scores = np.empty(b * k, self.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds once it has seen a whole block, without the family's arrays."""
        # What is gathered of a block in the order of its labels is as large as the block.
        return super().nbytes + self._sums.nbytes + 2 * 8 * self.block_rows * len(self.origin)

    def load(self, X: Array) -> None:
        """Take the rows X (b, d), b <= `block_rows`, as the current block."""
        self._n = b = len(X)
        rows = self._rows[:b]
        if self.spherical:
            rows[:] = unit_rows(np.asarray(X, dtype=np.float64))
        else:
            np.subtract(X, self.origin, out=rows, dtype=np.float64)
        self._Z[:b, :-1] = rows

    def _block(self) -> Array:
        """Return the rows of the block about the origin, (b, d)."""
        return self._rows[: self._n]

    def log_prob(self) -> Array:
        """Return -|x - c_k|^2 / u^2 of the current block (k, b), for the caller to overwrite."""
        rows = self._block()
        found = self.centers @ rows.T
        found += self._halves[:, None]
        found *= 2
        found -= np.einsum("bd,bd->b", rows, rows)
        np.minimum(found, 0.0, out=found)
        found /= self._per_nat
        return np.asarray(found)

    def assign(self, log_prior: Array) -> Array:
        """Return the nearest centre of each row of the block, (b,); of equal ones the first."""
        if not np.array_equal(log_prior, self._prior):
            self._prior = log_prior.copy()
            self._set_constants(self._halves + log_prior * (self._per_nat / 2))
        return self._nearest()

    def _set_constants(self, constants: Array) -> None:
        """Take what is added to the product of a row with each centre, (k,)."""
        self._coefficients[:, :-1] = self.centers
        self._coefficients[:, -1] = constants

    def _nearest(self) -> Array:
        b, k = self._n, len(self.centers)
        scores = self._scores[: b * k].reshape(b, k)
        np.matmul(self._Z[:b], self._coefficients.T, out=scores)
        return np.asarray(scores.argmax(axis=1))

    def add_assigned(self, log_prior: Array, weight: Array | None) -> tuple[float, Array]:
        """Give each row of the block to its nearest centre, and add the sums by label.

        Returns
        -------
        float
            sum_n w_n max_k (log prior_k - |x_n - c_k|^2 / u^2).
        (k,) array
            sum_n w_n of the rows of each centre.
        """
        self._counts[:] = 0
        inertia = self._add(self.assign(log_prior), weight)
        return float(self._counts @ log_prior) - inertia / self._per_nat, self._counts

    def _add(self, labels: Array, weight: Array | None) -> float:
        """Add the sums of the block by its labels (b,); return what it adds to the inertia."""
        rows, sums = self._block(), self._sums
        deviations = self._deviations[: self._n]
        np.take(self.centers, labels, axis=0, out=deviations, mode="clip")
        np.subtract(rows, deviations, out=deviations)
        squares = np.einsum("bd,bd->b", deviations, deviations)
        self._note_far(labels, squares)
        if weight is not None:
            deviations *= weight[:, None]
            squares = squares * weight
        order = np.argsort(labels, kind="stable")
        ordered = labels[order]
        begins = np.flatnonzero(np.diff(ordered, prepend=-1))
        sums.first[ordered[begins]] += np.add.reduceat(deviations[order], begins)
        sums.squares[:] += np.bincount(labels, squares, len(self.centers))
        self._counts += np.bincount(labels, weight, len(self.centers))
        return float(squares.sum())

    def _note_far(self, labels: Array, squares: Array) -> None:
        """Keep the rows of the block that are farther from their centres than those before."""
        sums = self._sums
        found = np.flatnonzero(squares > sums.far_squares[labels])
        if len(found) == 0:
            return
        # The farthest of each label comes last, and of equal ones the first.
        found = found[np.lexsort((-found, squares[found]))]
        sums.far_squares[labels[found]] = squares[found]
        sums.far[labels[found]] = self._block()[found]

    def accumulate(self, resp: Array) -> None:
        """Add the current block's sums under `resp` (k, b)."""
        sums, rows, totals = self._sums, self._block(), resp.sum(axis=1)
        distances = self.log_prob() * -self._per_nat
        sums.first[:] += resp @ rows - totals[:, None] * self.centers
        sums.squares[:] += np.einsum("kb,kb->k", resp, distances)
        labels = resp.argmax(axis=0)
        mine = resp[labels, np.arange(len(rows))] > 0
        self._note_far(labels, np.where(mine, distances[labels, np.arange(len(rows))], 0.0))

    def statistics(self) -> CenterStatistics:
        """Return the sums over all blocks accumulated so far."""
        one = self._sums
        return CenterStatistics(
            one.first.copy(), one.squares.copy(), one.far.copy(), one.far_squares.copy()
        )
