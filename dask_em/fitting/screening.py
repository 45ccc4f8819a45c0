"""Where a fleet of models starts: many starts on the sample, and which models go on from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import entr

from ..core.additive import Array
from ..core.codec import record
from ..core.em import Climb, Convergence, EMState
from ..core.executor import in_threads, serial_executor
from ..core.fleet import FleetStatistics
from ..core.mixture import Mixture
from ..core.protocols import Executor, ExecutorFactory
from ..core.scoring import Predict
from ..core.tuning import tuning
from .candidates import Candidate, CandidateState, Model, climb_together, winner
from .control_variate import ascent
from .criteria import DROPPED, Criterion, Row, penalty
from .multistart import Fits, Race, Tried, in_rows, may_be_better
from .sample import Sampled

Make = Callable[[Sampled, int], Mixture]
"""(sample, seed) -> a mixture to start from."""


@record("screened")
@dataclass(frozen=True)
class Shortlisted:
    """Where a model starts, and what the sample says of it.

    Attributes
    ----------
    mixture : Mixture
    row : Row
        The sample's numbers, scaled to all rows.
    hopeless : bool
        Whether the sample alone says that it cannot win.
    rivals : tuple of Mixture
        Other starts of the model, of which the sample cannot say that they are worse.
    """

    mixture: Mixture
    row: Row
    hopeless: bool
    rivals: tuple[Mixture, ...] = ()

    def moved(self, nats: float, weight: float) -> Shortlisted:
        """The same with a row that is `nats` better for each of rows of this weight."""
        return replace(self, row=self.row.moved(nats, weight))


@dataclass(frozen=True)
class Rules:
    """By which models are compared on the sample.

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

    @property
    def rough(self) -> Convergence:
        """How far every start is fitted to the first rows."""
        most = min(tuning().screening.subsample_iterations, self.convergence.max_iter)
        return Convergence(self.convergence.tol / tuning().sample.finer, most)

    def candidate(self, model: Model, mixture: Mixture, limits: Convergence) -> Candidate:
        """One start, to be fitted to rows in memory."""
        return Candidate(model, ascent(self.algorithm, mixture, limits, None))


def shortlist(
    models: Sequence[Model],
    makers: Sequence[Make],
    sample: Sampled,
    rules: Rules,
    executor: ExecutorFactory = serial_executor,
    advance: Callable[[int], None] | None = None,
) -> tuple[list[Shortlisted], int]:
    """The best of many starts of every model, found on the sample alone.

    Every start is fitted to the first rows of the sample. The best one of each model leaves its
    local optimum by moves, and is fitted to all of the sample. Before and after, models that
    are behind the best by more than the sample could be wrong are hopeless. Where those leave
    room in a pass, the next best starts of the others are given the same chance.

    Parameters
    ----------
    models : sequence of Model
    makers : sequence of callable
        (sample, seed) -> a mixture to start from, for each model.
    sample : Sampled
    rules : Rules
    executor : ExecutorFactory
        Makes what calls the fits.
    advance : callable, optional
        Called with the rows of the sample whenever another fit to them is done.

    Returns
    -------
    list of Shortlisted
        One a model.
    int
        Rows of the sample that were read; each read serves all starts.
    """
    few = sample.first(_rough_rows(models, len(sample.rows)))
    whole = len(few.rows) == len(sample.rows)
    limits = rules.convergence if whole else rules.rough
    mended = rules.algorithm != "em"
    with executor(Fits(sample, few, rules.convergence)) as calls:
        starts = _started(models, makers, few, rules, limits)
        starts = calls.map(_roughly, starts, in_rows(advance, few))
        n_rows = _most_passes(starts) * len(few.rows)
        best = [_ranked(starts, model)[0] for model in models]
        hopeless = _hopeless(best, few, rules)
        if mended or not whole:
            left = [i for i, lost in enumerate(hopeless) if not lost]
            ends = [best[i].last_state() for i in left]
            if mended:
                found = calls.map(_escaped, ends, in_rows(advance, few))
                ends = [tried.state for tried in found]
                n_rows += max(tried.rows_read for tried in found)
            ended = [
                rules.candidate(models[i], end.result, rules.convergence)
                for i, end in zip(left, ends, strict=True)
            ]
            ended = calls.map(_wholly, ended, in_rows(advance, sample))
            n_rows += _most_passes(ended) * len(sample.rows)
            lost = _hopeless(ended, sample, rules)
            for i, candidate, given_up in zip(left, ended, lost, strict=True):
                best[i], hopeless[i] = candidate, given_up
        rivals: list[tuple[Mixture, ...]] = [()] * len(models)
        left = [i for i, lost in enumerate(hopeless) if not lost]
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
            found = calls.map(_escaped, [c.last_state() for c in others])
            ended = [
                rules.candidate(c.model, tried.state.result, rules.convergence)
                for c, tried in zip(others, found, strict=True)
            ]
            ended = calls.map(_wholly, ended)
            n_rows += max((tried.rows_read for tried in found), default=0)
            # The best of each and the next were evaluated once more, to be compared.
            n_rows += (_most_passes(ended) + tuning().multistart.most_contenders) * len(sample.rows)
            share = float(sample.weights.sum()) / rules.weight
            for i in left:
                best[i], *rest = _ranked([best[i], *ended], models[i])
                first, *behind = (_tried(c) for c in (best[i], *rest))
                rivals[i] = may_be_better(first, behind, sample, share)
    lines = zip(best, hopeless, rivals, strict=True)
    return [_shortlisted(c, lost, rules.weight, entering) for c, lost, entering in lines], n_rows


