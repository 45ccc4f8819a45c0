"""How clearly the components part: overlap of pairs, and clusters of several components."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ...estimators.describe import FittedMixture
from ..evidence import Evidence
from ..formats import percent
from ..heat import WIDEST
from ..merge_tree import draw_mergers, elbow_of, mergers_of_rows, tree_size
from ..overlap import MOST_COMPONENTS, Overlaps, overlaps, plot_overlap
from ..section import Drawing, MakeDrawings, Section, drawn, grid


def overlap_section(model: FittedMixture, evidence: Evidence) -> Section | None:
    """Make the section on how clearly the components part; none of a single one."""
    figures = drawn(DRAWINGS, model, evidence)
    return Section("How clearly the components part", grid(figures)) if figures else None


def _overlap(model: FittedMixture, evidence: Evidence) -> Iterator[Drawing]:
    if model.n_components < 2:
        return
    found = overlaps(model, evidence.rows)
    size = found.layout.size
    yield Drawing(
        partial(plot_overlap, model, found=found),
        "Overlap of the components",
        f"How often a row of one component (left) is likelier in another (below). {_worst(found)} "
        f"The numbers are {found.told}.{_left_out(model)}",
        size,
        size[0] > WIDEST,
    )


def _worst(found: Overlaps) -> str:
    """Name the pair that overlaps most, in a sentence."""
    worst = found.worst
    if worst is None:
        return "No pair overlaps."
    i, j, there, back = worst
    return (
        f"Framed: {i} and {j} overlap most; {percent(there, 2)} of the rows of {i} are taken for "
        f"{j}, and {percent(back, 2)} the other way."
    )


def _left_out(model: FittedMixture) -> str:
    k = model.n_components
    return f" Shown are the {MOST_COMPONENTS} heaviest of {k}." if k > MOST_COMPONENTS else ""


def _tree(model: FittedMixture, evidence: Evidence) -> Iterator[Drawing]:
    if evidence.rows is None or model.n_components > MOST_COMPONENTS:
        return
    mergers = mergers_of_rows(model, evidence.rows)
    if mergers is None:
        return
    elbow = elbow_of(model, mergers)
    cut = (
        f" The entropy stops to fall steeply at {elbow} cluster{'s' * (elbow > 1)}."
        if elbow is not None
        else ""
    )
    size = tree_size(model.n_components)
    yield Drawing(
        partial(draw_mergers, mergers, elbow),
        "Merge tree",
        "Components that together make up a cluster, merged two at a time from below, those first "
        f"whose merger makes rows belong more clearly to one.{cut} Of {len(evidence.rows):,} rows.",
        size,
        size[0] > WIDEST,
    )


DRAWINGS: tuple[MakeDrawings, ...] = (_overlap, _tree)
