"""Poisson components: independent counts, each of a rate per unit of exposure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..core.additive import Array
from ..core.degenerate import Degenerate
from ..core.engine import Engine
from ..core.family import FamilyOptions, register_family
from ..core.finite import as_finite
from ..core.formula import Formula, Operators, V
from ..core.moments import Moments
from ..core.support import POSITIVE, Support, supports_of_columns
from ..core.tuning import tuning
from ..core.validation import require
from .amounts import FROM_ZERO
from .canonical import (
    CanonicalFamily,
    CanonicalStatistics,
    Features,
    Reference,
    clipped_exp,
    has_rows,
    log_ratio,
)
from .counts import ONE, RowSize, count_support, without_counts, zero_warnings
from .special import log_factorials, log_poisson


@register_family("poisson")
@dataclass(frozen=True)
class Poisson(CanonicalFamily):
    """Hold K products of Poisson distributions over d columns of counts.

    With an exposure e, which is a column of the rows, log p(x | k) is
    sum_j x_j log(e lambda_kj) - e lambda_kj - log x_j!; without, e is 1.

    Attributes
    ----------
    log_rates : (k, d) array
    reference : Reference
        The rates of all data.
    exposure : int or None
        The number of the column of exposures among the d + 1 columns of the rows.
    size : RowSize
        Of the exposures.
    rounded : bool
        Whether numbers are rounded to counts.

    Examples
    --------
    >>> two = Poisson(np.log([[1.0], [4.0]]), Reference(np.array([2.0])))
    >>> two.log_prob(np.array([[0], [3]])).round(4).tolist()
    [[-1.0, -4.0], [-2.7918, -1.6329]]
    >>> by_hours = replace(two, exposure=0)
    >>> by_hours.log_prob(np.array([[0.5, 0], [2.0, 3]])).round(4).tolist()
    [[-0.5, -2.0], [-1.7123, -3.5534]]
    """

    holdable = MappingProxyType({"rates": "log_rates"})

    log_rates: Array
    reference: Reference
    exposure: int | None = None
    size: RowSize = field(default_factory=RowSize)
    rounded: bool = False

    @property
    def rates(self) -> Array:
        """Expected counts per unit of exposure, (k, d)."""
        return clipped_exp(self.log_rates)

    @property
    def n_features(self) -> int:
        return int(self.log_rates.shape[1]) + (self.exposure is not None)

    @property
    def counted(self) -> Array:
        """Numbers of the columns that hold counts, (d,)."""
        return counted_columns(self.n_features, self.exposure)

    @property
    def support(self) -> Support:
        """Counts, and a positive exposure."""
        return _support(self.n_features, self.exposure, self.rounded)

    def validate(self, statistics: CanonicalStatistics) -> None:
        """Raise `ValueError` that names the parameter or sum that is wrong."""
        require("log_rates", self.log_rates, self.log_rates.ndim == 2)
        within = self.exposure is None or 0 <= self.exposure < self.n_features
        require("exposure", self.exposure, within)
        self.size.validate()
        super().validate(statistics)

    def join_key(self, engine: Engine) -> Hashable:
        """Return what families must have in common to be `joined`."""
        return super().join_key(engine), self.exposure, self.size, self.rounded

    def attributes(self) -> dict[str, Array]:
        """Return the rates."""
        return {"rates_": self.rates}

    @property
    def optional_parameters(self) -> tuple[str, ...]:
        """The moments of exposures: draws alone have need of them."""
        return () if self.exposure is None else ("exposure_moments",)

    def parameters(self) -> dict[str, Array]:
        """Return the rates, and mean and variance of exposures where rows have them."""
        if self.exposure is None:
            return {"rates": self.rates}
        return {"rates": self.rates, "exposure_moments": self.size.as_array()}

    def with_parameters(self, given: Mapping[str, Array]) -> Self:
        """Return components of such rates; those of zero are as little as is allowed."""
        rates = given["rates"]
        require("rates", rates, bool((rates >= 0).all()))
        least = tuning().canonical.least_share * self.reference.values
        size = RowSize.of_given("exposure_moments", given.get("exposure_moments"), self.size)
        return replace(self, log_rates=np.log(np.maximum(rates, least)), size=size)

    def formula(self, operators: Operators[V], rows: V) -> Formula[V]:
        """Write theta . phi; in common is sum_j log Poisson(x_j; e lambda_0j)."""
        n, at, counted = self.n_features, self.exposure, self.counted
        is_count = np.zeros(n, dtype=bool)
        is_count[counted] = True
        x = operators.rounded(rows, is_count.tolist()) if self.rounded else rows
        theta, reference = self.natural, self.reference.values
        of_all = -reference.sum()
        if at is None:
            components = operators.product(x, theta[:, :n].T, theta[:, n])
        else:
            components = operators.product(x, theta[:, :n].T)

        def common() -> V:
            counts = operators.columns(x, counted.tolist())
            d, offset = len(reference), np.array([of_all]) if at is None else None
            lost = operators.sum(operators.log_factorials(counts, d), d)
            known = operators.product(counts, np.log(reference)[:, None], offset)
            found = operators.add(known, operators.scaled(lost, -ONE))
            if at is None:
                return found
            exposure = operators.columns(x, [at])
            logs = operators.multiply(operators.sum(counts, d), operators.log(exposure))
            found = operators.add(found, operators.scaled(exposure, of_all * ONE))
            return operators.add(found, logs)

        return Formula(components, common)

    # -- the E-step: the rows' columns, then 1 where none is an exposure, then the constant -----

    @property
    def _place(self) -> int:
        """The number of the feature that holds the exposure, or 1."""
        return int(self.log_rates.shape[1]) if self.exposure is None else self.exposure

    @property
    def natural(self) -> Array:
        """log(lambda / lambda_0) of each column, -sum_j (lambda_j - lambda_0j), and 1."""
        k, d = self.log_rates.shape
        reference, out = self.reference.values, np.ones((k, d + 2))
        out[:, self.counted] = log_ratio(self.log_rates, reference)
        out[:, self._place] = (reference - self.rates).sum(axis=1)
        return out

    def features(self, rows: int) -> Features:
        """Return what writes the counts, the exposure, and the constant of each row."""
        return PoissonFeatures(self.reference.values, self.exposure, self.rounded, rows)

    # -- the M-step ----------------------------------------------------------------------------

    def maximize(
        self, resp_sum: Array, statistics: CanonicalStatistics
    ) -> tuple[Self, Sequence[int]]:
        """Return the rates sum r x / sum r e, but no less than a small share of all data's."""
        counts = statistics.sums[:, self.counted]
        exposure = statistics.sums[:, self._place]
        expected = exposure[:, None] * self.reference.values
        # A surrogate's corrected sums may be of no data: of less than nothing.
        possible = (counts >= -tuning().canonical.rounding * expected).all(axis=1)
        usable = has_rows(resp_sum) & (exposure > 0) & possible
        rates = counts / np.where(usable, exposure, 1.0)[:, None]
        rates = np.maximum(rates, tuning().canonical.least_share * self.reference.values)
        log_rates = np.where(usable[:, None], np.log(rates), self.log_rates)
        return replace(self, log_rates=log_rates), np.flatnonzero(~usable).tolist()

    def information_scale(self, root_weights: Array) -> Array:
        """Return the square root of what is counted in each column, (k d,)."""
        scale: Array = root_weights[:, None] * np.sqrt(self.rates * self.size.mean)
        return scale.ravel()

    # -- in the units of the data -----------------------------------------------------------------

    def sample(self, component: int, n: int, rng: np.random.Generator) -> Array:
        """Draw n rows (n, d) of one component, with exposures where rows have them."""
        exposures, rows = self.size.draw(n, rng), np.empty((n, self.n_features))
        if self.exposure is not None:
            rows[:, self.exposure] = exposures
        rows[:, self.counted] = rng.poisson(exposures[:, None] * self.rates[component])
        return rows

    def coordinates(self, X: Array) -> Array:
        """Return root counts per root exposure, (n, d), whose variance is about 1/4."""
        return root_counts(X, self.exposure)

    def moments(self) -> tuple[Array, Array]:
        """Return mean and variance of each column in each component, (k, d) both."""
        rates, size = self.rates, self.size
        means, variances = (np.full((len(rates), self.n_features), v) for v in vars(size).values())
        means[:, self.counted] = rates * size.mean
        variances[:, self.counted] = rates * size.mean + rates**2 * size.variance
        return means, variances

    def correlations(self, component: int, columns: Sequence[int]) -> Array:
        """Return the correlations between columns, (m, m), which exposures make."""
        loads = np.ones(self.n_features)
        loads[self.counted] = self.rates[component]
        variances = self.moments()[1][component]
        loads = loads[list(columns)] * np.sqrt(self.size.variance)
        loads /= np.sqrt(np.maximum(variances[list(columns)], np.finfo(np.float64).tiny))
        found = np.outer(loads, loads)
        np.fill_diagonal(found, 1.0)
        return found

    def marginal(self, column: int, x: Array) -> Array:
        """Compute the probability of the count nearest to each of m points, (k, m).

        That is a density, each count a step of width one. Of the exposures it is that of the gamma
        distribution that draws have.
        """
        if column != self.exposure:
            rates = self.rates[:, int(np.flatnonzero(self.counted == column)[0])]
            return self.size.counts(rates, np.rint(x))
        from scipy.stats import gamma

        k, shape = len(self.log_rates), self.size.shape
        if not np.isfinite(shape):
            return np.zeros((k, len(x)))
        return np.tile(gamma.pdf(x, shape, scale=self.size.mean / shape), (k, 1))

    # -- what is odd ------------------------------------------------------------------------------

    def degenerate(self, weights: Array) -> list[Degenerate]:
        """Return the components that count nothing in some columns."""
        return without_counts(self.rates / self.reference.values, self.counted)

    def warnings(self, weights: Array, called: Callable[[Sequence[int]], str]) -> list[str]:
        """Return which components count nothing, where, and what to do."""
        return zero_warnings(self.degenerate(weights), weights, called, "rate")


