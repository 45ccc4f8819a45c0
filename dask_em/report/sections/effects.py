"""Columns that tell each component from the rest, ranked, in the columns' own units."""

from __future__ import annotations

from ...estimators.describe import FittedMixture
from ...estimators.html import Cell, table, text
from ...estimators.shapes import spot
from ..axes import shortened
from ..effects import Effect, effects
from ..evidence import Evidence
from ..formats import percent, quantity
from ..section import Section, note
from ..words import category, with_rows

# Components in the table, the heaviest, and columns of each.
MOST_COMPONENTS, MOST_COLUMNS = 30, 5

WORDS = (
    "Standardised effect: the mean of the component less that of all other components, in standard "
    "deviations of all rows; of a category, the same of its probability. From the parameters."
)


def effects_section(model: FittedMixture, evidence: Evidence) -> Section | None:
    """Make the section on what tells each component from the rest; none of one component."""
    live = with_rows(model)
    found = effects(model)
    chosen = [one for k in live[:MOST_COMPONENTS] for one in found[k][:MOST_COLUMNS]]
    if len(live) < 2 or not chosen:
        return None
    largest = max(abs(one.size) for one in chosen)
    k, d = len(live), model.n_features_in_
    left = [
        *([f"the {MOST_COMPONENTS} heaviest of {k} components"] if k > MOST_COMPONENTS else []),
        *([f"the first {MOST_COLUMNS} of {d} columns"] if d > MOST_COLUMNS else []),
    ]
    words = f"{WORDS} Shown are {' and '.join(left)}." if left else WORDS
    categories = any(one.category is not None for one in chosen)
    head = ["component", "column", "effect", "in it", "in the rest", "difference"]
    head += ["log odds ratio"] * categories
    rows = [_row(model, one, largest, categories) for one in chosen]
    numbers = [one.component for one in chosen]
    made = table(head, rows, 2, numbers, "effects")
    return Section("What tells the components apart", note(words) + made)


def _row(model: FittedMixture, one: Effect, largest: float, categories: bool) -> list[str | Cell]:
    name = shortened(model.describe().columns[one.column])
    difference = one.inside - one.outside
    if one.category is None:
        inside, outside = quantity(one.inside, one.spread), quantity(one.outside, one.spread)
        apart = quantity(difference, one.spread, sign=True)
    else:
        name = f"{name} = {shortened(category(model, one))}"
        inside, outside = percent(one.inside), percent(one.outside)
        apart = f"{100 * difference:+.1f} points"
    cells: list[str | Cell] = [
        f"{spot(one.component)}{one.component}",
        text(name),
        Cell(_bar(one.size / largest) + f"{one.size:+.2f}", one.size),
        Cell(text(inside), one.inside),
        Cell(text(outside), one.outside),
        Cell(text(apart), difference),
    ]
    if categories:
        odds = one.log_odds
        cells.append("" if odds is None else Cell(f"{odds:+.2f}", odds))
    return cells


def _bar(share: float) -> str:
    less = ' class="less"' if share < 0 else ""
    return f'<span class="effect"><i{less} style="--size:{abs(share):.3f}"></i></span>'
