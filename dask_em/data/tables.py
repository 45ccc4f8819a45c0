"""Tables that are computed later: partitions of a Dask DataFrame as blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ..core.additive import Array
from ..core.finite import located
from ..errors import DataError
from .columns import WeightColumn
from .fields import Features, Field, pandas_categories, pandas_dtype
from .frames import PandasTable, TableRows, table_answer
from .lazy import row_of_block
from .options import ReadOptions

if TYPE_CHECKING:
    import dask.array as da


def is_frame(X: object) -> bool:
    """Tell whether an object is a DataFrame or Series of Dask, without an import of it."""
    return type(X).__module__.startswith(("dask.dataframe", "dask_expr")) and hasattr(
        X, "map_partitions"
    )


def frame_features(X: Any, options: ReadOptions, weight: WeightColumn | None = None) -> Features:
    """Choose the features of a Dask DataFrame, whose types are those that Dask takes it to have.

    Raises
    ------
    DataError
        It is one column; or a column is not there, or does not hold numbers.
    """
    if X.ndim != 2:
        raise DataError("X is one column of a Dask DataFrame: pass X.to_frame()")
    return Features.of(_fields(X.columns, X.dtypes), options, weight)


def feature_blocks(X: Any, features: Features) -> da.Array:
    """Return the Dask array (n, d) of the partitions, of unknown lengths; missing is NaN."""
    meta = np.empty((0, len(features.numbers)), dtype=features.dtype)
    blocks: da.Array = X.map_partitions(_numbers, features, meta=meta)
    return blocks


def weight_blocks(X: Any, number: int | None = None) -> da.Array:
    """Return weights (n,) of a column of a Dask DataFrame, or of one that is all of it.

    Raises
    ------
    DataError
        It does not hold numbers.
    """
    table = X.to_frame() if X.ndim == 1 else X
    number = 0 if number is None else number
    fields = _fields(table.columns, table.dtypes)
    blocks = feature_blocks(table, Features.one(fields, number, "sample_weight"))
    weight: da.Array = blocks[:, 0]
    return weight


@dataclass(frozen=True)
class FrameAnswers:
    """Compute answers partition by partition, so that Dask knows that they lie beside the rows.

    Attributes
    ----------
    X : dask.dataframe.DataFrame
    features : Features
    name : str
        Of the answers.
    """

    X: Any
    features: Features
    name: str

    def map_rows(
        self, function: Callable[[Array], Array], width: int | None, dtype: np.dtype[Any]
    ) -> Any:
        """Return a Series of a function of all rows, or a DataFrame, with the index of X."""
        from dask.delayed import delayed

        nothing = np.empty((0, width) if width else (0,), dtype=dtype)
        return self.X.map_partitions(
            _answered,
            # The function is in the graph once.
            delayed(function, traverse=False),
            self.features,
            self.name,
            meta=table_answer(self.X._meta, nothing, self.name),
        )


def is_lazy_frame(X: object) -> bool:
    """Tell whether an object is a query of polars that was not run, without an import of polars."""
    return type(X).__module__.startswith("polars.") and type(X).__name__ == "LazyFrame"


def refuse_lazy_frame(X: object, sample_weight: object, options: ReadOptions) -> NoReturn:
    """Raise `DataError`, which says how to run the query."""
    raise DataError(
        "X is a polars.LazyFrame, a query that was not run: pass X.collect(), which holds its "
        "rows in memory"
    )


def _fields(names: Any, dtypes: Any) -> list[Field]:
    """The columns; nobody knows before they are computed which lack numbers."""
    return [
        Field.of(
            name,
            pandas_dtype(dtype),
            dtype,
            missing=not isinstance(dtype, np.dtype),
            categories=pandas_categories(dtype),
        )
        for name, dtype in zip(names, dtypes, strict=True)
    ]


def _numbers(part: Any, features: Features) -> Array:
    return TableRows(PandasTable(part), features, " of its partition")[:]


def _answered(
    part: Any,
    function: Callable[[Array], Array],
    features: Features,
    name: str,
    partition_info: Mapping[str, Any] | None = None,
) -> Any:
    number = (partition_info or {}).get("number", 0)
    with located(row_of_block, number, features.columns):
        return table_answer(part, function(_numbers(part, features)), name)