def slice_share(found: Sequence[Shortlisted], n_sampled: int, n_rows: int) -> float | None:
    """The share of the rows that should choose among the models left, None for all of them.

    Steps on the sample must pay there, and there must be models enough for it to pay.
    """
    share = max(
        tuning().screening.least_slice,
        tuning().screening.slice_samples * n_sampled / max(1, n_rows),
    )
    alive = sum(not one.hopeless for one in found)
    return (
        share
        if alive > tuning().screening.few_models and share <= tuning().screening.most_slice
        else None
    )


def narrowed(
    models: Sequence[Model],
    found: Sequence[Shortlisted],
    climb_from: Callable[[Shortlisted], Climb],
    accumulate: Callable[[tuple[Mixture, ...]], FleetStatistics],
    sample: Sampled,
    rules: Rules,
    executor: Executor[Sampled] | None = None,
    states: Sequence[CandidateState] = (),
    after_pass: Callable[[Sequence[Candidate]], None] | None = None,
) -> tuple[list[Shortlisted], int]:
    """Where the models start that a slice of the data leaves of those that the sample left.

    The sample resolves differences of about sqrt(p) / m nats per row for p parameters and m
    rows. That is more than what BIC takes off for them, p log(n) / (2 n), where the data have
    many times its rows; then a slice of the data, in which each pass computes with some rows
    of every chunk, tells the models apart for a fraction of what a full pass costs.

    Parameters
    ----------
    models : sequence of Model
    found : sequence of Shortlisted
    climb_from : callable
        An ascent that begins where the sample left a model.
    accumulate : callable
        A pass over the slice.
    sample : Sampled
    rules : Rules
    executor : Executor, optional
        Makes the steps between passes, of what shares the sample.
    states : sequence of CandidateState, optional
        Of each model that is left, to go on from.
    after_pass : callable, optional
        Called with the candidates after every pass.

    Returns
    -------
    list of Shortlisted
        One a model.
    int
        Rows of the sample that were read, at most for one model.
    """
    alive = [i for i, one in enumerate(found) if not one.hopeless]
    candidates = [Candidate(models[i], climb_from(found[i])) for i in alive]
    for candidate, state in zip(candidates, states, strict=False):
        candidate.load_state_dict(state)

    def weed(climbing: Sequence[Candidate]) -> None:
        rest = [c for c in climbing if not c.dropped]
        for candidate, lost in zip(rest, _hopeless(rest, sample, rules), strict=True):
            candidate.dropped = lost

    for _ in climb_together(accumulate, candidates, weed, executor):
        if after_pass is not None:
            after_pass(candidates)
    after = [_shortlisted(c, c.dropped, rules.weight) for c in candidates]
    # What the sample alone knows is set beside what both know of the best.
    best = candidates.index(winner(candidates, rules.criterion))
    nats = after[best].row.log_likelihood - found[alive[best]].row.log_likelihood
    merged = [one.moved(nats, rules.weight) for one in found]
    for i, one in zip(alive, after, strict=True):
        merged[i] = one
    return merged, max(getattr(c.climb, "rows_read", 0) for c in candidates)


