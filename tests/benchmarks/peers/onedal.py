"""oneDAL's em_gmm through daal4py: `python -m peers.onedal float64|float32`."""

from __future__ import annotations

import sys

import daal4py
import numpy as np

from .worker import Case, Data, Fit, Run, serve

STORAGE = {"full": "full", "diag": "diagonal"}
FLOATING_TYPE = {"float64": "double", "float32": "float"}


def load(case: Case, rows: Data, dtype: str) -> Run:
    X = np.ascontiguousarray(rows.X, dtype=dtype)
    weights, means = rows.weights.astype(dtype)[None, :], rows.means.astype(dtype)
    unit = np.eye(case.d) if case.kind == "full" else np.ones((1, case.d))
    covariances = [unit.astype(dtype)] * case.k

    def run(iterations: int) -> Fit:
        algorithm = daal4py.em_gmm(
            case.k,
            fptype=FLOATING_TYPE[dtype],
            maxIterations=iterations,
            accuracyThreshold=0.0,
            covarianceStorage=STORAGE[case.kind],
        )
        result = algorithm.compute(X, weights, means, covariances)
        return Fit(int(result.nIterations.item()), result.means)

    return run


if __name__ == "__main__":
    precision = sys.argv[1]
    daal4py.daalinit(1)  # threads
    serve(lambda case, rows: load(case, rows, precision), "daal4py", "numpy")
