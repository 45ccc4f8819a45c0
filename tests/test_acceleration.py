"""Accelerated EM: it never falls, it reaches the limit of plain EM, and it knows when to end."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from benchmarks.cases import REAL, SYNTHETIC
from helpers import (
    add_up,
    assert_sums_close,
    blobs,
    digest,
    gaussian_of,
    leaves,
    mixture_of,
    precisions_like,
    random_mixture,
    start,
    sums_of,
    write_zarr,
)
from sklearn.exceptions import ConvergenceWarning

from dask_em import GaussianMixture
from dask_em.backends.blas import one_blas_thread
from dask_em.core.em import Convergence, EMState, PlainEM, Status, run_algorithm
from dask_em.core.mixture import Mixture
from dask_em.core.parts import MixtureStatistics
from dask_em.core.tuning import tuning
from dask_em.fitting.anderson import Step, curved, mixed
from dask_em.fitting.control_variate import ControlVariateEM, Surrogate, algorithm_of
from dask_em.fitting.multistart import Multistart
from dask_em.fitting.sample import Sampled

pytestmark = pytest.mark.usefixtures("many_chunks", "blas")

K, D, N, M = 3, 2, 10_000, 1_000


@pytest.fixture(scope="module")
def blas() -> Iterator[None]:
    """One thread for BLAS, as in every fit: these products are too small for two."""
    with one_blas_thread():
        yield


def overlapping(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    return rng.normal(size=(N, D)) * 1.2 + rng.normal(size=(K, D))[rng.integers(0, K, N)] * 2, K


def unbalanced(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    labels = rng.choice(4, N, p=[0.6, 0.25, 0.1, 0.05])
    return rng.normal(size=(N, D)) + rng.normal(size=(4, D))[labels] * 3, 4


def too_many(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    return rng.normal(size=(N, D)) + rng.normal(size=(K, D))[rng.integers(0, K, N)] * 3, 5


def outlying(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    rows = rng.normal(size=(N, D)) + rng.normal(size=(K, D))[rng.integers(0, K, N)] * 3
    far = rng.random(N) < 0.02
    rows[far] = rng.uniform(-20, 20, size=(int(far.sum()), D))
    return rows, K + 1


CASES = [overlapping, unbalanced, too_many, outlying]
Case = Callable[[np.random.Generator], tuple[np.ndarray, int]]


def fit_of_sample(kind: str, rows: np.ndarray, k: int, sample: Sampled, seed: int = 0) -> Mixture:
    """Plain EM on the sample, from some of its rows: where a fit to all rows starts."""
    rng = np.random.default_rng(seed)
    means = sample.rows[rng.choice(len(sample.rows), k, replace=False)]
    first = mixture_of(kind, means, precisions_like(kind, 0.3, k, rows.shape[1]), rows, 1e-6)
    *_, last = run_algorithm(sample.accumulate, PlainEM(first, Convergence(1e-5, 100)))
    return last.result


def sample_of(rows: np.ndarray, m: int = M, weights: np.ndarray | None = None) -> Sampled:
    chosen = np.random.default_rng(7).choice(len(rows), m, replace=False)
    return Sampled(rows[chosen], np.ones(m) if weights is None else weights[chosen])


@cache
def begin(kind: str, case: Case = overlapping) -> tuple[np.ndarray, Sampled, Mixture]:
    rows, k = case(np.random.default_rng(3))
    sample = sample_of(rows)
    return rows, sample, fit_of_sample(kind, rows, k, sample)


def run(rows: np.ndarray, climbing: Any) -> Iterator[EMState]:
    return run_algorithm(lambda m: add_up(m, rows), climbing)


def limit(rows: np.ndarray, first: Mixture) -> float:
    """Where plain EM ends: what is left after this by Aitken's rule is below 1e-5."""
    *_, last = run(rows, PlainEM(first, Convergence(1e-7, 400)))
    return last.log_likelihood


