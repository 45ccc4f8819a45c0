"""The program `dask-em`, also `dask em`: a skin over `job`."""

from __future__ import annotations

import json
import logging
import shlex
import traceback
import warnings
from typing import Any, Literal

import click

from ..errors import DaskEMError
from ..version import __version__
from .logs import log_as, show_warning
from .options import (
    COMMAND,
    KS,
    covariance_option,
    json_option,
    k_help,
    overwrite_option,
    seconds,
    where_of,
    where_options,
)

DISK_FAILED, FAULT, STOPPED = 74, 70, 75


class Program(click.Group):
    """A command group that turns errors into one line and an exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remember the command, for whoever is to run it again."""
        again = [arg for arg in args if arg != "--no-resume"]
        ctx.meta[COMMAND] = shlex.join([*ctx.command_path.split(), *again])
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see the exit codes in the help of the program."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except DaskEMError as e:
            _fail(ctx, _with_notes(str(e), e), e.exit_code)
        except (KeyboardInterrupt, click.Abort) as e:
            # Whoever keeps unfinished work says so in a note.
            kept = "; ".join(_notes(e)) or "nothing was written: run the command again"
            _fail(ctx, f"interrupted; {kept}", STOPPED)
        except Exception as e:
            # Some errors of a lost cluster are OSErrors too.
            if type(e).__module__.partition(".")[0] == "distributed":
                lost = f"the cluster was lost: {type(e).__name__}: {e}"
                _fail(ctx, _with_notes(lost, e), STOPPED)
            if isinstance(e, OSError):
                _fail(ctx, _with_notes(f"{type(e).__name__}: {e}", e), DISK_FAILED)
            if isinstance(e, MemoryError):
                what = f"this process ran out of memory ({e}): run it where there is more"
                _fail(ctx, _with_notes(what, e), STOPPED)
            traceback.print_exc()
            _fail(ctx, f"this is a fault of dask-em {__version__}: {e!r}", FAULT)


def _notes(e: BaseException) -> list[str]:
    return list(getattr(e, "__notes__", ()))


def _with_notes(message: str, e: BaseException) -> str:
    return "; ".join([message, *_notes(e)])


def _fail(ctx: click.Context, message: str, code: int) -> None:
    click.echo(f"Error: {message}", err=True)
    if code == STOPPED:
        # The last line is what goes on with the work.
        click.echo(ctx.meta[COMMAND], err=True)
    ctx.exit(code)


@click.group(name="em", cls=Program, context_settings={"show_default": True})
@click.version_option(__version__, prog_name="dask-em")
def main() -> None:
    """Cluster data larger than memory: Gaussian mixtures by EM over Zarr, on Dask.

    Begin with `dask-em demo`.

    Exit codes: 0 done; 2 wrong usage; 65 the data are bad; 70 a fault of ours;
    73 the output is taken; 74 the disk failed; 75 stopped before the end.
    """
    log_as(logging.Formatter("%(asctime)s %(message)s"))
    warnings.showwarning = show_warning


