"""Answers in the shape of a grid: arrays with dimensions and coordinates, as xarray opens them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.additive import Array
from ...core.grid import Coordinate, Grid
from ...core.scoring import NO_LABEL
from ...errors import naming
from ..urls import describe_store
from .zarr_answers import consolidate, open_arrays, open_place, sync_files

if TYPE_CHECKING:
    import zarr

COMPONENT = "component"


@dataclass(frozen=True)
class GridFormat:
    """The arrays of a group: their grid, its coordinates, and their types.

    Attributes
    ----------
    grid : Grid
        Whose blocks are the chunks of the source.
    kinds : mapping of str to (columns or None, dtype)
    coordinates : sequence of Coordinate

    Examples
    --------
    >>> import tempfile
    >>> grid = Grid(("y", "x"), ((2, 2), (3,)))
    >>> format = GridFormat(grid, {"labels": (None, "int32"), "proba": (2, float)}, [])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     format.create(Path(folder, "out"))
    ...     made = format.open(Path(folder, "out")).outputs
    >>> made["labels"].shape, made["labels"].metadata.dimension_names, made["proba"].chunks
    ((4, 3), ('y', 'x'), (2, 3, 2))
    """

    grid: Grid
    kinds: Mapping[str, tuple[int | None, Any]]
    coordinates: Sequence[Coordinate]

    def create(self, path: Path | str) -> None:
        """Make empty checksummed arrays in a new group, and write the coordinates."""
        import zarr
        from zarr.codecs import Crc32cCodec, ZstdCodec

        sizes = tuple(max(along) for along in self.grid.pieces or self.grid.chunks)
        beside = sorted(c.name for c in self.coordinates if c.dims != (c.name,))
        told = {"coordinates": " ".join(beside)} if beside else {}
        with naming(path), zarr.config.set({"array.write_empty_chunks": True}):
            group = zarr.create_group(open_place(path), attributes=told)
            for name, (columns, dtype) in self.kinds.items():
                tail = () if columns is None else (columns,)
                whole = np.dtype(dtype).kind in "iu"
                group.create_array(
                    name,
                    shape=(*self.grid.shape, *tail),
                    chunks=(*sizes, *tail),
                    dtype=np.dtype(dtype),
                    fill_value=NO_LABEL if whole else np.nan,
                    dimension_names=(*self.grid.dims, *((self.component,) if tail else ())),
                    compressors=[ZstdCodec(level=1), Crc32cCodec()],
                )
            for coordinate in self.coordinates:
                _copy(group, coordinate)
        consolidate(path)

    @property
    def component(self) -> str:
        """The dimension of components, of another name than those of the grid."""
        return COMPONENT if COMPONENT not in self.grid.dims else "k"

    def open(self, path: Path | str) -> GridAnswers:
        """Open the arrays of the group for writing, chunks of nothing but zeros too."""
        return GridAnswers(open_arrays(path, self.kinds), self.grid)


@dataclass(frozen=True)
class GridAnswers:
    """The arrays of a group, open.

    A block of the grid is whole chunks of each of them, so no two tasks write the same.

    Attributes
    ----------
    outputs : mapping of str to zarr.Array
    grid : Grid
    """

    outputs: Mapping[str, zarr.Array[Any]]
    grid: Grid

    def files(self, chunks: range) -> Iterator[str]:
        """Yield the names of the chunk files of a region."""
        for output in self.outputs.values():
            for block in chunks:
                for key in _keys(output, self.grid.window(block)):
                    yield f"{output.path}/{key}"

    def writer(self, first: int) -> GridRegion:
        """Begin with the region whose first block this is."""
        return GridRegion(self, first)


class GridRegion:
    """Write the answers of one region into the arrays of a grid, block by block."""

    def __init__(self, answers: GridAnswers, first: int) -> None:
        self._answers, self._first, self._next = answers, first, first

    def write(self, rows: slice, values: Mapping[str, Array]) -> None:
        """Write the answers of the next block."""
        window = self._answers.grid.window(self._next)
        shape = tuple(part.stop - part.start for part in window)
        for name, found in values.items():
            output = self._answers.outputs[name]
            with naming(describe_store(str(output.store_path))):
                output[window] = found.reshape(*shape, *found.shape[1:])
        self._next += 1

    def finish(self) -> None:
        """Bring chunk files, and the folders that name them, to the disk."""
        blocks = [self._answers.grid.window(i) for i in range(self._first, self._next)]
        for output in self._answers.outputs.values():
            sync_files(output, [key for window in blocks for key in _keys(output, window)])


def _keys(output: zarr.Array[Any], window: Sequence[slice]) -> Iterator[str]:
    """The names of the chunks of an output that hold a block."""
    parts = zip(window, output.chunks, strict=False)
    spans = [range(part.start // size, -(-part.stop // size)) for part, size in parts]
    for index in product(*spans):
        yield str(output.metadata.encode_chunk_key((*index, *(0,) * (output.ndim - len(index)))))


def _copy(group: zarr.Group, coordinate: Coordinate) -> None:
    """Write a coordinate as it was stored, some of it at a time."""
    shape = tuple(map(int, coordinate.values.shape))
    array = group.create_array(
        coordinate.name,
        shape=shape,
        dtype=coordinate.dtype,
        dimension_names=coordinate.dims,
        attributes=dict(coordinate.attributes),
    )
    sizes = zip(shape, array.chunks, strict=True)
    for starts in product(*(range(0, n, size) for n, size in sizes)):
        window = tuple(slice(a, a + size) for a, size in zip(starts, array.chunks, strict=True))
        array[window] = coordinate.values[window]
