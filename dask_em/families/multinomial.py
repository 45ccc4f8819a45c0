"""Multinomial components: counts that share a total, each column of a probability."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from ..core.additive import Array
from ..core.degenerate import Degenerate
from ..core.engine import Engine
from ..core.family import FamilyOptions, register_family
from ..core.formula import Formula, Operators, V
from ..core.moments import Moments
from ..core.support import Support
from ..core.tuning import tuning
from ..core.validation import require
from .canonical import CanonicalFamily, CanonicalStatistics, Features, Reference, has_rows
from .counts import ONE, RowSize, count_support, without_counts, zero_warnings
from .special import log_factorials, log_poisson


@register_family("multinomial")
@dataclass(frozen=True)
class Multinomial(CanonicalFamily):
    """Hold K multinomial distributions over d columns, given the total n of each row.

    log p(x | k) is log n! + sum_j x_j log p_kj - log x_j!.

    Attributes
    ----------
    logits : (k, d) array
        Log-probabilities but for a constant in each component.
    reference : Reference
        Mean counts of all data.
    size : RowSize
        Of the totals.
    rounded : bool
        Whether numbers are rounded to counts.

    Examples
    --------
    >>> halves = np.log([[0.5, 0.5], [0.9, 0.1]])
    >>> two = Multinomial(halves, Reference(np.ones(2)))
    >>> two.log_prob(np.array([[1, 1], [0, 0]])).round(4).tolist()
    [[-0.6931, -1.7148], [0.0, 0.0]]
    """

    logits: Array
    reference: Reference
    size: RowSize = field(default_factory=RowSize)
    rounded: bool = False

    @property
    def log_probabilities(self) -> Array:
        """Logarithms of the probabilities, (k, d)."""
        apart = self.logits - self.logits.max(axis=1, keepdims=True)
        return np.asarray(apart - np.log(np.exp(apart).sum(axis=1, keepdims=True)))

    @property
    def probabilities(self) -> Array:
        """Probabilities of the columns, (k, d)."""
        return np.exp(self.log_probabilities)

    @property
    def shares(self) -> Array:
        """Shares of the columns in all counts of all data, (d,)."""
        return np.asarray(self.reference.values / self.reference.values.sum())

    @property
    def n_features(self) -> int:
        return int(self.logits.shape[1])

    @property
    def n_parameters(self) -> int:
        return int(self.logits.size - len(self.logits))

    @property
    def support(self) -> Support:
        """Counts."""
        return count_support(self.rounded)

    def validate(self, statistics: CanonicalStatistics) -> None:
        """Raise `ValueError` that names the parameter or sum that is wrong."""
        self.size.validate()
        super().validate(statistics)

    def join_key(self, engine: Engine) -> Hashable:
        """Return what families must have in common to be `joined`."""
        return super().join_key(engine), self.size, self.rounded

    def attributes(self) -> dict[str, Array]:
        """Return the probabilities."""
        return {"probabilities_": self.probabilities}

    @property
    def optional_parameters(self) -> tuple[str, ...]:
        """The moments of the totals of rows: draws alone have need of them."""
        return ("total_moments",)

    def parameters(self) -> dict[str, Array]:
        """Return the probabilities, and mean and variance of the totals of rows."""
        return {"probabilities": self.probabilities, "total_moments": self.size.as_array()}

    def with_parameters(self, given: Mapping[str, Array]) -> Self:
        """Return components of such probabilities; those of zero are as little as is allowed.

        Raises
        ------
        ValueError
            They do not sum to one.
        """
        probabilities = given["probabilities"]
        require("probabilities", probabilities, bool((probabilities >= 0).all()))
        totals = probabilities.sum(axis=1, keepdims=True)
        if not (np.abs(totals - 1) < 1e-6).all():
            raise ValueError(
                "probabilities of the columns must sum to 1 in each component, and some sum to "
                f"{float(totals.flat[np.abs(totals - 1).argmax()]):.6g}"
            )
        least = tuning().canonical.least_share * self.shares
        size = RowSize.of_given("total_moments", given.get("total_moments"), self.size)
        return replace(self, logits=np.log(np.maximum(probabilities, least)), size=size)

    def formula(self, operators: Operators[V], rows: V) -> Formula[V]:
        """Write theta . phi; in common is log Multinomial(x; q)."""
        d = self.n_features
        x = operators.rounded(rows, [True] * d) if self.rounded else rows
        components = operators.product(x, self.natural[:, :d].T)

        def common() -> V:
            total = operators.log_factorials(operators.sum(x, d), 1)
            parts = operators.sum(operators.log_factorials(x, d), d)
            apart = operators.add(total, operators.scaled(parts, -ONE))
            return operators.add(apart, operators.product(x, np.log(self.shares)[:, None]))

        return Formula(components, common)

    # -- the E-step: the counts, then the constant -------------------------------------------------

    @property
    def natural(self) -> Array:
        """log(p / q) of each column, q being those of all data, and 1."""
        ones = np.ones((len(self.logits), 1))
        return np.concatenate([self.log_probabilities - np.log(self.shares), ones], axis=1)

    def features(self, rows: int) -> Features:
        """Return what writes the counts, and the constant of each row."""
        return MultinomialFeatures(self.shares, self.rounded, rows)

    # -- the M-step -----------------------------------------------------------------------------

    def maximize(
        self, resp_sum: Array, statistics: CanonicalStatistics
    ) -> tuple[Self, Sequence[int]]:
        """Return the shares of sum r x, but no less than a small share of all data's.

        A component whose rows have no counts keeps its probabilities: any are as likely.
        """
        counts = statistics.sums[:, :-1]
        total, constants = counts.sum(axis=1, keepdims=True), tuning().canonical
        least = constants.least_share * self.shares
        possible = (counts >= -constants.rounding * np.abs(total) * self.shares).all(axis=1)
        usable = has_rows(resp_sum) & possible & (total[:, 0] >= 0)
        none = counts <= least * total
        free = np.where(none, 0.0, counts).sum(axis=1, keepdims=True)
        left = 1.0 - np.where(none, least, 0.0).sum(axis=1, keepdims=True)
        known = usable[:, None] & (free > 0)
        scale = left / np.where(free > 0, free, 1.0)
        found = np.where(none, least, counts * scale)
        logits = np.where(known, np.log(np.where(known, found, 1.0)), self.log_probabilities)
        return replace(self, logits=logits), np.flatnonzero(~usable).tolist()

    def information_scale(self, root_weights: Array) -> Array:
        """Return the root of a weight times that of the variance of each count, (k d,)."""
        p = self.probabilities
        scale: Array = root_weights[:, None] * np.sqrt(self.size.mean * p * (1 - p))
        return np.maximum(scale, np.finfo(np.float64).eps * root_weights[:, None]).ravel()

    # -- in the units of the data -----------------------------------------------------------------

    def sample(self, component: int, n: int, rng: np.random.Generator) -> Array:
        """Draw n rows (n, d) of one component, their totals of the mean and spread of the data's.

        Totals are Poisson of gamma rates, or all alike where they vary by no more than that.
        """
        totals = self.size.totals(n, rng)
        return rng.multinomial(totals, self.probabilities[component]).astype(np.float64)

    def coordinates(self, X: Array) -> Array:
        """Return roots of the shares in each row's total, (n, d)."""
        return root_shares(X)

    def moments(self) -> tuple[Array, Array]:
        """Return mean and variance of each column in each component, (k, d) both."""
        p, mean, variance = self.probabilities, *self.size.of_totals
        return mean * p, mean * p * (1 - p) + variance * p**2

    def correlations(self, component: int, columns: Sequence[int]) -> Array:
        """Return the correlations between columns, (m, m)."""
        mean, variance = self.size.of_totals
        p = self.probabilities[component, list(columns)]
        found = np.outer(p, p) * (variance - mean) + np.diag(mean * p)
        widths = np.sqrt(np.maximum(np.diagonal(found), np.finfo(np.float64).tiny))
        return np.asarray(found / np.outer(widths, widths))

    def marginal(self, column: int, x: Array) -> Array:
        """Compute the probability of the count nearest to each of m points, (k, m).

        That is a density, each count a step of width one, where rows have such totals as draws.
        """
        return self.size.shares_of_totals(self.probabilities[:, column], np.rint(x))

    # -- what is odd ------------------------------------------------------------------------------

    def degenerate(self, weights: Array) -> list[Degenerate]:
        """Return the components that count nothing in some columns."""
        return without_counts(self.probabilities / self.shares, np.arange(self.n_features))

    def warnings(self, weights: Array, called: Callable[[Sequence[int]], str]) -> list[str]:
        """Return which components count nothing, where, and what to do."""
        return zero_warnings(self.degenerate(weights), weights, called, "probability")


