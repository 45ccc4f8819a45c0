"""Fleets of mixtures: many models fitted by each read of the data, and the best of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

import numpy as np

from ..core.codec import record
from ..core.em import Algorithm, AlgorithmState, EMState, Status
from ..core.executor import in_threads
from ..core.fleet import FleetStatistics
from ..core.mixture import Mixture
from ..core.moments import Moments
from ..core.parts import MixtureStatistics
from ..core.protocols import Executor
from ..core.tuning import tuning
from .criteria import DEGENERATE, DROPPED, Criterion, Row, entropy, penalty
from .sample import Sampled, Start
from .starts import StartOptions


@dataclass(frozen=True)
class Model:
    """The model that a candidate is a fit of.

    Attributes
    ----------
    n_components : int
    kind : str
        Which kind of components: the label of the family's options.
    n_parameters : int
    family : str
        The name of its family, where models of several families are compared.
    variational : bool
        Whether it is judged by a bound on the evidence, which no criterion penalizes again.
    n_factors : int or None
        Of a component, where it has factors.
    """

    n_components: int
    kind: str
    n_parameters: int
    family: str = ""
    variational: bool = False
    n_factors: int | None = None

    @classmethod
    def of(cls, options: StartOptions, moments: Moments, several: bool) -> Self:
        """Return the model that options ask for, of data of these moments.

        `several` says whether there are other families.
        """
        components = options.components
        return cls(
            options.n_components,
            components.kind,
            options.n_parameters_of(moments),
            options.family if several else "",
            components.variational,
            components.n_factors,
        )

    def penalty(self, criterion: Criterion, weight: float) -> float:
        """Compute the penalty of `criterion` for rows of this weight, in nats."""
        return 0.0 if self.variational else penalty(criterion, self.n_parameters, weight)


@record("candidate-state")
@dataclass(frozen=True)
class CandidateState:
    """The state of a candidate between two passes, without its model.

    Attributes
    ----------
    algorithm : AlgorithmState
    state : EMState or None
        After its last pass.
    held_out : float or None
        Mean log-likelihood of the rows held out, at the last accepted pass.
    n_passes : int
    dropped : bool
        Whether it was given up.
    measured : tuple of float
        Mean log-likelihood per row of each pass; of variational families the bound.
    rejected : tuple of int
        Numbers of the passes at parameters that were rejected.
    fitted, scored : tuple of float
        Mean log-likelihood of the rows that are fitted, and of those held out, of each accepted
        pass.
    """

    algorithm: AlgorithmState
    state: EMState | None
    held_out: float | None
    n_passes: int
    dropped: bool
    measured: tuple[float, ...]
    rejected: tuple[int, ...]
    fitted: tuple[float, ...]
    scored: tuple[float, ...]


class Candidate:
    """Hold one fit of a model: its algorithm, its gains, and whether it was given up.

    Parameters
    ----------
    model : Model
    algorithm : Algorithm
    """

    def __init__(self, model: Model, algorithm: Algorithm) -> None:
        self.model, self.algorithm = model, algorithm
        self.state: EMState | None = None
        self.held_out: float | None = None
        self.n_passes = 0
        self.dropped = False
        self.measured: list[float] = []
        """The figure told of each pass, per row in nats, also of those that were rejected."""
        self.rejected: list[int] = []
        """Numbers of the passes at parameters that were rejected."""
        self._fitted: list[float] = []
        self._held_out: list[float] = []
        self._judged: tuple[EMState | None, bool] | None = None

    @property
    def running(self) -> bool:
        """Whether it wants another pass."""
        going = self.state is None or self.state.status is Status.RUNNING
        return going and not self.dropped

    @property
    def sound(self) -> bool:
        """Whether all its components are whole and its numbers finite."""
        state = self.state
        failed = (Status.COLLAPSED, Status.NON_FINITE)
        return state is not None and not state.collapsed and state.status not in failed

    @property
    def degenerate(self) -> bool:
        """Whether the data do not determine some of its components, so that it has no value."""
        if self._judged is None or self._judged[0] is not self.state:
            found = [] if self.state is None else self.state.degenerate
            self._judged = self.state, any(not one.bounded for one in found)
        return self._judged[1]

    @property
    def rows_read(self) -> int:
        """Rows of the sample that its steps have read."""
        return self.algorithm.rows_read

    def end(self, status: Status, sample: Sampled) -> None:
        """End with the last state; before the first pass with the start, as the sample sees it."""
        if self.state is None:
            start = self.algorithm.proposal
            statistics = sample.accumulate(start.on_cpu)
            self.state = EMState(start, statistics, 0, (), Status.RUNNING, start)
        self.state = replace(self.state, status=status)

    def last_state(self) -> EMState:
        """Return the state after the last pass, of which there was one at least."""
        assert self.state is not None, "no pass was made"
        return self.state

    def choose(self, found: Sequence[MixtureStatistics], held_out: Sequence[float | None]) -> None:
        """Take what a pass at each of the algorithm's proposals summed, and go on from the best."""
        best = self.algorithm.choose(found)
        self.tell(found[best], held_out[best])

    def tell(self, statistics: MixtureStatistics, held_out: float | None = None) -> None:
        """Take what a pass at the algorithm's proposal summed."""
        self.measured.append(self.algorithm.proposal.reported(statistics))
        self.state = self.algorithm.tell(statistics)
        self.n_passes += 1
        if not self.state.accepted:
            self.rejected.append(self.n_passes)
            return
        self._fitted.append(self.state.compared)
        if held_out is not None:
            self.held_out = held_out
            self._held_out.append(held_out)

    def without_sample(self) -> Candidate:
        """Return a copy without the sample, to be told elsewhere."""
        twin, twin.algorithm = copy(self), copy(self.algorithm)
        vars(twin.algorithm)["sample"] = None
        return twin

    def state_dict(self) -> CandidateState:
        """Return the state between two passes, without the model."""
        return CandidateState(
            self.algorithm.state_dict(),
            self.state,
            self.held_out,
            self.n_passes,
            self.dropped,
            tuple(self.measured),
            tuple(self.rejected),
            tuple(self._fitted),
            tuple(self._held_out),
        )

    def load_state_dict(self, state: CandidateState) -> None:
        """Go on from the state of a candidate of the same model and algorithm."""
        self.algorithm.load_state_dict(state.algorithm)
        self.state, self.held_out = state.state, state.held_out
        self.n_passes, self.dropped = state.n_passes, state.dropped
        self.measured, self.rejected = [*state.measured], [*state.rejected]
        self._fitted, self._held_out = [*state.fitted], [*state.scored]

    def gain(self, criterion: Criterion) -> float:
        """Estimate the gain still to come, in nats per row."""
        if self.last_state().status is Status.CONVERGED:
            # By its own rule the rest is not worth a pass.
            return 0.0
        return to_gain(self._held_out if criterion == "holdout" else self._fitted)

    def value(self, criterion: Criterion, weight: float | None = None) -> float:
        """Compute `criterion` in nats: higher is better, -inf where it is not finite.

        `weight` is the weight of the rows to which the fit's are scaled.
        """
        value = self._value(criterion, weight, 0.0)
        return value if np.isfinite(value) else -np.inf

    def best_value(self, criterion: Criterion) -> float:
        """Estimate the value of `criterion` at the end of the fit, with a margin."""
        # Nobody can say how far the entropy will fall, but not below zero.
        judged: Criterion = "bic" if criterion == "icl" else criterion
        return self._value(judged, None, tuning().elimination.margin * self.gain(criterion))

    def _value(self, criterion: Criterion, weight: float | None, gain: float) -> float:
        state = self.last_state()
        weight = state.statistics.weight if weight is None else weight
        if criterion == "holdout":
            return -np.inf if self.held_out is None else weight * (self.held_out + gain)
        value = weight * (self.fit(criterion) + gain)
        return value - self.model.penalty(criterion, weight)

    def fit(self, criterion: Criterion) -> float:
        """Compute the mean of `criterion` per fitted row, without the penalty, in nats."""
        state = self.last_state()
        if criterion != "icl":
            return state.compared
        unclear = entropy(state.mixture, state.statistics) / state.statistics.weight
        return state.compared - unclear

    def row(self, weight: float | None = None) -> Row:
        """Return the row of the table for this candidate, scaled to rows of this weight."""
        state, model = self.last_state(), self.model
        status = DEGENERATE if self.degenerate else state.status.name
        inertia = state.mixture.components.inertia(state.statistics.components)
        if inertia is not None and weight is not None:
            inertia *= weight / state.statistics.weight
        return Row(
            model.n_components,
            model.kind,
            model.n_parameters,
            state.compared,
            -2 * self.value("aic", weight),
            -2 * self.value("bic", weight),
            -2 * self.value("icl", weight),
            self.held_out,
            self.n_passes,
            DROPPED if self.dropped else status,
            inertia,
            model.family,
            model.n_factors,
        )


