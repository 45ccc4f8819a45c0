"""Answers as a folder of Parquet files, one a region, with columns of the data beside them."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...core.additive import Array
from ...core.protocols import CarriedColumns, CarriedReader
from ...errors import UsageError, naming
from ..folders import DiskFolder, Folder, folder_at
from .files import sync

# A file of the schema alone, which readers of folders leave out: it is written first, and copied
# last in an object store.
SCHEMA_FILE = "_common_metadata"


@dataclass(frozen=True)
class ParquetFormat:
    """A table of answers: its columns, and the ranges of chunks that are a file each.

    Attributes
    ----------
    kinds : mapping of str to (columns or None, dtype)
        Of several columns NAME is NAME_0, NAME_1, ...
    regions : sequence of range
    carried : CarriedColumns or None
        Columns of the data that go with the answers, before them.

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow.parquet as pq
    >>> format = ParquetFormat({"labels": (None, "i4"), "proba": (2, "f4")}, [range(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     format.create(Path(folder, "out"))
    ...     writer = format.open(Path(folder, "out")).writer(0)
    ...     writer.write(slice(0, 2), {"labels": np.array([0, 1]), "proba": np.eye(2)})
    ...     writer.finish()
    ...     pq.read_table(f"{folder}/out").to_pydict()
    {'labels': [0, 1], 'proba_0': [1.0, 0.0], 'proba_1': [0.0, 1.0]}
    """

    kinds: Mapping[str, tuple[int | None, Any]]
    regions: Sequence[range]
    carried: CarriedColumns | None = None

    def __post_init__(self) -> None:
        twice = {*self._answer_names()} & {*(self.carried.names if self.carried else ())}
        if twice:
            raise UsageError(
                f"{sorted(twice)[0]!r} cannot be kept: the answers have a column of that name; "
                "rename it in the data"
            )

    def _answer_names(self) -> list[str]:
        return [name for kind, (width, _) in self.kinds.items() for name in _names(kind, width)]

    def schema(self) -> Any:
        """Return the Arrow schema of a file."""
        import pyarrow as pa

        fields = []
        if self.carried is not None:
            fields += list(_taken(self.carried.open()).schema)
        for kind, (width, dtype) in self.kinds.items():
            arrow = pa.from_numpy_dtype(np.dtype(dtype))
            fields += [pa.field(name, arrow, nullable=False) for name in _names(kind, width)]
        return pa.schema(fields)

    def create(self, path: Path | str) -> None:
        """Make the folder, with the schema in a file of its own."""
        from pyarrow import parquet

        whole = io.BytesIO()
        parquet.write_metadata(self.schema(), whole)
        if isinstance(path, Path):
            path.mkdir()
        folder_at(path).write(SCHEMA_FILE, whole.getvalue())

    def open(self, path: Path | str) -> ParquetAnswers:
        """Open the folder for writing."""
        return ParquetAnswers(folder_at(path), self, self.schema())


@dataclass(frozen=True)
class ParquetAnswers:
    """A folder of Parquet files.

    Attributes
    ----------
    folder : Folder
    format : ParquetFormat
    schema : pyarrow.Schema
    """

    folder: Folder
    format: ParquetFormat
    schema: Any

    def files(self, chunks: range) -> list[str]:
        """Return the name of the file of a region."""
        return [self._name(chunks.start)]

    def writer(self, first: int) -> ParquetRegion:
        """Begin with the file of a region."""
        carried = self.format.carried
        return ParquetRegion(
            self.folder,
            self._name(first),
            self.schema,
            None if carried is None else carried.open(),
        )

    def _name(self, first: int) -> str:
        numbers = {region.start: number for number, region in enumerate(self.format.regions)}
        return f"part-{numbers[first]:05d}.parquet"


class ParquetRegion:
    """Write the answers of one region into a file, a row group a chunk."""

    def __init__(
        self, folder: Folder, name: str, schema: Any, carried: CarriedReader | None
    ) -> None:
        from pyarrow import parquet

        self._folder, self._name, self._schema, self._carried = folder, name, schema, carried
        self._file: BinaryIO = io.BytesIO()
        if isinstance(folder, DiskFolder):
            # Another task of the same region may be about; what is left is removed at the end.
            self._path = folder.at(f"{name}.{uuid.uuid4().hex[:8]}.partial")
            self._file = self._path.open("xb")
        self._writer = parquet.ParquetWriter(
            self._file, schema, compression="zstd", compression_level=1, write_page_checksum=True
        )

    def write(self, rows: slice, values: Mapping[str, Array]) -> None:
        """Write the answers of a chunk, with the columns that go with them."""
        import pyarrow as pa

        arrays: list[Any] = []
        if self._carried is not None:
            arrays += _taken(self._carried, rows.start, rows.stop).columns
        for answers in values.values():
            columns = answers.T if answers.ndim == 2 else [answers]
            arrays += [pa.array(np.ascontiguousarray(column)) for column in columns]
        with naming(str(self._folder)):
            table = pa.table(arrays, schema=self._schema)
            self._writer.write_table(table, row_group_size=max(1, rows.stop - rows.start))

    def finish(self) -> None:
        """Bring the file to the disk, under its name."""
        if self._carried is not None:
            self._carried.close()
        self._writer.close()
        if not isinstance(self._folder, DiskFolder):
            whole = self._file.getvalue()  # type: ignore[attr-defined]
            self._folder.write(self._name, whole)
            return
        with naming(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._path.replace(self._folder.at(self._name))
        sync(self._folder.path)


def _names(kind: str, width: int | None) -> list[str]:
    return [kind] if width is None else [f"{kind}_{j}" for j in range(width)]


def _taken(carried: CarriedReader, start: int = 0, stop: int = 0) -> Any:
    import pyarrow as pa

    return pa.table(carried.read(start, stop))
