"""Pictures of answers to questions: the probability of each in each component."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..core.additive import Array
from ..errors import UsageError
from ..estimators.describe import FittedMixture, colour
from .axes import ink, label_axes, mark, new_axes
from .formats import called, percent
from .plots import heaviest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Categories that are drawn one by one.
MOST_CATEGORIES = 30


def plot_answers(
    model: FittedMixture, column: int, X: Array | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the probability of each answer to one question as bars, one a component.

    Parameters
    ----------
    model : fitted mixture
        Of a family whose `Family.answer_probabilities` has the column.
    column : int
    X : (n, d) array, optional
        Rows, whose shares of each answer are lines across the bars.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    UsageError
        The column is none of answers.
    """
    components = model.describe()
    found = components.answers.get(column)
    if found is None:
        raise UsageError(f"column {column} holds no answers of categories: use plot_marginal")
    ax = new_axes(ax)
    drawn, n = heaviest(model.weights_), min(found.shape[1], MOST_CATEGORIES)
    width = 0.8 / len(drawn)
    for i, k in enumerate(drawn):
        x = np.arange(n) + width * (i + 0.5) - 0.4
        for c, bar in enumerate(ax.bar(x, found[k, :n], width=0.9 * width, color=colour(k))):
            mark(bar, k, f"{called(k)}: {percent(float(found[k, c]))}")
    if X is not None:
        answers = np.asarray(model.state_.result.components.answers_in(X, column))
        known = answers[~np.isnan(answers)]
        shares = [float((known == c).mean()) if len(known) else 0.0 for c in range(n)]
        ax.hlines(shares, np.arange(n) - 0.45, np.arange(n) + 0.45, color=ink(), lw=1.2)
    ax.set_xticks(range(n))
    ax.set_ylim(0, 1)
    label_axes(ax, components.columns[column], "probability")
    return ax
