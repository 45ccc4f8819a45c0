"""The commands that apply a model to data: predict, impute, score, adapt and update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import click

from ..errors import ExitCode
from ..foreign import shown
from .display import show, status_text
from .options import (
    ADAPTATION,
    CHECKPOINT,
    JSON,
    KEEP_SAMPLE,
    METRICS,
    NOISE,
    OUTPUT,
    OVERWRITE,
    READING,
    UPDATE,
    WEIGHTS,
    Names,
    Option,
    cluster_of,
    cluster_options,
    take,
    with_options,
)


@click.command()
@click.argument("model")
@click.argument("data")
@click.argument("dest")
@with_options(
    Option("--proba", "proba", "Write the responsibilities too, DEST/proba.", is_flag=True),
    Option(
        "--keep", "keep",
        "Columns of DATA, of any type, that stand beside the answers in a DEST of Parquet.",
        Names(), metavar="NAMES",
    ),
    Option("--log-density", "log_density", "Write log p(x) too, DEST/log_density.", is_flag=True),
    Option(
        "--entropy", "entropy",
        "Write the entropy of the responsibilities too, DEST/entropy.", is_flag=True,
    ),
    Option(
        "--pvalues", "pvalues",
        "Write p-values too, DEST/pvalues: how often MODEL draws a row of no larger density.",
        is_flag=True,
    ),
    Option(
        "--mahalanobis", "mahalanobis",
        "Write the distances to all components too, DEST/mahalanobis.", is_flag=True,
    ),
    Option(
        "--resume/--no-resume", "resume",
        "Finish what an interrupted run left, or throw it away.", default=True,
    ),
    Option(
        "--dtype", "label_type",
        "Type of integers of the labels: uint8 holds those of up to 256 components in an eighth.",
        default="int64", metavar="TYPE",
    ),
    NOISE,
    *READING,
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
    entropy: bool,
    pvalues: bool,
    mahalanobis: bool,
    keep: tuple[str, ...] | None,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    label_type: str,
    noise_covariance: str | None,
    **options: Any,
) -> None:
    """Label every row of DATA: a Zarr group DEST with the array `labels`.

    A DEST that ends in .parquet becomes a folder of Parquet, a file for each part of DATA, with
    the column `labels`; `proba` is proba_0, proba_1, ... there. With --keep id it has the column
    id of DATA, too.

    --pvalues are uniform for data of MODEL, and small for outliers: of 100 000 draws, or exact of
    one Gaussian component. --mahalanobis are those of mixtures of normals.

    With --nonfinite drop, or where MODEL was fitted so, rows that hold NaN or infinity have
    the label -1, and NaN in all else.

    Chunks of `labels` hold as many rows as those of DATA: whole multiples of them where DATA has
    more than a thousand chunks of less than a mebibyte.

    Interrupted, it keeps the regions that are whole in .DEST.partial beside DEST; the
    same command run again finishes the rest. Regions whose files in DATA changed in
    between are computed again, where DATA lie on a disk; elsewhere pass
    --no-resume if DATA changed.

    Example: dask-em predict model.npz points.zarr answers.zarr --proba
    """
    from ..jobs import predict as predict_jobs

    answers: list[Literal["labels", "proba", "log_density", "entropy"]] = ["labels"]
    if proba:
        answers.append("proba")
    if log_density:
        answers.append("log_density")
    if entropy:
        answers.append("entropy")
    cluster, reading = cluster_of(options), take(options, READING)
    result = predict_jobs.predict(
        model, data, dest, cluster, answers, overwrite, resume, keep or (), noise_covariance,
        pvalues, mahalanobis, label_type,
        **reading,
    )  # fmt: skip
    written = ", ".join(result["written"])
    kept = f", {result['n_rows_kept']:,} of an earlier run" if result["n_rows_kept"] else ""
    without = result["n_dropped"]
    left_out = f", {without:,} without an answer: NaN or infinity" if without else ""
    show(result, as_json, [f"{written}: {result['n_rows']:,} rows{kept}{left_out}"])


@click.command()
@click.argument("model")
@click.argument("data")
@click.argument("dest")
@with_options(
    Option(
        "--draws", "draws",
        "Write so many draws instead of conditional means: imputed_0, imputed_1, ...",
        click.IntRange(1),
    ),
    Option(
        "--seed", "seed", "Of the draws: the same seed gives the same bits.",
        click.IntRange(0, 2**32 - 1), 0,
    ),
    Option(
        "--keep", "keep",
        "Columns of DATA, of any type, that stand beside the filled ones in a DEST of Parquet.",
        Names(), metavar="NAMES",
    ),
    Option(
        "--resume/--no-resume", "resume",
        "Finish what an interrupted run left, or throw it away.", default=True,
    ),
    *READING,
    OVERWRITE,
    cluster_options,
    JSON,
)  # fmt: skip
def impute(
    model: str,
    data: str,
    dest: str,
    draws: int | None,
    seed: int,
    keep: tuple[str, ...] | None,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Fill the missing values (NaN) of DATA by MODEL, a Gaussian mixture: a Zarr group DEST.

    The array `imputed` holds the rows with the conditional means of what is missing. With --draws
    M there are M arrays of draws, which vary as values do. A DEST that ends in .parquet becomes a
    folder of Parquet of the columns of MODEL.

    MODEL was fitted with --missing-values mar, or is told so here. Interrupted, it is finished by
    the same command, as `predict` is.

    Example: dask-em impute model.npz points.zarr filled.zarr
    """
    from ..jobs import impute as impute_jobs

    cluster, reading = cluster_of(options), take(options, READING)
    result = impute_jobs.impute(
        model, data, dest, cluster, draws, seed, overwrite, resume, keep or (), **reading
    )
    written = ", ".join(result["written"])
    kept = f", {result['n_rows_kept']:,} of an earlier run" if result["n_rows_kept"] else ""
    without = result["n_dropped"]
    left_out = f", {without:,} without an answer: infinity" if without else ""
    show(result, as_json, [f"{written}: {result['n_rows']:,} rows{kept}{left_out}"])


