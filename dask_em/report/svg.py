"""Pictures as SVG in the colours of the page that holds them."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from html import unescape
from typing import Any

from ..estimators.html import text
from .axes import MARK

# Stands for the colour of the page's text until the picture is in the page.
INK = "#2b2f36"

LOOK: Any = {
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.size": 8.5,
    "savefig.facecolor": "none",
    # Words stay words: they can be searched, and take the font of the page.
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.color": INK,
    "ytick.major.width": 0.6,
}

# Groups, whose names are of no use on a page, and pictures in a picture that have ours.
_NAMED = re.compile(rf"""(<g|<image\b[^>]*?(?= id=["']{MARK})) id=("[^"]*"|'[^']*')""")

SIZE, DPI = (4.0, 2.9), 200


def svg(draw: Callable[..., Any], title: str, size: tuple[float, float] = SIZE) -> str:
    """Draw a picture by `draw(ax=...)` as SVG to put into a page.

    Parameters
    ----------
    draw : callable
        One of `plots`, with all its arguments but `ax`.
    title : str
        Read to those who do not see it; no two pictures of a page share one.
    size : pair of float
        In inches.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    # Names in the SVG are hashes: with the title in them they are unique in the page.
    with warnings.catch_warnings(), mpl.rc_context():
        # Whatever somebody set for pictures of their own, the page looks the same.
        mpl.rcdefaults()
        mpl.rcParams.update({**LOOK, "svg.hashsalt": title})
        # The browser has letters that matplotlib's font has not.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        ax = figure.subplots()
        draw(ax=ax)
        ax.set_title("")
        figure.savefig(
            buffer, format="svg", dpi=DPI,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )  # fmt: skip
    found = buffer.getvalue()
    found = found[found.index("<svg") :].replace(INK, "currentColor")
    found = _NAMED.sub(lambda name: name[1] + _marked(unescape(name[2][1:-1])), found)
    found = re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", found)
    found = re.sub(r'^(<svg[^>]*?) height="[^"]*"', r"\1", found)
    return found.replace("<svg", f'<svg role="img" aria-label="{text(title)}"', 1)


def _marked(name: str) -> str:
    """Return attributes for what `axes.mark` said of an artist; none of another name."""
    if not name.startswith(MARK):
        return ""
    component, _, told = name.removeprefix(MARK).partition(":")
    found = f' data-component="{text(component)}"' if component else ""
    return f'{found} data-told="{text(told)}"' if told else found
