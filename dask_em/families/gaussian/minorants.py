"""Diagonal matrices that lie below the precisions of Gaussian components.

Where Sigma^{-1} - D is positive semidefinite, (z - mu)^T D (z - mu) is no more than the squared
Mahalanobis distance, at the price of d multiplications in place of d (d + 1) / 2. With the rows of
a root B of Sigma = B B^T divided by their lengths s_j, the largest eigenvalue l of the correlations
gives D = diag(1 / (l s_j^2)); the largest of Sigma itself gives D = I / l, of which all squares are
one number. Both are taken in coordinates in which the average component is a unit ball, and where
all components are alike both are nearly exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...core.additive import Array
from ...core.tuning import tuning
from .covariance import Covariance
from .diagonals import Diagonal
from .matrices import Full, few_matrices

# Powers of a matrix bound its largest eigenvalue: by the 32nd, within 14 % of 64 equal ones.
_SQUARINGS = 4

# Of a component: as many as a tile takes at a time.
LEAST_DIRECTIONS = 4

# What eigenvalues, and distances that are bounded, may owe to rounding.
_MARGIN = 1e-6


@dataclass(frozen=True)
class Minorants:
    """Diagonals below the precisions of k components, in coordinates of their own.

    Attributes
    ----------
    frame : (d, d) array or None
        What multiplies whitened rows; None where they stay.
    means, diagonals : (k, d) arrays
        In these coordinates.
    apart : bool
        Whether the numbers of a diagonal differ.
    """

    frame: Array | None
    means: Array
    diagonals: Array
    apart: bool

    @classmethod
    def of(cls, means: Array, covariance: Covariance) -> Minorants:
        """Return those of components in whitened coordinates.

        Examples
        --------
        >>> found = Minorants.of(np.zeros((1, 2)), Diagonal(np.array([[1.0, 2.0]])))
        >>> found.diagonals.round(3).tolist(), found.apart
        ([[1.0, 0.25]], True)
        """
        if isinstance(covariance, Diagonal):
            precisions = covariance.factor**-2.0
            return cls._tighter(None, means, precisions, precisions.min(axis=1))
        assert isinstance(covariance, Full)
        with np.errstate(all="ignore"):
            return cls._of_matrices(means, covariance)

    @classmethod
    def _of_matrices(cls, means: Array, covariance: Full) -> Minorants:
        # What is no number, or none in float32, rules nothing out.
        k, d = means.shape
        frame = common_frame(covariance.factor)
        apart, ball = np.empty((k, d)), np.empty(k)
        for some in few_matrices(k, d):
            roots = frame @ covariance.factor[some]
            squares = np.einsum("kij,kij->ki", roots, roots)
            ball[some] = 1 / largest_eigenvalues(roots @ roots.transpose(0, 2, 1))
            roots /= np.sqrt(squares)[:, :, None]
            largest = largest_eigenvalues(roots @ roots.transpose(0, 2, 1))
            apart[some] = 1 / (largest[:, None] * squares)
        return cls._tighter(frame, means @ frame.T, apart, ball)

    @classmethod
    def _tighter(cls, frame: Array | None, means: Array, apart: Array, ball: Array) -> Minorants:
        """Take balls where they are nearly as tight: they cost half."""
        balls = np.broadcast_to(ball[:, None], apart.shape)
        cheap = balls.sum() >= tuning().candidates.ball_share * apart.sum()
        return cls(frame, means, (1 - _MARGIN) * (balls if cheap else apart), not cheap)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        frame = 0 if self.frame is None else self.frame.nbytes
        return frame + self.means.nbytes + self.diagonals.nbytes


def most_directions(d: int) -> int:
    """Return how many directions of d columns may be taken at most, a power of two.

    Examples
    --------
    >>> most_directions(32), most_directions(9)
    (16, 4)
    """
    n = LEAST_DIRECTIONS
    while 4 * n <= d:
        n *= 2
    return min(n, d)


def thin_directions(covariance: Full, n: int) -> Array:
    """Return the n directions (k, n, d) in which components are thinnest, the thinnest first.

    Squared products with these add up to no more than the squared Mahalanobis distance: they are
    whitened coordinates, of other axes.

    Examples
    --------
    >>> one = Full(np.array([[[2.0, 0.0], [0.0, 0.5]]]))
    >>> np.abs(thin_directions(one, 1)).tolist()
    [[[0.0, 2.0]]]
    """
    k, d, _ = covariance.factor.shape
    found = np.empty((k, n, d))
    for some in few_matrices(k, d):
        whitener = covariance.inverse[some]
        unit = whitener / np.abs(whitener).max(axis=(1, 2), keepdims=True)
        _, axes = np.linalg.eigh(unit @ unit.transpose(0, 2, 1))
        found[some] = axes[:, :, : -n - 1 : -1].transpose(0, 2, 1) @ whitener
    return found


def common_frame(factors: Array) -> Array:
    """Return the map (d, d) after which covariances are the identity on average, but for volume.

    Examples
    --------
    >>> roots = np.array([[[2.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 3.0]]])
    >>> common_frame(roots).round(9).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    k, d, _ = factors.shape
    lengths = np.exp(np.log(np.einsum("kii->ki", factors)).mean(axis=1))
    pooled = np.zeros((d, d))
    for some in few_matrices(k, d):
        shapes = factors[some] / lengths[some, None, None]
        pooled += np.einsum("kij,klj->il", shapes, shapes, optimize=True)
    # Any map will do: this one stays invertible where all are thin in one direction.
    pooled += 1e-10 * np.trace(pooled) * np.eye(d)
    return np.asarray(np.linalg.inv(np.linalg.cholesky(pooled / k)))


def largest_eigenvalues(matrices: Array) -> Array:
    """Return upper bounds on the largest eigenvalue of positive semidefinite matrices, (k,).

    Examples
    --------
    >>> bool(3.0 <= largest_eigenvalues(np.array([[[2.0, 1.0], [1.0, 2.0]]]))[0] < 3.001)
    True
    """
    logarithm = np.zeros(len(matrices))
    power = 1.0
    for _ in range(_SQUARINGS):
        lengths = np.sqrt(np.einsum("kij,kij->k", matrices, matrices))
        matrices = matrices / lengths[:, None, None]
        matrices = matrices @ matrices
        logarithm += np.log(lengths) / power
        power *= 2
    lengths = np.sqrt(np.einsum("kij,kij->k", matrices, matrices))
    return np.asarray(np.exp(logarithm + np.log(lengths) / power))
