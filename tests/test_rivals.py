"""Several starts on the full data: the first pass chooses where the sample cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from distributed import Client
from helpers import add_up, blobs, digest, gaussian_of, write_zarr

from dask_em import GaussianMixture, select
from dask_em.backends.serial import SerialBackend
from dask_em.core.em import Algorithm, Convergence, PlainEM
from dask_em.core.engine import NUMPY
from dask_em.core.fleet import Fleet
from dask_em.core.mixture import Mixture
from dask_em.core.passes import Holdout
from dask_em.core.tuning import tuning, use_tuning
from dask_em.data.open import as_source, stored_source
from dask_em.estimators.select import sweep
from dask_em.fitting.candidates import Candidate, Model, run_together
from dask_em.fitting.multistart import StartResult, contenders_of, most_contenders
from dask_em.fitting.observers import (
    Event,
    Observer,
    PassStarted,
    RowsDone,
    StateReached,
)
from dask_em.fitting.sample import Sampled, Start
from dask_em.fitting.survey import Survey
from dask_em.jobs.cluster import Worker
from dask_em.jobs.memory import FitMemory, Held
from dask_em.jobs.plan import Plan, count, fleet_of

N, D, K, SAMPLED = 4000, 2, 8, 500
X = blobs(N, D, K, seed=12, apart=2.0)[0]
ALL = Sampled(X, np.ones(N))
# Of which the sample orders one otherwise than the data do.
SEEDS = range(3)
OPTIONS: dict[str, Any] = {"sample_size": SAMPLED}

pytestmark = [
    pytest.mark.usefixtures("many_chunks", "synchronous"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture(autouse=True)
def many_starts() -> Iterator[None]:
    """Starts and moves as data have that are large beside their sample."""
    # With loops, whose sums in a sweep are those of one fit to the bit.
    loops: dict[str, object] = {"worth_loading": 0}
    with use_tuning(tuning().with_changes(multistart={"share": 1e6}, compiled_kernel=loops)):
        yield


def fit(data: Any = X, seed: int = 0, **options: Any) -> GaussianMixture:
    return GaussianMixture(K, random_state=seed, **OPTIONS, **options).fit(data)


def started(seed: int = 0, size: int = SAMPLED) -> Start:
    """Where that fit starts."""
    drawn = int(np.random.RandomState(seed).randint(np.iinfo(np.int32).max))
    surveyed = SerialBackend().map_reduce(as_source(X), Survey(drawn, size, D, N))
    return GaussianMixture(K, **OPTIONS).start_options().start(surveyed, NUMPY, drawn, [])


def value(mixture: Mixture, rows: Sampled = ALL) -> float:
    return rows.accumulate(mixture).mean_log_likelihood


def test_the_first_pass_goes_on_from_the_best_start() -> None:
    others_won = 0
    for seed in SEEDS:
        begun, model = started(seed), fit(seed=seed)
        values = [value(mixture) for mixture in begun.mixtures(NUMPY)]
        assert len(values) == 2
        assert model.lower_bounds_[0] == pytest.approx(max(values), rel=1e-12)
        others_won += values[0] < max(values)
    # The sample's order is not that of the data, or one would be enough.
    assert others_won > 0


def test_a_sample_of_all_rows_needs_no_other_judge() -> None:
    assert all(started(seed, N).contenders == () for seed in SEEDS)


def test_what_stays_on_the_sample_is_not_better() -> None:
    one = started(1).mixture
    rng = np.random.default_rng(0)
    components = gaussian_of(one)
    means = components.means + rng.normal(size=(K, D)) * 0.05
    other = replace(one, components=replace(components, means=means))
    assert (
        tuning().multistart.least_gain
        < value(one) - value(other)
        < 50 * tuning().multistart.least_gain
    )
    stayed = 0
    for size in (200, 1000, 3000):
        for _ in range(50):
            rows = X[rng.choice(N, size, replace=False)]
            sample = Sampled(rows, np.ones(size))
            best, behind = sorted(
                (tried(mixture, sample) for mixture in (one, other)), key=lambda t: -t.value
            )
            if not contenders_of(best, [behind], sample, size / N):
                stayed += 1
                assert (
                    value(behind.state.result)
                    < value(best.state.result) + tuning().multistart.least_gain
                )
    assert 0 < stayed < 150


def tried(mixture: Mixture, sample: Sampled, **changes: Any) -> StartResult:
    """A fit that ended at `mixture`."""
    state = replace(PlainEM(mixture, Convergence()).tell(sample.accumulate(mixture)), **changes)
    return StartResult(replace(state, result=mixture), state.log_likelihood, 0)


def test_only_whole_starts_of_small_models_enter() -> None:
    sample = ALL.first(SAMPLED)
    one, other = started(1).mixtures(NUMPY)
    best, behind = tried(one, sample), tried(other, sample)
    assert contenders_of(best, [behind, behind], sample, 0.1) == (other,)
    assert contenders_of(best, [tried(other, sample, collapsed=(1,))], sample, 0.1) == ()
    assert contenders_of(best, [replace(behind, value=np.nan)], sample, 0.1) == ()
    worse = replace(other, log_weights=np.log(np.full(K, 1e-6)))
    assert contenders_of(best, [tried(worse, sample)], sample, 0.1) == ()
    assert most_contenders(tuning().multistart.contender_bytes) == 2
    assert most_contenders(tuning().multistart.contender_bytes + 1) == 1


def test_a_climb_chooses_by_finite_numbers() -> None:
    one, other = started(1).mixtures(NUMPY)
    sums = [add_up(mixture, X) for mixture in (one, other)]
    broken = replace(sums[0], log_likelihood=np.nan)
    better = int(sums[1].log_likelihood > sums[0].log_likelihood)
    cases = ((sums, better), (sums[::-1], 1 - better), ([broken, sums[1]], 1), ([broken] * 2, 0))
    for found, best in cases:
        climbing: Algorithm = PlainEM(one, Convergence())
        climbing.contenders = (other,)
        proposals = climbing.ask()
        assert climbing.choose(found) == best
        assert climbing.ask() == (proposals[best],)


def test_a_fleet_s_members_choose_each_for_itself() -> None:
    one, other = started(0).mixtures(NUMPY)
    holdout = Holdout(3, 0.2)

    def accumulate(mixtures: tuple[Mixture, ...]) -> Any:
        return SerialBackend().map_reduce(as_source(X), Fleet(mixtures, holdout))

    def candidate(*starts: Mixture) -> Candidate:
        climbing = PlainEM(starts[0], Convergence(0, 2))
        climbing.contenders = starts[1:]
        return Candidate(Model(K, "full", one.n_parameters), climbing)

    fleet = [candidate(one, other), candidate(one), candidate(other)]
    list(run_together(accumulate, fleet))
    both, *alone = fleet
    best = max(alone, key=lambda c: c.measured[0])
    assert both.measured == best.measured
    assert both.held_out == best.held_out
    assert alone[0].held_out != alone[1].held_out


@pytest.mark.slow
def test_an_exhaustive_sweep_lets_them_in_too() -> None:
    found = select(X, [3, K], n_init=1, exhaustive=True, keep_all=True, random_state=0, **OPTIONS)
    alone = fit()
    assert started().contenders
    assert digest(found.models[1]) == digest(alone)
    assert found.models[1].lower_bounds_ == alone.lower_bounds_


def test_a_sweep_lets_them_in_where_hopeless_models_leave_room() -> None:
    rows = blobs(20_000, 2, 8, seed=12, apart=2.0)[0]
    everything = Sampled(rows, np.ones(len(rows)))
    options = {"n_init": 3, "random_state": 0, "sample_size": 4000}
    driver = sweep(range(1, 12), "full", "bic", 0.0, False, GaussianMixture, options).run(rows)
    progress = driver.progress
    served = others_won = 0
    for start, memory in zip(progress.starts, progress.candidates, strict=True):
        if memory is None:
            assert start.eliminated
            continue
        values = [value(mixture, everything) for mixture in (start.mixture, *start.contenders)]
        assert memory.measured[0] == pytest.approx(max(values), rel=1e-10)
        served += len(values) * start.mixture.n_parameters
        others_won += values[0] < max(values)
    assert others_won > 0
    # What a plan counts is enough.
    assert served <= sum(model.n_parameters for model in driver.models)


@pytest.mark.slow
def test_workers_let_them_in_too(client: Client, tmp_path: Any) -> None:
    data = write_zarr(tmp_path / "x.zarr", X, 500)
    here = fit(data)
    with client.as_current():
        there = fit(data)
    assert started().contenders
    assert digest(here) == digest(there)


class StoppedError(Exception):
    """What ends a fit in these tests."""


class Stop(Observer):
    """An observer that ends a fit before its first pass of EM, or within it, or after it."""

    def __init__(self, when: str) -> None:
        self.when, self.phase = when, ""

    def notify(self, event: Event) -> None:
        if isinstance(event, PassStarted):
            self.phase = event.phase
        kind = {"before": PassStarted, "within": RowsDone, "after": StateReached}[self.when]
        if self.phase == "em" and isinstance(event, kind):
            raise StoppedError


def the_second_is_better(begun: Start) -> bool:
    first, *others = (value(mixture) for mixture in begun.mixtures(NUMPY))
    return any(first < other for other in others)


@pytest.mark.parametrize(
    "when",
    [
        pytest.param("before", marks=pytest.mark.slow),
        "within",
        pytest.param("after", marks=pytest.mark.slow),
    ],
)
def test_they_are_there_when_a_fit_goes_on(when: str, tmp_path: Any) -> None:
    seed = next(s for s in SEEDS if the_second_is_better(started(s)))
    straight = fit(seed=seed)
    with pytest.raises(StoppedError):
        fit(seed=seed, checkpoint=tmp_path / "c", callbacks=[Stop(when)])
    gone_on = fit(seed=seed, checkpoint=tmp_path / "c")
    assert digest(gone_on) == digest(straight)
    assert gone_on.lower_bounds_ == straight.lower_bounds_


def test_the_plan_has_room_for_them(tmp_path: Any) -> None:
    write_zarr(tmp_path / "x.zarr", X, 500)
    source, models = stored_source(tmp_path / "x.zarr"), fleet_of(K, "full")
    held = {r: FitMemory(source, models, screened=not r).worker.phases[-1] for r in (False, True)}
    assert held[True].phase == "em"
    assert held[True].parameters == 2 * held[False].parameters
    assert held[True].sums > 2 * held[False].sums
    # One model is fitted with them, and so is each of a sweep that gives none up.
    workers = [Worker(1, 0)]
    alone, several = count(source, models, workers), fleet_of([K, 2], "full")
    screened, every = (count(source, several, workers, exhaustive=e) for e in (False, True))
    assert phase_em(alone) == held[True]
    assert phase_em(every).parameters == 2 * phase_em(screened).parameters


def phase_em(planned: Plan) -> Held:
    assert planned.memory is not None
    return planned.memory.phases[-1]
