"""Upper bounds on the joint log-densities of rows and Gaussian components, in float32.

Each comes with a slack for each row, which is more than its products can have lost by rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ...core.additive import Array
from . import candidate_loops as loops
from . import simd
from .compiled_kernel import pack_groups, round_up
from .parameters import GaussianParameters

# Of squares, the share that is given up for their rounding errors: for |y' - y| <= e,
# y'^2 <= (1 + s) y^2 + (1 + 1 / s) e^2.
_SHARE = 1e-3


class Scores:
    """Upper bounds on the joint log-densities of a block, but for the slack of each row.

    Attributes
    ----------
    scores : (n_tiles, k, tile_columns) float32 array
    labels, slack : (n_tiles * tile_columns,) arrays
        The component of a row's largest score, and what is to be added to its scores.
    """

    def __init__(self, k: int) -> None:
        self._padded = round_up(k, simd.TILE_ROWS)
        self.reserve(0)

    def reserve(self, n_tiles: int) -> None:
        """Make room for so many tiles of rows."""
        width = simd.tile_columns(np.float32)
        self.scores = np.empty((n_tiles, self._padded, width), np.float32)
        self.best, self.slack = np.empty((2, n_tiles * width), np.float32)
        self.labels = np.empty(n_tiles * width, np.int32)

    def held_bytes(self, rows: int) -> int:
        """Return how many bytes it holds for blocks of so many rows."""
        return 4 * rows * (self._padded + 3)


class Bounds(ABC):
    """Bound the joint log-densities of rows in float32.

    Parameters
    ----------
    gaussian : GaussianParameters
    n_columns : int
        Of what the rows are multiplied by.
    """

    def __init__(self, gaussian: GaussianParameters, n_columns: int) -> None:
        d = gaussian.n_features
        self._d, self._n_columns = d, n_columns
        constant = -0.5 * d * np.log(2 * np.pi) - gaussian.whitening.log_det
        self._constants = np.asarray(constant - gaussian.covariance.log_det(d))
        self._prior = np.full(len(self._constants), np.nan)
        self._padded = round_up(d, simd.lanes(np.float32))
        self._scale = np.zeros(self._padded)
        self._scale[:d] = 1.0
        self._reserve(0)

    def _reserve(self, n_tiles: int) -> None:
        width = simd.tile_columns(np.float32)
        # Reading whole vectors goes beyond the last row.
        self._rows = np.zeros(n_tiles * width * self._d + self._padded)
        self._placed = np.empty((n_tiles * width, self._padded), np.float32)
        self._columns = np.ones((n_tiles, self._n_columns, width), np.float32)

    def held_bytes(self, rows: int) -> int:
        """Return how many bytes it holds for blocks of so many rows."""
        return rows * (8 * self._d + 4 * (self._padded + self._n_columns)) + 16 * self._padded

    def compute(self, Z: Array, log_prior: Array, into: Scores) -> None:
        """Bound the joint log-densities of whitened rows Z (b, d)."""
        if not np.array_equal(log_prior, self._prior):
            self._prior = log_prior.copy()
            self._set_constants(self._constants + log_prior)
        b, d = Z.shape
        width = self._columns.shape[2]
        n_tiles = -(-b // width)
        if n_tiles > len(self._columns):
            self._reserve(n_tiles)
        if n_tiles > len(into.scores):
            into.reserve(n_tiles)
        self._place(Z, self._rows[: b * d].reshape(b, d))
        self._rows[b * d : n_tiles * width * d] = 0
        tiles = self._columns[:n_tiles]
        simd.place(self._rows, d, self._scale, self._placed, tiles)
        self._bound(tiles, into)

    @property
    @abstractmethod
    def cost(self) -> float:
        """Multiplications of a pair."""

    def _place(self, Z: Array, rows: Array) -> None:
        """Write what is multiplied of the rows Z (b, d) into `rows` (b, d)."""
        rows[:] = Z

    @abstractmethod
    def _set_constants(self, constants: Array) -> None:
        """Take the joint log-densities at the means, (k,)."""

    @abstractmethod
    def _bound(self, tiles: Array, into: Scores) -> None:
        """Bound the rows that are laid out in tiles."""


class MinorantBounds(Bounds):
    """Bounds by diagonal matrices below the precisions: one product for all components."""

    def __init__(self, gaussian: GaussianParameters) -> None:
        k, d = gaussian.means.shape
        self._minorants = below = gaussian.minorants
        n_squares = d if below.apart else 1
        super().__init__(gaussian, d + n_squares + 1)
        with np.errstate(all="ignore"):
            halves = np.einsum("kd,kd,kd->k", below.means, below.means, below.diagonals) / 2
            self._constants -= halves
        self._theta = np.zeros((round_up(k, simd.TILE_ROWS), d + n_squares + 1))
        self._theta[:k, :d] = below.means * below.diagonals
        self._theta[:k, d:-1] = -0.5 * below.diagonals[:, :n_squares]
        # A component that fills up a tile is never above any other.
        self._theta[k:, -1] = -np.inf
        frame = below.frame
        self._longest = 0.0 if frame is None else float(np.sqrt((frame**2).sum(axis=1).max()))

    @property
    def cost(self) -> float:
        """Multiplications of a pair."""
        return float(self._n_columns)

    def _reserve(self, n_tiles: int) -> None:
        super()._reserve(n_tiles)
        self._reach = np.zeros(n_tiles * self._columns.shape[2], np.float32)

    def held_bytes(self, rows: int) -> int:
        """Return how many bytes it holds for blocks of so many rows."""
        return super().held_bytes(rows) + 4 * rows + 2 * self._theta.nbytes

    def _set_constants(self, constants: Array) -> None:
        k, d = len(constants), self._d
        theta = self._theta
        theta[:k, -1] = constants
        with np.errstate(over="ignore"):
            self._packed = pack_groups(theta).astype(np.float32)
        # Each term is rounded some times, and each sum: twice what is allowed for.
        rounding = (theta.shape[1] + d + 8) * float(np.finfo(np.float32).eps)
        largest = np.abs(theta[:k]).max(axis=0)
        with np.errstate(over="ignore"):
            self._sizes = (rounding * largest).astype(np.float32)
        # Coordinates of the frame cancel in float64.
        self._of_frame = 2.0**-40 * largest[:d].sum(), 2.0**-40 * largest[d:-1].sum()

    def _place(self, Z: Array, rows: Array) -> None:
        if self._minorants.frame is None:
            rows[:] = Z
            return
        np.matmul(Z, self._minorants.frame.T, out=rows)
        far = self._longest * np.sqrt(np.einsum("bd,bd->b", Z, Z))
        # Of a row beyond what float32 holds nothing is ruled out.
        with np.errstate(over="ignore"):
            self._reach[: len(Z)] = self._of_frame[0] * far + self._of_frame[1] * far * far

    def _bound(self, tiles: Array, into: Scores) -> None:
        loops.write_squares(tiles, self._minorants.apart, self._d)
        loops.bound_joints(
            self._packed, tiles, self._sizes, self._reach,
            into.scores[: len(tiles)], into.best, into.labels, into.slack,
        )  # fmt: skip


def direction_cost(n: int, d: int) -> float:
    """Return the multiplications of a pair along n directions of d columns.

    Examples
    --------
    >>> direction_cost(4, 32)
    176.0
    """
    return float((n + 1) * d + 16)


class DirectionBounds(Bounds):
    """Bounds by the directions in which each component is thinnest.

    Parameters
    ----------
    gaussian : GaussianParameters
        Of full covariances.

    Attributes
    ----------
    n_directions : int
        Those that are taken: a multiple of four.
    """

    def __init__(self, gaussian: GaussianParameters) -> None:
        k, d = gaussian.means.shape
        super().__init__(gaussian, d)
        directions = gaussian.thin_directions * np.sqrt((1 - 2 * _SHARE) / 2)
        images = -np.einsum("kqd,kd->kq", directions, gaussian.means)
        n = directions.shape[1]
        padded = round_up(n, simd.TILE_ROWS)
        laid = np.zeros((k, padded, d), np.float32)
        self._images = np.zeros((k, padded), np.float32)
        with np.errstate(over="ignore"):
            laid[:, :n], self._images[:, :n] = directions, images
        by_four = laid.reshape(k, -1, simd.TILE_ROWS, d).transpose(0, 1, 3, 2)
        self._packed = np.ascontiguousarray(by_four).reshape(k, -1)
        self._error = (d + 8) * float(np.finfo(np.float32).eps)
        self._offset = float(np.abs(images).max())
        self._lengths = np.abs(directions).max(axis=(0, 1))
        self.n_directions = self.most = padded

    @property
    def cost(self) -> float:
        """Multiplications of a pair."""
        return direction_cost(self.n_directions, self._d)

    def held_bytes(self, rows: int) -> int:
        """Return how many bytes it holds for blocks of so many rows."""
        return super().held_bytes(rows) + self._packed.nbytes + self._images.nbytes

    def _set_constants(self, constants: Array) -> None:
        self._single = constants.astype(np.float32)
        self._base = 32 * float(np.finfo(np.float32).eps) * float(np.abs(constants).max())

    def _bound(self, tiles: Array, into: Scores) -> None:
        n = self.n_directions
        # Images are never all zero in float32: the error is that of the largest, times what
        # the columns add.
        offset = max(self._offset, 1e-30)
        factor = n * (self._error * offset) ** 2 / _SHARE
        sizes = (self._lengths / offset).astype(np.float32)
        loops.bound_joints_along(
            self._packed, self._images, self._single, n, tiles, sizes, self._base, factor,
            into.scores[: len(tiles)], into.best, into.labels, into.slack,
        )  # fmt: skip