def _show(result: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    click.echo(json.dumps(result) if as_json else "\n".join(lines))


@main.command()
@click.argument("data")
@click.option("-k", "k", type=KS, required=True, help=k_help)
@covariance_option
@click.option(
    "--probe/--no-probe",
    default=True,
    help="Read two chunks and estimate the time of a pass, or read nothing.",
)
@where_options
@json_option
def plan(
    data: str,
    k: tuple[int, ...],
    covariance: tuple[str, ...],
    probe: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Say what a pass over DATA costs, and refuse what cannot fit.

    Of several K or covariances, what the pass costs that serves all of them.
    Two chunks are read to estimate the time, on a worker where there is a scheduler.

    Example: dask-em plan points.zarr -k 8 --memory-limit 512MiB
    """
    from ..jobs import plan as plan_jobs

    planned = plan_jobs.plan(data, k, covariance, where_of(options), probe)
    size = plan_jobs.mebibytes
    if planned.n_workers:
        workers = f"{planned.n_workers} with {planned.n_threads} threads in all"
    else:
        workers = "none yet: memory is not checked, time not estimated"
    lines = [
        f"data               {planned.source}: {planned.n_rows:,} x {planned.n_features} "
        f"{planned.dtype}",
        f"chunks read        {planned.n_chunks:,} of {size(planned.chunk_bytes)}",
        f"tasks a pass       {planned.n_ranges}",
        f"bytes a pass       {size(planned.bytes_per_pass)}",
        f"statistics         {size(planned.statistics_bytes)} a task",
        f"parameters         {size(planned.parameter_bytes)} a worker",
        f"workers            {workers}",
        f"memory of a task   {size(planned.task_bytes)}",
        f"memory of a worker {size(planned.worker_bytes)}"
        + (f" of {size(planned.worker_limit)}" if planned.worker_limit else ""),
    ]
    if planned.seconds_per_pass is not None:
        lines.append(
            f"time of a pass     about {planned.seconds_per_pass:.3g} s: {planned.limited_by} "
            f"limits (reading {planned.read_seconds:.3g} s, "
            f"computing {planned.compute_seconds:.3g} s, side by side)"
        )
    elif probe and planned.fits and planned.n_workers:
        lines.append(
            f"time of a pass     unknown: two chunks hold too few finite rows for -k {max(k)}"
        )
    _show(planned.as_dict(), as_json, lines)
    if planned.n_workers:
        planned.check()


@main.command()
@click.argument("data")
@click.option("-k", "ks", type=KS, required=True, help=k_help)
@click.option("-o", "--output", required=True, metavar="MODEL", help="The model file to write.")
@covariance_option
@click.option("--weights", metavar="PATH", help="A Zarr array with one weight a row.")
@click.option(
    "--n-init",
    type=click.IntRange(1),
    help="Starts tried on the sample [default: 1; 5 where there are several models].",
)
@click.option(
    "--init-params",
    type=click.Choice(["auto", "kmeans", "k-means++", "random", "random_from_data"]),
    default="auto",
    help="How starts are made on the sample; auto fits several and keeps the best.",
)
@click.option(
    "--tol",
    type=click.FloatRange(0),
    default=1e-3,
    help="Converged when less than this is still to gain, in nats a row.",
)
@click.option(
    "--max-iter",
    type=click.IntRange(1),
    default=100,
    help="Full passes, the survey's not counted.",
)
@click.option(
    "--reg-covar",
    type=click.FloatRange(0),
    default=1e-6,
    help="Added to every variance, in squared units of DATA; 0 where columns are small.",
)
@click.option(
    "--algorithm",
    type=click.Choice(["auto", "em"]),
    default="auto",
    help="auto accelerates; em is plain EM, iteration for iteration.",
)
@click.option("--max-passes", type=click.IntRange(2), help="Full passes, the survey's counted.")
@click.option(
    "--max-time",
    callback=seconds,
    metavar="TIME",
    help="Stop after so long with the best so far and exit code 75: seconds, or 30m, 2h, 1h30m.",
)
@click.option("--sample-size", type=click.IntRange(1), help="Rows the start is made from.")
@click.option(
    "--nonfinite",
    type=click.Choice(["error", "drop"]),
    default="error",
    help="Refuse rows that hold NaN or infinity, or leave them out and count them.",
)
@click.option(
    "--missing-chunks",
    type=click.Choice(["error", "fill"]),
    default="error",
    help="Refuse missing chunks, or read them as the fill value; predict and score follow.",
)
@click.option(
    "--seed",
    "random_state",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    help="Of the sample and the starts: the same seed gives the same bits.",
)
@click.option(
    "--criterion",
    type=click.Choice(["bic", "aic", "icl", "holdout"]),
    default="bic",
    help="What the best of several models is best by.",
)
@click.option(
    "--holdout",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    help="Share of the rows that no fit sees, to score the models on.",
)
@click.option(
    "--checkpoint",
    metavar="FOLDER",
    help="Where an unfinished fit is kept [default: .MODEL.checkpoint beside MODEL].",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    help="Go on with the unfinished fit, or throw it away.",
)
@click.option("--force", is_flag=True, help="Go on even if DATA seem to be others than before.")
@click.option(
    "--checkpoint-interval",
    type=click.FloatRange(0),
    default=300.0,
    metavar="SECONDS",
    help="How often the finished parts of a pass are kept; what a pass made is always kept.",
)
@click.option(
    "--metrics-file",
    metavar="FILE",
    help="Prometheus metrics, replaced after every pass.",
)
@click.option("--exhaustive", is_flag=True, help="Fit every model to its end.")
@click.option("--keep-all", is_flag=True, help="Save the others too, as MODEL-k8-full.npz.")
@overwrite_option
@where_options
@json_option
def fit(
    data: str,
    output: str,
    ks: tuple[int, ...],
    covariance: tuple[str, ...],
    weights: str | None,
    criterion: str,
    holdout: float,
    exhaustive: bool,
    keep_all: bool,
    checkpoint: str | None,
    resume: bool,
    force: bool,
    checkpoint_interval: float,
    metrics_file: str | None,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Fit a mixture of K Gaussians to the Zarr array DATA.

    Killed or stopped, the same command run again goes on where it was, to the same bits.

    Several K or covariances are fitted by the same passes over DATA; the best by
    --criterion goes to MODEL, and a table says how the others did.

    Example: dask-em fit points.zarr -k 8 -o model.npz
    """
    from ..jobs import fit as fit_jobs

    where = where_of(options)
    if options["n_init"] is None:
        del options["n_init"]
    wanted = fit_jobs.Sweep(ks, covariance, criterion, holdout, exhaustive, keep_all)
    keep = fit_jobs.checkpointing(output, checkpoint, resume, force, checkpoint_interval)
    if not wanted.single:
        found, files = fit_jobs.sweep(
            data, output, where, wanted, options, weights, overwrite, keep, metrics_file
        )
        _show_sweep(found, files, as_json)
        return
    if criterion == "holdout":
        raise click.UsageError("--criterion holdout needs rows to score: pass --holdout 0.1, say")
    chosen = {"n_components": ks[0], "covariance_type": covariance[0]}
    model = fit_jobs.fit(
        data, output, where, {**options, **chosen}, weights, overwrite, keep, metrics_file
    )
    _show(_summary(output, model), as_json, _summary_lines(output, model))


def _summary(output: str, model: Any) -> dict[str, Any]:
    return {
        "model": output,
        "status": model.status_.name,
        "n_iter": model.n_iter_,
        "n_passes": model.n_passes_,
        "log_likelihood": model.lower_bound_,
        "n_dropped": model.n_dropped_,
        "weights": model.weights_.tolist(),
    }


def _summary_lines(output: str, model: Any) -> list[str]:
    return [
        f"{output}: {model.status_.name.lower().replace('_', ' ')} after {model.n_passes_:.2f} "
        f"passes, {model.lower_bound_:.6f} nats/row",
        "weights: " + " ".join(f"{w:.4f}" for w in model.weights_),
    ]


def _show_sweep(found: Any, files: list[str], as_json: bool) -> None:
    best = (found.best.n_components, found.best.covariance_type)
    result = {
        **_summary(files[0], found.best),
        "n_components": best[0],
        "covariance_type": best[1],
        "criterion": found.criterion,
        "table": found.table,
        "files": files,
    }
    columns = (("log_likelihood", 14, ",.6f"), ("n_parameters", 12, ",d"), ("aic", 16, ",.1f"),
               ("bic", 16, ",.1f"), ("icl", 16, ",.1f"), ("holdout", 12, ".6f"),
               ("n_passes", 8, "d"))  # fmt: skip
    held_out = any(row["holdout"] is not None for row in found.table)
    shown = [column for column in columns if column[0] != "holdout" or held_out]
    lines = ["     K covariance " + " ".join(f"{n:>{width}}" for n, width, _ in shown) + " status"]
    for row in found.table:
        mark = "*" if (row["n_components"], row["covariance_type"]) == best else " "
        cells = (_cell(row[name], width, form) for name, width, form in shown)
        lines.append(
            f"{mark} {row['n_components']:>4} {row['covariance_type']:<10} "
            + " ".join(cells)
            + f" {row['status'].lower().replace('_', ' ')}"
        )
    lines += [
        "",
        f"* is best by {found.criterion}; after 0 passes, numbers are estimates of the sample",
    ]
    others = [f"saved: {path}" for path in files[1:]]
    _show(result, as_json, [*lines, *_summary_lines(files[0], found.best), *others])


def _cell(value: Any, width: int, form: str) -> str:
    return f"{'-' if value is None else format(value, form):>{width}}"


@main.command()
@click.argument("data", required=False)
@click.option("-k", "k", type=KS, default="8", help=k_help)
@covariance_option
@click.option(
    "--checkpoint",
    metavar="FOLDER",
    default=".",
    show_default="this folder",
    help="Where the fit will keep its checkpoint, or write its model.",
)
@click.option(
    "--missing-chunks",
    type=click.Choice(["error", "fill"]),
    default="error",
    help="As in fit.",
)
@where_options
@json_option
def doctor(
    data: str | None,
    k: tuple[int, ...],
    covariance: tuple[str, ...],
    checkpoint: str,
    missing_chunks: Literal["error", "fill"],
    as_json: bool,
    **options: Any,
) -> None:
    """Look whether a fit of DATA would run here: versions, cluster, TLS, store, disk, memory.

    Each line is ok, or says what to do. The exit code is 0 if none is WRONG, else that of a
    fit that fails for the first that is. A fit runs in spite of a WARN.

    Example: dask-em doctor points.zarr -k 8 --scheduler tcp://host:8786
    """
    from ..jobs import doctor as doctors

    checks = doctors.examine(where_of(options), data, k, covariance, checkpoint, missing_chunks)
    code = doctors.exit_code(checks)
    width = max(len(check.name) for check in checks)
    colours = {"ok": "green", "WARN": "yellow", "WRONG": "red"}
    lines = [
        click.style(f"{check.verdict:<5}", fg=colours[check.verdict])
        + f" {check.name:<{width}} {check.text}"
        for check in checks
    ]
    result = {"ok": code == 0, "exit_code": code, "checks": [c.as_dict() for c in checks]}
    _show(result, as_json, lines)
    click.get_current_context().exit(code)


@main.command()
@click.argument("model")
@click.argument("data")
@click.argument("dest")
@click.option("--proba", is_flag=True, help="Write the responsibilities too, DEST/proba.")
@click.option("--log-density", is_flag=True, help="Write log p(x) too, DEST/log_density.")
@click.option(
    "--resume/--no-resume",
    default=True,
    help="Finish what an interrupted run left, or throw it away.",
)
@overwrite_option
@where_options
@json_option
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

    answers = ["labels", *(["proba"] if proba else []), *(["log_density"] if log_density else [])]
    where = where_of(options)
    result = predict_jobs.predict(model, data, dest, where, answers, overwrite, resume)  # type: ignore[arg-type]
    written = ", ".join(f"{dest}/{name}" for name in answers)
    kept = f", {result['n_rows_kept']:,} of an earlier run" if result["n_rows_kept"] else ""
    _show(result, as_json, [f"{written}: {result['n_rows']:,} rows{kept}"])


@main.command()
@click.argument("model")
@click.argument("data")
@where_options
@json_option
def score(model: str, data: str, as_json: bool, **options: Any) -> None:
    """Mean log-likelihood in nats a row, AIC, BIC and ICL of MODEL on DATA, from one pass.

    Example: dask-em score model.npz points.zarr
    """
    from ..jobs import score as score_jobs

    result = score_jobs.score(model, data, where_of(options))
    lines = [f"{name:<15} {value:,.6f}" for name, value in result.items() if name != "n_rows"]
    _show(result, as_json, [f"{'rows':<15} {result['n_rows']:,}", *lines])


@main.command()
@click.argument("model")
@json_option
def inspect(model: str, as_json: bool) -> None:
    """Say what is in MODEL and where it came from.

    Example: dask-em inspect model.npz
    """
    from ..jobs import inspect as inspect_jobs

    found = inspect_jobs.inspect(model)
    source = found["provenance"]
    options = found["options"]
    lines = [
        f"{options['n_components']} components, {options['covariance_type']} covariance",
        f"data     {source['source']}: {source['n_rows']:,} x {source['n_features']} "
        f"{source['dtype']}",
        f"print    {source['fingerprint'][:16]}",
        f"fitted   {source['fitted']} by dask_em {source['dask_em']}",
        f"status   {found['status'].lower().replace('_', ' ')}: {found['what']}",
        f"passes   {found['n_passes']:.2f}, {found['n_iter']} iterations",
        f"log p    {found['log_likelihood']:.6f} nats/row",
        "",
        "weight   mean",
    ]
    for weight, mean in zip(found["weights"], found["means"], strict=True):
        shown = " ".join(f"{m:10.4g}" for m in mean[:8]) + (" ..." if len(mean) > 8 else "")
        lines.append(f"{weight:.4f} {shown}")
    _show(found, as_json, lines)


@main.command()
@click.argument("model")
@click.argument("output", metavar="REPORT.html")
@click.option("--data", metavar="DATA", help="Rows to draw [default: those it was fitted to].")
@click.option("--sample-rows", type=click.IntRange(1), default=5000, help="Rows to draw.")
@click.option(
    "--drift/--no-drift",
    default=True,
    help="Read all of the data once to find chunks that are unlike the model.",
)
@overwrite_option
@where_options
@json_option
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

    Example: dask-em report model.npz report.html
    """
    from ..jobs import report as report_jobs

    result = report_jobs.report(
        model, output, where_of(options), data, sample_rows, drift, overwrite
    )
    drawn = f"{result['n_rows_drawn']:,} rows drawn, {result['n_chunks']:,} chunks compared"
    _show(result, as_json, [f"{output}: {drawn}", *result["missing"]])


@main.command()
@click.argument("folder", default="dask-em-demo")
@click.option(
    "--rows",
    type=click.IntRange(1000),
    default=1_000_000,
    help="Points to make.",
)
@overwrite_option
@where_options
def demo(folder: str, rows: int, overwrite: bool, **options: Any) -> None:
    """Make data in FOLDER, fit them, score, label and draw them: the whole tour.

    Example: dask-em demo
    """
    from ..jobs import demo as demo_jobs

    data, model = demo_jobs.demo(folder, rows, where_of(options), overwrite, click.echo)
    click.echo(
        "\nNow try:\n"
        f"  dask-em inspect {model}\n"
        f"  dask-em plan {data} -k 5\n"
        f"  dask-em fit {data} -k 6 -o six.npz\n"
        f"  dask-em score six.npz {data}"
    )
