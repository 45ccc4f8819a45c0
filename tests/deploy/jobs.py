"""One job that every way of running does, and what it must give; daemons that tests start."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from helpers import HANG, digest, wait_until

from dask_em import GaussianMixture, load

DEPLOY = Path(__file__).parents[2] / "deploy"
DASK_EM = [sys.executable, "-m", "dask_em.cli"]
K = 5
# Long enough to be disturbed in the middle, and plain enough to last as long everywhere.
LONG = ["--algorithm", "em", "--tol", "0", "--max-iter", "40"]
UNDER_WAY = "em pass 5:"


def block(readme: Path, name: str) -> str:
    """The commands below the mark `name`: what a reader copies is what a test runs."""
    found = re.search(rf"<!-- {name} -->\n```sh\n(.*?)\n```", readme.read_text(), re.DOTALL)
    assert found, f"{readme} has no commands marked {name}"
    return found[1]


def what_was_fitted(model: GaussianMixture) -> dict[str, Any]:
    """All of a model but where its data lay, when, and which run it was: the job's own."""
    options = model.get_params()
    for name in ("callbacks", "checkpoint"):
        del options[name]
    data = {k: v for k, v in model.provenance_.items() if k not in ("source", "fitted", "fit")}
    passes = [record["log_likelihood"] for record in model.history_]
    return {"options": options, "data": data, "passes": passes, "parameters": digest(model)}


@dataclass(frozen=True)
class Job:
    """`dask-em fit` on shared data, and what it gives on a LocalCluster.

    Attributes
    ----------
    data : Path
        The points.
    """

    data: Path

    long_options = LONG

    def fit(self, model: object, long: bool = False, data: object = None) -> list[str]:
        """The arguments of dask-em; `data` is where the points are seen, if not at their path."""
        return ["fit", str(data or self.data), "-k", str(K), "-o", str(model),
                *(LONG if long else [])]  # fmt: skip

    def expected(self, long: bool) -> Path:
        """The model of the LocalCluster."""
        return self.data.with_name("long.npz" if long else "quick.npz")

    def check(self, model: object, long: bool = False) -> None:
        """The model is there, is of the same job, and has the bits of the LocalCluster."""
        found = what_was_fitted(load(str(model)))
        expected = what_was_fitted(load(self.expected(long)))
        assert found == expected, f"{found}\nis not\n{expected}"


@dataclass
class Processes:
    """Daemons that a test started, each with a log of its own."""

    folder: Path
    started: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = field(default_factory=list)

    def start(self, name: str, *command: object, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command; what it prints goes to the log `name`."""
        log = self.log(name).open("wb")
        words = list(map(str, command))
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, **options)
        self.started.append((process, log))
        return process

    def log(self, name: str) -> Path:
        """Where the output of `name` goes."""
        return self.folder / f"{name}.log"

    def wait_for(self, name: str, text: str) -> None:
        """Until `text` stands in the log of `name`."""
        try:
            wait_until(lambda: text in self.log(name).read_text())
        except AssertionError as e:
            raise AssertionError(f"no {text!r} in {name}:\n{self.log(name).read_text()}") from e

    def stop(self) -> None:
        """End what still runs, the last started first."""
        for process, log in reversed(self.started):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(HANG)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            log.close()
        self.started.clear()
