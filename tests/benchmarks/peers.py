"""Seconds of one EM iteration in memory, one thread each, beside other libraries.

    python tests/benchmarks/peers.py [--save] [--cases full-200000 ...] [--peers ours ...]

An iteration is an E-step with its sufficient statistics and an M-step. Each contestant
is a process of its own, in an environment of its own, with the same data and the same
start. They take turns; a turn is a fit of one iteration and a fit of three, and an
iteration is half of the difference, so what a library does once per fit does not count.
The first turn only warms up. The means after three iterations must be the same for all
that can be given a start.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import machine, save, table

# isort: split
import numpy as np
from peers.child import Child, ChildError
from peers.environments import DEFAULT, REQUIREMENTS, InstallError, python_of
from peers.worker import Case

# Sizes of full covariances, each at two distances of the means.
SIZES = [(500_000, 8, 8), (200_000, 32, 16), (50_000, 100, 16), (20_000, 200, 8)]
CASES = [
    *(Case(n, d, k, sep, "full") for n, d, k in SIZES for sep in (1.0, 3.0)),
    Case(200_000, 32, 16, 0.3, "full"),
    Case(500_000, 32, 16, 1.0, "diag"),
    Case(200_000, 32, 16, 1.0, "tied"),
    Case(200_000, 32, 16, 1.0, "spherical"),
]
ALL_KINDS = ("full", "tied", "diag", "spherical")
FEW, MANY = 1, 3  # iterations of the two fits of a turn
# How far the means may be from the first contestant's, in standard deviations.
AGREEMENT = {"float64": 1e-6, "float32": 1e-2}
# Threads more than one, in processor seconds per second, that a note is made of.
BUSY = 1.2


@dataclass(frozen=True)
class Contestant:
    """One column of a table.

    Attributes
    ----------
    label, precision : str
        Its column, and the table that it is in.
    peer : str
        Whose environment it runs in.
    arguments : tuple of str
        The module below `peers` and what it is to be told.
    kinds : tuple of str
        The covariance structures that it has.
    most_rounds, most_columns : int
        For slow ones.
    """

    label: str
    precision: str
    peer: str
    arguments: tuple[str, ...]
    kinds: tuple[str, ...] = ALL_KINDS
    most_rounds: int = 1_000
    most_columns: int = 1_000

    def able(self, case: Case) -> bool:
        """Whether it takes part in a case."""
        return case.kind in self.kinds and case.d <= self.most_columns


def contestants() -> list[Contestant]:
    """All, ours first. The kernel that needs numba is left out where numba is absent."""
    both = ("full", "diag")
    found = []
    for precision in ("float64", "float32"):
        for kernel in ("numpy", "fast") if find_spec("numba") else ("numpy",):
            label, arguments = f"ours, {kernel}", ("ours", precision, kernel)
            found.append(Contestant(label, precision, "ours", arguments))
        for peer, module, kinds, most in (
            ("scikit-learn", "scikit_learn", ALL_KINDS, 1_000),
            ("oneDAL", "onedal", both, 1_000),
            ("pomegranate", "pomegranate", both, 3),
        ):
            found.append(Contestant(peer, precision, peer, (module, precision), kinds, most))
    return [
        *found,
        Contestant("gmmx", "float32", "gmmx", ("gmmx",), both, 3),
        Contestant("Spark", "float64", "Spark", ("spark",), ("full",), 3, 32),
    ]


@dataclass
class Entry:
    """How a contestant did in a case: its turns, or why there are none."""

    seconds: list[float] = field(default_factory=list)
    failure: str = ""
    threads: float = 0.0

    @property
    def median(self) -> float:
        """Seconds of an iteration; NaN after a failure."""
        return statistics.median(self.seconds) if self.seconds and not self.failure else np.nan


class Children:
    """The contestants' processes, started when first needed."""

    def __init__(self, environments: Path, limit: float) -> None:
        self._environments = environments
        self._limit = limit
        self._children: dict[Contestant, Child] = {}
        self._not_installed: dict[str, str] = {}
        self.versions: dict[str, str] = {}

    def child(self, contestant: Contestant) -> Child:
        """A living process of the contestant's."""
        old = self._children.get(contestant)
        if old is not None and old.alive:
            return old
        if old is not None:
            self._children.pop(contestant).stop()
        arguments = list(contestant.arguments)
        new = Child(self._python(contestant.peer), arguments, self._limit)
        self._children[contestant] = new
        self.versions[contestant.peer] = new.versions
        return new

    def _python(self, peer: str) -> Path:
        # An environment that could not be made is not tried again for each case.
        if peer not in self._not_installed:
            try:
                return python_of(peer, self._environments)
            except InstallError as error:
                self._not_installed[peer] = str(error)
        raise ChildError(self._not_installed[peer])

    def stop(self) -> None:
        """End all processes."""
        for child in self._children.values():
            child.stop()


