"""Screening of a fleet of models: many starts on the sample, and the models that go on from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np
from scipy.special import entr

from ..core.additive import Array
from ..core.em import Convergence, EMState, rank
from ..core.executor import in_threads, serial_executor
from ..core.mixture import Mixture
from ..core.protocols import ExecutorFactory
from ..core.scoring import Predict
from ..core.tuning import tuning
from .candidates import Candidate, Model, winner
from .control_variate import algorithm_of
from .criteria import DROPPED, Criterion
from .exchange import Exchange
from .multistart import Multistart, SampleFits, StartResult, contenders_of, in_rows
from .sample import Sampled, Start
from .starts import Maker, StartOptions


@dataclass(frozen=True)
class ScreeningRules:
    """Hold the rules by which models are compared on the sample.

    Attributes
    ----------
    n_init, seed : int
        Starts of each model, and where their seeds come from.
    algorithm : {"auto", "em"}
    convergence : Convergence
        How far the best starts are fitted to the sample.
    criterion : {"bic", "aic", "icl", "holdout"}
    weight : float
        Of all rows that will be fitted.
    """

    n_init: int
    seed: int
    algorithm: str
    convergence: Convergence
    criterion: Criterion
    weight: float

    @classmethod
    def of(
        cls,
        options: StartOptions,
        seed: int,
        limits: Convergence,
        criterion: Criterion,
        weight: float,
    ) -> Self:
        """Return the rules of models that start alike, and whose fits end by `limits`."""
        return cls(options.n_init, seed, options.algorithm, limits.on_sample(), criterion, weight)

    @property
    def rough(self) -> Convergence:
        """How far every start is fitted to the first rows."""
        most = min(tuning().screening.subsample_iterations, self.convergence.max_iter)
        return Convergence(self.convergence.tol / tuning().sample.finer, most)

    def candidate(self, model: Model, mixture: Mixture, limits: Convergence) -> Candidate:
        """Return one start, to be fitted to rows in memory."""
        return Candidate(model, algorithm_of(self.algorithm, mixture, limits, None))


def screen(
    models: Sequence[Model],
    makers: Sequence[Maker],
    sample: Sampled,
    rules: ScreeningRules,
    executor: ExecutorFactory = serial_executor,
    advance: Callable[[int], None] | None = None,
    exchange: Exchange | None = None,
) -> tuple[list[Start], int]:
    """Find the best of many starts of every model, on the sample alone.

    Every start is fitted to the first rows of the sample. The best one of each model is improved
    by split-and-merge moves, and is fitted to all of the sample. Before and after, models that
    are behind the best by more than the sample could be wrong are eliminated. Where those leave
    room in a pass, the next best starts of the others are fitted in the same way.

    Parameters
    ----------
    models : sequence of Model
    makers : sequence of Maker
        For each model.
    sample : Sampled
    rules : ScreeningRules
    executor : ExecutorFactory
        Makes what calls the fits.
    advance : callable, optional
        Called with the rows of the sample whenever another fit to them is done.
    exchange : Exchange, optional
        By which models start from each other's clusters.

    Returns
    -------
    list of Start
        One a model.
    int
        Rows of the sample that were read; each read serves all starts.
    """
    few = sample.first(rough_rows(models, len(sample.rows)))
    whole = len(few.rows) == len(sample.rows)
    limits = rules.convergence if whole else rules.rough
    mended = rules.algorithm != "em"
    moved = partial(_split_and_merge, n_rows=rules.weight)
    with executor(SampleFits(sample, len(few.rows), rules.rough, rules.convergence)) as calls:
        starts = _started(models, makers, few, rules, limits)
        starts = calls.map(_fit_subsample, starts, in_rows(advance, few))
        n_rows = _most_passes(starts) * len(few.rows)
        best = [_ranked(starts, model)[0] for model in models]
        if exchange is not None:
            again = partial(calls.map, _fit_subsample, advance=in_rows(advance, few))
            before = _Ends(models, best, rules, limits)
            best, n_read = before.exchanged(exchange, few, again)
            n_rows += n_read
            starts += [one for one in best if one not in starts]
        eliminated = _eliminated(best, few, rules)
        if mended or not whole:
            left = [i for i, lost in enumerate(eliminated) if not lost]
            ends = [best[i].last_state() for i in left]
            if mended:
                found = calls.map(moved, ends, in_rows(advance, few))
                ends = [tried.state for tried in found]
                n_rows += max(tried.rows_read for tried in found)
            ended = [
                rules.candidate(models[i], end.result, rules.convergence)
                for i, end in zip(left, ends, strict=True)
            ]
            ended = calls.map(_fit_sample, ended, in_rows(advance, sample))
            n_rows += _most_passes(ended) * len(sample.rows)
            if exchange is not None and mended and whole:
                again = partial(calls.map, _fit_sample, advance=in_rows(advance, sample))
                before = _Ends([models[i] for i in left], ended, rules, rules.convergence)
                ended, n_read = before.exchanged(exchange.of(left), sample, again, with_trees=False)
                n_rows += n_read
            lost = _eliminated(ended, sample, rules)
            for i, candidate, given_up in zip(left, ended, lost, strict=True):
                best[i], eliminated[i] = candidate, given_up
        contenders: list[tuple[Mixture, ...]] = [()] * len(models)
        left = [i for i, lost in enumerate(eliminated) if not lost]
        room = sum(model.n_parameters for model in models)
        if (
            mended
            and tuning().multistart.most_contenders * sum(models[i].n_parameters for i in left)
            <= room
        ):
            others = [
                c
                for i in left
                for c in _ranked(starts, models[i])[1 : tuning().multistart.most_contenders]
            ]
            found = calls.map(moved, [c.last_state() for c in others])
            ended = [
                rules.candidate(c.model, tried.state.result, rules.convergence)
                for c, tried in zip(others, found, strict=True)
            ]
            ended = calls.map(_fit_sample, ended)
            n_rows += max((tried.rows_read for tried in found), default=0)
            # The best of each and the next were evaluated once more, to be compared.
            n_rows += (_most_passes(ended) + tuning().multistart.most_contenders) * len(sample.rows)
            share = float(sample.weights.sum()) / rules.weight
            for i in left:
                best[i], *rest = _ranked([best[i], *ended], models[i])
                first, *behind = (_tried(c) for c in (best[i], *rest))
                contenders[i] = contenders_of(first, behind, sample, share)
    lines = zip(best, eliminated, contenders, strict=True)
    return [_start_of(c, lost, rules.weight, others) for c, lost, others in lines], n_rows


@dataclass(frozen=True)
class _Ends:
    """Where each model ended on some rows, and how others are fitted to them."""

    models: Sequence[Model]
    ends: Sequence[Candidate]
    rules: ScreeningRules
    limits: Convergence

    def exchanged(
        self,
        exchange: Exchange,
        rows: Sampled,
        again: Callable[[list[Candidate]], list[Candidate]],
        with_trees: bool = True,
    ) -> tuple[list[Candidate], int]:
        """Return the best ends after models started from each other's clusters, and rows read."""

        def fit(wanted: list[tuple[int, Mixture]]) -> list[Candidate]:
            made = [self.rules.candidate(self.models[i], start, self.limits) for i, start in wanted]
            return again(made)

        return exchange.run(rows, self.ends, Candidate.last_state, fit, with_trees)


