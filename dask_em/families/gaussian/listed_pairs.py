"""Log-densities and sums of listed pairs of rows and Gaussian components, in compiled loops."""

# Annotations are evaluated here: of a named tuple nobody could do so later.
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from ...core.additive import Array
from ...core.family import array_bytes
from . import listed_loops as loops
from . import simd
from .compiled_kernel import CentredKernel, round_up
from .parameters import GaussianParameters
from .statistics import GaussianStatistics


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


class Listed(ABC):
    """Compute listed pairs of rows and components, and sum over them."""

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
        """Return how many bytes it holds for blocks of so many rows."""


class ListedMatrices(Listed):
    """Pairs under full covariances, in the arrays of a kernel that has them.

    Parameters
    ----------
    gaussian : GaussianParameters
    rows : int
        Of a block, at most.
    kernel : CentredKernel, optional
        In float64, whose sums are counted elsewhere.
    """

    def __init__(
        self, gaussian: GaussianParameters, rows: int, kernel: CentredKernel | None
    ) -> None:
        d = gaussian.n_features
        width, padded = simd.tile_columns(np.float64), round_up(d, simd.lanes(np.float64))
        self._kernel, self._shared = kernel or CentredKernel(gaussian), kernel is not None
        self._ones = np.zeros(padded)
        self._ones[:d] = 1.0
        # Reading whole vectors goes beyond the last row.
        self._gathered = np.zeros(width * d + padded)
        self._placed = np.empty((width, padded))
        self._columns = np.empty((1, d, width))
        self._out = np.empty(width)
        self._offsets, self._roots = np.empty(rows + 1, np.int64), np.empty(rows + 1)

    def held_bytes(self, rows: int) -> int:
        """Return how many bytes it holds for blocks of so many rows."""
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
        """Return how many bytes it holds for blocks of so many rows."""
        # The statistics are copies.
        return int(array_bytes(*vars(self).values()) + 2 * self._first.nbytes)

    def compute(self, Z: Array, pairs: Pairs, values: Array) -> None:
        """Write the log-densities of pairs of whitened rows Z (b, D), but for those known."""
        d = self._means.shape[1]
        loops.compute_diagonals(self._means, self._inverse, self._constants, Z, d, *pairs, values)

    def add(self, Z: Array, pairs: Pairs, resp: Array) -> None:
        """Add the sums of pairs under `resp` (pairs,)."""
        loops.add_listed_diagonals(
            Z, self._means, pairs.starts, pairs.rows, resp, self._first, self._squares
        )

    def statistics(self) -> GaussianStatistics:
        """Return the sums so far."""
        return GaussianStatistics(self._first.copy(), self._squares.copy())
