"""Columns of a source: their names, and the kinds of numbers that they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ColumnKind = Literal["continuous", "count", "binary", "categorical"]


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
