"""Exceptions of dask_em, and the exit codes of the command line: the only place that tells them."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import ClassVar, Self

from .foreign import LONGEST_MESSAGE, shown


class ExitCode(IntEnum):
    """Exit codes of the program, mostly those of BSD's sysexits.h.

    Attributes
    ----------
    meaning : str
        In the words of the program's help.

    Examples
    --------
    >>> code = DataError.exit_code
    >>> int(code), code.meaning
    (65, 'the data are bad')
    """

    meaning: str

    DONE = 0, "done"
    USAGE = 2, "wrong usage"
    DRIFTED = 3, "the data drifted past the limit"
    BAD_DATA = 65, "the data are bad"
    FAULT = 70, "a fault of ours"
    OUTPUT_TAKEN = 73, "the output is taken"
    DISK_FAILED = 74, "the disk failed"
    STOPPED = 75, "stopped before the end"

    def __new__(cls, code: int, meaning: str) -> Self:
        """Make a code of its number and its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member


class DaskEMError(Exception):
    """Base of every error that dask_em raises on purpose.

    Attributes
    ----------
    exit_code : ExitCode
        Of the command line.
    code : str
        A word for programs, which stays when the message is reworded; of subclasses without one
        their base's.

    Examples
    --------
    >>> try:
    ...     raise DataError("X has no rows")
    ... except DaskEMError as e:
    ...     print(e, int(e.exit_code))
    X has no rows 65
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAULT
    code: ClassVar[str] = "fault"

    transient = False
    """Whether the same thing may succeed when it is tried again."""

    def __str__(self) -> str:
        # Paths and names in it are of others.
        return shown(super().__str__(), LONGEST_MESSAGE)


class DataError(DaskEMError, ValueError):
    """The data cannot be clustered: wrong shape, wrong type, missing, or not finite.

    Examples
    --------
    >>> DataError.exit_code.meaning, issubclass(DataError, ValueError)
    ('the data are bad', True)
    """

    exit_code = ExitCode.BAD_DATA
    code = "bad-data"


class NonFiniteError(DataError):
    """A row holds NaN or infinity, or what the family cannot describe; nobody asked to drop it.

    Parameters
    ----------
    what : str
        "NaN", "infinity", or the number.
    row, column : int
        The row's number in its chunk, and the column's.
    place : str, optional
        Where the row is in the data.
    name : str, optional
        Of the column.
    expected : str, optional
        What the column should hold, where it is not any finite number.
    advice : str, optional
        What else can be done, as the end of the message.

    Examples
    --------
    >>> print(NonFiniteError("NaN", 7, 1).at("row 107"))
    X contains NaN at row 107, column 1: drop or fill such rows first, or pass ...
    """

    code = "non-finite"

    def __init__(
        self,
        what: str,
        row: int,
        column: int,
        place: str = "",
        name: str = "",
        expected: str = "",
        advice: str = "",
    ) -> None:
        super().__init__(what, row, column, place, name, expected, advice)
        self.what, self.row, self.column, self.place = what, row, column, place
        self.name, self.expected, self.advice = name, expected, advice

    def __str__(self) -> str:
        place = shown(self.place) or f"row {self.row} of its chunk"
        column = f"'{shown(self.name)}'" if self.name else self.column
        expected = f", where {self.expected} are expected" if self.expected else ""
        return (
            f"X contains {self.what} at {place}, column {column}{expected}: drop or fill such rows "
            'first, or pass nonfinite="drop" to leave them out (a fitted model is told by '
            f'set_params(nonfinite="drop")){self.advice}'
        )

    def at(self, place: str, name: str = "") -> Self:
        """Return the same error, with the place of the row in the data and the column's name."""
        found = self.what, self.row, self.column, place, name, self.expected, self.advice
        return type(self)(*found)

    def advised(self, advice: str) -> Self:
        """Return the same error, which says what else can be done where a number is NaN."""
        found = self.what, self.row, self.column, self.place, self.name, self.expected
        return type(self)(*found, advice if self.what == "NaN" else "")


class ModelFileError(DataError):
    """A file is not a whole model file of this program.

    Examples
    --------
    >>> ModelFileError.exit_code.meaning, issubclass(ModelFileError, DataError)
    ('the data are bad', True)
    """

    code = "bad-model-file"


class ModelNotFoundError(ModelFileError, FileNotFoundError):
    """There is no file at the path of a model.

    Examples
    --------
    >>> ModelNotFoundError.exit_code.meaning, issubclass(ModelNotFoundError, FileNotFoundError)
    ('wrong usage', True)
    """

    exit_code = ExitCode.USAGE
    code = "model-not-found"


class OutputExistsError(DaskEMError, FileExistsError):
    """The output is there already, and nobody asked to replace it.

    Examples
    --------
    >>> OutputExistsError.exit_code.meaning, issubclass(OutputExistsError, FileExistsError)
    ('the output is taken', True)
    """

    exit_code = ExitCode.OUTPUT_TAKEN
    code = "output-exists"


class LockedError(OutputExistsError):
    """Another job writes the same thing.

    Examples
    --------
    >>> LockedError.exit_code.meaning
    'the output is taken'
    """

    code = "locked"


class StoppedError(DaskEMError):
    """Stopped before the end: the same command, run again, goes on.

    Examples
    --------
    >>> StoppedError.exit_code.meaning
    'stopped before the end'
    """

    exit_code = ExitCode.STOPPED
    code = "stopped"


class OutOfTimeError(StoppedError):
    """The time that the job was given is over.

    Examples
    --------
    >>> OutOfTimeError.exit_code.meaning
    'stopped before the end'
    """

    code = "out-of-time"


class WorkerError(StoppedError):
    """A worker runs another program than the process that sends it tasks.

    Examples
    --------
    >>> WorkerError.exit_code.meaning
    'stopped before the end'
    """

    code = "other-worker"


class UsageError(DaskEMError, ValueError):
    """The options given cannot be used, or not together.

    Examples
    --------
    >>> UsageError.exit_code.meaning, issubclass(UsageError, ValueError)
    ('wrong usage', True)
    """

    exit_code = ExitCode.USAGE
    code = "usage"


class StoreError(DaskEMError, OSError):
    """A store on the network cannot be reached, or failed for longer than it is asked again.

    Examples
    --------
    >>> StoreError.exit_code.meaning, issubclass(StoreError, OSError)
    ('the disk failed', True)
    """

    exit_code = ExitCode.DISK_FAILED
    code = "store-failed"

    transient = True


class StoreAccessError(StoreError):
    """A store cannot be used as things are set up: credentials, bucket, region, packages.

    Examples
    --------
    >>> StoreAccessError.exit_code.meaning  # to ask again is of no use
    'wrong usage'
    """

    exit_code = ExitCode.USAGE
    code = "store-access"

    transient = False


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put a path into an error of the system in the block: calls on open files know none.

    Examples
    --------
    >>> with naming("model.npz"):
    ...     raise OSError(5, "Input/output error")
    Traceback (most recent call last):
    OSError: [Errno 5] Input/output error: 'model.npz'
    """
    try:
        yield
    except OSError as e:
        if e.errno is not None and e.filename is None and not isinstance(e, DaskEMError):
            e.filename = os.fspath(path)
        raise


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called into dask_em, however deep the reason was found.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_user("reg_covar is large")
    >>> str(caught[0].message), caught[0].filename.endswith("errors.py")
    ('reg_covar is large', False)
    """
    ours, level = str(Path(__file__).parent), 2
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(ours):
        frame, level = frame.f_back, level + 1
    warnings.warn(shown(message, LONGEST_MESSAGE), category, stacklevel=level)
