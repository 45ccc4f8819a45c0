"""Where accelerated EM starts: many starts on the sample, mended by moves, and the best of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .acceleration import ascent
from .em import Convergence, EMState, climb
from .initialization import FINER, Sampled, Start, Surveyed
from .mixture import Mixture
from .moves import Neighbours

# Starts at most and at least, and the multiply-adds that they, and the moves, may take.
MOST_STARTS, FEWEST_STARTS, WORK = 4, 2, 2e11
# Starts are fitted, and moves made, on the first rows of the sample, and the best few starts
# fitted to all of it.
ROUGH_ROWS_PER_PARAMETER, FEWEST_ROUGH = 25, 5_000
ROUGH_ITERATIONS, FINALISTS = 30, 2
# Moves tried at a time, how far each is fitted, how many times, and the nats per row that
# one must gain.
MOVES, MOVE_ITERATIONS, ROUNDS, LEAST_GAIN = 4, 25, 10, 2e-4
# Nats per row between two fits to the first rows that led to one optimum, at most.
ALIKE = 1e-4

Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""`map`, or one that computes several at a time."""


@dataclass(frozen=True)
class Tried:
    """A fit to some rows of the sample, and what all of them say of it.

    Attributes
    ----------
    state : EMState
    value : float
        Mean log-likelihood per row of the sample, most of which may not have been fitted.
    """

    state: EMState
    value: float

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """What the better of two has more of: finite numbers, whole components, likelihood."""
        finite = bool(np.isfinite(self.value))
        return finite, not self.state.collapsed, self.value if finite else -np.inf


@dataclass(frozen=True)
class Race:
    """Many starts on a part of the sample, the best few of them on all of it.

    Attributes
    ----------
    n_rough : int
        Rows of the sample that every start is fitted to.
    n_starts : int
    n_rounds : int
        How many times moves are tried from each of the best few, at most.
    """

    n_rough: int
    n_starts: int
    n_rounds: int = ROUNDS

    @classmethod
    def of(cls, n_parameters: int, n_sampled: int, n_init: int) -> Race:
        """The race for a mixture of so many parameters: at least `n_init` starts."""
        n_rough = max(ROUGH_ROWS_PER_PARAMETER * n_parameters, FEWEST_ROUGH)
        # Nearly all of the sample is as good as all of it.
        n_rough = n_rough if 2 * n_rough <= n_sampled else n_sampled
        work = 2.0 * n_rough * n_parameters
        n_starts = min(max(int(WORK / (work * ROUGH_ITERATIONS)), FEWEST_STARTS), MOST_STARTS)
        n_rounds = min(max(int(WORK / (work * MOVES * MOVE_ITERATIONS)), 1), ROUNDS)
        return cls(n_rough, max(n_starts, n_init), n_rounds)

    def n_rows(self, n_sampled: int) -> int:
        """Rows of which `run` tells."""
        return self.n_starts * self.n_rough + FINALISTS * n_sampled

    def run(
        self,
        surveyed: Surveyed,
        make: Callable[[Sampled, int], Mixture],
        seed: int,
        convergence: Convergence,
        each: Each = map,
        advance: Callable[[int], None] | None = None,
    ) -> Start:
        """The best start, fitted to the sample.

        Parameters
        ----------
        surveyed : Surveyed
        make : callable
            (sample, seed) -> a mixture to start from.
        seed : int
        convergence : Convergence
            Of the fits to all of the sample.
        each : callable
            `map`, or one that computes several at a time; every result is a pure function
            of what it is called with.
        advance : callable, optional
            Called with the rows of the sample whenever another fit to them is done.
        """
        sample = Sampled.of(surveyed)
        fits = Fits(sample, sample.first(self.n_rough), convergence, each)
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(self.n_starts)]
        found = fits.roughly(list(each(lambda one: make(fits.rough, one), seeds)), advance=advance)
        best = sorted(found, key=lambda one: one.rank, reverse=True)[:FINALISTS]
        escaped_ones = [escaped(one, fits, self.n_rounds) for one in best]
        finals = fits.wholly(_worth_fitting(escaped_ones, self.n_rough), advance)
        winner = max(finals, key=lambda one: one.rank)
        n_passes = fits.rows_read / max(1, surveyed.n_weighted)
        return Start(winner.state.result, n_passes, winner.value)


