"""Workers that would compute other numbers: refused by name, or told of where it is digits."""

from __future__ import annotations

import logging
import operator
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client, LocalCluster
from helpers import HANG, SMALL_READS, blobs, digest, wait_until, write_zarr

import dask_em
from dask_em import GaussianMixture, adapt, compare, select
from dask_em.backends import software
from dask_em.backends.dask import failure
from dask_em.backends.dask.executor import dask_executor
from dask_em.cli import main
from dask_em.core.tuning import use_tuning
from dask_em.errors import WorkerError
from dask_em.jobs.cluster import ClusterOptions
from dask_em.jobs.doctor import examine
from dask_em.version import __version__

OPTIONS: dict[str, Any] = {"random_state": 0, "sample_size": 200}

X = blobs(1603, 3, 3, apart=8.0)[0]

VERSION = Path("version.py"), f'"{__version__}"', '"0.0.9"'

CONSTANT = Path("core/responsibilities.py"), "NEGLIGIBLE = -60.0", "NEGLIGIBLE = -2.0"

OTHER_NUMPY = "import numpy; numpy.__version__ = '1.99.7'"

NO_NUMBA = "import sys; sys.modules['numba'] = None"


def copied(folder: Path, *changes: tuple[Path, str, str]) -> str:
    """Another copy of the package, with changes; the folder for PYTHONPATH."""
    here = Path(dask_em.__file__).parent
    shutil.copytree(here, folder / "dask_em", ignore=shutil.ignore_patterns("__pycache__"))
    for name, before, after in changes:
        file = folder / "dask_em" / name
        text = file.read_text()
        assert text.count(before) == 1
        file.write_text(text.replace(before, after))
    return str(folder)


