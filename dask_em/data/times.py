"""Times beside rows, as the numbers of the periods that they fall into."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np

from ..core.additive import Array
from ..core.beside import Where
from ..core.protocols import Source
from ..errors import DataError, UsageError
from .beside import FieldCheck
from .fields import SECONDS
from .frames import is_table
from .given_beside import field_beside
from .open import as_source, names_column
from .options import ReadOptions
from .xarray import coordinate, is_xarray

R = TypeVar("R", bound=Source)

# Seconds of each; months and years are counted in the calendar.
LENGTHS = {"hour": 3600.0, "day": 86_400.0, "week": 604_800.0}
CALENDAR = {"month": "M", "year": "Y"}
# 1970 began on a Thursday, and weeks on Mondays.
MONDAY = 3 * 86_400.0


@dataclass(frozen=True)
class Period:
    """Say how time is cut.

    Attributes
    ----------
    unit : str
        "hour", "day", "week", "month" or "year" of dates in UTC; empty for numbers.
    width : float
        Of numbers; 0 where each of them is a period of its own.

    Examples
    --------
    >>> day = Period.of(None, dates=True)
    >>> day.numbers(np.array([0.0, 90_000.0])), day.label(1.0)
    (array([0., 1.]), '1970-01-02')
    >>> Period.of("2.5", dates=False).label(2.0), Period.of(None, dates=False).label(7.0)
    ('5 to 7.5', '7')
    """

    unit: str = ""
    width: float = 0.0

    @classmethod
    def of(cls, period: str | float | None, dates: bool) -> Self:
        """Return what was asked for, or days of dates and each of other numbers.

        Raises
        ------
        UsageError
            There are no such periods.
        """
        if dates:
            unit = "day" if period is None else period
            if isinstance(unit, str) and unit in (*LENGTHS, *CALENDAR):
                return cls(unit)
            raise UsageError(
                f"the period is {period!r}, of dates expected hour, day, week, month or year"
            )
        if period is None:
            return cls()
        try:
            width = float(period)
        except ValueError:
            width = np.nan
        if not 0 < width < np.inf:
            raise UsageError(f"the period is {period!r}, of numbers expected its width, above 0")
        return cls("", width)

    def numbers(self, times: Array) -> Array:
        """Return the number of the period of each time, in float64."""
        if self.unit in LENGTHS:
            offset = MONDAY if self.unit == "week" else 0.0
            return np.asarray(np.floor((times + offset) / LENGTHS[self.unit]))
        if self.unit:
            dates = np.floor(times).astype("M8[s]").astype(f"M8[{CALENDAR[self.unit]}]")
            return dates.astype(np.int64).astype(np.float64)
        return np.asarray(np.floor(times / self.width) if self.width else times)

    def label(self, number: float) -> str:
        """Return what a period is called: the date of its beginning, or the numbers in it."""
        if self.unit in LENGTHS:
            offset = MONDAY if self.unit == "week" else 0.0
            begins = np.datetime64(int(number * LENGTHS[self.unit] - offset), "s")
            return str(begins.astype("M8[h]" if self.unit == "hour" else "M8[D]"))
        if self.unit:
            return str(np.array(int(number)).astype(f"M8[{CALENDAR[self.unit]}]"))
        if self.width:
            return f"{number * self.width:.12g} to {(number + 1) * self.width:.12g}"
        return f"{number:.12g}"


@dataclass(frozen=True)
class TimeCheck(FieldCheck):
    """Check times of rows, and make them numbers of periods."""

    name = "time"
    dims = (1, 2)

    period: Period

    def __call__(self, values: Array, where: Where) -> Array:
        """Return the periods of rows (b, 1)."""
        times = np.asarray(values, dtype=np.float64).reshape(len(values), -1)[:, 0]
        bad = ~np.isfinite(times)
        if bad.any():
            raise DataError(
                f"time is {times[int(bad.argmax())]} at {where(int(bad.argmax()))}, expected one "
                "of every row: leave such rows out"
            )
        return self.period.numbers(times)[:, None]

    def width(self, shape: tuple[int, ...]) -> int:
        """Return how many numbers are read of a row.

        Raises
        ------
        DataError
            There are several.
        """
        if int(np.prod(shape, dtype=int)) != 1:
            raise DataError(f"time has shape (n, {shape[0]}), expected one time a row, (n,)")
        return 1


def times_beside(
    source: R, X: object, time: Any, period: str | float | None, options: ReadOptions
) -> tuple[R, Period]:
    """Return the source of X with the periods of its rows behind its columns, and what these are.

    Parameters
    ----------
    source : Source
    X : object
        What it was made of.
    time : array, Dask array, zarr.Array, path or URL, or the name of a column of X
        Dates, or numbers. Of an `xarray.DataArray` also the name of a coordinate of its rows.
    period : str, float or None
        As in `Period.of`.
    options : ReadOptions

    Raises
    ------
    DataError
        There is not one a row.
    UsageError
        There are no such periods.
    """
    found, dates = _times(X, time, options)
    check = TimeCheck(Period.of(period, dates))
    field = field_beside(source, found, check, options)
    _ = field.width
    return source.with_beside(replace(source.beside, noise=field)), check.period


def _times(X: object, time: Any, options: ReadOptions) -> tuple[Any, bool]:
    """Return the times of rows as numbers, or a source of them, and whether they are dates."""
    if isinstance(time, str) and names_column(time):
        if is_xarray(X):
            time = coordinate(X, time)
        elif is_table(X):
            time = _column(X, time)
        else:
            read = replace(options, columns=(time,), exclude=(), fitted=(), beside=(), dates=True)
            source = as_source(X, None, read)
            (column,) = source.columns or (None,)
            return source, column is not None and column.unit == SECONDS
    elif isinstance(time, str):
        return as_source(time), False
    in_memory = np.asarray(time) if not hasattr(time, "chunks") else None
    if in_memory is not None and in_memory.dtype.kind == "M":
        return seconds(in_memory), True
    return time if in_memory is None else in_memory, False


def _column(table: Any, name: str) -> Any:
    return np.asarray(table[name])


def seconds(dates: Array) -> Array:
    """Return dates (n,) as seconds since 1970; none is NaN.

    Examples
    --------
    >>> seconds(np.array(["1970-01-01T00:01:00.5", "NaT"], dtype="M8[ms]"))
    array([60.5,  nan])
    """
    since = (dates - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    return np.asarray(since, dtype=np.float64)
