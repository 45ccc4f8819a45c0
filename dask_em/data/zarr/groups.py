"""Groups of Zarr, of which somebody wants an array: what is in them, and how to name it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError
from .around import multiscales

if TYPE_CHECKING:
    import zarr

# Arrays that an error names.
NAMED = 20

# How AnnData marks groups that hold one sparse matrix.
SPARSE = {"csr_matrix", "csc_matrix"}


# The attribute of a group that `ingest` wrote: the name of its matrix.
MATRIX_ATTRIBUTE = "dask_em_matrix"


def array_in(X: zarr.Array[Any] | zarr.Group) -> zarr.Array[Any] | zarr.Group:
    """Return the matrix of a group that `ingest` wrote, and anything else as it is."""
    import zarr

    matrix = matrix_of(X) if isinstance(X, zarr.Group) else None
    return X if matrix is None else matrix


def matrix_of(group: zarr.Group) -> zarr.Array[Any] | None:
    """Return the matrix of a group that `ingest` wrote; None of any other group."""
    name = group.attrs.get(MATRIX_ATTRIBUTE)
    if not isinstance(name, str):
        return None
    found: Any = group.get(name)
    return found if found is not None and _is_array(found) else None


def not_an_array(group: zarr.Group, name: str) -> DataError:
    """Make the error of a group where an array should be: the tree of its arrays.

    Parameters
    ----------
    group : zarr.Group
    name : str
        Its path or URL; empty where only the object names it.
    """
    if _is_sparse(group):
        return _sparse(group, name)
    shown = name or "X"
    images = multiscales(dict(group.attrs))
    if images:
        return _image(images[0], shown)
    found = _tree(group) if group.store.supports_listing else []
    lines = []
    for key, member in found[:NAMED]:
        place = f"{name.rstrip('/')}/{key}" if name else f"X[{key!r}]"
        lines.append(f"{place}, {_described(member)}")
    more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return DataError(
        f"{shown} is a group, not an array; its arrays are: {'; '.join(lines) or 'none'}{more}"
    )


def _tree(group: zarr.Group) -> list[tuple[str, Any]]:
    """All arrays and sparse matrices below a group, those that could be rows first."""
    members = dict(group.members(max_depth=None))
    matrices = [f"{key}/" for key, member in members.items() if _is_sparse(member)]
    kept = [
        (key, member)
        for key, member in members.items()
        if (_is_array(member) or _is_sparse(member)) and not key.startswith(tuple(matrices))
    ]
    return sorted(kept, key=lambda found: (not _is_rows(found[1]), found[0]))


def _is_array(member: Any) -> bool:
    return hasattr(member, "dtype")


def _is_rows(member: Any) -> bool:
    return _is_array(member) and member.ndim == 2 and np.dtype(member.dtype).kind in "fiub"


def _is_sparse(member: Any) -> bool:
    return not _is_array(member) and member.attrs.get("encoding-type") in SPARSE


def _described(member: Any) -> str:
    if _is_array(member):
        return f"{' x '.join(map(str, member.shape)) or 'one number'} {member.dtype}"
    shape = " x ".join(map(str, member.attrs.get("shape", ())))
    return f"{shape} {member.attrs['encoding-type']} (sparse)"


def _image(image: dict[str, Any], shown: str) -> DataError:
    """The error of an image in several resolutions, each of which is an array."""
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in image["axes"]]
    names = [str(axis.get("name")) for axis in axes]
    channels = [str(axis.get("name")) for axis in axes if axis.get("type") == "channel"]
    paths = [str(level.get("path")) for level in image["datasets"] if isinstance(level, dict)]
    likely = (channels or names or [""])[0]
    return DataError(
        f"{shown} is an image of OME-Zarr in {len(paths)} resolutions, of the dimensions "
        f"{', '.join(names)}: give the path of one of {', '.join(f'{shown}/{p}' for p in paths)} "
        f"and the dimension that holds the variables, such as features={likely!r}"
    )


def _sparse(group: zarr.Group, name: str) -> DataError:
    """The error of a matrix in the order of columns; that of rows is read."""
    shown = name or "X"
    return DataError(
        f"{shown} is a sparse matrix of AnnData in the order of columns, {_described(group)}, and "
        "rows are read: pass a dense array beside it, such as obsm/X_pca, or write the matrix in "
        "the order of rows; in Python, adata.X = adata.X.tocsr() and adata.write_zarr(path)"
    )
