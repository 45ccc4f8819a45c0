"""Matrices as pictures: cells in colours, with their values where they are few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..core.additive import Array
from .axes import mark, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Rows and columns of a matrix whose cells have words in them.
MOST_WRITTEN = (16, 16)

# Rows or columns above which their names are small, and how small.
MANY, SMALL = 24, 0.75

# Inches of a cell, and of one with words in it; all cells together are no smaller than these.
CELL, WRITTEN, LEAST = (0.2, 0.17), (0.44, 0.26), (2.3, 1.5)

# Inches of a letter, and of what stands beside cells and names: labels, and the bar of colours.
LETTER, BESIDE = 0.075, (1.3, 0.55)

# Inches above which a picture has two columns of a page.
WIDEST = 5.5

# Degrees by which names of columns are turned where they do not fit.
TURNED = 55


@dataclass(frozen=True)
class Scale:
    """Describe how numbers become colours.

    Attributes
    ----------
    colours : sequence of str
        Those that numbers between the ends pass through.
    low, high : float
        Numbers of its ends; those beyond have the colours of the ends.
    label : str
        What the numbers are.
    written : callable
        A number -> the words in its cell.
    told : callable
        Row, column, number -> the words for whoever points at a cell with words.
    """

    colours: Sequence[str]
    low: float
    high: float
    label: str
    written: Callable[[float], str]
    told: Callable[[int, int, float], str]


@dataclass(frozen=True)
class Layout:
    """Describe a matrix (r, c) of named rows and columns, and how large it is drawn.

    Attributes
    ----------
    rows, columns : sequence of str
        As they are shown.

    Examples
    --------
    >>> Layout.of(["a", "b"], ["x", "y", "z"]).size
    (4.0, 2.9)
    >>> Layout.of([*map(str, range(50))], [f"column {j}" for j in range(40)]).size
    (9.41, 9.71)
    """

    rows: Sequence[str]
    columns: Sequence[str]

    @classmethod
    def of(cls, rows: Sequence[str], columns: Sequence[str]) -> Self:
        """Return the layout of a matrix whose rows and columns have such names."""
        return cls([*map(shortened, rows)], [*map(shortened, columns)])

    @property
    def written(self) -> bool:
        """Whether cells have words in them."""
        return len(self.rows) <= MOST_WRITTEN[0] and len(self.columns) <= MOST_WRITTEN[1]

    @property
    def cells(self) -> tuple[float, float]:
        """Inches of all cells together."""
        width, height = WRITTEN if self.written else CELL
        return max(LEAST[0], width * len(self.columns)), max(LEAST[1], height * len(self.rows))

    @property
    def turned(self) -> bool:
        """Whether names of columns do not fit below them."""
        return _longest(self.columns) * LETTER > self.cells[0] / max(1, len(self.columns))

    @property
    def size(self) -> tuple[float, float]:
        """Inches of the picture, in which names can be read."""
        across, down = _longest(self.rows) * LETTER, 0.25
        if self.turned:
            down += _longest(self.columns) * LETTER * 0.8
        width, height = self.cells
        size = width + across + BESIDE[0], height + down + BESIDE[1]
        return round(max(4.0, size[0]), 2), round(max(2.9, size[1]), 2)


def _longest(names: Sequence[str]) -> float:
    """Return letters of the longest name, as many as have its width."""
    return max(map(len, names), default=0) * (SMALL if len(names) > MANY else 1.0)


def draw_matrix(ax: Axes, values: Array, layout: Layout, scale: Scale) -> None:
    """Draw a matrix (r, c) as an image, first row at the top; cells of NaN stay empty."""
    import matplotlib as mpl

    colours = mpl.colors.LinearSegmentedColormap.from_list("numbers", [*scale.colours])
    image = ax.imshow(
        np.ma.masked_invalid(values), cmap=colours, vmin=scale.low, vmax=scale.high,
        aspect="auto", interpolation="nearest",
    )  # fmt: skip
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    font = mpl.font_manager.FontProperties(size=mpl.rcParams["xtick.labelsize"])
    points = float(font.get_size_in_points())
    r, c = values.shape
    ax.set_xticks(
        range(c), layout.columns, parse_math=False, rotation=TURNED if layout.turned else 0,
        rotation_mode="anchor", ha="right" if layout.turned else "center",
        va="center" if layout.turned else "top", fontsize=points * (SMALL if c > MANY else 1),
    )  # fmt: skip
    ax.set_yticks(
        range(r), layout.rows, parse_math=False, fontsize=points * (SMALL if r > MANY else 1)
    )
    if layout.written:
        _write_cells(ax, values, image, scale, SMALL * points)
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
                cell = ax.text(
                    j, i, scale.written(value), ha="center", va="center", fontsize=size,
                    color="#111111" if light > 0.45 else "#ffffff", parse_math=False,
                )  # fmt: skip
                mark(cell, told=scale.told(i, j, value))
