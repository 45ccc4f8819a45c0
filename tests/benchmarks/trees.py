"""Measure two trees of the code in one run: a process of each, asked in turn.

A benchmark is its own child: called with `--serve` it answers questions, a line of JSON each, from
the package that lies first on its path.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2]
SERVE = "--serve"

Answer = Callable[..., Any]


class Tree:
    """A process that computes with the code of one tree.

    Parameters
    ----------
    path : Path
        The folder that holds `dask_em`.
    """

    def __init__(self, path: Path) -> None:
        if not (path / "dask_em" / "__init__.py").is_file():
            raise SystemExit(f"--before {path}: there is no package dask_em in this folder")
        self.process = subprocess.Popen(
            [sys.executable, sys.argv[0], SERVE], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(path)},
        )  # fmt: skip

    def ask(self, **question: Any) -> Any:
        """Return the answer to a question."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(question) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise SystemExit(f"the process of a tree ended: {self.process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def add_before(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the option that names a second tree."""
    parser.add_argument(
        "--before", type=Path, metavar="PATH",
        help="a tree of an earlier commit (git worktree add PATH COMMIT), measured in turn",
    )  # fmt: skip
    return parser


@contextmanager
def trees(arguments: argparse.Namespace) -> Iterator[dict[str, Tree]]:
    """The processes of this tree, "now", and of that of the command line, "before"."""
    found = {"now": HERE}
    if arguments.before is not None:
        found = {"before": arguments.before.absolute()} | found
    with ExitStack() as stack:
        made = {name: Tree(path) for name, path in found.items()}
        for tree in made.values():
            stack.callback(tree.close)
        yield made


def serve(answers: Mapping[str, Answer]) -> None:
    """Answer questions until there are no more."""
    # What prints must not stand among the answers.
    said, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(answers[question.pop("what")](**question)), file=said, flush=True)


def take_turns(
    made: Mapping[str, Tree], questions: Mapping[tuple[str, str], dict[str, Any]], rounds: int
) -> dict[tuple[str, str], float]:
    """Median of the seconds that trees answer to questions, in turn, after one warm-up.

    Each question is of a tree, and has a name.
    """
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in questions}
    for turn in range(rounds + 1):
        for key, question in questions.items():
            found = made[key[0]].ask(what="seconds", **question)
            if turn:
                seconds[key].append(found)
    return {key: statistics.median(values) for key, values in seconds.items()}
