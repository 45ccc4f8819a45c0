"""The rows of a source that come after those that were read before: appended chunks alone."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from ..core.additive import Array
from ..core.chunk_log import ChunkLog
from ..core.columns import Column
from ..core.protocols import Block, Reader, RowValues, Source


@dataclass(frozen=True)
class AppendedRows(Source):
    """Take the rows of a source from some row on as a source of their own.

    Of a chunk that the first of them lies in the rows before it are read, and left out.

    Attributes
    ----------
    rows : Source
        Of a known number of rows, read by its `reader`.
    first : int
        The first row that is taken; there is one.

    Examples
    --------
    >>> from dask_em.data.memory import ArraySource
    >>> source = AppendedRows(ArraySource(np.arange(6.0)[:, None]), 4)
    >>> source.n_rows, source.reader().read(0)[0].ravel().tolist(), source.locate(0, 1)
    (2, [4.0, 5.0], 'row 5')
    """

    rows: Source
    first: int

    # -- what it is ----------------------------------------------------------------------

    @property
    def n_rows(self) -> int:
        return int(self.rows.n_rows or 0) - self.first

    @property
    def first_row(self) -> int:
        return self.first

    @property
    def n_features(self) -> int:
        return self.rows.n_features

    @property
    def columns(self) -> Sequence[Column] | None:
        return self.rows.columns

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.rows.dtype

    @property
    def description(self) -> str:
        return self.rows.description

    @property
    def decoding(self) -> str:
        return self.rows.decoding

    @property
    def weighted(self) -> bool:
        return self.rows.weighted

    def identity(self) -> dict[str, object]:
        """Return what tells the data from others, by their place, for JSON."""
        return {**self.rows.identity(), "from": self.first}

    def locate(self, chunk: int, row: int) -> str:
        """Say which row of all the data a chunk's row is."""
        return self.rows.locate(self._number + chunk, row + self._before(chunk))

    # -- how it is cut -------------------------------------------------------------------

    @cached_property
    def _number(self) -> int:
        """The number of the first chunk among all."""
        numbers = range(self.rows.n_chunks)
        return bisect_right(numbers, self.first, key=lambda c: self.rows.rows_of(range(c))) - 1

    def _before(self, chunk: int) -> int:
        """Return how many rows of a chunk are left out."""
        return 0 if chunk else self.first - self.rows.rows_of(range(self._number))

    def _of_all(self, chunks: range) -> range:
        return range(chunks.start + self._number, chunks.stop + self._number)

    @property
    def n_chunks(self) -> int:
        return self.rows.n_chunks - self._number

    @property
    def chunk_rows(self) -> int:
        return self.rows.chunk_rows

    def rows_of(self, chunks: range) -> int:
        """Return the number of rows in these chunks."""
        left_out = self._before(chunks.start) if chunks else 0
        return self.rows.rows_of(self._of_all(chunks)) - left_out

    # -- how it is read ------------------------------------------------------------------

    @property
    def held_bytes(self) -> int:
        return self.rows.held_bytes

    @property
    def kept_bytes(self) -> int:
        return self.rows.kept_bytes

    @property
    def shipped_bytes(self) -> int:
        return self.rows.shipped_bytes

    @property
    def library_bytes(self) -> int:
        return self.rows.library_bytes

    @property
    def in_process(self) -> bool:
        return self.rows.in_process

    @property
    def read_ahead(self) -> int:
        return self.rows.read_ahead

    def reader(self) -> Reader:
        """Open the source for one range."""
        return AppendedReader(self.rows.reader(), self._number, self._before(0))

    def shipped_weights(self, chunks: range) -> Array | None:
        """Return the weights of these chunks that a reader elsewhere must be given."""
        found = self.rows.shipped_weights(self._of_all(chunks))
        return None if found is None else found[self._before(chunks.start) :]

    def map_rows(
        self, function: Callable[[Array], Array], width: int | None, dtype: np.dtype[Any]
    ) -> RowValues:
        """Compute a function of all rows, and take that of the later ones."""
        found: Any = self.rows.map_rows(function, width, dtype)
        later: RowValues = found[self.first :]
        return later

    # -- whether it is what it was -------------------------------------------------------

    @property
    def dropping(self) -> frozenset[int]:
        return frozenset(chunk - self._number for chunk in self.rows.dropping)

    @property
    def missing(self) -> tuple[bool, ...]:
        return self.rows.missing

    @property
    def n_dropped(self) -> int:
        return self.rows.n_dropped

    def check(self) -> None:
        """Look for what is wrong with the stored data, as far as that costs no reading."""
        self.rows.check()

    def stamp_of(self, n_rows: int) -> str:
        """Return what tells whether these rows, and all before them, are as they were."""
        return self.rows.stamp_of(self.first + n_rows)

    def held_to(self, log: ChunkLog, forced: bool = False) -> Self:
        """Return the same rows without those that were dropped, and hold chunks to the log."""
        n = self._number
        before = np.zeros(n if len(log.chunks) else 0, dtype=np.uint64)
        of_all = replace(
            log,
            chunks=np.concatenate([np.arange(len(before)), log.chunks + n]),
            fingerprints=np.concatenate([before, log.fingerprints]),
            dropped=tuple((chunk + n, rows) for chunk, rows in log.dropped),
        )
        return replace(self, rows=self.rows.held_to(of_all, forced))


class AppendedReader(Reader):
    """Read the later chunks of a source.

    Parameters
    ----------
    reader : Reader
        Of all chunks.
    number : int
        That of the first chunk among all.
    before : int
        Rows of that chunk that are left out.
    """

    def __init__(self, reader: Reader, number: int, before: int) -> None:
        self._reader, self._number, self._before = reader, number, before

    @property
    def fingerprints(self) -> Mapping[int, int]:  # type: ignore[override]
        """Fingerprints of the chunks that were read to their ends, all rows of each."""
        return {chunk - self._number: found for chunk, found in self._reader.fingerprints.items()}

    def expect(self, chunks: range) -> None:
        """Let these chunks be fetched ahead."""
        self._reader.expect(range(chunks.start + self._number, chunks.stop + self._number))

    def blocks(self, chunk: int, block_rows: int = 0) -> Iterator[Block]:
        """Yield a chunk in parts that are whole blocks; that which is cut in one."""
        cut = self._before if chunk == 0 else 0
        for X, weight in self._reader.blocks(self._number + chunk, 0 if cut else block_rows):
            yield X[cut:], None if weight is None else weight[cut:]

    def close(self) -> None:
        """Give up buffers, and the rows in them."""
        self._reader.close()
