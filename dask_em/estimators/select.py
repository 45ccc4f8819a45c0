"""Many models fitted in the same passes over the data, and the best of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, get_args

import numpy as np
from sklearn.utils import check_random_state

from ..backends import backend_in_force
from ..backends.blas import one_blas_thread
from ..core.codec import record
from ..core.em import Climb, Convergence, Status
from ..core.engine import Engine
from ..core.fleet import Fleet, FleetStatistics
from ..core.mixture import Mixture
from ..core.passes import Holdout, Slice, Training
from ..core.protocols import Pass
from ..core.tuning import tuning
from ..errors import DataError, OutOfTimeError
from ..fitting.candidates import (
    Candidate,
    CandidateState,
    Model,
    climb_together,
    drop_hopeless,
    winner,
)
from ..fitting.control_variate import ascent
from ..fitting.criteria import Criterion, Row
from ..fitting.driver import SurveyPass
from ..fitting.observers import ObservedPass, PassRecord
from ..fitting.sample import Sampled, Start, default_sample_size
from ..fitting.screening import Rules, Shortlisted, narrowed, shortlist, slice_share
from ..fitting.survey import Survey, Surveyed, fingerprint_of
from ..runtime import as_job, current_job
from ..storage.checkpoint import Checkpoint
from .gaussian import GaussianMixture, executor_factory, warn_unless_converged


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
        Give no model up: each is then, to rounding, the fit that `GaussianMixture` makes of
        the same `random_state`, `n_init` and `sample_size`.
    keep_all : bool, default=False
        Keep the models that did not win.
    sample_weight : the same kinds as X, (n,), optional
        A row of weight w counts as w rows.
    random_state : int, RandomState or None
    **options
        Other parameters of `GaussianMixture`, the same for all: `tol`, `reg_covar`, ...
        `checkpoint` keeps the whole sweep, and `max_time` ends it with the best so far.

    Returns
    -------
    Selection

    Raises
    ------
    ValueError
        An option is not one of those allowed.
    DataError
        The data cannot be clustered: shape, dtype, NaN or infinity, too few rows. Or they are
        others than those of the unfinished sweep in `checkpoint`.
    UsageError
        The unfinished sweep in `checkpoint` is of other options.
    """
    options |= {"n_init": n_init, "random_state": random_state}
    fleet = Sweeping(n_components, covariance_type, criterion, holdout, exhaustive, options)
    return fleet.run(X, sample_weight, keep_all)


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
    lone = ("weights_init", "means_init", "precisions_init")
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


@record("sweep-progress")
@dataclass
class Progress:
    """All that a sweep knows between two passes.

    Attributes
    ----------
    phase : {"slice", "em"}
        Which passes are made: with a slice of the rows, or with all.
    starts : list of Shortlisted or Start
        Where each model starts in this phase.
    share : float
        Passes that the sample cost.
    fingerprint : str
        Of what the survey summed.
    records : list of PassRecord
    candidates : list of CandidateState or None
        Of each candidate of this phase, None where the model is hopeless; none before the first
        pass.
    """

    phase: str
    starts: list[Shortlisted | Start]
    share: float
    fingerprint: str
    records: list[PassRecord]
    candidates: list[CandidateState | None] = field(default_factory=list)