# -- the parts -----------------------------------------------------------------------


def log_joint(mixture: Mixture, rows: np.ndarray) -> np.ndarray:
    return mixture.components.log_prob(rows) + mixture.log_weights


def test_sums_move_to_other_means(kind: str) -> None:
    rng = np.random.default_rng(0)
    mixture = random_mixture(kind, K, D, rng)
    rows, resp = rng.normal(size=(200, D)), rng.dirichlet(np.ones(K), 200)
    shift = rng.normal(size=(K, D))
    here = gaussian_of(mixture)
    there = replace(here, means=here.means + shift)

    def about(components: Any) -> MixtureStatistics:
        sums = components.sufficient_statistics(rows, resp)
        return MixtureStatistics(200, 200.0, 0.0, resp.sum(axis=0), sums)

    assert_sums_close(
        mixture.recentre(about(here), replace(mixture, components=there)),
        about(there),
        rtol=1e-12,
    )


def test_the_expected_log_joint_is_that_of_the_rows(kind: str) -> None:
    rng = np.random.default_rng(1)
    mixture = random_mixture(kind, K, D, rng)
    rows, resp = rng.normal(size=(200, D)), rng.dirichlet(np.ones(K), 200)
    sums = mixture.components.sufficient_statistics(rows, resp)
    found = mixture.expected_log_joint(MixtureStatistics(200, 200.0, 0.0, resp.sum(axis=0), sums))
    np.testing.assert_allclose(found, (resp * log_joint(mixture, rows)).sum(), rtol=1e-12)


def test_coordinates_lead_back_and_every_point_is_a_mixture(kind: str) -> None:
    rng = np.random.default_rng(2)
    mixture = random_mixture(kind, K, D, rng)
    vector = mixture.to_unconstrained()
    for a, b in zip(leaves(mixture.from_unconstrained(vector)), leaves(mixture), strict=True):
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-14)
    far = mixture.from_unconstrained(vector + 3 * rng.normal(size=vector.shape))
    np.testing.assert_allclose(far.weights.sum(), 1)
    assert np.isfinite(log_joint(far, rng.normal(size=(50, D)))).all()
    assert (mixture.information_scale() > 0).all()
    assert mixture.information_scale().shape == vector.shape


def test_mixing_solves_a_linear_iteration() -> None:
    """Of x <- A x + b in three dimensions, four steps hold all there is to know."""
    rng = np.random.default_rng(3)
    A = np.diag([0.9, 0.5, -0.3])
    b = rng.normal(size=3)
    points = rng.normal(size=(4, 3))
    found = mixed([Step(x, A @ x + b) for x in points], np.ones(3))
    np.testing.assert_allclose(found, np.linalg.solve(np.eye(3) - A, b), rtol=1e-8)


def test_steps_by_curvature_lead_away_from_a_saddle() -> None:
    """Where EM moves away from a point, Newton's step would lead to it."""
    A = np.diag([1.2, 0.5, -0.3])
    points = np.array([[0.1, 1.0, 0.5], [0.12, 0.5, -0.15], [0.144, 0.25, 0.1], [0.17, 0.1, 0.0]])
    found = curved([Step(x, A @ x) for x in points], np.ones(3))
    assert found[0] > 1.5 * points[-1, 0]
    assert np.abs(found[1:]).max() < 0.01


