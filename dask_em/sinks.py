"""Where answers go: Zarr arrays beside each other in a group, written chunk by chunk.

Until they are whole they lie in a hidden folder beside their destination:

    .DEST.partial/header.json     what the answers are of, and the name ID
                  answers-ID/     the Zarr group that becomes DEST
                  regions-ID/     a marker for each region that is whole

A region is a range of chunks. Its marker is written after its chunk files and their
folders were synced to the disk, so what a marker stands for outlives a power failure,
and a job that was interrupted goes on with the regions that have none. Syncing waits for
the end of a region: by then the system has written most of it by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError, OutputExistsError, UsageError
from .folders import DiskFolder, sync, write_durably
from .locks import locked
from .regions import Regions
from .remotesinks import UnfinishedObjects, check_free_at_url, resumable_at_url
from .statistics import Additive, Array
from .stores import is_url, open_store

if TYPE_CHECKING:
    import zarr

FORMAT_VERSION = 1
HEADER = "header.json"


@dataclass(frozen=True)
class Written(Additive):
    """How many rows were written."""

    n_rows: int


@dataclass(frozen=True)
class WriteAnswers:
    """The description of a pass that writes an answer for every row.

    The output's chunks begin where the source's do, so no two tasks write the same
    chunk, and a task that runs twice writes the same bytes twice.

    Attributes
    ----------
    answer : callable
        Rows (n, d) -> a dict of arrays that begin with axis n.
    bounds : (n_chunks + 1,) array
        First row of each chunk of the source.
    outputs : mapping of str to zarr.Array
        Where each entry of the dict goes.
    regions : Regions
        Where it is noted that a range is done.
    """

    answer: Callable[[Array], dict[str, Array]]
    bounds: Array
    outputs: Mapping[str, zarr.Array[Any]]
    regions: Regions

    def fold(self) -> AnswerWriter:
        """The writer of one range, before its first chunk."""
        return AnswerWriter(self)


class AnswerWriter:
    """Writes the answers of chunks as they come, and marks their region at the end."""

    def __init__(self, work: WriteAnswers) -> None:
        self.work = work
        self._written: list[int] = []
        self._n_rows = 0

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Write the answers of chunk number `index`; without rows, it has them already."""
        if len(X) == 0:
            return
        rows = slice(int(self.work.bounds[index]), int(self.work.bounds[index + 1]))
        try:
            answers = self.work.answer(X)
        except DataError as e:
            raise DataError(f"chunk {index} (from row {rows.start}): {e}") from e
        for name, values in answers.items():
            self.work.outputs[name][rows] = values
        self._written.append(index)
        self._n_rows += len(X)

    def result(self) -> Written:
        """Rows written, all of them on the disk."""
        if self._written:
            for output in self.work.outputs.values():
                _sync_chunks(output, self._written)
            self.work.regions.mark(range(self._written[0], self._written[-1] + 1))
        return Written(self._n_rows)


def _chunk_file(array: zarr.Array[Any], *index: int) -> Path:
    store: Any = array.store
    return Path(store.root, array.path, array.metadata.encode_chunk_key(index))


def _answer_file(output: zarr.Array[Any], chunk: int) -> Path:
    return _chunk_file(output, chunk, *(0,) * (output.ndim - 1))


def _sync_chunks(output: zarr.Array[Any], chunks: list[int]) -> None:
    """Bring chunk files, and the folders that name them, to the disk."""
    from zarr.storage import LocalStore

    store: Any = output.store
    if not isinstance(store, LocalStore):
        return
    top = Path(store.root, output.path)
    folders: set[Path] = set()
    for chunk in chunks:
        path = _answer_file(output, chunk)
        sync(path)
        folders.update(parent for parent in path.parents if parent.is_relative_to(top))
    for folder in folders:
        sync(folder)


