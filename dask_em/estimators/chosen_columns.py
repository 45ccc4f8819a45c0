"""Columns of a fitted model that a question names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..data.columns import with_names
from ..errors import UsageError
from ..foreign import shown


def column_numbers(
    option: str, asked: Any, names: Iterable[str] | None, n_features: int
) -> list[int]:
    """Return the numbers of columns that are given by names or numbers.

    Parameters
    ----------
    option : str
        The argument that holds them, for messages.
    asked : str, int, or iterable of them
    names : iterable of str or None
        Of the model's columns, where they have some.
    n_features : int

    Raises
    ------
    UsageError
        None, one twice, or one that is not there.

    Examples
    --------
    >>> column_numbers("columns", ["b", 0], ["a", "b"], 2)
    [1, 0]
    >>> column_numbers("columns", "c", ["a", "b"], 2)
    Traceback (most recent call last):
    dask_em.errors.UsageError: columns: the model has no column 'c': The columns are 'a', 'b'
    """
    several = [asked] if isinstance(asked, str | int | np.integer) else list(asked)
    known = None if names is None else [str(name) for name in names]
    found = [_number(option, one, known, n_features) for one in several]
    if not found or len(set(found)) < len(found):
        raise UsageError(f"{option} is {asked!r:.100}: expected one column or more, each once")
    return found


def _number(option: str, asked: Any, names: list[str] | None, n_features: int) -> int:
    if isinstance(asked, str) and names is not None and asked in names:
        return names.index(asked)
    whole = isinstance(asked, int | np.integer) and not isinstance(asked, bool)
    if whole and 0 <= asked < n_features:
        return int(asked)
    if names is not None:
        wrong = str(asked)
        what = f"{option}: the model has no column {shown(repr(asked), 100)}"
        raise UsageError(with_names(what, wrong, names))
    raise UsageError(
        f"{option} has {asked!r:.100}, and the columns of the model have no names: expected "
        f"numbers from 0 to {n_features - 1}"
    )
