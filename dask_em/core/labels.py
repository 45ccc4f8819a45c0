"""Labels or responsibilities that are known of rows before a fit: checks, and the E-step with them.

Labels are (b,) whole numbers, -1 where nothing is known; responsibilities are (b, k), and a row of
zeros is one of which nothing is known.
"""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from .additive import Array
from .beside import Where

# By how much responsibilities of a row may miss a sum of one, as those in float32 do.
SUM_ERROR = 1e-4


def checked_labels(values: Array, k: int, where: Where) -> Array:
    """Return labels (b,) or responsibilities (b, k) as passes take them.

    Parameters
    ----------
    values : (b,) or (b, k) array
        Of a row that is unknown -1 or NaN; of its responsibilities all of them.
    k : int
        Number of components.
    where : callable
        Says of a row's number in `values` which of the data it is.

    Raises
    ------
    DataError
        A label is none of 0 to k - 1 and not -1, or responsibilities are negative or do not sum to
        one.

    Examples
    --------
    >>> checked_labels(np.array([1.0, np.nan, 0.0]), 2, "row {}".format)
    array([ 1, -1,  0])
    >>> checked_labels(np.array([[0.5, 0.5], [-1, -1]]), 2, "row {}".format)
    array([[0.5, 0.5],
           [0. , 0. ]])
    >>> checked_labels(np.array([0, 3]), 2, "row {}".format)
    Traceback (most recent call last):
    dask_em.errors.DataError: labels_init is 3 at row 1: expected a component from 0 to 1, or -1 ...
    """
    if values.ndim == 2:
        return _checked_responsibilities(values.astype(np.float64), k, where)
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), -1, values)
    bad = ~((values >= -1) & (values < k))
    if values.dtype.kind == "f":
        bad |= values != np.floor(values)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"labels_init is {values[row]:g} at {where(row)}: expected a component from 0 to "
            f"{k - 1}, or -1 where it is unknown"
        )
    return np.asarray(values, dtype=np.int64)


def _checked_responsibilities(resp: Array, k: int, where: Where) -> Array:
    if resp.shape[1] != k:
        raise DataError(
            f"labels_init has {resp.shape[1]} columns: expected labels (n,), or responsibilities "
            f"of the {k} components, (n, {k})"
        )
    unknown = (np.isnan(resp) | (resp == -1)).all(axis=1)
    resp[unknown] = 0.0
    right = (resp >= 0).all(axis=1) & (np.abs(resp.sum(axis=1) - 1) <= SUM_ERROR)
    bad = ~(right | unknown)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"the responsibilities of labels_init at {where(row)} are {resp[row].tolist()}: "
            "expected numbers from 0 on that sum to 1, or -1 in all columns where nothing is known"
        )
    return resp


def log_restriction(labels: Array, k: int) -> Array:
    """Return what known labels add to log w_k p(x | k), (k, b): 0, or -inf where they exclude it.

    Responsibilities r count as evidence of a row, p(x) = sum_k r_k w_k p(x | k): Come, Oukhellou,
    Denoeux and Aknin (2009), equation 17, of which one-hot labels are the case that is called
    semi-supervised.

    Examples
    --------
    >>> log_restriction(np.array([1, -1]), 2)
    array([[-inf,   0.],
           [  0.,   0.]])
    """
    if labels.ndim == 1:
        allowed = (labels < 0) | (labels == np.arange(k)[:, None])
        return np.asarray(np.where(allowed, 0.0, -np.inf))
    with np.errstate(divide="ignore"):
        found = np.log(np.ascontiguousarray(labels.T))
    found[:, ~labels.any(axis=1)] = 0.0
    return np.asarray(found)


def evidence(resp: Array, labels: Array, weight: Array | None) -> float:
    """Compute sum_nk w_n r_nk log z_nk of responsibilities (k, b) under evidence z (b, k).

    As far as rows belong to components by what is known of them: -sum r log r is the
    log-likelihood less sum r log w p and less this.

    Examples
    --------
    >>> round(evidence(np.array([[0.25], [0.75]]), np.array([[0.5, 0.5]]), None), 4)
    -0.6931
    """
    z = np.where(resp > 0, labels.T, 1.0)
    z[:, ~labels.any(axis=1)] = 1.0
    found = (resp * np.log(z)).sum(axis=0, dtype=np.float64)
    return float(found.sum() if weight is None else found @ weight)


def given_responsibilities(labels: Array, k: int) -> Array:
    """Return the responsibilities (k, b) of labels, zero where nothing is known.

    Examples
    --------
    >>> given_responsibilities(np.array([1, -1]), 2)
    array([[0., 0.],
           [1., 0.]])
    """
    if labels.ndim == 1:
        return np.asarray(labels == np.arange(k)[:, None], dtype=np.float64)
    return np.ascontiguousarray(labels.T)