def to_gain(values: Sequence[float]) -> float:
    """Estimate the gain still to come after `values`, by Aitken's rule on the last gains.

    With gains that shrink by the same rate, last gain x rate / (1 - rate); see McLachlan
    and Krishnan, The EM Algorithm and Extensions (2008), section 4.9.
    """
    if len(values) < 2:
        return np.inf
    gain = max(values[-1] - values[-2], 0.0)
    rate = tuning().elimination.unknown_rate
    if len(values) > 2:
        before = values[-2] - values[-3]
        rate = gain / before if before > 0 else tuning().elimination.slowest_rate
        rate = min(max(rate, tuning().elimination.quickest_rate), tuning().elimination.slowest_rate)
    return gain * rate / (1 - rate)


# -- the fits of a fleet --------------------------------------------------------------


def run_together(
    accumulate: Callable[[tuple[Mixture, ...]], FleetStatistics],
    candidates: Sequence[Candidate],
    prune: Callable[[Sequence[Candidate]], None] | None = None,
    executor: Executor[Sampled | None] | None = None,
) -> Iterator[list[Candidate]]:
    """Fit every candidate to its end; each pass serves the proposals of all that still run.

    Parameters
    ----------
    accumulate : callable
        The pass: sums the statistics of all data for each of the given mixtures.
    candidates : sequence of Candidate
    prune : callable, optional
        Called with the candidates after every pass: gives up those that cannot win.
    executor : Executor, optional
        Makes the steps between passes, of what shares the sample.

    Yields
    ------
    list of Candidate
        Those that the last pass served.
    """
    while running := [c for c in candidates if c.running]:
        wanted = tuple(mixture for c in running for mixture in c.algorithm.ask())
        tell(running, accumulate(wanted), executor)
        if prune is not None:
            prune(candidates)
        yield running