def slice_share(found: Sequence[Start], n_sampled: int, n_rows: int) -> float | None:
    """Return the share of the rows to choose among the models left by, None for all rows.

    Steps on the sample must pay there, and there must be models enough for it to pay.
    """
    share = max(
        tuning().screening.least_slice,
        tuning().screening.slice_samples * n_sampled / max(1, n_rows),
    )
    alive = sum(not one.eliminated for one in found)
    return (
        share
        if alive > tuning().screening.few_models and share <= tuning().screening.most_slice
        else None
    )


class SlicePruning:
    """Choose among the models that the sample left, by passes over a slice of the data.

    The sample resolves differences of about sqrt(p) / m nats per row for p parameters and m
    rows. That is more than what BIC takes off for them, p log(n) / (2 n), where the data have
    many times its rows; then a slice of the data, in which each pass computes with some rows
    of every chunk, tells the models apart for a fraction of what a full pass costs.

    Parameters
    ----------
    sample : Sampled
    rules : ScreeningRules
    """

    def __init__(self, sample: Sampled, rules: ScreeningRules) -> None:
        self._sample, self._rules = sample, rules

    def prune(self, candidates: Sequence[Candidate]) -> None:
        """Give up, after a pass, the candidates that cannot win."""
        rest = [c for c in candidates if not c.dropped]
        for candidate, lost in zip(rest, _eliminated(rest, self._sample, self._rules), strict=True):
            candidate.dropped = lost

    def starts(
        self, before: Sequence[Start], candidates: Sequence[Candidate | None]
    ) -> tuple[list[Start], int]:
        """Return the starts of the models after the slice, in place of those `before`.

        Returns
        -------
        list of Start
            One a model.
        int
            Rows of the sample that were read, at most for one model.
        """
        weight, ended = self._rules.weight, [c for c in candidates if c is not None]
        best = winner(ended, self._rules.criterion)
        # What the sample alone knows is set beside what both know of the best.
        known = before[candidates.index(best)].numbers.log_likelihood
        nats = best.row(weight).log_likelihood - known
        after = [
            start.moved(nats, weight)
            if candidate is None
            else _start_of(candidate, candidate.dropped, weight)
            for start, candidate in zip(before, candidates, strict=True)
        ]
        return after, max(c.rows_read for c in ended)


