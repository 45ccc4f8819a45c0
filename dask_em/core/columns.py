"""Columns of a source: their names, and the kinds of numbers that they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import DataError

ColumnKind = Literal["continuous", "count", "binary", "categorical"]

# The attribute of a matrix that names the kind of each column.
KINDS = "column_kinds"


@dataclass(frozen=True)
class Column:
    """Describe one column of rows.

    Attributes
    ----------
    name : str
    kind : {"continuous", "count", "binary", "categorical"}
        What its type says: floats are continuous, integers counts, booleans binary.
    categories : tuple of str
        Of a categorical column, in the order of their codes 0, 1, ...
    unit : str
        Where the data name one, as CF attributes do.

    Examples
    --------
    >>> Column("colour", "categorical", ("red", "green")).categories[1]
    'green'
    """

    name: str
    kind: ColumnKind = "continuous"
    categories: tuple[str, ...] = ()
    unit: str = ""


def no_columns(description: str, names: Sequence[str]) -> DataError:
    """Return the error that data without named columns have none to carry.

    Examples
    --------
    >>> print(no_columns("x.npy", ["id"]))
    x.npy has no columns beside its numbers, so no id to keep: columns are kept of tables ...
    """
    return DataError(
        f"{description} has no columns beside its numbers, so no {', '.join(names)} to keep: "
        "columns are kept of tables (Parquet, Arrow)"
    )
