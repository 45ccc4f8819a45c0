"""The command that makes a store to fit of tables and arrays of any kind."""

from __future__ import annotations

from typing import Any

import click

from .display import show
from .options import COUNT, JSON, OVERWRITE, Names, Option, job_options, take, with_options

INGEST = (
    Option(
        "--columns", "columns",
        "Columns to keep, in this order: a,b,c, or patterns such as 'flux_*'.", Names(),
        metavar="NAMES",
    ),
    Option("--exclude", "exclude", "Columns to leave out.", Names(), metavar="NAMES"),
    Option(
        "--dtype", "dtype", "Of the matrix.", click.Choice(["float32", "float64"]),
        shown_default="the smallest that is exact",
    ),
    Option(
        "--delimiter", "delimiter", "Between the columns of CSV files.", metavar="CHAR",
        shown_default="a comma, a tab in .tsv",
    ),
    Option("--decimal", "decimal", "The decimal point of CSV files.", default=".", metavar="CHAR"),
    Option(
        "--header/--no-header", "header", "Whether CSV files begin with the columns' names.",
        default=True,
    ),
    Option(
        "--null", "null", "What stands for a hole in CSV files, beside NA, NaN, null.", Names(),
        metavar="WORDS",
    ),
    Option(
        "--seed", "random_state", "Seed of the fits for which the survey is kept.",
        click.IntRange(0, 2**32 - 1), 0,
    ),
    Option("--threads", "threads", "Threads [default: usable cores].", COUNT),
    Option(
        "--resume/--no-resume", "resume",
        "Finish what an interrupted run left, or throw it away.", default=True,
    ),
)  # fmt: skip
"""Options of the job; `sets` is its parameter."""


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SRC...")
@click.argument("dest")
@with_options(*INGEST, OVERWRITE, job_options, JSON)
def ingest(
    sources: tuple[str, ...], dest: str, overwrite: bool, as_json: bool, **options: Any
) -> None:
    """Write tables or arrays SRC to a Zarr store DEST that fits read quickly.

    SRC are files .csv, .tsv (.gz too), .parquet, .arrow, .feather, .fcs, .npy, .h5 (FILE.h5::NAME),
    folders of them, or Zarr arrays; several are one table, by the names of their columns. Numbers
    become the matrix DEST/X, which `fit DEST` takes; text of few values, dates and integers beyond
    2**53 become arrays beside it. Types of a CSV file are decided over all of its rows, and a value
    that breaks them is named by file and line.

    While it writes it keeps the survey of a fit beside the data: `fit` with the same --seed needs
    no pass for it.

    Interrupted, it keeps the regions that are whole in .DEST.partial beside DEST; the same command
    run again finishes the rest.

    Example: dask-em ingest points.csv points.zarr
    """
    from ..jobs import ingest as jobs

    told = take(options, INGEST)
    result = jobs.ingest(list(sources), dest, overwrite=overwrite, **told)
    kept = f", {result.n_rows_kept:,} of an earlier run" if result.n_rows_kept else ""
    lines = [
        f"{dest}: {result.n_rows:,} rows{kept}, {len(result.columns)} columns of numbers as "
        f"{result.dtype} in {result.n_chunks:,} chunks"
    ]
    if result.others:
        lines.append(f"beside them {', '.join(sorted(result.others.values()))}")
    lines.append(
        f"{result.bytes_read / 1e6:,.1f} MB read and {result.bytes_written / 1e6:,.1f} MB written "
        f"in {result.seconds:.1f} s, {result.mb_per_second:,.0f} MB/s of the sources"
    )
    if result.survey_kept:
        lines.append(f"a fit of seed {told['random_state']} needs no survey pass")
    show(result.as_dict(), as_json, lines)