class MultinomialFeatures(Features):
    """Write counts, and log Multinomial(x; q) of rows.

    Parameters
    ----------
    shares : (d,) array
        The probabilities q.
    rounded : bool
    rows : int
        Rows of a block, at most.
    """

    def __init__(self, shares: Array, rounded: bool, rows: int) -> None:
        d, self._rounded = len(shares), rounded
        self._shares, self._log_shares = shares, np.log(shares)
        self._index, self._found = np.empty((d + 1, rows), dtype=np.intp), np.empty((d + 1, rows))
        # The factorial of the total, less those of the counts.
        self._signs = np.append(np.full(d, -1.0), 1.0)
        self._table = log_factorials()

    def write(self, X: Array, out: Array) -> None:
        """Write phi of the rows X (b, d) into `out` (d + 1, b)."""
        b, d = X.shape
        counts, constant = out[:d], out[d]
        np.copyto(counts, X.T)
        if self._rounded:
            np.rint(counts, out=counts)
        # The total waits where the constant will be.
        np.sum(counts, axis=0, out=constant)
        if constant.max() >= len(self._table):
            # A multinomial is Poisson counts, given that their sum is Poisson.
            total = np.maximum(constant, 1e-100)
            np.negative(log_poisson(constant, total), out=constant)
            for j, share in enumerate(self._shares):
                constant += log_poisson(counts[j], share * total)
            return
        index, found = self._index[:, :b], self._found[:, :b]
        np.copyto(index, out, casting="unsafe")
        np.take(self._table, index, out=found, mode="clip")
        np.matmul(self._log_shares, counts, out=constant)
        constant += self._signs @ found


