"""Where the model came from: data, options, passes."""

from __future__ import annotations

import numpy as np

from ...estimators.describe import FittedMixture
from ...estimators.html import Cell, facts, number, table, text
from ...version import __version__
from ..evidence import Evidence
from ..section import Section, details

# Rows of a table.
MOST_ROWS = 1000


def provenance_section(model: FittedMixture, evidence: Evidence) -> Section | None:
    """Make the section on the data, the options and the passes of the fit, and on the page."""
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
    form = ".6f" if told.unit else ".6g"
    rows: list[list[str | Cell]] = [
        [
            text(r["phase"]),
            Cell(f"{r['number']:,}", r["number"]),
            Cell(number(r["seconds"], ",.2f"), r["seconds"]),
            Cell(f"{r['rows']:,}", r["rows"]),
            Cell(number(r["bytes"] / 1e6, ",.1f"), r["bytes"] / 1e6),
            "" if r.get(told.key) is None else Cell(number(r[told.key], form), r[told.key]),
        ]
        for r in model.history_[-MOST_ROWS:]
    ]
    head = ["pass", "number", "seconds", "rows", "MB", told.unit or told.name]
    return Section(
        "Provenance",
        f'<div class="grid"><div><h3>Data and fit</h3>{facts(data)}</div>'
        f"<div><h3>This page</h3>{facts(made)}</div></div>"
        + details("Options of the fit", facts(options))
        + details(
            "Every pass" if len(rows) == len(model.history_) else "The last passes",
            table(head, rows, name="passes"),
        ),
    )


def _option(value: object) -> object:
    if value is None:
        return "not set"
    return "given" if isinstance(value, np.ndarray) else value
