"""The seams between rooms: a pass, the source that it reads, and the backend that makes it.

Each is a typed protocol with whatever can be said once for all as a default: a class that names
the protocol as its base inherits it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from ..errors import DataError
from .additive import Array, S, S_co
from .beside import LABELS, NOISE, NOTHING, Beside
from .chunk_log import ChunkLog
from .columns import Column, no_columns
from .finite import NOWHERE, Missing
from .grid import Coordinate, Grid
from .ranges import even_ranges
from .reduction import Node

T = TypeVar("T")

T_co = TypeVar("T_co", covariant=True)

In = TypeVar("In")

Out = TypeVar("Out")

Advance = Callable[[int], None]
"""Called with the number of rows (or calls) whenever another part of the work is done.

It may be called from another thread, and with a negative number where work was lost.
"""

Block = tuple[Array, Array | None]
"""Rows (n, d), and their weights (n,) where rows have weights."""


# -- a pass ----------------------------------------------------------------------------


class Fold(Protocol[S_co]):
    """Sum something over the chunks of one range: made, fed chunk by chunk, read once.

    Attributes
    ----------
    block_rows : int
        Rows of a block. A chunk may be given in several parts, of which all but the last are
        whole blocks, with the bits of the chunk given at once. 0 where chunks must come whole.
    takes_labels : bool
        Whether labels matter to it, where the source has some.
    """

    block_rows: int = 0
    takes_labels: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes that it holds beside a chunk and the sums that it returns; 0 where they are few."""
        return 0

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add rows X (n, d) of chunk number `index`, with weights (n,)."""

    def begin_labelled(self, width: int) -> None:
        """Be told, before `block_rows` is asked for, that all rows come with labels.

        Of one number a row, or with responsibilities of so many.
        """
        _ = width

    def update_labelled(
        self, index: int, X: Array, sample_weight: Array | None, labels: Array
    ) -> None:
        """Add rows X (n, d) of which labels (n,), or responsibilities (n, k), are known."""
        _ = labels
        self.update(index, X, sample_weight)

    def take_fingerprints(self, fingerprints: Mapping[int, int]) -> None:
        """Take the fingerprint of each chunk that was read, by its number, after the last one."""
        _ = fingerprints

    def abandon(self) -> None:
        """Be told that an error ended the range: no more rows come, and nobody wants the sums."""
        return

    def result(self) -> S_co:
        """Return the sums over all chunks given so far."""


class Pass(Protocol[S_co]):
    """Describe what one pass over the data sums: picklable, and the same for every range."""

    @property
    def result_bytes(self) -> int:
        """Bytes of the sums over any number of chunks, at most; 0 where they are small."""
        return 0

    def fold(self) -> Fold[S_co]:
        """Make a fold that has seen no chunk yet."""


# -- what is read ----------------------------------------------------------------------


class Reader(Protocol):
    """Read chunks of a source, for one range.

    Attributes
    ----------
    fingerprints : mapping of int to int
        Of each chunk that was read to its end, by its number: 32 bits of the rows, and 32 of
        stored weights above them. Empty where a source has none.
    """

    fingerprints: Mapping[int, int]

    def expect(self, chunks: range) -> None:
        """Be told which chunks are asked for from now on, in this order; some may be left out."""
        _ = self, chunks

    def blocks(self, chunk: int, block_rows: int = 0) -> Iterator[Block]:
        """Yield a chunk in parts that are whole blocks (but the last), as they arrive.

        With `block_rows` 0 it is one part. Parts stay as they are until two more chunks were
        begun, or the reader was closed: there may be two buffers, used in turn.

        Raises
        ------
        DataError
            The chunk is missing, damaged, or not what a first pass read. Parts that were
            yielded before are worth nothing then; with `block_rows` 0 there are none.
        """

    def read(self, chunk: int) -> Block:
        """Return a whole chunk."""
        (whole,) = self.blocks(chunk)
        return whole

    def close(self) -> None:
        """Give up buffers, and the rows in them."""
        _ = self


BlockFunction = Callable[[int, Array, Array | None, Array | None, T], Out]
"""Of a chunk's number, its rows (n, d), weights (n,) and labels, and what all chunks share."""


