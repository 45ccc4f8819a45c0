"""Docstrings: each is there, begins with what it does, and its examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import dask_em

PACKAGE = Path(dask_em.__file__).parent
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__main__.py")
NAMES = [
    ".".join(("dask_em", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )
    for path in FILES
]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
EXTRAS = {
    "cupy", "fsspec", "h5py", "llvmlite", "matplotlib", "numba", "obstore", "onnx", "pandas",
    "pyarrow", "xarray",
}  # fmt: skip
# What Python, and our own errors after it, say of a library that an example needs.
LACKING = r"(?:No module named '|a report needs )(\w+)"


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name not in EXTRAS:
            raise
        pytest.skip(f"{e.name} is not installed")
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("examples are printed as NumPy 2 does")
    monkeypatch.chdir(tmp_path)
    failed = doctest.testmod(module, optionflags=FLAGS).failed
    said = capsys.readouterr().out
    lacking = set(re.findall(LACKING, said)) & EXTRAS
    if failed and lacking and all(find_spec(extra) is None for extra in lacking):
        pytest.skip(f"{', '.join(sorted(lacking))} is not installed")
    assert not failed, said


# First words that make a riddle or a noun of a sentence that should say what is done.
RIDDLES = {"what", "who", "whose", "whether", "where", "when", "how", "which", "why"}
NOUNS = (
    " a an all another any as at both by each either every everything for from in it like most no "
    "nothing of one on over said same some such that the their there these this those to true two "
    "whatever with "
)
IMPERATIVES = {"bring", "embed", "exceed", "feed", "focus", "need", "proceed", "seed", "speed"}


def opens_badly(node: ast.AST, text: str | None) -> bool:
    """Whether a docstring is missing, a riddle, without end, or (a function's) no imperative."""
    if not text:
        return True
    line = text.split("\n\n")[0].strip()
    word = re.split(r"\W", line, maxsplit=1)[0].lower()
    if word in RIDDLES or not line.endswith((".", ":")):
        return True
    if isinstance(node, ast.ClassDef):
        return False
    if not line[0].isupper():
        return True
    noun = f" {word} " in NOUNS or re.search(r"([^s]s|ing|ed)$", word) is not None
    return noun and word not in IMPERATIVES


def public(tree: ast.Module | ast.ClassDef) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Classes and functions but private ones, and laws: their names are the sentences."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith(
            ("_", "test_")
        ):
            continue
        # The docstring of overloads is that of what they are overloads of.
        attribute = isinstance(node, ast.FunctionDef) and any(
            name in ast.unparse(decorator)
            for decorator in node.decorator_list
            for name in ("property", "setter", "overload")
        )
        if not attribute:
            yield node
        if isinstance(node, ast.ClassDef):
            yield from public(node)


def offenders() -> list[str]:
    found = []
    for path in FILES:
        tree, name = ast.parse(path.read_text()), path.relative_to(PACKAGE).as_posix()
        if (ast.get_docstring(tree) or "TODO").startswith(("TODO", "What", "Who")):
            found.append(name)
        found += [
            f"{name}:{node.lineno} {node.name}"
            for node in public(tree)
            if opens_badly(node, ast.get_docstring(node))
        ]
    return found


def test_docstrings_say_first_what_is_done() -> None:
    found = offenders()
    assert not found, "\n".join(found)


def test_every_public_name_has_a_docstring() -> None:
    for name in set(dask_em.__all__) - {"__version__"}:
        assert getattr(dask_em, name).__doc__, name
