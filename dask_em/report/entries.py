"""Columns of any kind as numbers: those of numbers themselves, answers by their indicators."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from ..core.additive import Array
from ..estimators.describe import ComponentDescription, FittedMixture, shares_among
from .formats import answer_name

# Stands for the answer of a column that holds numbers.
NUMBER = -1


@dataclass(frozen=True)
class Entries:
    """Hold d columns as m numbers: a column of categories is an indicator of each answer.

    So columns of any kind have means, variances and covariances that may be compared: the mean of
    an indicator is the probability of its answer.

    Attributes
    ----------
    components : ComponentDescription
    shares : (k,) array
        Weights of the components among themselves.
    columns : (m,) array of int
        Of each entry.
    answers : (m,) array of int
        Of each entry; NUMBER of columns of numbers.
    names : tuple of str
        Of each entry: of its column, and of its answer.

    Examples
    --------
    >>> from dask_em import CategoricalMixture
    >>> codes = np.array([[0], [1], [2], [2]])
    >>> found = Entries.of(CategoricalMixture(1, random_state=0, alpha=0).fit(codes))
    >>> found.names, found.means.round(2).tolist()
    (('column 0 = 0', 'column 0 = 1', 'column 0 = 2'), [[0.25, 0.25, 0.5]])
    """

    components: ComponentDescription
    shares: Array
    columns: Array
    answers: Array
    names: tuple[str, ...]

    @classmethod
    def of(cls, model: FittedMixture) -> Self:
        """Return all entries of a model, column after column."""
        components = model.describe()
        parts = [
            [(j, NUMBER)]
            if (found := components.answers.get(j)) is None
            else [(j, answer) for answer in range(found.shape[1])]
            for j in range(len(components.columns))
        ]
        every = np.array([entry for part in parts for entry in part], dtype=int).reshape(-1, 2)
        names = tuple(
            components.columns[j]
            if answer == NUMBER
            else f"{components.columns[j]} = {answer_name(model, j, answer)}"
            for j, answer in every.tolist()
        )
        return cls(components, shares_among(model), every[:, 0], every[:, 1], names)

    def of_columns(self, columns: Array) -> Self:
        """Return the entries of some columns, in the order of these."""
        return self.take(np.concatenate([np.flatnonzero(self.columns == j) for j in columns]))

    def take(self, chosen: Array) -> Self:
        """Return some of the entries, in this order."""
        return replace(
            self,
            columns=self.columns[chosen],
            answers=self.answers[chosen],
            names=tuple(self.names[i] for i in chosen.tolist()),
        )

    @cached_property
    def means(self) -> Array:
        """Means of the entries in each component, (k, m)."""
        return self._each(self.components.means, 1)

    @cached_property
    def variances(self) -> Array:
        """Variances of the entries in each component, (k, m)."""
        return self._each(self.components.variances, 0)

    def _each(self, numbers: Array, power: int) -> Array:
        """Return `numbers` (k, d) of columns of numbers, and p or p (1 - p) of answers, (k, m)."""
        found = np.empty((len(self.shares), len(self.columns)))
        of_numbers = self.answers == NUMBER
        found[:, of_numbers] = numbers[:, self.columns[of_numbers]]
        for i in np.flatnonzero(~of_numbers):
            p = self.components.answers[int(self.columns[i])][:, self.answers[i]]
            found[:, i] = p if power else p * (1 - p)
        return found

    @property
    def center(self) -> Array:
        """Mean of each entry in the whole mixture, (m,)."""
        return np.asarray(self.shares @ self.means)

    @property
    def between(self) -> Array:
        """Variance of the components' means about it, (m,)."""
        return np.asarray(self.shares @ (self.means - self.center) ** 2)

    @property
    def total(self) -> Array:
        """Variance of each entry in the whole mixture, (m,)."""
        return np.asarray(self.shares @ self.variances + self.between)

    @property
    def standardized(self) -> Array:
        """Means less those of the whole mixture, in its standard deviations, (k, m)."""
        spread = np.sqrt(self.total)
        found = np.zeros_like(self.means)
        np.divide(self.means - self.center, spread, out=found, where=spread > 0)
        return found

    def covariance(self, component: int) -> Array:
        """Compute the covariance of the entries in one component, (m, m).

        Answers are independent of all else, given the component.
        """
        found = np.diag(self.variances[component])
        at = np.flatnonzero(self.answers == NUMBER)
        of_numbers = self.components.covariance(component, self.columns[at].tolist())
        found[np.ix_(at, at)] = of_numbers
        for j in np.unique(self.columns[self.answers != NUMBER]):
            own = np.flatnonzero(self.columns == j)
            p = self.means[component, own]
            found[np.ix_(own, own)] = np.diag(p) - np.outer(p, p)
        return found

    def rows(self, model: FittedMixture, X: Array) -> Array:
        """Return rows X (n, d) by entries, (n, m); NaN where a value is missing."""
        found = np.empty((len(X), len(self.columns)))
        for i, (j, answer) in enumerate(
            zip(self.columns.tolist(), self.answers.tolist(), strict=True)
        ):
            if answer == NUMBER:
                found[:, i] = X[:, j]
            else:
                given = np.asarray(model.state_.result.components.answers_in(X, j))
                found[:, i] = np.where(np.isnan(given), np.nan, given == answer)
        return found
