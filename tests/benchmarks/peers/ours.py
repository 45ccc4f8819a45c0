"""dask_em: `python -m peers.ours float64|float32 numpy|fast|all`."""

from __future__ import annotations

import sys
from typing import Literal

import numpy as np

from dask_em.core.engine import Engine
from dask_em.core.mixture import Mixture
from dask_em.core.tuning import tuning, use_tuning
from dask_em.families.gaussian.constraints import CONSTRAINTS
from dask_em.families.gaussian.family import Gaussian
from dask_em.families.gaussian.whitening import Whitening

from .worker import Case, Data, Fit, Run, serve, unit_matrices

ENGINES: dict[str, Literal["numpy", "numba"]] = {
    "numpy": "numpy",
    "fast": "numba",
    "all": "numba",
}
# All components are computed, whether they count or not.
ALL = {"least_components": sys.maxsize}


def ours(case: Case, rows: Data, dtype: str, kernel: str) -> Run:
    """E-step with its statistics, then M-step, from the start each time."""
    structure = CONSTRAINTS[case.kind].storage
    frame = Whitening.of_moments(
        rows.X.mean(0), np.cov(rows.X.T, bias=True), structure.whitening_kind
    )
    covariance = structure.from_precisions(unit_matrices(case.kind, case.k, case.d))
    components = Gaussian.from_data_coordinates(rows.means, covariance, frame)
    engine = Engine(ENGINES[kernel], single=dtype == "float32")
    start = Mixture(np.log(rows.weights), components, engine)
    X = rows.X.astype(dtype, copy=False)

    def run(iterations: int) -> Fit:
        mixture = start
        changes = {"candidates": ALL} if kernel == "all" else {}
        with use_tuning(tuning().with_changes(**changes)):
            for _ in range(iterations):
                fold = mixture.fold()
                fold.update(0, X, None)
                mixture, _ = mixture.m_step(fold.result())
        means, _ = mixture.components.data_coordinates()
        return Fit(iterations, means)

    return run


if __name__ == "__main__":
    precision, kernel_name = sys.argv[1:]
    packages = ["dask-em", "numpy", *([] if kernel_name == "numpy" else ["numba"])]
    serve(lambda case, rows: ours(case, rows, precision, kernel_name), *packages)
