"""TODO storage.urls."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

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
    """Whether this names something that is not a file of this machine."""
    text = os.fspath(path)
    return "://" in text and not text.startswith("file://")


def describe_url(url: str) -> str:
    """A path or URL without user, password and query, where credentials hide."""
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
    """Raise `UsageError` where a URL holds what may be a credential.

    It would end up in logs, lists of processes and the files of results.
    """
    if describe_url(url) == url or urlsplit(url).scheme == "":
        return
    raise UsageError(
        f"{describe_url(url)}: a URL may hold no user, password, query or fragment here, because "
        "it is sent to workers and written into results: give credentials by environment "
        "variables, on every worker"
    )


def split_url(url: str) -> tuple[str, str]:
    """The URL of what something lies in, and its name there."""
    parent, _, name = url.rstrip("/").rpartition("/")
    if "://" not in parent:
        raise UsageError(f"{describe_url(url)} names a bucket; expected a name in it")
    return parent, name
