"""Identity of data: what tells them from others without reading what is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.additive import Array
from ..core.protocols import Source

# Rows of data in memory whose bytes are taken at once.
HASHED_ROWS = 2**16


def layout_identity(source: Source, chunks: Sequence[float] | Array) -> dict[str, object]:
    """Return description, shape, type and chunks of a source, for JSON.

    Parameters
    ----------
    source : Source
    chunks : sequence of int
        Whatever tells where the chunks begin.
    """
    return {
        "source": source.description,
        "shape": [source.n_rows, source.n_features],
        "dtype": str(source.dtype),
        "chunks": sha256_of(chunks),
        **({"decoding": source.decoding} if source.decoding else {}),
    }


def sha256_of(*arrays: Any) -> str:
    """Return the sha256 of the numbers in arrays, taken some rows at a time.

    Examples
    --------
    >>> sha256_of(np.arange(3.0))[:8] == sha256_of([0.0, 1.0, 2.0])[:8]
    True
    """
    result = hashlib.sha256()
    for array in arrays:
        for start in range(0, len(array), HASHED_ROWS):
            part: Array = np.asarray(array[start : start + HASHED_ROWS])
            result.update(np.ascontiguousarray(part).tobytes())
    return result.hexdigest()
