"""One HTML page about a fitted model that needs nothing beside it.

Pictures are inline SVG in the colours of the page, so there is one page for light and
dark; a content policy forbids the browser to fetch anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import combinations
from typing import Any

import numpy as np

from ..core.additive import Array
from ..errors import UsageError
from ..estimators.describe import FittedMixture
from ..estimators.html import (
    candidates_table,
    components_table,
    facts,
    left_out,
    number,
    status_words,
    table,
    text,
    warning_lines,
)
from ..runtime import current_job
from ..storage.outputs.writer import output_file
from ..version import __version__
from . import choices, plots
from .answers import plot_answers
from .drift import FEWEST_PARTS, LEAST_MOVED, LEAST_SHIFT, ChunkDensities, Evidence
from .style import STYLE
from .svg import svg

# Columns whose pairs and marginals are drawn, and parts of the store that are named.
MOST_COLUMNS, MOST_PARTS = 4, 5

# Rows of a table.
MOST_ROWS = 1000


def check_can_draw() -> None:
    """Check before the work that pages can be made.

    Raises
    ------
    UsageError
        matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UsageError("a report needs matplotlib: pip install 'dask-em[plot]'")


def write_report(
    path: str | os.PathLike[str],
    model: FittedMixture,
    evidence: Evidence | None = None,
    overwrite: bool = False,
) -> None:
    """Write the page about a fitted model to one file, whole or not at all.

    Parameters
    ----------
    path : path, or URL of an object store
    model : fitted mixture
    evidence : Evidence, optional
        Rows, densities and where they come from; parts that need what is not there are
        left out, and the page says so.
    overwrite : bool
        Replace the file that is there.

    Raises
    ------
    OutputExistsError
        The file is there and `overwrite` is False, or it is a folder; `LockedError` where
        another job writes it.
    UsageError
        matplotlib is not installed, or nothing can be written there.
    """
    check_can_draw()
    with output_file(path, overwrite) as output:
        page = report_html(model, evidence)
        with output.open() as file:
            file.write(page.encode())


