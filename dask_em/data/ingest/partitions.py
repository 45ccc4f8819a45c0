"""Files in folders that are called `name=value`, as Hive does: such names are columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from ...storage.stored_files import StoredFile
from ..arrow.opening import partition_dtype, partition_of
from ..arrow.rows import NO_VALUE
from .parts import TablePart
from .schema import Seen, Word, seen_in


class PartitionedPart:
    """A part of a table with the columns that the names of its folders hold.

    Parameters
    ----------
    part : TablePart
    values : mapping of str to pyarrow.Scalar
        The one value of each such column in this part.
    """

    def __init__(self, part: TablePart, values: Mapping[str, pa.Scalar]) -> None:
        self.name, self._part = part.name, part
        self._values = {name: value for name, value in values.items() if name not in part.names}
        self.names = [*part.names, *self._values]

    @property
    def unit_rows(self) -> list[int]:
        """Rows of each unit."""
        return self._part.unit_rows

    @property
    def nbytes(self) -> int:
        """Bytes as it lies there."""
        return self._part.nbytes

    def stamp(self) -> str:
        """Return what tells whether it was written to, or its folder got another name."""
        found = self._part.stamp()
        return f"{found}:{self._values}" if found else ""

    def look(self, columns: Sequence[str], as_text: frozenset[str]) -> Iterator[list[Seen]]:
        """Yield what each unit holds in some columns, and at last what the folders say."""
        stored = self._stored(columns)
        for seen in self._part.look(stored, as_text):
            found = dict(zip(stored, seen, strict=True))
            yield [found.get(name, Seen()) for name in columns]
        n_rows = sum(self.unit_rows)
        yield [self._told(name, n_rows) for name in columns]

    def _told(self, name: str, n_rows: int) -> Seen:
        if name not in self._values or not n_rows:
            return Seen()
        value = self._values[name]
        if not value.is_valid:
            return Seen(n_missing=n_rows)
        if pa.types.is_string(value.type):
            # Words, even where this one is a number.
            return Seen("text", count=n_rows, values=frozenset({value.as_py()}))
        one = seen_in(pa.repeat(value, 1), (0, 0, 0), False, ".")
        return replace(one, count=n_rows, n_numbers=n_rows)

    def stream(
        self, unit: int, columns: Sequence[str], types: Mapping[str, pa.DataType]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows from a unit on."""
        for batch in self._part.stream(unit, self._stored(columns), types):
            n_rows = batch.num_rows
            given = {name: pa.repeat(value, n_rows) for name, value in self._values.items()}
            arrays = [given[n] if n in given else batch.column(n) for n in columns]
            yield pa.RecordBatch.from_arrays(arrays, list(columns))

    def _stored(self, columns: Sequence[str]) -> list[str]:
        """The columns of the file itself; one at least, which tells how many rows there are."""
        found = [name for name in columns if name not in self._values]
        return found or self._part.names[:1]

    def place_of(self, word: Word) -> str:
        """Say where a value is."""
        return self._part.place_of(word)

    def advice(self, word: Word, column: str) -> str:
        """Say what to do about a value that is no number among numbers."""
        return self._part.advice(word, column)


def with_partitions(
    parts: Sequence[TablePart], files: Sequence[StoredFile | None]
) -> list[TablePart]:
    """Return the parts with the columns that names of folders hold: numbers where all are.

    A column of that name in a file itself is what counts there.
    """
    told = [{} if file is None else dict(partition_of(file)) for file in files]
    values: dict[str, set[str]] = {}
    for one in told:
        for name, value in one.items():
            values.setdefault(name, set()).add(value)
    dtypes = {name: partition_dtype(found) for name, found in values.items()}
    return [
        PartitionedPart(part, {name: _scalar(value, dtypes[name]) for name, value in one.items()})
        if one
        else part
        for part, one in zip(parts, told, strict=True)
    ]


def _scalar(value: str, dtype: np.dtype[np.generic] | None) -> pa.Scalar:
    kind = pa.string() if dtype is None else pa.from_numpy_dtype(dtype)
    if value == NO_VALUE:
        return pa.scalar(None, kind)
    return pa.scalar(value if dtype is None else dtype.type(value), kind)
