"""Settings of matplotlib for pictures that are printed."""

from __future__ import annotations

from typing import Any

from ..errors import UsageError

# Points. Journals take 6 or 7 at least, which numbers at ticks have.
FONT_SIZE = 8.0


def publication(width: float = 3.5) -> dict[str, Any]:
    """Return settings of matplotlib for print, to be drawn and saved within.

    Type of 8 points, thin lines, no box, figures as wide as a column. In PDF and PostScript letters
    are letters of an embedded font, in SVG they are text, so that editors and searches find words;
    rows are pictures of 300 dots an inch within, all else is vectors.

    Parameters
    ----------
    width : float, default=3.5
        Of figures, in inches: a column of most journals; two columns are about 7.2.

    Returns
    -------
    dict
        For `matplotlib.rc_context`, or `matplotlib.rcParams.update` for all that follows.

    Raises
    ------
    UsageError
        The width is not positive.

    Examples
    --------
    >>> import matplotlib as mpl
    >>> with mpl.rc_context(publication(width=7.2)):
    ...     mpl.rcParams["pdf.fonttype"], mpl.rcParams["figure.figsize"][0]
    (42, 7.2)
    """
    if not width > 0:
        raise UsageError(f"width is {width!r}, expected inches, more than 0")
    return {
        "axes.labelsize": FONT_SIZE,
        "axes.linewidth": 0.6,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": FONT_SIZE,
        "figure.figsize": (width, 0.7 * width),
        "font.size": FONT_SIZE,
        "legend.fontsize": FONT_SIZE - 1,
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
        "savefig.dpi": 300,
        "svg.fonttype": "none",
        "xtick.labelsize": FONT_SIZE - 1,
        "xtick.major.width": 0.6,
        "ytick.labelsize": FONT_SIZE - 1,
        "ytick.major.width": 0.6,
    }
