"""Labelled rows: an `xarray.DataArray` or Dataset in, a DataArray of its rows' dimensions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.additive import Array
from ..core.columns import Column
from ..core.grid import Grid
from ..errors import DataError
from .columns import choose
from .grids import (
    VARIABLE,
    Cells,
    Part,
    check_numbers,
    check_shared,
    feature_axis,
    undecided,
    variable_with,
)
from .options import ReadOptions
from .packing import Packing, column_of

# Attributes that answers have, too: where the cells lie.
OF_THE_GRID = ("grid_mapping", "crs", "transform", "res", "spatial_ref")


@dataclass(frozen=True)
class Labelled:
    """Hold the parts of a DataArray or Dataset of rows.

    Attributes
    ----------
    data : NumPy or Dask array, or Cells
        (n, d), not loaded where it was not.
    rows : tuple
        The dimensions of rows.
    coords : dict
        Every coordinate that does not run along the columns.
    columns : tuple of Column, or None
        Named by the coordinate of the columns, where it holds strings, or by the variables.
    attrs : mapping
        Those that answers have, too.

    Examples
    --------
    >>> Labelled.of([[0.0], [1.0]]) is None  # no DataArray
    True
    >>> Labelled(np.zeros((2, 1)), ("place",), {}, None).weights([1.0, 2.0])
    [1.0, 2.0]
    """

    data: Any
    rows: tuple[Any, ...]
    coords: Any
    columns: tuple[Column, ...] | None
    attrs: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, X: Any, options: ReadOptions | None = None, name: str = "X") -> Labelled | None:
        """Take a DataArray or Dataset apart; return None where X is something else.

        Raises
        ------
        DataError
            Nobody said which dimension holds the variables, or there is no such one; or the
            variables of a Dataset do not share their dimensions.
        """
        if not is_xarray(X):
            return None
        options = ReadOptions() if options is None else options
        if hasattr(X, "data_vars"):
            return cls._of_variables(X, options, name)
        if not hasattr(X, "dims"):
            raise DataError(
                f"{name} is an xarray.{type(X).__name__}: pass a DataArray or a Dataset"
            )
        if len(X.dims) == 1 and not options.features:
            raise DataError(
                f"sample_weight has the dimensions {X.dims}: if it is one column, pass "
                f"{name}.expand_dims('feature', axis=1)"
            )
        named = [str(dim) for dim in X.dims if _names(X, dim) is not None]
        columns = X.dims[feature_axis(name, _sizes(X), options.features, named)]
        rows = tuple(dim for dim in X.dims if dim != columns)
        packing = None if options.raw else Packing.of_decoded(X.attrs, X.encoding, X.dtype)
        names = _names(X, columns)
        known = None if names is None else tuple(column_of(n, X.attrs, X.dtype) for n in names)
        data = _lazy(X.transpose(*rows, columns))
        if len(rows) > 1 or known is not None or packing is not None:
            data = Cells((Part(data, packing),), tuple(map(str, rows)), known)
        coords = X.drop_vars([c for c in X.coords if columns in X[c].dims]).coords
        return cls(data, rows, coords, known, _kept(X.attrs))

    @classmethod
    def _of_variables(cls, X: Any, options: ReadOptions, name: str) -> Labelled | None:
        """The variables of a Dataset as columns, or the one that has the dimension of them."""
        variables = {str(key): X[key] for key in X.data_vars if X[key].dims}
        dims = {key: tuple(map(str, one.dims)) for key, one in variables.items()}

        def member(key: str) -> str:
            return f"{name}[{key!r}]"

        if options.features not in ("", VARIABLE):
            key = variable_with(name, dims, options.features, member)
            return cls.of(variables[key], options, member(key))
        if len(variables) == 1 and not options.features and not options.fitted:
            ((key, one),) = variables.items()
            named = [str(dim) for dim in one.dims if _names(one, dim) is not None]
            raise undecided(member(key), _sizes(one), named, alone=True)
        kinds = [column_of(key, one.attrs, one.dtype) for key, one in variables.items()]
        # Which are read is chosen again when it is opened, with the weights.
        taken = choose(kinds, options, name=name).names if variables else ()
        check_shared(name, {key: dims[key] for key in taken}, member)
        check_numbers(name, [key for key in taken if variables[key].dtype.kind not in "fiub"])
        shared = variables[taken[0]].dims
        parts = {
            key: Part(
                _lazy(one.transpose(*shared))[..., None],
                None if options.raw else Packing.of_decoded(one.attrs, one.encoding, one.dtype),
            )
            for key, one in variables.items()
            if {*one.dims} == {*shared} and one.dtype.kind in "fiub"
        }
        known = tuple(column for column in kinds if column.name in parts)
        coords = X.drop_vars([c for c in X.coords if not {*X[c].dims} <= {*shared}]).coords
        beside = tuple(column for column in kinds if column.name not in parts)
        data = Cells(tuple(parts.values()), tuple(map(str, shared)), known, beside)
        return cls(data, shared, coords, known, _kept(X.attrs))

    @property
    def feature_names(self) -> Array | None:
        """Names of the columns."""
        if self.columns is None:
            return None
        return np.asarray([column.name for column in self.columns], dtype=object)

    def answer(self, values: Any, name: str) -> Any:
        """Return values for each row, of the rows' shape or (..., k), with their coordinates."""
        import xarray as xr

        dims = [*self.rows]
        coords = self.coords
        if values.ndim > len(dims):
            dims.append("component" if "component" not in self.rows else "k")
            coords = coords.assign({dims[-1]: np.arange(values.shape[-1])})
        return xr.DataArray(values, coords, dims, name, self.attrs)

    def weights(self, weight: Any) -> Any:
        """Return weights, whose labels, where they have any, must be those of the rows.

        Raises
        ------
        DataError
            They have other dimensions, or another order.
        """
        return self._in_order(weight, ())

    def beside(self, given: Any, name: str) -> Any:
        """Return what is given to stand beside rows, by that name in messages, in their order.

        Labels and noise may have dimensions of their own: components, columns.

        Raises
        ------
        DataError
            It has other dimensions, or another order.
        """
        own = [dim for dim in getattr(given, "dims", ()) if dim not in self.rows]
        try:
            return self._in_order(given, own[:2])
        except DataError as e:
            raise DataError(str(e).replace("sample_weight", name)) from None

    def _in_order(self, values: Any, last: Sequence[Any]) -> Any:
        """Return weights with the dimensions of the rows, and then the last ones."""
        if not is_xarray(values):
            return values
        dims = getattr(values, "dims", ())
        if {*dims} != {*self.rows, *last}:
            expected = self.rows if len(self.rows) > 1 else f"({self.rows[0]!r},)"
            raise DataError(
                f"sample_weight has the dimensions {dims}: expected {expected}, those of X's rows"
            )
        for dim in self.rows:
            ours, theirs = (c.indexes.get(dim) for c in (self.coords, values))
            if ours is not None and theirs is not None and not ours.equals(theirs):
                raise DataError(
                    f"sample_weight has other coordinates along {dim!r} than X: give both the "
                    f"same order, as by sample_weight.reindex_like(X[{dim!r}])"
                )
        return values.transpose(*self.rows, *last)


