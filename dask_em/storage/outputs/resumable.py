"""A folder of answers that is written region by region, and gone on with after an interruption."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ...errors import OutputExistsError
from ..locks import locked
from .predictions import AnswerFormat, Answers, Regions
from .staging import HEADER, Staging, staging_at

FORMAT_VERSION = 2

NOT_A_HEADER = (ValueError, KeyError, TypeError, AttributeError)


A = TypeVar("A", bound=Answers)


@dataclass(frozen=True)
class UnfinishedGroup(Generic[A]):
    """A folder of answers on its way to its destination.

    Attributes
    ----------
    staging : Staging
    name : str
        No other work has the same: a worker of an older job may still be writing.
    answers : Answers
        What is in it.
    regions : Regions
    """

    staging: Staging
    name: str
    answers: A
    regions: Regions

    def whole(self) -> dict[range, int]:
        """Return the regions that need not be computed again, as `Regions.marked`."""
        stored = self.staging.stored(self.name)
        return {
            chunks: n_dropped
            for chunks, n_dropped in self.regions.marked().items()
            if stored.issuperset(self.answers.files(chunks))
        }

    def publish(self, overwrite: bool) -> None:
        """Give the whole group its name, and remove everything else."""
        self.staging.check_free(overwrite)
        self.staging.publish(self.name)


@contextmanager
def resumable_group(
    path: Path | str,
    identity: Mapping[str, Any],
    stamps: Mapping[range, str],
    form: AnswerFormat[A],
    overwrite: bool = False,
    resume: bool = True,
) -> Iterator[UnfinishedGroup[A]]:
    """Open a folder of answers for the block to fill, which becomes `path` if it ends well.

    If it ends badly and a region is whole, the work is kept for the next call, and the
    exception gets a note that says so.

    Parameters
    ----------
    path : Path, or URL of an object store
        The destination.
    identity : mapping
        All that the bytes depend on, as JSON holds it; only work of the same identity is resumed.
    stamps : mapping of range to str
        Every region with the stamp of its rows (`source_stamps`).
    form : AnswerFormat
        Makes the empty folder at a path.
    overwrite : bool
        Whether `path` may be replaced.
    resume : bool
        False throws away unfinished work instead of going on with it.

    Raises
    ------
    OutputExistsError
        `path` is there and `overwrite` is False, another job writes it, or the
        unfinished work is of something else.

    Examples
    --------
    >>> import tempfile, zarr
    >>> from dask_em.storage.outputs.zarr_answers import ZarrFormat
    >>> form = ZarrFormat(3, 3, {"labels": (None, "int32")})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels.zarr")
    ...     with resumable_group(path, {"model": "m.npz"}, {range(1): ""}, form) as unfinished:
    ...         unfinished.answers.outputs["labels"][:] = 7
    ...         path.exists()
    ...     zarr.open_group(path)["labels"][:].tolist()
    False
    [7, 7, 7]
    """
    staging = staging_at(path)
    with locked(path) as lock:
        if not _is_begun(staging):
            # Of a job that was killed when the group had its name already.
            staging.clear()
        staging.check_free(overwrite)
        name = _name_to_resume(staging, identity) if resume else None
        if name is None:
            name = uuid.uuid4().hex
            header = json.dumps({"id": name, "identity": _versioned(identity)}, indent=1)
            staging.begin(name, header, form.create)
        regions = Regions(staging.markers(name), stamps)
        unfinished = UnfinishedGroup(staging, name, form.open(staging.group(name)), regions)
        try:
            yield unfinished
            lock.check()
            unfinished.publish(overwrite)
        except BaseException as e:
            _note_what_is_kept(e, unfinished)
            raise


def _note_what_is_kept(e: BaseException, unfinished: UnfinishedGroup[A]) -> None:
    staging = unfinished.staging
    try:
        n_whole = len(unfinished.whole())
        if not n_whole:
            staging.clear()
    except OSError:
        e.add_note(f"regions that are whole are kept in {staging}: run the same command again")
        return
    if n_whole:
        e.add_note(
            f"{n_whole} of {len(unfinished.regions.stamps)} regions are whole and kept in "
            f"{staging}: run the same command again to resume"
        )


def _is_begun(staging: Staging) -> bool:
    """Tell whether a group is on its way; remains of one that was whole do not count."""
    text = staging.header()
    if text is None:
        return False
    try:
        name, _ = _read(text)
    except NOT_A_HEADER:
        return True
    return bool(staging.stored(name))


def _read(text: bytes) -> tuple[str, dict[str, Any]]:
    """Return the name and the identity of the work that a header is of."""
    header = json.loads(text)
    return uuid.UUID(hex=header["id"]).hex, dict(header["identity"])


def _name_to_resume(staging: Staging, identity: Mapping[str, Any]) -> str | None:
    """Return the name of unfinished work of the same identity, None where there is none."""
    text = staging.header()
    if text is None:
        return None
    try:
        name, found = _read(text)
    except NOT_A_HEADER as e:
        raise OutputExistsError(
            f"{staging}/{HEADER} is damaged or not of this program ({e!r}): remove {staging}, or "
            "pass resume=False"
        ) from e
    wanted = _versioned(identity)
    differing = "; ".join(
        f"{key.replace('_', ' ')}: {found.get(key)} there, {wanted[key]} asked for"
        for key in wanted
        if found.get(key) != wanted[key]
    )
    if differing:
        raise OutputExistsError(
            f"{staging} holds unfinished work of another kind ({differing}): run the command that "
            "began it, or pass resume=False to throw it away and start anew"
        )
    return name


def _versioned(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {"format_version": FORMAT_VERSION, **identity}
