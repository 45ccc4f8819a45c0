"""What commands share: the options that say where to run, and how words are read."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import click

from .logs import JsonLines, log_as
from .signals import stopped_by_signals

# Where a context keeps the command that is to be run again.
COMMAND = "dask_em.command"


def _log_json(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        log_as(JsonLines())


def seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Seconds of 90, 90s, 30m, 2h, 1d, or 1h30m."""
    if value is None:
        return None
    text = value.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        raise click.BadParameter(f"{value!r}: expected seconds, or 90s, 30m, 2h, 1d, 1h30m")
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(float(n) * units[u] for n, u in re.findall(r"([\d.]+)([smhd])", text))


class Several(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """One value or several, separated by commas; `one` turns a word into its values."""

    def __init__(self, name: str, one: Callable[[str], list[Any]]) -> None:
        self.name, self.one = name, one

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The values, each of them once."""
        if not isinstance(value, str):
            return value
        try:
            values = [v for word in value.split(",") for v in self.one(word.strip())]
        except ValueError as e:
            self.fail(f"{value!r}: {e}", param, ctx)
        if len(set(values)) < len(values):
            self.fail(f"{value!r} names a value twice", param, ctx)
        return tuple(values)


def _ks(word: str) -> list[int]:
    first, colon, last = word.partition(":")
    if not (first.isdecimal() and (last.isdecimal() or not colon)):
        raise ValueError("expected 8, or 4,8,16, or 2:20 for every K from 2 to 20")
    low, high = int(first), int(last) if colon else int(first)
    if not 1 <= low <= high:
        raise ValueError("K is at least 1, and a range goes up: 2:20")
    return list(range(low, high + 1))


def _kind(word: str) -> list[str]:
    kinds = ("full", "tied", "diag", "spherical")
    if word not in kinds:
        raise ValueError(f"expected one or several of {', '.join(kinds)}")
    return [word]


def where_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say where to run."""
    options = [
        click.option("--scheduler", metavar="ADDRESS", help="A running Dask scheduler."),
        click.option("--scheduler-file", metavar="FILE", help="Its scheduler file."),
        click.option(
            "--workers", type=click.IntRange(1), help="Local processes [default: one a core]."
        ),
        click.option(
            "--threads", type=click.IntRange(1), default=1,
            help="Threads in each local process.",
        ),
        click.option(
            "--memory-limit", default="auto", metavar="SIZE",
            help="Of each local process, as 2GiB.",
        ),
        click.option("--tls-ca-file", metavar="FILE", help="CA of a scheduler that speaks TLS."),
        click.option("--tls-cert", metavar="FILE", help="This client's certificate."),
        click.option("--tls-key", metavar="FILE", help="This client's key."),
        click.option(
            "--require-tls", is_flag=True, help="Refuse a scheduler that does not speak TLS."
        ),
        click.option(
            "--log-json", is_flag=True, expose_value=False, callback=_log_json,
            help="Log one JSON object a line.",
        ),
    ]  # fmt: skip

    @functools.wraps(command)
    def stoppable(*args: Any, **kwargs: Any) -> Any:
        with stopped_by_signals(click.get_current_context().meta[COMMAND]):
            return command(*args, **kwargs)

    for option in reversed(options):
        stoppable = option(stoppable)
    return stoppable


def where_of(options: dict[str, Any]) -> Any:
    """Take those options out of all of a command's, as a `Where`."""
    from ..jobs.cluster import Where

    names = Where.__dataclass_fields__
    return Where(**{name: options.pop(name) for name in list(options) if name in names})


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is there.")

KS = Several("K", _ks)

covariance_option = click.option(
    "--covariance",
    "covariance",
    type=Several("KIND", _kind),
    default="full",
    help="full, tied, diag, spherical, or several: full,diag.",
)

k_help = "Number of components: 8, or 4,8,16, or 2:20 for every K from 2 to 20."
