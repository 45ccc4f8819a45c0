"""TODO data.identity."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.additive import Array
from ..storage.urls import describe_url
from .dask import DaskSource
from .memory import ArraySource
from .zarr.source import ZarrSource

# Rows of data in memory whose bytes are taken at once.
HASHED_ROWS = 2**16


def data_of(source: ArraySource | ZarrSource | DaskSource) -> dict[str, Any]:
    """What tells data from others without reading what is stored.

    Rows in memory are read. What chunks in a store hold is known by the notes of the
    survey; a Dask array with a graph of its own is taken at its word.
    """
    found = {
        "source": source.description,
        "shape": [source.n_rows, source.n_features],
        "dtype": str(source.dtype),
        "chunks": _sha([source.X.chunks[0] if isinstance(source, DaskSource) else source.bounds]),
    }
    if isinstance(source, ArraySource):
        weight = [] if source.sample_weight is None else [source.sample_weight]
        return {**found, "contents": _sha([source.X, *weight])}
    if isinstance(source, DaskSource):
        return {**found, "sample_weight": source.sample_weight is not None}
    if source.stored_weight is not None:
        return {**found, "sample_weight": describe_url(str(source.stored_weight.store_path))}
    given = source.memory_weight
    return {**found, "sample_weight": None if given is None else _sha([given])}


def _sha(arrays: Sequence[Any]) -> str:
    result = hashlib.sha256()
    for array in arrays:
        for start in range(0, len(array), HASHED_ROWS):
            part: Array = np.asarray(array[start : start + HASHED_ROWS])
            result.update(np.ascontiguousarray(part).tobytes())
    return result.hexdigest()
