"""Results on standard output: lines for people, or one JSON object for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import click

# Where a click context keeps that the result was printed, and that it is wanted as JSON.
SHOWN, AS_JSON = "dask_em.shown", "dask_em.json"


def show(result: Mapping[str, Any], as_json: bool, lines: Iterable[str]) -> None:
    """Print a result as JSON, or its lines."""
    click.echo(json.dumps(result) if as_json else "\n".join(lines))
    click.get_current_context().meta[SHOWN] = True


def show_failure(ctx: click.Context, code: str, exit_code: int, message: str) -> None:
    """Print a failure as JSON where that is wanted: standard output holds one object, ever."""
    if ctx.meta.get(AS_JSON) and not ctx.meta.get(SHOWN):
        error = {"code": code, "exit_code": int(exit_code), "message": message}
        click.echo(json.dumps({"error": error}))
        ctx.meta[SHOWN] = True


def passes_text(n_reads: int, n_sample_passes: float) -> str:
    """Return reads of the data, and work on the sample, in words.

    Examples
    --------
    >>> passes_text(5, 22.04)
    "5 passes over the data and 22.04 passes' worth of work on the sample"
    """
    return (
        f"{n_reads} pass{'es' * (n_reads != 1)} over the data and {n_sample_passes:.2f} passes' "
        "worth of work on the sample"
    )


def status_text(status: str) -> str:
    """Return the name of a status in words.

    Examples
    --------
    >>> status_text("OUT_OF_TIME")
    'out of time'
    """
    return status.lower().replace("_", " ")