@dataclass(frozen=True)
class DelayedBlocks:
    """The tasks of a graph that compute something of each chunk.

    Attributes
    ----------
    graph : mapping
        Of Dask.
    keys : sequence of key
        Those of the results, one a chunk in order.
    n_rows : sequence of int
        Of each chunk, 0 where unknown.

    Examples
    --------
    >>> import dask
    >>> blocks = DelayedBlocks({("sum", 0): (sum, [1, 2])}, [("sum", 0)], [2])
    >>> list(dask.get(blocks.graph, blocks.keys))
    [3]
    """

    graph: Mapping[Hashable, Any]
    keys: Sequence[Hashable]
    n_rows: Sequence[int]


class RowValues(Protocol):
    """Values for every row: a NumPy array, or a Dask array that is computed later."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""

    @property
    def ndim(self) -> int:
        """One or two."""


class Source(Protocol):
    """Rows in numbered chunks, cut in the same places whoever reads them.

    A source of stored rows, or rows in memory, is read by its `reader`. One whose chunks are
    results of a graph of tasks gives that graph by `delayed_blocks`, too.
    """

    @property
    def n_rows(self) -> int | None:
        """Rows, None where nobody knows before reading them."""

    @property
    def n_features(self) -> int:
        """Columns."""

    @property
    def columns(self) -> Sequence[Column] | None:
        """Names and kinds of the columns, None where they have no names."""
        return None

    @property
    def grid(self) -> Grid | None:
        """The grid whose cells are the rows: its blocks are the chunks. None where there is none.

        Of rows in memory it is one block, whatever the chunks.
        """
        return None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""

    @property
    def n_chunks(self) -> int:
        """Number of chunks."""

    @property
    def description(self) -> str:
        """Name for people; never a credential."""

    @property
    def first_row(self) -> int:
        """Number of the first row among those that are stored: 0 but where only later ones are."""
        return 0

    @property
    def decoding(self) -> str:
        """How stored numbers become the rows, for people; empty where they are the rows."""
        return ""

    @property
    def nbytes(self) -> int:
        """Decoded bytes of one pass, 0 where unknown."""
        return 0 if self.n_rows is None else self.n_rows * self.n_features * self.dtype.itemsize

    @property
    def chunk_rows(self) -> int:
        """Rows of the largest chunk, 0 where unknown."""
        return 0

    @property
    def weighted(self) -> bool:
        """Whether rows have weights."""
        return False

    @property
    def held_bytes(self) -> int:
        """Bytes of rows and weights that a task holds, with those being read; 0 where unknown."""
        return 0

    @property
    def kept_bytes(self) -> int:
        """Bytes of buffers that a worker's thread keeps from one task to the next."""
        return 0

    @property
    def shipped_bytes(self) -> int:
        """Bytes in this process's memory that the workers are sent."""
        return 0

    @property
    def library_bytes(self) -> int:
        """Bytes of the libraries that a worker imports for these rows, beside those of all."""
        return 0

    @property
    def in_process(self) -> bool:
        """True where the rows lie in this process's memory, so that others cannot read them."""
        return False

    @property
    def read_ahead(self) -> int:
        """Chunks that are read at once while one is summed."""
        return 1

    @property
    def dropping(self) -> frozenset[int]:
        """Chunks whose rows of NaN or infinity whoever reads them leaves out."""
        return frozenset()

    @property
    def missing(self) -> Missing:
        """In which columns NaN is a value that is missing, for which no row is left out."""
        return NOWHERE

    @property
    def n_dropped(self) -> int:
        """Rows of NaN or infinity that are left out, as a first pass counted them."""
        return 0

    def ranges(self) -> list[range]:
        """Return groups of whole neighbouring chunks, by the data alone: one task each."""
        return even_ranges(self.n_chunks)

    def rows_of(self, chunks: range) -> int:
        """Return the number of rows in these chunks, 0 where unknown."""

    def reader(self) -> Reader:
        """Open the source for one range."""

    def shipped_weights(self, chunks: range) -> Array | None:
        """Return the weights (n,) of these chunks that a reader elsewhere must be given."""
        _ = chunks
        return None

    @property
    def beside(self) -> Beside:
        """Labels and noise that stand beside the rows, where there are some."""
        return NOTHING

    def with_beside(self, beside: Beside) -> Self:
        """Return the same rows with this beside them, in place of what is there.

        Raises
        ------
        DataError
            Rows of this kind cannot have anything beside them.
        """
        if not beside:
            return self
        name = LABELS if beside.labels is not None else NOISE
        raise DataError(
            f"{name}: nothing is brought beside the rows of {self.description}; give rows in "
            "memory, or of Zarr, Parquet, .npy or Dask"
        )

    def shipped_beside(self, chunks: range) -> Beside:
        """Return what stands beside these chunks, for a reader elsewhere."""
        _ = chunks
        return NOTHING

    def delayed_blocks(
        self, function: BlockFunction[T, Any], shared: T, name: str
    ) -> DelayedBlocks | None:
        """Make the tasks that call `function` on each chunk where another task makes it.

        Parameters
        ----------
        function : callable
            (index, rows, weights, labels, shared) -> anything.
        shared : object
            It is in the graph once.
        name : str
            Part of every key, and in no other graph.

        Returns
        -------
        DelayedBlocks or None
            None where the chunks are read by `reader`.
        """
        _ = function, shared, name
        return None

    def map_rows(
        self, function: Callable[[Array], Array], width: int | None, dtype: np.dtype[Any]
    ) -> RowValues:
        """Compute a function of all rows: at once where they are in memory, else lazily.

        Parameters
        ----------
        function : callable
            Rows (n, d) -> (n,), or (n, width).
        width : int or None
        dtype : dtype
            Of what `function` returns.
        """

    def check(self) -> None:
        """Look for what is wrong with the stored data, as far as that costs no reading.

        Raises
        ------
        DataError
            Chunks are missing, or the data are not what was opened.
        """
        _ = self

    def kept_beside(self, kind: type[T]) -> T | None:
        """Return a record of that class that is kept beside the rows; None where none is."""
        _ = kind
        return None

    def unchanged_since(self, log: ChunkLog) -> bool:
        """Tell without reading the rows that they are those of a log; False where nobody can."""
        _ = log
        return False

    def stamp_of(self, n_rows: int) -> str:
        """Return what tells, without reading, whether the first rows are as they were.

        Rows that are appended change nothing of it. Empty where nobody can tell.
        """
        _ = n_rows
        return ""

    def held_to(self, log: ChunkLog, forced: bool = False) -> Self:
        """Return the same rows without those that a first pass dropped.

        A chunk that is not what that pass read is an error from now on, unless `forced`.
        """

    def identity(self) -> dict[str, object]:
        """Return what tells the data from others without reading what is stored, for JSON."""

    def locate(self, chunk: int, row: int) -> str:
        """Say which row of the data a chunk's row is, for a message."""


