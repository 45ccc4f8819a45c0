"""Chunks of a Zarr array: their places, a look for missing ones, and changes of the layout."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice, product
from pathlib import Path
from typing import Any

import dask.config
import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ShardingCodec
from zarr.storage import LocalStore

from ...core.tuning import tuning
from ...errors import DataError, StoreAccessError
from ...storage.urls import describe_store
from ..options import MissingChunks, ReadOptions
from ..packing import Packing

logger = logging.getLogger("dask_em")

# Codecs that verify what they decode; zstd does where it is asked to.
VERIFYING = {"crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3", "gzip", "zlib"}

# Missing chunks that an error names.
NAMED = 3


# What may not change of an array while it is read.
LAYOUT = (
    "shape",
    "dtype",
    "chunks",
    "shards",
    "fill_value",
    "filters",
    "serializer",
    "compressors",
    "packing",
)


Index = tuple[int, ...]


# -- where they lie, as messages say it ------------------------------------------------


def file_shape(array: zarr.Array[Any]) -> Index:
    """Return the rows (and columns) in one file or object: those of a chunk, or of a shard.

    Examples
    --------
    >>> file_shape(zarr.zeros((6, 2), chunks=(3, 2)))
    (3, 2)
    """
    return tuple(map(int, array.shards or array.chunks))


def n_files(array: zarr.Array[Any]) -> int:
    """Return how many chunks (or shards) an array has.

    Examples
    --------
    >>> n_files(zarr.zeros((7, 2), chunks=(3, 2)))
    3
    """
    sizes = zip(array.shape, file_shape(array), strict=True)
    return int(np.prod([-(-n // size) for n, size in sizes]))


def chunk_key(array: zarr.Array[Any], index: Index) -> str:
    """Return the key of a chunk (or shard) in the array's store."""
    key = array.metadata.encode_chunk_key(index)
    return f"{array.path}/{key}" if array.path else key


def chunk_place(array: zarr.Array[Any], index: Index, shape: Index, key: str = "") -> str:
    """Return number, rows and key of a chunk, for a message."""
    axes = ("rows", "columns") if array.ndim < 3 else _axes(array)
    spans = [
        f"{what} {i * size} to {min((i + 1) * size, n) - 1}"
        for what, i, size, n in zip(axes, index, shape, array.shape, strict=False)
    ]
    one_column = len(index) == 1 or (array.ndim == 2 and shape[1] >= array.shape[1])
    number = str(index[0]) if one_column else str(index)
    store: Any = array.store
    where = key or chunk_key(array, index[: len(shape)])
    where = os.path.join(store.root, where) if isinstance(store, LocalStore) else where
    return f"chunk {number} ({', '.join(spans[:1] if one_column else spans)}; {where})"


def _axes(array: zarr.Array[Any]) -> tuple[str, ...]:
    return dimensions_of(array) or tuple(f"axis {axis}" for axis in range(array.ndim))


def dimensions_of(array: zarr.Array[Any]) -> tuple[str, ...] | None:
    """Return the names of an array's dimensions, as xarray keeps them; None where it has none.

    Examples
    --------
    >>> dimensions_of(zarr.create_array({}, shape=(6, 2), dtype="f4", dimension_names=("y", "x")))
    ('y', 'x')
    """
    found = getattr(array.metadata, "dimension_names", None)
    names: Any = found or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    if not isinstance(names, list | tuple):
        return None
    known = len(names) == array.ndim and all(isinstance(name, str) for name in names)
    return tuple(map(str, names)) if known else None


def remedy(array: zarr.Array[Any]) -> str:
    """Return what to do about missing chunks, for a message."""
    return (
        "restore them; or, if they were never written because every number in them is the fill "
        f"value {array.fill_value} (Zarr leaves such chunks out unless it is told "
        'write_empty_chunks=True), pass missing_chunks="fill"'
    )


def lacks(array: zarr.Array[Any], place: str, name: str) -> DataError:
    """Make the error of a chunk that is missing."""
    return DataError(f"{name} lacks {place}: {remedy(array)}")


def was_cut(place: str, name: str) -> DataError:
    """Make the error of a chunk of which bytes are missing."""
    return DataError(
        f"{place} of {name} is empty or was cut: restore it from a copy or write the array again"
    )


def damaged(place: str, name: str, why: object) -> DataError:
    """Make the error of a chunk that cannot be decoded."""
    return DataError(
        f"{place} of {name} cannot be decoded ({why}): it is damaged or was cut; restore it from "
        "a copy or write the array again"
    )


def no_file(place: str, name: str) -> DataError:
    """Make the error of something else where a chunk should be."""
    return DataError(f"{place} of {name} is not a file: restore it")


# -- whether they are there ------------------------------------------------------------


