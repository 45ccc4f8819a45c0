"""Advice on data: arrays of other libraries, and what lies in stores."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import warnings
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
    options,
    program,
    said,
    saved,
    stored,
)
from dask_em.data.checks import tell_once

# Rows whose order of magnitude is that of what is stored in them.
INTEGERS = np.rint(X * 100).astype("i2")
PACKED = {"scale_factor": 0.01, "add_offset": 0.0}


def shown(rows: Any, **names: Any) -> Callable[[Here, str], str]:
    """Follow advice that is an expression of X: fit what it comes to."""
    return lambda here, words: said(lambda: fit(code(words, X=rows(), **names)))


# -- arrays of other libraries -----------------------------------------------------------


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


def image() -> Any:
    """Two bands of twenty times twenty places."""
    return data_array(X.T.reshape(2, 20, 20), "band", "y", "x")


def image_store(here: Here) -> Path:
    """The same in a store, and a model would go beside it."""
    path = here.path("image.zarr")
    if not path.exists():
        image().to_dataset(name="x").to_zarr(path, consolidated=False)
    return path / "x"


def by_shell(here: Here, words: str) -> str:
    """Run a command that is written out, with a model of this folder."""
    # Of these rows there are two kinds.
    ours = {"model.npz": str(here.path("m.npz")), "8": "2"}
    return program(*(ours.get(word, word) for word in options(words)))


def uneven() -> Any:
    """A Dataset of which two variables share their dimensions, and one has others."""
    long = data_array(X, "row", "feature")
    variables = {"a": long[:, 0], "b": long[:, 1], "c": long}
    return pytest.importorskip("xarray").Dataset(variables)


def worded() -> Any:
    long = data_array(X, "row", "feature")
    return pytest.importorskip("xarray").Dataset(
        {"a": long[:, 0], "b": long[:, 1], "name": ("row", np.full(400, "x"))}
    )


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
    Followed("is the Dask array of stored numbers", lambda here: said(
        lambda: fit(lazily_packed(here))
    ), {
        "the zarr.Array itself": lambda here, words: said(lambda: fit(packed_store(here))),
        "or its path": lambda here, words: said(lambda: fit(here.path("packed.zarr"))),
        "raw=True": lambda here, words: said(lambda: fit(lazily_packed(here), **keywords(words))),
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
    }, "data/dask.py"),
    Followed("X is one column of a Dask DataFrame", lambda here: said(
        lambda: fit(column_of_a_frame())
    ), {r"X\.to_frame\(\)": shown(column_of_a_frame)}),
    Followed("X is a polars.LazyFrame", lambda here: said(lambda: fit(lazy_frame())), {
        r"X\.collect\(\)": shown(lazy_frame),
    }),
    Followed("if it is one column", lambda here: said(
        lambda: fit(data_array(X[:, 0], "row"))
    ), {r"X\.expand_dims\(.*\)": shown(lambda: data_array(X[:, 0], "row"))}),
    Followed("which of them holds the variables? Each cell", lambda here: said(
        lambda: fit(image_store(here))
    ), {
        r"dask-em (fit .*? --features \w+);": by_shell,
        r"GaussianMixture\(n_components=8, (features='\w+')\)": lambda here, words: said(
            lambda: fit(image_store(here), **keywords(words))
        ),
    }),
    Followed("names no dimension of", lambda here: said(lambda: fit(image(), features="bands")), {
        r"whose dimensions are (\w+)": lambda here, words: said(
            lambda: fit(image(), features=words)
        ),
    }),
    Followed("or choose some that do by columns", lambda here: said(lambda: fit(uneven())), {
        r"give one, such as (X\[.*?\])": lambda here, words: said(
            lambda: fit(code(words, X=uneven()))
        ),
        r"columns=\[.*?\]": lambda here, words: said(lambda: fit(uneven(), **keywords(words))),
    }),
    Followed("has variables without numbers", lambda here: said(lambda: fit(worded())), {
        r"exclude=\[.*?\]": lambda here, words: said(lambda: fit(worded(), **keywords(words))),
    }),
    Followed("in memory, and rows are read dense", lambda here: said(
        lambda: fit(scipy.sparse.csc_matrix(X))
    ), {
        r"dask\.array\.from_array\(.*-1\)\)": shown(lambda: scipy.sparse.csc_matrix(X), dask=dask),
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
    if not here.path("columns.zarr").exists():
        write_zarr(here.path("columns.zarr"), X, 10, chunks=(10, 1))
    return here.path("columns.zarr")


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
    """A sparse matrix of a store of AnnData by columns, beside which are components."""
    return cells(here, scipy.sparse.csc_matrix(X)) / "X"


def cells(here: Here, matrix: Any) -> Path:
    anndata = pytest.importorskip("anndata")
    path = here.path("cells.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        anndata.AnnData(matrix, obsm={"X_pca": X}).write_zarr(path)
    return path


def written_by_rows(here: Here, words: str) -> str:
    adata = pytest.importorskip("anndata").read_zarr(here.path("cells.zarr"))
    path = cells(here, code(words, adata=adata))
    return said(lambda: fit(path / "X"))


def resolutions(here: Here) -> Path:
    """An image of which there is one resolution."""
    path = here.path("pixels.zarr")
    if not path.exists():
        axes = [{"name": "c", "type": "channel"}, {"name": "y"}, {"name": "x"}]
        levels = {"axes": axes, "datasets": [{"path": "0"}]}
        zarr.open_group(path, attributes={"ome": {"multiscales": [levels]}})
        write_zarr(path / "0", X.T.reshape(2, 20, 20), 2, chunks=(2, 20, 20))
    return path


def said_of_checksum(path: Path) -> str:
    """What a fit logs of the checksum that a store lacks."""
    tell_once.cache_clear()
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
    Followed("is a sparse matrix of AnnData in", lambda here: said(
        lambda: fit(sparse_matrix(here))
    ), {
        r"obsm/X_pca": lambda here, words: said(lambda: fit(here.path("cells.zarr") / words)),
        r"adata\.X = (adata\.X\.tocsr\(\))": written_by_rows,
    }),
    Followed("is an image of OME-Zarr", lambda here: said(lambda: fit(resolutions(here))), {
        r"features='\w+'": lambda here, words: said(
            lambda: fit(resolutions(here) / "0", **keywords(words))
        ),
    }),
    Followed("write it with zarr.codecs", lambda here: said_of_checksum(stored(here)), {
        r"zarr\.codecs\.\w+\(\)": lambda here, words: said_of_checksum(with_checksum(here, words)),
    }, "data/zarr/source.py"),
]  # fmt: skip

# -- tables ----------------------------------------------------------------------------------


def table(**more: Any) -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"a": X[:, 0], "b": X[:, 1], **more})


def constant() -> Any:
    """A table of which a column holds one value."""
    return table(one=1.0)


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
    Followed("by exclude=", lambda here: said(lambda: fit(constant())), {
        r"exclude=\[.*?\]": told(constant),
    }, "fitting/"),
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
