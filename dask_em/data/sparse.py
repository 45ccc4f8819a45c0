"""Sparse rows, of which a block at a time is made dense: what that costs, and how to pass them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from ..core.tuning import tuning
from ..errors import DataError
from .options import ReadOptions


def is_sparse(X: object) -> bool:
    """Tell whether an object is a sparse matrix of SciPy, without an import of it.

    Examples
    --------
    >>> import scipy.sparse
    >>> is_sparse(scipy.sparse.eye_array(3)), is_sparse(np.eye(3))
    (True, False)
    """
    return type(X).__module__.startswith("scipy.sparse") and hasattr(X, "tocsr")


def refuse_sparse(X: Any, sample_weight: object, options: ReadOptions) -> NoReturn:
    """Raise `DataError`, which says how a sparse matrix in memory is passed.

    scikit-learn's checks take an estimator that accepts one, and has `predict_proba`, for a
    classifier.
    """
    _ = sample_weight, options
    row_bytes = max(1, int(X.shape[-1]) * np.dtype(X.dtype).itemsize)
    rows = max(1, min(int(X.shape[0]), tuning().reading.bytes // row_bytes))
    by_rows = "X" if X.format == "csr" else "X.tocsr()"
    raise DataError(
        f"X is a sparse matrix ({X.format}) in memory, and rows are read dense: pass "
        f"dask.array.from_array({by_rows}, chunks=({rows}, -1)), of which a block at a time is "
        "made dense"
    )


def densified(name: str, shape: Sequence[int], n_stored: int, nbytes: int) -> str:
    """Say what it costs to make sparse rows dense.

    Examples
    --------
    >>> print(densified("X", (1000, 200), 10_000, 2**20))
    X is sparse: 5 % of its 1,000 x 200 numbers are stored, and a pass computes with all of them, \
made dense in blocks of 1.0 MiB: fewer columns, such as principal components, cost less
    """
    n, d = shape
    return (
        f"{name} is sparse: {100 * n_stored / max(1, n * d):.2g} % of its {n:,} x {d:,} numbers "
        f"are stored, and a pass computes with all of them, made dense in blocks of "
        f"{nbytes / 2**20:.1f} MiB: fewer columns, such as principal components, cost less"
    )