def customized(folder: Path, code: str) -> str:
    """A folder for PYTHONPATH that changes a process as it starts."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(code)
    return os.pathsep.join([str(folder), str(Path(dask_em.__file__).parents[1])])


KINDS: dict[str, tuple[Callable[[Path], str], str]] = {
    "an older version": (
        lambda folder: copied(folder, VERSION, CONSTANT),
        f"has dask_em 0.0.9 and here is {__version__}, so",
    ),
    "an edited copy": (
        lambda folder: copied(folder, CONSTANT),
        f"has dask_em {__version__} of the files ",
    ),
    "another NumPy": (
        lambda folder: customized(folder, OTHER_NUMPY),
        f"has NumPy 1.99 and here is {'.'.join(np.__version__.split('.')[:2])}, so",
    ),
    "no Numba": (
        lambda folder: customized(folder, NO_NUMBA),
        "has Numba not installed and here is ",
    ),
}


@contextmanager
def cluster(folder: Path, **workers: dict[str, str]) -> Iterator[tuple[Client, dict[str, str]]]:
    """Workers of these environments, in processes of their own; with their addresses by name."""
    with LocalCluster(n_workers=0, dashboard_address=":0") as scheduler, ExitStack() as stack:
        for name, environment in workers.items():
            # Elsewhere, for Python looks into the folder where it starts.
            process = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_worker", scheduler.scheduler_address,
                 "--no-dashboard", "--no-nanny", "--nthreads", "1", "--name", name,
                 "--local-directory", str(folder)],
                cwd=folder, env={**os.environ, **environment}, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(process.wait, HANG)
            stack.callback(process.terminate)
        with Client(scheduler) as client:
            wait_until(lambda: len(client.nthreads()) == len(workers))
            known = client.scheduler_info(n_workers=-1)["workers"]
            yield client, {str(found["name"]): address for address, found in known.items()}


@pytest.fixture(autouse=True)
def without_compiled_loops() -> Iterator[None]:
    with dask.config.set({"dask_em.fast": False}):
        yield


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("points") / "points.zarr"
    write_zarr(path, X, 101)
    return str(path)


@pytest.fixture(scope="module")
def model(points: str) -> GaussianMixture:
    with dask.config.set(scheduler="synchronous"), use_tuning(SMALL_READS):
        return GaussianMixture(3, **OPTIONS).fit(points)


def asks(points: str, model: GaussianMixture, folder: Path) -> dict[str, Callable[[], object]]:
    """All that computes on workers."""
    rows = da.from_array(X, chunks=(101, 3)) + 0.0
    saved = folder / "model.npz"
    model.save(saved, overwrite=True)
    return {
        "fit": lambda: GaussianMixture(3, **OPTIONS).fit(points),
        "fit of a Dask array": lambda: GaussianMixture(3, **OPTIONS).fit(rows),
        "select": lambda: select(points, range(2, 4), **OPTIONS),
        "score": lambda: model.score(points),
        "adapt": lambda: adapt(model, points),
        "update": lambda: deepcopy(model).update(points, exact=True),
        "compare": lambda: compare(model, model, points).rows,
        "score of a Dask array": lambda: model.score(rows),
        "labels": lambda: model.predict(points).compute(),
        "densities": lambda: model.score_samples(rows).compute(),
        "calls": lambda: _calls(),
    }


def _calls() -> list[int]:
    with dask_executor(3) as executor:
        return executor.map(operator.add, [*range(8)])


COMMANDS: dict[str, Callable[[str, Path], list[str]]] = {
    "fit": lambda points, model: ["fit", points, "-k", "2", "-o", f"{model.parent}/other.npz"],
    "score": lambda points, model: ["score", str(model), points],
    "predict": lambda points, model: ["predict", str(model), points, f"{model.parent}/labels.zarr"],
    "adapt": lambda points, model: ["adapt", str(model), points,
                                    "-o", f"{model.parent}/adapted.npz"],
    "update": lambda points, model: ["update", str(model), points, "--exact",
                                     "-o", f"{model.parent}/updated.npz"],
    "compare": lambda points, model: ["compare", str(model), str(model), "--data", points],
    "report": lambda points, model: ["report", str(model), f"{model.parent}/page.html",
                                     "--data", points],
}  # fmt: skip


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a good one"])
def test_a_worker_of_another_version_refuses_whatever_is_asked(
    beside: bool, points: str, model: GaussianMixture, tmp_path: Path
) -> None:
    make, said = KINDS["an older version"]
    workers = {"odd": {"PYTHONPATH": make(tmp_path / "odd")}}
    if beside:
        workers["good"] = {"PYTHONPATH": str(Path(dask_em.__file__).parents[1])}
    with cluster(tmp_path, **workers) as (client, addresses), use_tuning(SMALL_READS):
        named = f"worker {addresses['odd']} {said}"
        for name, ask in asks(points, model, tmp_path).items():
            with pytest.raises(WorkerError) as caught:
                ask()
            assert str(caught.value).startswith(named), name
            assert "install the same versions here and on every worker" in str(caught.value)
        before = {*tmp_path.iterdir()}
        for name, words in COMMANDS.items():
            given = words(points, tmp_path / "model.npz")
            where = ["--scheduler", client.scheduler.address]
            result = CliRunner().invoke(main, [*given, *where], catch_exceptions=False)
            assert (result.exit_code, named in result.stderr) == (75, True), (name, result.stderr)
        written = {path.name for path in {*tmp_path.iterdir()} - before}
        assert not written & {"other.npz", "labels.zarr", "page.html", "updated.npz"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_worker_is_refused_for(
    kind: str, points: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "no Numba":
        pytest.importorskip("numba", reason="the extra `fast` is not installed")
    make, said = KINDS[kind]
    compiled = dask.config.set({"dask_em.fast": kind == "no Numba"})
    with (
        compiled,
        cluster(tmp_path, odd={"PYTHONPATH": make(tmp_path / "odd")}) as (client, addresses),
    ):
        named = f"worker {addresses['odd']} {said}"
        with pytest.raises(WorkerError) as caught, use_tuning(SMALL_READS):
            GaussianMixture(3, **OPTIONS).fit(points)
        assert str(caught.value).startswith(named)
        # It is not tried again.
        assert "Compute Failed" not in caplog.text
        checks = examine(ClusterOptions(scheduler=client.scheduler.address), points)
    (wrong,) = [check for check in checks if check.name == "workers"]
    assert (wrong.exit_code, wrong.text) == (75, str(caught.value))


def test_a_version_that_computes_nothing_is_not_compared(points: str, tmp_path: Path) -> None:
    odd = {"PYTHONPATH": customized(tmp_path / "odd", NO_NUMBA)}
    with cluster(tmp_path, odd=odd), use_tuning(SMALL_READS):
        found = GaussianMixture(3, **OPTIONS).fit(points)
    with dask.config.set(scheduler="threads"), use_tuning(SMALL_READS):
        assert digest(found) == digest(GaussianMixture(3, **OPTIONS).fit(points))


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="OpenBLAS has one kernel for tests here"
)
def test_workers_that_round_otherwise_are_told_of_once(
    points: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure, "_told", set())
    here = str(Path(dask_em.__file__).parents[1])
    workers = {"good": {"PYTHONPATH": here}}
    with (
        use_tuning(SMALL_READS),
        cluster(tmp_path, **workers),
        caplog.at_level(logging.WARNING, "dask_em"),
    ):
        GaussianMixture(3, **OPTIONS).fit(points)
    assert "the last digits otherwise" not in caplog.text
    # The BLAS of an old processor.
    workers["odd"] = {"PYTHONPATH": here, "OPENBLAS_CORETYPE": "Prescott"}
    with cluster(tmp_path, **workers) as (client, addresses), use_tuning(SMALL_READS):
        with caplog.at_level(logging.WARNING, "dask_em"):
            for _ in range(2):
                GaussianMixture(3, **OPTIONS).fit(points)
        checks = examine(ClusterOptions(scheduler=client.scheduler.address), points)
    told = [r.getMessage() for r in caplog.records if "the last digits otherwise" in r.getMessage()]
    assert len(told) == 1
    assert told[0].startswith(f"worker {addresses['odd']} (")
    assert addresses["good"] not in told[0]
    (line,) = [check for check in checks if check.name == "workers' BLAS"]
    assert (line.verdict, told[0] in line.text) == ("WARN", True), line.text


def test_a_task_compares_what_its_process_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = {**software.software_here(numba=False)}
    for looked in ("_code", "_digits", "_computer"):
        monkeypatch.delattr(software, looked)
    assert failure.hold_to(sent) == {}
