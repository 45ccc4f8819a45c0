"""What is seen of a fit while it runs, and two counts everywhere: reads of the data, and work on
the sample."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import HANG, blobs, write_zarr

from dask_em import GaussianMixture, load, select
from dask_em.cli.logs import JsonLines
from dask_em.cli.main import main
from dask_em.estimators.html import summary_html
from dask_em.fitting.observers import (
    LogLines,
    NotebookLines,
    Observer,
    PassEnded,
    PassFailed,
    PassRecord,
    PassStarted,
    PrintedLines,
    ProgressBar,
    RowsDone,
    Totals,
    reporter,
)
from dask_em.jobs.inspect import inspect
from dask_em.report.drift import Evidence
from dask_em.report.page import report_html

N = 3000
X = blobs(N, 3, 3)[0]


class Kernel(io.StringIO):
    """Standard error of a notebook's kernel: no terminal, and of the module `ipykernel`."""

    def seen(self) -> str:
        """What a front-end shows: a carriage return goes back, an erased line is gone."""
        lines = []
        for line in self.getvalue().split("\n"):
            shown = ""
            for part in line.split("\r"):
                shown = part.removeprefix("\x1b[K") if part.startswith("\x1b[K") else part
            lines.append(shown)
        return "\n".join(lines)


Kernel.__module__ = "ipykernel.iostream"


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def unheard() -> Iterator[None]:
    """Nobody reads the log, as in a fresh process: the program, called here, would."""
    logger = logging.getLogger("dask_em")
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:], logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture(scope="module")
def model() -> GaussianMixture:
    return GaussianMixture(3, random_state=0).fit(X)


def test_a_notebook_shows_the_passes_of_a_verbose_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    monkeypatch.setattr(sys, "stderr", kernel)
    monkeypatch.setattr(NotebookLines, "seconds", 0.0)
    model = GaussianMixture(3, random_state=0, verbose=1).fit(X)
    lines = kernel.seen().splitlines()
    assert sum("pass" in line for line in lines) == model.n_reads_
    assert lines[0].startswith(f"survey pass 1: {N} rows in ")
    # Rows are counted while a pass is made, over the same line.
    assert f"\r\x1b[Ksurvey 1: {N:,} of {N:,} rows" in kernel.getvalue()
    assert "survey 1:" not in kernel.seen()
    GaussianMixture(3, random_state=0).fit(X)
    assert kernel.seen().splitlines() == lines


