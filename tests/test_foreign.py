"""Strings that others wrote are shown, on every surface, and nowhere obeyed."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import HANG, blobs, write_zarr
from hypothesis import given
from hypothesis import strategies as st

from dask_em import GaussianMixture
from dask_em.cli.main import main
from dask_em.errors import DaskEMError, NonFiniteError, warn_user
from dask_em.estimators.html import summary_html, text
from dask_em.estimators.names import ColumnNamesError
from dask_em.foreign import HIDDEN, LONGEST, shell_words, shown

# Retitles a window, forges a line, turns the text round, colours, and is no text at all.
HARM = "x\x1b]0;owned\x07\r\n  ok    looks fine\u202e\x9b31m\u2028\ufeff"
# A byte that is no text, as names of files may hold.
HALF = "\udcff"
LOCAL = ["--workers", "1", "--memory-limit", "1GiB"]
X = blobs(400, 2, 2)[0]


def hidden(characters: str) -> set[str]:
    """What a terminal, or who reads it, would not see of some lines."""
    return {c for c in characters if unicodedata.category(c) in HIDDEN} - {"\n", "\u200c", "\u200d"}


anything = st.text(st.characters(exclude_categories=()), max_size=60)


@given(anything)
def test_what_is_shown_is_one_visible_line(value: str) -> None:
    line = shown(value)
    assert hidden(line) == set()
    assert "\n" not in line
    assert shown(line) == line
    assert line.encode().decode() == line


@given(anything, st.integers(8, 40))
def test_what_is_long_is_cut_and_what_is_visible_is_kept(value: str, longest: int) -> None:
    visible = "".join(c for c in value if not hidden(c) and c != "\n")
    assert shown(visible, longest=len(visible) + 1) == visible
    # An escape has ten characters at most.
    assert len(shown(value, longest)) <= 10 * (longest + 3)
    assert len(shown(visible * 40, longest)) <= longest + 3


def test_words_are_those_that_a_shell_takes() -> None:
    words = ["plain", "two words", "it's", "a\nb", "\x1b[31m'\\", "$(id)", "-x", "\u202eü", HALF]
    line = shell_words(words)
    assert hidden(line) == set()
    command = ["bash", "-c", f"printf '%s\\0' {line}"]
    told = subprocess.run(command, capture_output=True, check=True, timeout=HANG).stdout
    assert [*told.split(b"\0")[:-1]] == [word.encode(errors="surrogateescape") for word in words]


# -- surfaces ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a model of bad names, with bad names in the model."""
    path = tmp_path_factory.mktemp("made")
    write_zarr(path / f"{HARM}.zarr", X, 100)
    model = GaussianMixture(2, random_state=0).fit(str(path / f"{HARM}.zarr"))
    model.feature_names_in_ = np.array([HARM, HARM + "$x_{1$"], dtype=object)
    model.provenance_["sweep"] = {
        "criterion": "bic", "holdout": 0.0,
        "table": [{"n_components": k, "covariance_type": "full", "log_likelihood": -1.0,
                   "n_parameters": 5, "aic": 1.0, "bic": 2.0, "icl": 3.0, "holdout": None,
                   "n_passes": 3, "status": "CONVERGED"} for k in (1, 2)],
    }  # fmt: skip
    model.save(path / f"{HARM}.npz")
    return path


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, in a folder of its own, in which this process is."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


COMMANDS = {
    "inspect": ["inspect", f"{HARM}.npz"],
    "report": ["report", f"{HARM}.npz", "r.html", "--no-drift"],
    "report of data": ["report", f"{HARM}.npz", "r.html", "--data", f"{HARM}.zarr"],
    "score": ["score", f"{HARM}.npz", f"{HARM}.zarr"],
    "predict": ["predict", f"{HARM}.npz", f"{HARM}.zarr", f"{HARM} new.zarr"],
    "plan": ["plan", f"{HARM}.zarr", "-k", "2", "--no-probe"],
    "compare": ["compare", f"{HARM}.npz", f"{HARM}.npz", "--data", f"{HARM}.zarr"],
    "adapt": ["adapt", f"{HARM}.npz", f"{HARM}.zarr", "-o", f"{HARM} adapted.npz"],
    "update": ["update", f"{HARM}.npz", f"{HARM}.zarr"],
    "fit": ["fit", f"{HARM}.zarr", "-k", "2", "-o", f"{HARM} new.npz", *LOCAL],
    "demo": ["demo", f"{HARM} demo", "--rows", "1000"],
    "no model": ["inspect", f"{HARM}{HALF}.npz"],
    "no data": ["fit", f"{HARM}{HALF}.zarr", "-k", "2", "-o", "new.npz"],
    "no folder": ["predict", f"{HARM}.npz", f"{HARM}.zarr", f"{HARM}{HALF}/new.zarr"],
    "taken": ["fit", f"{HARM}.zarr", "-k", "2", "-o", f"{HARM}.npz"],
    "a store for a model": ["inspect", f"{HARM}.zarr"],
    "a model for a store": ["score", f"{HARM}.npz", f"{HARM}.npz"],
    "no such option": ["inspect", f"--{HARM}{HALF}"],
    "no such word": ["fit", f"{HARM}.zarr", "-k", HARM, "-o", "new.npz"],
    "too many": ["inspect", "a", f"{HARM}{HALF}"],
    "doctor": ["doctor", f"{HARM}.zarr", "-k", "2", *LOCAL],
}