def test_the_surrogate_has_the_gradient_of_the_data(kind: str) -> None:
    """Along any direction, its value changes as the log-likelihood of all rows does."""
    rows, sample, mixture = begin(kind)
    statistics = add_up(mixture, rows)
    result, _ = mixture.m_step(statistics)
    surrogate = Surrogate(EMState(mixture, statistics, 1, (), Status.RUNNING, result), sample, 0.0)
    vector = mixture.to_unconstrained()
    direction = np.random.default_rng(4).normal(size=vector.shape)
    if kind in ("full", "tied"):
        # What is above the diagonal of a triangle is no coordinate.
        below = np.zeros_like(gaussian_of(mixture).covariance.factor)
        below[...] = np.tril(np.ones((D, D)))
        direction[-below.size :] *= below.ravel()
    step = 1e-5

    def slope(value: Callable[[Mixture], float]) -> float:
        up, down = (mixture.from_unconstrained(vector + s * step * direction) for s in (1, -1))
        return (value(up) - value(down)) / (2 * step)

    def corrected(m: Mixture) -> float:
        return surrogate._value(m, sample.accumulate(m), surrogate.difference)

    truth = slope(lambda m: add_up(m, rows).log_likelihood)
    biased = slope(lambda m: surrogate.scale * sample.accumulate(m).log_likelihood)
    np.testing.assert_allclose(slope(corrected), truth, rtol=1e-4)
    assert abs(biased - truth) > 0.01 * abs(truth)


def test_the_whole_data_as_the_sample_need_no_correction(kind: str) -> None:
    rows, _, mixture = begin(kind)
    everything = Sampled(rows, np.ones(len(rows)))
    statistics = add_up(mixture, rows)
    state = EMState(mixture, statistics, 1, (), Status.RUNNING, mixture.m_step(statistics)[0])
    difference = Surrogate(state, everything, 1.0).difference
    sums = sums_of(difference)
    for part in (difference.resp_sum, sums.first, sums.scatter):
        np.testing.assert_array_equal(part, 0)


def test_a_correction_of_no_data_is_pulled_to_the_plain_step(kind: str) -> None:
    """A sample that hardly knows a component asks for weights below zero."""
    rows, _, mixture = begin(kind)
    statistics = add_up(mixture, rows)
    state = EMState(mixture, statistics, 1, (), Status.RUNNING, mixture.m_step(statistics)[0])
    rng = np.random.default_rng(5)
    # Four in five rows of the sample lie where one component is.
    near = np.argsort(((rows - rows[0]) ** 2).sum(axis=1))[:1500]
    biased = np.concatenate([rng.choice(near, 400), rng.choice(N, 100)])
    surrogate = Surrogate(state, Sampled(rows[biased], np.ones(500)), 0.01)
    before = surrogate.proximal.copy()
    inner = surrogate.run(state.result, 0.0)
    assert (surrogate.proximal > before).any()
    assert np.isfinite(leaves(inner.mixture)[0]).all()
    assert np.isfinite(add_up(inner.mixture, rows).log_likelihood)


def test_combined_sums_keep_what_no_component_owns(kind: str) -> None:
    rows, sample, mixture = begin(kind)
    one, other = add_up(mixture, rows), sample.accumulate(mixture)
    found = one.plus_sums(other, -np.arange(K) if kind != "tied" else -2.0)
    assert (found.n_rows, found.weight, found.log_likelihood) == (
        one.n_rows, one.weight, one.log_likelihood
    )  # fmt: skip
    factor = np.arange(K) if kind != "tied" else 2.0
    np.testing.assert_allclose(found.resp_sum, one.resp_sum - factor * other.resp_sum)


# -- the climb -----------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("sampled", [True, False], ids=["sample", "no sample"])
def test_accepted_states_never_fall_and_tell_the_truth(
    kind: str, case: Case, sampled: bool
) -> None:
    rows, sample, first = begin(kind, case)
    climbing = ControlVariateEM(first, Convergence(1e-7, 15), sample if sampled else None)
    found = list(run(rows, climbing))
    values = [s.log_likelihood for s in found]
    assert (np.diff(values) >= 0).all()
    assert (np.diff([s.log_likelihood for s in found if s.accepted]) > 0).all()
    assert [s.n_iter for s in found] == list(range(1, len(found) + 1))
    assert all(s.status is Status.RUNNING for s in found[:-1])
    for state in found:
        # Rejected or not, a state's parameters belong to its own statistics.
        assert add_up(state.mixture, rows).log_likelihood == state.statistics.log_likelihood


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_default_ends_within_a_thousandth_of_plain_em_s_limit(kind: str, case: Case) -> None:
    rows, sample, first = begin(kind, case)
    expected = limit(rows, first)
    for given in (sample, None):
        *_, last = run(rows, algorithm_of("auto", first, Convergence(), given))
        assert last.status is Status.CONVERGED
        assert last.log_likelihood > expected - 1e-3
        assert last.n_iter <= 10


