"""Standardised differences between a group and all others, column by column.

Of a column of numbers, (mean of the group - mean of the rest) / standard deviation of all rows; of
a column of categories, the same of the indicator of each category, so that numbers and categories
are ranked by one measure: Cohen's d of standardised total variance, which for a group of weight w
cannot exceed 1 / sqrt(w (1 - w)) (Glass and Hopkins, Statistical Methods in Education and
Psychology, 1996: the point-biserial correlation divided by sqrt(w (1 - w))). They follow from the
parameters in closed form: the rest is the mixture of all other components by their weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.additive import Array
from ..estimators.describe import FittedMixture, mixture_moments, shares_among


@dataclass(frozen=True)
class Effect:
    """Hold what tells one component from the rest in one column.

    Attributes
    ----------
    component, column : int
    size : float
        Standardised difference, positive where the component has more.
    inside, outside : float
        The mean in the component and in the rest; of a category its probability.
    spread : float
        The standard deviation of all rows, of numbers.
    category : int or None
        Of a column of categories: that which tells most.
    """

    component: int
    column: int
    size: float
    inside: float
    outside: float
    spread: float
    category: int | None = None

    @property
    def log_odds(self) -> float | None:
        """Log of the ratio of the odds of the category inside and outside, None of numbers."""
        if self.category is None:
            return None
        p, q = np.clip([self.inside, self.outside], 1e-12, 1 - 1e-12)
        return float(np.log(p / (1 - p)) - np.log(q / (1 - q)))


def of_the_rest(weights: Array, means: Array) -> Array:
    """Compute the means (k, m) of the mixture of all components but each, by weights (k,).

    NaN where there are no others.

    Examples
    --------
    >>> of_the_rest(np.array([0.5, 0.25, 0.25]), np.array([[0.0], [4.0], [8.0]])).tolist()
    [[6.0], [2.6666666666666665], [1.3333333333333333]]
    """
    # Not the total less one part, which would cancel where that part is nearly all.
    others = (1.0 - np.eye(len(weights))) * weights
    total = others.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((others @ means) / np.where(total > 0, total, np.nan))


def effects(model: FittedMixture) -> list[list[Effect]]:
    """Compute the effect of each column in each component, the largest first.

    Columns without one, as those that do not vary, are left out, and a mixture of one component
    has none.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(400, 2)) + 9 * np.eye(2)[np.arange(400) % 2]
    >>> first, second = effects(GaussianMixture(2, random_state=0).fit(X))
    >>> [one.column for one in first], round(abs(first[0].size), 1)
    ([0, 1], 2.0)
    """
    components = model.describe()
    weights, means, answers = shares_among(model), components.means, components.answers
    rest = of_the_rest(weights, means)
    _, spread = mixture_moments(weights, components)
    found = []
    for k in range(len(weights)):
        sizes = _standardised(means[k] - rest[k], spread)
        mine = [
            _of_categories(answers, weights, k, j)
            if j in answers
            else Effect(
                k, j, float(sizes[j]), float(means[k, j]), float(rest[k, j]), float(spread[j])
            )
            for j in range(means.shape[1])
        ]
        known = [one for one in mine if np.isfinite(one.size)]
        found.append(sorted(known, key=lambda one: -abs(one.size)))
    return found


def _of_categories(answers: Mapping[int, Array], weights: Array, k: int, j: int) -> Effect:
    """Return the effect of the category of column j that tells component k best."""
    probabilities = answers[j]
    inside, outside = probabilities[k], of_the_rest(weights, probabilities)[k]
    overall = weights @ probabilities
    spread = np.sqrt(np.maximum(overall * (1 - overall), 0))
    sizes = _standardised(inside - outside, spread)
    # Of two, yes says the same as no, and is what people ask for.
    c = 1 if len(sizes) == 2 else int(np.argmax(np.abs(np.nan_to_num(sizes))))
    return Effect(
        k, j, float(sizes[c]), float(inside[c]), float(outside[c]), float(spread[c]), category=c
    )


def _standardised(differences: Array, spread: Array) -> Array:
    """Divide by the spread; NaN where it is zero or not finite, as of heavy tails."""
    known = np.isfinite(spread) & (spread > 0)
    out = np.full(len(differences), np.nan)
    return np.asarray(np.divide(differences, spread, out=out, where=known))