class PoissonFeatures(Features):
    """Write counts, exposure, and sum_j log Poisson(x_j; e lambda_0j) of rows.

    Parameters
    ----------
    reference : (d,) array
        The rates lambda_0.
    exposure : int or None
    rounded : bool
    rows : int
        Rows of a block, at most.
    """

    def __init__(self, reference: Array, exposure: int | None, rounded: bool, rows: int) -> None:
        d = len(reference) + (exposure is not None)
        self._exposure, self._reference, self._rounded = exposure, reference, rounded
        self._counted = counted_columns(d, exposure)
        self._log_reference, self._is_count = np.zeros(d), np.zeros(d)
        self._log_reference[self._counted] = np.log(reference)
        self._is_count[self._counted] = 1.0
        self._index, self._found = np.empty((d, rows), dtype=np.intp), np.empty((d, rows))
        self._table = log_factorials()

    def write(self, X: Array, out: Array) -> None:
        """Write phi of the rows X (b, d) into `out` (d + 1 or d + 2, b)."""
        b, d = X.shape
        counts, constant = out[:d], out[-1]
        np.copyto(counts, X.T)
        if self._rounded:
            for j in self._counted:
                np.rint(counts[j], out=counts[j])
        exposure: Array | float = 1.0
        if self._exposure is None:
            out[d] = 1.0
        else:
            exposure = out[self._exposure]
        if counts.max(axis=1)[self._counted].max() >= len(self._table):
            constant[:] = 0.0
            for j, rate in zip(self._counted, self._reference, strict=True):
                constant += log_poisson(counts[j], rate * np.asarray(exposure))
            return
        index, found = self._index[:, :b], self._found[:, :b]
        with np.errstate(invalid="ignore"):
            # An exposure may be no index, and is left out below.
            np.copyto(index, counts, casting="unsafe")
        np.take(self._table, index, out=found, mode="clip")
        np.matmul(self._log_reference, counts, out=constant)
        constant -= self._is_count @ found
        constant -= self._reference.sum() * exposure
        if self._exposure is not None:
            constant += (self._is_count @ counts) * np.log(exposure)


