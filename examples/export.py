"""Give a fitted mixture to programs without dask_em: ONNX and skops, equal to the original.

    pip install skl2onnx onnxruntime skops && python examples/export.py [FOLDER]

Both go through `to_sklearn()`, a fitted `sklearn.mixture.GaussianMixture` of the same numbers.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import skops.io
import zarr
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType
from zarr.codecs import Crc32cCodec

from dask_em import GaussianMixture

KINDS = ("full", "tied", "diag", "spherical")


def points(path: Path, n_rows: int = 50_000) -> np.ndarray:
    """Rows of four overlapping clusters, stored in chunks."""
    rng = np.random.default_rng(0)
    centers = rng.normal(scale=2, size=(4, 5))
    rows = centers[rng.integers(0, 4, n_rows)] + rng.normal(size=(n_rows, 5))
    array = zarr.create_array(
        path, shape=rows.shape, chunks=(10_000, 5), dtype="f8", compressors=[Crc32cCodec()]
    )
    array[:] = rows
    return rows


def to_onnx_file(model: GaussianMixture, path: Path) -> None:
    """Labels and responsibilities as an ONNX graph in float64."""
    wanted = {"score_samples": True}
    reference = model.to_sklearn()
    graph = to_onnx(
        reference,
        initial_types=[("X", DoubleTensorType([None, model.n_features_in_]))],
        options={id(reference): wanted},
        target_opset=18,
    )
    path.write_bytes(graph.SerializeToString())


def run_onnx(path: Path, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, responsibilities and log-densities by onnxruntime, which knows no scikit-learn."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    labels, proba, density = session.run(None, {"X": rows})
    return labels.ravel(), proba, density.ravel()


def main(folder: Path) -> None:
    rows = points(folder / "points.zarr")
    for kind in KINDS:
        model = GaussianMixture(4, covariance_type=kind, random_state=0)
        model.fit(str(folder / "points.zarr"))
        labels, proba = model.predict(rows), model.predict_proba(rows)

        to_onnx_file(model, folder / f"{kind}.onnx")
        there = run_onnx(folder / f"{kind}.onnx", rows)
        differ = (there[0] != labels).sum()
        worst = np.abs(there[1] - proba).max(), np.abs(there[2] - model.score_samples(rows)).max()
        assert differ == 0, f"{differ} labels differ"
        assert max(worst) < 1e-9, worst

        # skops names what it would run; these files need nothing beyond scikit-learn and NumPy.
        skops.io.dump(model.to_sklearn(), folder / f"{kind}.skops")
        assert skops.io.get_untrusted_types(file=folder / f"{kind}.skops") == []
        again = skops.io.load(folder / f"{kind}.skops")
        assert np.array_equal(again.means_, model.means_)
        assert np.array_equal(again.predict(rows), labels)
        print(
            f"{kind:9s} ONNX and skops: same labels for {len(rows):,} rows; ONNX's "
            f"responsibilities differ by {worst[0]:.1e}, log-densities by {worst[1]:.1e} at most"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
