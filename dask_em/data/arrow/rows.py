"""Rows of all files of a table by their numbers: decoded batch by batch into arrays of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...core.additive import Array
from ...core.columns import Column
from ...core.protocols import ArrowStream, CarriedColumns, CarriedReader
from ...core.tuning import tuning
from ...errors import DataError
from ...storage.outputs.stamps import files_stamp
from ...storage.stored_files import StoredFile, stamps_now
from ..checks import tell_once
from ..columns import with_names
from ..fields import Field, codes_of
from ..ranged import RowsReader
from .fields import exact_values
from .files import BUFFER_BYTES, batch_rows, open_table_file, reading

# Rows that are copied from columns at a time: they stay in cache.
COPIED_ROWS = 2048

# What Hive calls a partition of missing values.
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"

# A page of Parquet is of about so many bytes, which are held compressed and decoded.
PAGE_BYTES = 2**20


@dataclass(frozen=True)
class TablePart:
    """One file of a table, and the rows of its groups.

    Attributes
    ----------
    file : StoredFile
    group_rows : array of int
    fields : tuple of Field
        Its columns; empty where they were chosen.
    partition : tuple of (str, str)
        Columns that the names of its folders hold, with their values.
    times_held : int
        How often the columns of a group are held while it is read, 0 where it is in parts.
    """

    file: StoredFile
    group_rows: Array
    fields: tuple[Field, ...] = ()
    partition: tuple[tuple[str, str], ...] = ()
    times_held: int = 0

    @property
    def n_rows(self) -> int:
        """Rows of the file."""
        return int(self.group_rows.sum())


@dataclass(frozen=True)
class StoredTableRows:
    """Rows of some columns of a table in files; weights may be another column.

    Attributes
    ----------
    description : str
    parts : tuple of TablePart
        In the order of their rows.
    fields : tuple of Field
        The columns that are read.
    weight : Field or None
    lacks_checksum : str
        What to do where flipped bits would pass for data; empty where none would.
    """

    description: str
    parts: tuple[TablePart, ...]
    fields: tuple[Field, ...]
    weight: Field | None = None
    lacks_checksum: str = ""

    @property
    def n_features(self) -> int:
        """Columns."""
        return len(self.fields)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds all of them."""
        return np.result_type(*(field.read_as for field in self.fields))

    @property
    def columns(self) -> Sequence[Column]:
        """Names and kinds of the columns."""
        return [field.column for field in self.fields]

    @cached_property
    def groups(self) -> Array:
        """First row of each group of all files, and the number of rows."""
        rows = np.concatenate([part.group_rows for part in self.parts])
        return np.concatenate([[0], np.cumsum(rows[rows > 0], dtype=np.int64)])

    @property
    def weight_name(self) -> str:
        """Name of the column of weights, empty where there is none."""
        return "" if self.weight is None else str(self.weight.name)

    @property
    def library_bytes(self) -> int:
        """Bytes of pyarrow, and of what its allocator keeps."""
        return tuning().plan.arrow_bytes

    def decoding_bytes(self, chunk_rows: int) -> int:
        """Count what is held of a group that is read as a whole, or else pages and two batches.

        And what the allocator keeps: of groups that are read as a whole, one at most.
        """
        n_columns = self.n_features + (self.weight is not None)
        row_bytes, longest = 8 * n_columns, int(np.diff(self.groups).max())
        decoded = row_bytes * min(longest, batch_rows(row_bytes))
        pages = min(n_columns * (BUFFER_BYTES + 2 * PAGE_BYTES), 3 * row_bytes * longest)
        heap = tuning().plan.arrow_heap_bytes
        in_parts = pages + 2 * decoded + heap
        wholes = [(part.times_held, row_bytes * int(part.group_rows.max()))
                  for part in self.parts if part.times_held]  # fmt: skip
        return max((times * whole + min(whole, heap) for times, whole in wholes), default=in_parts)

    def open(self) -> RowsReader:
        """Open the table for one range."""
        return TableReader(self)

    @cached_property
    def edges(self) -> Array:
        """First row of each file, and the number of rows."""
        return np.concatenate([[0], np.cumsum([part.n_rows for part in self.parts])])

    def part_of(self, row: int) -> int:
        """Return the number of the file that a row is in."""
        return int(np.searchsorted(self.edges, row, side="right")) - 1

    def place(self, row: int) -> str:
        """Say in which file a row lies, and at which row of it."""
        number = self.part_of(row)
        within = row - int(self.edges[number])
        file = self.parts[number].file
        return f" of {file}" if len(self.parts) == 1 else f" (row {within} of {file})"

    @property
    def layout_advice(self) -> str:
        """Say what it costs where row groups are very small or very large; empty where they fit."""
        lengths, row_bytes = np.diff(self.groups), self.n_features * self.dtype.itemsize
        known = tuning().reading
        if len(lengths) >= known.many_chunks and lengths.mean() * row_bytes < known.small_chunk:
            return (
                f"lies in {len(lengths):,} row groups of {lengths.mean():,.0f} rows, each of which "
                "takes about as long to begin as a megabyte to read: write row groups of about a "
                "million rows"
            )
        large = lengths.max() * row_bytes > known.range_chunks * known.bytes
        if large and len(lengths) < known.fewest_ranges:
            return (
                f"lies in row groups of up to {lengths.max():,} rows, each of which one task reads "
                "from its beginning: write row groups of about a million rows, so that more can "
                "work at once"
            )
        return ""

    def check(self) -> None:
        """Raise `DataError` where a file is gone, or is another one by now."""
        now = stamps_now(part.file for part in self.parts)
        changed = [p.file for p in self.parts if p.file.stamp not in ("", now[p.file.name])]
        if changed:
            gone = now[changed[0].name] == "missing"
            more = f", and {len(changed) - 1} more files" if changed[1:] else ""
            raise DataError(
                f"{changed[0]}{more} {'is gone' if gone else 'changed'} since it was opened: open "
                f"{self.description} again when nobody writes there"
            )
        if advice := self.layout_advice:
            tell_once(f"{self.description} {advice}")

    def presence(self) -> str:
        """Check that the files are there, and count them."""
        self.check()
        n_files, n_groups = len(self.parts), len(self.groups) - 1
        files = "the one file is" if n_files == 1 else f"all {n_files:,} files are"
        return f"{files} there; row groups: {n_groups:,}"

    def stamps(self, spans: Sequence[tuple[int, int]]) -> list[str]:
        """Return the stamp of the files of each span of rows."""
        now = stamps_now(part.file for part in self.parts)
        layout = f"{[field.name for field in self.fields]}:{self.dtype}"
        found = []
        for start, stop in spans:
            parts = self.parts[self.part_of(start) : self.part_of(stop - 1) + 1]
            rows = [f"{part.file.below}:{part.group_rows.tolist()}" for part in parts]
            known = [now[part.file.name] for part in parts]
            found.append(files_stamp(f"{layout}:{rows}", known))
        return found

    def carried(self, names: Sequence[str]) -> CarriedColumns:
        """Return columns to be carried beside the answers, of any type."""
        return CarriedTable(self, carried_schema(self, names))


