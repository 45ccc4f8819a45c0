"""Advice of models that come from elsewhere, or go there."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from advice.following import Followed, Here, X, keywords, printed, program, refused, saved
from dask_em import GaussianMixture, KMeans, MixedMixture, from_json

GIVEN: dict[str, Any] = {
    "weights": [0.5, 0.5],
    "means": X[:2],
    "covariances": np.stack([np.eye(2)] * 2),
}
GROUPS: dict[str, Any] = {**GIVEN, "rates": np.ones((2, 1))}


def warmly(here: Here, words: str) -> str:
    """Fit from parameters that were given."""
    model = GaussianMixture.from_parameters(**GIVEN, random_state=0)
    return refused(lambda: model.set_params(**keywords(words)).fit(X))


def of_directions(**options: Any) -> str:
    rows = X / np.linalg.norm(X, axis=1, keepdims=True)
    model = KMeans(2, **{"spherical": True, "random_state": 0, **options}).fit(rows)
    return refused(model.to_sklearn)


def read(text: str) -> str:
    return refused(lambda: from_json(json.loads(text)))


def exported(here: Here, *words: str) -> str:
    return program("export", saved(here), *words)


EXPORTED = [
    Followed(
        "the parameters were given, and no data were read",
        lambda here: GaussianMixture.from_parameters(**GIVEN).status_.value,
        {r"set_params\((warm_start=True)\)": warmly},
    ),
    Followed("scikit-learn has no K-means of directions", lambda here: of_directions(), {
        "spherical=False": lambda here, words: of_directions(**keywords(words)),
    }),
    Followed(
        "parameters need the columns of each family",
        lambda here: refused(lambda: MixedMixture.from_parameters(**GROUPS)),
        {
            r"columns=\{.*\}": lambda here, words: refused(
                lambda: MixedMixture.from_parameters(**GROUPS, **keywords(words))
            )
        },
    ),
    Followed("this is no document of a model", lambda here: read("{}"), {
        "dask-em export MODEL --json": lambda here, words: read(
            printed(*(saved(here) if w == "MODEL" else w for w in words.split()[1:]))[1]
        ),
    }),
    Followed("give one of --onnx FILE", lambda here: exported(here), {
        "--onnx FILE": lambda here, words: exported(here, "--onnx", str(here.path("m.onnx"))),
        "--sql": lambda here, words: exported(here, words),
        "--json": lambda here, words: exported(here, words),
    }),
    Followed(
        "is a file of its own",
        lambda here: exported(here, "--onnx", str(here.path("x.onnx")), "--sql"),
        {"--sql": lambda here, words: exported(here, "--onnx", str(here.path("x.onnx")))},
    ),
]  # fmt: skip
