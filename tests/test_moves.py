"""Moves out of local optima: what they promise holds, and they lead where EM alone does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from helpers import KINDS, blobs, gaussian_of, mixture_of, precisions_like

from dask_em import GaussianMixture
from dask_em.backends.blas import one_blas_thread
from dask_em.backends.serial import SerialBackend
from dask_em.core.em import Convergence, PlainEM, run_algorithm
from dask_em.core.engine import NUMPY
from dask_em.core.executor import SerialExecutor, serial_executor
from dask_em.core.mixture import Mixture
from dask_em.core.protocols import Executor, T
from dask_em.core.tuning import tuning, use_tuning
from dask_em.data.open import as_source
from dask_em.fitting.multistart import Moves, SampleFits
from dask_em.fitting.sample import Sampled
from dask_em.fitting.split_merge import SplitMerge
from dask_em.fitting.survey import Survey

pytestmark = pytest.mark.usefixtures("blas")

LIMITS = Convergence(1e-4, 200)
MOVES = Moves(n_rounds=10, n_splits=100, n_moves=4)


@pytest.fixture(scope="module")
def blas() -> Iterator[None]:
    with one_blas_thread():
        yield


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each covariance structure."""
    return str(request.param)


def sampled(rows: np.ndarray, weights: np.ndarray | None = None) -> Sampled:
    return Sampled(rows, np.ones(len(rows)) if weights is None else weights)


def fitted(kind: str, sample: Sampled, means: np.ndarray, tol: float = 1e-9) -> Mixture:
    """Where plain EM leads from these means."""
    precisions = precisions_like(kind, 1.0, *means.shape)
    first = mixture_of(kind, means, precisions, sample.rows, 0.0)
    *_, last = run_algorithm(sample.accumulate, PlainEM(first, Convergence(tol, 2000)))
    return last.result


def stuck(kind: str, weights: bool = False) -> tuple[Sampled, Mixture, Mixture]:
    """Four clusters, two components on the first and one on the last two; and the truth."""
    rows, _, _ = blobs(2000, 2, 1, seed=4)
    centers = np.array([[0, 0], [12, 0], [0, 12], [4.5, 12]])
    rows = rows - rows.mean(axis=0) + centers[np.arange(2000) % 4]
    w = np.random.default_rng(4).uniform(0.5, 2, 2000) if weights else None
    sample = sampled(rows, w)
    wrong = np.array([[-0.5, 0], [0.5, 0], [12, 0], [2.2, 12]])
    return sample, fitted(kind, sample, wrong), fitted(kind, sample, centers)


def mean(sample: Sampled, mixture: Mixture) -> float:
    return sample.accumulate(mixture).mean_log_likelihood


# With a tied covariance a split does not know what it costs the other components.
@pytest.mark.parametrize("kind", ["full", "diag", "spherical"], indirect=True)
@pytest.mark.parametrize("weights", [False, True])
def test_a_move_gains_at_least_what_it_promises(kind: str, weights: bool) -> None:
    sample, mixture, _ = stuck(kind, weights)
    neighbours = SplitMerge(mixture, sample.rows, sample.weights)
    here = mean(sample, mixture)
    promising = [m for m in neighbours.moves() if len(m.split.parents) == 1 and m.gain > 0]
    assert promising
    for move in promising:
        gained = (mean(sample, neighbours.after([move])) - here) * sample.weights.sum()
        # But for rows of which the component has hardly a share.
        assert gained > 0.99 * move.gain > 0


def test_moves_lead_out_of_a_local_optimum(kind: str) -> None:
    sample, mixture, truth = stuck(kind)
    assert mean(sample, mixture) < mean(sample, truth) - 0.05
    fits = SampleFits(sample, len(sample.rows), LIMITS, LIMITS)
    tried = fits.fit_subsample(mixture)
    assert (
        fits.split_and_merge(tried, MOVES).value
        > mean(sample, truth) - tuning().multistart.least_gain
    )


def test_nothing_is_gained_at_the_best_optimum(kind: str) -> None:
    sample, _, truth = stuck(kind)
    fits = SampleFits(sample, len(sample.rows), LIMITS, LIMITS)
    tried = fits.fit_subsample(truth)
    assert fits.split_and_merge(tried, MOVES).state is tried.state