class Sweeping:
    """The models of one sweep, and the passes made for them; see `select`."""

    def __init__(
        self,
        n_components: int | Iterable[int],
        covariance_type: str | Sequence[str],
        criterion: Criterion,
        holdout: float,
        exhaustive: bool,
        options: dict[str, Any],
    ) -> None:
        self.estimators = _models(n_components, covariance_type, options)
        check_criterion(criterion, holdout)
        # Whatever all of them share is asked of the one that needs most rows.
        self.lead = max(self.estimators, key=lambda m: m.n_components)
        self.criterion: Criterion = criterion
        self.share_held_out = float(holdout)
        self.exhaustive = exhaustive
        self.callbacks = self.lead._callbacks()
        self.records: list[PassRecord] = []

    def unfinished(self, X: Any, sample_weight: Any) -> Checkpoint[SurveyPass, Progress]:
        """The sweep of these options to these data that is kept, or a new one."""
        lead = self.lead
        self.source = lead._source(X, sample_weight, reset=True)
        engine = lead._engine(self.source.dtype)
        if lead.checkpoint is None:
            return Checkpoint(None, {}, {}, engine, SurveyPass, Progress)
        kinds = dict.fromkeys(m.covariance_type for m in self.estimators)
        options = {
            **lead._identity(engine),
            "n_components": [*dict.fromkeys(m.n_components for m in self.estimators)],
            "covariance_type": [*kinds],
            "criterion": self.criterion,
            "holdout": self.share_held_out,
            "exhaustive": self.exhaustive,
        }
        data = self.source.identity()
        return Checkpoint(lead.checkpoint, options, data, engine, SurveyPass, Progress)

    def run(self, X: Any, sample_weight: Any, keep_all: bool) -> Selection:
        """Make the passes, from where they were left; the winner, and how the others did."""
        began, run, lead = time.monotonic(), current_job(), self.lead
        self.backend = backend_in_force()
        self.deadline = began + (np.inf if lead.max_time is None else lead.max_time)
        self.convergence = Convergence(lead.tol, lead.max_iter, lead.max_passes)
        with one_blas_thread(), as_job(run), self.unfinished(X, sample_weight) as self.kept:
            self.kept.log_resumed()
            seed = int(check_random_state(lead.random_state).randint(np.iinfo(np.int32).max))
            self.seed = self.kept.begin(seed)
            self.holdout = Holdout(self.seed, self.share_held_out) if self.share_held_out else None
            for estimator in self.estimators:
                for name in ("n_features_in_", "feature_names_in_"):
                    if hasattr(lead, name):
                        setattr(estimator, name, getattr(lead, name))
            self.models = [
                Model(m.n_components, m.covariance_type, m._n_parameters(self.source.n_features))
                for m in self.estimators
            ]
            self.surveyed = self._survey()
            engine = self.lead._engine(self.source.dtype)
            self.sample = Sampled.of(self.surveyed)
            self.progress = self._begun(engine)
            self.records = self.progress.records
            if self.progress.phase == "slice":
                self._narrow(engine)
            candidates = self._candidates(engine)
            climbing = [c for c in candidates if c is not None]
            with run.until(self.deadline if climbing[0].state else np.inf):
                self._climb(candidates, climbing)
        best = winner(climbing, self.criterion)
        rows = self._rows(self.progress.starts, candidates, best)
        return self._selection(rows, candidates, best, keep_all)

    def _pass(self, phase: str) -> ObservedPass:
        number = sum(record.phase == phase for record in self.records) + 1
        return ObservedPass(self.callbacks, phase, number, self.source.n_rows, self.source.nbytes)

    def _survey(self) -> Surveyed:
        if self.kept.survey is not None:
            found = self.kept.survey.found
            self.source = self.source.held_to(found.log, self.kept.forced)
            self.records = [self.kept.survey.record]
            self.lead._check_survey(self.source, found.sums)
            return found.sums
        d = self.source.n_features
        size = max(m.sample_size or default_sample_size(m._n_parameters(d), d)
                   for m in self.estimators)  # fmt: skip
        survey = Survey(self.seed, max(size, self.lead.n_components), d, self.source.n_rows)
        work: Pass[Surveyed] = Training(survey, self.holdout) if self.holdout else survey
        with self._pass("survey") as running:
            parts = self.kept.partial_sums("survey", 1)
            found = self.lead._first_pass(self.backend, self.source, work, running.advance, parts)
            running.n_rows = found.sums.n_rows
        self.source = self.source.held_to(found.log)
        self._record(running)
        self.lead._check_survey(self.source, found.sums)
        self.kept.keep_survey(SurveyPass(found, self.records[0]))
        return found.sums

    def _record(self, running: ObservedPass) -> None:
        assert running.record is not None
        self.records.append(running.record)

    # -- where they start ----------------------------------------------------------

    def _begun(self, engine: Engine) -> Progress:
        """The sweep that is kept, or one whose models start on the sample."""
        fingerprint = fingerprint_of(self.surveyed)
        if self.kept.progress is not None:
            progress = self.kept.progress
            self.kept.check_survey(progress.fingerprint, fingerprint)
            return progress
        here = replace(engine, device="cpu")
        if self.exhaustive or self.lead.init_params != "auto":
            starts, share = self._separate_starts(here)
            progress = Progress("em", starts, share, fingerprint, self.records)
        else:
            found, share = self._shortlist(here)
            phase = "em" if self._slice_share(found) is None else "slice"
            progress = Progress(phase, [*found], share, fingerprint, self.records)
        self.kept.commit(progress, len(progress.records) - 1)
        return progress

    def _separate_starts(self, engine: Engine) -> tuple[list[Shortlisted | Start], float]:
        """The start that each model's own fit would make."""
        starts: list[Start] = []
        for estimator in self.estimators:
            estimator._seed = self.seed
            starts.append(
                estimator._start(
                    self.surveyed,
                    engine,
                    self.callbacks,
                    executor_factory(self.backend, self.source),
                )
            )
        return [*starts], sum(start.n_passes for start in starts)

    def _rules(self) -> Rules:
        lead = self.lead
        return Rules(
            lead.n_init,
            self.seed,
            lead.algorithm,
            Convergence(
                tuning().sample.finer * lead.tol, min(tuning().sample.iterations, lead.max_iter)
            ),
            self.criterion,
            self.surveyed.moments.weight,
        )

    def _shortlist(self, engine: Engine) -> tuple[list[Shortlisted], float]:
        """Where each model starts, by the sample, which is small and in this process."""
        makers = [m._maker(self.surveyed, engine) for m in self.estimators]
        with ObservedPass(self.callbacks, "start", 1, None, 0) as running:
            found, n_rows = shortlist(
                self.models,
                makers,
                self.sample,
                self._rules(),
                executor_factory(self.backend, self.source),
                running.advance,
            )
            running.n_rows = n_rows
        return found, n_rows / max(1, self.surveyed.n_weighted)

    def _slice_share(self, found: Sequence[Shortlisted]) -> float | None:
        """The share of the rows that should choose among the models, None for all of them."""
        most = self.convergence.max_passes
        # Plain EM is plain; and a pass over all rows must be left.
        if self.lead.algorithm == "em" or (most is not None and most < 3):
            return None
        n_weighted = max(1, self.surveyed.n_weighted)
        return slice_share(found, len(self.sample.rows), n_weighted)

    def _narrow(self, engine: Engine) -> None:
        """Let passes over a slice of the data choose among the models."""
        progress, most = self.progress, self.convergence.max_passes
        found = [start for start in progress.starts if isinstance(start, Shortlisted)]
        share = self._slice_share(found)
        assert share is not None
        limits = replace(
            self.convergence,
            max_iter=min(tuning().screening.most_slices, self.convergence.max_iter),
            max_passes=None if most is None else most - 1,
            # A slice compares models; nobody keeps where they end in it.
            confirmed=False,
        )
        part = Slice(self.seed, share)

        def climb_from(start: Shortlisted) -> Climb:
            return self._ascent(start, limits, engine)

        def accumulate(mixtures: tuple[Mixture, ...]) -> FleetStatistics:
            return self._summed("slice", Fleet(mixtures, self.holdout, part))

        with executor_factory(self.backend, self.source)(self.sample) as executor:
            found, n_rows = narrowed(
                self.models,
                found,
                climb_from,
                accumulate,
                self.sample,
                self._rules(),
                executor,
                [state for state in progress.candidates if state is not None],
                self._commit,
            )
        progress.phase, progress.candidates, progress.starts = "em", [], [*found]
        progress.share += n_rows / max(1, self.surveyed.n_weighted)

    def _commit(self, candidates: Sequence[Candidate | None]) -> None:
        """Keep what is known after a pass."""
        self.progress.candidates = [None if c is None else c.state_dict() for c in candidates]
        self.kept.commit(self.progress, len(self.records) - 1)

    # -- passes over all rows ------------------------------------------------------

    def _candidates(self, engine: Engine) -> list[Candidate | None]:
        """Each model on the full data, None where it is hopeless."""
        if self.convergence.max_passes is not None:
            made = sum(record.phase == "slice" for record in self.records)
            most = self.convergence.max_passes - made
            self.convergence = replace(self.convergence, max_passes=most)
        pairs = zip(self.models, self.progress.starts, strict=True)
        candidates = [self._candidate(model, start, engine) for model, start in pairs]
        for candidate, state in zip(candidates, self.progress.candidates, strict=False):
            if candidate is not None and state is not None:
                candidate.load_state_dict(state)
        return candidates

    def _candidate(
        self, model: Model, start: Shortlisted | Start, engine: Engine
    ) -> Candidate | None:
        if isinstance(start, Shortlisted) and start.hopeless:
            return None
        return Candidate(model, self._ascent(start, self.convergence, engine))

    def _ascent(
        self, start: Shortlisted | Start, convergence: Convergence, engine: Engine
    ) -> Climb:
        starts = (start.mixture, *start.rivals)
        mixture, *rivals = (replace(one, engine=engine) for one in starts)
        return ascent(self.lead.algorithm, mixture, convergence, self.sample, rivals)

    def _climb(self, candidates: Sequence[Candidate | None], climbing: Sequence[Candidate]) -> None:
        """Take every candidate to its end, or give it up."""
        run = current_job()

        def accumulate(mixtures: tuple[Mixture, ...]) -> FleetStatistics:
            statistics = self._summed("em", Fleet(mixtures, self.holdout))
            if self.holdout and not statistics.held_weight:
                raise DataError(
                    f"holdout={self.holdout.share:g} of {self.surveyed.n_rows} rows drew none of "
                    "any weight: hold more out"
                )
            return statistics

        weed = None if self.exhaustive else partial(drop_hopeless, criterion=self.criterion)
        try:
            with executor_factory(self.backend, self.source)(self.sample) as executor:
                for served in climb_together(accumulate, climbing, weed, executor):
                    self._commit(candidates)
                    for callback in self.callbacks:
                        for candidate in served:
                            callback(candidate.last_state())
                    # There is a model from here on.
                    run.deadline = min(run.deadline, self.deadline)
        except OutOfTimeError:
            if any(candidate.state is None for candidate in climbing):
                raise
            for candidate in climbing:
                if candidate.running:
                    candidate.state = replace(candidate.last_state(), status=Status.OUT_OF_TIME)

    def _summed(self, phase: str, fleet: Fleet) -> FleetStatistics:
        """One pass, on record."""
        with self._pass(phase) as running:
            parts = self.kept.partial_sums(phase, running.number, list(fleet.mixtures))
            statistics: FleetStatistics = self.backend.map_reduce(
                self.source, fleet, running.advance, parts
            )
            running.n_rows = self.surveyed.n_rows
            running.log_likelihood = max(m.mean_log_likelihood for m in statistics.members)
        self._record(running)
        return statistics

    @staticmethod
    def _rows(
        starts: Sequence[Shortlisted | Start],
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
        start = Start(state.mixture, self.progress.share + surrogate, state.log_likelihood)
        records = self._records_of(candidate)
        estimator._keep(self.source, self.surveyed, start, state, records, candidate.rejected)
        self.kept.sign(estimator.provenance_)
        estimator.provenance_["sweep"] = {
            "criterion": self.criterion,
            "holdout": self.share_held_out,
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
