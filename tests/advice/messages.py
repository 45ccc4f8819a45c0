"""The messages that give advice, found in the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dask_em
from dask_em.cli.main import main
from dask_em.cli.words import in_shell

PACKAGE = Path(dask_em.__file__).parent

OPTION = re.compile(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*")
ARGUMENT = re.compile(r"(?<![\w.])([a-z][a-z_]*)=(?=[\w\"'\[{(])")
# What is to be done with an argument or a method, and what is to be called.
NAMED = re.compile(
    r"\b(?:pass|raise|lower|increase|decrease|set|another|give|call) (?:X\.)?[a-z]+_[a-z_]+"
)
CALL = re.compile(r"\b[A-Za-z_]+(?:\.\w+)+\(")
INSTALL = re.compile(r"pip install (?:--upgrade )?'?dask-em\[([a-z0-9{},]+)\]")
# Rooms whose texts are pages, or classes that tests inherit.
NO_MESSAGES = ("testing/", "report/style.py", "report/svg.py")

READING = ("fit", "predict", "score", "compare", "adapt", "update", "report", "plan", "doctor")
CLUSTER = (*READING, "demo")
# Which commands can print the messages of a file; the first that matches. What is in no row can be
# printed by no command.
PRINTED_BY: dict[str, tuple[str, ...]] = {
    "backends/": ("fit", "predict", "score", "compare", "adapt", "update", "report"),
    "core/em.py": ("fit", "inspect"),
    "core/undetermined.py": ("fit", "inspect"),
    # Arrays of Python.
    "data/dask.py": (),
    "data/frames.py": (),
    "data/given_beside.py": (),
    "data/labels.py": (),
    # Options are held to their choices before.
    "data/options.py": (),
    "data/ingest/": ("ingest",),
    "data/xarray.py": (),
    "cli/export.py": ("export",),
    "data/": READING,
    "errors.py": ("fit", "predict", "score", "compare", "adapt", "update", "report"),
    "estimators/fits.py": ("fit",),
    "exports/onnx.py": ("export",),
    # Documents are read in Python.
    "exports/document.py": (),
    "estimators/generations.py": ("update",),
    "estimators/update.py": ("update",),
    "estimators/imputation.py": ("impute",),
    "estimators/predictions.py": ("score",),
    "estimators/select.py": ("fit",),
    "families/amounts.py": ("fit", "inspect"),
    "families/counts.py": ("fit", "inspect"),
    "families/gaussian/degenerate.py": ("fit", "inspect"),
    "families/gaussian/family.py": ("predict", "score", "compare", "adapt", "update", "report"),
    # A shell names no device.
    "families/gaussian/missing.py": (),
    "families/factor/family.py": (),
    "families/": ("fit",),
    "fitting/half_life.py": ("update",),
    "fitting/": ("fit",),
    "jobs/checks/": ("doctor",),
    "jobs/cluster.py": CLUSTER,
    "jobs/commit.py": ("fit", "update"),
    "jobs/compare.py": ("compare",),
    "jobs/fit.py": ("fit",),
    "jobs/ingest.py": ("ingest",),
    "jobs/plan.py": ("fit", "plan", "doctor"),
    "jobs/report.py": ("report",),
    "jobs/score.py": ("score",),
    "jobs/update.py": ("update",),
    "storage/checkpoint.py": ("fit", "update"),
    "storage/outputs/files.py": ("fit", "predict", "adapt", "update", "report", "ingest", "demo"),
    "storage/object_store.py": ("fit", "predict", "adapt", "update", "report"),
    "storage/outputs/resumable.py": ("predict", "ingest"),
    "storage/outputs/staging.py": ("predict", "ingest", "demo"),
}
# Where a value goes, as a word that may be the value of an option.
VALUE = "V4LU3"


@dataclass(frozen=True)
class Message:
    """A text of the source with `{}` where values go."""

    place: str
    text: str

    @property
    def advises(self) -> bool:
        """Whether it names an option, an argument, a call, or a command to install something."""
        patterns = (OPTION, ARGUMENT, NAMED, CALL, INSTALL)
        return any(pattern.search(self.text) for pattern in patterns)

    @property
    def printed_by(self) -> tuple[str, ...]:
        """The commands that may print it."""
        commands = (who for start, who in PRINTED_BY.items() if self.place.startswith(start))
        return next(commands, ())

    def in_shell(self, command: str) -> str:
        """The message in the words of a command; what `inspect` shows is for a fit."""
        words = main.commands["fit" if command == "inspect" else command]
        return in_shell(self.text.replace("{}", VALUE), words)

    def is_in(self, said: str) -> bool:
        """Whether somebody said it, in the words of Python or of a command."""
        texts = [self.text.replace("{}", VALUE), *map(self.in_shell, self.printed_by)]
        return any(_pattern(text).search(said) for text in texts)


def _pattern(text: str) -> re.Pattern[str]:
    """Values are anything; `%s` is how a log has them."""
    parts = re.split(rf"'?{VALUE}'?|%[.\d]*[sdf]", text)
    return re.compile(".*?".join(map(re.escape, parts)), re.DOTALL)


def text_of(node: ast.AST) -> str | None:
    """The text of a literal, an f-string or a sum of them; None for what is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "{}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = text_of(node.left), text_of(node.right)
        return None if left is None and right is None else (left or "{}") + (right or "{}")
    return None


def texts(node: ast.AST) -> Iterator[tuple[int, str]]:
    """The texts below a node, docstrings left out, those of one sum as one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue
        text = text_of(child)
        if text is None or not isinstance(child, ast.expr):
            yield from texts(child)
        else:
            yield child.lineno, text


def messages() -> list[Message]:
    """All that give advice: sentences, neither markup nor names of options where they are made."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith(NO_MESSAGES):
            continue
        for line, text in texts(ast.parse(path.read_text())):
            message = Message(f"{name}:{line}", text)
            if " " in text.strip() and not re.search(r"<\w|<!", text) and message.advises:
                found.append(message)
    return found


MESSAGES = messages()
