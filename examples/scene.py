"""Find kinds of ground in a raster with clouds, and draw the map: in Python, and from a shell.

    python examples/scene.py [FOLDER] [STEP]

Of the 427 x 640 cells every STEP-th of each dimension is taken, by default all.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import xarray as xr
from matplotlib import colormaps, image
from sklearn.datasets import load_sample_image

from dask_em import GaussianMixture

KINDS = 6


def main(folder: Path, step: int) -> None:
    store, drawn = folder / "scene.zarr", folder / "labels.png"
    write_scene(store, step)

    # Cells are rows, bands are columns; what has a hole in a band has no label.
    gm = GaussianMixture(KINDS, features="band", nonfinite="drop", random_state=0).fit(store)
    labels = np.asarray(gm.predict(store))
    draw(labels, drawn)
    print(f"{(labels < 0).sum():,} of {labels.size:,} cells have a hole, and no label")

    # The same from a shell: the answers are a map that xarray opens.
    model, answers = folder / "model.npz", folder / "labels.zarr"
    run("fit", store, "-k", KINDS, "-o", model, "--features", "band", "--nonfinite", "drop")
    run("predict", model, store, answers)
    found = xr.open_zarr(answers)["labels"]
    print("dimensions of the map:", dict(found.sizes), "coordinates:", sorted(found.coords))
    draw(found.values, folder / "shell.png")
    same = drawn.read_bytes() == (folder / "shell.png").read_bytes()
    print("both maps are the same:", same)
    print("drawn:", drawn)


def write_scene(store: Path, step: int) -> None:
    """Write a photograph as instruments write scenes: 16-bit integers, with holes under clouds."""
    photograph = load_sample_image("china.jpg")[::step, ::step] / 255
    height, width, _ = photograph.shape
    scene = xr.DataArray(
        photograph,
        dims=("y", "x", "band"),
        coords={
            "band": ["red", "green", "blue"],
            "y": 30.0 * step * np.arange(height)[::-1],
            "x": 30.0 * step * np.arange(width),
        },
        name="reflectance",
    )
    # What is nearly white hides the ground.
    clear = scene.where(scene.min("band") < 0.9)
    packed = {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": -9999}
    tiles = clear.transpose("band", "y", "x").chunk(band=1, y=256 // step, x=256 // step)
    tiles.to_dataset().to_zarr(store, encoding={"reflectance": packed})


def draw(labels: np.ndarray, path: Path) -> None:
    """Draw a colour for each label, and nothing where there is none."""
    colours = colormaps["tab10"](np.maximum(labels, 0))
    colours[labels < 0] = 0
    image.imsave(path, colours)


def run(*words: object) -> None:
    """Run the program as a shell does."""
    subprocess.run([sys.executable, "-m", "dask_em.cli", *map(str, words)], check=True)


if __name__ == "__main__":
    matplotlib.use("Agg")
    # Texts have no final place in version 3 of Zarr's format, as it says of every array of them,
    # and how many cells have holes is printed.
    warnings.filterwarnings("ignore", category=UserWarning, module="(zarr|xarray)")
    warnings.filterwarnings("ignore", ".* rows that hold NaN or infinity")
    every = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(exist_ok=True)
        main(Path(sys.argv[1]), every)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch), every)
