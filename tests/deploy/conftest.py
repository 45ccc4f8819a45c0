"""One job that every way of running does, and the bits that it must give."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
from helpers import blobs, digest, wait_until, write_zarr

from dask_em import load

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


@dataclass(frozen=True)
class Job:
    """`dask-em fit` on shared data, and what it gives on a LocalCluster.

    Attributes
    ----------
    data : Path
        The points.
    quick, long : str
        sha256 of the parameters of the default fit, and of the one by `LONG`.
    """

    data: Path
    quick: str
    long: str

    long_options = LONG

    def fit(self, model: Path, long: bool = False) -> list[str]:
        """The arguments of dask-em."""
        return ["fit", str(self.data), "-k", str(K), "-o", str(model), *(LONG if long else [])]

    def check(self, model: Path, long: bool = False) -> None:
        """The model is there and has the bits of the LocalCluster."""
        assert digest(load(model)) == (self.long if long else self.quick)


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    X, _, _ = blobs(400_000, 8, K, seed=1, apart=0.8)
    write_zarr(folder / "points.zarr", X, 50_000)
    undone = Job(folder / "points.zarr", "", "")
    digests = []
    for long in (False, True):
        model = folder / f"{long}.npz"
        where = ["--workers", "2"]
        subprocess.run([*DASK_EM, *undone.fit(model, long), *where], check=True, timeout=300)
        digests.append(digest(load(model)))
    return Job(undone.data, *digests)


@dataclass
class Processes:
    """Daemons that a test started, each with a log of its own."""

    folder: Path
    started: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = field(default_factory=list)

    def start(self, name: str, *command: object, **options: object) -> subprocess.Popen[bytes]:
        """Start a command; what it prints goes to the log `name`."""
        log = self.log(name).open("wb")
        words = list(map(str, command))
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, **options)
        self.started.append((process, log))
        return process

    def log(self, name: str) -> Path:
        """Where the output of `name` goes."""
        return self.folder / f"{name}.log"

    def wait_for(self, name: str, text: str, seconds: float = 60) -> None:
        """Until `text` stands in the log of `name`."""
        try:
            wait_until(lambda: text in self.log(name).read_text(), seconds)
        except AssertionError as e:
            raise AssertionError(f"no {text!r} in {name}:\n{self.log(name).read_text()}") from e

    def stop(self) -> None:
        """End what still runs, the last started first."""
        for process, log in reversed(self.started):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            log.close()
        self.started.clear()


@pytest.fixture
def processes(tmp_path: Path):
    started = Processes(tmp_path)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def need() -> Callable[..., None]:
    """Skips where the machine lacks a program."""

    def need(*programs: str) -> None:
        absent = [p for p in programs if shutil.which(p) is None]
        if absent:
            pytest.skip(f"this machine has no {', '.join(absent)}")

    return need
