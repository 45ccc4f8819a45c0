"""The commands that look before a fit: the plan of a pass, and the doctor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from .display import show
from .options import (
    COVARIANCE,
    FACTORS_OF_FIT,
    FAMILY,
    GROUPS,
    JSON,
    KEEP_SAMPLE,
    LABELS,
    LOOKING,
    MISSING_OF_FIT,
    N_COMPONENTS,
    NOISE,
    NOISE_OF_FIT,
    Option,
    cluster_of,
    cluster_options,
    columns_of,
    take,
    with_options,
)
from .words import in_shell

if TYPE_CHECKING:
    from ..jobs.plan import Plan


@click.command()
@click.argument("data")
@with_options(
    N_COMPONENTS,
    FAMILY,
    COVARIANCE,
    GROUPS,
    Option(
        "--probe/--no-probe", "probe",
        "Read two chunks and estimate the time of a pass, or read nothing.", default=True,
    ),
    *LOOKING,
    FACTORS_OF_FIT,
    MISSING_OF_FIT,
    NOISE_OF_FIT,
    NOISE,
    LABELS[0],
    KEEP_SAMPLE,
    cluster_options,
    JSON,
)  # fmt: skip
def plan(
    data: str,
    n_components: tuple[int, ...],
    family: tuple[str, ...],
    covariance_types: tuple[str, ...],
    probe: bool,
    noise_covariance: str | None,
    labels: str | None,
    keep_sample: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Say what a pass over DATA costs, and refuse what cannot fit.

    Of several families, covariances or K, what the pass costs that serves all of them.
    Two chunks are read to estimate the time, on a worker where there is a scheduler.

    Example: dask-em plan points.zarr -k 8 --memory-limit 512MiB
    """
    from ..jobs import plan as plan_jobs

    columns_of(options)
    cluster = cluster_of(options)
    planned = plan_jobs.plan(
        data,
        n_components,
        covariance_types,
        cluster,
        probe,
        family,
        noise_covariance,
        labels,
        keep_sample,
        **take(options, (*LOOKING, MISSING_OF_FIT, FACTORS_OF_FIT, NOISE_OF_FIT)),
    )
    lines = _plan_lines(planned)
    show(planned.as_dict(), as_json, lines)
    if planned.n_workers:
        planned.check()


def _plan_lines(planned: Plan) -> list[str]:
    from ..jobs.plan import mebibytes as size

    workers = "none yet: memory is not checked, time not estimated"
    if planned.n_workers:
        workers = f"{planned.n_workers} with {planned.n_threads} threads in all"
    limit = f" of {size(planned.worker_limit)}" if planned.worker_limit else ""
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
        f"memory of a worker {size(planned.worker_bytes)}{limit}",
    ]
    if planned.sample_bytes:
        lines.append(f"sample in MODEL    {size(planned.sample_bytes)}")
    if planned.untimed:
        lines.append(f"time of a pass     unknown: {planned.untimed}")
    if planned.seconds_per_pass is not None:
        lines.append(
            f"time of a pass     about {planned.seconds_per_pass:.3g} s: {planned.limited_by} "
            f"limits (reading {planned.read_seconds:.3g} s, "
            f"computing {planned.compute_seconds:.3g} s, side by side)"
        )
    return lines


COLOURS = {"ok": "green", "WARN": "yellow", "WRONG": "red"}


@click.command()
@click.argument("data", required=False)
@with_options(
    replace(N_COMPONENTS, required=False, default="8"),
    FAMILY,
    COVARIANCE,
    GROUPS,
    Option(
        "--checkpoint", "folder",
        "Where the fit will keep its checkpoint, or write its model.",
        default=".", metavar="FOLDER", shown_default="this folder",
    ),
    *LOOKING,
    FACTORS_OF_FIT,
    cluster_options,
    JSON,
)  # fmt: skip
def doctor(
    data: str | None,
    n_components: tuple[int, ...],
    family: tuple[str, ...],
    covariance_types: tuple[str, ...],
    folder: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Look whether a fit of DATA would run here: versions, cluster, TLS, store, disk, memory.

    Each line is ok, or says what to do. The exit code is 0 if none is WRONG, else that of a
    fit that fails for the first that is. A fit runs in spite of a WARN.

    Example: dask-em doctor points.zarr -k 8 --scheduler tcp://host:8786
    """
    from ..jobs import doctor as doctors

    columns_of(options)
    cluster = cluster_of(options)
    checks = doctors.examine(
        cluster, data, n_components, covariance_types, folder, family,
        **take(options, (*LOOKING, FACTORS_OF_FIT)),
    )  # fmt: skip
    command = click.get_current_context().command
    checks = [replace(check, text=in_shell(check.text, command)) for check in checks]
    code = doctors.exit_code(checks)
    width = max(len(check.name) for check in checks)
    lines = [f"{check.verdict:<5} {check.name:<{width}} {check.text}" for check in checks]
    result = {"ok": code == 0, "exit_code": code, "checks": [c.as_dict() for c in checks]}
    show(result, as_json, lines, COLOURS)
    click.get_current_context().exit(code)
