"""CSV files: types are what all rows allow, and what breaks them is named by file and line."""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.csv

from ...core.executor import ThreadPool
from ...core.tuning import tuning
from ...errors import DataError
from ...foreign import shown
from ...machine import usable_cpus
from ...storage.stored_files import StoredFile
from .options import CsvOptions
from .rows import changed, file_stamp
from .schema import Seen, Word, is_decimal_comma, kind_of, seen_in
from .text import EndlessLineError, TextFile

BOM = b"\xef\xbb\xbf"

# Of other encodings: UTF-16 and UTF-32, either way.
OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")

# What else may part the columns.
DELIMITERS = {";": "';'", "\t": "'\\t'", "|": "'|'"}


@dataclass(frozen=True)
class Blocks:
    """Blocks of whole lines: length in bytes, number of the first line, and rows of each."""

    lengths: list[int]
    lines: list[int]
    rows: list[int]


class CsvPart:
    """One CSV file of a table.

    Attributes
    ----------
    name : str
        Its path.
    names : list of str
        Of its columns, by the header.
    unit_rows : list of int
        Rows of each block, once `look` has read all.
    """

    def __init__(self, file: StoredFile, number: int, options: CsvOptions) -> None:
        self.name, self.number, self.options = str(file), number, options
        self.delimiter = options.of(file.name)
        self._file, self._before = file, file_stamp(file)
        self._text = TextFile(file, file.name.endswith(".gz"))
        self._start, self._line, self.names = self._header()
        self._blocks = Blocks([], [], [])

    @property
    def unit_rows(self) -> list[int]:
        """Rows of each block."""
        return self._blocks.rows

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self._file.size

    def stamp(self) -> str:
        """Return what tells whether the file was written to."""
        return file_stamp(self._file)

    # -- the header --------------------------------------------------------------------

    def _header(self) -> tuple[int, int, list[str]]:
        """The byte and the line where rows begin, and the names of the columns."""
        text = b""
        for piece in self._text.pieces(0):
            text += piece
            if b"\n" in text.strip():
                break
        if text.startswith(OTHER_MARKS):
            raise DataError(
                f"{self.name} is not UTF-8: convert it, iconv -f UTF-16 -t UTF-8 FILE > NEW"
            )
        start = len(BOM) if text.startswith(BOM) else 0
        line = 1
        while text[start : start + 2].lstrip(b"\r")[:1] == b"\n":
            # Empty lines before the first.
            start, line = text.index(b"\n", start) + 1, line + 1
        end = text.find(b"\n", start) + 1 or len(text)
        first = self._decoded(text[start:end]).rstrip("\r\n")
        names = next(csv.reader([first], delimiter=self.delimiter), [])
        if not names:
            raise DataError(f"{self.name} is empty")
        if not self.options.header:
            return start, line, [f"x{j}" for j in range(len(names))]
        self._check_names(names)
        return end, line + 1, names

    def _decoded(self, text: bytes) -> str:
        try:
            return text.decode()
        except UnicodeDecodeError as e:
            raise self._not_utf8(e) from e

    def _not_utf8(self, e: object) -> DataError:
        return DataError(
            f"{self.name} is not UTF-8 ({e}): convert it, as by iconv -f LATIN1 -t UTF-8 FILE > NEW"
        )

    def _check_names(self, names: Sequence[str]) -> None:
        if len(names) == 1:
            other = next((d for d in DELIMITERS if d in names[0]), None)
            if other is not None:
                raise DataError(
                    f"{self.name} has one column, {shown(names[0], 80)!r}: if "
                    f"{DELIMITERS[other]} parts its columns, pass delimiter={DELIMITERS[other]}"
                )
        places: dict[str, int] = {}
        for j, name in enumerate(names):
            if not name.strip():
                raise DataError(
                    f"{self.name}: column {j + 1} has no name in the header: give it one (pandas "
                    "writes its index so: to_csv(index=False))"
                )
            if places.setdefault(name, j) < j:
                raise DataError(
                    f"{self.name}: columns {places[name] + 1} and {j + 1} are both called "
                    f"{name!r}: rename one of them in the header"
                )
        if all(re.fullmatch(r"\s*[-+]?[\d.,]+([eE][-+]?\d+)?\s*", name) for name in names):
            raise DataError(
                f"{self.name} begins with numbers, {shown(self.delimiter.join(names), 80)!r}, "
                "where the names of the columns should be: pass header=False if it has no header"
            )

    # -- rows --------------------------------------------------------------------------

    def look(self, columns: Sequence[str], as_text: frozenset[str]) -> Iterator[list[Seen]]:
        """Read all of the file; yield what each block holds in some columns.

        Parameters
        ----------
        columns : sequence of str
        as_text : frozenset of str
            Columns that are text, whatever a block looks like.
        """
        self._blocks = Blocks([], [], [])
        types = dict.fromkeys(as_text, pa.string())

        def one(unit: int, data: bytes) -> tuple[int, list[Seen]]:
            table = self._parsed(data, unit, columns, types)
            place = (self.number, unit, 0)
            found = [self._seen(table.column(name), place) for name in columns]
            return table.num_rows, found

        n_threads, waiting = usable_cpus(), deque[Future[tuple[int, list[Seen]]]]()
        line = self._line

        def done() -> list[Seen]:
            n_rows, found = waiting.popleft().result()
            self._blocks.rows.append(n_rows)
            return found

        with ThreadPool(n_threads) as pool:
            blocks = self._text.blocks(self._start, tuning().ingest.text_bytes)
            try:
                for unit, data in enumerate(blocks):
                    self._blocks.lengths.append(len(data))
                    self._blocks.lines.append(line)
                    line += data.count(b"\n")
                    waiting.append(pool.submit(one, unit, data))
                    if len(waiting) > n_threads:
                        yield done()
            except EndlessLineError as e:
                raise DataError(
                    f"{self.name}, line {line + e.n_lines_before} does not end: {str(e)!r}, ...: "
                    "close its quotes (a quote within text is written twice, within quotes)"
                ) from e
            while waiting:
                yield done()

    def _seen(self, column: pa.ChunkedArray, place: tuple[int, int, int]) -> Seen:
        if pa.types.is_binary(column.type):
            raise self._not_utf8(f"around line {self._blocks.lines[place[1]]}")
        odd = kind_of(column.type) is None
        values = (column.cast(pa.string()) if odd else column).combine_chunks()
        found = seen_in(values, place, False, self.options.decimal)
        # Times of a day are words here, as they are written.
        return replace(found, partly=True) if odd else found

    def stream(
        self, unit: int, columns: Sequence[str], types: Mapping[str, pa.DataType]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows from block number `unit` on."""
        if self.stamp() != self._before:
            raise changed(self.name)
        lengths = self._blocks.lengths
        again = self._text.again(self._start + sum(lengths[:unit]), lengths[unit:])
        for number, data in enumerate(again, unit):
            table = self._parsed(data, number, columns, types)
            if table.num_rows != self._blocks.rows[number]:
                raise changed(self.name)
            yield from table.to_batches()

    def _parsed(
        self, data: bytes, unit: int, columns: Sequence[str], types: Mapping[str, pa.DataType]
    ) -> pa.Table:
        odd: list[Any] = []

        def skip(row: Any) -> str:
            odd.append(row)
            return "skip"

        defaults = pa.csv.ConvertOptions()
        convert = pa.csv.ConvertOptions(
            include_columns=list(columns),
            column_types=dict(types),
            null_values=[*defaults.null_values, *self.options.null],
            strings_can_be_null=True,
            decimal_point=self.options.decimal,
        )
        parse = pa.csv.ParseOptions(
            delimiter=self.delimiter,
            newlines_in_values=b'"' in data,
            invalid_row_handler=skip,
        )
        read = pa.csv.ReadOptions(
            use_threads=False, block_size=len(data) + 1, column_names=self.names
        )
        try:
            table = pa.csv.read_csv(pa.BufferReader(data), read, parse, convert)
        except pa.ArrowInvalid as e:
            if "Empty CSV" in str(e):
                return pa.table({name: pa.nulls(0) for name in columns})
            if "UTF8" in str(e):
                raise self._not_utf8(e) from e
            first = self._blocks.lines[unit]
            raise DataError(f"{self.name}, lines {first} to {first + data.count(10)}: {e}") from e
        if odd:
            raise self._odd_row(odd[0], data, unit)
        return table

    def _odd_row(self, row: Any, data: bytes, unit: int) -> DataError:
        found = re.search(rb"(?m)^" + re.escape(row.text.encode()) + rb"\r?$", data)
        line = self._blocks.lines[unit] + data.count(b"\n", 0, found.start() if found else 0)
        return DataError(
            f"{self.name}, line {line} has {row.actual_columns} fields, expected "
            f"{row.expected_columns}, those of the header: {shown(row.text, 80)!r}: mend or remove "
            "the line"
        )

    # -- places ------------------------------------------------------------------------

    def place_of(self, word: Word) -> str:
        """Say in which line of the file a value is."""
        lengths = self._blocks.lengths
        again = self._text.again(
            self._start + sum(lengths[: word.unit]), lengths[word.unit : word.unit + 1]
        )
        lines = io.StringIO(next(again).decode(errors="replace"), newline="")
        reader = csv.reader(lines, delimiter=self.delimiter)
        row, first = -1, 0
        while row < word.row:
            first = reader.line_num
            row += bool(next(reader, None) != [])
        return f"{self.name}, line {self._blocks.lines[word.unit] + first}"

    def advice(self, word: Word, column: str) -> str:
        """Say what to do about a value that is no number among numbers."""
        if is_decimal_comma(word.value) and self.options.decimal == ".":
            return "if that comma is the decimal point, pass decimal=','"
        return (
            f"mend it, say that it stands for a hole, null={word.value!r}, or leave the column "
            f"out, exclude={column!r}"
        )
