"""Where answers go in an object store: the same as on a disk, without renames and locks.

Until they are whole they lie beside their destination, under

    .DEST.partial/lock            held by the job that writes, by a sign of life
                  header.json     what the answers are of, and the name ID
                  answers-ID/     the Zarr group that becomes DEST
                  regions-ID/     a marker for each region that is whole
                  publishing      the answers are being copied to DEST

A put that was answered is durable, so a marker needs no sync. The store itself copies whole
answers to DEST, the document that makes it a Zarr group last: until then nobody can open it,
and a copy that was interrupted is made again by the next run.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import OutputExistsError, StoreError
from .stores import check_writable, describe_url, explained, object_store, split_url, write_bytes

if TYPE_CHECKING:
    import zarr

logger = logging.getLogger("dask_em")

HEADER, LOCK, PUBLISHING = "header.json", "lock", "publishing"
DOCUMENTS = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")
COPIES_AT_ONCE = 16
# A job gives a sign of life so often; one that gave none for so long may be replaced.
BEAT_SECONDS, LEASE_SECONDS = 20.0, 120.0


class Folder:
    """The objects below a URL, by their names.

    Attributes
    ----------
    url : str
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = object_store(url)

    def names(self, prefix: str) -> list[str]:
        """Names of all objects below a prefix."""
        import obstore

        with explained(self.url):
            pages = obstore.list(self._store, prefix, chunk_size=1000)
            return [found["path"] for page in pages for found in page]

    def read(self, name: str) -> bytes | None:
        """An object's bytes, None where there is none."""
        import obstore

        try:
            with explained(self.url):
                return bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            return None

    def head(self, name: str) -> Any:
        """Time and tag of an object, None where there is none."""
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

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects."""
        import obstore

        names = list(names)
        if names:
            with explained(self.url):
                obstore.delete(self._store, names)

    def copy(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Let the store copy objects, each from one name to another."""
        import obstore

        def copy_one(pair: tuple[str, str]) -> None:
            with explained(self.url):
                obstore.copy(self._store, *pair)

        with ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
            for _ in pool.map(copy_one, pairs):
                pass