# They tell of numbers alone.
SILENT = {"report of data", "score"}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("name", "form"),
    [(name, []) for name in COMMANDS]
    + [(name, ["--json"]) for name in ("inspect", "report", "plan", "no model", "taken", "doctor")],
)
def test_a_terminal_sees_names_and_obeys_none(name: str, form: list[str], folder: Path) -> None:
    if name.startswith(("report", "demo")):
        pytest.importorskip("matplotlib")
    result = CliRunner().invoke(main, [*COMMANDS[name], *form])
    assert "Traceback" not in result.stderr, result.stderr
    for said in (result.stdout, result.stderr):
        assert hidden(said) == set()
        assert not re.search(r"(?m)^ *ok +looks fine", said)
    assert r"\x1b" in result.stdout + result.stderr or form or name in SILENT
    if form and result.stdout:
        json.loads(result.stdout)


def test_a_page_and_its_pictures_show_names_and_obey_none(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ["report", f"{HARM}.npz", "r.html", "--data", f"{HARM}.zarr"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.stderr
    page = Path("r.html").read_bytes().decode("ascii")
    assert hidden(page) == set()
    # No reference to a character brings one back.
    characters = "".join(chr(int(n)) for n in re.findall(r"&#(\d+);", page))
    assert hidden(characters) == set()
    assert page.count(r"x\x1b]0;owned") > 5


def test_a_notebook_shows_names_and_obeys_none(folder: Path) -> None:
    from dask_em import load

    html = summary_html(load(f"{HARM}.npz"))
    assert hidden(html) == set()
    assert r"\x1b" in html
    assert len(text("a" * 10**6)) < 2 * LONGEST


class Kept(logging.Handler):
    """Keeps the lines of a log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def log() -> Iterator[Kept]:
    logger, kept = logging.getLogger("dask_em"), Kept()
    logger.addHandler(kept)
    yield kept
    logger.removeHandler(kept)


def test_a_record_of_the_log_is_one_visible_line(log: Kept) -> None:
    logging.getLogger("dask_em").warning("%s has %d rows", HARM + HALF, 5)
    (line,) = log.lines
    assert hidden(line) == set()
    assert line.endswith("has 5 rows")


def kinds(base: type[DaskEMError] = DaskEMError) -> Iterator[type[DaskEMError]]:
    yield base
    for derived in base.__subclasses__():
        yield from kinds(derived)


@pytest.mark.parametrize("kind", [*kinds()], ids=lambda kind: kind.__name__)
def test_an_error_is_one_visible_line(kind: Any) -> None:
    given: list[Any] = [f"{HARM}{HALF}: no such file"]
    if kind is NonFiniteError:
        given = ["NaN", 1, 2, *given]
    if kind is ColumnNamesError:
        given = [*given, *given]
    said = str(kind(*given))
    assert hidden(said) == set()
    assert ": no such file" in said


def test_a_warning_is_one_visible_line() -> None:
    with pytest.warns(UserWarning, match="looks fine") as caught:
        warn_user(HARM + HALF)
    assert hidden(str(caught[0].message)) == set()


def test_a_fault_of_ours_shows_what_it_was_of_and_obeys_none(tmp_path: Path) -> None:
    code = (
        "from dask_em.cli import main; from dask_em.jobs import inspect\n"
        f"def fail(path): raise RuntimeError({HARM!r})\n"
        "inspect.inspect = fail; main(['inspect', 'm.npz'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=HANG
    )
    assert done.returncode == 70
    assert "Traceback" in done.stderr
    assert hidden(done.stderr) == set()
