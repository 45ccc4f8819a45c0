"""Parts of the store that are unlike the model."""

from __future__ import annotations

from functools import partial

import numpy as np

from ...estimators.describe import FittedMixture
from ...estimators.html import Cell, number, table
from .. import plots
from ..drift import FEWEST_PARTS, LEAST_MOVED, LEAST_SHIFT, ChunkDensities
from ..evidence import Evidence
from ..section import Drawing, Section, figure

# Parts that are named.
MOST_PARTS = 5


def drift_section(model: FittedMixture, evidence: Evidence) -> Section | None:
    """Make the section on parts of the store that are unlike the model."""
    densities = evidence.densities
    if densities is None:
        return None
    picture = figure(
        Drawing(
            partial(plots.plot_drift, densities),
            "Mean log-density of each part",
            "Dashed: the median part. Triangles: parts that are unlike the model.",
        )
    )
    errors, first = densities.standard_errors, densities.first_rows
    rows: list[list[str | Cell]] = [
        [
            f"{first[c]:,} to {first[c] + densities.n_rows[c] - 1:,}",
            Cell(number(densities.means[c], ",.4f"), densities.means[c]),
            Cell(number(densities.shifts[c], "+,.4f"), densities.shifts[c]),
            Cell(number(errors[c], "+,.1f"), errors[c]) if densities.judged else "too few parts",
            _changed(densities, c, model.n_components),
        ]
        for c in densities.most_unlike(MOST_PARTS)
    ]
    named = f'<div class="wide"><h3>Most unlike the model</h3>{_verdict(densities)}'
    head = ["rows", "nats per row", "from the median", "standard errors", "rows that moved"]
    listed = table(head, rows, name="parts")
    return Section(
        "Drift over the store", f'<div class="grid">{picture}{named}{listed}</div></div>'
    )


def _changed(densities: ChunkDensities, part: int, n_components: int) -> str:
    changes = densities.changes[part]
    k = int(np.abs(changes).argmax())
    name = f"component {k}" if k < n_components else "noise"
    moved = number(100 * densities.moved[part], ".1f")
    return f"{moved} %; {name}: {number(100 * changes[k], '+.1f')} %"


def _verdict(densities: ChunkDensities) -> str:
    """Say which parts are unlike the others, as far as their number allows."""
    n = len(densities.means)
    if not densities.judged:
        return (
            f"<p>The store was read in {n:,} part{'s' * (n != 1)} (small chunks are read together):"
            f" too few to tell drift from chance: no verdict below {FEWEST_PARTS} parts.</p>"
        )
    unlike, mixed = densities.unlike, densities.mixed_otherwise
    if not unlike.any() and not mixed.any():
        return (
            f"<p>None of {n:,} parts differs from the others by more than chance and by a size "
            f"that matters ({LEAST_SHIFT:g} nats per row, {LEAST_MOVED:.0%} of the rows).</p>"
        )
    found = []
    if unlike.any():
        found.append(
            f"{unlike.sum():,} of {n:,} parts are unlike the model: more than {LEAST_SHIFT:g} nats "
            "per row below the median part, and further than chance explains."
        )
    if mixed.any():
        found.append(
            f"In {mixed.sum():,} of {n:,} parts more than {LEAST_MOVED:.0%} of the rows belong to "
            f"other components than in all rows, {(unlike & mixed).sum():,} of the unlike among "
            "them. Rows that are sorted by cluster or time do so, and then wide components have "
            "low densities."
        )
    return f"<p>{' '.join(found)}</p>"
