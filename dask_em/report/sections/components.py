"""Weights of the components, and their profiles over the columns."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ...estimators.describe import FittedMixture
from ...estimators.html import components_table, left_out, text
from .. import plots
from ..evidence import Evidence
from ..section import Drawing, MakeDrawings, Section, drawn, grid, note, of_noise

# Rows and columns of a table.
MOST_ROWS, MOST_COLUMNS = 300, 16

# What pictures of profiles show.
PICTURES = {
    "bands": "Means of the components with one standard deviation, in standard deviations of the "
    "whole mixture from its mean.",
    "bars": "A bar for each component.",
}


def components_section(model: FittedMixture, evidence: Evidence) -> Section | None:
    """Make the section on weights and profiles of the components."""
    bands = any(profile.widths is not None for profile in model.describe().profiles)
    words = "Mean &plusmn; standard deviation in each column, in its own unit. " if bands else ""
    words += text(left_out(model, MOST_ROWS, MOST_COLUMNS))
    figures = grid(drawn(DRAWINGS, model, evidence))
    return Section(
        "The components", figures + note(words) + components_table(model, MOST_ROWS, MOST_COLUMNS)
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


DRAWINGS: tuple[MakeDrawings, ...] = (_weights, _profiles)