def tell(
    candidates: Sequence[Candidate],
    statistics: FleetStatistics,
    executor: Executor[Sampled | None] | None = None,
) -> None:
    """Tell each candidate what a pass at its proposals summed.

    Accelerated algorithms make their next step on the sample, which takes time: by `executor`, if
    there are several.
    """
    members = iter(enumerate(statistics.members))
    told = []
    for candidate in candidates:
        numbers, found = zip(*islice(members, len(candidate.algorithm.ask())), strict=True)
        told.append(Served(candidate, found, tuple(map(statistics.held_out, numbers))))
    if executor is None or len(told) < 2:
        in_threads(Served.note, told)
        return
    states = executor.map(
        _state_after, [replace(one, candidate=one.candidate.without_sample()) for one in told]
    )
    for candidate, state in zip(candidates, states, strict=True):
        candidate.load_state_dict(state)


@dataclass(frozen=True)
class Served:
    """One candidate, and the sums of a pass at each of its proposals."""

    candidate: Candidate
    found: tuple[MixtureStatistics, ...]
    held_out: tuple[float | None, ...]

    def note(self) -> None:
        """Tell the candidate what the pass summed."""
        self.candidate.choose(self.found, self.held_out)


def _state_after(sample: Sampled | None, told: Served) -> CandidateState:
    """Return the state after a pass of a candidate that was sent without the sample."""
    vars(told.candidate.algorithm)["sample"] = sample
    told.note()
    return told.candidate.state_dict()


def eliminate(candidates: Sequence[Candidate], criterion: Criterion) -> None:
    """Give up the candidates that will not reach, by a margin, the best value so far.

    A degenerate one has a value to which no other is held.
    """
    sound = [c for c in candidates if c.sound]
    ordered = sorted(sound, key=lambda c: c.value(criterion), reverse=True)
    highest = ordered[0].value(criterion) if ordered else -np.inf
    honest = next((c.value(criterion) for c in ordered if not c.degenerate), -np.inf)
    for candidate in candidates:
        if not candidate.running:
            continue
        to_come = candidate.best_value(criterion)
        if to_come < honest or (to_come < highest and candidate.degenerate):
            candidate.dropped = True


def winner(candidates: Sequence[Candidate], criterion: Criterion) -> Candidate:
    """Return the best fitted candidate by `criterion`, sound ones and honest ones before others."""
    ended = [c for c in candidates if c.state is not None and not c.dropped]
    if len(ended) == 1:
        return ended[0]
    return max(ended, key=lambda c: (c.sound, not c.degenerate, c.value(criterion)))


def table(
    starts: Sequence[Start], candidates: Sequence[Candidate | None], best: Candidate
) -> list[Row]:
    """Return a row for each model; what the sample alone knows is set beside the best."""
    state = best.last_state()
    known = starts[candidates.index(best)]
    rows = []
    for start, candidate in zip(starts, candidates, strict=True):
        if candidate is not None:
            rows.append(candidate.row())
        elif start.row is not None:
            nats = state.compared - known.numbers.log_likelihood
            rows.append(start.row.moved(nats, state.statistics.weight))
    return rows