def check_present(array: zarr.Array[Any], name: str = "X") -> None:
    """Look for the array's chunks (or shards) in its store, without reading them.

    Raises
    ------
    DataError
        Some are missing; how many, and the first of them.

    Examples
    --------
    >>> check_present(zarr.zeros((6, 2), chunks=(3, 2)))  # chunks of the fill value are not written
    Traceback (most recent call last):
        ...
    dask_em.errors.DataError: X lacks 2 of 2 chunks: ...
    """
    shape, is_stored = file_shape(array), _presence(array)
    grid = [-(-n // size) for n, size in zip(array.shape, shape, strict=True)]
    absent = (index for index in product(*map(range, grid)) if not is_stored(index))
    named = list(islice(absent, NAMED))
    if named:
        n_absent = len(named) + sum(1 for _ in absent)
        first = ", ".join(chunk_place(array, index, shape) for index in named)
        more = ", ..." if n_absent > NAMED else ""
        raise DataError(
            f"{name} lacks {n_absent} of {int(np.prod(grid))} chunks: {first}{more}: "
            f"{remedy(array)}"
        )


def describe_presence(
    arrays: Sequence[tuple[zarr.Array[Any], str]], missing_chunks: MissingChunks
) -> str:
    """Check that all chunks (or shards) of arrays are there, and say how many.

    Parameters
    ----------
    arrays : sequence of (zarr.Array, str)
        With the name of each in messages.
    missing_chunks : {"error", "fill"}

    Examples
    --------
    >>> describe_presence([(zarr.zeros((6, 2), chunks=(3, 2)), "X")], "fill")
    '2 expected; missing ones read as 0.0'
    """
    count = f"{sum(n_files(array) for array, _ in arrays):,}"
    if missing_chunks == "fill":
        fills = {str(array.fill_value) for array, _ in arrays}
        return f"{count} expected; missing ones read as {', '.join(sorted(fills))}"
    for array, name in arrays:
        check_present(array, name)
    return f"all {count} are there"


def check_links(array: zarr.Array[Any], name: str = "X") -> None:
    """Refuse links out of an array's folder: they could lead to any file of the machine.

    `dask.config.set({"dask_em.follow-links": True})` follows them.

    Raises
    ------
    DataError
        A chunk, or a folder of chunks, is a link to a place outside.
    """
    store: Any = array.store
    if not isinstance(store, LocalStore) or dask.config.get("dask_em.follow-links", False):
        return
    top, shape = os.path.join(store.root, array.path), file_shape(array)
    if not _has_links(top):
        return
    root, plain = os.path.realpath(top), set[str]()
    for index in product(*(range(-(-n // s)) for n, s in zip(array.shape, shape, strict=True))):
        path = top
        for part in array.metadata.encode_chunk_key(index).split("/"):
            path = os.path.join(path, part)
            if path in plain:
                continue
            target = os.path.realpath(path) if Path(path).is_symlink() else root
            if os.path.commonpath([root, target]) != root:
                raise DataError(
                    f"{chunk_place(array, index, shape)} of {name}: {path} is a link to {target}, "
                    "outside of the array: put the chunks themselves there; or, where you trust "
                    "the links, as those of DataLad and git-annex, set "
                    'dask.config.set({"dask_em.follow-links": True}) '
                    "(DASK_DASK_EM__FOLLOW_LINKS=true)"
                )
            plain.add(path)


def _has_links(folder: str) -> bool:
    """Tell whether anything in a folder is a link, or the folder itself."""
    if Path(folder).is_symlink():
        return True
    folders = [folder]
    while folders:
        with suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    return True
                if entry.is_dir():
                    folders.append(entry.path)
    return False


def _presence(array: zarr.Array[Any]) -> Callable[[Index], bool]:
    """Return a function that tells whether a chunk is there, by the store's listing."""
    store: Any = array.store
    if isinstance(store, LocalStore):
        # To list a folder for each chunk takes forty times as long as to ask for its file.
        # (So does a Path for each of them, beside a string.)
        root = str(store.root)
        return lambda index: os.path.isfile(f"{root}/{chunk_key(array, index)}")  # noqa: PTH113
    if not store.supports_listing:
        return lambda index: True
    from zarr.core.sync import sync

    prefix = f"{array.path}/" if array.path else ""
    try:
        keys = sync(_listed(store, prefix))
    except StoreAccessError as e:
        logger.warning("missing chunks are found only when they are read: %s", e)
        return lambda index: True
    # Some web servers have listings of something else, or empty ones.
    if keys.isdisjoint((f"{prefix}zarr.json", f"{prefix}.zarray")):
        return lambda index: True
    return lambda index: chunk_key(array, index) in keys


async def _listed(store: Store, prefix: str) -> set[str]:
    return {key async for key in store.list_prefix(prefix)}


# -- how they are stored ---------------------------------------------------------------


def small_chunks(array: zarr.Array[Any]) -> str:
    """Say what it costs where an array lies in very many very small chunks; empty where not."""
    nbytes = int(np.prod(array.chunks)) * np.dtype(array.dtype).itemsize
    count = int(np.prod([-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True)]))
    if count < tuning().reading.many_chunks or nbytes >= tuning().reading.small_chunk:
        return ""
    return (
        f"lies in {count:,} chunks of {nbytes:,} bytes, each of which takes about as long to "
        "read as one of a megabyte: write it in chunks of 8 to 16 MB"
    )


def has_checksum(array: zarr.Array[Any]) -> bool:
    """Tell whether a codec of the array finds flipped bits.

    Examples
    --------
    >>> from zarr.codecs import ZstdCodec
    >>> verified = ZstdCodec(checksum=True)
    >>> array = zarr.create_array({}, shape=(6, 2), dtype="f8", compressors=verified)
    >>> has_checksum(array), has_checksum(zarr.zeros((6, 2)))
    (True, False)
    """
    metadata: Any = array.metadata
    if metadata.zarr_format == 2:
        codecs = [*(metadata.filters or ()), metadata.compressor]
        return any(_verifies(codec.get_config()) for codec in codecs if codec is not None)
    return any(_verifies(codec.to_dict()) for codec in all_codecs(metadata.codecs))


def all_codecs(codecs: Iterable[Any]) -> Iterator[Any]:
    """Yield codecs, and those within shards."""
    for codec in codecs:
        yield codec
        if isinstance(codec, ShardingCodec):
            yield from all_codecs(codec.codecs)


def _verifies(codec: Mapping[str, Any]) -> bool:
    name = str(codec.get("name", codec.get("id"))).removeprefix("numcodecs.")
    options = codec.get("configuration", codec)
    return name in VERIFYING or (name == "zstd" and bool(options.get("checksum")))


def is_encoded(array: zarr.Array[Any]) -> bool:
    """Return whether chunks are decoded from the bytes of files, which are held beside them."""
    return any(not isinstance(codec, Crc32cCodec) for codec in array.compressors)


def attributes_of(array: zarr.Array[Any]) -> dict[str, Any]:
    """Return the attributes of an array, as the CF conventions name them."""
    attributes = dict(array.attrs)
    # In version 2 of the format, what xarray writes keeps `_FillValue` as Zarr's fill value.
    if array.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in attributes:
        attributes["_FillValue"] = array.fill_value
    return attributes


def packing_of(array: zarr.Array[Any], options: ReadOptions | None = None) -> Packing | None:
    """Return how the array's numbers are packed or masked, None where they are plain, or taken so.

    Examples
    --------
    >>> packed = zarr.create_array({}, shape=(6, 2), dtype="i2", attributes={"scale_factor": 0.1})
    >>> print(packing_of(packed))
    scale_factor=0.1, as float64
    """
    if options is not None and options.raw:
        return None
    return Packing.of(attributes_of(array), np.dtype(array.dtype))


def fill_value(array: zarr.Array[Any]) -> Any:
    """Return the number that a missing chunk stands for."""
    # Version 2 of the format knows arrays without one, and Zarr reads zeros there.
    return 0 if array.fill_value is None else array.fill_value


# -- whether the array is still what it was -------------------------------------------


def document_stamp(array: zarr.Array[Any]) -> tuple[int, int] | None:
    """Return size and time of the file that describes the array, None where that costs more."""
    store: Any = array.store
    if not isinstance(store, LocalStore):
        return None
    document = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
    try:
        file = Path(store.root, array.path, document).stat()
    except OSError:
        return None
    return file.st_size, file.st_mtime_ns


def _part(array: zarr.Array[Any], name: str) -> Any:
    if name == "packing":
        return packing_of(array)
    found = getattr(array, name)
    # The order of bytes on the disk is the codec's, and Zarr forgets that of the numbers.
    return np.dtype(found).newbyteorder("=") if name == "dtype" else found


def check_same(array: zarr.Array[Any], name: str = "X") -> None:
    """Raise `DataError` where the stored array has another shape, type or layout by now."""
    from zarr.errors import GroupNotFoundError

    zarr_format = array.metadata.zarr_format
    try:
        now = zarr.open_array(array.store_path, mode="r", zarr_format=zarr_format)
    except (FileNotFoundError, GroupNotFoundError, ValueError, NotADirectoryError, KeyError) as e:
        gone = f"{type(e).__name__}: {e}"
    else:
        gone = ""
    if gone:
        # Not where Zarr's error is caught: as its context it would come along from a worker,
        # where it cannot be unpacked.
        raise DataError(
            f"{name} changed after it was opened: {describe_store(str(array.store_path))} is not a "
            f"Zarr array any more "
            f"({gone})"
        )
    for part in LAYOUT:
        before, after = str(_part(array, part)), str(_part(now, part))
        if before != after:
            raise DataError(
                f"{name} changed after it was opened: its {part.replace('_', ' ')} was {before} "
                f"and is {after}: fit again when nobody writes to it"
            )
