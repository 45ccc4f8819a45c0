"""Exponential families by their natural parameters: log p(x | k) = theta_k . phi(x).

The features phi hold all that depends on the row, so that the log-densities of a block are one
product, and its sums another: the statistics are sum_n r_nk phi(x_n). A family writes the features,
the natural parameters and the M-step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.additive import Additive, Array
from ..core.codec import record
from ..core.engine import NUMPY, Engine
from ..core.family import Family, Kernel, array_bytes
from ..core.tuning import tuning
from ..core.validation import require, require_array, require_close
from .gaussian.numpy_kernel import block_rows


@record("canonical-statistics")
@dataclass(frozen=True)
class CanonicalStatistics(Additive):
    """Hold the sums of the features of rows.

    Attributes
    ----------
    sums : (k, f) array
        sum_n r_nk phi(x_n).

    Examples
    --------
    >>> part = CanonicalStatistics(np.ones((1, 2)))
    >>> (part + part).sums.tolist()
    [[2.0, 2.0]]
    """

    sums: Array


@record("reference")
@dataclass(frozen=True)
class Reference:
    """Hold a positive number for each column that all of the data have about.

    Attributes
    ----------
    values : (d,) array
        Log-densities are summed beside those of it, and so keep their digits; and what is a share
        of it is little in the units of the column.
    """

    values: Array

    @classmethod
    def of(cls, values: Array, least: float) -> Reference:
        """Return the reference of numbers of which some may be 0."""
        largest = float(values.max(initial=0.0))
        return cls(np.maximum(values, least * (largest if largest > 0 else 1.0)))

    def validate(self, d: int) -> None:
        """Raise `ValueError` unless it is one of d columns."""
        require_array("reference", self.values, (d,))
        require("reference", self.values, bool((self.values > 0).all()))


class Features(ABC):
    """Make the features of a block of rows, in buffers that are made once."""

    @abstractmethod
    def write(self, X: Array, out: Array) -> None:
        """Write phi of the rows X (b, d) into `out` (f, b)."""


class CanonicalKernel(Kernel[CanonicalStatistics]):
    """Compute log-densities and sums of blocks of rows, each by one matrix product.

    Parameters
    ----------
    family : CanonicalFamily

    Examples
    --------
    >>> from dask_em.families.poisson import Poisson
    >>> kernel = Poisson(np.log([[1.0], [3.0]]), Reference(np.array([2.0]))).kernel()
    >>> kernel.load(np.array([[0], [4]], dtype=np.uint8))
    >>> kernel.log_prob().round(3).tolist()
    [[-1.0, -4.178], [-3.0, -1.784]]
    """

    def __init__(self, family: CanonicalFamily) -> None:
        self._natural = np.ascontiguousarray(family.natural)
        k, n_features = self._natural.shape
        # Features keep a few buffers of their own size.
        self.block_rows = b = block_rows(k + 3 * n_features)
        self._features = family.features(b)
        self._phi = np.empty((n_features, b))
        self._out = np.empty(k * b)
        self._sums, self._product = np.zeros((k, n_features)), np.empty((k, n_features))
        self._rows = 0

    def load(self, X: Array) -> None:
        """Take the rows X (b, d) as the current block, whatever their type."""
        self._rows = len(X)
        self._features.write(X, self._phi[:, : self._rows])

    def log_prob(self) -> Array:
        """Return log p(x | k) of the current block, (k, b)."""
        k = len(self._natural)
        out = self._out[: k * self._rows].reshape(k, self._rows)
        np.matmul(self._natural, self._phi[:, : self._rows], out=out)
        return out

    def accumulate(self, resp: Array) -> None:
        """Add the current block's sums under `resp` (k, b)."""
        np.matmul(resp, self._phi[:, : self._rows].T, out=self._product)
        self._sums += self._product

    def statistics(self) -> CanonicalStatistics:
        """Return the sums over all blocks so far."""
        return CanonicalStatistics(self._sums)

    @property
    def nbytes(self) -> int:
        """Bytes of its buffers, and of those of the features."""
        return array_bytes(*vars(self).values(), *vars(self._features).values())


