"""A source made of whatever holds rows: opened where it is a path, checked, refused in words."""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.additive import Array
from ..errors import DataError
from ..storage.object_store import check_bucket, open_store
from ..storage.urls import describe_url, is_url
from .any import AnySource
from .dask import DaskSource
from .memory import ArraySource
from .zarr.source import ZarrSource

if TYPE_CHECKING:
    import dask.array as da
    import zarr

    from .zarr.layout import Missing


def open_zarr(path: str | os.PathLike[str]) -> zarr.Array[Any]:
    """The Zarr array at a path or URL, members of groups included (`store.zarr/points`).

    Raises
    ------
    DataError
        No such path, not a Zarr array, or a group, whose arrays are then named.
    StoreError
        A store on the network that cannot be reached, or refuses.
    """
    import zarr
    from zarr.errors import GroupNotFoundError

    url = os.fspath(path)
    name = describe_url(url)
    place: Any = url.removeprefix("file://")
    if is_url(url):
        place = open_store(url)
    elif os.path.exists(place):
        # Workers may have been started in another folder.
        place = Path(place).absolute()
    else:
        raise DataError(f"{name}: no such path")
    try:
        found = zarr.open(place, mode="r")
    except (FileNotFoundError, GroupNotFoundError, ValueError, NotADirectoryError, KeyError) as e:
        check_bucket(url)
        instead = "give the path of an array, or of an array in a group as group.zarr/array"
        if name.endswith(".npy"):
            instead += '; a .npy file is opened by np.load(path, mmap_mode="r")'
        raise DataError(f"{name}: not a Zarr array ({type(e).__name__}: {e}); {instead}") from e
    if isinstance(found, zarr.Group):
        raise _no_array(found, name)
    return found


def _no_array(group: zarr.Group, name: str) -> DataError:
    members = ", ".join(f"{name.rstrip('/')}/{key}" for key in sorted(group.array_keys()))
    return DataError(f"{name} is a group, not an array; its arrays are: {members or 'none'}")


def zarr_behind(X: da.Array) -> zarr.Array[Any] | None:
    """The Zarr array that a Dask array is nothing but a view of, else None."""
    import zarr

    layers = X.dask.layers
    if len(layers) != 2 or X.name not in layers:
        return None
    (below,) = layers.keys() - {X.name}
    values = list(layers[below].values()) if len(layers[below]) == 1 else []
    array = values[0] if values else None
    array = getattr(array, "value", array)
    if not isinstance(array, zarr.Array) or not X.name.startswith("from-zarr-"):
        return None
    if array.shape != X.shape or array.dtype != X.dtype:
        return None
    # `da.from_zarr(path)` opens local files through fsspec, which reads them slowly.
    files = getattr(array.store, "fs", None)
    local = "file" in getattr(files, "protocol", ()) if files is not None else False
    path = Path(getattr(array.store, "path", ""), array.path)
    return zarr.open_array(path, mode="r") if local and path.is_dir() else array


def _is_dask(X: object) -> bool:
    return type(X).__module__.partition(".")[0] == "dask" and hasattr(X, "__dask_graph__")


def as_source(X: Any, sample_weight: Any = None, missing: Missing = "error") -> AnySource:
    """A source for whatever holds rows.

    Parameters
    ----------
    X : NumPy array, Dask array, zarr.Array, or path or URL of a Zarr array
        (n, d), numeric.
    sample_weight : the same, (n,), optional
    missing : {"error", "fill"}
        Whether a missing chunk of a Zarr array is an error or stands for the fill value.

    Raises
    ------
    DataError
        Wrong number of dimensions, no rows, a dtype that is not numeric, or
        weights of another length.
    """
    import zarr

    if isinstance(X, str | os.PathLike):
        X = open_zarr(X)
    if isinstance(sample_weight, str | os.PathLike):
        sample_weight = open_zarr(sample_weight)
    if _is_dask(X):
        if not hasattr(X, "chunks"):
            raise DataError(
                f"X is a {type(X).__name__}; pass a Dask array (df.to_dask_array(lengths=True))"
            )
        _check_array("X", X, 2)
        behind = zarr_behind(X)
        X = X if behind is None else behind
    if isinstance(X, zarr.Array):
        _check_array("X", X, 2)
        if not _is_dask(sample_weight):
            return _zarr_source(X, sample_weight, missing)
        X = _checked_dask(X, missing, "X")
    if _is_dask(X):
        return _dask_source(X, sample_weight, missing)
    if isinstance(X, zarr.Group):
        raise _no_array(X, describe_url(str(X.store_path)))
    X = np.asarray(X)
    _check_array("X", X, 2)
    if sample_weight is not None:
        sample_weight = _memory_weight(sample_weight, len(X))
    return ArraySource(X, sample_weight)


