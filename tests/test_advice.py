"""Every message that gives advice: what it names exists, and following it works.

The messages are found in the source. Each has a row below: one that provokes it and follows its
advice, or one that says why no test can.
"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import dask
import numpy as np
import pytest
from click.testing import CliRunner
from helpers import blobs, write_zarr

import dask_em
from dask_em import Checkpointing, GaussianMixture, load, select
from dask_em.cli.main import main
from dask_em.core.em import EMState
from dask_em.jobs import predict as predict_jobs
from dask_em.jobs import report as report_jobs

PACKAGE = Path(dask_em.__file__).parent
ROOT = Path(__file__).parent.parent

# -- the messages --------------------------------------------------------------------

OPTION = re.compile(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*")
ARGUMENT = re.compile(r"(?<![\w.])([a-z][a-z_]*)=(?=[\w\"'\[{(])")
INSTALL = re.compile(r"pip install (?:--upgrade )?'?dask-em\[([a-z0-9{},]+)\]")
# Rooms whose texts are pages, or classes that tests inherit.
NO_MESSAGES = ("testing/", "report/style.py", "report/svg.py")


@dataclass(frozen=True)
class Message:
    """A text of the source with `{}` where values go."""

    place: str
    text: str

    @property
    def advises(self) -> bool:
        """Whether it names an option, an argument or a command to install something."""
        return any(pattern.search(self.text) for pattern in (OPTION, ARGUMENT, INSTALL))


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

# -- what they name exists -----------------------------------------------------------

CLUSTER = ("fit", "predict", "score", "report", "plan", "doctor", "demo")
READING = ("fit", "predict", "score", "report", "plan", "doctor")
# Which commands can print the messages of a file; the first that matches. What is in no row can be
# printed by no command.
PRINTED_BY: dict[str, tuple[str, ...]] = {
    "backends/": ("fit", "predict", "score", "report"),
    "data/": READING,
    "estimators/select.py": ("fit",),
    "fitting/": ("fit",),
    "jobs/checks/": ("doctor",),
    "jobs/cluster.py": CLUSTER,
    "jobs/commit.py": ("fit",),
    "jobs/fit.py": ("fit",),
    "jobs/plan.py": ("fit", "plan", "doctor"),
    "jobs/report.py": ("report",),
    "storage/checkpoint.py": ("fit",),
    "storage/object_store.py": ("fit", "predict", "report"),
    "storage/outputs/resumable.py": ("predict",),
    "storage/outputs/staging.py": ("fit", "predict", "report", "demo"),
}
# What commands lack, though a message that they may print names it.
LACKING = {
    "--missing-chunks": {"plan"},
}
# Arguments of other libraries, as advice names them.
OTHERS = {
    "np.load": {"mmap_mode"},
    "zarr": {"mode", "write_empty_chunks"},
    "dask": {"dtype", "meta", "scheduler"},
    "DataFrame.to_dask_array": {"lengths"},
    "DataArray": {"axis", "name", "row"},
}


def options_of(command: str) -> set[str]:
    found = main.commands[command]  # type: ignore[attr-defined]
    names = {name for p in found.params for name in (*p.opts, *p.secondary_opts)}
    return {name for name in names if name.startswith("--")} | {"--help"}


def printed_by(message: Message) -> tuple[str, ...]:
    return next((who for start, who in PRINTED_BY.items() if message.place.startswith(start)), ())


def arguments() -> set[str]:
    """Every argument of the public functions and methods, and those of other libraries."""
    public: list[Any] = [GaussianMixture, Checkpointing, select, load]
    public += [m for _, m in inspect.getmembers(GaussianMixture, inspect.isfunction)]
    ours = {name for function in public for name in inspect.signature(function).parameters}
    return ours.union(*OTHERS.values())


INVENTED = Message("fitting/none.py:1", "pass --no-such-thing, or such_a_thing=3")


def test_what_does_not_exist_is_found() -> None:
    assert INVENTED.advises
    assert row_of(INVENTED) is None
    for text in ("pass --no-such-thing", "pass such_a_thing=3", "pip install 'dask-em[nothing]'"):
        with pytest.raises(AssertionError):
            test_what_is_named_exists(Message("fitting/none.py:1", text))
    with pytest.raises(AssertionError, match="predict has no --holdout"):
        test_what_is_named_exists(Message("data/none.py:1", "pass --holdout 0.1"))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.place)
def test_what_is_named_exists(message: Message) -> None:
    assert isinstance(main, click.Group)
    everywhere = set().union(*(options_of(name) for name in main.commands))
    for option in OPTION.findall(message.text.replace("pip install --upgrade", "")):
        assert option in everywhere, message.text
        for command in printed_by(message):
            known = command in LACKING.get(option, ())
            assert known or option in options_of(command), f"{command} has no {option}"
    assert set(ARGUMENT.findall(message.text)) <= arguments(), message.text
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for named in INSTALL.findall(message.text):
        assert set(named.split(",")) <= {*extras["optional-dependencies"], "{}"}, message.text


# -- and following it works ----------------------------------------------------------

X = blobs(400, 2, 2, apart=6.0)[0]
NEARLY = X + 1e-12
OVERLAPPING = blobs(400, 2, 2, apart=1.2)[0]


def fit(rows: Any = X, **options: Any) -> GaussianMixture:
    return GaussianMixture(**{"n_components": 2, "random_state": 0, **options}).fit(rows)


def said(act: Callable[[], object]) -> str:
    """What an act warns of, or is refused with; rows that are left out as asked are counted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            act()
        except Exception as e:
            return " ".join([str(e), *getattr(e, "__notes__", [])])
    found = [str(w.message) for w in caught]
    return " ".join(text for text in found if "were left out of the fit" not in text)


