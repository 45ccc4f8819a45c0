"""Errors in tasks: those of data come once and at once, passing ones are tried again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client
from helpers import HANG, SMALL_READS, blobs, digest, start_cluster, wait_until, write_zarr
from zarr.codecs import Crc32cCodec

from dask_em import Checkpointing, GaussianMixture
from dask_em.backends import backend_in_force
from dask_em.backends.dask.backend import DaskBackend
from dask_em.core.additive import Additive
from dask_em.core.protocols import Fold, Pass
from dask_em.core.tuning import use_tuning
from dask_em.data.open import as_source
from dask_em.errors import (
    DaskEMError,
    DataError,
    ModelFileError,
    StoreAccessError,
    StoreError,
    UsageError,
)
from dask_em.jobs.cluster import ClusterOptions, cluster_client

pytestmark = pytest.mark.usefixtures("many_chunks")

X = blobs(1603, 3, 3, apart=8.0)[0]

FINAL: list[type[DaskEMError]] = [DataError, ModelFileError, StoreAccessError, UsageError]
PASSING: list[type[Exception]] = [StoreError, OSError, RuntimeError]


@pytest.fixture
def stored(tmp_path: Path) -> zarr.Array:
    return write_zarr(tmp_path / "x.zarr", X, 101)


@pytest.fixture(params=["a cluster", "threads", "synchronous"])
def scheduler(request: pytest.FixtureRequest, two_workers: Client) -> Iterator[str]:
    """Each scheduler in force in turn."""
    if request.param == "a cluster":
        with two_workers.as_current():
            yield request.param
    else:
        with dask.config.set(scheduler=request.param):
            yield request.param


@dataclass(frozen=True)
class Rows(Additive):
    """The number of rows."""

    n_rows: int


@dataclass(frozen=True)
class Failing(Pass[Rows]):
    """Counts rows, and fails at the first chunk the first few times; it notes each time."""

    folder: Path
    error: type[Exception]
    times: int

    def fold(self) -> FailingFold:
        return FailingFold(self)


class FailingFold(Fold[Rows]):
    def __init__(self, work: Failing) -> None:
        self.work, self.n_rows = work, 0

    def update(self, index: int, X: Any, sample_weight: Any) -> None:
        if index == 0:
            fail(self.work.folder, self.work.error, self.work.times)
        self.n_rows += len(X)

    def result(self) -> Rows:
        return Rows(self.n_rows)


@dataclass(frozen=True)
class OneFails(Pass[Rows]):
    """The range that is read first fails, and all others wait until they may go on."""

    folder: Path

    def fold(self) -> OneFailsFold:
        return OneFailsFold(self.folder)


class OneFailsFold(Fold[Rows]):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def update(self, index: int, X: Any, sample_weight: Any) -> None:
        try:
            (self.folder / "first").touch(exist_ok=False)
        except FileExistsError:
            wait_until(lambda: (self.folder / "go").exists())
        else:
            raise DataError("the first is bad")

    def result(self) -> Rows:
        return Rows(0)


def fail(folder: Path, error: type[Exception], times: int) -> None:
    made = tries(folder)
    if made < times:
        (folder / f"try {made}").touch()
        raise error("chunk 0 is bad")


def tries(folder: Path) -> int:
    return len(list(folder.glob("try *")))


def sources(stored: zarr.Array) -> list[Any]:
    return [as_source(stored), as_source(da.from_zarr(stored, chunks=(200, 3)) + 0)]


@pytest.mark.parametrize("error", FINAL)
@pytest.mark.parametrize("which", [0, 1], ids=["stored", "graph"])
def test_what_cannot_heal_is_tried_once(
    scheduler: str, stored: zarr.Array, tmp_path: Path, error: type[Exception], which: int
) -> None:
    with pytest.raises(error, match="chunk 0 is bad"):
        DaskBackend().map_reduce(sources(stored)[which], Failing(tmp_path, error, 9))
    assert tries(tmp_path) == 1


@pytest.mark.parametrize("error", PASSING)
@pytest.mark.parametrize("which", [0, 1], ids=["stored", "graph"])
def test_what_may_pass_is_tried_again_by_a_cluster(
    client: Client, stored: zarr.Array, tmp_path: Path, error: type[Exception], which: int
) -> None:
    found = DaskBackend().map_reduce(sources(stored)[which], Failing(tmp_path, error, 2))
    assert (found.n_rows, tries(tmp_path)) == (len(X), 2)


def calls_for(folder: Path, error: type[Exception]) -> int:
    fail(folder, error, 2)
    return tries(folder)


@pytest.mark.parametrize("error", [*FINAL, *PASSING])
def test_calls_are_tried_again_as_passes_are(
    client: Client, tmp_path: Path, error: type[Exception]
) -> None:
    with backend_in_force().executor(tmp_path) as executor:
        if error in PASSING:
            assert executor.map(calls_for, [error]) == [2]
        else:
            with pytest.raises(error, match="chunk 0 is bad"):
                executor.map(calls_for, [error])
    assert tries(tmp_path) == (2 if error in PASSING else 1)


def test_nobody_waits_for_the_rest_of_a_pass_that_failed(
    client: Client, stored: zarr.Array, tmp_path: Path
) -> None:
    try:
        with pytest.raises(DataError, match="the first is bad"):
            DaskBackend().map_reduce(as_source(stored), OneFails(tmp_path))
        assert not (tmp_path / "go").exists()
    finally:
        (tmp_path / "go").touch()
    wait_until(
        lambda: not client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
    )


@contextmanager
def damaged(folder: Path, chunk: int) -> Iterator[None]:
    """One chunk of a Zarr array with a bit that flipped."""
    file = next(f for f in (folder / "c" / str(chunk), folder / f"c/{chunk}/0") if f.is_file())
    good = file.read_bytes()
    file.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    yield
    file.write_bytes(good)


WEIGHTS = np.linspace(1, 2, len(X))


def as_labelled(values: Any, *dims: str) -> Any:
    return pytest.importorskip("xarray").DataArray(values, dims=dims)


# Each kind of rows and of weights, of the path of a Zarr array. Their chunks do not line up.
ROWS: dict[str, Callable[[str], Any]] = {
    "path": lambda path: path,
    "zarr": zarr.open_array,
    "dask": da.from_zarr,
    "xarray": lambda path: as_labelled(da.from_zarr(path), "row", "column"),
    "graph": lambda path: da.from_array(X, chunks=(200, 3)) + 0,
    "labelled graph": lambda path: as_labelled(da.from_array(X, chunks=(200, 3)), "row", "column"),
    "numpy": lambda path: X,
}
COUNTED: dict[str, Callable[[str], Any]] = {
    "path": lambda path: path,
    "zarr": zarr.open_array,
    "dask": da.from_zarr,
    "xarray": lambda path: as_labelled(da.from_zarr(path), "row"),
    "graph": lambda path: da.from_array(WEIGHTS, chunks=150),
    "numpy": lambda path: WEIGHTS,
}
STORED = ("path", "zarr", "dask", "xarray")
DAMAGED = [("X", *pair) for pair in product(STORED, COUNTED)]
DAMAGED += [("sample_weight", *pair) for pair in product(ROWS, STORED)]


@pytest.mark.parametrize(("what", "rows", "weights"), DAMAGED)
def test_a_damaged_chunk_is_read_once(
    client: Client, tmp_path: Path, what: str, rows: str, weights: str
) -> None:
    """Whatever reads it: the task that sums it, one before it, or this process."""
    checked: dict[str, Any] = {"compressors": [Crc32cCodec()]}
    write_zarr(tmp_path / "X", X, 101, **checked)
    write_zarr(tmp_path / "sample_weight", WEIGHTS, 97, **checked)
    given = ROWS[rows](str(tmp_path / "X"))
    beside = COUNTED[weights](str(tmp_path / "sample_weight"))
    begin = time.time()
    with damaged(tmp_path / what, 3), pytest.raises(DataError, match=rf"chunk 3 .* of {what} "):
        GaussianMixture(2).fit(given, sample_weight=beside)
    assert failed_since(client, begin) == []


@pytest.mark.parametrize("rows", ROWS)
def test_a_missing_chunk_of_weights_is_found(client: Client, tmp_path: Path, rows: str) -> None:
    write_zarr(tmp_path / "X", X, 101)
    write_zarr(tmp_path / "w", WEIGHTS, 97)
    (tmp_path / "w/c/3").unlink()
    with pytest.raises(DataError, match=r"sample_weight lacks .*chunk 3 "):
        GaussianMixture(2).fit(ROWS[rows](str(tmp_path / "X")), sample_weight=tmp_path / "w")


def failed_since(client: Client, begin: float) -> list[str]:
    """The tasks that failed since then, by the logs of the workers."""
    return [key for keys in client.run(failed_tasks, begin).values() for key in keys]


def failed_tasks(begin: float, dask_worker: Any) -> list[str]:
    # A transition is a key, the states from which and to which it goes, ..., the event, the time.
    failures = [line for line in dask_worker.state.log if line[2] == "error" and line[-1] >= begin]
    return [str(line[0]) for line in failures if not never_ran(line)]


def never_ran(transition: tuple[Any, ...]) -> bool:
    """Whether a task was cancelled as it was about to start, its inputs gone already."""
    return transition[1] == "cancelled" and transition[-2].startswith("execute-unknown-error")


def test_a_task_that_fails_is_seen(client: Client) -> None:
    begin = time.time()
    future = client.submit(divmod, 1, 0, key="divided")
    with pytest.raises(ZeroDivisionError):
        future.result()
    # The error holds it, and with it the task, for the tests that come after.
    future.cancel()
    assert set(failed_since(client, begin)) == {"divided"}
    assert failed_since(client, time.time()) == []


def test_a_checkpoint_holds_sums_and_no_failures(
    scheduler: str, stored: zarr.Array, tmp_path: Path
) -> None:
    path = tmp_path / "checked.zarr"
    write_zarr(path, X, 101, compressors=[Crc32cCodec()])
    options: dict[str, Any] = {"random_state": 0, "sample_size": 200}
    expected = GaussianMixture(2, **options).fit(path)
    how = Checkpointing(tmp_path / "kept", interval=0)
    with damaged(path, 15), pytest.raises(DataError, match="chunk 15"):
        GaussianMixture(2, checkpoint=how, **options).fit(path)
    assert digest(GaussianMixture(2, checkpoint=how, **options).fit(path)) == digest(expected)


# -- what is logged --------------------------------------------------------------------


CASES = [(kind, times) for kind in (DataError, StoreError, RuntimeError) for times in (2, 9)]

PROGRAM = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_failing_tasks as tests
if __name__ == "__main__":
    tests.ask_a_local_cluster(*sys.argv[1:])
"""


