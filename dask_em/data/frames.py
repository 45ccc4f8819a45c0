"""Tables in memory, of which one block of rows at a time becomes numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..core.additive import Array
from ..core.columns import Column
from ..core.protocols import RowValues
from ..errors import DataError
from .columns import WeightColumn
from .fields import Features, Field, codes_of, exact, pandas_categories, pandas_dtype, pandas_values
from .memory import ArraySource, rows_source
from .options import ReadOptions

if TYPE_CHECKING:
    import pyarrow as pa


class Table(Protocol):
    """Columns of a table of some library."""

    @property
    def kind(self) -> str:
        """The name of its class."""

    @property
    def n_rows(self) -> int:
        """Rows."""

    def fields(self) -> Sequence[Field]:
        """Say what the columns hold."""

    def values(self, j: int, rows: slice, dtype: np.dtype[Any]) -> Array:
        """Return some rows of a column of numbers, (n,), of this type or one that it holds.

        A missing one is NaN.
        """

    def codes(self, j: int, rows: slice) -> tuple[Array, Sequence[object]]:
        """Return some rows of a column of categories: their numbers (n,), negative where one is
        missing, and what they are numbers of.
        """

    def plain(self, numbers: Sequence[int], rows: slice) -> Array | None:
        """Return some rows of columns (n, d) of plain numbers at once, as the library does.

        None where it has no such way.
        """
        _ = numbers, rows
        return None


@dataclass(frozen=True)
class TableRows:
    """Slice rows (n, d) out of a table.

    Attributes
    ----------
    table : Table
    features : Features
    part : str
        Of what the rows are numbered, in messages.

    Examples
    --------
    >>> import pandas
    >>> table = PandasTable(pandas.DataFrame({"a": [1, 2], "text": ["x", "y"], "b": [0.5, None]}))
    >>> rows = TableRows(table, Features.of(table.fields(), ReadOptions.of(exclude="text")))
    >>> rows[1:], rows.dtype
    (array([[ 2., nan]]), dtype('float64'))
    """

    table: Table
    features: Features
    part: str = ""

    unit = 1
    decoding = ""

    @property
    def kind(self) -> str:
        """The name of the table's class."""
        return self.table.kind

    @property
    def columns(self) -> Sequence[Column] | None:
        """Names and kinds of the features."""
        return self.features.columns

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and features."""
        return self.table.n_rows, len(self.features.numbers)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds all features."""
        return self.features.dtype

    def __len__(self) -> int:
        return self.table.n_rows

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(len(self))
        rows, numbers = slice(start, stop), self.features.numbers
        # One by one, a thousand columns take longer than their numbers.
        plain = [i for i, (_, field) in enumerate(self.features) if field.plain]
        block = self.table.plain([numbers[i] for i in plain], rows) if plain else None
        if block is not None and len(plain) == len(numbers):
            return np.ascontiguousarray(block, dtype=self.dtype)
        out = np.empty((stop - start, len(numbers)), dtype=self.dtype)
        if block is not None:
            out[:, plain] = block
        for i, (j, field) in enumerate(self.features):
            if field.coded:
                out[:, i] = codes_of(*self.table.codes(j, rows), field, start, self.part)
            elif block is None or not field.plain:
                values = self.table.values(j, rows, field.read_as)
                out[:, i] = exact(values, field, start, self.part)
        return out


def is_table(X: object) -> bool:
    """Tell whether an object is a table in memory, without an import of its library.

    Examples
    --------
    >>> import pandas
    >>> is_table(pandas.DataFrame({"a": [1]})), is_table(pandas.Series([1])), is_table([[1.0]])
    (True, False, False)
    """
    if _library(X) in ("pandas", "polars"):
        return hasattr(X, "columns")
    # An array of labels, which is no table of them.
    if _library(X) == "xarray":
        return False
    return any(hasattr(X, part) for part in ARROW) and not hasattr(X, "type")


