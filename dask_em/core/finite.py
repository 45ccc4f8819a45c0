"""TODO core.finite."""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from .additive import Array


def finite_rows(X: Array, weight: Array | None) -> tuple[Array, Array | None, int]:
    """Rows (and their weights) without NaN and infinity, and how many rows were left out."""
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
    """What the first number of X (n, d) is that is not finite, its row and its column."""
    bad = ~np.isfinite(X)
    if not bad.any():
        return None
    row, column = (int(i) for i in np.argwhere(bad)[0])
    return "NaN" if np.isnan(X[row, column]) else "infinity", row, column
