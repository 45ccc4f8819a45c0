"""Columns of rows: chosen by name or pattern, and matched against those of a model."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ..core.columns import Column
from ..errors import DataError
from ..foreign import shown
from .options import ReadOptions

logger = logging.getLogger("dask_em")

# Names that a message lists, and characters of each.
LISTED, LONGEST_NAME = 8, 100


@dataclass(frozen=True)
class WeightColumn:
    """Name the column of the data that holds the weight of each row.

    An opener of data whose columns have names takes one in place of weights.
    """

    name: str


@dataclass(frozen=True)
class Chosen:
    """Say which columns of some data are read.

    Attributes
    ----------
    numbers : tuple of int
        Of the features among all columns, in the order in which they are read.
    columns : tuple of Column
        The features.
    weight : int or None
        The number of the column of weights.
    """

    numbers: tuple[int, ...]
    columns: tuple[Column, ...]
    weight: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(column.name for column in self.columns)


def choose(
    columns: Sequence[Column],
    options: ReadOptions,
    weight: WeightColumn | None = None,
    name: str = "X",
) -> Chosen:
    """Choose the features among all columns of some data, and the column of weights.

    Whatever opens data whose columns have names asks here, before anything is read. A model
    finds its own columns by name; a fit takes those that match `options.columns`, in that order,
    and not `options.exclude`. A column of weights is no feature.

    Parameters
    ----------
    columns : sequence of Column
        All that the data have.
    options : ReadOptions
    weight : WeightColumn, optional
    name : str
        Of the data, in messages.

    Raises
    ------
    DataError
        There is no such column, a pattern matches none, none is left, or two have one name.

    Examples
    --------
    >>> table = [Column(name) for name in ("id", "flux_r", "flux_g", "w")]
    >>> choose(table, ReadOptions.of(columns=["flux_g", "flux_*"])).names
    ('flux_g', 'flux_r')
    >>> choose(table, ReadOptions.of(exclude="id"), WeightColumn("w")).numbers
    (1, 2)
    >>> choose(table, ReadOptions(fitted=("flux_r", "flux_g"))).numbers
    (1, 2)
    >>> choose(table, ReadOptions.of(columns="flux_G"))
    Traceback (most recent call last):
    dask_em.errors.DataError: columns='flux_G' is no column of X: did you mean 'flux_g'? The ...
    """
    names = [column.name for column in columns]
    twice = [one for one, n in Counter(names).items() if n > 1]
    if twice:
        raise DataError(
            f"{name} has several columns of one name, {listed(twice)}: rename them, so that each "
            "can be told from the others"
        )
    weighted = None if weight is None else _number_of("weights", weight.name, names, name)
    beside = [_number_of("labels or noise", one, names, name) for one in options.beside]
    if options.fitted:
        numbers = _of_a_model(names, options.fitted, name, [weighted, *beside])
    else:
        kept = _matching("columns", options.columns, names, name) or range(len(names))
        left_out = {*_matching("exclude", options.exclude, names, name), weighted, *beside}
        numbers = [j for j in kept if j not in left_out]
    if not numbers:
        raise DataError(
            f"columns={list(options.columns)!r} and exclude={list(options.exclude)!r} leave no "
            f"column of {name}, which has {listed(names)}"
        )
    return Chosen(tuple(numbers), tuple(columns[j] for j in numbers), weighted)


def check_nameless(options: ReadOptions, name: str = "X") -> None:
    """Refuse to choose columns by name where they have none.

    Raises
    ------
    DataError
        A fit was told `columns` or `exclude`, or names of columns of labels or noise.
    """
    if options.beside:
        raise DataError(
            f"the labels or noise {listed(options.beside)} are no path, and the columns of {name} "
            "have no names"
        )
    for option, told in (("columns", options.columns), ("exclude", options.exclude)):
        if told and not options.fitted:
            raise DataError(
                f"{option}={list(told)!r}: the columns of {name} have no names; leave {option} out "
                f"and give the columns that are wanted, or data whose columns have names, such as "
                "a DataFrame"
            )


def check_columns(name: str, found: int, fitted: int) -> None:
    """Check that rows of `found` columns can be rows of a model of `fitted`.

    Raises
    ------
    DataError
        The numbers differ; the message names the data by `name`.

    Examples
    --------
    >>> check_columns("X", 2, 2)
    """
    if found != fitted:
        raise DataError(
            f"{name} has {found} columns, but the model was fitted to {fitted}: give the same "
            "columns in the same order"
        )


def listed(names: Sequence[str]) -> str:
    """Return some names for a message: the first of them, and how many there are.

    Examples
    --------
    >>> listed(["a", "b"]), listed([f"x{i}" for i in range(100)])
    ("'a', 'b'", "'x0', 'x1', 'x2', 'x3', 'x4', 'x5', 'x6', 'x7', ... (100 in all)")
    """
    more = f", ... ({len(names)} in all)" if len(names) > LISTED else ""
    return ", ".join(f"'{shown(one, LONGEST_NAME)}'" for one in names[:LISTED]) + more


def with_names(what: str, wrong: str, names: Sequence[str]) -> str:
    """Return a message with the name that is nearest to a wrong one, and those that there are.

    Examples
    --------
    >>> with_names("no column 'flux_G'", "flux_G", ["id", "flux_g"])
    "no column 'flux_G': did you mean 'flux_g'? The columns are 'id', 'flux_g'"
    """
    folded = {one.casefold(): one for one in names}
    near = [folded[one] for one in get_close_matches(wrong.casefold(), folded, n=1)]
    meant = f"did you mean {listed(near)}? " if near else ""
    return f"{what}: {meant}The columns are {listed(names)}"


def _number_of(kind: str, wanted: str, names: Sequence[str], name: str) -> int:
    if wanted not in names:
        what = f"the {kind} {wanted!r} are no path and no column of {name}"
        raise DataError(with_names(what, wanted, names))
    return names.index(wanted)


def _of_a_model(
    names: Sequence[str], fitted: Sequence[str], name: str, taken: Sequence[int | None]
) -> list[int]:
    """The columns of a model, wherever they are; others that nobody takes are named in the log."""
    at = {one: j for j, one in enumerate(names)}
    lacking = [one for one in fitted if one not in at]
    if lacking:
        what = f"{name} lacks columns that the model was fitted to, {listed(lacking)}"
        raise DataError(with_names(what, lacking[0], names))
    numbers = [at[one] for one in fitted]
    ignored = sorted({*range(len(names))} - {*numbers, *taken}, key=lambda j: j or 0)
    if ignored:
        logger.info(
            "columns of %s that the model was not fitted to are ignored: %s",
            name,
            listed([names[j] for j in ignored if j is not None]),
        )
    return numbers


def _matching(option: str, wanted: Sequence[str], names: Sequence[str], name: str) -> list[int]:
    """Numbers of the columns that match any of some names or patterns, each once."""
    found: dict[int, None] = {}
    for one in wanted:
        # A name that has brackets is itself before it is a pattern.
        numbers = [j for j, column in enumerate(names) if column == one]
        numbers = numbers or [j for j, column in enumerate(names) if fnmatchcase(column, one)]
        if not numbers:
            pattern = any(character in one for character in "*?[")
            what = f"{option}={one!r} {'matches' if pattern else 'is'} no column of {name}"
            raise DataError(with_names(what, one, names))
        found.update(dict.fromkeys(numbers))
    return [*found]
