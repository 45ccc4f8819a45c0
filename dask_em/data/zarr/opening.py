"""Zarr arrays opened by path or URL, and made a source with weights of any kind."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from ...core.executor import no_thread
from ...errors import DataError, naming
from ...storage.object_store import check_bucket
from ...storage.stored_files import is_there
from ...storage.urls import describe_store, describe_url, is_url, local_path, with_member
from ..checks import check_array, check_weight, memory_weight
from ..columns import WeightColumn
from ..options import ReadOptions

if TYPE_CHECKING:
    import zarr

    from ...core.protocols import StoredSource
    from .source import ZarrSource


def open_zarr(path: str | os.PathLike[str]) -> zarr.Array[Any]:
    """Open the Zarr array at a path or URL, members of groups included (`store.zarr/points`).

    Raises
    ------
    DataError
        No such path, not a Zarr array, or a group, whose arrays are then named.
    StoreError
        A store on the network that cannot be reached, or refuses.

    Examples
    --------
    >>> import tempfile, zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/points.zarr"
    ...     _ = zarr.create_array(path, shape=(6, 2), chunks=(3, 2), dtype="f8")
    ...     open_zarr(path).shape
    (6, 2)
    """
    return require_array(open_node(path), describe_url(with_member(os.fspath(path))))


def open_node(path: str | os.PathLike[str]) -> zarr.Array[Any] | zarr.Group:
    """Open the Zarr array at a path or URL, or a group that holds rows together.

    `store.zarr::points` is a member of a group, as is `store.zarr/points`.

    Raises
    ------
    DataError
        No such path, not a Zarr array, or a group of other arrays, which are then named.
    StoreError
        A store on the network that cannot be reached, or refuses.

    Examples
    --------
    >>> import tempfile, zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/points.zarr"
    ...     _ = zarr.create_array(path, shape=(6, 2), chunks=(3, 2), dtype="f8")
    ...     open_node(f"{folder}::points.zarr").shape
    (6, 2)
    """
    check_path(path)
    # Zarr takes longer to import than it takes to say that there is no such path.
    import zarr
    from zarr.errors import GroupNotFoundError

    from ...storage.url_store import open_store
    from .groups import array_in, not_an_array
    from .variables import holds_rows

    url = with_member(os.fspath(path))
    name = describe_url(url)
    place, inner = (open_store(url), "") if is_url(url) else _local(local_path(url), name)
    try:
        with naming(name):
            found = zarr.open(place, path=inner, mode="r")
    except (GroupNotFoundError, *NOT_ZARR) as e:
        check_bucket(url)
        instead = "give the path of an array, or of an array in a group as group.zarr/array"
        raise DataError(f"{name}: not a Zarr array ({type(e).__name__}: {e}); {instead}") from e
    except RuntimeError as e:
        # Zarr reads by threads.
        if "shutdown" in str(e):
            raise no_thread(e) from e
        raise
    within = array_in(found)
    if isinstance(within, zarr.Group) and not holds_rows(within):
        raise not_an_array(within, name)
    return found


# What Zarr, and a file that is no archive, raise.
NOT_ZARR = (FileNotFoundError, ValueError, NotADirectoryError, KeyError, BadZipFile)


def _local(path: Path, name: str) -> tuple[Any, str]:
    """The folder at a path, or the archive on the way to it and the path in that."""
    from zarr.storage import ZipStore

    # Workers may have been started in another folder.
    path = path.absolute()
    archive = _archive_of(path)
    if archive is not None:
        top, inner = _folder_in(archive), list(path.relative_to(archive).parts)
        inner = inner if inner[:1] == top else top + inner
        return ZipStore(archive, mode="r"), "/".join(inner)
    _existing(path, name)
    return path, ""


def _archive_of(path: Path) -> Path | None:
    return next((p for p in (path, *path.parents) if p.suffix == ".zip" and p.is_file()), None)


def _existing(path: Path, name: str) -> None:
    if not path.exists() and _archive_of(path.absolute()) is None:
        raise DataError(f"{name}: no such path")


def _folder_in(archive: Path) -> list[str]:
    """The one folder at the top of an archive that was made of a folder, not of what is in it."""
    try:
        with ZipFile(archive) as file:
            keys = file.namelist()
    except BadZipFile:
        # As opening it will say.
        return []
    tops = {key.partition("/")[0] for key in keys}
    return [*tops] if len(tops) == 1 and not tops & set(keys) else []


def check_path(path: str | os.PathLike[str]) -> None:
    """Check that there is something at a path of this machine; of a URL nothing is asked.

    Raises
    ------
    DataError
        There is nothing.

    Examples
    --------
    >>> check_path("nowhere.zarr")
    Traceback (most recent call last):
    dask_em.errors.DataError: nowhere.zarr: no such path
    """
    url = with_member(os.fspath(path))
    if not is_url(url) and not is_there(url):
        _existing(local_path(url), describe_url(url))


def is_zarr(X: object) -> bool:
    """Tell whether an object is an array or a group of Zarr, without an import of Zarr."""
    zarr = sys.modules.get("zarr")
    return zarr is not None and isinstance(X, zarr.Array | zarr.Group)


def require_array(X: zarr.Array[Any] | zarr.Group, name: str = "") -> zarr.Array[Any]:
    """Return an array as it is, and of a group that `ingest` wrote its matrix.

    Raises
    ------
    DataError
        It is a group; the message names the arrays in it.
    """
    import zarr

    if not isinstance(X, zarr.Group):
        return X
    from zarr.storage import LocalStore

    from .groups import matrix_of, not_an_array

    matrix = matrix_of(X)
    if matrix is not None:
        return matrix
    if not name and isinstance(X.store, LocalStore):
        name = describe_url(str(X.store_path))
    raise not_an_array(X, name)


def zarr_source(
    X: zarr.Array[Any] | zarr.Group, sample_weight: Any, options: ReadOptions
) -> StoredSource:
    """Make a source of a Zarr array or of a group of them, with weights of any kind.

    Raises
    ------
    DataError
        Nobody said which dimension holds the variables; wrong shape or type, or weights of another
        length.
    """
    import zarr

    from .groups import array_in
    from .variables import grid_source, is_matrix, table_grid

    if options.codes and isinstance(X, zarr.Group):
        coded = table_grid(X, sample_weight, options)
        if coded is not None:
            return coded
    X = array_in(X)
    if is_matrix(X, sample_weight, options):
        return matrix_source(require_array(X), sample_weight, options)
    return grid_source(X, sample_weight, options)


def matrix_source(X: zarr.Array[Any], sample_weight: Any, options: ReadOptions) -> ZarrSource:
    """Make a source of a Zarr array of rows and columns, with weights in another or in memory.

    Raises
    ------
    DataError
        Wrong shape or type, or weights of another length.
    """
    import zarr

    from .layout import check_same, document_stamp
    from .source import ZarrSource
    from .variables import named_columns

    check_array("X", X, 2)
    if isinstance(sample_weight, WeightColumn):
        check_path(sample_weight.name)
    # In this order: what changes after the stamp was taken is found by it.
    stamp = document_stamp(X)
    with naming(describe_store(str(X.store_path))):
        check_same(X)
    source = ZarrSource(X, options=options, stamp=stamp, columns=named_columns(X))
    if sample_weight is None:
        return source
    if isinstance(sample_weight, zarr.Array):
        check_weight(sample_weight, source.n_rows)
        return replace(source, stored_weight=sample_weight)
    return replace(source, memory_weight=memory_weight(sample_weight, source.n_rows))
