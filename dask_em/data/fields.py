"""Types of the columns of a table: which hold numbers, and which type holds all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.additive import Array
from ..core.columns import Column, ColumnKind
from ..errors import DataError
from ..foreign import shown
from .columns import LONGEST_NAME, WeightColumn, choose, listed
from .options import ReadOptions
from .packing import masked_dtype

# What Dask calls categories that it would have to compute.
UNKNOWN = "__UNKNOWN_CATEGORIES__"

# Columns that an error names.
NAMED = 5

# Beyond it float64 has no room for every integer.
LARGEST_INTEGER = 2**53

# Types by the names that all libraries give them, but for those of 64 bits, some of whose integers
# float64 has no room for.
PLAIN = {
    *("float32", "float64", "float", "double"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32)),
}

SECONDS = "seconds since 1970-01-01"
"""Unit of a column of dates that is read as numbers."""

KINDS: dict[str, ColumnKind] = {"f": "continuous", "i": "count", "u": "count", "b": "binary"}


@dataclass(frozen=True)
class Field:
    """Say what one column of a table holds.

    Attributes
    ----------
    name : object
        A string, but for tables whose columns have none.
    kind : {"continuous", "count", "binary", "categorical"}
    dtype : dtype or None
        In which its numbers are read, with room for NaN where some are missing; None where it
        holds no numbers.
    said : str
        The name of its type in the table.
    plain : bool
        Whether the table holds them in that very type, and every one of them fits into float64.
    unit : str
        Where the table names one.
    categories : tuple of str
        Where the table tells them, in the order of their codes.
    encoded : bool
        Whether it holds words by their codes, whose categories it does not tell in advance.
    dated : bool
        Whether it holds dates, read as seconds since 1970.

    Examples
    --------
    >>> Field.of("n", np.dtype("i2"), "Int16", missing=True).dtype
    dtype('float32')
    >>> Field.of("when", None, "datetime64[ns]").dtype is None
    True
    """

    name: object
    kind: ColumnKind
    dtype: np.dtype[Any] | None
    said: str
    plain: bool = False
    unit: str = ""
    categories: tuple[str, ...] = ()
    encoded: bool = False
    dated: bool = False

    @property
    def column(self) -> Column:
        """Name, kind, unit and categories."""
        categories = self.categories if self.kind == "categorical" else ()
        return Column(str(self.name), self.kind, categories, self.unit)

    @classmethod
    def of(
        cls,
        name: object,
        dtype: np.dtype[Any] | None,
        said: object,
        missing: bool = False,
        categories: Sequence[str] = (),
    ) -> Field:
        """Describe a column of some type of NumPy; None and all but real numbers are no numbers."""
        known = tuple(categories)
        if dtype is None or dtype.kind not in KINDS:
            return cls(name, "categorical", None, str(said), categories=known)
        kind, found = KINDS[dtype.kind], dtype
        if missing:
            dtype = masked_dtype(dtype)
        if dtype.kind == "f" and dtype.itemsize > 8:
            dtype = np.dtype(np.float64)
        # Python's objects, decimals and categories go by other names.
        plain = dtype == found and str(said).lower() in PLAIN
        return cls(name, kind, dtype.newbyteorder("="), str(said), plain, categories=known)

    @property
    def coded(self) -> bool:
        """Whether its numbers are codes of its categories."""
        return self.kind == "categorical" and self.dtype is not None

    def as_codes(self, categories: Sequence[str]) -> Field:
        """Return the column read as codes of these categories, or as it is without any.

        Examples
        --------
        >>> Field.of("w", None, "category", categories=("a", "b")).as_codes(("b", "a")).dtype
        dtype('float32')
        """
        if not categories:
            return self
        # With room for NaN, and for every code.
        dtype = np.dtype(np.float32 if len(categories) < 2**24 else np.float64)
        return replace(
            self, kind="categorical", dtype=dtype, plain=False, categories=tuple(categories)
        )

    def as_seconds(self) -> Field:
        """Return the column read as seconds, if it holds dates.

        Examples
        --------
        >>> Field.of("when", None, "timestamp[us]").as_seconds().dtype
        dtype('float64')
        """
        if not self.said.startswith(("timestamp", "date")):
            return self
        return replace(
            self, kind="continuous", dtype=np.dtype(np.float64), unit=SECONDS, dated=True
        )

    @property
    def read_as(self) -> np.dtype[Any]:
        """The type of its numbers."""
        return np.dtype(np.float64) if self.dtype is None else self.dtype


def check_fields(
    fields: Sequence[Field], name: str = "X", of_a_model: bool = False, codes: bool = False
) -> None:
    """Check that columns hold numbers.

    Parameters
    ----------
    fields : sequence of Field
    name : str
        Of what they are columns of, in messages.
    of_a_model : bool
        Whether a model was fitted to them, so that they cannot be left out.
    codes : bool
        Whether words that have categories are taken for their codes.

    Raises
    ------
    DataError
        Some do not: which, and what to do.

    Examples
    --------
    >>> check_fields([Field.of("n", np.dtype("i2"), "int16")])
    >>> check_fields([Field.of("when", None, "date")])
    Traceback (most recent call last):
    dask_em.errors.DataError: X has columns that hold no numbers, when (date): leave them out ...
    """
    wrong = [field for field in fields if field.dtype is None]
    if not wrong:
        return
    more = f", ... ({len(wrong)} in all)" if len(wrong) > NAMED else ""
    said = ", ".join(f"{shown(f.name, LONGEST_NAME)} ({f.said})" for f in wrong[:NAMED])
    names = [field.name for field in wrong]
    leave = "" if of_a_model or name != "X" else f"leave them out by exclude={names!r}, or "
    words = (
        "of words categories (category in pandas, Enum in polars, dictionary in Arrow)"
        if codes
        else "of a word a column of 0 and 1 for each value"
    )
    raise DataError(
        f"{name} has columns that hold no numbers, {said}{more}: {leave}make numbers of them, as "
        f"of a date the seconds since some moment, and {words}"
    )


def exact(values: Array, field: Field, first: int = 0, part: str = "") -> Array:
    """Return the numbers of a column, whose integers must be those that float64 holds.

    Parameters
    ----------
    values : (n,) array
    field : Field
    first : int
        The row of the first, for a message.
    part : str
        Of what the rows are numbered.

    Raises
    ------
    DataError
        An integer is beyond 2**53.

    Examples
    --------
    >>> exact(np.array([2**53 + 1]), Field.of("id", np.dtype("i8"), "int64"), 7)
    Traceback (most recent call last):
    dask_em.errors.DataError: column 'id' holds 9007199254740993 at row 7, beyond 2**53 = ...
    """
    if field.kind != "count" or values.dtype.itemsize < 8 or not len(values):
        return values
    beyond = (values > LARGEST_INTEGER) | (values < -LARGEST_INTEGER)
    if values.dtype.kind == "f":
        # Beside missing ones, integers are floats by now: the one after 2**53 is 2**53 there.
        beyond |= np.abs(values) == LARGEST_INTEGER
    if beyond.any():
        row = int(beyond.argmax())
        about = "about " if values.dtype.kind == "f" else ""
        raise DataError(
            f"column {field.name!r} holds {about}{int(values[row])} at row {first + row}{part}, "
            f"beyond 2**53 = {LARGEST_INTEGER}, so that float64 cannot tell it from its "
            "neighbours: subtract an offset, or, where it is an ID, leave it out by "
            f"exclude={field.name!r}"
        )
    return values


def coded_fields(fields: Sequence[Field], options: ReadOptions) -> tuple[Field, ...]:
    """Return columns of categories as their codes, where the options ask for these.

    Examples
    --------
    >>> words = Field.of("w", None, "category", categories=("a", "b"))
    >>> [coded_fields([words], ReadOptions(codes=codes))[0].coded for codes in (False, True)]
    [False, True]
    """
    if options.dates:
        fields = [field.as_seconds() for field in fields]
    if not options.codes:
        return tuple(fields)
    if not options.fitted:
        return tuple(field.as_codes(field.categories) for field in fields)
    return tuple(
        field.as_codes(options.categories_of(str(field.name)))
        if field.categories or field.encoded
        else field
        for field in fields
    )


def codes_of(
    own: Array, words: Sequence[object], field: Field, first: int = 0, part: str = ""
) -> Array:
    """Return the codes of a column, in the order of its categories; NaN where one is missing.

    Parameters
    ----------
    own : (n,) array of int
        Numbers of `words`, negative where one is missing.
    words : sequence
        Those of the data, or of some of their rows.
    field : Field
    first, part
        As in `exact`.

    Raises
    ------
    DataError
        A word is no category.

    Examples
    --------
    >>> field = Field.of("w", None, "category").as_codes(("a", "b"))
    >>> codes_of(np.array([0, -1, 1]), ["b", "a"], field)
    array([ 1., nan,  0.], dtype=float32)
    """
    number: dict[object, int] = {word: code for code, word in enumerate(field.categories)}
    code = [-1 if word is None else number.get(str(word), -2) for word in words]
    # The last is of what is missing.
    codes = np.array([*code, -1])[np.maximum(own, -1)]
    unknown = codes == -2
    if unknown.any():
        row = int(unknown.argmax())
        word = shown(str(words[int(own[row])]), LONGEST_NAME)
        raise DataError(
            f"column {field.name!r} holds {word!r} at row {first + row}{part}, which is none of "
            f"its {len(field.categories)} categories, {listed(field.categories)}: leave such rows "
            "out, or fit a model to them, too"
        )
    values = codes.astype(field.read_as)
    values[codes == -1] = np.nan
    return values


@dataclass(frozen=True)
class Features:
    """Say which columns of a table are the features, and which holds the weights.

    Attributes
    ----------
    numbers : tuple of int
        The features among all columns, in their order.
    fields : tuple of Field
        What they hold.
    named : bool
        Whether columns have names that are strings.
    weight : int or None
        The column of weights.

    Examples
    --------
    >>> table = [Field.of("a", np.dtype("f4"), ""), Field.of("b", np.dtype("f4"), "")]
    >>> Features.of(table, ReadOptions(fitted=("b", "a"))).numbers
    (1, 0)
    """

    numbers: tuple[int, ...]
    fields: tuple[Field, ...]
    named: bool = True
    weight: int | None = None

    @classmethod
    def of(
        cls, fields: Sequence[Field], options: ReadOptions, weight: WeightColumn | None = None
    ) -> Features:
        """Choose among the columns of a table.

        Raises
        ------
        DataError
            A column is not there, or does not hold numbers.
        """
        numbers, weighted = tuple(range(len(fields))), None
        named = all(isinstance(field.name, str) for field in fields)
        if named:
            chosen = choose([field.column for field in fields], options, weight)
            numbers, weighted = chosen.numbers, chosen.weight
        elif weight is not None or options.beside:
            lacking = options.beside[0] if weight is None else weight.name
            raise DataError(
                f"no column of X is called {lacking!r}: their names are no strings; in Python, "
                "X.columns = X.columns.astype(str) makes them such"
            )
        wanted = coded_fields([fields[j] for j in numbers], options)
        check_fields(wanted, of_a_model=bool(options.fitted), codes=options.codes)
        return cls(numbers, wanted, named, weighted)

    @classmethod
    def one(cls, fields: Sequence[Field], number: int, name: str) -> Features:
        """Return one column, which the message calls `name` where it does not hold numbers."""
        check_fields([fields[number]], name)
        return cls((number,), (fields[number],))

    def __iter__(self) -> Iterator[tuple[int, Field]]:
        return zip(self.numbers, self.fields, strict=True)

    @property
    def columns(self) -> tuple[Column, ...] | None:
        """The features, where they have names."""
        return tuple(field.column for field in self.fields) if self.named else None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds the numbers of all features."""
        return np.result_type(*(field.read_as for field in self.fields))


