"""Tables in files, opened by path: all files found, their footers read once, columns chosen."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import numpy as np

from ...core.executor import ThreadPool
from ...errors import DataError
from ...storage.arrow import require_pyarrow
from ...storage.stored_files import StoredFile, find_files
from ...storage.urls import describe_url, is_url, local_path
from ..checks import check_weight, memory_weight
from ..columns import WeightColumn, choose
from ..fields import LARGEST_INTEGER, Field, check_fields, coded_fields
from ..frames import arrow_codes
from ..options import ReadOptions
from ..ranged import RangedSource
from .fields import joined_field
from .files import SUFFIXES, open_table_file, reading
from .rows import NO_VALUE, StoredTableRows, TablePart

# Footers that are read at once.
OPENED_AT_ONCE = 16


@dataclass(frozen=True)
class StoredTable:
    """A table in files, whose footers were read; its columns are chosen when it becomes a source.

    Attributes
    ----------
    description : str
    parts : tuple of TablePart
        Those that have rows.
    lacks_checksum : str
        What to do where flipped bits would pass for data; empty where none would.
    """

    description: str
    parts: tuple[TablePart, ...]
    lacks_checksum: str = ""

    @cached_property
    def partition(self) -> dict[str, Field]:
        """Columns that the names of folders hold."""
        values: dict[str, set[str]] = {}
        for part in self.parts:
            for name, value in part.partition:
                values.setdefault(name, set()).add(value)
        stored = {field.name for field in self.parts[0].fields}
        return {
            name: _partition_field(name, found)
            for name, found in values.items()
            if name not in stored
        }

    def field(self, name: str, codes: bool = False) -> Field:
        """Return a column as it is in all files together.

        Parameters
        ----------
        name : str
        codes : bool
            Whether categories are wanted, for which some of each row group is read.

        Raises
        ------
        DataError
            It is not in all files, or not of numbers in all of them.
        """
        if name in self.partition:
            return self.partition[name]
        layouts = iter(self._layouts.items())
        joined = self._one(name, *next(layouts))
        for fields, file in layouts:
            found = self._one(name, fields, file)
            if (joined.dtype is None) != (found.dtype is None):
                raise DataError(
                    f"column {name!r} is {joined.said} in {self.parts[0].file} and {found.said} in "
                    f"{file}: write the files with the same types, or leave it out "
                    f"(exclude={name!r})"
                )
            joined = joined_field(joined, found)
        if codes and joined.encoded:
            return replace(joined, categories=self._categories(name))
        return joined

    def _categories(self, name: str) -> tuple[str, ...]:
        """The words by whose numbers files hold a column: all of them, where these differ."""
        with ThreadPool(OPENED_AT_ONCE) as pool:
            told = pool.map(lambda part: _words(part, name), self.parts)
        found = [words for part in told for words in part]
        if len({*found}) == 1:
            return found[0]
        return tuple(sorted({word for words in found for word in words}))

    def _one(self, name: str, fields: Sequence[Field], file: StoredFile) -> Field:
        """The column of a name in one file."""
        same = [field for field in fields if field.name == name]
        if not same:
            raise DataError(
                f"{file} has no column {name!r}, and {self.parts[0].file} has one; leave it out "
                f"(exclude={name!r}), or write the files with the same columns"
            )
        if len(same) > 1:
            raise DataError(f"{file} has several columns of the name {name!r}: rename them")
        return same[0]

    @cached_property
    def _layouts(self) -> dict[tuple[Field, ...], StoredFile]:
        """Each list of columns that files have, and the first file that has it."""
        found: dict[tuple[Field, ...], StoredFile] = {}
        for part in self.parts:
            found.setdefault(part.fields, part.file)
        return found


def is_stored_table(X: object) -> bool:
    """Tell whether an object is a table in files that was opened here."""
    return isinstance(X, StoredTable)


def holds_tables(path: str, listing: bool = False) -> bool:
    """Tell whether a path is a folder with files of tables in it, and none of Zarr.

    Of a URL it is told only where its `listing` is worth while.

    Examples
    --------
    >>> holds_tables("s3://bucket/points")
    False
    """
    if is_url(path):
        return listing and bool(find_files(path, SUFFIXES))
    place = local_path(path)
    if not place.is_dir():
        return False
    top = {entry.name for entry in os.scandir(place)}
    if top & {"zarr.json", ".zarray", ".zgroup"}:
        return False
    return bool(find_files(path, SUFFIXES))


def open_table(path: str) -> StoredTable:
    """Find the files of a table at a path or URL: one, a folder, or a pattern; read their footers.

    Raises
    ------
    DataError
        There is none, one of them is no table, or they have no rows.
    StoreAccessError
        pyarrow is not installed.

    Examples
    --------
    >>> import tempfile, pyarrow as pa, pyarrow.parquet as pq
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pq.write_table(pa.table({"x": [1.0, 2.0], "s": ["a", "b"]}), f"{folder}/a.parquet")
    ...     [field.name for field in open_table(f"{folder}/*.parquet").parts[0].fields]
    ['x', 's']
    """
    name = describe_url(path)
    require_pyarrow()
    files = find_files(path, SUFFIXES)
    if not files:
        raise DataError(f"{name}: no such file, and no folder with files of {', '.join(SUFFIXES)}")
    with ThreadPool(OPENED_AT_ONCE) as pool:
        known = list(pool.map(_opened, files))
    if not any(part.n_rows for part, _ in known):
        raise DataError(f"{name} has no rows: there is nothing to cluster")
    parts = tuple(part for part, _ in known if part.n_rows)
    # Files that were written alike share one list of columns, here and wherever they are sent.
    alike: dict[tuple[Field, ...], tuple[Field, ...]] = {}
    parts = tuple(replace(p, fields=alike.setdefault(p.fields, p.fields)) for p in parts)
    place = name if is_url(path) or len(files) > 1 else str(files[0])
    if not is_url(path):
        place = str(local_path(path).absolute())
    lacking = next((lacks for _, lacks in known if lacks), "")
    return StoredTable(place, parts, lacking)


def _opened(file: StoredFile) -> tuple[TablePart, str]:
    opened = open_table_file(file)
    try:
        rows = np.array(opened.group_rows(), dtype=np.int64)
        held = opened.times_held()
        part = TablePart(file, rows, opened.fields(), partition_of(file), held)
        return part, opened.lacks_checksum()
    finally:
        opened.close()


def _words(part: TablePart, name: str) -> list[tuple[str, ...]]:
    """The words of each group of a file, of which the first rows tell."""
    opened = open_table_file(part.file)
    try:
        found = []
        for group, n_rows in enumerate(part.group_rows.tolist()):
            with reading(part.file, f"column {name!r}"):
                for batch in opened.batches(group, [name], min(n_rows, 1024)):
                    _, words = arrow_codes(batch.column(0))
                    found.append(tuple(str(word) for word in words if word is not None))
                    break
        return found
    finally:
        opened.close()


def partition_of(file: StoredFile) -> tuple[tuple[str, str], ...]:
    """Return the columns in the names of the folders on the way to a file, with their values.

    Examples
    --------
    >>> partition_of(StoredFile("/x/year=2024/a.parquet", 0, "", "year=2024/a.parquet"))
    (('year', '2024'),)
    """
    words = [word.partition("=") for word in file.below.split("/")[:-1]]
    return tuple((name, unquote(value)) for name, equals, value in words if equals and name)


def _partition_field(name: str, values: Collection[str]) -> Field:
    dtype = partition_dtype(values)
    if dtype is None:
        words = sorted({*values} - {NO_VALUE})
        return Field.of(name, None, "words in names of folders", categories=words)
    return Field.of(name, dtype, "a folder", NO_VALUE in values)


def partition_dtype(values: Collection[str]) -> np.dtype[Any] | None:
    """Return the type of numbers that names of folders hold, None where some are words.

    Examples
    --------
    >>> partition_dtype(["2023", "2024"]), partition_dtype(["1", "0.5"]), partition_dtype(["a"])
    (dtype('int64'), dtype('float64'), None)
    """
    there = [value for value in values if value != NO_VALUE]
    if there and _all_parse(int, there):
        # Beyond it they are IDs, which floats would round.
        exact = all(abs(int(value)) <= LARGEST_INTEGER for value in there)
        return np.dtype(np.int64) if exact else None
    return np.dtype(np.float64) if there and _all_parse(float, there) else None


def _all_parse(parse: Callable[[str], float], values: Iterable[str]) -> bool:
    try:
        return all(parse(value) is not None for value in values)
    except ValueError:
        return False


# -- choosing columns ------------------------------------------------------------------


def stored_table_source(
    table: StoredTable, sample_weight: Any, options: ReadOptions
) -> RangedSource:
    """Make a source of columns of a table; weights are another column, or lie in memory.

    Raises
    ------
    DataError
        Columns that there are not, or that hold no numbers; weights of another length.
    """
    named = sample_weight if isinstance(sample_weight, WeightColumn) else None
    known = [field.column for field in table.parts[0].fields]
    if options.columns or options.fitted or (named and named.name in table.partition):
        # What names of folders say is a feature where it is asked for.
        known += [field.column for field in table.partition.values()]
    chosen = choose(known, options, named, table.description)
    fields = coded_fields([table.field(name, options.codes) for name in chosen.names], options)
    check_fields(fields, of_a_model=bool(options.fitted), codes=options.codes)
    weight = None if chosen.weight is None else table.field(known[chosen.weight].name)
    if weight is not None:
        check_fields([weight], "sample_weight")
    parts = tuple(replace(part, fields=()) for part in table.parts)
    rows = StoredTableRows(table.description, parts, fields, weight, table.lacks_checksum)
    source = RangedSource(rows, options=options)
    if sample_weight is None or named is not None:
        return source
    check_weight(sample_weight, source.n_rows)
    return replace(source, memory_weight=memory_weight(sample_weight, source.n_rows))
