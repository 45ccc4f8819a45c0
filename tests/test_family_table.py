"""The table of families: every law of a fit, over every family.

A family has one row here: its estimator, and rows that suit it. What is of the family alone (its
density beside scipy's, its sums, its M-step) it inherits from `dask_em.testing.FamilyTests`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client
from helpers import SmallReads, assert_sums_close, blobs, start_cluster, write_zarr
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.utils.estimator_checks import check_estimator

from dask_em import (
    BayesianGaussianMixture,
    BernoulliMixture,
    CategoricalMixture,
    ExponentialMixture,
    FactorMixture,
    GammaMixture,
    GaussianMixture,
    KMeans,
    MixedMixture,
    MultinomialMixture,
    PoissonMixture,
    StudentTMixture,
    load,
    select,
    to_sql,
)
from dask_em.core.additive import Array
from dask_em.core.codec import digest
from dask_em.core.em import Convergence, PlainEM, Status, em, run_algorithm
from dask_em.core.incremental import Carried
from dask_em.core.mixture import Mixture
from dask_em.core.reduction import add_tree
from dask_em.errors import UsageError
from dask_em.estimators.base import MixtureEstimator
from dask_em.fitting.control_variate import algorithm_of
from dask_em.fitting.kept_sample import CarriedSample, KeptSample
from dask_em.fitting.observers import Event, Observer, RowsDone
from dask_em.fitting.sample import Sampled

N, K = 1200, 3
RATES = np.array([[2.0, 9.0, 4.0], [8.0, 3.0, 9.0], [14.0, 14.0, 1.0]])

pytestmark = [
    pytest.mark.usefixtures("many_chunks"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning"),
    pytest.mark.filterwarnings("ignore:X does not", "ignore:reg_covar="),
]


@dataclass(frozen=True)
class Row:
    """A family in the table.

    Attributes
    ----------
    estimator : MixtureEstimator
        With the options that make it this row.
    rows : callable
        Makes `N` rows of `K` clusters that the family can tell apart.
    ordered : bool
        Whether the prior of the weights tells components by their order.
    checked : bool
        Whether scikit-learn's checks are run here, and not among the tests of the family alone.
    """

    estimator: MixtureEstimator
    rows: Callable[[], Array]
    checked: bool = False
    ordered: bool = False

    def make(self, k: int = K, **options: Any) -> MixtureEstimator:
        own = self.estimator.get_params(deep=False)
        few = {"random_state": 0, "sample_size": 400, "tol": 1e-6}
        size = {self.estimator.size_option: k}
        return type(self.estimator)(**{**own, **few, **options, **size})

    def fit(self, rows: Any = None, **options: Any) -> MixtureEstimator:
        return self.make(**options).fit(self.rows() if rows is None else rows)

    @cached_property
    def fitted(self) -> MixtureEstimator:
        """The fit with no other options, which nothing may change."""
        return self.fit()

    @property
    def hard(self) -> bool:
        """Whether each row is given to one component."""
        return self.estimator.assignment == "hard"

    def fit_plainly(self, start: str = "random_from_data", **options: Any) -> MixtureEstimator:
        """Fit without acceleration, from one start at random."""
        plain: dict[str, Any] = {"algorithm": "em", "init_params": start}
        if self.hard:
            plain = {"algorithm": "lloyd", "init": "random"}
        return self.fit(**plain, **options)

    def objective_of_rows(self, model: MixtureEstimator, rows: Array, labels: Array) -> Array:
        """What each row of a component adds to the score of a model, by its public answers, (n,).

        A mixture shares rows among all components, whatever their labels.
        """
        if self.hard:
            assert isinstance(model, KMeans)
            return -(np.asarray(model.transform(rows))[np.arange(len(rows)), labels] ** 2)
        return np.asarray(model.score_samples(rows))


@cache
def normal() -> Array:
    return blobs(N, 3, K, seed=3, apart=3.0)[0]


def labels() -> Array:
    return np.random.default_rng(5).choice(K, N, p=[0.5, 0.3, 0.2])


@cache
def of_factors() -> Array:
    rng = np.random.default_rng(14)
    loadings = rng.normal(size=(K, 1, 5))
    rows = rng.normal(size=(N, 1, 1)) @ loadings[labels()] + 0.5 * rng.normal(size=(N, 1, 5))
    return np.asarray(rows[:, 0] + 2.0 * rng.normal(size=(K, 5))[labels()])


@cache
def with_noise() -> Array:
    rows, rng = normal().copy(), np.random.default_rng(15)
    # Many: of few the likelihood per row hardly tells.
    rows[: N // 3] = rng.uniform(rows.min(axis=0) - 5, rows.max(axis=0) + 5, (N // 3, 3))
    return rng.permutation(rows)


@cache
def with_holes() -> Array:
    rows = normal().copy()
    rows[np.random.default_rng(13).random(rows.shape) < 0.2] = np.nan
    return rows


@cache
def counts() -> Array:
    return np.random.default_rng(6).poisson(RATES[labels()]).astype(np.float64)


@cache
def several() -> Array:
    rng, of = np.random.default_rng(7), labels()
    means = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 2.0]])
    apart = rng.normal(means[of], 1.0)
    return np.column_stack([apart[:, 0], rng.poisson(0.3 * RATES[of, :2]), apart[:, 1]])


@cache
def tailed() -> Array:
    rng = np.random.default_rng(8)
    return normal() + rng.standard_t(3.0, (N, 3))


@cache
def answers() -> Array:
    rng = np.random.default_rng(9)
    shares = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    said = [rng.choice(3, p=shares[k], size=6) for k in labels()]
    return np.array(said, dtype=np.float64)


@cache
def yes_or_no() -> Array:
    shares = np.array([[0.9] * 8, [0.1] * 8, [0.9] * 4 + [0.1] * 4])
    return (np.random.default_rng(11).random((N, 8)) < shares[labels()]).astype(np.float64)


@cache
def amounts() -> Array:
    rng = np.random.default_rng(10)
    return rng.gamma(4.0, 0.25 * RATES[labels()])


@cache
def times() -> Array:
    scales = np.array([[1.0, 100.0, 10.0], [100.0, 1.0, 10.0], [10.0, 10.0, 1000.0]])
    return np.random.default_rng(12).exponential(scales[labels()])


FAMILIES = {
    "gaussian": Row(GaussianMixture(), normal),
    "gaussian-tied": Row(GaussianMixture(covariance_type="tied"), normal),
    "gaussian-vve": Row(GaussianMixture(covariance_type="VVE"), normal),
    "gaussian-noise": Row(GaussianMixture(noise=True), with_noise),
    "gaussian-mar": Row(GaussianMixture(missing_values="mar"), with_holes),
    "bayesian": Row(BayesianGaussianMixture(reg_covar=0), normal, checked=True, ordered=True),
    "bayesian-tied": Row(
        BayesianGaussianMixture(
            covariance_type="tied",
            reg_covar=0,
            weight_concentration_prior_type="dirichlet_distribution",
        ),
        normal,
    ),
    "bayesian-diag": Row(
        BayesianGaussianMixture(covariance_type="diag", reg_covar=0), normal, ordered=True
    ),
    "bayesian-spherical": Row(
        BayesianGaussianMixture(
            covariance_type="spherical",
            reg_covar=0,
            weight_concentration_prior_type="dirichlet_distribution",
        ),
        normal,
    ),
    "factor": Row(FactorMixture(), of_factors),
    "factor-cuc": Row(FactorMixture(factor_constraint="CUC"), of_factors),
    "kmeans": Row(KMeans(), normal),
    "kmeans-spherical": Row(KMeans(spherical=True), normal),
    "student-t": Row(StudentTMixture(), tailed),
    "student-t-noise": Row(StudentTMixture(noise=True, df=5.0), with_noise),
    "bernoulli": Row(BernoulliMixture(), yes_or_no),
    "categorical": Row(CategoricalMixture(), answers),
    "poisson": Row(PoissonMixture(), counts),
    "multinomial": Row(MultinomialMixture(), counts),
    "exponential": Row(ExponentialMixture(), times),
    "gamma": Row(GammaMixture(), amounts),
    "mixed": Row(
        MixedMixture(columns={"gaussian": [3, 0], "poisson": [1, 2]}), several, checked=True
    ),
}


# Noise beside one family is held to the laws by default.
SLOW = {
    "student-t-noise",
    "gaussian-tied",
    "gaussian-vve",
    "bayesian-tied",
    "bayesian-diag",
    "bayesian-spherical",
    "factor-cuc",
    "kmeans-spherical",
}
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in FAMILIES]


@pytest.fixture(params=NAMES)
def family(request: pytest.FixtureRequest) -> Row:
    return FAMILIES[request.param]


@pytest.fixture(scope="module", params=[1, 3])
def workers(request: pytest.FixtureRequest) -> Iterator[Client]:
    with start_cluster(request.param) as cluster, Client(cluster, set_as_default=False) as client:
        client.register_plugin(SmallReads())
        yield client


# -- EM from one start: sums, order, weights, components ----------------------------------


@cache
def rough(name: str) -> Mixture:
    """A mixture a few steps away from where it began, and not yet at its end."""
    row = FAMILIES[name]
    # A random start may leave a component without rows, of which some laws say nothing.
    models = (row.fit_plainly(max_iter=3, random_state=seed) for seed in range(10))
    model = next(model for model in models if model.status_ is not Status.COLLAPSED)
    return model.state_.mixture.on_cpu


def after(mixture: Mixture, parts: Sequence[tuple[Array, Array | None]]) -> Mixture:
    """Three iterations of EM on rows in chunks, with weights."""

    def accumulate(at: Mixture) -> Any:
        found = []
        for index, (X, weight) in enumerate(parts):
            fold = at.fold()
            fold.update(index, X, weight)
            found.append(fold.result())
        return add_tree(found)

    *_, last = em(accumulate, mixture, Convergence(0.0, 3))
    return last.result


def assert_close(one: Mixture, other: Mixture) -> None:
    assert_allclose(one.log_weights, other.log_weights, rtol=1e-8, atol=1e-8)
    assert_allclose(one.noise_weight, other.noise_weight, rtol=1e-8)
    arrays = other.components.arrays()
    for name, array in one.components.arrays().items():
        assert_allclose(array, arrays[name], rtol=1e-6, atol=1e-7, err_msg=name)


def turned(mixture: Mixture, order: Sequence[int]) -> Mixture:
    """The same with its components in another order."""
    return mixture.reordered(order)


@pytest.fixture
def start(request: pytest.FixtureRequest, family: Row) -> Mixture:
    return rough(request.node.callspec.params["family"])


def test_any_chunking_is_one_chunk(family: Row, start: Mixture) -> None:
    X = family.rows()
    for cuts in ([1, 2, 600], [17, 400, 401, 1100]):
        parts = [(part, None) for part in np.split(X, cuts)]
        assert_close(after(start, parts), after(start, [(X, None)]))


def test_the_order_of_rows_does_not_matter(family: Row, start: Mixture) -> None:
    X = family.rows()
    mixed_up = X[np.random.default_rng(1).permutation(N)]
    assert_close(after(start, [(mixed_up, None)]), after(start, [(X, None)]))


def test_a_weight_is_a_row_repeated(family: Row, start: Mixture) -> None:
    X = family.rows()
    weight = np.random.default_rng(2).integers(0, 4, N)
    assert_close(
        after(start, [(X, weight.astype(np.float64))]),
        after(start, [(np.repeat(X, weight, axis=0), None)]),
    )


def test_the_order_of_components_does_not_matter(family: Row, start: Mixture) -> None:
    X, order = family.rows(), [2, 0, 1]
    if start.components.shares_statistics or family.ordered:
        pytest.skip("what all components share is not taken apart, and some are told by order")
    there, here = after(turned(start, order), [(X, None)]), after(start, [(X, None)])
    assert_close(there, turned(here, order))


# -- sums that others join -------------------------------------------------------------------


def test_the_bound_of_an_update_never_falls(family: Row, start: Mixture) -> None:
    rows = family.rows()
    old, new = rows[:800], rows[800:]
    if not start.components.carries:
        with pytest.raises(UsageError, match="sums that hold at its own parameters"):
            family.fitted.update(new)
        return

    def sums(at: Mixture, X: Array) -> Any:
        fold = at.fold()
        fold.update(0, X, None)
        return fold.result()

    state = PlainEM(start, Convergence(0.0, 9)).tell(sums(start, old))
    carried = Carried.of(state)
    # At the parameters of both E-steps it is the log-likelihood of all rows.
    both = carried.at(start) + sums(start, new)
    assert_sums_close(both, sums(start, rows), 1e-9)
    for named in ("em", "auto"):
        algorithm = algorithm_of(named, state.result, Convergence(0.0, 8), None)
        states = list(run_algorithm(lambda at: carried.at(at) + sums(at, new), algorithm))
        reached = np.array([one.objective for one in states])
        # What is added to variances may take a little of it.
        assert (np.diff(reached) >= -1e-7 * (1 + np.abs(reached[0]))).all()
        assert reached[-1] > reached[0] or len(reached) < 3
        for one in states:
            here = one.mixture.objective(sums(one.mixture, rows))
            assert one.objective <= here + 1e-9 * (1 + abs(here))


def test_sums_that_follow_a_sample_are_of_no_less_at_each_step(family: Row, start: Mixture) -> None:
    rows = family.rows()
    old, new = rows[:800], rows[800:]
    if not start.components.carries or start.assignment == "hard":
        pytest.skip("no sample says how its sums would change")

    def sums(at: Mixture, X: Array) -> Any:
        fold = at.fold()
        fold.update(0, X, None)
        return fold.result()

    state = PlainEM(start, Convergence(0.0, 9)).tell(sums(start, old))
    few = KeptSample.of(Sampled(old[::2], np.ones(400)), 400, 800.0)
    carried = CarriedSample(state.mixture, state.statistics, few)
    # At the parameters of both E-steps it is the log-likelihood of all rows.
    assert_sums_close(carried.at(start) + sums(start, new), sums(start, rows), 1e-9)
    # A sample of all rows knows all that a pass over them does.
    every = KeptSample.of(Sampled(old, np.ones(800)), 800, 800.0)
    exact = CarriedSample(state.mixture, state.statistics, every).at(state.result)
    assert_sums_close(exact, sums(state.result, old), 1e-7)
    algorithm = algorithm_of("em", state.result, Convergence(0.0, 8), None)
    states = list(run_algorithm(lambda at: carried.at(at) + sums(at, new), algorithm))
    reached = np.array([one.objective for one in states])
    assert (np.diff(reached) >= -1e-7 * (1 + np.abs(reached[0]))).all()


# -- fits ------------------------------------------------------------------------------------


def test_plain_em_never_gets_worse(family: Row) -> None:
    bounds = family.fit_plainly("random", max_iter=15).lower_bounds_
    assert len(bounds) >= 3
    assert (np.diff(bounds) >= -1e-9 * np.abs(bounds[0])).all()


def test_the_accelerated_fit_ends_no_lower(family: Row) -> None:
    plain = family.fit_plainly(max_iter=300, tol=1e-9)
    quick = family.fit(tol=1e-9)
    assert quick.lower_bound_ > plain.lower_bound_ - 1e-6
    assert quick.n_iter_ <= plain.n_iter_


def test_engines_agree(family: Row) -> None:
    pytest.importorskip("numba", reason="the extra `fast` is not installed")
    found = []
    for fast in (False, True):
        with dask.config.set({"dask_em.fast": fast}):
            found.append(family.fit_plainly(max_iter=4))
    one, other = (model.state_.result for model in found)
    assert_close(one, other)


def test_a_sweep_is_the_fits_apart(family: Row) -> None:
    found = select(
        family.rows(), [2, K], estimator=family.make(), exhaustive=True, keep_all=True, n_init=1
    )
    for model, alone in zip(found.models, (family.fit(k=2), family.fitted), strict=True):
        assert model.n_components == alone.n_components
        assert alone.lower_bound_ == pytest.approx(model.lower_bound_, rel=1e-7)
    assert found.best.n_components == K


def test_answers_belong_together(family: Row) -> None:
    model, rows = family.fitted, family.rows()
    proba, labels = model.predict_proba(rows), model.predict(rows)
    assert_allclose(proba.sum(axis=1), 1.0)
    # Noise, in the last column, has the label -1.
    assert_array_equal(labels, (proba.argmax(axis=1) + 1) % (K + 1) - 1)
    of_rows = family.objective_of_rows(model, rows, labels)
    # Of the likelihood the score is that of a row, of the inertia that of all.
    total = of_rows.sum() if family.hard else of_rows.mean()
    assert model.score(rows) == pytest.approx(total, rel=1e-9)
    reached = -model.objective_.value if family.hard else model.objective_.value
    if model.objective_.name != "variational bound":
        # A bound is less than what rows add, by what the posterior differs from the prior.
        assert model.score(rows) == pytest.approx(reached, rel=1e-4)
    drawn, components = model.sample(500)
    assert drawn.shape == (500, rows.shape[1])
    assert {*components.tolist()} <= {*range(-(model.fitted_box is not None), K)}
    # Values that rows lack are no part of what they score.
    drawn = np.where(np.isnan(rows[:500]), np.nan, drawn)
    of_drawn = family.objective_of_rows(model, drawn, components)
    assert of_drawn.mean() == pytest.approx(of_rows.mean(), rel=0.1)
    assert model.bic(rows) < family.fit(k=1).bic(rows)


def test_a_model_file_holds_the_model(family: Row, tmp_path: Path) -> None:
    model, rows = family.fitted, family.rows()
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert type(again) is type(model)
    assert digest(again.state_) == digest(model.state_)
    assert_array_equal(again.predict(rows), model.predict(rows))
    again.set_params(warm_start=True).fit(rows)
    assert again.lower_bound_ >= model.lower_bound_ - 1e-9


def test_its_parameters_are_the_model(family: Row, tmp_path: Path) -> None:
    model, rows = family.fitted, family.rows()
    if model.fitted_box is not None:
        with pytest.raises(UsageError, match="do not make a model with noise"):
            model.given_parameters()
        with pytest.raises(UsageError, match="has no formula"):
            to_sql(model)
        return
    given = {**model.given_parameters(), **model.given_options()}
    again = type(model).from_parameters(weights=model.weights_, **given)
    assert again.status_ is Status.GIVEN
    assert_array_equal(again.predict(rows), model.predict(rows))
    found, expected = (
        family.objective_of_rows(one, rows, model.predict(rows)) for one in (again, model)
    )
    assert_allclose(found, expected, rtol=1e-7, atol=1e-7)
    again.save(tmp_path / "m.npz")
    assert digest(load(tmp_path / "m.npz").state_) == digest(again.state_)
    again.set_params(warm_start=True).fit(rows)
    assert again.criteria(rows)["log_likelihood"] >= model.criteria(rows)["log_likelihood"] - 1e-6


class StoppedError(Exception):
    """What ends a fit that is to be resumed."""


class StopAfter(Observer):
    """Stop after so many parts of passes."""

    def __init__(self, parts: int) -> None:
        self.left = parts

    def notify(self, event: Event) -> None:
        self.left -= isinstance(event, RowsDone)
        if self.left == 0:
            raise StoppedError


def test_a_resumed_fit_has_the_bits_of_a_straight_one(
    family: Row, synchronous: None, tmp_path: Path
) -> None:
    stored = write_zarr(tmp_path / "x.zarr", family.rows(), 200)
    straight = family.fit(stored)
    for parts in (3, 15):
        kept = tmp_path / f"kept{parts}"
        with pytest.raises(StoppedError):
            family.fit(stored, checkpoint=kept, callbacks=[StopAfter(parts)])
        resumed = family.fit(stored, checkpoint=kept)
        assert digest(resumed.state_) == digest(straight.state_)


def test_any_workers_give_the_bits_of_threads(workers: Client, family: Row, tmp_path: Path) -> None:
    stored = write_zarr(tmp_path / "x.zarr", family.rows(), 150)
    here = family.fit(stored)
    with workers.as_current():
        there = family.fit(stored)
    assert digest(here.state_) == digest(there.state_)


@pytest.mark.parametrize("name", [name for name, row in FAMILIES.items() if row.checked])
def test_scikit_learn_s_checks_pass(name: str) -> None:
    check_estimator(type(FAMILIES[name].estimator)())