def counted_columns(n_columns: int, exposure: int | None) -> Array:
    """Return the numbers of the columns that are no exposure.

    Examples
    --------
    >>> counted_columns(3, None).tolist(), counted_columns(3, 1).tolist()
    ([0, 1, 2], [0, 2])
    """
    every = np.arange(n_columns)
    return every if exposure is None else np.delete(every, exposure)


def root_counts(X: Array, exposure: int | None = None) -> Array:
    """Compute root counts per root exposure of rows X (n, d), (n, d): their variance is about 1/4.

    The root stabilizes the variance of a Poisson distribution (Bartlett 1936).

    Examples
    --------
    >>> root_counts(np.array([[4.0, 2.0], [9.0, 1.0]]), exposure=1).round(3).tolist()
    [[1.414], [3.0]]
    """
    rows = np.asarray(X, dtype=np.float64)
    counts = rows[:, counted_columns(rows.shape[1], exposure)]
    return np.sqrt(counts if exposure is None else counts / rows[:, exposure, None])


def _support(n_columns: int | None, exposure: int | None, rounded: bool) -> Support:
    counts = count_support(rounded)
    if exposure is None or n_columns is None:
        # Before there are data, nobody knows which column is none.
        return counts if exposure is None else FROM_ZERO
    counted = counted_columns(n_columns, exposure).tolist()
    return supports_of_columns([(counts, counted), (POSITIVE, [exposure])], n_columns)


