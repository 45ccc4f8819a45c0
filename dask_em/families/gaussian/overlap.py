"""How much Gaussian components overlap: errors of classification, distances, divergences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...core.additive import Array
from .diagonals import Uncorrelated
from .family import Gaussian
from .quadratic import quadratic_cdf


def misclassification(gaussian: Gaussian, log_prior: Array) -> Array:
    """Compute how probable a row of component i has a larger joint with j, (k, k), at [i, j].

    With x drawn from component i, log w_j p_j(x) - log w_i p_i(x) is a quadratic form of standard
    normal variables: the probability that it is positive is that of a generalized chi-square
    (Maitra and Melnykov, Journal of Computational and Graphical Statistics 19, 2010, theorem 1), by
    `quadratic_cdf` in place of Davies' algorithm. Ones on the diagonal.

    Examples
    --------
    >>> from .matrices import Full
    >>> from .whitening import Whitening
    >>> unit = Whitening(np.zeros(1), np.ones(1))
    >>> two = Gaussian(np.array([[0.0], [2.0]]), Full(np.ones((2, 1, 1))), unit)
    >>> misclassification(two, np.log([0.5, 0.5])).round(4).tolist()
    [[1.0, 0.1587], [0.1587, 1.0]]
    """
    k, d = gaussian.means.shape
    volumes = np.broadcast_to(gaussian.covariance.log_det(d), (k,))
    found = np.eye(k)
    for i, j, ratios, apart in _pairs(gaussian):
        ahead = 2 * float(log_prior[j] - volumes[j] - log_prior[i] + volumes[i])
        limit = ahead - float((ratios * apart**2).sum())
        found[i, j] = quadratic_cdf(ratios - 1, 2 * ratios * apart, limit)
    return found


def divergences(gaussian: Gaussian) -> Array:
    """Compute the Kullback-Leibler divergence of component j from i, in nats, (k, k) at [i, j].

    E_i[log p_i(x) - log p_j(x)].

    Examples
    --------
    >>> from .matrices import Full
    >>> from .whitening import Whitening
    >>> unit = Whitening(np.zeros(1), np.ones(1))
    >>> two = Gaussian(np.array([[0.0], [2.0]]), Full(np.ones((2, 1, 1))), unit)
    >>> divergences(two).tolist()
    [[0.0, 2.0], [2.0, 0.0]]
    """
    k, d = gaussian.means.shape
    volumes = np.broadcast_to(gaussian.covariance.log_det(d), (k,))
    found = np.zeros((k, k))
    for i, j, ratios, apart in _pairs(gaussian):
        squares = float((ratios * (1 + apart**2)).sum()) - d
        found[i, j] = squares / 2 + volumes[j] - volumes[i]
    return found


def bhattacharyya(gaussian: Gaussian) -> Array:
    """Compute the Bhattacharyya distances -log integral sqrt(p_i(x) p_j(x)) dx, (k, k).

    Of normals: |mu_i - mu_j|^2 in S = (Sigma_i + Sigma_j) / 2 over 8, and
    log(|S| / sqrt(|Sigma_i| |Sigma_j|)) / 2 (Fukunaga, Introduction to Statistical Pattern
    Recognition, 1990, equation 3.152).

    Examples
    --------
    >>> from .matrices import Full
    >>> from .whitening import Whitening
    >>> unit = Whitening(np.zeros(1), np.ones(1))
    >>> two = Gaussian(np.array([[0.0], [2.0]]), Full(np.ones((2, 1, 1))), unit)
    >>> bhattacharyya(two).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    k = len(gaussian.means)
    found = np.zeros((k, k))
    for i, j, ratios, apart in _pairs(gaussian):
        if i < j:
            # In the coordinates in which Sigma_i is one, Sigma_j is 1 / ratios.
            mean = (1 + 1 / ratios) / 2
            found[i, j] = (apart**2 / mean).sum() / 8 + np.log(mean).sum() / 2
            found[i, j] += np.log(ratios).sum() / 4
    return found + found.T


def entropy_bounds(gaussian: Gaussian, log_weights: Array) -> tuple[float, float]:
    """Bound the entropy of the mixture from below and above, in nats.

    sum_i w_i (H_i - log sum_j w_j exp(-D_ij)), where D are Bhattacharyya distances for the lower
    bound, and Kullback-Leibler divergences for the upper one (Kolchinsky and Tracey, Entropy 19,
    2017, article 361).

    Examples
    --------
    >>> from .matrices import Full
    >>> from .whitening import Whitening
    >>> unit = Whitening(np.zeros(1), np.ones(1))
    >>> one = Gaussian(np.zeros((1, 1)), Full(np.ones((1, 1, 1))), unit)
    >>> np.round(entropy_bounds(one, np.zeros(1)), 4).tolist()
    [1.4189, 1.4189]
    """
    k, d = gaussian.means.shape
    volumes = np.broadcast_to(gaussian.covariance.log_det(d), (k,)) + gaussian.whitening.log_det
    weights = np.exp(log_weights)
    own = float(weights @ volumes) + d / 2 * (1 + np.log(2 * np.pi))
    low, high = (
        float(own - weights @ np.logaddexp.reduce(log_weights - apart, axis=1))
        for apart in (bhattacharyya(gaussian), divergences(gaussian))
    )
    return low, high


def _pairs(gaussian: Gaussian) -> Iterator[tuple[int, int, Array, Array]]:
    """Yield pairs i, j with v = C_i^{-1} (x - mu_i) turned to the axes of Sigma_j.

    There the squared distance of x to component i is sum v^2, and to j sum ratios (v + apart)^2.
    """
    k, d = gaussian.means.shape
    covariance = gaussian.covariance
    if isinstance(covariance, Uncorrelated):
        widths = np.sqrt(np.broadcast_to(covariance.variances(d), (k, d)))
        for i in range(k):
            for j in range(k):
                if i != j:
                    apart = (gaussian.means[i] - gaussian.means[j]) / widths[i]
                    yield i, j, (widths[i] / widths[j]) ** 2, apart
        return
    for i in range(k):
        own = covariance.take([i]).factor.reshape(d, d)
        for j in range(k):
            if i != j:
                other = covariance.take([j]).factor.reshape(d, d)
                _, lengths, axes = np.linalg.svd(np.linalg.solve(other, own))
                shift = np.linalg.solve(own, gaussian.means[i] - gaussian.means[j])
                yield i, j, lengths**2, axes @ shift
