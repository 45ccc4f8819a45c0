"""Groups of columns, each with the family that describes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.columns import Column, ColumnKind
from ..core.protocols import Source
from ..data.columns import choose, listed
from ..data.options import Names, ReadOptions
from ..errors import DataError, UsageError

GroupedColumns = Mapping[str, Names | int | Iterable[int]]
"""Names, patterns or numbers of columns, by the name of the family that describes them."""

# The family of a column that nobody gave one.
FAMILIES: dict[ColumnKind, str] = {
    "continuous": "gaussian",
    "count": "poisson",
    "binary": "bernoulli",
    "categorical": "categorical",
}

KINDS: dict[str, ColumnKind] = {"b": "binary", "i": "count", "u": "count"}

AUTO = "auto"


def listed_groups(columns: GroupedColumns) -> dict[str, list[Any]]:
    """Return the names or numbers of each group as a list.

    Raises
    ------
    UsageError
        A group is empty, or its columns are neither names nor numbers.

    Examples
    --------
    >>> listed_groups({"gaussian": ("x", "y_*"), "poisson": "n"})
    {'gaussian': ['x', 'y_*'], 'poisson': ['n']}
    """
    found = {}
    for family, given in columns.items():
        several = [given] if isinstance(given, str | int | np.integer) else [*(given or ())]
        names = [int(one) if isinstance(one, np.integer) else one for one in several]
        right = all(isinstance(one, str) and one for one in names) or all(
            isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in names
        )
        if not isinstance(family, str) or not names or not right:
            raise UsageError(
                f"columns has the group {family!r}: {given!r}, expected the name of a family and "
                "names of columns, or their numbers from 0"
            )
        found[family] = names
    if not found:
        raise UsageError("columns has no group: expected names of families and their columns")
    return found


def wanted_names(columns: Names | GroupedColumns) -> Names:
    """Return which columns are read, in the order of the groups; None for all.

    Examples
    --------
    >>> wanted_names({"gaussian": ["x", "y"], "poisson": ["n"]})
    ['x', 'y', 'n']
    >>> wanted_names("auto") is None, wanted_names({"gaussian": [0, 2], "poisson": [1]}) is None
    (True, True)
    """
    if not isinstance(columns, Mapping):
        return None if isinstance(columns, str) and columns == AUTO else columns
    given = [one for names in listed_groups(columns).values() for one in names]
    return [one for one in given if isinstance(one, str)] or None


def groups_of(columns: Names | GroupedColumns, source: Source) -> dict[str, tuple[int, ...]]:
    """Return the numbers of the columns of each group in a source that was opened for them.

    Raises
    ------
    DataError
        A column is in no group, or in several.

    Examples
    --------
    >>> from dask_em.data.memory import ArraySource
    >>> groups_of({"gaussian": [0, 2], "poisson": 1}, ArraySource(np.zeros((5, 3))))
    {'gaussian': (0, 2), 'poisson': (1,)}
    >>> groups_of("auto", ArraySource(np.zeros((5, 2), dtype="u1")))
    {'poisson': (0, 1)}
    """
    d = source.n_features
    if not isinstance(columns, Mapping):
        return _by_kind(source.columns, d, source.dtype)
    found = {
        family: _numbers(family, names, source.columns, d)
        for family, names in listed_groups(columns).items()
    }
    owners: dict[int, list[str]] = {j: [] for j in range(d)}
    for family, numbers in found.items():
        for j in numbers:
            owners[j].append(family)
    names = [str(j) for j in range(d)] if source.columns is None else _names(source.columns)
    several = [j for j, families in owners.items() if len(families) > 1]
    if several:
        raise DataError(
            f"column {listed([names[several[0]]])} is in the groups {listed(owners[several[0]])}: "
            "give it one family"
        )
    if nowhere := [names[j] for j, families in owners.items() if not families]:
        raise DataError(
            f"columns {listed(nowhere)} are in no group: give each a family, or leave it out of X"
        )
    _refuse_words(found, source.columns)
    return found


def _refuse_words(groups: Mapping[str, Sequence[int]], columns: Sequence[Column] | None) -> None:
    """Raise `DataError` where numbers are asked of a column that holds codes of words."""
    for family, numbers in groups.items():
        words = [] if columns is None else [j for j in numbers if columns[j].categories]
        if words and columns is not None and family != FAMILIES["categorical"]:
            raise DataError(
                f"column {listed([columns[words[0]].name])} holds words, and its group is of the "
                f"family {family!r}: put it into the group 'categorical'"
            )


def _by_kind(
    columns: Sequence[Column] | None, d: int, dtype: np.dtype[Any]
) -> dict[str, tuple[int, ...]]:
    """Return the groups of columns by what their types say they hold."""
    kinds = (
        [KINDS.get(dtype.kind, "continuous")] * d
        if columns is None
        else [column.kind for column in columns]
    )
    found: dict[str, tuple[int, ...]] = {}
    for j, kind in enumerate(kinds):
        family = FAMILIES[kind]
        found[family] = (*found.get(family, ()), j)
    return found


def _numbers(
    family: str, given: Sequence[Any], columns: Sequence[Column] | None, d: int
) -> tuple[int, ...]:
    """Return the numbers of the columns of one group."""
    if isinstance(given[0], int):
        if max(given) >= d:
            raise DataError(
                f"the group {family!r} has column {max(given)}, and X has {d} columns, numbered "
                "from 0"
            )
        return tuple(given)
    if columns is None:
        raise DataError(
            f"the group {family!r} has {listed(given)}, and the columns of X have no names: give "
            "their numbers, or data whose columns have names, such as a DataFrame"
        )
    return choose(columns, ReadOptions.of(columns=given)).numbers


def _names(columns: Sequence[Column]) -> list[str]:
    return [column.name for column in columns]
