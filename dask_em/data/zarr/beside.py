"""Records kept beside rows in a group of Zarr, and the checksums that tell whether rows changed."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from ...core.chunk_log import ChunkLog
from ...core.codec import Packer, unpack
from ...errors import ModelFileError
from ...storage.npz import file_writer, read_arrays
from ...storage.outputs.files import sync
from .chunk_files import ChunkFiles
from .fingerprints import combined
from .layout import chunk_key
from .pipeline import CHECKSUM_BYTES

T = TypeVar("T")

logger = logging.getLogger("dask_em")

# A group beside the arrays, and an array of bytes in it.
FOLDER, NAME = "dask_em", "survey"

KIND = "dask_em survey"


def keep_beside(group: Path, record: object) -> None:
    """Keep a record in a group of a disk: one checksummed file's bytes, as an array of Zarr.

    Parameters
    ----------
    group : Path
    record : object
        That `core.codec` packs.
    """
    packer = Packer()
    content = packer.pack(record)
    whole = io.BytesIO()
    file_writer(NAME, {"content": content}, packer.arrays, KIND)(whole)
    data = np.frombuffer(whole.getbuffer(), dtype=np.uint8)
    folder = zarr.open_group(group, mode="r+").require_group(FOLDER)
    folder.create_array(
        NAME, data=data, chunks=(len(data),), compressors=[Crc32cCodec()], overwrite=True
    )
    for path in sorted((group / FOLDER).rglob("*"), reverse=True):
        sync(path)
    sync(group / FOLDER)


def kept_beside(array: zarr.Array[Any], kind: type[T]) -> T | None:
    """Return the record that is kept beside an array; None where none is, or it is damaged.

    Parameters
    ----------
    array : zarr.Array
    kind : type
        Of the record.
    """
    store: Any = array.store
    if not isinstance(store, LocalStore):
        return None
    place = Path(store.root, array.path).parent / FOLDER / NAME
    if not (place / "zarr.json").is_file():
        return None
    try:
        data = np.asarray(zarr.open_array(place, mode="r")[:]).tobytes()
        header, arrays = read_arrays(place, KIND, data)
        found = unpack(header.get("content"), arrays)
    except (ModelFileError, ValueError, OSError, TypeError) as e:
        logger.info("%s is damaged, or of another version (%s)", place, e)
        return None
    return found if isinstance(found, kind) else None


def unchanged_since(array: zarr.Array[Any], chunk_rows: int, log: ChunkLog) -> bool:
    """Tell by the checksums at the ends of chunk files whether they are those of a log.

    Whoever writes other numbers writes other checksums, wherever the files were copied to; a file
    that does not match its own is found damaged when it is read.

    Parameters
    ----------
    array : zarr.Array
        (n, d).
    chunk_rows : int
        Rows of what the log calls a chunk.
    log : ChunkLog
    """
    files = ChunkFiles.of(array)
    if files is None or not files.checksum:
        return False
    store: Any = array.store
    rows = files.chunk_shape[0]
    n_files = -(-int(array.shape[0]) // rows)
    each = max(1, chunk_rows // rows)
    expected = log.in_order()
    for chunk, fingerprint in enumerate(expected):
        tails = []
        for number in range(chunk * each, min((chunk + 1) * each, n_files)):
            path = os.path.join(store.root, chunk_key(array, (number, 0)))
            tail = _tail(path)
            if tail is None:
                return False
            tails.append(tail)
        if combined(tails) != int(fingerprint):
            return False
    return True


def _tail(path: str) -> int | None:
    try:
        with Path(path).open("rb") as file:
            file.seek(-CHECKSUM_BYTES, os.SEEK_END)
            return int.from_bytes(file.read(), "little")
    except OSError:
        return None
