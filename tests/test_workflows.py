"""Workflow tools run the real program, which is interrupted once: they go on, to the same bits.

    python -m pytest -m slow tests/test_workflows.py

Airflow and Prefect live in environments of their own, as they do where people run them:
DASK_EM_AIRFLOW names a program `airflow`, DASK_EM_PREFECT a Python that has Prefect.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zarr
from helpers import HANG, blobs, digest, write_zarr
from zarr.codecs import Crc32cCodec

from dask_em import GaussianMixture, load

EXAMPLES = Path(__file__).parent.parent / "examples"
K = 5
WHERE = "--workers 1 --memory-limit 2GiB"
# Stands for `dask-em` on the PATH: the real program, of which the first fit is told to end
# as soon as there is something to resume.
PROGRAM = """#!{python}
import subprocess, sys, time
from pathlib import Path
said = Path({said!r})
with said.open("a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
process = subprocess.Popen([sys.executable, "-m", "dask_em.cli", *sys.argv[1:]])
first = sum(line.startswith("fit") for line in said.read_text().splitlines()) == 1
if sys.argv[1] == "fit" and first:
    model = Path(sys.argv[sys.argv.index("-o") + 1])
    kept = model.with_name("." + model.name + ".checkpoint") / "survey.npz"
    while not kept.exists() and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
code = process.wait()
with said.open("a") as log:
    log.write("exit code %d\\n" % code)
sys.exit(code)
"""


@pytest.fixture(scope="module", name="points")
def stored_points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    X, _, _ = blobs(400_000, 6, K, apart=0.8)
    path = tmp_path_factory.mktemp("data") / "points.zarr"
    write_zarr(path, X, 50_000, compressors=[Crc32cCodec()])
    return path


class Program:
    """The stand-in for `dask-em`, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.said, self.path = folder / "said", folder / "bin/dask-em"
        self.path.parent.mkdir()
        self.path.write_text(PROGRAM.format(python=sys.executable, said=str(self.said)))
        self.path.chmod(0o755)
        self.environment = {
            **{n: v for n, v in os.environ.items() if not n.startswith("PYTHON")},
            "DASK_EM": str(self.path),
            "DASK_EM_WHERE": WHERE,
            "DASK_EM_RETRY_SECONDS": "1",
        }

    def lines(self) -> list[str]:
        return self.said.read_text().splitlines()

    def codes(self, command: str) -> list[int]:
        """The exit codes of one command, in order."""
        lines = self.lines()
        return [
            int(lines[i + 1].rpartition(" ")[2])
            for i, line in enumerate(lines[:-1])
            if line.startswith(command) and lines[i + 1].startswith("exit code")
        ]

    def run(self, *command: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            timeout=HANG,
            env={**self.environment, **environment},
        )


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def check_whole(points: Path, model: Path, answers: Path, report: Path) -> None:
    """The bits of a fit that nobody interrupted, its labels, and a page."""
    undisturbed = GaussianMixture(K, random_state=0).fit(points)
    assert digest(load(model)) == digest(undisturbed)
    labels = zarr.open_array(answers / "labels", mode="r")[:]
    assert (labels == undisturbed.predict(points).compute()).all()
    assert "</html>" in report.read_text()
    assert not list(model.parent.glob(".*checkpoint*"))


@pytest.mark.slow
def test_make_goes_on_after_75_and_makes_nothing_twice(
    program: Program, points: Path, tmp_path: Path
) -> None:
    if shutil.which("make") is None:
        pytest.skip("this machine has no make")
    out = tmp_path / "models"
    command = ["make", "-f", EXAMPLES / "Makefile", f"DATA={points}", f"K={K}", f"OUT={out}",
               f"DASK_EM={program.path}", f"WHERE={WHERE}", "PAUSE=0"]  # fmt: skip
    done = program.run(*command, "all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert program.codes("fit") == [75, 0]
    assert "resuming from" in done.stderr
    check_whole(points, out / "model.npz", out / "answers.zarr", out / "report.html")

    # Nothing changed, so nothing is made.
    before = len(program.lines())
    assert program.run(*command, "all").returncode == 0
    assert len(program.lines()) == before


def test_make_ends_with_any_other_code(program: Program, points: Path, tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("this machine has no make")
    missing = tmp_path / "missing.zarr"
    missing.mkdir()
    (missing / "zarr.json").write_text("{}")
    done = program.run(
        "make", "-f", EXAMPLES / "Makefile", f"DATA={missing}", f"OUT={tmp_path}",
        f"DASK_EM={program.path}", f"WHERE={WHERE}", tmp_path / "model.npz",
    )  # fmt: skip
    assert done.returncode == 2
    assert program.codes("fit") == [65]
    assert "Error 65" in done.stderr


@pytest.mark.slow
def test_airflow_retries_75(program: Program, points: Path, tmp_path: Path) -> None:
    airflow = os.environ.get("DASK_EM_AIRFLOW") or shutil.which("airflow")
    if airflow is None:
        pytest.skip("no airflow: pip install apache-airflow in an environment of its own, and "
                    "DASK_EM_AIRFLOW=.../bin/airflow")  # fmt: skip
    home = {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    made = program.run(airflow, "db", "migrate", **home)
    assert made.returncode == 0, made.stdout + made.stderr
    configuration = {"data": str(points), "folder": str(tmp_path), "k": str(K)}
    done = program.run(
        airflow, "dags", "test", "dask_em_nightly", "2026-01-02",
        "-c", json.dumps(configuration), **home,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert program.codes("doctor") == [0]
    assert program.codes("fit") == [75, 0]
    (model,) = tmp_path.glob("*.npz")
    answers, report = Path(f"{model}.answers.zarr"), Path(f"{model}.html")
    check_whole(points, model, answers, report)

    # Bad data are not tried again.
    configuration["data"] = str(tmp_path / "nothing.zarr")
    done = program.run(
        airflow, "dags", "test", "dask_em_nightly", "2026-01-03",
        "-c", json.dumps(configuration), **home,
    )  # fmt: skip
    assert program.codes("doctor") == [0, 65], done.stdout[-3000:]
    assert program.codes("fit") == [75, 0]


@pytest.mark.slow
def test_prefect_retries_75(program: Program, points: Path, tmp_path: Path) -> None:
    python = os.environ.get("DASK_EM_PREFECT")
    if python is None:
        pytest.skip("no Prefect: pip install prefect in an environment of its own, and "
                    "DASK_EM_PREFECT=.../bin/python")  # fmt: skip
    home = {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    out = tmp_path / "out"
    out.mkdir()
    flow = [python, EXAMPLES / "prefect_flow.py"]
    done = program.run(*flow, points, out, K, *WHERE.split(), **home)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert program.codes("doctor") == [0]
    assert program.codes("fit") == [75, 0]
    check_whole(points, out / "model.npz", out / "answers.zarr", out / "report.html")

    # Bad data are not tried again.
    done = program.run(*flow, tmp_path / "nothing.zarr", out, K, *WHERE.split(), **home)
    assert done.returncode != 0
    assert program.codes("doctor") == [0, 65]
