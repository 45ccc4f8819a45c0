"""Unfinished fits: a folder in which one goes on where it was killed, to the same bits.

It lies on a disk or in an object store:

    PATH/survey.npz     what the survey found, with the sample: written once
         pass-000012.npz    all that the fit knew after pass 12; the last two are kept
         kept.npz           sums of whole parts of the pass that was under way

Each file says of which fit it is, and of which options, data and seed that is; it holds a
sha256, so what is there is whole or known to be damaged. On a disk it is written to a temporary
name, synced and renamed, in an object store put on the condition that nobody else wrote it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, Self

from ..core.chunk_log import Logged
from ..core.codec import Packer, digest, unpack
from ..core.engine import Engine
from ..core.reduction import Node
from ..errors import DaskEMError, DataError, ModelFileError, UsageError
from ..fitting.observers import PassRecord
from ..fitting.survey import Surveyed
from .folders import BucketFolder, Folder, folder_at
from .locks import locked
from .npz import packed, read_arrays, write_arrays

logger = logging.getLogger("dask_em")

KIND = "dask_em checkpoint"

SURVEY, KEPT, PASSES = "survey.npz", "kept.npz", "pass-??????.npz"

GENERATIONS = 2

# Whatever is of these must be the same even where other data are allowed: places in the
# data are counted in chunks, and sums have the shape of the columns.
LAYOUT = ("shape", "dtype", "chunks")

ANEW = "pass resume=False (--no-resume) to throw it away and start anew"


@dataclass(frozen=True)
class Checkpointing:
    """Where a fit keeps what it needs to go on after it was killed.

    Parameters
    ----------
    path : path, or URL of an object store
        Of a folder, made when there is something to keep. Whoever fits removes it.
    resume : bool, default=True
        Go on with the fit of the same options and data that is kept there. False throws
        it away.
    force : bool, default=False
        Go on even where the data seem to be others; only their shape, type and chunks must
        be the same. What was read of the data before then counts for those of now.
    interval : float, default=300
        Seconds after which the finished parts of a pass are kept, and again and again.
    """

    path: str | os.PathLike[str]
    resume: bool = True
    force: bool = False
    interval: float = 300.0


class Checkpoint:
    """An unfinished fit where it is kept; without a place it keeps nothing.

    It is opened by `with`: while the block runs nobody else fits there.

    Parameters
    ----------
    how : Checkpointing, path or None
    options, data : mapping
        All that the bits of the fit depend on, as JSON holds it.
    engine : Engine
        What computes.

    Attributes
    ----------
    id : str
        Of the fit that is kept, or of one that begins: no other has the same.
    identity : str
        sha256 of the options and the data.
    seed : int or None
        Of the fit that is kept.
    survey : tuple or None
        What its survey found, and the record of the pass.
    progress : dict or None
        What it knew at the end.

    Raises
    ------
    LockedError
        Another job fits there.
    UsageError, DataError
        The fit that is kept there is of other options, or of other data.
    ModelFileError
        What is kept there is damaged.
    """

    def __init__(
        self,
        how: Checkpointing | str | os.PathLike[str] | None,
        options: Mapping[str, Any],
        data: Mapping[str, Any],
        engine: Engine,
    ) -> None:
        self.how = Checkpointing(how) if isinstance(how, str | os.PathLike) else how
        self.id = uuid.uuid4().hex
        self.seed: int | None = None
        self.survey: tuple[Logged[Surveyed], PassRecord] | None = None
        self.progress: dict[str, Any] | None = None
        self._engine, self._held = engine, ExitStack()
        self._fit = json.loads(json.dumps({"options": dict(options), "data": dict(data)}))
        self.identity = hashlib.sha256(json.dumps(self._fit, sort_keys=True).encode()).hexdigest()

    def __enter__(self) -> Self:
        if self.how is None:
            return self
        self.folder = folder_at(self.how.path)
        self.folder.check()
        with ExitStack() as opening:
            self._lock = opening.enter_context(locked(os.fspath(self.how.path)))
            if not self.how.resume:
                remove_checkpoint(self.how.path)
            self._read_all()
            self._held = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    @property
    def forced(self) -> bool:
        """Whether the data may be others than those that were read before."""
        return self.how is not None and self.how.force

    # -- what is kept --------------------------------------------------------------

    def begin(self, seed: int) -> int:
        """The seed of the fit that is kept, or `seed` for one that begins."""
        if self.seed is None:
            self.seed = seed
        return self.seed

    def keep_survey(self, found: Logged[Surveyed], record: PassRecord) -> None:
        """Keep what the survey found."""
        self._write(SURVEY, (found, record))
        self._drop_kept()

    def commit(self, progress: Any) -> None:
        """Keep all that the fit knows, the records of its passes among it, after another pass."""
        if self.how is None:
            return
        number = len(progress.records) - 1
        self._write(f"pass-{number:06d}.npz", vars(progress))
        self.folder.remove(_passes(self.folder)[:-GENERATIONS])
        self._drop_kept()

    def check_survey(self, before: str, now: str) -> None:
        """Raise where the survey was made again, and its sums are not what they were."""
        if before != now and not self.forced:
            raise DataError(
                f"{self.folder} keeps the unfinished fit of other data: what their survey summed "
                f"differs; give the same data, pass force=True (--force), or {ANEW}"
            )

    def sign(self, provenance: dict[str, Any]) -> None:
        """Note in a model's provenance of which kept fit it is."""
        if self.how is not None:
            provenance["fit"] = {"id": self.id, "identity": self.identity}

    def partial_sums(
        self, phase: str, number: int, parameters: Any = None
    ) -> CheckpointedSums | None:
        """Return the store of the partial sums of an unfinished pass at these parameters."""
        if self.how is None:
            return None
        return CheckpointedSums(self, [phase, number, digest(parameters)], self.how.interval)

    # -- files ---------------------------------------------------------------------

    def _write(self, name: str, content: Any) -> None:
        if self.how is None:
            return
        self._lock.check()
        self.folder.make()
        packer = Packer()
        fit = {**self._fit, "seed": self.seed, "id": self.id}
        header = {"fit": fit, "content": packer.pack(content)}
        if isinstance(self.folder, BucketFolder):
            data = packed(self.folder.at(name), header, packer.arrays, KIND)
            self.folder.replace(name, data)
        else:
            write_arrays(self.folder.at(name), header, packer.arrays, kind=KIND)

    def _read(self, name: str) -> Any:
        """The content of a file, None where it is not there or not of this fit."""
        if name not in self.folder.names():
            return None
        path = self.folder.at(name)
        header, arrays = read_arrays(path, KIND)
        try:
            fit = header["fit"]
            if self.seed is None:
                self._check(fit)
                self.seed, self.id = int(fit["seed"]), str(fit["id"])
            if fit["id"] != self.id:
                return None
            return unpack(header["content"], arrays, self._engine)
        except DaskEMError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
            raise ModelFileError(f"{path}: a part of the checkpoint is wrong ({e!r})") from e

    def _read_or_warn(self, name: str, instead: str) -> Any:
        try:
            return self._read(name)
        except ModelFileError as e:
            logger.warning("%s; %s", e, instead)
            return None

    def _read_all(self) -> None:
        self.folder.claim()
        passes = _passes(self.folder)
        for name in reversed(passes):
            if self.progress is None:
                self.progress = self._read_or_warn(name, "going on with the one before it")
        # Before the first there is the survey, from which the start is made again.
        if self.progress is None and passes and passes != ["pass-000000.npz"]:
            raise ModelFileError(f"{self.folder}: no whole checkpoint is left in it; {ANEW}")
        self.survey = self._read_or_warn(SURVEY, "the survey is made again")
        if self.seed is None:
            self._read_or_warn(KEPT, "the pass that was under way is made again")

    def tell(self) -> None:
        """Log what is gone on with."""
        if self.seed is not None:
            made = 0 if self.progress is None else len(self.progress["records"])
            logger.info("resuming from %s: %d passes were made", self.folder, made)

    def _check(self, fit: Mapping[str, Any]) -> None:
        """Raise where the fit that is kept is another one."""
        what = f"{self.folder} keeps the unfinished fit"
        for name, now in self._fit["options"].items():
            before = fit["options"].get(name)
            if before != now:
                raise UsageError(
                    f"{what} of {name}={before!r}, and this one is of {name}={now!r}: give the "
                    f"same, or {ANEW}"
                )
        # What cannot be forced comes first.
        for name, now in sorted(self._fit["data"].items(), key=lambda item: item[0] not in LAYOUT):
            before = fit["data"].get(name)
            if before == now:
                continue
            same = "give the same data"
            if name not in LAYOUT:
                if self.forced:
                    continue
                same += ", pass force=True (--force) where they are"
            raise DataError(
                f"{what} of other data: {name} was {before!r} and is {now!r}; {same}, or {ANEW}"
            )

    def _drop_kept(self) -> None:
        if self.how is not None:
            self.folder.remove([KEPT] if KEPT in self.folder.names() else [])