class CanonicalFamily(Family[CanonicalStatistics]):
    """K components of an exponential family, whose columns are independent or share one total.

    Attributes
    ----------
    reference : Reference
    """

    reference: Reference

    # -- what a family writes ------------------------------------------------------------

    @property
    @abstractmethod
    def natural(self) -> Array:
        """The natural parameters theta, (k, f)."""

    @abstractmethod
    def features(self, rows: int) -> Features:
        """Return what writes phi of at most so many rows."""

    @abstractmethod
    def coordinates(self, X: Array) -> Array:
        """Return rows (n, d) in coordinates in which they vary about as much everywhere."""

    # -- derived -------------------------------------------------------------------------

    @property
    def statistics_bytes(self) -> int:
        return self.natural.nbytes

    def kernel(self, engine: Engine = NUMPY) -> CanonicalKernel:
        """Return a kernel of zero sums."""
        return CanonicalKernel(self)

    def validate(self, statistics: CanonicalStatistics) -> None:
        """Raise `ValueError` that names the parameter or sum that is wrong."""
        arrays = self.arrays()
        first = next(iter(arrays.values()))
        require("components", first, first.ndim == 2)
        for name, array in arrays.items():
            require_array(name, array, first.shape)
        self.reference.validate(first.shape[1])
        require("statistics", statistics, type(statistics) is CanonicalStatistics)
        largest = np.finfo(np.float64).max
        require_array("sums", statistics.sums, self.natural.shape, largest=largest)

    def check_attributes(self, found: Mapping[str, Array]) -> None:
        """Raise `ValueError` where arrays of a file are not `attributes`, but for rounding."""
        for name, array in self.attributes().items():
            require_close(name, found[name], array, 1e-6 * np.abs(array))

    def join_key(self, engine: Engine) -> Hashable:
        """Return what families must have in common to be `joined`."""
        return super().join_key(engine), self.reference.values.tobytes()

    def expected_log_joint(
        self, log_weights: Array, resp_sum: Array, statistics: CanonicalStatistics
    ) -> float:
        """Compute sum_nk r_nk (log w_k + theta_k . phi(x_n)) from sums."""
        return float(resp_sum @ log_weights + (self.natural * statistics.sums).sum())

    def merge_losses(
        self, pairs: Sequence[tuple[int, int]], totals: Array, X: Array, resp: Array
    ) -> list[float]:
        """Compute what sum r log p loses, in nats, where the two of each pair become one."""
        if not pairs:
            return []
        i, j = np.array(pairs, dtype=int).T
        totals, sums = resp.sum(axis=0), self.sufficient_statistics(X, resp).sums
        apart = self._values(np.arange(len(totals)), totals, sums)
        merged = self._values(i, totals[i] + totals[j], sums[i] + sums[j])
        return [float(x) for x in apart[i] + apart[j] - merged]

    def _values(self, components: Array, totals: Array, sums: Array) -> Array:
        """Return sum r log p of each of some components after the M-step of sums."""
        after, _ = self.take(components.tolist()).maximize(totals, CanonicalStatistics(sums))
        return np.asarray((after.natural * sums).sum(axis=1))


def has_rows(resp_sum: Array) -> Array:
    """Tell which components have rows at all, (k,) of bool."""
    return np.asarray(resp_sum > tuning().numerics.empty)


def clipped_exp(logs: Array) -> Array:
    """Compute exp of logarithms that may be any number: the result is positive and finite."""
    return np.asarray(np.exp(np.clip(logs, -690.0, 690.0)))


def logs_of_positive(name: str, given: Array) -> Array:
    """Return the logarithms of parameters that somebody gave.

    Raises
    ------
    ValueError
        One is not positive.

    Examples
    --------
    >>> logs_of_positive("scales", np.array([[1.0, 0.0]]))
    Traceback (most recent call last):
    ValueError: scales must be positive, got 0.0
    """
    if not (given > 0).all():
        raise ValueError(f"{name} must be positive, got {float(given.min())!r}")
    return np.log(given)


def log_ratio(logs: Array, reference: Array) -> Array:
    """Compute log(exp(logs) / reference), with digits to spare where that is near zero.

    Examples
    --------
    >>> log_ratio(np.log([[2.0, 4.0]]), np.array([2.0, 2.0])).round(6).tolist()
    [[0.0, 0.693147]]
    """
    apart = clipped_exp(logs) / reference - 1
    far = np.abs(apart) > 0.5
    return np.where(far, logs - np.log(reference), np.log1p(np.where(far, 0.0, apart)))
