"""Places where an unfinished group of arrays lies, and how it gets to its destination.

A group on its way to DEST lies under

    .DEST.partial/header.json     the identity of the work, and the name ID
                  answers-ID/     the group of arrays, or folder of tables, that becomes DEST
                  regions-ID/     a marker for each region that is whole
                  publishing      an object store copies the group to DEST

On a disk a whole group is renamed. Object stores know no renames: the store itself copies the
objects, the document that makes DEST a Zarr group last (or a file of the schema, of tables). Until
it is there, a copy counts as interrupted and is made again by the next run.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...errors import OutputExistsError
from ..folders import BucketFolder, DiskFolder, Folder
from ..locks import has_lock
from ..object_store import check_writable
from ..urls import describe_url, is_url, split_url
from ..users import may_remove, may_write, owner_name
from .files import check_folder, check_replaceable, sync, taken, write_durably

HEADER, PUBLISHING = "header.json", "publishing"

# What is copied last, one of them for each kind of folder.
ROOTS = ("zarr.json", "_common_metadata")

DOCUMENTS = (*ROOTS, ".zgroup", ".zarray", ".zattrs", ".zmetadata")

Create = Callable[[Path | str], None]
"""Makes an empty folder of answers at a path or URL."""


class Staging(Protocol):
    """Place of a group on its way to its destination."""

    def check_free(self, overwrite: bool) -> None:
        """Raise `OutputExistsError` where the destination is taken and may not be replaced."""

    def begun(self) -> bool:
        """Return whether something of unfinished work is there."""

    def header(self) -> bytes | None:
        """Read the header of work that was begun; None where none was."""

    def begin(self, name: str, header: str, create: Create) -> None:
        """Throw away what is there, and make room for a group of this name."""

    def group(self, name: str) -> Path | str:
        """Return the path or URL of the group."""

    def markers(self, name: str) -> Folder:
        """Return the folder of the markers of whole regions."""

    def stored(self, name: str) -> set[str]:
        """List what is stored of the group, by names within it."""

    def publish(self, name: str) -> None:
        """Move a whole group to the destination, replace what is there, remove everything else."""

    def clear(self) -> None:
        """Throw away what is there."""


def staging_at(path: Path | str) -> Staging:
    """Return the staging place of a destination: a path, or a URL of an object store."""
    if isinstance(path, str) and is_url(path):
        parent, name = split_url(path)
        return BucketStaging(BucketFolder(parent), name)
    return DiskStaging(Path(path))


def check_free(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise where `path` is taken and may not be replaced.

    Raises
    ------
    OutputExistsError
        Something is there, and `overwrite` is False.
    UsageError
        It is a URL to which nothing can be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check_free(Path(folder, "new"), overwrite=False)
    ...     check_free(folder, overwrite=False)
    Traceback (most recent call last):
    dask_em.errors.OutputExistsError: ... exists; ...
    """
    staging_at(os.fspath(path)).check_free(overwrite)


