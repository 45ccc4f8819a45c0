"""The first rows of an array that may have grown: what tells that they are as they were."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ...core.tuning import tuning
from ...storage.outputs.stamps import window_stamps
from .chunk_files import ChunkFiles
from .layout import chunk_key
from .pipeline import CHECKSUM_BYTES


def stamp_of_first(array: zarr.Array[Any], n_rows: int) -> str:
    """Return what tells whether the first rows were written since; empty where nobody can tell.

    Of files that end with a checksum of their own it is these, so that nothing is changed of it by
    whoever copies or touches them; of others what `window_stamps` has. Of a last file, which may
    be filled up, the rows are read, if that is no more than what a pass reads at once.

    Parameters
    ----------
    array : zarr.Array
        (n, d), or (n,).
    n_rows : int

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     X = zarr.array(np.eye(5), chunks=(2, 5), store=folder)
    ...     before = stamp_of_first(X, 5)
    ...     _ = X.append(np.eye(5))
    ...     after = stamp_of_first(X, 5)
    ...     X[4] = 7.0
    ...     before == after, before == stamp_of_first(X, 5)
    (True, False)
    """
    if not 0 < n_rows <= array.shape[0]:
        return ""
    unit = int((array.shards or array.chunks)[0])
    whole = n_rows // unit * unit
    stamp = _checksums(array, whole // unit) or _stamp_of_files(array, whole)
    rest = _rest(array, whole, n_rows) if stamp else None
    if not stamp or (rest is None and not whole):
        return ""
    return hashlib.sha256(f"{n_rows}:{stamp}:{rest}".encode()).hexdigest()


def _rest(array: zarr.Array[Any], whole: int, n_rows: int) -> str | None:
    """Return a sha256 of the rows of the last file, None where they are many, or damaged."""
    row_bytes = int(np.prod(array.shape[1:], dtype=np.int64)) * int(array.dtype.itemsize)
    if (n_rows - whole) * row_bytes > tuning().reading.bytes:
        return None
    try:
        rows = np.asarray(array[whole:n_rows])
    except Exception:
        # Whoever reads them for the first pass names what is wrong.
        return None
    return hashlib.sha256(rows.tobytes()).hexdigest()


def _stamp_of_files(array: zarr.Array[Any], whole: int) -> str:
    window = (slice(0, whole), *(slice(0, n) for n in array.shape[1:]))
    return window_stamps(array, [[window]], grows=True)[0]


def _checksums(array: zarr.Array[Any], n_files: int) -> str:
    """Return a sha256 of the ends of the first chunk files; empty where these are no checksums."""
    files = ChunkFiles.of(array)
    # Of files that a codec made their times are kept in models already.
    if files is None or not files.checksum or not files.pipeline.plain:
        return ""
    store: Any = array.store
    found = hashlib.sha256(f"{array.dtype.str}:{files.chunk_shape}:{array.shape[1]}".encode())
    for number in range(n_files):
        path = Path(store.root, chunk_key(array, (number, 0)))
        try:
            with path.open("rb") as file:
                file.seek(-CHECKSUM_BYTES, os.SEEK_END)
                found.update(file.read())
        except OSError:
            return ""
    return found.hexdigest()
