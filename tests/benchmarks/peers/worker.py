"""A child's side of the benchmark: the data that all get, and the conversation.

The parent writes one JSON object a line, `{"load": CASE}` or `{"run": ITERATIONS}`, and
reads one answer a line. Whatever a library prints goes to the standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np


@dataclass(frozen=True)
class Case:
    """Rows, features, components, distance of the means, covariance structure.

    `sep` is the standard deviation of the means beside a component's own. It decides
    how many responsibilities are zero to rounding.
    """

    n: int
    d: int
    k: int
    sep: float
    kind: str

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.n}x{self.d}x{self.k}-sep{self.sep:g}"


@dataclass(frozen=True)
class Data:
    """Rows X (n, d), and the start of all peers: these means (k, d), unit covariances."""

    X: np.ndarray
    weights: np.ndarray
    means: np.ndarray


@dataclass(frozen=True)
class Fit:
    """What a run did: its iterations, and its means (k, d) if it began at the start."""

    iterations: int
    means: np.ndarray | None


Run = Callable[[int], Fit]


def data(case: Case) -> Data:
    """The data of a case, in float64."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(case.k, case.d)) * case.sep
    X = rng.normal(size=(case.n, case.d))
    X += means[rng.integers(0, case.k, case.n)]
    return Data(X, np.full(case.k, 1 / case.k), means)


def unit_matrices(kind: str, k: int, d: int) -> np.ndarray:
    """Unit covariances, which are unit precisions too, in scikit-learn's shapes."""
    shapes = {
        "full": np.stack([np.eye(d)] * k),
        "tied": np.eye(d),
        "diag": np.ones((k, d)),
        "spherical": np.ones(k),
    }
    return shapes[kind]


def serve(load: Callable[[Case, Data], Run], *packages: str) -> None:
    """Answer the parent until it closes the conversation.

    Parameters
    ----------
    load : callable
        Takes a case and its data; returns what makes a given number of iterations.
    *packages : str
        Distributions whose versions the parent reports.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    print(json.dumps({"ready": versions}), file=answers, flush=True)
    for answer in _answers(load):
        print(json.dumps(answer), file=answers, flush=True)


def _answers(load: Callable[[Case, Data], Run]) -> Iterator[dict[str, object]]:
    run: Run | None = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            if "load" in question:
                run = None  # the last case's data go before the next one's come
                run, checksum = _loaded(load, Case(**question["load"]))
                yield {"crc32": checksum}
            elif run is None:
                yield {"error": "asked to run before a case was loaded"}
            else:
                yield _timed(run, question["run"])
        except Exception as error:  # every failure of a peer is a line of the report
            yield {"error": f"{type(error).__name__}: {error}"}


def _loaded(load: Callable[[Case, Data], Run], case: Case) -> tuple[Run, int]:
    # A function of its own, so that rows that the peer has converted are let go.
    rows = data(case)
    return load(case, rows), zlib.crc32(rows.X.data)


def _timed(run: Run, iterations: int) -> dict[str, object]:
    processor, clock = time.process_time(), time.perf_counter()
    fit = run(iterations)
    seconds, processor_seconds = time.perf_counter() - clock, time.process_time() - processor
    return {
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "iterations": fit.iterations,
        "means": None if fit.means is None else np.asarray(fit.means, dtype=float).tolist(),
    }
