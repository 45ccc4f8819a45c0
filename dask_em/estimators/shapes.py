"""Shapes and line styles that tell components apart beside their colours."""

from __future__ import annotations

from .describe import NOISE_COLOUR, colour

Line = str | tuple[float, tuple[float, ...]]
"""A name, or where the dashes begin, and their lengths and gaps in widths of the line."""

# By the names of matplotlib's markers: outlines in a square of 12, filled. Nine of them and ten
# colours are ninety pairs.
SHAPES = {
    "o": "M6 1a5 5 0 1 0 .01 0z",
    "s": "M1.5 1.5h9v9h-9z",
    "^": "M6 1 11.5 11H.5z",
    "D": "M6 0 12 6 6 12 0 6z",
    "v": "M.5 1h11L6 11z",
    "P": "M4 .5h4V4h3.5v4H8v3.5H4V8H.5V4H4z",
    "X": "M3 .3 6 3.3l3-3L11.7 3l-3 3 3 3L9 11.7l-3-3-3 3L.3 9l3-3-3-3z",
    "<": "M11 .5v11L1 6z",
    "*": "M6 .2 7.4 4.3l4.4.1-3.5 2.7 1.3 4.2L6 8.8l-3.6 2.5 1.3-4.2L.2 4.4l4.4-.1z",
}

# With ten colours, twenty pairs.
LINES: tuple[Line, ...] = ("-", "--", "-.", (0, (1.0, 0.8)))


def marker(k: int) -> str:
    """Return the marker of component `k`, by matplotlib's name; they repeat after nine.

    Examples
    --------
    >>> [marker(k) for k in (0, 1, 9)]
    ['o', 's', 'o']
    """
    return [*SHAPES][k % len(SHAPES)]


def line(k: int) -> Line:
    """Return the line style of component `k`, as matplotlib has it; they repeat after four.

    Examples
    --------
    >>> [line(k) for k in (0, 1, 4)]
    ['-', '--', '-']
    """
    return LINES[k % len(LINES)]


def spot(k: int) -> str:
    """Draw the shape of component `k` in its colour, or that of noise, -1, as HTML.

    Examples
    --------
    >>> spot(1)
    '<svg class="spot" viewBox="0 0 12 12" aria-hidden="true"><path d="M1.5 1.5h9v9h-9z" ...'
    """
    outline, fill = ("M1 5h10v2H1z", NOISE_COLOUR) if k < 0 else (SHAPES[marker(k)], colour(k))
    return (
        '<svg class="spot" viewBox="0 0 12 12" aria-hidden="true">'
        f'<path d="{outline}" fill="{fill}"/></svg>'
    )
