"""Pieces of pictures: rows, axes, labels, numbers with units, ellipses, points of curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core.additive import Array
from ..errors import UsageError
from ..estimators.describe import colour
from ..estimators.shapes import line
from ..foreign import shown

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

LONGEST_NAME = 24

# Begins the name of an artist of which a page tells more than it draws; see `mark`.
MARK, POINTS = "dask-em:", "dask-em-points:"

# Densities of a curve beside those at its 200 even points: components times points.
MOST_EVALUATED = 2**23


def real_rows(X: Array, d: int) -> Array:
    """Return rows (n, d) as numbers of a real type.

    Raises
    ------
    UsageError
        There are none, or they have another number of columns.
    """
    X = np.asarray(X)
    if X.ndim != 2 or X.shape[1] != d or len(X) == 0:
        raise UsageError(f"X has shape {X.shape}, expected rows of {d} columns, (n, {d})")
    return X if X.dtype.kind == "f" else X.astype(np.float64)


def is_finite(value: float | None) -> bool:
    """Tell whether there is a number to draw.

    Examples
    --------
    >>> is_finite(2.0), is_finite(float("inf")), is_finite(None)
    (True, False, False)
    """
    return value is not None and bool(np.isfinite(value))


def column_number(column: int, d: int) -> int:
    """Return the number of a column of d, which may be counted from the end.

    Raises
    ------
    UsageError
        There is no such column.

    Examples
    --------
    >>> column_number(-1, 3)
    2
    """
    if not -d <= column < d:
        raise UsageError(f"column {column}: the model has {d} columns, numbered from 0")
    return column % d


def new_axes(ax: Axes | None, size: tuple[float, float] = (5, 3.5)) -> Axes:
    """Return `ax`, or the Axes of a new figure as `new_figure` makes it where it is None."""
    return new_figure(None, size).subplots() if ax is None else ax


def new_figure(figure: Figure | None, size: tuple[float, float]) -> Figure:
    """Return `figure`, or a new one where it is None.

    It has this size in inches, or this shape in the width that the user's style gives to figures.

    Raises
    ------
    UsageError
        matplotlib is not installed.
    """
    if figure is not None:
        return figure
    try:
        import matplotlib as mpl
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as e:
        raise UsageError("pictures need matplotlib: pip install 'dask-em[plot]'") from e
    wanted = mpl.rcParams["figure.figsize"]
    if [*wanted] != [*mpl.rcParamsDefault["figure.figsize"]]:
        size = (wanted[0], wanted[0] * size[1] / size[0])
    return plt.figure(figsize=size, layout="constrained")


def ink() -> str:
    """Return the colour of text, which the user's style may have made white."""
    import matplotlib as mpl

    return str(mpl.rcParams["text.color"])


def ellipse_of(covariance: Array) -> tuple[float, Array]:
    """Compute the axes of the ellipse of a covariance (2, 2) at one standard deviation.

    Returns
    -------
    float
        Angle of the longer axis, in degrees.
    (2,) array
        Deviations along both, longer first.
    """
    squares, axes = np.linalg.eigh(covariance)
    angle = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])))
    return angle, np.sqrt(np.maximum(squares[::-1], 0))


def outline_component(ax: Axes, k: int, mean: Array, covariance: Array) -> None:
    """Draw a component's ellipses at 1 and 2 standard deviations, of mean (2,), covariance (2, 2).

    None where a variance is infinite.
    """
    from matplotlib.patches import Ellipse

    if not np.isfinite(covariance).all():
        return
    angle, widths = ellipse_of(covariance)
    for deviations in (1, 2):
        major, minor = 2 * deviations * widths
        outline = Ellipse(tuple(mean), major, minor, angle=angle, fill=False, color=colour(k))
        outline.set(linewidth=1.2, linestyle=line(k))
        mark(ax.add_patch(outline), k)


def number_component(ax: Axes, k: int, mean: Array) -> None:
    """Write the number of a component at its mean (2,)."""
    box = {"boxstyle": "circle,pad=0.15", "fc": "white", "ec": colour(k), "lw": 1.2, "alpha": 0.9}
    number = ax.annotate(
        str(k), tuple(mean), ha="center", va="center", fontsize=6.5, color="black", bbox=box
    )
    mark(number, k)


def mark(artist: Artist, component: int | tuple[int, ...] | None = None, told: str = "") -> None:
    """Name the component that an artist shows, and words for whoever points at it on a page.

    Parameters
    ----------
    artist : matplotlib Artist
        A line, a patch, a collection or a text: not a container of them.
    component : int or tuple of int, optional
        One or several; -1 is noise. On a page the artist stays clear where one of its components
        is chosen, and fades where another is; one of none never does.
    told : str, optional
        The values that it shows, as "petal length: 1.46 ± 0.17 cm".

    Examples
    --------
    >>> from matplotlib.lines import Line2D
    >>> line = Line2D([0], [0])
    >>> mark(line, 3, "weight 12 %")
    >>> line.get_gid()
    'dask-em:3:weight 12 %'
    """
    several = component if isinstance(component, tuple) else (component,)
    named = " ".join(str(k) for k in several if k is not None)
    artist.set_gid(f"{MARK}{named}:{shown(told)}")


def mark_points(points: Artist, components: Array) -> None:
    """Name the component of each point of a collection (n,), -1 for noise; see `mark`.

    On a page they are lines of no length, a few paths a component, however many they are.

    Examples
    --------
    >>> from matplotlib.collections import PathCollection
    >>> points = PathCollection([])
    >>> mark_points(points, np.array([0, 2, 0]))
    >>> points.get_gid()
    'dask-em-points:0 2 0'
    """
    points.set_gid(POINTS + " ".join(map(str, components.tolist())))


def shortened(name: str) -> str:
    """Return what a picture shows of a name: visible characters, and few of them.

    Examples
    --------
    >>> shortened("a name of more than twenty-four letters")
    'a name of more than t...'
    """
    name = shown(name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def label_axes(ax: Axes, x: str, y: str) -> None:
    """Label both axes."""
    # Names come with the data: a dollar in them is not mathematics.
    ax.set_xlabel(shortened(x), parse_math=False)
    ax.set_ylabel(shortened(y), parse_math=False)


def whole_numbers(axis: Axis) -> None:
    """Put the ticks of an axis at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def with_unit(value: float, _: float = 0.0) -> str:
    """Format a tick in thousands, millions or billions.

    Examples
    --------
    >>> with_unit(2_500_000)
    '2.5M'
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def curve_points(
    means: Array,
    widths: Array,
    reach: tuple[float, float] | None = None,
    near: Sequence[int] | None = None,
) -> Array:
    """Choose points of a curve (m,), close together at some components, however tight they are.

    By default at all; fewer points of each where every component is evaluated at many.
    """
    low, high = (means - 4 * widths).min(), (means + 4 * widths).max()
    if reach is not None:
        low, high = min(low, reach[0]), max(high, reach[1])
    drawn = [*range(len(means))] if near is None else [*near]
    each = min(41, MOST_EVALUATED // (len(means) * max(1, len(drawn))))
    close = means[drawn, None] + widths[drawn, None] * np.linspace(-4, 4, each)
    return np.unique(np.concatenate([np.linspace(low, high, 200), close.ravel()]))
