"""Advice of labels that a fit is given, and of parameters that are held."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np

from advice.following import Followed, X, code, fit, keywords, said
from dask_em import GaussianMixture

MEANS = np.array([X[:200].mean(axis=0), X[200:].mean(axis=0)])
FOUND = fit().predict(X)
FLAT = np.column_stack([X, np.ones(400)])
BLOCKS = da.from_array(X, chunks=(100, 2))


def unknown() -> Any:
    return BLOCKS[da.ones(400, chunks=100) > 0]


def known(rows: Any = X, z: Any = FOUND, fixed: Any = False, **options: Any) -> str:
    """What a fit from labels says."""
    model = GaussianMixture(**{"n_components": 2, "random_state": 0, **options})
    return said(lambda: model.fit(rows, labels_init=z, labels_fixed=fixed))


def held(fixed: Any, **options: Any) -> str:
    """What a fit says that holds parameters."""
    return said(lambda: fit(fixed=fixed, **options))


def noisy(rows: Any = X, **options: Any) -> str:
    """What a fit with noise says."""
    return said(lambda: fit(rows, **{"noise": True, **options}))


def precisions(kind: str) -> Any:
    return fit(covariance_type=kind).precisions_


LABELLED = [
    Followed("or the components of each", lambda here: held({"mean"}), {
        r"such as (\{'means'\})": lambda here, words: held(
            code(words), means_init=fit().means_
        ),
        r"such as (\{'means': \[0\]\})": lambda here, words: held(
            code(words), means_init=fit().means_
        ),
    }),
    Followed("numbers of components from 0 to", lambda here: held({"weights": [2]}), {
        "from 0 to 1": lambda here, words: held({"weights": [0, 1]}),
    }),
    Followed("holds {}: give them by", lambda here: held({"means"}), {
        "means_init": lambda here, words: held({"means"}, **{words: fit().means_}),
    }),
    Followed("holds the weights of some", lambda here: held({"weights": [0]}), {
        "weights_init": lambda here, words: held({"weights": [0]}, **{words: [0.5, 0.5]}),
        "hold all weights": lambda here, words: held({"weights"}),
    }),
    Followed("are estimated together", lambda here: held(
        {"covariances": [0]}, covariance_type="tied", precisions_init=precisions("tied")
    ), {
        "hold all of them": lambda here, words: held(
            {"covariances"}, covariance_type="tied", precisions_init=precisions("tied")
        ),
        "full": lambda here, words: held(
            {"covariances": [0]}, covariance_type=words, precisions_init=precisions(words)
        ),
        "diag": lambda here, words: held(
            {"covariances": [0]}, covariance_type=words, precisions_init=precisions(words)
        ),
        "spherical": lambda here, words: held(
            {"covariances": [0]}, covariance_type=words, precisions_init=precisions(words)
        ),
    }),
    Followed("go with neither prior nor max_ratio", lambda here: held(
        {"means"}, means_init=fit().means_, prior="conjugate"
    ), {"leave one out": lambda here, words: held({"means"}, means_init=fit().means_)}),
    Followed("labels_fixed={}: expected", lambda here: known(fixed="yes"), {
        "True or False": lambda here, words: known(fixed=True) + known(fixed=False),
    }),
    Followed("keeps the labels of labels_init", lambda here: known(z=None, fixed=True), {
        "give them": lambda here, words: known(fixed=True),
    }),
    Followed("and labels_init from labels", lambda here: known(warm_start=True), {
        "warm_start=False": lambda here, words: known(**keywords(words)),
        "leave labels_init out": lambda here, words: known(z=None, warm_start=True),
    }),
    Followed("reads the data three times at least", lambda here: known(max_passes=2), {
        "three": lambda here, words: known(max_passes=9),
    }),
    Followed("label some rows of each", lambda here: known(z=np.zeros(400, int)), {
        "label some rows of each": lambda here, words: known(),
        "lower n_components": lambda here, words: known(z=np.zeros(400, int), n_components=1),
    }),
    Followed("the lengths of X's blocks are not known", lambda here: known(unknown()), {
        r"X\.compute_chunk_sizes\(\)": lambda here, words: known(code(words, X=unknown())),
        "a Dask array of the same blocks": lambda here, words: known(
            unknown(), da.from_array(FOUND, chunks=100)
        ),
    }, "data/given_beside.py"),
    Followed("or the share of the rows", lambda here: noisy(noise=1.0), {
        "True or False": lambda here, words: noisy(noise=True) + noisy(noise=False),
        "a number above 0 and below 1": lambda here, words: noisy(noise=0.5),
    }),
    Followed("is that of noise, of which there is none", lambda here: noisy(
        noise=False, noise_volume=90.0
    ), {"noise=True": lambda here, words: noisy(noise_volume=90.0, **keywords(words))}),
    Followed("the density of noise is that of whole rows", lambda here: noisy(
        missing_values="mar"
    ), {
        'missing_values="error"': lambda here, words: noisy(**keywords(words)),
        "fit without noise": lambda here, words: noisy(noise=False, missing_values="mar"),
    }),
    Followed("the box of all rows", lambda here: noisy(FLAT, reg_covar=1e-6), {
        # It is warned that the column tells nothing.
        "give noise_volume": lambda here, words: noisy(FLAT, noise_volume=90.0).partition("box")[1],
        "leave the column out": lambda here, words: noisy(X),
    }),
]  # fmt: skip
