"""Options of an estimator that describe categorical components before they are fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...core.additive import Array
from ...core.family import FamilyOptions
from ...core.moments import Moments
from ...core.support import Support
from .binary import binarized
from .family import AnswerFamily, Bernoulli, Categorical, binary_support, support_of
from .indicators import indicators


@dataclass(frozen=True)
class CategoricalOptions(FamilyOptions):
    """Hold the options by which categorical components are initialized.

    Attributes
    ----------
    alpha : float
        Added to each count.
    missing : bool
        Whether answers may be missing.
    declared : tuple of int
        Categories that each column has at least, as the data declare them; 0 where they do not.

    Examples
    --------
    >>> options = CategoricalOptions(declared=(2, 0))
    >>> options.of_data(Moments.of(np.array([[0.0, 0.0], [1.0, 2.0]])), 2).n_categories
    (2, 3)
    """

    alpha: float = 0.0
    missing: bool = False
    declared: tuple[int, ...] = ()

    @property
    def support(self) -> Support:
        """Codes from 0, of the declared categories where there are any."""
        return support_of([n or None for n in self.declared] or [None], self.missing)

    @property
    def truncates(self) -> bool:
        """Whether fractions are taken at their whole part, as scikit-learn's `CategoricalNB` does.

        They tell of numbers that are no codes, so the survey finds them for a warning.
        """
        return True

    @property
    def of_missing(self) -> str:
        """Say that missing answers can be left out of the product."""
        return (
            ""
            if self.missing
            else (
                '; where NaN is a missing answer, pass missing_values="mar" to leave it out of the '
                "product alone"
            )
        )

    def of_data(self, moments: Moments, k: int) -> AnswerFamily:
        """Return k components alike that give all answers equally often."""
        numbers = self.n_categories(moments)
        equal = np.concatenate([np.full(n, -np.log(n)) for n in numbers])
        return self._made(np.tile(equal, (k, 1)), numbers)

    def _made(self, log_probabilities: Array, n_categories: tuple[int, ...]) -> AnswerFamily:
        return Categorical(log_probabilities, n_categories, self.alpha, self.missing)

    def n_categories(self, moments: Moments) -> tuple[int, ...]:
        """Return the number of categories of each column: its largest code and one."""
        declared = self.declared or (0,) * len(moments.mean)
        # A column without an answer has one category.
        highest = np.where(moments.high >= 0, moments.high, 0)
        return tuple(max(n, int(high) + 1) for n, high in zip(declared, highest, strict=True))

    def start_coordinates(self, rows: Array, moments: Moments) -> Array:
        """Return sampled rows (m, d) as indicators about their mean."""
        numbers = self.n_categories(moments)
        one = self.of_data(moments, 1).near(rows, np.ones((len(rows), 1)))
        return indicators(binarized(rows, one.threshold), numbers, one.probabilities[0])


@dataclass(frozen=True)
class BernoulliOptions(CategoricalOptions):
    """Hold the options by which Bernoulli components are initialized.

    Attributes
    ----------
    binarize : float or None
        The number above which numbers are a one.

    Examples
    --------
    >>> BernoulliOptions().of_data(Moments.of(np.zeros((2, 3))), 2).n_categories
    (2, 2, 2)
    """

    binarize: float | None = None

    @property
    def truncates(self) -> bool:
        """Whether fractions are taken at their whole part: they are no answers."""
        return False

    @property
    def support(self) -> Support:
        """Zero and one, or all numbers where these are cut in two."""
        return binary_support(self.binarize, self.missing)

    def n_categories(self, moments: Moments) -> tuple[int, ...]:
        """Return two categories for each column."""
        return (2,) * len(moments.mean)

    def _made(self, log_probabilities: Array, n_categories: tuple[int, ...]) -> AnswerFamily:
        return Bernoulli(log_probabilities, n_categories, self.alpha, self.missing, self.binarize)

    def warnings(
        self, moments: Moments, constant: Sequence[int], called: Callable[[Sequence[int]], str]
    ) -> list[str]:
        """Return what is odd: columns that do not vary, and numbers that are no answers."""
        found = super().warnings(moments, constant, called)
        extremes = np.stack([moments.low, moments.high])
        others = np.flatnonzero((np.isfinite(extremes) & (extremes != 0) & (extremes != 1)).any(0))
        # Whoever sets another threshold knows.
        if len(others) and self.binarize == 0:
            j = int(others[0])
            found.append(
                f"X holds other numbers than 0 and 1 in {called(others.tolist())} (from "
                f"{moments.low[j]:g} to {moments.high[j]:g}): those above binarize="
                f"{self.binarize:g} are a one, the others a zero. Set binarize where the answers "
                "lie apart, or fit categories or counts as such"
            )
        return found
