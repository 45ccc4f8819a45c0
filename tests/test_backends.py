"""Backends: the same bits whoever computes, whoever dies, and no rows on the driver."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from dask.sizeof import sizeof
from distributed import Client, LocalCluster
from helpers import (
    HANG,
    SmallReads,
    Tune,
    add_up,
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

from dask_em import GaussianMixture, select
from dask_em.backends.blas import one_blas_thread
from dask_em.backends.dask import backend as dask_backend
from dask_em.backends.dask import client as cluster
from dask_em.backends.dask.backend import DaskBackend
from dask_em.backends.dask.client import as_it_is, producer
from dask_em.backends.serial import SerialBackend
from dask_em.core.additive import Additive
from dask_em.core.mixture import Mixture
from dask_em.core.protocols import Fold, Pass
from dask_em.core.reduction import add_all, add_tree, fan_in, tree_levels
from dask_em.core.tuning import tuning, use_tuning
from dask_em.data.memory import ArraySource
from dask_em.data.open import as_source
from dask_em.data.zarr.source import ZarrSource
from dask_em.errors import DataError
from dask_em.fitting.survey import Survey

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


@dataclass
class Mortal:
    """Workers that may be killed and then come back, out of the way of other tests."""

    cluster: LocalCluster
    client: Client

    def kill(self) -> int:
        """SIGKILL one worker process."""
        return kill(self.cluster)

    def scale(self, n: int) -> None:
        self.cluster.scale(n)
        self._wait_for(n)

    def wait_without(self, pid: int) -> None:
        """Until another process has taken the place of a killed one."""
        wait_until(lambda: pid not in [nanny.pid for nanny in self.cluster.workers.values()])
        self._wait_for(2)
        assert pid not in self.client.run(os.getpid).values()

    def _wait_for(self, n: int) -> None:
        wait_until(lambda: len(self.client.scheduler_info()["workers"]) == n)


@pytest.fixture(scope="module")
def mortals() -> Iterator[Mortal]:
    with start_cluster(1) as cluster, Client(cluster, set_as_default=False) as client:
        client.register_plugin(SmallReads())
        yield Mortal(cluster, client)


@pytest.fixture
def mortal(mortals: Mortal) -> Iterator[Mortal]:
    """Two workers as the Dask scheduler in force."""
    mortals.scale(2)
    with mortals.client.as_current():
        yield mortals


def test_the_bits_are_the_same_on_every_scheduler(stored: zarr.Array, client: Client) -> None:
    for rows in (stored, with_graph(stored)):
        digests = {digest(fit(rows))}
        for scheduler in ("synchronous", "threads"):
            with dask.config.set(scheduler=scheduler):
                digests.add(digest(fit(rows)))
        assert len(digests) == 1


def test_a_relative_path_leads_workers_in_other_folders_to_the_data(
    stored: zarr.Array, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path) not in client.run(os.getcwd).values()
    assert digest(fit("x.zarr")) == digest(fit(stored))


def test_the_bits_do_not_depend_on_the_number_of_workers(
    stored: zarr.Array, mortals: Mortal, monkeypatch: pytest.MonkeyPatch, tune: Tune
) -> None:
    source, mixture = as_source(stored), some_mixture()

    def bits() -> tuple[Any, ...]:
        fits = [digest(fit(rows)) for rows in (stored, with_graph(stored))]
        # Of several models, each with its steps on the sample.
        options: dict[str, Any] = {"sample_size": 200, "n_init": 2, "random_state": 0}
        fits.append(digest(select(stored, [2, 3, 4], **options).best))
        # And of a tree of pairs, as sums that are large are added.
        with use_tuning(tuning().with_changes(reduction={"node_bytes": 1})):
            sums = DaskBackend().map_reduce(source, mixture)
        return fits, [leaf.tobytes() for leaf in leaves(sums)]

    with dask.config.set(scheduler="threads"):
        expected = bits()
    for n in (1, 3):
        mortals.scale(n)
        with mortals.client.as_current():
            assert bits() == expected


def test_the_serial_backend_gives_the_same_bits(
    kind: str, stored: zarr.Array, client: Client
) -> None:
    source = as_source(stored)
    mixture = mixture_of(kind, MEANS, precisions_like(kind, 1.0, K, D), X)
    for state in serial_states(source, mixture, max_iter=2):
        again = DaskBackend().map_reduce(source, state.mixture)
        for a, b in zip(leaves(again), leaves(state.statistics), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_bits_survive_the_death_of_a_worker(stored: zarr.Array, mortal: Mortal) -> None:
    for rows in (stored, with_graph(stored)):
        with dask.config.set(scheduler="threads"):
            expected = fit(rows)
        killed: list[int] = []

        def kill_once(state: Any, killed: list[int] = killed) -> None:
            if state.n_iter == 2 and not killed:
                killed.append(mortal.kill())

        survived = fit(rows, callbacks=[kill_once])
        assert killed
        mortal.wait_without(*killed)
        assert survived.n_iter_ == expected.n_iter_ == 4
        assert digest(survived) == digest(expected)


def test_nothing_is_counted_twice_when_a_worker_dies_in_a_pass(
    stored: zarr.Array, mortal: Mortal
) -> None:
    """The kill comes when the first range of the pass is done."""
    source = as_source(stored)
    mixture = mixture_of("full", MEANS, precisions_like("full", 1.0, K, D), X)
    expected = SerialBackend().map_reduce(source, mixture)
    killed: list[int] = []

    def advance(n_rows: int) -> None:
        if not killed:
            killed.append(mortal.kill())

    actual = DaskBackend().map_reduce(source, mixture, advance)
    wait_until(lambda: bool(killed))
    mortal.wait_without(*killed)
    assert actual.n_rows == N
    for a, b in zip(leaves(actual), leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_total_is_the_sum_of_the_ranges(stored: zarr.Array, synchronous: None) -> None:
    source = as_source(stored)
    assert isinstance(source, ZarrSource)
    mixture = mixture_of("full", MEANS, precisions_like("full", 1.0, K, D), X)
    total = DaskBackend().map_reduce(source, mixture)
    folds = []
    for part in source.ranges():
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
    returned: list[Any] = []
    fetched: list[Any] = []
    gather = Client._gather

    async def spy_gather(self: Client, futures: Any, **options: Any) -> Any:
        found = await gather(self, futures, **options)
        fetched.extend(future.key[0] for future in futures)
        returned.extend(found)
        return found

    monkeypatch.setattr(Client, "_gather", spy_gather)
    fit(stored, covariance_type=kind, sample_size=50, max_iter=2)
    fit(with_graph(stored), covariance_type=kind, sample_size=50, max_iter=2)
    passes = [key for key in fetched if key.startswith("em-sum")]
    assert len(passes) == 6
    assert all(key.startswith("em-call") for key in fetched if key not in passes)
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
        leaves, _ = dask_backend._range_leaves(graph, source, ("params", 0), "name", None)
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


def test_looking_after_a_pass_does_not_disturb_it(
    stored: zarr.Array, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetching a result takes longer than the time between two looks."""
    mixture = mixture_of("full", MEANS, precisions_like("full", 1.0, K, D), X)
    source = as_source(stored)
    expected = DaskBackend().map_reduce(source, mixture)
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 1e-4)
    for _ in range(20):
        assert_sums_close(DaskBackend().map_reduce(source, mixture), expected, 0)


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