def program(*words: object) -> str:
    """What the program says in this process, without a cluster; nothing where all was well."""
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        for jobs in (predict_jobs, report_jobs):
            patch.setattr(jobs, "workers_for", lambda where, nbytes: nullcontext())
        result = CliRunner().invoke(main, [*map(str, words)])
    return "" if result.exit_code == 0 else result.stderr


def stored(folder: Path, rows: np.ndarray = X) -> Path:
    if not (folder / "x.zarr").exists():
        write_zarr(folder / "x.zarr", rows, 100)
    return folder / "x.zarr"


def holey(folder: Path) -> Path:
    """A store of which one chunk is not there."""
    path = stored(folder)
    (path / "c/1/0").unlink(missing_ok=True)
    return path


def saved(folder: Path) -> Path:
    if not (folder / "m.npz").exists():
        fit(stored(folder)).save(folder / "m.npz")
    return folder / "m.npz"


def predicted(folder: Path, *more: str) -> str:
    return program("predict", saved(folder), stored(folder), folder / "answers.zarr", *more)


def reported(folder: Path, *more: object) -> str:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    return program("report", saved(folder), folder / "r.html", *more)


def stopped(folder: Path) -> None:
    """Leave the unfinished fit of X in a folder."""

    def stop(state: EMState) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(checkpoint=Checkpointing(folder / "kept"), callbacks=[stop])


def going_on_in(folder: Path, rows: np.ndarray, how: dict[str, Any], **options: Any) -> str:
    """What another fit says in the folder of the one that was stopped."""
    stopped(folder)
    checkpoint = Checkpointing(folder / "kept", **how)
    return said(lambda: fit(rows, checkpoint=checkpoint, **options))


def refit(**options: Any) -> GaussianMixture:
    """A warm start of another shape than the fit before."""
    model = GaussianMixture(2, random_state=0, warm_start=True).fit(X)
    return model.set_params(**options).fit(X)


with_nan, few = np.vstack([X, [[np.nan, 1.0]]]), X[:3]
masked = np.ma.masked_array(X, X > 6)


def going_on() -> str:
    """What the last of several fits says of which each starts where the one before ended."""
    model = GaussianMixture(2, random_state=0, warm_start=True, tol=1e-4, algorithm="em")
    model.set_params(max_iter=20)
    last = ""
    for _ in range(20):
        last = said(lambda: model.fit(OVERLAPPING))
    return last


def long(**options: Any) -> str:
    """What a fit says that takes many iterations."""
    return said(lambda: fit(OVERLAPPING, algorithm="em", **{"tol": 1e-9, **options}))


@dataclass(frozen=True)
class Followed:
    """A message, known by some of its words: how it comes, and what follows each advice.

    An advice that works says nothing: neither an error nor a warning.
    """

    words: str
    provoke: Callable[[Path], str]
    follow: tuple[Callable[[Path], str], ...]


