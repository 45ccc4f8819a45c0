"""Categorical and Bernoulli components: latent class analysis.

Given the component, answers to different questions are independent: p(x | k) = prod_j p_kj(x_j)
(Lazarsfeld and Henry, Latent Structure Analysis, 1968). A missing answer is a factor of one, which
is exact where answers are missing at random (Rubin 1976).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ...core.additive import Array
from ...core.degenerate import Degenerate
from ...core.engine import NUMPY, Engine
from ...core.family import Family, Kernel, register_family
from ...core.formula import Formula, Operators, V
from ...core.profile import Profile
from ...core.support import Support
from ...core.tuning import tuning
from ...core.validation import LARGEST, require, require_array, require_close
from .binary import binarized
from .indicators import indicators
from .numpy_kernel import IndicatorKernel
from .oddities import answer_warnings, at_bounds, bound_warnings, never_given
from .statistics import CategoricalStatistics


@dataclass(frozen=True)
class AnswerFamily(Family[CategoricalStatistics]):
    """Hold K distributions over answers to d questions: the base of both families.

    Attributes
    ----------
    log_probabilities : (k, m) array
        log p_kj(c), the categories of all columns side by side. None is below the logarithm of
        `tuning().categorical.least_probability`.
    n_categories : tuple of int
        Of each of the d columns; they sum to m.
    alpha : float
        Added to each count by the M-step: the exponents less one of a Dirichlet prior.
    missing : bool
        Whether answers may be missing, which are NaN.
    """

    log_probabilities: Array
    n_categories: tuple[int, ...]
    alpha: float = 0.0
    missing: bool = False

    @property
    def threshold(self) -> float | None:
        """The number above which numbers are a one; None where they are codes."""
        return None

    @property
    def probabilities(self) -> Array:
        """Probabilities of all answers, (k, m)."""
        return np.exp(self.log_probabilities)

    @property
    def places(self) -> list[slice]:
        """Where the categories of each column are among all."""
        ends = np.cumsum(self.n_categories).tolist()
        return [slice(end - n, end) for end, n in zip(ends, self.n_categories, strict=True)]

    @property
    def _starts(self) -> Array:
        return np.cumsum([0, *self.n_categories[:-1]])

    @property
    def n_features(self) -> int:
        return len(self.n_categories)

    @property
    def n_parameters(self) -> int:
        return self.n_components * (sum(self.n_categories) - self.n_features)

    @property
    def structure(self) -> str:
        """How many categories the columns have, in words."""
        least, most = min(self.n_categories), max(self.n_categories)
        return f"{most} categories" if least == most else f"{least} to {most} categories"

    @property
    def support(self) -> Support:
        """The codes of the categories; of fractions their whole part."""
        found = support_of(self.n_categories, self.missing)
        beyond = tuple(float(np.nextafter(most + 1, 0)) for most in found.most)
        return replace(found, whole=(False,), most=beyond)

    @property
    def statistics_bytes(self) -> int:
        return self.log_probabilities.nbytes

    def validate(self, statistics: CategoricalStatistics) -> None:
        """Raise `ValueError` that names the parameter or sum that is wrong."""
        numbers = self.n_categories
        right = bool(numbers) and all(type(n) is int and n >= 1 for n in numbers)
        k, m = self.log_probabilities.shape if self.log_probabilities.ndim == 2 else (0, 0)
        require("n_categories", numbers, right and sum(numbers) == m)
        require_array("log_probabilities", self.log_probabilities, (k, m))
        require("log_probabilities", self.log_probabilities, k > 0 and bool(self._sum_to_one()))
        require("alpha", self.alpha, 0 <= self.alpha <= LARGEST)
        require_array("counts", statistics.counts, (k, m), largest=np.finfo(np.float64).max)

    def _sum_to_one(self) -> bool:
        if (self.log_probabilities > 0).any():
            return False
        total = np.add.reduceat(self.probabilities, self._starts, axis=1)
        return bool((np.abs(total - 1) < 1e-6).all())

    # -- the E-step ------------------------------------------------------------------

    def kernel(self, engine: Engine = NUMPY) -> Kernel[CategoricalStatistics]:
        """Return a kernel with sums of zero: compiled where the engine is."""
        if engine.name == "numba":
            from .compiled_kernel import LookupKernel

            return LookupKernel(
                self.log_probabilities, self.n_categories, self.missing, self.threshold
            )
        return IndicatorKernel(self.log_probabilities, self.n_categories, self.threshold)

    def join_key(self, engine: Engine) -> Hashable:
        """Return what families must have in common to be `joined`."""
        return type(self), self.n_categories, self.alpha, self.missing, self.threshold

    # -- the M-step --------------------------------------------------------------------

    def maximize(
        self, resp_sum: Array, statistics: CategoricalStatistics
    ) -> tuple[Self, Sequence[int]]:
        """Return p_kjc = (N_kjc + alpha) / sum_c (N_kjc + alpha).

        A component that holds no rows keeps its probabilities, and so does one with counts below
        zero, which are those of no data. Where a component holds no answer to a question, those
        of that question are kept.
        """
        counts = statistics.counts
        negative = tuning().categorical.negative * np.abs(resp_sum)
        kept = ~(resp_sum > tuning().numerics.empty) | (counts < -negative[:, None]).any(axis=1)
        raised = np.maximum(counts, 0.0) + self.alpha
        totals = np.add.reduceat(raised, self._starts, axis=1)
        unanswered = ~(totals > tuning().numerics.empty) | kept[:, None]
        totals = np.repeat(np.where(unanswered, 1.0, totals), self.n_categories, axis=1)
        found = self._floored(raised / totals)
        same = np.repeat(unanswered, self.n_categories, axis=1)
        found = np.where(same, self.log_probabilities, found)
        return replace(self, log_probabilities=found), np.flatnonzero(kept).tolist()

    def _floored(self, probabilities: Array) -> Array:
        """Return logarithms of probabilities (k, m), none of them of zero, that sum to one."""
        least = tuning().categorical.least_probability
        raised = np.maximum(probabilities, least)
        totals = np.add.reduceat(raised, self._starts, axis=1)
        return np.asarray(np.log(raised / np.repeat(totals, self.n_categories, axis=1)))

    def near(self, X: Array, resp: Array) -> Self:
        """Return components alike that answer as often as all of the rows X (n, d) do."""
        weights = resp.sum(axis=1)
        one = replace(self, log_probabilities=self.log_probabilities[:1])
        counts = one.sufficient_statistics(X, weights[:, None]).counts
        # As if one row more had given each answer in equal parts: a sample lacks some.
        counts = counts + np.repeat(1.0 / np.array(self.n_categories), self.n_categories)
        totals = np.add.reduceat(counts, self._starts, axis=1)
        pooled = self._floored(counts / np.repeat(totals, self.n_categories, axis=1))
        return replace(self, log_probabilities=np.repeat(pooled, self.n_components, axis=0))

    def softened(self) -> Self:
        """Return components that give each answer a little as often as all of them together."""
        share, p = tuning().categorical.softened, self.probabilities
        return replace(self, log_probabilities=self._floored((1 - share) * p + share * p.mean(0)))

    def log_prior_density(self) -> float:
        """Compute the log density of the Dirichlet prior, in nats, up to a constant."""
        return float(self.alpha * self.log_probabilities.sum()) if self.alpha else 0.0

    # -- sums at other parameters ---------------------------------------------------------

    def expected_log_joint(
        self, log_weights: Array, resp_sum: Array, statistics: CategoricalStatistics
    ) -> float:
        """Compute sum_nk r_nk log(w_k p(x_n | k)) from the counts."""
        answers = (self.log_probabilities * statistics.counts).sum()
        return float(resp_sum @ log_weights + answers)

    # -- as one vector ---------------------------------------------------------------------

    def from_unconstrained(self, vector: Array) -> Self:
        """Return the family of logits (p,): log-probabilities but for a constant each column."""
        logits = vector.reshape(self.log_probabilities.shape)
        largest = np.maximum.reduceat(logits, self._starts, axis=1)
        odds = np.exp(logits - np.repeat(largest, self.n_categories, axis=1))
        totals = np.add.reduceat(odds, self._starts, axis=1)
        found = self._floored(odds / np.repeat(totals, self.n_categories, axis=1))
        return replace(self, log_probabilities=found)

    def information_scale(self, root_weights: Array) -> Array:
        """Return the root of weight times probability: how often the answer is given, (p,)."""
        return (root_weights[:, None] * np.sqrt(self.probabilities)).ravel()

    # -- rows ------------------------------------------------------------------------------

    def coordinates(self, X: Array) -> Array:
        """Return the answers of rows (n, d) as indicators, those that lack as the mean answer."""
        answers = binarized(X, self.threshold)
        return indicators(answers, self.n_categories, self.probabilities.mean(axis=0))

    def sample(self, component: int, n: int, rng: np.random.Generator) -> Array:
        """Draw n rows (n, d) of one component: codes of categories."""
        rows = np.empty((n, self.n_features), dtype=np.int64)
        for j, p in enumerate(self.by_column(component)):
            rows[:, j] = rng.choice(len(p), n, p=p / p.sum())
        return rows

    def by_column(self, component: int) -> Iterator[Array]:
        """Yield the probabilities of the answers to each question, (c,)."""
        for place in self.places:
            yield np.exp(self.log_probabilities[component, place])

    def moments(self) -> tuple[Array, Array]:
        """Return mean and variance of the codes of each column in each component, (k, d) both."""
        codes = np.concatenate([np.arange(n) for n in self.n_categories])
        means, squares = (
            np.add.reduceat(self.probabilities * codes**power, self._starts, axis=1)
            for power in (1, 2)
        )
        return means, np.maximum(squares - means**2, 0.0)

    def correlations(self, component: int, columns: Sequence[int]) -> Array:
        """Return the identity: answers are independent given the component, (m, m)."""
        return np.eye(len(columns))

    def marginal(self, column: int, x: Array) -> Array:
        """Return the probability of the code nearest to each of m points, (k, m)."""
        codes = np.rint(x)
        n = self.n_categories[column]
        inside = (codes >= 0) & (codes < n)
        found = np.exp(self.log_probabilities[:, self.places[column]])
        return np.where(inside, found[:, np.clip(codes, 0, n - 1).astype(int)], 0.0)

    def profiles(self) -> list[Profile]:
        """Return the probability of each answer to each question: means of codes say nothing."""
        found = self.answer_probabilities()
        columns = tuple(j for j, p in found.items() for _ in range(p.shape[1]))
        entries = tuple(str(answer) for p in found.values() for answer in range(p.shape[1]))
        values = np.hstack([*found.values()])
        return [Profile("Probabilities of answers", columns, values, None, entries, "bars")]

    def answer_probabilities(self) -> Mapping[int, Array]:
        """Return the probabilities of the answers to each question, (k, c)."""
        return {j: np.exp(self.log_probabilities[:, p]) for j, p in enumerate(self.places)}

    def answers_in(self, X: Array, column: int) -> Array:
        """Return the codes in a column of rows (n, d), NaN where an answer is missing."""
        return super().answers_in(binarized(X[:, [column]], self.threshold), 0)

    # -- what is odd --------------------------------------------------------------------------

    def degenerate(self, weights: Array) -> list[Degenerate]:
        """Return the components that give one answer to every question, and no other ever.

        Probabilities at 0 or 1 of some questions bound no likelihood from below or above: they are
        told by `warnings`, and such models may be the best.
        """
        d = self.n_features
        return [
            one for one in at_bounds(self.log_probabilities, self.places) if len(one.columns) == d
        ]

    @property
    def has_prior(self) -> bool:
        """Whether a prior determines components of any number of rows."""
        return self.alpha > 0

    def warnings(self, weights: Array, called: Callable[[Sequence[int]], str]) -> list[str]:
        """Return which probabilities are 0 or 1, whether all are identified, and what to do."""
        return answer_warnings(self.log_probabilities, self.places, weights, called)

    def group_warnings(self, weights: Array, called: Callable[[Sequence[int]], str]) -> list[str]:
        """Return which probabilities are 0 or 1; other columns may tell components apart."""
        log_probabilities, places = self.log_probabilities, self.places
        never = never_given(log_probabilities, places)
        return bound_warnings(at_bounds(log_probabilities, places), called, never)

    def formula(self, operators: Operators[V], rows: V) -> Formula[V]:
        """Write the sum of the log-probabilities of the answers; a missing one adds nothing."""
        given = operators.answers(rows, self.n_categories, self.threshold)
        return Formula(operators.product(given, self.log_probabilities.T))

    def parameters(self) -> dict[str, Array]:
        """Return the probabilities in their shape."""
        return {"probabilities": self.shaped(self.probabilities)}

    def with_parameters(self, given: Mapping[str, Array]) -> Self:
        """Return components of such probabilities, and of the categories that they are of.

        Raises
        ------
        ValueError
            Those of a column do not sum to one.
        """
        probabilities = given["probabilities"]
        require(
            "probabilities",
            probabilities,
            bool(((probabilities >= 0) & (probabilities <= 1)).all()),
        )
        numbers, flat = self._flat(probabilities)
        one = replace(self, log_probabilities=np.zeros(flat.shape), n_categories=numbers)
        totals = np.add.reduceat(flat, one._starts, axis=1)
        if not (np.abs(totals - 1) < 1e-6).all():
            raise ValueError(
                "probabilities of the answers to a question must sum to 1 in each component, and "
                f"some sum to {totals.flat[np.abs(totals - 1).argmax()]:.6g}"
            )
        flat = flat / np.repeat(totals, numbers, axis=1)
        return replace(one, log_probabilities=one._floored(flat))

    @abstractmethod
    def _flat(self, probabilities: Array) -> tuple[tuple[int, ...], Array]:
        """Return the number of categories of each column, and their probabilities (k, m)."""

    @abstractmethod
    def shaped(self, values: Array) -> Array:
        """Return numbers of all answers (k, m) in the shape of the probabilities."""

    def attributes(self) -> dict[str, Array]:
        """Return the probabilities in their shape."""
        return {"probabilities_": self.shaped(self.probabilities)}

    def check_attributes(self, found: Mapping[str, Array]) -> None:
        """Raise `ValueError` where arrays of a file are not `attributes`, but for rounding."""
        for name, array in self.attributes().items():
            require_close(name, found[name], array, 1e-6)


@register_family("categorical")
@dataclass(frozen=True)
class Categorical(AnswerFamily):
    """Hold K products of categorical distributions, whose columns may differ in categories.

    Examples
    --------
    >>> pair = Categorical(np.log([[0.5, 0.5, 0.2, 0.3, 0.5]]), (2, 3))
    >>> pair.n_parameters, np.exp(pair.log_prob(np.array([[1, 2]]))).round(3).tolist()
    (3, [[0.25]])
    >>> pair.attributes()["probabilities_"].round(3).tolist()
    [[[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]]
    """

    def _flat(self, probabilities: Array) -> tuple[tuple[int, ...], Array]:
        """Return how many categories have a probability, and those, side by side (k, m)."""
        largest = probabilities.max(axis=0)
        numbers = tuple(max([0, *np.flatnonzero(one > 0).tolist()]) + 1 for one in largest)
        parts = [probabilities[:, j, :n] for j, n in enumerate(numbers)]
        return numbers, np.concatenate(parts, axis=1)

    def shaped(self, values: Array) -> Array:
        """Return numbers of all answers (k, m) as (k, d, c), zero where a column has fewer."""
        out = np.zeros((self.n_components, self.n_features, max(self.n_categories)))
        for j, place in enumerate(self.places):
            out[:, j, : place.stop - place.start] = values[:, place]
        return out


@register_family("bernoulli")
@dataclass(frozen=True)
class Bernoulli(AnswerFamily):
    """Hold K products of Bernoulli distributions.

    Attributes
    ----------
    binarize : float or None
        The number above which numbers are a one; None where they are zeros and ones.

    Examples
    --------
    >>> pair = Bernoulli(np.log([[0.5, 0.5, 0.2, 0.8]]), (2, 2))
    >>> pair.n_parameters, pair.attributes()["probabilities_"].round(3).tolist()
    (2, [[0.5, 0.8]])
    """

    binarize: float | None = None

    @property
    def threshold(self) -> float | None:
        """The number above which numbers are a one."""
        return self.binarize

    @property
    def structure(self) -> str:
        return ""

    @property
    def support(self) -> Support:
        """Zero and one, or all numbers where these are cut in two."""
        return binary_support(self.binarize, self.missing)

    def validate(self, statistics: CategoricalStatistics) -> None:
        """Raise `ValueError` that names the parameter or sum that is wrong."""
        super().validate(statistics)
        require("n_categories", self.n_categories, {*self.n_categories} == {2})
        require("binarize", self.binarize, self.binarize is None or np.isfinite(self.binarize))

    def _flat(self, probabilities: Array) -> tuple[tuple[int, ...], Array]:
        """Return two categories for each column, and the probabilities of both, (k, 2 d)."""
        k, d = probabilities.shape
        both = np.stack([1 - probabilities, probabilities], axis=2)
        return (2,) * d, both.reshape(k, 2 * d)

    def shaped(self, values: Array) -> Array:
        """Return numbers of all answers (k, m) as those of a one, (k, d)."""
        return values[:, 1::2].copy()


def binary_support(binarize: float | None, missing: bool) -> Support:
    """Return the numbers that are answers: all of them where they are cut in two."""
    if binarize is not None:
        return Support(missing=(missing,))
    return support_of([2], missing)


def support_of(n_categories: Sequence[int | None], missing: bool) -> Support:
    """Return the codes of so many categories a column, None where any number is allowed.

    Examples
    --------
    >>> support_of((2, 3), missing=False).word(1)
    'codes of categories (whole numbers from 0 to 2)'
    """
    most = [tuning().categorical.most_categories if n is None else n for n in n_categories]
    words = [f"codes of categories (whole numbers from 0 to {n - 1})" for n in most]
    one = len({*most}) == 1
    limits: Any = {"words": tuple(words[:1] if one else words), "least": (0.0,), "whole": (True,)}
    largest = tuple(float(n - 1) for n in (most[:1] if one else most))
    return Support(most=largest, missing=(missing,), **limits)
