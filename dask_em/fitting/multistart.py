"""Multistart: many starts on the sample, improved by split and merge, and the best of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from ..core.additive import Array
from ..core.em import Convergence, EMState, Rank, Status, rank, run_algorithm
from ..core.executor import in_threads, serial_executor
from ..core.mixture import Mixture
from ..core.protocols import ExecutorFactory
from ..core.responsibilities import Assignment
from ..core.scoring import Predict
from ..core.tuning import tuning
from .control_variate import algorithm_of
from .mergers import merged
from .sample import Sampled, Start
from .split_merge import SplitMerge, fewest_rows
from .survey import Surveyed


@dataclass(frozen=True)
class StartResult:
    """A fit to some rows of the sample, and its likelihood on all of them.

    Attributes
    ----------
    state : EMState
    value : float
        Mean log-likelihood per row of the sample, most of which may not have been fitted.
    rows_read : int
        Rows of the sample that were read for it.
    """

    state: EMState
    value: float
    rows_read: int

    @cached_property
    def rank(self) -> Rank:
        """The key to sort fits by: no spike is preferred to an honest optimum."""
        return rank(self.value, self.state.collapsed, self.state.spiked)


@dataclass(frozen=True)
class Moves:
    """Say how split-and-merge moves are tried from one fit to the sample.

    Attributes
    ----------
    n_rounds : int
        How many times, if a round gains little.
    n_splits : int
        How many components are split to see what that gains: the least normal ones.
    n_moves : int
        How many moves are made and fitted each time.
    most_rounds : int
        How many times in all, at most, while they gain much.
    """

    n_rounds: int
    n_splits: int
    n_moves: int
    most_rounds: int = 0

    @classmethod
    def within(cls, budget: float, iteration: float, n_components: int) -> Moves:
        """Return as many as a budget of multiply-adds allows, of which an iteration takes some."""
        constants = tuning().multistart
        n_splits = _within(
            budget / (2 * constants.split_calls * constants.call_work),
            min(constants.fewest_splits, n_components),
            n_components,
        )
        n_moves = _within(budget / (2 * constants.move_iterations * iteration), 1, constants.moves)
        return cls(constants.rounds, n_splits, n_moves)

    def work(self, iteration: float) -> float:
        """Return the multiply-adds of a round, where those of an iteration are known."""
        constants = tuning().multistart
        proposals = self.n_splits * constants.split_calls * constants.call_work
        return proposals + self.n_moves * constants.move_iterations * iteration


@dataclass(frozen=True)
class Multistart:
    """Fit many starts to a part of the sample, and the best few to all of it.

    Attributes
    ----------
    n_subsample : int
        Rows of the sample that every start is fitted to.
    n_starts : int
    n_iterations : int
        How far each is fitted, at most.
    n_finalists : int
        From how many of the best moves are tried: fewer where the sample is small, to which moves
        overfit, and where the data are.
    moves : Moves
        How they are tried.
    n_restarts : int
        Runs of k-means that a start is the best of.
    in_turn : bool
        Whether fits are made one after the other in the calling thread: where an E-step is
        mostly its call, threads would wait for each other.
    variational : bool
        Whether needless components are merged, by a bound on the evidence of all rows: the sample
        stands for them.

    Examples
    --------
    >>> few, many = (Multistart.of(50, 5, min(n, 20_000), n, 1) for n in (10_000, 10**8))
    >>> few.n_starts, many.n_starts, few.moves.n_rounds, many.moves.n_rounds
    (1, 4, 1, 10)
    """

    n_subsample: int
    n_starts: int
    n_iterations: int
    n_finalists: int
    moves: Moves
    n_restarts: int = 1
    in_turn: bool = False
    variational: bool = False

    @classmethod
    def of(
        cls,
        n_parameters: int,
        n_components: int,
        n_sampled: int,
        n_rows: float,
        n_init: int,
        assignment: Assignment = "soft",
        variational: bool = False,
    ) -> Multistart:
        """Return the multistart of a model, in proportion to the data: at least `n_init` starts.

        Parameters
        ----------
        n_parameters, n_components : int
            Of the model.
        n_sampled, n_rows : int
            Rows of the sample, and of all data.
        n_init : int
            Starts that were asked for.
        assignment : {"soft", "hard"}
            Hard ones take less, as a share of plain EM on all rows, and their moves gain less.
        variational : bool
            As in the attributes.
        """
        constants, hard = tuning().multistart, assignment == "hard"
        share = constants.hard_share if hard else constants.share
        n_subsample = _part_of(
            n_sampled,
            max(constants.subsample_rows_per_parameter * n_parameters, constants.fewest_subsampled),
        )
        # Other starts on few data would take longer than their EM, or leave moves no time.
        few = n_rows < 2 * n_subsample
        if few:
            n_subsample = _part_of(
                n_sampled,
                max(constants.few_rows_per_parameter * n_parameters, constants.fewest_of_few),
            )
        n_iterations = constants.subsample_iterations
        # Multiply-adds of an iteration, of one start that is fitted, and of all but the first.
        iteration = constants.call_work + 2.0 * n_subsample * n_parameters
        start = n_iterations * iteration
        on_all = constants.call_work + 2.0 * n_rows * n_parameters
        budget = min(share * constants.subsample_iterations * on_all, constants.most_work)
        moves = Moves.within(budget, iteration, n_components)
        enough = n_sampled >= tuning().sample.rows_per_parameter * n_parameters
        n_finalists = constants.finalists if enough else constants.fewer_finalists
        n_finalists = min(n_init, n_finalists) if few else n_finalists
        if n_components < 3 or n_subsample < 2 * fewest_rows(n_parameters):
            # No component has the rows of two.
            moves = replace(moves, n_rounds=0)
        else:
            n_finalists = _within(budget / (moves.work(iteration) + start), 1, n_finalists)
            budget -= n_finalists * moves.work(iteration)
        n_starts = _within(1 + budget / start, 1, constants.most_starts)
        n_starts = n_starts if n_components > 1 and not few else 1
        if moves.n_rounds:
            more = (budget - (n_starts - 1) * start) / (n_finalists * moves.work(iteration))
            n_rounds = _within(1 + more, 1, moves.n_rounds)
            moves = replace(moves, n_rounds=n_rounds, most_rounds=0 if hard else constants.rounds)
        n_starts = max(n_starts, n_init)
        several = few and n_init == 1 and n_components > 1 and not hard
        n_restarts = constants.restarts if several else 1
        in_turn = 2.0 * n_subsample * n_parameters < constants.call_work
        return cls(
            n_subsample,
            n_starts,
            n_iterations,
            n_finalists,
            moves,
            n_restarts,
            in_turn,
            variational,
        )

    def n_rows(self, n_sampled: int) -> int:
        """Return the rows that `fit` reports to `advance`."""
        return self.n_starts * self.n_subsample + self.n_finalists * n_sampled

    def fit(
        self,
        surveyed: Surveyed,
        make: Callable[[Sampled, int], Mixture],
        more: Callable[[Sampled, int], list[Mixture]],
        seed: int,
        limits: Convergence,
        executor: ExecutorFactory = serial_executor,
        advance: Callable[[int], None] | None = None,
    ) -> Start:
        """Return the best start, fitted to the sample, and those that may be better on the data.

        Parameters
        ----------
        surveyed : Surveyed
        make : callable
            (sample, seed) -> a mixture to start from.
        more : callable
            (sample, seed) -> other mixtures to start from, beside those of `n_starts`.
        seed : int
        limits : Convergence
            At which the fit to all rows ends.
        executor : ExecutorFactory
            Makes what calls the fits; every one is a pure function of its arguments.
        advance : callable, optional
            Called with the rows of the sample whenever another fit to them is done.
        """
        sample = Sampled.of(surveyed)
        if self.variational:
            sample = sample.standing_for(surveyed.moments.weight)
        rough = Convergence(limits.tol, min(self.n_iterations, limits.max_iter))
        fits = SampleFits(sample, self.n_subsample, rough, limits.on_sample())
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(self.n_starts)]
        make_start = partial(make, fits.subsample)
        starts = [*map(make_start, seeds)] if self.in_turn else in_threads(make_start, seeds)
        others = more(fits.subsample, seeds[0])
        with (serial_executor if self.in_turn else executor)(fits) as calls:
            rough_fits = calls.map(
                SampleFits.fit_subsample, [*starts, *others], in_rows(advance, fits.subsample)
            )
            chosen, left = self._chosen(rough_fits[: len(starts)], rough_fits[len(starts) :])
            ends = calls.map(partial(SampleFits.split_and_merge, how=self.moves), chosen)
            worthy = [fits.to_go_on(tried) for tried in _worth_fitting(ends, self.n_subsample)]
            finals = calls.map(SampleFits.fit_sample, worthy, in_rows(advance, sample))
        winner, *rest = sorted(finals, key=lambda one: one.rank, reverse=True)
        share = len(sample.rows) / max(1, surveyed.n_weighted)
        contenders = contenders_of(winner, rest, sample, share)
        n_rows = sum(tried.rows_read for tried in (*left, *ends, *finals))
        if rest:
            # Each was evaluated once more, to be compared.
            n_rows += len(finals) * len(sample.rows)
        n_passes = n_rows / max(1, surveyed.n_weighted)
        contenders = tuple(map(_largest_first, contenders))
        best = _largest_first(winner.state.result)
        return Start(best, n_passes, winner.state.reported, contenders)

    def _chosen(
        self, found: Sequence[StartResult], others: Sequence[StartResult]
    ) -> tuple[list[StartResult], list[StartResult]]:
        """Return the fits from which moves are tried, and those that are given up.

        What was started otherwise takes nobody's place: it comes in addition, where it is as good.
        """
        ranked = _best_first(found)
        chosen, left = ranked[: self.n_finalists], ranked[self.n_finalists :]
        as_good = [one.rank >= chosen[-1].rank for one in others]
        chosen += [one for one, good in zip(others, as_good, strict=True) if good]
        left += [one for one, good in zip(others, as_good, strict=True) if not good]
        return _best_first(chosen), left


@dataclass(frozen=True)
class SampleFits:
    """Fit mixtures to the first rows of the sample, and to all of them.

    Attributes
    ----------
    sample : Sampled
    n_subsample : int
        Rows that are fitted first.
    rough, fine : Convergence
        Of the fits to the first rows, and to all.
    """

    sample: Sampled
    n_subsample: int
    rough: Convergence
    fine: Convergence

    @property
    def subsample(self) -> Sampled:
        """The first rows of the sample: a view, which a field would send to workers as a copy."""
        return self.sample.first(self.n_subsample)

    def fit_subsample(self, mixture: Mixture, most: int | None = None) -> StartResult:
        """Fit a mixture to the first rows by at most `most` iterations; judge it by all rows."""
        limits = self.rough
        if most is not None:
            limits = replace(limits, max_iter=min(most, limits.max_iter))
        return self.judged(_fitted(self.subsample, mixture, limits))

    def to_go_on(self, tried: StartResult) -> Mixture | EMState:
        """Return where the fit to all rows begins: with all that is known where it was of them."""
        whole = len(self.subsample.rows) == len(self.sample.rows)
        return _resumed(tried.state) if whole else tried.state.result

    def fit_sample(self, start: Mixture | EMState) -> StartResult:
        """Fit a mixture to all rows of the sample, or fit on from a state of theirs."""
        return self._merged(self._fitted(start), self.sample, self._fitted)

    def _fitted(self, start: Mixture | EMState) -> StartResult:
        state = _fitted(self.sample, start, self.fine)
        return StartResult(state, state.objective, state.n_iter * len(self.sample.rows))

    def _merged(
        self, tried: StartResult, rows: Sampled, fit: Callable[[Mixture], StartResult]
    ) -> StartResult:
        """Return a fit to some rows without components that a bound on the evidence can do without.

        Of families that are not variational, the fit as it is.
        """
        read, found = tried.rows_read, tried.state.result
        for _ in range(found.components.n_components if found.components.variational else 0):
            fewer = merged(tried.state.result, rows) if tried.rank[0] else None
            if fewer is None:
                break
            tried = fit(fewer)
            read += tried.rows_read
        return replace(tried, rows_read=read)

    def judged(self, state: EMState) -> StartResult:
        """Return a fit to the first rows with its likelihood on all rows."""
        read = state.n_iter * len(self.subsample.rows)
        if len(self.subsample.rows) == len(self.sample.rows):
            return StartResult(state, state.objective, read)
        value = state.result.objective(self.sample.accumulate(state.result))
        return StartResult(state, value, read + len(self.sample.rows))

    def split_and_merge(self, tried: StartResult, how: Moves) -> StartResult:
        """Improve `tried` by split-and-merge moves, while they gain on the sample."""
        if not (tried.rank[0] and tried.state.result.movable):
            return tried
        few = partial(self.fit_subsample, most=tuning().multistart.move_iterations)
        tried = self._merged(tried, self.subsample, few)
        read = tried.rows_read
        for number in range(1, max(how.n_rounds, how.most_rounds) + 1):
            neighbours = SplitMerge(
                tried.state.result, self.subsample.rows, self.subsample.weights, how.n_splits
            )
            found = [
                self.fit_subsample(moved, tuning().multistart.move_iterations)
                for moved in neighbours.best(how.n_moves)
            ]
            read += sum(one.rows_read for one in found)
            best = max(found, key=lambda one: one.rank, default=tried)
            gained = tried.rank[3] + tuning().multistart.least_gain
            if not best.rank > (*tried.rank[:3], gained):
                break
            gain, tried = best.value - tried.value, best
            if number >= how.n_rounds and gain < tuning().multistart.shown * self.rough.tol:
                break
        return replace(tried, rows_read=read)


def _part_of(n_sampled: int, n_rows: int) -> int:
    """Return how many rows of the sample are used: nearly all of it is as good as all."""
    return n_rows if 2 * n_rows <= n_sampled else n_sampled


def _within(value: float, least: int, most: int) -> int:
    return max(least, min(int(value), most))


def most_contenders(result_bytes: int) -> int:
    """Return how many starts of a model the first pass serves at most, by the bytes of its sums.

    Examples
    --------
    >>> most_contenders(1_000) >= most_contenders(2**40)
    True
    >>> most_contenders(2**40)
    1
    """
    return (
        tuning().multistart.most_contenders
        if result_bytes <= tuning().multistart.contender_bytes
        else 1
    )


def in_rows(advance: Callable[[int], None] | None, sample: Sampled) -> Callable[[int], None] | None:
    """Return a callback for calls that reports to `advance` the rows that each of them reads."""
    return None if advance is None else lambda n_calls: advance(n_calls * len(sample.rows))


def _fitted(rows: Sampled, start: Mixture | EMState, limits: Convergence) -> EMState:
    *_, state = run_algorithm(rows.accumulate, algorithm_of("auto", start, limits, None))
    return state


def _largest_first(mixture: Mixture) -> Mixture:
    """Return a mixture in the order that a prior of pieces of a stick asks for.

    The bound is the highest where they become smaller (Kurihara, Welling and Teh 2007). Others than
    variational mixtures are what they are.
    """
    if not mixture.components.variational:
        return mixture
    return mixture.take(np.argsort(-mixture.weights, kind="stable").tolist())


def _resumed(state: EMState) -> Mixture | EMState:
    """Return a state from which a fit of the same rows goes on; of one that failed its mixture."""
    if not (state.status.converged or state.status is Status.OUT_OF_ITERATIONS):
        return state.result
    return replace(state, n_iter=0, status=Status.RUNNING)


def _best_first(found: Sequence[StartResult]) -> list[StartResult]:
    """Return fits from the best on; of those alike the first is the best, whatever a last bit."""
    best = max(one.rank for one in found)

    def key(one: StartResult) -> tuple[bool, Rank]:
        alike = one.rank[:3] == best[:3] and best[3] - one.value <= tuning().multistart.alike
        return alike, best if alike else one.rank

    return sorted(found, key=key, reverse=True)


def _worth_fitting(found: Sequence[StartResult], n_subsample: int) -> list[StartResult]:
    """Return the best, and those beside it that may win when they are fitted to more rows.

    A fit to n rows is about p / (2 n) nats per row below the best on other rows.
    """
    best, *others = _best_first(found)
    top = max(one.rank for one in found)[3]
    room = best.state.result.n_parameters / (2 * n_subsample)
    # What is as good is most likely the same.
    return [best, *(t for t in others if tuning().multistart.alike < top - t.value < room)]


def contenders_of(
    winner: StartResult, others: Sequence[StartResult], sample: Sampled, share: float
) -> tuple[Mixture, ...]:
    """Return the other starts that may be better on the data, by more than a move must gain.

    The best of them, as many as may enter. Both are judged by the same rows, so that the error
    of their difference is that of the mean of a difference, and none where the sample is all of
    the data.
    """
    best = winner.state.result
    sound = winner.rank[:3]
    others = [t for t in others if all(sound[:2]) and t.rank[:3] == sound]
    others = others[: most_contenders(best.result_bytes) - 1]
    if not others:
        return ()

    def densities(mixture: Mixture) -> Array:
        return np.asarray(Predict(mixture, ("log_density",))(sample.rows)["log_density"])

    reached = densities(best)
    behind = np.stack([reached - densities(tried.state.result) for tried in others])
    errors = np.sqrt(sample.variance(behind) / sample.effective_rows * max(1 - share, 0.0))
    weights = sample.weights / sample.weights.sum()
    gains = tuning().multistart.standard_errors * errors - behind @ weights
    return tuple(
        t.state.result
        for t, gain in zip(others, gains, strict=True)
        if gain > tuning().multistart.least_gain
    )
