"""What is seen of a fit while it runs, and two counts everywhere: reads of the data, and work on
the sample."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
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
    Observer,
    PassEnded,
    PassFailed,
    PassRecord,
    PassStarted,
    RowsDone,
    Totals,
)
from dask_em.fitting.progress import (
    NotebookProgress,
    PrintedLines,
    ProgressBar,
    reporter,
)
from dask_em.jobs.inspect import inspect
from dask_em.report.evidence import Evidence
from dask_em.report.page import report_html

N = 3000
X = blobs(N, 3, 3)[0]


class Kernel(io.StringIO):
    """Standard error of a notebook's kernel: no terminal, and of the module `ipykernel`."""


Kernel.__module__ = "ipykernel.iostream"


class Page:
    """Outputs as a notebook keeps them: the newest in each place."""

    def __init__(self) -> None:
        self.outputs: list[list[dict[str, str]]] = []

    def show(self, output: dict[str, str]) -> Callable[[dict[str, str]], None]:
        self.outputs.append([output])
        return self.outputs[-1].append

    @property
    def lines(self) -> list[str]:
        return [place[-1]["text/plain"] for place in self.outputs]


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


def test_a_notebook_shows_a_line_a_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page()
    monkeypatch.setattr("dask_em.fitting.progress._shown_by_ipython", page.show)
    monkeypatch.setattr(sys, "stderr", Kernel())
    monkeypatch.setattr(NotebookProgress, "seconds", 0.0)
    model = GaussianMixture(3, random_state=0, verbose=1, algorithm="em", tol=1e-5).fit(X)
    n_em = model.n_reads_ - 1
    assert n_em > 1
    survey, em = page.lines[0], page.lines[-1]
    assert len(page.lines) == 2 + any("start" in line for line in page.lines)
    assert survey.startswith(f"survey pass 1: {N} rows in ")
    assert em.startswith(f"em pass {n_em}: {N} rows in ")
    assert f"nats/row; {n_em} passes in " in em
    # Rows are counted while a pass is made, in the same place, and a bar shows them.
    running = [
        output for output in page.outputs[0] if f"{N:,} of {N:,} rows" in output["text/html"]
    ]
    assert f'value="{N}" max="{N}"' in running[0]["text/html"]
    assert "<progress" not in page.outputs[0][-1]["text/html"]
    before = page.lines
    GaussianMixture(3, random_state=0).fit(X)
    assert page.lines == before


def test_a_stopped_pass_says_so_in_its_place() -> None:
    page = Page()
    progress = NotebookProgress(page.show)
    progress.notify(PassStarted("em", 2, 1000))
    progress.notify(RowsDone(400))
    progress.notify(PassFailed("em", 2))
    assert page.lines == ["em 2: stopped after 400 rows"]


@pytest.mark.slow
def test_a_notebook_keeps_a_line_a_phase(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="pip install nbclient ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="pip install nbclient ipykernel")
    np.save(tmp_path / "x.npy", X)
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import numpy as np; from dask_em import GaussianMixture\n"
        "GaussianMixture(3, random_state=0, verbose=1).fit(np.load('x.npy')).n_iter_"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    resources = {"metadata": {"path": tmp_path}}
    nbclient.NotebookClient(book, timeout=HANG, resources=resources).execute()
    told = [output["data"]["text/plain"] for output in book.cells[0].outputs]
    phases = [line.partition(" pass ")[0] for line in told[:-1]]
    assert (phases[0], phases[-1], len(set(phases))) == ("survey", "em", len(phases))


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
    assert isinstance(reporter(Kernel(), verbose=True), NotebookProgress)
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


@pytest.mark.parametrize("where", ["terminal", "notebook"])
def test_a_bar_names_the_sample(where: str) -> None:
    stream, page = Terminal(), Page()
    bar: Observer = ProgressBar(stream) if where == "terminal" else NotebookProgress(page.show)
    for phase in ("start", "em"):
        bar.notify(PassStarted(phase, 1, 1000))
        bar.notify(RowsDone(500))
        bar.notify(PassEnded(PassRecord(phase, 1, 0.5, 1000, 0)))
    bar.notify(PassStarted("em", 2, 1000))
    bar.notify(PassFailed("em", 2))
    seen = [output["text/plain"] for place in page.outputs for output in place]
    shown = stream.getvalue() or "\n".join(seen)
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
