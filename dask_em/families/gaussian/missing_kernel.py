"""The Gaussian kernel of rows of which values may be missing at random."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...core.additive import Array
from ...core.engine import NUMPY, Engine
from ...core.family import Kernel, array_bytes, blocks
from ...core.responsibilities import Arithmetic, arithmetic_of
from ...core.tuning import tuning
from .diagonals import Uncorrelated
from .observed import ObservedColumns, Sums
from .observed_diagonals import ObservedDiagonals
from .observed_matrices import ObservedMatrices
from .parameters import GaussianParameters
from .patterns import Patterns
from .statistics import CompletedStatistics, GaussianStatistics
from .whitening import apply_scale


class ColumnCoordinates:
    """Shift and scale each column alone, so that a value is known whatever the others are.

    Parameters
    ----------
    gaussian : GaussianParameters
        Whose whitening is of each column alone, or mixes them.
    engine : Engine
        What computes rows that share no pattern.

    Attributes
    ----------
    observed : ObservedColumns
        What computes in these coordinates.
    """

    def __init__(self, gaussian: GaussianParameters, engine: Engine = NUMPY) -> None:
        whitening, covariance, means = gaussian.whitening, gaussian.covariance, gaussian.means
        scale = whitening.scale
        self._shift = whitening.shift
        self._from_whitened: Array | None = None
        if scale.ndim == 1:
            width = scale
        else:
            width = np.sqrt((scale**2).sum(axis=1))
            self._from_whitened = scale / width[:, None]
            means = apply_scale(self._from_whitened, means.T).T
            covariance = covariance.scaled(self._from_whitened)
        self._width = width
        # Of each column that is observed, in the units of the data.
        self._log_factor = -0.5 * np.log(2 * np.pi) - np.log(width)
        k, d = means.shape
        self.observed: ObservedColumns
        if isinstance(covariance, Uncorrelated):
            variances = np.broadcast_to(covariance.variances(d), (k, d))
            self.observed = ObservedDiagonals(means, variances)
        else:
            own = GaussianParameters(means, covariance, whitening)
            factor = covariance.factor.reshape(-1, d, d)
            self.observed = ObservedMatrices(
                means, factor, own.features_are_safe, engine.name == "numba"
            )

    def take(self, X: Array, patterns: Patterns) -> Array:
        """Return rows (n, d) in the order of their patterns, zero where a value is missing."""
        Z = np.take(X, patterns.order, axis=0).astype(np.float64)
        Z -= self._shift
        Z /= self._width
        Z[patterns.missing] = 0.0
        return Z

    def log_prob(self, Z: Array, patterns: Patterns) -> Array:
        """Return log p(x_o | k) in the units of the data, in the order of the rows, (k, n)."""
        found = self.observed.log_prob(Z, patterns)
        found += ~patterns.missing @ self._log_factor
        out = np.empty_like(found)
        out[:, patterns.order] = found
        return out

    def add(self, Z: Array, patterns: Patterns, resp: Array, sums: Sums) -> Array:
        """Add completed sums under `resp` (k, n); return the rest of the missing ones' entropy.

        Of a value it is that of a unit normal in the units of the data, under each component (k,).
        """
        ordered = np.take(resp, patterns.order, axis=1)
        self.observed.add(Z, patterns, ordered, sums)
        return np.asarray(ordered @ (patterns.missing @ (0.5 - self._log_factor)))

    def whitened(self, sums: Sums) -> tuple[Array, Array]:
        """Return first and scatter of these coordinates as those of the whitened ones."""
        if self._from_whitened is None:
            return sums.first, sums.scatter
        inverse = np.linalg.inv(self._from_whitened)
        return sums.first @ inverse.T, inverse @ sums.scatter @ inverse.T

    def completed(self, component: int, mean: Array, Z: Array, patterns: Patterns) -> Array:
        """Return rows with the conditional means of one component, in the units of the data."""
        D = self.observed.completed(component, Z, patterns)
        out = np.empty_like(D)
        out[patterns.order] = D * self._width
        return np.asarray(out + mean)


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
        rows = min(constants.most_rows, constants.block_bytes // (8 * (3 * d + 3 * k)))
        self._part_rows = max(1, rows // self.block_rows) * self.block_rows
        self._coordinates: ColumnCoordinates | None = None
        zeros = np.zeros((k, d)), gaussian.covariance.zeros(k, d)
        self._sums = Sums(*zeros, np.zeros(k))
        self._entropy = np.zeros(k)
        self._is_plain = True
        self._block: tuple[Array, Patterns] | None = None

    @property
    def part_rows(self) -> int:
        """Rows of whole blocks, those of a larger one at most."""
        return int(self._part_rows)

    @property
    def _columns(self) -> ColumnCoordinates:
        """The coordinates of single columns, made when the first value is missing."""
        if self._coordinates is None:
            self._coordinates = ColumnCoordinates(self._gaussian, self._engine)
        return self._coordinates

    @property
    def nbytes(self) -> int:
        """Bytes that it holds once it has seen a whole block, at most."""
        k, d = self._gaussian.means.shape
        block = 8 * self.part_rows * (3 * d + 3 * k)
        own = array_bytes(*vars(self._sums).values()) + self._columns.observed.nbytes
        return int(self._plain.nbytes + block + own)

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
        if len(X) <= self.block_rows and not has_missing(X):
            self._block = None
            self._plain.load(X)
            return
        patterns = Patterns.of(np.isnan(X))
        self._block = self._columns.take(X, patterns), patterns

    def log_prob(self) -> Array:
        """Return log p(x_o | k) of the current block in the units of the data, (k, b)."""
        if self._block is None:
            return self._plain.log_prob()
        return self._columns.log_prob(*self._block)

    def accumulate(self, resp: Array) -> None:
        """Add the current block's completed sums under `resp` (k, b)."""
        if self._block is None:
            self._plain.accumulate(resp)
            return
        Z, patterns = self._block
        self._is_plain = False
        self._entropy += self._columns.add(Z, patterns, resp, self._sums)

    def statistics(self) -> CompletedStatistics:
        """Return the sums over all blocks so far, about the current means."""
        found = self._plain.statistics()
        first, scatter = found.first, found.scatter
        # The bits of the plain kernel are kept where it did all.
        if not self._is_plain:
            self._columns.observed.finish(self._sums)
            own_first, own_scatter = self._columns.whitened(self._sums)
            first, scatter = first + own_first, scatter + own_scatter
        return CompletedStatistics(first, scatter, self._entropy + self._sums.half_log_det)


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
