"""Fit a Gaussian mixture to a Zarr array, label every row, save and load the model."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr

from dask_em import GaussianMixture, load


def main(folder: Path, n_rows: int = 200_000) -> None:
    rng = np.random.default_rng(0)
    centers = np.array([[0.0, 0.0, 0.0], [4.0, 4.0, 0.0], [0.0, 5.0, 5.0]])
    truth = rng.integers(0, len(centers), n_rows)
    points = centers[truth] + rng.normal(size=(n_rows, 3))
    store = str(folder / "points.zarr")
    array = zarr.create_array(store, shape=points.shape, chunks=(20_000, 3), dtype="f8")
    array[:] = points

    gm = GaussianMixture(n_components=3, random_state=0).fit(store)
    print(f"{gm.status_.name.lower()} after {gm.n_reads_} passes over the data")
    print("weights", gm.weights_.round(3))
    print("means\n", gm.means_.round(2))

    labels = gm.predict(store)  # lazy: nothing is read yet
    print("rows in each component", np.bincount(labels.compute()))
    print("log-likelihood per row", round(gm.score(store), 4), " BIC", round(gm.bic(store)))

    gm.save(folder / "model.npz")
    again = load(folder / "model.npz")
    print("the loaded model agrees:", bool((again.predict(points) == labels.compute()).all()))


if __name__ == "__main__":
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch), size)
