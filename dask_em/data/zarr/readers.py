"""Chunks of a Zarr array, read so that none is taken for what it is not.

Zarr reads a missing chunk as the fill value without a word, in every version; here it is an
error with the chunk's name, and so is a damaged one. With every read comes a
fingerprint, by which later passes see whether the data changed.
"""

from __future__ import annotations

from typing import Any, Protocol

import zarr

from ...core.additive import Array
from .layout import Missing
from .raw import Hand, RawChunks, RawReader
from .watched import WatchedReader


class RowReader(Protocol):
    """Reads rows of one array."""

    def __call__(self, rows: slice, hand: Hand | None = None) -> tuple[Array, int]:
        """The rows and the fingerprint of their chunks.

        Rows stay as they are until two more reads: there may be two buffers used in turn.
        A reader that knows may tell `hand` before its end how many rows are there.
        """

    def close(self) -> None:
        """End reading: what was read last is given up too."""


def row_reader(
    array: zarr.Array[Any], chunk_rows: int, missing: Missing = "error", name: str = "X"
) -> RowReader:
    """The quickest reader of an array, for reads of whole chunks of at most `chunk_rows` rows.

    Parameters
    ----------
    array : zarr.Array
        (n, d) or (n,); a reader of (n,) takes any rows.
    chunk_rows : int
    missing : {"error", "fill"}
        Whether a missing chunk is an error or stands for the fill value.
    name : str
        What an error calls the array.
    """
    raw = RawChunks.of(array, missing, name) if array.ndim == 2 else None
    return RawReader(raw, chunk_rows) if raw else WatchedReader(array, missing, name)
