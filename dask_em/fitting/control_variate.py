"""Accelerated EM: fewer passes over the data to the same limit.

A full pass at theta gives the sums S(theta) of all data. `Surrogate` iterates on the
sample with S_m(theta') + [S(theta) - S_m(theta)] in place of sums that it cannot know:
the sample's, corrected so that at theta they are those of the data. That is EM on a
surrogate likelihood whose gradient at theta is the true one (variance-reduced EM: Chen,
Zhu, Teh and Zhang 2018; communication-efficient likelihood: Jordan, Lee and Yang 2019),
so what the sample gets wrong shrinks with every pass by about its relative error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..core.additive import Array
from ..core.codec import record
from ..core.em import (
    Algorithm,
    AlgorithmState,
    Convergence,
    EMState,
    PlainEM,
    Status,
    end_of,
    failure_of,
    other_state,
    rounding,
    run_algorithm,
)
from ..core.mixture import Mixture, MixtureStatistics
from ..core.tuning import tuning
from .anderson import Step, curved, mixed

if TYPE_CHECKING:
    from .sample import Sampled


def algorithm_of(
    algorithm: str,
    start: Mixture | EMState,
    convergence: Convergence,
    sample: Sampled | None,
    contenders: Sequence[Mixture] = (),
) -> Algorithm:
    """Return the algorithm named `algorithm`.

    Parameters
    ----------
    algorithm : {"auto", "em"}
        "em" is plain EM, iteration for iteration; "auto" is `ControlVariateEM`.
    start : Mixture or EMState
        Where to start, or a state to go on from.
    convergence : Convergence
    sample : Sampled or None
        Rows in memory that "auto" may make steps on; None goes without.
    contenders : sequence of Mixture
        Other starts, which the first pass compares with `start`.
    """
    found: Algorithm
    if algorithm == "em":
        found = PlainEM(start, convergence)
    else:
        found = ControlVariateEM(start, convergence, sample)
    found.contenders = tuple(contenders)
    return found


# -- EM on the sample ------------------------------------------------------------------


@dataclass(frozen=True)
class Inner:
    """The end of a few iterations of EM on the surrogate.

    Attributes
    ----------
    mixture : Mixture
    plain, predicted : float
        Nats per row that the data should gain by a plain M-step, and by going to `mixture`.
    """

    mixture: Mixture
    plain: float
    predicted: float


@dataclass(frozen=True)
class Far:
    """The end of a fit of the surrogate itself.

    Attributes
    ----------
    mixture : Mixture
    shown, predicted : float
        Nats per row that are gained by going to `mixture`: by the sample's own likelihood,
        and by the corrected one.
    """

    mixture: Mixture
    shown: float
    predicted: float


class Surrogate:
    """The sample's likelihood, corrected at a state so that its gradient is that of the data.

    A proximal of `damping` times the sample's relative error sqrt(p_k / m_k), for p_k
    parameters and m_k rows, keeps each component near the plain M-step, to which it
    tends as the damping grows.

    Parameters
    ----------
    state : EMState
    sample : Sampled
    damping : float
    """

    def __init__(self, state: EMState, sample: Sampled, damping: float) -> None:
        self.sample = sample
        self.anchor = state.mixture.on_cpu
        self.sums = state.statistics
        here = sample.accumulate(self.anchor)
        self.scale = self.sums.weight / here.weight
        self.difference = _combined(self.sums, here, -self.scale)
        self._error = self._relative_error(here)
        self.damp(damping)
        self.rows_read = len(sample.rows)
        self._value_here = self._value(self.anchor, here, self.difference)
        self._log_likelihood_here = here.log_likelihood

    def damp(self, damping: float) -> None:
        """Set the damping of the proximal, whatever it was before."""
        self.proximal = damping * self._error

    def accumulate(self, mixture: Mixture) -> MixtureStatistics:
        """Return sums and log-likelihood of the surrogate, in a pass over the sample alone.

        Where the sums are those of no data, the log-likelihood is not a number.
        """
        here = self.sample.accumulate(mixture)
        self.rows_read += len(self.sample.rows)
        corrected = self._corrected(mixture, here)
        impossible = self._impossible(corrected).any()
        value = np.nan if impossible else self._value(mixture, here, self._extra)
        # Whoever judges it adds the prior.
        value -= mixture.log_prior_density
        return replace(corrected, log_likelihood=value, weight=self.sums.weight)

    def ahead(self, start: Mixture, tol: float) -> Far:
        """Fit the surrogate itself by an accelerated algorithm from `start`, the plain M-step."""
        constants = tuning().control_variate
        # A pass is worth no more of them than the rows that it reads.
        alike = constants.far_iterations_alike * self.sums.n_rows / len(self.sample.rows)
        limits = Convergence(
            constants.far_gain * tol,
            min(max(constants.far_iterations_alike, int(alike)), constants.far_iterations),
            window=constants.far_window,
        )
        algorithm = ControlVariateEM(start.on_cpu, limits, step=curved)
        *_, last = run_algorithm(self.accumulate, algorithm)
        here = self.sample.accumulate(last.mixture)
        self.rows_read += len(self.sample.rows)
        gain = self._value(last.mixture, here, self.difference) - self._value_here
        shown = self.scale * (here.log_likelihood - self._log_likelihood_here)
        return Far(last.mixture, shown / self.sums.weight, gain / self.sums.weight)

    def run(self, start: Mixture, enough: float) -> Inner:
        """Run EM on the surrogate from `start`, the plain M-step, while it gains `enough` a row."""
        mixture = best = start.on_cpu
        last, plain, predicted = -np.inf, np.nan, np.nan
        for _ in range(tuning().control_variate.inner_iterations):
            here = self.sample.accumulate(mixture)
            self.rows_read += len(self.sample.rows)
            value = self._value(mixture, here, self._extra)
            if not value - last >= enough * self.sums.weight:
                break
            best, last = mixture, value
            gain = self._value(mixture, here, self.difference) - self._value_here
            predicted = abs(gain) / self.sums.weight
            plain = predicted if np.isnan(plain) else plain
            following = self._m_step(mixture, here)
            if following is None:
                break
            mixture = following
        return Inner(best, plain, predicted)

    def _relative_error(self, here: MixtureStatistics) -> Array:
        """Compute sqrt(p_k / m_k) of each component, at most one."""
        k = len(here.resp_sum)
        rows = self.sample.effective_rows * here.resp_sum / here.weight
        left_out = max(1 - 1 / self.scale, 0.0)
        if self._shared:
            rows = np.full(k, rows.mean())
        per_row = self.anchor.n_parameters / k / np.maximum(rows, 1e-12)
        return np.asarray(np.sqrt(np.minimum(per_row, 1.0) * left_out))

    @property
    def _shared(self) -> bool:
        return self.anchor.components.shares_statistics

    @property
    def _extra(self) -> MixtureStatistics:
        """Terms added to the sample's sums: the correction and the proximal."""
        # What the components share can be held back as a whole only.
        proximal = float(self.proximal.max()) if self._shared else self.proximal
        return _combined(self.difference, self.sums, proximal)

    def _corrected(self, mixture: Mixture, here: MixtureStatistics) -> MixtureStatistics:
        """The sample's sums at a mixture, corrected and held back."""
        return _combined(self._about(self._extra, mixture), here, self.scale)

    def _impossible(self, corrected: MixtureStatistics) -> Array:
        """Of which components such sums are those of no data."""
        return np.asarray(
            corrected.resp_sum < tuning().control_variate.least_share * self.sums.resp_sum
        )

    def _about(self, sums: MixtureStatistics, mixture: Mixture) -> MixtureStatistics:
        return self.anchor.recentre(sums, mixture)

    def _value(self, mixture: Mixture, here: MixtureStatistics, extra: MixtureStatistics) -> float:
        added = mixture.expected_log_joint(self._about(extra, mixture))
        return self.scale * here.log_likelihood + added + mixture.log_prior_density

    def _m_step(self, mixture: Mixture, here: MixtureStatistics) -> Mixture | None:
        """The M-step of the corrected sums, held back harder where they are those of no data."""
        while (self.proximal < tuning().control_variate.most_proximal).all():
            corrected = self._corrected(mixture, here)
            following, collapsed = mixture.m_step(corrected)
            impossible = self._impossible(corrected)
            impossible[list(collapsed)] = True
            if not impossible.any():
                return following
            harder = np.maximum(
                tuning().control_variate.shrink * self.proximal,
                tuning().control_variate.least_proximal,
            )
            self.proximal = np.where(impossible, harder, self.proximal)
        return None


