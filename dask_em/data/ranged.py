"""Rows that are stored in groups and read by their numbers: cut into chunks, held to a log.

What reads one kind of files says where its groups begin and fills arrays with rows. All else of
a source is the same for all of them, and here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol, Self

import numpy as np

from ..core.additive import Array
from ..core.beside import NOTHING, Beside
from ..core.chunk_log import ChunkLog
from ..core.columns import Column, no_columns
from ..core.finite import NOWHERE
from ..core.protocols import Block, CarriedColumns, Reader, RowValues, StoredSource
from ..core.ranges import even_bounds, even_ranges
from ..core.tuning import tuning
from ..errors import DataError
from .identity import layout_identity, sha256_of
from .options import ReadOptions
from .zarr.fingerprints import fingerprint


class RowsReader(Protocol):
    """Read rows by their numbers, mostly one after the other."""

    def read(self, start: int, out: Array) -> Array | None:
        """Fill `out` (n, d) with the rows from `start` on.

        Returns
        -------
        array or None
            Their weights (n,), where the files hold some.

        Raises
        ------
        DataError
            They are missing, damaged, or cannot be used as numbers.
        """

    def close(self) -> None:
        """Give up what was opened."""


class StoredRows(Protocol):
    """Rows of files: what they are, where they lie, and how they are read; picklable."""

    @property
    def n_features(self) -> int:
        """Columns."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers, as they are read."""

    @property
    def columns(self) -> Sequence[Column] | None:
        """Names and kinds of the columns, None where they have no names."""

    @property
    def groups(self) -> Array:
        """First row of each group that is decoded from its beginning, and the number of rows."""

    @property
    def weight_name(self) -> str:
        """Name of the column of weights, empty where there is none."""

    @property
    def description(self) -> str:
        """Name for people; never a credential."""

    @property
    def library_bytes(self) -> int:
        """Bytes of the libraries that a worker imports for them."""

    @property
    def lacks_checksum(self) -> str:
        """Say what to do where flipped bits would pass for data; empty where none would."""

    @property
    def layout_advice(self) -> str:
        """Say what it costs where rows lie in groups that are very small or very large."""

    def decoding_bytes(self, chunk_rows: int) -> int:
        """Count what reading takes beside an array of so many rows."""

    def open(self) -> RowsReader:
        """Open the files for one range."""

    def check(self) -> None:
        """Raise `DataError` where files are gone, or are not what was opened."""

    def presence(self) -> str:
        """Say how many files there are, when they were checked to be there."""

    def place(self, row: int) -> str:
        """Say where a row lies, after its number."""

    def stamps(self, spans: Sequence[tuple[int, int]]) -> list[str]:
        """Return what tells whether somebody wrote to these spans of rows since."""

    def carried(self, names: Sequence[str]) -> CarriedColumns:
        """Return columns to be carried beside the answers."""


class Described(Protocol):
    """Whatever has a name for people."""

    @property
    def description(self) -> str:
        """Name for people; never a credential."""


class NothingCarried:
    """The part of `StoredRows` of those that have no columns beside their numbers."""

    def carried(self: Described, names: Sequence[str]) -> CarriedColumns:
        """Raise `DataError`: there is nothing to be carried."""
        raise no_columns(self.description, names)


