"""The data beside the model: pairs of columns, answers, densities, sharpness."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from ...core.additive import Array
from ...estimators.describe import FittedMixture
from .. import plots
from ..answers import plot_answers
from ..discriminants import MOST_ENTRIES, discriminants, plot_discriminants
from ..evidence import Evidence
from ..marginals import plot_marginal
from ..section import Drawing, MakeDrawings, Section, drawn, grid, note, of_noise
from ..separation import Separation, telling_columns

# Columns whose marginals are drawn, pairs of columns, and points of a picture: more are no clearer,
# and each is some bytes of the page.
MOST_COLUMNS, MOST_PAIRS, MOST_POINTS = 4, 6, 3000

# Inches of the discriminant plane.
PLANE = (5.6, 4.4)


def rows_section(model: FittedMixture, evidence: Evidence) -> Section | None:
    """Make the section on the data beside the model; without rows, on the model alone."""
    columns, d = telling_columns(model, MOST_COLUMNS), model.n_features_in_
    chosen = f"Of {d} columns those that separate the components best, and of pairs of them. "
    rows = evidence.rows
    drawn_from = "" if rows is None else f"{len(rows):,} rows drawn evenly from the data."
    words = (chosen if d > len(columns) else "") + drawn_from
    return Section("Data and model", note(words) + grid(drawn(DRAWINGS, model, evidence)))


def _numbers(model: FittedMixture) -> list[int]:
    """Return those of the telling columns that hold no categories."""
    answers = model.describe().answers
    return [j for j in telling_columns(model, MOST_COLUMNS) if j not in answers]


def _plane(model: FittedMixture, evidence: Evidence) -> Iterator[Drawing]:
    if model.n_components < 2 or len(model.describe().columns) < 3:
        return
    found = discriminants(model)
    n = len(found.entries.columns)
    rows = None if evidence.rows is None else _few(evidence.rows)[0]
    yield Drawing(
        partial(plot_discriminants, model, rows, found=found),
        "The plane in which the components are farthest apart",
        "Discriminant axes (Fisher) of the model's own means and covariances: a unit is a standard "
        "deviation within components, ellipses are at 1 and 2 of them. The axes name the columns "
        f"that go with them most, with their correlations.{_used(n)}",
        PLANE,
        True,
    )


def _used(n: int) -> str:
    return f" Made of the {n} entries that separate best." if n == MOST_ENTRIES else ""


def _few(rows: Array) -> tuple[Array, str]:
    """Return rows that are points of a picture, evenly chosen, and what they are called."""
    if len(rows) <= MOST_POINTS:
        return rows, "Rows"
    chosen = np.linspace(0, len(rows) - 1, MOST_POINTS).astype(int)
    return rows[chosen], f"{MOST_POINTS:,} of the rows"


def _pairs(model: FittedMixture, evidence: Evidence) -> Iterator[Drawing]:
    rows, names = evidence.rows, model.describe().columns
    if rows is None:
        return
    rows, few = _few(rows)
    for pair in Separation(model).pairs(MOST_PAIRS):
        yield Drawing(
            partial(plots.plot_components, model, rows, pair),
            f"{names[pair[0]]} and {names[pair[1]]}",
            f"{few} by their likeliest component; ellipses at 1 and 2 standard deviations."
            + of_noise(model, " Grey rows are noise: their label is -1."),
        )


def _answers(model: FittedMixture, evidence: Evidence) -> Iterator[Drawing]:
    components = model.describe()
    lines = "" if evidence.rows is None else "; lines are the shares of the rows"
    for j in telling_columns(model, MOST_COLUMNS):
        if j in components.answers:
            yield Drawing(
                partial(plot_answers, model, j, evidence.rows),
                f"Answers in {components.columns[j]}",
                f"Probability of each category in each component{lines}.",
            )


def _marginals(model: FittedMixture, evidence: Evidence) -> Iterator[Drawing]:
    over = "" if evidence.rows is None else " over a histogram of the rows"
    for j in _numbers(model):
        yield Drawing(
            partial(plot_marginal, model, j, evidence.rows),
            f"Density of {model.describe().columns[j]}",
            f"The mixture and its components{over}.",
        )


def _sharpness(model: FittedMixture, evidence: Evidence) -> Iterator[Drawing]:
    if evidence.rows is not None:
        yield Drawing(
            partial(plots.plot_sharpness, model, evidence.rows),
            "Sharpness",
            "Rows at the right belong clearly to one component; rows at the left are shared.",
        )


DRAWINGS: tuple[MakeDrawings, ...] = (_plane, _pairs, _answers, _marginals, _sharpness)
