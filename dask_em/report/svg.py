"""Pictures as SVG in the colours of the page that holds them."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from html import unescape
from typing import Any

from ..estimators.html import text
from .axes import MARK, POINTS

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
    # The page has its own: a list of fonts at every word would be of no use.
    "font.sans-serif": ["DejaVu Sans"],
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

# Groups, whose names are of no use on a page but where they are ours.
_NAMED = re.compile(r"""(<g) id=("[^"]*"|'[^']*')>""")

# The same in every picture: the page has it once.
_STYLE = re.compile(r"<defs>\s*<style[^>]*>[^<]*</style>\s*</defs>")

# Points of `axes.mark_points`: the group ends before the next group that is not in it.
_POINTS = re.compile(rf"""<g id=["']{POINTS}([^"']*)["']>(.*?</g>)\s*</g>""", re.DOTALL)
_USE = re.compile(r'<use xlink:href="[^"]*" x="([^"]*)" y="([^"]*)" style="([^"]*)"/>')

# A tenth of a point, of a width of 288, is less than anybody sees; nor are spaces needed.
_PLACES = re.compile(r' (?:d|x|y|points)="[^"]*"')
_DIGITS = re.compile(r"(?<![\w#.])(-?\d+\.\d)\d+")
_PATH, _SPACES = re.compile(r'(?<= d=")[^"]*'), re.compile(r"\s*([A-Za-z])\s*")

# Paths of the points of a component.
LAYERS = 4

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
        for points in figure.findobj(lambda artist: (artist.get_gid() or "").startswith(POINTS)):
            # Here they become few paths, clear at any size, and one component can be told apart.
            points.set_rasterized(False)
        figure.savefig(
            buffer, format="svg", dpi=DPI,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )  # fmt: skip
    return _for_a_page(buffer.getvalue(), title)


def _for_a_page(found: str, title: str) -> str:
    """Return an SVG of matplotlib's in the colours of the page, without what the page has."""
    found = found[found.index("<svg") :].replace(INK, "currentColor")
    found = _STYLE.sub("", found, count=1)
    found = _POINTS.sub(lambda group: _paths(group[1].split(), group[2]), found)
    found = _NAMED.sub(lambda name: f"{name[1]}{_marked(unescape(name[2][1:-1]))}>", found)
    found = re.sub(rf""" id=(["']){MARK}.*?\1""", "", found)
    found = _PLACES.sub(lambda place: _DIGITS.sub(r"\1", place[0]), found)
    found = _PATH.sub(lambda path: _SPACES.sub(r"\1", path[0]), found)
    found = re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", found)
    found = re.sub(r'^(<svg[^>]*?) height="[^"]*"', r"\1", found)
    found = re.sub(r"\n\s*", "\n", found)
    return found.replace("<svg", f'<svg role="img" aria-label="{text(title)}"', 1)


def _paths(components: Sequence[str], group: str) -> str:
    """Return points, which are uses of circles, as lines of no length: a few paths a component.

    Within one path nothing shows through, so that there are several: dense places stay darker.
    """
    # Of a circle the path begins at its bottom, a radius below the middle.
    radius = re.search(r'<path[^>]* d="M 0 ([\d.]+)', group)
    width = 2 * float(radius[1]) if radius else 2.0
    clip = re.search(r'clip-path="([^"]*)"', group)
    drawn: dict[str, list[str]] = {}
    looks: dict[str, str] = {}
    for k, use in zip(components, _USE.findall(group), strict=True):
        x, y, look = use
        looks.setdefault(k, look)
        drawn.setdefault(k, []).append(f"M{float(x):.1f} {float(y):.1f}h0")
    parts = []
    for k, places in drawn.items():
        fill = re.search(r"fill: ([^;]*)", looks[k])
        opacity = re.search(r"(?:fill-)?opacity: ([^;]*)", looks[k])
        of_each = "".join(
            f'<path d="{"".join(places[i::LAYERS])}"/>' for i in range(min(LAYERS, len(places)))
        )
        parts.append(
            f'<g data-component="{k}" fill="none" stroke="{fill[1] if fill else "currentColor"}" '
            f'stroke-opacity="{opacity[1] if opacity else 1}" stroke-width="{width:.2g}" '
            f'stroke-linecap="round">{of_each}</g>'
        )
    clipped = f' clip-path="{clip[1]}"' if clip else ""
    return f"<g{clipped}>{''.join(parts)}</g>"


def _marked(name: str) -> str:
    """Return, for what `axes.mark` said of an artist, attributes and a title; none of other names.

    A title is the first element of its group, and what browsers show over it.
    """
    if not name.startswith(MARK):
        return ""
    component, _, told = name.removeprefix(MARK).partition(":")
    found = f' data-component="{text(component)}"' if component else ""
    return f"{found}><title>{text(told)}</title" if told else found