@dataclass(frozen=True)
class RangedSource(StoredSource):
    """Cut stored rows into chunks of whole groups, several where they are small.

    A group that is larger than what is read at once is read in parts, by one task: it is decoded
    from its beginning.

    Attributes
    ----------
    rows : StoredRows
    memory_weight : array or None
        One weight a row; it stays with the caller and travels by range.
    read_bytes : int
        Small groups are read together up to this size, and large ones in parts of it.
    options : ReadOptions
    cuts : array of int or None
        First row of each chunk, and the number of rows, where they are not cut by groups.
    expected : (n_chunks,) array or None
        The fingerprint that each chunk must have: that of a first pass.
    dropping : frozenset of int
        Chunks whose rows of NaN or infinity are left out.
    n_dropped : int
        Such rows, as a first pass counted them.
    missing : tuple of bool
        In which columns NaN is a value that is missing, for which no row is left out.
    skipped : sequence of range
        Chunks that are read as no rows, because whatever is done with them is done.
    beside : Beside
        What else stands beside the rows; it stays with the caller, as weights do.
    """

    rows: StoredRows
    memory_weight: Array | None = None
    read_bytes: int = field(default_factory=lambda: tuning().reading.bytes)
    options: ReadOptions = field(default_factory=ReadOptions)
    cuts: Array | None = None
    expected: Array | None = None
    dropping: frozenset[int] = frozenset()
    n_dropped: int = 0
    missing: tuple[bool, ...] = NOWHERE
    skipped: Sequence[range] = ()
    beside: Beside = NOTHING

    def __reduce__(self) -> tuple[Any, ...]:
        # Whoever receives the source must cut it in the same places. Weights in memory stay, and
        # what else stands beside the rows.
        stay = {"memory_weight": None, "beside": NOTHING}
        values = {f.name: getattr(self, f.name) for f in fields(self)} | stay
        return (type(self), tuple(values.values()))

    # -- what it is ----------------------------------------------------------------------

    @property
    def n_rows(self) -> int:
        return int(self.rows.groups[-1])

    @property
    def n_features(self) -> int:
        return self.rows.n_features

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.rows.dtype

    @property
    def columns(self) -> Sequence[Column] | None:
        return self.rows.columns

    @property
    def description(self) -> str:
        return self.rows.description

    @property
    def weighted(self) -> bool:
        """Whether rows have weights."""
        return bool(self.rows.weight_name) or self.memory_weight is not None

    @property
    def drops(self) -> bool:
        """Whether rows of NaN or infinity are left out."""
        return self.options.nonfinite == "drop"

    def identity(self) -> dict[str, object]:
        """Return what tells the data from others, by their place, for JSON."""
        weight: str | None = self.rows.weight_name or None
        if self.memory_weight is not None:
            weight = sha256_of(self.memory_weight)
        known = {**layout_identity(self, self.bounds), "sample_weight": weight}
        if self.columns is not None:
            known["columns"] = [column.name for column in self.columns]
        return known | self.beside.identity()

    def locate(self, chunk: int, row: int) -> str:
        """Say which row of the data a chunk's row is, and of which file."""
        number = int(self.bounds[chunk]) + row
        return f"row {number}{self.rows.place(number)}"

    # -- how it is cut -------------------------------------------------------------------

    @cached_property
    def bounds(self) -> Array:
        """First row of each chunk, and the number of rows, (n_chunks + 1,)."""
        if self.cuts is not None:
            return self.cuts
        row_bytes = max(1, self.n_features * self.dtype.itemsize)
        return cut_groups(self.rows.groups, max(1, self.read_bytes // row_bytes))

    @property
    def n_chunks(self) -> int:
        return len(self.bounds) - 1

    @cached_property
    def chunk_rows(self) -> int:
        """Rows of the largest chunk."""
        return int(np.diff(self.bounds).max())

    @property
    def stored_rows(self) -> int:
        """Rows of an even chunk."""
        return self.chunk_rows

    @cached_property
    def _joints(self) -> Array:
        """Numbers of the chunks at which a range may begin, and the number of chunks.

        Those with which, or within which, a group begins: a group is mostly decoded by one task.
        """
        return np.unique(np.searchsorted(self.bounds, self.rows.groups))

    def ranges(self) -> list[range]:
        """Return groups of whole neighbouring chunks, of whole groups of rows."""
        joints = self._joints
        parts = even_ranges(len(joints) - 1)
        return [range(int(joints[part.start]), int(joints[part.stop])) for part in parts]

    def rows_of(self, chunks: range) -> int:
        """Return the number of rows in these chunks."""
        return int(self.bounds[chunks.stop] - self.bounds[chunks.start])

    def even(self) -> Self:
        """Return the same rows, cut so that all chunks but the last have as many."""
        lengths = np.diff(self.bounds)
        if (lengths[:-1] == lengths[0]).all() and lengths[-1] <= lengths[0]:
            return self
        return replace(self, cuts=even_bounds(self.n_rows, self.chunk_rows))

    def skipping(self, chunks: Sequence[range]) -> Self:
        """Return the same chunks in the same ranges, of which some are read as no rows."""
        return replace(self, skipped=tuple(chunks))

    # -- how it is read ------------------------------------------------------------------

    def reader(self) -> Reader:
        """Open the source for one range."""
        return RangedReader(self)

    @property
    def held_bytes(self) -> int:
        """Bytes of rows and weights that a task holds, with those being read."""
        held = min(2, max(map(len, self.ranges())))
        chunk = self.chunk_rows * self.n_features * self.dtype.itemsize
        # A chunk that rows are left out of is copied.
        copied = chunk * int(bool(self.dropping) or self.drops)
        weights = 8 * self.chunk_rows * held * int(bool(self.rows.weight_name))
        beside = self.beside.row_bytes(self.n_features * self.dtype.itemsize) * self.chunk_rows
        return held * chunk + copied + weights + beside + self.rows.decoding_bytes(self.chunk_rows)

    @property
    def shipped_bytes(self) -> int:
        """Bytes of the weights in memory, and of what else stands beside the rows."""
        return self.beside.shipped_bytes + (
            0 if self.memory_weight is None else int(self.memory_weight.nbytes)
        )

    @property
    def library_bytes(self) -> int:
        """Bytes of the libraries that a worker imports for these rows."""
        return self.rows.library_bytes

    def shipped_weights(self, chunks: range) -> Array | None:
        """Return the weights in memory of these chunks."""
        if self.memory_weight is None:
            return None
        return self.memory_weight[self.bounds[chunks.start] : self.bounds[chunks.stop]]

    def with_beside(self, beside: Beside) -> Self:
        """Return the same rows with this beside them."""
        return replace(self, beside=beside)

    def shipped_beside(self, chunks: range) -> Beside:
        """Return what stands beside these chunks."""
        return self.beside.of_rows(int(self.bounds[chunks.start]), int(self.bounds[chunks.stop]))

    def map_rows(
        self, function: Callable[[Array], Array], width: int | None, dtype: np.dtype[Any]
    ) -> RowValues:
        """Compute a function of all rows, lazily: a block is what one task decodes."""
        from .lazy import map_chunks

        blocks = replace(self, cuts=self.bounds[self._joints])
        lengths = np.diff(blocks.bounds).tolist()
        return map_chunks(blocks, lengths, lengths, function, width, dtype)

    # -- whether it is what it was -------------------------------------------------------

    @property
    def lacks_checksum(self) -> str:
        """Say what to do where flipped bits would pass for data; empty where none would."""
        return self.rows.lacks_checksum

    def check(self) -> None:
        """Look whether all files are there, and are those that were opened."""
        self.rows.check()

    def presence(self) -> str:
        """Say how many files there are, when they were checked to be there."""
        return self.rows.presence()

    def storage_notes(self) -> str:
        """Say what it costs where rows lie in groups that are very small or very large."""
        return self.rows.layout_advice

    def held_to(self, log: ChunkLog, forced: bool = False) -> Self:
        """Return the same rows without those that were dropped, and hold chunks to the log."""
        return replace(
            self,
            expected=None if forced else log.in_order(),
            dropping=log.dropping,
            n_dropped=log.n_dropped,
            missing=log.missing,
        )

    def stamps(self) -> dict[range, str]:
        """Return what tells of each range whether somebody wrote to it since."""
        parts = self.ranges()
        spans = [(int(self.bounds[p.start]), int(self.bounds[p.stop])) for p in parts]
        return dict(zip(parts, self.rows.stamps(spans), strict=True))

    def stamp_of(self, n_rows: int) -> str:
        """Return the stamp of the files of the first rows, where these are whole groups."""
        return self.rows.stamps([(0, n_rows)])[0] if n_rows in self.rows.groups[1:] else ""

    def carried(self, names: Sequence[str]) -> CarriedColumns:
        """Return columns to be carried beside the answers."""
        return self.rows.carried(names)


class RangedReader(Reader):
    """Read chunks of stored rows, and hold them to what they must be."""

    def __init__(self, source: RangedSource) -> None:
        self.fingerprints: dict[int, int] = {}
        self._source, self._rows = source, source.rows.open()
        self._buffers: list[Array | None] = [None, None]

    def blocks(self, chunk: int, block_rows: int = 0) -> Iterator[Block]:
        """Yield the rows and weights of a chunk, when they are all there and sound."""
        source = self._source
        if any(chunk in chunks for chunks in source.skipped):
            yield np.empty((0, source.n_features), dtype=source.dtype), None
            return
        start, stop = int(source.bounds[chunk]), int(source.bounds[chunk + 1])
        X = self._buffer(stop - start)
        weight = self._rows.read(start, X)
        stored = 0 if weight is None else fingerprint(weight)
        self._log(chunk, fingerprint(X) | stored << 32)
        if weight is None and source.memory_weight is not None:
            weight = source.memory_weight[start:stop]
        yield X, weight

    def close(self) -> None:
        """Close the files, and give up the rows."""
        self._rows.close()
        self._buffers = [None, None]

    def _buffer(self, n: int) -> Array:
        """One of two arrays in turn, so that a chunk stays while the next is read."""
        source = self._source
        spare, last = self._buffers
        if spare is None:
            spare = np.empty((min(source.chunk_rows, source.n_rows), source.n_features),
                             dtype=source.dtype)  # fmt: skip
        self._buffers = [last, spare]
        return spare[:n]

    def _log(self, chunk: int, found: int) -> None:
        """Log the fingerprint of a chunk, and compare it to that of the first pass."""
        self.fingerprints[chunk] = found
        source = self._source
        if source.expected is None or found == int(source.expected[chunk]):
            return
        start, stop = int(source.bounds[chunk]), int(source.bounds[chunk + 1])
        of_rows = (found ^ int(source.expected[chunk])) % 2**32
        what = "are other numbers" if of_rows else "have other weights"
        raise DataError(
            f"{source.description} changed since the first pass read it: rows {start} to "
            f"{stop - 1}{source.rows.place(start)} {what} now; fit again when nobody writes there"
        )


def cut_groups(groups: Array, most: int) -> Array:
    """Cut groups of rows into chunks of `most` rows, or fewer: several together, or parts of one.

    Parameters
    ----------
    groups : array of int
        First row of each group, and the number of rows.
    most : int

    Examples
    --------
    >>> cut_groups(np.array([0, 3, 6, 9, 10, 30]), most=7)
    array([ 0,  6, 10, 17, 24, 30])
    """
    bounds, begun = [0], 0
    for start, stop in pairwise(groups.tolist()):
        if start > begun and stop - begun > most:
            bounds.append(start)
            begun = start
        if stop - start > most:
            parts = -(-(stop - start) // most)
            size = -(-(stop - start) // parts)
            bounds += [*range(start + size, stop, size), stop]
            begun = stop
    return np.array(bounds if bounds[-1] == groups[-1] else [*bounds, int(groups[-1])])
