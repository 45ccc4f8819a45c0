"""How the fit climbed, and how the number of components was chosen."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ...estimators.describe import FittedMixture
from ...estimators.html import candidates_table
from .. import choices, plots
from ..choices import selection_of
from ..evidence import Evidence
from ..section import Drawing, MakeDrawings, Section, details, drawn, grid
from ..words import chosen_row


def fit_section(model: FittedMixture, evidence: Evidence) -> Section | None:
    """Make the section on how the fit climbed, and how it was chosen."""
    selection = selection_of(model)
    listed = candidates_table(selection, chosen_row(model, selection)) if selection else ""
    table = details("All candidates", listed) if selection else ""
    return Section("The fit", grid(drawn(DRAWINGS, model, evidence)) + table)


def _ascent(model: FittedMixture, evidence: Evidence) -> Iterator[Drawing]:
    if any(r["phase"] == "em" for r in model.history_):
        yield Drawing(
            partial(plots.plot_log_likelihood, model),
            f"{model.objective_.name.capitalize()} over passes",
            "Each full pass measures it at the parameters it was given. A cross is a step "
            "that was rejected.",
        )


def _criteria(model: FittedMixture, evidence: Evidence) -> Iterator[Drawing]:
    selection = selection_of(model)
    for name in ("bic", "icl"):
        if choices.candidates(selection, name):
            yield Drawing(
                partial(choices.plot_criterion, selection, name),
                f"{name.upper()} over the number of components",
                "Lower is better; the circle is the lowest. Where the line has no dot, the model "
                "was dropped early and its number is an estimate.",
            )
    if choices.candidates(selection, "inertia"):
        yield Drawing(
            partial(choices.plot_elbow, selection),
            "Inertia over the number of clusters",
            "It falls with every cluster; the circle is the elbow, where the line is "
            "farthest below the dashed one.",
        )


DRAWINGS: tuple[MakeDrawings, ...] = (_ascent, _criteria)
