"""The driver of every fit: survey, starts, screening and passes, of one model or of many.

`Driver.states` is a generator: whoever runs it gets, after every pass, the candidates that the
pass served. Checkpoints, progress and the user's callbacks are told by `Driver.run`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from ..backends.blas import one_blas_thread
from ..backends.dask.config import survey_engine
from ..core.codec import record
from ..core.em import Convergence, EMState, Status, settled
from ..core.engine import Engine
from ..core.fleet import FleetStatistics
from ..core.incremental import Carried
from ..core.mixture import Mixture
from ..core.passes import Holdout, Slice, Training
from ..core.protocols import Backend, Pass, Source
from ..core.support import common_support
from ..core.tuning import tuning
from ..errors import DataError, OutOfTimeError
from ..runtime import current_job
from ..storage.checkpoint import Checkpoint
from .candidates import Candidate, CandidateState, Model, eliminate, run_together, table, winner
from .control_variate import algorithm_of
from .criteria import Row
from .exchange import Exchange
from .fit_options import FitOptions
from .kept_sample import is_enough
from .multistart import highest_end
from .observers import ObservedPass, Observer, PassRecord, StateReached, tell_observers
from .recorded_passes import LABELS, RecordedPasses, SurveyPass
from .sample import Sampled, Start, default_sample_size
from .screening import ScreeningRules, SlicePruning, rough_rows, screen, slice_share
from .starts import StartOptions
from .survey import Survey, Surveyed, fingerprint_of


@record("fit-progress", 2)
@dataclass
class FitProgress:
    """The state of a fit between two passes.

    Attributes
    ----------
    phase : {"slice", "em"}
        Which passes are made: with a slice of the rows, or with all.
    starts : list of Start
        Where each model starts in this phase.
    n_passes : float
        Passes that the sample cost.
    fingerprint : str
        Of what the survey summed.
    records : list of PassRecord
    candidates : list of CandidateState or None
        Of each candidate of this phase, None where the model is eliminated; none before the
        first pass.
    carried : Carried or None
        Of an update, sums of rows that were read before.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> from dask_em.estimators.fits import Fit
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> driver = Fit([GaussianMixture(k, random_state=0) for k in (1, 2)]).run(X)
    >>> driver.progress.phase, len(driver.progress.starts), driver.progress.records[0].phase
    ('em', 2, 'survey')
    """

    phase: str
    starts: list[Start]
    n_passes: float
    fingerprint: str
    records: list[PassRecord]
    candidates: list[CandidateState | None] = field(default_factory=list)
    carried: Carried | None = None


@dataclass(frozen=True)
class FittedModel:
    """One model at the end of a fit.

    Attributes
    ----------
    state : EMState
    records : list of PassRecord
        The passes as this model sees them: those that served others alone are of phase "sweep".
    rejected : list of int
        Numbers of the passes at parameters that were rejected.
    n_passes : float
        Passes over the data, and work on the sample in passes that would compute as much.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> from dask_em.estimators.fits import Fit
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> driver = Fit([GaussianMixture(1)]).run(X)
    >>> model = driver.fitted(driver.best)
    >>> model.state.status.name, [record.phase for record in model.records][:2]
    ('CONVERGED', ['survey', 'em'])
    """

    state: EMState
    records: list[PassRecord]
    rejected: list[int]
    n_passes: float


class Driver:
    """Fit models to a source.

    Parameters
    ----------
    options : FitOptions
    source : Source
    backend : Backend
    engine_of : callable
        Returns what computes, of the number of rows, which some sources learn by the survey.
    checkpoint : Checkpoint
        Opened.
    observers : sequence of Observer
    check : callable
        Called with the source and what its survey found: refuses data that cannot be fitted.

    Attributes
    ----------
    passes : RecordedPasses
        Its source is, after the survey, without the rows that were dropped.
    surveyed : Surveyed
    carried : Carried or None
        Of an update, once the survey is made.
    models : list of Model
        Once the survey is made.
    engine : Engine
        What computes, once the survey is made.
    convergence : Convergence
        Of the passes over all rows, once those before them are made.
    candidates : list of Candidate or None
        One a model, None where it was eliminated by the sample or a slice.
    """

    def __init__(
        self,
        options: FitOptions,
        source: Source,
        backend: Backend,
        engine_of: Callable[[int], Engine],
        checkpoint: Checkpoint[SurveyPass, FitProgress],
        observers: Sequence[Observer],
        check: Callable[[Source, Surveyed], None],
    ) -> None:
        self.options, self._engine_of = options, engine_of
        self.checkpoint, self.observers, self._check = checkpoint, observers, check
        one_model = len(options.models) == 1
        self.passes = RecordedPasses(source, backend, checkpoint, observers, one_model)
        self.seed = checkpoint.begin(options.seed)
        self.holdout = Holdout(self.seed, options.holdout) if options.holdout else None
        self.candidates: list[Candidate | None] = []

    # -- the loop ----------------------------------------------------------------------

    def run(self) -> None:
        """Fit every model to its end, or until the time is over, and notify the observers."""
        job = current_job()
        with one_blas_thread():
            try:
                for served in self.states():
                    self._commit()
                    if self.progress.phase == "em":
                        for candidate in served:
                            tell_observers(self.observers, StateReached(candidate.last_state()))
                        # There is a model from here on.
                        job.deadline = min(job.deadline, self.options.deadline)
            except OutOfTimeError:
                if not self._end_early():
                    raise

    def states(self) -> Iterator[list[Candidate]]:
        """Make the passes, from the first or from where the checkpoint left off.

        Yields
        ------
        list of Candidate
            Those that the last pass served, each at its new state.
        """
        self.surveyed = self._survey()
        weight = self.surveyed.moments.weight
        self.carried = self._carried()
        earlier = 0.0 if self.carried is None else self.carried.statistics.weight
        limits = self.options.convergence.among(weight, earlier)
        self.options = replace(self.options, convergence=limits)
        # How many parameters there are may depend on what is in the columns.
        moments = self.surveyed.moments
        several = len({m.family for m in self.options.models}) > 1
        self.models = [Model.of(m, moments, several) for m in self.options.models]
        self.engine = self._engine_of(self.surveyed.n_rows)
        self.sample = Sampled.of(self.surveyed)
        self.progress = self._begun()
        self.passes.records = self.progress.records
        if not self.options.labels_fixed:
            self.passes.forget_labels()
        if self.progress.phase == "slice":
            yield from self._prune()
        made = sum(record.phase in ("slice", LABELS) for record in self.passes.records)
        self.convergence = self.options.convergence.after(made)
        self.candidates = self._at_start(self.convergence)
        running = [c for c in self.candidates if c is not None]
        if self.convergence.max_iter == 0:
            for candidate in running:
                candidate.end(Status.OUT_OF_ITERATIONS, self.sample)
        job, begun = current_job(), all(c.state is not None for c in running)
        deadline = self.options.deadline if begun else np.inf
        with job.until(deadline), self.passes.executor(self._steps_on) as executor:
            prune = (
                None
                if self.options.exhaustive
                else partial(eliminate, criterion=self.options.criterion)
            )
            yield from run_together(self._em_pass, running, prune, executor)

    def _carried(self) -> Carried | None:
        """Return the sums that join those of the rows, as an update began with them."""
        if self.checkpoint.progress is not None:
            return self.checkpoint.progress.carried
        options = self.options
        if options.earlier is None:
            return None
        mixture, carried = options.earlier.begin(
            self.surveyed, options.convergence, options.lead, self.seed
        )
        start = replace(options.lead, start_from=lambda surveyed: mixture)
        self.options = replace(options, models=(start,))
        return carried

    def _commit(self) -> None:
        """Keep what is known after a pass."""
        states = [None if c is None else c.state_dict() for c in self.candidates]
        self.progress.candidates = states
        self.checkpoint.commit(self.progress, len(self.passes.records) - 1)

    def _end_early(self) -> bool:
        """End with the best so far; False where there is no model yet.

        Of several, every model needs a pass; a single one has its start on the sample, if it is
        no update.
        """
        running = [c for c in self.candidates if c is not None]
        if not running or self.progress.phase != "em":
            return False
        alone = len(running) == 1 and self.carried is None
        if not alone and any(c.state is None for c in running):
            return False
        for candidate in running:
            if candidate.running:
                candidate.end(Status.OUT_OF_TIME, self.sample)
        return True

    # -- the survey ----------------------------------------------------------------------

    def _survey(self) -> Surveyed:
        options, d = self.options, self.passes.source.n_features
        beside = self.passes.source.beside.width
        size = options.sample_size or max(
            default_sample_size(m.n_parameters(d), d + beside) for m in options.models
        )
        n_rows = self.passes.source.n_rows
        supports = [m.components.support for m in options.models]
        if options.earlier is not None:
            supports.append(options.earlier.state.result.components.support)
        support = common_support(supports)
        joint = any(m.components.joint_moments(d) for m in options.models)
        size = max(size, options.lead.n_components)
        engine = survey_engine(n_rows)
        survey = Survey(self.seed, size, d, n_rows, support, beside, joint, engine)
        pass_: Pass[Surveyed] = Training(survey, self.holdout) if self.holdout else survey
        return self.passes.survey(
            pass_, options.drop_nonfinite, self._check_survey, options.any_sample, support.missing
        )

    def _check_survey(self, source: Source, surveyed: Surveyed) -> None:
        """Check a survey before it is kept, and that it is of the data of the fit that is kept."""
        if self.checkpoint.progress is not None:
            before = self.checkpoint.progress.fingerprint
            self.checkpoint.check_survey(before, fingerprint_of(surveyed))
        self._check(source, surveyed)

    @property
    def _on_sample(self) -> Engine:
        """The engine on the sample: it is in this process, which may have no GPU."""
        return replace(self.engine, device="cpu")

    # -- where the models start ------------------------------------------------------------

    def _begun(self) -> FitProgress:
        """Return the fit that is kept, or one whose models start on the sample."""
        if self.checkpoint.progress is not None:
            return self.checkpoint.progress
        if self.passes.source.beside.labels is not None:
            starts, phase = self._of_labels(), "em"
            n_passes = sum(start.n_passes for start in starts)
        elif self.options.exhaustive or self.options.lead.init_params != "auto":
            engine, executor = self._on_sample, self.passes.executor
            starts = [
                # As in a fit of the model alone.
                model.start(self.surveyed, engine, self.seed, self.observers, executor)
                for model in self.options.models
            ]
            if (exchange := self._exchange()) is not None:
                starts = exchange.starts(
                    starts,
                    self.sample,
                    self.options.convergence.on_sample(),
                    self.surveyed.n_weighted,
                    rough_rows(self.models, len(self.sample.rows)),
                    executor,
                )
            phase = "em"
            n_passes = sum(start.n_passes for start in starts)
        else:
            starts, n_rows = self._screened()
            n_passes = n_rows / max(1, self.surveyed.n_weighted)
            phase = "em" if self._slice_share(starts) is None else "slice"
        fingerprint = fingerprint_of(self.surveyed)
        progress = FitProgress(
            phase, starts, n_passes, fingerprint, self.passes.records, carried=self.carried
        )
        self.checkpoint.commit(progress, len(self.passes.records) - 1)
        return progress

    def _of_labels(self) -> list[Start]:
        """Return the M-step of each model's labels, in a pass over all rows."""
        moments, models = self.surveyed.moments, self.options.models
        rough = tuple(replace(m.to_sum_labels(moments), engine=self._on_sample) for m in models)
        sums = self.passes.labelled(rough, self.holdout)
        return [
            self._highest(model, model.of_sums(moments, mixture, found))
            for model, mixture, found in zip(models, rough, sums.members, strict=True)
        ]

    def _highest(self, model: StartOptions, starts: Sequence[Mixture]) -> Start:
        """Return the start that ends the highest on the sample; plain EM takes the first."""
        if len(starts) == 1 or model.algorithm == "em":
            return Start(replace(starts[0], engine=self.engine))
        limits, sample = self.options.convergence.on_sample(), self.sample
        best, end, n_rows = highest_end(starts, sample, limits, self.passes.executor)
        found = starts[best] if self.options.labels_fixed else end
        n_passes = n_rows / max(1, self.surveyed.n_weighted)
        return Start(replace(found, engine=self.engine), n_passes)

    @property
    def n_labelled(self) -> int:
        """Rows whose labels the fit started from; 0 where it did not."""
        return sum(record.rows for record in self.passes.records if record.phase == LABELS)

    @property
    def _steps_on(self) -> Sampled | None:
        """The sample that accelerated algorithms make steps on.

        Nobody knows its rows' labels; and one of new rows says nothing of those that are not read.
        """
        if self.options.labels_fixed:
            return None
        return self.sample if self.carried is None else self._of_all

    @property
    def _of_all(self) -> Sampled | None:
        """The sample of new rows and of those that are not read, where there is one."""
        earlier = self.options.earlier
        if earlier is None or self.carried is None:
            return None
        joined = earlier.joined(self.surveyed, self.carried)
        followed = joined is not None and is_enough(joined, self.carried.mixture)
        return joined.sampled if joined is not None and followed else None

    def _rules(self) -> ScreeningRules:
        weight = self.surveyed.moments.weight
        limits, criterion = self.options.convergence, self.options.criterion
        return ScreeningRules.of(self.options.lead, self.seed, limits, criterion, weight)

    def _exchange(self) -> Exchange | None:
        """Return by what models start from each other's clusters; None of starts of one's own."""
        options = self.options
        own = options.lead.init_params != "auto" or options.lead.algorithm != "auto"
        if own or options.earlier is not None:
            return None
        few = len(self.sample.rows) <= tuning().exchange.tree_rows
        return Exchange(options.models, self.surveyed.moments, self._on_sample, few)

    def _screened(self) -> tuple[list[Start], int]:
        """Compare many starts of every model on the sample, which is small and in this process."""
        makers = [m.maker(self.surveyed, self._on_sample) for m in self.options.models]
        with ObservedPass(self.observers, "start", 1, None, 0) as running:
            found, n_rows = screen(
                self.models,
                makers,
                self.sample,
                self._rules(),
                self.passes.executor,
                running.advance,
                self._exchange(),
            )
            running.n_rows = n_rows
        return found, n_rows

    def _slice_share(self, found: Sequence[Start]) -> float | None:
        """Return the share of the rows that should choose among the models, None for all."""
        most = self.options.convergence.max_passes
        # Plain EM is plain; and a pass over all rows must be left.
        if self.options.lead.algorithm == "em" or (most is not None and most < 3):
            return None
        n_weighted = max(1, self.surveyed.n_weighted)
        return slice_share(found, len(self.sample.rows), n_weighted)

    def _prune(self) -> Iterator[list[Candidate]]:
        """Let passes over a slice of the data choose among the models."""
        progress, limits = self.progress, self.options.convergence
        share = self._slice_share(progress.starts)
        assert share is not None
        limits = replace(
            limits,
            max_iter=min(tuning().screening.most_slices, limits.max_iter),
            max_passes=None if limits.max_passes is None else limits.max_passes - 1,
            # A slice compares models; nobody keeps where they end in it.
            confirmed=False,
        )
        part = Slice(self.seed, share)

        def accumulate(mixtures: tuple[Mixture, ...]) -> FleetStatistics:
            return self.passes.sums("slice", mixtures, self.surveyed.n_rows, self.holdout, part)

        self.candidates = self._at_start(limits)
        with self.passes.executor(self.sample) as executor:
            pruning = SlicePruning(self.sample, self._rules())
            running = [c for c in self.candidates if c is not None]
            yield from run_together(accumulate, running, pruning.prune, executor)
        starts, n_rows = pruning.starts(progress.starts, self.candidates)
        progress.phase, progress.candidates, progress.starts = "em", [], starts
        progress.n_passes += n_rows / max(1, self.surveyed.n_weighted)

    # -- the passes ------------------------------------------------------------------------

    def _at_start(self, limits: Convergence) -> list[Candidate | None]:
        """Return each model at its start, or where it was left; None where it is eliminated."""
        found: list[Candidate | None] = []
        for model, start in zip(self.models, self.progress.starts, strict=True):
            mixture, *contenders = start.mixtures(self.engine)
            origin = start.going_on(self.engine) or mixture
            named = self.options.lead.algorithm
            algorithm = algorithm_of(named, origin, limits, self._steps_on, contenders)
            found.append(None if start.eliminated else Candidate(model, algorithm))
        for candidate, state in zip(found, self.progress.candidates, strict=False):
            if candidate is not None and state is not None:
                candidate.load_state_dict(state)
        return found

    def _em_pass(self, mixtures: tuple[Mixture, ...]) -> FleetStatistics:
        statistics = self.passes.sums("em", mixtures, self.surveyed.n_rows, self.holdout)
        if self.holdout and not statistics.held_weight:
            raise DataError(
                f"holdout={self.holdout.share:g} of {self.surveyed.n_rows} rows drew none of "
                "any weight: hold more out"
            )
        if self.carried is None:
            return statistics
        members = zip(mixtures, statistics.members, strict=True)
        return replace(statistics, members=tuple(self.carried.at(m) + s for m, s in members))

    # -- the end -----------------------------------------------------------------------------

    @property
    def best(self) -> Candidate:
        """The best model of those that went to their end."""
        return winner([c for c in self.candidates if c is not None], self.options.criterion)

    @property
    def rows(self) -> list[Row]:
        """The table of all models; what the sample alone knows is set beside the best."""
        return table(self.progress.starts, self.candidates, self.best)

    def fitted(self, candidate: Candidate) -> FittedModel:
        """Return one of the models at the end of the fit."""
        share = candidate.rows_read / max(1, self.surveyed.n_weighted)
        state = candidate.last_state()
        objective = state.mixture.components.reported_objective
        reported = partial(objective, weight=state.statistics.weight)
        records = self.passes.records_of(candidate.measured, reported)
        n_passes = sum(record.reads for record in records) + (self.progress.n_passes + share)
        earlier = self.progress.starts[self.candidates.index(candidate)].going_on(self.engine)
        if earlier is not None:
            state = settled(earlier, state)
        return FittedModel(state, records, candidate.rejected, n_passes)