def test_blas_is_held_to_one_thread_whichever_thread_asks() -> None:
    within: list[set[int]] = []

    def threads() -> set[int]:
        return {p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"}

    before, entered, leave = threads(), threading.Event(), threading.Event()

    def last_to_leave() -> None:
        with one_blas_thread():
            entered.set()
            assert leave.wait(HANG)
            within.append(threads())

    with one_blas_thread():
        thread = threading.Thread(target=last_to_leave)
        thread.start()
        assert entered.wait(HANG)
    leave.set()
    thread.join()
    assert threads() == before
    # And as the only one, when another thread set the limit before.
    thread = threading.Thread(target=last_to_leave)
    thread.start()
    thread.join()
    assert within == [{1}, {1}]
    assert threads() == before


IMPORTED_LATER = """
from threadpoolctl import threadpool_info
from dask_em.backends.blas import one_blas_thread
with one_blas_thread():
    pass
import scipy.linalg
with one_blas_thread():
    print({p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"})
"""


def test_blas_that_is_imported_later_is_held_too() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED_LATER],
        capture_output=True, text=True, check=True, timeout=HANG, env=environment,
    )  # fmt: skip
    assert done.stdout.strip() == "{1}"


# -- sums and parameters at size ---------------------------------------------------


def some_mixture(kind: str = "full") -> Mixture:
    return mixture_of(kind, MEANS, precisions_like(kind, 1.0, K, D), X)


