"""Advice of updates: sums that new rows cannot join, half-lives, and stores that changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr

from advice.following import Followed, Here, X, fit, keywords, refused, said, stored
from dask_em import GaussianMixture, KMeans, StudentTMixture

NEW = X[:100] + 0.1
LABELS = np.arange(len(X)) % 2


def of_store(here: Here) -> GaussianMixture:
    """A model of a store that was written since, where it has read it, and has grown."""
    model = fit(str(stored(here)))
    array = zarr.open_array(str(here.path("x.zarr")), mode="r+")
    array[0] = array[1]
    array.append(NEW)
    return model


def undated() -> GaussianMixture:
    model = fit()
    model.provenance_["fitted"] = "in spring"
    return model


def tailed() -> StudentTMixture:
    return StudentTMixture(2, random_state=0).fit(X)


def known(rows: Any = X, model: Any = None, **given: Any) -> str:
    """What a fit says that keeps a sample, or none."""
    return said(lambda: (model or GaussianMixture(2, random_state=0)).fit(rows, **given))


def joined(forget: Any = None, exact: bool = False) -> str:
    return said(lambda: fit().update(NEW, forget=forget, exact=exact))


UPDATED = [
    Followed(
        "which are in the model, were written since",
        lambda here: refused(lambda: of_store(here).update(str(here.path("x.zarr")))), {
            "give the new rows alone": lambda here, words: said(lambda: fit().update(NEW)),
            "exact=True": lambda here, words: said(
                lambda: fit().update(str(here.path("x.zarr")), **keywords(words))
            ),
        },
    ),
    Followed(
        "the model does not say when it was fitted",
        lambda here: refused(lambda: undated().update(NEW, forget="30d")), {
            "forget='1e6rows'": lambda here, words: said(
                lambda: undated().update(NEW, **keywords(words))
            ),
        },
    ),
    Followed(
        "weighs the sums that a model keeps",
        lambda here: refused(lambda: fit().update(NEW, forget="30d", exact=True)), {
            "leave one out": lambda here, words: joined(forget="30d") + joined(exact=True),
        },
    ),
    Followed(
        "to read all rows again and start from it",
        lambda here: refused(lambda: tailed().update(NEW)), {
            "exact=True": lambda here, words: said(lambda: tailed().update(X, **keywords(words))),
        },
    ),
    Followed(
        "keeps no sample of the rows that it has read",
        lambda here: refused(lambda: fit().update(NEW, keep_sample=50)), {
            "pass keep_sample to fit": lambda here, words: known(keep_sample=50),
            "exact=True": lambda here, words: said(
                lambda: fit().update(X, keep_sample=50, **keywords(words))
            ),
        },
    ),
    Followed(
        "keeps rows without their labels", lambda here: known(
            labels_init=LABELS, labels_fixed=True, keep_sample=50
        ), {
            "leave keep_sample out": lambda here, words: known(
                labels_init=LABELS, labels_fixed=True
            ),
        },
    ),
    Followed(
        "keeps rows without their noise",
        lambda here: known(noise_covariance=[0.1, 0.1], keep_sample=50), {
            "leave keep_sample out": lambda here, words: known(noise_covariance=[0.1, 0.1]),
        },
    ),
    Followed(
        "keeps rows that say how responsibilities change",
        lambda here: known(model=KMeans(2), keep_sample=50),
        {"leave keep_sample out": lambda here, words: known(model=KMeans(2))},
    ),
    Followed(
        "expected a half-life in rows", lambda here: refused(lambda: fit().update(NEW, forget="")),
        {
            r"rows \((\w+)\)": lambda here, words: joined(words),
            r"hours \((\w+)\)": lambda here, words: joined(words),
            r"days \((\w+)\)": lambda here, words: joined(words),
        },
    ),
]  # fmt: skip
