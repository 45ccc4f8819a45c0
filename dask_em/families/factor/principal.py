"""Where factor analyzers start: the principal factors of a covariance that is never formed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...core.additive import Array
from ...core.tuning import tuning

Product = Callable[[Array], Array]
"""V (d, m) -> S V, for a covariance S (d, d)."""


def principal_factors(
    product: Product, diagonal: Array, q: int, isotropic: bool
) -> tuple[Array, Array]:
    """Return loadings (d, q) and noise (d,) or (1,) that describe a covariance.

    Isotropic noise has a closed form (Tipping and Bishop 1999, equations 7 and 8). Otherwise the
    loadings are those of the largest likelihood at some noise, and the noise what they leave of
    the diagonal, in turn (Lawley 1940; Joreskog 1967). A factor of no strength is given some, for
    at zero EM would leave it.

    Parameters
    ----------
    product : callable
    diagonal : (d,) array
        Of the covariance.
    q : int
    isotropic : bool

    Examples
    --------
    >>> covariance = np.diag([5.0, 1.0, 1.0])
    >>> loadings, noise = principal_factors(lambda v: covariance @ v, np.diag(covariance), 1, True)
    >>> np.abs(loadings).round(6).tolist(), noise.tolist()
    ([[2.0], [0.0], [0.0]], [1.0])
    """
    constants = tuning().factor
    d = len(diagonal)
    least = constants.least_noise * np.maximum(diagonal, constants.least_noise * diagonal.max())
    least = np.maximum(least, np.finfo(np.float64).tiny)
    n_steps = constants.start_iterations
    if d <= constants.few_columns:
        # It is small: steps cost little beside the products with rows.
        matrix = product(np.eye(d))
        n_steps *= constants.more_iterations

        def product(V: Array, matrix: Array = matrix) -> Array:
            return np.asarray(matrix @ V)

    if isotropic:
        values, vectors = leading(product, d, q)
        left = (diagonal.sum() - values.sum()) / (d - q)
        noise = max(float(left), float(least.mean()))
        strengths = np.maximum(values - noise, constants.least_strength * noise)
        return vectors * np.sqrt(strengths), np.array([noise])
    noise = np.maximum(diagonal / 2, least)
    loadings = np.zeros((d, q))
    for _ in range(n_steps):
        root = np.sqrt(noise)[:, None]

        def scaled(V: Array, root: Array = root) -> Array:
            return np.asarray(product(V / root) / root)

        values, vectors = leading(scaled, d, q)
        loadings = root * vectors * np.sqrt(np.maximum(values - 1, constants.least_strength))
        noise = np.maximum(diagonal - (loadings**2).sum(axis=1), least)
    return loadings, noise


def leading(product: Product, d: int, q: int) -> tuple[Array, Array]:
    """Return the q largest eigenvalues (q,) and their vectors (d, q) of a covariance.

    Of few columns all are computed; of many, a subspace is multiplied by the covariance again and
    again, from a fixed random one (Halko, Martinsson and Tropp 2011).
    """
    constants = tuning().factor
    if d <= constants.few_columns:
        matrix = product(np.eye(d))
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        return values[: -q - 1 : -1], vectors[:, : -q - 1 : -1]
    width = min(d, q + constants.oversampled)
    found = np.linalg.qr(np.random.default_rng(0).normal(size=(d, width)))[0]
    for _ in range(constants.subspace_iterations):
        found = np.linalg.qr(product(found))[0]
    inner = found.T @ product(found)
    values, vectors = np.linalg.eigh((inner + inner.T) / 2)
    return values[: -q - 1 : -1], found @ vectors[:, : -q - 1 : -1]
