"""Checks of values that were read from a file."""

from __future__ import annotations

import numpy as np

from .additive import Array

# Squares of larger numbers are none.
LARGEST = 1e150


def require(name: str, value: object, holds: bool) -> None:
    """Raise `ValueError` that names a value unless a condition holds.

    Examples
    --------
    >>> require("ridge", 0.5, True)
    >>> require("ridge", -1.0, False)
    Traceback (most recent call last):
    ValueError: ridge is -1.0
    """
    if not holds:
        raise ValueError(f"{name} is {brief(value)}")


def brief(value: object) -> str:
    """Return what a message says of a value of a file, however large or deep that is.

    Examples
    --------
    >>> brief("many"), brief([1, [2]]), brief(np.zeros((2, 3)))
    ("'many'", 'a list of 2', 'float64 (2, 3)')
    """
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"[:60]
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:60]}...")
    if value is None or isinstance(value, bool | int | float | np.number):
        return f"{value!r:.60}"
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def require_array(
    name: str,
    array: Array,
    shape: tuple[int, ...],
    allowed: float = np.nan,
    largest: float = LARGEST,
) -> None:
    """Raise `ValueError` unless an array is of float64, of a shape, and within bounds.

    Parameters
    ----------
    name : str
    array : array
    shape : tuple of int
    allowed : float
        The one number that may be infinite.
    largest : float
        No other number may be further from zero.

    Examples
    --------
    >>> require_array("means", np.zeros((2, 3)), (3, 3))
    Traceback (most recent call last):
    ValueError: means is float64 (2, 3), expected float64 (3, 3)
    """
    if array.shape != shape or array.dtype != np.float64:
        raise ValueError(f"{name} is {brief(array)}, expected float64 {shape}")
    if array.size == 0:
        raise ValueError(f"{name} is empty")
    if not ((np.abs(array) <= largest) | (array == allowed)).all():
        raise ValueError(f"{name} holds what is no number, or beyond {largest:g}")


def require_close(name: str, found: Array, expected: Array, allowed: Array | float) -> None:
    """Raise `ValueError` unless two arrays of a shape differ by no more than `allowed`.

    Examples
    --------
    >>> require_close("weights_", np.array([0.5, 0.5]), np.array([0.25, 0.75]), 1e-9)
    Traceback (most recent call last):
    ValueError: weights_ is not that of the state
    """
    require_array(name, found, expected.shape, largest=np.finfo(np.float64).max)
    # Written so that what is no number is not close.
    if not (np.abs(found - expected) <= allowed).all():
        raise ValueError(f"{name} is not that of the state")
