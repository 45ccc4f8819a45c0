"""Rows of a sparse matrix in Zarr, as AnnData writes it: a block at a time is made dense.

https://anndata.readthedocs.io/en/latest/fileformat-prose.html#sparse-arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.additive import Array
from ...core.columns import Column, ColumnKind
from ...core.ranges import even_bounds
from ...core.tuning import tuning
from ...errors import DataError
from ...storage.outputs.stamps import joined_stamps, window_stamps
from ...storage.urls import describe_store
from ..checks import memory_weight, no_such_column, tell_once
from ..columns import WeightColumn, choose
from ..options import ReadOptions
from ..ranged import NothingCarried, RangedSource, RowsReader
from ..sparse import densified
from .around import variable_names

if TYPE_CHECKING:
    import zarr

    # The API reference reads the annotation of an inherited field here.
    from ...core.beside import Beside  # noqa: F401


def is_csr(group: zarr.Group) -> bool:
    """Tell whether a group is a sparse matrix in the order of rows."""
    return group.attrs.get("encoding-type") == "csr_matrix"


@dataclass(frozen=True)
class SparseRows(NothingCarried):
    """Rows of a sparse matrix in three arrays.

    Attributes
    ----------
    group : zarr.Group
        With the arrays `data`, `indices` and `indptr`.
    columns : tuple of Column, or None
    picked : tuple of int
        Numbers of the columns that are read; all where empty.
    options : ReadOptions
    """

    group: zarr.Group
    columns: tuple[Column, ...] | None = None
    picked: tuple[int, ...] = ()
    options: ReadOptions = field(default_factory=ReadOptions)

    weight_name = ""
    layout_advice = ""

    @cached_property
    def arrays(self) -> dict[str, zarr.Array[Any]]:
        """The arrays by their names.

        Raises
        ------
        DataError
            One is missing, or not of one dimension.
        """
        found: dict[str, Any] = dict(self.group.arrays())
        for name in ("data", "indices", "indptr"):
            if name not in found or found[name].ndim != 1:
                raise DataError(f"{self.description} has no array {name!r}, so it is no CSR matrix")
        return found

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        told: Any = self.group.attrs.get("shape")
        try:
            n, d = (int(size) for size in told)
        except (TypeError, ValueError) as e:
            raise DataError(f"{self.description} has the shape {told!r}, expected two") from e
        if self.arrays["indptr"].shape != (n + 1,):
            raise DataError(
                f"{self.description} has {n} rows, and its indptr {self.arrays['indptr'].shape[0]} "
                f"entries: expected {n + 1}"
            )
        return n, d

    @property
    def n_features(self) -> int:
        """Columns that are read."""
        return len(self.picked) or self.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""
        return np.dtype(self.arrays["data"].dtype).newbyteorder("=")

    @cached_property
    def groups(self) -> Array:
        """First row of each block, and the number of rows."""
        row_bytes = max(1, self.n_features * self.dtype.itemsize)
        return even_bounds(self.shape[0], max(1, tuning().reading.bytes // row_bytes))

    @property
    def description(self) -> str:
        """Name for people."""
        return describe_store(str(self.group.store_path))

    @property
    def library_bytes(self) -> int:
        """Bytes of Zarr's threads, which read."""
        return tuning().plan.zarr_threads_bytes

    @property
    def lacks_checksum(self) -> str:
        """Say what to do where flipped bits would pass for data; empty where none would."""
        from .layout import has_checksum
        from .source import CHECKSUM

        return "" if all(map(has_checksum, self.arrays.values())) else CHECKSUM

    @cached_property
    def _edges(self) -> Array:
        """Where the stored numbers of each block begin, and their number."""
        from .watched import WatchedReader

        reader = WatchedReader(self.arrays["indptr"], self.options.missing_chunks, "X")
        found = []
        for start in range(0, self.shape[0] + 1, PIECE):
            stop = min(start + PIECE, self.shape[0] + 1)
            wanted = self.groups[(self.groups >= start) & (self.groups < stop)]
            found.append(reader.read(slice(start, stop))[wanted - start])
        return np.concatenate(found).astype(np.int64)

    def decoding_bytes(self, chunk_rows: int) -> int:
        """Count what reading takes beside dense rows: files, what they hold, the sparse block."""
        most = int(np.diff(self._edges).max(initial=0))
        sizes = [int(self.arrays[name].dtype.itemsize) for name in ("data", "indices")]
        files = [
            int((self.arrays[name].shards or self.arrays[name].chunks)[0]) * size
            for name, size in zip(("data", "indices"), sizes, strict=True)
        ]
        pointers = 2 * 8 * int(self.arrays["indptr"].chunks[0])
        return 2 * sum(files) + max(files) + 3 * most * sum(sizes) + pointers

    def open(self) -> RowsReader:
        """Open the arrays for one range."""
        return SparseReader(self)

    def check(self) -> None:
        """Look for all chunks in the store, and say what dense rows cost.

        Raises
        ------
        DataError
            Chunks are missing, or links to another place, or an array is not what it was.
        """
        from .source import look_at

        for name in ("data", "indices", "indptr"):
            look_at(self.arrays[name], f"X/{name}", self.options)
        block = int(np.diff(self.groups).max()) * self.n_features * self.dtype.itemsize
        n_stored = int(self.arrays["data"].shape[0])
        tell_once(densified(f"X ({self.description})", self.shape, n_stored, block))

    def presence(self) -> str:
        """Check by listings that all files of the arrays are there, and count them."""
        from .layout import describe_presence

        arrays = [(array, f"X/{name}") for name, array in self.arrays.items()]
        return describe_presence(arrays, self.options.missing_chunks)

    def place(self, row: int) -> str:
        """Say nothing more than the row's number."""
        _ = row
        return ""

    def stamps(self, spans: Sequence[tuple[int, int]]) -> list[str]:
        """Return what tells whether somebody wrote to the chunks of these spans of rows since."""
        at = dict(zip(self.groups.tolist(), self._edges.tolist(), strict=True))
        stored = [[(slice(at[start], max(at[start] + 1, at[stop])),)] for start, stop in spans]
        pointers = [[(slice(start, stop + 1),)] for start, stop in spans]
        windows = {"data": stored, "indices": stored, "indptr": pointers}
        found = [window_stamps(self.arrays[name], of) for name, of in windows.items()]
        return joined_stamps(found)


