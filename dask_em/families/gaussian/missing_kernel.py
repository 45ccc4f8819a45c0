"""The Gaussian kernel of rows of which values may be missing at random."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...core.additive import Array
from ...core.engine import Engine
from ...core.family import Kernel, blocks
from ...core.responsibilities import Arithmetic, arithmetic_of
from ...core.tuning import tuning
from .column_coordinates import ColumnCoordinates
from .incomplete import IncompleteRows, PatternedRows
from .observed_matrices import ObservedMatrices
from .parameters import GaussianParameters
from .statistics import CompletedStatistics, GaussianStatistics


class MissingKernel(Kernel[GaussianStatistics]):
    """Give blocks without missing values to another kernel, and complete the sums of the others.

    Rows are grouped by their patterns of missing values, so blocks that have some are larger:
    the rows of more of them share what is made for a pattern.

    Parameters
    ----------
    gaussian : GaussianParameters
    plain : Kernel
        Of the same parameters, for rows without missing values.
    engine : Engine
    """

    def __init__(
        self, gaussian: GaussianParameters, plain: Kernel[GaussianStatistics], engine: Engine
    ) -> None:
        k, d = gaussian.means.shape
        self._gaussian, self._plain, self._engine = gaussian, plain, engine
        self.block_rows = plain.block_rows
        constants = tuning().missing
        # Rows, which values are missing, log-densities, and both of the latter in order.
        most = constants.most_compiled if engine.name == "numba" else constants.most_rows
        rows = min(most, constants.block_bytes // (8 * (3 * d + 3 * k)))
        self._part_rows = max(1, rows // self.block_rows) * self.block_rows
        # Made when the first value is missing.
        self._rows: IncompleteRows | None = None
        self._is_plain, self._all_plain = True, True

    @property
    def part_rows(self) -> int:
        """Rows of whole blocks, those of a larger one at most."""
        return int(self._part_rows)

    @property
    def _incomplete(self) -> IncompleteRows:
        if self._rows is None:
            self._rows = incomplete_rows(self._gaussian, self._engine)
        return self._rows

    @property
    def nbytes(self) -> int:
        """Bytes that it holds once it has seen a whole block, at most."""
        k, d = self._gaussian.means.shape
        block = 8 * self.part_rows * (3 * d + 3 * k)
        return int(self._plain.nbytes + block + self._incomplete.nbytes)

    def arithmetic(self, engine: Engine, k: int) -> Arithmetic:
        """Return the operations on what `log_prob` returns, for at most k components at a time."""
        return arithmetic_of(engine, k, self.part_rows)

    def blocks(self, X: Array) -> Iterator[slice]:
        """Yield the blocks of rows X (n, d): large ones where values are missing."""
        for part in blocks(len(X), self.part_rows):
            if has_missing(X[part]):
                yield part
                continue
            for rows in blocks(part.stop - part.start, self.block_rows):
                yield slice(part.start + rows.start, part.start + rows.stop)

    def load(self, X: Array) -> None:
        """Take the rows X (b, d) as the current block, b <= `part_rows`."""
        self._is_plain = len(X) <= self.block_rows and not has_missing(X)
        if self._is_plain:
            self._plain.load(X)
        else:
            self._incomplete.load(X)

    def log_prob(self) -> Array:
        """Return log p(x_o | k) of the current block in the units of the data, (k, b)."""
        return self._plain.log_prob() if self._is_plain else self._incomplete.log_prob()

    def accumulate(self, resp: Array) -> None:
        """Add the current block's completed sums under `resp` (k, b)."""
        if self._is_plain:
            self._plain.accumulate(resp)
        else:
            self._all_plain = False
            self._incomplete.accumulate(resp)

    def statistics(self) -> CompletedStatistics:
        """Return the sums over all blocks so far, about the current means."""
        found = self._plain.statistics()
        # The bits of the plain kernel are kept where it did all.
        if self._all_plain:
            return CompletedStatistics(found.first, found.scatter, np.zeros(len(found.first)))
        first, scatter, entropy = self._incomplete.sums()
        return CompletedStatistics(found.first + first, found.scatter + scatter, entropy)


def incomplete_rows(gaussian: GaussianParameters, engine: Engine) -> IncompleteRows:
    """Return what computes rows of which values are missing, on NumPy or in compiled loops.

    Examples
    --------
    >>> from .matrices import Full
    >>> from .whitening import Whitening
    >>> unit = Whitening(np.zeros(1), np.ones(1))
    >>> one = GaussianParameters(np.zeros((1, 1)), Full(np.ones((1, 1, 1))), unit)
    >>> type(incomplete_rows(one, Engine())).__name__
    'PatternedRows'
    """
    coordinates = ColumnCoordinates(gaussian, engine)
    observed = coordinates.observed
    if engine.name == "numba" and isinstance(observed, ObservedMatrices) and observed.compilable:
        from .compiled_patterns import CompiledPatterns

        return CompiledPatterns(gaussian, coordinates, observed)
    return PatternedRows(gaussian, coordinates)


def has_missing(X: Array) -> bool:
    """Tell whether some of the numbers X (n, d) are NaN.

    Examples
    --------
    >>> has_missing(np.array([[1, 2]])), has_missing(np.array([[np.nan]]))
    (False, True)
    """
    if X.dtype.kind != "f":
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(X.sum(dtype=np.float64)):
            return False
    return bool(np.isnan(X).any())
