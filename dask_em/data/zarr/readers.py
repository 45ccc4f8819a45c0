"""Readers of the rows of one Zarr array: whole chunks, sound, with a fingerprint of each read.

Zarr reads a missing chunk as the fill value without a word, in every version; here it is an
error with the chunk's name, and so is a damaged one. By the fingerprints later passes see
whether the data changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import zarr

from ...core.additive import Array
from ..options import MissingChunks, ReadOptions
from ..packing import Packing
from .chunk_files import ChunkFiles
from .chunk_objects import ChunkObjects
from .layout import packing_of
from .shard_objects import ShardObjects
from .shards import ShardFiles
from .watched import WatchedReader


class RowReader(Protocol):
    """Read rows of one array.

    Attributes
    ----------
    fingerprints : dict of int to int
        Of the chunks of each read that came to its end, by its first row.
    """

    fingerprints: dict[int, int]

    def arriving(self, rows: slice) -> Iterator[tuple[Array, int]]:
        """Read rows, which stay as they are until two more reads were begun.

        Yields
        ------
        array
            The rows: the same array each time, which fills.
        int
            How many of them are there already, before it is known whether they are sound. With
            the last comes 0, and then all are there and sound.
        """

    def expect(self, rows: slice) -> None:
        """Be told that these rows are asked for from now on, in their order."""

    def close(self) -> None:
        """End reading: the rows that were read last are given up too."""


def row_reader(
    array: zarr.Array[Any],
    chunk_rows: int,
    options: ReadOptions | None = None,
    name: str = "X",
) -> RowReader:
    """Return the quickest reader of an array, for reads of whole chunks.

    Parameters
    ----------
    array : zarr.Array
        (n, d) or (n,); a reader of (n,) takes any rows.
    chunk_rows : int
        Rows that are read at once, at most.
    options : ReadOptions, optional
        Whether a missing chunk is an error, and packed numbers are decoded.
    name : str
        What an error calls the array.
    """
    missing_chunks = "error" if options is None else options.missing_chunks
    files = files_of(array, missing_chunks, name)
    reader: RowReader
    if files is None:
        reader = WatchedReader(array, missing_chunks, name)
    else:
        reader = files.reader(chunk_rows)
    packing = packing_of(array, options)
    return reader if packing is None else DecodingReader(reader, packing)


def files_of(
    array: zarr.Array[Any], missing_chunks: MissingChunks = "error", name: str = "X"
) -> ChunkFiles | None:
    """Return what reads the files or objects of an array, None where Zarr must.

    Examples
    --------
    >>> files_of(zarr.zeros((6, 2))) is None
    True
    """
    for kind in (ChunkFiles, ChunkObjects, ShardFiles, ShardObjects):
        found = kind.of(array, missing_chunks, name)
        if found is not None:
            return found
    return None


class DecodingReader:
    """Decode what another reader reads, when all rows of a read are there and sound.

    Attributes
    ----------
    fingerprints : dict of int to int
        Those of the stored numbers.
    """

    def __init__(self, reader: RowReader, packing: Packing) -> None:
        self._reader, self._packing = reader, packing
        self.fingerprints = reader.fingerprints

    def arriving(self, rows: slice) -> Iterator[tuple[Array, int]]:
        """Yield the rows once."""
        found, _ = read_rows(self._reader, rows)
        yield self._packing.decode(found), 0

    def expect(self, rows: slice) -> None:
        """Tell the reader that reads."""
        self._reader.expect(rows)

    def close(self) -> None:
        """End reading."""
        self._reader.close()


def read_rows(reader: RowReader, rows: slice) -> tuple[Array, int]:
    """Return rows and their fingerprint, when they are all there and sound."""
    *_, (found, _) = reader.arriving(rows)
    return found, reader.fingerprints[rows.start]
