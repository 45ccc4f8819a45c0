"""Axes that several covariances share: the orientation of EVE and VVE.

Of matrices S_k and weights n_k, the axes D are sought that minimize sum_k n_k log |diag D^T S_k D|
(Flury 1984), or with one volume the logarithm of sum_k n_k |diag D^T S_k D|^(1/d).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...core.additive import Array
from ...core.tuning import tuning

# What multiples of make fractions that are spread evenly, so that no two weights are alike.
GOLDEN = (5**0.5 - 1) / 2


def turned(axes: Array, values: Array) -> Array:
    """Return D diag(v) D^T of axes (d, d) or (k, d, d), and values (k, d).

    Examples
    --------
    >>> turned(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[1.0, 4.0]])).tolist()
    [[[4.0, 0.0], [0.0, 1.0]]]
    """
    found = (axes * values[:, None, :]) @ np.swapaxes(axes, -1, -2)
    # Rounding leaves the two triangles different.
    return np.asarray((found + np.swapaxes(found, -1, -2)) / 2)


def axes_of(covariances: Array) -> Array:
    """Return the axes (d, d) of covariances (k, d, d) that have their axes in common.

    They are those of a sum of all whose weights are unlike, for two of equal weights may sum to
    a multiple of the identity, which has no axes.

    Examples
    --------
    >>> two = np.stack([np.diag([1.0, 4.0]), np.diag([4.0, 1.0])])
    >>> np.abs(axes_of(two)).round(6).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    numbers = np.arange(1, len(covariances) + 1)
    weights = (1 + numbers * GOLDEN % 1) / np.einsum("kii->k", covariances)
    return np.asarray(np.linalg.eigh(np.einsum("k,kij->ij", weights, covariances))[1])


def common_axes(
    weights: Array, covariances: Array, starts: Sequence[Array], one_volume: bool
) -> Array:
    """Return axes that several positive definite matrices have nearly in common.

    From the best of `starts` on, steps of Newton's method for rotations in all planes at once, and
    where one gains nothing the step of Browne and McNicholas (Advances in Data Analysis and
    Classification 8, 2014), which majorizes on the Stiefel manifold: what is minimized never rises.

    Parameters
    ----------
    weights : (k,) array
    covariances : (k, d, d) array
    starts : sequence of (d, d) array
        Orthogonal matrices, their columns the axes.
    one_volume : bool
        Whether the matrices are to have one determinant.

    Examples
    --------
    >>> turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    >>> S = turned(turn, np.array([[1.0, 4.0], [9.0, 2.0]]))
    >>> found = common_axes(np.ones(2), S, [np.eye(2)], one_volume=False)
    >>> np.abs(found.T @ turn).round(6).tolist() in ([[1, 0], [0, 1]], [[0, 1], [1, 0]])
    True
    """
    problem = _Problem(weights / weights.sum(), covariances, one_volume)
    axes = min(starts, key=problem.value)
    value, constants = problem.value(axes), tuning().structures
    for _ in range(constants.axes_steps):
        tried = problem.newton(axes)
        reached = problem.value(tried)
        if not value - reached > constants.gain:
            tried = problem.majorized(axes)
            reached = problem.value(tried)
        if not value - reached > constants.gain:
            break
        axes, value = tried, reached
    return axes


class _Problem:
    """The function of axes that is minimized, and the steps that lower it."""

    def __init__(self, weights: Array, covariances: Array, one_volume: bool) -> None:
        self.weights, self.covariances, self.one_volume = weights, covariances, one_volume
        self.largest = np.linalg.eigvalsh(covariances)[:, -1]

    def value(self, axes: Array) -> float:
        """Return what is minimized, per unit of weight."""
        logs = np.log(self._within(axes))
        if not self.one_volume:
            return float(self.weights @ logs.sum(axis=1))
        means = logs.mean(axis=1)
        top = means.max()
        return float(logs.shape[1] * (top + np.log(self.weights @ np.exp(means - top))))

    def newton(self, axes: Array) -> Array:
        """Return the axes after a step along the gradient, over the curvature in each plane."""
        inside = axes.T @ self.covariances @ axes
        m = np.einsum("kii->ki", inside)
        w = self._slopes(m)
        inverse = w[:, None] / m
        slope = np.einsum("kij,kj->ij", inside, inverse) - np.einsum("kij,ki->ij", inside, inverse)
        # The curvature of log m_i + log m_j in their plane is about (m_i - m_j)^2 / (m_i m_j).
        ratios = np.einsum("kj,ki->ij", m, inverse)
        curvature = ratios + ratios.T - 2 * w.sum()
        flat = curvature <= np.finfo(np.float64).eps * ratios.max()
        most = tuning().structures.most_turn
        turn = np.where(flat, 0.0, -slope / np.where(flat, 1.0, curvature))
        half = np.clip(turn, -most, most) / 2
        identity: Array = np.eye(len(axes))
        # Cayley's transform of a skew matrix is orthogonal.
        return _orthogonal(axes @ np.linalg.solve(identity - half, identity + half))

    def majorized(self, axes: Array) -> Array:
        """Return the axes that minimize a linear bound of what is minimized, touching it here."""
        m = self._within(axes)
        inverse = self._slopes(m)[:, None] / m
        bound = np.einsum("ki,ji,kjl->il", inverse, axes, self.covariances, optimize=True)
        bound -= (self.largest @ inverse)[:, None] * axes.T
        left, _, right = np.linalg.svd(bound)
        return np.asarray(-(left @ right).T)

    def _within(self, axes: Array) -> Array:
        """Return the variances along the axes, (k, d)."""
        return np.asarray(np.einsum("kji,ji->ki", self.covariances @ axes, axes))

    def _slopes(self, m: Array) -> Array:
        """Return the weights with which the logarithms of variances (k, d) count here, (k,)."""
        if not self.one_volume:
            return self.weights
        volumes = np.exp(np.log(m).mean(axis=1))
        return np.asarray(self.weights * volumes / (self.weights @ volumes))


def _orthogonal(axes: Array) -> Array:
    """Return the orthogonal matrix nearest to one that is so but for rounding."""
    return np.asarray((3 * axes - axes @ axes.T @ axes) / 2)
