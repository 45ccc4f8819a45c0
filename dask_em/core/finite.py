"""Finite numbers: found, left out, or asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError
from .additive import Array


def finite_rows(X: Array, weight: Array | None) -> tuple[Array, Array | None, int]:
    """Return rows (and weights) without NaN and infinity, and how many rows were left out."""
    with np.errstate(over="ignore", invalid="ignore"):
        if X.dtype.kind != "f" or np.isfinite(X.sum(dtype=np.float64)):
            return X, weight, 0
    finite = np.isfinite(X).all(axis=1)
    n_dropped = len(X) - int(finite.sum())
    if n_dropped == 0:
        return X, weight, 0
    return X[finite], None if weight is None else weight[finite], n_dropped


def _check_finite(block: Array, start: int) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(block.sum(dtype=np.float64)):
            return
    first = first_not_finite(block)
    if first is not None:
        what, row, column = first
        raise DataError(
            f"X contains {what} at row {start + row} of its chunk, column {column}: "
            "drop or fill such rows first"
        )


def first_not_finite(X: Array) -> tuple[str, int, int] | None:
    """Return what the first number of X (n, d) is that is not finite, its row and its column."""
    bad = ~np.isfinite(X)
    if not bad.any():
        return None
    row, column = (int(i) for i in np.argwhere(bad)[0])
    return "NaN" if np.isnan(X[row, column]) else "infinity", row, column


def as_finite(name: str, value: Any, shape: tuple[int, ...]) -> Array | None:
    """Return what the user gave as an array of finite numbers, None where nothing was given.

    Raises
    ------
    ValueError
        It has another shape, or holds what is no finite number.
    """
    if value is None:
        return None
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{name}={value!r:.80}: expected numbers of shape {shape}") from e
    if array.shape != shape:
        raise ValueError(
            f"{name} has shape {array.shape}, expected {shape} for these n_components and "
            "covariance_type and this X"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity: expected finite numbers")
    return array
