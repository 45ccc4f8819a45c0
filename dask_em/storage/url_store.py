"""Open the Zarr store at a URL: through obstore, or through fsspec.

A store is pickled as its URL and nothing else: a worker opens it with the credentials of its own
environment, once per process.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.storage import WrapperStore

from ..errors import StoreAccessError
from .object_store import (
    environment,
    explained,
    is_object_url,
    object_store,
    object_versions,
    retry_seconds,
)
from .stored_files import said_of
from .urls import check_url

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta
    from obstore.store import ObjectStore


# Errors of those who are asked for a part that is not there.
NO_PART = re.compile(r"status code: 416|NotPartial")


@dataclass(frozen=True)
class Fetched:
    """An object, or a part of one, that was fetched.

    Attributes
    ----------
    data : memoryview
    latency : float
        Seconds until the answer began.
    size : int
        Bytes of the whole object.
    version : str
        The ETag of the object, empty where there is none.
    """

    data: memoryview
    latency: float
    size: int = 0
    version: str = ""


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

    @property
    def fetches(self) -> bool:
        """Whether `fetch` reads from this store."""
        return is_object_url(self.url)

    def fetch(self, key: str, byte_range: ByteRequest | None = None) -> Fetched | None:
        """Return the bytes of a key, None where there is none; the calling thread waits.

        Parameters
        ----------
        key : str
        byte_range : RangeByteRequest or SuffixByteRequest, optional
            Which of them, as far as the object has them; all by default.

        Raises
        ------
        StoreError
            The store cannot be reached or refuses.
        """
        began = time.monotonic()
        try:
            with explained(self.url):
                found = _get(object_store(self.url), key, byte_range)
                latency = time.monotonic() - began
                told, data = (
                    (found, b"") if isinstance(found, dict) else (found.meta, found.bytes())
                )
                return Fetched(memoryview(data), latency, told["size"], told["e_tag"] or "")
        except (FileNotFoundError, NotADirectoryError):
            return None

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

    def versions(self, prefix: str) -> dict[str, str]:
        """Return what tells each key's version from others, by its listing: its ETag, or the like.

        Parameters
        ----------
        prefix : str
            Of the keys: empty, or ending with a slash.

        Returns
        -------
        dict of str to str
            Empty where the store has no listings, or they tell nothing but names and sizes.
        """
        try:
            with explained(self.url):
                if is_object_url(self.url):
                    return object_versions(self.url, prefix)
                return _fsspec_versions(self._store, prefix)
        except (NotImplementedError, FileNotFoundError, StoreAccessError):
            return {}

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


def _get(store: ObjectStore, key: str, byte_range: ByteRequest | None) -> GetResult | ObjectMeta:
    """Ask for an object, or a part; return what is told of the object where it has no such part."""
    import obstore
    from obstore.exceptions import GenericError, NotSupportedError

    if byte_range is None:
        return obstore.get(store, key)
    start = byte_range.start if isinstance(byte_range, RangeByteRequest) else 0
    try:
        return obstore.get(store, key, options=_part(byte_range))
    except (GenericError, NotSupportedError) as e:
        # Azure knows no suffixes, and of nothing no part can be had.
        unknown = isinstance(e, NotSupportedError) and isinstance(byte_range, SuffixByteRequest)
        if not unknown and not NO_PART.search(str(e)):
            raise
        told = obstore.head(store, key)
        if told["size"] > start and not unknown:
            raise
    if told["size"] <= start:
        return told
    assert isinstance(byte_range, SuffixByteRequest)
    start = max(0, told["size"] - byte_range.suffix)
    return obstore.get(store, key, options={"range": (start, told["size"])})


def _part(byte_range: ByteRequest) -> GetOptions:
    if isinstance(byte_range, RangeByteRequest):
        return {"range": (byte_range.start, byte_range.end)}
    assert isinstance(byte_range, SuffixByteRequest)
    return {"range": {"suffix": byte_range.suffix}}


def _fsspec_versions(store: Any, prefix: str) -> dict[str, str]:
    from zarr.core.sync import sync

    if not store.supports_listing:
        return {}
    store.fs.invalidate_cache()
    listed = sync(store.fs._find(f"{store.path}/{prefix}".rstrip("/"), detail=True))
    told = {name: said_of(info) for name, info in listed.items()}
    if not all(told.values()):
        return {}
    top = len(store.path) + 1
    return {name[top:]: said for name, said in told.items()}


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
    return _opened(url.rstrip("/"), read_only, environment(), retry_seconds())


@lru_cache(maxsize=32)
def _opened(url: str, read_only: bool, variables: object, seconds: float) -> UrlStore:
    if is_object_url(url):
        from zarr.storage import ObjectStore as ZarrObjectStore

        return UrlStore(ZarrObjectStore(object_store(url), read_only=read_only), url)
    from zarr.storage import FsspecStore

    with explained(url, opening=True):
        return UrlStore(FsspecStore.from_url(url, read_only=read_only), url)


# A file system of fsspec belongs to the process that opened it.
os.register_at_fork(after_in_child=_opened.cache_clear)
