"""Fits and answers inside tasks of a worker of one thread: they end, with the bits of outside."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client, Future, get_client, get_worker, secede, worker_client
from helpers import HANG, SMALL_READS, blobs, digest, start_cluster, wait_until, write_zarr
from sklearn.exceptions import ConvergenceWarning

from dask_em import GaussianMixture, select
from dask_em.backends.dask.scheduler import client_in_force, seceded
from dask_em.core.tuning import use_tuning
from dask_em.runtime import JobControl, as_job

OPTIONS: dict[str, Any] = {"random_state": 0, "sample_size": 200, "init_params": "k-means++"}


@pytest.fixture(scope="module", params=["process", "thread"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """One worker of one thread, in a process of its own or in this one."""
    own = request.param == "process"
    with start_cluster(1, processes=own) as cluster, Client(cluster, set_as_default=False) as found:
        yield found


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("tiles")
    paths = [str(folder / f"tile{i}.zarr") for i in range(5)]
    for i, path in enumerate(paths):
        write_zarr(path, blobs(1603, 2, 3, seed=i, apart=9.0)[0], 401)
    return paths


@pytest.fixture(scope="module")
def model(tiles: list[str]) -> GaussianMixture:
    with dask.config.set(scheduler="threads"):
        return fitted(tiles[0])


def fitted(rows: Any, **options: Any) -> GaussianMixture:
    with use_tuning(SMALL_READS):
        return GaussianMixture(3, **{**OPTIONS, **options}).fit(rows)


def fit(path: str) -> str:
    return digest(fitted(path))


def fit_of_a_graph(path: str) -> str:
    return digest(fitted(da.from_zarr(path) + 0))


def fit_of_rows_in_memory(path: str) -> str:
    return digest(fitted(zarr.open_array(path)[:]))


def fit_with_a_checkpoint(path: str) -> str:
    return digest(fitted(path, checkpoint=f"{path}.{threading.get_native_id()}.checkpoint"))


def choice(path: str) -> str:
    with use_tuning(SMALL_READS):
        return digest(select(path, [2, 3], **OPTIONS).best)


def score(path: str, model: GaussianMixture) -> tuple[float, float]:
    with use_tuning(SMALL_READS):
        return model.score(path), model.bic(path)


def labels(path: str, model: GaussianMixture) -> bytes:
    with use_tuning(SMALL_READS):
        return np.asarray(model.predict(path).compute()).tobytes()


FITS = [fit, fit_of_a_graph, fit_of_rows_in_memory, fit_with_a_checkpoint, choice]


def here(work: Callable[..., Any], *args: Any) -> Any:
    """What the same work finds outside of any task, without a cluster."""
    with dask.config.set(scheduler="threads"):
        return work(*args)


@pytest.mark.parametrize("work", FITS, ids=lambda work: work.__name__)
def test_a_fit_in_a_task(client: Client, tiles: list[str], work: Callable[[str], str]) -> None:
    found = client.submit(work, tiles[0], pure=False).result(timeout=HANG)
    assert found == here(work, tiles[0])


@pytest.mark.parametrize("work", [score, labels], ids=lambda work: work.__name__)
def test_an_answer_in_a_task(
    client: Client, tiles: list[str], model: GaussianMixture, work: Callable[..., Any]
) -> None:
    found = client.submit(work, tiles[0], model, pure=False).result(timeout=HANG)
    assert found == here(work, tiles[0], model)


def test_more_fits_at_once_than_threads(client: Client, tiles: list[str]) -> None:
    """One model a tile, as `dask.delayed` is used for it."""
    with client.as_current():
        found = client.gather(client.compute([dask.delayed(fit)(path) for path in tiles]))
    assert found == [here(fit, path) for path in tiles]


def by_other_tasks(paths: list[str]) -> list[str]:
    with worker_client() as inner:
        return inner.gather(inner.map(fit, paths, pure=False))


def by_delayed(paths: list[str]) -> list[str]:
    return list(dask.compute(*[dask.delayed(fit, pure=False)(path) for path in paths]))


def beside_a_client(paths: list[str]) -> list[str]:
    with worker_client():
        return [fit(path) for path in paths]


def when_seceded(paths: list[str]) -> list[str]:
    secede()
    return [fit(path) for path in paths]


def by_threads(paths: list[str]) -> list[str]:
    get_client()
    with ThreadPoolExecutor(2) as pool:
        return [call.result() for call in [pool.submit(copy_context().run, fit, p) for p in paths]]


async def by_a_thread_of_a_coroutine(paths: list[str]) -> list[str]:
    return [await asyncio.to_thread(fit, path) for path in paths]


NESTED = [
    by_other_tasks,
    by_delayed,
    beside_a_client,
    when_seceded,
    by_threads,
    by_a_thread_of_a_coroutine,
]


@pytest.mark.parametrize("work", NESTED, ids=lambda work: work.__name__)
def test_fits_within_what_a_task_started(
    client: Client, tiles: list[str], work: Callable[..., Any]
) -> None:
    found = client.submit(work, tiles[:3], pure=False).result(timeout=HANG)
    assert found == [here(fit, path) for path in tiles[:3]]


def by_bare_threads(paths: list[str]) -> list[str]:
    """Without a context: these threads know nothing of the task."""
    get_client()
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(fit, paths))


def test_fits_in_bare_threads_of_a_task(tiles: list[str]) -> None:
    with start_cluster(1) as cluster, Client(cluster, set_as_default=False) as client:
        found = client.submit(by_bare_threads, tiles[:2]).result(timeout=HANG)
    assert found == [here(fit, path) for path in tiles[:2]]


def places(path: str) -> list[bool]:
    """Whether this thread is in the worker's pool: before a fit, in its passes, after it."""
    mine, pool = threading.current_thread(), get_worker().executors["default"]
    found = [mine in pool._threads]
    fitted(path, callbacks=[lambda state: found.append(mine in pool._threads)])
    return [*found, mine in pool._threads]


