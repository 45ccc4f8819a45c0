"""One HTML page about a fitted model that needs nothing beside it.

Pictures are inline SVG, drawn by the same functions of matplotlib as in `dask_em.plots` and in the
colours of the page: words in them can be searched, they print, need no script, and are some tens of
kB. What is interactive is one script of a few hundred lines, `page.js`, beside them: a bundle of
plotly.js or Vega-Lite would add 0.8 to 4.6 MB to each page, a second drawing of everything, and of
Vega an `unsafe-eval`. A content policy lets this very script run, by its sha256, and forbids the
browser to fetch anything. Without scripts all is shown.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ..errors import UsageError
from ..estimators.describe import FittedMixture
from ..estimators.html import text
from ..storage.outputs.writer import output_file
from .evidence import Evidence
from .section import MakeSection
from .sections.components import components_section
from .sections.drift import drift_section
from .sections.effects import effects_section
from .sections.fit import fit_section
from .sections.generations import generations_section
from .sections.missing import missing_section
from .sections.overlap import overlap_section
from .sections.overview import components_bar, header
from .sections.provenance import provenance_section
from .sections.quality import quality_section
from .sections.rows import rows_section
from .style import STYLE

# In the order of the page; each is left out where a model and its evidence hold nothing for it.
SECTIONS: tuple[MakeSection, ...] = (
    effects_section,
    components_section,
    overlap_section,
    rows_section,
    fit_section,
    generations_section,
    drift_section,
    quality_section,
    missing_section,
    provenance_section,
)


def check_can_draw() -> None:
    """Check before the work that pages can be made.

    Raises
    ------
    UsageError
        matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UsageError("a report needs matplotlib: pip install 'dask-em[plot]'")


def write_page(
    path: str | os.PathLike[str],
    model: FittedMixture,
    evidence: Evidence | None = None,
    overwrite: bool = False,
) -> None:
    """Write the page about a fitted model to one file, whole or not at all.

    Parameters
    ----------
    path : path, or URL of an object store
    model : fitted mixture
    evidence : Evidence, optional
        Rows, densities and where they come from; parts that need what is not there are
        left out, and the page says so.
    overwrite : bool
        Replace the file that is there.

    Raises
    ------
    OutputExistsError
        The file is there and `overwrite` is False, or it is a folder; `LockedError` where
        another job writes it.
    UsageError
        matplotlib is not installed, or nothing can be written there.
    """
    check_can_draw()
    with output_file(path, overwrite) as output:
        page = report_html(model, evidence)
        with output.open() as file:
            file.write(page.encode())


def report_html(model: FittedMixture, evidence: Evidence | None = None) -> str:
    """Make the page about a fitted model, in ASCII so that no encoding can spoil it."""
    evidence = evidence or Evidence()
    components = model.describe()
    k, d = components.means.shape
    title = f"{k} {components.family} component{'s' * (k > 1)} in {d} column{'s' * (d > 1)}"
    made = [make(model, evidence) for make in SECTIONS]
    parts = [
        header(model, evidence, title),
        components_bar(model),
        *(section.whole for section in made if section is not None),
    ]
    return whole_page(title, parts)


def whole_page(title: str, parts: Sequence[str]) -> str:
    """Make a page of its parts, which are HTML, with style, script and policy, in ASCII.

    Examples
    --------
    >>> whole_page("A title", ["<p>Rows \u00d7 columns</p>"]).count("Rows &#215; columns")
    1
    """
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" '
        f'content="{content_policy(script())}">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main><script>{script()}</script></body></html>\n"
    )
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


@cache
def script() -> str:
    """Return the script of every page, in ASCII."""
    return Path(__file__).with_name("page.js").read_text(encoding="ascii")


def content_policy(code: str) -> str:
    """Return the policy that lets this script run and nothing be fetched.

    Examples
    --------
    >>> content_policy("").rpartition("; ")[2]
    "script-src 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    """
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'"
    )