def assert_same_bits(a: Any, b: Any) -> None:
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch, tune: Tune) -> None:
    """Sums count as large, so that a node of the tree adds two."""
    tune(reduction={"node_bytes": 1})


def test_a_node_adds_fewer_where_the_sums_are_large() -> None:
    assert [fan_in(nbytes) for nbytes in (0, 1, 8 * 2**20, 10 * 2**20, 22 * 2**20)] == [
        8,
        8,
        8,
        6,
        2,
    ]
    assert fan_in(2**40) == 2


def test_a_pass_knows_the_size_of_its_sums(kind: str) -> None:
    mixture = some_mixture(kind)
    sums = add_up(mixture, X)
    assert 0 <= sums.nbytes - mixture.result_bytes < 100  # numbers beside the arrays
    survey = Survey(seed=0, sample_size=50, n_features=D, n_rows=N)
    fold = survey.fold()
    fold.update(0, X, None)
    assert abs(fold.result().nbytes - survey.result_bytes) < 150
    # Schedulers and workers see the sums, not the header of the record.
    assert sizeof(sums) >= sums.nbytes


def test_a_tree_of_pairs_gives_the_same_bits_on_every_scheduler(
    pairs: None, stored: zarr.Array, client: Client
) -> None:
    mixture = some_mixture()
    assert fan_in(mixture.result_bytes) == 2
    expected = SerialBackend().map_reduce(as_source(stored), mixture)
    for rows in (stored, with_graph(stored)):
        totals = [DaskBackend().map_reduce(as_source(rows), mixture)]
        for scheduler in ("synchronous", "threads"):
            with dask.config.set(scheduler=scheduler):
                totals.append(DaskBackend().map_reduce(as_source(rows), mixture))
        if rows is stored:
            totals.append(expected)
        assert totals[0].n_rows == N
        for total in totals[1:]:
            assert_same_bits(total, totals[0])


@dataclass(frozen=True)
class Term:
    """A sum that remembers in which order it was added."""

    text: str

    def __add__(self, other: Term) -> Term:
        return Term(f"({self.text}+{other.text})")


@pytest.mark.parametrize("width", [2, 3, 8])
def test_a_stream_of_sums_is_added_by_the_same_tree(width: int) -> None:
    for n in range(1, 71):
        parts = [Term(str(i)) for i in range(n)]
        nodes = parts
        for level in tree_levels(n, width):
            nodes = [add_all([nodes[i] for i in group]) for group in level]
        assert add_tree(iter(parts), width) == nodes[0]
        assert nodes[0].text.count("+") == n - 1


def surveyed(rows: np.ndarray, index: int, weight: np.ndarray | None = None) -> Any:
    fold = Survey(seed=0, sample_size=50, n_features=D, n_rows=N).fold()
    fold.update(index, rows, weight)
    return fold.result()


def test_parts_stay_as_they_are_when_they_are_added() -> None:
    mixture = some_mixture()
    pieces = np.array_split(X, 9)
    # A part without weight hands on its neighbour's moments.
    surveys = [surveyed(rows, i, np.full(len(rows), float(i > 1))) for i, rows in enumerate(pieces)]
    for parts in ([add_up(mixture, rows) for rows in pieces], surveys):
        before = copy.deepcopy(parts)
        plain = parts[0]
        for part in parts[1:]:
            plain = plain + part
        total = add_all(parts)
        assert_same_bits(total, plain)
        for width in (2, 3, 8):
            add_tree(parts, width)
        for part, old in zip(parts, before, strict=True):
            assert_same_bits(part, old)
            for a in leaves(total):
                assert not any(np.shares_memory(a, b) for b in leaves(part))


@dataclass(frozen=True)
class Many(Additive):
    """Numbers enough to be seen, and a record inside the record."""

    numbers: np.ndarray
    inner: Any = 0


def test_adding_takes_one_record_of_memory_however_many_the_parts() -> None:
    parts = [Many(np.full(2**16, 1.0), Many(np.full(2**16, 2.0), 0)) for _ in range(8)]
    tracemalloc.start()
    try:
        total = add_all(parts)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total.inner.numbers[0] == 16.0
    assert parts[0].nbytes <= peak < 1.2 * parts[0].nbytes


class Counted(Pass["CountedSum"]):
    """A pass whose large sums are counted while anybody holds them."""

    result_bytes = 2**30

    def __init__(self) -> None:
        self.held: weakref.WeakSet[Any] = weakref.WeakSet()
        self.most = self.made = 0

    def __reduce__(self) -> Any:
        raise AssertionError("this pass stays in this process")

    def fold(self) -> CountedFold:
        return CountedFold(self)

    def note(self, sums: CountedSum) -> CountedSum:
        self.held.add(sums)
        self.most = max(self.most, len(self.held))
        return sums