def test_a_fit_computes_in_its_place_and_waits_out_of_it(client: Client, tiles: list[str]) -> None:
    found = client.submit(places, tiles[0], pure=False).result(timeout=HANG)
    # Between passes, too: what is computed there takes a processor.
    assert len(found) > 3
    assert all(found)


def occupy(go: str) -> None:
    wait_until(lambda: Path(go).exists())


def out_of_time(path: str, go: str) -> tuple[str, int, bool]:
    """Fit where another task takes the worker's only place after the first pass."""
    occupied: list[Future] = []

    def occupy_once(state: Any) -> None:
        if not occupied:
            occupied.append(get_client().submit(occupy, go, pure=False))

    found = fitted(path, max_time=1.0, tol=0.0, callbacks=[occupy_once])
    return found.status_.name, found.n_iter_, occupied[0].done()


def test_time_is_counted_in_a_task(client: Client, tiles: list[str], tmp_path: Path) -> None:
    go = tmp_path / "go"
    waiting = client.submit(out_of_time, tiles[0], str(go), pure=False)
    try:
        with warnings.catch_warnings():
            # In this process, it is a warning here.
            warnings.simplefilter("ignore", ConvergenceWarning)
            assert waiting.result(timeout=HANG) == ("OUT_OF_TIME", 1, False)
    finally:
        go.touch()
    # And the worker goes on as before.
    assert client.submit(fit, tiles[1], pure=False).result(timeout=HANG) == here(fit, tiles[1])


def test_outside_of_a_task_nothing_secedes() -> None:
    with seceded(), seceded():
        assert client_in_force() is None
    with as_job(JobControl(deadline=0.0)), seceded():
        pass


def test_work_of_a_pool_of_threads_stays_outside_of_tasks(client: Client, tiles: list[str]) -> None:
    """Threads of whoever has the client use it."""
    with client.as_current(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(copy_context().run, client_in_force).result() is client
