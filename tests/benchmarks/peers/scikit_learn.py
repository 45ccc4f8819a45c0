"""scikit-learn's GaussianMixture: `python -m peers.scikit_learn float64|float32`.

A fit of m iterations makes m E-steps and M-steps, and one last E-step for the labels.
"""

from __future__ import annotations

import sys
import warnings

from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from .worker import Case, Data, Fit, Run, serve, unit_matrices


def load(case: Case, rows: Data, dtype: str) -> Run:
    X = rows.X.astype(dtype, copy=False)
    warnings.simplefilter("ignore", ConvergenceWarning)
    model = GaussianMixture(
        case.k,
        covariance_type=case.kind,
        weights_init=rows.weights.astype(dtype),
        means_init=rows.means.astype(dtype),
        precisions_init=unit_matrices(case.kind, case.k, case.d).astype(dtype),
        reg_covar=0,
        tol=0,
    )

    def run(iterations: int) -> Fit:
        model.set_params(max_iter=iterations).fit(X)
        return Fit(model.n_iter_, model.means_)

    return run


if __name__ == "__main__":
    precision = sys.argv[1]
    serve(lambda case, rows: load(case, rows, precision), "scikit-learn", "numpy")