class CountedSum:
    def __init__(self, work: Counted, n_rows: int) -> None:
        self.work, self.n_rows = work, n_rows

    def __add__(self, other: CountedSum) -> CountedSum:
        return self.work.note(CountedSum(self.work, self.n_rows + other.n_rows))


class CountedFold(Fold[CountedSum]):
    def __init__(self, work: Counted) -> None:
        self.work, self.n_rows = work, 0

    def update(self, index: int, rows: np.ndarray, sample_weight: np.ndarray | None) -> None:
        self.n_rows += len(rows)

    def result(self) -> CountedSum:
        self.work.made += 1
        return self.work.note(CountedSum(self.work, self.n_rows))


@pytest.mark.parametrize("scheduler", ["serial", "synchronous", "threads"])
def test_few_sums_are_held_at_a_time(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tune: Tune
) -> None:
    tune(reading={"bytes": 1})
    tune(reading={"fewest_ranges": 64})
    source, work = as_source(write_zarr(tmp_path / "x.zarr", X, N // 63)), Counted()
    with dask.config.set(
        scheduler="threads" if scheduler == "serial" else scheduler, num_workers=2
    ):
        backend = SerialBackend() if scheduler == "serial" else DaskBackend()
        assert backend.map_reduce(source, work).n_rows == N
    assert work.made == 64
    # One unfinished sum a level, the part in hand, and the sum that is being made;
    # another thread has a part in hand, its neighbour, and a sum being made too.
    assert work.most <= len(tree_levels(64, 2)) + 2 + 3 * (scheduler == "threads")


@dataclass(frozen=True)
class Meeting(Pass[Many]):
    """A pass with large parameters in which every worker waits for the other."""

    folder: Path
    parameters: np.ndarray = field(default_factory=lambda: np.ones(3 * 2**19))

    def fold(self) -> MeetingFold:
        return MeetingFold(self)


class MeetingFold(Fold[Many]):
    def __init__(self, work: Meeting) -> None:
        self.work = work

    def update(self, index: int, rows: np.ndarray, sample_weight: np.ndarray | None) -> None:
        (self.work.folder / str(os.getpid())).touch()
        wait_until(lambda: len(list(self.work.folder.iterdir())) == 2)

    def result(self) -> Many:
        return Many(self.work.parameters[:1])


def fetched_keys(dask_worker: Any) -> list[str]:
    return [str(key) for log in dask_worker.transfer_incoming_log for key in log["keys"]]


def test_parameters_are_sent_once_to_each_worker(
    stored: zarr.Array, client: Client, tmp_path: Path
) -> None:
    """And without a warning, which would be an error, though they are larger than graphs are."""
    folder = tmp_path / "here"
    folder.mkdir()
    before = client.run(fetched_keys)
    total = DaskBackend().map_reduce(as_source(stored), Meeting(folder))
    assert total.numbers.tolist() == [16.0]
    after = client.run(fetched_keys)
    new = {w: [k for k in after[w] if k not in before[w] and "em-params" in k] for w in after}
    # One worker holds them as its own task's result; the other has fetched them.
    assert sorted(len(keys) for keys in new.values()) == [0, 1]


def test_a_large_graph_of_the_users_own_is_still_warned_of(
    stored: zarr.Array, client: Client
) -> None:
    with dask.config.set({cluster.LARGE_GRAPH: "1B"}):
        with pytest.warns(UserWarning, match="large graph"):
            DaskBackend().map_reduce(as_source(stored), some_mixture())
        assert dask.config.get(cluster.LARGE_GRAPH) == "1B"


@pytest.mark.parametrize("known", [True, False])
def test_ranges_are_marked_as_tasks_that_any_idle_worker_is_given(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:

    if not known:
        # A Dask that knows no such mark.
        def unknown(*_: object, **options: object) -> None:
            raise TypeError(f"unexpected keyword argument {next(iter(options))!r}")

        monkeypatch.setattr("dask._task_spec.Task", unknown)
    held, key = ("held", 0), ("summed", 0)
    task = producer(key, lambda shared, chunks: (shared, chunks), [held], range(3))
    monkeypatch.undo()
    assert getattr(task, "data_producer", False) is known
    assert dask.get({held: (as_it_is, "X"), key: task}, key) == ("X", range(3))
