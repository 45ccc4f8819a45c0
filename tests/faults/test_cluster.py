"""A cluster of real processes that are killed, stopped and lost: same bits, or stopped with a word.

python tests/faults/all.py test_cluster.py
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from chaos import tell
from clusters import Cluster
from distributed import Client, LocalCluster
from helpers import (
    HANG,
    Tune,
    assert_sums_close,
    digest,
    leaves,
    start_cluster,
    wait_until,
    write_zarr,
)

from dask_em import GaussianMixture
from dask_em.backends.dask import client as waiting
from dask_em.backends.dask import recovery as faults
from dask_em.backends.dask.backend import DaskBackend
from dask_em.backends.serial import SerialBackend
from dask_em.core.additive import Additive
from dask_em.core.protocols import Fold, Pass
from dask_em.data.open import as_source
from dask_em.errors import StoppedError
from dask_em.fitting.observers import Event, Observer, PassStarted, RowsDone
from dask_em.runtime import JobControl, as_job

N, CHUNK = 16_000, 1000
X = np.random.default_rng(0).normal(size=(N, 2))


@dataclass(frozen=True)
class Total(Additive):
    values: np.ndarray


@dataclass(frozen=True)
class Slowly(Pass[Total]):
    """Sums the columns, and takes its time."""

    seconds: float = 0.15

    def fold(self) -> SlowFold:
        return SlowFold(self.seconds)


@dataclass
class SlowFold(Fold[Total]):
    seconds: float
    values: np.ndarray = field(default_factory=lambda: np.zeros(2))

    def update(self, index: int, rows: np.ndarray, sample_weight: Any) -> None:
        time.sleep(self.seconds)
        self.values = self.values + rows.sum(axis=0)

    def result(self) -> Total:
        return Total(self.values)


class Hungry(Slowly):
    """Takes memory until there is none."""

    def fold(self) -> Any:
        return HungryFold(0.0)


class HungryFold(SlowFold):
    def update(self, index: int, rows: np.ndarray, sample_weight: Any) -> None:
        held = []
        for _ in range(200):
            held.append(np.ones(2**21))
            time.sleep(0.02)


@pytest.fixture
def source(tmp_path: Path, tune: Tune) -> Any:
    tune(reading={"bytes": 1})
    array: zarr.Array = write_zarr(tmp_path / "x.zarr", X, CHUNK)
    return as_source(array)


@contextmanager
def cluster(n_workers: int = 2, **options: Any) -> Iterator[tuple[LocalCluster, Client]]:
    with dask.config.set({**faults.cluster_settings(), **options}):
        local = start_cluster(n_workers)
        with local, Client(local, set_as_default=False) as client, client.as_current():
            yield local, client


def timed_pass(source: Any, harm: Callable[[], None], work: Any = None) -> tuple[Any, str]:
    """A pass during which, once a part is done, harm is done; the seconds from then to its end."""
    done: list[float] = []

    def advance(n_rows: int) -> None:
        if not done:
            harm()
            done.append(time.monotonic())

    total = DaskBackend().map_reduce(source, work or Slowly(), advance)
    return total, f"{time.monotonic() - done[0]:.1f}"


def assert_bits(total: Any, source: Any) -> None:
    expected = SerialBackend().map_reduce(source, Slowly(0.0))
    assert_sums_close(expected, Total(X.sum(axis=0)), rtol=1e-12)
    for a, b in zip(leaves(total), leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def pids(local: LocalCluster) -> list[int]:
    return [nanny.pid for nanny in local.workers.values()]


@pytest.mark.parametrize("victims", [pytest.param("one", marks=pytest.mark.slow), "all"])
def test_killed_workers_cost_time_only(victims: str, source: Any, record_property: Any) -> None:
    with cluster() as (local, _):

        def harm() -> None:
            for pid in pids(local)[: 1 if victims == "one" else None]:
                os.kill(pid, signal.SIGKILL)

        total, seconds = timed_pass(source, harm)
        assert_bits(total, source)
    tell(
        record_property,
        f"kill -9 of {victims} of a LocalCluster's workers",
        "2 workers, in the middle of a pass of about 1.5 s",
        "the pass went on",
        seconds,
        "what the workers held of the pass",
        "yes",
    )


@pytest.mark.slow
def test_retired_and_late_workers(source: Any, record_property: Any) -> None:
    with cluster(1) as (local, client):
        first = list(client.scheduler_info()["workers"])

        def relieve() -> None:
            local.scale(2)
            client.wait_for_workers(2, timeout=HANG)
            client.retire_workers(first)

        relief = threading.Thread(target=relieve)
        work = Slowly(0.6)
        total, seconds = timed_pass(source, relief.start, work)
        relief.join(timeout=HANG)
        assert not set(first) & set(client.scheduler_info()["workers"])
        assert_bits(total, source)
    tell(
        record_property,
        "a worker that joins late, and the only other one retired",
        "in the middle of a pass of 10 s on one worker",
        "the pass went on",
        f"{seconds} to the end of the pass",
        "none",
        "yes",
    )


def test_no_worker_comes_back(source: Any, record_property: Any) -> None:
    with cluster(1, **{"distributed.scheduler.no-workers-timeout": "1s"}) as (local, client):
        local.scale(0)
        wait_until(lambda: not client.scheduler_info()["workers"])
        with pytest.raises(StoppedError, match="no worker for 1 s: start workers again"):
            DaskBackend().map_reduce(source, Slowly())
    tell(
        record_property,
        "no worker is left, and none comes",
        "a LocalCluster scaled to none; no-workers-timeout 1 s",
        "stopped (code 75) with the remedy",
    )


def test_a_pass_says_that_it_waits_for_workers(
    source: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "COUNT_SECONDS", 0.1)
    told = "the cluster has no workers: waiting for one to join"
    with caplog.at_level(logging.WARNING, "dask_em"), cluster(0) as (local, _):

        def relieve() -> None:
            wait_until(lambda: told in caplog.text)
            local.scale(1)

        relief = threading.Thread(target=relieve)
        relief.start()
        total = DaskBackend().map_reduce(source, Slowly())
        relief.join(timeout=HANG)
    assert_bits(total, source)
    assert caplog.text.count(told) == 1
    assert caplog.text.count("a worker has joined after") == 1


def plain_fit(X: Any, *observers: Any) -> GaussianMixture:
    """Plain EM of a few passes, which one start on the sample begins."""
    options: dict[str, Any] = {
        "algorithm": "em",
        "init_params": "random_from_data",
        "tol": 0,
        "max_iter": 4,
    }
    model = GaussianMixture(2, random_state=0, callbacks=observers, **options)
    with pytest.warns(UserWarning, match="max_iter"):
        return model.fit(X)


@pytest.mark.slow
def test_a_fit_on_a_cluster_that_scales_from_none_for_every_pass(
    tmp_path: Path, tune: Tune, record_property: Any
) -> None:
    tune(reading={"bytes": 1})
    array, began, without = write_zarr(tmp_path / "x.zarr", X, CHUNK), time.monotonic(), []
    with cluster(0) as (local, client):
        local.adapt(minimum=0, maximum=2, interval="500ms", wait_count=2)

        def until_none_is_left(_: object) -> None:
            wait_until(lambda: not client.scheduler_info()["workers"])
            without.append(True)

        until_none_is_left(None)
        model = plain_fit(array, until_none_is_left)
        seconds = (time.monotonic() - began) / model.n_reads_
    with dask.config.set(scheduler="synchronous"):
        assert digest(model) == digest(plain_fit(array))
    assert len(without) == 1 + model.n_iter_
    assert [record["retries"] for record in model.history_] == [0] * model.n_reads_
    tell(
        record_property,
        "adaptive scaling from 0 to 2 workers",
        f"none at the start, and none before each of {model.n_iter_} passes of EM",
        "each pass waited for a worker to start; the fit ended with 0, no pass was made again",
        f"{seconds:.1f} a pass, the start of a worker included",
        "none",
        "yes",
    )


@pytest.mark.faults
def test_a_task_that_takes_too_much_memory_is_said_to(source: Any, record_property: Any) -> None:
    options = {"distributed.scheduler.allowed-failures": 1}
    with dask.config.set(options):
        local = LocalCluster(
            n_workers=1, threads_per_worker=1, memory_limit="400MiB", dashboard_address=":0"
        )
    with local, Client(local, set_as_default=False) as client, client.as_current():
        with pytest.raises(StoppedError, match="workers ran out of memory") as caught:
            DaskBackend().map_reduce(source, Hungry())
        assert re.search(r"of 400 MiB \(it held [34]\d\d MiB\)", str(caught.value))
        assert "more memory (memory_limit)" in str(caught.value)
    tell(
        record_property,
        "a task that takes all of a worker's memory",
        "until the nanny ends the worker, of 400 MiB",
        "stopped (code 75): how many bytes it held, of how many, and the remedy",
    )


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Cluster]:
    # Workers find the classes of this file.
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    started = Cluster(tmp_path, nanny=False, PYTHONPATH=path)
    try:
        started.start_scheduler()
        started.start_worker(1)
        yield started
    finally:
        started.end()


@pytest.mark.faults
def test_a_scheduler_that_comes_back_serves_the_pass_again(source: Any, processes: Cluster) -> None:
    run = JobControl()
    with Client(processes.address, set_as_default=False, timeout=HANG) as client:

        def harm() -> None:
            processes.kill_scheduler()
            processes.start_scheduler()
            processes.start_worker(2)

        with client.as_current(), as_job(run):
            total, _ = timed_pass(source, harm)
    assert run.retries >= 1
    assert_bits(total, source)


def test_a_scheduler_that_is_gone_stops_the_fit(
    source: Any, processes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "AWAY_SECONDS", 2.0)
    with (
        Client(processes.address, set_as_default=False, timeout=HANG) as client,
        client.as_current(),
        pytest.raises(StoppedError, match="was lost and did not come"),
    ):
        timed_pass(source, processes.kill_scheduler)


def held(block: np.ndarray, gate: Path) -> np.ndarray:
    """A block, once the gate is open; a closed one lets as many through as it has passes."""
    for free in gate.glob("pass-*"):
        with suppress(FileNotFoundError):
            free.unlink()
            return block
    wait_until(lambda: not (gate / "closed").exists())
    return block


class Relief(Observer):
    """In every pass a worker joins once rows are done, and the one that was there is retired."""

    follows_rows = True

    def __init__(self, processes: Cluster, client: Client, gate: Path) -> None:
        self.processes, self.client, self.gate = processes, client, gate
        self.some_done, self.retired = threading.Event(), list[str]()
        self.threads: list[threading.Thread] = []

    def notify(self, event: Event) -> None:
        if isinstance(event, PassStarted) and event.phase != "start":
            for thread in self.threads:
                thread.join(HANG)
            self.some_done.clear()
            for name in ("pass-1", "pass-2", "closed"):
                (self.gate / name).touch()
            self.threads.append(threading.Thread(target=self.relieve))
            self.threads[-1].start()
        if isinstance(event, RowsDone):
            self.some_done.set()

    def status(self, worker: str) -> str:
        return str(self.client.scheduler_info()["workers"].get(worker, {}).get("status", "gone"))

    def relieve(self) -> None:
        assert self.some_done.wait(HANG)
        (first,) = self.client.scheduler_info()["workers"]
        self.processes.start_worker(len(self.threads) + 1)
        farewell = threading.Thread(target=self.client.retire_workers, args=([first],))
        farewell.start()
        # It ends what it has begun.
        wait_until(lambda: self.status(first) != "running")
        (self.gate / "closed").unlink()
        farewell.join(HANG)
        wait_until(lambda: self.status(first) == "gone")
        self.retired.append(first)


@pytest.mark.slow
def test_the_only_worker_is_retired_in_every_pass(
    tmp_path: Path, processes: Cluster, record_property: Any
) -> None:
    array, gate = write_zarr(tmp_path / "x.zarr", X, CHUNK), tmp_path / "gate"
    gate.mkdir()
    rows = da.from_zarr(array).map_blocks(held, gate, dtype=array.dtype)
    with Client(processes.address, set_as_default=False, timeout=HANG) as client:
        relief = Relief(processes, client, gate)
        with client.as_current():
            model = plain_fit(rows, relief)
        for thread in relief.threads:
            thread.join(HANG)
    with dask.config.set(scheduler="synchronous"):
        assert digest(model) == digest(plain_fit(rows))
    assert len(set(relief.retired)) == model.n_reads_
    assert [record["retries"] for record in model.history_] == [0] * model.n_reads_
    tell(
        record_property,
        "retire_workers in every pass",
        f"in each of {model.n_reads_} passes a worker joins, and the one that held sums is retired",
        "its sums moved to the other; the fit ended with 0, no pass was made again",
        lost="none",
        bits="yes",
    )
