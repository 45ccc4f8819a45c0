"""Many models fitted in the same passes over the data, and the best of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

import numpy as np
from sklearn.utils import check_random_state

from .acceleration import ascent
from .backends.blas import one_blas_thread
from .backends.dask import DaskBackend
from .callbacks import Pass, PassRecord
from .em import Climb, Convergence
from .errors import DataError
from .estimators import GaussianMixture, warn_unless_converged
from .families.base import Engine
from .initialization import (
    FINER,
    SAMPLE_ITERATIONS,
    Sampled,
    Start,
    Survey,
    Surveyed,
    default_sample_size,
)
from .mixture import Mixture
from .selection import (
    Candidate,
    Criterion,
    Fleet,
    FleetStatistics,
    Holdout,
    Model,
    Row,
    Slice,
    Training,
    climb_together,
    drop_hopeless,
    winner,
)
from .shortlist import MOST_SLICES, Rules, Shortlisted, narrowed, shortlist, slice_share
from .statistics import Foldable


@dataclass(frozen=True)
class Selection:
    """What a sweep found.

    Attributes
    ----------
    best : GaussianMixture
        The winner, fitted.
    table : list of dict
        One row a model: n_components, covariance_type, n_parameters, log_likelihood (nats per
        row), aic, bic, icl, holdout (nats per row held out, or None), n_passes that served
        it, and status. A model of status DROPPED was given up; after no pass, its numbers are
        estimates: the winner's, and how much the sample or the slice says that it is worse.
    models : list of GaussianMixture
        With `keep_all=True` every model that was not given up, fitted, in the table's order.
    criterion : str
    n_passes : float
        Passes over the data of the whole sweep, with the survey's and the sample's share.
    history : list of dict
        One record a pass of the whole sweep.
    """

    best: GaussianMixture
    table: list[dict[str, Any]]
    models: list[GaussianMixture]
    criterion: str
    n_passes: float
    history: list[dict[str, Any]]


def select(
    X: Any,
    n_components: int | Iterable[int],
    covariance_type: str | Sequence[str] = ("full",),
    *,
    criterion: Criterion = "bic",
    n_init: int = 5,
    holdout: float = 0.0,
    exhaustive: bool = False,
    keep_all: bool = False,
    sample_weight: Any = None,
    random_state: Any = None,
    **options: Any,
) -> Selection:
    """Fit a Gaussian mixture of every K and covariance structure, all by the same passes.

    The models start on one sample of the data. Those that the sample shows to be hopeless
    stay there. Where many are left and the data are large, passes that compute with a slice
    of the rows choose among them. The others share every read of every chunk, and leave
    when they have converged or when they can no longer win.

    Parameters
    ----------
    X : NumPy array, Dask array, zarr.Array, or path or URL of a Zarr array
        (n, d). Never loaded whole, never persisted.
    n_components : int or iterable of int
    covariance_type : {"full", "tied", "diag", "spherical"} or a sequence of them
    criterion : {"bic", "aic", "icl", "holdout"}, default="bic"
        What the winner is best by. AIC, BIC and ICL (Biernacki et al. 2000) are taken of the
        rows that are fitted, "holdout" is the log-likelihood of the rows that are not.
    n_init : int, default=5
        Starts of each model on the sample. With a single one, a K that happens to start
        badly loses to its neighbours.
    holdout : float, default=0
        Share of the rows, drawn by seeds of their own, that no fit sees.
    exhaustive : bool, default=False
        Give no model up: each is then the fit that `GaussianMixture` makes of the same
        `random_state`, `n_init` and `sample_size`.
    keep_all : bool, default=False
        Keep the models that did not win.
    sample_weight : the same kinds as X, (n,), optional
        A row of weight w counts as w rows.
    random_state : int, RandomState or None
    **options
        Other parameters of `GaussianMixture`, the same for all: `tol`, `reg_covar`, ...

    Returns
    -------
    Selection

    Raises
    ------
    ValueError
        An option is not one of those allowed.
    DataError
        The data cannot be clustered: shape, dtype, NaN or infinity, too few rows.
    """
    options |= {"n_init": n_init, "random_state": random_state}
    models = _models(n_components, covariance_type, options)
    check_criterion(criterion, holdout)
    return _Sweep(models, criterion, float(holdout), exhaustive).run(X, sample_weight, keep_all)


def check_criterion(criterion: str, holdout: float) -> None:
    """Raise `ValueError` where the two do not go together."""
    if criterion not in get_args(Criterion):
        raise ValueError(
            f"criterion={criterion!r}: expected one of {', '.join(get_args(Criterion))}"
        )
    number = isinstance(holdout, int | float | np.number) and not isinstance(holdout, bool)
    if not number or not 0 <= holdout < 1:
        raise ValueError(f"holdout={holdout!r}: expected a number of at least 0 and below 1")
    if criterion == "holdout" and not holdout:
        raise ValueError("criterion='holdout' needs rows to score: pass holdout=0.1, say")


def _models(
    n_components: int | Iterable[int], kinds: str | Sequence[str], options: dict[str, Any]
) -> list[GaussianMixture]:
    """One estimator for each structure and K, not fitted."""
    ks = list(n_components) if isinstance(n_components, Iterable) else [n_components]
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    for name, values in (("n_components", ks), ("covariance_type", kinds)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name}={values!r}: expected one or more values, each of them once")
    lone = ("weights_init", "means_init", "precisions_init", "checkpoint")
    given = [name for name in lone if options.get(name) is not None]
    if given or options.get("warm_start"):
        raise ValueError(
            f"{', '.join(given) or 'warm_start'} belongs to a fit of one K: leave it out, or fit "
            "a GaussianMixture"
        )
    models = [GaussianMixture(k, covariance_type=kind, **options) for kind in kinds for k in ks]
    for model in models:
        model._check_options()
    return models


class _Sweep:
    """The models of one sweep, and the passes made for them."""

    def __init__(
        self, models: list[GaussianMixture], criterion: Criterion, share: float, exhaustive: bool
    ) -> None:
        self.estimators = models
        # Whatever all of them share is asked of the one that needs most rows.
        self.lead = max(models, key=lambda m: m.n_components)
        self.criterion: Criterion = criterion
        self.exhaustive = exhaustive
        self.callbacks = self.lead._callbacks()
        self.records: list[PassRecord] = []
        self.seed = int(check_random_state(self.lead.random_state).randint(np.iinfo(np.int32).max))
        self.holdout = Holdout(self.seed, share) if share else None

    def run(self, X: Any, sample_weight: Any, keep_all: bool) -> Selection:
        lead = self.lead
        self.convergence = Convergence(lead.tol, lead.max_iter, lead.max_passes, lead.max_time)
        self.source = lead._source(X, sample_weight, reset=True)
        for estimator in self.estimators:
            for name in ("n_features_in_", "feature_names_in_"):
                if hasattr(lead, name):
                    setattr(estimator, name, getattr(lead, name))
        self.models = [
            Model(m.n_components, m.covariance_type, m._n_parameters(self.source.n_features))
            for m in self.estimators
        ]
        with one_blas_thread():
            self.surveyed = self._survey()
            engine = self.lead._engine(self.source.dtype)
            self.sample = Sampled.of(self.surveyed)
            starts = self._starts(engine)
            candidates = [
                self._candidate(model, start, engine)
                for model, start in zip(self.models, starts, strict=True)
            ]
            climbing = [c for c in candidates if c is not None]
            self._climb(climbing)
        best = winner(climbing, self.criterion)
        rows = self._rows(starts, candidates, best)
        return self._selection(rows, candidates, best, keep_all)

    def _pass(self, phase: str) -> Pass:
        number = sum(record.phase == phase for record in self.records) + 1
        return Pass(self.callbacks, phase, number, self.source.n_rows, self.source.nbytes)

    def _survey(self) -> Surveyed:
        d = self.source.n_features
        size = max(m.sample_size or default_sample_size(m._n_parameters(d), d)
                   for m in self.estimators)  # fmt: skip
        survey = Survey(self.seed, max(size, self.lead.n_components), d, self.source.n_rows)
        work: Foldable[Surveyed] = Training(survey, self.holdout) if self.holdout else survey
        with self._pass("survey") as running:
            found = self.lead._first_pass(self.source, work, running)
            running.n_rows = found.sums.n_rows
        surveyed, self.source = found.sums, self.source.held_to(found.notes)
        self._record(running)
        self.lead._check_survey(self.source, surveyed)
        return surveyed

    def _record(self, running: Pass) -> None:
        assert running.record is not None
        self.records.append(running.record)

    def _starts(self, engine: Engine) -> list[Shortlisted | Mixture]:
        """Where each model starts, by the sample, which is small and in this process."""
        here = replace(engine, device="cpu")
        if self.exhaustive or self.lead.init_params != "auto":
            return self._separate_starts(here)
        lead = self.lead
        rules = Rules(
            lead.n_init,
            self.seed,
            lead.algorithm,
            Convergence(FINER * lead.tol, min(SAMPLE_ITERATIONS, lead.max_iter)),
            self.criterion,
            self.surveyed.moments.weight,
        )
        makers = [m._maker(self.surveyed, here) for m in self.estimators]
        with Pass(self.callbacks, "start", 1, None, 0) as running:
            found, n_rows = shortlist(self.models, makers, self.sample, rules, running.advance)
            running.n_rows = n_rows
        self.share = n_rows / max(1, self.surveyed.n_weighted)
        return [*self._narrowed(found, rules, engine)]

    def _narrowed(
        self, found: list[Shortlisted], rules: Rules, engine: Engine
    ) -> list[Shortlisted]:
        """The same after passes over a slice of the data, where they are worth their while."""
        most, n_weighted = self.convergence.max_passes, max(1, self.surveyed.n_weighted)
        share = slice_share(found, len(self.sample.rows), n_weighted)
        # Plain EM is plain; and a pass over all rows must be left.
        if share is None or self.lead.algorithm == "em" or (most is not None and most < 3):
            return found
        limits = replace(
            self.convergence,
            max_iter=min(MOST_SLICES, self.convergence.max_iter),
            max_passes=None if most is None else most - 1,
        )
        part = Slice(self.seed, share)

        def climb_from(mixture: Mixture) -> Climb:
            start = replace(mixture, engine=engine)
            return ascent(self.lead.algorithm, start, limits, self.sample)

        def accumulate(mixtures: tuple[Mixture, ...]) -> FleetStatistics:
            return self._summed("slice", Fleet(mixtures, self.holdout, part))

        found, n_rows = narrowed(self.models, found, climb_from, accumulate, self.sample, rules)
        self.share += n_rows / n_weighted
        if most is not None:
            made = sum(record.phase == "slice" for record in self.records)
            self.convergence = replace(self.convergence, max_passes=most - made)
        return found

    def _separate_starts(self, engine: Engine) -> list[Shortlisted | Mixture]:
        """The start that each model's own fit would make."""
        starts = []
        for estimator in self.estimators:
            estimator._seed = self.seed
            starts.append(estimator._start(self.surveyed, engine, self.callbacks))
        self.share = sum(start.n_passes for start in starts)
        return [start.mixture for start in starts]

    def _candidate(
        self, model: Model, start: Shortlisted | Mixture, engine: Engine
    ) -> Candidate | None:
        """A model on the full data, None where it is hopeless."""
        if isinstance(start, Shortlisted) and start.hopeless:
            return None
        mixture = start.mixture if isinstance(start, Shortlisted) else start
        mixture = replace(mixture, engine=engine)
        return Candidate(model, ascent(self.lead.algorithm, mixture, self.convergence, self.sample))

    def _climb(self, candidates: Sequence[Candidate]) -> None:
        """Take every candidate to its end, or give it up."""

        def accumulate(mixtures: tuple[Mixture, ...]) -> FleetStatistics:
            statistics = self._summed("em", Fleet(mixtures, self.holdout))
            if self.holdout and not statistics.held_weight:
                raise DataError(
                    f"holdout={self.holdout.share:g} of {self.surveyed.n_rows} rows drew none of "
                    "any weight: hold more out"
                )
            return statistics

        weed = None if self.exhaustive else partial(drop_hopeless, criterion=self.criterion)
        for served in climb_together(accumulate, candidates, weed):
            for callback in self.callbacks:
                for candidate in served:
                    callback(candidate.last_state())

    def _summed(self, phase: str, fleet: Fleet) -> FleetStatistics:
        """One pass, on record."""
        with self._pass(phase) as running:
            statistics = DaskBackend().map_reduce(self.source, fleet, running.advance)
            running.n_rows = self.surveyed.n_rows
            running.log_likelihood = max(m.mean_log_likelihood for m in statistics.members)
        self._record(running)
        return statistics

    @staticmethod
    def _rows(
        starts: Sequence[Shortlisted | Mixture],
        candidates: Sequence[Candidate | None],
        best: Candidate,
    ) -> list[Row]:
        """The table; what the sample alone knows is set beside what both know of the best."""
        state = best.last_state()
        known = starts[candidates.index(best)]
        rows = []
        for start, candidate in zip(starts, candidates, strict=True):
            if candidate is not None:
                rows.append(candidate.row())
            elif isinstance(start, Shortlisted) and isinstance(known, Shortlisted):
                nats = state.log_likelihood - known.row.log_likelihood
                rows.append(start.row.moved(nats, state.statistics.weight))
        return rows

    def _selection(
        self,
        rows: Sequence[Row],
        candidates: Sequence[Candidate | None],
        best: Candidate,
        keep_all: bool,
    ) -> Selection:
        table = [row.as_dict() for row in rows]
        models = []
        for estimator, candidate in zip(self.estimators, candidates, strict=True):
            wanted = keep_all and candidate is not None and not candidate.dropped
            if candidate is best or wanted:
                assert candidate is not None
                self._finish(estimator, candidate, table)
                models.append(estimator)
        chosen = self.estimators[candidates.index(best)]
        warn_unless_converged(best.last_state(), 5)
        return Selection(
            chosen,
            table,
            models if keep_all else [],
            self.criterion,
            chosen.n_passes_,
            [r.as_dict() for r in self.records],
        )

    def _finish(
        self, estimator: GaussianMixture, candidate: Candidate, table: list[dict[str, Any]]
    ) -> None:
        """Make of `estimator` what a fit of its own would have, but for the shared passes."""
        state = candidate.last_state()
        surrogate = getattr(candidate.climb, "rows_read", 0) / max(1, self.surveyed.n_weighted)
        start = Start(state.mixture, self.share + surrogate, state.log_likelihood)
        records = self._records_of(candidate)
        estimator._keep(self.source, self.surveyed, start, state, records, candidate.rejected)
        share = self.holdout.share if self.holdout else 0.0
        estimator.provenance_["sweep"] = {
            "criterion": self.criterion,
            "holdout": share,
            "table": table,
        }

    def _records_of(self, candidate: Candidate) -> list[PassRecord]:
        """The sweep's passes as one model sees them: those that served others are "sweep"."""
        before = [record for record in self.records if record.phase != "em"]
        passes = self.records[len(before) :]
        own = [
            replace(record, log_likelihood=value)
            for record, value in zip(passes, candidate.measured, strict=False)
        ]
        others = [replace(r, phase="sweep", log_likelihood=None) for r in passes[len(own) :]]
        return [*before, *own, *others]
