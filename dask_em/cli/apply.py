"""The commands that apply a model to data: predict and score."""

from __future__ import annotations

from typing import Any, Literal

import click

from .display import show
from .options import JSON, OVERWRITE, Option, cluster_of, cluster_options, with_options


@click.command()
@click.argument("model")
@click.argument("data")
@click.argument("dest")
@with_options(
    Option("--proba", "proba", "Write the responsibilities too, DEST/proba.", is_flag=True),
    Option("--log-density", "log_density", "Write log p(x) too, DEST/log_density.", is_flag=True),
    Option(
        "--resume/--no-resume", "resume",
        "Finish what an interrupted run left, or throw it away.", default=True,
    ),
    OVERWRITE,
    cluster_options,
    JSON,
)  # fmt: skip
def predict(
    model: str,
    data: str,
    dest: str,
    proba: bool,
    log_density: bool,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Label every row of DATA: a Zarr group DEST with the array `labels`.

    Interrupted, it keeps the regions that are whole in .DEST.partial beside DEST; the
    same command run again finishes the rest. Regions whose files in DATA changed in
    between are computed again, where DATA is a local folder; elsewhere pass
    --no-resume if DATA changed.

    Example: dask-em predict model.npz points.zarr answers.zarr --proba
    """
    from ..jobs import predict as predict_jobs

    answers: list[Literal["labels", "proba", "log_density"]] = ["labels"]
    if proba:
        answers.append("proba")
    if log_density:
        answers.append("log_density")
    cluster = cluster_of(options)
    result = predict_jobs.predict(model, data, dest, cluster, answers, overwrite, resume)
    written = ", ".join(f"{dest}/{name}" for name in answers)
    kept = f", {result['n_rows_kept']:,} of an earlier run" if result["n_rows_kept"] else ""
    show(result, as_json, [f"{written}: {result['n_rows']:,} rows{kept}"])


@click.command()
@click.argument("model")
@click.argument("data")
@with_options(cluster_options, JSON)
def score(model: str, data: str, as_json: bool, **options: Any) -> None:
    """Mean log-likelihood in nats a row, AIC, BIC and ICL of MODEL on DATA, from one pass.

    Example: dask-em score model.npz points.zarr
    """
    from ..jobs import score as score_jobs

    result = score_jobs.score(model, data, cluster_of(options))
    lines = [f"{name:<15} {value:,.6f}" for name, value in result.items() if name != "n_rows"]
    show(result, as_json, [f"{'rows':<15} {result['n_rows']:,}", *lines])
