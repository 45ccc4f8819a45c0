"""Compare two versions of RESULTS.md: which ratio is worse than before by more than 15 %.

    python tests/benchmarks/check.py BEFORE.md [AFTER.md]

Seconds differ between machines and hours, so only ratios within one run are compared, and of those
only what `COMPARED` names: each with the columns that tell its rows apart, and whether a larger
ratio is the better one. A row or a table that only one version has is named too, and not compared.
`python tests/benchmarks/all.py --check` measures and compares.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# A ratio that moved by less is noise of two cores.
LIMIT = 0.15

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Ratio:
    """One column of ratios.

    Attributes
    ----------
    section, column : str
        Patterns of the section's title and of the column's, which match the whole of it.
    better : {"higher", "lower"}
    keys : tuple of str
        Columns that tell the rows of the table apart.
    mark : {"", "x", "%"}
        Which numbers of the cell are meant: the cell is one number, each number behind an x, or
        each before a %.
    """

    section: str
    column: str
    better: Better
    keys: tuple[str, ...]
    mark: Literal["", "x", "%"] = ""


PEERS = ("n, d, k", "sep", "covariance")
COMPARED = (
    Ratio("One iteration beside the peers", "ours, .*", "higher", PEERS, "%"),
    Ratio("One iteration beside the peers", "(?!ours)[^,]*", "higher", PEERS, "x"),
    Ratio(
        "A pass and its parts",
        r"pass / max\(read, compute\)",
        "lower",
        ("d", "chunk, MiB"),
    ),
    Ratio("A pass and its parts", "share.*", "higher", ("chunk, MiB",), "%"),
    Ratio("A pass and its parts", "speed-up.*", "higher", ("d",)),
    Ratio("Passes to the best optimum", "ratio", "higher", ("case", "rows")),
    Ratio("A sweep over K", "ratio", "lower", ("clusters", "rows")),
    Ratio(
        "Mixtures that share their products", "[K0-9].*", "higher", ("loops", "covariances", "d")
    ),
    Ratio("Small data", "ratio", "lower", ("data",)),
    Ratio("K-means, .*", "of the product", "higher", ("",), "%"),
    Ratio("Families: passes to the optimum", "ours, 0.001", "lower", ("family", "case", "rows")),
    Ratio("Passes of mixtures of Student's t", "reads, auto", "lower", ("case",)),
    Ratio("Components of Bayesian mixtures", "times as quick", "higher", ("clusters", "columns")),
    Ratio(
        "Rows with missing values",
        ".*, times",
        "lower",
        ("columns", "clusters", "kernel", "rows"),
    ),
    Ratio(
        "Factor analyzers of very many columns",
        "of the products' limit",
        "higher",
        ("pass", "number"),
        "%",
    ),
    Ratio("The first pass", "first / (EM|read), now", "lower", ("d", "type", "engine")),
    Ratio(
        "Many components",
        "all|scikit-learn|oneDAL",
        "higher",
        ("n, d, K", "covariance", "means apart, widths"),
        "x",
    ),
    Ratio("Many components", "all / ours", "higher", ("n, d, K", "covariance", "means apart")),
    Ratio("Labels beside an EM pass", ".* / EM", "higher", ("type", "tree")),
    Ratio("A whole job", "times ours", "higher", ("rows", "program")),
    Ratio("What a codec costs", "times as fast", "higher", ("codec",)),
    Ratio(
        "Far object stores",
        "share",
        "higher",
        ("chunk", "shard", "the line, MiB/s", "ms before each answer"),
    ),
)

# Sections whose tables hold seconds, sizes or choices, and nothing to compare between machines.
NOT_COMPARED = (
    "Out of core",
    "Memory of a worker",
    "Many rows on small workers",
    "Object stores",
    "What a chunk costs",
    "Growth and cost",
    "One start or several on the full data",
    "One start or two on the full data",
    "Parquet where it lies",
    "Ingest",
    "Latent classes",
    "Filled values",
    "A model renewed every night",
    "Many workers",
    "Power of the alarm of drift",
)


@dataclass(frozen=True)
class Table:
    """One table of Markdown: its section, the heading above it, its titles and its rows."""

    section: str
    heading: str
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(text: str) -> Iterator[Table]:
    """Yield the tables of a Markdown text."""
    section = heading = ""
    lines: list[tuple[str, ...]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            lines.append(tuple(cell.strip() for cell in line.strip().strip("|").split("|")))
            continue
        if len(lines) > 2:
            # What the heading has in brackets, such as the peak of the day, is no name.
            yield Table(section, heading.partition(" (")[0], lines[0], tuple(lines[2:]))
        lines = []
        if line.startswith("## "):
            section, heading = line[3:].strip(), ""
        elif line.startswith("### "):
            heading = line[4:].strip()


def numbers(cell: str, mark: str) -> list[float]:
    """Return the ratios that a cell holds."""
    number = r"[0-9][0-9,]*(?:\.[0-9]+)?"
    if not mark:
        found = re.fullmatch(rf"x?({number})", cell)
        return [float(found[1].replace(",", ""))] if found else []
    pattern = rf"x({number})" if mark == "x" else rf"({number}) ?%"
    return [float(value.replace(",", "")) for value in re.findall(pattern, cell)]


def ratios(text: str) -> dict[tuple[str, ...], tuple[float, Better]]:
    """Return each compared ratio of a text by its place, and which direction is better."""
    found: dict[tuple[str, ...], tuple[float, Better]] = {}
    for table in tables(text):
        for ratio in COMPARED:
            if not re.fullmatch(ratio.section, table.section):
                continue
            if not set(ratio.keys) <= set(table.titles):
                continue
            keys = [table.titles.index(key) for key in ratio.keys]
            for j, title in enumerate(table.titles):
                if j in keys or not re.fullmatch(ratio.column, title):
                    continue
                for cells in table.rows:
                    for i, value in enumerate(numbers(cells[j], ratio.mark)):
                        row = ", ".join(cells[key] for key in keys)
                        # Two columns of a table may have one title, and two rows one key.
                        place = (table.section, table.heading, row, f"{title} [{j}]", f"{i}")
                        again = 1
                        while (*place, f"{again}") in found:
                            again += 1
                        found[(*place, f"{again}")] = (value, ratio.better)
    return found


def worse(before: float, after: float, better: Better) -> float:
    """Return by what share a ratio is worse than before; negative where it is better."""
    if not before or not after:
        return 0.0
    return 1 - after / before if better == "higher" else 1 - before / after


def compare(before: str, after: str) -> tuple[list[str], list[str]]:
    """Return lines on ratios that fell, and lines on what only one text has."""
    old, new = ratios(before), ratios(after)
    fell = []
    for place in sorted(old.keys() & new.keys()):
        (was, better), (now, _) = old[place], new[place]
        if worse(was, now, better) > LIMIT:
            share = worse(was, now, better)
            fell.append(f"{_shown(place)}: {was:g} before, {now:g} now, {share:.0%} worse")
    sections = {place[0] for place in new}
    apart = [f"{_shown(place)}: only before" for place in sorted(old.keys() - new.keys())]
    apart = [line for line in apart if any(line.startswith(name) for name in sections)]
    apart += [f"{_shown(place)}: only now" for place in sorted(new.keys() - old.keys())]
    return fell, apart


def _shown(place: Sequence[str]) -> str:
    section, heading, row, column, number, _ = place
    where = f"{section}, {heading}" if heading else section
    title = column.rpartition(" [")[0]
    which = f" (number {int(number) + 1})" if number != "0" else ""
    return f"{where} | {row} | {title}{which}"


def report(before: str, after: str) -> bool:
    """Print what fell and what cannot be compared; return whether nothing fell."""
    fell, apart = compare(before, after)
    both = ratios(before).keys() & ratios(after).keys()
    for line in apart:
        print(f"not compared: {line}")
    for line in fell:
        print(f"FELL: {line}")
    print(f"{len(both)} ratios compared, {len(fell)} worse by more than {LIMIT:.0%}")
    return not fell


def main() -> int:
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    after = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).parent / "RESULTS.md"
    return 0 if report(Path(sys.argv[1]).read_text(), after.read_text()) else 1


if __name__ == "__main__":
    sys.exit(main())
