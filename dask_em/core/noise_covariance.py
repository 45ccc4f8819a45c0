"""Covariances of the noise of rows: checks, and the form in which passes take them."""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from .additive import Array
from .beside import NOISE, Where

# By how much matrices may miss their mirror images, or an eigenvalue zero, as those in float32 do:
# of their largest variance.
ROUNDING = 1e-6


def noise_width(shape: tuple[int, ...], d: int) -> int:
    """Return how many numbers of a row's noise passes take, of d columns.

    Parameters
    ----------
    shape : tuple of int
        Of the noise of a row: () or (d,), of variances, or (d, d) or (d * d,).
    d : int

    Raises
    ------
    DataError
        It is another.

    Examples
    --------
    >>> noise_width((3,), 3), noise_width((3, 3), 3)
    (3, 6)
    """
    if shape == (d,) or (d == 1 and shape in ((), (1, 1))):
        return d
    if shape in ((d, d), (d * d,)):
        return d * (d + 1) // 2
    raise DataError(
        f"{NOISE} has the shape {('n', *shape)}: expected variances of the {d} columns of X, "
        f"(n, {d}), or covariance matrices, (n, {d}, {d})".replace("'n'", "n")
    )


def checked_noise(values: Array, d: int, where: Where, drop: bool = False) -> Array:
    """Return the noise of rows as passes take it: variances, or the lower triangles of matrices.

    Parameters
    ----------
    values : (b,), (b, d), (b, d, d) or (b, d * d) array
    d : int
        Columns of the rows.
    where : callable
        Says of a row's number in `values` which of the data it is.
    drop : bool
        Let noise of NaN or infinity pass, whose rows are left out.

    Returns
    -------
    (b, d) or (b, d (d + 1) / 2) array of float

    Raises
    ------
    DataError
        A variance is negative, or a matrix is not symmetric or has a negative eigenvalue.

    Examples
    --------
    >>> checked_noise(np.array([[[1, 2], [2, 9]]]), 2, "row {}".format)
    array([[1., 2., 9.]])
    >>> checked_noise(np.array([[1.0, 2.0], [-1.0, 2.0]]), 2, "row {}".format)
    Traceback (most recent call last):
    dask_em.errors.DataError: noise_covariance is -1 in column 0 of row 1: expected variances, ...
    """
    noise_width(values.shape[1:], d)
    values = np.asarray(values, dtype=np.result_type(values.dtype, np.float32))
    flat = values.reshape(len(values), -1)
    strange = np.argwhere(~np.isfinite(flat))
    if not drop and len(strange):
        row, column = strange[0].tolist()
        raise DataError(
            f"{NOISE} is {flat[row, column]:g} {_place(flat, column, d)} of {where(row)}: expected "
            'finite numbers; pass nonfinite="drop" to leave such rows out'
        )
    if flat.shape[1] == d:
        negative = np.argwhere(np.less(flat, 0))
        if len(negative):
            row, column = negative[0].tolist()
            raise DataError(
                f"{NOISE} is {flat[row, column]:g} in column {column} of {where(row)}: expected "
                "variances, which are not negative (squares of standard errors)"
            )
        return flat
    return _checked_matrices(flat.reshape(-1, d, d), where)


def _place(flat: Array, column: int, d: int) -> str:
    if flat.shape[1] == d:
        return f"in column {column}"
    return f"in columns {column // d} and {column % d}"


def _checked_matrices(matrices: Array, where: Where) -> Array:
    """Return the lower triangles of matrices that are symmetric and not negative definite."""
    whole = np.asarray(np.isfinite(matrices).all(axis=(1, 2)))
    usable = np.where(whole[:, None, None], matrices, 0.0).astype(np.float64)
    sizes: Array = np.abs(usable).max(axis=(1, 2))
    apart = np.abs(usable - usable.transpose(0, 2, 1)).max(axis=(1, 2))
    crooked = np.flatnonzero(apart > ROUNDING * sizes)
    if len(crooked):
        row = int(crooked[0])
        raise DataError(
            f"{NOISE} of {where(row)} is {apart[row]:g} from its mirror image: expected symmetric "
            "matrices"
        )
    # What is indefinite by more than rounding has a pivot that is not positive.
    negative = np.flatnonzero(~(_least_pivots(usable, ROUNDING * sizes) > 0))
    if len(negative):
        row = int(negative[0])
        least = float(np.linalg.eigvalsh(usable[row])[0])
        raise DataError(
            f"{NOISE} of {where(row)} has the eigenvalue {least:g}: expected covariance matrices, "
            "which have no negative one"
        )
    i, j = np.tril_indices(matrices.shape[1])
    return np.asarray(matrices[:, i, j])


def _least_pivots(matrices: Array, added: Array) -> Array:
    """Return the least pivot of each of the matrices (n, d, d) plus multiples (n,) of one."""
    d = matrices.shape[1]
    T = np.ascontiguousarray(matrices.transpose(1, 2, 0))
    T[np.arange(d), np.arange(d)] += np.where(added > 0, added, 1.0)
    least = np.array(T[0, 0])
    with np.errstate(all="ignore"):
        for j in range(1, d):
            below = T[j:, j - 1]
            T[j:, j:] -= below[:, None] * (below / T[j - 1, j - 1])
            np.fmin(least, T[j, j], out=least)
    return least