def stored_source(
    path: str | os.PathLike[str], weights: str | None = None, missing: Missing = "error"
) -> ZarrSource:
    """The source of the Zarr array at a path or URL, with weights from another one."""
    array = open_zarr(path)
    _check_array("X", array, 2)
    return _zarr_source(array, None if weights is None else open_zarr(weights), missing)


def _checked_dask(array: zarr.Array[Any], missing: Missing, name: str) -> Any:
    """A Dask array of whole chunks that are read as `ZarrSource` reads them."""
    import dask.array as da

    from .zarr.watched import CheckedRows

    rows = ZarrSource(array).chunk_rows if array.ndim == 2 else int(array.chunks[0])
    return da.from_array(
        CheckedRows(array, missing, name),
        chunks=(rows, *array.shape[1:]),
        name=f"em-zarr-{uuid.uuid4().hex}",
        meta=np.empty((0,) * array.ndim, dtype=array.dtype),
    )


def _zarr_source(X: zarr.Array[Any], sample_weight: Any, missing: Missing) -> ZarrSource:
    import zarr

    from .zarr.layout import check_same, document_stamp

    # In this order: what changes after the stamp was taken is found by it.
    stamp = document_stamp(X)
    check_same(X)
    source = ZarrSource(X, missing=missing, stamp=stamp)
    if sample_weight is None:
        return source
    if isinstance(sample_weight, zarr.Array):
        _check_weight(sample_weight, source.n_rows)
        return replace(source, stored_weight=sample_weight)
    return replace(source, memory_weight=_memory_weight(sample_weight, source.n_rows))


def _dask_source(X: da.Array, sample_weight: Any, missing: Missing) -> DaskSource:
    import dask.array as da
    import zarr

    X = X.rechunk({1: -1}) if len(X.chunks[1]) > 1 else X
    if sample_weight is None:
        return DaskSource(X)
    if isinstance(sample_weight, zarr.Array):
        sample_weight = _checked_dask(sample_weight, missing, "sample_weight")
    known = not np.isnan(X.shape[0])
    if not _is_dask(sample_weight):
        if not known:
            raise DataError(
                "sample_weight is in memory but the lengths of X's blocks are not known: "
                "call X.compute_chunk_sizes() first, or pass a Dask array of the same blocks"
            )
        sample_weight = da.from_array(_memory_weight(sample_weight, X.shape[0]), X.chunks[:1])
    elif known and not np.isnan(sample_weight.shape[0]):
        _check_weight(sample_weight, X.shape[0])
        sample_weight = sample_weight.rechunk(X.chunks[:1])
    elif sample_weight.numblocks != X.numblocks[:1]:
        raise DataError(
            f"sample_weight has {sample_weight.numblocks[0]} blocks and X has {X.numblocks[0]}, "
            "of unknown lengths: give both the same blocks"
        )
    return DaskSource(X, sample_weight)


def _check_array(name: str, X: Any, ndim: int) -> None:
    shape = tuple(X.shape)
    if len(shape) != ndim:
        wanted = "2-D, (rows, columns)" if ndim == 2 else "1-D, one number a row"
        raise DataError(f"{name} must be {wanted}, got {len(shape)}-D of shape {shape}")
    if shape[0] == 0 or shape[-1] == 0:
        raise DataError(f"{name} has shape {shape}: there is nothing to cluster")
    if np.dtype(X.dtype).kind not in "fiub":
        raise DataError(
            f"{name} has dtype {X.dtype}, which is not a real number; "
            f"convert it first, for example with {name}.astype('float64')"
        )


def _check_weight(weight: Any, n_rows: int) -> None:
    _check_array("sample_weight", weight, 1)
    if weight.shape[0] != n_rows:
        raise DataError(f"sample_weight has {weight.shape[0]} entries and X has {n_rows} rows")


def _memory_weight(weight: Any, n_rows: int) -> Array:
    array = np.asarray(weight, dtype=np.float64)
    _check_weight(array, n_rows)
    return array
