"""Cluster single cells in a store of AnnData, and put the labels back into `obs`."""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse
import zarr

from dask_em import GaussianMixture


def main(folder: Path, n_cells: int = 5_000) -> None:
    store = folder / "cells.zarr"
    write_cells(store, n_cells)

    # Components of the counts: a dense matrix, read by ranges of rows.
    components = f"{store}::obsm/X_pca"
    gm = GaussianMixture(n_components=3, random_state=0).fit(components)
    labels = gm.predict(components).compute()

    # Without the counts in memory: the table of cells alone is read and written.
    obs = anndata.io.read_elem(open_group(store)["obs"])
    obs["cluster"] = pd.Categorical(labels)
    obs["density"] = gm.score_samples(components).compute()
    anndata.io.write_elem(open_group(store), "obs", obs)
    zarr.consolidate_metadata(store)

    cells = anndata.read_zarr(store)
    print("cells in each cluster", cells.obs["cluster"].value_counts(sort=False).tolist())
    together = pd.crosstab(cells.obs["kind"], cells.obs["cluster"]).to_numpy()
    print("each kind is one cluster:", bool((np.sort(together, axis=1)[:, :-1] == 0).all()))

    # The sparse counts themselves, of some genes: blocks of rows are made dense.
    genes = GaussianMixture(1, columns=["gene 0", "gene 7"]).fit(f"{store}::X")
    print("means of", genes.feature_names_in_.tolist(), genes.means_[0].round(2))


def write_cells(store: Path, n_cells: int) -> None:
    """Write counts of three kinds of cells, and their principal components."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, n_cells)
    loud = np.where(np.arange(30) % 3 == np.arange(3)[:, None], 6.0, 0.2)
    counts = rng.poisson(loud[kind]).astype("f4")
    centred = np.log1p(counts) - np.log1p(counts).mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    cells = anndata.AnnData(
        scipy.sparse.csr_matrix(counts),
        pd.DataFrame({"kind": pd.Categorical(kind)}, index=[f"cell {i}" for i in range(n_cells)]),
        pd.DataFrame(index=[f"gene {i}" for i in range(30)]),
        obsm={"X_pca": centred @ axes[:5].T},
    )
    cells.write_zarr(store)


def open_group(store: Path) -> zarr.Group:
    return zarr.open_group(store, mode="r+", use_consolidated=False)


if __name__ == "__main__":
    # Texts have no final place in version 3 of Zarr's format, as it says of every array of them.
    warnings.filterwarnings("ignore", category=UserWarning, module="(zarr|anndata)")
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch), size)
