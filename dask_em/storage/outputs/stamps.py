"""Stamps of stored rows: what tells whether somebody has written to them, without reading them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.additive import Array
from ..stored_files import disk_stamp

if TYPE_CHECKING:
    import zarr


def source_stamps(
    array: zarr.Array[Any], bounds: Array, regions: Iterable[range]
) -> dict[range, str]:
    """Compute the stamp of each region: a sha256 of what its files are, and of the layout.

    On a disk it changes with whatever is done to a file: the time of its last change of status
    and its number are nobody's to set, as size and time of writing are kept by `cp -p`,
    `rsync -t` and `tar x`. So `chmod` and another link change it too, and the region is computed
    again, for nothing. Of a store on the network it is what the listing says: ETags, or else
    sizes and times.

    Parameters
    ----------
    array : zarr.Array
        (n, d).
    bounds : (n_chunks + 1,) array
        First row of each chunk, as it is read.
    regions : iterable of range
        Ranges of such chunks.

    Returns
    -------
    dict of range to str
        Empty strings where the store does not tell: there nobody knows without reading.

    Examples
    --------
    >>> import tempfile, zarr, numpy as np
    >>> bounds, regions = np.array([0, 2, 4]), [range(0, 1), range(1, 2)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     X = zarr.array(np.eye(4), chunks=(2, 4), store=folder)
    ...     before = source_stamps(X, bounds, regions)
    ...     Path(folder, "c/1/0").unlink()
    ...     after = source_stamps(X, bounds, regions)
    ...     [before[region] == after[region] for region in regions]
    [True, False]
    """
    regions, columns = list(regions), slice(0, int(array.shape[1]))
    rows = [slice(int(bounds[region.start]), int(bounds[region.stop])) for region in regions]
    return dict(zip(regions, window_stamps(array, [[(one, columns)] for one in rows]), strict=True))


def joined_stamps(stamps: Sequence[Sequence[str]]) -> list[str]:
    """Return one stamp of each region, of the stamps that several arrays have of it.

    Examples
    --------
    >>> joined_stamps([["a", "b"], ["c", ""]])
    ['a-c', '']
    """
    return ["-".join(parts) if all(parts) else "" for parts in zip(*stamps, strict=True)]


def window_stamps(
    array: zarr.Array[Any], regions: Iterable[Iterable[tuple[slice, ...]]], grows: bool = False
) -> list[str]:
    """Compute the stamp of each region of an array, which is some windows of it.

    Parameters
    ----------
    array : zarr.Array
    regions : iterable of iterable of tuple of slice
        Windows of all axes.
    grows : bool
        Whether the first axis may have become longer since.

    Returns
    -------
    list of str
        As `source_stamps` has them.
    """
    stamp_of = _by_key(array)
    told = dict(array.metadata.to_dict())
    if grows:
        told["shape"] = array.shape[1:]
    layout = json.dumps(told, sort_keys=True, default=str)
    shape = array.shards or array.chunks
    found = []
    for windows in regions:
        digest = hashlib.sha256(layout.encode())
        for window in windows:
            parts = zip(window, shape, strict=True)
            spans = [range(part.start // n, -(-part.stop // n)) for part, n in parts]
            for index in product(*spans):
                key = array.metadata.encode_chunk_key(index)
                digest.update(f"{key}:{'' if stamp_of is None else stamp_of(key)};".encode())
        found.append("" if stamp_of is None else digest.hexdigest())
    return found


def files_stamp(layout: str, stamps: Iterable[str]) -> str:
    """Return the stamp of rows in some files, of these stamps, laid out so; empty if one is.

    Examples
    --------
    >>> files_stamp("8 columns", ["of a", "of b"])[:8], files_stamp("8 columns", ["of a", ""])
    ('34e7dd68', '')
    """
    stamps = list(stamps)
    text = json.dumps([layout, *stamps])
    return hashlib.sha256(text.encode()).hexdigest() if all(stamps) else ""


def _by_key(array: zarr.Array[Any]) -> Callable[[str], str] | None:
    """Return a function that returns the stamp of a chunk by its key, None where there are none."""
    from zarr.storage import LocalStore

    from ..url_store import UrlStore

    store: Any = array.store
    if isinstance(store, LocalStore):
        return lambda key: disk_stamp(Path(store.root, array.path, key))
    if not isinstance(store, UrlStore):
        return None
    prefix = f"{array.path}/" if array.path else ""
    versions = store.versions(prefix)
    return (lambda key: versions.get(prefix + key, "missing")) if versions else None
