"""Blocks of rows of which values are missing: what a kernel asks of them, and how NumPy does it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ...core.additive import Array
from ...core.family import array_bytes
from .column_coordinates import ColumnCoordinates
from .observed import Sums
from .parameters import GaussianParameters
from .patterns import Patterns


class IncompleteRows(ABC):
    """Evaluate blocks of rows of which values are missing, and add to completed sums.

    Parameters
    ----------
    gaussian : GaussianParameters
    coordinates : ColumnCoordinates
        Of the same parameters: those of the sums, until they are asked for.
    """

    def __init__(self, gaussian: GaussianParameters, coordinates: ColumnCoordinates) -> None:
        k, d = gaussian.means.shape
        self._coordinates = coordinates
        self._sums = Sums(np.zeros((k, d)), gaussian.covariance.zeros(k, d), np.zeros(k))
        self._entropy = np.zeros(k)

    @abstractmethod
    def load(self, X: Array) -> None:
        """Take the rows X (b, d) as the current block."""

    @abstractmethod
    def log_prob(self) -> Array:
        """Return log p(x_o | k) of the current block in the units of the data, (k, b)."""

    @abstractmethod
    def accumulate(self, resp: Array) -> None:
        """Add the current block's completed sums under `resp` (k, b)."""

    @abstractmethod
    def _finish(self) -> None:
        """Add what `accumulate` has put off to the sums."""

    def sums(self) -> tuple[Array, Array, Array]:
        """Return first, scatter and entropy (k,) of all blocks, about the whitened means."""
        self._finish()
        first, scatter = self._coordinates.whitened(self._sums)
        return first, scatter, self._entropy + self._sums.half_log_det

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, at most, beside a block of rows."""
        own = array_bytes(*vars(self._sums).values())
        return int(own + self._coordinates.observed.nbytes)


class PatternedRows(IncompleteRows):
    """Compute on NumPy, with the rows in the order of their patterns."""

    def load(self, X: Array) -> None:
        """Take the rows X (b, d) as the current block."""
        self._patterns = Patterns.of(np.isnan(X))
        self._Z = self._coordinates.take(X, self._patterns)

    def log_prob(self) -> Array:
        """Return log p(x_o | k) of the current block in the units of the data, (k, b)."""
        return self._coordinates.log_prob(self._Z, self._patterns)

    def accumulate(self, resp: Array) -> None:
        """Add the current block's completed sums under `resp` (k, b)."""
        self._entropy += self._coordinates.add(self._Z, self._patterns, resp, self._sums)

    def _finish(self) -> None:
        self._coordinates.observed.finish(self._sums)