class ArrowStream(Protocol):
    """A table of any library that others take by the Arrow PyCapsule interface."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return a capsule of a stream of Arrow."""


class CarriedReader(Protocol):
    """Read columns that go with the answers, beside the rows themselves."""

    def read(self, start: int, stop: int) -> ArrowStream:
        """Return the columns of rows `start` to `stop - 1`, which are asked for in order."""

    def close(self) -> None:
        """Give up what was opened."""


class CarriedColumns(Protocol):
    """Columns of the data that go with the answers, in whatever type; picklable."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the columns."""

    def open(self) -> CarriedReader:
        """Open the columns for one range."""


class StoredSource(Source, Protocol):
    """Rows in files or objects that any process reads by itself: what a job needs of them."""

    @property
    def n_rows(self) -> int:
        """Rows."""

    @property
    def bounds(self) -> Array:
        """First row of each chunk, and the number of rows, (n_chunks + 1,)."""

    @property
    def stored_rows(self) -> int:
        """Rows that are stored together, which an even chunk is whole multiples of."""

    @property
    def drops(self) -> bool:
        """Whether rows of NaN or infinity are left out, as the options of reading say."""

    @property
    def lacks_checksum(self) -> str:
        """Say what to do where flipped bits would pass for data; empty where none would."""

    def presence(self) -> str:
        """Look whether all files are there, and say how many.

        Raises
        ------
        DataError
            Some are not.
        """

    def storage_notes(self) -> str:
        """Say what is worth knowing of how the numbers are stored; empty where nothing is."""
        return ""

    def filling(self) -> Self:
        """Return the same rows, with missing chunks read as the fill value where there is one."""
        return self

    def even(self) -> Self:
        """Return the same rows in chunks that all have as many, but the last."""
        return self

    def skipping(self, chunks: Sequence[range]) -> Self:
        """Return the same chunks in the same ranges, of which some are read as no rows.

        So what is left of a pass is computed as if nobody had stopped.
        """

    def stamps(self) -> dict[range, str]:
        """Return of each range what tells, without reading, whether its rows were written since.

        Empty strings where nobody knows.
        """

    def coordinates(self) -> Sequence[Coordinate]:
        """Return what tells where the cells of the grid lie; nothing where there is no grid."""
        return ()

    def carried(self, names: Sequence[str]) -> CarriedColumns:
        """Return columns to be carried beside the answers.

        Raises
        ------
        DataError
            There are no columns of these names.
        """
        raise no_columns(self.description, names)


