"""Passes over the data of one fit: each is recorded, its unfinished sums are in the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.chunk_log import Logged
from ..core.codec import record
from ..core.finite import NOWHERE, Missing
from ..core.fleet import Fleet, FleetStatistics
from ..core.labelled import GivenResponsibilities
from ..core.mixture import Mixture
from ..core.objective import Objective
from ..core.passes import Holdout, LoggingPass, Slice
from ..core.protocols import Backend, Executor, Pass, Source, T
from ..core.support import Support
from ..storage.checkpoint import Checkpoint
from .checks import check_weights
from .kept_survey import survey_kept_beside
from .observers import KEPT_SURVEY, ObservedPass, Observer, PassRecord
from .survey import Surveyed

Reported = Callable[[float], Objective]

# The phase of the pass that sums what labels say.
LABELS = "labels"


@record("survey-pass")
@dataclass(frozen=True)
class SurveyPass:
    """The result of the survey with the log of the chunks, and the record of its pass.

    Examples
    --------
    >>> from dask_em.backends.serial import SerialBackend
    >>> from dask_em.data.memory import ArraySource
    >>> from dask_em.fitting.survey import Survey
    >>> source = ArraySource(np.eye(3, 2))
    >>> found = SerialBackend().map_reduce(source, LoggingPass(Survey(0, 3, 2, 3), False))
    >>> survey = SurveyPass(found, PassRecord("survey", 1, seconds=0.1, rows=3, bytes=48))
    >>> survey.found.sums.n_rows, survey.record.phase
    (3, 'survey')
    """

    found: Logged[Surveyed]
    record: PassRecord


class RecordedPasses:
    """Make and record the passes of one fit.

    Parameters
    ----------
    source : Source
    backend : Backend
    checkpoint : Checkpoint
        Opened.
    observers : sequence of Observer
    one_model : bool
        Whether all passes serve one model, so that each may be compared with the one before.

    Attributes
    ----------
    source : Source
        After the survey held to what it read, without the rows that were dropped.
    records : list of PassRecord
    """

    def __init__(
        self,
        source: Source,
        backend: Backend,
        checkpoint: Checkpoint[SurveyPass, Any],
        observers: Sequence[Observer],
        one_model: bool = False,
    ) -> None:
        self.source, self.backend = source, backend
        self.checkpoint, self.observers = checkpoint, observers
        self.one_model = one_model
        self.records: list[PassRecord] = []

    def survey(
        self,
        pass_: Pass[Surveyed],
        drop_nonfinite: bool,
        check: Callable[[Source, Surveyed], None],
        any_sample: bool = False,
        missing: Missing = NOWHERE,
    ) -> Surveyed:
        """Make the first pass, which later ones are held to.

        It is recalled from the checkpoint, or taken from beside the data, where it is kept. In
        columns where values may be `missing`, NaN is no reason to leave a row out.
        """
        kept = self.checkpoint.survey
        if kept is not None:
            self.source = self.source.held_to(kept.found.log, self.checkpoint.forced)
            self.records = [kept.record]
            check(self.source, kept.found.sums)
            return kept.found.sums
        found = survey_kept_beside(self.source, pass_, drop_nonfinite, any_sample)
        phase, nbytes = ("survey", self.source.nbytes) if found is None else (KEPT_SURVEY, 0)
        with ObservedPass(self.observers, phase, 1, self.source.n_rows, nbytes) as running:
            if found is None:
                found = self.backend.map_reduce(
                    self.source,
                    LoggingPass(pass_, drop_nonfinite, Support(missing=missing)),
                    running.advance,
                    self.checkpoint.partial_sums("survey", 1),
                )
            running.n_rows = found.sums.n_rows if nbytes or phase == "survey" else 0
        check_weights(self.source, found.log)
        self.records.append(running.finished)
        self.source = self.source.held_to(found.log)
        check(self.source, found.sums)
        self.checkpoint.keep_survey(SurveyPass(found, running.finished))
        return found.sums

    def labelled(self, mixtures: tuple[Mixture, ...], holdout: Holdout | None) -> FleetStatistics:
        """Make the pass that sums the statistics of mixtures under what labels say of rows."""
        with self._observed(LABELS) as running:
            statistics: FleetStatistics = self.backend.map_reduce(
                self.source,
                GivenResponsibilities(mixtures, holdout),
                running.advance,
                self.checkpoint.partial_sums(LABELS, running.number, list(mixtures)),
            )
            running.n_rows = statistics.members[0].n_rows
        self.records.append(running.finished)
        return statistics

    def forget_labels(self) -> None:
        """Make the passes that follow without labels."""
        self.source = self.source.with_beside(replace(self.source.beside, labels=None))

    def sums(
        self,
        phase: str,
        mixtures: tuple[Mixture, ...],
        n_rows: int,
        holdout: Holdout | None = None,
        part: Slice | None = None,
    ) -> FleetStatistics:
        """Make one pass that sums the statistics of some mixtures over `n_rows` finite rows."""
        with self._observed(phase) as running:
            partial_sums = self.checkpoint.partial_sums(phase, running.number, list(mixtures))
            arguments = running.advance, partial_sums
            if len(mixtures) == 1 and holdout is None and part is None:
                # The sums of one are added in place.
                one = self.backend.map_reduce(self.source, mixtures[0], *arguments)
                statistics = FleetStatistics((one,), 0.0, np.zeros(1))
            else:
                fleet = Fleet(mixtures, holdout, part)
                statistics = self.backend.map_reduce(self.source, fleet, *arguments)
            running.n_rows = n_rows
            reached = [
                mixture.reported(member)
                for mixture, member in zip(mixtures, statistics.members, strict=True)
            ]
            running.log_likelihood = best = max(reached)
            objective = mixtures[0].components.reported_objective
            found = objective(best, statistics.members[0].weight)
            running.objective = found.since(self._before(phase))
        self.records.append(running.finished)
        return statistics

    def _before(self, phase: str) -> Objective | None:
        """Return what the pass before found of the one model of a fit."""
        last = self.records[-1]
        return last.reported if self.one_model and last.phase == phase else None

    def records_of(self, measured: Sequence[float], reported: Reported) -> list[PassRecord]:
        """Return all records as a model sees them that was served by as many of the EM passes.

        Those that served others alone are of phase "sweep".

        Parameters
        ----------
        measured : sequence of float
            The mean log-likelihood of a row that each of its passes found, or the bound.
        reported : callable
            Returns what people are told of it.
        """
        before = [record for record in self.records if record.phase != "em"]
        passes = self.records[len(before) :]
        own = [
            replace(record, log_likelihood=value, objective=reported(value))
            for record, value in zip(passes, measured, strict=False)
        ]
        others = [
            replace(record, phase="sweep", log_likelihood=None, objective=None)
            for record in passes[len(own) :]
        ]
        return [*before, *own, *others]

    def executor(self, shared: T) -> AbstractContextManager[Executor[T]]:
        """Return the executor of fits to the sample, where the rows are."""
        return self.backend.executor(shared, in_process=self.source.in_process)

    def _observed(self, phase: str) -> ObservedPass:
        number = sum(record.phase == phase for record in self.records) + 1
        return ObservedPass(self.observers, phase, number, self.source.n_rows, self.source.nbytes)
