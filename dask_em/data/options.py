"""How stored data are read: one value that a model carries from its fit to all later reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypedDict, Unpack, get_args

from ..errors import UsageError

MissingChunks = Literal["error", "fill"]

NonFinite = Literal["error", "drop"]

Names = str | Iterable[str] | None
"""One name or pattern of names, several, or none."""


class ReadChoices(TypedDict, total=False):
    """Those of `ReadOptions` that somebody chose; None is no choice."""

    missing_chunks: MissingChunks | None
    nonfinite: NonFinite | None
    columns: Names
    exclude: Names
    features: str | None
    raw: bool | None
    fitted: Names
    codes: bool
    categories: Sequence[Sequence[str]] | None


@dataclass(frozen=True)
class ReadOptions:
    """Say what missing chunks and rows that are not finite are taken for, and what the columns are.

    Attributes
    ----------
    missing_chunks : {"error", "fill"}
        Whether a missing chunk of a Zarr array is an error or stands for the fill value.
    nonfinite : {"error", "drop"}
        Whether rows of NaN or infinity are refused or left out: of a fit and of criteria, while
        in answers the label of such a row is -1, and all else NaN.
    columns, exclude : tuple of str
        Names of the columns that are read and of those that are not, or patterns of names as a
        shell has them; all where `columns` is empty.
    features : str
        The dimension of a grid that holds the variables; each cell of the others is a row.
    raw : bool
        Whether packed numbers are taken as they are stored.
    fitted : tuple of str
        Names of the columns of the model that reads, which are found by name whatever their
        order; `columns` and `exclude` chose them, and choose nothing more. Empty in a fit, and
        where the columns of a model have no names.
    codes : bool
        Whether columns of words that have categories are read as the codes of these, 0, 1, ...,
        and NaN where one is missing; otherwise they hold no numbers.
    categories : tuple of tuple of str
        Those of each of the `fitted` columns, empty where it has none: the codes of a model are
        read for the same words, whatever codes the data have for them.
    beside : tuple of str
        Columns that stand beside the rows, as labels and noise do, and are no features.
    dates : bool
        Whether dates in files of tables are read as seconds since 1970; they hold no numbers else.

    Raises
    ------
    UsageError
        Another value.

    Examples
    --------
    >>> ReadOptions(missing_chunks="fill").nonfinite
    'error'
    """

    missing_chunks: MissingChunks = "error"
    nonfinite: NonFinite = "error"
    columns: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    features: str = ""
    raw: bool = False
    fitted: tuple[str, ...] = ()
    codes: bool = False
    categories: tuple[tuple[str, ...], ...] = ()
    beside: tuple[str, ...] = ()
    dates: bool = False

    def __post_init__(self) -> None:
        choices = (("missing_chunks", MissingChunks), ("nonfinite", NonFinite))
        for name, allowed in choices:
            value = getattr(self, name)
            if not isinstance(value, str) or value not in get_args(allowed):
                expected = ", ".join(get_args(allowed))
                raise UsageError(f"{name}={value!r}: expected one of {expected}")
        if not isinstance(self.features, str):
            raise UsageError(f"features={self.features!r}: expected the name of a dimension")
        if not isinstance(self.raw, bool):
            raise UsageError(f"raw={self.raw!r}: expected True or False")

    def categories_of(self, name: str) -> tuple[str, ...]:
        """Return the categories of a column of the model that reads; empty where it has none.

        Examples
        --------
        >>> known = ReadOptions(codes=True, fitted=("x", "w"), categories=((), ("a", "b")))
        >>> known.categories_of("w"), known.categories_of("x")
        (('a', 'b'), ())
        """
        return dict(zip(self.fitted, self.categories, strict=False)).get(name, ())

    @classmethod
    def of(cls, **chosen: Unpack[ReadChoices]) -> Self:
        """Return the options of what was chosen, and the defaults of all else.

        Raises
        ------
        UsageError
            A value is not one of those allowed.

        Examples
        --------
        >>> ReadOptions.of(columns=["flux_*"], exclude="flux_err", features=None)
        ReadOptions(missing_chunks='error', nonfinite='error', columns=('flux_*',), ...
        """
        given: dict[str, Any] = {n: value for n, value in chosen.items() if value is not None}
        if "fitted" in given:
            given["fitted"] = tuple(given["fitted"])
        if "categories" in given:
            given["categories"] = tuple(tuple(words) for words in given["categories"])
        for name in ("columns", "exclude"):
            if name in given:
                given[name] = _names(name, given[name])
        return cls(**given)


def _names(name: str, value: Any) -> tuple[str, ...]:
    """The names of an option as a tuple; a string is one name."""
    if isinstance(value, str):
        value = (value,)
    try:
        names = tuple(value)
    except TypeError:
        names = (value,)
    if isinstance(value, Mapping):
        raise UsageError(
            f"{name}={value!r}: groups of columns are those of a mixed mixture, expected names of "
            "columns"
        )
    if not all(isinstance(one, str) and one for one in names):
        raise UsageError(f"{name}={value!r}: expected names of columns, or patterns such as 'x_*'")
    if len(set(names)) < len(names):
        raise UsageError(f"{name}={value!r} has a name twice: give each once")
    return names
