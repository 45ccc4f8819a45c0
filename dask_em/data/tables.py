"""Tables that are computed later: partitions of a Dask DataFrame as blocks of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ..core.additive import Array
from ..errors import DataError
from .options import ReadOptions
from .packing import masked_dtype

if TYPE_CHECKING:
    import dask.array as da

# Columns that an error names.
NAMED = 5


def is_frame(X: object) -> bool:
    """Tell whether an object is a DataFrame or Series of Dask, without an import of it."""
    return type(X).__module__.startswith(("dask.dataframe", "dask_expr")) and hasattr(
        X, "map_partitions"
    )


def column_names(X: Any) -> Array | None:
    """Return the names of a Dask DataFrame's columns; None where some are no strings.

    Examples
    --------
    >>> column_names(np.eye(2)) is None
    True
    """
    if not is_frame(X) or X.ndim != 2:
        return None
    names = list(X.columns)
    return np.asarray(names, dtype=object) if all(isinstance(n, str) for n in names) else None


def frame_blocks(X: Any, name: str = "X") -> da.Array:
    """Return the Dask array of a frame's partitions, of unknown lengths; missing is NaN.

    Raises
    ------
    DataError
        A column does not hold numbers.
    """
    table = X.ndim == 2
    dtypes = dict(zip(X.columns, X.dtypes, strict=True)) if table else {X.name: X.dtype}
    wrong = [f"{column} ({kind})" for column, kind in dtypes.items() if not _is_number(kind)]
    if wrong:
        more = ", ..." if len(wrong) > NAMED else ""
        leave = f": {name}.select_dtypes('number') leaves them out" if table else ""
        raise DataError(
            f"{name} has columns that hold no numbers, {', '.join(wrong[:NAMED])}{more}{leave}"
        )
    dtype = _common(list(dtypes.values()))
    meta = np.empty((0, len(dtypes)) if table else (0,), dtype=dtype)
    blocks: da.Array = X.map_partitions(_numbers, dtype, meta=meta)
    return blocks


def is_lazy_frame(X: object) -> bool:
    """Tell whether an object is a query of polars that was not run, without an import of polars."""
    return type(X).__module__.startswith("polars.") and type(X).__name__ == "LazyFrame"


def refuse_lazy_frame(X: object, sample_weight: object, options: ReadOptions) -> NoReturn:
    """Raise `DataError`, which says how to run the query."""
    raise DataError(
        "X is a polars.LazyFrame, a query that was not run: pass X.collect(), which holds its "
        "rows in memory"
    )


def _is_number(dtype: Any) -> bool:
    return getattr(_numpy(dtype), "kind", "O") in "fiub"


def _numpy(dtype: Any) -> Any:
    """The NumPy type of a column's numbers, whichever pandas keeps them in."""
    return getattr(dtype, "numpy_dtype", dtype)


def _common(dtypes: Sequence[Any]) -> np.dtype[Any]:
    """The type that holds all columns; those that may lack numbers have room for NaN."""
    plain = [
        dtype if isinstance(dtype, np.dtype) else masked_dtype(_numpy(dtype)) for dtype in dtypes
    ]
    return np.result_type(*plain)


def _numbers(frame: Any, dtype: np.dtype[Any]) -> Array:
    missing = {"na_value": np.nan} if dtype.kind == "f" else {}
    found: Array = frame.to_numpy(dtype=dtype, **missing)
    return found
