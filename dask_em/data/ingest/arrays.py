"""Matrices of any source, one below the other, as rows to ingest."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from ...core.additive import Array
from ...core.columns import Column, ColumnKind
from ...core.protocols import Source
from ...errors import DataError
from ...storage.outputs.stamps import source_stamps
from ...storage.stored_files import StoredFile
from ..zarr.source import ZarrSource
from .rows import Layout, Part, file_stamp, joint_stamp

KINDS: dict[str, ColumnKind] = {"b": "binary", "i": "count", "u": "count"}


@dataclass(frozen=True)
class ArrayInput:
    """A source of rows, the file that tells whether it was written to, and names of columns."""

    source: Source
    file: StoredFile | None = None
    names: Sequence[Column] | None = None

    def stamp(self, chunks: range) -> str:
        """Return what tells whether these chunks were written to; empty where nobody can tell."""
        if self.file is not None:
            return file_stamp(self.file)
        if isinstance(self.source, ZarrSource):
            stamps = source_stamps(self.source.array, self.source.bounds, [chunks])
            return stamps[chunks]
        return ""

    @property
    def columns(self) -> Sequence[Column]:
        """The columns, numbered where they have no names."""
        found = self.names or self.source.columns
        if found is not None:
            return found
        kind = KINDS.get(self.source.dtype.kind, "continuous")
        return [Column(f"x{j}", kind) for j in range(self.source.n_features)]


class LazyRows:
    """Compute rows of a Dask array when they are asked for."""

    def __init__(self, X: Any) -> None:
        if any(n != n for n in X.shape):
            X = X.compute_chunk_sizes()
        self._X = X
        self.shape, self.dtype = X.shape, X.dtype

    def __getitem__(self, rows: slice) -> Array:
        return np.asarray(self._X[rows].compute())


class ArrayRows:
    """The rows of several sources of the same columns.

    Parameters
    ----------
    inputs : sequence of ArrayInput
    choose : callable
        Names of all columns -> those that are kept.
    dtype : str or None
        Of the matrix.

    Raises
    ------
    DataError
        A source has other columns than the first.
    """

    def __init__(
        self,
        inputs: Sequence[ArrayInput],
        choose: Callable[[Sequence[str]], list[str]],
        dtype: str | None,
    ) -> None:
        self._sources = [each.source for each in inputs]
        self._inputs = inputs
        first, columns = self._sources[0], inputs[0].columns
        names = [column.name for column in columns]
        for each in inputs[1:]:
            theirs = [column.name for column in each.columns]
            if theirs != names:
                raise DataError(
                    f"{each.source.description} has the {len(theirs)} columns "
                    f"{', '.join(theirs[:5])}, ..., and {first.description} has the {len(names)} "
                    f"columns {', '.join(names[:5])}, ...: several arrays are one table, of the "
                    "same columns"
                )
        numbers = {name: j for j, name in enumerate(names)}
        self._kept = [numbers[name] for name in choose(names)]
        stored = np.result_type(*(_native(source.dtype) for source in self._sources))
        self.layout = Layout([columns[j] for j in self._kept], np.dtype(dtype or stored))
        self._bounds = [_bounds(source) for source in self._sources]
        self._starts = [0, *accumulate(bounds[-1] for bounds in self._bounds)]
        self.n_rows = self._starts[-1]
        self.nbytes = sum(source.nbytes for source in self._sources)
        self.unit_rows = max(source.chunk_rows for source in self._sources)

    def read(self, start: int) -> Iterator[Part]:
        """Yield all rows from number `start` on, some at a time."""
        first = bisect_right(self._starts, start) - 1
        for number in range(first, len(self._sources)):
            skip = max(0, start - self._starts[number])
            bounds, reader = self._bounds[number], self._sources[number].reader()
            chunk = max(0, bisect_right(bounds, skip) - 1)
            skip -= bounds[chunk]
            for c in range(chunk, len(bounds) - 1):
                for X, _ in reader.blocks(c):
                    kept = X if len(self._kept) == X.shape[1] else X[:, self._kept]
                    yield kept[skip:].astype(self.layout.dtype, copy=False), {}
                    skip = 0
            reader.close()

    def stamps(self, spans: Sequence[tuple[int, int]]) -> list[str]:
        """Return what tells whether the files were written to that hold these spans of rows."""
        return [self._stamp(start, stop) for start, stop in spans]

    def _stamp(self, start: int, stop: int) -> str:
        stamps = []
        for number, bounds in enumerate(self._bounds):
            before = self._starts[number]
            first = max(0, bisect_right(bounds, start - before) - 1)
            last = bisect_left(bounds, stop - before)
            if stop > before and start < self._starts[number + 1]:
                stamps.append(self._inputs[number].stamp(range(first, min(last, len(bounds) - 1))))
        return joint_stamp(stamps)


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of a matrix: truth values are bytes, halves hold too little for sums."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f" and dtype.itemsize == 2:
        return np.dtype(np.float32)
    return dtype.newbyteorder("=")


def _bounds(source: Source) -> list[int]:
    """First row of each chunk, and the number of rows."""
    rows = (source.rows_of(range(c, c + 1)) for c in range(source.n_chunks))
    return [0, *accumulate(rows)]
