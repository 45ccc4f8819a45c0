"""Columns that tell each component from the rest, ranked, in the columns' own units."""

from __future__ import annotations

from collections.abc import Sequence

from ...estimators.describe import FittedMixture
from ...estimators.html import Cell, table, text
from ...estimators.shapes import spot
from ..axes import shortened
from ..effects import Effect, effects
from ..evidence import Evidence
from ..formats import called, percent, quantity
from ..section import Section, details, note
from ..words import category, with_rows

# Components that have a card, the heaviest, and columns of each; rows of the table.
MOST_CARDS, MOST_COLUMNS, MOST_ROWS = 24, 5, 200

WORDS = (
    "Bars: the mean of the component less that of all other components, in standard deviations of "
    "all rows, largest first; of a category, the same of its probability. Then the mean, or "
    "probability, in the component and in the rest."
)


def effects_section(model: FittedMixture, evidence: Evidence) -> Section | None:
    """Make the section on what tells each component from the rest; none of one component."""
    live, found = with_rows(model), effects(model)
    if len(live) < 2 or not any(found):
        return None
    shown, d = live[:MOST_CARDS], model.n_features_in_
    largest = max(abs(one.size) for k in shown for one in found[k])
    left = [
        *(
            [f"the {MOST_CARDS} heaviest of {len(live)} components"]
            if len(live) > MOST_CARDS
            else []
        ),
        *([f"the first {MOST_COLUMNS} of {d} columns"] if d > MOST_COLUMNS else []),
    ]
    words = f"{WORDS} Shown are {' and '.join(left)}." if left else WORDS
    cards = "".join(_card(model, k, found[k][:MOST_COLUMNS], largest) for k in shown)
    each = max(1, MOST_ROWS // len(live))
    listed = [one for k in live[:MOST_ROWS] for one in found[k][:each]]
    table = details("All of these as a table", _table(model, listed))
    return Section(
        "What tells the components apart",
        f'{note(words)}<div class="cards">{cards}</div>{table}',
    )


def _card(model: FittedMixture, k: int, found: Sequence[Effect], largest: float) -> str:
    rows = "".join(
        f"<tr><td>{text(_name(model, one))}</td><td>{_bar(one.size / largest)}</td>"
        f'<td class="n">{one.size:+.2f}</td><td class="n">{text(inside)}</td>'
        f'<td class="n"><small>{text(outside)}</small></td></tr>'
        for one, (inside, outside) in ((one, _told(one)) for one in found)
    )
    return (
        f'<div class="card" data-component="{k}"><h3>{spot(k)}{called(k)} '
        f"<small>{percent(float(model.weights_[k]))}</small></h3>"
        f"<table><tbody>{rows}</tbody></table></div>"
    )


def _name(model: FittedMixture, one: Effect) -> str:
    name = shortened(model.describe().columns[one.column])
    return name if one.category is None else f"{name} = {shortened(category(model, one))}"


def _told(one: Effect) -> tuple[str, str]:
    """Return what a component and the rest have, as a person reads it."""
    if one.category is None:
        return quantity(one.inside, one.spread), quantity(one.outside, one.spread)
    return percent(one.inside), percent(one.outside)


def _table(model: FittedMixture, found: Sequence[Effect]) -> str:
    categories = any(one.category is not None for one in found)
    head = ["component", "column", "effect", "in it", "in the rest", "difference"]
    rows = [_row(model, one, categories) for one in found]
    numbers = [one.component for one in found]
    return table([*head, *["log odds ratio"] * categories], rows, 2, numbers, "effects")


def _row(model: FittedMixture, one: Effect, categories: bool) -> list[str | Cell]:
    inside, outside = _told(one)
    difference = one.inside - one.outside
    apart = quantity(difference, one.spread, sign=True)
    if one.category is not None:
        apart = f"{100 * difference:+.1f} points"
    cells: list[str | Cell] = [
        f"{spot(one.component)}{one.component}",
        text(_name(model, one)),
        Cell(f"{one.size:+.2f}", one.size),
        Cell(text(inside), one.inside),
        Cell(text(outside), one.outside),
        Cell(text(apart), difference),
    ]
    odds = one.log_odds
    return [*cells, *([Cell(f"{odds:+.2f}", odds) if odds is not None else ""] * categories)]


def _bar(share: float) -> str:
    less = ' class="less"' if share < 0 else ""
    return f'<span class="effect"><i{less} style="--size:{abs(share):.3f}"></i></span>'