@pytest.mark.parametrize("verbose", [0, 1])
def test_a_verbose_fit_in_a_script_is_seen(verbose: int, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    code = (
        "import numpy as np; from dask_em import GaussianMixture\n"
        f"GaussianMixture(3, random_state=0, verbose={verbose}).fit(np.load('x.npy'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=HANG
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert ("survey pass 1: " in done.stderr) == bool(verbose)
    assert ("em pass 1: " in done.stderr) == bool(verbose)


def test_who_reads_the_log_is_told_there(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="dask_em"):
        assert isinstance(reporter(verbose=True), LogLines)
    assert isinstance(reporter(verbose=True), PrintedLines)
    assert isinstance(reporter(Kernel(), verbose=True), NotebookLines)
    assert isinstance(reporter(Terminal(), verbose=True), ProgressBar)
    # Jobs log, whoever reads it.
    assert isinstance(reporter(Kernel()), LogLines)


# -- reads of the data, and work on the sample ---------------------------------------------

START = PassRecord("start", 1, 0.5, rows=60_000, bytes=0, log_likelihood=-2.5)

EM = PassRecord("em", 1, 0.5, rows=10_000, bytes=80_000, log_likelihood=-2.4)


def test_a_start_is_not_told_as_a_read(caplog: pytest.LogCaptureFixture) -> None:
    totals = Totals()
    with caplog.at_level(logging.INFO, logger="dask_em"):
        for observer in (LogLines(), totals):
            for record in (START, EM):
                observer.notify(PassEnded(record))
        totals.log(0)
    start, em, done = caplog.messages
    assert start.startswith("start on the sample: work on 60000 rows in ")
    assert "none read" in start
    assert em.startswith("em pass 1: 10000 rows in ")
    assert done.startswith("done: 1 passes over the data, ")
    assert "work on 60000 rows of the sample" in done
    told = [json.loads(JsonLines().format(record)) for record in caplog.records]
    assert [line.get("reads") for line in told] == [False, True, None]
    assert (told[2]["passes"], told[2]["sample_rows"]) == (1, 60_000)


@pytest.mark.parametrize("kind", [ProgressBar, NotebookLines])
def test_a_bar_names_the_sample(kind: type[ProgressBar | NotebookLines]) -> None:
    stream = Terminal()
    bar: Observer = kind(stream)
    if isinstance(bar, NotebookLines):
        bar.seconds = 0.0
    for phase in ("start", "em"):
        bar.notify(PassStarted(phase, 1, 1000))
        bar.notify(RowsDone(500))
        bar.notify(PassEnded(PassRecord(phase, 1, 0.5, 1000, 0)))
    bar.notify(PassStarted("em", 2, 1000))
    bar.notify(PassFailed("em", 2))
    shown = stream.getvalue()
    assert "start on the sample" in shown
    assert "em 1" in shown
    assert "start 1" not in shown


@pytest.mark.parametrize("algorithm", ["auto", "em"])
def test_the_two_counts_add_up(algorithm: str, tmp_path: Path) -> None:
    model = GaussianMixture(3, random_state=0, algorithm=algorithm).fit(X)
    phases = [record["phase"] for record in model.history_]
    assert model.n_reads_ == len(phases) == 1 + model.n_iter_
    assert "start" not in phases
    assert model.n_passes_ == pytest.approx(model.n_reads_ + model.n_sample_passes_)
    model.save(tmp_path / "m.npz")
    again, told = load(tmp_path / "m.npz"), inspect(str(tmp_path / "m.npz"))
    counts = (model.n_reads_, model.n_sample_passes_)
    assert (again.n_reads_, again.n_sample_passes_) == counts
    assert (told["n_reads"], told["n_sample_passes"]) == counts


def test_a_given_start_works_on_no_sample() -> None:
    means = X[:3]
    precisions = np.repeat(np.eye(3)[None], 3, axis=0)
    model = GaussianMixture(3, algorithm="em", tol=1e-2, precisions_init=precisions)
    model.set_params(means_init=means, weights_init=np.full(3, 1 / 3)).fit(X)
    assert model.n_sample_passes_ == 0


def test_a_sweep_counts_its_reads() -> None:
    found = select(X, [2, 3], random_state=0)
    assert found.n_reads == found.best.n_reads_ == len(found.history)


def test_people_are_shown_both(model: GaussianMixture, tmp_path: Path) -> None:
    sample = f"{model.n_sample_passes_:.2f}"
    html = re.sub(r"<[^>]+>", " ", summary_html(model))
    assert re.search(rf"passes over the data\s+{model.n_reads_}, ", html)
    assert re.search(rf"work on the sample\s+as much as {re.escape(sample)} passes", html)
    page = re.sub(r"<[^>]+>", " ", report_html(model, Evidence(None)))
    assert re.search(rf"\s{model.n_reads_}\s+passes over the data", page)
    assert re.search(rf"{re.escape(sample)}\s+passes' worth of work on the sample", page)

    model.save(tmp_path / "m.npz")
    both = f"{model.n_reads_} passes over the data and {sample} passes' worth of work on the sample"
    assert both in CliRunner().invoke(main, ["inspect", str(tmp_path / "m.npz")]).stdout
    write_zarr(tmp_path / "x.zarr", X, 1000)
    words = ["fit", str(tmp_path / "x.zarr"), "-k", "3", "-o", str(tmp_path / "n.npz")]
    local = ["--workers", "1", "--memory-limit", "1GiB"]
    done = CliRunner().invoke(main, [*words, *local])
    assert done.exit_code == 0, done.stderr
    fitted = load(tmp_path / "n.npz")
    assert f"converged after {fitted.n_reads_} passes over the data and " in done.stdout
    machines = CliRunner().invoke(main, [*words, *local, "--overwrite", "--json"])
    told = json.loads(machines.stdout)
    assert (told["n_reads"], told["n_sample_passes"]) == (
        fitted.n_reads_,
        fitted.n_sample_passes_,
    )
