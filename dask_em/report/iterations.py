"""Pictures of fits iteration by iteration, with matplotlib (extra `plot`).

States are those that a fit tells its callbacks, one a pass: `callbacks=[states.append]`. Each holds
the parameters of its pass, the first those of the start. Rows X are a sample that fits in memory:
all of them are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core.additive import Array
from ..core.em import EMState
from ..core.objective import Objective
from ..core.scoring import Predict
from ..errors import UsageError
from ..estimators.describe import (
    COLOURS,
    NOISE_COLOUR,
    FamilyDescription,
    colour,
    names_of_columns,
)
from .axes import (
    column_number,
    heaviest,
    ink,
    label_axes,
    new_axes,
    new_figure,
    outline_component,
    real_rows,
    shortened,
    whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches of one panel of `plot_iterations`, and the height of its curves.
PANEL, CURVES = 2.0, 2.4


def plot_state(
    state: EMState,
    X: Array,
    columns: tuple[int, int] = (0, 1),
    ax: Axes | None = None,
    before: Sequence[EMState] = (),
) -> Axes:
    """Draw rows, coloured by responsibilities, with the components at one pass of a fit.

    A row has the colours of the components, mixed by its responsibilities; of a hard assignment
    that of its cluster. Components are ellipses at 1 and 2 standard deviations, clusters of a hard
    assignment their centres alone.

    Parameters
    ----------
    state : EMState
    X : (n, d) array
        A few thousand rows.
    columns : pair of int
        Which columns are the axes.
    ax : matplotlib Axes, optional
    before : sequence of EMState
        Earlier states, through whose means a line leads to those of this one.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    UsageError
        A column that the model does not have, or rows of others.
    """
    ax, d = new_axes(ax, (6, 5)), state.mixture.components.n_features
    X, pair = real_rows(X, d), [column_number(j, d) for j in columns]
    resp = Predict(state.mixture.on_cpu, ("proba",))(X)["proba"]
    x, y = X[:, pair].T
    k = len(state.mixture.log_weights)
    ax.scatter(x, y, s=4, c=mixed_colours(resp, k), alpha=0.5, linewidths=0, rasterized=True)
    described = [
        FamilyDescription(each.mixture.components, names_of_columns(None, d))
        for each in (*before, state)
    ]
    now, paths = described[-1], np.stack([each.means[:, pair] for each in described])
    for k in heaviest(state.mixture.weights):
        ax.plot(*paths[:, k].T, lw=0.9, color=ink(), alpha=0.7)
        if state.mixture.assignment == "soft":
            outline_component(ax, k, paths[-1, k], now.covariance(k, pair))
        ax.plot(*paths[-1, k], "X", ms=8, mfc=colour(k), mec="white", mew=0.8)
    label_axes(ax, now.columns[pair[0]], now.columns[pair[1]])
    ax.set_title(named(state))
    return ax


def plot_objective(
    states: Sequence[EMState], ax: Axes | None = None, marked: Sequence[int] | None = None
) -> Axes:
    """Draw the inertia of a K-means, or the log-likelihood of a mixture, over the iterations.

    Parameters
    ----------
    states : sequence of EMState
    ax : matplotlib Axes, optional
    marked : sequence of int, optional
        Numbers of the states that have a dot; by default all.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    UsageError
        There are no states.
    """
    check_states("states", states)
    ax, found = new_axes(ax), [objective_of(state) for state in states]
    ax.plot(
        [iteration(state) for state in states],
        [objective.value for objective in found],
        "o-",
        ms=4,
        lw=1.5,
        markevery=None if marked is None else list(marked),
        color=COLOURS[0],
    )
    whole_numbers(ax.xaxis)
    label_axes(ax, "iteration", found[0].unit)
    ax.set_title(found[0].name)
    return ax


def plot_iterations(
    runs: Mapping[str, Sequence[EMState]],
    X: Array,
    columns: tuple[int, int] = (0, 1),
    n_drawn: int = 6,
    figure: Figure | None = None,
) -> list[Axes]:
    """Draw fits to the same rows iteration by iteration, a row of panels each, and objectives.

    The start, the end, and iterations between them that are closer at the beginning, drawn as
    `plot_state` does; below them the objective of each fit, with a dot at those that are drawn.

    Parameters
    ----------
    runs : dict of sequences of EMState
        By name: what each fit told its callbacks.
    X : (n, d) array
        A few thousand rows.
    columns : pair of int
        Which columns are the axes.
    n_drawn : int
        Iterations of each fit that are drawn, at most.
    figure : matplotlib Figure, optional

    Returns
    -------
    list of matplotlib Axes
        Panels, fit by fit, and objectives.

    Raises
    ------
    UsageError
        There are no fits, one has no states, or X or `columns` are not of their columns.
    """
    for name, states in runs.items():
        check_states(f"runs[{name!r}]", states)
    if not runs or n_drawn < 2:
        raise UsageError(
            f"runs has {len(runs)} fits and n_drawn is {n_drawn}: expected one fit at least, "
            "and two iterations of it, the start and the end"
        )
    figure = new_figure(figure, (PANEL * n_drawn, PANEL * len(runs) + CURVES))
    heights = [PANEL * len(runs), CURVES]
    upper, lower = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    panels = upper.subplots(len(runs), n_drawn, sharex=True, sharey=True, squeeze=False)
    curves = lower.subplots(1, len(runs), squeeze=False)[0]
    used: list[Axes] = []
    for (name, states), row, curve in zip(runs.items(), panels, curves, strict=True):
        drawn = spread_numbers(len(states), n_drawn)
        for ax, number in zip(row, drawn, strict=False):
            plot_state(states[number], X, columns, ax, states[:number])
            label_axes(ax, "", name if ax is row[0] else "")
            used.append(ax)
        for ax in row[len(drawn) :]:
            ax.set_axis_off()
        plot_objective(states, curve, drawn)
        curve.set_title(f"{shortened(name)}: {curve.get_title()}", parse_math=False)
    # The rows are seen, however wide the ellipses of a start are.
    x, y = np.asarray(X)[:, list(columns)].T
    panels[0, 0].set(xlim=reach(x), ylim=reach(y), xticks=[], yticks=[])
    return [*used, *curves]


def reach(values: Array) -> tuple[float, float]:
    """Return limits of an axis that leave a margin about values.

    Examples
    --------
    >>> reach(np.array([0.0, 10.0])), reach(np.array([3.0]))
    ((-0.5, 10.5), (2.5, 3.5))
    """
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def mixed_colours(resp: Array, k: int) -> Array:
    """Mix the colours of components by responsibilities (n, k), as (n, 3) of red, green and blue.

    A column behind those of the k components is that of noise.

    Examples
    --------
    >>> mixed_colours(np.array([[1.0, 0.0], [0.5, 0.5]]), 2).round(2).tolist()
    [[0.25, 0.56, 0.85], [0.62, 0.61, 0.45]]
    """
    names = [*map(colour, range(k)), NOISE_COLOUR][: resp.shape[1]]
    pure = [[int(name[i : i + 2], 16) / 255 for i in (1, 3, 5)] for name in names]
    return np.asarray(np.clip(resp @ np.array(pure), 0, 1))


def objective_of(state: EMState) -> Objective:
    """Return what the passes of a fit lower or raise: the inertia, or the log-likelihood."""
    components, weight = state.mixture.components, state.statistics.weight
    return components.reported_objective(state.reported, weight)


def iteration(state: EMState) -> int:
    """Return how many iterations led to the parameters of a pass: none to those of the first."""
    return state.n_iter - 1


def named(state: EMState) -> str:
    """Return the title of a picture of a state."""
    return f"iteration {iteration(state)}" if iteration(state) else "start"


def spread_numbers(n: int, most: int) -> list[int]:
    """Choose numbers below n, at most so many, both ends among them, closer at the beginning.

    Examples
    --------
    >>> spread_numbers(4, 6), spread_numbers(30, 6)
    ([0, 1, 2, 3], [0, 1, 3, 7, 14, 29])
    """
    if n <= most:
        return [*range(n)]
    found: list[int] = []
    for number in np.geomspace(1, n, most):
        least = found[-1] + 1 if found else 0
        found.append(max(least, round(number) - 1))
    return found


def check_states(name: str, states: Sequence[EMState]) -> None:
    """Raise `UsageError` where there is no state to draw."""
    if not states:
        raise UsageError(
            f"{name} is empty: expected the states of a fit, as its callbacks are told them"
        )
