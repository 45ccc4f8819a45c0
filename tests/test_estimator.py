"""The estimator: scikit-learn's contract, files, callbacks and history."""

from __future__ import annotations

import logging
import pickle
import warnings
from typing import Any

import dask.array as da
import numpy as np
import pytest
from helpers import KINDS, PARAMETERS, assert_fits_close, blobs, leaves, start, write_zarr
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import check_estimator

import dask_em
from dask_em import GaussianMixture
from dask_em.core.em import EMState, Status
from dask_em.fitting.observers import (
    Event,
    Observer,
    PassEnded,
    PassStarted,
    RowsDone,
    StateReached,
)

pytestmark = pytest.mark.usefixtures("many_chunks")

N, D, K = 1500, 3, 3
X, LABELS, MEANS = blobs(N, D, K, seed=1, apart=2.0)
# scikit-learn's checks are hundreds of fits, which are the same whatever the structure.
CHECKED = [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])]


def fit(kind: str = "full", rows: Any = X, **options: Any) -> GaussianMixture:
    return GaussianMixture(K, covariance_type=kind, **{"random_state": 0, **options}).fit(rows)


@pytest.fixture(scope="module")
def fitted(kind: str) -> GaussianMixture:
    return fit(kind)


def assert_same_bits(one: Any, other: Any) -> None:
    for a, b in zip(leaves(one), leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:X does not")
@pytest.mark.filterwarnings("ignore:reg_covar=", "ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("kind", CHECKED)
def test_scikit_learn_s_checks_pass(kind: str) -> None:
    check_estimator(GaussianMixture(covariance_type=kind))


def test_nothing_is_answered_before_fit() -> None:
    model = GaussianMixture()
    for method in ("predict", "predict_proba", "score_samples", "score", "aic", "bic", "icl"):
        with pytest.raises(NotFittedError):
            getattr(model, method)(X)
    calls: list[Any] = [model.sample, model.to_sklearn, lambda: model.save("never.npz")]
    for call in calls:
        with pytest.raises(NotFittedError):
            call()


def test_the_same_seed_gives_the_same_bits(kind: str) -> None:
    for seed in (0, np.random.RandomState(3)):
        other = np.random.RandomState(3) if seed else 0
        one = fit(kind, random_state=seed, sample_size=200)
        two = fit(kind, random_state=other, sample_size=200)
        np.testing.assert_array_equal(one.means_, two.means_)


def test_fit_predict_is_fit_and_predict(fitted: GaussianMixture) -> None:
    labels = clone(fitted).fit_predict(X)
    np.testing.assert_array_equal(labels, fitted.predict(X))


def test_labels_follow_the_rows(kind: str) -> None:
    rows, labels, _ = blobs(N, D, K, seed=2, apart=8.0)
    found = fit(kind, rows).predict(rows)
    assert sum(np.bincount(labels[found == k]).max() for k in range(K)) == N


# -- files -----------------------------------------------------------------------


def test_a_saved_model_comes_back_to_the_bit(fitted: GaussianMixture, tmp_path) -> None:
    fitted.save(tmp_path / "m.npz")
    loaded = dask_em.load(tmp_path / "m.npz")
    for name in PARAMETERS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(fitted, name))
    for method in ("predict", "predict_proba", "score_samples"):
        np.testing.assert_array_equal(getattr(loaded, method)(X), getattr(fitted, method)(X))
    assert_same_bits(loaded.state_.mixture, fitted.state_.mixture)
    assert_same_bits(loaded.state_.result, fitted.state_.result)
    assert_same_bits(loaded.state_.statistics, fitted.state_.statistics)
    for name in (
        "n_iter_",
        "status_",
        "converged_",
        "lower_bound_",
        "lower_bounds_",
        "n_passes_",
        "history_",
        "provenance_",
        "n_features_in_",
    ):
        assert getattr(loaded, name) == getattr(fitted, name)


def test_options_are_kept_in_the_file(tmp_path) -> None:
    options: dict[str, Any] = {
        "covariance_type": "diag",
        "tol": 1e-2,
        "reg_covar": 1e-5,
        "max_iter": np.int64(50),
        "n_init": 2,
        "init_params": "k-means++",
        "sample_size": 700,
        "random_state": 3,
        "verbose": 0,
        "means_init": MEANS,
    }
    model = GaussianMixture(K, **options).fit(X)
    model.save(tmp_path / "m.npz")
    kept = dask_em.load(tmp_path / "m.npz").get_params()
    np.testing.assert_array_equal(kept.pop("means_init"), MEANS)
    expected = model.get_params()
    del expected["means_init"]
    assert kept == expected


def test_names_of_columns_are_kept_in_the_file(tmp_path) -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pd.DataFrame(X, columns=["höhe", "b", "c"])
    model = fit(rows=frame)
    model.save(tmp_path / "m.npz")
    loaded = dask_em.load(tmp_path / "m.npz")
    assert list(loaded.feature_names_in_) == ["höhe", "b", "c"]
    np.testing.assert_array_equal(loaded.predict(frame), model.predict(frame))


def test_a_loaded_model_goes_on(kind: str, tmp_path) -> None:
    with pytest.warns(ConvergenceWarning):
        first = fit(kind, max_iter=2, tol=0)
    first.save(tmp_path / "m.npz")
    options = {"warm_start": True, "max_iter": 3}
    with pytest.warns(ConvergenceWarning):
        again = dask_em.load(tmp_path / "m.npz").set_params(**options).fit(X)
    with pytest.warns(ConvergenceWarning):
        straight = first.set_params(**options).fit(X)
    assert_fits_close(again, straight, rtol=1e-13)


def test_models_can_be_pickled_and_cloned(fitted: GaussianMixture) -> None:
    twin = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(twin.predict_proba(X), fitted.predict_proba(X))
    fresh = clone(fitted)
    assert fresh.get_params() == fitted.get_params()
    assert not hasattr(fresh, "means_")


def test_fitted_attributes_may_be_changed(fitted: GaussianMixture) -> None:
    """Predictions follow the public attributes, as scikit-learn's do."""
    moved = pickle.loads(pickle.dumps(fitted))
    moved.means_ = moved.means_ + 5.0
    expected = fitted.score_samples(X)
    np.testing.assert_allclose(moved.score_samples(X + 5.0), expected, rtol=1e-10)


# -- the start and the end -------------------------------------------------------


def test_warm_start_goes_on_where_the_last_fit_ended(kind: str) -> None:
    options = {"algorithm": "em", "tol": 0, "reg_covar": 0, **start(kind, MEANS)}
    with pytest.warns(ConvergenceWarning):
        straight = fit(kind, max_iter=6, **options)
    model = GaussianMixture(K, covariance_type=kind, max_iter=3, warm_start=True, **options)
    for _ in range(2):
        with pytest.warns(ConvergenceWarning):
            model.fit(X)
    assert_fits_close(model, straight, rtol=1e-10)


@pytest.mark.parametrize("change", [{"n_components": K + 1}, {"covariance_type": "diag"}])
def test_warm_start_refuses_another_model(change: dict[str, Any]) -> None:
    model = fit(warm_start=True)
    with pytest.raises(ValueError, match="warm_start=True, but the last fit was of full cov"):
        model.set_params(**change).fit(X)


def test_of_several_starts_the_best_is_taken() -> None:
    rows = blobs(1500, 2, 6, seed=12, apart=4.0)[0]
    options: dict[str, Any] = {"init_params": "random_from_data", "max_iter": 1}

    def score(**more: Any) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return GaussianMixture(6, **options, **more).fit(rows).lower_bounds_[0]

    firsts = [score(random_state=seed) for seed in range(6)]
    assert score(random_state=0, n_init=25) > np.median(firsts)


def test_a_single_component_is_the_moments_of_the_data(kind: str) -> None:
    model = GaussianMixture(1, covariance_type=kind, reg_covar=0).fit(X)
    covariance = np.cov(X.T, bias=True)
    expected = {
        "full": covariance[None],
        "tied": covariance,
        "diag": np.diagonal(covariance)[None],
        "spherical": np.trace(covariance)[None] / D,
    }[kind]
    np.testing.assert_allclose(model.means_[0], X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(model.covariances_, expected, rtol=1e-12)
    assert model.weights_ == 1


# -- callbacks and history -------------------------------------------------------


def test_callbacks_get_every_state(kind: str) -> None:
    seen: list[EMState] = []
    model = fit(kind, callbacks=[seen.append])
    assert [s.n_iter for s in seen] == list(range(1, model.n_iter_ + 1))
    assert [s.log_likelihood for s in seen] == model.lower_bounds_
    assert seen[-1] is model.state_
    assert seen[-1].status is model.status_ is Status.CONVERGED


def test_history_tells_of_every_pass(tmp_path) -> None:
    stored = write_zarr(tmp_path / "x.zarr", X, 100)
    model = fit(rows=stored, sample_size=300)
    passes = [r for r in model.history_ if r["phase"] != "start"]
    assert [r["phase"] for r in passes] == ["survey"] + ["em"] * model.n_iter_
    assert [r["number"] for r in passes] == [1, *range(1, model.n_iter_ + 1)]
    assert {r["rows"] for r in passes} == {N}
    assert {r["bytes"] for r in passes} == {X.nbytes}
    assert all(r["seconds"] >= 0 for r in model.history_)
    # Each pass tells what it found; a rejected one is not the best so far.
    found = [r["log_likelihood"] for r in passes[1:]]
    assert np.array_equal(np.maximum.accumulate(found), model.lower_bounds_)
    rejected = [r["number"] for r in passes[1:] if not r["accepted"]]
    assert all(found[i - 1] <= model.lower_bounds_[i - 2] for i in rejected)
    assert model.lower_bounds_[-1] == model.lower_bound_


def test_passes_count_the_survey_the_iterations_and_the_sample() -> None:
    model = fit(sample_size=300)
    in_sample = (model.n_passes_ - 1 - model.n_iter_) / (300 / N)
    assert in_sample == pytest.approx(round(in_sample))
    assert in_sample >= 1
    # A start that is given needs no sample; only the accelerated end asks it what is left.
    given = fit(algorithm="em", **start("full", MEANS))
    assert given.n_passes_ == 1 + given.n_iter_
    asked = fit(sample_size=300, **start("full", MEANS))
    in_sample = (asked.n_passes_ - 1 - asked.n_iter_) / (300 / N)
    assert in_sample == pytest.approx(round(in_sample))


def test_observers_see_passes_while_they_run() -> None:
    class Noting(Observer):
        def __init__(self) -> None:
            self.events: list[tuple[str, Any]] = []

        def notify(self, event: Event) -> None:
            match event:
                case PassStarted(phase, _, n_rows):
                    self.events.append((phase, n_rows))
                    self.rows = 0
                case RowsDone(n_rows):
                    self.rows += n_rows
                case PassEnded(record):
                    self.events.append((record.phase, self.rows))
                case StateReached(state):
                    self.events.append(("state", state.n_iter))
                case _:
                    raise AssertionError("no pass fails here")

    observer = Noting()
    model = fit(callbacks=[observer], **start("full", MEANS))
    one = [("em", N), ("em", N)]
    expected = [("survey", N), ("survey", N)]
    for number in range(1, model.n_iter_ + 1):
        expected += [*one, ("state", number)]
    assert observer.events == expected


def test_verbose_logs_a_line_for_each_pass(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="dask_em"):
        model = fit(verbose=1, **start("full", MEANS))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 + model.n_iter_
    assert lines[0].startswith(f"survey pass 1: {N} rows")


def test_provenance_tells_data_apart(tmp_path) -> None:
    stored = write_zarr(tmp_path / "x.zarr", X, 100)
    one, same, other = fit(rows=stored), fit(rows=stored), fit(rows=X + 1e-9)
    prints = [model.provenance_["fingerprint"] for model in (one, same, other)]
    assert prints[0] == prints[1] != prints[2]
    assert one.provenance_["source"].endswith("x.zarr")
    assert one.provenance_["n_rows"] == N


# -- what goes in and what comes out ---------------------------------------------


def test_frames_of_pandas_have_names() -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    model = fit(rows=frame)
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    assert isinstance(model.predict(frame), np.ndarray)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["b", "a", "c"]])
    model.fit(da.from_array(X))
    assert not hasattr(model, "feature_names_in_")


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score_samples"])
def test_answers_are_lazy_and_aligned_with_the_rows(method: str, tmp_path) -> None:
    model = fit()
    uneven = da.from_array(X, chunks=((7, 500, 993), (1, 2)))
    lazy = getattr(model, method)(uneven)
    assert lazy.chunks[0] == uneven.chunks[0]
    unknown = getattr(model, method)(uneven[uneven[:, 0] > 0])
    np.testing.assert_allclose(unknown.compute(), getattr(model, method)(X[X[:, 0] > 0]))
    np.testing.assert_allclose(lazy[:10].compute(), getattr(model, method)(X[:10]))


