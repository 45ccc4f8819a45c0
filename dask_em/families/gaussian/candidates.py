"""Sums of many Gaussian components of which few count for a row: the extra `fast`.

A component whose joint density is below e^-60 of a row's largest adds nothing to any sum. Lower
bounds on the distances of a block's rows, one product in float32 for all components, rule most of
these out where components lie apart; the component of the largest bound is computed first, and
what the row then needs is known. What is left is listed by component and computed exactly. All
that is decided is decided by the rows of the block and the parameters alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from ...core.additive import Array
from ...core.family import Kernel, array_bytes
from ...core.responsibilities import NEGLIGIBLE
from ...core.tuning import tuning
from . import candidate_loops as loops
from . import simd
from .compiled_kernel import CentredKernel, FeaturesKernel, pack_groups, round_up
from .diagonals import Diagonal
from .parameters import GaussianParameters
from .statistics import GaussianStatistics


class Listed(ABC):
    """What computes listed pairs of rows and components, and sums over them."""

    @abstractmethod
    def compute(self, Z: Array, pairs: Pairs, values: Array) -> None:
        """Write the log-densities of pairs of whitened rows Z (b, D), but for those known."""

    @abstractmethod
    def add(self, Z: Array, pairs: Pairs, resp: Array) -> None:
        """Add the sums of pairs under `resp` (pairs,)."""

    @abstractmethod
    def statistics(self) -> GaussianStatistics | None:
        """Return the sums so far, where they are no part of another kernel's."""

    @abstractmethod
    def held_bytes(self, rows: int) -> int:
        """Bytes that it holds for blocks of so many rows."""


class Pairs(NamedTuple):
    """Pairs of rows and components, by component.

    Attributes
    ----------
    starts, rows : (k + 1,), (pairs,) arrays
        Those of k are rows[starts[k] : starts[k + 1]].
    known : (k + 1,) array
        Of how many leading pairs of each component the values are known: the difference of two.
    """

    starts: Array
    rows: Array
    known: Array


class ListedMatrices(Listed):
    """Pairs under full covariances, in the arrays of a kernel that has them.

    Parameters
    ----------
    kernel : CentredKernel
        In float64.
    rows : int
        Of a block, at most.
    shared : bool
        Whether the sums of the kernel are counted elsewhere.
    """

    def __init__(self, kernel: CentredKernel, rows: int, shared: bool) -> None:
        d = kernel.gaussian.n_features
        width, padded = simd.tile_columns(np.float64), round_up(d, simd.lanes(np.float64))
        self._kernel, self._shared = kernel, shared
        self._ones = np.zeros(padded)
        self._ones[:d] = 1.0
        # Reading whole vectors goes beyond the last row.
        self._gathered = np.zeros(width * d + padded)
        self._placed = np.empty((width, padded))
        self._columns = np.empty((1, d, width))
        self._out = np.empty(width)
        self._offsets, self._roots = np.empty(rows + 1, np.int64), np.empty(rows + 1)

    def held_bytes(self, rows: int) -> int:
        """Bytes that it holds for blocks of so many rows."""
        own = 0 if self._shared else self._kernel.nbytes
        return array_bytes(*vars(self).values()) + own

    def compute(self, Z: Array, pairs: Pairs, values: Array) -> None:
        """Write the log-densities of pairs of whitened rows Z (b, D), but for those known."""
        loops.compute_matrices(
            *self._kernel.packed, Z, self._kernel.gaussian.n_features, *pairs, self._ones,
            self._gathered, self._placed, self._columns, self._out, values,
        )  # fmt: skip

    def add(self, Z: Array, pairs: Pairs, resp: Array) -> None:
        """Add the sums of pairs under `resp` (pairs,)."""
        self._kernel.add_listed(Z, pairs.starts, pairs.rows, resp, self._offsets, self._roots)

    def statistics(self) -> GaussianStatistics | None:
        """Return the sums so far, where they are no part of another kernel's."""
        return None if self._shared else self._kernel.statistics()