@contextmanager
def failing(entry: Entry) -> Iterator[None]:
    """Turn a child's failure into the entry's."""
    try:
        yield
    except ChildError as error:
        entry.failure = str(error)


def compete(
    case: Case, children: Children, runners: Sequence[Contestant], rounds: int
) -> list[Entry]:
    """Load the case into all, and let them take turns."""
    entries = [Entry() for _ in runners]
    checksums = []
    for contestant, entry in zip(runners, entries, strict=True):
        with failing(entry):
            answer = children.child(contestant).ask(load=asdict(case))
            checksums.append(answer["crc32"])
            if answer["crc32"] != checksums[0]:
                raise ChildError("its NumPy made other data from the same seed")
    reference: np.ndarray | None = None
    for turn in range(rounds + 1):
        for contestant, entry in zip(runners, entries, strict=True):
            if entry.failure or turn > contestant.most_rounds:
                continue
            with failing(entry):
                seconds, means = one_turn(children.child(contestant), entry)
                if means is not None:
                    reference = means if reference is None else reference
                    agree(means, reference, AGREEMENT[contestant.precision])
                if turn:
                    entry.seconds.append(seconds)
    return entries


def one_turn(child: Child, entry: Entry) -> tuple[float, np.ndarray | None]:
    """Seconds of an iteration, and the means after `MANY`."""
    few, many = child.ask(run=FEW), child.ask(run=MANY)
    # Spark stops where the log-likelihood stands still; whoever does less with the start
    # that all have is found out by its means.
    more = many["iterations"] - few["iterations"]
    if more < 1:
        raise ChildError(f"made {more} iterations more when asked for {MANY} than for {FEW}")
    entry.threads = max(entry.threads, many["processor_seconds"] / many["seconds"])
    means = None if many["means"] is None else np.array(many["means"])
    return (many["seconds"] - few["seconds"]) / more, means


def agree(means: np.ndarray, reference: np.ndarray, allowed: float) -> None:
    """Fail unless two contestants came to the same means."""
    apart = float(np.abs(means - reference).max())
    if not apart <= allowed:  # NaN too
        raise ChildError(f"after {MANY} iterations its means are {apart:.1g} from the first's")


def peak(dtype: str) -> float:
    """Flops per second of a square product of matrices, the best of several."""
    A = np.random.default_rng(0).normal(size=(1024, 1024)).astype(dtype)
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        A @ A
        best = min(best, time.perf_counter() - start)
    return 2 * 1024**3 / best


def useful_flops(case: Case) -> float:
    """Of the two products with 1, x and the distinct x_i x_j; NaN where nothing was agreed."""
    return 2.0 * case.n * case.k * case.d * (case.d + 3) if case.kind == "full" else np.nan


def cell(entry: Entry, ours: Sequence[Entry], share: float, notes: list[str], who: str) -> str:
    """Seconds, ratios to each of ours, share of the peak; or which note has the reason."""
    if entry.failure:
        note = f"{who}: {entry.failure}"
        if note not in notes:
            notes.append(note)
        return f"see [{notes.index(note) + 1}]"
    if not entry.median > 0:
        return "too quick to time"
    ratios = [f"x{entry.median / o.median:.2f}" for o in ours if o is not entry and o.median > 0]
    shares = [] if np.isnan(share) else [f"{share:.0%}"]
    return ", ".join([f"{entry.median:.3g} s", *ratios, *shares])


Results = dict[Case, dict[Contestant, Entry]]


