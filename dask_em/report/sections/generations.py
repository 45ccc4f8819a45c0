"""The fit and the updates of a model: rows, how it saw them before, and its weights since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ...estimators.describe import FittedMixture
from ...estimators.html import Cell, number, table, text
from .. import generations
from ..evidence import Evidence
from ..formats import counted, percent
from ..section import Drawing, Section, details, figure, grid, note

# Rows of the table, the last ones.
MOST_ROWS = 400


def generations_section(model: FittedMixture, evidence: Evidence) -> Section | None:
    """Make the section on the generations of a model that was updated."""
    log: Sequence[Mapping[str, Any]] = model.provenance_.get("generations", ())
    if not log:
        return None
    drawn = grid([figure(one) for one in _drawings(log)])
    shown = log[-MOST_ROWS:]
    rows: list[list[str | Cell]] = [
        [
            text(one["fitted"]),
            text(one["data"]),
            Cell(f"{one['number']:,}", one["number"]),
            Cell(f"{one['rows']:,}", one["rows"]),
            Cell(percent(one["kept"]), one["kept"]),
            ""
            if one["log_likelihood"] is None
            else Cell(number(one["log_likelihood"], ",.5f"), one["log_likelihood"]),
            Cell(f"{one['passes']:,}", one["passes"]),
            Cell(number(one["seconds"], ",.2f"), one["seconds"]),
        ]
        for one in shown
    ]
    head = ["time", "data", "generation", "rows", "earlier rows count", "nats a row", "passes",
            "seconds"]  # fmt: skip
    listed = table(head, rows, text_columns=2, name="generations")
    title = "Every generation" if len(shown) == len(log) else f"The last {len(shown)} generations"
    total = sum(one["rows"] for one in log)
    words = (
        f"{counted(len(log), 'generation')} of {total:,} rows in all. Nats a row are of the model "
        "as it was before it had learned from the rows, of the first fit of that which it ended "
        "with: a fall tells that rows are unlike those before."
    )
    return Section("Generations", f"{note(words)}{drawn}{details(title, listed)}")


def _drawings(log: Sequence[Mapping[str, Any]]) -> Iterable[Drawing]:
    yield Drawing(
        partial(generations.plot_generations, log),
        "Rows of each generation, and their log-likelihood",
        "Bars: rows that were read. Line: mean log-likelihood before the model had seen them.",
    )
    if sum("weights" in one for one in log) > 1:
        yield Drawing(
            partial(generations.plot_weight_paths, log),
            "Weights over generations",
            "Mixing weights once the rows of each generation had joined.",
        )
