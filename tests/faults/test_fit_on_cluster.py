"""A fit on a cluster that is harmed: the same bits, or code 75 and a checkpoint that goes on.

python tests/faults/all.py test_fit_on_cluster.py
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from chaos import Job, job, points, spread, tell, twice_done
from clusters import Cluster, cluster
from helpers import HANG, digest, wait_until
from hosts import Host, network

from dask_em import load

pytestmark = pytest.mark.faults

N_WORKERS = 3
FIT = ["-k", "4", "--algorithm", "em", "--tol", "0", "--max-iter", "12"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return points(tmp_path_factory.mktemp("data") / "points.zarr", 2_000_000, d=8, chunk=50_000)


@pytest.fixture(scope="module")
def bits(data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a fit on a LocalCluster that nobody disturbs."""
    with job(tmp_path_factory.mktemp("undisturbed") / "out", data, *FIT, "--workers", "1") as one:
        assert one.run() == 0, one.log.read_text()
        return digest(load(one.model))


@pytest.fixture
def fit(tmp_path: Path, data: Path) -> Iterator[Callable[..., Job]]:
    """Makes the job of this data on a scheduler."""
    made: list[Job] = []

    def make(scheduler: str, *more: object, **options: Any) -> Job:
        made.append(Job(tmp_path / "out", data, *FIT, "--scheduler", scheduler, *more, **options))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.end()


def harmed(one: Job, after_pass: int, harm: Callable[[], object]) -> float:
    """Do harm once that pass is over; seconds from then to the next finished pass."""
    one.wait_for(f"em pass {after_pass}:")
    began = time.time()
    harm()
    one.wait_for(f"em pass {after_pass + 1}:")
    first = one.first_pass_after(began)
    assert first is not None
    return first


def in_a_pass(one: Job) -> str:
    return f"{spread(one.seconds_of_passes())} s a pass"


def test_each_worker_is_killed_once(
    fit: Callable[..., Job], bits: str, tmp_path: Path, record_property: Any
) -> None:
    with cluster(tmp_path / "cluster", N_WORKERS) as there:
        one = fit(there.address)
        one.start()
        seconds = []
        for i in range(1, N_WORKERS + 1):
            before = there.registered(i)
            seconds.append(
                harmed(one, 3 * i - 1, lambda i=i: there.signal_worker(i, signal.SIGKILL))
            )
            wait_until(lambda i=i, before=before: there.registered(i) > before)
        assert one.wait() == 0, one.log.read_text()
        one.check_whole(bits)
        tell(
            record_property,
            "kill -9 of each worker once during one fit",
            f"{N_WORKERS} workers with nannies, one after another",
            f"the fit went on and ended with 0 ({in_a_pass(one)})",
            spread(seconds),
            "what the worker held of the pass",
            "yes",
        )


def test_a_worker_is_killed_within_a_pass_over_many_columns(
    tmp_path: Path, record_property: Any
) -> None:
    data = points(tmp_path / "wide.zarr", 60_000, d=500, chunk=2_000)
    wide = [
        "-k", "4", "--family", "factor", "--n-factors", "3", "--algorithm", "em", "--tol", "0",
        "--max-iter", "8",
    ]  # fmt: skip
    with job(tmp_path / "undisturbed", data, *wide, "--workers", "1") as one:
        assert one.run() == 0, one.log.read_text()
        bits = digest(load(one.model))
    with (
        cluster(tmp_path / "cluster", 2) as there,
        job(tmp_path / "out", data, *wide, "--scheduler", there.address) as one,
    ):
        one.start()
        seconds = []
        for i in (1, 2):
            before = there.registered(i)
            seconds.append(
                harmed(one, 3 * i - 1, lambda i=i: there.signal_worker(i, signal.SIGKILL))
            )
            wait_until(lambda i=i, before=before: there.registered(i) > before)
        assert one.wait() == 0, one.log.read_text()
        one.check_whole(bits)
        tell(
            record_property,
            "kill -9 of each worker once during one fit of factor analyzers, d = 500",
            "2 workers with nannies, one after another",
            f"the fit went on and ended with 0 ({in_a_pass(one)})",
            spread(seconds),
            "what the worker held of the pass",
            "yes",
        )


