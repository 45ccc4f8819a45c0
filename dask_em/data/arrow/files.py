"""One file of a table: Parquet, or Arrow IPC (Feather), opened and read group by group."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from ...core.tuning import tuning
from ...errors import DataError, StoreError
from ...storage.arrow import require_pyarrow
from ...storage.stored_files import StoredFile, open_file
from ...storage.urls import is_url
from ..fields import Field
from .fields import field_of

PARQUET = (".parquet", ".parq", ".pq")
ARROW = (".arrow", ".feather", ".ipc")

SUFFIXES = (*PARQUET, *ARROW)

CHECKSUM = "write_page_checksum=True (pyarrow)"

# Bytes of a column that are asked of a disk at a time.
BUFFER_BYTES = 2**18


class TableFile(Protocol):
    """A file of a table, open."""

    def fields(self) -> tuple[Field, ...]:
        """Return its columns, and as far as is known whether numbers of them are missing."""

    def group_rows(self) -> list[int]:
        """Return the rows of each group."""

    def times_held(self) -> int:
        """Count how often the columns of a group are held while it is read, 0 where in parts."""

    def has_groups(self, group_rows: Sequence[int]) -> bool:
        """Tell whether its groups are still of these lengths, as far as that costs no reading."""

    def batches(self, group: int, names: Sequence[str], rows: int) -> Iterator[Any]:
        """Yield the columns of a group as Arrow batches, mostly of so many rows."""

    def lacks_checksum(self) -> str:
        """Say what to do where flipped bits would pass for data; empty where none would."""

    def close(self) -> None:
        """Close the file."""


def open_table_file(file: StoredFile) -> TableFile:
    """Open a file of Parquet, or of Arrow where its name says so.

    Raises
    ------
    DataError
        It is of something else, or damaged.
    """
    require_pyarrow()
    kind = ArrowFile if file.name.endswith(ARROW) else ParquetFile
    with reading(file, "its description"):
        return kind(file)


@contextmanager
def reading(file: StoredFile, what: str) -> Iterator[None]:
    """Turn errors of Arrow in the block into `DataError`, which names the file."""
    import pyarrow as pa

    try:
        yield
    except (StoreError, DataError, MemoryError):
        raise
    except FileNotFoundError as e:
        raise DataError(f"{file} is gone: restore it") from e
    except (pa.ArrowException, OSError) as e:
        if isinstance(e, OSError) and e.errno is not None:
            e.filename = e.filename or str(file)
            raise
        raise DataError(
            f"{what} of {file} cannot be read ({str(e).splitlines()[0] if str(e) else e!r}): it is "
            "damaged, was cut, or is no such file; restore it from a copy or write it again"
        ) from e


class ParquetFile:
    """A file of Parquet."""

    def __init__(self, file: StoredFile) -> None:
        from pyarrow import parquet

        far = is_url(file.name)
        self._file: Any = open_file(file) if far else file.name
        # A group is fetched from a store by few large requests, and from a disk bit by bit.
        self._parquet = parquet.ParquetFile(
            self._file,
            pre_buffer=far,
            buffer_size=0 if far else BUFFER_BYTES,
            page_checksum_verification=True,
        )

    def group_rows(self) -> list[int]:
        """Return the rows of each row group."""
        known = self._parquet.metadata
        return [known.row_group(i).num_rows for i in range(known.num_row_groups)]

    def fields(self) -> tuple[Field, ...]:
        """Return the columns, and of integers whether any are missing, as the footer says it."""
        known, schema = self._parquet.metadata, self._parquet.schema_arrow
        index = {known.schema.column(i).path: i for i in range(known.num_columns)}

        def missing(field: Any) -> bool:
            if not field.nullable or field.name not in index or _has_nan(field.type):
                return bool(field.nullable)
            groups = (known.row_group(g) for g in range(known.num_row_groups))
            stats = (group.column(index[field.name]).statistics for group in groups)
            return any(s is None or not s.has_null_count or s.null_count > 0 for s in stats)

        return tuple(field_of(field, missing(field)) for field in schema)

    def times_held(self) -> int:
        """Return 0: pages are decoded one after the other."""
        return 0

    def has_groups(self, group_rows: Sequence[int]) -> bool:
        """Tell whether the footer has row groups of these lengths."""
        return self.group_rows() == list(group_rows)

    def batches(self, group: int, names: Sequence[str], rows: int) -> Iterator[Any]:
        """Yield the columns of a row group as Arrow batches."""
        found: Iterator[Any] = self._parquet.iter_batches(
            rows, row_groups=[group], columns=list(names), use_threads=False
        )
        return found

    def lacks_checksum(self) -> str:
        """Look whether the first page of the file has a CRC: pyarrow writes none unasked."""
        known = self._parquet.metadata
        if not known.num_row_groups or not known.num_columns:
            return ""
        column = known.row_group(0).column(0)
        start = min(x for x in (column.dictionary_page_offset, column.data_page_offset) if x)
        found = _has_crc(self._read(start, 64))
        return "" if found else f"write it with {CHECKSUM}"

    def _read(self, start: int, n: int) -> bytes:
        if not isinstance(self._file, str):
            self._file.seek(start)
            return bytes(self._file.read(n))
        with open(self._file, "rb") as file:  # noqa: PTH123
            return os.pread(file.fileno(), n, start)

    def close(self) -> None:
        """Close the file."""
        self._parquet.close(force=True)


def _has_nan(arrow_type: Any) -> bool:
    """Tell whether a type has room for a missing number anyway."""
    from pyarrow import types

    return bool(types.is_floating(arrow_type) or types.is_decimal(arrow_type))


def _has_crc(header: bytes) -> bool:
    """Tell whether the header of a page, in Thrift's compact protocol, has its fourth field.

    Examples
    --------
    >>> _has_crc(bytes([0x15, 0, 0x15, 8, 0x15, 8, 0x15, 2])), _has_crc(bytes([0x15, 0, 0x15, 8]))
    (True, False)
    """
    at = 0
    for _ in range(3):
        # Type, size and compressed size: an integer each, the next field.
        if header[at : at + 1] != b"\x15":
            return False
        at += 1
        while at < len(header) and header[at] & 0x80:
            at += 1
        at += 1
    return header[at : at + 1] == b"\x15"


class ArrowFile:
    """A file of Arrow IPC, which is version 2 of Feather, too; a record batch is a group."""

    def __init__(self, file: StoredFile) -> None:
        import pyarrow as pa

        far = is_url(file.name)
        self._source: Any = pa.PythonFile(open_file(file), "r") if far else pa.OSFile(file.name)
        self._reader_of: dict[tuple[str, ...], Any] = {}
        self._known = pa.ipc.open_file(self._source)

    def group_rows(self) -> list[int]:
        """Return the rows of each record batch, which lie before it: of one column all are read."""
        reader = self._reader(self._known.schema.names[:1])
        return [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]

    def fields(self) -> tuple[Field, ...]:
        """Return the columns; whether numbers are missing is not known before they are read."""
        return tuple(field_of(field, bool(field.nullable)) for field in self._known.schema)

    def _reader(self, names: Sequence[str]) -> Any:
        import pyarrow as pa

        key = tuple(names)
        if key not in self._reader_of:
            indices = [i for i, name in enumerate(self._known.schema.names) if name in key]
            options = pa.ipc.IpcReadOptions(included_fields=indices, use_threads=False)
            self._reader_of = {key: pa.ipc.open_file(self._source, options=options)}
        return self._reader_of[key]

    def times_held(self) -> int:
        """Count a record batch, which is read as a whole, once more where it is decompressed."""
        return 1 + _is_compressed(self._source)

    def has_groups(self, group_rows: Sequence[int]) -> bool:
        """Tell whether there are as many record batches; their lengths lie before each of them."""
        return bool(self._known.num_record_batches == len(group_rows))

    def batches(self, group: int, names: Sequence[str], rows: int) -> Iterator[Any]:
        """Yield the columns of a record batch, in slices of so many rows."""
        whole = self._reader(names).get_batch(group)
        for start in range(0, whole.num_rows, rows):
            yield whole.slice(start, rows)

    def lacks_checksum(self) -> str:
        """Say what to do: the format has none."""
        return f"Arrow IPC has none; write Parquet, with {CHECKSUM}"

    def close(self) -> None:
        """Close the file."""
        self._reader_of = {}
        self._source.close()


# The head of an Arrow file, and of each of its messages, and the kind of one that holds rows.
MAGIC_BYTES, MESSAGE_HEAD, RECORD_BATCH = 8, struct.Struct("<Ii"), 3


def _is_compressed(source: Any) -> bool:
    """Return whether record batches of an Arrow file are compressed, as the first of them says.

    References
    ----------
    Apache Arrow, format/Message.fbs: Message(version, header_type, header, bodyLength),
    RecordBatch(length, nodes, buffers, compression).
    """
    at, end = MAGIC_BYTES, source.size()
    while at + MESSAGE_HEAD.size <= end:
        continues, size = MESSAGE_HEAD.unpack(source.read_at(MESSAGE_HEAD.size, at))
        if continues != 2**32 - 1 or size <= 0:
            # The end of the messages; or they are of before Arrow 0.15, which compressed none.
            return False
        message = source.read_at(size, at + MESSAGE_HEAD.size)
        (table,) = struct.unpack_from("<I", message)
        kind, header, body = (_field(message, table, number) for number in (1, 2, 3))
        if kind and message[kind] == RECORD_BATCH:
            batch = header + struct.unpack_from("<I", message, header)[0]
            return _field(message, batch, 3) > 0
        at += MESSAGE_HEAD.size + size + (struct.unpack_from("<q", message, body)[0] if body else 0)
    return False


def _field(message: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table lies, 0 where it is left out."""
    known = table - int(struct.unpack_from("<i", message, table)[0])
    (size,) = struct.unpack_from("<H", message, known)
    place = 4 + 2 * number
    found = struct.unpack_from("<H", message, known + place)[0] if place < size else 0
    return table + int(found) if found else 0


def batch_rows(row_bytes: int) -> int:
    """Return how many rows are decoded at a time: what stays in cache until it is copied."""
    return max(2**12, tuning().reading.piece_bytes // max(1, row_bytes))