class ListedDiagonals(Listed):
    """Pairs under diagonal covariances, and their sums.

    Parameters
    ----------
    gaussian : GaussianParameters
    """

    def __init__(self, gaussian: GaussianParameters) -> None:
        d = gaussian.n_features
        self._means, self._inverse = gaussian.means, 1 / gaussian.covariance.factor
        constant = -0.5 * d * np.log(2 * np.pi) - gaussian.whitening.log_det
        self._constants = np.asarray(constant - gaussian.covariance.log_det(d))
        self._first, self._squares = np.zeros((2, *gaussian.means.shape))

    def held_bytes(self, rows: int) -> int:
        """Bytes that it holds for blocks of so many rows."""
        # The statistics are copies.
        return array_bytes(*vars(self).values()) + 2 * self._first.nbytes

    def compute(self, Z: Array, pairs: Pairs, values: Array) -> None:
        """Write the log-densities of pairs of whitened rows Z (b, D), but for those known."""
        d = self._means.shape[1]
        loops.compute_diagonals(
            self._means, self._inverse, self._constants, Z, d, *pairs, values
        )

    def add(self, Z: Array, pairs: Pairs, resp: Array) -> None:
        """Add the sums of pairs under `resp` (pairs,)."""
        loops.add_listed_diagonals(
            Z, self._means, pairs.starts, pairs.rows, resp, self._first, self._squares
        )

    def statistics(self) -> GaussianStatistics:
        """Return the sums so far."""
        return GaussianStatistics(self._first.copy(), self._squares.copy())


