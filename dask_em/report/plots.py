"""Pictures of a fitted mixture of any family, with matplotlib (extra `plot`).

Every function draws into one matplotlib Axes, a new one where none is given, and returns
it. Rows X are a sample that fits in memory: all of them are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.additive import Array
from ..core.profile import Picture, Profile
from ..core.scoring import Answer
from ..errors import UsageError
from ..estimators.describe import (
    COLOURS,
    FittedMixture,
    all_weights,
    colour,
    colours,
    mixture_moments,
    noise_density,
    shares_among,
)
from ..estimators.shapes import line, marker
from .axes import (
    column_number,
    curve_points,
    ink,
    is_finite,
    label_axes,
    mark,
    mark_points,
    new_axes,
    new_figure,
    number_component,
    outline_component,
    real_rows,
    shortened,
    whole_numbers,
    with_unit,
)
from .formats import NOISE, about, called, percent, quantity

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from .drift import ChunkDensities

# More components than this are told apart by colour alone: numbers and curves would overlap.
MOST_LABELLED = 20

# Of more components than this, the heaviest are drawn: nobody tells others apart, and each takes
# its share of the page.
MOST_DRAWN = 200

# More columns than this are numbered and joined by lines.
MOST_NAMED_COLUMNS = 12

# Fewer rows than this are larger points, and less pale.
FEW_ROWS = 1000

# Points of lines above which a picture of them is smaller than their list.
MANY_POINTS = 4_000


def heaviest(weights: Array) -> list[int]:
    """Return the components that are drawn one by one, in their order, by all weights (k,)."""
    if len(weights) <= MOST_DRAWN:
        return [*range(len(weights))]
    return sorted(np.argsort(-weights, kind="stable")[:MOST_DRAWN].tolist())


def telling_columns(
    model: FittedMixture, most: int = 4, among: Sequence[int] | None = None
) -> list[int]:
    """Choose the columns that separate the components best, at most so many, in their order.

    Best is the largest share of a column's variance that lies between the components. They are
    chosen `among` some columns, by default all.
    """
    components = model.describe()
    center, spread = mixture_moments(model.weights_, components)
    between = shares_among(model) @ (components.means - center) ** 2
    share = np.divide(between, spread**2, out=np.zeros_like(between), where=spread > 0)
    asked = np.arange(len(share)) if among is None else np.array(among, dtype=int)
    return sorted(asked[np.argsort(-share[asked], kind="stable")[:most]].tolist())


def plot_components(
    model: FittedMixture, X: Array, columns: tuple[int, int] = (0, 1), ax: Axes | None = None
) -> Axes:
    """Draw rows, coloured by component, with ellipses at 1 and 2 standard deviations.

    Parameters
    ----------
    model : fitted mixture
    X : (n, d) array
        A few thousand rows; all of them are drawn.
    columns : pair of int
        Which columns are the axes.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    UsageError
        A column that the model does not have.
    """
    ax = new_axes(ax, (6, 5))
    X = real_rows(X, model.n_features_in_)
    pair = [column_number(j, model.n_features_in_) for j in columns]
    labels, components = _answer(model, X, "labels"), model.describe()
    x, y = X[:, pair].T
    # Noise has the label -1, and the last colour.
    size, alpha = (4, 0.35) if len(X) > FEW_ROWS else (10, 0.6)
    points = ax.scatter(
        x, y, s=size, c=colours(model)[labels], alpha=alpha, linewidths=0, rasterized=True
    )
    mark_points(points, labels[np.isfinite(x) & np.isfinite(y)])
    for k in heaviest(model.weights_):
        mean = components.means[k, pair]
        outline_component(ax, k, mean, components.covariance(k, pair))
        if model.n_components <= MOST_LABELLED:
            number_component(ax, k, mean)
    label_axes(ax, components.columns[pair[0]], components.columns[pair[1]])
    ax.set_title(f"{model.n_components} components, {len(X):,} rows of the data")
    return ax


def plot_pairs(
    model: FittedMixture, X: Array, columns: Sequence[int] | None = None, axes: Array | None = None
) -> Array:
    """Draw every pair of some columns as `plot_components`, marginals on the diagonal.

    Parameters
    ----------
    model : fitted mixture
    X : (n, d) array
    columns : sequence of int, optional
        By default the (at most) four in which the components differ most.
    axes : (m, m) array of matplotlib Axes, optional

    Returns
    -------
    (m, m) array of matplotlib Axes
    """
    chosen = telling_columns(model) if columns is None else list(columns)
    m = len(chosen)
    if axes is None:
        size = max(4.0, 2.6 * m)
        axes = new_figure(None, (size, size)).subplots(m, m, squeeze=False)
    axes = np.asarray(axes)
    if axes.shape != (m, m):
        raise UsageError(f"axes has shape {axes.shape}, expected {(m, m)} for {m} columns")
    for i, row in enumerate(chosen):
        for j, column in enumerate(chosen):
            if i == j:
                plot_marginal(model, row, X, axes[i, j])
            else:
                plot_components(model, X, (column, row), axes[i, j])
            axes[i, j].set_title("")
    grid: Array = axes
    return grid


def plot_weights(model: FittedMixture, ax: Axes | None = None) -> Axes:
    """Draw the weights of the components as bars.

    Parameters
    ----------
    model : fitted mixture
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax)
    bars, weights = colours(model).tolist(), all_weights(model)
    if model.n_components <= MOST_DRAWN:
        drawn = ax.bar(range(len(bars)), weights, color=bars, width=0.7)
        for k, bar, weight in zip(_numbers(model), drawn, weights, strict=True):
            mark(bar, k, f"{called(k)}: {percent(weight)}")
    else:
        edges = np.arange(model.n_components + 1) - 0.5
        ax.stairs(model.weights_, edges, fill=True, color=COLOURS[0], rasterized=True)
    if model.n_components <= MOST_LABELLED:
        ax.set_xticks(range(len(bars)), [*range(model.n_components), "noise"][: len(bars)])
    label_axes(ax, "component", "weight")
    return ax


