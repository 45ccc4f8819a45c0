"""The loop: how it ends, and going on from a state."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from helpers import add_up, blobs, gaussian_of, leaves, mixture_of, precisions_like, start, states
from sklearn.exceptions import ConvergenceWarning

from dask_em import GaussianMixture
from dask_em.core.em import Convergence, Status, em
from dask_em.core.mixture import Mixture
from dask_em.core.parts import MixtureStatistics

X, LABELS, MEANS = blobs(800, 3, 3, seed=1)


def begin(kind: str, rows: np.ndarray = X, means: np.ndarray = MEANS, ridge: float = 0) -> Mixture:
    precisions = precisions_like(kind, 1.0, len(means), rows.shape[1])
    return mixture_of(kind, means, precisions, rows, ridge)


def duplicated() -> tuple[np.ndarray, np.ndarray]:
    """A cloud and a point that stands there fifty times, and a start on each."""
    cloud = np.random.default_rng(2).normal(size=(200, 3))
    point = np.array([30.0, 20.0, 10.0])
    return np.vstack([cloud, np.tile(point, (50, 1))]), np.stack([np.zeros(3), point])


def test_it_ends_when_a_pass_gains_less_than_tol(kind: str) -> None:
    found = states(X, begin(kind), tol=1e-4)
    values = [s.log_likelihood for s in found]
    assert found[-1].status is Status.CONVERGED
    assert all(s.status is Status.RUNNING for s in found[:-1])
    assert values[-1] - values[-2] < 1e-4
    assert (np.diff(values[:-1]) >= 1e-4).all()


def test_it_ends_when_it_is_out_of_iterations(kind: str) -> None:
    found = states(X, begin(kind), max_iter=3, tol=0)
    assert [s.n_iter for s in found] == [1, 2, 3]
    assert found[-1].status is Status.OUT_OF_ITERATIONS


def test_a_state_pairs_parameters_with_their_own_statistics(kind: str) -> None:
    for state in states(X, begin(kind), max_iter=3, tol=0):
        again = add_up(state.mixture, X)
        assert all(
            np.array_equal(a, b)
            for a, b in zip(leaves(again), leaves(state.statistics), strict=True)
        )
        result, _ = state.mixture.m_step(state.statistics)
        np.testing.assert_array_equal(gaussian_of(result).means, gaussian_of(state.result).means)


def test_it_keeps_the_best_where_the_likelihood_falls(kind: str) -> None:
    ridge = 30.0
    found = states(X, begin(kind, ridge=ridge), tol=1e-6)
    values = [s.log_likelihood for s in found]
    assert found[-1].status is Status.LIKELIHOOD_FELL
    assert found[-1].log_likelihood == max(values)
    # Without the M-step that made it fall.
    np.testing.assert_array_equal(found[-1].result.log_weights, found[-1].mixture.log_weights)
    kept = add_up(found[-1].result, X).mean_log_likelihood
    assert kept == found[-1].log_likelihood


# A covariance that all components share does not collapse onto one point.
@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_a_component_on_one_point_collapses(kind: str) -> None:
    rows, means = duplicated()
    found = states(rows, begin(kind, rows, means), tol=1e-6)
    assert found[-1].status is Status.COLLAPSED
    assert found[-1].collapsed == (1,)
    result = gaussian_of(found[-1].result)
    assert np.isfinite(result.covariance.factor).all()
    assert np.isfinite(result.means).all()


def test_identical_rows_collapse_every_structure(kind: str) -> None:
    rows = np.tile([1.0, 2.0, 3.0], (40, 1))
    found = states(rows, begin(kind, rows, np.array([[1.0, 2, 3], [1.5, 2, 3]])), tol=1e-6)
    assert found[-1].status is Status.COLLAPSED


def test_a_component_without_rows_keeps_its_parameters(kind: str) -> None:
    means = np.vstack([MEANS, [[1e4, 1e4, 1e4]]])
    first = begin(kind, X, means)
    found = states(X, first, tol=1e-4)
    assert found[-1].status is Status.COLLAPSED
    assert found[-1].collapsed == (3,)
    last = gaussian_of(found[-1].result)
    np.testing.assert_array_equal(last.means[3], gaussian_of(first).means[3])
    assert (np.diff([s.log_likelihood for s in found]) > -1e-12).all()


def test_sums_that_are_not_finite_end_it(kind: str) -> None:
    """The data change under the fit: the last finite parameters stay."""
    passes = 0

    def accumulate(mixture: Mixture) -> MixtureStatistics:
        nonlocal passes
        passes += 1
        statistics = add_up(mixture, X)
        return replace(statistics, log_likelihood=np.nan) if passes == 3 else statistics

    found = list(em(accumulate, begin(kind), Convergence(0.0, 10)))
    assert [s.status.name for s in found] == ["RUNNING", "RUNNING", "NON_FINITE"]
    assert np.isfinite(found[-1].log_likelihood)
    np.testing.assert_array_equal(
        gaussian_of(found[-1].result).means, gaussian_of(found[1].mixture).means
    )


def test_a_first_pass_that_is_not_finite_ends_it(kind: str) -> None:
    rows = X.copy()
    rows[5, 1] = np.nan
    with np.errstate(invalid="ignore"):
        found = list(em(lambda m: add_up(m, rows), begin(kind), Convergence(0.0, 10)))
    assert [s.status for s in found] == [Status.NON_FINITE]


@pytest.mark.parametrize("after", [1, 4])
def test_going_on_from_a_state_is_going_straight(kind: str, after: int) -> None:
    straight = states(X, begin(kind), max_iter=8, tol=0)
    resumed = states(X, straight[after - 1], max_iter=8, tol=0)
    assert [s.n_iter for s in resumed] == list(range(after + 1, 9))
    for one, other in zip(straight[after:], resumed, strict=True):
        assert one.status is other.status
        for a, b in zip(leaves(one.statistics), leaves(other.statistics), strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(leaves(one.result), leaves(other.result), strict=True):
            np.testing.assert_array_equal(a, b)


def test_going_on_from_the_last_state_makes_no_pass(kind: str) -> None:
    last = states(X, begin(kind), max_iter=2, tol=0)[-1]

    def accumulate(mixture: Mixture) -> MixtureStatistics:
        raise AssertionError("a pass was made")

    assert list(em(accumulate, last, Convergence(0.0, 2))) == []


def test_each_end_has_a_sentence() -> None:
    assert all(len(status.value.split()) > 4 for status in Status)
    assert [s for s in Status if s.converged] == [Status.CONVERGED]


@pytest.mark.parametrize(
    ("status", "rows", "options"),
    [
        (Status.OUT_OF_ITERATIONS, X, {"max_iter": 2, "tol": 0, **start("full", MEANS)}),
        (
            Status.LIKELIHOOD_FELL,
            X,
            {"reg_covar": 0.9, "tol": 1e-9, **start("full", MEANS)},
        ),
        (
            Status.COLLAPSED,
            duplicated()[0],
            {"reg_covar": 0, "tol": 1e-6, **start("full", duplicated()[1])},
        ),
        (
            Status.NON_FINITE,
            X,
            start("full", MEANS, precision=1e308),
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_estimator_warns_of_every_other_end(
    status: Status, rows: np.ndarray, options: dict
) -> None:
    k = len(options["means_init"])
    with np.errstate(all="ignore"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = GaussianMixture(k, **options).fit(rows)
    assert model.status_ is status
    assert not model.converged_
    last = caught[-1]
    assert str(last.message).endswith(status.value)
    assert last.category is ConvergenceWarning
    assert last.filename == __file__
    for name in ("weights_", "means_", "covariances_"):
        assert np.isfinite(getattr(model, name)).all()
