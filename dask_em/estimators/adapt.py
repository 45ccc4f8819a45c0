"""Adapt the means of a fitted mixture to other data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from sklearn.exceptions import NotFittedError

from ..backends import backend_in_force
from ..errors import UsageError
from ..fitting.adaptation import AdaptationPasses, adapt_means
from ..fitting.driver import FittedModel
from .base import MixtureEstimator
from .fits import SEEN, provenance_of
from .options import check_number

M = TypeVar("M", bound=MixtureEstimator)


def adapt(
    model: M,
    X: Any,
    relevance: float = 16.0,
    *,
    n_iter: int = 1,
    sample_weight: Any = None,
) -> M:
    """Compute maximum a posteriori means of a Gaussian mixture for other data, in one pass.

    The E-step of the background model gives each component n_k = sum_n w_n r_nk rows of X and
    their mean E_k(x), and its mean becomes alpha_k E_k(x) + (1 - alpha_k) mu_k with
    alpha_k = n_k / (n_k + relevance). So a component that X says much of goes there, and one
    without rows stays. Weights and covariances stay. This is how a model of one speaker, machine
    or batch is made of a background model of all, from few rows (Reynolds, Quatieri and Dunn,
    "Speaker verification using adapted Gaussian mixture models", Digital Signal Processing 10,
    2000, equations 12 and 14).

    Parameters
    ----------
    model : GaussianMixture
        The fitted background model, of any covariance structure. It is not changed.
    X : the same kinds as in `fit`, (n, d)
        Read as the data of the model's fit were: its columns are found by their names, and rows
        of NaN or infinity are an error or left out as its `nonfinite` says. There may be fewer
        rows than components.
    relevance : float, default=16.0
        Rows that each mean of the model counts as: 0 gives the means of one iteration of EM, and
        what is far above n_k leaves the means where they are.
    n_iter : int, default=1
        Passes. Each further one computes responsibilities at the means of the last, and
        weighs the rows against the means of `model` (Gauvain and Lee, IEEE Transactions on Speech
        and Audio Processing 2, 1994).
    sample_weight : the same kinds, (n,), or the name of a column of X, optional
        A row of weight w counts as w rows.

    Returns
    -------
    estimator
        Fitted, of the class and the parameters of `model` but for its `checkpoint`: it predicts,
        is saved and reported as any. Its `status_` is ADAPTED, `lower_bound_` the mean
        log-likelihood of X at the means before the last pass moved them,
        `state_.statistics.resp_sum` the n_k of that pass, and `provenance_["adapted"]` tells the
        fingerprint of the model's data, the relevance and the number of passes.

    Raises
    ------
    UsageError
        The components of `model` are not Gaussian.
    ValueError
        `relevance` or `n_iter` is not a number of those allowed; `NotFittedError` where the model
        is not fitted.
    DataError
        The rows cannot be used: other columns than the model's, NaN or infinity, no weight.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import GaussianMixture, adapt
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(0.0, 1.0, (500, 2)), rng.normal(9.0, 1.0, (500, 2))])
    >>> background = GaussianMixture(2, random_state=0).fit(X)
    >>> speaker = adapt(background, rng.normal(1.0, 1.0, (48, 2)), relevance=16.0)
    >>> alpha = 48 / (48 + 16)
    >>> np.sort(speaker.means_, axis=0).round(1).tolist(), alpha
    ([[0.7, 0.8], [9.0, 9.0]], 0.75)
    >>> bool((speaker.covariances_ == background.covariances_).all())
    True
    """
    check_adaptable(model, relevance, n_iter)
    source = model.source(X, sample_weight)
    passes = AdaptationPasses(source, backend_in_force(), model.observers())
    engine = model.engine(source.dtype, source.n_rows)
    state, surveyed = adapt_means(
        passes,
        replace(model.fitted_state()[0].result, engine=engine),
        float(relevance),
        int(n_iter),
        model.read_options.nonfinite == "drop",
        vars(model).get("feature_names_in_"),
    )
    options = {**model.get_params(deep=False), **model.fitted_options(), "checkpoint": None}
    adapted = type(model)(**options)
    # Rows may have no names, where those of the fit had.
    for name in SEEN:
        if name in vars(model):
            setattr(adapted, name, vars(model)[name])
    provenance = {
        **provenance_of(passes.source, surveyed),
        "adapted": {
            "fingerprint": model.provenance_["fingerprint"],
            "relevance": float(relevance),
            "n_passes": int(n_iter),
        },
    }
    adapted.set_fit(FittedModel(state, passes.records, [], float(n_iter)), provenance)
    return adapted


def check_adaptable(model: MixtureEstimator, relevance: float, n_iter: int) -> None:
    """Raise where a model cannot be adapted, or not so.

    Raises
    ------
    TypeError, ValueError
        It is no fitted model of Gaussian components; or a number is not one of those allowed.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import KMeans
    >>> check_adaptable(KMeans(1).fit(np.eye(6, 2)), 16.0, 1)
    Traceback (most recent call last):
    dask_em.errors.UsageError: model is a KMeans, expected a GaussianMixture: ...
    """
    if not isinstance(model, MixtureEstimator):
        raise TypeError(
            f"model is {model!r:.100}, expected a fitted GaussianMixture, or what load returns"
        )
    name = type(model).__name__
    if "state_" not in vars(model):
        raise NotFittedError(f"model is a {name} that is not fitted: fit it first")
    if not model.state_.result.components.adaptable:
        raise UsageError(
            f"model is a {name}, expected a GaussianMixture: only means of Gaussian components "
            "are adapted"
        )
    check_number("relevance", relevance, float, 0)
    check_number("n_iter", n_iter, int, 1)
