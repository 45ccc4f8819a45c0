"""TODO fitting.anderson."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..core.additive import Array
from ..core.codec import record
from ..core.mixture import Mixture
from ..families.gaussian.family import Gaussian
from .sums import _along

# Earlier steps that Anderson's mixing looks back on.
MEMORY = 3

# The least angle between two steps that show curvature, and what is added to it, as a share of
# that of the complete data.
ALIGNED, RIDGE = 1e-4, 1e-2


# -- mixing of earlier steps, in coordinates in which every point is a mixture ---------


def coordinates(mixture: Mixture) -> Array:
    """Log-weights, means, and factors with the logarithm of their diagonals, (p,)."""
    factor = mixture.components.covariance.factor.copy()
    diagonal = _positive(factor, mixture)
    diagonal[:] = np.log(diagonal)
    return np.concatenate([mixture.log_weights, mixture.components.means.ravel(), factor.ravel()])


def mixture_at(vector: Array, like: Mixture) -> Mixture:
    """The mixture with these `coordinates`, its weights made to sum to one."""
    gaussian: Gaussian = like.components
    k = len(like.log_weights)
    log_weights, means, factor = np.split(vector.copy(), [k, k + gaussian.means.size])
    factor = factor.reshape(gaussian.covariance.factor.shape)
    diagonal = _positive(factor, like)
    diagonal[:] = np.exp(diagonal)
    components = replace(
        gaussian,
        means=means.reshape(gaussian.means.shape),
        covariance=type(gaussian.covariance)(factor),
    )
    log_weights = log_weights - np.logaddexp.reduce(log_weights)
    return replace(like, log_weights=log_weights, components=components)


def _positive(factor: Array, mixture: Mixture) -> Array:
    """A view of what must stay positive in `factor`."""
    if mixture.components.covariance.kind in ("full", "tied"):
        diagonal: Array = np.einsum("...ii->...i", factor)
        return diagonal
    return factor


def units(mixture: Mixture) -> Array:
    """What multiplies each of the `coordinates` for it to count as much as it matters, (p,).

    About the square root of the complete data's information: the root of the component's
    weight, over the component's width where the coordinate is a length.
    """
    gaussian: Gaussian = mixture.components
    k, d = gaussian.means.shape
    root = np.sqrt(mixture.weights)
    widths = np.sqrt(np.einsum("kii->ki", gaussian.covariance.full(k, d)))
    factor = gaussian.covariance.factor
    of_factor = np.ones_like(factor)
    if not gaussian.covariance.shared_scatter:
        of_factor *= _along(root, factor)
    if gaussian.covariance.kind in ("full", "tied"):
        lengths = _positive(factor, mixture)
        of_factor /= lengths[..., :, None]
        # The coordinate of the diagonal is a logarithm.
        np.einsum("...ii->...i", of_factor)[:] *= lengths
    return np.concatenate([root, (root[:, None] / widths).ravel(), of_factor.ravel()])


@record("em-step")
@dataclass(frozen=True)
class Step:
    """Where a plain step began and where it led, in `coordinates`."""

    begin: Array
    end: Array


def mixed(steps: Sequence[Step], scale: Array) -> Array:
    """The point at which the steps' residuals cancel best (Anderson 1965; Walker and Ni 2011)."""
    last = steps[-1]
    residual = last.end - last.begin
    change = np.stack([residual - (s.end - s.begin) for s in steps[:-1]], axis=1)
    moves = np.stack([last.end - s.end for s in steps[:-1]], axis=1)
    shares, *_ = np.linalg.lstsq(change * scale[:, None], residual * scale, rcond=1e-6)
    return np.asarray(last.end - moves @ shares)


def curved(steps: Sequence[Step], scale: Array) -> Array:
    """The Newton step of ascent in the span of the steps, and the plain step beside it.

    EM's residual r is about the gradient in coordinates in which the complete data's
    information is the identity, and what r changes by from step to step shows the curvature.
    Where it is that of a saddle, Newton's step would lead to the saddle: the sign of the
    curvature is left out (Dauphin et al. 2014), so that the step leads away.
    """
    last = steps[-1]
    residual = (last.end - last.begin) * scale
    moves = np.stack([(last.begin - s.begin) * scale for s in steps[:-1]], axis=1)
    changes = np.stack([residual - (s.end - s.begin) * scale for s in steps[:-1]], axis=1)
    lengths = np.maximum(np.linalg.norm(moves, axis=0), np.finfo(np.float64).tiny)
    left, sizes, right = np.linalg.svd(moves / lengths, full_matrices=False)
    span = sizes > ALIGNED * sizes[0]
    basis = left[:, span]
    curvature = -basis.T @ (changes / lengths) @ (right[span].T / sizes[span])
    curvatures, axes = np.linalg.eigh((curvature + curvature.T) / 2)
    axes = basis @ axes
    along = axes.T @ residual
    newton = along / (np.abs(curvatures) + RIDGE)
    return np.asarray(last.begin + (residual + axes @ (newton - along)) / scale)
