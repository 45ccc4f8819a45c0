"""The commands that tell of a model file: inspect and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from ..foreign import shown
from .components import component_lines
from .display import passes_text, show, status_text
from .fit import fit
from .options import (
    COUNT,
    JSON,
    OVERWRITE,
    READING,
    Option,
    cluster_of,
    cluster_options,
    take,
    with_options,
)
from .words import in_shell

# Of the fits and updates of a model; all are in the JSON.
SHOWN_GENERATIONS = 10


@click.command()
@click.argument("model")
@with_options(JSON)
def inspect(model: str, as_json: bool) -> None:
    """Say what is in MODEL and where it came from.

    Example: dask-em inspect model.npz
    """
    from ..jobs import inspect as inspect_jobs

    found = inspect_jobs.inspect(model)
    # What they advise is to be done by a fit.
    found["what"] = in_shell(found["what"], fit)
    found["warnings"] = [in_shell(message, fit) for message in found["warnings"]]
    source = found["provenance"]
    lines = [
        f"{len(found['weights'])} components, {found['structure'] or found['family']}",
        f"data     {shown(source['source'])}: {source['n_rows']:,} x {source['n_features']} "
        f"{source['dtype']}",
        f"print    {source['fingerprint'][:16]}",
        f"fitted   {source['fitted']} by dask_em {source['dask_em']}",
        f"status   {status_text(found['status'])}: {found['what']}",
        *(f"warning  {message}" for message in found["warnings"]),
        f"passes   {passes_text(found['n_reads'], found['n_sample_passes'])}",
        f"steps    {found['n_iter']} iterations",
        _reached(found["objective"], found[found["objective"]]),
    ]
    if adapted := source.get("adapted"):
        lines.append(
            f"adapted  from the model of print {adapted['fingerprint'][:16]}, relevance "
            f"{adapted['relevance']:g}, passes {adapted['n_passes']}"
        )
    if labels := source.get("labels"):
        kept = "kept in every E-step" if labels["fixed"] else "of the first M-step"
        lines.append(f"labels   of {labels['rows']:,} rows, {kept}")
    if noise := source.get("noise_covariance"):
        lines.append(f"noise    of each row known by its {noise}, and told apart")
    if kept := found["kept_sample"]:
        lines.append(f"sample   {kept['rows']:,} rows, {kept['bytes']:,} bytes of the file")
    lines += _generations(source.get("generations", ()))
    if found["columns"] is not None:
        lines.append(f"columns  {shown(', '.join(found['columns']))}")
    lines += ["", *component_lines(found)]
    for profile in found["profiles"]:
        lines += _lines_of(profile) if profile["picture"] == "bars" else []
    show(found, as_json, lines)


def _generations(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write a line of each of the last fits and updates whose rows are in a model."""
    if not found:
        return []
    shown_ones = found[-SHOWN_GENERATIONS:]
    lines = ["", f"{'generation':<10} {'rows':>14} {'kept':>7} {'nats/row':>11} {'time':<25} data"]
    for one in shown_ones:
        before = one["log_likelihood"]
        lines.append(
            f"{one['number']:<10} {one['rows']:>14,} {one['kept']:>7.4f} "
            f"{'-' if before is None else format(before, '.6f'):>11} {shown(one['fitted']):<25} "
            f"{shown(one['data'])}"
        )
    earlier = len(found) - len(shown_ones)
    return [*lines, f"and {earlier} earlier ones"] if earlier else lines


def _lines_of(profile: Mapping[str, Any]) -> list[str]:
    """Write a table of values that a mean does not tell, a line for each of them."""
    names = [shown(name) for name in profile["of"]]
    width = max(map(len, names), default=0)
    lines = ["", f"{profile['title']}, in each component"]
    for name, each in zip(names, zip(*profile["values"], strict=True), strict=True):
        cells = " ".join(f"{p:10.4g}" for p in each[:8]) + (" ..." if len(each) > 8 else "")
        lines.append(f"{name:<{width}} {cells}")
    return lines


def _reached(objective: str, value: float | None) -> str:
    """Return the line of what the fit reached."""
    told = objective.replace("_", " ")
    name, form = ("log p", ".6f") if objective == "log_likelihood" else (told, ".10g")
    unit = " nats/row" * (objective == "log_likelihood")
    return f"{name:<8} " + ("not measured" if value is None else f"{value:{form}}{unit}")


@click.command()
@click.argument("model")
@click.argument("output", metavar="REPORT.html")
@with_options(
    Option(
        "--data", "data", "Rows to draw and compare: without, no data are opened.", metavar="DATA"
    ),
    Option("--sample-rows", "sample_rows", "Rows to draw.", COUNT, 5000),
    Option(
        "--drift/--no-drift", "drift",
        "Read all of the data once to find parts that are unlike the model.", default=True,
    ),
    *READING,
    OVERWRITE,
    cluster_options,
    JSON,
)  # fmt: skip
def report(
    model: str,
    output: str,
    data: str | None,
    sample_rows: int,
    drift: bool,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write one HTML page about MODEL, with pictures, that opens anywhere without a network.

    Example: dask-em report model.npz report.html --data points.zarr
    """
    from ..jobs import report as report_jobs

    reading = take(options, READING)
    result = report_jobs.report(
        model, output, cluster_of(options), data, sample_rows, drift, overwrite, **reading
    )
    drawn = f"{result['n_rows_drawn']:,} rows drawn, {result['n_chunks']:,} parts compared"
    show(result, as_json, [f"{output}: {drawn}", *result["missing"]])
