"""Weights of the components, and their profiles over the columns."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ...estimators.describe import FittedMixture
from ...estimators.html import MOST_ENTRIES, components_table, left_out, text
from .. import plots
from ..evidence import Evidence
from ..heat import WIDEST
from ..profile_matrix import plot_profile_matrix, profile_matrix
from ..section import Drawing, MakeDrawings, Section, drawn, grid, note, of_noise

# Columns and cells of a table; of many components the first are shown.
MOST_COLUMNS, MOST_CELLS = 16, 3000

# What pictures of profiles show.
PICTURES = {
    "bands": "Means of the components with one standard deviation, in standard deviations of the "
    "whole mixture from its mean.",
    "bars": "A bar for each component.",
}


def components_section(model: FittedMixture, evidence: Evidence) -> Section | None:
    """Make the section on weights and profiles of the components."""
    profiles = model.describe().profiles
    widest = max(
        min(one.values.shape[1], MOST_ENTRIES if one.entries else MOST_COLUMNS) for one in profiles
    )
    most = MOST_CELLS // widest
    bands = any(profile.widths is not None for profile in profiles)
    words = "Mean &plusmn; standard deviation in each column, in its own unit. " if bands else ""
    words += text(left_out(model, most, MOST_COLUMNS))
    figures = grid(drawn(DRAWINGS, model, evidence))
    return Section(
        "The components", figures + note(words) + components_table(model, most, MOST_COLUMNS)
    )


def _weights(model: FittedMixture, evidence: Evidence) -> Iterator[Drawing]:
    yield Drawing(
        partial(plots.plot_weights, model),
        "Weights",
        f"The share of the data that each component has{of_noise(model, ', and noise')}.",
    )


def _profiles(model: FittedMixture, evidence: Evidence) -> Iterator[Drawing]:
    profiles = model.describe().profiles
    for profile in profiles:
        yield Drawing(
            partial(plots.plot_profiles, model, profile=profile),
            "Profiles" if len(profiles) == 1 else profile.title,
            PICTURES[profile.picture],
        )


def _matrix(model: FittedMixture, evidence: Evidence) -> Iterator[Drawing]:
    if model.n_components < 2:
        return
    found = profile_matrix(model)
    size = found.layout.size
    more = f" {found.left_out}" if found.left_out else ""
    yield Drawing(
        partial(plot_profile_matrix, model, matrix=found),
        "Profile matrix",
        "Means, and probabilities of categories, in standard deviations from those of all rows: "
        "blue is more, brown is less. Components by weight, columns by how well they separate."
        f"{more}",
        size,
        size[0] > WIDEST,
    )


DRAWINGS: tuple[MakeDrawings, ...] = (_weights, _profiles, _matrix)
