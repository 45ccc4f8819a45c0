"""Keep an unfinished fit in a folder, in which it goes on where it was killed, to the same bits.

The folder lies on a disk or in an object store:

    PATH/survey.npz         what the survey found, with the sample: written once
         pass-000012.npz    all that the fit knew after pass 12; the last two are kept
         partial-sums.npz   sums of whole parts of the pass that was under way

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
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import Any, Generic, Self, TypeVar

from ..core.codec import Packer, digest, record, unpack
from ..core.engine import Engine
from ..core.reduction import Node
from ..errors import DataError, ModelFileError, UsageError
from .folders import Folder, folder_at
from .locks import locked
from .npz import FormatError, file_writer, read_arrays

logger = logging.getLogger("dask_em")

V = TypeVar("V")
"""The record of what the survey found."""

P = TypeVar("P")
"""The record of what a fit knows after a pass."""

T = TypeVar("T")

KIND = "dask_em checkpoint"

SURVEY, PARTIAL_SUMS, PASSES = "survey.npz", "partial-sums.npz", "pass-??????.npz"

# The partial sums of dask_em 0.1.0, which are removed but not read.
FORMER = "kept.npz"

GENERATIONS = 2

# Whatever is of these must be the same even where other data are allowed: places in the
# data are counted in chunks, and sums have the shape of the columns.
LAYOUT = ("columns_beside", "shape", "dtype", "chunks")

ANEW = "pass resume=False to throw it away and start anew"


@dataclass(frozen=True)
class Checkpointing:
    """Say where and how often a fit keeps what it needs to go on after it was killed.

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

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> model = GaussianMixture(8, checkpoint=Checkpointing("fit.checkpoint", interval=60))
    """

    path: str | os.PathLike[str]
    resume: bool = True
    force: bool = False
    interval: float = 300.0


@record("partial-sums")
@dataclass(frozen=True)
class _SumsOfPass:
    """Sums of whole nodes of one pass, whose phase, number and digest of parameters are named."""

    phase: str
    number: int
    parameters: str
    sums: tuple[tuple[Node, Any], ...]


class Checkpoint(Generic[V, P]):
    """An unfinished fit in its folder; without a folder nothing is kept.

    It is opened by `with`: while the block runs nobody else fits there. What is kept are
    registered records (`core.codec.record`) of two classes that the caller chooses.

    Parameters
    ----------
    how : Checkpointing, path or None
    options, data : mapping
        All that the bits of the fit depend on, as JSON holds it.
    engine : Engine
        What computes.
    survey_type, progress_type : type
        Of what the survey found, and of what the fit knows after a pass.

    Attributes
    ----------
    id : str
        Of the fit that is kept, or of one that begins: no other has the same.
    identity : str
        sha256 of the options and the data.
    seed : int or None
        Of the fit that is kept.
    survey : survey_type or None
        What its survey found.
    progress : progress_type or None
        What it knew after its last pass.

    Raises
    ------
    LockedError
        Another job fits there.
    UsageError, DataError
        The fit that is kept there is of other options, or of other data.
    ModelFileError
        What is kept there is damaged, or was written by another version of dask_em.

    Examples
    --------
    >>> import tempfile
    >>> from dask_em.core.engine import NUMPY
    >>> from dask_em.core.moments import Moments
    >>> import numpy as np
    >>> found = Moments.unit(2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for seed in (7, 8):
    ...         with Checkpoint(folder, {"k": 3}, {}, NUMPY, Moments, Moments) as kept:
    ...             kept.begin(seed), kept.survey is None
    ...             kept.keep_survey(found)
    (7, True)
    (7, False)
    """

    def __init__(
        self,
        how: Checkpointing | str | os.PathLike[str] | None,
        options: Mapping[str, Any],
        data: Mapping[str, Any],
        engine: Engine,
        survey_type: type[V],
        progress_type: type[P],
    ) -> None:
        self.how = Checkpointing(how) if isinstance(how, str | os.PathLike) else how
        self.id = uuid.uuid4().hex
        self.seed: int | None = None
        self.survey: V | None = None
        self.progress: P | None = None
        self._survey_type, self._progress_type = survey_type, progress_type
        self._engine, self._held = engine, ExitStack()
        self._n_passes = 0
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
        """Return whether the data may be others than those that were read before."""
        return self.how is not None and self.how.force

    # -- what is kept --------------------------------------------------------------

    def begin(self, seed: int) -> int:
        """Return the seed of the fit that is kept, or `seed` for one that begins."""
        if self.seed is None:
            self.seed = seed
        return self.seed

    def keep_survey(self, found: V) -> None:
        """Keep what the survey found."""
        self._write(SURVEY, found)
        self._drop_partial_sums()

    def commit(self, progress: P, number: int) -> None:
        """Keep all that the fit knows after another pass.

        Parameters
        ----------
        progress : progress_type
        number : int
            Of the pass, counted from zero, the survey.
        """
        if self.how is None:
            return
        self._write(f"pass-{number:06d}.npz", progress)
        self.folder.remove(_passes(self.folder)[:-GENERATIONS])
        self._drop_partial_sums()

    def check_survey(self, before: str, now: str) -> None:
        """Raise `DataError` where the survey was made again and its fingerprint is another."""
        if before != now and not self.forced:
            raise DataError(
                f"{self.folder} keeps the unfinished fit of other data: what their survey summed "
                f"differs; give the same data, pass force=True, or {ANEW}"
            )

    def sign(self, provenance: dict[str, Any]) -> None:
        """Add to a model's provenance the ID of the fit, where it is kept."""
        if self.how is not None:
            provenance["fit"] = {"id": self.id, "identity": self.identity}

    def partial_sums(
        self, phase: str, number: int, parameters: Any = None
    ) -> CheckpointedSums | None:
        """Return the store of an unfinished pass's sums at these parameters, None without one."""
        if self.how is None:
            return None
        return CheckpointedSums(self, phase, number, digest(parameters), self.how.interval)

    def log_resumed(self) -> None:
        """Log what is gone on with."""
        if self.seed is not None:
            logger.info("resuming from %s: %d passes were made", self.folder, self._n_passes)

    # -- files ---------------------------------------------------------------------

    def _write(self, name: str, content: object) -> None:
        if self.how is None:
            return
        self._lock.check()
        self.folder.make()
        packer = Packer()
        fit = {**self._fit, "seed": self.seed, "id": self.id}
        header = {"fit": fit, "content": packer.pack(content)}
        write = file_writer(self.folder.at(name), header, packer.arrays, KIND)
        self.folder.replace(name, write)

    def _read(self, name: str, kind: type[T]) -> T | None:
        """Return the content of a file, None where it is not there or not of this fit."""
        if name not in self.folder.names():
            return None
        path = self.folder.at(name)
        try:
            header, arrays = read_arrays(path, KIND)
        except FormatError as e:
            raise FormatError(f"{e}, or {ANEW}") from None
        try:
            fit = header["fit"]
            options, data = {**fit["options"]}, {**fit["data"]}
            seed, fit_id = int(fit["seed"]), str(fit["id"])
            content = header["content"]
        except (KeyError, TypeError, ValueError) as e:
            raise ModelFileError(f"{path}: a part of the checkpoint is wrong ({e!r})") from e
        if self.seed is None:
            self._check(options, data)
            self.seed, self.id = seed, fit_id
        if fit_id != self.id:
            return None
        try:
            found = unpack(content, arrays, self._engine)
            if not isinstance(found, kind):
                raise ValueError(f"{type(found).__name__}, expected {kind.__name__}")
        except (TypeError, ValueError) as e:
            # The checksum is right, so this is no damage.
            raise FormatError(
                f"{path}: written by another version of dask_em ({e}): go on with that one, or "
                f"{ANEW}"
            ) from e
        return found

    def _read_or_warn(self, name: str, kind: type[T], instead: str) -> T | None:
        try:
            return self._read(name, kind)
        except FormatError:
            raise
        except ModelFileError as e:
            logger.warning("%s; %s", e, instead)
            return None

    def _read_all(self) -> None:
        self.folder.claim()
        passes = _passes(self.folder)
        for name in reversed(passes):
            if self.progress is None:
                instead = "going on with the one before it"
                self.progress = self._read_or_warn(name, self._progress_type, instead)
                self._n_passes = int(name[5:11]) + 1
        if self.progress is None:
            self._n_passes = 0
            # Before the first there is the survey, from which the start is made again.
            if passes and passes != ["pass-000000.npz"]:
                raise ModelFileError(f"{self.folder}: no whole checkpoint is left in it; {ANEW}")
        self.survey = self._read_or_warn(SURVEY, self._survey_type, "the survey is made again")
        if self.seed is None:
            instead = "the pass that was under way is made again"
            self._read_or_warn(PARTIAL_SUMS, _SumsOfPass, instead)

    def _check(self, options: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Raise where the fit that is kept is one of other options or data."""
        what = f"{self.folder} keeps the unfinished fit"
        for name, now in self._fit["options"].items():
            before = options.get(name)
            if before != now:
                raise UsageError(
                    f"{what} of {name}={before!r}, and this one is of {name}={now!r}: give the "
                    f"same, or {ANEW}"
                )
        # What cannot be forced comes first; labels and noise have a name only where there are some.
        names = dict.fromkeys([*self._fit["data"], *data])
        for name in sorted(names, key=lambda name: name not in LAYOUT):
            before, now = data.get(name), self._fit["data"].get(name)
            if before == now:
                continue
            same = "give the same data"
            if name not in LAYOUT:
                if self.forced:
                    continue
                same += ", pass force=True where they are"
            raise DataError(
                f"{what} of other data: {name} was {before!r} and is {now!r}; {same}, or {ANEW}"
            )

    def _drop_partial_sums(self) -> None:
        if self.how is not None:
            self.folder.remove([PARTIAL_SUMS] if PARTIAL_SUMS in self.folder.names() else [])


class CheckpointedSums:
    """Keep partial sums of one pass in a checkpoint every so often: a `PartialSumsStore`."""

    def __init__(
        self,
        checkpoint: Checkpoint[Any, Any],
        phase: str,
        number: int,
        parameters: str,
        interval: float,
    ) -> None:
        self._checkpoint, self._interval = checkpoint, interval
        self._pass = _SumsOfPass(phase, number, parameters, ())
        self._last = time.monotonic()

    def recall(self) -> Mapping[Node, Any]:
        """Return the sums of whole nodes that an earlier process kept of this pass."""
        instead = "the pass is made again"
        found = self._checkpoint._read_or_warn(PARTIAL_SUMS, _SumsOfPass, instead)
        if found is None or replace(found, sums=()) != self._pass or self._checkpoint.forced:
            return {}
        logger.info("going on within %s pass %d", found.phase, found.number)
        return dict(found.sums)

    def due(self) -> bool:
        """Tell whether it is time to keep again."""
        return time.monotonic() - self._last >= self._interval

    def keep(self, sums: Mapping[Node, Any]) -> None:
        """Keep these sums in place of those kept before."""
        self._checkpoint._write(PARTIAL_SUMS, replace(self._pass, sums=tuple(sums.items())))
        self._last = time.monotonic()


def checkpoint_exists(path: str | os.PathLike[str]) -> bool:
    """Return whether anything of an unfinished fit is in a folder.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     before = checkpoint_exists(folder)
    ...     Path(folder, "pass-000000.npz").touch()
    ...     before, checkpoint_exists(folder)
    (False, True)
    """
    return bool(folder_at(path).names())


def remove_checkpoint(path: str | os.PathLike[str]) -> None:
    """Remove the folder of an unfinished fit, and nothing else.

    Raises
    ------
    UsageError
        Other things are in the folder, too.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     folder = Path(parent, "fit.checkpoint")
    ...     folder.mkdir()
    ...     Path(folder, "pass-000000.npz").touch()
    ...     remove_checkpoint(folder)
    ...     folder.exists()
    False
    """
    folder = folder_at(path)
    folder.claim()
    # The newest goes last.
    folder.remove([*({PARTIAL_SUMS, FORMER, SURVEY} & {*folder.names()}), *_passes(folder)])
    folder.claim()
    others = ", ".join(folder.names()[:5])
    if others:
        raise UsageError(f"{folder}: holds {others}, which is no part of a checkpoint")


def _passes(folder: Folder) -> list[str]:
    """Return the files of what was known after a pass, the newest last."""
    return [name for name in folder.names() if fnmatch(name, PASSES)]
