"""Rows that share no pattern of missing values, one by one, in loops compiled by Numba."""

from __future__ import annotations

import numpy as np

from ...core.additive import Array
from ...core.family import array_bytes
from . import rare_densities, rare_sums
from .column_coordinates import ColumnCoordinates
from .compiled_kernel import round_up
from .lanes import LANES
from .matrices import diagonal_of
from .observed import Sums
from .observed_matrices import ObservedMatrices
from .rare_sums import Columns, RareSums


class RareRows:
    """Compute rows one by one, with components side by side.

    Parameters
    ----------
    coordinates : ColumnCoordinates
    observed : ObservedMatrices
        That of the coordinates.
    """

    def __init__(self, coordinates: ColumnCoordinates, observed: ObservedMatrices) -> None:
        k, d = observed.means.shape
        lanes = LANES
        groups = -(-k // lanes)
        means, half = np.zeros((groups * lanes, d)), np.zeros(groups * lanes)
        # Lanes without a component are unit normals.
        precision = np.tile(np.eye(d), (groups * lanes, 1, 1))
        means[:k], half[:k] = observed.means, observed.half_log_det
        precision[:k] = observed.precision
        self._means = in_lanes(means, lanes)
        self._precision, self._half_log_det = in_lanes(precision, lanes), half.reshape(-1, lanes)
        triangle = np.tril(precision)
        diagonal_of(triangle)[:] *= 0.5
        self._triangle = in_lanes(triangle, lanes)
        self._columns = Columns(coordinates.shift, 1 / coordinates.width, coordinates.log_factor)
        width = round_up(d, lanes)
        self._own_means, self._own_precision = np.zeros((k, width)), np.zeros((k, d, width))
        self._own_means[:, :d], self._own_precision[:, :, :d] = observed.means, observed.precision
        self._sums = RareSums(
            np.zeros((k, width)), np.zeros((k, width, width)), np.zeros((k, d, d)),
            np.zeros(k), np.zeros(k),
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters in this order, and of the sums."""
        return array_bytes(*vars(self).values())

    def write_log_prob(self, X: Array, rows: Array, out: Array) -> None:
        """Write log p(x_o | k) of some rows of X (b, d) to their places in `out` (k, b)."""
        rare_densities.write_log_prob(
            X, rows, self._columns, self._means, self._precision, self._triangle,
            self._half_log_det, out,
        )  # fmt: skip

    def add(self, X: Array, rows: Array, resp: Array) -> None:
        """Add the completed sums of some rows of X (b, d) under `resp` (k, b)."""
        rare_sums.add(
            X, rows, self._columns, self._own_means, self._own_precision, resp, self._sums
        )

    def finish(self, sums: Sums, entropy: Array) -> None:
        """Add all to the sums and to the entropies (k,) in the units of the data, and empty it."""
        d = sums.first.shape[1]
        own = self._sums
        lower = np.tril(own.scatter[:, :d, :d] + own.conditional)
        sums.first[:] += own.first[:, :d]
        sums.scatter[:] += lower + np.tril(lower, -1).transpose(0, 2, 1)
        sums.half_log_det[:] += own.half_log
        entropy += own.entropy
        for array in own:
            array[:] = 0.0


def in_lanes(values: Array, lanes: int) -> Array:
    """Return numbers of components (k, ...) in groups of lanes, (k / lanes, ..., lanes).

    Examples
    --------
    >>> in_lanes(np.arange(4.0).reshape(4, 1), 2).tolist()
    [[[0.0, 1.0]], [[2.0, 3.0]]]
    """
    grouped = values.reshape(-1, lanes, *values.shape[1:])
    return np.ascontiguousarray(np.moveaxis(grouped, 1, -1))
