"""Run the chaos suite, or a part of it, and write what happened to RESULTS.md.

    python tests/faults/all.py                        # all of it, about an hour on two cores
    python tests/faults/all.py test_kills.py          # one file; the other lines stay
    python tests/faults/all.py -k partition           # any options of pytest

Nothing is written with --dry.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.md"
HEADER = [
    "fault", "how injected", "what happened", "seconds to recover", "work lost", "bits equal",
    "run", "test",
]  # fmt: skip
TITLE = """# Faults

Written by `python tests/faults/all.py`: one line for each fault, by the tests that inject it. A
test fails, and its line says so, where a job ends with other bits, leaves something behind, or
does not say what was wrong. What each test does: [README.md](README.md).
"""


Rows = dict[str, list[list[str]]]
"""The lines of each test."""


class Table:
    """A pytest plugin that collects the rows that tests tell."""

    def __init__(self) -> None:
        self.rows: Rows = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take the rows of a test that is over; a failure or a skip is a row, too."""
        told = [value for name, value in report.user_properties if name == "row"]
        test = report.nodeid.rpartition("/")[2]
        if report.failed:
            what = f"**the test failed** ({report.when})"
            self.rows[test] = [line(test, ["-", "-", what, "-", "-", "-"])]
        elif report.skipped:
            why = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
            what = f"not run: {why.removeprefix('Skipped: ')}"
            self.rows[test] = [line(test, ["-", "-", what, "-", "-", "-"])]
        elif report.when == "call":
            self.rows[test] = [line(test, list(row.values())) for row in told]


def line(test: str, row: Sequence[str]) -> list[str]:
    """The cells of a line of the table: what was told, the day, and who told it."""
    cells = [*row, datetime.date.today().isoformat(), f"`{test}`"]
    return [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]


def machine() -> str:
    """Processor, cores, and versions, in a line."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{p} {version(p)}" for p in ("dask", "distributed", "zarr", "numpy"))
    return (
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}, {packages}"
    )


def read_rows() -> Rows:
    """The lines of the table as it is."""
    rows: Rows = {}
    text = RESULTS.read_text() if RESULTS.exists() else ""
    for one in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", one)[1:-1]]
        if len(cells) == len(HEADER) and cells[-1].startswith("`"):
            rows.setdefault(cells[-1].strip("`"), []).append(cells)
    return rows


def write(rows: Rows) -> None:
    """Replace the lines of these tests, and keep the others."""
    all_rows = {**read_rows(), **rows}
    found = [cells for test in sorted(all_rows) for cells in all_rows[test]]
    lines = [HEADER, ["---"] * len(HEADER), *found]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    RESULTS.write_text(f"{TITLE}\nMachine: {machine()}.\n\n{table}\n")


def main(arguments: Sequence[str]) -> int:
    """Run pytest with these arguments; its exit code."""
    table = Table()
    given = [a for a in arguments if a != "--dry"]
    given = [str(FOLDER / a) if (FOLDER / a.partition("::")[0]).exists() else a for a in given]
    if not any(a.startswith(str(FOLDER)) for a in given):
        given.append(str(FOLDER))
    # The default run leaves out what takes long; here is all of it.
    code = pytest.main(["-m", "", "-s", *given], plugins=[table])
    if "--dry" not in arguments:
        write(table.rows)
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
