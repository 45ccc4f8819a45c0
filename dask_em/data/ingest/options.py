"""How CSV files are written, which nobody can tell from them alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError


@dataclass(frozen=True)
class CsvOptions:
    """Say how CSV files are written.

    Attributes
    ----------
    delimiter : str or None
        Between columns; None is a tab in files named .tsv, and a comma in others.
    decimal : str
        The decimal point.
    header : bool
        Whether the first line names the columns.
    null : sequence of str
        What stands for a hole, beside nothing, NaN, NA, null and the like.

    Raises
    ------
    UsageError
        A separator is not one character.

    Examples
    --------
    >>> CsvOptions(delimiter=";", decimal=",").decimal
    ','
    >>> CsvOptions(delimiter="||")
    Traceback (most recent call last):
    dask_em.errors.UsageError: delimiter='||': expected one character
    """

    delimiter: str | None = None
    decimal: str = "."
    header: bool = True
    null: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("delimiter", "decimal"):
            value = getattr(self, name)
            if value not in (None, "\\t") and len(value.encode()) != 1:
                raise UsageError(f"{name}={value!r}: expected one character")

    def of(self, path: str) -> str:
        """Return what parts the columns of a file."""
        if self.delimiter is not None:
            return "\t" if self.delimiter == "\\t" else self.delimiter
        return "\t" if ".tsv" in Path(path).suffixes else ","
