"""Pictures of a fitted mixture, with matplotlib (extra `plot`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .statistics import Array


def plot_components(model: Any, X: Array, columns: tuple[int, int] = (0, 1), ax: Any = None) -> Any:
    """Scatter of some rows, coloured by component, with ellipses at 1 and 2 standard deviations.

    Parameters
    ----------
    model : fitted GaussianMixture
    X : (n, d) array
        A few thousand rows; all of them are drawn.
    columns : pair of int
        Which columns are the axes.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Ellipse

    if ax is None:
        _, ax = plt.subplots(figsize=(6, 5), layout="constrained")
    X = np.asarray(X)
    d = X.shape[1]
    pair = list(columns)
    colours = plt.get_cmap("tab10" if model.n_components <= 10 else "tab20")
    labels = np.asarray(model.predict(X))
    for k, (mean, covariance) in enumerate(zip(model.means_, _full(model, d), strict=True)):
        colour = colours(k % colours.N)
        rows = X[labels == k]
        ax.scatter(rows[:, pair[0]], rows[:, pair[1]], s=4, color=colour, alpha=0.35, linewidths=0)
        variances, axes = np.linalg.eigh(covariance[np.ix_(pair, pair)])
        angle = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])))
        for deviations in (1, 2):
            minor, major = 2 * deviations * np.sqrt(variances)
            outline = Ellipse(
                tuple(mean[pair]), major, minor, angle=angle, fill=False, color=colour, lw=1.5
            )
            ax.add_patch(outline)
    ax.set_xlabel(f"column {pair[0]}")
    ax.set_ylabel(f"column {pair[1]}")
    ax.set_title(f"{model.n_components} components, {len(X):,} rows of the data")
    return ax


def _full(model: Any, d: int) -> Array:
    """Covariances (k, d, d), whatever the structure."""
    k, covariances = model.n_components, model.covariances_
    if model.covariance_type == "full":
        return np.asarray(covariances)
    if model.covariance_type == "tied":
        return np.broadcast_to(covariances, (k, d, d))
    widths = np.reshape(covariances, (k, -1, 1))
    return np.asarray(widths * np.eye(d))
