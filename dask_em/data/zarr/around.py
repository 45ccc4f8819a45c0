"""The surroundings of an array in its store: its group, names of dimensions, coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.grid import Coordinate
from ...errors import DaskEMError
from .layout import dimensions_of

if TYPE_CHECKING:
    import zarr


def group_around(array: zarr.Array[Any] | zarr.Group, levels: int = 1) -> zarr.Group | None:
    """Return the group that holds an array, None where there is none to be seen.

    Parameters
    ----------
    array : zarr.Array or zarr.Group
    levels : int
        How many groups up.

    Examples
    --------
    >>> import zarr
    >>> group = zarr.create_group({}, attributes={"title": "scene"})
    >>> array = group.create_array("bands/red", shape=(4, 4), dtype="f4")
    >>> group_around(array, levels=2).attrs["title"]
    'scene'
    """
    import zarr
    from zarr.storage import LocalStore

    from ...storage.url_store import UrlStore, open_store

    store: Any = array.store
    inside = array.path.strip("/").split("/") if array.path else []
    up = levels - len(inside)
    if up <= 0:
        place, path = store, "/".join(inside[:-levels])
    elif isinstance(store, LocalStore):
        place, path = Path(store.root).absolute().parents[up - 1], ""
    elif isinstance(store, UrlStore) and len(parts := store.url.rstrip("/").split("/")) > up + 3:
        place, path = open_store("/".join(parts[:-up])), ""
    else:
        return None
    try:
        return zarr.open_group(place, path=path, mode="r")
    except (OSError, ValueError, KeyError, DaskEMError):
        # GroupNotFoundError is a FileNotFoundError. Nothing is around it.
        return None


def named_dimensions(array: zarr.Array[Any]) -> tuple[str, ...] | None:
    """Return the names of an array's dimensions: its own, or those of an OME-Zarr image."""
    found = dimensions_of(array)
    if found is not None:
        return found
    for levels in (1, 2):
        around = group_around(array, levels)
        if around is None:
            return None
        for image in multiscales(around.attrs):
            axes = [axis["name"] if isinstance(axis, dict) else str(axis) for axis in image["axes"]]
            if len(axes) == array.ndim:
                return tuple(map(str, axes))
    return None


def multiscales(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the attributes of a group say of images in several resolutions.

    https://ngff.openmicroscopy.org/0.5/#multiscale-md; before version 0.5 outside of `ome`.
    """
    ome = attributes.get("ome")
    found = (ome if isinstance(ome, dict) else attributes).get("multiscales")
    images = found if isinstance(found, list) else []
    return [
        image for image in images
        if isinstance(image, dict) and isinstance(image.get("axes"), list)
        and isinstance(image.get("datasets"), list)
    ]  # fmt: skip


def variable_names(node: zarr.Array[Any] | zarr.Group) -> tuple[str, ...] | None:
    """Return the names of AnnData's variables, whose matrix a node is: its `X`, or a layer.

    None for anything else, and where several have one name.
    """
    if "encoding-type" not in node.attrs:
        return None
    for levels, inside in ((1, "X"), (2, "layers/")):
        root = group_around(node, levels)
        if root is None:
            return None
        is_one = f"/{_place(node)}".rpartition(_place(root))[2].lstrip("/").startswith(inside)
        if root.attrs.get("encoding-type") == "anndata" and is_one:
            table: Any = root.get("var")
            index = None if table is None else str(table.attrs.get("_index", "_index"))
            names = None if index is None else texts_along(table, index, None)
            return names if names and len({*names}) == len(names) else None
    return None


def coordinates_of(array: zarr.Array[Any], dims: Sequence[str]) -> list[Coordinate]:
    """Return what lies beside an array and tells where the cells of some dimensions lie.

    The coordinates of the dimensions, those that the array or its group names, and the mapping of
    the whole grid.
    """
    around = group_around(array)
    if around is None:
        return []
    told = [str(of.get("coordinates", "")) for of in (array.attrs, around.attrs)]
    mapping = str(array.attrs.get("grid_mapping", "")).partition(":")[0]
    names = dict.fromkeys([*dims, *" ".join(told).split(), *mapping.split()])
    found = []
    for name in names:
        beside: Any = around.get(name)
        if beside is None or not hasattr(beside, "dtype"):
            continue
        along = dimensions_of(beside) if beside.ndim else ()
        if along is None or not {*along} <= {*dims} or (name in dims and along != (name,)):
            continue
        attributes = dict(beside.attrs)
        attributes.pop("_ARRAY_DIMENSIONS", None)
        found.append(Coordinate(name, along, beside, beside.dtype, attributes))
    return found


def _place(node: zarr.Array[Any] | zarr.Group) -> str:
    return str(node.store_path).rstrip("/")


def texts_along(group: zarr.Group | None, dim: str, n: int | None) -> tuple[str, ...] | None:
    """Return the coordinate of a dimension where it holds n texts, else None."""
    array: Any = None if group is None else group.get(dim)
    if (
        array is None
        or not hasattr(array, "dtype")
        or array.ndim != 1
        or n not in (None, array.shape[0])
    ):
        return None
    values = np.asarray(array[:], dtype=object).tolist()
    return tuple(values) if all(isinstance(value, str) for value in values) else None
