"""List, read and durably write folders of small files, on a disk or in an object store."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..core.executor import ThreadPool
from ..errors import LockedError, UsageError
from .object_store import check_writable, explained, object_store
from .outputs.files import durable_file, sync, write_durably
from .urls import describe_url, is_url
from .users import may_write, owner_name, user_name

COPIES_AT_ONCE = 16


@dataclass(frozen=True)
class DiskFolder:
    """A folder of this machine, which need not exist yet.

    Attributes
    ----------
    path : Path
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def at(self, name: str) -> Path:
        """Return the path of a file."""
        return self.path / name

    def names(self) -> list[str]:
        """Return the names of all that is right in the folder, sorted."""
        return sorted(p.name for p in self.path.iterdir()) if self.path.is_dir() else []

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file, None where there is none."""
        try:
            return self.at(name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file: all of it, or the old one stays."""
        write_durably(self.at(name), data)

    def replace(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        """Write a file by a function of the open file: all of it, or the old one stays."""
        with durable_file(self.at(name)) as file:
            write(file)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, in this order."""
        for name in names:
            self.at(name).unlink(missing_ok=True)

    def check(self) -> None:
        """Check that the folder exists or can be made.

        Raises
        ------
        UsageError
            Something else has its name, there is no folder to make it in, or it is another
            user's.
        """
        free = self.path.absolute().parent.is_dir() and not os.path.lexists(self.path)
        if not (free or self.path.is_dir()):
            raise UsageError(
                f"checkpoint {self}: expected a folder, or a new name in a folder that is there"
            )
        if not free and not may_write(self.path):
            raise UsageError(
                f"checkpoint {self} belongs to {owner_name(self.path)}, and "
                f"{user_name(os.geteuid())} may not write there: choose another folder"
            )

    def make(self) -> None:
        """Make the folder, in one that exists."""
        self.check()
        if not self.path.is_dir():
            self.path.mkdir()
            sync(self.path.absolute().parent)

    def claim(self) -> None:
        """Remove what killed writers left, and the folder if nothing else is in it."""
        for leftover in self.path.glob(".*.npz.????????.tmp"):
            leftover.unlink(missing_ok=True)
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()
            sync(self.path.absolute().parent)


@dataclass(frozen=True)
class BucketFolder:
    """The objects below a URL, by their names.

    It is pickled as its URL; each process opens the store with credentials of its own.

    Attributes
    ----------
    url : str
    """

    url: str
    # Of all that `claim` found, and of all that was written since.
    _versions: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        return describe_url(self.url)

    @property
    def _store(self) -> Any:
        return object_store(self.url)

    def at(self, name: str) -> str:
        """Return the URL of an object."""
        return f"{self.url}/{name}"

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of all objects below a prefix, sorted."""
        return sorted(meta["path"] for meta in self._listed(prefix))

    def _listed(self, prefix: str = "") -> list[Any]:
        import obstore

        with explained(self.url):
            pages = obstore.list(self._store, prefix or None, chunk_size=1000)
            return [meta for page in pages for meta in page]

    def read(self, name: str) -> bytes | None:
        """Return the bytes of an object, None where there is none."""
        import obstore

        try:
            with explained(self.url):
                return bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            return None

    def head(self, name: str) -> Any:
        """Return time and version of an object, None where there is none."""
        import obstore

        try:
            with explained(self.url):
                return obstore.head(self._store, name)
        except FileNotFoundError:
            return None

    def put(self, name: str, data: bytes, mode: Any = "overwrite") -> Any:
        """Write an object; return its version, or None where the condition `mode` does not hold."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with explained(self.url):
            try:
                return obstore.put(self._store, name, data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                # A request of ours may have got through though the answer to it was lost.
                return self.head(name) if self.read(name) == data else None

    def write(self, name: str, data: bytes) -> None:
        """Write an object: all of it, or the old one stays."""
        self.put(name, data)

    def replace(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        """Write an object, by a function of an open file, that nobody else wrote since `claim`.

        Raises
        ------
        LockedError
            Somebody else has.
        """
        whole = io.BytesIO()
        write(whole)
        seen = self._versions.get(name)
        new = self.put(name, whole.getvalue(), "create" if seen is None else unless_changed(seen))
        if new is None:
            raise LockedError(
                f"{self}/{name} was written by another job meanwhile: see that only one runs, and "
                "run the same command again"
            )
        self._versions[name] = new

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects."""
        import obstore

        names = list(names)
        if names:
            with explained(self.url):
                obstore.delete(self._store, names)
        for name in names:
            self._versions.pop(name, None)

    def check(self) -> None:
        """Do nothing: `folder_at` takes no URL that cannot be written."""

    def make(self) -> None:
        """Do nothing: a store has no folders."""

    def claim(self) -> None:
        """Remember the versions of all objects: `replace` writes over no others."""
        self._versions.update((meta["path"], meta) for meta in self._listed())

    def copy(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Copy objects within the store, each from one name to another."""
        import obstore

        def copy_one(pair: tuple[str, str]) -> None:
            with explained(self.url):
                obstore.copy(self._store, *pair)

        with ThreadPool(COPIES_AT_ONCE) as pool:
            for _ in pool.map(copy_one, pairs):
                pass


Folder = DiskFolder | BucketFolder


def folder_at(path: str | os.PathLike[str]) -> Folder:
    """Return the folder at a path, or at a URL of an object store.

    Raises
    ------
    UsageError
        Nothing can be written to the URL.

    Examples
    --------
    >>> folder_at("fit.checkpoint").names()
    []
    """
    if is_url(path):
        check_writable(os.fspath(path))
        return BucketFolder(os.fspath(path).rstrip("/"))
    return DiskFolder(Path(path))


def unless_changed(version: Any) -> dict[str, str]:
    """Return the condition of a write that an object is still of this version."""
    return {name: version[name] for name in ("e_tag", "version") if version.get(name) is not None}
