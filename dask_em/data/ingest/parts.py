"""Parts of a table: frames in memory, and files whose columns have types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, Protocol

import pyarrow as pa

from ...core.tuning import tuning
from ...errors import DataError, StoreError, naming
from ...storage.stored_files import StoredFile, open_file
from ...storage.urls import is_url
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
    """

    name: str
    names: list[str]

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

    def __init__(
        self, name: str, number: int, schema: pa.Schema, file: StoredFile | None = None
    ) -> None:
        self.name, self.number, self.schema, self._file = name, number, schema, file
        self.names = list(map(str, schema.names))
        self._before = self.stamp()
        twice = [name for name, n in Counter(self.names).items() if n > 1]
        if twice:
            raise DataError(f"{name} has two columns of the name {twice[0]!r}: rename one of them")

    @property
    def file(self) -> StoredFile:
        """The file, of a part that has one."""
        assert self._file is not None, self.name
        return self._file

    @property
    def unit_rows(self) -> list[int]:
        """Rows of each unit."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return 0 if self._file is None else self._file.size

    def stamp(self) -> str:
        """Return what tells whether the file was written to."""
        return "" if self._file is None else file_stamp(self._file)

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
        self._check_types(self.schema, columns)
        told = ((name, self.known(name)) for name in columns if name not in as_text)
        known = {name: seen for name, seen in told if seen is not None}
        yield [known.get(name, Seen()) for name in columns]
        unknown = [name for name in columns if name not in known]
        row = 0
        for batch in self.batches(0, unknown) if unknown else ():
            place = (self.number, 0, row)
            found = {n: _seen(batch.column(n), place, n in as_text) for n in unknown}
            yield [found.get(name, Seen()) for name in columns]
            row += batch.num_rows

    def _check_types(self, schema: pa.Schema, columns: Sequence[str]) -> None:
        types = {name: schema.field(name).type for name in columns}
        wrong = next((name for name in columns if kind_of(types[name]) is None), None)
        if wrong is not None:
            raise DataError(
                f"{self.name}: column {wrong!r} holds {types[wrong]}, neither numbers, text nor "
                f"times: leave it out, exclude={wrong!r}"
            )

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


def _seen(column: pa.Array, place: tuple[int, int, int], as_text: bool) -> Seen:
    """See what a column of a declared type holds, as words where others of its name hold words."""
    return seen_in(column.cast(pa.string()) if as_text else column, place, True, ".")


class FramePart(ArrowPart):
    """A table in memory."""

    def __init__(self, table: pa.Table, number: int, name: str) -> None:
        self._batches = table.to_batches(max_chunksize=tuning().ingest.batch_rows)
        super().__init__(name, number, table.schema)

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
    """A Dask DataFrame, whose partitions are computed twice: to look at them, and to write them.

    What Dask takes its columns for need not be what they hold, and nobody knows their lengths.
    """

    def __init__(self, frame: Any, number: int, name: str) -> None:
        self._frame, self._rows = frame, list[int]()
        super().__init__(name, number, pa.Schema.from_pandas(frame._meta, preserve_index=False))

    def _table(self, partition: int, columns: Sequence[str]) -> pa.Table:
        found = self._frame[list(columns)].partitions[partition].compute()
        with reading(f"partition {partition} of {self.name}"):
            return pa.Table.from_pandas(found, preserve_index=False)

    @property
    def unit_rows(self) -> list[int]:
        """Rows of each partition."""
        return self._rows

    def look(self, columns: Sequence[str], as_text: frozenset[str]) -> Iterator[list[Seen]]:
        """Compute one partition after the other, and yield what each holds in some columns."""
        self._rows = []
        for partition in range(self._frame.npartitions):
            table = self._table(partition, columns)
            self._rows.append(table.num_rows)
            if not table.num_rows:
                continue
            self._check_types(table.schema, columns)
            place = (self.number, partition, 0)
            found = {name: table.column(name).combine_chunks() for name in columns}
            yield [_seen(found[name], place, name in as_text) for name in columns]

    def batches(self, unit: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from a partition on."""
        for partition in range(unit, len(self._rows)):
            if self._rows[partition]:
                table = self._table(partition, columns)
                if table.num_rows != self._rows[partition]:
                    raise changed(f"partition {partition} of {self.name}")
                yield from table.to_batches(max_chunksize=tuning().ingest.batch_rows)


