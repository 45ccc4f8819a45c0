"""Marginals of single columns: densities over histograms, probabilities over frequencies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.additive import Array
from ..estimators.describe import FittedMixture, colour, noise_density
from ..estimators.shapes import line, marker
from .answers import plot_answers
from .axes import (
    MOST_LABELLED,
    column_number,
    curve_points,
    heaviest,
    ink,
    label_axes,
    mark,
    new_axes,
    real_rows,
    whole_numbers,
)
from .formats import about, called

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Counts that are drawn one by one; of a wider range, probabilities are a curve.
MOST_COUNTS = 50


def plot_marginal(
    model: FittedMixture, column: int = 0, X: Array | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the density of one column and of its components, over a histogram of rows.

    Of a column of counts the probability of each, over the frequencies of rows; of one of
    categories as `plot_answers`.

    Parameters
    ----------
    model : fitted mixture
    column : int
    X : (n, d) array, optional
        Rows of the histogram.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    UsageError
        A column that the model does not have.
    """
    j = column_number(column, model.n_features_in_)
    components = model.describe()
    if j in components.answers:
        return plot_answers(model, j, X, ax)
    ax = new_axes(ax)
    values = None if X is None else real_rows(X, model.n_features_in_)[:, j]
    if values is not None:
        values = values[np.isfinite(values)]
        values = values if len(values) else None
    if j in components.counts:
        _draw_counts(ax, model, j, values)
    else:
        _draw_density(ax, model, j, values)
    ax.set_ylim(bottom=0)
    label_axes(ax, components.columns[j], "probability" if j in components.counts else "density")
    return ax


def _points(model: FittedMixture, j: int, values: Array | None) -> Array:
    """Choose points of the curve of a column, of its components and of the rows' values."""
    components = model.describe()
    means, widths = components.means[:, j], np.sqrt(components.variances[:, j])
    reach = None if values is None else (float(values.min()), float(values.max()))
    return curve_points(means, widths, reach, heaviest(model.weights_))


def _draw_density(ax: Axes, model: FittedMixture, j: int, values: Array | None) -> None:
    if values is not None:
        bins = int(np.clip(np.sqrt(len(values)), 10, 60))
        ax.hist(values, bins=bins, density=True, color=ink(), alpha=0.18)
    x = _points(model, j, values)
    parts = model.describe().marginal(j, x) * model.weights_[:, None]
    if 1 < model.n_components <= MOST_LABELLED:
        for k, part in enumerate(parts):
            (curve,) = ax.plot(x, part, lw=1.2, ls=line(k), color=colour(k))
            mark(curve, k, _told(model, j, k))
    ax.plot(x, parts.sum(axis=0) + noise_density(model, j, x), lw=1.6, color=ink())


def _draw_counts(ax: Axes, model: FittedMixture, j: int, values: Array | None) -> None:
    """Draw probabilities of counts as points, and those of many as curves."""
    x = np.unique(np.rint(_points(model, j, values)).clip(min=0))
    x = np.arange(x[0], x[-1] + 1) if (few := x[-1] - x[0] < MOST_COUNTS) else x
    if values is not None:
        step = 1.0 if few else np.ceil((x[-1] - x[0]) / MOST_COUNTS)
        edges = np.arange(x[0], x[-1] + 1 + step, step) - 0.5
        share = np.histogram(values, edges)[0] / (len(values) * step)
        ax.bar((edges[:-1] + edges[1:]) / 2, share, 0.9 * step, color=ink(), alpha=0.18)
    parts = model.describe().marginal(j, x) * model.weights_[:, None]
    look: dict[str, Any] = {"ms": 4.0, "lw": 0.9} if few else {"lw": 1.2}
    if 1 < model.n_components <= MOST_LABELLED:
        for k, part in enumerate(parts):
            shape = marker(k) if few else ""
            (curve,) = ax.plot(x, part, color=colour(k), marker=shape, ls=line(k), **look)
            mark(curve, k, _told(model, j, k))
    whole: dict[str, Any] = {"marker": "_", "ms": 7, "mew": 1.8, "lw": 0.6} if few else {"lw": 1.6}
    ax.plot(x, parts.sum(axis=0), color=ink(), **whole)
    whole_numbers(ax.xaxis)


def _told(model: FittedMixture, j: int, k: int) -> str:
    """Return the mean of a column in a component, in words."""
    components = model.describe()
    width = float(np.sqrt(components.variances[k, j]))
    return f"{called(k)}: {about(float(components.means[k, j]), width)}"