# Pointers to rows that are read at once.
PIECE = 2**20


@dataclass(frozen=True)
class SparseSource(RangedSource):
    """Take blocks of rows of a sparse matrix in Zarr as chunks, made dense.

    Attributes
    ----------
    rows : SparseRows
    """

    rows: SparseRows

    @property
    def in_process(self) -> bool:
        from zarr.storage import MemoryStore

        return isinstance(self.rows.group.store, MemoryStore)


class SparseReader:
    """Read blocks of rows of a sparse matrix, and make them dense."""

    def __init__(self, rows: SparseRows) -> None:
        from .layout import check_same

        self._rows, options = rows, rows.options
        for name in ("data", "indices", "indptr"):
            check_same(rows.arrays[name], f"X/{name}")
        self._data, self._indices, self._indptr = (
            Stretch(rows.arrays[name], options, f"X/{name}")
            for name in ("data", "indices", "indptr")
        )

    def read(self, start: int, out: Array) -> Array | None:
        """Fill `out` (n, d) with the rows from `start` on.

        Raises
        ------
        DataError
            A chunk is missing or damaged, or the numbers do not make a matrix.
        """
        from scipy.sparse import csr_array

        n, d = len(out), self._rows.shape[1]
        pointers = self._indptr.read(start, start + n + 1).astype(np.int64)
        first, stop = int(pointers[0]), int(pointers[-1])
        if (np.diff(pointers) < 0).any() or first < 0 or stop > self._rows.arrays["data"].shape[0]:
            raise self._broken(start, n, "indptr")
        indices = self._indices.read(first, stop).astype(np.int64, copy=False)
        if len(indices) and (indices.min() < 0 or indices.max() >= d):
            raise self._broken(start, n, "indices")
        data = self._data.read(first, stop).astype(out.dtype, copy=False)
        matrix = csr_array((data, indices, pointers - first), shape=(n, d))
        if self._rows.picked:
            matrix = matrix[:, list(self._rows.picked)]
        matrix.toarray(out=out)
        return None

    def _broken(self, start: int, n: int, name: str) -> DataError:
        return DataError(
            f"rows {start} to {start + n - 1} of {self._rows.description} are no rows of a CSR "
            f"matrix of shape {self._rows.shape}: its {name} holds other numbers; write it again"
        )

    def close(self) -> None:
        """Give up what was kept."""
        for one in (self._data, self._indices, self._indptr):
            one.forget()