def plot_log_likelihood(model: FittedMixture, ax: Axes | None = None) -> Axes:
    """Draw what the fit raised or lowered, at each pass; rejected steps as crosses.

    That is the mean log-likelihood per row in nats, or the inertia.

    A step was rejected where the record of its pass says so, or, in records that say
    nothing of it, where it lowered the log-likelihood.

    Parameters
    ----------
    model : fitted mixture
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax)
    passes, values, accepted = _ascent(model.history_, model.objective_.key)
    ax.plot(passes[accepted], values[accepted], "o-", ms=4, lw=1.5, color=COLOURS[0])
    if not accepted.all():
        bad = ~accepted
        ax.plot(passes[bad], values[bad], "x", ms=6, color=COLOURS[2], label="rejected")
        # Above the axes: inside, its cross would look like a pass.
        ax.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
    whole_numbers(ax.xaxis)
    label_axes(ax, "pass", model.objective_.unit or model.objective_.name)
    return ax


def plot_sharpness(model: FittedMixture, X: Array, ax: Axes | None = None) -> Axes:
    """Draw the histogram of the largest responsibility of each row.

    Parameters
    ----------
    model : fitted mixture
    X : (n, d) array
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax)
    resp = _answer(model, real_rows(X, model.n_features_in_), "proba")
    labels, largest = resp.argmax(axis=1), resp.max(axis=1)
    labels = np.where(labels == model.n_components, NOISE, labels)
    few, bars = model.n_components <= MOST_DRAWN, colours(model).tolist()
    parts = [largest[labels == k] for k in _numbers(model)] if few else [largest]
    found: Any = ax.hist(
        parts,
        bins=20,
        range=(0, 1),
        weights=[np.full(len(part), 1 / len(largest)) for part in parts],
        color=bars[: len(parts)],
        stacked=True,
    )[2]
    if few:
        for k, bars_of_one in zip(
            _numbers(model), found if len(parts) > 1 else [found], strict=True
        ):
            share = f"{called(k)}: {percent(float((labels == k).mean()))} of the rows"
            for bar in bars_of_one:
                bar.set_visible(bar.get_height() > 0)
                mark(bar, k, share)
    ax.set_xlim(0, 1)
    label_axes(ax, "largest responsibility", "share of rows")
    return ax


