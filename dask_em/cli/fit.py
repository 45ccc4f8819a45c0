"""The command that fits models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .components import component_lines
from .display import passes_text, show, status_text
from .options import (
    CHECKPOINT,
    CHOICE,
    COVARIANCE,
    ESTIMATOR,
    FAMILY,
    GROUPS,
    JSON,
    KEEP_SAMPLE,
    LABELS,
    METRICS,
    N_COMPONENTS,
    NOISE,
    OUTPUT,
    OVERWRITE,
    SETTINGS,
    WEIGHTS,
    cluster_of,
    cluster_options,
    columns_of,
    take,
    with_options,
)
from .words import in_shell

if TYPE_CHECKING:
    from ..jobs.fit import FitResult


@click.command()
@click.argument("data")
@with_options(
    N_COMPONENTS,
    OUTPUT,
    FAMILY,
    COVARIANCE,
    GROUPS,
    WEIGHTS,
    *LABELS,
    NOISE,
    *ESTIMATOR,
    SETTINGS,
    *CHOICE,
    *CHECKPOINT,
    KEEP_SAMPLE,
    METRICS,
    OVERWRITE,
    cluster_options,
    JSON,
)  # fmt: skip
def fit(data: str, output: str, as_json: bool, **options: Any) -> None:
    """Fit a mixture of K components to DATA: a Zarr array, Parquet, Arrow, or a .npy file.

    Killed or stopped, the same command run again goes on where it was, to the same bits.

    Several families, covariances or K are fitted by the same passes over DATA; the best by
    --criterion goes to MODEL, and a table says how the others did.

    Example: dask-em fit points.zarr -k 8 -o model.npz
    """
    from click.core import ParameterSource

    from ..jobs import fit as fit_jobs
    from ..jobs.commit import checkpointing

    cluster = cluster_of(options)
    columns_of(options)
    settings = options.pop("settings")
    source_of = click.get_current_context().get_parameter_source
    given = {
        name: value
        for name, value in take(options, ESTIMATOR).items()
        # What is not typed is the estimator's own default: of some families it is no option.
        if name == "random_state"
        or source_of(name) is not ParameterSource.DEFAULT
        or isinstance(value, dict)
    } | dict(settings)
    models = take(options, (N_COMPONENTS, FAMILY, COVARIANCE, *CHOICE))
    request = fit_jobs.FitRequest(**models, options=given)
    kept = checkpointing(output, **take(options, CHECKPOINT))
    result = fit_jobs.fit(data, output, cluster, request, checkpoint=kept, **options)
    lines = _lines(output, result)
    if result.table:
        others = [f"saved: {path}" for path in result.files[1:]]
        lines = [*_table(result), *lines, *others]
    if not as_json:
        lines += ["", *component_lines(result.components)]
    show(_summary(output, result), as_json, lines)


def _summary(output: str, result: FitResult) -> dict[str, Any]:
    best = result.best
    summary: dict[str, Any] = {
        "model": output,
        "status": best.status_.name,
        "degenerate": [one.as_dict() for one in best.degenerate_],
        "warnings": [in_shell(message, fit) for message in best.warnings_],
        "n_iter": best.n_iter_,
        "n_reads": best.n_reads_,
        "n_sample_passes": best.n_sample_passes_,
        "n_passes": best.n_passes_,
        "log_likelihood": _log_likelihood(result),
        best.objective_.key: best.objective_.value,
        "n_dropped": best.n_dropped_,
        "weights": best.fitted_array("weights_").tolist(),
        "sizes": result.components["sizes"],
    }
    if best.state_.result.noise_box is not None:
        summary["noise_weight"] = best.state_.result.noise_weight
    if "labels" in best.provenance_:
        summary["labels"] = best.provenance_["labels"]
    if "noise_covariance" in best.provenance_:
        summary["noise_covariance"] = best.provenance_["noise_covariance"]
    if result.table:
        summary |= {
            **best.fitted_options(),
            "criterion": result.criterion,
            "range_end": result.range_end,
            "table": result.table,
            "files": result.files,
        }
    return summary


def _log_likelihood(result: FitResult) -> float:
    """Return the mean log-likelihood of a row at the best pass, whatever the fit raised."""
    state = result.best.state_
    return state.log_likelihood if state.measured else float(result.best.lower_bound_)


def _lines(output: str, result: FitResult) -> list[str]:
    best = result.best
    n_degenerate = len({one.component for one in best.degenerate_})
    degenerate = f", {n_degenerate} degenerate of {len(best.weights_)} components"
    return [
        f"{output}: {status_text(best.status_.name)} after "
        f"{passes_text(best.n_reads_, best.n_sample_passes_)}, {best.objective_.line}"
        f"{degenerate * bool(n_degenerate)}",
    ]


# Columns of the table of candidates: name, width, format.
COLUMNS = (
    ("n_factors", 9, "d"), ("log_likelihood", 14, ",.6f"), ("n_parameters", 12, ",d"),
    ("aic", 16, ",.1f"), ("bic", 16, ",.1f"), ("icl", 16, ",.1f"), ("inertia", 14, ".6g"),
    ("holdout", 12, ".6f"), ("n_passes", 8, "d"),
)  # fmt: skip


def _table(result: FitResult) -> list[str]:
    """Return the lines of the table of candidates, the winner marked by a star."""
    factors = result.best.family_options().n_factors
    best = (result.best.n_components, result.kind, factors, result.best.family)
    head = result.kind_option.removesuffix("_type")
    families = [row.get("family", "") for row in result.table]
    wide = max(map(len, families)) + any(families)
    shown = [c for c in COLUMNS if any(row.get(c[0]) is not None for row in result.table)]
    end = f", and has the {result.range_end} K tried" if result.range_end else ""
    names = " ".join(f"{name:>{width}}" for name, width, _ in shown)
    lines = [f"  {'family'[:wide]:<{wide}}   K {head:<10} {names} status"]
    for row in result.table:
        family = row.get("family", "")
        kind, factors = result.kind_in(row), row.get("n_factors")
        model = (row["n_components"], kind, factors, family or best[3])
        mark = "*" if model == best else " "
        cells = " ".join(_cell(row.get(name), width, form) for name, width, form in shown)
        named = f"{family:<{wide}}{row['n_components']:>4} {kind:<10}"
        lines.append(f"{mark} {named} {cells} {status_text(row['status'])}")
    note = "after 0 passes, numbers are estimates of the sample"
    return [*lines, "", f"* is best by {result.criterion}{end}; {note}"]


def _cell(value: float | None, width: int, form: str) -> str:
    return f"{'-' if value is None else format(value, form):>{width}}"
