"""Parts of a table: frames in memory, and files whose columns have types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import pyarrow as pa

from ...core.tuning import tuning
from ...errors import DataError, naming
from .rows import changed, file_stamp, gone
from .schema import Seen, Word, kind_of, seen_in


class TablePart(Protocol):
    """One file of a table, or a frame.

    Attributes
    ----------
    name : str
        For messages.
    names : list of str
        Of its columns.
    unit_rows : list of int
        Rows of each unit, which are decoded together; of some parts known when `look` has ended.
    nbytes : int
    declares : bool
        Whether it says the types of its columns.
    """

    name: str
    names: list[str]
    declares: bool

    @property
    def unit_rows(self) -> list[int]:
        """Rows of each unit."""

    @property
    def nbytes(self) -> int:
        """Bytes as it lies there."""

    def stamp(self) -> str:
        """Return what tells whether it was written to; empty where nobody can tell."""

    def look(self, columns: Sequence[str], as_text: frozenset[str]) -> Iterator[list[Seen]]:
        """Yield what each unit holds in some columns, in order."""

    def stream(
        self, unit: int, columns: Sequence[str], types: Mapping[str, pa.DataType]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows from a unit on, of some columns, which a CSV file reads as `types`."""

    def place_of(self, word: Word) -> str:
        """Say where a value is."""

    def advice(self, word: Word, column: str) -> str:
        """Say what to do about a value that is no number among numbers."""


