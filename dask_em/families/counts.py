"""Sizes of rows, and components at the bound of zero: for families of counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..core.additive import Array
from ..core.codec import record
from ..core.degenerate import Degenerate
from ..core.support import COUNTS, Support
from ..core.tuning import tuning
from ..core.validation import require, require_array
from .amounts import FROM_ZERO

# A factor of a value of one column.
ONE = np.ones(1)


@record("row-size")
@dataclass(frozen=True)
class RowSize:
    """Hold mean and variance of how much rows count: of their exposures, or of their totals.

    They are no part of the likelihood, which is given them; draws and pictures have them as a
    gamma distribution.

    Attributes
    ----------
    mean, variance : float

    Examples
    --------
    >>> RowSize(3.0, 0.0).draw(2, np.random.default_rng(0)).tolist()
    [3.0, 3.0]
    """

    mean: float = 1.0
    variance: float = 0.0

    def as_array(self) -> Array:
        """Return mean and variance, (2,)."""
        return np.array([self.mean, self.variance])

    @classmethod
    def of_given(cls, name: str, given: Array | None, default: Self) -> Self:
        """Return the mean and variance (2,) that somebody gave, or the default.

        Raises
        ------
        ValueError
            They are not those of positive numbers.
        """
        if given is None:
            return default
        require_array(name, given, (2,))
        found = cls(*given.tolist())
        found.validate()
        return found

    def validate(self) -> None:
        """Raise `ValueError` unless they are those of positive numbers."""
        require("mean of the rows' sizes", self.mean, 0 < self.mean < np.inf)
        require("variance of the rows' sizes", self.variance, 0 <= self.variance < np.inf)

    @property
    def shape(self) -> float:
        """Shape of the gamma distribution; infinite where all rows are alike."""
        return self.mean**2 / self.variance if self.variance > 0 else np.inf

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Draw the sizes of n rows."""
        if not np.isfinite(self.shape):
            return np.full(n, self.mean)
        return rng.gamma(self.shape, self.mean / self.shape, n)

    def counts(self, rates: Array, x: Array) -> Array:
        """Compute the probability of counts x (m,) that are Poisson of `rates` (k,) times sizes."""
        # scipy.stats takes longer to import than all that reads a model file.
        from scipy.stats import nbinom, poisson

        means = rates[:, None] * self.mean
        if not np.isfinite(self.shape):
            return np.asarray(poisson.pmf(x, means))
        return np.asarray(nbinom.pmf(x, self.shape, self.shape / (self.shape + means)))

    @property
    def of_totals(self) -> tuple[float, float]:
        """Mean and variance of the totals that are drawn."""
        if self.variance < self.mean:
            return float(np.rint(self.mean)), 0.0
        return self.mean, self.variance

    def totals(self, n: int, rng: np.random.Generator) -> Array:
        """Draw the totals of n rows: Poisson of gamma rates, or alike where they vary by less."""
        mean, variance = self.of_totals
        if variance == 0:
            return np.full(n, int(mean))
        return rng.poisson(RowSize(mean, variance - mean).draw(n, rng))

    def shares_of_totals(self, p: Array, x: Array) -> Array:
        """Compute the probability of counts x (m,) that are each a share p (k,) of such totals."""
        from scipy.stats import binom

        mean, variance = self.of_totals
        if variance == 0:
            return np.asarray(binom.pmf(x, int(mean), p[:, None]))
        return RowSize(mean, variance - mean).counts(p, x)


def count_support(rounded: bool) -> Support:
    """Return which numbers are counts, or are `rounded` to them."""
    return FROM_ZERO if rounded else COUNTS


def without_counts(shares: Array, columns: Array) -> list[Degenerate]:
    """Return the components whose parameter is at its bound of zero in some columns.

    Parameters
    ----------
    shares : (k, d) array
        Parameters as shares of what all data have.
    columns : (d,) array of int
        Numbers of the columns.
    """
    none = shares <= 2 * tuning().canonical.least_share
    # Where nobody has counts, the column is what is odd.
    none &= ~none.all(axis=0)
    return [
        Degenerate(k, tuple(columns[at].tolist()), (0.0,) * int(at.sum()), bounded=True)
        for k, at in enumerate(none)
        if at.any()
    ]


def zero_warnings(
    found: Sequence[Degenerate],
    weights: Array,
    called: Callable[[Sequence[int]], str],
    what: str,
) -> list[str]:
    """Return a warning of components without counts in a column; `what` is then zero."""
    if not found:
        return []
    groups: dict[tuple[int, ...], list[int]] = {}
    for one in found:
        groups.setdefault(one.columns, []).append(one.component)
    places = []
    for columns, components in groups.items():
        shown = ", ".join(map(str, components[:10])) + ", ..." * (len(components) > 10)
        share = float(weights[components].sum() / weights.sum())
        plural = "s" * (len(components) > 1)
        places.append(f"component{plural} {shown} ({share:.1%} of the rows) in {called(columns)}")
    return [
        f"degenerate components: the {what} is zero of {'; '.join(places)}. Their rows have no "
        "counts there, and a row that has one belongs to them no more: where zeros mean that "
        "nothing was looked for, leave the column out; where they are chance, lower n_components"
    ]
