"""Advice of the program's jobs, in the words of a shell."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strangers.negative_binomial_mixture  # noqa: F401
import zarr
from helpers import SMALL_READS

from advice.following import (
    Followed,
    Here,
    X,
    connected,
    fit,
    keywords,
    options,
    program,
    said,
    saved,
    stored,
)
from dask_em import write_report
from dask_em.backends.dask import backend as dask_backend
from dask_em.core import reading
from dask_em.core.tuning import use_tuning
from dask_em.runtime import current_job

# -- reports -----------------------------------------------------------------------------


def reported(here: Here, *more: object) -> str:
    """What the page lacks."""
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    said = program("report", saved(here), here.path("r.html"), "--overwrite", *more)
    return said + here.path("r.html").read_text()


def reported_of_memory(here: Here, *more: object) -> str:
    """The same of a model whose rows are in no store."""
    if not here.path("m.npz").exists():
        fit(X).save(here.path("m.npz"))
    return reported(here, *more)


def unless_said(phrase: str, act: Callable[[], str]) -> str:
    """Nothing where an act says no more what it said."""
    return phrase * (phrase in act())


def two_compared(here: Here, *more: object) -> str:
    """What is said of two models that are compared, with weights of the rows."""
    weights = here.path("w.npy")
    np.save(weights, np.ones(len(X)))
    return program("compare", saved(here), saved(here), "--weights", weights, *more)


def drift_scored(here: Here, *more: object) -> str:
    return program("score", saved(here), stored(here), "--drift", saved(here), *more)


def scored(here: Here, *more: object) -> str:
    return program("score", saved(here), stored(here), *more)


def drift_of_days(here: Here, option: str) -> str:
    """What a score says of the drift of each day, of the time that an option names."""
    pa = pytest.importorskip("pyarrow", reason="it is not installed")
    columns = {f"x{j}": column for j, column in enumerate(X.T)}
    days = np.datetime64("2026-01-01", "s") + np.arange(len(X)) * np.timedelta64(1, "h")
    table = here.path("days.parquet")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({**columns, "when": days}), table)
    model = saved(here)
    asked = ("--drift", model, option, "when", "--period", "day", "--exclude", "when")
    return program("score", model, table, *asked)


def page_in_python(here: Here, drift: bool) -> str:
    """What a page says that Python writes."""
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    write_report(fit(X), here.path("p.html"), X, drift=drift, overwrite=True)
    return here.path("p.html").read_text()


REPORTS = [
    Followed("write_report with drift=True", lambda here: page_in_python(here, False), {
        "drift=True": lambda here, words: unless_said(
            "makes the pass", lambda: page_in_python(here, True)
        ),
    }),
    Followed("--drift counts each row once", lambda here: drift_scored(here, "--weights", "w"), {
        "leave --weights away": lambda here, words: drift_scored(here),
    }),
    Followed(
        "--time cuts the rows of a drift", lambda here: scored(here, "--time", "when"), {
            "there is no (--drift)": lambda here, words: scored(here, words, saved(here)),
        },
    ),
    Followed(
        "--period cuts a time", lambda here: scored(here, "--period", "day"), {
            "there is no (--time)": lambda here, words: drift_of_days(here, words),
        },
    ),
    Followed("--weights are of rows: pass", lambda here: two_compared(here), {
        "--data": lambda here, words: two_compared(here, words, stored(here)),
    }),
    Followed("The drift over chunks: run the report", lambda here: reported(
        here, "--no-drift", "--data", stored(here)
    ), {
        "without --no-drift": lambda here, words: unless_said(
            "The drift over chunks: run", lambda: reported(here, "--data", stored(here))
        ),
    }),
    Followed("Pass --data DATA.", lambda here: reported_of_memory(here), {
        "--data": lambda here, words: unless_said(
            "Pass --data DATA", lambda: reported_of_memory(here, words, stored(here))
        ),
    }),
]  # fmt: skip


# -- plans, and the memory of workers ----------------------------------------------------


def planned(here: Here, *more: object, data: Path | None = None) -> str:
    return program("plan", data or stored(here), "-k", 2, "--no-probe", *more)


def plan_of_large(here: Here, chunk_rows: int, threads: int = 1) -> str:
    """What a plan says of data in large chunks, none of which is there."""
    path = here.path(f"{chunk_rows}.zarr")
    zarr.create_array(path, shape=(10**8, 10), chunks=(chunk_rows, 10), dtype="f8", overwrite=True)
    return planned(here, "--memory-limit", "1GiB", "--threads", threads, data=path)


def plan_of_wide(here: Here, *more: object) -> str:
    """What a plan says of so many columns that their full covariances take too much."""
    path = here.path("wide.zarr")
    zarr.create_array(path, shape=(10**5, 600), chunks=(500, 600), dtype="f4", overwrite=True)
    where = ("--memory-limit", "700MiB", "--threads", 1, "-k", 32, *more)
    return planned(here, *where, data=path)


def fitted(here: Here, *more: object, never: str = "") -> str:
    """What a fit says in a new place."""
    output = ("-o", here.path("n.npz"), "--overwrite")
    return program("fit", stored(here), "-k", 2, *output, *more, never=never)


def few_factors(here: Here, *more: object) -> str:
    """What a fit says to whoever asks for a covariance of few factors."""
    return fitted(here, "--memory-limit", "1GiB", *more)


SHARED, IN_ALL = "without a limit share the memory", "may take"

PLANS = [
    Followed("try 2GiB", lambda here: planned(here, "--memory-limit", "much"), {
        r"try (\w+)": lambda here, words: planned(here, "--memory-limit", words),
    }),
    Followed("and Dask pauses it at", lambda here: planned(here, "--memory-limit", "1MiB"), {
        "raise (--memory-limit)": lambda here, words: planned(here, words, "1GiB"),
    }),
    Followed(
        "and Dask pauses it at",
        lambda here: plan_of_large(here, 10**5, threads=64),
        {"lower --(threads)": lambda here, words: plan_of_large(here, 10**5, **{words: 1})},
    ),
    Followed("and Dask pauses it at", lambda here: plan_of_large(here, 10**7), {
        "store the data in chunks smaller than": lambda here, words: plan_of_large(here, 10**5),
    }),
    Followed(
        "or fit covariances of few factors", lambda here: plan_of_wide(here), {
            "which fit: (.*)": lambda here, words: plan_of_wide(here, *words.split()),
        },
    ),
    Followed(
        "few factors in place of a covariance", lambda here: few_factors(
            here, "--covariance", "factor"
        ), {
            "are (--family .*)": lambda here, words: few_factors(
                here, *words.replace("Q", "1").split()
            ),
        },
    ),
    Followed("local workers need about", lambda here: planned(
        here, "--workers", 10**6, "--memory-limit", "1GiB"
    ), {"lower (--workers)": lambda here, words: planned(
        here, words, 1, "--memory-limit", "1GiB"
    )}),
    Followed(SHARED, lambda here: fitted(here, "--memory-limit", 0, never=SHARED), {
        "a (--memory-limit) would": lambda here, words: fitted(here, words, "1GiB", never=SHARED),
    }),
    Followed(IN_ALL, lambda here: fitted(
        here, "--workers", 2, "--memory-limit", "1PiB", never=IN_ALL
    ), {
        "lower (--memory-limit)": lambda here, words: fitted(
            here, "--workers", 2, words, "1GiB", never=IN_ALL
        ),
        "or (--workers)": lambda here, words: fitted(
            here, words, 1, "--memory-limit", "1PiB", never=IN_ALL
        ),
    }),
]  # fmt: skip


# -- families ----------------------------------------------------------------------------


def counts(here: Here, *more: object) -> str:
    rows = np.random.default_rng(0).poisson(5, (400, 2)).astype(float)
    rows[200:] += 60
    output = ("-o", here.path("n.npz"), "--overwrite")
    data = stored(here, rows, "counts.zarr")
    return program("fit", data, "-k", 2, *output, "--family", "negative-binomial-mixture", *more)


def grouped(here: Here, *more: object, columns: str = "0,1") -> str:
    return planned(here, "--family", "mixed", "--group", f"gaussian={columns}", *more)


FAMILIES = [
    Followed("--family {}: expected one of", lambda here: planned(here, "--family", "other"), {
        "one of (.*)": lambda here, words: "".join(
            planned(here, "--family", name) for name in words.strip().split(", ")
        ),
    }),
    Followed("has no --covariance: leave it out", lambda here: counts(
        here, "--covariance", "diag"
    ), {
        "leave it out": lambda here, words: counts(here),
    }),
    Followed("--group names the columns: leave --columns out", lambda here: grouped(
        here, "--columns", "x"
    ), {"leave --columns out": lambda here, words: grouped(here)}),
    Followed("--group: give each family once", lambda here: grouped(
        here, "--group", "gaussian=1", columns="0"
    ), {"with all its columns": lambda here, words: grouped(here)}),
    Followed("--family {} has no {}: leave it out", lambda here: counts(here, "--reg-covar", 1), {
        "leave it out": lambda here, words: counts(here),
    }),
]  # fmt: skip


# -- the time and the memory of a fit ----------------------------------------------------


@contextmanager
def time_for(ranges: int) -> Iterator[None]:
    """Many ranges of chunks, of which the time is over after so many."""
    whole, left = reading.fold_range, [ranges]

    def fold_range(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            current_job().deadline = 0.0
        return whole(*arguments)

    with use_tuning(SMALL_READS), pytest.MonkeyPatch.context() as patch:
        patch.setattr(dask_backend, "fold_range", fold_range)
        yield


ROWS = np.vstack([X] * 10)


def timed(here: Here, *more: object, ranges: int = 3) -> str:
    """What a fit says whose time is over after some of its ranges of chunks."""
    output, data = ("-o", here.path("n.npz")), stored(here, ROWS)
    with time_for(ranges):
        return program("fit", data, "-k", 2, "--checkpoint-interval", 0, *output, *more)


def in_several_runs(here: Here, words: str) -> str:
    """Run the same again until it ends well."""
    for _ in range(100):
        if not (said := timed(here)):
            break
    return said


def stopped_then_changed(here: Here, *more: object) -> str:
    """What a fit says that goes on with other numbers in the same place."""
    if not here.path("x.zarr").exists():
        timed(here, ranges=15)
        zarr.open_array(here.path("x.zarr"))[-100:] = 1.0
    return timed(here, *more, ranges=10**9)


ENDINGS = [
    Followed("the time limit is reached before there is a model", timed, {
        "a longer (--max-time)": lambda here, words: timed(here, words, "1h", ranges=10**9),
    }),
    Followed("the time limit is reached before there is a model", timed, {
        "several runs": in_several_runs,
    }),
    Followed(", or add --no-resume --overwrite", stopped_then_changed, {
        "add (--no-resume --overwrite)": lambda here, words: stopped_then_changed(
            here, *options(words)
        ),
    }),
    Followed("is the model itself; choose another folder", lambda here: fitted(
        here, "--checkpoint", here.path("n.npz")
    ), {
        "choose another folder": lambda here, words: fitted(
            here, "--checkpoint", here.path("kept")
        ),
    }),
    Followed("is a file; expected a folder", lambda here: checked(
        here, stored(here) / "zarr.json"
    ), {
        "expected a folder": lambda here, words: checked(here, here.folder),
    }),
]  # fmt: skip


def checked(here: Here, folder: Path) -> str:
    """What the doctor says of a checkpoint."""
    return connected("doctor", "--scheduler", here.services.plain, "--checkpoint", folder)


# -- answers -----------------------------------------------------------------------------


def predicted(here: Here, *more: object) -> str:
    model, data = saved(here), stored(here)
    return program("predict", model, data, here.path("answers.zarr"), *more)


def interrupted(here: Here) -> Path:
    """Leave half of the answers, of data of which a chunk is cut; return what is kept."""
    last = stored(here, ROWS) / "c/20/0"
    saved(here)
    whole = last.read_bytes()
    last.write_bytes(whole[:-1])
    with use_tuning(SMALL_READS):
        said = predicted(here)
        assert "regions are whole and kept" in said, said
    last.write_bytes(whole)
    return here.path(".answers.zarr.partial")


def of_another_kind(here: Here, *more: object) -> str:
    if not here.path(".answers.zarr.partial").exists():
        interrupted(here)
    with use_tuning(SMALL_READS):
        return predicted(here, "--proba", *more)


def finished(here: Here, words: str) -> str:
    with use_tuning(SMALL_READS):
        return predicted(here)


def damaged(here: Here, *more: object) -> str:
    kept = here.path(".answers.zarr.partial")
    if not kept.exists():
        (header,) = [file for file in interrupted(here).iterdir() if file.suffix == ".json"]
        header.write_text("nothing")
    return predicted(here, *more)


def after_removing(here: Here, folder: str) -> str:
    shutil.rmtree(folder)
    return predicted(here)


def in_bucket(here: Here, name: str, **more: Any) -> str:
    return said(lambda: fit().save(f"{here.services.bucket}/{here.folder.name}/{name}", **more))


EXISTS = "{} exists; choose another name or pass"

ANSWERS = [
    Followed(EXISTS, lambda here: predicted(here) or predicted(here), {
        "--overwrite": lambda here, words: predicted(here, words),
    }, "storage/outputs/files.py"),
    Followed(EXISTS, lambda here: in_bucket(here, "m.npz") or in_bucket(here, "m.npz"), {
        "overwrite=True": lambda here, words: in_bucket(here, "m.npz", **keywords(words)),
        "choose another name": lambda here, words: in_bucket(here, "n.npz"),
    }, "storage/object_store.py"),
    Followed("holds unfinished work of another kind", of_another_kind, {
        "run the command that began it": finished,
    }),
    Followed("holds unfinished work of another kind", of_another_kind, {
        "pass (--no-resume)": of_another_kind,
    }),
    Followed("is damaged or not of this program", damaged, {
        "remove ([^,]+),": after_removing,
    }),
    Followed("is damaged or not of this program", damaged, {
        "pass (--no-resume)": damaged,
    }),
]  # fmt: skip

PROGRAMS = [*REPORTS, *PLANS, *FAMILIES, *ENDINGS, *ANSWERS]
