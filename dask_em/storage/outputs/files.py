"""Files written to a temporary name, synced and renamed: whole, or not there at all."""

from __future__ import annotations

import errno
import glob
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ...errors import OutputExistsError, UsageError, naming
from ..urls import is_url
from ..users import may_remove, may_write, owner_name, user_name

# Of file systems that know no hard links.
NO_LINKS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    with naming(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def durable_file(path: Path, overwrite: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file for the block to fill, which becomes `path` when it is on the disk.

    If the block raises, the file that was at `path` stays.

    Parameters
    ----------
    path : Path
    overwrite : bool
        Whether it takes the place of what is at `path` by then.

    Raises
    ------
    OutputExistsError
        Something is at `path`, and `overwrite` is False: the file system decides, in one step.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "greeting")
    >>> with durable_file(path) as file:
    ...     _ = file.write(b"hello")
    ...     path.exists()
    False
    >>> path.read_bytes()
    b'hello'
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with naming(path), temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            _name(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _name(temporary: Path, path: Path) -> None:
    """Give a file its name, unless something has it."""
    try:
        try:
            os.link(temporary, path)
        except OSError as e:
            if e.errno not in NO_LINKS:
                raise
            # To make a file is the other step that refuses to replace one.
            path.touch(exist_ok=False)
            try:
                temporary.replace(path)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
    except FileExistsError:
        raise taken(path) from None
    temporary.unlink(missing_ok=True)


def taken(what: object) -> OutputExistsError:
    """Return the error that something is where an output is to be."""
    return OutputExistsError(f"{what} exists; choose another name or pass overwrite=True")


def write_durably(path: Path, data: bytes) -> None:
    """Write a small file so that its name stands for all of it, even if the power fails.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_durably(Path(folder, "greeting"), b"hello")
    ...     [(path.name, path.read_bytes()) for path in Path(folder).iterdir()]
    [('greeting', b'hello')]
    """
    with durable_file(path) as file:
        file.write(data)


def remove_unfinished(path: str | os.PathLike[str]) -> None:
    """Remove what a writer of the file at `path` left when it was killed.

    Whoever calls this must know that nobody is writing there.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, ".model.npz.0123abcd.tmp").touch()
    ...     remove_unfinished(Path(folder, "model.npz"))
    ...     list(Path(folder).iterdir())
    []
    """
    path = Path(path)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.tmp"):
        # Another user's, in a folder where only owners remove files, has to stay.
        with suppress(PermissionError):
            leftover.unlink(missing_ok=True)


def check_folder(output: str) -> None:
    """Check that the folder that `output` is to lie in is there, and can be written.

    Raises
    ------
    UsageError
        It is not.

    Examples
    --------
    >>> check_folder("model.npz")
    >>> check_folder("nowhere/model.npz")
    Traceback (most recent call last):
    dask_em.errors.UsageError: nowhere/model.npz: there is no folder ...; make it first
    """
    if is_url(output):
        return
    folder = Path(output).absolute().parent
    try:
        mode = folder.stat().st_mode
    except PermissionError as e:
        raise UsageError(
            f"{output}: {user_name(os.geteuid())} may not enter a folder above {folder}: choose "
            "another one"
        ) from e
    except OSError as e:
        raise UsageError(f"{output}: there is no folder {folder}; make it first") from e
    if not stat.S_ISDIR(mode):
        raise UsageError(f"{output}: {folder} is a file, expected a folder")
    if not may_write(folder):
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            raise UsageError(f"{output}: {folder} is on a disk that is mounted read-only")
        raise UsageError(
            f"{output}: {user_name(os.geteuid())} may not write to the folder {folder}, which "
            f"belongs to {owner_name(folder)}: choose another one"
        )


def check_replaceable(path: Path) -> None:
    """Check that this user may replace what is at a path.

    Raises
    ------
    OutputExistsError
        It is another user's, in a folder where only owners may.
    """
    if os.path.lexists(path) and not may_remove(path):
        raise OutputExistsError(
            f"{path} belongs to {owner_name(path)}, and nobody else may replace it in "
            f"{path.absolute().parent}: choose another name"
        )
