"""Log-densities as formulas: a few operators, which each language for models writes in its way.

A family says once how its log-density is made of the columns of a row (`Family.formula`). Whoever
writes ONNX, SQL or anything else says once how each operator is written there. `NumpyOperators`
compute, and hold every formula to the density that it is of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from .additive import Array

V = TypeVar("V")

# From here on Stirling's series has all digits; what is smaller is taken there by recurrence.
STIRLING = 11

# Its coefficients: those of 1 / z, 1 / z^3, ... (Abramowitz and Stegun 1964, 6.1.41).
SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)


@dataclass(frozen=True)
class Formula(Generic[V]):
    """Hold what log p(x | k) is made of.

    Attributes
    ----------
    components : value of k columns
        What depends on the component.
    common : callable or None
        Writes what all components have in common, a value of one column: it moves the log-density
        of a row, but neither its label nor its responsibilities.
    """

    components: V
    common: Callable[[], V] | None = None


class Operators(ABC, Generic[V]):
    """Operators of some language on values that have a number for each row and each of m columns.

    Numbers are float64, and constants are NumPy's.
    """

    @abstractmethod
    def columns(self, x: V, chosen: Sequence[int]) -> V:
        """Take some columns, in this order."""

    @abstractmethod
    def product(self, x: V, matrix: Array, offset: Array | None = None) -> V:
        """Multiply rows by a matrix (m, p), and add an offset (p,)."""

    @abstractmethod
    def scaled(self, x: V, factor: Array, shift: Array | None = None) -> V:
        """Multiply each column by its factor (m,), after its shift (m,) was taken off."""

    @abstractmethod
    def distances(self, x: V, centers: Array, roots: Array) -> V:
        """Square the lengths of (x - center_k) root_k, for centres (k, m): k columns.

        Roots are matrices (k, m, m), or their diagonals (k, m).
        """

    @abstractmethod
    def add(self, x: V, y: V) -> V:
        """Add two values of as many columns, or one of one column to each column of `x`."""

    @abstractmethod
    def multiply(self, x: V, y: V) -> V:
        """Multiply two values of as many columns, or each column of `x` by one of one column."""

    @abstractmethod
    def reciprocal(self, x: V) -> V:
        """Compute 1 / x."""

    @abstractmethod
    def log(self, x: V) -> V:
        """Take natural logarithms."""

    @abstractmethod
    def log1p(self, x: V) -> V:
        """Take logarithms of 1 + x, to all digits of a small x."""

    @abstractmethod
    def root(self, x: V) -> V:
        """Take square roots."""

    @abstractmethod
    def rounded(self, x: V, which: Sequence[bool]) -> V:
        """Round some of the columns to whole numbers, halves to even ones."""

    @abstractmethod
    def at_least(self, x: V, least: float) -> V:
        """Raise smaller numbers to the least one."""

    @abstractmethod
    def answers(self, x: V, n_categories: Sequence[int], threshold: float | None) -> V:
        """Tell which answer each column is: 0 or 1 for every category of all columns in turn.

        The answer is the whole part of a number, or with a threshold 1 above it and else 0. What
        is no number gives zeros.
        """

    # -- made of these ---------------------------------------------------------------------

    def sum(self, x: V, m: int) -> V:
        """Add up m columns."""
        return self.product(x, np.ones((m, 1)))

    def directions(self, x: V, m: int) -> V:
        """Divide rows of m columns by their lengths; one of zeros stays."""
        lengths = self.root(self.sum(self.multiply(x, x), m))
        return self.multiply(x, self.reciprocal(self.at_least(lengths, 1e-150)))

    def log_factorials(self, x: V, m: int) -> V:
        """Compute log x! of whole numbers from 0 in m columns.

        It is log Gamma(z) - log((x + 1) ... (z - 1)) for z = x + 11, the first by its series.
        """
        ones = np.ones(m)

        def plus(value: V, number: float) -> V:
            return self.scaled(value, ones, np.full(m, -number))

        below = plus(x, 1.0)
        for i in range(2, STIRLING):
            below = self.multiply(below, plus(x, float(i)))
        z = plus(x, float(STIRLING))
        inverse = self.reciprocal(z)
        square = self.multiply(inverse, inverse)
        tail = self.scaled(square, np.full(m, SERIES[-1]))
        for coefficient in SERIES[-2:0:-1]:
            tail = self.multiply(plus(tail, coefficient), square)
        tail = self.multiply(plus(tail, SERIES[0]), inverse)
        power = self.multiply(plus(z, -0.5), self.log(z))
        found = self.add(power, self.scaled(z, -ones, np.full(m, 0.5 * np.log(2 * np.pi))))
        return self.add(self.add(found, tail), self.scaled(self.log(below), -ones))


class NumpyOperators(Operators[Array]):
    """Compute formulas of rows in memory.

    Examples
    --------
    >>> operators = NumpyOperators()
    >>> operators.log_factorials(np.array([[0.0, 5.0]]), 2).round(9).tolist()
    [[0.0, 4.787491743]]
    >>> operators.directions(np.array([[3.0, 4.0], [0.0, 0.0]]), 2).round(9).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """

    def columns(self, x: Array, chosen: Sequence[int]) -> Array:
        """Take some columns, in this order."""
        return x[:, list(chosen)]

    def product(self, x: Array, matrix: Array, offset: Array | None = None) -> Array:
        """Multiply rows by a matrix, and add an offset."""
        return np.asarray(x @ matrix if offset is None else x @ matrix + offset)

    def scaled(self, x: Array, factor: Array, shift: Array | None = None) -> Array:
        """Multiply each column by its factor, after its shift was taken off."""
        return np.asarray((x if shift is None else x - shift) * factor)

    def distances(self, x: Array, centers: Array, roots: Array) -> Array:
        """Square the lengths of (x - center_k) root_k."""
        apart = x[:, None] - centers
        turned = apart * roots if roots.ndim == 2 else np.einsum("nki,kij->nkj", apart, roots)
        return np.asarray((turned**2).sum(axis=2))

    def add(self, x: Array, y: Array) -> Array:
        """Add."""
        return np.asarray(x + y)

    def multiply(self, x: Array, y: Array) -> Array:
        """Multiply."""
        return np.asarray(x * y)

    def reciprocal(self, x: Array) -> Array:
        """Compute 1 / x."""
        return np.asarray(1.0 / x)

    def log(self, x: Array) -> Array:
        """Take natural logarithms."""
        return np.log(x)

    def log1p(self, x: Array) -> Array:
        """Take logarithms of 1 + x."""
        return np.log1p(x)

    def root(self, x: Array) -> Array:
        """Take square roots."""
        return np.sqrt(x)

    def rounded(self, x: Array, which: Sequence[bool]) -> Array:
        """Round some of the columns."""
        return np.where(which, np.rint(x), x)

    def at_least(self, x: Array, least: float) -> Array:
        """Raise smaller numbers to the least one."""
        return np.maximum(x, least)

    def answers(self, x: Array, n_categories: Sequence[int], threshold: float | None) -> Array:
        """Tell which answer each column is."""
        codes = np.floor(x) if threshold is None else np.where(np.isnan(x), x, x > threshold)
        parts = [codes[:, j, None] == np.arange(n) for j, n in enumerate(n_categories)]
        return np.concatenate(parts, axis=1).astype(np.float64)
