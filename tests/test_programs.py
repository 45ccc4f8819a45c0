"""Fits in other people's programs: the bits of a plain process, or a word at once why not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import dask
import dask.threaded
import numpy as np
import programs
import pytest
from helpers import HANG, SMALL_READS, blobs, read_until, write_zarr

from dask_em.backends.dask.backend import DaskBackend
from dask_em.core.tuning import use_tuning
from dask_em.data.open import as_source
from dask_em.errors import StoppedError
from dask_em.fitting.survey import Survey
from dask_em.runtime import JobControl, as_job

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    X = blobs(1603, 2, 2, apart=9.0)[0]
    np.save(folder / "x.npy", X)
    write_zarr(folder / "x.zarr", X, 401)
    with use_tuning(SMALL_READS):
        programs.fit(X).save(folder / "m.npz")
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> programs.Results:
    """What this process finds."""
    with use_tuning(SMALL_READS):
        return {name: thing(folder) for name, thing in programs.THINGS.items()}


@contextmanager
def started(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process with all that it starts, ended with the block."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    process = subprocess.Popen(
        command, text=True, cwd=HERE, env=environment | options.pop("env", {}),
        start_new_session=True, **options,
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@cache
def ran(program: str, folder: Path) -> Any:
    """What a program prints; it is asked once for all that it does."""
    command = [sys.executable, str(HERE / "programs.py"), program, str(folder)]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(command, **pipes) as process:
        out, said = process.communicate(timeout=HANG)
        assert process.returncode == 0, said
    return json.loads(out.splitlines()[-1])


HOSTS = [
    ("forks", "a fork before a fit"),
    ("forks", "a fork after a fit"),
    ("forks", "a fork of a fork"),
    ("forks", "a fork after k-means of many threads"),
    ("forks", "a fork beside threads that fit"),
    ("forks", "a fork in a callback"),
    ("forks", "multiprocessing.Pool by fork"),
    ("forks", "ProcessPoolExecutor by fork"),
    ("others", "ProcessPoolExecutor by spawn"),
    ("others", "multiprocessing.Pool by forkserver"),
    ("others", "loky"),
    ("inside", "threads at once"),
    ("inside", "threads at once with one client"),
    ("inside", "a coroutine"),
    ("inside", "a thread of a coroutine"),
    ("inside", "a callback of a fit"),
    ("inside", "after an alarm in a fit"),
    ("client_of_the_parent", "threads beside it"),
    ("client_of_the_parent", "a client of its own"),
]


@pytest.mark.parametrize("thing", programs.THINGS)
@pytest.mark.parametrize(("program", "host"), HOSTS, ids=[host for _, host in HOSTS])
def test_the_bits_of_a_plain_process(
    program: str, host: str, thing: str, folder: Path, expected: programs.Results
) -> None:
    assert ran(program, folder)[host][thing] == expected[thing]


# -- refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("thing", programs.THINGS)
def test_a_client_of_the_parent_is_refused(
    thing: str, folder: Path, expected: programs.Results
) -> None:
    """What needs no client is done; both remedies are hosts above."""
    said = ran("client_of_the_parent", folder)["the parent's client"][thing]
    if thing in ("fit of an array", "labels of an array", "save"):
        assert said == expected[thing]
    else:
        assert said.startswith("UsageError: the Dask client in force does not answer in process")
        assert re.search(r'with distributed\.Client\("\w+://', said)
        assert 'dask.config.set(scheduler="threads")' in said


@pytest.mark.parametrize("thing", programs.THINGS)
def test_the_end_of_python_is_no_time_to_fit(
    thing: str, folder: Path, expected: programs.Results
) -> None:
    said = ran("at_exit", folder)["the end"][thing]
    if thing != "save":
        # Dask and Zarr say it by themselves where a graph is made of an array.
        kind = "RuntimeError" if "graph" in thing else "UsageError: no thread can be started here"
        assert said.startswith(kind)
        assert re.search("cannot schedule new futures|can't create new thread", said)
    else:
        assert said == expected[thing]


def test_a_daemon_starts_no_workers(folder: Path) -> None:
    said = ran("daemon", folder)["a daemon"]["cluster"]
    assert said.startswith("UsageError: a daemonic process starts no workers")


def test_a_fork_does_not_write_to_the_checkpoint_of_its_parent(folder: Path) -> None:
    said = ran("checkpoint_of_the_parent", folder)["the parent's checkpoint"]["fit"]
    assert said.startswith("LockedError: another job (process")


def test_a_lock_ends_with_its_process_and_not_with_its_children(
    folder: Path, expected: programs.Results
) -> None:
    command = [sys.executable, str(HERE / "programs.py"), "killed_beside_a_child", str(folder)]
    with started(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = json.loads(process.stdout.readline())
        assert process.wait(timeout=HANG) == 0
        os.kill(child, 0)
        with use_tuning(SMALL_READS):
            model = programs.fit(programs.path(folder), checkpoint=folder / "left")
    assert programs.digest(model) == expected["fit of a path"]


def test_a_signal_for_a_fork_is_not_for_the_job_of_its_parent(folder: Path) -> None:
    found = ran("signal_to_a_child", folder)["a child"]
    assert found == {"ended by": "SIGTERM", "parent": "interrupted by SIGINT"}


# -- threads at once -------------------------------------------------------------------


def test_a_job_that_stops_leaves_those_of_other_threads_alone(folder: Path) -> None:
    """Two passes begin together, and one of their jobs is asked to stop."""
    begin, done, stopped = threading.Barrier(2), threading.Event(), JobControl()

    def get(graph: Any, keys: Any, **options: Any) -> Any:
        begin.wait(HANG)
        if threading.current_thread() is stopping:
            assert done.wait(HANG)
        else:
            stopped.request_stop("a wish")
        return dask.threaded.get(graph, keys, **options)

    def survey(job: JobControl) -> int:
        work = Survey(seed=0, sample_size=10, n_features=2, n_rows=1603)
        with as_job(job), use_tuning(SMALL_READS):
            return int(DaskBackend().map_reduce(as_source(programs.path(folder)), work).n_rows)

    said: list[str] = []

    def stops() -> None:
        with pytest.raises(StoppedError) as caught:
            survey(stopped)
        said.append(str(caught.value))

    stopping = threading.Thread(target=stops)
    with dask.config.set(scheduler=get):
        stopping.start()
        try:
            assert survey(JobControl()) == 1603
        finally:
            done.set()
            stopping.join()
    assert said == ["a wish"]


# -- servers ---------------------------------------------------------------------------


@pytest.mark.parametrize("preloaded", [False, True])
def test_gunicorn(preloaded: bool, folder: Path, expected: programs.Results) -> None:
    pytest.importorskip("gunicorn")
    command = [sys.executable, "-m", "gunicorn", "programs:app", "--bind", "127.0.0.1:0"]
    command += ["--workers", "2", "--timeout", str(int(HANG)), *["--preload"] * preloaded]
    env = {"PROGRAMS_FOLDER": str(folder)} | ({"PROGRAMS_PRELOADED": "1"} if preloaded else {})
    with started(command, stderr=subprocess.PIPE, env=env) as process:
        said = read_until(process, "Listening at: ")
        (url,) = re.findall(r"Listening at: (http://[\d.:]+)", said)
        for _ in range(3):
            with urllib.request.urlopen(url, timeout=HANG) as answer:
                assert json.loads(answer.read()) == expected


def test_celery(folder: Path, expected: programs.Results) -> None:
    pytest.importorskip("celery")
    app = programs.celery_app(folder)
    command = [sys.executable, str(HERE / "programs.py"), "celery", str(folder)]
    with started(command):
        found = app.send_task("programs.do", [str(folder)]).get(timeout=HANG)
    assert found == expected


def test_a_notebook(folder: Path, expected: programs.Results) -> None:
    pytest.importorskip("ipykernel")
    manager = pytest.importorskip("jupyter_client.manager")
    kernel, client = manager.start_new_kernel(startup_timeout=HANG, cwd=str(HERE))
    printed: list[str] = []

    def seen(message: Any) -> None:
        content = message["content"]
        printed.append(content.get("text", "") + "\n".join(content.get("traceback", [])))

    cell = f"""
import json, sys, pathlib
sys.path[:0] = {[str(HERE), *sys.path]!r}
import programs
from distributed import Client
folder = pathlib.Path({str(folder)!r})
plain = programs.do(folder)
with programs.start_cluster(1, processes=False) as cluster, Client(cluster):
    print(json.dumps([plain, programs.do(folder)]))
"""
    try:
        client.execute_interactive(cell, timeout=HANG, output_hook=seen)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    assert json.loads("".join(printed).splitlines()[-1]) == [expected, expected]