def in_dims(values: Any, grid: Grid | None) -> Any:
    """Return a DataArray with the dimensions of a grid first, where it has them all.

    Examples
    --------
    >>> in_dims([1.0, 2.0], None)
    [1.0, 2.0]
    """
    if grid is None or not is_xarray(values) or not {*grid.dims} <= {*map(str, values.dims)}:
        return values
    return values.transpose(*grid.dims, ...)


def unlabelled(weight: Any) -> Any:
    """Return weights without their labels, not loaded where they were not.

    Examples
    --------
    >>> unlabelled([1.0, 2.0])  # of a DataArray its data
    [1.0, 2.0]
    """
    return _lazy(weight) if is_xarray(weight) else weight


def _kept(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: attributes[name] for name in OF_THE_GRID if name in attributes}


def _sizes(X: Any) -> dict[str, int]:
    return {str(dim): int(n) for dim, n in X.sizes.items()}


def is_xarray(X: object) -> bool:
    """Tell whether an object is of xarray, without an import of it."""
    return type(X).__module__.partition(".")[0] == "xarray"


def coordinate(X: Any, name: str) -> Any:
    """Return the values of a coordinate of the rows of a DataArray, its first dimension.

    Raises
    ------
    DataError
        It has none of that name.
    """
    found = X.coords.get(name)
    if found is None or found.dims != X.dims[:1]:
        raise DataError(
            f"X has no coordinate {name!r} of its rows, along {X.dims[0]!r}: give the times as an "
            "array"
        )
    return found.values


def _lazy(X: Any) -> Any:
    """The array in a DataArray: one that lies in a store is not read, but made a Dask array."""
    if X.chunks is not None or getattr(X.variable, "_in_memory", True):
        return X.data
    return X.chunk(X.encoding.get("preferred_chunks", "auto")).data


def _names(X: Any, columns: Any) -> list[str] | None:
    if columns not in X.coords:
        return None
    values = X.coords[columns].to_numpy()
    strings = values.dtype.kind in "UT" or all(isinstance(v, str) for v in values.tolist())
    return [*map(str, values.tolist())] if strings and values.ndim == 1 else None
