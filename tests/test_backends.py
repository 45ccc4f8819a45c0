"""Backends: the same bits whoever computes, whoever dies, and no rows on the driver."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client
from helpers import (
    SmallReads,
    assert_sums_close,
    blobs,
    digest,
    kill,
    leaves,
    mixture_of,
    precisions_like,
    serial_states,
    start_cluster,
    wait_until,
    write_zarr,
)
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info

from dask_em import GaussianMixture
from dask_em.backends import dask as dask_backend
from dask_em.backends.blas import one_blas_thread
from dask_em.backends.dask import DaskBackend
from dask_em.backends.serial import SerialBackend
from dask_em.errors import DataError
from dask_em.sources import ArraySource, as_source, ranges
from dask_em.statistics import add_tree

pytestmark = pytest.mark.usefixtures("many_chunks")

N, D, K = 5003, 4, 3
X, _, MEANS = blobs(N, D, K, seed=3, apart=1.0)


@pytest.fixture
def stored(tmp_path) -> zarr.Array:
    return write_zarr(tmp_path / "x.zarr", X, 101)


def with_graph(stored: zarr.Array) -> da.Array:
    """The same rows under a graph of their own, in uneven blocks."""
    return da.from_zarr(stored, chunks=((1500, 3, 2000, 1500), (D,))) + 0


def fit(rows: Any, **options: Any) -> GaussianMixture:
    """Four passes, from a sample of the rows."""
    options = {"random_state": 0, "sample_size": 300, "tol": 0, "max_iter": 4, **options}
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        return GaussianMixture(K, **options).fit(rows)


@contextmanager
def workers(n: int) -> Iterator[tuple[Any, Client]]:
    with start_cluster(n) as cluster, Client(cluster, set_as_default=False) as client:
        client.register_plugin(SmallReads())
        with client.as_current():
            yield cluster, client


def test_the_bits_are_the_same_on_every_scheduler(stored: zarr.Array, client: Client) -> None:
    for rows in (stored, with_graph(stored)):
        digests = {digest(fit(rows))}
        for scheduler in ("synchronous", "threads"):
            with dask.config.set(scheduler=scheduler):
                digests.add(digest(fit(rows)))
        assert len(digests) == 1


@pytest.mark.parametrize("n", [1, 3])
def test_the_bits_do_not_depend_on_the_number_of_workers(n: int, stored: zarr.Array) -> None:
    with dask.config.set(scheduler="threads"):
        expected = [digest(fit(rows)) for rows in (stored, with_graph(stored))]
    with workers(n):
        assert [digest(fit(rows)) for rows in (stored, with_graph(stored))] == expected


def test_the_serial_backend_gives_the_same_bits(
    kind: str, stored: zarr.Array, client: Client
) -> None:
    source = as_source(stored)
    mixture = mixture_of(kind, MEANS, precisions_like(kind, 1.0, K, D), X)
    for state in serial_states(source, mixture, max_iter=2):
        again = DaskBackend().map_reduce(source, state.mixture)
        for a, b in zip(leaves(again), leaves(state.statistics), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_bits_survive_the_death_of_a_worker(stored: zarr.Array) -> None:
    for rows in (stored, with_graph(stored)):
        with dask.config.set(scheduler="threads"):
            expected = fit(rows)
        killed = []
        with workers(2) as (cluster, client):

            def kill_once(state: Any, cluster: Any = cluster, killed: list[int] = killed) -> None:
                if state.n_iter == 2 and not killed:
                    killed.append(kill(cluster))

            survived = fit(rows, callbacks=[kill_once])
            assert killed
            wait_until(lambda client=client: len(client.scheduler_info()["workers"]) == 2)
            assert killed[0] not in client.run(os.getpid).values()
        assert survived.n_iter_ == expected.n_iter_ == 4
        assert digest(survived) == digest(expected)


def test_nothing_is_counted_twice_when_a_worker_dies_in_a_pass(stored: zarr.Array) -> None:
    """The kill comes when the first range of the pass is done."""
    source = as_source(stored)
    mixture = mixture_of("full", MEANS, precisions_like("full", 1.0, K, D), X)
    expected = SerialBackend().map_reduce(source, mixture)
    killed: list[int] = []
    with workers(2) as (cluster, _):

        def advance(n_rows: int) -> None:
            if not killed:
                killed.append(kill(cluster))

        actual = DaskBackend().map_reduce(source, mixture, advance)
        wait_until(lambda: bool(killed))
    assert actual.n_rows == N
    for a, b in zip(leaves(actual), leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_total_is_the_sum_of_the_ranges(stored: zarr.Array, synchronous: None) -> None:
    source = as_source(stored)
    mixture = mixture_of("full", MEANS, precisions_like("full", 1.0, K, D), X)
    total = DaskBackend().map_reduce(source, mixture)
    folds = []
    for part in ranges(source):
        fold = mixture.fold()
        for chunk in part:
            fold.update(chunk, X[source.bounds[chunk] : source.bounds[chunk + 1]], None)
        folds.append(fold.result())
    assert len(folds) == 16
    assert_sums_close(total, add_tree(folds), rtol=0)


def has_row_axis(value: Any) -> bool:
    """Whether a result holds an array as long as a chunk, a block, or the data."""
    return any(leaf.ndim and max(leaf.shape) >= 100 for leaf in leaves(value))


def test_no_array_of_rows_reaches_the_driver(
    kind: str, stored: zarr.Array, monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    returned, fetched = [], []
    run, gather = dask_backend._run, Client._gather

    def spy_run(*args: Any) -> Any:
        returned.append(run(*args))
        return returned[-1]

    async def spy_gather(self: Client, futures: Any, **options: Any) -> Any:
        fetched.extend(future.key[0] for future in futures)
        return await gather(self, futures, **options)

    monkeypatch.setattr(dask_backend, "_run", spy_run)
    monkeypatch.setattr(Client, "_gather", spy_gather)
    fit(stored, covariance_type=kind, sample_size=50, max_iter=2)
    fit(with_graph(stored), covariance_type=kind, sample_size=50, max_iter=2)
    assert len(returned) == len(fetched) == 6
    assert all(key.startswith("em-sum") for key in fetched)
    assert not any(has_row_axis(value) for value in returned)


def test_workers_hold_nothing_after_the_fit(stored: zarr.Array, client: Client) -> None:
    fit(stored, max_iter=2)
    fit(with_graph(stored), max_iter=2)

    def held(dask_worker: Any) -> list[str]:
        return [str(key) for key in dask_worker.data]

    wait_until(lambda: not any(client.run(held).values()))
    wait_until(
        lambda: not client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
    )


def test_a_pass_costs_as_many_tasks_however_many_chunks(tmp_path, synchronous: None) -> None:
    def tasks(chunk_rows: int) -> int:
        source = as_source(write_zarr(tmp_path / f"{chunk_rows}.zarr", X, chunk_rows))
        graph: dict[Any, Any] = {}
        leaves, _ = dask_backend._range_leaves(graph, source, ("params", 0), "name")
        return len(leaves)

    assert tasks(25) == tasks(250) == 16


def test_a_pass_advances_by_all_rows(stored: zarr.Array, client: Client) -> None:
    mixture = mixture_of("full", MEANS, precisions_like("full", 1.0, K, D), X)
    for rows in (stored, with_graph(stored), X):
        for scheduler in ("synchronous", "threads", "dask.distributed"):
            counted: list[int] = []
            with dask.config.set(scheduler=scheduler):
                DaskBackend().map_reduce(as_source(rows), mixture, counted.append)
                wait_until(lambda counted=counted: sum(counted) == N)


def test_rows_in_memory_stay_in_this_process(client: Client) -> None:
    seen = []

    class Spy(ArraySource):
        def read(self, chunk: int) -> Any:
            seen.append(os.getpid())
            return super().read(chunk)

        def __reduce__(self) -> Any:
            raise AssertionError("the rows were sent away")

    mixture = mixture_of("full", MEANS, precisions_like("full", 1.0, K, D), X)
    total = DaskBackend().map_reduce(Spy(X), mixture)
    assert total.n_rows == N
    assert set(seen) == {os.getpid()}


def test_an_error_in_a_task_is_the_error_of_the_pass(client: Client, tmp_path) -> None:
    stored = write_zarr(tmp_path / "x.zarr", X, 101, compressors=None)
    chunk = tmp_path / "x.zarr" / "c" / "7" / "0"
    chunk.write_bytes(b"short")
    with pytest.raises(DataError, match="chunk 7"):
        GaussianMixture(K).fit(stored)


def test_blas_has_one_thread_while_anyone_computes() -> None:
    def threads() -> set[int]:
        return {p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"}

    before = threads()
    with one_blas_thread():
        with one_blas_thread():
            assert threads() == {1}
        assert threads() == {1}
    assert threads() == before
