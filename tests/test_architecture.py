"""The house: floors as `dask_em/README.md` draws them, and which room may use which library."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import HANG

import dask_em

PACKAGE = Path(dask_em.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

# Where each library may be named: folders, and single files. What has no row is in no room.
ARRAYS = ("core/", "families/")
LIBRARIES: dict[str, tuple[str, ...]] = {
    "numpy": ("",),
    "numcodecs": ("data/zarr/",),
    "scipy": (*ARRAYS, "fitting/", "data/zarr/sparse.py"),
    "numba": ARRAYS,
    "llvmlite": ARRAYS,
    "cupy": ("core/device.py",),
    "threadpoolctl": ("backends/", "jobs/"),
    "dask": (
        "backends/dask/",
        "data/block_beside.py",
        "data/dask.py",
        "data/given_beside.py",
        "data/lazy.py",
        "data/tables.py",
        "data/zarr/layout.py",
        "jobs/checks/",
        "jobs/cluster.py",
        "storage/object_store.py",
    ),
    "distributed": ("backends/dask/", "jobs/checks/", "jobs/cluster.py"),
    "google_crc32c": ("data/zarr/",),
    "flowio": ("data/ingest/fcs.py",),
    "h5py": ("data/ingest/",),
    "zarr": (
        "data/zarr/",
        "data/dask.py",
        "data/given_beside.py",
        "data/ingest/written.py",
        "storage/",
        "jobs/demo.py",
    ),
    "xarray": ("data/xarray.py",),
    "pandas": ("data/frames.py", "estimators/tables.py"),
    "polars": ("data/frames.py",),
    "pyarrow": (
        "data/frames.py",
        "data/arrow/",
        "data/ingest/",
        "storage/arrow.py",
        "storage/outputs/parquet_answers.py",
    ),
    "obstore": ("storage/",),
    "fsspec": ("storage/",),
    "sklearn": ("fitting/", "estimators/"),
    "matplotlib": ("report/", "jobs/demo.py"),
    "onnx": ("exports/onnx.py",),
    "packaging": ("jobs/",),
    "pytest": ("testing/",),
    "hypothesis": ("testing/",),
    "click": ("cli/", "fitting/progress.py"),
    "IPython": ("fitting/progress.py",),
}


def floors() -> dict[str, tuple[int, str]]:
    """Floor and room of each top-level name, from the picture in `dask_em/README.md`.

    A line is the number of a floor, then names with a slash or `.py`, then words. The files of
    one line are one room.
    """
    found: dict[str, tuple[int, str]] = {}
    picture = (PACKAGE / "README.md").read_text().split("```")[1]
    for floor, names in re.findall(r"(?m)^(\d+)  ((?:[a-z_]+(?:/|\.py) ?)+) ", picture):
        for name in names.split():
            found[name.rstrip("/")] = (int(floor), names.split()[0].rstrip("/"))
    return found


FLOORS = floors()


def imports(name: str) -> Iterator[str]:
    """Dotted names of all that a file imports, wherever in it, for types too."""
    here = ["dask_em", *name.split("/")[:-1]]
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            yield from (".".join([*module, alias.name]) for alias in node.names)


def file_of(dotted: str) -> str | None:
    """The file that defines an imported name; None where it is not of this package."""
    parts = dotted.split(".")[1:]
    if not dotted.startswith("dask_em"):
        return None
    for end in range(len(parts), 0, -1):
        stem = "/".join(parts[:end])
        for name in (f"{stem}.py", f"{stem}/__init__.py"):
            if name in FILES:
                return name
    return "__init__.py"


ARROWS = {
    name: {found for dotted in imports(name) if (found := file_of(dotted))} - {name}
    for name in FILES
}


def top(name: str) -> str:
    """The top-level name under which the picture lists a file."""
    return name.split("/")[0]


def test_the_picture_shows_every_room() -> None:
    assert len(FLOORS) > 10
    assert {top(name) for name in FILES} <= FLOORS.keys(), "a room without a floor: draw it"
    # A room that is drawn before it is built says so by its absence here.
    assert FLOORS.keys() - {top(name) for name in FILES} <= {"testing"}


def test_an_import_points_down_or_stays_in_its_room() -> None:
    wrong = set()
    for name, targets in ARROWS.items():
        floor, room = FLOORS[top(name)]
        for target in targets:
            other_floor, other_room = FLOORS[top(target)]
            if other_room != room and other_floor >= floor:
                wrong.add(f"{name} -> {top(target)}")
    assert wrong == set()


def test_the_files_of_a_room_have_no_circle() -> None:
    def reached(name: str) -> set[str]:
        seen: set[str] = set()
        todo = [name]
        while todo:
            inside = {t for t in ARROWS[todo.pop()] if FLOORS[top(t)] == FLOORS[top(name)]}
            todo += inside - seen
            seen |= inside
        return seen

    assert {name for name in FILES if name in reached(name)} == set()


def test_a_library_is_named_in_its_places_only() -> None:
    wrong = set()
    for name in FILES:
        for library in {dotted.split(".")[0] for dotted in imports(name)}:
            if library == "dask_em" or library in sys.stdlib_module_names:
                continue
            if not name.startswith(LIBRARIES.get(library, ())):
                wrong.add(f"{name}: {library}")
    assert wrong == set()


def test_the_command_line_imports_jobs_only() -> None:
    used = {top(t) for name in FILES if top(name) == "cli" for t in ARROWS[name]}
    assert used <= {"cli", "jobs", "errors.py", "foreign.py", "runtime.py", "version.py"}


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=HANG
    )
    return result.stdout.strip()


@pytest.mark.parametrize(
    "module",
    [
        "dask_em",
        "dask_em.plots",
        "dask_em.core.em",
        "dask_em.fitting.survey",
        "dask_em.data.open",
        "dask_em.cli",
    ],
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


TESTS = Path(__file__).parent
TEST_FILES = [
    *TESTS.glob("*.py"),
    *(path for name in ("deploy", "faults") for path in (TESTS / name).glob("*.py")),
    *(PACKAGE / "testing").glob("*.py"),
]


def limits(tree: ast.AST) -> Iterator[ast.expr]:
    """The numbers of seconds after which a call gives up waiting."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        yield from (word.value for word in call.keywords if word.arg == "timeout")
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("wait", "join", "result"):
            yield from call.args[:1]


def test_waits_of_tests_have_one_limit() -> None:
    """A second or more, written at the place, fails where a machine is busy."""
    wrong = [
        f"{path.name}:{limit.lineno}: {limit.value} s, expected HANG of dask_em.testing.waiting"
        for path in TEST_FILES
        for limit in limits(ast.parse(path.read_text()))
        if isinstance(limit, ast.Constant) and isinstance(limit.value, int | float)
        if limit.value >= 1
    ]
    assert wrong == []
