"""How stored data are read: one value that a model carries from its fit to all later reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import UsageError

MissingChunks = Literal["error", "fill"]

NonFinite = Literal["error", "drop"]


@dataclass(frozen=True)
class ReadOptions:
    """Say what missing chunks and rows that are not finite are taken for.

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

    def __post_init__(self) -> None:
        choices = (("missing_chunks", MissingChunks), ("nonfinite", NonFinite))
        for name, allowed in choices:
            value = getattr(self, name)
            if not isinstance(value, str) or value not in get_args(allowed):
                expected = ", ".join(get_args(allowed))
                raise UsageError(f"{name}={value!r}: expected one of {expected}")
