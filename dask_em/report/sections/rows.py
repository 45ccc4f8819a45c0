"""The data beside the model: pairs of columns, answers, densities, sharpness."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import combinations

import numpy as np

from ...estimators.describe import FittedMixture
from .. import plots
from ..answers import plot_answers
from ..evidence import Evidence
from ..section import Drawing, MakeDrawings, Section, drawn, grid, note, of_noise

# Columns whose pairs and marginals are drawn, and points of a pair: more are no clearer, and each
# is some bytes of the page.
MOST_COLUMNS, MOST_POINTS = 4, 3000


def rows_section(model: FittedMixture, evidence: Evidence) -> Section | None:
    """Make the section on the data beside the model; without rows, on the model alone."""
    columns, d = plots.telling_columns(model, MOST_COLUMNS), model.n_features_in_
    chosen = f"The {len(columns)} of {d} columns in which the components differ most. "
    rows = evidence.rows
    drawn_from = "" if rows is None else f"{len(rows):,} rows drawn evenly from the data."
    words = (chosen if d > len(columns) else "") + drawn_from
    return Section("Data and model", note(words) + grid(drawn(DRAWINGS, model, evidence)))


def _numbers(model: FittedMixture) -> list[int]:
    """Return those of the telling columns that hold no categories."""
    answers = model.describe().answers
    return [j for j in plots.telling_columns(model, MOST_COLUMNS) if j not in answers]


def _pairs(model: FittedMixture, evidence: Evidence) -> Iterator[Drawing]:
    rows, names = evidence.rows, model.describe().columns
    if rows is None:
        return
    few = ""
    if len(rows) > MOST_POINTS:
        rows = rows[np.linspace(0, len(rows) - 1, MOST_POINTS).astype(int)]
        few = f"{MOST_POINTS:,} of the rows"
    for pair in combinations(_numbers(model), 2):
        yield Drawing(
            partial(plots.plot_components, model, rows, pair),
            f"{names[pair[0]]} and {names[pair[1]]}",
            f"{few or 'Rows'} by their likeliest component; ellipses at 1 and 2 standard "
            "deviations." + of_noise(model, " Grey rows are noise: their label is -1."),
        )


def _answers(model: FittedMixture, evidence: Evidence) -> Iterator[Drawing]:
    components = model.describe()
    lines = "" if evidence.rows is None else "; lines are the shares of the rows"
    for j in plots.telling_columns(model, MOST_COLUMNS):
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
            partial(plots.plot_marginal, model, j, evidence.rows),
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


DRAWINGS: tuple[MakeDrawings, ...] = (_pairs, _answers, _marginals, _sharpness)
