"""Small data: `fit` alone, whole scripts, the command line, imports; scikit-learn beside each.

    python tests/benchmarks/small.py [--save] [--small]

Seconds are of the processor, user and system, for the noise of the machine is in all others;
each side takes its turn, and medians are told. Fits alone are made in one process, one seed
after the other, after a first one that is not counted (it loads the compiled loops). Scripts
and commands are processes of their own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cases import clusters
from common import table
from stores import options, parse, publish, scratch

# isort: split
import numpy as np
import zarr
from sklearn.mixture import GaussianMixture as SklearnGaussianMixture

from dask_em import GaussianMixture


@dataclass(frozen=True)
class Case:
    """Rows of k clusters in d columns, so far apart, and how many seeds are fitted."""

    n: int
    d: int
    k: int
    apart: float
    seeds: int

    @property
    def name(self) -> str:
        """As the tables have it."""
        return f"{self.n:,} x {self.d}, K = {self.k}, apart {self.apart:g}"

    def rows(self, seed: int) -> np.ndarray:
        """Data of their own for each seed."""
        return clusters(self.n, self.k, self.d, self.apart, seed)[0]


CASES = [
    *(Case(1_000, 8, 8, apart, 20) for apart in (0.6, 1.0, 2.0)),
    *(Case(10_000, 8, 8, apart, 20) for apart in (0.6, 1.0, 2.0)),
    *(Case(100_000, 8, 8, apart, 20) for apart in (0.6, 1.0)),
    Case(1_000_000, 8, 8, 1.0, 3),
    Case(8_000, 2, 200, 4.0, 20),
]
SCRIPTS = [Case(n, 8, 8, 1.0, rounds) for n, rounds in ((10_000, 7), (100_000, 5), (1_000_000, 3))]

SCRIPT = """
import sys
import numpy as np
from {package} import GaussianMixture
print(GaussianMixture({k}, random_state=0).fit(np.load(sys.argv[1])).lower_bound_)
"""


def seconds_of(call: Callable[[], object]) -> float:
    """Processor seconds of this process and of the children that ended meanwhile."""
    before = os.times()
    call()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def fits(cases: Sequence[Case]) -> str:
    """The table of fits alone."""
    rows = []
    for case in cases:
        sides: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
        for seed in range(-1, case.seeds):
            X = case.rows(max(seed, 0)) if seed >= 0 else case.rows(0)[: 20 * case.k]
            for side, estimator in (
                ("ours", GaussianMixture),
                ("theirs", SklearnGaussianMixture),
            ):
                begun = time.process_time()
                model = estimator(case.k, random_state=max(seed, 0)).fit(X)
                taken = time.process_time() - begun
                if seed >= 0:
                    sides[side].append((taken, model.score(X)))
        ours, theirs = (np.array(sides[side]) for side in ("ours", "theirs"))
        gains = ours[:, 1] - theirs[:, 1]
        rows.append(
            [
                case.name,
                f"{np.median(ours[:, 0]):.3f}",
                f"{np.median(theirs[:, 0]):.3f}",
                f"{np.median(ours[:, 0] / theirs[:, 0]):.2f}",
                f"{np.median(gains):+.4f}",
                f"{(gains < -1e-3).sum()} of {case.seeds}",
            ]
        )
        print(*rows[-1], flush=True)
    return table(
        ["data", "s", "scikit-learn, s", "ratio", "nats per row more", "worse by 1e-3"], rows
    )


def run(*command: object) -> None:
    """A process of its own, which must end well."""
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)


def alternated(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each side in each round, after one that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, call in sides.items():
            taken = seconds_of(call)
            if turn:
                found[name].append(taken)
    return found


def whole(case: Case, folder: Path) -> list[object]:
    """A line of the table of whole processes."""
    data, store = folder / "X.npy", folder / f"X{case.n}.zarr"
    X, chunks = case.rows(0), (min(case.n, 100_000), case.d)
    np.save(data, X)
    zarr.create_array(store, data=X, chunks=chunks, overwrite=True)
    for name, package in (("ours", "dask_em"), ("theirs", "sklearn.mixture")):
        (folder / f"{name}.py").write_text(SCRIPT.format(package=package, k=case.k))
    fit = ["-m", "dask_em.cli", "fit", store, "-k", case.k, "--seed", 0, "--overwrite"]
    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: run(folder / "ours.py", data),
        "theirs": lambda: run(folder / "theirs.py", data),
        "command": lambda: run(*fit, "-o", folder / "m.npz"),
    }
    found = alternated(sides, case.seeds)
    ours, theirs, command = (statistics.median(found[name]) for name in sides)
    ratios = [a / b for a, b in zip(found["ours"], found["theirs"], strict=True)]
    numbers = [f"{ours:.2f}", f"{theirs:.2f}", f"{statistics.median(ratios):.2f}"]
    line = [case.name, *numbers, f"{command:.2f}", f"{command - ours:+.2f}"]
    print(*line, flush=True)
    return [*line]


def scripts(cases: Sequence[Case], folder: Path) -> str:
    """The table of whole processes: a script, and the command line on the same rows in Zarr."""
    header = ["data", "script, s", "scikit-learn's, s", "ratio", "command line, s", "more"]
    return table(header, [whole(case, folder) for case in cases])


def imports(folder: Path, rounds: int) -> str:
    """The table of what should answer at once."""
    model = folder / "model.npz"
    GaussianMixture(2, random_state=0).fit(np.random.default_rng(0).normal(size=(500, 3))).save(
        model
    )
    command = ("-m", "dask_em.cli")
    sides: dict[str, Callable[[], object]] = {
        "python -c pass": lambda: run("-c", "pass"),
        "from sklearn.mixture import GaussianMixture": lambda: run(
            "-c", "from sklearn.mixture import GaussianMixture"
        ),
        "from dask_em import GaussianMixture": lambda: run(
            "-c", "from dask_em import GaussianMixture"
        ),
        "dask-em --help": lambda: run(*command, "--help"),
        "dask-em inspect MODEL": lambda: run(*command, "inspect", model),
        "dask-em fit (output exists)": lambda: refused(
            *command, "fit", "x.zarr", "-k", 3, "-o", model
        ),
        "dask-em predict (no such model)": lambda: refused(
            *command, "predict", "no.npz", "x.zarr", "y.zarr"
        ),
    }
    found = alternated(sides, rounds)
    return table(
        ["", "s"], [[f"`{name}`", f"{statistics.median(s):.2f}"] for name, s in found.items()]
    )


def refused(*command: object) -> None:
    """A process of its own, which must end by itself with an error."""
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    assert done.returncode in (2, 65, 73), done.stderr


def main() -> None:
    arguments = parse(options(__doc__))
    warnings.simplefilter("ignore")
    cases, processes, rounds = CASES, SCRIPTS, 5
    if arguments.small:
        cases, processes, rounds = [Case(1_000, 8, 8, 1.0, 2)], [Case(10_000, 8, 8, 1.0, 1)], 1
    with scratch(arguments) as folder:
        text = "\n\n".join(
            [
                "`fit` alone, in one process; data of its own for each seed:",
                fits(cases),
                "Whole processes, imports and reading included:",
                scripts(processes, folder),
                "What should answer at once:",
                imports(folder, rounds),
            ]
        )
    publish(
        arguments,
        "Small data",
        f"Seconds of the processor, one BLAS thread each, medians; alternating.\n\n{text}",
    )


if __name__ == "__main__":
    main()
