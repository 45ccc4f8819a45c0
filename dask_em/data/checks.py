"""Checks of arrays before a source is made of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np

from ..core.additive import Array
from ..errors import DataError
from .fields import pandas_values
from .packing import unmasked

logger = logging.getLogger("dask_em")


@cache
def tell_once(line: str) -> None:
    """Log a line, which every fit would say again."""
    logger.info(line)


class HasShape(Protocol):
    """An array of any library."""

    @property
    def shape(self) -> Sequence[float]:
        """Lengths, NaN where unknown."""

    @property
    def dtype(self) -> Any:
        """Type of the numbers, as `numpy.dtype` takes it."""


def check_array(name: str, X: HasShape, ndim: int) -> None:
    """Check the number of dimensions, that there are rows, and that they hold real numbers.

    Raises
    ------
    DataError
        One of these does not hold; the message names the array by `name`.

    Examples
    --------
    >>> check_array("X", np.zeros((3, 2)), 2)
    >>> check_array("X", np.zeros(3), 2)
    Traceback (most recent call last):
    ...
    dask_em.errors.DataError: X must be 2-D, (rows, columns), got 1-D of shape (3,): ...
    """
    shape = tuple(X.shape)
    if len(shape) != ndim:
        wanted = "2-D, (rows, columns)" if ndim == 2 else "1-D, one number a row"
        raise DataError(
            f"{name} must be {wanted}, got {len(shape)}-D of shape {shape}{_advice(name, X, ndim)}"
        )
    if shape[0] == 0 or shape[-1] == 0:
        raise DataError(f"{name} has shape {shape}: there is nothing to cluster")
    if np.dtype(X.dtype).kind not in "fiub":
        raise DataError(
            f"{name} has dtype {X.dtype}, which is not a real number; "
            f"convert it first, for example with {name}.astype('float64')"
        )


def check_dimensions(name: str, X: object) -> None:
    """Refuse arrays of more than two dimensions, and ask which of them holds the variables.

    Examples
    --------
    >>> check_dimensions("X", np.zeros((3, 20, 30)))
    Traceback (most recent call last):
    ...
    dask_em.errors.DataError: X must be 2-D, (rows, columns), got 3-D of shape (3, 20, 30): which axis
    holds the variables? If it is axis 0, pass np.moveaxis(X, 0, -1).reshape(-1, 3)
    """  # noqa: E501
    if isinstance(X, np.ndarray) and X.ndim > 2:
        check_array(name, X, 2)


def _advice(name: str, X: HasShape, ndim: int) -> str:
    """Say what to pass instead of an array of another number of dimensions."""
    shape = tuple(X.shape)
    kind = type(X).__module__.partition(".")[0]
    lazy = {"dask": name, "zarr": f"da.from_zarr({name})", "h5py": f"da.from_array({name})"}
    array = lazy.get(kind, name)
    if ndim == 1 and len(shape) == 2:
        return f": pass {array}[:, 0]" if shape[1] == 1 else ""
    if len(shape) == 1:
        return f": if it is one column, pass {array}[:, None]"
    if len(shape) < ndim:
        return ""
    # Variables are mostly fewer than places or times.
    axis = int(np.nanargmin(shape))
    moved = f"{'da' if kind in lazy else 'np'}.moveaxis({array}, {axis}, -1)"
    return (
        f": which axis holds the variables? If it is axis {axis}, pass "
        f"{moved}.reshape(-1, {shape[axis]})" + (", where da is dask.array" if kind in lazy else "")
    )


def check_weight(weight: HasShape, n_rows: int) -> None:
    """Check that weights are one real number a row.

    Raises
    ------
    DataError
        They are not.
    """
    check_array("sample_weight", weight, 1)
    if weight.shape[0] != n_rows:
        raise DataError(f"sample_weight has {weight.shape[0]} entries and X has {n_rows} rows")


def memory_weight(weight: object, n_rows: int) -> Array:
    """Return weights in memory as float64, (n_rows,), checked; missing ones are NaN."""
    if type(weight).__module__.startswith("pandas.") and hasattr(weight, "dtype"):
        weight = pandas_values(weight, np.dtype(np.float64))
    array = np.asarray(unmasked(np.asanyarray(weight)), dtype=np.float64)
    check_weight(array, n_rows)
    return array


def no_such_column(weight: str, name: str = "X") -> DataError:
    """Return the error of weights that are no path, where columns have no names.

    Examples
    --------
    >>> print(no_such_column("w"))
    the weights 'w' are no path, and the columns of X have no names
    """
    return DataError(f"the weights {weight!r} are no path, and the columns of {name} have no names")


def cell_weights(weight: object, shape: tuple[int, ...]) -> Array:
    """Return weights in memory as float64 of a grid's shape, from one a cell in C order.

    Examples
    --------
    >>> cell_weights([1, 2], (2, 1))
    array([[1.],
           [2.]])
    """
    array = np.asarray(unmasked(np.asanyarray(weight)), dtype=np.float64)
    if array.shape == shape:
        return array
    if array.ndim > 1:
        raise DataError(
            f"sample_weight has shape {array.shape}: expected one number a cell of X, {shape}"
        )
    check_weight(array, int(np.prod(shape)))
    return array.reshape(shape)
