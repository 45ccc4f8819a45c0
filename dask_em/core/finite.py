"""Rows that hold NaN or infinity: left out, or refused with their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import NonFiniteError
from .additive import Array
from .columns import Column

Missing = tuple[bool, ...]
"""In which columns NaN is a value that is missing; one entry for all columns, or one each."""

NOWHERE: Missing = (False,)


def not_finite(X: Array, missing: Missing = NOWHERE) -> Array:
    """Return which numbers of X (n, d) are NaN or infinite, but for values that may be missing.

    Examples
    --------
    >>> not_finite(np.array([[np.nan, np.nan], [np.inf, 0.0]]), (True, False)).tolist()
    [[False, True], [True, False]]
    """
    bad = ~np.isfinite(X)
    if any(missing):
        bad &= ~(np.isnan(X) & np.asarray(missing))
    return np.asarray(bad)


def finite_mask(X: Array, missing: Missing = NOWHERE) -> Array:
    """Return which rows of X (n, d) hold finite, or missing, numbers only, (n,) of bool.

    Examples
    --------
    >>> X = np.array([[1.0, 2.0], [np.nan, 0.0]])
    >>> finite_mask(X), finite_mask(X, (True,))
    (array([ True, False]), array([ True,  True]))
    """
    return np.asarray(~not_finite(X, missing).any(axis=1))


def finite_only(X: Array, missing: Missing = NOWHERE) -> Array | None:
    """Return `finite_mask(X)`, or None where all rows are finite.

    Examples
    --------
    >>> finite_only(np.array([[1.0], [np.nan]])), finite_only(np.ones((2, 1)))
    (array([ True, False]), None)
    """
    if _sum_is_finite(X):
        return None
    finite = finite_mask(X, missing)
    return None if finite.all() else finite


def finite_rows(
    X: Array, weight: Array | None, missing: Missing = NOWHERE
) -> tuple[Array, Array | None, int]:
    """Return the finite rows of X (n, d), their weights, and how many rows were left out.

    Examples
    --------
    >>> finite_rows(np.array([[1.0], [np.inf], [3.0]]), None)
    (array([[1.],
           [3.]]), None, 1)
    """
    finite = finite_only(X, missing)
    if finite is None:
        return X, weight, 0
    n_dropped = len(X) - int(finite.sum())
    return X[finite], None if weight is None else weight[finite], n_dropped


def check_finite(block: Array, numbers: Sequence[int] | Array, missing: Missing = NOWHERE) -> None:
    """Raise `NonFiniteError` where a block (b, d), of rows of these numbers, is not finite.

    Examples
    --------
    >>> check_finite(np.array([[0.0, np.nan]]), range(7, 8))
    Traceback (most recent call last):
    ...
    dask_em.errors.NonFiniteError: X contains NaN at row 7 of its chunk, column 1: drop or ...
    """
    if _sum_is_finite(block):
        return
    first = first_not_finite(block, missing)
    if first is not None:
        what, row, column = first
        raise NonFiniteError(what, int(numbers[row]), column)


@contextmanager
def located(
    locate: Callable[[int, int], str], chunk: int, columns: Sequence[Column] | None = None
) -> Iterator[None]:
    """Say in errors of the block where a row of this chunk is in the data.

    Parameters
    ----------
    locate : callable
        As `Source.locate`.
    chunk : int
    columns : sequence of Column, optional
        As `Source.columns`.

    Examples
    --------
    >>> with located(lambda chunk, row: f"row {10 * chunk + row}", 2):
    ...     check_finite(np.array([[np.inf]]), [3])
    Traceback (most recent call last):
    ...
    dask_em.errors.NonFiniteError: X contains infinity at row 23, column 0: drop or fill ...
    """
    try:
        yield
    except NonFiniteError as e:
        name = "" if columns is None else columns[e.column].name
        raise e.at(locate(chunk, e.row), name) from None


def first_not_finite(X: Array, missing: Missing = NOWHERE) -> tuple[str, int, int] | None:
    """Return the first number of X (n, d) that is not finite: its name, row and column.

    Examples
    --------
    >>> first_not_finite(np.array([[0.0, 1.0], [2.0, -np.inf]]))
    ('infinity', 1, 1)
    """
    bad = not_finite(X, missing)
    if not bad.any():
        return None
    row, column = (int(i) for i in np.argwhere(bad)[0])
    return "NaN" if np.isnan(X[row, column]) else "infinity", row, column


def as_finite(
    name: str,
    value: Any,
    shape: tuple[int, ...],
    parameter: str | None = None,
    of: str = "the components and columns of this fit",
) -> Array | None:
    """Return what the user gave as an array of finite numbers, None where nothing was given.

    Parameters
    ----------
    name : str
        Of the option.
    value : array-like or None
    shape : tuple of int
    parameter : str, optional
        Its name in scikit-learn's messages, whose words are then kept, too.
    of : str
        What the shape follows from, for the message.

    Raises
    ------
    ValueError
        It has another shape, or holds what is no finite number.

    Examples
    --------
    >>> as_finite("weights_init", [1, 2], (2,))
    array([1., 2.])
    >>> as_finite("weights_init", None, (2,)) is None
    True
    """
    if value is None:
        return None
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{name}={value!r:.80}: expected numbers of shape {shape}") from e
    if array.shape != shape:
        theirs = (
            f". The parameter '{parameter}' should have the shape of {shape}, but got {array.shape}"
        )
        raise ValueError(
            f"{name} has shape {array.shape}, expected {shape} for {of}"
            f"{theirs if parameter else ''}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity: expected finite numbers")
    return array


def _sum_is_finite(X: Array) -> bool:
    """Tell by one sum that all numbers are finite; False where that is not certain."""
    with np.errstate(over="ignore", invalid="ignore"):
        return X.dtype.kind != "f" or bool(np.isfinite(X.sum(dtype=np.float64)))