class BatchStream:
    """Read batches of columns, from any row on: groups are decoded from their beginning."""

    def __init__(self, rows: StoredTableRows, names: Sequence[str]) -> None:
        self._rows, self._names = rows, list(names)
        self._batches: Iterator[tuple[int, Any, TablePart]] = iter(())
        self._begun = self._end = -1
        self._batch: Any = None
        self._part: TablePart | None = None

    def at(self, row: int) -> tuple[int, Any, TablePart]:
        """Return the batch that holds a row, the number of its first row, and its file."""
        if not self._begun <= row or self._is_far(row):
            self._batches = self._from(row)
            self._end = -1
        while self._part is None or not self._begun <= row < self._end:
            self._begun, self._batch, self._part = next(self._batches)
            self._end = self._begun + self._batch.num_rows
        return self._begun, self._batch, self._part

    def _is_far(self, row: int) -> bool:
        """Tell whether reading on would decode a whole group for nothing."""
        if self._end < 0:
            return True
        groups = self._rows.groups
        first = groups[np.searchsorted(groups, row, side="right") - 1]
        return row > self._end and first > self._end

    def _from(self, row: int) -> Iterator[tuple[int, Any, TablePart]]:
        """Yield batches from the beginning of the group that holds a row."""
        rows = self._rows
        n = batch_rows(8 * max(1, len(self._names)))
        for number in range(rows.part_of(row), len(rows.parts)):
            part, start = rows.parts[number], int(rows.edges[number])
            if start + part.n_rows <= row:
                continue
            opened = open_table_file(part.file)
            stored = [name for name in self._names if name not in dict(part.partition)]
            lengths = part.group_rows.tolist()
            try:
                if not opened.has_groups(lengths):
                    raise self._regrouped(part)
                for group, length in enumerate(lengths):
                    stop = start + length
                    if stop > row:
                        with reading(part.file, f"row group {group} (rows {start} to {stop - 1})"):
                            for batch in opened.batches(group, stored, n):
                                yield start, batch, part
                                start += batch.num_rows
                        if start != stop:
                            raise self._regrouped(part)
                    start = stop
            finally:
                opened.close()

    def _regrouped(self, part: TablePart) -> DataError:
        return DataError(
            f"{part.file} has other row groups than when it was opened: open "
            f"{self._rows.description} again when nobody writes there"
        )

    def close(self) -> None:
        """Close the file that is open."""
        self._batches = iter(())
        self._batch = self._part = None
        self._begun = self._end = -1


