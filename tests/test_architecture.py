"""The floors of the design: an import may only point down."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dask_em

PACKAGE = Path(dask_em.__file__).parent
FLOORS = {
    "statistics": 0,
    "errors": 0,
    "run": 0,
    "signals": 0,
    "calls": 0,
    "frame": 0,
    "families": 1,
    "mixture": 2,
    "em": 3,
    "initialization": 3,
    "acceleration": 3,
    "selection": 3,
    "shortlist": 3,
    "moves": 3,
    "race": 3,
    "answers": 4,
    "checkpoint": 4,
    "datachecks": 4,
    "modelparts": 4,
    "records": 4,
    "resume": 4,
    "starts": 4,
    "callbacks": 4,
    "estimators": 5,
    "sweep": 5,
    "job": 6,
    "evidence": 6,
    "report": 6,
    "doctor": 6,
    "cli": 7,
    "logs": 7,
    "options": 7,
}
# Beside the tower: what each of these rooms may import of the package.
BESIDE = {
    "chunks": {"chunks", "errors", "statistics"},
    "notes": {"statistics"},
    "sources": {"errors", "statistics", "chunks", "stores", "notes"},
    "opening": {"errors", "statistics", "chunks", "stores", "sources"},
    "stores": {"errors"},
    "folders": {"errors", "stores"},
    "locks": {"errors", "run", "stores", "folders"},
    "backends": {"calls", "errors", "run", "statistics", "sources", "backends"},
    "sinks": {"errors", "folders", "statistics", "stores"},
    "unfinished": {"errors", "folders", "locks", "sinks", "stores"},
    "ingest": {"errors", "statistics", "sources"},
    "labelled": {"errors", "statistics"},
    "plots": {"errors", "statistics"},
    "html": {"plots", "statistics"},
}
HEAVY = {"dask", "distributed", "zarr", "sklearn", "click", "matplotlib", "pandas"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> tuple[set[str], set[str]]:
    """Rooms of the package and packages outside it that a file imports, anywhere in it."""
    inside, outside = set(), set()
    here = ("dask_em", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            module = [*base, *(node.module or "").split(".")] if node.module else list(base)
            names = [".".join([*module, alias.name]) for alias in node.names]
        else:
            continue
        for name in names:
            top, *rest = name.split(".")
            if top == "dask_em":
                inside.add(rest[0])
            else:
                outside.add(top)
    return inside, outside


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    name = room(path)
    if name == "__init__":
        return
    inside, outside = imports(path)
    inside -= {"__version__"}
    assert name in FLOORS or name in BESIDE, f"{name} has no floor: add it to the design"
    if name in BESIDE:
        assert inside <= BESIDE[name]
        return
    assert all(other in BESIDE or FLOORS[other] <= FLOORS[name] for other in inside)
    if FLOORS[name] <= 3:
        assert not inside & BESIDE.keys()
        assert not outside & HEAVY


def test_the_command_line_imports_jobs_only() -> None:
    inside, outside = set(), set()
    for name in ("cli", "options", "logs"):
        for found, others in zip(imports(PACKAGE / f"{name}.py"), (inside, outside), strict=True):
            others |= found
    assert inside <= {"__version__", "job", "doctor", "errors", "signals", "options", "logs"}
    assert not outside & (HEAVY - {"click"})


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return result.stdout.strip()


@pytest.mark.parametrize(
    "module",
    ["dask_em", "dask_em.core.em", "dask_em.fitting.survey", "dask_em.data.open", "dask_em.cli"],
)
def test_an_import_stays_light(module: str) -> None:
    code = f"""
import sys, {module}
print(*sorted({{"sklearn", "dask.array", "matplotlib", "pandas"}} & sys.modules.keys()))"""
    assert run(code) == ""


def test_the_public_names_are_there() -> None:
    assert set(dask_em.__all__) <= set(dir(dask_em))
    for name in dask_em.__all__:
        assert getattr(dask_em, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dask_em.nothing  # noqa: B018
