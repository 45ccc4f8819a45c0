"""Bayesian mixtures of Gaussians: every iteration is scikit-learn's, and the bound is one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import KINDS, blobs
from numpy.testing import assert_allclose
from scipy import integrate, special, stats
from sklearn.datasets import load_iris
from sklearn.mixture import BayesianGaussianMixture as SklearnBayesianGaussianMixture

from dask_em import BayesianGaussianMixture
from dask_em.core.additive import Array
from dask_em.core.mixture import Mixture
from dask_em.core.moments import Moments
from dask_em.core.parts import MixtureStatistics
from dask_em.families.bayesian_gaussian.family import BayesianGaussian
from dask_em.families.bayesian_gaussian.options import BayesianGaussianOptions
from dask_em.families.bayesian_gaussian.prior import WEIGHT_PRIORS, WeightPrior, WeightsPrior
from dask_em.families.gaussian.options import GaussianOptions
from dask_em.testing.families import FamilyTests

N, D, K = 400, 3, 3
pytestmark = pytest.mark.usefixtures("many_chunks")


class BayesianTests(FamilyTests):
    kind = "full"
    process: WeightPrior = "dirichlet_process"

    def rows(self) -> Array:
        return blobs(N, D, K, seed=2, apart=1.5)[0] * [1.0, 2.0, 0.5] + [0.0, 100.0, 0.0]

    def family(self) -> BayesianGaussian:
        options = BayesianGaussianOptions(GaussianOptions(self.kind), self.process)
        rows = self.rows()
        resp = np.eye(K)[np.arange(N) % K] + 0.1
        near = options.of_data(Moments.of(rows), K).near(rows, resp)
        found, _ = near.maximize(resp.sum(axis=0), near.sufficient_statistics(rows, resp))
        return found

    def mixture(self) -> Mixture:
        family = self.family()
        return Mixture(family.own_log_weights(), family)

    def expected(self, family: BayesianGaussian, resp: Array) -> float:
        """The bound at these responsibilities, but for their entropy."""
        log_prior = family.log_prior(family.own_log_weights())
        joint = (resp * (family.log_prob(self.rows()) + log_prior)).sum()
        return float(joint + family.log_prior_density())

    def test_an_m_step_is_never_worse(self) -> None:
        family, rows, resp = self.family(), self.rows(), self.resp()
        total = resp.sum(axis=0)
        after, _ = family.maximize(total, family.sufficient_statistics(rows, resp))
        now = self.expected(after, resp)
        assert now >= self.expected(family, resp)
        # No other posterior of this structure, whatever its spread, is better.
        rng = np.random.default_rng(0)
        vector = after.to_unconstrained()
        for _ in range(30):
            other = after.from_unconstrained(vector + 1e-3 * rng.normal(size=len(vector)))
            assert self.expected(other, resp) <= now + 1e-9
        for counts in (1.01 * after.counts, after.counts + np.eye(K)[0]):
            assert self.expected(replace(after, counts=counts), resp) < now

    def test_plain_em_never_gets_worse(self) -> None:
        mixture, values = self.mixture(), []
        for _ in range(30):
            sums = sums_of(mixture, self.rows())
            values.append(mixture.objective(sums))
            mixture = mixture.m_step(sums)[0]
        assert (np.diff(values) >= -1e-12).all()

    def test_a_component_without_rows_is_kept_or_put_where_some_are(self) -> None:
        family, rows, resp = self.family(), self.rows(), self.resp()
        resp[:, 0] = 0.0
        sums = family.sufficient_statistics(rows, resp)
        after, collapsed = family.maximize(resp.sum(axis=0), sums)
        assert not list(collapsed)
        # It is the prior's.
        assert_allclose(after.means[0], family.prior.mean, atol=1e-12)
        assert after.mean_precision[0] == family.prior.mean_precision
        if not family.shares_statistics:
            assert after.df[0] == family.prior.df

    def test_the_m_step_of_draws_finds_the_component(self) -> None:
        # Nearly: the prior is in it.
        pass


class TestFull(BayesianTests):
    pass


class TestTied(BayesianTests):
    kind = "tied"


class TestDiag(BayesianTests):
    kind = "diag"


class TestSpherical(BayesianTests):
    kind = "spherical"


class TestDistribution(BayesianTests):
    process: WeightPrior = "dirichlet_distribution"


# -- scikit-learn, iteration for iteration ------------------------------------------------


def sums_of(mixture: Mixture, rows: Array) -> MixtureStatistics:
    fold = mixture.fold()
    fold.update(0, rows, None)
    return fold.result()


def given_priors(kind: str, d: int) -> dict[str, Any]:
    spread = 0.3 * np.eye(d) + 0.1
    covariance: Any = {"diag": np.diagonal(spread), "spherical": 0.4}.get(kind, spread)
    return {
        "weight_concentration_prior": 0.7,
        "mean_precision_prior": 0.2,
        "mean_prior": np.arange(d) / 2,
        "degrees_of_freedom_prior": d + 1.5,
        "covariance_prior": covariance,
    }


def their_constant(theirs: Any, n: int, k: int) -> float:
    """What scikit-learn leaves out of its bound."""
    d = theirs.means_.shape[1]
    scatter = np.asarray(theirs.covariance_prior_)
    full = scatter if scatter.ndim == 2 else np.diag(np.broadcast_to(scatter, (d,)))
    df = theirs.degrees_of_freedom_prior_
    # SciPy's density of the prior at the identity, but for what is not constant.
    wishart = stats.wishart(df, np.linalg.inv(full)).logpdf(np.eye(d)) + np.trace(full) / 2
    wishart += d * (d - 1) / 4 * np.log(np.pi)
    mean = d / 2 * np.log(theirs.mean_precision_prior_)
    given = theirs.weight_concentration_prior_
    if theirs.weight_concentration_prior_type == "dirichlet_process":
        weights = -k * special.betaln(1.0, given)
    else:
        weights = special.gammaln(k * given) - k * special.gammaln(given)
    return float(k * (wishart + mean) + weights - n * d / 2 * np.log(2 * np.pi))


@pytest.mark.parametrize("priors", ["default", "given"])
@pytest.mark.parametrize("process", WEIGHT_PRIORS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_iteration_is_that_of_scikit_learn(
    kind: str, process: WeightPrior, priors: str
) -> None:
    X, species = load_iris(return_X_y=True)
    n, k = len(X), 6
    # One-hot in three of six components.
    resp = np.eye(k)[species]
    for ridge in (0.0, 1e-6):
        options: dict[str, Any] = {
            "covariance_type": kind,
            "weight_concentration_prior_type": process,
            "reg_covar": ridge,
            **(given_priors(kind, X.shape[1]) if priors == "given" else {}),
        }
        theirs = SklearnBayesianGaussianMixture(n_components=k, **options)
        theirs._check_parameters(X)
        theirs._initialize(X, resp)
        start = BayesianGaussianMixture(k, **options).start_options()
        mixture = start.of_responsibilities(Moments.of(X), X, resp)
        for _ in range(30 if priors == "default" else 8):
            assert_equal_parameters(mixture, theirs)
            sums = sums_of(mixture, X)
            after, collapsed = mixture.m_step(sums)
            assert not collapsed
            log_density, log_resp = theirs._e_step(X)
            assert sums.mean_log_likelihood == pytest.approx(float(log_density), rel=1e-10)
            theirs._m_step(X, log_resp)
            if ridge == 0:
                # Theirs is after the M-step, at the responsibilities before it.
                ours = n * (mixture.objective(sums) + mixture.m_step_gain(sums, after))
                bound = float(np.ravel(theirs._compute_lower_bound(log_resp, log_density))[0])
                constant = their_constant(theirs, n, k)
                assert ours == pytest.approx(bound + constant, abs=1e-8)
            mixture = after


def assert_equal_parameters(mixture: Mixture, theirs: Any) -> None:
    family = mixture.components
    assert isinstance(family, BayesianGaussian)
    ours = {
        **family.attributes(),
        "mean_precision_": family.mean_precision,
        "degrees_of_freedom_": family.df[0] if family.shares_statistics else family.df,
    }
    prior, counts = family.weights_prior, family.counts
    concentration: Any = prior.sticks(counts) if prior.is_process else prior.concentrations(counts)
    ours["weight_concentration_"] = np.asarray(concentration)
    for name in (
        *("means_", "covariances_", "precisions_cholesky_"),
        *("mean_precision_", "degrees_of_freedom_", "weight_concentration_"),
    ):
        expected = np.asarray(getattr(theirs, name))
        assert_allclose(ours[name], expected, rtol=1e-9, atol=1e-9, err_msg=name)
    log_weights = theirs._estimate_log_weights()
    own = family.weights_prior.mean_logs(family.counts)
    assert_allclose(own, log_weights, rtol=1e-10)


def test_a_fit_ends_where_scikit_learn_s_ends() -> None:
    X, species = load_iris(return_X_y=True)
    # As it stands in the reference, from the species.
    expected = [0.33738372, 0.19574278, 0.46580004, 0.0009228, 0.00013183, 0.00001883]
    start = BayesianGaussianMixture(6).start_options()
    mixture = start.of_responsibilities(Moments.of(X), X, np.eye(6)[species])
    for _ in range(600):
        mixture = mixture.m_step(sums_of(mixture, X))[0]
    assert_allclose(mixture.weights, expected, atol=1e-7)


def test_answers_are_those_of_scikit_learn() -> None:
    X = load_iris().data
    for kind in KINDS:
        model = BayesianGaussianMixture(4, covariance_type=kind, random_state=0).fit(X)
        theirs = SklearnBayesianGaussianMixture(n_components=4, covariance_type=kind)
        parameters = (
            *(model.weight_concentration_, model.mean_precision_, model.means_),
            *(model.degrees_of_freedom_, model.covariances_, model.precisions_cholesky_),
        )
        theirs.means_ = model.means_
        theirs._set_parameters(parameters)
        theirs.n_features_in_ = 4
        assert_allclose(model.weights_, theirs.weights_, rtol=1e-9)
        assert_allclose(model.precisions_, theirs.precisions_, rtol=1e-9)
        assert_allclose(model.score_samples(X), theirs.score_samples(X), rtol=1e-9, atol=1e-9)
        assert_allclose(model.predict_proba(X), theirs.predict_proba(X), atol=1e-9)
        np.testing.assert_array_equal(model.predict(X), theirs.predict(X))


# -- the bound is one ----------------------------------------------------------------------


def test_the_bound_is_below_the_evidence_and_near_it() -> None:
    # One component in one column: the evidence has a closed form, and the posterior is exact.
    X = np.random.default_rng(0).normal(3.0, 2.0, (40, 1))
    options: dict[str, Any] = {"reg_covar": 0, "tol": 1e-12}
    model = BayesianGaussianMixture(1, **options).fit(X)
    df, mean, precision = 1, X.mean(), 1.0
    scatter = X.var(ddof=1)
    # Student's t of all rows together.
    spread = scatter / df * (np.eye(40) + np.ones((40, 40)) / precision)
    evidence = stats.multivariate_t(np.full(40, mean), spread, df).logpdf(X.ravel())
    # The stick of one component is not broken, but for the prior's Beta, which it diverges from.
    stick = WeightsPrior("dirichlet_process", 1.0)
    lost = stick.divergence(np.array([40.0])) - 40 * stick.mean_logs(np.array([40.0]))[0]
    assert model.lower_bound_ + lost == pytest.approx(evidence, abs=1e-8)
    assert model.lower_bound_ < evidence


@pytest.mark.parametrize("given", [0.3, 1.0, 4.0])
def test_divergences_are_integrals(given: float) -> None:
    counts = np.array([3.0, 1.5])
    process = WeightsPrior("dirichlet_process", given)
    direct = 0.0
    for a, b in zip(*process.sticks(counts), strict=True):
        ours, prior = stats.beta(a, b), stats.beta(1.0, given)

        def gap(x: float, one: Any = ours, other: Any = prior) -> float:
            return float(one.pdf(x) * (one.logpdf(x) - other.logpdf(x)))

        direct += integrate.quad(gap, 0, 1, limit=200)[0]
    assert process.divergence(counts) == pytest.approx(direct, rel=1e-5)
    rng = np.random.default_rng(0)
    for prior_of in (process, WeightsPrior("dirichlet_distribution", given)):
        if prior_of.is_process:
            first = rng.beta(*prior_of.sticks(counts), size=(200_000, 2))
            drawn = np.stack([first[:, 0], (1 - first[:, 0]) * first[:, 1]], axis=1)
        else:
            drawn = rng.dirichlet(prior_of.concentrations(counts), 200_000)
        assert_allclose(prior_of.mean_logs(counts), np.log(drawn).mean(axis=0), atol=0.03)
    dirichlet = WeightsPrior("dirichlet_distribution", given)
    one, other = (stats.dirichlet(dirichlet.concentrations(c)) for c in (counts, 0 * counts))
    logs = [one.logpdf(x) - other.logpdf(x) for x in drawn[:20_000]]
    assert dirichlet.divergence(counts) == pytest.approx(np.mean(logs), abs=0.05)


def test_more_freedom_of_the_posterior_is_no_worse() -> None:
    # All structures restrict one posterior, if their priors are the same.
    X, species = load_iris(return_X_y=True)
    bounds = {}
    for kind in KINDS:
        options: dict[str, Any] = {"covariance_type": kind, "reg_covar": 0}
        options["degrees_of_freedom_prior"] = 6.0
        shape: Any = {"diag": np.ones(4), "spherical": 1.0}.get(kind, np.eye(4))
        start = BayesianGaussianMixture(3, covariance_prior=shape, **options).start_options()
        mixture = start.of_responsibilities(Moments.of(X), X, np.eye(3)[species])
        for _ in range(50):
            sums = sums_of(mixture, X)
            bounds[kind] = mixture.objective(sums)
            mixture = mixture.m_step(sums)[0]
    assert bounds["full"] > bounds["diag"] > bounds["spherical"]
    assert bounds["full"] > bounds["tied"]
