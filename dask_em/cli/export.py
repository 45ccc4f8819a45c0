"""The command that writes a model for other programs: ONNX, SQL or JSON."""

from __future__ import annotations

from typing import Literal

import click

from .display import show
from .options import JSON, OVERWRITE, Names, Option, with_options


@click.command()
@click.argument("model")
@with_options(
    Option("--onnx", "onnx", "Write an ONNX graph of plain operators to FILE.", metavar="FILE"),
    Option("--sql", "sql", "Print a SELECT that labels the rows of a table.", is_flag=True),
    JSON,
    Option(
        "--table", "table", "The name of the table, or those of schema and table: main,rows.",
        Names(), "data", metavar="NAME",
    ),
    Option(
        "--keep", "keep", "Columns of the table that stand beside the labels [default: MODEL's].",
        Names(), metavar="NAMES",
    ),
    Option(
        "--input", "dtype", "The type of the numbers that the ONNX graph takes.",
        click.Choice(["float64", "float32"]), "float64",
    ),
    Option("-o/--output", "output", "Write SQL or JSON to FILE, too.", metavar="FILE"),
    OVERWRITE,
)  # fmt: skip
def export(
    model: str,
    onnx: str | None,
    sql: bool,
    as_json: bool,
    table: tuple[str, ...],
    keep: tuple[str, ...] | None,
    dtype: Literal["float64", "float32"],
    output: str | None,
    overwrite: bool,
) -> None:
    """Write MODEL for other programs.

    --json alone prints MODEL as a document of JSON: family, columns, weights, parameters, options.
    Beside --onnx or --sql it prints the result of the command as JSON, as everywhere.

    Rows that have no answer (NaN, NULL, infinity, or what the family does not describe) have the
    label -1 and NaN in ONNX, and NULL in SQL.

    Example: dask-em export model.npz --sql --table points --keep id | duckdb points.db
    """
    if sum((onnx is not None, sql, as_json)) == 0:
        raise click.UsageError("give one of --onnx FILE, --sql and --json")
    if onnx is not None and (sql or output is not None):
        raise click.UsageError("--onnx FILE is a file of its own: leave out --sql and --output")
    from ..jobs import export as export_jobs

    language: export_jobs.Language = "onnx" if onnx is not None else "sql" if sql else "json"
    target = output if onnx is None else onnx
    result = export_jobs.export(model, language, target, overwrite, dtype, table, keep)
    lines = result["text"].splitlines() if language == "sql" else [f"{target}: written"]
    show(result, as_json, lines)