# -- who computes ----------------------------------------------------------------------


class Executor(Protocol[T_co]):
    """Call pure functions of a value that all calls share, and of one item each."""

    def map(
        self,
        function: Callable[[T_co, In], Out],
        items: Sequence[In],
        advance: Advance | None = None,
    ) -> list[Out]:
        """Return `function(shared, item)` of each item, in order.

        Parameters
        ----------
        function : callable
            It may be called in any process, and again where a call is lost.
        items : sequence
        advance : callable, optional
            Told how many more calls are done.

        Raises
        ------
        StoppedError
            The job was asked to stop, or the cluster failed for good.
        """


class ExecutorFactory(Protocol):
    """Make an `Executor` of what all its calls share; it is closed at the end of the block."""

    def __call__(self, shared: T) -> AbstractContextManager[Executor[T]]:
        """Return the executor, to be entered by `with`."""


class PartialSumsStore(Protocol[S]):
    """Keep sums of an unfinished pass beyond the life of this process."""

    def recall(self) -> Mapping[Node, S]:
        """Return the sums of whole nodes that an earlier process kept of this pass."""

    def due(self) -> bool:
        """Tell whether it is time to keep again."""

    def keep(self, sums: Mapping[Node, S]) -> None:
        """Keep these, which are all that is known, in place of those kept before."""


class Backend(Protocol):
    """Make passes over sources, and calls of pure functions."""

    def map_reduce(
        self,
        source: Source,
        pass_: Pass[S],
        advance: Advance | None = None,
        partial_sums: PartialSumsStore[S] | None = None,
    ) -> S:
        """Sum a pass over all chunks of a source.

        The leaves are the source's ranges and they are added in a tree fixed by their number
        and the size of the sums, so every backend returns the same bits.

        Parameters
        ----------
        source : Source
        pass_ : Pass
        advance : callable, optional
            Told how many more rows are done.
        partial_sums : PartialSumsStore, optional
            Given the sums of whole nodes of the tree now and then; those that it recalls are
            not computed again.

        Raises
        ------
        StoppedError
            The job was asked to stop, or the cluster failed for good.
        """

    def executor(self, shared: T, in_process: bool = False) -> AbstractContextManager[Executor[T]]:
        """Return what calls functions of `shared`; in this process where that is asked for."""
