"""Tables of components for people: a line each, by the names of the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..foreign import shown

# What fits on a terminal.
MOST_COLUMNS, MOST_COMPONENTS = 6, 20

# Characters of a column's name.
NAME_WIDTH = 20


def component_lines(told: Mapping[str, Any]) -> list[str]:
    """Return a table of components as `jobs.components.components_told` tells of them.

    Where columns are many, those are shown whose means differ most, in standard deviations within
    components.

    Examples
    --------
    >>> means = {"title": "Means", "picture": "bands", "of": ["x"]}
    >>> means |= {"values": [[1.5], [40.0]], "widths": [[0.25], [3.0]]}
    >>> told = {"weights": [0.25, 0.75], "sizes": [500.0, 1500.0], "profiles": [means]}
    >>> print("\\n".join(component_lines(told)))
    component  weight   rows  x
            0  0.2500    500  1.5 (0.25)
            1  0.7500  1,500  40 (3)
    mean (standard deviation)
    """
    profiles = [one for one in told["profiles"] if one["picture"] == "bands"]
    names, columns = _columns(told["weights"], profiles)
    k = len(told["weights"])
    numbers = {
        "component": [str(i) for i in range(k)],
        "weight": [f"{weight:.4f}" for weight in told["weights"]],
    }
    if told["sizes"] is not None:
        numbers["rows"] = [f"{size:,.0f}" for size in told["sizes"]]
    table = [_aligned(name, cells, ">") for name, cells in numbers.items()]
    table += [_aligned(name, cells, "<") for name, cells in zip(names, columns, strict=True)]
    lines = ["  ".join(cells).rstrip() for cells in zip(*table, strict=True)]
    return [*lines, *_notes(k, profiles, len(names))]


def _columns(
    weights: Sequence[float], profiles: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    """Return names and cells of the columns that tell the components apart best."""
    found = []
    for one in profiles:
        for j, name in enumerate(one["of"]):
            values = [row[j] for row in one["values"]]
            widths = None if one["widths"] is None else [row[j] for row in one["widths"]]
            found.append((_separation(weights, values, widths), name, values, widths))
    order = [*range(len(found))]
    if len(found) > MOST_COLUMNS:
        order = sorted(sorted(order, key=lambda j: -found[j][0])[:MOST_COLUMNS])
    names = [_short(found[j][1]) for j in order]
    return names, [[_cell(*pair) for pair in _pairs(*found[j][2:])] for j in order]


def _pairs(
    values: Sequence[float], widths: Sequence[float] | None
) -> list[tuple[float, float | None]]:
    without: list[float | None] = [None] * len(values)
    return list(zip(values, widths or without, strict=True))


def _cell(value: float, width: float | None) -> str:
    return f"{value:.4g}" if width is None else f"{value:.4g} ({width:.3g})"


def _separation(
    weights: Sequence[float], values: Sequence[float], widths: Sequence[float] | None
) -> float:
    """Return the variance of means between components by that within them."""
    mean = sum(w * v for w, v in zip(weights, values, strict=True))
    between = sum(w * (v - mean) ** 2 for w, v in zip(weights, values, strict=True))
    within = sum(w * s**2 for w, s in zip(weights, widths, strict=True)) if widths else 1.0
    return between / within if within > 0 else 0.0


def _short(name: str) -> str:
    name = shown(name)
    return name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 3] + "..."


def _aligned(name: str, cells: Sequence[str], side: str) -> list[str]:
    column = [name, *cells[:MOST_COMPONENTS]]
    width = max(map(len, column))
    return [f"{cell:{side}{width}}" for cell in column]


def _notes(k: int, profiles: Sequence[Mapping[str, Any]], n_shown: int) -> list[str]:
    """Say what the numbers are, and what is not shown."""
    n_columns = sum(len(one["of"]) for one in profiles)
    parts = [f"{MOST_COMPONENTS} of {k} components"] * (k > MOST_COMPONENTS)
    parts += [f"the {n_shown} of {n_columns} columns that differ most"] * (n_shown < n_columns)
    spread = any(one["widths"] is not None for one in profiles)
    numbers = "mean (standard deviation)" if spread else "center"
    told = [numbers] if n_columns else []
    return ["; ".join([*told, *parts])] if told or parts else []