def report_html(model: FittedMixture, evidence: Evidence | None = None) -> str:
    """Make the page about a fitted model, in ASCII so that no encoding can spoil it."""
    evidence = evidence or Evidence()
    components = model.describe()
    k, d = components.means.shape
    title = f"{k} {components.family} component{'s' * (k > 1)} in {d} column{'s' * (d > 1)}"
    parts = [
        _header(model, title),
        _fit_section(model),
        _components_section(model),
        _rows_section(model, evidence.rows),
        _drift_section(evidence.densities, model.n_components),
        _missing(evidence),
        _provenance_section(model, evidence),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _header(model: FittedMixture, title: str) -> str:
    source = model.provenance_
    tiles = [
        (number(model.objective_.value, ".6g"), model.objective_.label),
        (f"{model.n_reads_:,}", "passes over the data"),
        (number(model.n_sample_passes_, ",.2f"), "passes' worth of work on the sample"),
        (f"{model.n_iter_:,}", "iterations"),
        (f"{model.state_.result.n_parameters:,}", "free parameters"),
    ]
    if _noise(model, "shown"):
        share = number(model.state_.result.noise_weight, ".4f")
        tiles.append((share, "share of noise, label -1"))
    if source:
        tiles.insert(0, (f"{source['n_rows']:,}", "rows"))
    shown = "".join(f"<div><b>{text(value)}</b><span>{name}</span></div>" for value, name in tiles)
    where = f'<p class="source">{text(source["source"])}</p>' if source else ""
    good = "good" if model.status_.done else "warn"
    return (
        f"<header><h1>{text(title)}</h1>{where}"
        f'<p class="status {good}">{status_words(model)}</p>{warning_lines(model)}'
        f'<div class="tiles">{shown}</div></header>'
    )


def _fit_section(model: FittedMixture) -> str:
    figures = []
    if any(r["phase"] == "em" for r in model.history_):
        figures.append(
            _figure(
                partial(plots.plot_log_likelihood, model),
                f"{model.objective_.name.capitalize()} over passes",
                "Each full pass measures it at the parameters it was given. A cross is a step "
                "that was rejected.",
            )
        )
    selection = _selection(model)
    if selection:
        figures += [
            _figure(
                partial(choices.plot_criterion, selection, name),
                f"{name.upper()} over the number of components",
                "Lower is better; the circle is the lowest. Where the line has no dot, the model "
                "was dropped early and its number is an estimate.",
            )
            for name in ("bic", "icl")
            if choices.candidates(selection, name)
        ]
        if choices.candidates(selection, "inertia"):
            figures.append(
                _figure(
                    partial(choices.plot_elbow, selection),
                    "Inertia over the number of clusters",
                    "It falls with every cluster; the circle is the elbow, where the line is "
                    "farthest below the dashed one.",
                )
            )
    return _section("The fit", _grid(figures) + (_all_candidates(selection) if selection else ""))


def _selection(model: FittedMixture) -> Sequence[Mapping[str, Any]]:
    """Return the candidates of the choice; none where the model was fitted alone."""
    sweep = model.provenance_.get("sweep", {})
    return vars(model).get("selection_") or sweep.get("table") or ()


def _all_candidates(selection: Sequence[Mapping[str, Any]]) -> str:
    return _details("All candidates", candidates_table(selection))


# What pictures of profiles show.
PICTURES = {
    "bands": "Means of the components with one standard deviation, in standard deviations of the "
    "whole mixture from its mean.",
    "bars": "A bar for each component.",
}


def _components_section(model: FittedMixture) -> str:
    figures = [
        _figure(
            partial(plots.plot_weights, model),
            "Weights",
            f"The share of the data that each component has{_noise(model, ', and noise')}.",
        ),
    ]
    profiles = model.describe().profiles
    figures += [
        _figure(
            partial(plots.plot_profiles, model, profile=profile),
            "Profiles" if len(profiles) == 1 else profile.title,
            PICTURES[profile.picture],
        )
        for profile in profiles
    ]
    bands = any(profile.widths is not None for profile in profiles)
    note = "Mean &plusmn; standard deviation in each column, in its own unit. " if bands else ""
    note += text(left_out(model, MOST_ROWS))
    return _section(
        "The components",
        _grid(figures)
        + (f'<p class="note">{note}</p>' if note else "")
        + components_table(model, MOST_ROWS),
    )


def _rows_section(model: FittedMixture, rows: Array | None) -> str:
    """Draw the data beside the model; without rows, the model alone."""
    columns = plots.telling_columns(model, MOST_COLUMNS)
    components = model.describe()
    names = components.columns
    figures = []
    numbers = [j for j in columns if j not in components.answers]
    if rows is not None:
        figures += [
            _figure(
                partial(plots.plot_components, model, rows, pair),
                f"{names[pair[0]]} and {names[pair[1]]}",
                "Rows by their likeliest component; ellipses at 1 and 2 standard deviations."
                + _noise(model, " Grey rows are noise: their label is -1."),
            )
            for pair in combinations(numbers, 2)
        ]
    lines = "" if rows is None else "; lines are the shares of the rows"
    figures += [
        _figure(
            partial(plot_answers, model, j, rows),
            f"Answers in {names[j]}",
            f"Probability of each category in each component{lines}.",
        )
        for j in columns
        if j in components.answers
    ]
    over = "" if rows is None else " over a histogram of the rows"
    figures += [
        _figure(
            partial(plots.plot_marginal, model, j, rows),
            f"Density of {names[j]}",
            f"The mixture and its components{over}.",
        )
        for j in numbers
    ]
    if rows is not None:
        figures.append(
            _figure(
                partial(plots.plot_sharpness, model, rows),
                "Sharpness",
                "Rows at the right belong clearly to one component; rows at the left are shared.",
            )
        )
    d = len(names)
    chosen = f"The {len(columns)} of {d} columns in which the components differ most. "
    drawn = "" if rows is None else f"{len(rows):,} rows drawn evenly from the data."
    note = (chosen if d > len(columns) else "") + drawn
    return _section(
        "Data and model", (f'<p class="note">{note}</p>' if note else "") + _grid(figures)
    )


def _noise(model: FittedMixture, words: str) -> str:
    """Return words on noise, and none where there is no noise."""
    return words if model.state_.result.noise_box is not None else ""


def _drift_section(densities: ChunkDensities | None, n_components: int) -> str:
    if densities is None:
        return ""
    figure = _figure(
        partial(plots.plot_drift, densities),
        "Mean log-density of each part",
        "Dashed: the median part. Triangles: parts that are unlike the model.",
    )
    errors, first = densities.standard_errors, densities.first_rows
    rows = [
        [
            f"{first[c]:,} to {first[c] + densities.n_rows[c] - 1:,}",
            number(densities.means[c], ",.4f"),
            number(densities.shifts[c], "+,.4f"),
            number(errors[c], "+,.1f") if densities.judged else "too few parts",
            _changed(densities, c, n_components),
        ]
        for c in densities.most_unlike(MOST_PARTS)
    ]
    named = f'<div class="wide"><h3>Most unlike the model</h3>{_verdict(densities)}'
    head = ["rows", "nats per row", "from the median", "standard errors", "rows that moved"]
    return _section(
        "Drift over the store", f'<div class="grid">{figure}{named}{table(head, rows)}</div></div>'
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


def _missing(evidence: Evidence) -> str:
    reasons = list(evidence.missing)
    if evidence.rows is None and not reasons:
        reasons = ["Pictures of rows and the drift over chunks, for which no data were given."]
    if not reasons:
        return ""
    items = "".join(f"<li>{text(reason)}</li>" for reason in reasons)
    return _section("Left out", f"<ul>{items}</ul>")


def _provenance_section(model: FittedMixture, evidence: Evidence) -> str:
    source = model.provenance_
    names = {"source": "source", "n_rows": "rows", "n_features": "columns", "dtype": "type"}
    names |= {name: name for name in source if name not in names}
    data = [
        (text(shown), text(f"{source[name]:,}" if isinstance(source[name], int) else source[name]))
        for name, shown in names.items()
        if isinstance(source.get(name), str | int | float)
    ]
    if "adapted" in source:
        names = {"fingerprint": "adapted from", "relevance": "relevance", "n_passes": "passes"}
        data += [(text(shown), text(source["adapted"][name])) for name, shown in names.items()]
    if "labels" in source:
        kept = "kept in every E-step" if source["labels"]["fixed"] else "of the first M-step"
        data.append(("labels", f"{source['labels']['rows']:,} rows, {kept}"))
    if "noise_covariance" in source:
        data.append(("noise of rows", f"known by {source['noise_covariance']}, and told apart"))
    if "sweep" in source:
        data.append(("chosen by", text(source["sweep"].get("criterion", "a sweep"))))
    options = [
        (text(name), text(_option(value)))
        for name, value in model.get_params().items()
        if name != "callbacks"
    ]
    # Not when: the same model and data make the same page, and its file has the time.
    page = {**(evidence.origin or {}), "written by": f"dask_em {__version__}"}
    made = [(text(name), text(value)) for name, value in page.items()]
    told = model.objective_
    rows = [
        [
            text(r["phase"]),
            f"{r['number']:,}",
            number(r["seconds"], ",.2f"),
            f"{r['rows']:,}",
            number(r["bytes"] / 1e6, ",.1f"),
            "" if r.get(told.key) is None else number(r[told.key], ".6f" if told.unit else ".6g"),
        ]
        for r in model.history_[-MOST_ROWS:]
    ]
    head = ["pass", "number", "seconds", "rows", "MB", told.unit or told.name]
    return _section(
        "Provenance",
        f'<div class="grid"><div><h3>Data and fit</h3>{facts(data)}</div>'
        f"<div><h3>This page</h3>{facts(made)}</div></div>"
        + _details("Options of the fit", facts(options))
        + _details(
            "Every pass" if len(rows) == len(model.history_) else "The last passes",
            table(head, rows),
        ),
    )


def _option(value: object) -> object:
    if value is None:
        return "not set"
    return "given" if isinstance(value, np.ndarray) else value


def _section(title: str, inner: str) -> str:
    return f"<section><h2>{title}</h2>{inner}</section>\n"


def _grid(figures: Sequence[str]) -> str:
    return f'<div class="grid">{"".join(figures)}</div>'


def _details(title: str, inner: str) -> str:
    return f"<details><summary>{title}</summary>{inner}</details>"


def _figure(draw: Callable[..., Any], title: str, caption: str) -> str:
    """Make a picture with its title and caption, unless the job is to stop."""
    current_job().check()
    return (
        f"<figure><h3>{text(title)}</h3>{svg(draw, title)}"
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )
