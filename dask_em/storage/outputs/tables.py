"""Tables as groups of Zarr arrays: a matrix of numbers, and one array for each other column.

xarray opens such a group: `X` is (row, feature) with a coordinate `feature` of names, all other
arrays are along `row`, with attributes of the CF conventions.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from ...core.additive import Array, S
from ...core.protocols import Fold, Pass
from ...errors import naming
from .predictions import Regions
from .zarr_answers import ZarrAnswers, open_arrays, open_place

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True)
class ArrayPlan:
    """Describe an array of a table.

    Attributes
    ----------
    name : str
    dtype : dtype
    features : sequence of str or None
        Names of the columns of the matrix.
    attributes : mapping
    """

    name: str
    dtype: np.dtype[Any]
    features: Sequence[str] | None = None
    attributes: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TableFormat:
    """The arrays of a table, of the same chunks of rows.

    Attributes
    ----------
    n_rows, chunk_rows : int
    arrays : sequence of ArrayPlan
        The first is the matrix.
    attributes : mapping
        Of the group.

    Examples
    --------
    >>> import tempfile, zarr
    >>> plan = ArrayPlan("X", np.dtype("f4"), ["a", "b"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     TableFormat(10, 4, [plan], {}).create(Path(folder, "t"))
    ...     made = zarr.open_group(Path(folder, "t"))
    ...     made["X"].metadata.dimension_names, made["feature"][:].tolist()
    (('row', 'feature'), ['a', 'b'])
    """

    n_rows: int
    chunk_rows: int
    arrays: Sequence[ArrayPlan]
    attributes: Mapping[str, Any]

    def create(self, path: Path | str) -> None:
        """Make empty checksummed arrays in a new group, and write the names of the columns."""
        import zarr
        from zarr.codecs import Crc32cCodec

        with naming(path):
            group = zarr.create_group(open_place(path), attributes=dict(self.attributes))
            for plan in self.arrays:
                tail = () if plan.features is None else (len(plan.features),)
                group.create_array(
                    plan.name,
                    shape=(self.n_rows, *tail),
                    chunks=(self.chunk_rows, *tail),
                    dtype=plan.dtype,
                    compressors=[Crc32cCodec()],
                    fill_value=np.nan if plan.dtype.kind == "f" else 0,
                    dimension_names=("row", "feature")[: 1 + len(tail)],
                    attributes=dict(plan.attributes or {}),
                )
            self._name_columns(group)

    def _name_columns(self, group: zarr.Group) -> None:
        names = list(self.arrays[0].features or ())
        with warnings.catch_warnings():
            # Strings are an extension of version 3 of the format, which xarray reads and writes.
            warnings.simplefilter("ignore")
            coordinate = group.create_array(
                "feature",
                shape=(len(names),),
                chunks=(max(1, len(names)),),
                dtype=str,
                dimension_names=("feature",),
            )
            coordinate[:] = np.array(names, dtype=object)

    def open(self, path: Path | str) -> ZarrAnswers:
        """Open the arrays of rows for writing, chunks of nothing but zeros too."""
        return ZarrAnswers(open_arrays(path, [plan.name for plan in self.arrays]), 1)


@dataclass(frozen=True)
class CountRows(Pass[int]):
    """Count rows, where nothing else is to be known of them.

    Examples
    --------
    >>> fold = CountRows().fold()
    >>> fold.update(0, np.eye(3), None)
    >>> fold.result()
    3
    """

    def fold(self) -> CountRowsFold:
        """Return the count of one range, before its first chunk."""
        return CountRowsFold()


class CountRowsFold(Fold[int]):
    """Count the rows of chunks."""

    def __init__(self) -> None:
        self._n_rows = 0

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows X (n, d)."""
        self._n_rows += len(X)

    def result(self) -> int:
        """Return the number of rows."""
        return self._n_rows


@dataclass(frozen=True)
class MarkedPass(Pass[S], Generic[S]):
    """Any pass over rows that are written as they are read: a region is marked at its end.

    Attributes
    ----------
    work : Pass
    answers : ZarrAnswers
        The arrays.
    regions : Regions
    whole : frozenset of int
        Chunks of regions that are marked already.
    """

    work: Pass[S]
    answers: ZarrAnswers
    regions: Regions
    whole: frozenset[int] = frozenset()

    @property
    def result_bytes(self) -> int:
        """Bytes of what the pass sums."""
        return self.work.result_bytes

    def fold(self) -> MarkedFold[S]:
        """Make the fold of one range, before its first chunk."""
        return MarkedFold(self)


class MarkedFold(Fold[S], Generic[S]):
    """Feed chunks to a fold, and mark their region once they are on the disk."""

    def __init__(self, marked: MarkedPass[S]) -> None:
        self._marked, self._fold = marked, marked.work.fold()
        self._written: list[int] = []

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows X (n, d)."""
        self._fold.update(index, X, sample_weight)
        if index not in self._marked.whole:
            self._written.append(index)

    def take_fingerprints(self, fingerprints: Mapping[int, int]) -> None:
        """Take the fingerprint of each chunk that was read for the fold."""
        self._fold.take_fingerprints(fingerprints)

    def result(self) -> S:
        """Bring what was written to the disk, mark the region, and return what the fold summed."""
        if self._written:
            self._marked.answers.sync(self._written)
            self._marked.regions.mark(range(self._written[0], self._written[-1] + 1), 0)
        return self._fold.result()
