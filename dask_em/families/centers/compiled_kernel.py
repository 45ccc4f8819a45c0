"""The kernel of centres with its loops compiled: the extra `fast`."""

from __future__ import annotations

import numpy as np

from ...core.additive import Array
from ...core.tuning import tuning
from ..gaussian import simd
from ..gaussian.compiled_kernel import pack_groups, round_up
from .candidates import NearestCandidates
from .kernel import CentersKernel, unit_rows
from .loops import add_by_label, centre, nearest

# Forty tiles of any register are whole tiles of every other.
UNIT = 480


class CompiledCentersKernel(CentersKernel):
    """Find the nearest of K centres, and sum rows by their labels, by compiled loops."""

    def _rows_of_block(self) -> int:
        """Return how many rows a block has: what stays in level 2 of the cache with its tiles."""
        sizes = tuning().centers_kernel
        rows = sizes.row_bytes // (8 * len(self.origin))
        return min(max(rows // UNIT * UNIT, UNIT), sizes.most_tiled)

    def _make_room(self) -> None:
        """Make the buffers of a block of rows, which are taken as they come in float32 or 64."""
        b, (k, d), dtype = self.block_rows, self.centers.shape, self.dtype
        padded = round_up(d, simd.lanes(dtype))
        self._double = np.empty((b, d))
        self._single = self._double.reshape(-1).view(np.float32)[: b * d].reshape(b, d)
        # Reading whole vectors goes beyond the last row.
        self._rows = np.zeros(b * d + padded)
        self._scale = np.zeros(padded)
        self._scale[:d] = 1.0
        self._placed = np.zeros((b, padded), dtype)
        width = simd.tile_columns(dtype)
        self._columns = np.ones((b // width, d + 1, width), dtype)
        self._tiles = self._columns[:0]
        self._best = np.empty(b, dtype)
        self._labels = np.empty(b, np.int32 if dtype == np.float32 else np.int64)
        self._ones = np.ones(b)
        # A centre that fills up a tile is farther from any row than all others.
        self._theta = np.zeros((round_up(k, simd.TILE_ROWS), d + 1))
        self._theta[k:, -1] = -np.inf
        self._packed = np.empty(0, dtype)
        least = tuning().center_candidates
        many = k >= least.least_components and d >= least.least_columns
        # Squares of what is far larger or smaller are no numbers in float32, or none but zero.
        many = many and bool(1e-30 < -2 * self._halves.min() < 1e30)
        product = 1.0 if dtype == np.float32 else 2.0
        self.candidates = NearestCandidates(self.centers, b, product) if many else None

    @property
    def nbytes(self) -> int:
        """Bytes that it holds once it has seen a whole block, without the family's arrays."""
        return super().nbytes + (0 if self.candidates is None else self.candidates.nbytes)

    def load(self, X: Array) -> None:
        """Take the rows X (b, d), b <= `block_rows`, as the current block."""
        self._n = b = len(X)
        rows = self._block()
        if self.spherical:
            rows[:] = unit_rows(np.asarray(X, dtype=np.float64))
        else:
            single = X.dtype.kind == "f" and X.dtype.itemsize == 4
            # Of any other type, order of bytes or of axes this is a copy that is not.
            same = (self._single if single else self._double)[:b]
            same[:] = X
            centre(same, self.origin, rows)
        d, width = rows.shape[1], self._columns.shape[2]
        self._tiles = self._columns[: -(-b // width)]
        # Rows that fill up the last tile must be numbers.
        self._rows[b * d : len(self._tiles) * width * d] = 0
        simd.place(self._rows, d, self._scale, self._placed, self._tiles)

    def _block(self) -> Array:
        """Return the rows of the block about the origin, (b, d)."""
        d = len(self.origin)
        return self._rows[: self._n * d].reshape(self._n, d)

    def _set_constants(self, constants: Array) -> None:
        k = len(constants)
        self._theta[:k, :-1] = self.centers
        self._theta[:k, -1] = constants
        self._packed = pack_groups(self._theta).astype(self.dtype)
        if self.candidates is not None:
            self.candidates.set_constants(constants)

    def _nearest(self) -> Array:
        if self.candidates is not None:
            found = self.candidates.nearest(self._block())
            if found is not None:
                return found
        n_tiles, _, width = self._tiles.shape
        best, labels = self._best[: n_tiles * width], self._labels[: n_tiles * width]
        nearest(self._packed, self._tiles, best, labels)
        return labels[: self._n]

    def _add(self, labels: Array, weight: Array | None) -> float:
        """Add the sums of the block by its labels (b,); return what it adds to the inertia."""
        sums, b = self._sums, self._n
        weights = self._ones[:b]
        if weight is not None:
            weights = np.ascontiguousarray(weight, dtype=np.float64)
        return float(
            add_by_label(
                self._block(), self.centers, labels, weights, self._counts, sums.first,
                sums.squares, sums.far, sums.far_squares,
            )
        )  # fmt: skip
