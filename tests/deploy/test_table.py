"""The table of deploy/README.md tells what the tests do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jobs import DEPLOY

ROWS = [line for line in (DEPLOY / "README.md").read_text().splitlines() if line.startswith("| [")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_a_row_names_tests_that_are_there(row: str) -> None:
    way, tests, *_, date = (cell.strip() for cell in row.strip("|").split("|"))
    link = re.search(r"\(([\w./]+)(#[\w-]+)?\)", way)
    assert link
    place = DEPLOY / link[1]
    assert (place / "README.md" if place.is_dir() else place).is_file()
    groups = re.findall(r"((?:`\w+`,? )+)in `(\w+\.py)`", tests)
    assert groups
    for names, file in groups:
        text = (Path(__file__).parent / file).read_text()
        assert all(f"def {name}(" in text for name in re.findall(r"`(\w+)`", names))
    # No test is named outside these groups.
    assert sum(names.count("`") for names, _ in groups) + 2 * len(groups) == tests.count("`")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", date)


def test_every_folder_has_a_row() -> None:
    folders = {path.name for path in DEPLOY.iterdir() if path.is_dir()}
    assert folders == {name for row in ROWS for name in re.findall(r"^\| \[[^]]*\]\((\w+)\)", row)}


def test_no_file_names_a_registry_or_a_machine() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not re.search(r"docker\.io|ghcr\.io|quay\.io|gcr\.io|/root/|/home/\w", text), (
                path
            )
