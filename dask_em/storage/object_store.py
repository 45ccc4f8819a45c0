"""Open object stores through obstore, and read and write single objects.

Credentials are those of each process's environment. Errors are reworded; those of the libraries
repeat requests, with keys and tokens in them.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import (
    DaskEMError,
    DataError,
    OutputExistsError,
    StoreAccessError,
    StoreError,
    UsageError,
)
from .urls import SCHEMES, check_url, describe_url, split_url

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# How to give each kind of object store its credentials, and its region.
KEYS = {
    "s3": (
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN where there is one; "
        "AWS_SKIP_SIGNATURE=true for a public bucket)"
    ),
    "gs": (
        "GOOGLE_APPLICATION_CREDENTIALS to the path of a key file (GOOGLE_SKIP_SIGNATURE=true "
        "for a public bucket)"
    ),
    "az": (
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN "
        "(AZURE_SKIP_SIGNATURE=true for a public container)"
    ),
}

VARIABLES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}

# Of the client: obstore reads them by itself only where it is given no timeouts.
SWITCHES = ("allow_http", "allow_invalid_certificates")

CLIENT = ("proxy_url", "proxy_ca_certificate", "proxy_excludes", "connect_timeout", "timeout")


# Bytes of a model in an object store, which is read whole before anything in it is believed.
LARGEST_MODEL = 4 * 2**30


# How long a request is tried again, with growing pauses, while a store fails or is away.
RETRY_SECONDS = 60

# A connection that brings nothing for so long is given up, and the request tried again.
STALLED = timedelta(seconds=20)

# Even a large chunk over a slow line must be there by then.
REQUEST = timedelta(minutes=10)


# Patterns of errors, in the order in which they are looked for.
NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist|container does not")

REGION = re.compile(
    r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|without LOCATION"
    r"|status code: 30[1278]|Missing region"
)

NO_CREDENTIALS = re.compile(
    r"169\.254\.|metadata\.google|NoCredentials|Unable to locate credentials|token request"
    r"|Account must be specified|[Mm]issing (credential|account)|Could not load default"
)

REFUSED = re.compile(
    r"status code: 40[13]|PermissionDenied|Unauthenticated|AccessDenied|InvalidAccessKeyId"
    r"|SignatureDoesNotMatch|Forbidden|ExpiredToken|InvalidToken|PermissionError"
)

NOT_FORK_SAFE = re.compile(r"not fork-safe")

PLAIN_HTTP = re.compile(r"URL scheme is not allowed|BadScheme")

# Parts of an error that say what happened and hold no secret.
REASONS = (
    r"<Code>(\w+)</Code>",
    r"status code: (\d{3}(?: [A-Z][A-Za-z]*)*)",
    r"kind: (?:TimedOut|Timeout)|operation (timed out)",
    r'message: "([^"]{1,80})"',
    r'error: "([^"]{1,80})"',
    r"kind: (\w+),",
)


# Whether an object store was opened before this process was forked.
_left_behind = False

REMEDY = (
    "open it in the children alone, or start them in another way than by fork: "
    'multiprocessing.get_context("spawn"), or "forkserver"'
)


# -- opening ---------------------------------------------------------------------------


def environment() -> tuple[tuple[str, str], ...]:
    """Return the variables that credentials come from: when they change, so does the store."""
    prefixes = (*VARIABLES.values(), "FSSPEC_")
    return tuple(sorted(item for item in os.environ.items() if item[0].startswith(prefixes)))


def retry_seconds() -> float:
    """Return how long a request is tried again, as the configuration of Dask says."""
    import dask.config

    return float(dask.config.get("dask_em.store-timeout", RETRY_SECONDS))


def is_object_url(url: str) -> bool:
    """Return whether a URL is of an object store that knows conditional writes.

    Examples
    --------
    >>> is_object_url("s3://bucket/points.zarr"), is_object_url("http://host/points.zarr")
    (True, False)
    """
    return url.partition("://")[0] in SCHEMES


def object_store(url: str) -> ObjectStore:
    """Open obstore's store at a URL, with timeouts, and retries with growing pauses.

    Raises
    ------
    UsageError
        The URL holds credentials.
    StoreAccessError
        A package is not installed, or the environment does not say how to reach the store.
    """
    check_url(url)
    return _object_store(url.rstrip("/"), environment(), retry_seconds())


@lru_cache(maxsize=32)
def _object_store(url: str, variables: object, seconds: float) -> ObjectStore:
    with explained(url, opening=True):
        from obstore.store import from_url

        return from_url(
            url,
            client_options=_client_options(url),
            retry_config={
                "max_retries": 100,
                "retry_timeout": timedelta(seconds=seconds),
                "backoff": {"max_backoff": timedelta(seconds=10)},
            },
        )


def _forked() -> None:
    global _left_behind
    _left_behind = _left_behind or _object_store.cache_info().currsize > 0


os.register_at_fork(after_in_child=_forked)


def check_bucket(url: str) -> None:
    """Check that the bucket of an object store exists and can be listed.

    Raises
    ------
    StoreAccessError
        It does not exist, or the credentials do not allow it.

    Examples
    --------
    Only stores that have buckets are asked:

    >>> check_bucket("http://host/points.zarr")
    """
    if is_object_url(url):
        import obstore

        with explained(url):
            next(iter(obstore.list(object_store(url), chunk_size=1)), None)


def _client_options(url: str) -> Any:
    prefix = VARIABLES[SCHEMES[url.partition("://")[0]]]
    options: dict[str, Any] = {"timeout": REQUEST, "read_timeout": STALLED}
    for name in (*SWITCHES, *CLIENT):
        value = os.environ.get(prefix + name.upper())
        if value is not None:
            options[name] = value.lower() in ("true", "1") if name in SWITCHES else value
    return options


def object_versions(url: str, prefix: str) -> dict[str, str]:
    """Return ETag, size and time of each object below a URL whose key begins with `prefix`.

    Raises
    ------
    StoreError
        The store cannot be reached or refuses.
    """
    import obstore

    with explained(url):
        return {
            found["path"]: f"{found['e_tag']}:{found['size']}:{found['last_modified']}"
            for part in obstore.list(object_store(url), prefix=prefix or None)
            for found in part
        }


# -- errors ----------------------------------------------------------------------------


@contextmanager
def explained(url: str, opening: bool = False) -> Iterator[None]:
    """Turn exceptions of a store's library into `StoreError`, without the text of its requests.

    Parameters
    ----------
    url : str
    opening : bool
        Whether arguments and imports may be at fault too.
    """
    if _left_behind and is_object_url(url):
        raise StoreAccessError(
            f"{describe_url(url)} cannot be reached from process {os.getpid()}: an object store "
            "was opened before the fork, and the threads of its library (obstore) stayed in the "
            f"parent; {REMEDY}"
        )
    ours = (DaskEMError, FileNotFoundError, IsADirectoryError, NotADirectoryError)
    program = (ValueError, TypeError, NotImplementedError, ImportError, LookupError)
    try:
        yield
    except ours:
        raise
    except Exception as e:
        if not opening and isinstance(e, program):
            raise
        # Not `from e`: its text may hold keys.
        raise _explanation(e, describe_url(url), opening) from None


def _explanation(error: Exception, name: str, opening: bool = False) -> StoreError:
    kind = SCHEMES.get(name.partition("://")[0])
    if isinstance(error, ImportError):
        extra = "s3" if kind else "fsspec"
        return StoreAccessError(
            f"{name} cannot be opened: {error}; install it here and on every worker: "
            f"pip install 'dask-em[{extra}]'"
            + ("" if kind else ", and the package that fsspec wants for this kind of URL")
        )
    text = f"{type(error).__name__}: {error}"
    if NO_BUCKET.search(text):
        bucket = urlsplit(name).netloc
        return StoreAccessError(f"{name}: there is no bucket {bucket}, or it is of another account")
    if REGION.search(text):
        return StoreAccessError(
            f"{name}: the bucket lies in another region ({_reason(text)}): set AWS_REGION to its "
            "region, on every worker"
        )
    keys = KEYS.get(kind or "", "the credentials that its fsspec package reads")
    if NO_CREDENTIALS.search(text):
        return StoreAccessError(
            f"{name}: found no credentials: set {keys} in the environment, on every worker"
        )
    if REFUSED.search(text):
        return StoreAccessError(
            f"{name}: the store refuses the credentials, or they do not allow this "
            f"({_reason(text)}): check {keys}, on every worker; a store may also answer so where "
            "an object is missing and nobody may list the bucket"
        )
    if NOT_FORK_SAFE.search(text):
        return StoreAccessError(f"{name} was opened before this process was forked; {REMEDY}")
    if PLAIN_HTTP.search(text):
        return StoreAccessError(f"{name}: the endpoint is plain HTTP: set AWS_ALLOW_HTTP=true")
    if opening:
        # Nobody was asked yet.
        said = _reason(text) if kind else text
        return StoreAccessError(
            f"{name} cannot be opened ({said}): expected s3://bucket/path, gs://bucket/path, "
            f"az://container/path, or a URL that fsspec knows, and in the environment {keys}"
        )
    return StoreError(
        f"{name} cannot be reached, or failed, on {socket.gethostname()} ({_reason(text)}), and "
        f"was asked again for up to {retry_seconds():.0f} s: run the same command again when it "
        "answers"
    )


def _reason(text: str) -> str:
    """Return the parts of an error's text that say what happened and cannot hold a secret."""
    found = [match.group(match.lastindex or 0) for p in REASONS if (match := re.search(p, text))]
    return ", ".join(dict.fromkeys(found)) or text.partition(":")[0]


