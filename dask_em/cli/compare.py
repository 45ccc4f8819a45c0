"""The command that compares two models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ..foreign import shown
from .display import show
from .options import (
    JSON,
    OVERWRITE,
    READING,
    WEIGHTS,
    Option,
    cluster_of,
    cluster_options,
    take,
    with_options,
)

# What fits on a terminal.
MOST_PAIRS, MOST_TABLE, MOST_MOVES = 20, 12, 2


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@with_options(
    Option(
        "--data", "data", "Rows that both label and score, in one pass: without, none are opened.",
        metavar="DATA",
    ),
    WEIGHTS,
    Option("--page", "page", "Write all of it as a page, too.", metavar="PAGE.html"),
    OVERWRITE,
    *READING,
    cluster_options,
    JSON,
)  # fmt: skip
def compare(
    first: str,
    second: str,
    data: str | None,
    weights: str | None,
    page: str | None,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Say what tells model B from model A: data, components, and what both say of rows.

    Components are matched so that the sum of their Bhattacharyya distances is least. On --data the
    labels are compared (adjusted Rand index and table), and the log-likelihood in nats a row, with
    the standard error of the difference: on rows of the fit more parameters are no worse.

    Example: dask-em compare old.npz new.npz --data points.zarr
    """
    from ..jobs import compare as compare_jobs

    reading = take(options, READING)
    cluster = cluster_of(options)
    result = compare_jobs.compare(first, second, cluster, data, weights, page, overwrite, **reading)
    show(result, as_json, _lines(result))


def _lines(result: Mapping[str, Any]) -> list[str]:
    lines = [_model_line(name, one) for name, one in zip("AB", result["models"], strict=True)]
    same = result["same_data"]
    lines.append(
        "data         both were fitted to the same"
        if same
        else "data         they were fitted to others, or to the same in other chunks"
    )
    if result["pairs"] is not None:
        lines += ["", *_pair_lines(result)]
    if result["rows"] is not None:
        lines += ["", *_row_lines(result["rows"])]
    lines += [f"cannot       compare {reason}" for reason in result["cannot"]]
    return [*lines, f"page         {result['page']}"] if result["page"] else lines


def _model_line(name: str, told: Mapping[str, Any]) -> str:
    data = told["data"]
    return (
        f"{name}            {told['n_components']} components, "
        f"{told['structure'] or told['family']}; {shown(data['source'])}: {data['n_rows']:,} x "
        f"{data['n_features']}, print {data['fingerprint'][:16]}"
    )


def _pair_lines(result: Mapping[str, Any]) -> list[str]:
    """Return the matched components, a line each, and which are matched to none."""
    lines = [f"{'A':>4} {'B':>4}  {'weight in A':>11} {'in B':>8} {'distance':>9}  moved most"]
    for pair in result["pairs"][:MOST_PAIRS]:
        before, after = pair["weights"]
        moved = ", ".join(map(_move_text, pair["moves"][:MOST_MOVES])) or "nothing"
        lines.append(
            f"{pair['first']:>4} {pair['second']:>4}  {before:>11.4f} {after:>8.4f} "
            f"{pair['distance']:>9.4g}  {moved}"
        )
    if len(result["pairs"]) > MOST_PAIRS:
        lines.append(f"{MOST_PAIRS} of {len(result['pairs'])} pairs")
    for name, numbers in zip("AB", result["without"], strict=True):
        if numbers:
            lines.append(f"only in {name}: components {', '.join(map(str, numbers))}")
    return lines


def _move_text(move: Mapping[str, Any]) -> str:
    before, after = move["before"], move["after"]
    return f"{move['what']} of {shown(move['column'])} {before:.4g} -> {after:.4g}"


def _row_lines(rows: Mapping[str, Any]) -> list[str]:
    """Return what both say of the rows: the index, the likelihoods, and the table of labels."""
    lines = [f"rows         {rows['n_rows']:,}, weight {rows['weight']:,.6g}"]
    if rows["n_dropped"]:
        lines.append(f"left out     {rows['n_dropped']:,} rows of NaN or infinity")
    lines.append(f"labels       adjusted Rand index {rows['adjusted_rand']:.4f}")
    if (difference := rows["difference"]) is not None:
        error = rows["standard_error"]
        lines.append(
            f"likelihood   B less A {difference:+.6f} nats/row, standard error {error:.6f}"
        )
    table = rows["table"]
    if max(len(table), len(table[0])) > MOST_TABLE:
        return [*lines, f"table        {len(table)} x {len(table[0])}, too large to show"]
    cells = [[f"{n:,.6g}" for n in row] for row in table]
    width = max(max(len(cell) for row in cells for cell in row), 4)
    lines.append("table        rows by their label in A (down) and in B (across)")
    lines.append(" " * 5 + " ".join(f"{j:>{width}}" for j in range(len(table[0]))))
    lines += [
        f"{i:>4} " + " ".join(f"{cell:>{width}}" for cell in row) for i, row in enumerate(cells)
    ]
    return lines
