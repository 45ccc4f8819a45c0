"""Models of given parameters, and of scikit-learn's: usable at once, and where a fit starts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.cluster
import sklearn.mixture
from helpers import blobs
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal
from sklearn.exceptions import NotFittedError

from dask_em import (
    BayesianGaussianMixture,
    CategoricalMixture,
    GaussianMixture,
    KMeans,
    MixedMixture,
    PoissonMixture,
    StudentTMixture,
    from_sklearn,
    load,
)
from dask_em.core.additive import Array
from dask_em.core.em import Status
from dask_em.report.page import report_html

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:X does not have valid feature names"),
]

WEIGHTS, MEANS = [0.25, 0.75], np.array([[0.0, 0.0], [4.0, 1.0]])
COVARIANCES = np.array([[[2.0, 0.5], [0.5, 1.0]], [[1.0, -0.3], [-0.3, 0.5]]])


@pytest.fixture(scope="module")
def X() -> Array:  # noqa: N802
    return blobs(600, 3, 3, seed=1)[0]


def two(**options: Any) -> GaussianMixture:
    return GaussianMixture.from_parameters(WEIGHTS, MEANS, COVARIANCES, **options)


def test_the_density_is_that_of_the_parameters() -> None:
    rows = np.random.default_rng(0).normal(1.0, 2.0, (50, 2))
    for offset in (0.0, 1e8):
        model = GaussianMixture.from_parameters(WEIGHTS, MEANS + offset, COVARIANCES)
        densities = [
            w * multivariate_normal(m + offset, c).pdf(rows + offset)
            for w, m, c in zip(WEIGHTS, MEANS, COVARIANCES, strict=True)
        ]
        expected = np.log(np.sum(densities, axis=0))
        assert_allclose(model.score_samples(rows + offset), expected, rtol=1e-6)


def test_it_is_a_fitted_model_in_all_ways(tmp_path: Path) -> None:
    model = two(feature_names=["u", "v"], random_state=0)
    assert (model.n_features_in_, [*model.feature_names_in_]) == (2, ["u", "v"])
    assert (model.status_, model.converged_, model.n_iter_) == (Status.GIVEN, False, 0)
    assert (model.lower_bound_, model.n_reads_, model.history_) == (-np.inf, 0, [])
    assert model.provenance_["source"] == "given parameters"
    assert (model.warnings_, model.degenerate_) == ([], [])
    rows, components = model.sample(4000)
    assert_allclose(np.bincount(components) / 4000, WEIGHTS, atol=0.03)
    assert_allclose(rows[components == 1].mean(axis=0), MEANS[1], atol=0.1)
    assert np.isfinite(model.bic(rows))
    assert "given" in report_html(model)
    assert model._repr_html_()
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert_array_equal(again.predict(rows), model.predict(rows))
    assert (again.status_, again.provenance_) == (model.status_, model.provenance_)


def test_the_caller_s_arrays_stay_the_caller_s() -> None:
    means = MEANS.copy()
    model = GaussianMixture.from_parameters(WEIGHTS, means, COVARIANCES)
    means[:] = 99.0
    assert_allclose(model.means_, MEANS)


def test_a_fit_starts_from_it_as_from_scikit_learn_s_inits(X: Array) -> None:
    start: dict[str, Any] = {
        "weights": [0.5, 0.5],
        "means": X[:2],
        "covariances": np.stack([np.cov(X.T)] * 2),
    }
    options: dict[str, Any] = {"algorithm": "em", "tol": 1e-5, "max_iter": 30}
    ours = GaussianMixture.from_parameters(**start, **options, warm_start=True).fit(X)
    theirs = sklearn.mixture.GaussianMixture(
        2, weights_init=[0.5, 0.5], means_init=X[:2],
        precisions_init=np.linalg.inv(start["covariances"]), tol=1e-5, max_iter=30,
    ).fit(X)  # fmt: skip
    assert_allclose(ours.means_, theirs.means_, rtol=1e-3, atol=1e-3)
    # Without it a fit begins by itself.
    other = GaussianMixture.from_parameters(**start, random_state=0).fit(X)
    assert other.converged_


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_gaussians_of_scikit_learn(X: Array, kind: str, tmp_path: Path) -> None:
    theirs = sklearn.mixture.GaussianMixture(3, covariance_type=kind, random_state=0).fit(X)
    ours: Any = from_sklearn(theirs)
    assert isinstance(ours, GaussianMixture)
    assert_array_equal(ours.predict(X), theirs.predict(X))
    assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-9, atol=1e-9)
    assert_allclose(ours.bic(X), theirs.bic(X))
    back = ours.to_sklearn()
    assert_allclose(back.covariances_, theirs.covariances_, rtol=1e-9)
    ours.save(tmp_path / "m.npz")


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("prior", ["dirichlet_process", "dirichlet_distribution"])
def test_bayesian_gaussians_of_scikit_learn(X: Array, kind: str, prior: str) -> None:
    theirs = sklearn.mixture.BayesianGaussianMixture(
        n_components=4,
        covariance_type=kind,
        weight_concentration_prior_type=prior,
        random_state=0,
        reg_covar=0,
    ).fit(X)
    ours: Any = from_sklearn(theirs)
    assert isinstance(ours, BayesianGaussianMixture)
    assert_array_equal(ours.predict(X), theirs.predict(X))
    assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-6)
    assert_allclose(ours.weights_, theirs.weights_, rtol=1e-6)
    assert_allclose(ours.degrees_of_freedom_, theirs.degrees_of_freedom_, rtol=1e-9)


@pytest.mark.parametrize("make", [sklearn.cluster.KMeans, sklearn.cluster.MiniBatchKMeans])
def test_k_means_of_scikit_learn(X: Array, make: Any) -> None:
    theirs = make(3, random_state=0, n_init=2).fit(X)
    ours: Any = from_sklearn(theirs)
    assert isinstance(ours, KMeans)
    assert_array_equal(ours.predict(X), theirs.predict(X))
    assert_allclose(ours.transform(X), theirs.transform(X), rtol=1e-6, atol=1e-6)
    assert_allclose(ours.score(X), theirs.score(X), rtol=1e-9)
    back = ours.to_sklearn()
    assert_array_equal(back.predict(X), theirs.predict(X))
    drawn, of = ours.sample(3000)
    apart = ((drawn - ours.cluster_centers_[of]) ** 2).sum(axis=1).mean()
    assert_allclose(apart, theirs.inertia_ / len(X), rtol=0.2)


def test_names_of_columns_come_along(X: Array) -> None:
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(X, columns=["a", "b", "c"])
    ours: Any = from_sklearn(sklearn.mixture.GaussianMixture(2, random_state=0).fit(table))
    assert [*ours.feature_names_in_] == ["a", "b", "c"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.predict(table)


def test_what_else_is_no_model_of_scikit_learn() -> None:
    with pytest.raises(TypeError, match="model is a str, expected a fitted GaussianMixture"):
        from_sklearn("model")
    with pytest.raises(NotFittedError):
        from_sklearn(sklearn.mixture.GaussianMixture())


SKEWED = np.array([[[1.0, 0.5], [0.4, 1.0]]] * 2)

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"weights": [0.5, 0.6]}, "weights are .* that sum to 1"),
    ({"weights": [-0.5, 1.5]}, "none below 0"),
    ({"weights": [[1.0]]}, "expected one number for each component"),
    ({"weights": [0.5, np.nan]}, "weights holds NaN or infinity"),
    ({"weights": ["a", "b"]}, "weights is a list of 2, expected an array of numbers"),
    ({"means": None}, "means is missing: parameters of a GaussianMixture are weights, means"),
    ({"means": [0.0, 1.0]}, "means has shape"),
    ({"means": MEANS[:1]}, r"means has shape \(1, 2\), expected \(2, 2\)"),
    ({"means": [[0.0, np.inf], [0.0, 0.0]]}, "means holds NaN or infinity"),
    ({"covariances": COVARIANCES[:, 0]}, "covariances has shape"),
    ({"covariances": -COVARIANCES}, r"components \[0, 1\] are not positive definite"),
    ({"covariances": SKEWED}, "symmetric matrices, got numbers that are 0.1 from"),
    ({"covariance_type": "EII", "covariances": [1.0, 2.0]}, "none of the structure 'EII'"),
    ({"covariance_type": "EEV"}, "none of the structure 'EEV'"),
    ({"precisions": COVARIANCES}, "'precisions' is unknown"),
    ({"covariance_type": "round"}, "covariance_type"),
    ({"n_components": 3}, "n_components is 3, and there are 2 weights"),
    ({"feature_names": ["u"]}, "expected 2 names that differ"),
    ({"feature_names": ["u", "u"]}, "expected 2 names that differ"),
    ({"feature_categories": [["a"], []]}, "feature_categories without feature_names"),
]


@pytest.mark.parametrize(("changes", "told"), REFUSED, ids=[told[:30] for _, told in REFUSED])
def test_what_is_no_parameter_is_refused_by_name(changes: dict[str, Any], told: str) -> None:
    given = {"weights": WEIGHTS, "means": MEANS, "covariances": COVARIANCES, **changes}
    with pytest.raises(ValueError, match=told):
        GaussianMixture.from_parameters(**given)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: CategoricalMixture.from_parameters([1.0], probabilities=[[[0.5, 0.4]]]),
            "must sum to 1 in each component, and some sum to 0.9",
        ),
        (lambda: PoissonMixture.from_parameters([1.0], rates=[[-1.0]]), "rates is"),
        (lambda: KMeans.from_parameters([1.0]), r"cluster_centers has shape \(1,\)"),
        (lambda: KMeans.from_parameters([[1.0]], variances=-1), "variances are -1"),
        (
            lambda: StudentTMixture.from_parameters(
                WEIGHTS, means=MEANS, scales=COVARIANCES, degrees_of_freedom=[1.0, 2.0],
                shared_df=True,
            ),
            "degrees_of_freedom differ",
        ),
        (
            lambda: BayesianGaussianMixture.from_parameters(
                WEIGHTS, means=MEANS, covariances=COVARIANCES, counts=[500.0, 500.0]
            ),
            "weights are not those that follow",
        ),
        (
            lambda: MixedMixture.from_parameters([1.0], rates=[[1.0]]),
            "parameters need the columns of each family",
        ),
    ],
)  # fmt: skip
def test_parameters_of_other_families_are_checked_too(make: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


def test_covariances_of_single_precision_are_taken() -> None:
    # Products in float32 are not quite symmetric: off-diagonals near zero least of all.
    rng = np.random.default_rng(4)
    X = np.float32(rng.normal(size=(500, 5)) * [1, 10, 1e-3, 1, 1])
    single = sklearn.mixture.GaussianMixture(2, random_state=0).fit(X)
    widths = np.sqrt(np.diagonal(single.covariances_, axis1=1, axis2=2))
    noise = 1e-7 * rng.normal(size=single.covariances_.shape)
    rough = single.covariances_ + noise * widths[:, :, None] * widths[:, None, :]
    found = GaussianMixture.from_parameters(single.weights_, single.means_, rough)
    assert_allclose(found.covariances_, np.swapaxes(found.covariances_, 1, 2), rtol=1e-12)
    assert_allclose(found.score_samples(X), single.score_samples(X), atol=1e-4)
