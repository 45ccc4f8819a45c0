"""Rows that share a pattern of missing values, in loops compiled by Numba.

A pattern's rows are complete rows of fewer columns: so are their sums, about the means of these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from ...core.additive import Array
from ...core.family import array_bytes
from ...core.tuning import tuning
from . import pattern_loops as loops
from . import simd
from .compiled_kernel import round_up
from .observed_matrices import ObservedMatrices


class SharedPatterns(ABC):
    """Hold what the rows of each frequent pattern share, and their sums.

    Parameters
    ----------
    observed : ObservedMatrices
    log_factor : (d,) array
        What each observed column adds to a log-density.

    Attributes
    ----------
    covariances : (k, d, d) array
    half_log_det : (k,) array
        log |Sigma| / 2.
    columns, counts : (p, d) and (p,) int64 arrays
        The observed columns of each pattern, and how many.
    """

    def __init__(self, observed: ObservedMatrices, log_factor: Array) -> None:
        self.means = observed.means
        self.covariances = observed.covariances
        self.half_log_det = observed.half_log_det
        self._log_factor = log_factor
        k, d = self.means.shape
        self.columns, self.counts = np.zeros((0, d), np.int64), np.zeros(0, np.int64)
        self._known: dict[bytes, int] = {}
        self._work = np.empty(
            round_up(k, simd.TILE_ROWS) * loops.STEP * simd.tile_columns(np.float64)
        )

    def number(self, missing: Array) -> int:
        """Return the number of a pattern (d,), -1 where there is no more room for it."""
        key = missing.tobytes()
        found = self._known.get(key)
        if found is None:
            if self.nbytes >= tuning().missing.pattern_bytes:
                return -1
            found = self._known[key] = len(self._known)
            self.columns = grown(self.columns, found + 1)
            self.counts = grown(self.counts, found + 1)
            columns = np.flatnonzero(~missing)
            self.columns[found, : len(columns)], self.counts[found] = columns, len(columns)
            self._prepare(found, columns, float(self._log_factor[columns].sum()))
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of what patterns share, and of their sums."""
        return array_bytes(*vars(self).values())

    def take_sums(self) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Yield each pattern with its sums about the means, (k,), (k, o) and (k, o, o); empty them.

        What is yielded is overwritten.
        """
        d = self.means.shape[1]
        for key, number in self._known.items():
            yield np.frombuffer(key, bool, d), *self._sums_of(number)

    @abstractmethod
    def _prepare(self, number: int, columns: Array, constant: float) -> None:
        """Make what rows that have these columns (o,) share, and room for their sums."""

    @abstractmethod
    def write_log_prob(self, groups: Array, order: Array, tiles: Array, out: Array) -> None:
        """Write log p(x_o | k) of the rows of all groups to their places in `out` (k, b)."""

    @abstractmethod
    def add(self, groups: Array, order: Array, tiles: Array, resp: Array) -> None:
        """Add the sums of all groups under `resp` (k, b)."""

    @abstractmethod
    def _sums_of(self, number: int) -> tuple[Array, Array, Array]:
        """Return the sums of a pattern about the means, and make them zero."""


class SharedFeatures(SharedPatterns):
    """Compute by products of observed columns, for few columns."""

    def __init__(self, observed: ObservedMatrices, log_factor: Array) -> None:
        super().__init__(observed, log_factor)
        self._padded = round_up(len(self.means), simd.TILE_ROWS)
        self._theta, self._theta_at = np.zeros(0), np.zeros(1, np.int64)
        self._left, self._right = np.zeros((2, 0), np.int64)
        self._features_at = np.zeros(1, np.int64)
        self._totals, self._totals_at = np.zeros(0), np.zeros(1, np.int64)

    def _prepare(self, number: int, columns: Array, constant: float) -> None:
        d, o = self.means.shape[1], len(columns)
        n_features = 1 + o + o * (o + 1) // 2
        padded = round_up(n_features, simd.TILE_VECTORS)
        groups = -(-self._padded // simd.TALL_ROWS)
        self._theta_at = lengthened(self._theta_at, number, self._padded * n_features)
        self._features_at = lengthened(self._features_at, number, padded)
        self._totals_at = lengthened(self._totals_at, number, groups * padded * simd.TALL_ROWS)
        theta, features = slice(*self._theta_at[-2:]), slice(*self._features_at[-2:])
        self._theta = grown(self._theta, theta.stop)
        self._left = grown(self._left, features.stop)
        self._right = grown(self._right, features.stop)
        self._totals = grown(self._totals, int(self._totals_at[-1]))
        loops.write_features(
            self.covariances, self.means, columns, constant, d, simd.tile_columns(np.float64),
            self._padded, self._theta[theta], self._left[features], self._right[features],
        )  # fmt: skip

    def write_log_prob(self, groups: Array, order: Array, tiles: Array, out: Array) -> None:
        """Write log p(x_o | k) of the rows of all groups to their places in `out` (k, b)."""
        loops.write_features_log_prob(
            groups, order, tiles, self._theta, self._theta_at, self._left, self._right,
            self._features_at, self._padded, self._work, out,
        )  # fmt: skip

    def add(self, groups: Array, order: Array, tiles: Array, resp: Array) -> None:
        """Add the sums of all groups under `resp` (k, b)."""
        loops.add_features(
            groups, order, tiles, resp, self._left, self._right, self._features_at, self._padded,
            self._work, self._totals, self._totals_at,
        )  # fmt: skip

    def _sums_of(self, number: int) -> tuple[Array, Array, Array]:
        columns = self.columns[number, : self.counts[number]]
        k, o = len(self.means), len(columns)
        own = self._totals[self._totals_at[number] : self._totals_at[number + 1]]
        n_features = int(self._features_at[number + 1] - self._features_at[number])
        by_components = own.reshape(-1, n_features, simd.TALL_ROWS).transpose(0, 2, 1)
        sums = by_components.reshape(-1, n_features)[:k].copy()
        own[:] = 0.0
        totals, means = sums[:, 0], self.means[:, columns]
        first = sums[:, 1 : 1 + o] - totals[:, None] * means
        second = np.empty((k, o, o))
        i, j = np.tril_indices(o)
        second[:, i, j] = second[:, j, i] = sums[:, 1 + o : 1 + o + len(i)]
        cross = sums[:, 1 : 1 + o, None] * means[:, None, :]
        second -= cross + means[:, :, None] * first[:, None, :]
        return totals, first, second


class SharedDeviations(SharedPatterns):
    """Compute by squared distances, and deviations from means."""

    def __init__(self, observed: ObservedMatrices, log_factor: Array) -> None:
        super().__init__(observed, log_factor)
        k, d = self.means.shape
        self._whitener, self._whitener_at = np.zeros(0), np.zeros(1, np.int64)
        self._images = np.zeros((0, k * round_up(d, simd.TILE_ROWS)))
        self._constants, self._totals = np.zeros((0, k)), np.zeros((0, k))
        self._sums, self._sums_at = np.zeros(0), np.zeros(1, np.int64)

    def _prepare(self, number: int, columns: Array, constant: float) -> None:
        k, o = len(self.means), len(columns)
        # Strips of four rows, as far as the last of them reaches.
        size = sum(min(i + simd.TILE_ROWS, o) for i in range(0, o, simd.TILE_ROWS))
        padded, width = round_up(o, simd.TILE_ROWS), round_up(o, simd.lanes(np.float64))
        self._whitener_at = lengthened(self._whitener_at, number, k * size * simd.TILE_ROWS)
        self._sums_at = lengthened(self._sums_at, number, k * width * (1 + width))
        own = slice(*self._whitener_at[-2:])
        self._whitener = grown(self._whitener, own.stop)
        self._sums = grown(self._sums, int(self._sums_at[-1]))
        self._images = grown(self._images, number + 1)
        self._constants = grown(self._constants, number + 1)
        self._totals = grown(self._totals, number + 1)
        loops.write_whiteners(
            self.covariances, self.means, columns, constant,
            self._whitener[own].reshape(k, size * simd.TILE_ROWS),
            self._images[number, : k * padded].reshape(k, padded), self._constants[number],
        )  # fmt: skip

    def write_log_prob(self, groups: Array, order: Array, tiles: Array, out: Array) -> None:
        """Write log p(x_o | k) of the rows of all groups to their places in `out` (k, b)."""
        loops.write_distances_log_prob(
            groups, order, tiles, self.counts, self._whitener, self._whitener_at, self._images,
            self._constants, self._work, out,
        )  # fmt: skip

    def add(self, groups: Array, order: Array, tiles: Array, resp: Array) -> None:
        """Add the sums of all groups under `resp` (k, b)."""
        loops.add_deviations(
            groups, order, tiles, self.counts, self.columns, self.means, resp, self._totals,
            self._sums, self._sums_at,
        )  # fmt: skip

    def _sums_of(self, number: int) -> tuple[Array, Array, Array]:
        k, o = len(self.means), int(self.counts[number])
        width = round_up(o, simd.lanes(np.float64))
        own = self._sums[self._sums_at[number] : self._sums_at[number + 1]]
        first = own[: k * width].reshape(k, width)[:, :o].copy()
        lower = np.tril(own[k * width :].reshape(k, width, width)[:, :o, :o])
        totals = self._totals[number].copy()
        own[:], self._totals[number] = 0.0, 0.0
        return totals, first, lower + np.tril(lower, -1).transpose(0, 2, 1)


def grown(array: Array, size: int) -> Array:
    """Return an array of at least so many items, zero where they are new; twice as many at once.

    Examples
    --------
    >>> grown(np.ones(2), 3).tolist(), grown(np.ones(2), 1).tolist()
    ([1.0, 1.0, 0.0, 0.0], [1.0, 1.0])
    """
    if size <= len(array):
        return array
    found = np.zeros((max(size, 2 * len(array)), *array.shape[1:]), array.dtype)
    found[: len(array)] = array
    return found


def lengthened(places: Array, number: int, size: int) -> Array:
    """Return where items begin and the last ends, with another of this size after `number`."""
    return np.append(places[: number + 1], places[number] + size)