def source_stamp(array: zarr.Array[Any], start: int, stop: int) -> str:
    """sha256 of the sizes and times of the files that hold rows `start` to `stop`.

    Other data in the same place have another stamp. Empty where the store is not a
    local folder: there nobody can tell without reading.
    """
    from zarr.storage import LocalStore

    if not isinstance(array.store, LocalStore):
        return ""
    rows, columns = (array.shards or array.chunks)[:2]
    digest = hashlib.sha256()
    for i in range(start // rows, -(-stop // rows)):
        for j in range(-(-array.shape[1] // columns)):
            try:
                file = _chunk_file(array, i, j).stat()
                digest.update(f"{i},{j}:{file.st_size}:{file.st_mtime_ns};".encode())
            except FileNotFoundError:
                digest.update(f"{i},{j}:missing;".encode())
    return digest.hexdigest()


def create_outputs(
    path: Path | str, n_rows: int, chunk_rows: int, kinds: Mapping[str, tuple[int | None, Any]]
) -> None:
    """Make empty checksummed Zarr arrays in a new group.

    Parameters
    ----------
    path : Path, or URL
    n_rows, chunk_rows : int
    kinds : mapping of str to (columns or None, dtype)
    """
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    group = zarr.create_group(_place(path))
    for name, (columns, dtype) in kinds.items():
        tail = () if columns is None else (columns,)
        group.create_array(
            name,
            shape=(n_rows, *tail),
            chunks=(min(chunk_rows, n_rows), *tail),
            dtype=np.dtype(dtype),
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
        )


def open_outputs(path: Path | str) -> dict[str, zarr.Array[Any]]:
    """The arrays of a group, to be written: chunks of nothing but zeros too."""
    import zarr

    with zarr.config.set({"array.write_empty_chunks": True}):
        return dict(zarr.open_group(_place(path), mode="r+").arrays())


def _place(path: Path | str) -> Any:
    return open_store(path, read_only=False) if isinstance(path, str) else path


@dataclass(frozen=True)
class Unfinished:
    """Answers on their way, in a hidden folder beside their destination.

    Attributes
    ----------
    folder : Path
        The hidden folder.
    answers : Path
        The Zarr group in it.
    outputs : mapping of str to zarr.Array
        Its arrays.
    regions : Regions
    """

    folder: Path
    answers: Path
    outputs: Mapping[str, zarr.Array[Any]]
    regions: Regions

    def whole(self) -> list[range]:
        """Regions that need not be computed again."""
        return [
            chunks
            for chunks in self.regions.marked()
            if all(
                _answer_file(output, chunk).exists()
                for output in self.outputs.values()
                for chunk in chunks
            )
        ]

    def publish(self, path: Path, overwrite: bool) -> None:
        """Give the whole answers their name, and remove everything else."""
        # A worker that was killed may have left a file that Zarr had not renamed yet.
        for stray in self.answers.rglob("*.partial"):
            stray.unlink(missing_ok=True)
        if os.path.lexists(path):
            check_free(path, overwrite)
            replaced = self.folder / "replaced"
            _remove(replaced)
            path.rename(replaced)
        self.answers.rename(path)
        sync(path.parent)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def resumable(
    path: Path | str,
    identity: Mapping[str, Any],
    stamps: Mapping[range, str],
    create: Callable[[Path | str], None],
    overwrite: bool = False,
    resume: bool = True,
) -> Iterator[Unfinished | UnfinishedObjects]:
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
    if isinstance(path, str):
        with resumable_at_url(
            path,
            lambda text, place: _resumed_id(text, place, identity),
            lambda name: _header(name, identity),
            stamps,
            create,
            open_outputs,
            overwrite,
            resume,
        ) as objects:
            yield objects
        return
    check_free(path, overwrite)
    folder = path.with_name(f".{path.name}.partial")
    with locked(path) as lock:
        folder.mkdir(exist_ok=True)
        name = _name_to_resume(folder, identity) if resume else None
        if name is None:
            with _removed_if_it_fails(folder):
                name = _start(folder, identity, create)
        answers = folder / f"answers-{name}"
        regions = Regions(DiskFolder(folder / f"regions-{name}"), stamps)
        unfinished = Unfinished(folder, answers, open_outputs(answers), regions)
        try:
            yield unfinished
            lock.check()
            unfinished.publish(path, overwrite)
        except BaseException as e:
            n_whole = len(unfinished.whole())
            if n_whole:
                e.add_note(
                    f"{n_whole} of {len(stamps)} regions are whole and kept in {folder}: "
                    "run the same command again to resume"
                )
            else:
                shutil.rmtree(folder, ignore_errors=True)
            raise


@contextmanager
def _removed_if_it_fails(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _name_to_resume(folder: Path, identity: Mapping[str, Any]) -> str | None:
    """The ID of unfinished work of the same identity, None where there is no work."""
    try:
        text = (folder / HEADER).read_text()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        text = ""
    name = _resumed_id(text, str(folder), identity)
    # The answers are gone where a job ended after it had given them their name.
    return name if (folder / f"answers-{name}").is_dir() else None


def _resumed_id(text: str, folder: str, identity: Mapping[str, Any]) -> str:
    """The ID of the unfinished work that a header tells of, if it is of this identity."""
    try:
        header = json.loads(text)
        found, name = dict(header["identity"]), uuid.UUID(hex=header["id"]).hex
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise OutputExistsError(
            f"{os.path.join(folder, HEADER)} is damaged or not of this program ({e!r}): remove "
            f"{folder}, or pass --no-resume"
        ) from e
    wanted = _versioned(identity)
    differing = "; ".join(
        f"{key.replace('_', ' ')}: {found.get(key)} there, {wanted[key]} asked for"
        for key in wanted
        if found.get(key) != wanted[key]
    )
    if differing:
        raise OutputExistsError(
            f"{folder} holds unfinished work of another kind ({differing}): run the command that "
            "began it, or pass --no-resume to throw it away and start anew"
        )
    return name


def _header(name: str, identity: Mapping[str, Any]) -> str:
    return json.dumps({"id": name, "identity": _versioned(identity)}, indent=1)


def _versioned(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {"format_version": FORMAT_VERSION, **identity}


def _start(folder: Path, identity: Mapping[str, Any], create: Callable[[Path], None]) -> str:
    """Begin anew, under a name of its own: a worker of an older job may still be writing."""
    for old in folder.iterdir():
        _remove(old)
    name = uuid.uuid4().hex
    answers, markers = folder / f"answers-{name}", folder / f"regions-{name}"
    markers.mkdir()
    create(answers)
    for made in (*answers.rglob("*"), answers, folder, folder.parent):
        sync(made)
    # From here on there is something to resume.
    write_durably(folder / HEADER, _header(name, identity).encode())
    return name


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def whole_or_nothing(path: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path` if the block ends well.

    Raises
    ------
    OutputExistsError
        `path` is there and `overwrite` is False.
    """
    check_free(path, overwrite)
    wip = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.wip")
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
    try:
        yield wip
        if path.exists():
            check_free(path, overwrite)
            path.rename(old)
        wip.rename(path)
    finally:
        for leftover in (wip, old):
            with suppress(OSError):
                _remove(leftover)


@contextmanager
def new_folder(path: Path, overwrite: bool) -> Iterator[None]:
    """A new folder for the block to fill, removed again if the block fails."""
    with whole_or_nothing(path, overwrite) as empty:
        empty.mkdir()
    with _removed_if_it_fails(path):
        yield


def check_free(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise `OutputExistsError` where `path` is taken and may not be replaced."""
    if is_url(path):
        check_free_at_url(os.fspath(path), overwrite)
        return
    if not overwrite and os.path.lexists(path):
        raise OutputExistsError(f"{path} exists; choose another name or pass --overwrite")


def check_folder(output: str) -> None:
    """Raise `UsageError` where the folder that `output` is to lie in is not there."""
    if is_url(output):
        return
    folder = Path(output).absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{output}: there is no folder {folder}; make it first")
