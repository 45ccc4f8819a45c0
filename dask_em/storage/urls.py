"""Tell URLs from paths, split them, and show them without credentials."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from ..errors import UsageError

SCHEMES = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "az": "az",
    "azure": "az",
    "adl": "az",
    "abfs": "az",
    "abfss": "az",
}

# There the part before @ is the container.
CONTAINER_FIRST = {"abfs", "abfss"}


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return whether this names something that is not a file of this machine.

    Examples
    --------
    >>> is_url("s3://bucket/points.zarr"), is_url("points.zarr"), is_url("file:///points.zarr")
    (True, False, False)
    """
    text = os.fspath(path)
    return "://" in text and not text.startswith("file://")


def with_member(path: str) -> str:
    """Return the path of a member of a store, which `::` may set apart, as it is written for one.

    Chains of URLs, as fsspec has them, are left alone, and so is what is there under that name.

    Examples
    --------
    >>> with_member("cells.zarr::obsm/X_pca"), with_member("zip://x.zarr::s3://bucket/a.zip")
    ('cells.zarr/obsm/X_pca', 'zip://x.zarr::s3://bucket/a.zip')
    """
    store, mark, member = path.rpartition("::")
    if not mark or "://" in member or (not is_url(path) and Path(path).exists()):
        return path
    return f"{store.rstrip('/')}/{member.lstrip('/')}"


def local_path(path: str) -> Path:
    """Return the path that a local path or `file://` URL names: `~` and %20 are what they mean.

    Examples
    --------
    >>> local_path("file:///data/my%20points.zarr").name, local_path("points.zarr").name
    ('my points.zarr', 'points.zarr')
    """
    plain = path.removeprefix("file://")
    if Path(plain).exists():
        # Whoever wrote it so means it so.
        return Path(plain)
    return Path(unquote(plain) if plain != path else plain).expanduser()


def describe_store(name: str) -> str:
    """Return the name of a store without credentials, and the same in every process.

    Stores that have none are called by their class and address in memory.

    Examples
    --------
    >>> describe_store("<icechunk.store.IcechunkStore object at 0x7f2dbb29cfd0>/points")
    'icechunk.store.IcechunkStore/points'
    >>> describe_store("memory://139834806632128/points")
    'memory://points'
    """
    if name.startswith(("file://", "zip://")):
        return describe_url(f"file://{name.partition('://')[2]}")
    name = re.sub(r"<([\w.]+) object at 0x[0-9a-fA-F]+>", r"\1", name)
    name = re.sub(r"(?<=memory://)\d+/?", "", name)
    # No longer ones: they are names, as those of accounts in a blockchain.
    return describe_url(re.sub(r"( at )?\b0x[0-9a-fA-F]{8,16}\b", "", name))


def describe_url(url: str) -> str:
    """Return a path or URL without user, password and query, where credentials hide.

    Examples
    --------
    >>> describe_url("s3://key:secret@bucket/points.zarr?token=1")
    's3://bucket/points.zarr'
    """
    if url.startswith("file://"):
        return str(Path(url.removeprefix("file://")).absolute())
    # fsspec chains URLs: simplecache::s3://bucket/points.zarr
    return "::".join(_described(part) for part in url.split("::")) if "://" in url else url


def _described(part: str) -> str:
    if "://" not in part:
        return part
    parts = urlsplit(part)
    user, _, host = parts.netloc.rpartition("@")
    if parts.scheme in CONTAINER_FIRST and user and ":" not in user:
        host = f"{user}@{host}"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def check_url(url: str) -> None:
    """Check that a URL holds nothing that may be a credential.

    It would end up in logs, lists of processes and the files of results.

    Raises
    ------
    UsageError
        It holds a user, password, query or fragment.
    """
    if describe_url(url) == url or urlsplit(url).scheme == "":
        return
    raise UsageError(
        f"{describe_url(url)}: a URL may hold no user, password, query or fragment here, because "
        "it is sent to workers and written into results: give credentials by environment "
        "variables, on every worker"
    )


def split_url(url: str) -> tuple[str, str]:
    """Split a URL into that of its folder and the name in it.

    Raises
    ------
    UsageError
        It is the URL of a bucket.

    Examples
    --------
    >>> split_url("s3://bucket/models/m.npz")
    ('s3://bucket/models', 'm.npz')
    """
    parent, _, name = url.rstrip("/").rpartition("/")
    if "://" not in parent:
        raise UsageError(f"{describe_url(url)} names a bucket; expected a name in it")
    return parent, name
