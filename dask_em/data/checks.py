"""Checks of arrays before a source is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ..core.additive import Array
from ..errors import DataError


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
    dask_em.errors.DataError: X must be 2-D, (rows, columns), got 1-D of shape (3,)
    """
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
    """Return weights in memory as float64, (n_rows,), checked."""
    array = np.asarray(weight, dtype=np.float64)
    check_weight(array, n_rows)
    return array