def plot_profiles(
    model: FittedMixture, ax: Axes | None = None, profile: Profile | None = None
) -> Axes:
    """Draw what the components are like over the columns, or over the values of one.

    Means are drawn with one standard deviation, in standard deviations of the whole mixture from
    its mean, so that columns of any unit share the axis; other numbers, such as probabilities, as
    bars.

    Parameters
    ----------
    model : fitted mixture
    ax : matplotlib Axes, optional
    profile : Profile, optional
        One of `model.describe().profiles`; by default the first.

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax)
    components = model.describe()
    profile = components.profiles[0] if profile is None else profile
    drawn, m = heaviest(model.weights_), profile.values.shape[1]
    values, widths, unit = profile.values, profile.widths, profile.title.lower()
    if profile.picture == "bands" and widths is not None:
        center = (shares := shares_among(model)) @ values
        spread = np.sqrt(shares @ (widths**2 + (values - center) ** 2))
        spread = np.where(spread > 0, spread, 1.0)
        values, widths, unit = (values - center) / spread, widths / spread, "standard deviations"
    few, k = m <= MOST_NAMED_COLUMNS, len(drawn)
    names = profile.names(components.columns)
    for i, component in enumerate(drawn):
        x = np.arange(m) + (0.6 * ((i + 0.5) / k - 0.5) if few else 0.0)
        width = None if widths is None else widths[component]
        artists = _draw_profile(
            ax, x, values[component], width, component, (few, k, profile.picture)
        )
        for artist in artists:
            mark(artist, component, _told(profile, component, names) if few else called(component))
    ax.axhline(0, lw=0.6, color=ink(), alpha=0.5, zorder=0)
    if few:
        _name_entries(ax, names)
    else:
        whole_numbers(ax.xaxis)
    label_axes(ax, "" if few else "value" if profile.entries else "column", unit)
    return ax


def _draw_profile(
    ax: Axes, x: Array, values: Array, widths: Array | None, component: int,
    how: tuple[bool, int, Picture],
) -> list[Artist]:  # fmt: skip
    """Draw one of k components at places x (m,): marks and bands, bars, or lines of many."""
    few, k, picture = how
    if not few:
        # Thousands of points of each are a picture, not words.
        look: Any = {"color": colour(component), "rasterized": len(x) * k > MANY_POINTS}
        drawn: list[Artist] = [*ax.plot(x, values, lw=1.2, ls=line(component), **look)]
        if widths is not None:
            drawn.append(
                ax.fill_between(x, values - widths, values + widths, alpha=0.1, lw=0, **look)
            )
        return drawn
    if picture == "bars":
        return [*ax.bar(x, values, 0.6 / k, color=colour(component))]
    style: Any = {"fmt": marker(component), "ms": 4, "lw": 1.5, "capsize": 0}
    return [*ax.errorbar(x, values, widths, color=colour(component), **style).get_children()]


def _told(profile: Profile, component: int, names: Sequence[str]) -> str:
    """Return the values of one component in words, in their own unit."""
    values, widths = profile.values[component], profile.widths
    told = [
        quantity(value) if widths is None else about(value, widths[component, j])
        for j, value in enumerate(values)
    ]
    each = (f"{shortened(name)} {value}" for name, value in zip(names, told, strict=True))
    return f"{called(component)}: {', '.join(each)}"


def _name_entries(ax: Axes, names: Sequence[str]) -> None:
    """Write what each place on the axis is."""
    names = [shortened(name) for name in names]
    turned = sum(map(len, names)) > 40
    ax.set_xticks(
        range(len(names)), names, parse_math=False,
        rotation=35 if turned else 0, ha="right" if turned else "center",
    )  # fmt: skip
    ax.set_xlim(-0.6, len(names) - 0.4)


def plot_marginal(
    model: FittedMixture, column: int = 0, X: Array | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the density of one column and of its components, over a histogram of rows.

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
    ax = new_axes(ax)
    j = column_number(column, model.n_features_in_)
    components = model.describe()
    means, widths = components.means[:, j], np.sqrt(components.variances[:, j])
    near = heaviest(model.weights_)
    x = curve_points(means, widths, near=near)
    if X is not None:
        values = real_rows(X, model.n_features_in_)[:, j]
        bins = int(np.clip(np.sqrt(len(values)), 10, 60))
        ax.hist(values, bins=bins, density=True, color=ink(), alpha=0.18)
        x = curve_points(means, widths, (float(values.min()), float(values.max())), near)
    parts = components.marginal(j, x) * model.weights_[:, None]
    if 1 < model.n_components <= MOST_LABELLED:
        for k, part in enumerate(parts):
            (curve,) = ax.plot(x, part, lw=1.2, ls=line(k), color=colour(k))
            mark(curve, k, f"{called(k)}: {about(means[k], widths[k])}")
    ax.plot(x, parts.sum(axis=0) + noise_density(model, j, x), lw=1.6, color=ink())
    ax.set_ylim(bottom=0)
    label_axes(ax, components.columns[j], "density")
    return ax


def plot_drift(densities: ChunkDensities, ax: Axes | None = None) -> Axes:
    """Draw the mean log-density of each part over the rows of the store, the unlike ones marked.

    Parameters
    ----------
    densities : report.ChunkDensities
        What `report.chunk_densities(model, X)` returns.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax)
    middle = densities.first_rows + densities.n_rows / 2
    ends = np.append(densities.first_rows[:1], densities.first_rows + densities.n_rows)
    means = np.where(densities.finite, densities.means, np.nan)
    ax.stairs(means, ends, baseline=None, color=COLOURS[0])
    if np.isfinite(densities.median):
        ax.axhline(densities.median, lw=0.8, ls="--", color=ink(), alpha=0.7)
    unlike = densities.unlike & densities.finite
    ax.plot(middle[unlike], means[unlike], "v", ms=6, color=COLOURS[2])
    ax.ticklabel_format(axis="x", style="plain", useOffset=False)
    ax.xaxis.set_major_formatter(with_unit)
    locator: Any = ax.xaxis.get_major_locator()
    locator.set_params(nbins=6)
    label_axes(ax, "row", "nats per row")
    return ax


