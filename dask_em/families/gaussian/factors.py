"""Cholesky factors of covariances, and products of columns."""

from __future__ import annotations

from functools import cache

import numpy as np

from ...core.additive import Array


def solve_triangular(factor: Array, right: Array, lower: bool = True) -> Array:
    """Compute factor^-1 right, for one triangular factor."""
    # scipy takes longer to import than all that reads a model file.
    from scipy.linalg import solve_triangular as solve

    return np.asarray(solve(factor, right, lower=lower))


def inverse_factor(factor: Array) -> Array:
    """Compute the inverse of a lower triangular factor (d, d), which has a positive diagonal."""
    inverse: Array = inverse_factors(factor[None])[0]
    return inverse


def inverse_factors(factors: Array) -> Array:
    """Compute the inverse of each of some lower triangular factors (k, d, d)."""
    # `solve_triangular` without its checks, which take ten times as long for few columns.
    from scipy.linalg.lapack import dtrtrs

    identity: Array = np.eye(factors.shape[1], order="F")
    # Column by column, as LAPACK leaves them.
    inverses: Array = np.empty(factors.shape).transpose(0, 2, 1)
    for inverse, factor in zip(inverses, np.ascontiguousarray(factors), strict=True):
        inverse[:], _ = dtrtrs(factor.T, identity, lower=0, trans=1)
    return inverses


def factors_or_none(covariances: Array) -> list[Array | None]:
    """Compute the lower Cholesky factor of each of some matrices (k, d, d)."""
    try:
        # Not positive definite is an error, not a number is none.
        factors = np.linalg.cholesky(covariances)
    except np.linalg.LinAlgError:
        return [factor_or_none(covariance) for covariance in covariances]
    whole = np.asarray(np.isfinite(covariances).all(axis=(1, 2)))
    return [factor if ok else None for factor, ok in zip(factors, whole, strict=True)]


def factor_or_none(covariance: Array) -> Array | None:
    """Compute the lower Cholesky factor of one matrix; None if it is not positive definite."""
    if not np.isfinite(covariance).all():
        return None
    try:
        return np.asarray(np.linalg.cholesky(covariance))
    except np.linalg.LinAlgError:
        return None


def factor_of_precision(precision: Array) -> Array:
    """Compute the lower factor C of the covariance whose inverse is `precision`."""
    # P = U U^T with U upper triangular is the Cholesky factor of P read backwards.
    upper = np.linalg.cholesky(precision[::-1, ::-1])[::-1, ::-1]
    return solve_triangular(upper, np.eye(len(upper)), lower=False).T


def triangular(rows: Array) -> Array:
    """Compute lower triangular L (..., m, m) with L L^T = R R^T of rows R (..., m, d), m <= d.

    Rotations make it, not the product R R^T, so that no digits are lost.
    """
    lower = np.swapaxes(np.linalg.qr(np.swapaxes(rows, -1, -2), mode="r"), -1, -2)
    signs = np.where(np.einsum("...ii->...i", lower) < 0, -1.0, 1.0)
    return np.ascontiguousarray(lower * signs[..., None, :])


@cache
def symmetric_pairs(d: int) -> tuple[Array, Array]:
    """Return row and column of each product z_i z_j, in the order of `symmetric_products`.

    The products run along the wrapped diagonals of the matrix z z^T (first
    j = i, then j = i + 1 mod d, ...), because each diagonal is one multiplication of two
    contiguous blocks. For even d the last diagonal holds each pair twice, and
    only its first half is taken.
    """
    i = np.arange(d)
    rows = [i] * ((d - 1) // 2 + 1) + ([i[: d // 2]] if d % 2 == 0 else [])
    columns = [(r + s) % d for s, r in enumerate(rows)]
    pairs = np.concatenate(rows), np.concatenate(columns)
    for numbers in pairs:
        numbers.setflags(write=False)
    return pairs


def symmetric_products(Z: Array, twice: Array, out: Array) -> None:
    """Write all products z_i z_j, i <= j, of the columns of Z (d, b) into `out` (d(d+1)/2, b).

    `twice` is a work array of at least 3d/2 rows; it is left holding Z and its first half.
    """
    d, b = Z.shape
    twice[:d], twice[d : d + d // 2] = Z, Z[: d // 2]
    row, item = twice.strides
    whole = (d - 1) // 2 + 1
    shifted = np.lib.stride_tricks.as_strided(twice, (whole, d, b), (row, row, item))
    np.multiply(Z, shifted, out=out[: whole * d].reshape(whole, d, b))
    if d % 2 == 0:
        np.multiply(Z[: d // 2], Z[d // 2 :], out=out[whole * d :])
