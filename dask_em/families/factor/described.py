"""Factor analyzers that describe covariances, whatever they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from ...core.additive import Array
from .parameters import FactorParameters
from .principal import least_noise, principal_components, principal_factors
from .scatters import Scatter

P = TypeVar("P", bound=FactorParameters)


def described(at: P, total: Array, scatters: Sequence[Scatter], components: bool = False) -> P:
    """Return components that describe covariances, by weights (k,); those of few rows stay.

    Parameters
    ----------
    at : FactorParameters
        Whose means they have.
    total : (k,) array
    scatters : sequence of Scatter
        One a component, in whitened coordinates.
    components : bool
        Whether loadings are principal components, and not the likeliest: other optima may
        lie beyond.
    """
    rule, q = at.rule, at.n_factors

    def one(scatter: Scatter) -> tuple[Array, Array]:
        if components:
            return principal_components(scatter, q)
        return principal_factors(scatter, q, rule.isotropic)

    loadings, noise = at.loadings.copy(), np.array(at.noise)
    told = np.flatnonzero(total > q + 1).tolist()
    left = {}
    if rule.shared_loadings:
        loadings[:] = one(Scatter.pooled(total, scatters))[0]
    for k in told:
        if rule.shared_loadings:
            diagonal = scatters[k].diagonal
            left[k] = np.maximum(diagonal - (loadings[k] ** 2).sum(axis=1), least_noise(diagonal))
        else:
            loadings[k], left[k] = one(scatters[k])
    if left:
        some = np.stack([np.broadcast_to(each, at.n_features) for each in left.values()])
        found = rule.noise(total[told], some + at.ridge * at.whitening.inverse_scale**2)
        if rule.shared_noise:
            noise[:] = found[0]
        else:
            noise[told] = found
    return replace(at, loadings=loadings, log_noise=np.log(noise))
