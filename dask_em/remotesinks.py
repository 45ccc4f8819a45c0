"""Where answers go in an object store: the same as on a disk, without renames.

Until they are whole they lie beside their destination, under

    .DEST.partial/header.json     what the answers are of, and the name ID
                  answers-ID/     the Zarr group that becomes DEST
                  regions-ID/     a marker for each region that is whole
                  publishing      the answers are being copied to DEST

A put that was answered is durable, so a marker needs no sync. The store itself copies whole
answers to DEST, the document that makes it a Zarr group last: until then nobody can open it,
and a copy that was interrupted is made again by the next run.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import OutputExistsError, StoreError
from .folders import BucketFolder
from .locks import locked
from .regions import Regions
from .stores import check_writable, describe_url, split_url

if TYPE_CHECKING:
    import zarr

HEADER, PUBLISHING = "header.json", "publishing"
DOCUMENTS = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")


@dataclass(frozen=True)
class UnfinishedObjects:
    """Answers on their way, beside their destination.

    Attributes
    ----------
    folder : BucketFolder
        What destination and unfinished work lie in.
    name, hidden, answers : str
        The destination, the unfinished work, and the Zarr group in it.
    outputs : mapping of str to zarr.Array
        Its arrays.
    regions : Regions
    """

    folder: BucketFolder
    name: str
    hidden: str
    answers: str
    outputs: Mapping[str, zarr.Array[Any]]
    regions: Regions

    def whole(self) -> list[range]:
        """Regions that need not be computed again."""
        stored = set(self.folder.names(f"{self.answers}/"))
        return [
            chunks
            for chunks in self.regions.marked()
            if all(
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


def _clear(folder: BucketFolder, hidden: str) -> None:
    """Remove unfinished work, first what tells of it."""
    below = folder.names(f"{hidden}/")
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
    folder = BucketFolder(parent)
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
    folder, hidden = BucketFolder(parent), f".{name}.partial"
    place = f"{describe_url(parent)}/{hidden}"
    with locked(url) as lock:
        found = folder.read(f"{hidden}/{HEADER}") if resume else None
        if found is None:
            _clear(folder, hidden)
            work = uuid.uuid4().hex
            create(f"{parent}/{hidden}/answers-{work}")
            folder.put(f"{hidden}/{HEADER}", header(work).encode())
        else:
            work = resumed_id(found.decode(), place)
        answers = f"{hidden}/answers-{work}"
        regions = Regions(BucketFolder(f"{parent}/{hidden}/regions-{work}"), stamps)
        outputs = opened(f"{parent}/{answers}")
        unfinished = UnfinishedObjects(folder, name, hidden, answers, outputs, regions)
        try:
            yield unfinished
            lock.check()
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