@click.command()
@click.argument("model")
@click.argument("data")
@with_options(
    WEIGHTS,
    NOISE,
    Option(
        "--drift", "drift", "A model: are DATA still like the rows that it was fitted to?",
        metavar="BASELINE",
    ),
    Option(
        "--alarm", "alarm", "Probability of an alarm where nothing drifted.",
        click.FloatRange(0, 0.5, min_open=True), 0.01, metavar="LIMIT",
    ),
    Option(
        "--time", "time_column",
        "A column of DATA, or a path of numbers: the drift of each period of it.",
        metavar="COLUMN",
    ),
    Option(
        "--period", "period",
        "hour, day, week, month or year of dates; the width of a period of numbers "
        "[default: day; each number].", metavar="PERIOD",
    ),
    Option("--metrics-file", "metrics", "Prometheus metrics of the result.", metavar="PATH"),
    *READING,
    cluster_options,
    JSON,
)  # fmt: skip
def score(
    model: str,
    data: str,
    weights: str | None,
    noise_covariance: str | None,
    drift: str | None,
    alarm: float,
    metrics: str | None,
    time_column: str | None,
    period: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Mean log-likelihood in nats a row, AIC, BIC and ICL of MODEL on DATA, from one pass.

    Of K-means also the inertia, and the mean simplified silhouette of a row.

    With --weights a row of weight w counts as w rows, as in fit.

    With --drift one more pass tests log-density, weights and, of normals, means of all rows and of
    each part that is read at a time, and with --time of each period. Exit code 3 where that is
    less probable than --alarm, which is shared by all tests.

    Example: dask-em score model.npz points.zarr
    """
    from ..jobs import score as score_jobs

    reading = take(options, READING)
    result = score_jobs.score(
        model,
        data,
        cluster_of(options),
        weights,
        noise_covariance,
        drift,
        alarm,
        metrics,
        time_column,
        period,
        **reading,
    )
    total = (
        f"sum {result['weight']:,.6g}, of {weights}" if weights else "none: each row counts once"
    )
    lines = [f"{'rows':<15} {result['n_rows']:,}", f"{'weights':<15} {total}"]
    if result["n_dropped"]:
        lines.append(f"{'left out':<15} {result['n_dropped']:,} rows of NaN or infinity")
    criteria = ("log_likelihood", "aic", "bic", "icl", "inertia", "silhouette")
    told = (f"{name:<15} {result[name]:,.6f}" for name in criteria if name in result)
    tested = result.get("drift")
    show(result, as_json, [*lines, *told, *(_drift_lines(tested) if tested else [])])
    if tested and tested["alarm"]:
        click.get_current_context().exit(ExitCode.DRIFTED)


def _drift_lines(tested: Mapping[str, Any]) -> list[str]:
    """Return the lines of a drift: what was tested, and what is past the limit."""
    limit, said = tested["level"], "ALARM" if tested["alarm"] else "none"
    lines = [f"{'drift':<15} {said}: p {tested['p_value']:.3g}, limit {limit:g}"]
    past = [("all rows", one) for one in tested["statistics"] if one["p_value"] <= limit]
    past += [(f"{p['n_rows']:,} rows from {p['first_row']:,}", p) for p in tested["parts"]]
    past += [(f"{p['n_rows']:,} rows of {p['period']}", p) for p in tested.get("periods", ())]
    if "by_period" in tested:
        drifted = sum(one["alarm"] for one in tested["by_period"])
        lines.append(f"{'periods':<15} {drifted:,} of {len(tested['by_period']):,} past the limit")
    lines += [
        f"{'':<15} {one['what']} {shown(one['of'])}".rstrip()
        + f" of {where}: {one['errors']:+.2f} standard errors, p {one['p_value']:.3g}"
        for where, one in past
    ]
    return lines


@click.command()
@click.argument("model")
@click.argument("data")
@with_options(
    replace(OUTPUT, metavar="NEW"),
    *ADAPTATION,
    WEIGHTS,
    *READING,
    OVERWRITE,
    cluster_options,
    JSON,
)
def adapt(model: str, data: str, output: str, as_json: bool, **options: Any) -> None:
    """Move the means of MODEL, a Gaussian mixture, towards DATA, and write the new model.

    The mean of a component that has n rows of DATA goes n / (n + R) of the way to theirs, R being
    --relevance: a component without rows stays. Weights and covariances stay.

    Example: dask-em adapt model.npz points.zarr -o adapted.npz --relevance 16
    """
    from ..jobs import adapt as adapt_jobs

    result = adapt_jobs.adapt(model, data, output, cluster_of(options), **options)
    passes = f"{result['n_iter']} pass{'es' * (result['n_iter'] > 1)}"
    lines = [
        f"{output}: means adapted by {passes} over {result['n_rows']:,} rows, relevance "
        f"{result['relevance']:g}; {result['log_likelihood']:.6f} nats/row before the last",
        "alpha: " + " ".join(f"{a:.4f}" for a in result["alpha"]),
    ]
    if result["n_dropped"]:
        lines.insert(1, f"left out: {result['n_dropped']:,} rows of NaN or infinity")
    show(result, as_json, lines)


def _of_update(text: str) -> str:
    """Return the help of an option of a fit's checkpoint for that of an update."""
    return text.replace("unfinished fit", "unfinished update").replace("MODEL.", "MODEL.update.")


@click.command()
@click.argument("model")
@click.argument("data")
@with_options(
    Option(
        "-o/--output", "output", "Write the new model there, and leave MODEL as it is.",
        metavar="NEW",
    ),
    *UPDATE,
    WEIGHTS,
    *READING,
    replace(KEEP_SAMPLE, default=None, help="Rows of the sample in MODEL [default: as many]."),
    *(replace(option, help=_of_update(option.help)) for option in CHECKPOINT),
    METRICS,
    OVERWRITE,
    cluster_options,
    JSON,
)  # fmt: skip
def update(model: str, data: str, as_json: bool, **options: Any) -> None:
    """Let new rows of DATA join MODEL, by a few passes over them alone; MODEL is replaced.

    Where DATA are those that MODEL was fitted to, and have grown, only what was appended is read.
    Rows that are in MODEL already change nothing: run twice, it says so.

    Killed or stopped, the same command run again goes on where it was, to the same bits; until
    the new model is whole, MODEL is the old one.

    Example: dask-em update model.npz points.zarr --forget 30d
    """
    from ..jobs import update as update_jobs
    from ..jobs.commit import checkpointing

    written = options["output"] or model
    kept = take(options, CHECKPOINT)
    checkpoint = checkpointing(written, **kept, suffix=update_jobs.SUFFIX)
    cluster = cluster_of(options)
    result = update_jobs.update(model, data, cluster, checkpoint=checkpoint, **options)
    if not result["new"]:
        show(result, as_json, [f"{model}: nothing new in {data}, so nothing is written"])
        return
    last = result["generation"]
    before = last["log_likelihood"]
    told = "" if before is None else f", {before:.6f} nats/row before they joined"
    lines = [
        f"{written}: generation {last['number']}, {last['rows']:,} rows"
        f"{' anew' if last['kept'] == 0 else ' joined'}, {status_text(result['status'])} after "
        f"{result['n_iter']} pass{'es' * (result['n_iter'] != 1)}{told}",
        "weights: " + " ".join(f"{w:.4f}" for w in result["weights"]),
    ]
    if last["dropped"]:
        lines.insert(1, f"left out: {last['dropped']:,} rows of NaN or infinity")
    show(result, as_json, lines)
