"""Results on standard output: lines for people, or one JSON object for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import click


def show(result: Mapping[str, Any], as_json: bool, lines: Iterable[str]) -> None:
    """Print a result as JSON, or its lines."""
    click.echo(json.dumps(result) if as_json else "\n".join(lines))


def status_text(status: str) -> str:
    """Return the name of a status in words.

    Examples
    --------
    >>> status_text("OUT_OF_TIME")
    'out of time'
    """
    return status.lower().replace("_", " ")