# What hands columns over; arrays of Arrow, which have a `type`, are one column.
ARROW = ("__arrow_c_stream__", "__arrow_c_array__", "__dataframe__")


def is_pandas(X: object) -> bool:
    """Tell whether an object is a DataFrame of pandas, without an import of pandas."""
    return _library(X) == "pandas" and hasattr(X, "columns")


def table_source(X: Any, sample_weight: object, options: ReadOptions) -> ArraySource:
    """Make a source of a table that `is_table`, with weights in a column of it or beside it.

    Raises
    ------
    DataError
        A column is not there, or does not hold numbers.
    """
    table = table_of(X)
    fields = table.fields()
    weight = sample_weight if isinstance(sample_weight, WeightColumn) else None
    features = Features.of(fields, options, weight)
    if features.weight is not None:
        one = Features.one(fields, features.weight, "sample_weight")
        sample_weight = TableRows(table, one)[:][:, 0]
    return rows_source(TableRows(table, features), sample_weight)


def table_answer(X: Any, values: RowValues, name: str) -> Any:
    """Return values for each row, (n,) or (n, k), as the library of a table has them."""
    library, values = _library(X), np.asarray(values)
    if library == "pandas":
        import pandas as pd

        if values.ndim == 1:
            return pd.Series(values, X.index, name=name)
        return pd.DataFrame(values, X.index)
    columns = {name: values} if values.ndim == 1 else {str(k): v for k, v in enumerate(values.T)}
    if library == "polars":
        import polars as pl

        return pl.Series(name, values) if values.ndim == 1 else pl.DataFrame(columns)
    import pyarrow as pa

    table = pa.table(columns)
    return table.column(0) if values.ndim == 1 else table


def table_of(X: Any) -> Table:
    """Return the columns of a table that `is_table`."""
    library = _library(X)
    if library == "pandas":
        return PandasTable(X)
    return PolarsTable(X) if library == "polars" else ArrowTable.of(X)


def _library(X: object) -> str:
    return type(X).__module__.partition(".")[0]


class PandasTable(Table):
    """Columns of a pandas.DataFrame."""

    kind = "pandas.DataFrame"
    n_rows = 0

    def __init__(self, X: Any) -> None:
        self.n_rows = len(X)
        self._X = X
        self._columns: dict[int, Any] = {}

    def _column(self, j: int) -> Any:
        if j not in self._columns:
            self._columns[j] = self._X.iloc[:, j]
        return self._columns[j]

    def fields(self) -> Sequence[Field]:
        """Say what the columns hold."""
        return [
            self._field(j, name, dtype)
            for j, (name, dtype) in enumerate(zip(self._X.columns, self._X.dtypes, strict=True))
        ]

    def _field(self, j: int, name: object, dtype: Any) -> Field:
        apart = not isinstance(dtype, np.dtype)
        if not apart and dtype.kind == "O":
            return Field.of(name, _of_objects(self._column(j)), dtype)
        missing = apart and bool(self._column(j).hasnans)
        return Field.of(name, pandas_dtype(dtype), dtype, missing, pandas_categories(dtype))

    def values(self, j: int, rows: slice, dtype: np.dtype[Any]) -> Array:
        """Return some rows of a column, (n,)."""
        return pandas_values(self._column(j).iloc[rows], dtype)

    def codes(self, j: int, rows: slice) -> tuple[Array, Sequence[object]]:
        """Return some rows of a column of categories, and these."""
        found = self._column(j).iloc[rows].cat
        return found.codes.to_numpy(), list(found.categories)

    def plain(self, numbers: Sequence[int], rows: slice) -> Array | None:
        """Return some rows of columns (n, d) of plain numbers."""
        part = self._X.iloc[rows]
        part = part if [*numbers] == [*range(part.shape[1])] else part.iloc[:, [*numbers]]
        found: Array = part.to_numpy()
        return found


def _of_objects(column: Any) -> np.dtype[Any] | None:
    """The type of the numbers that a column of Python's objects holds, None where it has others."""
    from pandas.api.types import infer_dtype

    found = infer_dtype(column, skipna=True)
    numbers = ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty")
    return np.dtype(np.float64) if found in numbers else None


