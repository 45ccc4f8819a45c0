"""Advice on what is ingested: files not written as they seem, columns that cannot be kept."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import pytest

import dask_em
from advice.following import Followed, Here, X, hidden, installing, keywords, program, said

ROWS = "".join(f"{i},{i / 4}\n" for i in range(40))


def table(here: Here, text: str, *more: str) -> str:
    """What `dask-em ingest` says of a CSV file."""
    here.path("x.csv").write_text(text)
    return program("ingest", here.path("x.csv"), here.path("out.zarr"), "--overwrite", *more)


def again(text: str, *first: str) -> Callable[[Here, str], str]:
    """Follow options for the same file."""
    return lambda here, words: table(here, text, *first, *shlex.split(words))


def of_csv(words: str, text: str, advice: str, *first: str) -> Followed:
    """A file that is refused, and the options that help."""
    follow = {advice: again(text, *first)}
    return Followed(words, lambda here: table(here, text, *first), follow, "data/ingest/")


def frames(here: Here, *frames: Any, **options: Any) -> str:
    """What `ingest` says of tables of Arrow."""
    pa = pytest.importorskip("pyarrow", reason="the extra `table` is not installed")
    found = [pa.table(frame) if isinstance(frame, dict) else frame for frame in frames]
    return said(lambda: dask_em.ingest(found, here.path("a.zarr"), overwrite=True, **options))


def of_frames(words: str, *tables: Any) -> Followed:
    """Tables that are refused, and the argument that helps."""
    return Followed(
        words,
        lambda here: frames(here, *tables),
        {r"exclude='\w+'": lambda here, words: frames(here, *tables, **keywords(words))},
        "data/ingest/",
    )


def without_pyarrow(here: Here) -> str:
    here.path("x.csv").write_text("a,b\n" + ROWS)
    with hidden("pyarrow"):
        return said(lambda: dask_em.ingest(here.path("x.csv"), here.path("a.zarr")))


def with_index(here: Here, words: str) -> str:
    """Write the frame as pandas is told to."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X)
    eval(f"frame.{words.replace('to_csv(', 'to_csv(path, ')}",
         {"frame": frame, "path": here.path("x.csv")})  # fmt: skip
    return table(here, here.path("x.csv").read_text(), "--no-header")


def threads(here: Here, **options: Any) -> str:
    return said(lambda: dask_em.ingest(X, here.path("a.zarr"), overwrite=True, **options))


def of_a_cytometer(here: Here) -> str:
    """What `ingest` says of an FCS file."""
    pytest.importorskip("pyarrow", reason="the extra `table` is not installed")
    flowio = pytest.importorskip("flowio", reason="the extra `fcs` is not installed")
    if not here.path("x.fcs").exists():
        with here.path("x.fcs").open("wb") as file:
            flowio.create_fcs(file, X.ravel().tolist(), ["FSC-A", "FL1-A"])
    return program("ingest", here.path("x.fcs"), here.path("out.zarr"), "--overwrite")


def without_flowio(here: Here) -> str:
    of_a_cytometer(here)
    with hidden("flowio"):
        return program("ingest", here.path("x.fcs"), here.path("out.zarr"), "--overwrite")


BROKEN = "n,x\n" + ROWS + "40,oops\n"
NUMBERS_AS_TEXT = {"x": [1.0] * 5, "n": ["1", "2", "3", "4", "five"]}

INGESTED = [
    of_csv("has one column, {}: if {}", "a;b\n1;2\n3;4\n", "--delimiter '?;'?"),
    Followed("has no name in the header", lambda here: table(here, ",a\n0,1\n1,2\n"), {
        r"to_csv\(index=False\)": with_index,
    }),
    of_csv("begins with numbers", "0,0.5\n1,2.5\n", "--no-header"),
    of_csv("if that comma", "a;b\n1,5;1\n2,5;2\n", "--decimal ,", "--delimiter", ";"),
    Followed("say that it stands for a hole", lambda here: table(here, BROKEN), {
        "--null oops": again(BROKEN),
        "--exclude x": again(BROKEN),
    }),
    Followed("is read by pyarrow", without_pyarrow, {
        r"pip install '.*?'": installing("pyarrow", lambda here: table(here, "a,b\n" + ROWS)),
    }),
    Followed("is read by FlowIO", without_flowio, {
        r"pip install '.*?'": installing("flowio", of_a_cytometer),
    }),
    of_csv("holds no value in any row", "a,b\n1,\n2,\n", "--exclude b"),
    of_csv(
        "too many for categories",
        "a,w\n" + "".join(f"{i},id {i}\n" for i in range(3000)),
        "--exclude w",
    ),
    of_frames("neither numbers, text nor times", {"x": [1.0, 2.0], "l": [[1], [2, 3]]}),
    of_frames("write the column as numbers, or", NUMBERS_AS_TEXT),
    of_frames("several files are one table", {"x": [1.0], "y": [1.0]}, {"x": [2.0]}),
    Followed("expected a number of threads", lambda here: threads(here, threads=0), {
        "at least (1)": lambda here, words: threads(here, threads=int(words)),
    }),
]  # fmt: skip