class CheckpointedSums:
    """Keep partial sums of one pass in a checkpoint: a `PartialSumsStore`."""

    def __init__(self, checkpoint: Checkpoint, which: list[Any], interval: float) -> None:
        self._checkpoint, self._which, self._interval = checkpoint, which, interval
        self._last = time.monotonic()

    def recall(self) -> Mapping[Node, Any]:
        """Return the sums of whole nodes that an earlier process kept of this pass."""
        found = self._checkpoint._read_or_warn(KEPT, "the pass is made again")
        if found is None or found["pass"] != self._which or self._checkpoint.forced:
            return {}
        logger.info("going on within %s pass %d", *self._which[:2])
        return dict(found["sums"])

    def due(self) -> bool:
        """Tell whether it is time to keep again."""
        return time.monotonic() - self._last >= self._interval

    def keep(self, sums: Mapping[Node, Any]) -> None:
        """Keep these in place of those kept before."""
        self._checkpoint._write(KEPT, {"pass": self._which, "sums": list(sums.items())})
        self._last = time.monotonic()


def is_kept(path: str | os.PathLike[str]) -> bool:
    """Whether anything of an unfinished fit is in a folder."""
    return bool(folder_at(path).names())


def remove_checkpoint(path: str | os.PathLike[str]) -> None:
    """Remove the folder of an unfinished fit, and nothing else.

    Raises
    ------
    UsageError
        Other things are in the folder, too.
    """
    folder = folder_at(path)
    folder.claim()
    # The newest goes last.
    folder.remove([*({KEPT, SURVEY} & {*folder.names()}), *_passes(folder)])
    folder.claim()
    others = ", ".join(folder.names()[:5])
    if others:
        raise UsageError(f"{folder}: holds {others}, which is no part of a checkpoint")


def _passes(folder: Folder) -> list[str]:
    """Files of what was known after a pass, the newest last."""
    return [name for name in folder.names() if fnmatch(name, PASSES)]
