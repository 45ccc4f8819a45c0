"""Answers with the labels of their rows: whatever came with an index or coordinates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ..core.additive import Array
from ..core.protocols import RowValues, Source
from ..errors import UsageError
from .frames import is_table, table_answer
from .options import ReadOptions
from .tables import FrameAnswers, frame_features, is_frame
from .xarray import Labelled, is_xarray


class RowMap(Protocol):
    """Compute a function of all rows, as a source does."""

    def map_rows(
        self, function: Callable[[Array], Array], width: int | None, dtype: np.dtype[Any]
    ) -> Any:
        """Compute a function of all rows; see `Source.map_rows`."""


def row_map(X: Any, source: Source, options: ReadOptions, name: str) -> RowMap:
    """Return what computes answers of X's rows: its source, unless X has a way of its own."""
    return FrameAnswers(X, frame_features(X, options), name) if is_frame(X) else source


def with_labels(
    X: Any,
    values: RowValues,
    name: str,
    as_frame: bool = False,
    options: ReadOptions | None = None,
) -> Any:
    """Return values for each row as X has its rows.

    Parameters
    ----------
    X : object
        Of a DataArray they are one; those of anything else stay as they are.
    values : array, (n,) or (n, k), or of the grid whose cells the rows are
        As `row_map` computed them.
    name : str
    as_frame : bool
        Whether those of a table in memory are one of its library, with the index of X.
    options : ReadOptions, optional
        How X is read.

    Examples
    --------
    >>> import numpy as np, pandas
    >>> X = pandas.DataFrame({"a": [1.0, 2.0]}, index=["x", "y"])
    >>> with_labels(X, np.array([0, 1]), "labels", as_frame=True)
    x    0
    y    1
    Name: labels, dtype: int64
    """
    labelled = Labelled.of(X, options)
    if labelled is not None:
        return labelled.answer(values, name)
    if not as_frame or is_frame(X):
        return values
    return table_answer(X, values, name)


def check_as_frame(X: object) -> None:
    """Check that answers can be asked for as a table has them.

    Raises
    ------
    UsageError
        X is no table, and has no labels.
    """
    if not (is_table(X) or is_frame(X) or is_xarray(X)):
        raise UsageError(
            f"as_frame=True: X is a {type(X).__name__}, expected a table of pandas, polars or "
            "pyarrow: leave as_frame out"
        )