def _numbers(model: FittedMixture) -> list[int]:
    """Return the numbers of the components, and behind them that of noise where there is any."""
    noise = model.state_.result.noise_box is not None
    return [*range(model.n_components), *([NOISE] if noise else [])]


def _answer(model: FittedMixture, X: Array, answer: Answer) -> Array:
    """Compute an answer for rows, which have no column names even if the model has."""
    return np.asarray(model.predictor((answer,))(X)[answer])


def _ascent(history: Sequence[Mapping[str, Any]], told: str) -> tuple[Array, Array, Array]:
    """Return numbers of the EM passes, what is `told` of each, and whether it was accepted."""
    records = [r for r in history if r["phase"] == "em" and is_finite(r.get("log_likelihood"))]
    values = np.array([r["log_likelihood"] for r in records], dtype=float)
    best = np.maximum.accumulate(values) if len(values) else values
    # Rounding alone may take a little from a fit that stands still.
    kept = values >= best - 1e-9 * (1 + np.abs(best))
    accepted = [r.get("accepted", by_value) for r, by_value in zip(records, kept, strict=True)]
    numbers = np.array([r["number"] for r in records], dtype=int)
    shown = np.array([r.get(told, np.nan) for r in records], dtype=float)
    return numbers, shown, np.array(accepted, dtype=bool)