def ask_a_local_cluster(path: str, folder: str) -> None:
    """Print what a pass of each case comes to."""
    with use_tuning(SMALL_READS), cluster_client(ClusterOptions(workers=1)):
        for i, (error, times) in enumerate(CASES):
            (case := Path(folder, str(i))).mkdir()
            try:
                print(DaskBackend().map_reduce(as_source(path), Failing(case, error, times)).n_rows)
            except error as e:
                print(e)


def test_workers_of_ours_do_not_log_what_is_raised_here(stored: zarr.Array, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "x.zarr"), str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=HANG,
    )  # fmt: skip
    bad, whole = "chunk 0 is bad", str(len(X))
    assert done.stdout.splitlines() == [bad, bad, whole, bad, whole, bad], done.stderr
    made = [tries(tmp_path / str(i)) for i in range(len(CASES))]
    assert made == [1, 1, 2, 3, 2, 3]
    for word in ("Compute Failed", "Traceback", "em-range"):
        assert word not in done.stderr


def test_one_line_tells_of_a_damaged_chunk(tmp_path: Path) -> None:
    """On a cluster of ours alone; on one of others apart from what its workers log."""
    write_zarr(tmp_path / "x.zarr", X, 101, compressors=[Crc32cCodec()])
    command = [sys.executable, "-m", "dask_em.cli", "fit", "x.zarr", "-k", "2", "-o", "m.npz"]

    def lines(*options: str) -> list[str]:
        done = subprocess.run(
            [*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False,
            timeout=HANG,
        )  # fmt: skip
        assert done.returncode == 65, done.stderr
        return done.stderr.splitlines()

    with damaged(tmp_path / "x.zarr", 7):
        ours = lines("--workers", "1")
        with start_cluster(1) as cluster:
            others = lines("--scheduler", cluster.scheduler_address)
    assert ours[-1].startswith("Error: chunk 7 ")
    assert not any("Traceback" in line or "distributed" in line for line in ours), ours
    assert others[-2:] == ["", ours[-1]]