def test_a_tiny_tolerance_leads_to_a_stationary_point(kind: str) -> None:
    rows, sample, first = begin(kind)
    for given in (sample, None):
        *_, last = run(rows, ControlVariateEM(first, Convergence(1e-9, 400), given))
        assert last.status is Status.CONVERGED
        step = last.result.to_unconstrained() - last.mixture.to_unconstrained()
        assert np.abs(step * last.mixture.information_scale()).max() < 1e-4


def test_a_worse_step_is_rejected_for_a_plain_one(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, sample, first = begin(kind)
    climbing = ControlVariateEM(first, Convergence(0.0, 10), sample)
    accumulate = lambda: add_up(climbing.proposal, rows)  # noqa: E731
    best = climbing.tell(accumulate())
    # Far from anything, on the surrogate's word.
    climbing.kind = "surrogate"
    components = gaussian_of(first)
    components = replace(components, means=components.means + 50.0)
    climbing.proposal = replace(first, components=components)
    state = climbing.tell(accumulate())
    assert not state.accepted
    assert state.n_iter == 2
    assert state.log_likelihood == best.log_likelihood
    assert state.mixture is best.mixture
    assert climbing.damping == tuning().control_variate.shrink
    assert climbing.proposal is best.result
    after = climbing.tell(accumulate())
    assert after.accepted
    assert after.log_likelihood > best.log_likelihood


def test_a_step_that_is_not_finite_is_rejected(kind: str) -> None:
    rows, sample, first = begin(kind)
    climbing = ControlVariateEM(first, Convergence(0.0, 10), sample)
    best = climbing.tell(add_up(climbing.proposal, rows))
    climbing.kind = "surrogate"
    broken = replace(add_up(climbing.proposal, rows), log_likelihood=np.nan)
    state = climbing.tell(broken)
    assert not state.accepted
    assert state.status is Status.RUNNING
    assert state.log_likelihood == best.log_likelihood


def test_a_surrogate_that_errs_is_given_up(kind: str) -> None:
    rows, sample, first = begin(kind)
    climbing = ControlVariateEM(first, Convergence(0.0, 30), sample)
    climbing.rejections = tuning().control_variate.rejections
    for _ in range(4):
        climbing.tell(add_up(climbing.proposal, rows))
        assert climbing.kind in ("plain", "mixed")
    assert climbing.rows_read == 0


def test_small_data_take_no_steps_on_the_sample(kind: str) -> None:
    rows, _, first = begin(kind)
    half = sample_of(rows, N // 2)
    # Of no tolerance, the sample is not asked what is left either.
    climbing = ControlVariateEM(first, Convergence(0.0, 10), half)
    list(run(rows, climbing))
    assert climbing.rows_read == 0
    large = ControlVariateEM(first, Convergence(1e-6, 10), sample_of(rows))
    list(run(rows, large))
    assert large.rows_read > 0
    assert large.rows_read % M == 0


def plateau(kind: str) -> tuple[np.ndarray, Mixture]:
    """Two clusters, and two components nearly as wide as both together: close to a saddle."""
    rng = np.random.default_rng(9)
    rows = rng.normal(size=(N, D))
    rows[: N // 2, 0] += 3.0
    inverse = np.linalg.inv(np.cov(rows.T))
    precisions = {
        "full": np.stack([inverse] * 2),
        "tied": inverse,
        "diag": np.stack([np.diag(inverse)] * 2),
        "spherical": np.full(2, np.trace(inverse) / 2),
    }[kind]
    apart = 0.02 if kind == "spherical" else 0.3
    means = rows.mean(axis=0) + np.array([[apart, 0], [-apart, 0]])
    return rows, mixture_of(kind, means, precisions, rows, 1e-6)


def test_small_gains_on_a_plateau_are_no_end(kind: str) -> None:
    """Plain EM's gains there say that nothing is left; what lies beyond the sample shows."""
    rows, first = plateau(kind)
    plain = [s.log_likelihood for s in run(rows, PlainEM(first, Convergence(0.0, 150)))]
    assert np.diff(plain)[1:4].max() < 2e-3
    expected = plain[-1]
    assert expected > plain[4] + 0.04
    # A sample of a tenth of these rows does not show it for every structure.
    *_, last = run(rows, algorithm_of("auto", first, Convergence(), sample_of(rows, N)))
    assert last.status is Status.CONVERGED
    assert last.log_likelihood > expected - 1e-3
    assert last.n_iter <= 30


def test_plain_em_is_what_em_names(kind: str) -> None:
    rows, sample, first = begin(kind)
    limits = Convergence(0.0, 4)
    for one, other in zip(
        run(rows, algorithm_of("em", first, limits, sample)),
        run(rows, PlainEM(first, limits)),
        strict=True,
    ):
        for a, b in zip(leaves(one.result), leaves(other.result), strict=True):
            np.testing.assert_array_equal(a, b)


def test_going_on_from_a_state_goes_up(kind: str) -> None:
    rows, sample, first = begin(kind)
    *_, state = run(rows, ControlVariateEM(first, Convergence(0.0, 3), sample))
    more = list(run(rows, ControlVariateEM(state, Convergence(0.0, 6), sample)))
    assert [s.n_iter for s in more] == [4, 5, 6]
    assert more[-1].log_likelihood > state.log_likelihood


@pytest.mark.parametrize("algorithm", ["auto", "em"])
def test_passes_have_an_end_of_their_own(kind: str, algorithm: str) -> None:
    rows, sample, first = begin(kind)

    def last(**limits: Any) -> EMState:
        return [*run(rows, algorithm_of(algorithm, first, Convergence(0.0, **limits), sample))][-1]

    out_of_passes = last(max_passes=4)
    assert (out_of_passes.status, out_of_passes.n_iter) == (Status.OUT_OF_PASSES, 3)
    assert last(max_iter=2, max_passes=9).status is Status.OUT_OF_ITERATIONS


def test_a_component_on_one_point_still_collapses() -> None:
    cloud = np.random.default_rng(2).normal(size=(2000, D))
    rows = np.vstack([cloud, np.tile([30.0, 20.0], (500, 1))])
    means = np.stack([np.zeros(D), rows[-1]])
    for kind in ("full", "diag", "spherical"):
        first = mixture_of(kind, means, precisions_like(kind, 1.0, 2, D), rows)
        *_, last = run(rows, ControlVariateEM(first, Convergence(1e-6, 20), sample_of(rows, 200)))
        assert last.status is Status.COLLAPSED
        assert last.collapsed == (1,)
        assert np.isfinite(last.log_likelihood)


def test_weights_count_as_rows(kind: str) -> None:
    """Weighted rows and repeated rows lead through the same states."""
    rows, k = overlapping(np.random.default_rng(3))
    weights = np.random.default_rng(8).integers(1, 4, len(rows)).astype(float)
    repeated = np.repeat(rows, weights.astype(int), axis=0)
    sample = sample_of(rows, weights=weights)
    first = fit_of_sample(kind, rows, k, sample)
    one, other = (ControlVariateEM(first, Convergence(0.0, 5), sample) for _ in range(2))
    weighted = run_algorithm(lambda m: add_up(m, rows, weights), one)
    for state, expected in zip(weighted, run(repeated, other), strict=True):
        assert state.accepted == expected.accepted
        assert state.log_likelihood == pytest.approx(expected.log_likelihood, abs=1e-9)
    assert min(one.rows_read, other.rows_read) > 0
    assert sample.effective_rows < M


# -- the estimator -------------------------------------------------------------------


def fit(rows: Any, **options: Any) -> GaussianMixture:
    options = {"n_components": K, "random_state": 0, "sample_size": 500, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(**options).fit(rows)


def test_the_bits_do_not_depend_on_who_computes(kind: str, client: Any, tmp_path: Any) -> None:
    rows, _ = overlapping(np.random.default_rng(3))
    stored = write_zarr(tmp_path / "x.zarr", rows, 1000)
    options = {"covariance_type": kind, "tol": 1e-6}
    digests = {digest(fit(stored, **options))}
    for scheduler in ("threads", "synchronous"):
        with dask.config.set(scheduler=scheduler):
            model = fit(stored, **options)
            digests.add(digest(model))
    assert len(digests) == 1
    assert model.n_iter_ > 2


def assert_accepted_states_rise(rows: np.ndarray, **options: Any) -> None:
    states: list[EMState] = []
    fit(rows, callbacks=[states.append], **options)
    heights = [state.log_likelihood for state in states]
    accepted = [state.log_likelihood for state in states if state.accepted]
    assert np.isfinite(heights).all()
    assert (np.diff(heights) >= 0).all()
    assert (np.diff(accepted) > 0).all()


@pytest.mark.parametrize("name", SYNTHETIC)
def test_accepted_states_never_fall_on_every_case(name: str) -> None:
    """On all kinds of synthetic data of the table of passes, a sample of a tenth of them."""
    case = SYNTHETIC[name](3_000)
    assert_accepted_states_rise(case.rows, n_components=case.k, sample_size=300, max_iter=12)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_accepted_states_never_fall_on_real_tables(name: str, tmp_path: Path) -> None:
    """Which are downloaded; with the default sample, and with a tenth of the rows."""
    try:
        case = REAL[name](tmp_path)
    except subprocess.CalledProcessError as e:
        pytest.skip(f"the table cannot be downloaded: {e}")
    for size in (None, len(case.rows) // 10):
        assert_accepted_states_rise(case.rows, n_components=case.k, sample_size=size, max_iter=30)


def test_auto_needs_fewer_passes_than_em(kind: str) -> None:
    """From the same start, to within 1e-5 nats per row of where the better ends."""
    rows, sample, first = begin(kind, too_many)
    limits = Convergence(1e-8, 120)
    values = [
        [s.log_likelihood for s in run(rows, algorithm_of(name, first, limits, sample))]
        for name in ("auto", "em")
    ]
    near = max(map(max, values)) - 1e-5
    auto, plain = (next((i for i, v in enumerate(one) if v > near), np.inf) for one in values)
    assert auto < plain


def test_history_tells_what_was_rejected(kind: str) -> None:
    rows, k = outlying(np.random.default_rng(3))
    model = fit(rows, n_components=k, covariance_type=kind, tol=1e-9, max_iter=15)
    passes = [r for r in model.history_ if r["phase"] == "em"]
    accepted = [r["log_likelihood"] for r in passes if r["accepted"]]
    rejected = [r["log_likelihood"] for r in passes if not r["accepted"]]
    assert len(accepted) + len(rejected) == model.n_iter_ == len(model.lower_bounds_)
    assert model.lower_bound_ == max(accepted) == model.lower_bounds_[-1]
    assert sorted(accepted) == accepted
    assert (np.diff(model.lower_bounds_) >= 0).all()


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"max_passes": 3}, Status.OUT_OF_PASSES),
        ({"max_time": 0}, Status.OUT_OF_TIME),
        ({"max_iter": 2}, Status.OUT_OF_ITERATIONS),
    ],
)
def test_the_estimator_ends_by_its_limits(options: dict[str, Any], status: Status) -> None:
    rows, _, means = blobs(2000, D, K, seed=6, apart=1.0)
    model = GaussianMixture(K, tol=0, **options, **start("full", means))
    with pytest.warns(ConvergenceWarning, match=status.value.split(":")[0][:20]):
        model.fit(rows)
    assert model.status_ is status
    assert model.n_passes_ <= options.get("max_passes", 3)


@pytest.mark.parametrize(
    "option", [{"max_passes": 1}, {"max_passes": 2.5}, {"max_time": -1}, {"max_time": "2h"}]
)
def test_limits_are_checked(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(ValueError, match=f"^{name}="):
        GaussianMixture(K, **option).fit(np.zeros((10, D)))


# -- the start -----------------------------------------------------------------------


def test_a_race_has_fewer_starts_where_they_cost_more() -> None:
    def of(p: int, n_sampled: int, n_rows: int, n_init: int = 1) -> Multistart:
        return Multistart.of(p, 5, n_sampled, n_rows, n_init)

    races = [of(p, 10**6, 10**8) for p in (50, 5_000, 50_000)]
    assert [r.n_starts for r in races] == sorted((r.n_starts for r in races), reverse=True)
    assert races[0].n_starts > races[-1].n_starts >= 1
    assert of(50, 10**6, 10**8, 20).n_starts == 20
    # The fewer rows a parameter has, the more the sample flatters what moves lead to.
    assert [of(50, n, 10**8).n_finalists for n in (1_000, 4_999, 5_000, 20_000)] == [2, 2, 4, 4]
    # Of few data there is one start, of several runs of k-means, unless more are asked for.
    few, asked = of(50, 5_000, 5_000), of(50, 5_000, 5_000, 3)
    assert (few.n_starts, few.n_restarts) == (1, tuning().multistart.restarts)
    assert (asked.n_starts, asked.n_restarts) == (3, 1)
    assert races[0].n_restarts == 1
    # A part that is nearly all of the sample is all of it.
    assert of(50, 6_000, 10**8).n_subsample == 6_000


@pytest.mark.parametrize(("p", "k"), [(44, 5), (359, 8), (1199, 200), (9_000, 16)])
def test_a_start_takes_in_proportion_to_the_data(p: int, k: int) -> None:
    """Other starts and moves that gain nothing take about twice what one start and its EM do."""
    constants = tuning().multistart
    for n in (1_000, 10_000, 100_000, 10**6, 10**8):
        n_sampled = min(n, max(20_000, 100 * p))
        race = Multistart.of(p, k, n_sampled, n, 1)
        iteration = constants.call_work + 2.0 * race.n_subsample * p
        on_all = constants.call_work + 2.0 * n * p
        starts = (race.n_starts - 1) * race.n_iterations * iteration
        moves = race.n_finalists * race.moves.n_rounds * race.moves.work(iteration)
        allowed = constants.share * constants.subsample_iterations * on_all
        # One start, and one round of one move of what has rows enough, are the least.
        few = race.n_starts == 1 and race.n_finalists == 1
        least = starts + race.moves.work(iteration) * min(race.moves.n_rounds, 1) if few else 0.0
        assert starts + moves <= max(allowed, least) * 1.001
        assert starts <= allowed
    assert race.n_starts == constants.most_starts
    assert race.moves.n_moves == constants.moves


def test_several_starts_are_better_than_one() -> None:
    rows, _, _ = blobs(4000, 2, 8, seed=12, apart=2.0)

    def ends(algorithm: str) -> list[float]:
        # All rows are the sample, so that starts are compared, and not samples.
        options = {"n_components": 8, "algorithm": algorithm, "sample_size": 4000}
        return [fit(rows, random_state=seed, **options).lower_bound_ for seed in range(4)]

    one, raced = ends("em"), ends("auto")
    assert min(raced) > max(one)
    assert np.mean(raced) > np.mean(one) + 1e-3
