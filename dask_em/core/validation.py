"""Checks of values that were read from a file."""

from __future__ import annotations

import numpy as np

from .additive import Array


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
        raise ValueError(f"{name} is {value!r:.60}")


def require_array(name: str, array: Array, shape: tuple[int, ...], allowed: float = np.nan) -> None:
    """Raise `ValueError` unless an array is of float64, of a shape, and finite.

    Parameters
    ----------
    name : str
    array : array
    shape : tuple of int
    allowed : float
        The one number that may be infinite.

    Examples
    --------
    >>> require_array("means", np.zeros((2, 3)), (3, 3))
    Traceback (most recent call last):
    ValueError: means is float64 (2, 3), expected float64 (3, 3)
    """
    if array.shape != shape or array.dtype != np.float64:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, expected float64 {shape}")
    if not (np.isfinite(array) | (array == allowed)).all():
        raise ValueError(f"{name} holds what is no number")
