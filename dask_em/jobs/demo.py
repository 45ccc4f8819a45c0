"""The job that shows the whole tour: data made, fitted, scored, labelled and drawn."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.additive import Array
from ..data.zarr.opening import open_zarr
from ..estimators.load import load
from ..storage.outputs.writer import new_folder, output_file
from .cluster import ClusterOptions
from .fit import FitRequest, fit
from .predict import predict
from .report import report
from .score import score

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def make_demo_data(path: Path, n_rows: int, seed: int = 0) -> None:
    """Write two-dimensional points of five overlapping clusters, sorted by cluster, to Zarr."""
    import zarr
    from zarr.codecs import Crc32cCodec

    rng = np.random.default_rng(seed)
    means = np.array([[0, 0], [5, 1], [1, 5], [6, 6], [-4, 3]], dtype=float)
    spreads = rng.normal(size=(5, 2, 2)) * 0.6 + np.eye(2)
    shares = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
    counts = np.floor(shares * n_rows).astype(int)
    counts[0] += n_rows - counts.sum()
    points = np.concatenate(
        [
            mean + rng.normal(size=(n, 2)) @ spread
            for mean, spread, n in zip(means, spreads, counts, strict=True)
        ]
    )
    array = zarr.create_array(
        path,
        shape=points.shape,
        chunks=(n_rows // 16, 2),
        dtype="f8",
        compressors=[Crc32cCodec()],
    )
    array[:] = points


def demo(
    folder: str, rows: int, cluster: ClusterOptions, overwrite: bool, say: Callable[[str], None]
) -> tuple[str, str]:
    """Make data, fit, score, label and draw them in a new folder; return data and model."""
    data, model, answers, picture, page, sequence = (
        os.path.join(folder, name)
        for name in (
            *("points.zarr", "model.npz", "answers.zarr"),
            *("picture.png", "report.html", "iterations.png"),
        )
    )
    with new_folder(Path(folder), overwrite):
        say(f"1. {rows:,} points of five clusters, sorted by cluster -> {data}")
        make_demo_data(Path(data), rows)
        say("2. a mixture of five Gaussians, on one process a core")
        request = FitRequest([5], options={"random_state": 0})
        fitted = fit(data, model, cluster, request).best
        say(
            f"   {fitted.status_.name.lower()} after {fitted.n_reads_} passes over the data; "
            + "weights "
            + " ".join(f"{w:.3f}" for w in sorted(fitted.weights_, reverse=True))
            + " (made with 0.3 0.25 0.2 0.15 0.1)"
        )
        scores = score(model, data, cluster)
        say(f"3. score: {scores['log_likelihood']:.6f} nats/row, BIC {scores['bic']:,.0f}")
        predict(model, data, answers, cluster)
        say(f"4. a label for every row -> {answers}/labels")
        if draw(model, data, picture):
            say(f"5. a picture -> {picture}")
            report(model, page, cluster, data)
            say(f"6. a page about all of it, to open in a browser -> {page}")
            draw_iterations(sequence)
            say(f"7. three clusters, K-means beside EM, iteration by iteration -> {sequence}")
        else:
            say("5. no picture: matplotlib is not installed (pip install 'dask-em[plot]')")
    return data, model


def draw(model_path: str, data: str, picture: str, n_rows: int = 5000) -> bool:
    """Draw a model over some rows of the data; return False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    from ..report.plots import plot_components

    array = open_zarr(data)
    step = max(1, array.shape[0] // n_rows)
    figure = Figure(figsize=(6, 5), layout="constrained")
    plot_components(load(model_path), np.asarray(array[:])[::step], ax=figure.subplots())
    write_picture(figure, picture)
    return True


def draw_iterations(picture: str) -> None:
    """Draw K-means and plain EM on three clusters, from one start, iteration by iteration."""
    from matplotlib.figure import Figure

    from ..report.sequence import plot_sequence

    X, start = three_clusters()
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    plot_sequence(X, n_components=len(start), means_init=start, figure=figure)
    write_picture(figure, picture)


def three_clusters(n_rows: int = 900, seed: int = 0) -> tuple[Array, Array]:
    """Draw points (n, 2) of three clusters of unlike shapes, and centres (3, 2) to start from."""
    rng = np.random.default_rng(seed)
    means = np.array([[0.0, 0.0], [1.0, 2.5], [4.5, 2.0]])
    shapes = np.array([[[2.2, 0], [0, 0.45]], [[1.2, 0.9], [0, 0.5]], [[0.45, 0], [0, 0.45]]])
    cluster = rng.choice(3, n_rows, p=[0.45, 0.35, 0.2])
    deviations = rng.normal(size=(n_rows, 1, 2)) @ shapes[cluster]
    return means[cluster] + deviations[:, 0], np.array([[0.0, 2.0], [0.5, 1.2], [1.5, 0.5]])


def write_picture(figure: Figure, path: str) -> None:
    """Write a figure as PNG, whole or not at all."""
    with output_file(path) as output, output.open() as file:
        figure.savefig(file, format="png", dpi=120)
