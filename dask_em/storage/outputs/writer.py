"""The one way to write an output: a file, or a folder that is filled bit by bit.

The folder in which it is to lie is checked before the work. Then the output is locked, and what
an earlier writer left when it was killed is removed. A file is written beside its destination,
synced, and given its name by a step that replaces nothing, unless that was asked for.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ...errors import OutputExistsError
from ...runtime import as_job, current_job
from ..locks import Lock, locked
from ..object_store import write_bytes
from ..urls import is_url
from .files import durable_file, remove_unfinished, sync
from .staging import check_free, check_output, remove, rename_folder

# In a new folder until it is filled.
UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class OutputFile:
    """A file that this job alone writes, once or again and again.

    Attributes
    ----------
    path : str
        A path, or a URL of an object store.
    overwrite : bool
        Whether it takes the place of what is there.
    lock : Lock
    """

    path: str
    overwrite: bool
    lock: Lock

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the new file for the block to fill; what was there stays if the block raises.

        Raises
        ------
        OutputExistsError
            Something is there by then, and may not be replaced.
        LockedError
            Another job took over, because this one was away for too long.
        """
        if is_url(self.path):
            whole = io.BytesIO()
            yield whole
            self.lock.check()
            write_bytes(self.path, whole.getvalue(), self.overwrite)
            return
        with durable_file(Path(self.path), self.overwrite) as file:
            yield file
            self.lock.check()


@contextmanager
def output_file(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[OutputFile]:
    """Lock a file, to be written while the block runs or at its end.

    Parameters
    ----------
    path : path, or URL of an object store
    overwrite : bool
        Whether what is there may be replaced.

    Raises
    ------
    OutputExistsError
        Something is there that may not be replaced; `LockedError` where another job writes it.
    UsageError
        There is no such folder, or nothing can be written to it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "greeting")
    ...     with output_file(path) as output, output.open() as file:
    ...         _ = file.write(b"hello")
    ...     path.read_bytes(), [found.name for found in Path(folder).iterdir()]
    (b'hello', ['greeting'])
    """
    name = os.fspath(path)
    check_output_file(name, overwrite)
    with output_locked(name) as lock:
        if not is_url(name):
            remove_unfinished(name)
        check_free(name, overwrite)
        yield OutputFile(name, overwrite, lock)


def check_output_file(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Check before the work that a file can be written, as `check_output`, and what it replaces.

    Raises
    ------
    OutputExistsError
        Something is there that may not be replaced, or that is no file.
    UsageError
        There is no such folder, or nothing can be written to it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check_output_file(folder, overwrite=True)
    Traceback (most recent call last):
    dask_em.errors.OutputExistsError: ... is a folder; choose the name of a file
    """
    check_output(path, overwrite)
    if is_url(path):
        return
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise OutputExistsError(f"{os.fspath(path)} is {what}; choose the name of a file")


@contextmanager
def output_locked(path: str | os.PathLike[str]) -> Iterator[Lock]:
    """Lock an output while the block runs, for all that this job writes."""
    with as_job(current_job()), locked(os.fspath(path)) as lock:
        yield lock


@contextmanager
def new_folder(path: Path, overwrite: bool) -> Iterator[None]:
    """Lock and make a folder for the block to fill; if the block fails, all is as it was before.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with new_folder(Path(parent, "out"), overwrite=False):
    ...         Path(parent, "out", "greeting").touch()
    ...     [path.name for path in Path(parent, "out").iterdir()]
    ['greeting']
    """
    check_output(path, overwrite)
    hidden = path.with_name(f".{path.name}.new")
    new, replaced = hidden / "new", hidden / "replaced"
    with output_locked(path):
        _undo(path, hidden)
        check_free(path, overwrite)
        try:
            new.mkdir(parents=True)
            (new / UNFINISHED).touch()
            if os.path.lexists(path):
                path.rename(replaced)
            rename_folder(new, path)
            yield
            (path / UNFINISHED).unlink()
            sync(path)
        finally:
            _undo(path, hidden)


def _undo(path: Path, hidden: Path) -> None:
    """Remove a folder that is not filled, and bring back what it was to replace."""
    if (path / UNFINISHED).exists():
        shutil.rmtree(path, ignore_errors=True)
    replaced = hidden / "replaced"
    if os.path.lexists(replaced) and not os.path.lexists(path):
        replaced.rename(path)
    remove(hidden)