def rough_rows(models: Sequence[Model], n_sampled: int) -> int:
    """Return how many first rows of a sample all starts of some models are fitted to.

    Examples
    --------
    >>> rough_rows([Model(3, "full", 44)], 9_000), rough_rows([Model(3, "full", 44)], 20_000)
    (9000, 5000)
    """
    largest = max(model.n_parameters for model in models)
    rows = max(
        tuning().screening.subsample_rows_per_parameter * largest,
        tuning().screening.fewest_subsampled,
    )
    # Nearly all of the sample is as good as all of it.
    return rows if 2 * rows <= n_sampled else n_sampled


def _started(
    models: Sequence[Model],
    makers: Sequence[Maker],
    sample: Sampled,
    rules: ScreeningRules,
    limits: Convergence,
) -> list[Candidate]:
    """Every start of every model, not fitted yet."""
    seeds = [int(s) for s in np.random.SeedSequence(rules.seed).generate_state(rules.n_init)]
    tasks = [(make.one, seed) for make in makers for seed in seeds]
    mixtures = in_threads(lambda task: task[0](sample, task[1]), tasks)
    found = []
    for i, (model, make) in enumerate(zip(models, makers, strict=True)):
        own = mixtures[i * len(seeds) : (i + 1) * len(seeds)]
        own = [*own, *make.more(sample, seeds[0])]
        found += [rules.candidate(model, mixture, limits) for mixture in own]
    return found


def _fit_subsample(fits: SampleFits, candidate: Candidate) -> Candidate:
    """A candidate at its end on the first rows."""
    return _at_its_end(candidate, fits.subsample)


def _fit_sample(fits: SampleFits, candidate: Candidate) -> Candidate:
    """A candidate at its end on the sample."""
    return _at_its_end(candidate, fits.sample)


def _at_its_end(candidate: Candidate, sample: Sampled) -> Candidate:
    while candidate.running:
        candidate.tell(sample.accumulate(candidate.algorithm.proposal))
    return candidate


