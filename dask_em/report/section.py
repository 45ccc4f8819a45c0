"""Sections of a page, and the pictures in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..estimators.describe import FittedMixture
from ..estimators.html import text
from ..runtime import current_job
from .evidence import Evidence
from .svg import SIZE, svg


@dataclass(frozen=True)
class Drawing:
    """Describe a picture that a section shows; it is drawn when the page is written.

    Attributes
    ----------
    draw : callable
        Draws into `ax`, as the functions of `dask_em.plots` with all their arguments but this one.
    title : str
        No two pictures of a page share one.
    caption : str
        What is seen, in a sentence or two.
    size : pair of float
        Of the picture, in inches; text of a page is as large as in one of `svg.SIZE`.
    wide : bool
        Whether it has two columns of the page where there are two.

    Examples
    --------
    >>> figure(Drawing(lambda ax: ax.plot([0, 1]), "A line", "It rises."))[:24]
    '<figure><h3>A line</h3><'
    """

    draw: Callable[..., Any]
    title: str
    caption: str
    size: tuple[float, float] = SIZE
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """Hold one section of a page.

    Attributes
    ----------
    title : str
    html : str
        What is under the title.

    Examples
    --------
    >>> Section("The fit", "<p>It converged.</p>").whole
    '<section><h2>The fit</h2><p>It converged.</p></section>\\n'
    """

    title: str
    html: str

    @property
    def whole(self) -> str:
        """The section with its title, as HTML."""
        return f"<section><h2>{text(self.title)}</h2>{self.html}</section>\n"


MakeSection = Callable[[FittedMixture, Evidence], Section | None]
"""Makes a section about a model and the evidence, or nothing where they hold nothing for it."""

MakeDrawings = Callable[[FittedMixture, Evidence], Iterable[Drawing]]
"""Makes those pictures of a section for which the model and the evidence hold something."""


def drawn(makers: Sequence[MakeDrawings], model: FittedMixture, evidence: Evidence) -> list[str]:
    """Draw the pictures that functions make, one after another."""
    return [figure(one) for make in makers for one in make(model, evidence)]


def figure(drawing: Drawing) -> str:
    """Make a picture with its title and caption, unless the job is to stop."""
    current_job().check()
    kind = ' class="wide"' if drawing.wide else ""
    picture = svg(drawing.draw, drawing.title, drawing.size)
    return (
        f"<figure{kind}><h3>{text(drawing.title)}</h3>{picture}"
        f"<figcaption>{text(drawing.caption)}</figcaption></figure>"
    )


def grid(figures: Sequence[str]) -> str:
    """Put pictures, or other parts, side by side where there is room."""
    return f'<div class="grid">{"".join(figures)}</div>'


def details(title: str, inner: str) -> str:
    """Make a part that is closed until somebody opens it."""
    return f"<details><summary>{title}</summary>{inner}</details>"


def note(words: str) -> str:
    """Make a line in small letters, which are HTML already; nothing of no words."""
    return f'<p class="note">{words}</p>' if words else ""


def of_noise(model: FittedMixture, words: str) -> str:
    """Return words on noise, and none where there is no noise."""
    return words if model.state_.result.noise_box is not None else ""
