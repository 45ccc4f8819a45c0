"""Advice on tables and arrays in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advice.following import (
    Followed,
    Here,
    X,
    connected,
    fit,
    hidden,
    installing,
    keywords,
    program,
    said,
)


def table(here: Here, name: str = "x.parquet", **more: Any) -> Path:
    """The rows as a table with more columns, where pyarrow is installed."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `table` is not installed")
    import pyarrow as pa

    path = here.path(name)
    path.parent.mkdir(exist_ok=True)
    parquet.write_table(pa.table({"a": X[:, 0], "b": X[:, 1], **more}), path)
    return path


def identified(here: Here) -> Path:
    return table(here, id=np.arange(len(X)) + 2**53)


def of_two_kinds(here: Here) -> Path:
    table(here, "x/0.parquet", c=X[:, 0])
    table(here, "x/1.parquet", c=["text"] * len(X))
    return here.path("x")


def of_other_columns(here: Here) -> Path:
    table(here, "x/0.parquet", c=X[:, 0])
    table(here, "x/1.parquet")
    return here.path("x")


def looked_at(here: Here, path: Path) -> str:
    where = "--scheduler", here.services.plain
    return connected("doctor", path, "-k", 2, *where, never="WARN  checksum")


def with_checksum(here: Here, words: str) -> str:
    from pyarrow import parquet

    path = here.path("checked.parquet")
    parquet.write_table(parquet.read_table(table(here)), path, **keywords(words))
    return looked_at(here, path)


def array_file(here: Here) -> Path:
    np.save(here.path("x.npy"), X)
    return here.path("x.npy")


def with_codec(here: Here, words: str) -> str:
    import zarr

    zarr.create_array(
        str(here.path("x.zarr")), data=X, compressors=[eval(words, {"zarr": zarr})]
    )  # fmt: skip
    return looked_at(here, here.path("x.zarr"))


def objects(here: Here) -> Path:
    np.save(here.path("o.npy"), X.astype(object), allow_pickle=True)
    return here.path("o.npy")


def saved_as_numbers(here: Here, words: str) -> str:
    path = here.path("n.npy")
    eval(words, {"np": np, "path": path, "X": X.astype(object)})
    return said(lambda: fit(path))


def without_pyarrow(here: Here) -> str:
    path = table(here)
    with hidden("pyarrow"):
        return said(lambda: fit(path))


def kept(here: Here, dest: str) -> str:
    path = identified(here)
    fit(path, columns=["a", "b"]).save(here.path("m.npz"), overwrite=True)
    return program("predict", here.path("m.npz"), path, here.path(dest), "--keep", "id")


LEFT_OUT = r"exclude=(?:\[.*?\]|'[^']*')"

TABLES = [
    Followed("write the files with the same types", lambda here: said(
        lambda: fit(of_two_kinds(here))
    ), {
        LEFT_OUT: lambda here, words: said(lambda: fit(of_two_kinds(here), **keywords(words))),
    }),
    Followed("and {} has one; leave it out", lambda here: said(
        lambda: fit(of_other_columns(here))
    ), {
        LEFT_OUT: lambda here, words: said(lambda: fit(of_other_columns(here), **keywords(words))),
    }),
    Followed("write_page_checksum=True (pyarrow)", lambda here: looked_at(here, table(here)), {
        r"write_page_checksum=True": with_checksum,
    }),
    Followed("store the rows in Zarr, with", lambda here: looked_at(here, array_file(here)), {
        r"zarr\.codecs\.\w+\(\)": with_codec,
    }),
    Followed("holds Python objects", lambda here: said(lambda: fit(objects(here))), {
        r"np\.save\(path, .*\)": saved_as_numbers,
    }),
    Followed("are read and written by pyarrow", without_pyarrow, {
        r"pip install '[^']+'": installing("pyarrow", lambda here: said(lambda: fit(table(here)))),
    }),
    Followed("columns are kept in tables", lambda here: kept(here, "answers.zarr"), {
        r"a name that ends in (\.parquet)": lambda here, words: kept(here, f"answers{words}"),
    }),
]  # fmt: skip