class Lease:
    """The right to write something, held by a sign of life and taken over where that stops."""

    def __init__(self, folder: Folder, name: str, url: str) -> None:
        self._folder, self._name, self._url = folder, name, url
        self._me = {"host": socket.gethostname(), "pid": os.getpid(), "job": uuid.uuid4().hex}
        self._beats = 0
        self._version: Any = None
        self._seen = 0.0
        self._lost = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self._version = self._put("create") or self._take_over()
        self._seen = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()
        if not self._lost:
            # A lock that stays behind is taken over.
            with suppress(StoreError):
                self._folder.remove([self._name])

    def check(self) -> None:
        """Raise where another job may have begun to write."""
        if self._lost or time.monotonic() - self._seen > LEASE_SECONDS:
            raise OutputExistsError(
                f"{self._url}: this job lost its lock, because the store did not hear of it for "
                f"{LEASE_SECONDS:.0f} s: run the same command again"
            )

    def _put(self, mode: Any) -> Any:
        self._beats += 1
        body = json.dumps({**self._me, "beats": self._beats})
        return self._folder.put(self._name, body.encode(), mode)

    def _take_over(self) -> Any:
        found, owner = self._folder.head(self._name), self._owner()
        version = None
        if found is None:
            version = self._put("create")
        elif self._is_gone(owner) or self._silence(found) > LEASE_SECONDS:
            version = self._put(_unless_changed(found))
        if version is None:
            raise OutputExistsError(
                f"another job ({owner.get('host')}, process {owner.get('pid')}) is writing "
                f"{self._url}: wait until it ends, or choose another name; a job that was killed "
                f"is replaced {LEASE_SECONDS:.0f} s after its last sign of life"
            )
        if found is not None:
            logger.warning("%s: took over the lock of a job that is gone: %s", self._url, owner)
        return version

    def _owner(self) -> dict[str, Any]:
        """Who holds the lock, as far as it says."""
        try:
            return dict(json.loads(self._folder.read(self._name) or b"{}"))
        except (ValueError, TypeError):
            return {}

    def _is_gone(self, owner: Mapping[str, Any]) -> bool:
        host, pid = owner.get("host"), owner.get("pid")
        if host != self._me["host"] or pid == self._me["pid"] or not isinstance(pid, int):
            return False
        try:
            os.kill(pid, 0)
        except OSError as e:
            return isinstance(e, ProcessLookupError)
        return False

    def _silence(self, found: Any) -> float:
        """Seconds since the last sign of life, by the store's own clock."""
        name = f"{self._name}-{self._me['job']}"
        self._folder.put(name, b"now")
        now = self._folder.head(name)["last_modified"]
        self._folder.remove([name])
        return float((now - found["last_modified"]).total_seconds())

    def _keep(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            try:
                new = self._put(_unless_changed(self._version))
                if new is None and self._owner().get("job") == self._me["job"]:
                    # An earlier sign of life got through though the answer to it was lost.
                    new = self._folder.head(self._name)
            except StoreError:
                # `check` tells when this has lasted too long.
                continue
            if new is None:
                self._lost = True
                return
            self._version, self._seen = new, time.monotonic()


def _unless_changed(version: Any) -> dict[str, str]:
    """The condition that an object is still of this version."""
    return {name: version[name] for name in ("e_tag", "version") if version[name] is not None}


@dataclass(frozen=True)
class ObjectRegions:
    """Ranges of chunks, each with a marker object once its answers are in the store.

    Attributes
    ----------
    url : str
        Of the markers.
    stamps : mapping of range to str
        Every region, with the stamp of its rows before the pass.
    """

    url: str
    stamps: Mapping[range, str]

    def mark(self, chunks: range) -> None:
        """Say that the answers of `chunks` are in the store."""
        write_bytes(f"{self.url}/{self.marker(chunks)}", b"whole", overwrite=True)

    def marker(self, chunks: range) -> str:
        """The name of a region's marker."""
        return f"{chunks.start}-{chunks.stop}-{self.stamps[chunks] or 'unknown'}"


@dataclass(frozen=True)
class UnfinishedObjects:
    """Answers on their way, beside their destination.

    Attributes
    ----------
    folder : Folder
        What destination and unfinished work lie in.
    name, hidden, answers : str
        The destination, the unfinished work, and the Zarr group in it.
    outputs : mapping of str to zarr.Array
        Its arrays.
    regions : ObjectRegions
    """

    folder: Folder
    name: str
    hidden: str
    answers: str
    outputs: Mapping[str, zarr.Array[Any]]
    regions: ObjectRegions

    def whole(self) -> list[range]:
        """Regions that need not be computed again."""
        markers = self.answers.replace("answers-", "regions-")
        marked = set(self.folder.names(f"{markers}/"))
        stored = set(self.folder.names(f"{self.answers}/"))
        return [
            chunks
            for chunks in self.regions.stamps
            if f"{markers}/{self.regions.marker(chunks)}" in marked
            and all(
                self._key(output, chunk) in stored
                for output in self.outputs.values()
                for chunk in chunks
            )
        ]

    def _key(self, output: zarr.Array[Any], chunk: int) -> str:
        key = output.metadata.encode_chunk_key((chunk, *(0,) * (output.ndim - 1)))
        return f"{self.answers}/{output.path}/{key}"

    def publish(self, overwrite: bool) -> None:
        """Give the whole answers their name, and remove everything else."""
        check_free_at_url(f"{self.folder.url}/{self.name}", overwrite)
        self.folder.put(f"{self.hidden}/{PUBLISHING}", b"")
        new = {
            f"{self.name}{key.removeprefix(self.answers)}": key
            for key in self.folder.names(f"{self.answers}/")
        }
        old = self.folder.names(f"{self.name}/")
        # Without its documents nobody takes a mixture of old and new for an array.
        self.folder.remove(key for key in old if _is_document(key))
        self.folder.remove(key for key in old if not _is_document(key) and key not in new)
        root = f"{self.name}/zarr.json"
        last = sorted(filter(_is_document, new), key=lambda key: -key.count("/"))
        self.folder.copy((new[key], key) for key in new if not _is_document(key))
        self.folder.copy((new[key], key) for key in last if key != root)
        self.folder.copy([(new[root], root)])
        _clear(self.folder, self.hidden)


def _is_document(key: str) -> bool:
    return key.rpartition("/")[2] in DOCUMENTS


def _clear(folder: Folder, hidden: str) -> None:
    """Remove unfinished work, first what tells of it, and leave the lock."""
    below = [key for key in folder.names(f"{hidden}/") if not key.startswith(f"{hidden}/{LOCK}")]
    header = f"{hidden}/{HEADER}"
    folder.remove(key for key in below if key == header)
    folder.remove(key for key in below if key != header)


def check_free_at_url(url: str, overwrite: bool) -> None:
    """Raise where something lies at or below `url` and may not be replaced.

    Raises
    ------
    OutputExistsError
        It is taken, by more than answers whose copying was interrupted.
    UsageError
        Nothing can be written to such a URL.
    """
    check_writable(url)
    if overwrite:
        return
    parent, name = split_url(url)
    folder = Folder(parent)
    below = folder.names(f"{name}/")
    copying = f"{name}/zarr.json" not in below and folder.head(f".{name}.partial/{PUBLISHING}")
    if folder.head(name) or (below and not copying):
        raise OutputExistsError(
            f"{describe_url(url)} exists; choose another name or pass --overwrite"
        )


@contextmanager
def resumable_at_url(
    url: str,
    resumed_id: Callable[[str, str], str],
    header: Callable[[str], str],
    stamps: Mapping[range, str],
    create: Callable[[str], None],
    opened: Callable[[str], Mapping[str, zarr.Array[Any]]],
    overwrite: bool,
    resume: bool,
) -> Iterator[UnfinishedObjects]:
    """As `sinks.resumable`, which gives what is the same on a disk.

    Parameters
    ----------
    url : str
        Where the answers go.
    resumed_id : callable
        A header's text and its place -> the ID of the work, if it may be resumed.
    header : callable
        An ID -> the text of its header.
    stamps, create, overwrite, resume
        As there.
    opened : callable
        The arrays of the group at a URL.
    """
    check_free_at_url(url, overwrite)
    parent, name = split_url(url)
    folder, hidden = Folder(parent), f".{name}.partial"
    place = f"{describe_url(parent)}/{hidden}"
    with Lease(folder, f"{hidden}/{LOCK}", describe_url(url)) as lease:
        found = folder.read(f"{hidden}/{HEADER}") if resume else None
        if found is None:
            _clear(folder, hidden)
            work = uuid.uuid4().hex
            create(f"{parent}/{hidden}/answers-{work}")
            folder.put(f"{hidden}/{HEADER}", header(work).encode())
        else:
            work = resumed_id(found.decode(), place)
        answers = f"{hidden}/answers-{work}"
        regions = ObjectRegions(f"{parent}/{hidden}/regions-{work}", stamps)
        outputs = opened(f"{parent}/{answers}")
        unfinished = UnfinishedObjects(folder, name, hidden, answers, outputs, regions)
        try:
            yield unfinished
            lease.check()
            unfinished.publish(overwrite)
        except BaseException as e:
            _note_what_is_kept(e, unfinished, place)
            raise


def _note_what_is_kept(e: BaseException, unfinished: UnfinishedObjects, place: str) -> None:
    try:
        n_whole = len(unfinished.whole())
        if not n_whole:
            _clear(unfinished.folder, unfinished.hidden)
    except StoreError:
        e.add_note(f"regions that are whole are kept in {place}: run the same command again")
        return
    if n_whole:
        e.add_note(
            f"{n_whole} of {len(unfinished.regions.stamps)} regions are whole and kept in {place}: "
            "run the same command again to resume"
        )
