"""Chunks in an object store, fetched ahead and decoded by the thread that reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import zarr

from ...core.additive import Array
from ...core.tuning import tuning
from ...errors import naming
from ...storage.url_store import Fetched, UrlStore
from ...storage.urls import describe_store
from ..options import MissingChunks
from .chunk_files import ChunkFileReader, ChunkFiles
from .fetching import FetchAhead, line_to
from .layout import chunk_key, file_shape
from .pipeline import Pipeline


@dataclass(frozen=True)
class ChunkObjects(ChunkFiles):
    """Fetch and decode the chunks of one two-dimensional array, of which each holds all columns.

    Attributes
    ----------
    array : zarr.Array
        In an object store.
    """

    @classmethod
    def of(
        cls, array: zarr.Array[Any], missing_chunks: MissingChunks = "error", name: str = "X"
    ) -> ChunkObjects | None:
        """Return the objects of an array; None where it has others, or Zarr must read them."""
        if not isinstance(array.store, UrlStore) or not array.store.fetches:
            return None
        pipeline = Pipeline.of(array)
        return None if pipeline is None else cls(array, pipeline, missing_chunks, name)

    @property
    def decoding_bytes(self) -> int:
        """Bytes that reading takes beside the rows: those on their way, and what decoding takes."""
        # What no codec makes smaller it makes hardly larger.
        ahead = max(tuning().reading.line_bytes, self.pipeline.nbytes)
        return ahead + self.pipeline.nbytes + self.pipeline.scratch_bytes

    def reader(self, chunk_rows: int) -> ChunkFileReader:
        """Return a reader of up to so many rows at once."""
        return ChunkObjectReader(self, chunk_rows, self.pipeline.nbytes)


class ObjectReader(ChunkFileReader):
    """Read rows into two buffers in turn, while the objects that hold later ones are fetched whole.

    Parameters
    ----------
    files : ChunkFiles
        Of an array in an object store.
    chunk_rows : int
        Rows that are read at once, at most.
    nbytes : int
        Bytes of an object, at most.
    """

    def __init__(self, files: ChunkFiles, chunk_rows: int, nbytes: int) -> None:
        super().__init__(files, chunk_rows)
        array, store = files.array, cast(UrlStore, files.array.store)

        def fetch(number: int) -> Fetched | None:
            return store.fetch(chunk_key(array, (number, 0)))

        self._ahead, self._stop = FetchAhead(fetch, line_to(store.url), nbytes), 0
        self._object_rows = file_shape(array)[0]

    def expect(self, rows: slice) -> None:
        """Begin to fetch these rows, and fetch ahead up to the last of them."""
        self._stop = -(-rows.stop // self._object_rows)
        self._ahead.ask(rows.start // self._object_rows, self._stop)

    def close(self) -> None:
        """Leave the buffers to the next reader, and give up what is on its way."""
        self._ahead.close()
        super().close()


class ChunkObjectReader(ObjectReader):
    """Read rows of chunk objects into two buffers in turn, while later ones are fetched."""

    def _read_into(self, out: Array, first: int, found: list[int]) -> Iterator[int]:
        rows, place = self.files.chunk_shape[0], describe_store(str(self.files.array.store_path))
        last = first + len(out) // rows
        for number in range(first, last):
            end = (number - first + 1) * rows
            part = out[end - rows : end]
            with naming(place):
                fetched = self._ahead.take(number, max(last, self._stop))
            if fetched is None:
                self.files.fill_missing(part, self.files.place(number), found)
            else:
                stored = np.frombuffer(fetched.data, dtype=np.uint8)
                found.append(self.files.decode(stored, part, number))
                del stored
            # The next call asks for more in its place.
            del fetched
            yield end
