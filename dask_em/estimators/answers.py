"""Answers of a mixture for the rows of a source: at once where they are in memory, else lazily."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..backends.blas import one_blas_thread
from ..core.additive import Array
from ..core.scoring import Predict, answer_dtype
from ..data.any import AnySource
from ..data.dask import DaskSource
from ..data.memory import ArraySource
from ..data.zarr.source import ZarrSource


def answer_rows(source: AnySource, predict: Predict) -> Any:
    """The one answer that `predict` gives for every row.

    Returns
    -------
    array, (n,) or (n, k)
        NumPy where the rows are in memory, else lazy Dask of the chunks of the source.
    """
    if isinstance(source, ArraySource):
        return _predict_here(source, predict)
    return _predict_lazily(source, predict)


def _predict_here(source: ArraySource, predict: Predict) -> Array:
    def one(chunk: int) -> Array:
        return _predict_block(source.read(chunk)[0], predict)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(one, range(source.n_chunks))))


def _predict_lazily(source: ZarrSource | DaskSource, predict: Predict) -> Any:
    import dask.array as da
    from dask.delayed import delayed

    (answer,) = predict.answers
    proba, k = answer == "proba", predict.mixture.components.n_components
    dtype = answer_dtype(answer)
    if isinstance(source, ZarrSource):
        # Each task reads its own chunk, so that no rows pass through Dask's memory.
        arrays, rows = [], tuple(np.diff(source.bounds).tolist())
        work: dict[str, Any] = {"source": delayed(source, traverse=False)}
    else:
        arrays, rows = [source.X], source.X.chunks[0]
        work = {"drop_axis": () if proba else (1,)}
    return da.map_blocks(
        _predict_block if arrays else _predict_chunk,
        *arrays,
        predict=delayed(predict, traverse=False),
        chunks=(rows, (k,)) if proba else (rows,),
        dtype=dtype,
        meta=np.empty((0, k) if proba else (0,), dtype=dtype),
        **work,
    )


def _predict_chunk(source: ZarrSource, predict: Predict, block_id: tuple[int, ...]) -> Array:
    X, _ = source.reader()(block_id[0])
    return _predict_block(X, predict)


def _predict_block(X: Array, predict: Predict) -> Array:
    (answer,) = predict.answers
    with one_blas_thread():
        return predict(X)[answer]
