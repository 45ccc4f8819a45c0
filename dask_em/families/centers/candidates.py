"""The nearest of many centres, of which most are ruled out by a few coordinates.

In coordinates in which the centres vary most, with x_1 the first of them and x_2 the rest,
c . x <= c_1 . x_1 + |c_2| |x_2|: one product in float32 with few columns bounds all scores
c . x - |c|^2 / 2. The score of the centre of the largest bound is computed, and then of those whose
bounds reach it. What is found is what the rows and the centres alone decide.
"""

from __future__ import annotations

import numpy as np

from ...core.additive import Array
from ...core.family import array_bytes
from ...core.tuning import tuning
from ..gaussian import simd
from ..gaussian.compiled_kernel import pack_groups, round_up
from .loops import nearest_by_bounds

# What a row's coordinates owe to float64.
_ROUNDING = 1e-12

# Products below are zeros in float32, and have no relative error.
_UNDERFLOW = 1e-36


class Projection:
    """Bounds by the first coordinates of rows and centres.

    Parameters
    ----------
    centers : (k, d) array
    axes : (d, q) array
        Orthonormal columns.
    """

    def __init__(self, centers: Array, axes: Array) -> None:
        k, n = len(centers), axes.shape[1]
        self.axes, self.size, self.n_columns = axes, n, n + 2
        self._theta = np.zeros((round_up(k, simd.TILE_ROWS), n + 2))
        along = self._theta[:k, :n]
        np.matmul(centers, axes, out=along)
        squares = np.einsum("kd,kd->k", centers, centers)
        left = squares - np.einsum("kq,kq->k", along, along)
        self._theta[:k, n] = np.sqrt(np.maximum(left, 0.0) + _ROUNDING * squares)
        # A centre that fills up a tile is never the nearest.
        self._theta[k:, -1] = -np.inf
        self.packed = self.sizes = np.empty(0, np.float32)

    def set_constants(self, constants: Array) -> None:
        """Take what is added to the product of a row with each centre, (k,)."""
        k = len(constants)
        self._theta[:k, -1] = constants
        rounding = 2 * (self.n_columns + 8) * float(np.finfo(np.float32).eps)
        with np.errstate(over="ignore", under="ignore"):
            self.packed = pack_groups(self._theta).astype(np.float32)
            self.sizes = (rounding * np.abs(self._theta[:k]).max(axis=0)).astype(np.float32)


