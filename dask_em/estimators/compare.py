"""Compare two fitted mixtures: their data, their components, and what they say of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError

from ..core.agreement import Agree, Agreement
from ..core.scoring import FLOAT64, Predict, Scores
from ..errors import UsageError
from ..fitting.checks import check_scores
from ..fitting.comparable import check_comparable
from .base import MixtureEstimator
from .matching import Pair, matched


@dataclass(frozen=True)
class Compared:
    """Tell of one of two models that are compared.

    Attributes
    ----------
    family, structure : str
        What its components are.
    n_components : int
    columns : tuple of str
    data : dict
        `source`, `n_rows`, `n_features` and `fingerprint` of what it was fitted to.
    """

    family: str
    structure: str
    n_components: int
    columns: tuple[str, ...]
    data: dict[str, Any]

    @classmethod
    def of(cls, model: MixtureEstimator) -> Compared:
        """Return what is told of a fitted model."""
        components, known = model.describe(), model.provenance_
        return cls(
            components.family,
            components.structure,
            model.n_components,
            tuple(components.columns),
            {name: known[name] for name in ("source", "n_rows", "n_features", "fingerprint")},
        )

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {**vars(self), "columns": list(self.columns)}


@dataclass(frozen=True)
class Comparison:
    """Hold what tells two fitted mixtures apart.

    Attributes
    ----------
    same_data : bool
        Whether both were fitted to data of one fingerprint: what a first pass sums of all rows.
        The same rows in other chunks may have another.
    pairs : tuple of Pair or None
        Components that are matched, by their number in the first model: the assignment of least
        total Bhattacharyya distance. None where the columns do not allow it.
    without : tuple of tuples of int
        Components of the first, and of the second, that are matched to none.
    rows : Agreement or None
        What both say of the rows that were given: the contingency table of labels, the adjusted
        Rand index, the mean difference of log-densities with its standard error.
    n_dropped : int
        Rows of NaN or infinity that were left out.
    cannot : tuple of str
        What cannot be compared, and why.
    models : tuple of Compared
        The first, and the second.
    """

    same_data: bool
    pairs: tuple[Pair, ...] | None
    without: tuple[tuple[int, ...], tuple[int, ...]]
    rows: Agreement | None
    n_dropped: int
    cannot: tuple[str, ...]
    models: tuple[Compared, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON has it, `rows` with the numbers that are made of its sums."""
        return {
            "models": [one.as_dict() for one in self.models],
            "same_data": self.same_data,
            "pairs": None if self.pairs is None else [pair.as_dict() for pair in self.pairs],
            "without": [list(numbers) for numbers in self.without],
            "rows": None if self.rows is None else self._rows_told(self.rows),
            "cannot": list(self.cannot),
        }

    def _rows_told(self, rows: Agreement) -> dict[str, Any]:
        # All else that cannot be compared leaves no rows.
        known = not self.cannot
        return {
            "n_rows": rows.n_rows,
            "n_dropped": self.n_dropped,
            "weight": rows.weight,
            "adjusted_rand": rows.adjusted_rand,
            "table": rows.table.tolist(),
            "difference": rows.mean_difference if known else None,
            "standard_error": rows.standard_error if known else None,
        }


def compare(
    a: MixtureEstimator, b: MixtureEstimator, X: Any = None, *, sample_weight: Any = None
) -> Comparison:
    """Compare two fitted mixtures, and with X what they say of its rows, in one pass.

    Components are matched by the assignment of least total Bhattacharyya distance: exact for
    normals and categories, of others that of normals of the same moments. Columns are found by
    their names, in any order, or by their places where one has no names.

    Parameters
    ----------
    a, b : fitted mixtures
        Of any families and numbers of components.
    X : the same kinds as in `fit`, (n, d), optional
        Read as `a` reads data.
    sample_weight : the same kinds, (n,), or the name of a column of X, optional
        A row of weight w counts as w rows.

    Returns
    -------
    Comparison
        Log-likelihoods differ by `rows.mean_difference`, b less a, in nats per row, of standard
        error `rows.standard_error` for independent rows. Choose by rows that no fit has seen.

    Raises
    ------
    TypeError
        One is no mixture of this package; `NotFittedError` where it is not fitted.
    UsageError, DataError
        The columns of both differ, and rows were given; or the rows cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import GaussianMixture, compare
    >>> X = np.random.default_rng(0).normal(size=(500, 2)) + np.repeat([[0.0], [9.0]], 250, axis=0)
    >>> one, two = (GaussianMixture(k, random_state=0).fit(X) for k in (1, 2))
    >>> found = compare(one, two, X)
    >>> found.same_data, len(found.pairs), [len(numbers) for numbers in found.without]
    (True, 1, [0, 1])
    >>> found.rows.mean_difference > 0, compare(two, two, X).rows.adjusted_rand
    (True, 1.0)
    """
    for name, model in (("a", a), ("b", b)):
        _check_fitted(name, model)
    models = Compared.of(a), Compared.of(b)
    try:
        order = _column_order(a, b)
    except UsageError as e:
        if X is not None:
            raise
        apart = (), ()
        told = (f"components and rows: {e}",)
        return Comparison(_same_data(a, b), None, apart, None, 0, told, models)
    weights = a.fitted_array("weights_"), b.fitted_array("weights_")
    pairs = tuple(matched(a.describe(), b.describe(), order, weights))
    cannot = _no_likelihoods(a, b, order)
    sums, n_dropped = (None, 0) if X is None else _agreement(a, b, order, X, sample_weight)
    if sums is not None and not cannot and not np.isfinite(sums.difference):
        cannot = ("log-likelihoods: the density of a row is zero under one of the models",)
    without = _without(a, [one.first for one in pairs]), _without(b, [one.second for one in pairs])
    return Comparison(_same_data(a, b), pairs, without, sums, n_dropped, cannot, models)