class Stretch:
    """Read stretches of an array of one dimension, mostly one after the other.

    Whole chunks are read, and what is left of the last one is kept: none is decoded twice.
    """

    def __init__(self, array: zarr.Array[Any], options: ReadOptions, name: str) -> None:
        from .watched import WatchedReader

        self._reader = WatchedReader(array, options.missing_chunks, name)
        self._unit, self._n = int(array.chunks[0]), int(array.shape[0])
        self._dtype = np.dtype(array.dtype)
        self.forget()

    def forget(self) -> None:
        """Give up what was kept."""
        self._first, self._kept = 0, np.empty(0, dtype=self._dtype)

    def read(self, start: int, stop: int) -> Array:
        """Return the numbers from `start` to `stop - 1`."""
        end = self._first + len(self._kept)
        if not self._first <= start <= end:
            self._first, self._kept, end = start, self._kept[:0], start // self._unit * self._unit
        if stop > end:
            whole = min(-(-stop // self._unit) * self._unit, self._n)
            more = self._reader.read(slice(end, whole))
            kept = self._kept[start - self._first :] if len(self._kept) else self._kept
            skip = max(0, start - end)
            self._first, self._kept = start, np.concatenate([kept, more[skip:]])
        at = start - self._first
        return self._kept[at : at + stop - start]


def sparse_matrix_source(
    group: zarr.Group, sample_weight: Any, options: ReadOptions
) -> SparseSource:
    """Make a source of a sparse matrix in the order of rows, with weights of any kind.

    Raises
    ------
    DataError
        Its arrays do not make a matrix, or weights are not one a row.
    """
    import zarr

    rows = SparseRows(group, options=options)
    n, d = rows.shape
    if np.dtype(rows.dtype).kind not in "fiub" or not n or not d:
        raise DataError(
            f"{rows.description} is a matrix of {n} x {d} {rows.dtype}: expected real numbers"
        )
    names = variable_names(group)
    if names is not None and len(names) == d:
        kind: ColumnKind = "continuous" if rows.dtype.kind == "f" else "count"
        weight = sample_weight if isinstance(sample_weight, WeightColumn) else None
        chosen = choose([Column(name, kind) for name in names], options, weight, rows.description)
        whole = chosen.numbers == tuple(range(d))
        rows = SparseRows(group, chosen.columns, () if whole else chosen.numbers, options)
        if chosen.weight is not None:
            sample_weight = _column(group, chosen.weight, options)
    if isinstance(sample_weight, WeightColumn):
        raise no_such_column(sample_weight.name, rows.description)
    if isinstance(sample_weight, zarr.Array):
        from .watched import CheckedRows

        sample_weight = CheckedRows(sample_weight, options, "sample_weight")[:]
    memory = None if sample_weight is None else memory_weight(sample_weight, n)
    return SparseSource(rows, memory, options=options)


def _column(group: zarr.Group, number: int, options: ReadOptions) -> Array:
    """One column of a sparse matrix, dense."""
    one = SparseRows(group, None, (number,), options)
    reader, found = one.open(), np.empty((one.shape[0], 1), one.dtype)
    for start in range(0, one.shape[0], PIECE):
        reader.read(start, found[start : start + PIECE])
    return found[:, 0]