FOLLOWED = [
    Followed("max_iter passes were made", lambda p: long(max_iter=2), (
        lambda p: long(max_iter=10_000),
        lambda p: long(max_iter=2, tol=10.0),
        lambda p: going_on(),
    )),
    Followed("max_passes passes were made", lambda p: long(max_passes=4), (
        lambda p: long(max_passes=10_000, max_iter=10_000),
        lambda p: long(max_passes=4, tol=10.0),
    )),
    Followed(
        'nonfinite="drop"', lambda p: said(lambda: fit(with_nan)),
        (lambda p: said(lambda: fit(with_nan, nonfinite="drop")),),
    ),
    Followed(
        "rows (of positive weight) and n_components",
        lambda p: said(lambda: fit(few, n_components=4)),
        (lambda p: said(lambda: fit(few, n_components=1)),),
    ),
    Followed("masked numbers are NaN", lambda p: said(lambda: fit(masked)), (
        lambda p: said(lambda: fit(masked, nonfinite="drop")),
    )),
    Followed("is not small beside the variance of", lambda p: said(lambda: fit(X * 1e-4)), (
        lambda p: said(lambda: fit(X * 1e-4, reg_covar=0)),
    )),
    Followed(
        "'cuda' cannot be had in", lambda p: said(lambda: fit(device="cuda")),
        (lambda p: said(lambda: fit(device="cpu")),),
    ),
    Followed(
        "the last fit was of {} covariances",
        lambda p: said(lambda: refit(covariance_type="diag")),
        (lambda p: said(lambda: refit(covariance_type="diag", warm_start=False)),),
    ),
    Followed(
        "needs rows to score",
        lambda p: said(lambda: select(X, [1, 2], criterion="holdout")),
        (lambda p: said(lambda: select(X, [1, 2], criterion="holdout", holdout=0.1)),),
    ),
    Followed("restore them; or, if they were never", lambda p: said(lambda: fit(holey(p))), (
        lambda p: said(lambda: fit(holey(p), n_components=1, missing_chunks="fill")),
    )),
    Followed("a .npy file is opened by", lambda p: (
        np.save(p / "x.npy", X), said(lambda: fit(p / "x.npy"))  # type: ignore[func-returns-value]
    )[1], (lambda p: said(lambda: fit(np.load(p / "x.npy", mmap_mode="r"))),)),
    Followed(
        "pass resume=False",
        lambda p: going_on_in(p, X, {}, n_components=3),
        (lambda p: said(lambda: fit(
            n_components=3, checkpoint=Checkpointing(p / "kept", resume=False)
        )),),
    ),
    Followed(
        "where they are",
        lambda p: going_on_in(p, NEARLY, {}),
        (lambda p: said(lambda: fit(NEARLY, checkpoint=Checkpointing(p / "kept", force=True))),),
    ),
    Followed("exists; choose another name or pass", lambda p: predicted(p) or predicted(p), (
        lambda p: predicted(p, "--overwrite"),
    )),
    Followed("The drift over chunks: run the report", lambda p: (
        reported(p, "--no-drift") + (p / "r.html").read_text()
    ), (lambda p: reported(p, "--overwrite"),)),
    Followed("Pass --data DATA for pictures", lambda p: (
        fit(X).save(p / "m.npz"), reported(p) + (p / "r.html").read_text()  # type: ignore[func-returns-value]
    )[1], (lambda p: reported(p, "--overwrite", "--data", stored(p)),)),
    Followed(
        "try 2GiB",
        lambda p: program("plan", stored(p), "-k", 2, "--no-probe", "--memory-limit", "much"),
        (lambda p: program("plan", stored(p), "-k", 2, "--no-probe", "--memory-limit", "2GiB"),),
    ),
    Followed(
        "and Dask pauses it at",
        lambda p: program("plan", stored(p), "-k", 2, "--no-probe", "--memory-limit", "1MiB"),
        (lambda p: program("plan", stored(p), "-k", 2, "--no-probe", "--memory-limit", "1GiB"),),
    ),
    Followed(
        "--family {}: expected one of",
        lambda p: program("plan", stored(p), "-k", 2, "--no-probe", "--family", "other"),
        (lambda p: program(
            "plan", stored(p), "-k", 2, "--no-probe", "--family", "gaussian-mixture"
        ),),
    ),
]  # fmt: skip

