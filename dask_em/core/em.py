"""The EM loop: a generator of states, one for each pass over the data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from ..errors import ModelFileError
from .codec import record, tag_of
from .degenerate import Degenerate
from .engine import Engine
from .mixture import Mixture
from .parts import MixtureStatistics
from .tuning import tuning
from .undetermined import owed_warnings, undetermined, undetermined_warnings
from .validation import LARGEST, require, require_array


@record("status")
class Status(Enum):
    """Reasons for which a fit ends, each a sentence of what happened and what to try.

    Examples
    --------
    >>> Status.CONVERGED.converged, Status.OUT_OF_TIME.converged
    (True, False)
    >>> Status.ADAPTED.converged, Status.ADAPTED.done
    (False, True)
    >>> Status.RUNNING.value
    'the fit is still running'
    """

    RUNNING = "the fit is still running"
    CONVERGED = "the log-likelihood per row gained, or has still to gain, less than tol"
    OUT_OF_ITERATIONS = (
        "max_iter passes were made and the log-likelihood was still rising: "
        "raise max_iter or tol, or start from this result with warm_start=True"
    )
    OUT_OF_PASSES = (
        "max_passes passes were made, the survey's among them, and the log-likelihood was still "
        "rising: raise max_passes or tol, or start from this result with warm_start=True"
    )
    OUT_OF_TIME = (
        "max_time seconds were over and the log-likelihood was still rising: "
        "raise max_time, add workers, or start from this result with warm_start=True"
    )
    LIKELIHOOD_FELL = (
        "the log-likelihood fell and the best parameters so far were kept: reg_covar is large "
        "beside the variances of a component, or 0 where one is nearly singular. Where many rows "
        "of a column hold one value, leave the column out; otherwise lower reg_covar or rescale "
        "the columns, and where it is 0 lower n_components"
    )
    COLLAPSED = (
        "a component lost all its rows or shrank to a point and kept its last parameters: "
        "lower n_components, raise reg_covar, try another random_state, or leave out a column in "
        "which many rows hold one value"
    )
    NON_FINITE = (
        "the log-likelihood is not a finite number and the last finite parameters were kept: "
        "look for huge values or changing data in X"
    )
    ADAPTED = (
        "the means were adapted to other data by as many passes as were asked for; weights and "
        "covariances are those of the background model"
    )
    GIVEN = (
        "the parameters were given, and no data were read; in Python, fit starts from them after "
        "set_params(warm_start=True)"
    )

    @property
    def converged(self) -> bool:
        """Whether the fit reached its limit."""
        return self is Status.CONVERGED

    @property
    def done(self) -> bool:
        """Whether nothing is left to try: it converged, was adapted, or there was no fit."""
        return self in (Status.CONVERGED, Status.ADAPTED, Status.GIVEN)

    @property
    def kept(self) -> bool:
        """Whether the result is what was asked for, and not the M-step of the sums."""
        return self in (Status.ADAPTED, Status.GIVEN)

    def reason(self, objective: str, rises: bool = False) -> str:
        """Return the sentence of a fit that raised or lowered an objective of this name.

        One that is raised and no log-likelihood is of all rows together.

        Examples
        --------
        >>> Status.OUT_OF_TIME.reason("inertia").partition(":")[0]
        'max_time seconds were over and the inertia was still falling'
        """
        if objective == "log-likelihood":
            return self.value
        if rises:
            return self.value.replace("log-likelihood per row", objective).replace(
                "log-likelihood", objective
            )
        told = self.value.replace("log-likelihood", objective)
        return told.replace("was still rising", "was still falling").replace(
            "gained, or has still to gain, less", "fell, or has still to fall, by less"
        )


@dataclass(frozen=True)
class Convergence:
    """Limits at which a fit stops.

    Attributes
    ----------
    tol : float
        Nats per row below which the fit has converged: of the last pass's gain for plain EM,
        of the gain still to come, as it is estimated, for accelerated EM.
    max_iter : int
        Passes of EM, and M-steps, at most.
    max_passes : int or None
        Full passes at most, the survey's counted as one.
    of_all : bool
        Whether `tol` is of all rows together, and not yet of one: see `of_rows`.
    window : int
        Where passes are cheap: so many of them must have gained less than `tol` together.
        A likelihood that has a plateau, or a saddle, rises again after small gains.
    confirmed : bool
        Whether accelerated EM ends only where the sample, too, says that little is left.

    Examples
    --------
    >>> limits = Convergence(tol=1e-4, max_iter=10)
    >>> limits.spent(9), limits.spent(10).name
    (None, 'OUT_OF_ITERATIONS')
    """

    tol: float = 1e-3
    max_iter: int = 100
    max_passes: int | None = None
    window: int = 0
    confirmed: bool = True
    of_all: bool = False

    def of_rows(self, weight: float) -> Convergence:
        """Return the limits of a fit to rows of this weight, their `tol` that of one row."""
        if not self.of_all:
            return self
        return replace(self, tol=self.tol / max(weight, 1.0), of_all=False)

    def among(self, weight: float, earlier: float) -> Convergence:
        """Return the limits of a fit to rows of this weight, beside others that are not read.

        Gains are told per row of all of them, and `tol` is of those that are read.
        """
        if self.of_all:
            return self.of_rows(weight + earlier)
        return replace(self, tol=self.tol * weight / (weight + earlier)) if earlier else self

    def on_sample(self) -> Convergence:
        """Return the limits of a fit to a sample of many more rows, whose steps read nothing."""
        sample = tuning().sample
        most = min(sample.iterations, self.max_iter)
        return Convergence(sample.finer * self.tol, most, of_all=self.of_all)

    def after(self, n_passes: int) -> Convergence:
        """Return what is left of the limits after full passes that were no iterations."""
        if self.max_passes is None:
            return self
        return replace(self, max_passes=self.max_passes - n_passes)

    def spent(self, n_iter: int) -> Status | None:
        """Return why there is no pass after number `n_iter`, None if there may be one."""
        if n_iter >= self.max_iter:
            return Status.OUT_OF_ITERATIONS
        if self.max_passes is not None and n_iter + 1 >= self.max_passes:
            return Status.OUT_OF_PASSES
        return None


@record("em-state")
@dataclass(frozen=True)
class EMState:
    """Parameters paired with their own statistics.

    Attributes
    ----------
    mixture : Mixture
        The parameters at which the pass was made.
    statistics : MixtureStatistics
        What the pass summed, the log-likelihood at `mixture` included.
    n_iter : int
        Passes so far, counted from one, those at rejected parameters among them.
    collapsed : tuple of int
        Components that an M-step had to keep as they were.
    status : Status
        `RUNNING`, or why this state is the last.
    result : Mixture
        What the fit would return if it ended here: the M-step of `statistics`.
    accepted : bool
        False where the pass just made was at parameters that were rejected: then
        everything else here is of the best state before it, but for `n_iter` and `status`.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> state = GaussianMixture(1).fit([[0.0], [2.0]]).state_
    >>> state.status.name, state.ended, round(state.log_likelihood, 3)
    ('CONVERGED', True, -1.419)
    """

    mixture: Mixture
    statistics: MixtureStatistics
    n_iter: int
    collapsed: tuple[int, ...]
    status: Status
    result: Mixture
    accepted: bool = True

    @property
    def ended(self) -> bool:
        """Whether the fit is over."""
        return self.status is not Status.RUNNING

    @property
    def log_likelihood(self) -> float:
        """Mean log-likelihood per row at `mixture`, in nats."""
        return self.statistics.mean_log_likelihood

    @property
    def reported(self) -> float:
        """The figure told of the pass at `mixture`, per row in nats: see `Mixture`."""
        return self.mixture.reported(self.statistics)

    @property
    def objective(self) -> float:
        """The objective at `mixture` per row: the log-likelihood, with a prior that of both."""
        return self.mixture.objective(self.statistics)

    @property
    def compared(self) -> float:
        """Mean log-likelihood per row by which models of several K are compared, in nats."""
        return self.mixture.compared(self.statistics)

    @property
    def exhausted(self) -> bool:
        """Whether a hard assignment is at its limit: the M-step gains nothing but rounding."""
        if self.mixture.assignment == "soft" or self.mixture.moves_empty(self.statistics):
            return False
        gain = self.mixture.m_step_gain(self.statistics, self.result)
        return bool(abs(gain) <= 4 * np.finfo(np.float64).eps * abs(self.log_likelihood))

    @property
    def measured(self) -> bool:
        """Whether there was a pass: a fit of no iterations ends with its start."""
        return self.n_iter > 0 or self.status not in (Status.OUT_OF_ITERATIONS, Status.GIVEN)

    def reordered(self, order: Sequence[int]) -> EMState:
        """Return the same of the components in another order."""
        index, sums = list(order), self.statistics

        def moved(mixture: Mixture) -> Mixture:
            return mixture.reordered(index)

        return replace(
            self,
            mixture=moved(self.mixture),
            statistics=replace(
                sums, resp_sum=sums.resp_sum[index], components=sums.components.take(index)
            ),
            collapsed=tuple(sorted(index.index(c) for c in self.collapsed)),
            result=moved(self.result),
        )

    def computed_by(self, engine: Engine) -> EMState:
        """Return the same, for an algorithm that goes on with this engine."""
        mixture, result = (replace(m, engine=engine) for m in (self.mixture, self.result))
        return replace(self, mixture=mixture, result=result)

    @property
    def maximized(self) -> Mixture | None:
        """The mixture that the M-step makes of the sums, where the fit may have kept another.

        After an adaptation it is the result, whose weights and covariances are of other rows, and
        so it is of parameters that were given.
        """
        if self.status is Status.NON_FINITE:
            return None
        if self.status.kept:
            return self.result
        return self.mixture.m_step(self.statistics)[0]

    @property
    def degenerate(self) -> list[Degenerate]:
        """The components that the data do not determine: spikes, equal ones, those of few rows."""
        now = self.maximized
        if now is None:
            return []
        found = now.components.degenerate(now.weights)
        if self.status.kept:
            return found
        found = [*found, *now.components.owed_to_prior(self.statistics.resp_sum)]
        return [*found, *undetermined(now, self.statistics)] if self.measured else found

    @property
    def spiked(self) -> bool:
        """Whether a component narrows to a value, or a plane, where no likelihood has a bound."""
        now = self.maximized
        found = [] if now is None else now.components.degenerate(now.weights)
        return any(not one.bounded for one in found)

    def warnings(self, called: Callable[[Sequence[int]], str]) -> list[str]:
        """Return what is odd about the components; `called` returns how to name some columns."""
        now = self.maximized
        if now is None:
            return []
        found = now.components.warnings(now.weights, called)
        if self.status.kept:
            return found
        more = undetermined(now, self.statistics) if self.measured else []
        owed = now.components.owed_to_prior(self.statistics.resp_sum)
        return [*found, *owed_warnings(owed, called), *undetermined_warnings(more)]

    def validate(self) -> None:
        """Raise `ValueError` that names the field where a state from a file is not one."""
        k, sums = len(self.mixture.log_weights), self.statistics
        collapsed = [*self.collapsed]
        right = len({*collapsed}) == len(collapsed) and all(0 <= c < k for c in collapsed)
        require("collapsed", collapsed, right)
        require("n_iter", self.n_iter, 0 <= self.n_iter < 2**53)
        require("n_rows", sums.n_rows, 0 <= sums.n_rows < 2**53)
        require("weight", sums.weight, 0 <= sums.weight < np.inf)
        require_array("resp_sum", sums.resp_sum, (k,), largest=np.finfo(np.float64).max)
        require("resp_sum", sums.resp_sum, bool((sums.resp_sum >= 0).all()))
        require("evidence", sums.evidence_sum, bool(np.isfinite(sums.evidence_sum)))
        for mixture in (self.mixture, self.result):
            # The weight of a component without rows is zero.
            require_array("log_weights", mixture.log_weights, (k,), allowed=-np.inf)
            total = float(mixture.weights.sum())
            require("sum of the weights", total, abs(total - 1) < 1e-6)
            mixture.components.validate(sums.components)
            n_components = mixture.components.n_components
            require("n_components", n_components, n_components == k)
            mixture.validate_noise(sums, mixture.components.n_features)
            mixture.validate_held()
        require(
            "assignment", self.result.assignment, self.result.assignment == self.mixture.assignment
        )
        if self.measured and np.isfinite(self.log_likelihood):
            require("log_likelihood", self.log_likelihood, abs(self.log_likelihood) <= LARGEST)
        # What is told of degenerate components, and a fit that goes on, begin with it.
        if (after := self.maximized) is not None:
            for name, array in after.components.arrays().items():
                require_array(f"{name} after the M-step", array, array.shape)


@dataclass(frozen=True)
class AlgorithmState:
    """All that an algorithm knows between two passes, but for what it is made with.

    Attributes
    ----------
    proposal : Mixture
        The parameters at which the next pass is wanted.
    contenders : tuple of Mixture
        Other starts, which the first pass compares with `proposal`.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> state = GaussianMixture(1).fit([[0.0], [2.0]]).state_
    >>> kept = PlainEM(state, Convergence()).state_dict()
    >>> kept.proposal is state.result, kept.contenders
    (True, ())
    """

    proposal: Mixture
    contenders: tuple[Mixture, ...]


@record("plain-em-state")
@dataclass(frozen=True)
class PlainEMState(AlgorithmState):
    """The state of `PlainEM`.

    Attributes
    ----------
    previous : EMState or None
        The last accepted state.
    """

    previous: EMState | None


class Algorithm(ABC):
    """Raise the objective of a mixture, told what each pass summed.

    Whoever makes the passes asks where the next one is wanted, sums the statistics there,
    lets the algorithm choose, and tells; so one pass can serve many algorithms.

    Attributes
    ----------
    proposal : Mixture
        The parameters at which the next pass is wanted.
    contenders : tuple of Mixture
        Before the first pass other starts that may be better. One goes on.
    rows_read : int
        Rows of the sample that its steps have read.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> state = GaussianMixture(1).fit([[0.0], [2.0]]).state_
    >>> algorithm = PlainEM(state.mixture, Convergence())
    >>> len(algorithm.ask())
    1
    >>> algorithm.choose([state.statistics]), algorithm.tell(state.statistics).status.name
    (0, 'RUNNING')
    """

    proposal: Mixture
    contenders: tuple[Mixture, ...] = ()
    rows_read: int = 0

    def ask(self) -> tuple[Mixture, ...]:
        """Return all parameters at which the next pass is wanted."""
        return (self.proposal, *self.contenders)

    def choose(self, found: Sequence[MixtureStatistics]) -> int:
        """Go on from the best of what was asked for, by what a pass summed at each; its number."""
        values = [mixture.objective(sums) for mixture, sums in zip(self.ask(), found, strict=True)]
        best = max(range(len(found)), key=lambda i: (np.isfinite(values[i]), values[i], -i))
        self.proposal, self.contenders = self.ask()[best], ()
        return best

    @abstractmethod
    def tell(self, statistics: MixtureStatistics) -> EMState:
        """Take what a pass at `proposal` summed; the state has a status when all is over."""

    @abstractmethod
    def state_dict(self) -> AlgorithmState:
        """Return all that the algorithm knows between two passes, as a registered record."""

    @abstractmethod
    def load_state_dict(self, state: AlgorithmState) -> None:
        """Go on from a state that an algorithm of the same kind returned.

        Raises
        ------
        ModelFileError
            It is of another kind.
        """


class PlainEM(Algorithm):
    """Expectation-Maximization (Dempster, Laird and Rubin 1977): each pass at the last M-step.

    Parameters
    ----------
    start : Mixture or EMState
        Where to start, or a state to go on from.
    convergence : Convergence

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> state = GaussianMixture(1).fit([[0.0], [2.0]]).state_
    >>> algorithm = PlainEM(state.mixture, Convergence())
    >>> after = algorithm.tell(state.statistics)
    >>> after.n_iter, algorithm.proposal is after.result
    (1, True)
    """

    def __init__(self, start: Mixture | EMState, convergence: Convergence) -> None:
        self.convergence = convergence
        self.previous = start if isinstance(start, EMState) else None
        self.proposal = start.result if isinstance(start, EMState) else start

    def tell(self, statistics: MixtureStatistics) -> EMState:
        """Return the state at `proposal`.

        The last has a status other than `RUNNING`. Where the log-likelihood
        fell or stopped being finite, it is the best one before, renamed.
        """
        previous = self.previous
        n_iter = 1 if previous is None else previous.n_iter + 1
        reached = self.proposal.objective(statistics)
        failure = failure_of(previous, statistics, self.convergence.tol, reached)
        if failure and previous is not None:
            return replace(
                previous, n_iter=n_iter, status=failure, result=previous.mixture, accepted=False
            )
        if failure:
            return EMState(self.proposal, statistics, n_iter, (), failure, self.proposal)
        result, collapsed = self.proposal.m_step(statistics)
        state = EMState(self.proposal, statistics, n_iter, collapsed, Status.RUNNING, result)
        gain = np.inf if previous is None else abs(state.objective - previous.objective)
        if state.exhausted:
            # No step of this algorithm moves anything any more.
            gain = -np.inf
        elif state.mixture.moves_empty(statistics):
            gain = np.inf
        ended = end_of(gain, n_iter, collapsed, self.convergence)
        self.previous, self.proposal = state, result
        return replace(state, status=ended) if ended else state

    def state_dict(self) -> PlainEMState:
        """Return the proposals and the last accepted state."""
        return PlainEMState(self.proposal, self.contenders, self.previous)

    def load_state_dict(self, state: AlgorithmState) -> None:
        """Go on from such a state."""
        if not isinstance(state, PlainEMState):
            raise other_state(state, PlainEMState)
        self.proposal, self.contenders, self.previous = (
            state.proposal,
            state.contenders,
            state.previous,
        )


def other_state(found: AlgorithmState, expected: type[AlgorithmState]) -> ModelFileError:
    """Return the error of an algorithm that is given the state of another one.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> from dask_em.fitting.control_variate import ControlVariateState
    >>> state = GaussianMixture(1).fit([[0.0], [2.0]]).state_
    >>> found = PlainEM(state, Convergence()).state_dict()
    >>> print(other_state(found, ControlVariateState))
    a state 'plain-em-state', and this algorithm goes on from 'control-variate-state': ...
    """
    return ModelFileError(
        f"a state {tag_of(type(found))!r}, and this algorithm goes on from "
        f"{tag_of(expected)!r}: go on with the algorithm that the fit was begun with"
    )


def run_algorithm(
    accumulate: Callable[[Mixture], MixtureStatistics], algorithm: Algorithm
) -> Iterator[EMState]:
    """Yield every state of an algorithm, one a pass; the last has a status other than `RUNNING`.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> def accumulate(mixture):
    ...     fold = mixture.fold()
    ...     fold.update(0, np.array([[0.0], [2.0]]), None)
    ...     return fold.result()
    >>> start = GaussianMixture(1).fit([[1.0], [5.0]]).state_.result
    >>> states = run_algorithm(accumulate, PlainEM(start, Convergence()))
    >>> [state.status.name for state in states]
    ['RUNNING', 'RUNNING', 'CONVERGED']
    """
    status = Status.RUNNING
    while status is Status.RUNNING:
        state = algorithm.tell(accumulate(algorithm.proposal))
        status = state.status
        yield state


def em(
    accumulate: Callable[[Mixture], MixtureStatistics],
    start: Mixture | EMState,
    convergence: Convergence,
) -> Iterator[EMState]:
    """Run plain Expectation-Maximization, and yield one state a pass.

    Parameters
    ----------
    accumulate : callable
        The pass: sums the statistics of all data at the given parameters.
    start : Mixture or EMState
        Where to start, or a state to go on from; one of `max_iter` passes yields nothing.
    convergence : Convergence

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> def accumulate(mixture):
    ...     fold = mixture.fold()
    ...     fold.update(0, np.array([[0.0], [2.0]]), None)
    ...     return fold.result()
    >>> start = GaussianMixture(1).fit([[1.0], [5.0]]).state_.result
    >>> [round(state.log_likelihood, 3) for state in em(accumulate, start, Convergence())]
    [-2.237, -1.419, -1.419]
    """
    if isinstance(start, EMState) and start.n_iter >= convergence.max_iter:
        return
    yield from run_algorithm(accumulate, PlainEM(start, convergence))


def failure_of(
    previous: EMState | None,
    statistics: MixtureStatistics,
    tol: float,
    reached: float | None = None,
) -> Status | None:
    """Return what went wrong in a step of plain EM from `previous`, None if nothing did.

    `reached` is the objective after the step, by default the log-likelihood.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> state = GaussianMixture(1).fit([[0.0], [2.0]]).state_
    >>> failure_of(state, state.statistics, tol=1e-3) is None
    True
    >>> failure_of(state, replace(state.statistics, log_likelihood=-9.0), tol=1e-3).name
    'LIKELIHOOD_FELL'
    """
    value = statistics.mean_log_likelihood
    if not np.isfinite(value) or not np.isfinite(statistics.resp_sum).all():
        return Status.NON_FINITE
    if previous is None:
        return None
    fell = previous.objective - (value if reached is None else reached) > max(
        tol, rounding(previous)
    )
    return Status.LIKELIHOOD_FELL if fell else None


def rounding(state: EMState) -> float:
    """Return the nats per row by which rounding may change the log-likelihood of `state`.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> state = GaussianMixture(1).fit([[0.0], [2.0]]).state_
    >>> 0 < rounding(state) < 1e-5
    True
    """
    return state.mixture.rounding * (1 + abs(state.log_likelihood))


def settled(earlier: EMState, state: EMState) -> EMState:
    """Return what a fit that went on from `earlier` ends with: nothing moves for a last bit.

    Where less was gained than rounding lets anyone tell, all stays as it was; and so does an
    M-step that would gain less, whose result nobody has measured.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> state = GaussianMixture(1).fit([[0.0], [2.0]]).state_
    >>> after = PlainEM(state, Convergence()).tell(state.statistics)
    >>> settled(state, after).result is state.result
    True
    """
    if state.status in (Status.LIKELIHOOD_FELL, Status.NON_FINITE, Status.COLLAPSED):
        return state
    least = tuning().numerics.last_bits * rounding(state)
    if state.objective - earlier.objective < least:
        return replace(earlier, n_iter=state.n_iter, status=state.status, accepted=state.accepted)
    gain = state.mixture.m_step_gain(state.statistics, state.result)
    return replace(state, result=state.mixture) if gain < least else state


def end_of(
    gain: float, n_iter: int, collapsed: tuple[int, ...], convergence: Convergence
) -> Status | None:
    """Return why a fit ends after pass `n_iter`, None if it goes on; `tol` bounds `gain`.

    Examples
    --------
    >>> end_of(1e-6, 7, (), Convergence(tol=1e-3)).name
    'CONVERGED'
    >>> end_of(0.1, 7, (), Convergence(tol=1e-3)) is None
    True
    """
    converged = gain < convergence.tol
    spent = convergence.spent(n_iter)
    if collapsed and (converged or spent):
        return Status.COLLAPSED
    return Status.CONVERGED if converged else spent


Rank = tuple[bool, bool, bool, float]
"""Whether numbers are finite, components whole, and none a spike; then the objective."""


def rank(value: float, collapsed: Sequence[int], spiked: bool = False) -> Rank:
    """Return the key to sort fits by: finite numbers, whole components, no spikes, objective.

    A spike gains without limit, so that it would win against every honest optimum.

    Examples
    --------
    >>> max((-1.0, [2]), (-3.0, []), (float("nan"), []), key=lambda fit: rank(*fit))
    (-3.0, [])
    """
    finite = bool(np.isfinite(value))
    return finite, not collapsed, not spiked, value if finite else -np.inf
