"""Files written to a temporary name, synced and renamed: whole, or not there at all."""

from __future__ import annotations

import glob
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ...errors import UsageError
from ..urls import is_url


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file for the block to fill, which becomes `path` when it is on the disk.

    If the block raises, the file that was at `path` stays.

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
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


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
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        leftover.unlink(missing_ok=True)


def check_folder(output: str) -> None:
    """Raise `UsageError` where the folder that `output` is to lie in is not there.

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
    if not folder.is_dir():
        raise UsageError(f"{output}: there is no folder {folder}; make it first")
