"""Gaussian mixtures whose parameters follow from those of a fitted one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ..core.additive import Array
from ..core.em import EMState, Status
from ..core.mixture import Mixture
from ..core.parts import MixtureStatistics
from ..families.gaussian.family import Gaussian
from ..families.gaussian.statistics import GaussianStatistics
from ..fitting.driver import FittedModel
from ..version import __version__
from .gaussian_parameters import GaussianParameters

M = TypeVar("M", bound=GaussianParameters)

# What is told of a model whose parameters were set by hand.
NO_FIT: Mapping[str, Any] = {
    "source": "", "n_rows": 0, "n_dropped": 0, "weight": 1.0, "dtype": "float64",
    "fingerprint": "none", "fitted": "", "dask_em": __version__,
}  # fmt: skip
# What is told of the fit that there was, and not of this model.
OF_THE_FIT = ("sweep", "fit", "adapted", "labels")


def derived(model: M, log_weights: Array, components: Gaussian, columns: Sequence[int]) -> M:
    """Return a fitted model of some columns of another one, of these parameters.

    It answers, is saved and reported as any; its `status_` is GIVEN, and `lower_bound_` minus
    infinity, because no pass was made at it. Its `provenance_` tells of the data of `model`.

    Parameters
    ----------
    model : GaussianMixture
    log_weights : (k,) array
    components : Gaussian
    columns : sequence of int
        Of `model`, those of the components.
    """
    names = vars(model).get("feature_names_in_")
    chosen = None if names is None else np.asarray(names, dtype=object)[list(columns)]
    seed = model.random_state
    options: dict[str, Any] = {
        **model.get_params(deep=False),
        "n_components": len(log_weights),
        "covariance_type": components.kind,
        # Parts of a fit that there is none of; columns are found by their names.
        **dict.fromkeys(("weights_init", "means_init", "precisions_init", "fixed", "prior")),
        **dict.fromkeys(("max_ratio", "checkpoint", "callbacks", "exclude")),
        "columns": None if chosen is None else [str(name) for name in chosen],
        "random_state": int(seed) if isinstance(seed, int | np.integer) else None,
        "warm_start": False,
    }
    found = type(model)(**options)
    found.n_features_in_ = len(columns)
    if chosen is not None:
        found.feature_names_in_ = chosen
    known = vars(model).get("provenance_", NO_FIT)
    provenance = {name: value for name, value in known.items() if name not in OF_THE_FIT}
    provenance["n_features"] = len(columns)
    weight = float(known.get("weight", known["n_rows"] - known["n_dropped"]))
    mixture = Mixture(log_weights, components)
    state = EMState(mixture, _sums(mixture, weight), 0, (), Status.GIVEN, mixture)
    found.set_fit(FittedModel(state, [], [], 0.0), provenance)
    return found


def _sums(mixture: Mixture, weight: float) -> MixtureStatistics:
    """Return the sums that rows of this weight would have that are as the mixture says."""
    components = mixture.components
    assert isinstance(components, Gaussian)
    nothing: GaussianStatistics = components.kernel().statistics()
    resp_sum, covariance = weight * mixture.weights, components.covariance
    found = covariance.covariances
    if covariance.shared_scatter:
        scatter = weight * found
    else:
        scatter = found * resp_sum.reshape(-1, *[1] * (found.ndim - 1))
    if covariance.kind == "spherical":
        # Of all columns together.
        scatter = scatter * components.n_features
    sums = replace(nothing, scatter=scatter)
    return MixtureStatistics(0, weight, 0.0, resp_sum, sums)
