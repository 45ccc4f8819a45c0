"""Predictions for every row: a pass that writes them where they are wanted, range by range.

A region is a range of chunks. Its marker is written after its files and their folders were
synced to the disk, so what a marker stands for outlives a power failure, and a job that was
interrupted goes on with the regions that have none. `zarr_answers` writes arrays beside each
other in a group, `parquet_answers` one file a region.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ...core.additive import Additive, Array
from ...core.executor import ThreadPool
from ...core.protocols import Fold, Pass
from ...core.scoring import NO_LABEL, n_unanswered
from ..folders import Folder


class RegionWriter(Protocol):
    """Write the answers of one region, chunk by chunk."""

    def write(self, rows: slice, values: Mapping[str, Array]) -> None:
        """Write the answers of a chunk, which holds these rows."""

    def finish(self) -> None:
        """Bring all that was written to the disk."""


class Answers(Protocol):
    """Take the answers of a pass, each region in files of its own; picklable."""

    def files(self, chunks: range) -> Iterable[str]:
        """Return the names, below the destination, of all files of a region."""

    def writer(self, first: int) -> RegionWriter:
        """Begin with the region whose first chunk this is."""


A_co = TypeVar("A_co", bound=Answers, covariant=True)


class AnswerFormat(Protocol[A_co]):
    """Make the place for answers, and open it."""

    def create(self, path: Path | str) -> None:
        """Make it, empty, at a path or URL."""

    def open(self, path: Path | str) -> A_co:
        """Open it for writing."""


@dataclass(frozen=True)
class Regions:
    """Ranges of chunks, each with a marker once its predictions are stored.

    Attributes
    ----------
    folder : Folder
        Of the markers.
    stamps : mapping of range to str
        Every region, with the stamp of its rows before the pass (`source_stamps`).
    """

    folder: Folder
    stamps: Mapping[range, str]

    def mark(self, chunks: range, n_dropped: int) -> None:
        """Mark the predictions of `chunks`, of which so many rows have none, as stored."""
        self.folder.write(f"{self._marker(chunks)}-{n_dropped}", b"")

    def marked(self) -> dict[range, int]:
        """Return the regions that are stored and whose source has not been touched since.

        With each comes the number of its rows that have no prediction. Where a source has no
        stamps nobody knows, and none is.
        """
        found = dict(name.rpartition("-")[::2] for name in self.folder.names())
        return {
            chunks: int(found[marker])
            for chunks, stamp in self.stamps.items()
            if stamp and (marker := self._marker(chunks)) in found
        }

    def _marker(self, chunks: range) -> str:
        return f"{chunks.start}-{chunks.stop}-{self.stamps[chunks] or 'unknown'}"


@dataclass(frozen=True)
class Written(Additive):
    """Number of rows written, and of those that have no prediction."""

    n_rows: int
    n_dropped: int


@dataclass(frozen=True)
class WritePredictions(Pass[Written]):
    """The pass that writes predictions for every row.

    No two tasks write the same file, and a task that runs twice writes the same bytes twice.

    Attributes
    ----------
    predict : callable
        Rows (n, d) -> a dict of arrays that begin with axis n.
    bounds : (n_chunks + 1,) array
        First row of each chunk of the source.
    answers : Answers
        Where they go.
    regions : Regions
        Where it is noted that a range is done.
    no_label : int
        The label of a row without an answer.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from dask_em.storage.folders import DiskFolder
    >>> from dask_em.storage.outputs.zarr_answers import ZarrFormat
    >>> def predict(X):
    ...     return {"total": X.sum(axis=1)}
    >>> format = ZarrFormat(n_rows=3, rows=3, kinds={"total": (None, float)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     format.create(Path(folder, "out"))
    ...     answers = format.open(Path(folder, "out"))
    ...     regions = Regions(DiskFolder(Path(folder)), {range(1): "of now"})
    ...     fold = WritePredictions(predict, np.array([0, 3]), answers, regions).fold()
    ...     fold.update(0, np.ones((3, 2)), None)
    ...     fold.result().n_rows, regions.marked(), answers.outputs["total"][:].tolist()
    (3, {range(0, 1): 0}, [2.0, 2.0, 2.0])
    """

    predict: Callable[[Array], dict[str, Array]]
    bounds: Array
    answers: Answers
    regions: Regions
    no_label: int = NO_LABEL

    def fold(self) -> PredictionWriter:
        """Return the writer of one range, before its first chunk."""
        return PredictionWriter(self)


class PredictionWriter(Fold[Written]):
    """Write the predictions of chunks as they come, and mark their region at the end.

    Those of one chunk are written by another thread while the next ones are computed.
    """

    def __init__(self, work: WritePredictions) -> None:
        self.work = work
        self._writer: RegionWriter | None = None
        self._writing: Future[None] | None = None
        self._written: list[int] = []
        self._n_rows = self._n_dropped = 0

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Write the predictions of chunk number `index`; one without rows has them already."""
        if len(X) == 0:
            return
        if self._writer is None:
            self._writer = self.work.answers.writer(index)
        rows = slice(int(self.work.bounds[index]), int(self.work.bounds[index + 1]))
        answers = self.work.predict(X)
        self._wait()
        # The thread ends with what it writes: a region may be given up between two chunks.
        pool = ThreadPool(1, thread_name_prefix="write-behind")
        self._writing = pool.submit(self._writer.write, rows, answers)
        pool.shutdown(wait=False)
        self._n_dropped += n_unanswered(answers, self.work.no_label)
        self._written.append(index)
        self._n_rows += len(X)

    def _wait(self) -> None:
        """Wait until what was computed is written, or raise what kept it from being."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def abandon(self) -> None:
        """Let nothing be written once the error is known that ended the range."""
        if self._writing is not None:
            self._writing.exception()

    def result(self) -> Written:
        """Bring all that was written to the disk, mark the region, and count its rows."""
        self._wait()
        if self._writer is not None:
            self._writer.finish()
            region = range(self._written[0], self._written[-1] + 1)
            self.work.regions.mark(region, self._n_dropped)
        return Written(self._n_rows, self._n_dropped)
