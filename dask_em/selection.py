"""Fleets of mixtures: many models served by each read of the data, and which of them wins."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal

import numpy as np

from .acceleration import expected_log_joint
from .calls import Each, in_threads
from .em import Climb, EMState, Status, memory_of, recall
from .errors import DataError
from .mixture import JointEStep, Mixture, MixtureStatistics, Predict, first_not_finite
from .statistics import Additive, Array, Fold, Foldable, S, result_bytes

if TYPE_CHECKING:
    from .initialization import Sampled

Criterion = Literal["bic", "aic", "icl", "holdout"]
# The status of a candidate that was given up.
DROPPED = "DROPPED"

# How quickly gains shrink: where nobody knows, and between which limits it is believed.
UNKNOWN_RATE, SLOWEST_RATE, QUICKEST_RATE = 0.9, 0.95, 0.5
# What an ascent is expected to gain yet is multiplied by this before it is given up.
MARGIN = 2.0


# -- some of the rows ----------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """Some of the rows: each is drawn by the seed and its place in the data alone.

    Attributes
    ----------
    seed : int
    share : float
        Of the rows, between 0 and 1.
    """

    seed: int
    share: float
    # What else is drawn by the same seed is drawn independently: the survey's sample has none.
    stream: ClassVar[int]

    def mask(self, index: int, n: int) -> Array:
        """Which of the n rows of chunk `index` are drawn, (n,) booleans."""
        seeds = np.random.SeedSequence(self.seed, spawn_key=(index, self.stream))
        return np.asarray(np.random.default_rng(seeds).random(n) < self.share)


class Slice(Drawn):
    """A sample too large for memory: the rows of every chunk that a pass computes with."""

    stream = 2


class Holdout(Drawn):
    """Rows that no fit sees."""

    stream = 1

    def split(self, index: int, n: int, sample_weight: Array | None) -> tuple[Array, Array]:
        """The mask, and the weights with which rows are fitted: zero where they are held out."""
        out = self.mask(index, n)
        return out, np.where(out, 0.0, 1.0 if sample_weight is None else sample_weight)


@dataclass(frozen=True)
class Training(Generic[S]):
    """Any pass over the rows that are not held out; the others have weight zero in it."""

    work: Foldable[S]
    holdout: Holdout

    def fold(self) -> Fold[S]:
        """The fold of `work`, which is shown the fitted rows only."""
        return TrainingFold(self.work.fold(), self.holdout)

    @property
    def result_bytes(self) -> int:
        """Bytes of the sums of a pass."""
        return result_bytes(self.work)


class TrainingFold(Generic[S]):
    """Feeds chunks to a fold with the held-out rows' weights set to zero."""

    def __init__(self, fold: Fold[S], holdout: Holdout) -> None:
        self._fold, self._holdout = fold, holdout

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows X (n, d)."""
        _, weight = self._holdout.split(index, len(X), sample_weight)
        self._fold.update(index, X, weight)

    def result(self) -> S:
        """What the fold summed."""
        return self._fold.result()


# -- the pass ------------------------------------------------------------------------


@dataclass(frozen=True)
class FleetStatistics(Additive):
    """What one pass tells of many mixtures.

    Attributes
    ----------
    members : tuple of MixtureStatistics
        Of each mixture, over the rows that are fitted.
    held_weight : float
        Weight of the rows that are held out.
    held_log_likelihood : (c,) array
        sum_n w_n log p(x_n) of each mixture over them, in nats.
    """

    members: tuple[MixtureStatistics, ...]
    held_weight: float
    held_log_likelihood: Array

    def __add__(self, other: FleetStatistics) -> FleetStatistics:
        return FleetStatistics(
            tuple(a + b for a, b in zip(self.members, other.members, strict=True)),
            self.held_weight + other.held_weight,
            self.held_log_likelihood + other.held_log_likelihood,
        )

    @property
    def nbytes(self) -> int:
        """Bytes that the sums take."""
        return sum(m.nbytes for m in self.members) + self.held_log_likelihood.nbytes + 8

    def held_out(self, i: int) -> float | None:
        """Mean log-likelihood of the rows held out under mixture i; None if there are none."""
        return float(self.held_log_likelihood[i]) / self.held_weight if self.held_weight else None


@dataclass(frozen=True)
class Fleet:
    """The E-step of many mixtures in one pass: each chunk is read once for all of them.

    Attributes
    ----------
    mixtures : tuple of Mixture
    holdout : Holdout or None
        Rows that are scored instead of fitted.
    part : Slice or None
        The rows that count, fitted or scored; None for all.
    """

    mixtures: tuple[Mixture, ...]
    holdout: Holdout | None = None
    part: Slice | None = None

    def __sizeof__(self) -> int:
        # Schedulers ask this before they move the parameters of a pass.
        return object.__sizeof__(self) + sum(m.__sizeof__() for m in self.mixtures)

    def fold(self) -> FleetFold:
        """The E-steps of one range, before its first chunk."""
        return FleetFold(self)

    @property
    def result_bytes(self) -> int:
        """Bytes of the sums of a pass."""
        return sum(m.result_bytes for m in self.mixtures) + 8 * len(self.mixtures) + 8


# Components of a mixture that shares an E-step, and of all that share one, at most: a block of
# more is worked through as quickly alone (measured: tests/benchmarks/fleets.py).
MOST_EACH, MOST_JOINED = 16, 256


def joined(mixtures: Sequence[Mixture]) -> list[list[int]]:
    """Numbers of the mixtures that share an E-step, in groups."""
    open_groups: dict[Hashable, tuple[list[int], int]] = {}
    groups: list[list[int]] = []
    for i, mixture in enumerate(mixtures):
        k = len(mixture.log_weights)
        joins = mixture.joins if k <= MOST_EACH else None
        group, size = open_groups.get(joins, ([], 0))
        if not group or size + k > MOST_JOINED:
            group, size = [], 0
            groups.append(group)
        group.append(i)
        if joins is not None:
            open_groups[joins] = group, size + k
    return groups


class FleetFold:
    """Feeds each chunk to the E-steps of the mixtures, those that can share one together.

    Attributes
    ----------
    block_rows : int
        Where chunks may come in parts: rows of which a part has whole blocks; else 0.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._groups = joined(fleet.mixtures)
        self._folds: list[Any] = []
        for group in self._groups:
            mixtures = [fleet.mixtures[i] for i in group]
            alone = len(group) == 1
            self._folds.append(mixtures[0].fold() if alone else JointEStep(mixtures))
        whole = len(self._folds) > 1 or fleet.holdout is not None or fleet.part is not None
        self.block_rows = 0 if whole else getattr(self._folds[0], "block_rows", 0)
        self._held_weight = 0.0
        self._held_log_likelihood = np.zeros(len(fleet.mixtures))

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows X (n, d) with weights (n,)."""
        n, holdout, part = len(X), self.fleet.holdout, self.fleet.part
        out, weight = None, sample_weight
        if holdout is not None:
            out, weight = holdout.split(index, n, sample_weight)
        if part is not None:
            rows = np.flatnonzero(part.mask(index, n))
            X = X[rows]
            out, weight, sample_weight = (
                None if a is None else a[rows] for a in (out, weight, sample_weight)
            )
        if out is not None:
            if sample_weight is not None:
                out &= sample_weight > 0
            numbers = np.arange(n) if part is None else rows
            _check_finite(index, numbers[out], X[out])
            self._score(X[out], None if sample_weight is None else sample_weight[out])
        for fold in self._folds:
            fold.update(index, X, weight)

    def _score(self, X: Array, sample_weight: Array | None) -> None:
        if len(X) == 0:
            return
        self._held_weight += len(X) if sample_weight is None else float(sample_weight.sum())
        for i, mixture in enumerate(self.fleet.mixtures):
            density = Predict(mixture, ("log_density",))(X)["log_density"]
            if sample_weight is not None:
                density *= sample_weight
            self._held_log_likelihood[i] += density.sum()

    def result(self) -> FleetStatistics:
        """Sums over all chunks given so far."""
        members: dict[int, MixtureStatistics] = {}
        for group, fold in zip(self._groups, self._folds, strict=True):
            found = fold.results() if len(group) > 1 else [fold.result()]
            members.update(zip(group, found, strict=True))
        in_order = tuple(members[i] for i in range(len(members)))
        return FleetStatistics(in_order, self._held_weight, self._held_log_likelihood)


def _check_finite(index: int, numbers: Array, X: Array) -> None:
    """Name the first held-out row that is not finite: the survey looks at fitted rows only."""
    first = first_not_finite(X)
    if first is not None:
        what, row, column = first
        raise DataError(
            f"X contains {what} at row {int(numbers[row])} of chunk {index}, column {column} "
            "(a row held out): drop or fill such rows first"
        )


# -- how good a model is -------------------------------------------------------------


def entropy(mixture: Mixture, statistics: MixtureStatistics) -> float:
    """-sum_nk w_n r_nk log r_nk, in nats, from what the E-step at `mixture` summed.

    log r_nk = log w_k + log p(x_n | k) - log p(x_n), and the sum of r log p(x | k) is linear in
    the sufficient statistics, so that it takes no pass of its own.
    """
    return max(0.0, statistics.log_likelihood - expected_log_joint(mixture, statistics))


def penalty(criterion: Criterion, n_parameters: int, weight: float) -> float:
    """What `criterion` takes off the log-likelihood for p parameters and rows of this weight."""
    if criterion == "holdout":
        return 0.0
    return n_parameters * (1.0 if criterion == "aic" else 0.5 * float(np.log(weight)))


@dataclass(frozen=True)
class Row:
    """One model of a sweep.

    Attributes
    ----------
    n_components : int
    covariance_type : str
    n_parameters : int
    log_likelihood : float
        Mean per row at the model's last pass, in nats.
    aic, bic, icl : float
        Lower is better.
    holdout : float or None
        Mean log-likelihood of a row held out, in nats: higher is better.
    n_passes : int
        Passes over the full data that served this model. A model of no pass was dropped
        on the word of the sample or of a slice, and its numbers are estimates: the winner's,
        and how much either says that this one is worse.
    status : str
        Why its fit ended, or DROPPED.
    """

    n_components: int
    covariance_type: str
    n_parameters: int
    log_likelihood: float
    aic: float
    bic: float
    icl: float
    holdout: float | None
    n_passes: int
    status: str

    def moved(self, nats: float, weight: float) -> Row:
        """The same with a log-likelihood `nats` higher for each of rows of this weight."""
        shift = 2 * weight * nats
        return replace(
            self,
            log_likelihood=self.log_likelihood + nats,
            aic=self.aic - shift,
            bic=self.bic - shift,
            icl=self.icl - shift,
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity: None where something is not a finite number."""
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Model:
    """What a candidate is a fit of.

    Attributes
    ----------
    n_components : int
    covariance_type : str
    n_parameters : int
    """

    n_components: int
    covariance_type: str
    n_parameters: int


