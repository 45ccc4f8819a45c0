"""gmmx, Gaussian mixtures in JAX, of float32 alone: `python -m peers.gmmx`."""

from __future__ import annotations

import os

import jax.numpy as jnp
import numpy as np
from gmmx import EMFitter, GaussianMixtureModelJax

from .worker import Case, Data, Fit, Run, serve, unit_matrices


def load(case: Case, rows: Data) -> Run:
    X = jnp.asarray(rows.X.astype(np.float32))
    start = GaussianMixtureModelJax.from_squeezed(
        means=jnp.asarray(rows.means.astype(np.float32)),
        covariances=jnp.asarray(unit_matrices(case.kind, case.k, case.d).astype(np.float32)),
        weights=jnp.asarray(rows.weights.astype(np.float32)),
        covariance_type=case.kind,
    )

    def run(iterations: int) -> Fit:
        fitted = EMFitter(tol=0.0, max_iter=iterations, reg_covar=0.0).fit(X, start)
        means = np.asarray(fitted.gmm.means).reshape(case.k, case.d)
        return Fit(int(fitted.n_iter), means)

    return run


if __name__ == "__main__":
    # JAX makes a thread for each processor that it may use, once it computes.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    serve(load, "gmmx", "jax", "numpy")
