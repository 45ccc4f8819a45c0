"""Matrices as pictures: cells in colours, with their values where they are few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.additive import Array
from .axes import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Rows and columns of a matrix whose cells have words in them.
MOST_WRITTEN = (16, 12)

# Rows or columns above which their names are small.
MANY = 24

# Inches of a cell, and of what stands beside all cells: names, and the bar of colours.
CELL, BESIDE = (0.2, 0.17), (2.0, 1.3)


@dataclass(frozen=True)
class Scale:
    """Describe how numbers become colours.

    Attributes
    ----------
    colours : str
        Name of a map of colours of matplotlib.
    low, high : float
        Numbers of its ends; those beyond have the colours of the ends.
    label : str
        What the numbers are.
    written : callable
        A number -> the words in its cell.
    """

    colours: str
    low: float
    high: float
    label: str
    written: Callable[[float], str]


def matrix_size(n_rows: int, n_columns: int) -> tuple[float, float]:
    """Return inches of a picture of a matrix in which names can be read.

    Examples
    --------
    >>> matrix_size(3, 4), matrix_size(50, 40)
    ((4.0, 2.9), (10.0, 9.8))
    """
    width, height = BESIDE[0] + CELL[0] * n_columns, BESIDE[1] + CELL[1] * n_rows
    return round(max(4.0, width), 2), round(max(2.9, height), 2)


def draw_matrix(
    ax: Axes, values: Array, rows: Sequence[str], columns: Sequence[str], scale: Scale
) -> None:
    """Draw a matrix (r, c) as an image, named rows downwards; cells of NaN stay empty."""
    import matplotlib as mpl

    image = ax.imshow(
        np.ma.masked_invalid(values), cmap=scale.colours, vmin=scale.low, vmax=scale.high,
        aspect="auto", interpolation="nearest",
    )  # fmt: skip
    # A thin line between cells, whatever their number.
    r, c = values.shape
    ax.set_xticks(np.arange(c + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(r + 1) - 0.5, minor=True)
    ax.tick_params(which="both", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    of_ticks = float(mpl.font_manager.FontProperties(size=mpl.rcParams["xtick.labelsize"])
                    .get_size_in_points())  # fmt: skip
    small = 0.75 * of_ticks
    names: list[str] = [shortened(name) for name in columns]
    turned = max((len(name) for name in names), default=0) * c > 48
    ax.set_xticks(
        range(c), names, parse_math=False, rotation=55 if turned else 0,
        rotation_mode="anchor" if turned else "default", ha="right" if turned else "center",
        fontsize=small if c > MANY else of_ticks,
    )  # fmt: skip
    ax.set_yticks(
        range(r), [shortened(name) for name in rows], parse_math=False,
        fontsize=small if r > MANY else of_ticks,
    )  # fmt: skip
    if r <= MOST_WRITTEN[0] and c <= MOST_WRITTEN[1]:
        _write_cells(ax, values, image, scale, small)
    figure: Any = ax.figure
    bar = figure.colorbar(image, ax=ax, label=scale.label, fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)
    # One picture, not 256 rectangles.
    bar.solids.set_rasterized(True)


def _write_cells(ax: Axes, values: Array, image: Any, scale: Scale, size: float) -> None:
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            if np.isfinite(value):
                red, green, blue, _ = image.cmap(image.norm(value))
                # Luminance, as eyes weigh the three (Rec. 709).
                light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
                ax.text(
                    j, i, scale.written(value), ha="center", va="center", fontsize=size,
                    color="#111111" if light > 0.45 else "#ffffff", parse_math=False,
                )  # fmt: skip
