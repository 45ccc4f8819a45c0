"""Results on standard output: lines for people, or one JSON object for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import click

from ..foreign import shown

# Where a click context keeps that the result was printed, and that it is wanted as JSON.
SHOWN, AS_JSON = "dask_em.shown", "dask_em.json"


def show(
    result: Mapping[str, Any],
    as_json: bool,
    lines: Iterable[str],
    colours: Mapping[str, str] | None = None,
) -> None:
    """Print a result as JSON, or its lines, whose first words may have a colour."""
    if as_json:
        click.echo(json.dumps(_without_infinity(result)))
    else:
        click.echo("\n".join(_coloured(shown(line, None), colours or {}) for line in lines))
    click.get_current_context().meta[SHOWN] = True


def _coloured(line: str, colours: Mapping[str, str]) -> str:
    word = line.partition(" ")[0]
    if word not in colours:
        return line
    return click.style(word, fg=colours[word]) + line[len(word) :]


def _without_infinity(value: Any) -> Any:
    """Return a value with None for the numbers that JSON has not."""
    if isinstance(value, Mapping):
        return {name: _without_infinity(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinity(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
