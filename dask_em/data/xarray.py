"""Labelled rows: an `xarray.DataArray` in, one with the coordinates of its rows out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.additive import Array
from ..core.columns import Column
from ..errors import DataError
from .columns import choose
from .options import ReadOptions
from .packing import Packing


@dataclass(frozen=True)
class Labelled:
    """Hold the parts of a two-dimensional DataArray.

    Attributes
    ----------
    data : NumPy or Dask array
        (n, d), not loaded where it was not.
    rows : str
        The dimension of rows.
    coords : dict
        Every coordinate that does not run along the columns.
    feature_names : (d,) array of str, or None
        The coordinate of the columns, where it holds strings.

    Examples
    --------
    >>> Labelled.of([[0.0], [1.0]]) is None  # no DataArray
    True
    >>> Labelled(np.zeros((2, 1)), "place", {}, None).weights([1.0, 2.0])
    [1.0, 2.0]
    """

    data: Any
    rows: Any
    coords: Any
    feature_names: Array | None

    @classmethod
    def of(cls, X: Any, name: str = "X") -> Labelled | None:
        """Take a DataArray apart; return None where X is something else.

        Raises
        ------
        DataError
            A Dataset, or a DataArray that has not two dimensions: which calls make one.
        """
        if not is_xarray(X):
            return None
        if not hasattr(X, "dims") or hasattr(X, "data_vars"):
            raise DataError(
                f"{name} is an xarray.{type(X).__name__}: pass a DataArray of rows and columns"
                f"{_variables(name, X)}"
            )
        if len(X.dims) != 2:
            raise DataError(f"{name} has the dimensions {X.dims}: {_advice(name, X)}")
        packing = Packing.of(X.attrs, X.dtype)
        if packing is not None:
            raise DataError(
                f"{name} holds packed numbers ({packing}): pass xarray.decode_cf({name}.to_dataset("
                f"name='X'))['X'] to have them decoded, or {name}.drop_attrs() to take the stored "
                "numbers as they are"
            )
        rows, columns = X.dims
        coords = X.drop_vars([c for c in X.coords if columns in X[c].dims]).coords
        return cls(_lazy(X), rows, coords, _names(X, columns))

    @property
    def columns(self) -> Sequence[Column] | None:
        """The columns, where they have names."""
        names = self.feature_names
        return None if names is None else [Column(str(name)) for name in names]

    def choosing(self, options: ReadOptions) -> tuple[Labelled, ReadOptions]:
        """Return the columns that are wanted, and what else is to be done with them.

        Raises
        ------
        DataError
            A column is not there.
        """
        if self.columns is None:
            return self, options
        chosen = choose(self.columns, options)
        done = replace(options, columns=(), exclude=())
        if [*chosen.numbers] == [*range(len(self.columns))]:
            return self, done
        names = np.asarray(chosen.names, dtype=object)
        return replace(self, data=self.data[:, [*chosen.numbers]], feature_names=names), done

    def answer(self, values: Any, name: str) -> Any:
        """Return values for each row, (n,) or (n, k), with the rows' coordinates."""
        import xarray as xr

        dims = [self.rows]
        coords = self.coords
        if values.ndim == 2:
            dims.append("component" if self.rows != "component" else "k")
            coords = coords.assign({dims[1]: np.arange(values.shape[1])})
        return xr.DataArray(values, coords, dims, name)

    def weights(self, weight: Any) -> Any:
        """Return weights, whose labels, where they have any, must be those of the rows.

        Raises
        ------
        DataError
            They have other dimensions, or another order.
        """
        if not is_xarray(weight):
            return weight
        if getattr(weight, "dims", None) != (self.rows,):
            raise DataError(
                f"sample_weight has the dimensions {weight.dims}: expected ({self.rows!r},), "
                "those of X's rows"
            )
        ours, theirs = (c.indexes.get(self.rows) for c in (self.coords, weight))
        if ours is not None and theirs is not None and not ours.equals(theirs):
            raise DataError(
                f"sample_weight has other coordinates along {self.rows!r} than X: give both the "
                f"same order, as by sample_weight.reindex_like(X[{self.rows!r}])"
            )
        return weight


def unlabelled(weight: Any) -> Any:
    """Return weights without their labels, not loaded where they were not.

    Examples
    --------
    >>> unlabelled([1.0, 2.0])  # of a DataArray its data
    [1.0, 2.0]
    """
    return _lazy(weight) if is_xarray(weight) else weight


def _advice(name: str, X: Any) -> str:
    """Ask which dimension holds the variables, and say how to make rows of the others."""
    if not X.dims:
        return "expected rows and columns"
    if len(X.dims) == 1:
        return f"if it is one column, pass {name}.expand_dims('feature', axis=1)"
    named = [dim for dim in X.dims if _names(X, dim) is not None]
    # Variables have names, or are mostly fewer than places or times.
    columns = (named or sorted(X.dims, key=lambda dim: X.sizes[dim]))[0]
    return (
        f"which of them holds the variables? If it is {columns!r}, pass "
        f"{name}.{_stacked(X.dims, columns)}, and unstack('row') the answers"
    )


def _stacked(dims: Sequence[Any], columns: Any) -> str:
    rows = tuple(dim for dim in dims if dim != columns)
    return f"stack(row={rows!r}).transpose('row', {columns!r})"


def _variables(name: str, X: Any) -> str:
    """Say how the variables of a Dataset become columns, where they have the same dimensions."""
    dims = {variable: X[variable].dims for variable in getattr(X, "data_vars", ())}
    one = next((variable for variable, of in dims.items() if len(of) == 2), None)
    found = "" if one is None else f", such as {name}[{one!r}]"
    if len(dims) < 2 or len(set(dims.values())) > 1:
        return found
    (rows, *others) = next(iter(dims.values())) or ("",)
    if not rows:
        return found
    columns = f"{name}.to_dataarray('feature')"
    turned = f".{_stacked((rows, *others), 'feature')}" if others else f".transpose({rows!r}, ...)"
    return f"{found}, or with its variables as columns {columns}{turned}"


def is_xarray(X: object) -> bool:
    """Tell whether an object is of xarray, without an import of it."""
    return type(X).__module__.partition(".")[0] == "xarray"


def _lazy(X: Any) -> Any:
    """The array in a DataArray: one that lies in a store is not read, but made a Dask array."""
    if X.chunks is not None or getattr(X.variable, "_in_memory", True):
        return X.data
    return X.chunk(X.encoding.get("preferred_chunks", "auto")).data


def _names(X: Any, columns: Any) -> Array | None:
    if columns not in X.coords:
        return None
    values = X.coords[columns].to_numpy()
    strings = values.dtype.kind in "UT" or all(isinstance(v, str) for v in values.tolist())
    return np.asarray(values, dtype=object) if strings and values.ndim == 1 else None