class NearestCandidates:
    """Find the nearest centres of rows by bounds, where that is quicker than by all products.

    Parameters
    ----------
    centers : (k, d) array
    block_rows : int
        Rows of a block, at most.
    product : float
        What a multiplication of the product with all takes, in those of float32.
    """

    def __init__(self, centers: Array, block_rows: int, product: float) -> None:
        k, d = centers.shape
        self._centers = centers
        self._costs = tuning().center_candidates
        self._dense_cost = product * (d + 1)
        # Numbers of coordinates, and what is made of them once there are rows enough.
        self._sizes = d // 4, d // 2
        self._ways: dict[int, Projection] = {}
        self._width = width = simd.tile_columns(np.float32)
        n_tiles = -(-block_rows // width)
        widest = d // 2 + 2
        # Reading whole vectors goes beyond the last row.
        padded = round_up(widest, simd.lanes(np.float32))
        self._flat = np.zeros(n_tiles * width * widest + padded)
        self._placed = np.empty(n_tiles * width * padded, np.float32)
        self._columns = np.empty(n_tiles * width * widest, np.float32)
        self._scores = np.empty((1, round_up(k, simd.TILE_ROWS), width), np.float32)
        self._highest, self._slack = np.empty((2, width), np.float32)
        self._reach = np.full(width, _UNDERFLOW, np.float32)
        self._labels = np.empty(n_tiles * width, np.int32)
        self._exact = np.empty(n_tiles * width)
        self._unit = np.ones(padded)
        self._constants = np.empty(0)
        # What is taken, and for how many blocks more.
        self._way: Projection | None = None
        self._waits = self._costs.blocks_untried

    @property
    def nbytes(self) -> int:
        """Bytes that it holds when it has seen many rows."""
        k, d = self._centers.shape
        columns = d // 4 + d // 2 + 4
        own = 12 * (k + simd.TILE_ROWS + d) * columns
        return int(array_bytes(*vars(self).values()) + own)

    @property
    def in_use(self) -> bool:
        """Whether the rows before were, and those that follow may be, found by bounds."""
        return self._way is not None

    def set_constants(self, constants: Array) -> None:
        """Take what is added to the product of a row with each centre, (k,)."""
        self._constants = np.ascontiguousarray(constants)
        for way in self._ways.values():
            way.set_constants(constants)

    def nearest(self, rows: Array) -> Array | None:
        """Return the nearest centre of each row (b, d), of equal ones the first, until the next.

        None where it is as quick to compute all.
        """
        if self._waits == 0:
            self._way = self._chosen(rows)
            self._waits = self._costs.blocks_untried
        else:
            self._waits -= 1
        if self._way is None:
            return None
        most = self._most(self._way.size, rows, self._dense_cost)
        if self._find(rows, self._way, most) > most:
            # Other rows than those that told of them.
            self._waits = 0
            return None
        return self._labels[: len(rows)]

    def _chosen(self, rows: Array) -> Projection | None:
        """Return the way that takes the least, of which some of the rows tell; None for all."""
        step = max(1, len(rows) // self._width)
        some = np.ascontiguousarray(rows[::step][: self._width])
        least, chosen = (1 - self._costs.least_saving) * self._dense_cost, None
        for size in self._sizes:
            most = self._most(size, some, least)
            if most < 0:
                break
            way = self._way_of(size)
            found = self._find(some, way, most)
            if found <= most:
                least, chosen = self._cost(size, some, found), way
        return chosen

    def _way_of(self, size: int) -> Projection:
        """Return the bounds by so many coordinates."""
        if size not in self._ways:
            _, axes = np.linalg.eigh(self._centers.T @ self._centers)
            way = Projection(self._centers, np.ascontiguousarray(axes[:, : -size - 1 : -1]))
            way.set_constants(self._constants)
            self._ways[size] = way
        return self._ways[size]

    def _cost(self, size: int, rows: Array, found: int) -> float:
        """Return what a pair takes where so many are not ruled out, in products of float32."""
        n_pairs = len(rows) * len(self._centers)
        each_row = self._costs.row + 4.0 * rows.shape[1] * size
        rest = each_row * len(rows) + self._listed(rows) * found
        return float(size + 2 + self._costs.pair + rest / n_pairs)

    def _most(self, size: int, rows: Array, least: float) -> int:
        """Return how many pairs may be left for a pair to take no more than `least`."""
        spared = (least - self._cost(size, rows, 0)) * len(rows) * len(self._centers)
        return int(np.floor(spared / self._listed(rows)))

    def _listed(self, rows: Array) -> float:
        """Return what one that is not ruled out takes."""
        return float(self._costs.listed_pair + 2.0 * rows.shape[1])

    def _find(self, rows: Array, way: Projection, most: int) -> int:
        """Find the nearest centres of rows (b, d); return how many were computed, unless many."""
        b, n_columns, width = len(rows), way.n_columns, self._width
        n_tiles = -(-b // width)
        laid = self._flat[: b * n_columns].reshape(b, n_columns)
        along = rows @ way.axes
        laid[:, :-2] = along
        squares = np.einsum("bd,bd->b", rows, rows)
        left = squares - np.einsum("bq,bq->b", along, along)
        laid[:, -2] = np.sqrt(np.maximum(left, 0.0) + _ROUNDING * squares)
        laid[:, -1] = 1.0
        self._flat[b * n_columns : n_tiles * width * n_columns] = 0
        padded = round_up(n_columns, simd.lanes(np.float32))
        placed = self._placed[: n_tiles * width * padded].reshape(-1, padded)
        tiles = self._columns[: n_tiles * width * n_columns].reshape(n_tiles, n_columns, width)
        simd.place(self._flat, n_columns, self._unit, placed, tiles)
        return int(
            nearest_by_bounds(
                way.packed, tiles, way.sizes, self._reach, most, rows, self._centers,
                self._constants, self._scores, self._highest, self._slack, self._exact,
                self._labels,
            )
        )  # fmt: skip