def test_all_workers_are_killed_and_started_again(
    fit: Callable[..., Job], bits: str, tmp_path: Path, record_property: Any
) -> None:
    with cluster(tmp_path / "cluster", N_WORKERS) as there:
        one = fit(there.address)
        one.start()

        def harm() -> None:
            for i in range(1, N_WORKERS + 1):
                there.signal_worker(i, signal.SIGKILL)

        seconds = harmed(one, 4, harm)
        assert one.wait() == 0, one.log.read_text()
        one.check_whole(bits)
        tell(
            record_property,
            "kill -9 of all workers at once",
            f"{N_WORKERS} workers, whose nannies start them again",
            f"the fit went on and ended with 0 ({in_a_pass(one)})",
            f"{seconds:.1f}",
            "the pass under way",
            "yes",
        )


def stops_and_goes_on(one: Job, bits: str, harm: Callable[[], None]) -> tuple:
    """Harm that cannot be cured: code 75 in time, and what the rerun did after `cure`."""
    one.wait_for("em pass 4:")
    began = time.monotonic()
    harm()
    assert one.wait() == 75, one.log.read_text()
    stopped = time.monotonic() - began
    one.check_resumable()
    before = one.passes()
    return stopped, before, one.log.read_text().splitlines()[-2]


def goes_on(one: Job, bits: str, before: list[tuple[str, int]]) -> tuple[float, int]:
    """Run the same command again: seconds to its first pass, and passes that it made again."""
    began = time.time()
    assert one.run() == 0, one.log.read_text()
    one.check_whole(bits)
    first = one.first_pass_after(began)
    assert first is not None
    lost = twice_done(before, one.passes())
    assert lost <= 1
    return first, lost


