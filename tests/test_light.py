"""What commands that answer at once import: none of the libraries that take seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import HANG, blobs, write_zarr

from dask_em import GaussianMixture
from dask_em.cli.main import main

HEAVY = {
    "dask", "distributed", "fsspec", "matplotlib", "numba", "obstore", "pandas", "pyarrow", "scipy",
    "sklearn", "xarray", "zarr",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its data, and a folder that is taken."""
    folder = tmp_path_factory.mktemp("light")
    X = blobs(400, 2, 2)[0]
    GaussianMixture(2, random_state=0).fit(X).save(folder / "m.npz")
    write_zarr(folder / "x.zarr", X, 100)
    (folder / "taken").mkdir()
    return folder


def loaded(code: str, folder: Path) -> dict[str, Any]:
    """What a fresh process says of itself after some code: `out` of it, and modules."""
    tail = "\nimport json, sys\nprint(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code + tail],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    *lines, last = done.stderr.splitlines()
    exit_code, modules = json.loads(last)
    return {
        "code": exit_code,
        "heavy": {name.partition(".")[0] for name in modules} & HEAVY,
        "said": "\n".join([*lines, done.stdout]),
    }


def command(words: Sequence[str], folder: Path) -> dict[str, Any]:
    """The same of a command."""
    code = (
        "from dask_em.cli import main\ncode = 0\n"
        f"try: main({list(words)!r})\nexcept SystemExit as e: code = e.code"
    )
    return loaded(code, folder)


@pytest.mark.parametrize("name", ["", *sorted(main.commands)])
def test_help_imports_nothing_heavy(name: str, folder: Path) -> None:
    found = command([*filter(None, [name]), "--help"], folder)
    assert (found["code"], found["heavy"]) == (0, set())
    assert "Usage: " in found["said"]


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["lines", "json"])
def test_inspect_imports_nothing_heavy(form: list[str], folder: Path) -> None:
    found = command(["inspect", "m.npz", *form], folder)
    assert (found["code"], found["heavy"]) == (0, set()), found["said"]
    assert "full covariance" in found["said"]


# Words of a command, its exit code, and a part of what it says.
REFUSED = [
    ("inspect no.npz", 2, "no.npz: no such model file"),
    ("inspect taken", 2, "taken: no such model file, but a folder"),
    ("inspect x.zarr", 2, "x.zarr is a Zarr array, expected a model file"),
    ("inspect x.zarr/zarr.json", 65, "not a whole dask_em model file"),
    ("fit x.zarr -k 2 -o m.npz", 73, "m.npz exists"),
    ("fit x.zarr -k 2 -o no/m.npz", 2, "there is no folder"),
    ("fit no.zarr -k 2 -o new.npz", 65, "no.zarr: no such path"),
    ("fit m.npz -k 2 -o new.npz", 2, "m.npz is a model file, expected data"),
    ("fit x.zarr -k 2 -o new.npz --weights no.zarr", 65, "no.zarr: no such path"),
    ("plan no.zarr -k 2", 65, "no.zarr: no such path"),
    ("plan m.npz -k 2", 2, "m.npz is a model file, expected data"),
    ("predict no.npz x.zarr new.zarr", 2, "no.npz: no such model file"),
    ("predict m.npz no.zarr new.zarr", 65, "no.zarr: no such path"),
    ("predict m.npz x.zarr taken", 73, "taken exists"),
    ("predict m.npz x.zarr no/new.zarr", 2, "there is no folder"),
    ("predict x.zarr m.npz new.zarr", 2, "the order is MODEL DATA DEST"),
    ("score no.npz x.zarr", 2, "no.npz: no such model file"),
    ("score m.npz no.zarr", 65, "no.zarr: no such path"),
    ("score x.zarr m.npz", 2, "the order is MODEL DATA"),
    ("score m.npz m.npz", 2, "DATA: m.npz is a model file, expected data"),
    ("adapt no.npz x.zarr -o new.npz", 2, "no.npz: no such model file"),
    ("adapt m.npz no.zarr -o new.npz", 65, "no.zarr: no such path"),
    ("adapt m.npz x.zarr -o m.npz", 73, "m.npz exists"),
    ("adapt x.zarr m.npz -o new.npz", 2, "the order is MODEL DATA"),
    ("adapt m.npz x.zarr -o new.npz --weights no.zarr", 65, "no.zarr: no such path"),
    ("update no.npz x.zarr", 2, "no.npz: no such model file"),
    ("update m.npz no.zarr", 65, "no.zarr: no such path"),
    ("update m.npz x.zarr -o m.npz", 73, "m.npz exists"),
    ("update x.zarr m.npz", 2, "the order is MODEL DATA"),
    ("update m.npz x.zarr --forget soon", 2, "expected a half-life"),
    ("update m.npz x.zarr --forget 1d --exact", 2, "--exact makes new ones"),
    ("compare m.npz no.npz", 2, "no.npz: no such model file"),
    ("compare m.npz m.npz --data no.zarr", 65, "no.zarr: no such path"),
    ("compare m.npz x.zarr", 2, "the order is A B"),
    ("compare m.npz m.npz --weights w", 2, "pass --data DATA"),
    ("report no.npz new.html", 2, "no.npz: no such model file"),
    ("report m.npz m.npz", 73, "m.npz exists"),
    ("report x.zarr new.html --data m.npz", 2, "the order is MODEL REPORT.html"),
    ("report m.npz new.html --data m.npz", 2, "--data: m.npz is a model file"),
    ("demo taken", 73, "taken exists"),
    ("fit x.zarr -k 0 -o new.npz", 2, "-k"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "said"), REFUSED, ids=[words for words, *_ in REFUSED])
def test_a_refusal_imports_nothing_heavy(words: str, code: int, said: str, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    found = command(words.split(), folder)
    assert (found["code"], found["heavy"]) == (code, set()), found["said"]
    assert said in found["said"]
    assert "Traceback" not in found["said"]
    assert sorted(folder.rglob("*")) == before


def test_small_data_are_fitted_and_labelled_without_numba_and_clusters(folder: Path) -> None:
    code = (
        "import numpy as np\nfrom dask_em import GaussianMixture\ncode = 0\n"
        "X = np.random.default_rng(0).normal(size=(1000, 4))\n"
        "model = GaussianMixture(3, random_state=0).fit(X)\n"
        "model.predict(X), model.score(X), model.predict_proba(X)"
    )
    assert not {"numba", "distributed"} & loaded(code, folder)["heavy"]


def test_small_stores_are_fitted_without_clusters(folder: Path) -> None:
    found = command(["fit", "x.zarr", "-k", "2", "-o", "small.npz"], folder)
    assert found["code"] == 0, found["said"]
    assert "distributed" not in found["heavy"]


def test_the_estimator_imports_scikit_learn_and_no_more(folder: Path) -> None:
    theirs = loaded("from sklearn.mixture import GaussianMixture; code = 0", folder)["heavy"]
    ours = loaded("from dask_em import GaussianMixture; code = 0", folder)["heavy"]
    assert ours <= theirs