class ArrowPart:
    """A part whose columns have types: a frame in memory, or a file that is opened again and again.

    Attributes
    ----------
    schema : pyarrow.Schema
    """

    declares = True

    def __init__(self, name: str, number: int, schema: pa.Schema, path: str | None) -> None:
        self.name, self.number, self.schema, self._path = name, number, schema, path
        self.names = list(map(str, schema.names))
        self._before = self.stamp()
        twice = [name for name, n in Counter(self.names).items() if n > 1]
        if twice:
            raise DataError(f"{name} has two columns of the name {twice[0]!r}: rename one of them")

    @property
    def unit_rows(self) -> list[int]:
        """Rows of each unit."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return int(self._before.partition(":")[0] or 0)

    def stamp(self) -> str:
        """Return what tells whether the file was written to."""
        return "" if self._path is None else file_stamp(self._path)

    def batches(self, unit: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from a unit on."""
        raise NotImplementedError

    def known(self, column: str) -> Seen | None:
        """Return what a column holds where that need not be read; None where it must be."""
        found = kind_of(self.schema.field(column).type)
        n_rows = sum(self.unit_rows)
        if found is not None and found[0] in ("float", "nothing"):
            return Seen(found[0], found[1], n_rows, n_numbers=n_rows)
        return None

    def look(self, columns: Sequence[str], as_text: frozenset[str]) -> Iterator[list[Seen]]:
        """Yield what columns hold: those whose types and statistics do not tell are read."""
        types = {name: self.schema.field(name).type for name in columns}
        wrong = next((name for name in columns if kind_of(types[name]) is None), None)
        if wrong is not None:
            raise DataError(
                f"{self.name}: column {wrong!r} holds {types[wrong]}, neither numbers, text nor "
                f"times: leave it out, exclude={wrong!r}"
            )
        known = {name: seen for name in columns if (seen := self.known(name)) is not None}
        yield [known.get(name, Seen()) for name in columns]
        unknown = [name for name in columns if name not in known]
        row = 0
        for batch in self.batches(0, unknown) if unknown else ():
            place = (self.number, 0, row)
            found = {n: seen_in(batch.column(n), place, True, ".") for n in unknown}
            yield [found.get(name, Seen()) for name in columns]
            row += batch.num_rows

    def stream(
        self, unit: int, columns: Sequence[str], types: Mapping[str, pa.DataType]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows from a unit on."""
        if self.stamp() != self._before:
            raise changed(self.name)
        yield from self.batches(unit, columns)

    def place_of(self, word: Word) -> str:
        """Say where a value is."""
        return f"{self.name}, row {sum(self.unit_rows[: word.unit]) + word.row}"

    def advice(self, word: Word, column: str) -> str:
        """Say what to do about a value that is no number among numbers."""
        return f"write the column as numbers, or leave it out, exclude={column!r}"


class FramePart(ArrowPart):
    """A table in memory."""

    def __init__(self, table: pa.Table, number: int, name: str) -> None:
        self._batches = table.to_batches(max_chunksize=tuning().ingest.batch_rows)
        super().__init__(name, number, table.schema, None)

    @property
    def unit_rows(self) -> list[int]:
        """Rows of each batch."""
        return [batch.num_rows for batch in self._batches]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return int(sum(batch.nbytes for batch in self._batches))

    def batches(self, unit: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from a batch on."""
        for batch in self._batches[unit:]:
            yield batch.select(list(columns))


class PartitionsPart(ArrowPart):
    """A Dask DataFrame, whose partitions are computed one after the other, each time anew."""

    def __init__(self, frame: Any, number: int, name: str) -> None:
        self._frame = frame
        self._rows = [int(n) for n in frame.map_partitions(len).compute()]
        schema = pa.Schema.from_pandas(frame._meta, preserve_index=False)
        first = next((i for i, n in enumerate(self._rows) if n), None)
        if first is not None:
            schema = self._table(first).schema
        super().__init__(name, number, schema, None)

    def _table(self, partition: int) -> pa.Table:
        return pa.Table.from_pandas(
            self._frame.partitions[partition].compute(), preserve_index=False
        )

    @property
    def unit_rows(self) -> list[int]:
        """Rows of each partition."""
        return self._rows

    def batches(self, unit: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from a partition on."""
        for partition in range(unit, len(self._rows)):
            if self._rows[partition]:
                table = self._table(partition).select(list(columns))
                yield from table.to_batches(max_chunksize=tuning().ingest.batch_rows)


class ParquetPart(ArrowPart):
    """A Parquet file, of which a stream holds some pages of each column, not a row group."""

    def __init__(self, path: str, number: int) -> None:
        with _read(path), self._opened(path) as file:
            self._metadata = file.metadata
            schema = file.schema_arrow
        leaves = self._metadata.schema
        self._places = {leaves.column(j).path: j for j in range(self._metadata.num_columns)}
        super().__init__(path, number, schema, path)

    @staticmethod
    def _opened(path: str) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False)

    @property
    def unit_rows(self) -> list[int]:
        """Rows of each row group."""
        groups = range(self._metadata.num_row_groups)
        return [self._metadata.row_group(i).num_rows for i in groups]

    def batches(self, unit: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from a row group on."""
        groups = [i for i, n in enumerate(self.unit_rows) if i >= unit and n]
        with _read(self.name), self._opened(self.name) as file:
            yield from file.iter_batches(tuning().ingest.batch_rows, groups, list(columns))

    def known(self, column: str) -> Seen | None:
        """Return what statistics of the row groups say of integers and truth values, too."""
        found = super().known(column)
        field = self.schema.field(column)
        kind = kind_of(field.type)
        if found is not None or kind is None or kind[0] not in ("integer", "boolean"):
            return found
        place = self._places.get(column)
        if place is None or pa.types.is_dictionary(field.type):
            return None
        seen = Seen()
        for i, n_rows in enumerate(self.unit_rows):
            told = self._metadata.row_group(i).column(place).statistics
            if told is None or not told.has_null_count or not (told.has_min_max or not n_rows):
                return None
            whole = kind[0] == "integer" and told.has_min_max
            low, high = (told.min, told.max) if whole else (0, 0)
            n_missing = int(told.null_count)
            count = n_rows - n_missing
            seen += Seen(kind[0], kind[1], count, n_missing, count, min(low, 0), max(high, 0))
        return seen


class IpcPart(ArrowPart):
    """An Arrow IPC (Feather) file, mapped into memory."""

    def __init__(self, path: str, number: int) -> None:
        with _read(path), pa.memory_map(path) as mapped:
            file = pa.ipc.open_file(mapped)
            self._rows = [file.get_batch(i).num_rows for i in range(file.num_record_batches)]
            schema = file.schema
        super().__init__(path, number, schema, path)

    @property
    def unit_rows(self) -> list[int]:
        """Rows of each batch of the file."""
        return self._rows

    def batches(self, unit: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from a batch on."""
        with _read(self.name), pa.memory_map(self.name) as mapped:
            file = pa.ipc.open_file(mapped)
            for i in range(unit, len(self._rows)):
                whole = file.get_batch(i).select(list(columns))
                for start in range(0, whole.num_rows, tuning().ingest.batch_rows):
                    yield whole.slice(start, tuning().ingest.batch_rows)


@contextmanager
def _read(path: str) -> Iterator[None]:
    """Name a file in what Arrow raises of it."""
    try:
        with naming(path):
            yield
    except FileNotFoundError:
        raise gone(path) from None
    except pa.ArrowException as e:
        raise DataError(f"{path} cannot be read ({e}): it is damaged, or of another kind") from e
    except OSError as e:
        if e.errno is None:
            # Arrow's word for a page that cannot be decoded.
            raise DataError(f"{path} cannot be read ({e}): it is damaged or was cut") from e
        raise
