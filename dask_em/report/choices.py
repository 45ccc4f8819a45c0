"""Pictures of choices among models: criteria over the number of components, the chosen marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..estimators.describe import COLOURS, FittedMixture, colour
from ..fitting.criteria import DROPPED, elbow, model_in
from .axes import ink, is_finite, label_axes, new_axes, shortened, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..estimators.select import Selection


def candidates(selection: Sequence[Mapping[str, Any]], criterion: str) -> list[Mapping[str, Any]]:
    """Return the candidates of a selection that have a finite `criterion`."""
    return [c for c in selection if is_finite(c.get(criterion))]


def selection_of(model: FittedMixture) -> Sequence[Mapping[str, Any]]:
    """Return the candidates of the choice; none where the model was fitted alone."""
    sweep = model.provenance_.get("sweep", {})
    return vars(model).get("selection_") or sweep.get("table") or ()


def plot_criterion(
    selection: Sequence[Mapping[str, Any]],
    criterion: str = "bic",
    ax: Axes | None = None,
    chosen: Mapping[str, Any] | None = None,
) -> Axes:
    """Draw a criterion over the number of components, one line a kind of components.

    Parameters
    ----------
    selection : sequence of dict
        Candidates with the keys n_components and `criterion`, and where they have them
        covariance_type and status. One whose criterion is None or not finite is left out; one of
        status DROPPED, whose criterion is an estimate, is on the line without a dot.
    criterion : {"bic", "aic", "icl", "holdout"}
        Lower is better, but of "holdout", the log-likelihood of rows held out.
    ax : matplotlib Axes, optional
    chosen : dict, optional
        The candidate that is circled; by default the best that was not dropped.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    UsageError
        No candidate has the criterion.
    """
    ax = new_axes(ax)
    drawn = candidates(selection, criterion)
    if not drawn:
        raise UsageError(f"no candidate has a finite {criterion!r}: nothing to draw")
    structures = list(dict.fromkeys(map(model_in, drawn)))
    for i, structure in enumerate(structures):
        mine = [c for c in drawn if model_in(c) == structure]
        mine.sort(key=lambda c: int(c["n_components"]))
        ax.plot(
            [c["n_components"] for c in mine],
            [c[criterion] for c in mine],
            # Colours repeat, and there are more structures of covariances than colours.
            "o-" if i < len(COLOURS) else "o--",
            ms=4,
            lw=1.5,
            markevery=[j for j, c in enumerate(mine) if not _dropped(c)],
            color=colour(i),
            label=shortened(structure),
        )
    held_out = criterion == "holdout"
    sign = -1.0 if held_out else 1.0
    best = chosen or min(drawn, key=lambda c: (_dropped(c), sign * float(c[criterion])))
    if is_finite(best.get(criterion)):
        ax.plot(best["n_components"], best[criterion], "o", ms=11, mfc="none", mec=ink(), mew=1.2)
    if len(structures) > 1:
        for name in ax.legend(frameon=False).get_texts():
            # As in `label_axes`.
            name.set_parse_math(False)
    whole_numbers(ax.xaxis)
    label_axes(ax, "components", "held out, nats per row" if held_out else criterion.upper())
    return ax


def plot_selection(found: Selection, criterion: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw a criterion over the number of components as `plot_criterion`, the winner circled.

    Parameters
    ----------
    found : Selection
        What `select` returned.
    criterion : {"bic", "aic", "icl", "holdout"}, optional
        By default the one by which it chose.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    UsageError
        No model has the criterion.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from dask_em import select
    >>> found = select(np.random.default_rng(0).normal(size=(200, 2)), [1, 2], random_state=0)
    >>> ax = plot_selection(found, ax=Figure().subplots())
    >>> ax.get_xlabel(), ax.get_ylabel(), float(ax.lines[-1].get_xdata()[0])
    ('components', 'BIC', 1.0)
    """
    return plot_criterion(found.table, criterion or found.criterion, ax, found.chosen)


def plot_elbow(selection: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Draw the inertia over the number of clusters, its elbow marked.

    Parameters
    ----------
    selection : sequence of dict
        Candidates with the keys n_components and inertia, as in `plot_criterion`.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax)
    drawn = sorted(candidates(selection, "inertia"), key=lambda c: int(c["n_components"]))
    ks = [int(c["n_components"]) for c in drawn]
    values = [float(c["inertia"]) for c in drawn]
    whole = [j for j, c in enumerate(drawn) if not _dropped(c)]
    ax.plot(ks, values, "o-", ms=4, lw=1.5, markevery=whole, color=COLOURS[0])
    bend = elbow(ks, values)
    if bend is not None:
        ax.plot([ks[0], ks[-1]], [values[0], values[-1]], "--", lw=1, color=COLOURS[3])
        ax.plot(bend, values[ks.index(bend)], "o", ms=11, mfc="none", mec=ink(), mew=1.2)
    whole_numbers(ax.xaxis)
    label_axes(ax, "clusters", "inertia")
    return ax


def _dropped(candidate: Mapping[str, Any]) -> bool:
    return candidate.get("status") == DROPPED
