"""The last digits of some numbers, by which processes that round otherwise are told apart."""

from __future__ import annotations

import hashlib

import numpy as np
from scipy.linalg import solve_triangular

# Rows and columns of the matrices: more rows than BLAS sums at once.
ROWS, COLUMNS = 1000, 24


def digest_of_digits() -> str:
    """Compute a few of what a pass does with BLAS, LAPACK and NumPy's loops; return a sha256.

    All of these choose their loops by the processor, and loops that add in another order round
    otherwise. With two numbers of BLAS's threads it may differ, too.
    """
    found = hashlib.sha256()
    drawn = np.random.default_rng(0).random((ROWS, COLUMNS))
    for X in (drawn - 0.5, (drawn - 0.5).astype(np.float32)):
        gram = X.T @ X
        factor = np.linalg.cholesky(gram)
        for part in (
            gram, X @ factor, X[:, :7].T @ X, factor, np.linalg.inv(factor),
            solve_triangular(factor, X.T, lower=True),
            np.exp(-8 * np.abs(X)), np.log(np.abs(X)), np.log1p(np.abs(X)),
            X.sum(axis=0), X.sum(axis=1), np.einsum("ij,ij->i", X, X),
        ):  # fmt: skip
            found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()