def test_a_component_is_born_under_all_others() -> None:
    # Where tails are heavy, the likelihood wants one component for all of them more than it
    # wants one for each cluster.
    rows, labels, centers = blobs(6000, 5, 6, seed=5)
    chi = np.random.default_rng(5).chisquare(3.0, size=(6000, 1))
    rows = centers[labels] + (rows - centers[labels]) / np.sqrt(chi / 3.0)
    sample = sampled(rows)
    fits = SampleFits(sample, len(sample.rows), LIMITS, LIMITS)
    tried = fits.fit_subsample(fitted("full", sample, centers, 1e-4))
    moves = SplitMerge(tried.state.result, sample.rows, sample.weights).moves()
    assert any(len(move.split.parents) == 6 and move.gain > 0 for move in moves)
    assert fits.split_and_merge(tried, MOVES).value > tried.value + 0.02


def test_moves_that_leave_each_other_alone_are_made_together() -> None:
    sample, mixture, _ = stuck("full")
    away = np.array([100.0, 0.0])
    both = sampled(np.concatenate([sample.rows, sample.rows + away]))
    means = gaussian_of(mixture).data_coordinates()[0]
    neighbours = SplitMerge(
        fitted("full", both, np.concatenate([means, means + away])), both.rows, both.weights
    )
    best, second = neighbours.best(2)
    alone = max(mean(both, neighbours.after([move])) for move in neighbours.moves())
    assert mean(both, best) > alone + 0.05
    assert mean(both, second) <= alone


@pytest.mark.parametrize("k", [1, 2])
def test_few_components_have_no_moves(k: int) -> None:
    rows, _, means = blobs(500, 2, 2)
    mixture = fitted("full", sampled(rows), means[:k])
    assert SplitMerge(mixture, rows, np.ones(500)).best(4) == []


def test_nothing_is_born_of_too_few_rows(kind: str) -> None:
    sample, mixture, _ = stuck(kind)
    splits = [m.split for m in SplitMerge(mixture, sample.rows, sample.weights).moves()]
    least = tuning().split_merge.rows_per_parameter * mixture.n_parameters / 4
    assert splits
    assert all(b.shares.sum() > 0.5 * least for b in splits)
    few = sample.first(int(4 * least) // 2)
    assert SplitMerge(mixture, few.rows, few.weights).moves() == []


def test_a_component_without_rows_stays_out_of_the_way(kind: str) -> None:
    sample, mixture, _ = stuck(kind)
    means = gaussian_of(mixture).data_coordinates()[0].copy()
    means[0] = [1e3, 1e3]
    lost = mixture_of(kind, means, precisions_like(kind, 1.0, 4, 2), sample.rows, 1e-6)
    found = SplitMerge(lost, sample.rows, sample.weights).best(4)
    assert all(np.isfinite(mean(sample, mixture)) for mixture in found)


@contextmanager
def backwards(shared: T) -> Iterator[Executor[T]]:
    """The last call first."""
    yield Backwards(shared)


class Backwards(SerialExecutor[Any]):
    def map(self, function: Any, items: Any, advance: Any = None) -> list[Any]:
        return super().map(function, items[::-1], advance)[::-1]


def test_the_order_in_which_fits_are_made_does_not_matter() -> None:
    rows, _, _ = blobs(2000, 2, 4, seed=3)
    surveyed = SerialBackend().map_reduce(as_source(rows), Survey(0, 2000, 2, 2000))
    starts = GaussianMixture(4, n_init=3).start_options()
    # Fits to so few rows would be made one after the other, whoever else could make them.
    with use_tuning(tuning().with_changes(multistart={"call_work": 1.0})):
        expected, found = (
            starts.start(surveyed, NUMPY, 0, [], executor)
            for executor in (serial_executor, backwards)
        )
    assert expected.log_likelihood == found.log_likelihood
    assert expected.n_passes == found.n_passes
    one, other = gaussian_of(expected.mixture), gaussian_of(found.mixture)
    assert np.array_equal(one.means, other.means)
