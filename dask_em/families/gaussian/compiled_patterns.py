"""Blocks of rows of which values are missing, in loops compiled by Numba: the extra `fast`.

A pattern's rows are complete rows of fewer columns, so its sums are those of a complete pass over
them, and are completed once at the end: filling is linear in what is observed. Rows of rare
patterns are computed one by one.
"""

from __future__ import annotations

import numpy as np

from ...core.additive import Array
from ...core.tuning import tuning
from . import pattern_loops as loops
from . import simd
from .column_coordinates import ColumnCoordinates
from .incomplete import IncompleteRows
from .observed_matrices import ObservedMatrices
from .parameters import GaussianParameters
from .rare_rows import RareRows
from .shared_patterns import SharedDeviations, SharedFeatures, SharedPatterns


class CompiledPatterns(IncompleteRows):
    """Compute the rows of frequent patterns by what each of these shares, the others one by one.

    Parameters
    ----------
    gaussian : GaussianParameters
        Of full covariances.
    coordinates : ColumnCoordinates
    observed : ObservedMatrices
        That of the coordinates.
    """

    def __init__(
        self,
        gaussian: GaussianParameters,
        coordinates: ColumnCoordinates,
        observed: ObservedMatrices,
    ) -> None:
        super().__init__(gaussian, coordinates)
        k, d = gaussian.means.shape
        few = d <= tuning().compiled_kernel.few_columns and 2 * k > d + 2
        kind = SharedFeatures if few and observed.by_features else SharedDeviations
        self._shared: SharedPatterns = kind(observed, coordinates.log_factor)
        self._single = RareRows(coordinates, observed)
        self._tiles = np.ones((0, d + 1, simd.tile_columns(np.float64)))

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, at most, beside a block of rows."""
        return super().nbytes + self._single.nbytes

    def load(self, X: Array) -> None:
        """Take the rows X (b, d) as the current block."""
        X = np.ascontiguousarray(X, np.float64)
        self._order, starts = np.empty(len(X), np.int64), np.empty(len(X) + 1, np.int64)
        n_groups = loops.group(X, self._order, starts)
        starts = starts[: n_groups + 1]
        shared = self._numbers(X, starts)
        self._take_shared(X, starts, shared)
        rare = np.zeros(len(X), bool)
        rare[self._order] = np.repeat(shared < 0, np.diff(starts))
        # In their own order, as they lie in memory.
        self._others = np.flatnonzero(rare)
        self._X = X

    def _numbers(self, X: Array, starts: Array) -> Array:
        """Return the number of each group's pattern, -1 where rows are computed one by one."""
        numbers = np.full(len(starts) - 1, -1)
        frequent = np.flatnonzero(np.diff(starts) >= tuning().missing.least_compiled)
        missing = np.isnan(X[self._order[starts[frequent]]])
        numbers[frequent] = [self._shared.number(one) for one in missing]
        return numbers

    def _take_shared(self, X: Array, starts: Array, numbers: Array) -> None:
        """Lay out the rows of frequent patterns in tiles."""
        shared = np.flatnonzero(numbers >= 0)
        width = self._tiles.shape[2]
        sizes = starts[shared + 1] - starts[shared]
        ends = np.cumsum(-(-sizes // width))
        self._groups = np.empty((len(shared), 4), np.int64)
        self._groups[:, 0], self._groups[:, 1] = starts[shared], starts[shared + 1]
        self._groups[:, 2], self._groups[:, 3] = numbers[shared], ends - -(-sizes // width)
        n_tiles = int(ends[-1]) if len(ends) else 0
        if n_tiles > len(self._tiles):
            self._tiles = np.ones((n_tiles, *self._tiles.shape[1:]))
        coordinates = self._coordinates
        loops.lay_out(
            X, self._order, self._groups, self._shared.columns, self._shared.counts,
            coordinates.shift, 1 / coordinates.width, self._tiles,
        )  # fmt: skip

    def log_prob(self) -> Array:
        """Return log p(x_o | k) of the current block in the units of the data, (k, b)."""
        out = np.empty((len(self._entropy), len(self._X)))
        self._shared.write_log_prob(self._groups, self._order, self._tiles, out)
        self._single.write_log_prob(self._X, self._others, out)
        return out

    def accumulate(self, resp: Array) -> None:
        """Add the current block's completed sums under `resp` (k, b)."""
        resp = np.ascontiguousarray(resp, np.float64)
        self._shared.add(self._groups, self._order, self._tiles, resp)
        self._single.add(self._X, self._others, resp)

    def _finish(self) -> None:
        self._single.finish(self._sums, self._entropy)
        for missing, totals, first, second in self._shared.take_sums():
            columns, others = np.flatnonzero(~missing), np.flatnonzero(missing)
            loops.add_completed(
                self._shared.covariances, self._shared.half_log_det, columns, others, totals,
                first, second, self._sums.first, self._sums.scatter, self._sums.half_log_det,
            )  # fmt: skip
            self._entropy += totals * (0.5 - self._coordinates.log_factor[others]).sum()