class ParquetPart(ArrowPart):
    """A Parquet file, of which a stream holds some pages of each column, not a row group."""

    def __init__(self, file: StoredFile, number: int) -> None:
        with reading(str(file)), _parquet(file) as opened:
            self._metadata = opened.metadata
            schema = opened.schema_arrow
        leaves = self._metadata.schema
        self._places = {leaves.column(j).path: j for j in range(self._metadata.num_columns)}
        super().__init__(str(file), number, schema, file)

    @property
    def unit_rows(self) -> list[int]:
        """Rows of each row group."""
        groups = range(self._metadata.num_row_groups)
        return [self._metadata.row_group(i).num_rows for i in groups]

    def batches(self, unit: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from a row group on."""
        groups = [i for i, n in enumerate(self.unit_rows) if i >= unit and n]
        with reading(self.name), _parquet(self.file) as file:
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


@contextmanager
def _parquet(file: StoredFile) -> Iterator[Any]:
    """Open a Parquet file; from a store on the network more is asked for at a time."""
    import pyarrow.parquet as pq

    if not is_url(file.name):
        with pq.ParquetFile(file.name, buffer_size=2**20, pre_buffer=False) as opened:
            yield opened
        return
    with closing(open_file(file)) as stream:
        yield pq.ParquetFile(stream, buffer_size=2**22, pre_buffer=False)


class IpcPart(ArrowPart):
    """An Arrow IPC (Feather) file; on a disk it is mapped into memory."""

    def __init__(self, file: StoredFile, number: int) -> None:
        with reading(str(file)), _ipc(file) as opened:
            schema = opened.schema
        with reading(str(file)), _ipc(file, schema.names[:1]) as opened:
            # What else a batch holds need not be read, nor unpacked.
            self._rows = [opened.get_batch(i).num_rows for i in range(opened.num_record_batches)]
        super().__init__(str(file), number, schema, file)

    @property
    def unit_rows(self) -> list[int]:
        """Rows of each batch of the file."""
        return self._rows

    def batches(self, unit: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows from a batch on."""
        with reading(self.name), _ipc(self.file, columns) as opened:
            for i in range(unit, len(self._rows)):
                whole = opened.get_batch(i).select(list(columns))
                for start in range(0, whole.num_rows, tuning().ingest.batch_rows):
                    yield whole.slice(start, tuning().ingest.batch_rows)


@contextmanager
def _ipc(file: StoredFile, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Open an Arrow file, of which only some columns are read."""
    far = is_url(file.name)
    with pa.PythonFile(open_file(file), "r") if far else pa.memory_map(file.name) as source:
        opened = pa.ipc.open_file(source)
        if columns is not None:
            wanted = [i for i, name in enumerate(opened.schema.names) if name in set(columns)]
            options = pa.ipc.IpcReadOptions(included_fields=wanted)
            opened = pa.ipc.open_file(source, options=options)
        yield opened


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Name a part in what Arrow raises of it."""
    try:
        with naming(name):
            yield
    except (DataError, StoreError):
        raise
    except FileNotFoundError:
        raise gone(name) from None
    except pa.ArrowException as e:
        raise DataError(f"{name} cannot be read ({e}): it is damaged, or of another kind") from e
    except OSError as e:
        if e.errno is None:
            # Arrow's word for a page that cannot be decoded.
            raise DataError(f"{name} cannot be read ({e}): it is damaged or was cut") from e
        raise
