"""Pictures of choices among models: criteria over the number of components, the chosen marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..estimators.describe import COLOURS, FittedMixture, colour
from ..estimators.drawings import register_drawing
from ..estimators.shapes import line, marker
from ..fitting.criteria import DEGENERATE, DROPPED, elbow, model_in
from .axes import ink, is_finite, label_axes, mark, new_axes, shortened, whole_numbers
from .formats import quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..estimators.select import Selection

# More lines than this are named beside the picture.
MOST_INSIDE = 6


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
        covariance_type and status. One whose criterion is None or not finite is left out; the mark
        of one of status DROPPED, whose criterion is an estimate, is hollow, and one of status
        DEGENERATE, which is left out of the choice, is crossed out.
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
        ks, values = ([float(c[name]) for c in mine] for name in ("n_components", criterion))
        whole = [j for j, c in enumerate(mine) if not _dropped(c)]
        (curve,) = ax.plot(
            ks, values, marker=marker(i), ls=line(i), ms=5, lw=1.5, markevery=whole,
            color=colour(i), label=shortened(structure),
        )  # fmt: skip
        mark(curve, told=f"{structure or criterion.upper()}: {_told(mine, criterion)}")
        _mark_others(ax, mine, criterion, i)
    held_out = criterion == "holdout"
    sign = -1.0 if held_out else 1.0
    best = chosen or min(drawn, key=lambda c: (_dropped(c), sign * float(c[criterion])))
    if is_finite(best.get(criterion)):
        (circle,) = ax.plot(
            best["n_components"], best[criterion], "o", ms=12, mfc="none", mec=ink(), mew=1.4
        )
        mark(circle, told=f"chosen: {best['n_components']} components {model_in(best)}".rstrip())
    if len(structures) > 1:
        # Beside the lines where it would hide them.
        many = len(structures) > MOST_INSIDE
        beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if many else {}
        for name in ax.legend(frameon=False, fontsize="small", **beside).get_texts():
            # As in `label_axes`.
            name.set_parse_math(False)
    whole_numbers(ax.xaxis)
    label_axes(ax, "components", "held out, nats per row" if held_out else criterion.upper())
    return ax


@register_drawing("selection")
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


def _mark_others(
    ax: Axes, mine: Sequence[Mapping[str, Any]], criterion: str, structure: int
) -> None:
    """Mark the candidates of a line that were given up, or are left out of the choice."""
    at = {
        status: np.array([
            [c["n_components"], c[criterion]] for c in mine if c.get("status") == status
        ], dtype=float).reshape(-1, 2)
        for status in (DROPPED, DEGENERATE)
    }  # fmt: skip
    looks: dict[str, dict[str, Any]] = {
        DROPPED: {"marker": marker(structure), "fc": "none", "ec": colour(structure), "s": 20},
        DEGENERATE: {"marker": "x", "color": ink(), "s": 40, "zorder": 3},
    }
    words = {DROPPED: "dropped early, an estimate", DEGENERATE: "degenerate, not chosen"}
    for status, places in at.items():
        if len(places):
            found = ax.scatter(places[:, 0], places[:, 1], linewidths=1.2, **looks[status])
            mark(found, told=words[status])


def _told(mine: Sequence[Mapping[str, Any]], criterion: str) -> str:
    """Return the numbers of a line in words."""
    return ", ".join(f"{c['n_components']}: {quantity(float(c[criterion]))}" for c in mine)


def _dropped(candidate: Mapping[str, Any]) -> bool:
    return candidate.get("status") == DROPPED