@pytest.mark.parametrize("change", [{"n_components": K + 1}, {"covariance_type": "diag"}])
def test_answers_are_of_the_fit_whatever_was_set_since(change: dict[str, Any]) -> None:
    model = fit()
    proba, criteria = model.predict_proba(X), model.criteria(X)
    model.set_params(**change)
    np.testing.assert_array_equal(model.predict_proba(X), proba)
    assert model.predict_proba(da.from_array(X)).shape == proba.shape
    assert model.criteria(X) == criteria
    np.testing.assert_allclose(model.to_sklearn().predict_proba(X), proba, atol=1e-12)


def test_answers_of_two_models_do_not_share_a_name() -> None:
    rows = da.from_array(X, chunks=(500, D))
    one, other = fit("full"), fit("spherical")
    assert one.predict(rows).name != other.predict(rows).name
    assert one.predict(rows).name != one.score_samples(rows).name


def test_criteria_come_from_one_pass(fitted: GaussianMixture) -> None:
    found = fitted.criteria(X)
    assert found["n_rows"] == N
    assert found["log_likelihood"] == fitted.score(X)
    for name in ("aic", "bic", "icl"):
        assert found[name] == getattr(fitted, name)(X)
    assert found["icl"] >= found["bic"]


def test_to_sklearn_is_a_fitted_scikit_learn_model(fitted: GaussianMixture) -> None:
    model = fitted.to_sklearn()
    assert type(model).__module__.startswith("sklearn")
    for name in PARAMETERS:
        np.testing.assert_array_equal(getattr(model, name), getattr(fitted, name))
    assert model.fit(X).converged_


def test_parameters_count_what_is_free() -> None:
    counts = {
        kind: GaussianMixture(4, covariance_type=kind).start_options().n_parameters(3)
        for kind in KINDS
    }
    means_and_weights = 4 * 3 + 3
    covariances = {"full": 4 * 6, "tied": 6, "diag": 4 * 3, "spherical": 4}
    assert counts == {kind: means_and_weights + covariances[kind] for kind in KINDS}
    assert fit("full").state_.mixture.n_parameters == GaussianMixture(
        K
    ).start_options().n_parameters(D)