class PolarsTable(Table):
    """Columns of a polars.DataFrame."""

    kind = "polars.DataFrame"
    n_rows = 0

    def __init__(self, X: Any) -> None:
        self.n_rows = int(X.height)
        self._X = X
        self._columns = X.get_columns()
        self._words: dict[int, dict[int, str]] = {}

    def fields(self) -> Sequence[Field]:
        """Say what the columns hold."""
        return [
            Field.of(
                one.name,
                _polars_dtype(one.dtype),
                one.dtype,
                bool(one.null_count()),
                [*self._categories(j).values()],
            )
            for j, one in enumerate(self._columns)
        ]

    def _categories(self, j: int) -> dict[int, str]:
        """The categories of a column by their physical numbers; those that it declares, or has."""
        if j not in self._words:
            self._words[j] = _polars_categories(self._columns[j])
        return self._words[j]

    def codes(self, j: int, rows: slice) -> tuple[Array, Sequence[object]]:
        """Return some rows of a column of categories, and these."""
        words = self._categories(j)
        physical = self._columns[j][rows].to_physical().cast(float).fill_null(-1).to_numpy()
        numbers = np.searchsorted([*words], np.maximum(physical, 0))
        return np.where(physical < 0, -1, numbers), [*words.values()]

    def values(self, j: int, rows: slice, dtype: np.dtype[Any]) -> Array:
        """Return some rows of a column, (n,)."""
        part = self._columns[j][rows]
        plain = not part.null_count() and (part.dtype.is_integer() or part.dtype.is_float())
        found: Array = (part if plain else part.cast(float)).to_numpy()
        return found

    def plain(self, numbers: Sequence[int], rows: slice) -> Array | None:
        """Return some rows of columns (n, d) of plain numbers."""
        found: Array = self._X[rows, [*numbers]].to_numpy()
        return found


def _polars_categories(column: Any) -> dict[int, str]:
    kind = type(column.dtype).__name__
    if kind == "Enum":
        return dict(enumerate(column.dtype.categories.to_list()))
    if kind != "Categorical":
        return {}
    found = column.drop_nulls().unique()
    pairs = zip(found.to_physical().to_list(), found.cast(str).to_list(), strict=True)
    return dict(sorted(pairs))


def _polars_dtype(dtype: Any) -> np.dtype[Any] | None:
    said = str(dtype).lower()
    if dtype.is_decimal() or said in ("null", "int128", "uint128"):
        return np.dtype(np.float64)
    if dtype.is_integer() or dtype.is_float():
        return np.dtype(said)
    return np.dtype(bool) if said == "boolean" else None