class Bounds:
    """Upper bounds on the joint log-densities of rows, by one product in float32.

    Parameters
    ----------
    gaussian : GaussianParameters
    """

    def __init__(self, gaussian: GaussianParameters) -> None:
        k, d = gaussian.means.shape
        self._minorants = below = gaussian.minorants
        constant = -0.5 * d * np.log(2 * np.pi) - gaussian.whitening.log_det
        halves = np.einsum("kd,kd,kd->k", below.means, below.means, below.diagonals) / 2
        self._constants = constant - gaussian.covariance.log_det(d) - halves
        n_squares = d if below.apart else 1
        self._theta = np.zeros((round_up(k, simd.TILE_ROWS), d + n_squares + 1))
        self._theta[:k, :d] = below.means * below.diagonals
        self._theta[:k, d:-1] = -0.5 * below.diagonals[:, :n_squares]
        # A component that fills up a tile is never above any other.
        self._theta[k:, -1] = -np.inf
        self._prior = np.full(k, np.nan)
        self._packed = np.empty(0, np.float32)
        self._sizes = np.empty(0, np.float32)
        # Of the coordinates of `frame`, which cancel: they are made in float64.
        frame = below.frame
        self._longest = 0.0 if frame is None else float(np.sqrt((frame**2).sum(axis=1).max()))
        self._padded = round_up(d, simd.lanes(np.float32))
        self._scale = np.zeros(self._padded)
        self._scale[:d] = 1.0
        self._reserve(0)

    def _reserve(self, n_tiles: int) -> None:
        k, n_columns = self._theta.shape
        width, d = simd.tile_columns(np.float32), self._minorants.means.shape[1]
        rows = n_tiles * width
        self._rows = np.zeros(rows * d + self._padded)
        self._placed = np.empty((rows, self._padded), np.float32)
        self._columns = np.ones((n_tiles, n_columns, width), np.float32)
        self.scores = np.empty((n_tiles, k, width), np.float32)
        self._reach, self.slack, self._best = np.empty((3, rows), np.float32)
        self.labels = np.empty(rows, np.int32)

    def held_bytes(self, rows: int) -> int:
        """Bytes that it holds when it has seen so many rows."""
        k, n_columns = self._theta.shape
        d = self._minorants.means.shape[1]
        each = 8 * d + 4 * (self._padded + n_columns + k + 4)
        return int(5 * self._theta.nbytes // 2 + rows * each + 16 * self._padded)

    def _take(self, log_prior: Array) -> None:
        if np.array_equal(log_prior, self._prior):
            return
        self._prior = log_prior.copy()
        k, d = self._minorants.means.shape
        theta = self._theta
        theta[:k, -1] = self._constants + log_prior
        self._packed = pack_groups(theta).astype(np.float32)
        # Each term is rounded some times, and each sum: twice what is allowed for.
        rounding = (theta.shape[1] + d + 8) * float(np.finfo(np.float32).eps)
        largest = np.abs(theta[:k]).max(axis=0)
        self._sizes = (rounding * largest).astype(np.float32)
        self._of_frame = 2.0**-40 * largest[:d].sum(), 2.0**-40 * largest[d:-1].sum()

    def compute(self, Z: Array, log_prior: Array) -> None:
        """Bound the joint log-densities of whitened rows Z (b, d): `scores` + `slack` are above.

        `labels` are the components of the largest.
        """
        self._take(log_prior)
        b, d = Z.shape
        width = self._columns.shape[2]
        n_tiles = -(-b // width)
        if n_tiles > len(self._columns):
            self._reserve(n_tiles)
        rows = self._rows[: b * d].reshape(b, d)
        if self._minorants.frame is None:
            rows[:] = Z
            self._reach[:b] = 0.0
        else:
            np.matmul(Z, self._minorants.frame.T, out=rows)
            far = self._longest * np.sqrt(np.einsum("bd,bd->b", Z, Z))
            self._reach[:b] = self._of_frame[0] * far + self._of_frame[1] * far * far
        self._rows[b * d : n_tiles * width * d] = 0
        self._reach[b : n_tiles * width] = 0
        tiles = self._columns[:n_tiles]
        simd.place(self._rows, d, self._scale, self._placed, tiles)
        loops.bound_joints(
            self._packed, tiles, self._sizes, self._minorants.apart, d, self._reach,
            self.scores[:n_tiles], self._best, self.labels, self.slack,
        )  # fmt: skip


class CandidateKernel(Kernel[GaussianStatistics]):
    """Divide rows among the components that count for them, and leave the rest to another kernel.

    Parameters
    ----------
    gaussian : GaussianParameters
        Of full or diagonal covariances.
    dense : Kernel
        Of the same parameters: it computes all pairs, for blocks of which too many count.
    """

    divides = True

    def __init__(self, gaussian: GaussianParameters, dense: Kernel[GaussianStatistics]) -> None:
        k, d = gaussian.means.shape
        sizes = tuning().candidates
        self._gaussian, self._dense = gaussian, dense
        self.block_rows = dense.block_rows
        rows = min(sizes.bound_bytes // (4 * k), sizes.most_rows)
        self._part_rows = max(1, rows // self.block_rows) * self.block_rows
        whitening = gaussian.whitening
        self._rotate = whitening.inverse_scale if whitening.scale.ndim == 2 else None
        self._width, self._padded = simd.tile_columns(np.float32), round_up(d, simd.lanes("f8"))
        self._bounds = Bounds(gaussian)
        self._listed: Listed
        if isinstance(gaussian.covariance, Diagonal):
            self._most, self._listed = sizes.most_diagonals, ListedDiagonals(gaussian)
        else:
            shared = isinstance(dense, CentredKernel) and dense.dtype == np.float64
            exact = dense if isinstance(dense, CentredKernel) and shared else CentredKernel(gaussian)
            self._listed = ListedMatrices(exact, self._part_rows, shared)
            self._most = sizes.most_matrices
        self._counts = np.empty(k, np.int64)
        self._own_starts, self._starts, self._none = np.zeros((3, k + 1), np.int64)
        self._reserve(0)

    def _reserve(self, rows: int) -> None:
        """Make room for blocks of so many rows."""
        k, d = self._gaussian.means.shape
        n_tiles = rows // self._width
        self._raw = np.empty((rows if self._rotate is not None else 0, d))
        self._Z = np.zeros((rows, self._padded))
        self._masks = np.empty((k, n_tiles), np.int64)
        self._own_rows = np.empty(rows, np.int64)
        self._own, self._largest, self._total, self._ones = np.ones((4, rows))
        self._least = np.empty(rows, np.float32)
        # Pairs beyond are for the other kernel.
        most = rows + int(self._most * rows * k)
        self._rows, self._values = np.empty(most, np.int64), np.empty(most)

    @property
    def part_rows(self) -> int:
        """Rows that are divided at once."""
        return self._part_rows

    @property
    def nbytes(self) -> int:
        """Bytes that it holds once it has seen a whole block, at most."""
        k, d = self._gaussian.means.shape
        rows = round_up(self._part_rows, self._width)
        raw = d if self._rotate is not None else 0
        each = 8 * (raw + self._padded + 5) + 4 + 8 * k / self._width + 16 * (1 + self._most * k)
        held = self._dense.nbytes + self._bounds.held_bytes(rows) + self._listed.held_bytes(rows)
        return int(held + rows * each + 8 * 4 * (k + 1)) + self._gaussian.minorants.nbytes

    # -- one block after the other, of which all is computed -----------------------------

    def load(self, X: Array) -> None:
        """Take the rows X (b, d), b <= `block_rows`, as the current block."""
        self._dense.load(X)

    def log_prob(self) -> Array:
        """Return log p(x | k) of the current block (k, b), for the caller to overwrite."""
        return self._dense.log_prob()

    def accumulate(self, resp: Array) -> None:
        """Add the current block's sums under `resp` (k, b)."""
        self._dense.accumulate(resp)

    def statistics(self) -> GaussianStatistics:
        """Return the sums over all rows so far, about the current means."""
        found, more = self._dense.statistics(), self._listed.statistics()
        return found if more is None else found + more

    # -- what counts alone -----------------------------------------------------------------

    def add_divided(
        self, X: Array, log_prior: Array, weight: Array | None
    ) -> tuple[float, Array] | None:
        """Divide rows X (b, d), b <= `part_rows`, by their responsibilities, and add the sums.

        None where too many components count for some of the rows, or for all.
        """
        step = max(1, len(X) // self._width)
        # Rows of the whole block, which may be in any order, tell whether it is worth while.
        if self._list(X[:: step][: self._width], log_prior) is None:
            return None
        pairs = self._list(X, log_prior)
        if pairs is None:
            return None
        b, Z = len(X), self._Z
        resp, weights = self._values[: pairs.starts[-1]], self._ones[:b]
        if weight is not None:
            weights = np.ascontiguousarray(weight, dtype=np.float64)
        resp_sum = np.empty(len(log_prior))
        log_likelihood = loops.divide_pairs(
            pairs.starts, pairs.rows, resp, log_prior, NEGLIGIBLE, weights, self._largest,
            self._total, resp_sum,
        )  # fmt: skip
        self._listed.add(Z, pairs, resp)
        return float(log_likelihood), resp_sum

    def _list(self, X: Array, log_prior: Array) -> Pairs | None:
        """List the pairs that may count with their log-densities, in `_values`; or are too many."""
        b, d = X.shape
        self._whiten(X)
        Z, bounds = self._Z[:b], self._bounds
        bounds.compute(Z[:, :d], log_prior)
        loops.group_rows(bounds.labels, b, self._own_starts, self._own_rows)
        own = Pairs(self._own_starts, self._own_rows, self._none)
        self._listed.compute(Z, own, self._own)
        loops.set_least(
            self._own_starts, self._own_rows, self._own, log_prior, bounds.slack, NEGLIGIBLE,
            self._least,
        )  # fmt: skip
        n_tiles = -(-b // self._width)
        n_others = loops.note_candidates(
            bounds.scores[:n_tiles], bounds.labels, self._least, b, self._masks, self._counts
        )
        if n_others > self._most * b * len(log_prior):
            return None
        loops.list_pairs(
            self._masks, n_tiles, self._width, self._counts, self._own_starts, self._own_rows,
            self._own, self._starts, self._rows, self._values,
        )  # fmt: skip
        pairs = Pairs(self._starts, self._rows, self._own_starts)
        self._listed.compute(Z, pairs, self._values)
        return pairs

    def _whiten(self, X: Array) -> None:
        b, d = X.shape
        if b > len(self._Z):
            self._reserve(round_up(b, self._width))
        whitening, Z = self._gaussian.whitening, self._Z[:b, :d]
        if self._rotate is None:
            np.subtract(X, whitening.shift, out=Z, dtype=np.float64)
            Z *= whitening.inverse_scale
            return
        raw = self._raw[:b]
        np.subtract(X, whitening.shift, out=raw, dtype=np.float64)
        np.matmul(raw, self._rotate.T, out=Z)


def with_candidates(
    gaussian: GaussianParameters, dense: Kernel[GaussianStatistics]
) -> Kernel[GaussianStatistics]:
    """Return a kernel that leaves out components that do not count, where there may be many.

    Examples
    --------
    >>> from .whitening import Whitening
    >>> unit = Whitening(np.zeros(1), np.ones(1))
    >>> few = GaussianParameters(np.zeros((2, 1)), Diagonal(np.ones((2, 1))), unit)
    >>> kernel = FeaturesKernel(few)
    >>> with_candidates(few, kernel) is kernel
    True
    """
    k, d = gaussian.means.shape
    sizes = tuning().candidates
    worth = k >= sizes.least_components and d >= sizes.least_columns
    return CandidateKernel(gaussian, dense) if worth else dense