def report(results: Results, precision: str, peak_flops: float, notes: list[str]) -> str:
    """One table: a row a case, a column a contestant."""
    columns = [c for c in next(iter(results.values())) if c.precision == precision]
    if not columns:
        return ""
    rows = []
    for case, entries in results.items():
        ours = [entries[c] for c in columns if c.peer == "ours"]
        row = [f"{case.n}, {case.d}, {case.k}", f"{case.sep:g}", case.kind]
        for contestant in columns:
            entry = entries[contestant]
            share = useful_flops(case) / entry.median / peak_flops
            lacks = not contestant.able(case)
            who = f"{contestant.label}, {precision}"
            row.append("-" if lacks else cell(entry, ours, share, notes, who))
            if entry.threads > BUSY:
                notes.append(f"{who}, {case.name}: {entry.threads:.1f} threads were busy")
        rows.append(row)
    header = ["n, d, k", "sep", "covariance", *(c.label for c in columns)]
    title = f"### {precision} (a square product of 1024: {peak_flops / 1e9:.0f} GFLOP/s)"
    return f"{title}\n\n{table(header, rows)}"


def describe(options: argparse.Namespace, versions: dict[str, str]) -> str:
    """What the tables show, and what they were measured with."""
    command = "python tests/benchmarks/peers.py"
    if options.scale != 1:
        command += f" --scale {options.scale:g}"
    found = "; ".join(f"{peer}: {which}" for peer, which in versions.items())
    return (
        f"`{command}`; {machine('numpy')}. {found}. Seconds of one EM iteration in memory, one "
        f"thread each, alternating, median of {options.rounds} (gmmx, pomegranate and Spark: at "
        "most 3). After the seconds: how many times those of each of ours, in our columns' order; "
        "and for full covariances the share of the matrix-multiply peak, at the useful 2 n k d (d "
        "+ 3) flops. All begin at the same start, and agree after three iterations, but Spark, "
        "which takes none. oneDAL, pomegranate, gmmx and Spark have not all structures, gmmx has "
        "no float64, and Spark takes "
        "minutes where columns are many (-)."
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--save", action="store_true", help="write the tables into RESULTS.md")
    parser.add_argument("--cases", nargs="+", metavar="TEXT", help="cases with this in their name")
    parser.add_argument("--peers", nargs="+", choices=list(REQUIREMENTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="times the rows of each case")
    parser.add_argument("--environments", type=Path, default=DEFAULT)
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for one answer")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}, expected 1 or more")
    wanted = options.cases or [""]
    options.cases = [c for c in CASES if any(text in c.name for text in wanted)]
    if not options.cases:
        parser.error(f"no case has {wanted} in its name: {', '.join(c.name for c in CASES)}")
    return options


def scaled(case: Case, scale: float) -> Case:
    """The case with fewer rows, but enough that no covariance is singular."""
    return replace(case, n=min(case.n, max(int(case.n * scale), 4 * case.k * case.d)))


def run(options: argparse.Namespace, children: Children) -> str:
    """All cases, and the text of their results."""
    runners = [c for c in contestants() if not options.peers or c.peer in options.peers]
    peaks = {"float64": 0.0, "float32": 0.0}
    results: Results = {}
    for case in (scaled(c, options.scale) for c in options.cases):
        for dtype in peaks:
            peaks[dtype] = max(peaks[dtype], peak(dtype))
        able = [c for c in runners if c.able(case)]
        done = dict(zip(able, compete(case, children, able, options.rounds), strict=True))
        results[case] = {c: done.get(c, Entry()) for c in runners}
        for contestant, entry in done.items():
            outcome = entry.failure or f"{entry.median:.4f} s"
            print(case.name, contestant.label, contestant.precision, outcome, flush=True)
    notes: list[str] = []
    tables = [report(results, dtype, flops, notes) for dtype, flops in peaks.items()]
    numbered = [f"[{i}] {note}  " for i, note in enumerate(notes, 1)]
    parts = [describe(options, children.versions), *filter(None, tables), "\n".join(numbered)]
    return "\n\n".join(parts).strip()


def main(arguments: Sequence[str] | None = None) -> Any:
    options = parse(arguments)
    children = Children(options.environments.expanduser().resolve(), options.limit)
    try:
        text = run(options, children)
    finally:
        children.stop()
    print("\n" + text)
    if options.save:
        save("One iteration beside the peers", text)


if __name__ == "__main__":
    sys.exit(main())
