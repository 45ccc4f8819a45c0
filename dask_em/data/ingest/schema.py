"""Columns of tables: what all of their values are, and so what becomes of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...core.additive import Array
from ...core.columns import Column, ColumnKind
from ...core.tuning import tuning
from ...errors import DataError
from ...foreign import shown
from ..packing import masked_dtype
from .rows import Aside, Layout

Kind = Literal["nothing", "boolean", "integer", "float", "day", "time", "text"]

# Beyond it, floats do not hold every integer.
EXACT = 2**53

NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"

UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


@dataclass(frozen=True)
class Word:
    """A value that is no number, and where: file, unit of it, and row of the unit."""

    value: str
    part: int
    unit: int
    row: int


@dataclass(frozen=True)
class Seen:
    """Say what the values of a column are, as far as they were seen; two of them add.

    Attributes
    ----------
    kind : str
        What all of them can be read as.
    dtype : dtype or None
        That a file declares; None where a text says nothing of it.
    count, n_missing, n_numbers : int
        Values, holes, and how many values are numbers.
    low, high : int
        Of integers.
    values : frozenset of str or None
        Of text, None where they are many.
    word : Word or None
        The first value that is no number.
    unit : str
        Of times.
    partly : bool
        Whether some values were read as numbers or times, and are not among the `values`.

    Examples
    --------
    >>> (Seen("integer", count=2, n_numbers=2, high=7) + Seen("float", count=1)).kind
    'float'
    """

    kind: Kind = "nothing"
    dtype: np.dtype[Any] | None = None
    count: int = 0
    n_missing: int = 0
    n_numbers: int = 0
    low: int = 0
    high: int = 0
    values: frozenset[str] | None = frozenset()
    word: Word | None = None
    unit: str = "s"
    partly: bool = False

    def __add__(self, other: Seen) -> Seen:
        kind = joined(self.kind, other.kind)
        values = None
        if self.values is not None and other.values is not None:
            values = self.values | other.values
        if values is not None and len(values) > tuning().ingest.most_categories:
            values = None
        dtypes = [seen.dtype for seen in (self, other) if seen.dtype is not None]
        partly = any(seen.kind not in ("text", "nothing") for seen in (self, other))
        return Seen(
            kind,
            np.result_type(*dtypes) if dtypes else None,
            self.count + other.count,
            self.n_missing + other.n_missing,
            self.n_numbers + other.n_numbers,
            min(self.low, other.low),
            max(self.high, other.high),
            values,
            self.word or other.word,
            max(self.unit, other.unit, key=list(UNITS).index),
            self.partly or other.partly or (kind == "text" and partly),
        )


def joined(a: Kind, b: Kind) -> Kind:
    """Return what values of two kinds can all be read as.

    Examples
    --------
    >>> joined("integer", "float"), joined("day", "time"), joined("float", "time")
    ('float', 'time', 'text')
    """
    if a == b or b == "nothing":
        return a
    if a == "nothing":
        return b
    if {a, b} == {"integer", "float"}:
        return "float"
    return "time" if {a, b} == {"day", "time"} else "text"


def kind_of(type_: pa.DataType) -> tuple[Kind, np.dtype[Any] | None] | None:
    """Return the kind of an Arrow type and the type of its numbers; None where none is ours.

    Examples
    --------
    >>> kind_of(pa.int16()), kind_of(pa.list_(pa.int8())) is None
    (('integer', dtype('int16')), True)
    """
    types = pa.types
    if types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if types.is_integer(type_):
        return "integer", np.dtype(type_.to_pandas_dtype())
    if types.is_floating(type_):
        # Halves hold too little for sums, and singles hold all of them.
        return "float", np.dtype(np.float64 if type_.bit_width == 64 else np.float32)
    if types.is_decimal(type_):
        return "float", np.dtype(np.float64)
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return "text", None
    plain: list[tuple[bool, Kind]] = [
        (types.is_null(type_), "nothing"),
        (types.is_boolean(type_), "boolean"),
        (types.is_date(type_), "day"),
        (types.is_timestamp(type_), "time"),
    ]
    return next(((kind, None) for found, kind in plain if found), None)


def seen_in(column: pa.Array, place: tuple[int, int, int], declared: bool, point: str) -> Seen:
    """Look at values of a column.

    Parameters
    ----------
    column : pyarrow.Array
        Of a type that `kind_of` knows.
    place : (int, int, int)
        Part, unit and row of the first of them.
    declared : bool
        Whether the file says the type; a CSV file does not.
    point : str
        The decimal point.
    """
    found = kind_of(column.type)
    assert found is not None, column.type
    kind, dtype = found
    if pa.types.is_dictionary(column.type) and kind != "text":
        column = column.dictionary_decode()
    n_missing = column.null_count
    count = len(column) - n_missing
    seen = Seen(kind, dtype if declared else None, count, n_missing)
    if not count:
        # A hole says nothing of the others, unless the file does.
        return seen if declared else replace(seen, kind="nothing")
    if kind == "text":
        return _seen_text(column, seen, place, point)
    if kind == "integer":
        ends = pc.min_max(column)
        low, high = ends["min"].as_py(), ends["max"].as_py()
        return replace(seen, n_numbers=count, low=min(low, 0), high=max(high, 0))
    if kind == "float":
        return replace(seen, n_numbers=count)
    if kind == "time":
        seen = replace(seen, unit=column.type.unit)
    if declared:
        return seen
    # Where others are numbers, this is what breaks them.
    row = int(np.argmin(np.asarray(column.is_null())))
    return replace(seen, word=Word(str(column[row].as_py()), *_moved(place, row)))


def _moved(place: tuple[int, int, int], row: int) -> tuple[int, int, int]:
    part, unit, first = place
    return part, unit, first + row


def _seen_text(column: pa.Array, seen: Seen, place: tuple[int, int, int], point: str) -> Seen:
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    words, codes = column.dictionary, column.indices
    pattern = NUMBER if point == "." else NUMBER.replace(r"\.", re.escape(point))
    numeric = np.asarray(pc.match_substring_regex(words, pattern).fill_null(False), dtype=bool)
    there = np.asarray(codes.is_valid())
    rows = np.asarray(codes.fill_null(0))
    is_number = numeric[rows] & there
    n_numbers = int(is_number.sum())
    word = None
    if n_numbers < seen.count:
        row = int(np.argmax(~is_number & there))
        word = Word(words[int(rows[row])].as_py(), *_moved(place, row))
    most = tuning().ingest.most_categories
    used = words.take(pa.array(np.unique(rows[there]))) if len(words) <= 4 * most else words
    values = frozenset(used.to_pylist()) if len(used) <= most else None
    return replace(seen, n_numbers=n_numbers, values=values, word=word)


# -- what becomes of them ----------------------------------------------------------------


def is_broken(seen: Seen) -> bool:
    """Tell whether a column of numbers holds a value that is none.

    Most of its values are numbers, or all others are but for their commas.
    """
    if seen.kind != "text" or seen.word is None:
        return False
    words = [seen.word.value] if seen.values is None else seen.values
    commas = all(is_decimal_comma(w) or re.match(NUMBER, w) for w in words)
    return 2 * seen.n_numbers > seen.count or (commas and is_decimal_comma(seen.word.value))


def is_decimal_comma(value: str) -> bool:
    """Tell whether a word is a number but for its comma.

    Examples
    --------
    >>> is_decimal_comma("-1,5"), is_decimal_comma("1,5,2")
    (True, False)
    """
    return re.fullmatch(r"\s*[-+]?\d+,\d+([eE][-+]?\d+)?\s*", value) is not None


def layout_of(names: Sequence[str], found: Sequence[Seen], dtype: str | None) -> Layout:
    """Decide what becomes of each column: numbers one matrix, all others arrays of their own.

    Parameters
    ----------
    names : sequence of str
    found : sequence of Seen
    dtype : str or None
        Of the matrix; by default the smallest that holds every number exactly, though floats stay
        as they are.

    Raises
    ------
    DataError
        A column cannot be kept, or none holds numbers.
    """
    columns, dtypes, asides = [], [], []
    for name, seen in zip(names, found, strict=True):
        number = _number_dtype(seen)
        if number is None:
            asides.append(_aside(name, seen))
        else:
            columns.append(Column(name, _column_kind(seen)))
            dtypes.append(number)
    if not columns:
        raise DataError(
            f"no column holds numbers, which a fit needs: {', '.join(map(repr, names[:5]))} "
            f"{'are' if names[1:] else 'is'} text or times"
        )
    return Layout(columns, np.dtype(dtype) if dtype else np.result_type(*dtypes), asides)


def _column_kind(seen: Seen) -> ColumnKind:
    kinds: dict[str, ColumnKind] = {"boolean": "binary", "integer": "count"}
    return kinds.get(seen.kind, "continuous")


def _number_dtype(seen: Seen) -> np.dtype[Any] | None:
    """The type of a column in the matrix, None where it is not of the matrix."""
    if seen.kind == "float":
        return seen.dtype or np.dtype(np.float64)
    if seen.kind == "boolean":
        dtype = np.dtype(np.uint8)
    elif seen.kind == "integer" and seen.low >= -EXACT and seen.high <= EXACT:
        smallest = np.result_type(np.min_scalar_type(seen.low), np.min_scalar_type(seen.high))
        dtype = seen.dtype or smallest
    else:
        return None
    return masked_dtype(dtype) if seen.n_missing else dtype


def _aside(name: str, seen: Seen) -> Aside:
    if seen.kind == "nothing":
        raise DataError(
            f"column {name!r} holds no value in any row: leave it out, exclude={name!r}"
        )
    if seen.kind == "integer":
        signed = seen.high < 2**63
        missing = int(np.iinfo(np.int64).min if signed else np.iinfo(np.uint64).max)
        fill = {"_FillValue": missing} if seen.n_missing else {}
        return Aside(Column(name, "count"), np.dtype("i8" if signed else "u8"), fill)
    if seen.kind in ("day", "time"):
        unit = "days" if seen.kind == "day" else UNITS[seen.unit]
        attributes = {"units": f"{unit} since 1970-01-01", "calendar": "proleptic_gregorian"}
        fill = {"_FillValue": int(np.iinfo(np.int64).min)} if seen.n_missing else {}
        return Aside(Column(name), np.dtype(np.int64), {**attributes, **fill})
    if seen.values is None:
        example = "" if seen.word is None else f", such as {shown(seen.word.value, 40)!r}"
        raise DataError(
            f"column {name!r} holds text of more than {tuning().ingest.most_categories} different "
            f"values{example}, too many for categories: leave it out, exclude={name!r}"
        )
    categories = tuple(sorted(seen.values))
    dtype = np.dtype("i1" if len(categories) <= np.iinfo(np.int8).max else "i2")
    return Aside(
        Column(name, "categorical", categories),
        dtype,
        {
            "flag_values": list(range(len(categories))),
            "flag_meanings": " ".join(re.sub(r"\s+", "_", c) or "_" for c in categories),
            # Words may hold blanks, which part the meanings.
            "categories": list(categories),
            **({"_FillValue": -1} if seen.n_missing else {}),
        },
    )


# -- values as they are written ----------------------------------------------------------


def matrix_column(column: pa.Array) -> Array:
    """Return numbers of a column as NumPy has them; a hole is NaN.

    Examples
    --------
    >>> matrix_column(pa.array([1, None])), matrix_column(pa.array([True, False]))
    (array([ 1., nan]), array([1, 0], dtype=uint8))
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    elif pa.types.is_decimal(column.type) or pa.types.is_null(column.type):
        column = column.cast(pa.float64())
    return np.asarray(column.to_numpy(zero_copy_only=False))


def aside_column(column: pa.Array, aside: Aside) -> Array:
    """Return the values of a column that is not of the matrix, as they are written."""
    if aside.column.categories:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        column = pc.index_in(column.cast(pa.string()), pa.array(aside.column.categories))
    elif "units" in aside.attributes:
        unit = str(aside.attributes["units"]).partition(" ")[0]
        if unit == "days":
            column = column.cast(pa.date32()).cast(pa.int32()).cast(pa.int64())
        else:
            short = next(short for short, long in UNITS.items() if long == unit)
            zone = column.type.tz if pa.types.is_timestamp(column.type) else None
            column = column.cast(pa.timestamp(short, zone)).cast(pa.int64())
    if column.null_count:
        # Categories know holes of a first look alone.
        column = column.cast(pa.int64()) if aside.dtype.kind == "i" else column
        column = column.fill_null(aside.attributes.get("_FillValue", -1))
    return np.asarray(column.to_numpy(zero_copy_only=False)).astype(aside.dtype, copy=False)
