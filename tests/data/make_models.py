"""Writes the model files of this folder, and what they must answer, with the dask_em in force.

    python tests/data/make_models.py

The files stay as the version in their names wrote them: a later version must load them and answer
the same. No path of a machine is in them.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from dask_em import GaussianMixture, __version__, select

HERE = Path(__file__).resolve().parent


def points(n: int, seed: int) -> np.ndarray:
    """Rows of three correlated normals in three columns."""
    rng = np.random.default_rng(seed)
    means = np.array([[0.0, 0, 0], [6, 1, -2], [-3, 7, 4]])
    shape = np.array([[1.0, 0.4, 0], [0, 0.8, 0.3], [0, 0, 1.2]])
    return means[rng.integers(0, 3, n)] + rng.normal(size=(n, 3)) @ shape


def full() -> GaussianMixture:
    rows = points(1500, 0)
    options: Any = {"shape": rows.shape, "chunks": (400, 3), "dtype": "f8"}
    array = zarr.create_array("points.zarr", **options, compressors=[Crc32cCodec()])
    array[:] = rows
    model = GaussianMixture(3, random_state=0).fit("points.zarr")
    # Provenance has the absolute path, here of a temporary folder.
    model.provenance_["source"] = "points.zarr"
    return model


def diag() -> GaussianMixture:
    weights = np.random.default_rng(1).uniform(0.5, 2.0, 1500)
    model = GaussianMixture(2, covariance_type="diag", random_state=1)
    return model.fit(points(1500, 1), sample_weight=weights)


def sweep() -> GaussianMixture:
    return select(points(1500, 2), range(2, 5), "tied", random_state=2).best


def main() -> None:
    rows = points(5, 9)
    expected = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, make in (("full", full), ("diag", diag), ("sweep", sweep)):
            model = make()
            model.save(HERE / f"model-{__version__}-{name}.npz", overwrite=True)
            expected[name] = {
                "weights": model.weights_.tolist(),
                "means": model.means_.tolist(),
                "covariances": model.covariances_.tolist(),
                "lower_bound": model.lower_bound_,
                "rows": rows.tolist(),
                "log_densities": model.score_samples(rows).tolist(),
            }
        os.chdir(HERE)
    text = json.dumps(expected, indent=1)
    (HERE / f"models-{__version__}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
