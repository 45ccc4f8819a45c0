"""Groups of Zarr, of which somebody wants an array: what is in them, and how to name it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from ...core.columns import Column, ColumnKind
from ...errors import DataError

if TYPE_CHECKING:
    import zarr

# Arrays that an error names.
NAMED = 20

# How AnnData marks groups that hold one sparse matrix.
SPARSE = {"csr_matrix", "csc_matrix"}


# The attribute of a group that `ingest` wrote: the name of its matrix.
MATRIX_ATTRIBUTE = "dask_em_matrix"


def matrix_of(group: zarr.Group) -> zarr.Array[Any] | None:
    """Return the matrix of a group that `ingest` wrote; None of any other group."""
    name = group.attrs.get(MATRIX_ATTRIBUTE)
    if not isinstance(name, str):
        return None
    found: Any = group.get(name)
    return found if found is not None and _is_array(found) else None


def named_columns(array: zarr.Array[Any]) -> Sequence[Column] | None:
    """Return the columns that a coordinate beside an array names, on a disk; None where none."""
    import zarr
    from zarr.storage import LocalStore

    names, store = getattr(array.metadata, "dimension_names", None), array.store
    if not names or len(names) != 2 or not names[1] or not isinstance(store, LocalStore):
        return None
    place = Path(store.root, array.path).parent / str(names[1])
    if not (place / "zarr.json").is_file():
        return None
    coordinate = zarr.open_array(place, mode="r")
    labels = np.asarray(coordinate[:])
    if labels.shape != (array.shape[1],) or labels.dtype.kind not in "OUT":
        return None
    kinds = coordinate.attrs.get("kinds")
    told = kinds if isinstance(kinds, list) and len(kinds) == len(labels) else []
    known: dict[str, ColumnKind] = {kind: kind for kind in get_args(ColumnKind)}
    each = [known.get(str(kind), "continuous") for kind in told or labels]
    return [Column(str(n), kind) for n, kind in zip(labels.tolist(), each, strict=True)]


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


def _sparse(group: zarr.Group, name: str) -> DataError:
    opened = f"zarr.open_group({name!r}, mode='r')" if name else "X"
    return DataError(
        f"{name or 'X'} is a sparse matrix of AnnData, {_described(group)}, and rows are read "
        "dense: pass a dense array beside it, such as obsm/X_pca; or, in Python, where blocks of "
        f"rows fit in memory, anndata.experimental.read_elem_lazy({opened})"
        ".map_blocks(lambda block: block.toarray(), meta=np.empty((0, 0)))"
    )
