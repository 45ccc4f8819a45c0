"""Fitted models of scikit-learn as fitted estimators of this package."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.cluster import MiniBatchKMeans as SklearnMiniBatchKMeans
from sklearn.mixture import BayesianGaussianMixture as SklearnBayesianGaussianMixture
from sklearn.mixture import GaussianMixture as SklearnGaussianMixture
from sklearn.utils.validation import check_is_fitted

from .base import MixtureEstimator
from .bayesian_gaussian import BayesianGaussianMixture
from .gaussian import GaussianMixture
from .kmeans import KMeans

# Options of the same name and meaning, whose values are numbers and words of both.
OF_MIXTURES = (
    *("tol", "reg_covar", "max_iter", "n_init", "init_params", "covariance_type"),
    *("random_state", "warm_start"),
)


def from_sklearn(model: Any) -> MixtureEstimator:
    """Return a fitted mixture or K-means of scikit-learn as one of this package.

    Nothing is read, and nothing fitted: it predicts what the other predicts, on data of any size,
    and draws, is saved, reported and exported as any. A fit starts from it with
    `set_params(warm_start=True)`. Its `status_` is GIVEN.

    Parameters
    ----------
    model : GaussianMixture, BayesianGaussianMixture, KMeans or MiniBatchKMeans of scikit-learn
        Fitted.

    Returns
    -------
    GaussianMixture, BayesianGaussianMixture or KMeans
        With the options that both have, and the names of the columns.

    Raises
    ------
    TypeError
        It is something else.
    ValueError
        Its parameters are none; `NotFittedError` where it is not fitted.

    Examples
    --------
    >>> import sklearn.mixture
    >>> from dask_em import from_sklearn
    >>> X = np.random.default_rng(0).normal([[0.0], [9.0]], 1.0, (2, 100)).reshape(-1, 1)
    >>> theirs = sklearn.mixture.GaussianMixture(2, random_state=0).fit(X)
    >>> ours = from_sklearn(theirs)
    >>> bool((ours.predict(X) == theirs.predict(X)).all()), ours.status_.name
    (True, 'GIVEN')
    """
    if isinstance(model, SklearnBayesianGaussianMixture):
        return _bayesian(model)
    if isinstance(model, SklearnGaussianMixture):
        return _gaussian(model)
    if isinstance(model, SklearnKMeans | SklearnMiniBatchKMeans):
        return _kmeans(model)
    raise TypeError(
        f"model is a {type(model).__name__}, expected a fitted GaussianMixture, "
        "BayesianGaussianMixture, KMeans or MiniBatchKMeans of scikit-learn"
    )


def _gaussian(model: Any) -> GaussianMixture:
    check_is_fitted(model)
    return GaussianMixture.from_parameters(
        model.weights_, model.means_, model.covariances_, **_shared(model), **_names(model)
    )


def _bayesian(model: Any) -> BayesianGaussianMixture:
    check_is_fitted(model)
    counts = model.mean_precision_ - model.mean_precision_prior_
    prior = {
        name: getattr(model, f"{name}_")
        for name in (
            "weight_concentration_prior",
            "mean_precision_prior",
            "mean_prior",
            "degrees_of_freedom_prior",
            "covariance_prior",
        )
    }
    return BayesianGaussianMixture.from_parameters(
        model.weights_,
        means=model.means_,
        covariances=model.covariances_,
        counts=np.maximum(counts, 0.0),
        weight_concentration_prior_type=model.weight_concentration_prior_type,
        **prior,
        **_shared(model),
        **_names(model),
    )


def _kmeans(model: Any) -> KMeans:
    check_is_fitted(model)
    k, d = model.cluster_centers_.shape
    counts = np.bincount(model.labels_, minlength=k)
    options = {name: getattr(model, name) for name in ("max_iter", "n_init", "random_state")}
    if isinstance(model.init, str):
        options["init"] = model.init
    return KMeans.from_parameters(
        model.cluster_centers_,
        counts / counts.sum(),
        model.inertia_ / (counts.sum() * d),
        **options,
        **_names(model),
    )


def _shared(model: Any) -> dict[str, Any]:
    params = model.get_params(deep=False)
    return {name: params[name] for name in OF_MIXTURES}


def _names(model: Any) -> dict[str, Any]:
    names = vars(model).get("feature_names_in_")
    return {} if names is None else {"feature_names": [str(name) for name in names]}