# Why no test follows the advice of a message here: part of its text, and the reason.
INSTALLS = "what it installs is there, or not to be had, where tests run"
OF_OTHERS = "values of other libraries: the tests of their source"
CERTIFICATES = "it needs certificates: tests/faults/test_security.py"
NOT_FOLLOWED = {
    "pip install": INSTALLS,
    "CuPy cannot be imported": INSTALLS,
    "give workers more memory (--memory-limit)": "a worker dies: tests/faults/test_cluster.py",
    "Begin with `dask-em demo`": "the program's own help",
    "max_time seconds were over": "it ends by the clock: tests/test_endings.py",
    "the time limit is reached before there is a model": "by the clock: tests/test_endings.py",
    "has no array namespace": "it says what is expected",
    "callbacks={}: expected": "it says what is expected",
    "checkpoint={}: expected": "it says what is expected",
    "random_state={}: expected": "it says what is expected",
    "criterion={}: expected": "it says what is expected",
    "holdout={}: expected": "it says what is expected",
    "covariance_type={}: expected": "it says what is expected",
    "X is a {}; pass a Dask array": "it needs Dask's DataFrames",
    "has the dimensions {}: expected rows and columns": "tests/test_xarray.py follows it",
    "lies in shards within shards": "tests/test_sources.py and tests/test_data_faults.py",
    "the last fit was of n_components=": "of other families: tests/test_strangers.py",
    "MB: no cluster started": "other tests of the command line start one by --workers 1",
    "drew none of any weight": "a chance that no test can wait for",
    "plain TCP, which nobody asked to be TLS": CERTIFICATES,
    "--require-tls": CERTIFICATES,
    "--scheduler: an address holds no": "it says what is expected",
    "there is no certificate to show": CERTIFICATES,
    "local workers": "a figure of the machine: tests/test_doctor.py",
    "results cannot be waited for in the thread": "it needs a loop that runs: the tests of clients",
    "of sparse blocks": OF_OTHERS,
    "is a sparse matrix of AnnData": OF_OTHERS,
    "zarr.open_group(": OF_OTHERS,
    "holds packed numbers": OF_OTHERS,
    "expand_dims(": OF_OTHERS,
    "stack(row=": OF_OTHERS,
    "dtype={}: expected": "it says what is expected",
    "fitted to rows with weights": "tests/test_reference.py",
    "degenerate components": "what it advises depends on the column: the tests of what it finds",
    "has a covariance of its own": "what it advises depends on the rows: tests/test_numerics.py",
    "is a file; expected a folder": "it says what is expected: tests/test_doctor.py",
    "make room, or pass --checkpoint": "it needs a full disk: tests/faults/test_disk_full.py",
    "is the model itself; choose another folder": "it says what is expected: tests/test_cli.py",
    ", or add --no-resume to throw it away": "tests/test_resume.py",
    "--family {} has no": "it needs a stranger's family: tests/test_strangers.py",
    "this process ran out of memory": "it needs a limit of memory: tests/test_endings.py",
    "keeps the unfinished fit of other data": "tests/test_resume.py",
    "holds unfinished work of another kind": "tests/test_predict.py",
    "is damaged or not of this program": "tests/test_predict.py",
}


def row_of(message: Message) -> str | None:
    """The words by which a message is known in the tables."""
    known = [row.words for row in FOLLOWED] + list(NOT_FOLLOWED)
    return next((words for words in known if words in message.text), None)


def test_every_message_has_a_row(record_property: Callable[[str, object], None]) -> None:
    unknown = [f"{m.place}: {m.text}" for m in MESSAGES if row_of(m) is None]
    assert unknown == [], "give each a row of FOLLOWED, or of NOT_FOLLOWED with the reason"
    followed = sum(row_of(m) in {row.words for row in FOLLOWED} for m in MESSAGES)
    record_property("messages that give advice", len(MESSAGES))
    record_property("of which followed", followed)
    print(f"{len(MESSAGES)} messages give advice; that of {followed} is followed here")
    assert followed >= len(MESSAGES) // 4


@pytest.mark.parametrize("row", FOLLOWED, ids=lambda row: row.words)
@pytest.mark.usefixtures("synchronous")
def test_advice_works(row: Followed, tmp_path: Path) -> None:
    words = re.escape(row.words).replace(re.escape("{}"), ".*?")
    assert re.search(words, row.provoke(tmp_path), re.DOTALL)
    for number, follow in enumerate(row.follow):
        assert follow(tmp_path) == "", f"advice {number} of {row.words!r}"