def _rough_rows(models: Sequence[Model], n_sampled: int) -> int:
    largest = max(model.n_parameters for model in models)
    rows = max(
        tuning().screening.subsample_rows_per_parameter * largest,
        tuning().screening.fewest_subsampled,
    )
    # Nearly all of the sample is as good as all of it.
    return rows if 2 * rows <= n_sampled else n_sampled


def _started(
    models: Sequence[Model],
    makers: Sequence[Make],
    sample: Sampled,
    rules: Rules,
    limits: Convergence,
) -> list[Candidate]:
    """Every start of every model, not fitted yet."""
    seeds = [int(s) for s in np.random.SeedSequence(rules.seed).generate_state(rules.n_init)]
    pairs = list(zip(models, makers, strict=True))
    tasks = [(model, make, seed) for model, make in pairs for seed in seeds]
    mixtures = in_threads(lambda task: task[1](sample, task[2]), tasks)
    return [
        rules.candidate(model, mixture, limits)
        for (model, _, _), mixture in zip(tasks, mixtures, strict=True)
    ]


def _roughly(fits: Fits, candidate: Candidate) -> Candidate:
    """A candidate at its end on the first rows."""
    return _at_its_end(candidate, fits.rough)


def _wholly(fits: Fits, candidate: Candidate) -> Candidate:
    """A candidate at its end on the sample."""
    return _at_its_end(candidate, fits.sample)


def _at_its_end(candidate: Candidate, sample: Sampled) -> Candidate:
    while candidate.running:
        candidate.tell(sample.accumulate(candidate.climb.proposal))
    return candidate


def _escaped(fits: Fits, end: EMState) -> Tried:
    """Where moves lead from a fit to the first rows, and what was read for them."""
    n_rounds = Race.of(end.result.n_parameters, len(fits.rough.rows), 1).n_rounds
    return fits.escaped(replace(fits.judged(end), rows_read=0), n_rounds)


def _most_passes(candidates: Sequence[Candidate]) -> int:
    return max((candidate.n_passes for candidate in candidates), default=0)


def _ranked(candidates: Sequence[Candidate], model: Model) -> list[Candidate]:
    """The starts of one model, the best first: whole ones before collapsed ones."""

    def rank(candidate: Candidate) -> tuple[bool, bool, float]:
        state = candidate.last_state()
        finite = bool(np.isfinite(state.log_likelihood))
        return finite, not state.collapsed, state.log_likelihood if finite else -np.inf

    return sorted((c for c in candidates if c.model == model), key=rank, reverse=True)


def _hopeless(best: Sequence[Candidate], sample: Sampled, rules: Rules) -> list[bool]:
    """Which of some models cannot win, by their fits to the sample or to a slice."""
    values = _values(best, sample, rules.criterion)
    # The rows that they are fitted to: the sample's, or more of the same kind.
    fitted = best[0].last_state().statistics.weight
    m = sample.effective_rows * fitted / sample.weights.sum()
    sizes = np.array([c.model.n_parameters for c in best])
    costs = np.array([penalty(rules.criterion, p, rules.weight) for p in sizes]) / rules.weight
    # A fit to m rows flatters itself by p / (2 m) nats per row, about, and promises as much
    # too much for other rows.
    means = np.array([c.fit(rules.criterion) for c in best]) - sizes / (2 * m)
    reached = np.where([c.sound for c in best], means - costs, -np.inf)
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
    """What each row of the sample adds to each model's criterion, penalties apart, (c, m)."""

    def of(candidate: Candidate) -> Array:
        mixture = candidate.last_state().mixture.on_cpu
        if criterion != "icl":
            return Predict(mixture, ("log_density",))(sample.rows)["log_density"]
        answers = Predict(mixture, ("log_density", "proba"))(sample.rows)
        return np.asarray(answers["log_density"] - entr(answers["proba"]).sum(axis=1))

    return np.stack(in_threads(of, best))


def _tried(candidate: Candidate) -> Tried:
    state = candidate.last_state()
    return Tried(state, state.log_likelihood, 0)


def _shortlisted(
    candidate: Candidate, lost: bool, weight: float, rivals: tuple[Mixture, ...] = ()
) -> Shortlisted:
    row = replace(candidate.row(weight), n_passes=0, status=DROPPED)
    return Shortlisted(candidate.last_state().result, row, lost, rivals)
