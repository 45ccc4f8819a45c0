"""How the fit climbed, and how the number of components was chosen."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ...estimators.describe import FittedMixture
from ...estimators.html import candidates_table
from ...fitting.criteria import model_in
from .. import choices, plots
from ..choices import selection_of
from ..evidence import Evidence
from ..section import Drawing, MakeDrawings, Section, details, drawn, grid
from ..words import chosen_row

# Criteria of which a page shows those that a sweep kept.
CRITERIA = {
    "bic": ("BIC", "Lower is better"),
    "icl": ("ICL", "Lower is better"),
    "aic": ("AIC", "Lower is better"),
    "holdout": ("Log-likelihood of rows held out", "Higher is better"),
}


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
    chosen = chosen_row(model, selection) if selection else None
    for name, (title, better) in CRITERIA.items():
        kept = choices.candidates(selection, name)
        if len({(c["n_components"], model_in(c)) for c in kept}) > 1:
            yield Drawing(
                partial(choices.plot_criterion, selection, name, chosen=chosen),
                f"{title} over the number of components",
                f"{better}; the circle is the chosen model. A hollow mark is a model that was "
                "dropped early, whose number is an estimate; a cross one that the data do not "
                "determine.",
            )
    if choices.candidates(selection, "inertia"):
        yield Drawing(
            partial(choices.plot_elbow, selection),
            "Inertia over the number of clusters",
            "It falls with every cluster; the circle is the elbow, where the line is "
            "farthest below the dashed one.",
        )


DRAWINGS: tuple[MakeDrawings, ...] = (_ascent, _criteria)