def test_all_workers_are_gone_for_good(
    fit: Callable[..., Job], bits: str, tmp_path: Path, record_property: Any
) -> None:
    soon = {"DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "5s"}
    with cluster(tmp_path / "cluster", N_WORKERS, nanny=False, **soon) as there:
        one = fit(there.address)
        one.start()

        def harm() -> None:
            for i in range(1, N_WORKERS + 1):
                there.end_worker(i)

        stopped, before, why = stops_and_goes_on(one, bits, harm)
        assert "no worker for 5 s: start workers again" in why
        for i in range(1, N_WORKERS + 1):
            there.start_worker(i)
        first, lost = goes_on(one, bits, before)
        tell(
            record_property,
            "kill -9 of all workers, for good",
            f"{N_WORKERS} workers without nannies; no-workers-timeout 5 s",
            f"code 75 after {stopped:.1f} s, a good checkpoint; same command on new workers: 0",
            f"{first:.1f} from the rerun to its first pass",
            f"{lost} finished passes, and the one under way",
            "yes",
        )


def test_the_scheduler_is_killed_and_comes_back(
    fit: Callable[..., Job], bits: str, tmp_path: Path, record_property: Any
) -> None:
    with cluster(tmp_path / "cluster", 2, nanny=False) as there:
        one = fit(there.address)
        one.start()

        def harm() -> None:
            there.kill_scheduler()
            there.start_scheduler()
            for i in (1, 2):
                # Workers that lose their scheduler end by themselves.
                there.running[f"worker{i}"].wait(HANG)
                there.start_worker(i)

        seconds = harmed(one, 4, harm)
        assert one.wait() == 0, one.log.read_text()
        one.check_whole(bits)
        tell(
            record_property,
            "kill -9 of the scheduler, which is started again",
            "2 workers, started again once they have ended",
            f"the pass was made again; the fit ended with 0 ({in_a_pass(one)})",
            f"{seconds:.1f}, of which starting them took the most",
            "the pass under way",
            "yes",
        )


def test_the_scheduler_is_gone_for_good(
    fit: Callable[..., Job], bits: str, tmp_path: Path, record_property: Any
) -> None:
    with cluster(tmp_path / "cluster", 2, nanny=False) as there:
        one = fit(there.address)
        one.start()
        stopped, before, why = stops_and_goes_on(one, bits, there.kill_scheduler)
        assert "the Dask scheduler was lost and did not come back: start it again" in why
        for i in (1, 2):
            there.running[f"worker{i}"].wait(HANG)
        there.start_scheduler()
        for i in (1, 2):
            there.start_worker(i)
        first, lost = goes_on(one, bits, before)
        tell(
            record_property,
            "kill -9 of the scheduler, for good",
            "2 workers, which end by themselves",
            f"code 75 after {stopped:.1f} s, a good checkpoint; same command later: 0",
            f"{first:.1f} from the rerun to its first pass",
            f"{lost} finished passes, and the one under way",
            "yes",
        )


def test_a_worker_hangs(
    fit: Callable[..., Job], bits: str, tmp_path: Path, record_property: Any
) -> None:
    with cluster(tmp_path / "cluster", 2) as there:
        one = fit(there.address)
        one.start()
        stopped: list[psutil.Process] = []
        try:
            seconds = harmed(one, 4, lambda: stopped.extend(there.signal_worker(1, signal.SIGSTOP)))
            assert one.wait() == 0, one.log.read_text()
        finally:
            for process in stopped:
                with suppress(psutil.Error):
                    process.send_signal(signal.SIGCONT)
        one.check_whole(bits)
        tell(
            record_property,
            "SIGSTOP of a worker",
            "one of 2, never continued; worker-ttl 15 s (60 s where we start the cluster)",
            f"it was dropped and its part computed again; 0 ({in_a_pass(one)})",
            f"{seconds:.1f}",
            "what the worker held of the pass",
            "yes",
        )


# -- partitions ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    """A scheduler's, two workers', and one to start jobs from."""
    with network(4) as hosts:
        yield hosts


@pytest.fixture
def apart(hosts: list[Host], tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path / "cluster", 2, hosts=hosts, nanny=False) as there:
        yield there


def here(host: Host) -> dict[str, Any]:
    """How a job runs on that host."""
    timeouts = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s"}
    return {"before": host.command(), **timeouts}


def test_a_worker_is_cut_off(
    apart: Cluster, hosts: list[Host], fit: Callable[..., Job], bits: str, record_property: Any
) -> None:
    one = fit(apart.address, **here(hosts[-1]))
    one.start()
    try:
        seconds = harmed(one, 4, hosts[1].cut_off)
        assert one.wait() == 0, one.log.read_text()
    finally:
        hosts[1].heal()
    one.check_whole(bits)
    tell(
        record_property,
        "partition: one of 2 workers",
        "network namespaces, nftables drops all to and from it; comm.timeouts.tcp 12 s",
        f"its part was computed by the other; 0 ({in_a_pass(one)})",
        f"{seconds:.1f}",
        "what the worker held of the pass",
        "yes",
    )


@pytest.mark.parametrize("who", ["scheduler", "job"])
def test_the_scheduler_or_the_job_is_cut_off(
    who: str,
    apart: Cluster,
    hosts: list[Host],
    fit: Callable[..., Job],
    bits: str,
    record_property: Any,
) -> None:
    victim = {"scheduler": hosts[0], "job": hosts[-1]}[who]
    one = fit(apart.address, **here(hosts[-1]))
    one.start()
    try:
        stopped, before, _ = stops_and_goes_on(one, bits, victim.cut_off)
    finally:
        victim.heal()
    if who == "scheduler":
        # Workers that were cut off from it end, and somebody starts them again.
        for i in (1, 2):
            apart.running[f"worker{i}"].wait(HANG)
            apart.start_worker(i)
    first, lost = goes_on(one, bits, before)
    tell(
        record_property,
        f"partition: the {who}",
        "network namespaces, nftables drops all to and from it; comm.timeouts.tcp 12 s",
        f"code 75 after {stopped:.1f} s, a good checkpoint; same command after healing: 0",
        f"{first:.1f} from the rerun to its first pass",
        f"{lost} finished passes, and the one under way",
        "yes",
    )
