"""The exceptions of dask_em, and the exit code that the command line gives each."""


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


class UsageError(DaskEMError, ValueError):
    """What was asked for cannot be done as it was asked."""

    exit_code = 2
