"""Find files by path, folder or pattern, on a disk or at a URL, and read any part of them."""

from __future__ import annotations

import glob
import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import StoreAccessError
from .object_store import explained, is_object_url, object_store
from .urls import check_url, describe_url, is_url, local_path, split_url

PATTERN = re.compile(r"[*?\[]")

Listed = tuple[str, int, str]
"""Name below a URL, bytes, and what tells one version from another."""


@dataclass(frozen=True)
class StoredFile:
    """One file or object.

    Attributes
    ----------
    name : str
        An absolute path, or a URL without credentials.
    size : int
        Bytes.
    stamp : str
        What tells whether somebody wrote it since; empty where nobody knows.
    below : str
        Its name below the folder that was asked for.
    listed : bool
        Whether it was found by a listing, not asked for itself.
    """

    name: str
    size: int
    stamp: str
    below: str
    listed: bool = True

    def __str__(self) -> str:
        return describe_url(self.name)


def is_pattern(path: str) -> bool:
    """Tell whether a path stands for several, as in a shell; a file of that very name does not.

    Examples
    --------
    >>> is_pattern("points/*.parquet"), is_pattern("points.parquet")
    (True, False)
    """
    if not PATTERN.search(path):
        return False
    return is_url(path) or not local_path(path).exists()


def is_there(path: str) -> bool:
    """Tell whether there is something at a path of this machine, or for a pattern of paths.

    Examples
    --------
    >>> is_there("nowhere/*.parquet")
    False
    """
    if not is_pattern(path):
        return local_path(path).exists()
    return next(glob.iglob(_plain(path), recursive=True), None) is not None  # noqa: PTH207


def find_files(path: str, suffixes: Sequence[str]) -> list[StoredFile]:
    """Find the files at a path or URL: one, those of a folder, or those of a pattern.

    Parameters
    ----------
    path : str
        A folder is looked through to its depths; what begins with a dot or an underscore is
        left out.
    suffixes : sequence of str
        Of the files in a folder. A file that is named itself may have any.

    Returns
    -------
    list of StoredFile
        Sorted by name; empty where there is none.

    Raises
    ------
    StoreError
        A store on the network that cannot be reached, or refuses.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.npy", "a.npy", "_c.npy"):
    ...         _ = Path(folder, name).write_bytes(b"1")
    ...     [file.below for file in find_files(folder, [".npy"])]
    ['a.npy', 'b.npy']
    """
    if is_url(path):
        check_url(path)
        found = _objects(path.rstrip("/"), tuple(suffixes))
    else:
        found = _on_disk(path, tuple(suffixes))
    return sorted(found, key=lambda file: file.name)


def open_file(file: StoredFile) -> BinaryIO:
    """Open a file for reading any part of it.

    Raises
    ------
    StoreError
        A store on the network that cannot be reached, or refuses.

    Examples
    --------
    >>> import fsspec
    >>> with fsspec.open("memory://bucket/greeting", "wb") as file:
    ...     _ = file.write(b"hello")
    >>> (found,) = find_files("memory://bucket/greeting", [])
    >>> with open_file(found) as file:
    ...     file.seek(1), file.read(3)
    (1, b'ell')
    """
    if not is_url(file.name):
        return Path(file.name).open("rb")
    return io.BufferedReader(UrlFile(file.name, file.size, _fetcher(file.name)), 2**16)


def stamps_now(files: Iterable[StoredFile]) -> dict[str, str]:
    """Return the stamps that files have now, by their names; "missing" where one is gone."""
    files = list(files)
    on_disk = [file.name for file in files if not is_url(file.name)]
    found = {name: disk_stamp(Path(name)) for name in on_disk}
    urls = [file for file in files if is_url(file.name)]
    # As they were found: a listing may tell less of a time than the object itself does.
    asked = {split_url(file.name) for file in urls if not file.listed}
    tops = {file.name.removesuffix(f"/{file.below}") for file in urls if file.listed}
    for top, name in (*asked, *((top, "") for top in tops)):
        found |= {f"{top}/{below}": stamp for below, _, stamp in _listed(top, name)}
    return {file.name: found.get(file.name, "missing") for file in files}


def disk_stamp(path: Path) -> str:
    """Return what changes with whatever is done to a file of a disk; "missing" without one."""
    try:
        file = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    return f"{file.st_size}:{file.st_mtime_ns}:{file.st_ctime_ns}:{file.st_ino}"


class UrlFile(io.RawIOBase):
    """Read any part of what is at a URL, each by a request.

    Examples
    --------
    >>> file = UrlFile("memory://bucket/x", 4, lambda start, stop: b"abcd"[start:stop])
    >>> file.seek(-2, 2), file.read()
    (2, b'cd')
    """

    def __init__(self, url: str, size: int, fetch: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._url, self._size, self._fetch, self._at = url, size, fetch, 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that reading may begin anywhere."""
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Let the next read begin elsewhere."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there are bytes."""
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self._size)
        if stop <= self._at:
            return 0
        with explained(self._url):
            found = self._fetch(self._at, stop)
        if len(found) > stop - self._at:
            raise StoreAccessError(
                f"{describe_url(self._url)}: the server sends all of it where a part is asked for: "
                "copy it here, or to a store of objects, and read it there"
            )
        view[: len(found)] = found
        self._at += len(found)
        return len(found)


# -- on a disk -------------------------------------------------------------------------