# -- pandas, whose types are those of Dask's tables, too ------------------------------------


def pandas_dtype(dtype: Any) -> np.dtype[Any] | None:
    """Return the type of NumPy of a type of pandas; None where it is not of numbers.

    Examples
    --------
    >>> import pandas
    >>> pandas_dtype(pandas.Int16Dtype()), pandas_dtype(np.dtype("M8[s]")) is None
    (dtype('int16'), True)
    """
    if str(dtype).startswith("decimal"):
        return np.dtype(np.float64)
    if not isinstance(dtype, np.dtype):
        # Of sparse columns, of categories, and of whatever keeps numbers with a mask.
        for part in ("subtype", "categories", "numpy_dtype"):
            if hasattr(dtype, part):
                inner = getattr(dtype, part)
                dtype = getattr(inner, "dtype", inner)
                break
    return dtype if isinstance(dtype, np.dtype) and dtype.kind in KINDS else None


def pandas_categories(dtype: Any) -> tuple[str, ...]:
    """Return the categories of a type of pandas; none where it has none, or Dask does not know.

    Examples
    --------
    >>> import pandas
    >>> pandas_categories(pandas.CategoricalDtype(["b", "a"])), pandas_categories(np.dtype("f8"))
    (('b', 'a'), ())
    """
    found = getattr(dtype, "categories", None)
    words = () if found is None else tuple(map(str, found))
    return () if UNKNOWN in words else words


def pandas_values(column: Any, dtype: np.dtype[Any]) -> Array:
    """Return a column of numbers, (n,), in a type that has room for NaN where some are missing.

    Examples
    --------
    >>> import pandas
    >>> pandas_values(pandas.Series([1, None], dtype="Int64"), np.dtype("f8"))
    array([ 1., nan])
    """
    found: Array
    if isinstance(column.dtype, np.dtype) and column.dtype != object:
        found = column.to_numpy()
    else:
        missing = {"na_value": np.nan} if dtype.kind == "f" else {}
        found = column.to_numpy(dtype=dtype, **missing)
    return found