class TableReader:
    """Read rows of a table as numbers."""

    def __init__(self, rows: StoredTableRows) -> None:
        self._rows = rows
        self._fields = [*rows.fields, *([rows.weight] if rows.weight else [])]
        self._stream = BatchStream(rows, [str(field.name) for field in self._fields])

    def read(self, start: int, out: Array) -> Array | None:
        """Fill `out` (n, d) with the rows from `start` on; return their weights."""
        done = 0
        weight = None if self._rows.weight is None else np.empty(len(out))
        while done < len(out):
            first, batch, part = self._stream.at(start + done)
            skipped = start + done - first
            n = min(batch.num_rows - skipped, len(out) - done)
            columns = self._columns(batch.slice(skipped, n), part, start + done)
            if weight is not None:
                weight[done : done + n] = columns.pop()
            _interleave(columns, out[done : done + n])
            done += n
        return weight

    def _columns(self, batch: Any, part: TablePart, row: int) -> list[Array]:
        """The numbers of each column of a batch, that of the weights last."""
        given, found = dict(part.partition), []
        within = row - int(self._rows.edges[self._rows.part_of(row)])
        for field in self._fields:
            name = str(field.name)
            if name in given:
                value = _of_folder(given[name], field, within, part)
                found.append(np.full(batch.num_rows, value))
                continue
            column = column_of(batch, name, part)
            found.append(exact_values(column, field, within, f" of {part.file}"))
        return found

    def close(self) -> None:
        """Close the file that is open."""
        self._stream.close()


def _of_folder(value: str, field: Field, within: int, part: TablePart) -> float:
    """The number that the name of a folder holds, or the code of it."""
    if value == NO_VALUE:
        return float(np.nan)
    if not field.coded:
        return float(value)
    return float(codes_of(np.zeros(1, dtype=int), [value], field, within, f" of {part.file}")[0])


def column_of(batch: Any, name: str, part: TablePart) -> Any:
    """Return a column of a batch by its name.

    Raises
    ------
    DataError
        The file has none, or several.
    """
    index = batch.schema.get_field_index(name)
    if index < 0:
        raise DataError(f"{part.file} has no column {name!r}, or several of that name")
    return batch.column(index)


def _interleave(columns: Sequence[Array], out: Array) -> None:
    """Copy columns into rows, some rows at a time."""
    for start in range(0, len(out), COPIED_ROWS):
        rows = out[start : start + COPIED_ROWS]
        for j, column in enumerate(columns):
            rows[:, j] = column[start : start + len(rows)]


# -- columns that go with the answers --------------------------------------------------


@dataclass(frozen=True)
class CarriedTable:
    """Columns of a table in whatever type they have.

    Attributes
    ----------
    rows : StoredTableRows
    schema : pyarrow.Schema
        Names and types of the columns: those of the first file.
    """

    rows: StoredTableRows
    schema: Any

    @property
    def names(self) -> Sequence[str]:
        """Names of the columns."""
        names: Sequence[str] = self.schema.names
        return names

    def open(self) -> CarriedReader:
        """Open the columns for one range."""
        return CarriedTableReader(self)


class CarriedTableReader:
    """Read columns of a table as Arrow tables."""

    def __init__(self, carried: CarriedTable) -> None:
        self._schema = carried.schema
        self._stream = BatchStream(carried.rows, carried.names)

    def read(self, start: int, stop: int) -> ArrowStream:
        """Return the columns of rows `start` to `stop - 1`."""
        import pyarrow as pa

        batches = []
        while start < stop:
            first, batch, part = self._stream.at(start)
            n = min(first + batch.num_rows, stop) - start
            piece = batch.slice(start - first, n)
            with reading(part.file, "a column to keep"):
                columns = [
                    _carried(piece, name, part).cast(self._schema.field(name).type)
                    for name in self._schema.names
                ]
            batches.append(pa.record_batch(columns, schema=self._schema))
            start += n
        table: ArrowStream = pa.Table.from_batches(batches, self._schema)
        return table

    def close(self) -> None:
        """Close the file that is open."""
        self._stream.close()


def _carried(batch: Any, name: str, part: TablePart) -> Any:
    import pyarrow as pa

    given = dict(part.partition)
    if name in given:
        return pa.array([given[name]] * batch.num_rows, pa.string())
    return column_of(batch, name, part)


def carried_schema(rows: StoredTableRows, names: Sequence[str]) -> Any:
    """Return the Arrow schema of columns to carry.

    Raises
    ------
    DataError
        A table has no such column.
    """
    import pyarrow as pa

    part = rows.parts[0]
    opened = open_table_file(part.file)
    there = [*(str(field.name) for field in opened.fields()), *dict(part.partition)]
    opened.close()
    for name in names:
        if there.count(name) != 1:
            several = "several columns" if name in there else "no column"
            what = f"{rows.description} has {several} {name!r} to keep"
            raise DataError(with_names(what, name, there))
    stream = BatchStream(rows, names)
    _, batch, part = stream.at(0)
    stream.close()
    found = [(name, _carried(batch, name, part).type) for name in names]
    plain = [(n, t.value_type if pa.types.is_dictionary(t) else t) for n, t in found]
    return pa.schema(plain)