def _on_disk(path: str, suffixes: tuple[str, ...]) -> list[StoredFile]:
    if not is_pattern(path):
        place = local_path(path).absolute()
        return _below(place, suffixes) if place.is_dir() else _file(place, place.name)
    plain = _plain(path)
    # What `**` finds within a folder that it finds, too, is found once.
    found = {
        file.name: file
        for match in glob.glob(plain, recursive=True)  # noqa: PTH207
        for file in _on_disk(match, suffixes)
        if file.name.endswith(suffixes)
    }
    return [_below_pattern(file, plain) for file in found.values()]


def _below_pattern(file: StoredFile, plain: str) -> StoredFile:
    """A file that a pattern found, named below the folder in which the pattern begins."""
    top = plain[: PATTERN.search(plain).start()].rpartition("/")[0]  # type: ignore[union-attr]
    return replace(file, below=os.path.relpath(file.name, top))


def _plain(pattern: str) -> str:
    return str(Path(pattern.removeprefix("file://")).expanduser().absolute())


def _below(folder: Path, suffixes: tuple[str, ...]) -> list[StoredFile]:
    found = []
    for at, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for name in names:
            if name.endswith(suffixes) and not _is_hidden(name):
                path = Path(at, name)
                found += _file(path, path.relative_to(folder).as_posix())
    return found


def _file(path: Path, below: str) -> list[StoredFile]:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return []
    if not stat.S_ISREG(status.st_mode):
        return []
    return [StoredFile(str(path), status.st_size, disk_stamp(path), below)]


def _is_hidden(name: str) -> bool:
    # `_SUCCESS`, `_metadata`, and what is being written.
    return name.startswith((".", "_"))


# -- at a URL --------------------------------------------------------------------------


def _objects(url: str, suffixes: tuple[str, ...]) -> list[StoredFile]:
    if is_pattern(url):
        start = PATTERN.search(url).start()  # type: ignore[union-attr]
        top = url[:start].rpartition("/")[0]
        wanted = re.compile(_translated(url[len(top) + 1 :]))
        listed = _listed(top, "")
        matching = (one for one in listed if wanted.fullmatch(one[0]))
        return [_object(top, one) for one in matching if one[0].endswith(suffixes)]
    parent, name = split_url(url)
    found = [one for one in _listed(parent, name) if one[0] == name]
    if found:
        return [replace(_object(parent, one), listed=False) for one in found]
    return [
        _object(url, one)
        for one in _listed(url, "")
        if one[0].endswith(suffixes) and not any(map(_is_hidden, one[0].split("/")))
    ]


def _object(top: str, listed: Listed) -> StoredFile:
    below, size, stamp = listed
    return StoredFile(f"{top}/{below}", size, stamp, below)


def _translated(pattern: str) -> str:
    """A pattern of a shell as a regular expression, in which only `**` goes into folders."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    words = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    return "".join(
        word.replace("[!", "[^") if word.startswith("[") else parts.get(word, re.escape(word))
        for word in words
    )


def _listed(url: str, name: str) -> list[Listed]:
    """All that lies below a URL; where a name is given, at least that."""
    with explained(url):
        if is_object_url(url):
            return _listed_by_obstore(url, name)
        return _listed_by_fsspec(url, name)


def _listed_by_obstore(url: str, name: str) -> list[Listed]:
    import obstore

    store = object_store(url)
    if name:
        try:
            found: list[Any] = [obstore.head(store, name)]
        except FileNotFoundError:
            return []
    else:
        found = [meta for page in obstore.list(store) for meta in page]
    return [
        (one["path"], int(one["size"]), f"{one['e_tag']}:{one['size']}:{one['last_modified']}")
        for one in found
    ]


# What every listing of fsspec tells of a file, whatever was done to it.
SAYS_NOTHING = frozenset(
    {"name", "Key", "size", "Size", "type", "StorageClass", "islink", "url", "mimetype", "partial"}
)


def _listed_by_fsspec(url: str, name: str) -> list[Listed]:
    with explained(url, opening=True):
        import fsspec

        fs, root = fsspec.core.url_to_fs(url)
        fs.invalidate_cache()
        if name:
            path = f"{root}/{name}"
            listed = {path: fs.info(path)} if fs.isfile(path) else {}
        else:
            listed = fs.find(root, detail=True)
    return [
        (path[len(root) :].lstrip("/"), _size(url, info), said_of(info))
        for path, info in listed.items()
    ]


def _size(url: str, info: Mapping[str, Any]) -> int:
    """The bytes of what fsspec lists; some servers of HTTP do not tell."""
    if info["size"] is None:
        raise StoreAccessError(
            f"{describe_url(url)}: the server does not say how large the files there are: copy "
            "them here, or to a store of objects, and read them there"
        )
    return int(info["size"])


def said_of(info: Mapping[str, Any]) -> str:
    """Return what a listing of fsspec tells of a file's version; empty where it tells nothing."""
    told = {part: said for part, said in info.items() if part not in SAYS_NOTHING and said}
    return repr(sorted(told.items(), key=str)) if told else ""


def _fetcher(url: str) -> Callable[[int, int], bytes]:
    if is_object_url(url):
        import obstore

        parent, name = split_url(url)
        store = object_store(parent)
        return lambda start, stop: bytes(obstore.get_range(store, name, start=start, end=stop))
    with explained(url, opening=True):
        import fsspec

        fs, path = fsspec.core.url_to_fs(url)
    return lambda start, stop: bytes(fs.cat_file(path, start=start, end=stop))
