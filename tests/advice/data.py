"""Advice on data: arrays of other libraries, and what lies in stores."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from helpers import HANG, beside_a_client, write_zarr
from zarr.codecs import BytesCodec, ShardingCodec
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.registry import register_pipeline
from zarr.storage import StorePath

from advice.following import (
    Followed,
    Here,
    X,
    code,
    connected,
    each_of,
    fit,
    keywords,
    logged,
    program,
    said,
    saved,
    stored,
)
from dask_em.data.zarr.source import _tell_once

# Rows whose order of magnitude is that of what is stored in them.
INTEGERS = np.rint(X * 100).astype("i2")
PACKED = {"scale_factor": 0.01, "add_offset": 0.0}


def shown(rows: Any, **names: Any) -> Callable[[Here, str], str]:
    """Follow advice that is an expression of X: fit what it comes to."""
    return lambda here, words: said(lambda: fit(code(words, X=rows(), **names)))


# -- arrays of other libraries -----------------------------------------------------------


def sparse_blocks() -> da.Array:
    dense = da.from_array(X, chunks=(100, 2))
    return dense.map_blocks(scipy.sparse.csr_matrix, meta=scipy.sparse.csr_matrix((0, 2)))


def unknown_blocks() -> da.Array:
    rows = da.from_array(X, chunks=(100, 2))
    return rows[rows[:, 0] > -1e9]


def weighted(rows: Any, weight: Any) -> str:
    return said(lambda: fit_weighted(rows, weight))


def fit_weighted(rows: Any, weight: Any) -> None:
    from dask_em import GaussianMixture

    GaussianMixture(2, random_state=0).fit(rows, sample_weight=weight)


def packed_store(here: Here) -> zarr.Array:
    if not here.path("packed.zarr").exists():
        write_zarr(here.path("packed.zarr"), INTEGERS, 100).attrs.update(PACKED)
    return zarr.open_array(here.path("packed.zarr"), mode="r")


def lazily_packed(here: Here) -> da.Array:
    return da.from_zarr(packed_store(here))


def data_array(rows: np.ndarray, *dims: str, **attrs: float) -> Any:
    xarray = pytest.importorskip("xarray")
    return xarray.DataArray(rows, dims=dims, attrs=attrs)


def packed_array() -> Any:
    return data_array(INTEGERS, "row", "feature", **PACKED)


def image() -> Any:
    """Two bands of twenty times twenty places."""
    return data_array(X.T.reshape(2, 20, 20), "band", "y", "x")


def with_unstacked_answers(here: Here, words: str) -> str:
    """Follow the advice on an image: rows of it, and the answers as an image again."""
    rows = code(f"X.{words}", X=image())
    answers = code("answers.unstack('row')", answers=fit(rows).predict(rows))
    assert dict(answers.sizes) == {"y": 20, "x": 20}
    return said(lambda: fit(rows))


def labelled_rows() -> Any:
    return data_array(X, "row", "feature").assign_coords(row=np.arange(400))


def labelled_weights() -> Any:
    return data_array(np.arange(1.0, 401.0), "row").assign_coords(row=np.arange(400)[::-1])


def column_of_a_frame() -> Any:
    return frame()["a"]


def frame() -> Any:
    pandas, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    return dd.from_pandas(pandas.DataFrame(X, columns=["a", "b"]), npartitions=4)


def lazy_frame() -> Any:
    polars = pytest.importorskip("polars")
    return polars.LazyFrame({"a": X[:, 0], "b": X[:, 1]})


def in_the_loop(here: Here) -> str:
    async def work() -> str:
        return said(lambda: fit(stored(here)))

    return beside_a_client(work)


def awaited(here: Here, words: str) -> str:
    """Run code that awaits, in the loop."""
    from dask_em import GaussianMixture

    names = {"asyncio": asyncio, "model": GaussianMixture(2, random_state=0), "X": stored(here)}

    async def work() -> str:
        try:
            await eval(compile(words, "advice", "eval", PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        except Exception as e:
            return str(e)
        return ""

    return beside_a_client(work)


def in_threads(here: Here, words: str) -> str:
    async def work() -> str:
        with code(words, dask=dask):
            return said(lambda: fit(stored(here)))

    return beside_a_client(work)


ARRAYS = [
    Followed("of sparse blocks", lambda here: said(lambda: fit(sparse_blocks())), {
        r"X\.map_blocks\(.*X\.dtype\)\)": shown(sparse_blocks),
    }),
    Followed("is the Dask array of stored numbers", lambda here: said(
        lambda: fit(lazily_packed(here))
    ), {
        "the zarr.Array itself": lambda here, words: said(lambda: fit(packed_store(here))),
        "or its path": lambda here, words: said(lambda: fit(here.path("packed.zarr"))),
        r"dask\.array\.map_blocks\(np\.asarray, X\)": lambda here, words: shown(
            lambda: lazily_packed(here), dask=dask
        )(here, words),
    }),
    Followed("the lengths of X's blocks are not known", lambda here: weighted(
        unknown_blocks(), np.ones(400)
    ), {
        r"X\.compute_chunk_sizes\(\)": lambda here, words: weighted(
            code(words, X=unknown_blocks()), np.ones(400)
        ),
        "a Dask array of the same blocks": lambda here, words: weighted(
            unknown_blocks(), da.ones(400, chunks=100)
        ),
    }),
    Followed("X is one column of a Dask DataFrame", lambda here: said(
        lambda: fit(column_of_a_frame())
    ), {r"X\.to_frame\(\)": shown(column_of_a_frame)}),
    Followed("X is a polars.LazyFrame", lambda here: said(lambda: fit(lazy_frame())), {
        r"X\.collect\(\)": shown(lazy_frame),
    }),
    Followed("{} holds packed numbers", lambda here: said(lambda: fit(packed_array())), {
        r"xarray\.decode_cf\(.*\['X'\]": lambda here, words: shown(
            packed_array, xarray=pytest.importorskip("xarray")
        )(here, words),
        r"X\.drop_attrs\(\)": shown(packed_array),
    }),
    Followed("if it is one column", lambda here: said(
        lambda: fit(data_array(X[:, 0], "row"))
    ), {r"X\.expand_dims\(.*\)": shown(lambda: data_array(X[:, 0], "row"))}),
    Followed("stack(row={})", lambda here: said(lambda: fit(image())), {
        r"X\.(stack\(.*?\)\.transpose\(.*?\))": with_unstacked_answers,
    }),
    Followed("has other coordinates along", lambda here: weighted(
        labelled_rows(), labelled_weights()
    ), {
        r"sample_weight\.reindex_like\(X\['row'\]\)": lambda here, words: weighted(
            labelled_rows(), code(words, X=labelled_rows(), sample_weight=labelled_weights())
        ),
    }),
    Followed("the Dask client in force is asynchronous", in_the_loop, {
        r"await asyncio\.to_thread\(model\.fit, X\)": awaited,
        r'with (dask\.config\.set\(scheduler="threads"\))': in_threads,
    }),
]  # fmt: skip


# -- stores ------------------------------------------------------------------------------


def holey(here: Here) -> Path:
    """A store of which one chunk is not there."""
    path = stored(here)
    if (path / "c/1/0").exists():
        (path / "c/1/0").rename(here.path("lost"))
    return path


def restored(here: Here, words: str) -> str:
    here.path("lost").rename(here.path("x.zarr/c/1/0"))
    return said(lambda: fit(here.path("x.zarr")))


def written_whole(here: Here, words: str) -> str:
    """Write zeros, of which no chunk is left out."""
    rows = np.vstack([np.zeros((100, 2)), X])
    write_zarr(here.path("whole.zarr"), rows, 100, config=keywords(words))
    return said(lambda: fit(here.path("whole.zarr"), n_components=1))


def nested_shards(here: Here) -> Path:
    inner = ShardingCodec(chunk_shape=(10, 2), codecs=[BytesCodec()])
    serializer = ShardingCodec(chunk_shape=(20, 2), codecs=[inner])
    write_zarr(here.path("nested.zarr"), X, 40, compressors=None, serializer=serializer)
    return here.path("nested.zarr")


def plain_shards(here: Here, words: str) -> str:
    write_zarr(here.path("plain.zarr"), X, 10, shards=(40, 2))
    return said(lambda: fit(here.path("plain.zarr")))


class PastTheStore(BatchedCodecPipeline):
    """Reads from the store below the one that it is given."""

    async def read(self, batch_info: Any, *arguments: Any, **options: Any) -> Any:
        below = [(_below(place), *more) for place, *more in batch_info]
        return await super().read(below, *arguments, **options)


def _below(place: Any) -> Any:
    # Within a shard there is no store.
    return StorePath(place.store._store, place.path) if isinstance(place, StorePath) else place


def past_the_store(here: Here) -> str:
    register_pipeline(PastTheStore)
    with zarr.config.set({"codec_pipeline.path": f"{__name__}.PastTheStore"}):
        return said(lambda: fit(read_through_zarr(here)))


def read_through_zarr(here: Here) -> Path:
    """A store that is not read as plain files."""
    if not here.path("shards.zarr").exists():
        write_zarr(here.path("shards.zarr"), X, 10, shards=(40, 2))
    return here.path("shards.zarr")


def linked(here: Here) -> Path:
    """A store of which one chunk is a link to another place."""
    path = stored(here) / "c/1/0"
    if not path.is_symlink():
        path.rename(here.path("outside"))
        path.symlink_to(here.path("outside"))
    return here.path("x.zarr")


def with_links_followed(here: Here, words: str) -> str:
    with code(words, dask=dask):
        return said(lambda: fit(linked(here)))


def with_variable(here: Here, words: str) -> str:
    """Run the program with a variable of the environment."""
    put_back(here, words)
    saved(here)
    name, value = words.split("=")
    done = subprocess.run(
        [sys.executable, "-m", "dask_em.cli", "score", here.path("m.npz"), linked(here)],
        env={**os.environ, name: value, "DASK_DASK_EM__FAST": "false"},
        capture_output=True, text=True, timeout=HANG, check=False,
    )  # fmt: skip
    return done.stderr if done.returncode else ""


def put_back(here: Here, words: str) -> str:
    linked(here)
    here.path("x.zarr/c/1/0").unlink()
    here.path("outside").rename(here.path("x.zarr/c/1/0"))
    return said(lambda: fit(here.path("x.zarr")))


def sparse_matrix(here: Here) -> Path:
    """The sparse matrix of a store of AnnData, beside which are components."""
    anndata = pytest.importorskip("anndata")
    path = here.path("cells.zarr")
    if not path.exists():
        anndata.AnnData(scipy.sparse.csr_matrix(X), obsm={"X_pca": X}).write_zarr(path)
    return path / "X"


def read_lazily(here: Here, words: str) -> str:
    pytest.importorskip("anndata.experimental")
    return said(lambda: fit(code(words, anndata=sys.modules["anndata"])))


def opened_group(here: Here, words: str) -> str:
    return "" if isinstance(code(words), zarr.Group) else "no group"


def said_of_checksum(path: Path) -> str:
    """What a fit logs of the checksum that a store lacks."""
    _tell_once.cache_clear()
    lines = logged(lambda: fit(path)).splitlines()
    return "\n".join(line for line in lines if "has no checksum" in line)


def with_checksum(here: Here, words: str) -> Path:
    path = here.path("checked.zarr")
    write_zarr(path, X, 100, compressors=[code(words)])
    return path


def by_command(act: Callable[..., str]) -> Followed:
    """The row of a command that reads a store without a chunk."""
    return Followed("restore them; or, if they were never", act, {
        "--missing-chunks fill": lambda here, words: act(here, *words.split()),
    })  # fmt: skip


def fitted(here: Here, *more: str) -> str:
    return program("fit", holey(here), "-k", 1, "-o", here.path("n.npz"), *more)


def planned(here: Here, *more: str) -> str:
    return program("plan", holey(here), "-k", 2, *more)


def looked_at(here: Here, *more: str) -> str:
    where = "--scheduler", here.services.plain
    return connected("doctor", holey(here), "-k", 2, *where, *more)


def scored(here: Here, *more: str) -> str:
    return program("score", saved(here), holey(here), *more)


def predicted(here: Here, *more: str) -> str:
    return program("predict", saved(here), holey(here), here.path("answers.zarr"), *more)


def reported(here: Here, *more: object) -> str:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    model, page = saved(here), here.path("r.html")
    return program("report", model, page, "--overwrite", "--data", holey(here), *more)


READING = (fitted, planned, looked_at, scored, predicted, reported)


STORES = [
    Followed("restore them; or, if they were never", lambda here: said(lambda: fit(holey(here))), {
        'missing_chunks="fill"': lambda here, words: said(
            lambda: fit(holey(here), n_components=1, **keywords(words))
        ),
        "write_empty_chunks=True": written_whole,
        "restore them": restored,
    }),
    *(by_command(act) for act in READING),
    Followed("lies in shards within shards", lambda here: said(
        lambda: fit(nested_shards(here))
    ), {
        'missing_chunks="fill"': lambda here, words: said(
            lambda: fit(here.path("nested.zarr"), **keywords(words))
        ),
        "write it in plain shards": plain_shards,
    }),
    Followed("the codec pipeline that Zarr is set to", past_the_store, {
        "set (codec_pipeline.path) of zarr.config to its default": lambda here, words: said(
            lambda: fit(read_through_zarr(here))
        ),
    }),
    Followed("is a link to", lambda here: said(lambda: fit(linked(here))), {
        r'dask\.config\.set\(\{.*?\}\)': with_links_followed,
        "DASK_DASK_EM__FOLLOW_LINKS=true": with_variable,
        "put the chunks themselves there": put_back,
    }),
    Followed("is a sparse matrix of AnnData", lambda here: said(lambda: fit(sparse_matrix(here))), {
        r"obsm/X_pca": lambda here, words: said(lambda: fit(here.path("cells.zarr") / words)),
        r"anndata\.experimental\..*\)\)\)": read_lazily,
    }),
    Followed("zarr.open_group({}", lambda here: said(lambda: fit(sparse_matrix(here))), {
        r"zarr\.open_group\(.*?\)": opened_group,
    }),
    Followed("write it with zarr.codecs", lambda here: said_of_checksum(stored(here)), {
        r"zarr\.codecs\.\w+\(\)": lambda here, words: said_of_checksum(with_checksum(here, words)),
    }, "data/zarr/source.py"),
]  # fmt: skip

# -- tables ----------------------------------------------------------------------------------


def table(**more: Any) -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"a": X[:, 0], "b": X[:, 1], **more})


def with_words() -> Any:
    return table(word=["x"] * len(X))


def with_numbers() -> Any:
    return table(ID=2**60 + np.arange(len(X)))


def numbered() -> Any:
    return pytest.importorskip("pandas").DataFrame(X)


def renamed(here: Here, words: str) -> str:
    """Follow a line of Python on a table whose columns are numbered."""
    rows = numbered()
    exec(words, {"X": rows})
    return weighted(rows[["0"]].abs().assign(x=X[:, 1]), "0")


def told(rows: Callable[[], Any]) -> Callable[[Here, str], str]:
    """Follow advice that is an argument of the estimator."""
    return lambda here, words: said(lambda: fit(rows(), **keywords(words)))


TABLES = [
    Followed("leave no column of", lambda here: said(lambda: fit(table(), exclude="*")), {
        r"which has ('a')": lambda here, words: said(
            lambda: fit(table(), columns=keywords(f"x={words}")["x"])
        ),
    }),
    Followed("leave them out by exclude", lambda here: said(lambda: fit(with_words())), {
        r"exclude=\[.*?\]": told(with_words),
    }),
    Followed("so that float64 cannot tell it", lambda here: said(lambda: fit(with_numbers())), {
        r"exclude='.*?'": told(with_numbers),
        "subtract an offset": lambda here, words: said(
            lambda: fit(with_numbers().assign(ID=lambda rows: rows["ID"] - 2**60))
        ),
    }),
    Followed("their names are no strings", lambda here: weighted(numbered(), "0"), {
        r"X\.columns = .*\(str\)": renamed,
    }),
    Followed("expected a table of pandas", lambda here: said(
        lambda: fit().predict(X, as_frame=True)
    ), {
        "leave as_frame out": lambda here, words: said(lambda: fit().predict(X)),
        "a table of pandas": lambda here, words: said(
            lambda: fit(table()).predict(table(), as_frame=True)
        ),
    }),
    Followed("expected the name of a dimension", lambda here: said(lambda: fit(features=3)), {
        "the name of a dimension": lambda here, words: said(
            lambda: fit(features="feature").read_options
        ),
    }),
    Followed("raw={}: expected", lambda here: said(lambda: fit(raw="yes")), {
        "True or False": lambda here, words: said(
            lambda: [fit(raw=code(word)) for word in each_of(words)]
        ),
    }),
    Followed("in another order", lambda here: said(
        lambda: fit(table()).predict(table()[["b", "a"]])
    ), {
        r"pass (X\[.*?\])": lambda here, words: said(
            lambda: fit(table()).predict(code(words, X=table()[["b", "a"]], model=fit(table())))
        ),
        r"fit with (columns=)\[": lambda here, words: said(
            lambda: fit(table(), columns=["a", "b"]).predict(table()[["b", "a"]])
        ),
    }),
]  # fmt: skip


DATA = [*ARRAYS, *TABLES, *STORES]
