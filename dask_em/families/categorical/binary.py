"""Numbers as answers: their whole part, or whether they are above a threshold."""

from __future__ import annotations

import numpy as np

from ...core.additive import Array


def whole_part(X: Array) -> Array:
    """Return the whole numbers below those of X, which integers and booleans are themselves.

    Examples
    --------
    >>> whole_part(np.array([[1.0, 2.7, np.nan]])), whole_part(np.array([[3]]))
    (array([[ 1.,  2., nan]]), array([[3]]))
    """
    return np.floor(X) if X.dtype.kind == "f" else X


def binarized(X: Array, threshold: float | None) -> Array:
    """Return which numbers of X (n, d) are above a threshold; X itself where there is none.

    Of integers and booleans the answers are booleans; of floats they are floats, and NaN stays.

    Examples
    --------
    >>> binarized(np.array([[0.0, 0.5, np.nan]]), 0.0)
    array([[ 0.,  1., nan]])
    >>> binarized(np.array([[0, 1, 7]], dtype=np.uint8), 0.5)
    array([[False,  True,  True]])
    """
    if threshold is None:
        return X
    if X.dtype.kind == "f":
        found = np.greater(X, threshold).astype(np.float64)
        found[np.isnan(X)] = np.nan
        return found
    whole = X.view(np.uint8) if X.dtype.kind == "b" else X
    limits, below = np.iinfo(whole.dtype), np.floor(threshold)
    if below < limits.min or below >= limits.max:
        return np.full(X.shape, bool(below < limits.min))
    # Compared in its own type, which is quick.
    return np.asarray(whole > whole.dtype.type(below))
