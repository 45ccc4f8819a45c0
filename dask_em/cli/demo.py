"""The command that shows the whole tour on data of its own."""

from __future__ import annotations

from typing import Any

import click

from ..foreign import shell_words, shown
from .options import OVERWRITE, Option, cluster_of, cluster_options, with_options


@click.command()
@click.argument("folder", default="dask-em-demo")
@with_options(
    Option("--rows", "rows", "Points to make.", click.IntRange(1000), 1_000_000),
    OVERWRITE,
    cluster_options,
)
def demo(folder: str, rows: int, overwrite: bool, **options: Any) -> None:
    """Make data in FOLDER, fit them, score, label and draw them: the whole tour.

    Example: dask-em demo
    """
    from ..jobs import demo as demo_jobs

    def say(line: str) -> None:
        click.echo(shown(line))

    made = demo_jobs.demo(folder, rows, cluster_of(options), overwrite, say)
    data, model = (shell_words([path]) for path in made)
    click.echo(
        "\nNow try:\n"
        f"  dask-em inspect {model}\n"
        f"  dask-em plan {data} -k 5\n"
        f"  dask-em fit {data} -k 6 -o six.npz\n"
        f"  dask-em score six.npz {data}"
    )
