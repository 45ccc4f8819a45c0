"""Fits of Bayesian mixtures: how many components they find, and all that an estimator does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import KINDS, blobs, write_zarr
from numpy.testing import assert_allclose
from sklearn.utils.estimator_checks import check_estimator

from dask_em import BayesianGaussianMixture, GaussianMixture, load, select
from dask_em.backends.dask.backend import DaskBackend
from dask_em.backends.serial import SerialBackend
from dask_em.cli.main import main
from dask_em.core.additive import Array
from dask_em.core.codec import digest
from dask_em.core.em import EMState, Status
from dask_em.core.fleet import Fleet
from dask_em.core.mixture import EStep, JointEStep, Mixture, MixtureStatistics
from dask_em.data.open import as_source, labels_beside
from dask_em.data.options import ReadOptions
from dask_em.families.bayesian_gaussian.family import BayesianGaussian
from dask_em.families.gaussian.statistics import GaussianStatistics
from dask_em.fitting.mergers import Mergers, merged
from dask_em.fitting.sample import Sampled

pytestmark = [
    pytest.mark.usefixtures("many_chunks"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning"),
    pytest.mark.filterwarnings("ignore:X does not", "ignore:reg_covar="),
]

D, K = 2, 3
PROCESSES = ["dirichlet_process", "dirichlet_distribution"]


def rows_of(n: int = 600, seed: int = 3, apart: float = 5.0) -> Array:
    return blobs(n, D, K, seed=seed, apart=apart)[0]


def fit(X: Any, k: int = 8, **options: Any) -> BayesianGaussianMixture:
    return BayesianGaussianMixture(k, **{"random_state": 0, **options}).fit(X)


@pytest.mark.slow  # The Dirichlet process of full matrices is checked in the table of families.
@pytest.mark.parametrize("kind", KINDS[1:])
def test_scikit_learn_s_checks_pass(kind: str) -> None:
    check_estimator(BayesianGaussianMixture(covariance_type=kind))


# -- how many components ---------------------------------------------------------------------


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_needless_components_have_no_rows(kind: str, process: str) -> None:
    model = fit(rows_of(), covariance_type=kind, weight_concentration_prior_type=process)
    assert model.n_components_used_ == K
    assert {*model.predict(rows_of()).tolist()} == {*np.flatnonzero(model.weights_ > 0.05)}
    assert "3 with rows" in model.describe().structure


def test_a_fit_of_few_passes_is_no_worse_than_plain_iterations() -> None:
    X = rows_of(10_000, apart=2.5)
    quick = fit(X, sample_size=2000)
    plain = fit(X, algorithm="em", init_params="kmeans", max_iter=40)
    assert quick.lower_bound_ > plain.lower_bound_ - 1e-3
    assert quick.n_reads_ < plain.n_reads_ / 2
    assert quick.n_components_used_ == K


def test_mergers_are_judged_by_the_bound() -> None:
    X = rows_of()
    start = BayesianGaussianMixture(
        6, random_state=0, max_iter=0, init_params="kmeans", reg_covar=0
    )
    mixture = start.set_params(algorithm="em").fit(X).state_.result
    sample = Sampled(X, np.ones(len(X)))
    before = Mergers(mixture, sample)
    for pair in [(0, 1), (4, 2)]:
        told = before._gain(pair)
        # By responsibilities of one component less.
        resp = before._resp.copy()
        direct = bound_of(mixture, X, resp)
        resp[pair[0]] += resp[pair[1]]
        resp[pair[1]] = 0.0
        assert told == pytest.approx(bound_of(mixture, X, resp) - direct, abs=1e-7)
    found = merged(mixture, sample)
    assert found is not None
    assert isinstance(found.components, BayesianGaussian)
    assert found.components.used.sum() < 6
    # Rows that stand for others ask for no more components by chance.
    many = merged(mixture, sample.standing_for(1e5))
    assert many is not None
    assert isinstance(many.components, BayesianGaussian)
    assert many.components.used.sum() <= 6


def test_mergers_of_many_components_are_those_of_all_pairs_judged_again() -> None:
    X = rows_of(2000)
    options: dict[str, Any] = {"init_params": "k-means++", "algorithm": "em", "max_iter": 3}
    mixture = fit(X, 16, **options).state_.result
    found = Mergers(mixture, Sampled(X, np.ones(len(X))))
    judged = every = made = 0
    while True:
        known = {*found._known}
        if (pair := found.best()) is None:
            break
        judged += len({*found._known} - known)
        afresh = {one: found._gain(one) for one in found._worth_a_try()}
        assert found._known[pair] == pytest.approx(afresh[pair])
        assert afresh[pair] > 0
        every += len(afresh)
        found.merge(pair)
        assert_allclose(found._shared, found._resp @ found._resp.T, atol=1e-9)
        made += 1
    assert all(found._gain(pair) <= 0 for pair in found._worth_a_try())
    assert made > 8
    # Each merger asks for the pairs of one component, not for all.
    assert judged < every / 2


def test_two_components_do_not_share_a_cluster_for_hundreds_of_passes() -> None:
    # Two of three clusters overlap: a fourth component loses rows a few at a time, and iterations
    # after its merger, which loses at first, reach a higher bound.
    rng = np.random.default_rng(1)
    means, roots = 3.0 * rng.normal(size=(3, 2)), 0.5 * rng.normal(size=(3, 2, 2)) + np.eye(2)
    labels = rng.choice(3, 20_000, p=rng.dirichlet(np.full(3, 3.0)))
    X = means[labels] + np.einsum("nij,nj->ni", roots[labels], rng.normal(size=(20_000, 2)))
    model = fit(X, 12)
    assert model.n_components_used_ == 3
    assert model.converged_
    assert model.n_reads_ < 20


def bound_of(mixture: Mixture, X: Array, resp: Array) -> float:
    """The bound after the M-step of responsibilities (k, n), by them alone."""
    family = mixture.components
    assert isinstance(family, BayesianGaussian)
    sums = family.sufficient_statistics(X, np.ascontiguousarray(resp.T))
    after, _ = family.maximize(resp.sum(axis=1), sums)
    joint = after.log_prob(X).T + after.log_prior(after.own_log_weights())[:, None]
    safe = np.where(resp > 0, resp, 1.0)
    return float((resp * joint).sum() - (resp * np.log(safe)).sum() + after.log_prior_density())


# -- components without rows cost a pass what one costs ------------------------------------------


def unused(kind: str, process: str, k: int = 20) -> Mixture:
    """A mixture of which few components have rows."""
    found = fit(rows_of(), k, covariance_type=kind, weight_concentration_prior_type=process)
    return found.state_.result.on_cpu


def summed(mixture: Mixture, X: Array) -> tuple[MixtureStatistics, int]:
    """Sums of rows, and how many components the kernel has."""
    fold = mixture.fold()
    assert isinstance(fold, EStep)
    fold.update(0, X, None)
    return fold.result(), len(fold.kernel.statistics().first)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_components_without_rows_are_computed_as_one(
    kind: str, process: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, mixture = rows_of(), unused(kind, process)
    few, n_few = summed(mixture, X)
    monkeypatch.setattr(BayesianGaussian, "alike", lambda self: None)
    each, n_each = summed(mixture, X)
    assert (n_few <= K + 3, n_each) == (True, 20)
    # The bound of all rows, with every component, is wrong by less than its rounding.
    assert few.log_likelihood == pytest.approx(each.log_likelihood, abs=1e-9)
    assert_allclose(few.resp_sum, each.resp_sum, rtol=1e-6, atol=1e-10)
    one, other = (mixture.m_step(sums)[0] for sums in (few, each))
    for name, array in one.components.arrays().items():
        assert_allclose(array, other.components.arrays()[name], rtol=1e-9, atol=1e-9, err_msg=name)
    assert_allclose(one.log_weights, other.log_weights, rtol=1e-9)


def test_mixtures_of_one_pass_leave_out_components_each_for_itself() -> None:
    X, mixtures = rows_of(), [unused("full", process) for process in PROCESSES]
    joint = JointEStep(mixtures)
    joint.update(0, X, None)
    for found, mixture in zip(joint.results(), mixtures, strict=True):
        alone, _ = summed(mixture, X)
        assert found.log_likelihood == pytest.approx(alone.log_likelihood, rel=1e-12)
        assert_allclose(found.resp_sum, alone.resp_sum, rtol=1e-6, atol=1e-10)


def test_a_component_that_rows_ask_for_again_is_computed_alone() -> None:
    X, mixture = rows_of(), unused("full", "dirichlet_process", 8)
    before, n_before = summed(mixture, X)
    _, n_now = summed(mixture.m_step(before)[0], X)
    wide = np.random.default_rng(0).normal(X.mean(axis=0), 15.0, (200, D))
    far = np.concatenate([X, wide])
    after = mixture.m_step(summed(mixture, far)[0])[0]
    assert isinstance(after.components, BayesianGaussian)
    assert after.components.used.sum() > K
    assert summed(after, far)[1] > n_now >= K
    assert n_before <= K + 3


def test_who_computes_and_whether_it_was_stopped_does_not_matter(
    synchronous: None, tmp_path: Path
) -> None:
    stored = write_zarr(tmp_path / "x.zarr", rows_of(), 100)
    mixture = unused("full", "dirichlet_process")
    source = as_source(stored)
    found = [b.map_reduce(source, mixture) for b in (SerialBackend(), DaskBackend())]
    assert digest(found[0]) == digest(found[1])
    options: dict[str, Any] = {"k": 12, "init_params": "kmeans", "sample_size": 300, "tol": 1e-9}
    straight = fit(stored, **options)

    def stop(state: EMState) -> None:
        if state.n_iter == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(stored, **options, checkpoint=tmp_path / "kept", callbacks=[stop])
    resumed = fit(stored, **options, checkpoint=tmp_path / "kept")
    assert digest(resumed.state_) == digest(straight.state_)


def evidence(n: int, k: int) -> Array:
    """Responsibilities (n, k) of every third row; components from K on have hardly any."""
    rng = np.random.default_rng(5)
    z = np.where(np.arange(k) < K, 1.0, 1e-9) * rng.dirichlet(np.ones(k), n)
    z /= z.sum(axis=1, keepdims=True)
    z[np.arange(n) % 3 > 0] = -1.0
    return z


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "responsibilities"])
@pytest.mark.parametrize("kind", ["full", "tied"])
def test_labels_tell_components_without_rows_apart(kind: str, soft: bool) -> None:
    X, mixture = rows_of(), unused(kind, "dirichlet_process", 9)
    assert mixture.components.alike() is not None
    # Hard labels name components that have no rows.
    hard = np.where(np.arange(len(X)) % 3 > 0, -1, np.arange(len(X)) % 9)
    known = evidence(len(X), 9) if soft else np.where(hard[:, None] < 0, -1.0, np.eye(9)[hard])
    joint = mixture.components.log_prob(X).T + mixture.log_prior[:, None]
    with np.errstate(divide="ignore"):
        joint += np.log(np.where(known < 0, 1.0, known)).T
    density = np.logaddexp.reduce(joint)
    resp = np.exp(joint - density)
    sums = mixture.components.sufficient_statistics(X, np.ascontiguousarray(resp.T))
    source = labels_beside(as_source(X), X, known if soft else hard, 9, ReadOptions())
    for backend in (SerialBackend(), DaskBackend()):
        found = backend.map_reduce(source, mixture)
        assert found.log_likelihood == pytest.approx(density.sum(), rel=1e-10)
        assert_allclose(found.resp_sum, resp.sum(axis=1), rtol=1e-8, atol=1e-10)
        assert isinstance(found.components, GaussianStatistics)
        assert_allclose(found.components.first, sums.first, rtol=1e-7, atol=1e-7)
        assert_allclose(found.components.scatter, sums.scatter, rtol=1e-7, atol=1e-7)


def test_rows_with_labels_come_in_blocks_of_all_components() -> None:
    some = unused("full", "dirichlet_process", 9)
    assert isinstance(some.components, BayesianGaussian)
    mixture = some.take([*range(9)] + [int(some.components.counts.argmin())] * 400)
    fleet = Fleet((mixture,))
    few, every = fleet.fold(), fleet.fold()
    every.begin_labelled(1)
    kernel = mixture.components.kernel(mixture.engine)
    assert every.block_rows == kernel.part_rows < few.block_rows


def test_the_bound_rises_where_labels_are_kept() -> None:
    X, k = rows_of(apart=2.0), 8
    model = BayesianGaussianMixture(k, algorithm="em", tol=1e-9, max_iter=60)
    model.fit(X, labels_init=evidence(len(X), k), labels_fixed=True)
    assert model.state_.result.components.alike() is not None
    assert model.n_components_used_ == K
    assert (np.diff(model.lower_bounds_) >= -1e-12).all()
    # The bound after the last M-step is that of its responsibilities, by them alone.
    source = labels_beside(as_source(X), X, evidence(len(X), k), k, ReadOptions())
    sums = SerialBackend().map_reduce(source, model.state_.result)
    assert model.state_.result.objective(sums) >= model.lower_bound_ - 1e-12


# -- what an estimator does -------------------------------------------------------------------


def test_attributes_are_scikit_learn_s() -> None:
    X = rows_of()
    for kind in KINDS:
        model = fit(X, 4, covariance_type=kind)
        assert isinstance(model.lower_bound_, float)
        assert model.lower_bounds_[-1] == model.lower_bound_
        assert model.weight_concentration_prior_ == 0.25
        assert (model.mean_precision_prior_, model.degrees_of_freedom_prior_) == (1.0, 2.0)
        assert_allclose(model.mean_prior_, X.mean(axis=0))
        spread = np.cov(X.T)
        expected: Any = {"diag": np.diagonal(spread), "spherical": np.diagonal(spread).mean()}
        assert_allclose(model.covariance_prior_, expected.get(kind, spread))
        assert isinstance(model.degrees_of_freedom_, float) == (kind == "tied")
        first, rest = model.weight_concentration_
        assert first.sum() == pytest.approx(len(X) + 4)
        assert_allclose(rest[:-1] - rest[1:], first[1:] - 1.0, atol=1e-9)
    assert model.objective_.name == "variational bound"
    assert model.history_[-1]["variational_bound"] == pytest.approx(model.lower_bound_, rel=1e-6)


def test_units_do_not_matter() -> None:
    X = rows_of()
    one = fit(X, algorithm="em", init_params="kmeans", reg_covar=0, max_iter=20)
    for offset, scale in [(1e6, 1.0), (0.0, 1e-6)]:
        moved = fit(
            scale * X + offset, algorithm="em", init_params="kmeans", reg_covar=0, max_iter=20
        )
        assert_allclose((moved.means_ - offset) / scale, one.means_, atol=1e-5)
        assert_allclose(moved.covariances_ / scale**2, one.covariances_, rtol=1e-5)
        bound = moved.lower_bound_ + len(X) * D * np.log(scale)
        assert bound == pytest.approx(one.lower_bound_, abs=1e-3)


def test_weights_count_rows() -> None:
    X = rows_of(300)
    weights = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)
    options: dict[str, Any] = {"algorithm": "em", "init_params": "kmeans", "max_iter": 5}
    given = BayesianGaussianMixture(4, random_state=0, **options).fit(X, sample_weight=weights)
    prior = given.covariance_prior_
    repeated = np.repeat(X, weights.astype(int), axis=0)
    assert_allclose(prior, np.cov(repeated.T))
    assert_allclose(given.mean_prior_, repeated.mean(axis=0))
    assert given.mean_precision_.sum() == pytest.approx(len(repeated) + 4)


def test_a_model_file_holds_the_priors(tmp_path: Path) -> None:
    given: dict[str, Any] = {"mean_prior": [1.0, 2.0], "covariance_prior": [3.0, 4.0]}
    model = fit(rows_of(), 4, covariance_type="diag", **given)
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert isinstance(again, BayesianGaussianMixture)
    assert_allclose(again.mean_prior_, given["mean_prior"])
    assert_allclose(again.covariance_prior_, given["covariance_prior"])
    assert again.lower_bound_ == model.lower_bound_
    assert again.lower_bounds_ == model.lower_bounds_
    again.set_params(warm_start=True).fit(rows_of())
    assert again.lower_bound_ >= model.lower_bound_ - 1e-6
    # Other priors are another fit.
    again.set_params(covariance_prior=[1.0, 1.0])
    assert not again.may_go_on


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight_concentration_prior": 0.0}, "weight_concentration_prior=0.0: expected a number"),
        ({"mean_precision_prior": -1}, "mean_precision_prior=-1: expected a number above 0"),
        (
            {"degrees_of_freedom_prior": 1.0},
            "degrees_of_freedom_prior=1.0: expected a number above",
        ),
        ({"mean_prior": [0.0]}, "mean_prior has shape"),
        ({"covariance_prior": np.ones((2, 2))}, "covariance_prior must be a symmetric matrix"),
        ({"covariance_prior": [1.0, -1.0], "covariance_type": "diag"}, "must be positive"),
        ({"weight_concentration_prior_type": "none"}, "expected one of dirichlet_process"),
        ({"covariance_type": "round"}, "covariance_type='round'"),
    ],
)
def test_options_that_are_none_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit(rows_of(), 2, **options)


def test_a_column_that_does_not_vary_has_a_bound() -> None:
    X = np.column_stack([rows_of(), np.full(600, 7.0)])
    for kind in KINDS:
        model = fit(X, 4, covariance_type=kind)
        assert np.isfinite(model.lower_bound_)
        assert model.status_ is not Status.COLLAPSED


def test_a_sweep_compares_bounds() -> None:
    X = rows_of()
    found = select(X, [1, 3, 6], estimator=BayesianGaussianMixture, random_state=0, keep_all=True)
    bounds = [model.lower_bound_ for model in found.models]
    assert found.best.lower_bound_ == max(bounds)
    for row, bound in zip(found.table, bounds, strict=True):
        assert row["bic"] == pytest.approx(-2 * bound, rel=1e-6)


def test_criteria_count_components_with_rows() -> None:
    X = rows_of(2000)
    for model in (fit(X), GaussianMixture(K, random_state=0).fit(X)):
        found = model.criteria(X)
        counted = (found["bic"] - found["aic"]) / (np.log(len(X)) - 2)
        assert counted == pytest.approx(3 * (2 + 3) + 2)


def test_the_command_line_fits_them(tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", rows_of(), 200)
    model = tmp_path / "m.npz"
    words = [
        *("fit", str(tmp_path / "x.zarr"), "-k", "6", "-o", str(model), "--json"),
        *(
            "--family",
            "bayesian-gaussian",
            "--weight-concentration-prior-type",
            "dirichlet_distribution",
        ),
        *("--weight-concentration-prior", "0.01", "--covariance", "diag", "--workers", "1"),
    ]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    again = load(model)
    assert isinstance(again, BayesianGaussianMixture)
    assert again.weight_concentration_prior_ == 0.01
    assert told["variational_bound"] == pytest.approx(again.lower_bound_)
    assert told["log_likelihood"] == pytest.approx(again.score(rows_of()), rel=1e-3)
    shown = CliRunner().invoke(main, ["inspect", str(model)])
    assert "diag covariance, Dirichlet distribution, 3 with rows" in shown.output
    assert "variational bound -" in shown.output
    words[words.index("dirichlet_distribution") - 1 :] = ["--degrees-of-freedom-prior", "1"]
    refused = CliRunner().invoke(main, [*words, "--overwrite"])
    assert refused.exit_code == 2
    assert "--degrees-of-freedom-prior 1" in refused.output