def _same_data(a: MixtureEstimator, b: MixtureEstimator) -> bool:
    return bool(a.provenance_["fingerprint"] == b.provenance_["fingerprint"])


def _without(model: MixtureEstimator, taken: Sequence[int]) -> tuple[int, ...]:
    return tuple(k for k in range(len(model.weights_)) if k not in taken)


def _agreement(
    a: MixtureEstimator, b: MixtureEstimator, order: Sequence[int], X: Any, sample_weight: Any
) -> tuple[Agreement, int]:
    """Return the sums of one pass over X, and how many rows were left out."""
    source = a.source(X, sample_weight)
    straight = list(order) == list(range(len(order)))
    first, second = (_labels_and_densities(model, source.n_rows) for model in (a, b))
    work = Agree(first, second, None if straight else np.argsort(order))
    found = a.sums(source, work, "compare")
    n_dropped = found.log.n_dropped
    check_scores(Scores(found.sums.n_rows, found.sums.weight, 0.0, 0.0), n_dropped)
    return found.sums, n_dropped


def _labels_and_densities(model: MixtureEstimator, n_rows: int | None) -> Predict:
    predictor = model.predictor(("labels", "log_density"), n_rows=n_rows)
    # The pass leaves rows out before, and differences want all digits.
    return replace(predictor, drop=False, reals=FLOAT64)


def _check_fitted(name: str, model: MixtureEstimator) -> None:
    if not isinstance(model, MixtureEstimator):
        raise TypeError(
            f"{name} is {model!r:.100}, expected a fitted mixture, or what load returns"
        )
    if "state_" not in vars(model):
        raise NotFittedError(f"{name} is a {type(model).__name__} that is not fitted: fit it first")


def _column_order(a: MixtureEstimator, b: MixtureEstimator) -> list[int]:
    """Return the column of `b` for each of `a`.

    Raises
    ------
    UsageError
        They are others, or hold other categories.
    """
    if a.n_features_in_ != b.n_features_in_:
        raise UsageError(
            f"the models have {a.n_features_in_} and {b.n_features_in_} columns: compare models of "
            "the same columns"
        )
    order = [*range(a.n_features_in_)]
    ours, theirs = (vars(model).get("feature_names_in_") for model in (a, b))
    if ours is not None and theirs is not None:
        places = {name: j for j, name in enumerate(theirs)}
        if lacking := [str(name) for name in ours if name not in places]:
            raise UsageError(
                f"the second model has no column '{lacking[0]}', which the first has"
                f"{f' ({len(lacking)} such columns)' if len(lacking) > 1 else ''}: compare models "
                "of the same columns"
            )
        order = [places[name] for name in ours]
    _check_categories(a, b, order)
    return order


def _check_categories(a: MixtureEstimator, b: MixtureEstimator, order: Sequence[int]) -> None:
    """Raise `UsageError` where a column holds categories of one model that the other lacks."""
    ours, theirs = a.describe().answers, b.describe().answers
    words = [vars(model).get("feature_categories_") for model in (a, b)]
    for own, other in enumerate(order):
        sizes = [
            None if (shares := answers.get(j)) is None else shares.shape[1]
            for answers, j in ((ours, own), (theirs, other))
        ]
        named = [
            None if one is None else one[j] for one, j in zip(words, (own, other), strict=True)
        ]
        if sizes[0] != sizes[1] or (None not in named and named[0] != named[1]):
            raise UsageError(
                f"column {own} has other categories in the second model than in the first: "
                "compare models of the same categories"
            )


def _no_likelihoods(
    a: MixtureEstimator, b: MixtureEstimator, order: Sequence[int]
) -> tuple[str, ...]:
    """Return why log-likelihoods of both are no numbers of one kind; nothing where they are."""
    try:
        check_comparable(
            [a.start_options(), b.start_options()],
            vars(a).get("feature_names_in_"),
            len(order),
        )
    except UsageError as e:
        return (f"log-likelihoods: {e}",)
    return ()
