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
    "run",
]  # fmt: skip
TITLE = """# Faults

Written by `python tests/faults/all.py`: one line for each fault, by the tests that inject it. A
test fails, and its line says so, where a job ends with other bits, leaves something behind, or
does not say what was wrong. What each test does: [README.md](README.md).
"""


class Table:
    """A pytest plugin that collects the rows that tests tell."""

    def __init__(self) -> None:
        self.rows: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take the row of a test that is over; a failure or a skip is a row, too."""
        told = [value for name, value in report.user_properties if name == "row"]
        name = report.nodeid.rpartition("::")[2]
        if report.when == "call" and report.passed:
            for row in told:
                self._add(list(row.values()))
        elif report.failed:
            self._add([name, "-", f"**the test failed** ({report.when})", "-", "-", "-"])
        elif report.skipped:
            why = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
            self._add([name, "-", f"not run: {why.removeprefix('Skipped: ')}", "-", "-", "-"])

    def _add(self, cells: list[str]) -> None:
        cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]
        self.rows[cells[0]] = [*cells, datetime.date.today().isoformat()]


def machine() -> str:
    """Processor, cores, and versions, in a line."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{p} {version(p)}" for p in ("dask", "distributed", "zarr", "numpy"))
    return (
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}, {packages}"
    )


def read_rows() -> dict[str, list[str]]:
    """The lines of the table as it is."""
    if not RESULTS.exists():
        return {}
    rows = {}
    for line in RESULTS.read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == len(HEADER) and cells != HEADER and set(cells[0]) != {"-"}:
            rows[cells[0]] = cells
    return rows


def write(rows: dict[str, list[str]]) -> None:
    """Replace these lines of the table, and keep the others."""
    all_rows = {**read_rows(), **rows}
    lines = [HEADER, ["---"] * len(HEADER), *all_rows.values()]
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
