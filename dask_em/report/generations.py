"""Pictures of the generations of a model: rows, log-likelihoods and weights, update by update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..estimators.describe import colour
from ..estimators.shapes import line
from .axes import ink, is_finite, mark, new_axes, whole_numbers, with_unit
from .formats import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Components whose weights are drawn, the heaviest, and generations.
MOST_DRAWN, MOST_GENERATIONS = 20, 1000


def plot_generations(log: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Draw the rows of each generation as bars, and the log-likelihood of a row as a line.

    Parameters
    ----------
    log : sequence of mapping
        `provenance_["generations"]` of a model.
    ax : matplotlib Axes, optional

    Examples
    --------
    >>> log = [{"number": 1, "rows": 500, "log_likelihood": -3.0}]
    >>> plot_generations(log).get_ylabel()
    'rows'
    """
    ax = new_axes(ax)
    log = log[-MOST_GENERATIONS:]
    numbers = np.array([one["number"] for one in log])
    bars = ax.bar(numbers, [one["rows"] for one in log], color=ink(), alpha=0.25, width=0.8)
    for bar, one in zip(bars, log, strict=True):
        mark(bar, told=f"generation {one['number']}: {one['rows']:,} rows")
    ax.yaxis.set_major_formatter(with_unit)
    ax.set(xlabel="generation", ylabel="rows", title="Rows of each generation")
    whole_numbers(ax.xaxis)
    known = [(n, one["log_likelihood"]) for n, one in zip(numbers, log, strict=True)]
    known = [(n, value) for n, value in known if is_finite(value)]
    if known:
        other = ax.twinx()
        other.spines["right"].set_visible(True)
        marker = "o" if len(known) <= 60 else ""
        other.plot(*zip(*known, strict=True), color=colour(0), marker=marker, markersize=3)
        other.set_ylabel("nats a row", color=colour(0))
    return ax


def plot_weight_paths(log: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Draw the weights of the components after each generation, the heaviest components only.

    Parameters
    ----------
    log : sequence of mapping
        `provenance_["generations"]` of a model; those without weights are left out.
    ax : matplotlib Axes, optional

    Examples
    --------
    >>> log = [{"number": n, "weights": [0.5, 0.5]} for n in (1, 2)]
    >>> len(plot_weight_paths(log).lines)
    2
    """
    ax = new_axes(ax)
    known = [one for one in log[-MOST_GENERATIONS:] if "weights" in one]
    numbers = [one["number"] for one in known]
    weights = np.array([one["weights"] for one in known])
    for k in np.argsort(-weights[-1], kind="stable")[:MOST_DRAWN].tolist():
        path = weights[:, k]
        (drawn,) = ax.plot(numbers, path, color=colour(k), linestyle=line(k), linewidth=1.3)
        mark(drawn, k, f"component {k}: from {percent(path[0])} to {percent(path[-1])}")
    ax.set(xlabel="generation", ylabel="weight", title="Weights over generations")
    ax.set_ylim(bottom=0.0)
    whole_numbers(ax.xaxis)
    return ax