# -- single objects --------------------------------------------------------------------


def read_bytes(url: str, limit: int) -> bytes:
    """Read all bytes of the object at a URL.

    Raises
    ------
    FileNotFoundError
        There is none.
    DataError
        It holds more than `limit` bytes.
    StoreError
        The store cannot be reached or refuses.

    Examples
    --------
    >>> import fsspec
    >>> with fsspec.open("memory://bucket/greeting", "wb") as file:
    ...     _ = file.write(b"hello")
    >>> read_bytes("memory://bucket/greeting", limit=100)
    b'hello'
    """
    check_url(url)
    name = describe_url(url)
    try:
        with explained(url):
            size, data = _read_object(url, limit) if is_object_url(url) else _read_any(url, limit)
    except FileNotFoundError as e:
        if NO_BUCKET.search(str(e)):
            raise _explanation(e, name) from None
        raise FileNotFoundError(f"{name}: no such object") from None
    if size > limit:
        raise DataError(f"{name} holds {size} bytes, expected at most {limit}")
    return data


def _read_object(url: str, limit: int) -> tuple[int, bytes]:
    import obstore

    parent, name = split_url(url)
    found = obstore.get(object_store(parent), name)
    size = int(found.meta["size"])
    return size, b"" if size > limit else bytes(found.bytes())


