"""Give fitted mixtures to programs without dask_em: ONNX, SQL, JSON and skops, and compare.

    pip install 'dask-em[onnx]' onnxruntime duckdb skops && python examples/export.py [FOLDER]

skops goes through `to_sklearn()`, a fitted model of scikit-learn of the same numbers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import onnxruntime
import skops.io
import zarr
from zarr.codecs import Crc32cCodec

from dask_em import GaussianMixture, KMeans, StudentTMixture, from_json, to_json, to_onnx, to_sql


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


def run_onnx(path: Path, rows: np.ndarray) -> list[np.ndarray]:
    """Answers by onnxruntime, which knows neither dask_em nor scikit-learn."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {"X": rows})
    return found


def run_sql(sql: str, rows: np.ndarray) -> np.ndarray:
    """Labels by DuckDB, of a table whose columns are x0, x1, ..."""
    columns = {"id": np.arange(len(rows)), **{f"x{j}": rows[:, j] for j in range(rows.shape[1])}}
    with duckdb.connect() as connection:
        connection.register("points", columns)
        found = connection.execute(f"{sql} ORDER BY id").fetchnumpy()
    return np.asarray(found["label"])


def main(folder: Path) -> None:
    rows = points(folder / "points.zarr")
    models: dict[str, Any] = {
        kind: GaussianMixture(4, covariance_type=kind, random_state=0)
        for kind in ("full", "tied", "diag", "spherical")
    }
    models["student-t"] = StudentTMixture(4, random_state=0)
    models["kmeans"] = KMeans(4, random_state=0)
    for name, model in models.items():
        model.fit(str(folder / "points.zarr"))
        labels = model.predict(rows)

        path = folder / f"{name}.onnx"
        path.write_bytes(to_onnx(model).SerializeToString())
        there, second, *_ = run_onnx(path, rows)
        expected = model.transform(rows) if name == "kmeans" else model.predict_proba(rows)
        worst = np.abs(second - expected).max()
        assert (there == labels).all()
        assert worst < 1e-6, worst

        sql = to_sql(model, "points", keep=["id"])
        (folder / f"{name}.sql").write_text(sql)
        assert (run_sql(sql, rows) == labels).all()

        (folder / f"{name}.json").write_text(json.dumps(to_json(model)))
        again = from_json(json.loads((folder / f"{name}.json").read_text()))
        assert (again.predict(rows) == labels).all()

        if name != "student-t":
            # skops names what it would run; these files need nothing beyond scikit-learn and NumPy.
            skops.io.dump(model.to_sklearn(), folder / f"{name}.skops")
            assert skops.io.get_untrusted_types(file=folder / f"{name}.skops") == []
            assert (skops.io.load(folder / f"{name}.skops").predict(rows) == labels).all()
        print(
            f"{name:9s} ONNX, SQL and JSON: same labels for {len(rows):,} rows; what ONNX says "
            f"beside them differs by {worst:.1e} at most"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
