"""Calls of pure functions: the same results in the same order, whoever makes them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client
from helpers import Tune, start_cluster, wait_until

from dask_em.backends import backend_in_force
from dask_em.core.executor import serial_executor
from dask_em.errors import StoppedError
from dask_em.runtime import JobControl, as_job

SHARED = np.arange(1000.0)
NUMBERS = [3, 1, 4, 1, 5, 9, 2, 6]


def scaled(shared: np.ndarray, number: int) -> tuple[float, int]:
    return float(shared.sum() * number), os.getpid()


def products(each: Any, advance: Callable[[int], None] | None = None) -> tuple[list[float], set]:
    """The results, and the processes that computed them."""
    values, processes = zip(*each.map(scaled, NUMBERS, advance), strict=True)
    return list(values), set(processes)


EXPECTED = [SHARED.sum() * number for number in NUMBERS]


def test_one_after_the_other() -> None:
    told: list[int] = []
    with serial_executor(SHARED) as each:
        assert products(each, told.append) == (EXPECTED, {os.getpid()})
    assert told == [1] * len(NUMBERS)


def test_threads_of_this_process_where_there_is_no_cluster() -> None:
    told: list[int] = []
    with backend_in_force().executor(SHARED) as each:
        assert products(each, told.append) == (EXPECTED, {os.getpid()})
    assert sum(told) == len(NUMBERS)


def test_workers_where_there_are_some(client: Client) -> None:
    told: list[int] = []
    with backend_in_force().executor(SHARED) as each:
        values, processes = products(each, told.append)
        assert products(each)[0] == values == EXPECTED
    assert processes <= set(client.run(os.getpid).values())
    wait_until(lambda: sum(told) == len(NUMBERS))


def test_rows_in_memory_are_computed_here_though_there_are_workers(client: Client) -> None:
    with backend_in_force().executor(SHARED, in_process=True) as each:
        assert products(each) == (EXPECTED, {os.getpid()})


def test_what_is_too_large_is_not_sent(
    client: Client, monkeypatch: pytest.MonkeyPatch, tune: Tune
) -> None:
    tune(calls={"most_sent": SHARED.nbytes // 2})
    with backend_in_force().executor(SHARED) as each:
        assert products(each) == (EXPECTED, {os.getpid()})
    with backend_in_force().executor(2.0) as each:
        found = each.map(np.multiply, [SHARED])
        assert np.array_equal(found[0], 2 * SHARED)


def held(dask_worker: Any) -> list[str]:
    return [str(key) for key in dask_worker.data if "em-" in str(key)]


def received(dask_worker: Any) -> list[str]:
    log = dask_worker.transfer_incoming_log
    return [str(key) for one in log for key in one["keys"] if "em-shared" in str(key)]


@pytest.fixture
def copies_stay(client: Client) -> Iterator[None]:
    """Let no copy be dropped between calls, as the scheduler does every two seconds."""
    client.amm.stop()
    yield
    client.amm.start()


@pytest.mark.usefixtures("copies_stay")
def test_what_is_shared_is_sent_once_and_forgotten(client: Client) -> None:
    before = client.run(received)
    with backend_in_force().executor(SHARED) as each:
        for _ in range(3):
            products(each)
        assert any("em-shared" in key for keys in client.run(held).values() for key in keys)
    after = client.run(received)
    assert all(len(after[worker]) - len(before[worker]) <= 1 for worker in after)
    wait_until(lambda: not any(client.run(held).values()))


def failing(shared: Any, number: int) -> int:
    raise ValueError(f"{number} is none")


def test_an_error_is_that_of_the_function(client: Client) -> None:
    with backend_in_force().executor(SHARED) as each, pytest.raises(ValueError, match="3 is none"):
        each.map(failing, [3])
    wait_until(lambda: not any(client.run(held).values()))


def waiting(shared: Path, number: int) -> int:
    wait_until(lambda: (shared / "go").exists())
    return number


def test_a_stop_ends_the_waiting(client: Client, tmp_path: Path) -> None:
    run = JobControl()
    timer = threading.Timer(0.5, run.request_stop, ["enough"])
    timer.start()
    with (
        as_job(run),
        backend_in_force().executor(tmp_path) as each,
        pytest.raises(StoppedError, match="enough"),
    ):
        each.map(waiting, [1, 2, 3])
    (tmp_path / "go").touch()
    wait_until(lambda: not any(client.run(held).values()))


def dying(shared: Path, number: int) -> int:
    """Ends its process in the first call of all."""
    try:
        (shared / "died").touch(exist_ok=False)
    except FileExistsError:
        return 2 * number
    os.kill(os.getpid(), signal.SIGKILL)
    return -1


def test_a_lost_worker_costs_nothing_but_time(tmp_path: Path) -> None:
    told: list[int] = []
    with (
        start_cluster(1) as cluster,
        Client(cluster) as client,
        backend_in_force().executor(tmp_path) as each,
    ):
        before = client.run(os.getpid)
        assert each.map(dying, NUMBERS, told.append) == [2 * number for number in NUMBERS]
        wait_until(lambda: sum(told) == len(NUMBERS))
        assert set(client.run(os.getpid).values()).isdisjoint(before.values())