@dataclass(frozen=True, eq=False)
class PoissonOptions(FamilyOptions):
    """Hold what is known of Poisson components before they are fitted.

    Attributes
    ----------
    exposure : int or None
        The number of the column of exposures.
    n_columns : int or None
        Of the rows, the exposure's among them; needed where there is one.
    rounded : bool
        Whether numbers are rounded to counts.
    rates_init : (k, d) array or None
        Rates to start from.

    Examples
    --------
    >>> options = PoissonOptions(exposure=0, n_columns=3)
    >>> options.n_parameters(k=2, d=3), options.support.word(0)
    (4, 'positive numbers')
    """

    exposure: int | None = None
    n_columns: int | None = None
    rounded: bool = False
    rates_init: npt.ArrayLike | None = None

    @property
    def support(self) -> Support:
        """Counts, and a positive exposure."""
        return _support(self.n_columns, self.exposure, self.rounded)

    @property
    def base_measure(self) -> tuple[str, ...]:
        """A probability of each count; the exposure is given, and has none."""
        if self.exposure is None or self.n_columns is None:
            return ("a probability",)
        columns = range(self.n_columns)
        return tuple("nothing" if j == self.exposure else "a probability" for j in columns)

    def of_data(self, moments: Moments, k: int) -> Poisson:
        """Return k components alike, of the rates of all data."""
        counted = counted_columns(len(moments.mean), self.exposure)
        size = RowSize()
        if self.exposure is not None:
            at = self.exposure
            # Moments that are of no rows stand for any.
            mean = float(moments.mean[at]) if moments.mean[at] > 0 else 1.0
            size = RowSize(mean, float(moments.covariance[at, at]))
        rates = moments.mean[counted] / size.mean
        reference = Reference.of(rates, tuning().canonical.least_share)
        log_rates = np.tile(np.log(reference.values), (k, 1))
        return Poisson(log_rates, reference, self.exposure, size, self.rounded)

    def start_coordinates(self, rows: Array, moments: Moments) -> Array:
        """Return the root counts of sampled rows, per root exposure, (m, d)."""
        return root_counts(rows, self.exposure)

    @property
    def all_given(self) -> bool:
        """Whether the user gave the rates."""
        return self.rates_init is not None

    def with_given(self, components: Any) -> Poisson:
        """Return the components with the user's rates.

        Raises
        ------
        ValueError
            `rates_init` are none.
        """
        found: Poisson = components
        rates = as_finite("rates_init", self.rates_init, found.log_rates.shape)
        if rates is None:
            return found
        if (rates < 0).any():
            raise ValueError(f"rates_init holds {rates.min():g}: expected rates of at least 0")
        least = tuning().canonical.least_share * found.reference.values
        return replace(found, log_rates=np.log(np.maximum(rates, least)))
