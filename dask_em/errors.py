"""The exceptions of dask_em, and the exit code that the command line gives each."""

from __future__ import annotations


class DaskEMError(Exception):
    """Base of every error that dask_em raises on purpose."""

    exit_code = 70


class DataError(DaskEMError, ValueError):
    """The data cannot be clustered: wrong shape, wrong type, missing, or not finite."""

    exit_code = 65


class ModelFileError(DataError):
    """A file is not a whole model file of this program."""


class OutputExistsError(DaskEMError, FileExistsError):
    """The output is there already, and nobody asked to replace it."""

    exit_code = 73


class LockedError(OutputExistsError):
    """Another job writes the same thing."""


class StoppedError(DaskEMError):
    """Stopped before the end: the same command, run again, goes on."""

    exit_code = 75


class OutOfTimeError(StoppedError):
    """The time that the job was given is over."""


class UsageError(DaskEMError, ValueError):
    """What was asked for cannot be done as it was asked."""

    exit_code = 2


class StoreError(DaskEMError, OSError):
    """A store on the network cannot be reached, or failed for longer than it is asked again."""

    exit_code = 74


class StoreAccessError(StoreError):
    """A store cannot be used as things are set up: credentials, bucket, region, packages."""

    exit_code = 2