def _split_and_merge(fits: SampleFits, end: EMState, n_rows: float) -> StartResult:
    """Where moves lead from a fit to the first rows, and what was read for them."""
    n_sampled, k = len(fits.subsample.rows), len(end.result.log_weights)
    p, assignment = end.result.n_parameters, end.result.assignment
    multistart = Multistart.of(p, k, n_sampled, n_rows, 1, assignment)
    return fits.split_and_merge(replace(fits.judged(end), rows_read=0), multistart.moves)


def _most_passes(candidates: Sequence[Candidate]) -> int:
    return max((candidate.n_passes for candidate in candidates), default=0)


def _ranked(candidates: Sequence[Candidate], model: Model) -> list[Candidate]:
    """The starts of one model, the best first: whole ones before collapsed ones and spikes."""
    own = [candidate for candidate in candidates if candidate.model == model]
    ends = [candidate.last_state() for candidate in own]
    ranks = [rank(end.objective, end.collapsed, end.spiked) for end in ends]
    order = sorted(range(len(own)), key=lambda i: ranks[i], reverse=True)
    return [own[i] for i in order]


def _eliminated(best: Sequence[Candidate], sample: Sampled, rules: ScreeningRules) -> list[bool]:
    """Which of some models cannot win, by their fits to the sample or to a slice."""
    values = _values(best, sample, rules.criterion)
    # The rows that they are fitted to: the sample's, or more of the same kind.
    fitted = best[0].last_state().statistics.weight
    m = sample.effective_rows * fitted / sample.weights.sum()
    sizes = np.array([c.model.n_parameters for c in best])
    costs = np.array([c.model.penalty(rules.criterion, rules.weight) for c in best]) / rules.weight
    # A fit to m rows flatters itself by p / (2 m) nats per row, about, and promises as much
    # too much for other rows.
    means = np.array([c.fit(rules.criterion) for c in best]) - sizes / (2 * m)
    honest = [c.sound and not c.degenerate for c in best]
    # Where all are degenerate, the best of them.
    leads = honest if any(honest) else [c.sound for c in best]
    reached = np.where(leads, means - costs, -np.inf)
    leader = int(reached.argmax())
    if not np.isfinite(reached[leader]):
        return [False] * len(best)
    behind = values[leader] - values
    errors = np.sqrt(sample.variance(behind) / m)
    # Mixtures flatter themselves by more than regular models do: a leader's advantage by
    # having more parameters counts for less.
    more = np.maximum(sizes[leader] - sizes, 0) / (2 * m)
    to_gain = np.array([c.gain("aic") for c in best])
    lost = (
        reached[leader] - (means - costs) - more
        > tuning().multistart.standard_errors * errors + to_gain
    )
    return [bool(b) for b in lost]


def _values(best: Sequence[Candidate], sample: Sampled, criterion: Criterion) -> Array:
    """Compute what a row of the sample adds to a model's criterion, penalties apart, (c, m)."""

    def of(candidate: Candidate) -> Array:
        state = candidate.last_state()
        mixture, sums = state.mixture.on_cpu, state.statistics
        scale = mixture.components.profile_scale(sums.resp_sum, sums.components)
        if criterion != "icl":
            return scale * Predict(mixture, ("log_density",))(sample.rows)["log_density"]
        answers = Predict(mixture, ("log_density", "proba"))(sample.rows)
        return np.asarray(scale * answers["log_density"] - entr(answers["proba"]).sum(axis=1))

    return np.stack(in_threads(of, best))


def _tried(candidate: Candidate) -> StartResult:
    state = candidate.last_state()
    return StartResult(state, state.objective, 0)


def _start_of(
    candidate: Candidate, lost: bool, weight: float, contenders: tuple[Mixture, ...] = ()
) -> Start:
    row = replace(candidate.row(weight), n_passes=0, status=DROPPED)
    result = candidate.last_state().result
    return Start(result, contenders=contenders, row=row, eliminated=lost)