def root_shares(X: Array) -> Array:
    """Compute roots of the shares of rows X (n, d) in their totals, (n, d).

    Distances between them are Hellinger's, and their variance is about one over four totals.

    Examples
    --------
    >>> root_shares(np.array([[1.0, 3.0], [0.0, 0.0]])).round(3).tolist()
    [[0.5, 0.866], [0.0, 0.0]]
    """
    rows = np.asarray(X, dtype=np.float64)
    totals = rows.sum(axis=1, keepdims=True)
    return np.sqrt(rows / np.where(totals > 0, totals, 1.0))


@dataclass(frozen=True)
class MultinomialOptions(FamilyOptions):
    """Describe multinomial components before they are fitted.

    Attributes
    ----------
    rounded : bool
        Whether numbers are rounded to counts.

    Examples
    --------
    >>> MultinomialOptions().n_parameters(k=2, d=3)
    4
    """

    rounded: bool = False

    @property
    def support(self) -> Support:
        """Counts."""
        return count_support(self.rounded)

    @property
    def base_measure(self) -> tuple[str, ...]:
        """A probability of the counts of a row, whose total is given."""
        return ("a probability given the total",)

    def of_data(self, moments: Moments, k: int) -> Multinomial:
        """Return k components alike, of the shares of all data."""
        reference = Reference.of(moments.mean, tuning().canonical.least_share)
        mean = float(moments.mean.sum())
        size = RowSize(mean, float(moments.covariance.sum())) if mean > 0 else RowSize()
        shares = reference.values / reference.values.sum()
        return Multinomial(np.tile(np.log(shares), (k, 1)), reference, size, self.rounded)

    def start_coordinates(self, rows: Array, moments: Moments) -> Array:
        """Return the roots of the shares in the totals of sampled rows, (m, d)."""
        return root_shares(rows)