class ArrowTable(Table):
    """Columns of a pyarrow.Table."""

    kind = "pyarrow.Table"
    n_rows = 0

    def __init__(self, table: pa.Table, kind: str) -> None:
        self.kind = kind
        self.n_rows = int(table.num_rows)
        # Chunks of a column may number its words apart.
        self._table = table.unify_dictionaries()

    @classmethod
    def of(cls, X: Any) -> ArrowTable:
        """Take whatever hands its columns to Arrow.

        Raises
        ------
        DataError
            pyarrow is not installed, or cannot take it.
        """
        kind = f"{_library(X)}.{type(X).__name__}"
        try:
            import pyarrow as pa
        except ImportError as e:
            raise DataError(
                f"X is a {kind}, which is read through pyarrow, and that is not installed: "
                "pip install pyarrow"
            ) from e
        try:
            if any(hasattr(X, part) for part in ARROW[:2]):
                return cls(pa.table(X), kind)
            from pyarrow.interchange import from_dataframe

            return cls(pa.table(from_dataframe(X)), kind)
        except (pa.ArrowException, TypeError, ValueError, NotImplementedError) as e:
            raise DataError(
                f"X is a {kind}, which pyarrow cannot take for a table ({e}): pass a pyarrow.Table "
                "or a NumPy array of it"
            ) from e

    def fields(self) -> Sequence[Field]:
        """Say what the columns hold."""
        return [
            Field.of(
                name, arrow_dtype(one.type), one.type, bool(one.null_count), arrow_categories(one)
            )
            for name, one in zip(self._table.column_names, self._table.columns, strict=True)
        ]

    def codes(self, j: int, rows: slice) -> tuple[Array, Sequence[object]]:
        """Return some rows of a column of categories, and these."""
        part = self._table.column(j).slice(rows.start, rows.stop - rows.start)
        return arrow_codes(part.combine_chunks())

    def values(self, j: int, rows: slice, dtype: np.dtype[Any]) -> Array:
        """Return some rows of a column, (n,)."""
        return arrow_values(self._table.column(j).slice(rows.start, rows.stop - rows.start))

    def plain(self, numbers: Sequence[int], rows: slice) -> Array | None:
        """Return some rows of columns (n, d) of plain numbers."""
        part = self._table.select([*numbers]).slice(rows.start, rows.stop - rows.start)
        batches = part.combine_chunks().to_batches()
        if len(batches) != 1:
            return None
        found: Array = batches[0].to_tensor(null_to_nan=True).to_numpy()
        return found


def arrow_dtype(dtype: pa.DataType) -> np.dtype[Any] | None:
    """Return the type of NumPy of a type of Arrow; None where it is not of numbers.

    Examples
    --------
    >>> import pyarrow as pa
    >>> arrow_dtype(pa.int16()), arrow_dtype(pa.decimal128(10, 2)), arrow_dtype(pa.string())
    (dtype('int16'), dtype('float64'), None)
    """
    from pyarrow import types

    if types.is_dictionary(dtype):
        dtype = dtype.value_type
    if types.is_decimal(dtype) or types.is_null(dtype):
        return np.dtype(np.float64)
    number = types.is_integer(dtype) or types.is_floating(dtype) or types.is_boolean(dtype)
    return np.dtype(dtype.to_pandas_dtype()) if number else None


def arrow_values(column: pa.ChunkedArray) -> Array:
    """Return a column of numbers, (n,); a missing one is NaN.

    Examples
    --------
    >>> import pyarrow as pa
    >>> arrow_values(pa.chunked_array([[True, None]]))
    array([ 1., nan])
    """
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        column = column.cast(pa.float64(), safe=False)
    found: Array = column.to_numpy()
    return found


def arrow_categories(column: pa.ChunkedArray) -> tuple[str, ...]:
    """Return the words of a dictionary that all chunks of a column share; of others none.

    Examples
    --------
    >>> import pyarrow as pa
    >>> arrow_categories(pa.chunked_array([pa.array(["b", "a"]).dictionary_encode()]))
    ('b', 'a')
    """
    if not is_encoded(column.type) or not column.num_chunks:
        return ()
    return tuple(str(word) for word in column.chunk(0).dictionary.to_pylist() if word is not None)


def is_encoded(dtype: pa.DataType) -> bool:
    """Tell whether a type of Arrow is of words that are stored by their codes.

    Examples
    --------
    >>> import pyarrow as pa
    >>> is_encoded(pa.dictionary(pa.int8(), pa.string())), is_encoded(pa.string())
    (True, False)
    """
    from pyarrow import types

    return bool(types.is_dictionary(dtype)) and arrow_dtype(dtype) is None


def arrow_codes(column: pa.Array) -> tuple[Array, Sequence[object]]:
    """Return the numbers of words (n,), negative where one is missing, and the words.

    Examples
    --------
    >>> import pyarrow as pa
    >>> arrow_codes(pa.array(["b", None, "a"]))
    (array([ 0, -1,  1], dtype=int32), ['b', 'a'])
    """
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    signed = column.indices.cast(pa.int32()).fill_null(-1)
    return signed.to_numpy(zero_copy_only=False), column.dictionary.to_pylist()
