"""TODO estimators.describe."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.additive import Array

# Ten colours told apart under every common colour blindness, on white and on black
# (M. A. Petroff, Accessible color sequences for data visualization, 2021).
COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip


def colour(k: int) -> str:
    """Colour of component `k`, as #rrggbb; they repeat after ten."""
    return COLOURS[k % len(COLOURS)]


def column_names(model: Any) -> list[str]:
    """Names of the columns that the model was fitted to, "column 3" where they have none."""
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        return [f"column {j}" for j in range(model.means_.shape[1])]
    return [str(name) for name in names]


def variances(model: Any) -> Array:
    """Variance of each component in each column, (k, d), whatever the structure."""
    k, d = model.means_.shape
    covariances = np.asarray(model.covariances_)
    if model.covariance_type in ("full", "tied"):
        covariances = np.diagonal(covariances, axis1=-2, axis2=-1)
    elif model.covariance_type == "spherical":
        covariances = covariances[:, None]
    return np.broadcast_to(covariances, (k, d))


def overall(model: Any) -> tuple[Array, Array]:
    """Mean and standard deviation of the whole mixture in each column, (d,) and (d,)."""
    center = model.weights_ @ model.means_
    spread = model.weights_ @ (variances(model) + (model.means_ - center) ** 2)
    return center, np.sqrt(spread)
