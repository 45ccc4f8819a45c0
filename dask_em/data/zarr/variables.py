"""Which arrays of a store are the variables of a grid, and the source of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from ...core.columns import KINDS, Column, ColumnKind
from ...core.protocols import StoredSource
from ...errors import DataError
from ...storage.urls import describe_store
from ..checks import cell_weights, no_such_column
from ..columns import WeightColumn, choose, listed
from ..grids import (
    VARIABLE,
    check_numbers,
    check_shared,
    feature_axis,
    undecided,
    variable_with,
)
from ..options import ReadOptions
from ..packing import categories, column_of
from .around import (
    group_around,
    multiscales,
    named_dimensions,
    texts_along,
    variable_names,
)
from .grid import GridRows, GridSource, Layer, cut
from .groups import matrix_of
from .layout import attributes_of, dimensions_of
from .sparse import is_csr, sparse_matrix_source

if TYPE_CHECKING:
    import zarr

# Attributes by which a variable names those that are its coordinates, or none of the data.
BESIDE = ("coordinates", "bounds", "climatology", "grid_mapping", "ancillary_variables")


def is_grid(array: zarr.Array[Any], options: ReadOptions) -> bool:
    """Tell whether an array is read cell by cell, not row by row.

    Examples
    --------
    >>> import zarr
    >>> array = zarr.create_array({}, shape=(3, 9), dtype="f4", dimension_names=("band", "x"))
    >>> [is_grid(array, ReadOptions(features=name)) for name in ("band", "x", "")]
    [True, False, False]
    """
    if array.ndim < 2:
        return False
    if array.ndim == 2 and not options.features:
        return False
    names = named_dimensions(array)
    if names is None and options.features:
        raise DataError(
            f"{options.features!r} is no dimension of {describe_store(str(array.store_path))}, "
            "whose dimensions have no names: give them some, as xarray does, or pass a DataArray"
        )
    return names is not None and not (array.ndim == 2 and names[1] == options.features)


def variables_of(group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """Return the variables of a group that xarray wrote: its coordinates and scalars are none.

    Examples
    --------
    >>> import zarr
    >>> group = zarr.create_group({})
    >>> for name in ("x", "height"):
    ...     _ = group.create_array(name, shape=(9,), dtype="f4", dimension_names=("x",))
    >>> list(variables_of(group))
    ['height']
    """
    if not group.store.supports_listing and group.metadata.consolidated_metadata is None:
        return {}
    if "encoding-type" in group.attrs or multiscales(dict(group.attrs)):
        return {}
    arrays = {name: array for name, array in sorted(group.arrays()) if array.ndim}
    dims = {name: dimensions_of(array) for name, array in arrays.items()}
    beside = set[str]()
    for attributes in (dict(group.attrs), *(dict(array.attrs) for array in arrays.values())):
        for key in BESIDE:
            # "crs: x y" is how some name a mapping with its coordinates.
            beside.update(str(attributes.get(key, "")).replace(":", " ").split())
    return {
        name: array
        for name, array in arrays.items()
        if dims[name] is not None and dims[name] != (name,) and name not in beside
    }


def is_matrix(X: zarr.Array[Any] | zarr.Group, sample_weight: object, options: ReadOptions) -> bool:
    """Tell whether X is read row by row: its columns are all wanted, in their order."""
    import zarr

    if isinstance(X, zarr.Group):
        return not holds_rows(X)
    if is_grid(X, options):
        return False
    columns = named_columns(X)
    if columns is None:
        return True
    chosen = choose(columns, options, weight_column(sample_weight))
    return chosen.weight is None and chosen.numbers == tuple(range(len(columns)))


def grid_source(
    X: zarr.Array[Any] | zarr.Group, sample_weight: Any, options: ReadOptions
) -> StoredSource:
    """Make the source of a grid, or of a sparse matrix, with weights of any kind."""
    import zarr

    if isinstance(X, zarr.Group) and is_csr(X):
        return sparse_matrix_source(X, sample_weight, options)
    if isinstance(X, zarr.Group):
        return group_grid(X, sample_weight, options)
    return array_grid(X, sample_weight, options)


def named_columns(array: zarr.Array[Any]) -> tuple[Column, ...] | None:
    """Return the columns of an array of rows, where a coordinate beside it names them."""
    if array.ndim != 2:
        return None
    return _names_along(array, (dimensions_of(array) or ("", ""))[1], 1)


def _names_along(array: zarr.Array[Any], dim: str, axis: int) -> tuple[Column, ...] | None:
    n = int(array.shape[axis])
    texts = texts_along(group_around(array), dim, n) if dim else variable_names(array)
    if texts is None or len(texts) != n:
        return None
    attributes = attributes_of(array)
    told = attributes.get(KINDS)
    known: dict[str, ColumnKind] = {kind: kind for kind in get_args(ColumnKind)}
    kinds = [known.get(str(kind)) for kind in told] if isinstance(told, list) else []
    columns = [column_of(text, attributes, array.dtype) for text in texts]
    if len(kinds) != n:
        return tuple(columns)
    return tuple(
        replace(column, kind=kind or column.kind)
        for column, kind in zip(columns, kinds, strict=True)
    )


def holds_rows(group: zarr.Group) -> bool:
    """Tell whether a group is rows as a whole: its variables are columns of them."""
    return is_csr(group) or bool(variables_of(group))


def array_grid(
    array: zarr.Array[Any], sample_weight: Any, options: ReadOptions, name: str = ""
) -> GridSource:
    """Make the source of one array that holds all variables along one of its dimensions.

    Raises
    ------
    DataError
        Nobody said which dimension, or there is no such one; or rows or weights cannot be used.
    """
    named = named_dimensions(array)
    # Without names it is a matrix of which some columns are read.
    dims = named or ("row", "column")
    name = name or describe_store(str(array.store_path))
    if len({*dims}) < array.ndim:
        raise DataError(f"{name} has several dimensions of one name, {', '.join(dims)}: rename one")
    sizes = dict(zip(dims, map(int, array.shape), strict=True))
    axis = feature_axis(name, sizes, options.features, _likely(array, sizes), name)
    axes = tuple(i for i in range(array.ndim) if i != axis)
    names = _names_along(array, dims[axis] if named else "", axis)
    columns: tuple[Column, ...] | None = None
    picked: tuple[int, ...] = ()
    if names is not None:
        chosen = choose(names, options, weight_column(sample_weight), name)
        columns, picked = chosen.columns, chosen.numbers
        if chosen.weight is not None:
            sample_weight = Layer(array, axes, axis, options, (chosen.weight,))
    layer = Layer(array, axes, axis, options, picked)
    return _source([layer], tuple(dims[i] for i in axes), columns, sample_weight, name)


def group_grid(
    group: zarr.Group, sample_weight: Any, options: ReadOptions, name: str = ""
) -> GridSource:
    """Make the source of a group of variables that share their dimensions.

    With `features` it is the one variable that has that dimension; without, or with "variable",
    the variables are the columns.

    Raises
    ------
    DataError
        The variables do not share dimensions, or nobody said which is meant; or rows or weights
        cannot be used.
    """
    found, name = variables_of(group), name or describe_store(str(group.store_path))
    dims = {variable: named_dimensions(array) or () for variable, array in found.items()}

    def member(variable: str) -> str:
        return f"{name}/{variable}"

    if options.features not in ("", VARIABLE):
        variable = variable_with(name, dims, options.features, member)
        return array_grid(found[variable], sample_weight, options, member(variable))
    if len(found) == 1 and not options.features and not options.fitted:
        ((variable, array),) = found.items()
        sizes = dict(zip(dims[variable], map(int, array.shape), strict=True))
        path = member(variable)
        raise undecided(path, sizes, _likely(array, sizes), path, alone=True)
    kinds = {
        variable: column_of(variable, attributes_of(array), array.dtype)
        for variable, array in found.items()
    }
    chosen = choose(list(kinds.values()), options, weight_column(sample_weight), name)
    taken = [*chosen.names, *(() if chosen.weight is None else [list(found)[chosen.weight]])]
    numbers = {one for one, array in found.items() if np.dtype(array.dtype).kind in "fiub"}
    check_numbers(name, [one for one in taken if one not in numbers])
    check_shared(name, {one: dims[one] for one in taken}, member)
    shared = dims[taken[0]]
    layers = [
        Layer(
            found[variable],
            tuple(dims[variable].index(dim) for dim in shared),
            None,
            options,
            recoded=_recoded(kinds[variable], options, name),
        )
        for variable in taken
    ]
    weight = sample_weight if chosen.weight is None else layers.pop()
    return _source(layers, shared, chosen.columns, weight, name)


def table_grid(
    group: zarr.Group, sample_weight: Any, options: ReadOptions, name: str = ""
) -> GridSource | None:
    """Make the source of a store that `ingest` wrote, with columns of categories as their codes.

    Returns
    -------
    GridSource or None
        None where all columns that are read are those of the matrix.

    Raises
    ------
    DataError
        There is no such column, or a category that the model does not know.
    """
    matrix = matrix_of(group)
    beside = {} if matrix is None else _categories_beside(group)
    if matrix is None or not beside:
        return None
    name = name or describe_store(str(group.store_path))
    known = [*(named_columns(matrix) or ()), *beside]
    chosen = choose(known, options, weight_column(sample_weight), name)
    width, arrays = len(known) - len(beside), [*beside.values()]
    if all(number < width for number in chosen.numbers):
        return None
    layers: list[Layer] = []
    for number, column in zip(chosen.numbers, chosen.columns, strict=True):
        if number >= width:
            recoded = _recoded(column, options, name)
            layers.append(Layer(arrays[number - width], (0,), None, options, recoded=recoded))
        elif layers and layers[-1].variables is not None:
            # Neighbours are read together.
            layers[-1] = replace(layers[-1], picked=(*layers[-1].picked, number))
        else:
            layers.append(Layer(matrix, (0,), 1, options, (number,)))
    if chosen.weight is not None:
        if chosen.weight >= width:
            raise DataError(f"the weights {known[chosen.weight].name!r} are categories of {name}")
        sample_weight = Layer(matrix, (0,), 1, options, (chosen.weight,))
    return _source(layers, ("row",), chosen.columns, sample_weight, name)


def _categories_beside(group: zarr.Group) -> dict[Column, zarr.Array[Any]]:
    """Columns of categories beside the matrix of a store that `ingest` wrote."""
    found: dict[Column, zarr.Array[Any]] = {}
    for name, array in sorted(group.arrays()):
        told = attributes_of(array)
        if array.ndim == 1 and dimensions_of(array) == ("row",) and categories(told):
            # Words with blanks are not those of the meanings.
            words = tuple(map(str, told.get("categories", categories(told))))
            column = column_of(str(told.get("long_name", name)), told, array.dtype)
            found[replace(column, categories=words)] = array
    return found


def _recoded(column: Column, options: ReadOptions, name: str) -> tuple[int, ...]:
    """Return by which codes of a model those of a column are replaced; none where they agree."""
    of_model = options.categories_of(column.name)
    if not of_model or column.categories == of_model:
        return ()
    unknown = [word for word in column.categories if word not in of_model]
    if unknown:
        raise DataError(
            f"column {column.name!r} of {name} has categories that the model was not fitted to, "
            f"{listed(unknown)}: its own are {listed(of_model)}"
        )
    return tuple(of_model.index(word) for word in column.categories)


def _likely(array: zarr.Array[Any], sizes: Mapping[str, int]) -> list[str]:
    """Dimensions whose places have names, as those of variables do."""
    around = group_around(array)
    return [dim for dim, n in sizes.items() if texts_along(around, dim, n) is not None]


def weight_column(sample_weight: object) -> WeightColumn | None:
    """Return weights where they are the name of a column."""
    return sample_weight if isinstance(sample_weight, WeightColumn) else None


def _source(
    layers: Sequence[Layer],
    dims: tuple[str, ...],
    columns: tuple[Column, ...] | None,
    sample_weight: Any,
    name: str,
) -> GridSource:
    import zarr

    options, first = layers[0].options, layers[0]
    shape = tuple(int(first.array.shape[axis]) for axis in first.axes)
    for layer in layers:
        _check_layer(layer, dims, shape, name)
    grid = cut(layers, dims, shape)
    if isinstance(sample_weight, zarr.Array):
        sample_weight = _weight_layer(sample_weight, dims, shape, options)
    if isinstance(sample_weight, Layer):
        rows = GridRows(tuple(layers), grid, columns, name, sample_weight)
        return GridSource.of(rows, options=options)
    if isinstance(sample_weight, WeightColumn):
        raise no_such_column(sample_weight.name, name)
    rows = GridRows(tuple(layers), grid, columns, name)
    memory = None if sample_weight is None else cell_weights(sample_weight, shape)
    return GridSource.of(rows, memory, options)


def _check_layer(layer: Layer, dims: Sequence[str], shape: tuple[int, ...], name: str) -> None:
    found = tuple(int(layer.array.shape[axis]) for axis in layer.axes)
    if found != shape:
        raise DataError(
            f"the variables of {name} have different lengths along {', '.join(dims)}: {found} "
            f"and {shape}"
        )
    if 0 in layer.array.shape:
        raise DataError(f"{name} has shape {layer.array.shape}: there is nothing to cluster")
    if np.dtype(layer.array.dtype).kind not in "fiub":
        raise DataError(f"{name} has dtype {layer.array.dtype}, which is not a real number")


def layer_of_cells(array: zarr.Array[Any], dims: tuple[str, ...], options: ReadOptions) -> Layer:
    """Return an array of a grid's dimensions, in whatever order their names have.

    Another dimension is that of several numbers a cell. Whether its lengths are the grid's, whoever
    asks must see.
    """
    names = named_dimensions(array) or ()
    if {*dims} <= {*names}:
        axes = tuple(names.index(dim) for dim in dims)
    else:
        axes = tuple(range(min(array.ndim, len(dims))))
    others = [axis for axis in range(array.ndim) if axis not in axes]
    return Layer(array, axes, others[0] if others else None, options)


def _weight_layer(
    array: zarr.Array[Any], dims: tuple[str, ...], shape: tuple[int, ...], options: ReadOptions
) -> Layer:
    """Weights in an array of the grid's dimensions, in whatever order their names have."""
    layer = layer_of_cells(array, dims, options)
    found = tuple(int(array.shape[axis]) for axis in layer.axes)
    if array.ndim != len(dims) or found != shape:
        raise DataError(
            f"sample_weight has shape {array.shape}: expected one number a cell of "
            f"{', '.join(dims)}, {shape}"
        )
    return layer
