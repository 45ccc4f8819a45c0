"""Steps that mix earlier ones: Anderson's, and Newton's in the span of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.additive import Array
from ..core.codec import record
from ..core.tuning import tuning

# -- mixing of earlier steps, in coordinates in which every point is a mixture ---------


@record("em-step")
@dataclass(frozen=True)
class Step:
    """A plain step: its begin and its end, as unconstrained vectors."""

    begin: Array
    end: Array


def mixed(steps: Sequence[Step], scale: Array) -> Array:
    """Compute where the steps' residuals cancel best (Anderson 1965; Walker and Ni 2011)."""
    last = steps[-1]
    residual = last.end - last.begin
    change = np.stack([residual - (s.end - s.begin) for s in steps[:-1]], axis=1)
    moves = np.stack([last.end - s.end for s in steps[:-1]], axis=1)
    shares, *_ = np.linalg.lstsq(change * scale[:, None], residual * scale, rcond=1e-6)
    return np.asarray(last.end - moves @ shares)


def curved(steps: Sequence[Step], scale: Array) -> Array:
    """Compute the Newton step in the span of the steps, and the plain step beside it.

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
    span = sizes > tuning().anderson.aligned * sizes[0]
    basis = left[:, span]
    curvature = -basis.T @ (changes / lengths) @ (right[span].T / sizes[span])
    curvatures, axes = np.linalg.eigh((curvature + curvature.T) / 2)
    axes = basis @ axes
    along = axes.T @ residual
    newton = along / (np.abs(curvatures) + tuning().anderson.curvature_ridge)
    return np.asarray(last.begin + (residual + axes @ (newton - along)) / scale)
