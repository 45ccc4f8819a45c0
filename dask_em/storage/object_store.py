"""Open what a URL names: object stores through obstore, everything else through fsspec.

A store is pickled as its URL and nothing else: a worker opens it with the credentials of its own
environment, once per process. Errors are reworded; those of the libraries repeat requests, with
keys and tokens in them.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dask.config
from zarr.abc.store import ByteRequest, Store
from zarr.storage import WrapperStore

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


# -- opening ---------------------------------------------------------------------------


class UrlStore(WrapperStore[Store]):
    """A Zarr store that is pickled as its URL, and whose errors are `StoreError`.

    Attributes
    ----------
    url : str
        Without credentials.

    Examples
    --------
    >>> from zarr.storage import MemoryStore
    >>> UrlStore(MemoryStore(), "s3://bucket/points.zarr")
    UrlStore('s3://bucket/points.zarr')
    """

    # Newer versions of Zarr would read around `get`.
    _supports_sync_io = False

    def __init__(self, store: Store, url: str) -> None:
        super().__init__(store)
        self.url = url

    def __reduce__(self) -> tuple[Any, ...]:
        return (open_store, (self.url, self.read_only))

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"UrlStore({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UrlStore) and (self.url, self.read_only) == (
            other.url,
            other.read_only,
        )

    def _with_store(self, store: Store) -> UrlStore:
        return type(self)(store, self.url)

    async def get(
        self, key: str, prototype: Any = None, byte_range: ByteRequest | None = None
    ) -> Any:
        """Return the bytes of a key, or None where there is none."""
        with explained(self.url):
            return await self._store.get(key, prototype, byte_range)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[Any]) -> Any:
        """Return parts of keys."""
        with explained(self.url):
            return await self._store.get_partial_values(prototype, key_ranges)

    def get_ranges(self, *args: Any, **kwargs: Any) -> Any:
        """Return parts of a key, each by `get`; newer versions of Zarr ask for several at once."""
        return Store.get_ranges(self, *args, **kwargs)  # type: ignore[attr-defined]

    async def exists(self, key: str) -> bool:
        """Return whether there is such a key."""
        with explained(self.url):
            return await self._store.exists(key)

    async def set(self, key: str, value: Any) -> None:
        """Store the bytes of a key."""
        with explained(self.url):
            await self._store.set(key, value)

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        """Store the bytes of a key that is not there."""
        with explained(self.url):
            await self._store.set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        """Remove a key."""
        with explained(self.url):
            await self._store.delete(key)

    async def _explained_list(self, keys: Any) -> AsyncIterator[str]:
        with explained(self.url):
            async for key in keys:
                yield key

    def list(self) -> Any:
        """List all keys."""
        return self._explained_list(self._store.list())

    def list_prefix(self, prefix: str) -> Any:
        """List all keys below a prefix."""
        return self._explained_list(self._store.list_prefix(prefix))

    def list_dir(self, prefix: str) -> Any:
        """List the names right below a prefix."""
        return self._explained_list(self._store.list_dir(prefix))


def open_store(url: str, read_only: bool = True) -> UrlStore:
    """Open the Zarr store at a URL, once per process and environment.

    Parameters
    ----------
    url : str
        `s3://bucket/path`, `gs://...`, `az://...` through obstore; any other through fsspec.
    read_only : bool

    Raises
    ------
    UsageError
        The URL holds credentials.
    StoreAccessError
        A package is not installed, or the environment does not say how to reach the store.

    Examples
    --------
    Credentials are no part of the URL:

    >>> open_store("s3://key:secret@bucket/points.zarr")
    Traceback (most recent call last):
    dask_em.errors.UsageError: s3://bucket/points.zarr: a URL may hold no user, password, ...
    """
    check_url(url)
    return _opened(url.rstrip("/"), read_only, _environment(), _retry_seconds())


def _environment() -> tuple[tuple[str, str], ...]:
    """Return the variables that credentials come from: when they change, so does the store."""
    prefixes = (*VARIABLES.values(), "FSSPEC_")
    return tuple(sorted(item for item in os.environ.items() if item[0].startswith(prefixes)))


def _retry_seconds() -> float:
    return float(dask.config.get("dask_em.store-timeout", RETRY_SECONDS))


@lru_cache(maxsize=32)
def _opened(url: str, read_only: bool, environment: object, retry_seconds: float) -> UrlStore:
    if is_object_url(url):
        from zarr.storage import ObjectStore as ZarrObjectStore

        return UrlStore(ZarrObjectStore(object_store(url), read_only=read_only), url)
    from zarr.storage import FsspecStore

    with explained(url, opening=True):
        return UrlStore(FsspecStore.from_url(url, read_only=read_only), url)


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
    return _object_store(url.rstrip("/"), _environment(), _retry_seconds())


@lru_cache(maxsize=32)
def _object_store(url: str, environment: object, retry_seconds: float) -> ObjectStore:
    with explained(url, opening=True):
        from obstore.store import from_url

        return from_url(
            url,
            client_options=_client_options(url),
            retry_config={
                "max_retries": 100,
                "retry_timeout": timedelta(seconds=retry_seconds),
                "backoff": {"max_backoff": timedelta(seconds=10)},
            },
        )


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
        f"was asked again for up to {_retry_seconds():.0f} s: run the same command again when it "
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
                    f"{shown} exists; choose another name or pass --overwrite"
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