class Fits:
    """Fits to the first rows of the sample, and to all of them.

    Parameters
    ----------
    sample, rough : Sampled
        All rows and the first of them.
    convergence : Convergence
        Of the fits to all rows.
    each : callable
        `map`, or one that computes several at a time.

    Attributes
    ----------
    rows_read : int
        Rows of the sample that were read so far.
    """

    def __init__(
        self, sample: Sampled, rough: Sampled, convergence: Convergence, each: Each
    ) -> None:
        self.sample, self.rough, self.convergence, self.each = sample, rough, convergence, each
        self.rows_read = 0

    def roughly(
        self,
        mixtures: Sequence[Mixture],
        most: int = ROUGH_ITERATIONS,
        advance: Callable[[int], None] | None = None,
    ) -> list[Tried]:
        """Each fitted to the first rows by at most `most` iterations, and judged by all."""
        tol, most = self.convergence.tol / FINER, min(most, self.convergence.max_iter)
        limits = replace(self.convergence, tol=tol, max_iter=most)

        def one(mixture: Mixture) -> Tried:
            tried = self.judged(_fitted(self.rough, mixture, limits))
            if advance:
                advance(len(self.rough.rows))
            return tried

        found = list(self.each(one, mixtures))
        self.rows_read += sum(tried.state.n_iter for tried in found) * len(self.rough.rows)
        if len(self.rough.rows) < len(self.sample.rows):
            self.rows_read += len(found) * len(self.sample.rows)
        return found

    def judged(self, state: EMState) -> Tried:
        """A fit to the first rows, and what all rows say of it."""
        if len(self.rough.rows) == len(self.sample.rows):
            return Tried(state, state.log_likelihood)
        return Tried(state, self.sample.accumulate(state.result).mean_log_likelihood)

    def wholly(
        self, starts: Sequence[Tried], advance: Callable[[int], None] | None = None
    ) -> list[Tried]:
        """Each fitted to all rows of the sample."""

        def one(tried: Tried) -> Tried:
            state = _fitted(self.sample, tried.state.result, self.convergence)
            if advance:
                advance(len(self.sample.rows))
            return Tried(state, state.log_likelihood)

        found = list(self.each(one, starts))
        self.rows_read += sum(tried.state.n_iter for tried in found) * len(self.sample.rows)
        return found


def _fitted(rows: Sampled, mixture: Mixture, limits: Convergence) -> EMState:
    *_, state = climb(rows.accumulate, ascent("auto", mixture, limits, None))
    return state


def _worth_fitting(found: Sequence[Tried], n_rough: int) -> list[Tried]:
    """The best, and those beside it that may win when they are fitted to more rows.

    A fit to n rows is about p / (2 n) nats per row below the best on other rows.
    """
    best = max(found, key=lambda one: one.rank)
    room = best.state.result.n_parameters / (2 * n_rough)
    # What is as good is most likely the same.
    return [t for t in found if t is best or ALIKE < best.value - t.value < room]


def escaped(tried: Tried, fits: Fits, n_rounds: int = ROUNDS) -> Tried:
    """Where split-and-merge moves lead from `tried`, while the sample says that they gain."""
    if not tried.rank[0]:
        return tried
    for _ in range(n_rounds):
        rough = fits.rough
        moved = Neighbours(tried.state.result, rough.rows, rough.weights).best(MOVES)
        found = fits.roughly(moved, MOVE_ITERATIONS)
        best = max(found, key=lambda one: one.rank, default=tried)
        if not best.rank > (*tried.rank[:2], tried.rank[2] + LEAST_GAIN):
            break
        tried = best
    return tried
