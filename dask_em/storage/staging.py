"""What is written beside its destination until it is whole, and gone on with if need be.

Answers on their way to DEST lie under

    .DEST.partial/header.json     what the answers are of, and the name ID
                  answers-ID/     the Zarr group that becomes DEST
                  regions-ID/     a marker for each region that is whole
                  publishing      an object store copies the answers to DEST

On a disk whole answers are renamed. Object stores know no renames: the store itself copies the
answers, the document that makes DEST a Zarr group last. Until then nobody can open it, and a
copy that was interrupted is made again by the next run.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import OutputExistsError, UsageError
from .answers import Regions, chunk_key, open_outputs
from .folders import BucketFolder, DiskFolder, Folder, sync, write_durably
from .locks import locked
from .object_store import check_writable
from .urls import describe_url, is_url, split_url

if TYPE_CHECKING:
    import zarr

FORMAT_VERSION = 1

HEADER, PUBLISHING = "header.json", "publishing"

NOT_A_HEADER = (ValueError, KeyError, TypeError, AttributeError)

DOCUMENTS = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")


Create = Callable[[Path | str], None]
"""Makes an empty Zarr group at a path or URL."""


class Place(Protocol):
    """Where answers lie on their way, and how they get to their destination."""

    def check_free(self, overwrite: bool) -> None:
        """Raise `OutputExistsError` where the destination is taken and may not be replaced."""

    def header(self) -> bytes | None:
        """What was begun there, None where nothing was."""

    def begin(self, name: str, header: str, create: Create) -> None:
        """Throw away what is there, and make room for answers of this name."""

    def answers(self, name: str) -> Path | str:
        """Where the group of answers is."""

    def markers(self, name: str) -> Folder:
        """Where it is noted which regions are whole."""

    def stored(self, name: str) -> set[str]:
        """What is stored of the answers, by names within their group."""

    def publish(self, name: str) -> None:
        """Give whole answers their name, in place of what has it, and remove everything else."""

    def clear(self) -> None:
        """Throw away what is there."""


@dataclass(frozen=True)
class Unfinished:
    """Answers on their way.

    Attributes
    ----------
    place : Place
    name : str
        No other work has the same: a worker of an older job may still be writing.
    outputs : mapping of str to zarr.Array
        The arrays of the group.
    regions : Regions
    """

    place: Place
    name: str
    outputs: Mapping[str, zarr.Array[Any]]
    regions: Regions

    def whole(self) -> list[range]:
        """Regions that need not be computed again."""
        stored = self.place.stored(self.name)
        return [
            chunks
            for chunks in self.regions.marked()
            if all(
                f"{output.path}/{chunk_key(output, chunk)}" in stored
                for output in self.outputs.values()
                for chunk in chunks
            )
        ]

    def publish(self, overwrite: bool) -> None:
        """Give the whole answers their name, and remove everything else."""
        self.place.check_free(overwrite)
        self.place.publish(self.name)


@contextmanager
def resumable(
    path: Path | str,
    identity: Mapping[str, Any],
    stamps: Mapping[range, str],
    create: Create,
    overwrite: bool = False,
    resume: bool = True,
) -> Iterator[Unfinished]:
    """Answers for the block to write, which become `path` if it ends well.

    If it ends badly and a region is whole, the work is kept for the next call, and the
    exception gets a note that says so.

    Parameters
    ----------
    path : Path, or URL of an object store
        Where the answers go.
    identity : mapping
        What they are of, as JSON holds it; only work of the same identity is resumed.
    stamps : mapping of range to str
        Every region with its `source_stamp`.
    create : callable
        Makes the empty group at a path.
    overwrite : bool
        Whether `path` may be replaced.
    resume : bool
        False throws away unfinished work instead of going on with it.

    Raises
    ------
    OutputExistsError
        `path` is there and `overwrite` is False, another job writes it, or the
        unfinished work is of something else.
    """
    place: Place = InBucket.of(path) if isinstance(path, str) else OnDisk(path)
    with locked(path) as lock:
        if not _is_begun(place):
            # Of a job that was killed when the answers had their name already.
            place.clear()
        place.check_free(overwrite)
        name = _name_to_resume(place, identity) if resume else None
        if name is None:
            name = uuid.uuid4().hex
            place.begin(name, _header(name, identity), create)
        regions = Regions(place.markers(name), stamps)
        unfinished = Unfinished(place, name, open_outputs(place.answers(name)), regions)
        try:
            yield unfinished
            lock.check()
            unfinished.publish(overwrite)
        except BaseException as e:
            _note_what_is_kept(e, unfinished)
            raise


def _note_what_is_kept(e: BaseException, unfinished: Unfinished) -> None:
    place = unfinished.place
    try:
        n_whole = len(unfinished.whole())
        if not n_whole:
            place.clear()
    except OSError:
        e.add_note(f"regions that are whole are kept in {place}: run the same command again")
        return
    if n_whole:
        e.add_note(
            f"{n_whole} of {len(unfinished.regions.stamps)} regions are whole and kept in {place}: "
            "run the same command again to resume"
        )


def _is_begun(place: Place) -> bool:
    """Whether answers are on their way there; where they are whole already a few remains may be."""
    text = place.header()
    if text is None:
        return False
    try:
        name, _ = _read(text)
    except NOT_A_HEADER:
        return True
    return bool(place.stored(name))


def _read(text: bytes) -> tuple[str, dict[str, Any]]:
    """The name and the identity of the work that a header tells of."""
    header = json.loads(text)
    return uuid.UUID(hex=header["id"]).hex, dict(header["identity"])


def _name_to_resume(place: Place, identity: Mapping[str, Any]) -> str | None:
    """The name of unfinished work of the same identity, None where there is none."""
    text = place.header()
    if text is None:
        return None
    try:
        name, found = _read(text)
    except NOT_A_HEADER as e:
        raise OutputExistsError(
            f"{place}/{HEADER} is damaged or not of this program ({e!r}): remove {place}, or pass "
            "--no-resume"
        ) from e
    wanted = _versioned(identity)
    differing = "; ".join(
        f"{key.replace('_', ' ')}: {found.get(key)} there, {wanted[key]} asked for"
        for key in wanted
        if found.get(key) != wanted[key]
    )
    if differing:
        raise OutputExistsError(
            f"{place} holds unfinished work of another kind ({differing}): run the command that "
            "began it, or pass --no-resume to throw it away and start anew"
        )
    return name


def _header(name: str, identity: Mapping[str, Any]) -> str:
    return json.dumps({"id": name, "identity": _versioned(identity)}, indent=1)


def _versioned(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {"format_version": FORMAT_VERSION, **identity}


# -- on a disk -------------------------------------------------------------------------


@dataclass(frozen=True)
class OnDisk:
    """A hidden folder beside the destination.

    Attributes
    ----------
    path : Path
        The destination.
    """

    path: Path

    @property
    def _folder(self) -> Path:
        return self.path.with_name(f".{self.path.name}.partial")

    def __str__(self) -> str:
        return str(self._folder)

    def check_free(self, overwrite: bool) -> None:
        """Raise where the destination is taken and may not be replaced."""
        if not overwrite and os.path.lexists(self.path):
            raise _taken(self.path)

    def header(self) -> bytes | None:
        """What was begun there."""
        return DiskFolder(self._folder).read(HEADER)

    def begin(self, name: str, header: str, create: Create) -> None:
        """Throw away what is there, and make room for answers of this name."""
        folder, answers = self._folder, self.answers(name)
        folder.mkdir(exist_ok=True)
        with _removed_if_it_fails(folder):
            for old in folder.iterdir():
                _remove(old)
            self.markers(name).path.mkdir()
            create(answers)
            for made in (*answers.rglob("*"), answers, folder, folder.parent):
                sync(made)
            # From here on there is something to resume.
            write_durably(folder / HEADER, header.encode())

    def answers(self, name: str) -> Path:
        """Where the group of answers is."""
        return self._folder / f"answers-{name}"

    def markers(self, name: str) -> DiskFolder:
        """Where it is noted which regions are whole."""
        return DiskFolder(self._folder / f"regions-{name}")

    def stored(self, name: str) -> set[str]:
        """Files of the answers."""
        top = self.answers(name)
        return {
            Path(folder, file).relative_to(top).as_posix()
            for folder, _, files in os.walk(top)
            for file in files
        }

    def publish(self, name: str) -> None:
        """Rename the answers, and remove everything else."""
        answers = self.answers(name)
        # A worker that was killed may have left a file that Zarr had not renamed yet.
        for stray in answers.rglob("*.partial"):
            stray.unlink(missing_ok=True)
        if os.path.lexists(self.path):
            replaced = self._folder / "replaced"
            _remove(replaced)
            self.path.rename(replaced)
        answers.rename(self.path)
        sync(self.path.parent)
        self.clear()

    def clear(self) -> None:
        """Throw away what is there."""
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def _removed_if_it_fails(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# -- in an object store ----------------------------------------------------------------


@dataclass(frozen=True)
class InBucket:
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

    @classmethod
    def of(cls, url: str) -> InBucket:
        """The place for what goes to a URL."""
        parent, name = split_url(url)
        return cls(BucketFolder(parent), name)

    @property
    def _hidden(self) -> str:
        return f".{self.name}.partial"

    def _below(self, name: str) -> str:
        return f"{self._hidden}/answers-{name}/"

    def __str__(self) -> str:
        return f"{self.folder}/{self._hidden}"

    def check_free(self, overwrite: bool) -> None:
        """Raise where the destination is taken, by more than answers that are being copied."""
        url = f"{self.folder.url}/{self.name}"
        check_writable(url)
        if overwrite:
            return
        below = self.folder.names(f"{self.name}/")
        copying = f"{self.name}/zarr.json" not in below and self.folder.head(
            f"{self._hidden}/{PUBLISHING}"
        )
        if self.folder.head(self.name) or (below and not copying):
            raise _taken(describe_url(url))

    def header(self) -> bytes | None:
        """What was begun there."""
        return self.folder.read(f"{self._hidden}/{HEADER}")

    def begin(self, name: str, header: str, create: Create) -> None:
        """Throw away what is there, and make room for answers of this name."""
        self.clear()
        create(self.answers(name))
        self.folder.put(f"{self._hidden}/{HEADER}", header.encode())

    def answers(self, name: str) -> str:
        """Where the group of answers is."""
        return f"{self.folder.url}/{self._below(name)}".rstrip("/")

    def markers(self, name: str) -> BucketFolder:
        """Where it is noted which regions are whole."""
        return BucketFolder(f"{self.folder.url}/{self._hidden}/regions-{name}")

    def stored(self, name: str) -> set[str]:
        """Objects of the answers."""
        below = self._below(name)
        return {key.removeprefix(below) for key in self.folder.names(below)}

    def publish(self, name: str) -> None:
        """Let the store copy the answers, and remove everything else."""
        self.folder.put(f"{self._hidden}/{PUBLISHING}", b"")
        new = {f"{self.name}/{key}": f"{self._below(name)}{key}" for key in self.stored(name)}
        old = self.folder.names(f"{self.name}/")
        # Without its documents nobody takes a mixture of old and new for an array.
        self.folder.remove(key for key in old if _is_document(key))
        self.folder.remove(key for key in old if not _is_document(key) and key not in new)
        root = f"{self.name}/zarr.json"
        last = sorted(filter(_is_document, new), key=lambda key: -key.count("/"))
        self.folder.copy((new[key], key) for key in sorted(new) if not _is_document(key))
        self.folder.copy((new[key], key) for key in last if key != root)
        self.folder.copy([(new[root], root)])
        self.clear()

    def clear(self) -> None:
        """Throw away what is there, first what tells of it."""
        below = self.folder.names(f"{self._hidden}/")
        header = f"{self._hidden}/{HEADER}"
        self.folder.remove(key for key in below if key == header)
        self.folder.remove(key for key in below if key != header)


def _is_document(key: str) -> bool:
    return key.rpartition("/")[2] in DOCUMENTS


# -- at once ---------------------------------------------------------------------------


def check_free(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise `OutputExistsError` where `path` is taken and may not be replaced.

    Raises
    ------
    UsageError
        It is a URL to which nothing can be written.
    """
    place: Place = InBucket.of(os.fspath(path)) if is_url(path) else OnDisk(Path(path))
    place.check_free(overwrite)


def check_folder(output: str) -> None:
    """Raise `UsageError` where the folder that `output` is to lie in is not there."""
    if is_url(output):
        return
    folder = Path(output).absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{output}: there is no folder {folder}; make it first")


def _taken(what: object) -> OutputExistsError:
    return OutputExistsError(f"{what} exists; choose another name or pass --overwrite")


@contextmanager
def new_folder(path: Path, overwrite: bool) -> Iterator[None]:
    """A new folder for the block to fill, removed again if the block fails."""
    check_free(path, overwrite)
    _remove(path)
    path.mkdir()
    with _removed_if_it_fails(path):
        yield