class Candidate:
    """One start of a model on its way up: its climb, its gains, and whether it was given up.

    Parameters
    ----------
    model : Model
    climb : Climb
    """

    def __init__(self, model: Model, climb: Climb) -> None:
        self.model, self.climb = model, climb
        self.state: EMState | None = None
        self.held_out: float | None = None
        self.n_passes = 0
        self.dropped = False
        self.measured: list[float] = []
        """Mean log-likelihood per row of each pass, also of those that were rejected."""
        self.rejected: list[int] = []
        """Numbers of the passes at parameters that were rejected."""
        self._fitted: list[float] = []
        self._held_out: list[float] = []

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

    def last_state(self) -> EMState:
        """The state after its last pass, of which there was one at least."""
        assert self.state is not None, "no pass was made"
        return self.state

    def choose(self, found: Sequence[MixtureStatistics], held_out: Sequence[float | None]) -> None:
        """Take what a pass at each of the climb's proposals summed, and go on from the best."""
        best = self.climb.choose(found)
        self.tell(found[best], held_out[best])

    def tell(self, statistics: MixtureStatistics, held_out: float | None = None) -> None:
        """Take what a pass at the climb's proposal summed."""
        self.measured.append(statistics.mean_log_likelihood)
        self.state = self.climb.tell(statistics)
        self.n_passes += 1
        if not self.state.accepted:
            self.rejected.append(self.n_passes)
            return
        self._fitted.append(self.state.log_likelihood)
        if held_out is not None:
            self.held_out = held_out
            self._held_out.append(held_out)

    def apart(self) -> Candidate:
        """A copy without the sample, to be told elsewhere."""
        twin, twin.climb = copy(self), copy(self.climb)
        vars(twin.climb)["sample"] = None
        return twin

    def memory(self) -> dict[str, Any]:
        """All that it knows between two passes, but for the model."""
        known = {n: v for n, v in vars(self).items() if n not in ("model", "climb")}
        return {**known, "climb": memory_of(self.climb)}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Put a new candidate where another was that had this memory."""
        recall(self.climb, memory["climb"])
        vars(self).update({n: v for n, v in memory.items() if n != "climb"})

    def gain(self, criterion: Criterion) -> float:
        """Nats per row that it has still to gain, about."""
        if self.last_state().status is Status.CONVERGED:
            # By its own rule the rest is not worth a pass.
            return 0.0
        return to_gain(self._held_out if criterion == "holdout" else self._fitted)

    def value(self, criterion: Criterion, weight: float | None = None) -> float:
        """What `criterion` judges by, in nats: higher is better, -inf where it is no number.

        `weight` is the weight of the rows to which the fit's are scaled.
        """
        value = self._value(criterion, weight, 0.0)
        return value if np.isfinite(value) else -np.inf

    def best_value(self, criterion: Criterion) -> float:
        """The value that it may have in the end, with a margin."""
        # Nobody can say how far the entropy will fall, but not below zero.
        judged: Criterion = "bic" if criterion == "icl" else criterion
        return self._value(judged, None, MARGIN * self.gain(criterion))

    def _value(self, criterion: Criterion, weight: float | None, gain: float) -> float:
        state = self.last_state()
        weight = state.statistics.weight if weight is None else weight
        if criterion == "holdout":
            return -np.inf if self.held_out is None else weight * (self.held_out + gain)
        value = weight * (self.fit(criterion) + gain)
        return value - penalty(criterion, self.model.n_parameters, weight)

    def fit(self, criterion: Criterion) -> float:
        """What a fitted row adds to `criterion`, penalties apart, in nats."""
        state = self.last_state()
        if criterion != "icl":
            return state.log_likelihood
        unclear = entropy(state.mixture, state.statistics) / state.statistics.weight
        return state.log_likelihood - unclear

    def row(self, weight: float | None = None) -> Row:
        """What the table says of it, scaled to rows of this weight."""
        state, model = self.last_state(), self.model
        return Row(
            model.n_components,
            model.covariance_type,
            model.n_parameters,
            state.log_likelihood,
            -2 * self.value("aic", weight),
            -2 * self.value("bic", weight),
            -2 * self.value("icl", weight),
            self.held_out,
            self.n_passes,
            DROPPED if self.dropped else state.status.name,
        )


def to_gain(values: Sequence[float]) -> float:
    """What an ascent has still to gain after `values`: Aitken's rule on its last gains.

    With gains that shrink by the same rate, last gain x rate / (1 - rate); see McLachlan
    and Krishnan, The EM Algorithm and Extensions (2008), section 4.9.
    """
    if len(values) < 2:
        return np.inf
    gain = max(values[-1] - values[-2], 0.0)
    rate = UNKNOWN_RATE
    if len(values) > 2:
        before = values[-2] - values[-3]
        rate = gain / before if before > 0 else SLOWEST_RATE
        rate = min(max(rate, QUICKEST_RATE), SLOWEST_RATE)
    return gain * rate / (1 - rate)


# -- the climb of a fleet ------------------------------------------------------------


def climb_together(
    accumulate: Callable[[tuple[Mixture, ...]], FleetStatistics],
    candidates: Sequence[Candidate],
    weed: Callable[[Sequence[Candidate]], None] | None = None,
    each: Each | None = None,
) -> Iterator[list[Candidate]]:
    """Take every candidate to its end, one pass for the proposals of all that still run.

    Parameters
    ----------
    accumulate : callable
        The pass: sums the statistics of all data for each of the given mixtures.
    candidates : sequence of Candidate
    weed : callable, optional
        Called with the candidates after every pass: gives up those that cannot win.
    each : callable, optional
        Who makes the steps between passes, of what shares the sample.

    Yields
    ------
    list of Candidate
        Those that the last pass served.
    """
    while running := [c for c in candidates if c.running]:
        wanted = tuple(mixture for c in running for mixture in c.climb.proposals)
        tell(running, accumulate(wanted), each)
        if weed is not None:
            weed(candidates)
        yield running


def tell(
    candidates: Sequence[Candidate], statistics: FleetStatistics, each: Each | None = None
) -> None:
    """Tell each candidate what a pass at its proposals summed.

    Accelerated climbs make their next step on the sample, which takes its time: by `each`, if
    there are several.
    """
    members = iter(enumerate(statistics.members))
    told = []
    for candidate in candidates:
        numbers, found = zip(*islice(members, len(candidate.climb.proposals)), strict=True)
        told.append(Served(candidate, found, tuple(map(statistics.held_out, numbers))))
    if each is None or len(told) < 2:
        in_threads(Served.note, told)
        return
    memories = each(_memory_after, [replace(one, candidate=one.candidate.apart()) for one in told])
    for candidate, memory in zip(candidates, memories, strict=True):
        candidate.recall(memory)


@dataclass(frozen=True)
class Served:
    """One candidate, and what a pass summed at each of its proposals."""

    candidate: Candidate
    found: tuple[MixtureStatistics, ...]
    held_out: tuple[float | None, ...]

    def note(self) -> None:
        """Tell it."""
        self.candidate.choose(self.found, self.held_out)


def _memory_after(sample: Sampled | None, told: Served) -> dict[str, Any]:
    """What a candidate that was sent without the sample knows after a pass."""
    vars(told.candidate.climb)["sample"] = sample
    told.note()
    return told.candidate.memory()


def drop_hopeless(candidates: Sequence[Candidate], criterion: Criterion) -> None:
    """Give up those that will not reach, by a margin, what the best one has already."""
    reached = max((c.value(criterion) for c in candidates if c.sound), default=-np.inf)
    for candidate in candidates:
        if candidate.running and candidate.best_value(criterion) < reached:
            candidate.dropped = True


def winner(candidates: Sequence[Candidate], criterion: Criterion) -> Candidate:
    """The best by `criterion` of those that went to their end, sound ones before others."""
    ended = [c for c in candidates if c.state is not None and not c.dropped]
    return max(ended, key=lambda c: (c.sound, c.value(criterion)))