def _read_any(url: str, limit: int) -> tuple[int, bytes]:
    with explained(url, opening=True):
        import fsspec

        with fsspec.open(url, "rb") as file:
            data = file.read(limit + 1)
    return len(data), data


def write_bytes(url: str, data: bytes, overwrite: bool) -> None:
    """Write an object: all of it, or the one that was there stays.

    Raises
    ------
    OutputExistsError
        There is an object, and `overwrite` is False; it is the store that decides, so of two
        who write at once one is told.
    UsageError
        The store knows no conditional writes.
    StoreError
        The store cannot be reached or refuses.
    """
    check_writable(url)
    import obstore
    from obstore.exceptions import AlreadyExistsError

    parent, name = split_url(url)
    shown = describe_url(url)
    store = object_store(parent)
    try:
        with explained(url):
            try:
                # In one request: parts would be put together without the condition.
                obstore.put(
                    store,
                    name,
                    data,
                    mode="overwrite" if overwrite else "create",
                    use_multipart=False,
                )
            except AlreadyExistsError:
                # A request of ours got through though the answer to it was lost.
                if bytes(obstore.get(store, name).bytes()) == data:
                    return
                raise OutputExistsError(
                    f"{shown} exists; choose another name or pass overwrite=True"
                ) from None
    except FileNotFoundError as e:
        raise _explanation(e, shown) from None


def check_writable(url: str) -> None:
    """Check that results can be written to a URL.

    Raises
    ------
    UsageError
        The store knows no conditional writes.
    StoreAccessError
        A package is not installed.

    Examples
    --------
    >>> check_writable("http://host/model.npz")
    Traceback (most recent call last):
    dask_em.errors.UsageError: http://host/model.npz: results are written to local paths and ...
    """
    check_url(url)
    if not is_object_url(url):
        raise UsageError(
            f"{describe_url(url)}: results are written to local paths and to s3://, gs:// and "
            "az://, where a write can depend on what is there; copy them from there"
        )
    with explained(url, opening=True):
        import obstore  # noqa: F401