def _combined(
    one: MixtureStatistics, other: MixtureStatistics, factor: float | Array
) -> MixtureStatistics:
    """Return one + factor * other, sums about the same centres; `factor` is a number or (k,).

    The rows, the weight and the log-likelihood stay those of `one`.
    """
    return replace(
        one,
        resp_sum=one.resp_sum + factor * other.resp_sum,
        components=one.components.plus(other.components, factor),
    )


# -- the algorithm ---------------------------------------------------------------------


@record("control-variate-state")
@dataclass(frozen=True)
class ControlVariateState(AlgorithmState):
    """The state of `ControlVariateEM`; its attributes are those of the algorithm."""

    best: EMState | None
    n_iter: int
    kind: str
    predicted: float | None
    damping: float
    rejections: int
    rows_read: int
    gains: tuple[float, ...]
    steps: tuple[Step, ...]
    heights: tuple[float, ...]


class ControlVariateEM(Algorithm):
    """EM whose steps are made on a sample that every pass over the data corrects.

    Each step is judged by the pass that is made at its end. Three kinds are tried, each
    where the log-likelihood at the one before was not above the best so far, or could not be
    kept by a plain M-step, whose variances are at least what is added to them: EM on the
    surrogate; plain EM mixed with its earlier steps (Anderson); plain EM. So the
    log-likelihoods of accepted states never fall. There is no surrogate without a sample,
    where the data are hardly larger than it, where its steps were rejected twice, and where
    plain EM gains nearly as much. Before the end the surrogate is fitted once more, without a
    limit on the length of its steps: gains are small on a plateau and beside a saddle, too.

    Parameters
    ----------
    start : Mixture or EMState
        Where to start, or a state to go on from.
    convergence : Convergence
        `tol` bounds the gain still to come: what the surrogate predicts, near and far, and
        what is left if the last two gains go on as a geometric series (Aitken 1926).
    sample : Sampled or None
    step : callable
        `mixed`, or `curved`, which leaves saddles.

    Attributes
    ----------
    rows_read : int
        Rows of the sample that were read so far.
    """

    def __init__(
        self,
        start: Mixture | EMState,
        convergence: Convergence,
        sample: Sampled | None = None,
        step: Callable[[Sequence[Step], Array], Array] = mixed,
    ) -> None:
        self.convergence, self.sample, self.step = convergence, sample, step
        self.best = start if isinstance(start, EMState) else None
        self.n_iter = start.n_iter if isinstance(start, EMState) else 0
        self.proposal = start.result if isinstance(start, EMState) else start
        self.kind = "plain"
        self.predicted: float | None = None
        self.damping, self.rejections = 1.0, 0
        self.rows_read = 0
        self.gains: list[float] = []
        self.steps: list[Step] = []
        self.heights: list[float] = []
        if self.best is not None:
            self._follow(self.best)

    def state_dict(self) -> ControlVariateState:
        """Return the state between two passes, without the sample."""
        return ControlVariateState(
            self.proposal,
            self.contenders,
            self.best,
            self.n_iter,
            self.kind,
            self.predicted,
            self.damping,
            self.rejections,
            self.rows_read,
            tuple(self.gains),
            tuple(self.steps),
            tuple(self.heights),
        )

    def load_state_dict(self, state: AlgorithmState) -> None:
        """Go on from a state that `state_dict` returned."""
        if not isinstance(state, ControlVariateState):
            raise other_state(state, ControlVariateState)
        self.proposal, self.contenders, self.best = state.proposal, state.contenders, state.best
        self.n_iter, self.kind, self.predicted = state.n_iter, state.kind, state.predicted
        self.damping, self.rejections = state.damping, state.rejections
        self.rows_read, self.gains = state.rows_read, [*state.gains]
        self.steps, self.heights = [*state.steps], [*state.heights]

    def tell(self, statistics: MixtureStatistics) -> EMState:
        """Return the state at `proposal`, or the best one before if `proposal` is no better.

        The last has a status other than `RUNNING`.
        """
        self.n_iter += 1
        best = self.best
        reached = self.proposal.objective(statistics)
        failure = failure_of(None, statistics, self.convergence.tol)
        if best is None and failure:
            return EMState(self.proposal, statistics, self.n_iter, (), failure, self.proposal)
        # What is not finite is above nothing.
        higher = best is None or reached > best.objective
        if not failure and higher:
            result, collapsed = self.proposal.m_step(statistics)
            state = EMState(
                self.proposal, statistics, self.n_iter, collapsed, Status.RUNNING, result
            )
            if best is None and self.n_iter == 1 and self._loses(state):
                # A start that was fitted to other rows: no M-step on these holds what it reached.
                self._plainly(state)
                return replace(state, status=self.convergence.spent(1) or Status.RUNNING)
            if best is None or self.kind == "plain" or not self._loses(state):
                return self._accept(state)
        assert best is not None
        return self._reject(best, statistics)

    def _loses(self, state: EMState) -> bool:
        """Return whether the M-step loses of the likelihood that was found at `proposal`.

        What it adds to variances bounds them from below: steps of other kinds may pass the
        bound, to a likelihood that no M-step can hold.
        """
        lost = -state.mixture.m_step_gain(state.statistics, state.result)
        return lost > max(self.convergence.tol, rounding(state))

    def _accept(self, state: EMState) -> EMState:
        collapsed = state.collapsed
        if self.best is not None:
            self.gains.append(state.objective - self.best.objective)
        if self.kind == "surrogate" and self.predicted:
            self._adapt(self.gains[-1] / self.predicted)
        self.best = state
        self._note_height(state)
        self._follow(state)
        to_come = self._to_come()
        if state.mixture.moves_empty(state.statistics):
            to_come = np.inf
        if to_come < self.convergence.tol and not collapsed and not self._one_by_one:
            to_come = max(to_come, self._predicted_far(state))
        ended = end_of(to_come, self.n_iter, collapsed, self.convergence)
        return replace(state, status=ended) if ended else state

    def _follow(self, state: EMState) -> None:
        """Propose what follows an accepted state."""
        step = Step(state.mixture.to_unconstrained(), state.result.to_unconstrained())
        self.steps = [*self.steps, step][-1 - tuning().anderson.memory :]
        self._propose(state)

    def _reject(self, best: EMState, statistics: MixtureStatistics) -> EMState:
        ended = None
        self._note_height(best)
        if self.kind == "plain":
            # Where nothing failed, not even plain EM gains more than rounding.
            reached = self.proposal.objective(statistics)
            ended = failure_of(best, statistics, self.convergence.tol, reached) or Status.CONVERGED
        elif self.kind == "surrogate":
            self.rejections += 1
            self.damping *= tuning().control_variate.shrink
            self._mix(best)
        else:
            self._plainly(best)
        if ended is Status.CONVERGED and best.collapsed:
            ended = Status.COLLAPSED
        result = best.mixture if ended and not ended.converged else best.result
        ended = ended or self.convergence.spent(self.n_iter) or Status.RUNNING
        return replace(best, n_iter=self.n_iter, status=ended, result=result, accepted=False)

    def _note_height(self, best: EMState) -> None:
        self.heights = [*self.heights, best.objective][-1 - self.convergence.window :]

    def _adapt(self, kept: float) -> None:
        """Adapt the damping to the share of the predicted gain that was reached."""
        if kept < tuning().control_variate.shrink_below:
            self.damping *= 2
        elif kept > tuning().control_variate.grow_above:
            self.damping = max(self.damping / 2, tuning().control_variate.least_damping)

    # -- three kinds of proposals --------------------------------------------------

    def _propose(self, state: EMState) -> None:
        self.predicted = None
        if self.sample is None or not self._trusted(self.sample, state):
            self._mix(state)
            return
        surrogate = Surrogate(state, self.sample, self.damping)
        inner = surrogate.run(
            state.result, tuning().control_variate.inner_gain * self.convergence.tol
        )
        self.predicted = inner.predicted
        self.rows_read += surrogate.rows_read
        if inner.plain >= tuning().control_variate.enough * inner.predicted:
            self._mix(state)
            return
        self.kind = "surrogate"
        self.proposal = replace(inner.mixture, engine=state.mixture.engine)

    def _trusted(self, sample: Sampled, state: EMState) -> bool:
        worth = state.statistics.n_rows >= tuning().control_variate.worth * len(sample.rows)
        return (
            worth and not state.collapsed and self.rejections < tuning().control_variate.rejections
        )

    def _mix(self, state: EMState) -> None:
        if len(self.steps) < 2:
            self._plainly(state)
            return
        self.kind = "mixed"
        self.proposal = state.mixture.from_unconstrained(
            self.step(self.steps, state.mixture.information_scale())
        )

    def _plainly(self, state: EMState) -> None:
        # The earlier steps have misled, if there are any.
        self.steps = self.steps[-1:]
        self.kind, self.proposal = "plain", state.result

    # -- the end -------------------------------------------------------------------

    @property
    def _one_by_one(self) -> bool:
        """Whether the fit ends with a single gain, which is then judged as plain EM's.

        Nothing tells the rate of gains, and no pass is left to go further than the next M-step.
        """
        return len(self.gains) == 1 and self.convergence.spent(self.n_iter) is not None

    def _to_come(self) -> float:
        """Nats per row that are estimated to be still missing."""
        left, window = np.inf, self.convergence.window
        if len(self.heights) <= window:
            return left
        if window and self.heights[-1] - self.heights[0] >= self.convergence.tol:
            return left
        if len(self.gains) > 1:
            before, last = self.gains[-2:]
            # What is below rounding has no rate.
            noise = self.best is not None and max(before, last) < rounding(self.best)
            rate = (
                tuning().control_variate.slowest_seen
                if noise
                else max(last / before, tuning().control_variate.slowest_seen)
            )
            if self.predicted is None or self.rejections:
                # Mixed steps gain by fits and starts, and one small gain says little.
                last = max(before, last)
            left = last * rate / (1 - rate) if rate < 1 else np.inf
        elif self._one_by_one:
            left = self.gains[-1]
        if self.predicted is None:
            return left
        return (
            max(tuning().control_variate.beside * self.predicted, left)
            if np.isfinite(left)
            else tuning().control_variate.alone * self.predicted
        )

    def _predicted_far(self, state: EMState) -> float:
        """Return the nats per row predicted at the end of a fit of the surrogate, and propose it.

        Two small gains do not show a plateau; the sample shows what is beyond it, too.
        """
        given_up = self.rejections >= tuning().control_variate.rejections
        if self.sample is None or given_up or not self.convergence.confirmed:
            return 0.0
        surrogate = Surrogate(state, self.sample, self.damping)
        far = self._far(surrogate, state)
        self.rows_read += surrogate.rows_read
        if far is None:
            return 0.0
        self.kind, self.predicted = "surrogate", far.predicted
        self.proposal = replace(far.mixture, engine=state.mixture.engine)
        return tuning().control_variate.beside * far.predicted

    def _far(self, surrogate: Surrogate, state: EMState) -> Far | None:
        """Return the end of a fit of the surrogate if it gains `tol` and the sample agrees.

        Far from the state at which it was made, the correction alone has no bound.
        """
        for share in tuning().control_variate.far_damping:
            surrogate.damp(share * self.damping)
            far = surrogate.ahead(state.result, self.convergence.tol)
            if not tuning().control_variate.beside * far.predicted >= self.convergence.tol:
                return None
            if far.shown >= tuning().control_variate.shrink_below * far.predicted:
                return far
        return None