def check_output(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Check before the work that an output can be written: its folder, and what is there.

    Where an earlier job of the same output was killed or stopped, what is there may be for the
    next one to clean up, and is checked when that has the lock.

    Raises
    ------
    OutputExistsError
        Something is there that may not be replaced.
    UsageError
        There is no such folder, or nothing can be written to it.
    """
    name = os.fspath(path)
    check_folder(name)
    staging = staging_at(name)
    if not (staging.begun() or has_lock(name)):
        staging.check_free(overwrite)


@dataclass(frozen=True)
class DiskStaging:
    """A hidden folder beside the destination.

    Attributes
    ----------
    path : Path
        The destination.
    """

    path: Path

    @property
    def folder(self) -> Path:
        """Where the group is until it is whole."""
        return self.path.with_name(f".{self.path.name}.partial")

    def __str__(self) -> str:
        return str(self.folder)

    def check_free(self, overwrite: bool) -> None:
        """Raise where the destination is taken and may not be replaced."""
        if not overwrite and os.path.lexists(self.path):
            raise taken(self.path)
        check_replaceable(self.path)
        if self.folder.is_dir() and not (may_write(self.folder) and may_remove(self.folder)):
            raise OutputExistsError(
                f"{self.folder} is unfinished work of {owner_name(self.folder)}, and nobody else "
                "may write there or remove it: choose another name"
            )

    def begun(self) -> bool:
        """Return whether something of unfinished work is there."""
        return self.folder.exists()

    def header(self) -> bytes | None:
        """Read the header of work that was begun; None where none was."""
        return DiskFolder(self.folder).read(HEADER)

    def begin(self, name: str, header: str, create: Create) -> None:
        """Throw away what is there, and make room for a group of this name."""
        folder, group = self.folder, self.group(name)
        folder.mkdir(exist_ok=True)
        with _removed_if_it_fails(folder):
            for old in folder.iterdir():
                remove(old)
            self.markers(name).path.mkdir()
            create(group)
            for made in (*group.rglob("*"), group, folder, folder.parent):
                sync(made)
            # From here on there is something to resume.
            write_durably(folder / HEADER, header.encode())

    def group(self, name: str) -> Path:
        """Return the path of the group."""
        return self.folder / f"answers-{name}"

    def markers(self, name: str) -> DiskFolder:
        """Return the folder of the markers of whole regions."""
        return DiskFolder(self.folder / f"regions-{name}")

    def stored(self, name: str) -> set[str]:
        """List the files of the group, by names within it."""
        top = self.group(name)
        return {
            Path(folder, file).relative_to(top).as_posix()
            for folder, _, files in os.walk(top)
            for file in files
        }

    def publish(self, name: str) -> None:
        """Rename the group, and remove everything else.

        Raises
        ------
        OutputExistsError
            Somebody else made something at the destination meanwhile.
        """
        group = self.group(name)
        # A worker that was killed may have left a file that Zarr had not renamed yet.
        for stray in group.rglob("*.partial"):
            stray.unlink(missing_ok=True)
        if os.path.lexists(self.path):
            replaced = self.folder / "replaced"
            remove(replaced)
            self.path.rename(replaced)
        rename_folder(group, self.path)
        sync(self.path.parent)
        self.clear()

    def clear(self) -> None:
        """Throw away what is there."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class BucketStaging:
    """Objects beside the destination.

    Attributes
    ----------
    folder : BucketFolder
        What destination and unfinished work lie in.
    name : str
        The destination.
    """

    folder: BucketFolder
    name: str

    @property
    def _hidden(self) -> str:
        return f".{self.name}.partial"

    def _below(self, name: str) -> str:
        return f"{self._hidden}/answers-{name}/"

    def __str__(self) -> str:
        return f"{self.folder}/{self._hidden}"

    def check_free(self, overwrite: bool) -> None:
        """Raise where the destination is taken, by more than a group that is being copied."""
        url = f"{self.folder.url}/{self.name}"
        check_writable(url)
        if overwrite:
            return
        below = self.folder.names(f"{self.name}/")
        whole = any(f"{self.name}/{root}" in below for root in ROOTS)
        copying = not whole and self.folder.head(f"{self._hidden}/{PUBLISHING}")
        if self.folder.head(self.name) or (below and not copying):
            raise taken(describe_url(url))

    def begun(self) -> bool:
        """Return whether something of unfinished work is there."""
        check_writable(f"{self.folder.url}/{self.name}")
        return bool(self.folder.names(f"{self._hidden}/"))

    def header(self) -> bytes | None:
        """Read the header of work that was begun; None where none was."""
        return self.folder.read(f"{self._hidden}/{HEADER}")

    def begin(self, name: str, header: str, create: Create) -> None:
        """Throw away what is there, and make room for a group of this name."""
        self.clear()
        create(self.group(name))
        self.folder.put(f"{self._hidden}/{HEADER}", header.encode())

    def group(self, name: str) -> str:
        """Return the URL of the group."""
        return f"{self.folder.url}/{self._below(name)}".rstrip("/")

    def markers(self, name: str) -> BucketFolder:
        """Return the folder of the markers of whole regions."""
        return BucketFolder(f"{self.folder.url}/{self._hidden}/regions-{name}")

    def stored(self, name: str) -> set[str]:
        """List the objects of the group, by names within it."""
        below = self._below(name)
        return {key.removeprefix(below) for key in self.folder.names(below)}

    def publish(self, name: str) -> None:
        """Let the store copy the group, and remove everything else."""
        self.folder.put(f"{self._hidden}/{PUBLISHING}", b"")
        new = {f"{self.name}/{key}": f"{self._below(name)}{key}" for key in self.stored(name)}
        old = self.folder.names(f"{self.name}/")
        # Without its documents nobody takes a mixture of old and new for an array.
        self.folder.remove(key for key in old if _is_document(key))
        self.folder.remove(key for key in old if not _is_document(key) and key not in new)
        (root,) = (key for root in ROOTS if (key := f"{self.name}/{root}") in new)
        last = sorted(filter(_is_document, new), key=lambda key: -key.count("/"))
        self.folder.copy((new[key], key) for key in sorted(new) if not _is_document(key))
        self.folder.copy((new[key], key) for key in last if key != root)
        # The store decides whether somebody else made a group there meanwhile.
        if self.folder.put(root, self.folder.read(new[root]) or b"", "create") is None:
            raise taken(f"{self.folder}/{self.name}")
        self.clear()

    def clear(self) -> None:
        """Throw away what is there, the header first."""
        below = self.folder.names(f"{self._hidden}/")
        header = f"{self._hidden}/{HEADER}"
        self.folder.remove(key for key in below if key == header)
        self.folder.remove(key for key in below if key != header)


def _is_document(key: str) -> bool:
    return key.rpartition("/")[2] in DOCUMENTS


@contextmanager
def _removed_if_it_fails(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def rename_folder(folder: Path, path: Path) -> None:
    """Rename a folder, unless something is at its new path: an empty folder is nothing."""
    try:
        folder.rename(path)
    except (FileExistsError, NotADirectoryError) as e:
        raise taken(path) from e
    except OSError as e:
        if e.errno != errno.ENOTEMPTY:
            raise
        raise taken(path) from e


def remove(path: Path) -> None:
    """Remove a folder and all that is in it, a file, or a link; nothing where nothing is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
