"""Many models fitted in the same passes over the data, and the best of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Self, get_args

from ..families.gaussian.structures import NAMES
from ..fitting.criteria import Criterion, RangeEnd, check_criterion, range_end
from ..fitting.driver import Driver
from ..fitting.observers import n_reads
from .base import MixtureEstimator
from .drawings import drawing
from .fits import Fit
from .gaussian import GaussianMixture
from .html import selection_html
from .known import KnownLabels
from .options import check_choice, check_number
from .tables import OfSelection, records_frame

Chosen = type[MixtureEstimator] | MixtureEstimator
"""A class of mixtures, or an estimator whose options are to be used."""


@dataclass(frozen=True)
class Selection:
    """Hold what a sweep found.

    Attributes
    ----------
    best : MixtureEstimator
        The winner, fitted.
    table : list of dict
        One row a model: n_components, covariance_type, n_parameters, log_likelihood (nats per
        row), aic, bic, icl, holdout (nats per row held out, or None), n_passes that served
        it, status, n_factors where it has such, and its family where several are compared.
        A model of status DEGENERATE has components that the data do not determine, and is
        left out of the choice unless all are so. One of status DROPPED was given up; after no
        pass, its numbers are estimates: the winner's, and how much the sample or the slice
        says that it is worse.
    models : list of MixtureEstimator
        With `keep_all=True` every model that was not given up, fitted, in the table's order.
    criterion : str
    range_end : {"largest", "smallest"} or None
        Whether the winner has the most components that were tried, or the fewest, so that more,
        or fewer, may be better; a log line says so, too.
    n_passes : float
        Passes over the data of the whole sweep, `n_reads`, and work on the sample in passes that
        would compute as much.
    history : list of dict
        One record a pass of the whole sweep.
    chosen : dict
        The row of `table` that is of the winner.

    Examples
    --------
    >>> import numpy as np
    >>> found = select(np.random.default_rng(0).normal(size=(200, 2)), [1, 2], random_state=0)
    >>> found.best.n_components, [row["n_components"] for row in found.table]
    (1, [1, 2])
    """

    best: MixtureEstimator
    table: list[dict[str, Any]]
    models: list[MixtureEstimator]
    criterion: str
    range_end: RangeEnd | None
    n_passes: float
    history: list[dict[str, Any]]
    chosen: dict[str, Any]

    @property
    def n_reads(self) -> int:
        """How often the data were read: records of `history` but a survey kept beside them."""
        return n_reads(self.history)

    def to_frame(self, of: OfSelection = "table") -> Any:
        """Return `table` or `history` as a pandas.DataFrame, one row a model, or a pass.

        Parameters
        ----------
        of : {"table", "history"}, default="table"

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        UsageError
            pandas is not installed.
        """
        check_choice("of", of, get_args(OfSelection))
        return records_frame(self.table if of == "table" else self.history)

    def plot(self, criterion: Criterion | None = None, ax: Any = None) -> Any:
        """Draw a criterion over the number of components as `dask_em.plots.selection`.

        Parameters
        ----------
        criterion : {"bic", "aic", "icl", "holdout"}, optional
            By default the one by which it chose.
        ax : matplotlib Axes, optional

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        UsageError
            No model has the criterion, or matplotlib is not installed.
        """
        return drawing("selection")(self, criterion, ax)

    def _repr_html_(self) -> str:
        """HTML for notebooks: which model was chosen, and how the others did."""
        return selection_html(self.table, self.chosen, self.criterion, self.range_end, self.n_reads)

    @classmethod
    def of(cls, fit: Fit[MixtureEstimator], driver: Driver, keep_all: bool) -> Self:
        """Return what a fit found, once it was run."""
        best = driver.candidates.index(driver.best)
        models, table = [*fit.estimators], [row.as_dict(fit.kind_option) for row in driver.rows]
        kept = [
            model
            for model, candidate in zip(models, driver.candidates, strict=True)
            if candidate is not None and (candidate is driver.best or not candidate.dropped)
        ]
        return cls(
            models[best],
            table,
            kept if keep_all else [],
            fit.criterion,
            range_end(
                models[best].n_components,
                [m.n_components for m in models if m.family == models[best].family],
            ),
            models[best].n_passes_,
            [record.as_dict() for record in driver.passes.records],
            table[best],
        )


def select(
    X: Any,
    n_components: int | Iterable[int],
    covariance_type: str | Sequence[str] | None = None,
    *,
    estimator: Chosen | Sequence[Chosen] = GaussianMixture,
    criterion: Criterion = "bic",
    n_init: int = 5,
    holdout: float = 0.0,
    exhaustive: bool = False,
    keep_all: bool = False,
    sample_weight: Any = None,
    labels_init: Any = None,
    labels_fixed: bool = False,
    noise_covariance: Any = None,
    random_state: Any = None,
    **options: Any,
) -> Selection:
    """Fit a mixture of every family, covariance structure and K, all by the same passes.

    The models start on one sample of the data. Those that the sample shows to be eliminated
    stay there. Where many are left and the data are large, passes that compute with a slice
    of the rows choose among them. The others share every read of every chunk, and leave
    when they have converged or when they can no longer win.

    Parameters
    ----------
    X : NumPy array, Dask array, zarr.Array, or path or URL of a Zarr array
        (n, d), or another kind that `fit` takes. Never loaded whole, never persisted.
    n_components : int or iterable of int
    covariance_type : str or sequence of str, optional
        One or several of those that the estimator takes, or "all" for the fourteen structures.
        Of an estimator that has other kinds of components, their names; ignored by one
        that has none. By default the estimator's own.
    estimator : class, estimator, or sequence of them, default=GaussianMixture
        What is fitted: several are of several families, whose likelihoods must be of one kind.
        An estimator has its own options where none are given here.
    criterion : {"bic", "aic", "icl", "holdout"}, default="bic"
        What the winner is best by. AIC, BIC and ICL (Biernacki et al. 2000) are taken of the
        rows that are fitted, "holdout" is the log-likelihood of the rows that are not: K-means
        has none.
    n_init : int, default=5
        Starts of each model on the sample. With a single one, a K that happens to start
        badly loses to its neighbours.
    holdout : float, default=0
        Share of the rows, drawn by seeds of their own, that no fit sees.
    exhaustive : bool, default=False
        Give no model up: each is then, to rounding, the fit that `GaussianMixture` makes of the
        same `random_state`, `n_init` and `sample_size`, or a better one, where the clusters of
        another covariance type of the same K are a better start.
    keep_all : bool, default=False
        Keep the models that did not win.
    sample_weight : the same kinds as X, (n,), optional
        A row of weight w counts as w rows.
    labels_init, labels_fixed
        As in `GaussianMixture.fit`, where all models are of one K.
    noise_covariance : as in `GaussianMixture.fit`, optional
    random_state : int, RandomState or None
    **options
        Other parameters of the estimator, the same for all: `tol`, `reg_covar`, ... Of factor
        analyzers `n_factors` is a number or several, each with every K. `checkpoint` keeps the
        whole sweep, and `max_time` ends it with the best so far.

    Returns
    -------
    Selection

    Raises
    ------
    TypeError
        Neither this function nor the estimator has such an option.
    ValueError
        An option is not one of those allowed.
    DataError
        The data cannot be clustered: shape, dtype, NaN or infinity, too few rows. Or they are
        others than those of the unfinished sweep in `checkpoint`.
    UsageError
        The unfinished sweep in `checkpoint` is of other options; or densities of one family
        would be compared with probabilities of another.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(1.0, 1.0, (200, 2)), rng.normal(9.0, 1.0, (100, 2))])
    >>> found = select(X, range(1, 4), ["full", "spherical"], random_state=0)
    >>> found.best.n_components, found.best.covariance_type, len(found.table)
    (2, 'spherical', 6)
    """
    options |= {"n_init": n_init, "random_state": random_state}
    fit = sweep(n_components, covariance_type, criterion, holdout, exhaustive, estimator, options)
    known = KnownLabels.of(labels_init, labels_fixed)
    return Selection.of(fit, fit.run(X, sample_weight, known, noise_covariance), keep_all)


def sweep(
    n_components: int | Iterable[int],
    kinds: str | Sequence[str] | None,
    criterion: Criterion,
    holdout: float,
    exhaustive: bool,
    estimator: Chosen | Sequence[Chosen],
    options: Mapping[str, Any],
) -> Fit[MixtureEstimator]:
    """Return the fit of each estimator for each kind and K.

    Raises
    ------
    TypeError
        No estimator has such an option.
    ValueError
        An option is not one of those allowed, or not the same for all.

    Examples
    --------
    >>> fit = sweep([2, 3], ["full", "diag"], "bic", 0.0, False, GaussianMixture, {"tol": 1e-4})
    >>> [(model.n_components, model.covariance_type) for model in fit.estimators]
    [(2, 'full'), (3, 'full'), (2, 'diag'), (3, 'diag')]
    """
    chosen = _estimators(estimator)
    _check_families(chosen)
    _check_keywords(chosen, options)
    ks = list(n_components) if isinstance(n_components, Iterable) else [n_components]
    _check_values("n_components", ks)
    models = [m for one in chosen for m in _models(one, ks, kinds, options)]
    for model in models:
        model.check_options()
    _check_shared(models)
    # Models are compared by what a pass found.
    check_number("max_iter", models[0].max_iter, int, 1)
    check_criterion(criterion, holdout, [model.assignment for model in models])
    return Fit(models, criterion, holdout, exhaustive, chooses=True)


def _estimators(given: Chosen | Sequence[Chosen]) -> list[MixtureEstimator]:
    """Return the estimators of a choice, those of classes with their defaults."""
    alone = isinstance(given, (type, MixtureEstimator))
    several: Any = [given] if alone else given
    return [one() if isinstance(one, type) else one for one in several]


def _models(
    chosen: MixtureEstimator,
    ks: Sequence[int],
    kinds: str | Sequence[str] | None,
    options: Mapping[str, Any],
) -> list[MixtureEstimator]:
    """Return an estimator like the chosen one for each kind, number of factors and K."""
    make, own = type(chosen), chosen.get_params(deep=False)
    own |= {name: value for name, value in options.items() if name in own}
    # One that nobody gave leaves an estimator its own.
    if options.get("random_state") is None:
        own["random_state"] = chosen.random_state
    of_start = [name for name in make.array_options if name not in make.prior_options]
    given = [name for name in of_start if not isinstance(own.get(name), str | None)]
    if given or own["warm_start"]:
        raise ValueError(
            f"{', '.join(given) or 'warm_start'} belongs to a fit of one K: leave it out, or fit "
            f"a {make.__name__}"
        )
    alike: list[dict[str, Any]] = [{}]
    if make.kind_option is not None and kinds is not None:
        kinds = [kinds] if isinstance(kinds, str) else list(kinds)
        if make.kind_option == "covariance_type":
            kinds = [one for kind in kinds for one in (NAMES if kind == "all" else [kind])]
        _check_values(make.kind_option, kinds)
        alike = [{make.kind_option: kind} for kind in kinds]
    for name in make.swept_options:
        values = [*own[name]] if isinstance(own[name], Iterable) else [own[name]]
        _check_values(name, values)
        alike = [{**one, name: value} for one in alike for value in values]
    return [make(**{**own, **kind, make.size_option: k}) for kind in alike for k in ks]


def _check_values(name: str, values: Sequence[object]) -> None:
    if not values or len(set(values)) < len(values):
        raise ValueError(f"{name}={values!r}: expected one or more values, each of them once")


def _check_families(chosen: Sequence[MixtureEstimator]) -> None:
    """Raise unless there are estimators, of families that a table can tell apart."""
    if not chosen:
        raise ValueError("there is no estimator: expected one or more")
    for one in chosen:
        if not isinstance(one, MixtureEstimator):
            raise TypeError(
                f"{one!r:.100} is no estimator: expected a class of mixtures such as "
                "GaussianMixture, an estimator of one, or a list of such"
            )
    families = [one.family for one in chosen]
    for family in families:
        if families.count(family) > 1:
            raise ValueError(
                f"two estimators are of the family {family}, and a table tells models apart by "
                "family, kind and K: compare them in two sweeps"
            )


def _check_shared(models: Sequence[MixtureEstimator]) -> None:
    """Raise where estimators of several families differ in what their passes share."""
    apart = {"self", "n_components", "weights_init"}
    for name in inspect.signature(MixtureEstimator.__init__).parameters:
        if name in apart:
            continue
        values = {model.family: _shared_value(model, name) for model in models}
        (family, first), *others = values.items()
        for other, value in others:
            if value is not first and value != first:
                raise ValueError(
                    f"{name} is {first!r} for {family} and {value!r} for {other}: models of one "
                    "sweep share every pass, so it must be the same for all"
                )


def _shared_value(model: MixtureEstimator, name: str) -> Any:
    # Columns may be given in groups.
    return model.read_options.columns if name == "columns" else getattr(model, name)


def _check_keywords(chosen: Sequence[MixtureEstimator], options: Mapping[str, Any]) -> None:
    """Raise `TypeError` that names `select`, and the keyword that is nearest to a wrong one."""
    allowed = [*inspect.signature(select).parameters]
    allowed += [name for one in chosen for name in one.get_params()]
    for name in options:
        if name not in allowed:
            near = get_close_matches(name, allowed, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            names = " or ".join(type(one).__name__ for one in chosen)
            raise TypeError(
                f"select() got an unexpected keyword argument {name!r}, which is no parameter of "
                f"{names} either{meant}"
            )
