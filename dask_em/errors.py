"""Exceptions of dask_em, and the exit codes of the command line: the only place that tells them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the program, mostly those of BSD's sysexits.h.

    Examples
    --------
    >>> DataError.exit_code
    <ExitCode.BAD_DATA: 65>
    """

    DONE = 0
    USAGE = 2
    BAD_DATA = 65
    FAULT = 70
    OUTPUT_TAKEN = 73
    DISK_FAILED = 74
    STOPPED = 75


class DaskEMError(Exception):
    """Base of every error that dask_em raises on purpose."""

    exit_code = ExitCode.FAULT


class DataError(DaskEMError, ValueError):
    """The data cannot be clustered: wrong shape, wrong type, missing, or not finite."""

    exit_code = ExitCode.BAD_DATA


class ModelFileError(DataError):
    """A file is not a whole model file of this program."""


class OutputExistsError(DaskEMError, FileExistsError):
    """The output is there already, and nobody asked to replace it."""

    exit_code = ExitCode.OUTPUT_TAKEN


class LockedError(OutputExistsError):
    """Another job writes the same thing."""


class StoppedError(DaskEMError):
    """Stopped before the end: the same command, run again, goes on."""

    exit_code = ExitCode.STOPPED


class OutOfTimeError(StoppedError):
    """The time that the job was given is over."""


class UsageError(DaskEMError, ValueError):
    """The options given cannot be used, or not together."""

    exit_code = ExitCode.USAGE


class StoreError(DaskEMError, OSError):
    """A store on the network cannot be reached, or failed for longer than it is asked again."""

    exit_code = ExitCode.DISK_FAILED


class StoreAccessError(StoreError):
    """A store cannot be used as things are set up: credentials, bucket, region, packages."""

    exit_code = ExitCode.USAGE
