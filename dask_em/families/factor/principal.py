"""Where factor analyzers start: the principal factors of a covariance that need not be formed."""

from __future__ import annotations

import numpy as np

from ...core.additive import Array
from ...core.tuning import tuning
from .scatters import Product, Scatter


def principal_factors(scatter: Scatter, q: int, isotropic: bool) -> tuple[Array, Array]:
    """Return loadings (d, q) and noise (d,) or (1,) that describe a covariance.

    Isotropic noise has a closed form (Tipping and Bishop 1999, equations 7 and 8). Otherwise the
    loadings are those of the largest likelihood at some noise, and the noise what they leave of
    the diagonal, in turn (Lawley 1940; Joreskog 1967). A factor of no strength is given some, for
    at zero EM would leave it.

    Parameters
    ----------
    scatter : Scatter
    q : int
    isotropic : bool

    Examples
    --------
    >>> covariance = Scatter.of_matrix(np.diag([5.0, 1.0, 1.0]))
    >>> loadings, noise = principal_factors(covariance, 1, True)
    >>> np.abs(loadings).round(6).tolist(), noise.tolist()
    ([[2.0], [0.0], [0.0]], [1.0])
    """
    constants = tuning().factor
    diagonal = scatter.diagonal
    d = len(diagonal)
    least = least_noise(diagonal)
    if isotropic:
        values, vectors = leading(scatter.product, d, q)
        left = (diagonal.sum() - values[:q].sum()) / (d - q)
        level = max(float(left), float(least.mean()))
        strengths = np.maximum(values[:q] - level, constants.least_strength * level)
        return vectors[:, :q] * np.sqrt(strengths), np.array([level])
    noise = np.maximum(diagonal / 2, least)
    loadings = np.zeros((d, q))
    near: Array | None = None
    # Where columns are few, steps cost little beside the products with rows.
    more = constants.more_iterations if d <= constants.few_columns else 1
    for _ in range(constants.start_iterations * more):
        root = np.sqrt(noise)[:, None]

        def scaled(V: Array, root: Array = root) -> Array:
            return scatter.product(V / root) / root

        values, near = leading(scaled, d, q, near)
        strengths = np.maximum(values[:q] - 1, constants.least_strength)
        loadings = root * near[:, :q] * np.sqrt(strengths)
        before, noise = noise, np.maximum(diagonal - (loadings**2).sum(axis=1), least)
        if np.abs(noise - before).max() <= constants.settled * diagonal.max():
            break
    return loadings, noise


def principal_components(scatter: Scatter, q: int) -> tuple[Array, Array]:
    """Return as loadings (d, q) the principal components of a covariance, and noise (d,)."""
    diagonal = scatter.diagonal
    values, vectors = leading(scatter.product, len(diagonal), q)
    loadings = vectors[:, :q] * np.sqrt(np.maximum(values[:q], 0.0))
    return loadings, np.maximum(diagonal - (loadings**2).sum(axis=1), least_noise(diagonal))


def least_noise(diagonal: Array) -> Array:
    """Return the least noise (d,) of a start, of the variances of the columns."""
    share = tuning().factor.least_noise
    least = share * np.maximum(diagonal, share * diagonal.max())
    return np.asarray(np.maximum(least, np.finfo(np.float64).tiny))


def leading(product: Product, d: int, q: int, near: Array | None = None) -> tuple[Array, Array]:
    """Return the largest eigenvalues of a covariance, at least q, and their vectors, (d, m).

    Of few columns all are computed; of many, a subspace is multiplied by the covariance again and
    again, from a fixed random one (Halko, Martinsson and Tropp 2011), or from one that is `near`.
    """
    constants = tuning().factor
    if d <= constants.few_columns:
        matrix = product(np.eye(d))
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        return values[::-1], vectors[:, ::-1]
    n_products = constants.near_iterations
    if near is None:
        n_products = constants.subspace_iterations
        near = np.random.default_rng(0).normal(size=(d, min(d, q + constants.oversampled)))
    found = np.linalg.qr(near)[0]
    for _ in range(n_products):
        found = np.linalg.qr(product(found))[0]
    inner = found.T @ product(found)
    values, vectors = np.linalg.eigh((inner + inner.T) / 2)
    return values[::-1], found @ vectors[:, ::-1]
