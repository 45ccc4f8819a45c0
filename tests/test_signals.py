"""Signals, locks and what a job says of itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from dask.utils import key_split
from distributed import Client, LocalCluster
from helpers import HANG, PATIENT, digest, read_until, wait_until, write_zarr
from sklearn.exceptions import ConvergenceWarning

from dask_em import GaussianMixture, load
from dask_em.backends.dask import recovery as faults
from dask_em.backends.dask.backend import DaskBackend
from dask_em.cli import signals
from dask_em.cli.main import main
from dask_em.cli.signals import stopped_by_signals
from dask_em.data.open import as_source
from dask_em.errors import LockedError, StoppedError, UsageError
from dask_em.fitting.survey import Survey
from dask_em.jobs import fit as fit_jobs
from dask_em.jobs.cluster import ClusterOptions, cluster_client
from dask_em.runtime import JobControl, as_job
from dask_em.storage import locks
from dask_em.storage.locks import lock_file, locked

LOCAL = ["--workers", "1", "--memory-limit", "1GiB"]


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    X = np.random.default_rng(0).normal(size=(200_000, 4))
    path = tmp_path_factory.mktemp("data") / "points.zarr"
    write_zarr(path, X, 10_000)
    return path


def start(points: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    command = [*PATIENT, "fit", str(points), "-k", "6", "-o", str(output)]
    command += ["--tol", "0", *LOCAL, *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def test_sigterm_keeps_the_work_and_names_the_command(points: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.npz"
    process = start(points, output, "--max-iter", "12")
    read_until(process, "em pass 3")

    code, error = fit_while_running(points, output)
    assert code == 73
    assert f"process {process.pid} on " in error

    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=HANG)
    assert process.returncode == 75, rest
    assert "interrupted by SIGTERM; what was done is kept in" in rest
    last = rest.splitlines()[-1]
    assert last.endswith(f"fit {points} -k 6 -o {output} --tol 0 {' '.join(LOCAL)} --max-iter 12")
    assert not lock_file(output).exists()

    again = start(points, output, "--max-iter", "12", "--log-json")
    _, log = again.communicate(timeout=HANG)
    assert again.returncode == 0, log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    (summary,) = [line for line in lines if line.get("summary")]
    assert summary["resumed_after_passes"] >= 4
    assert [line["number"] for line in lines if line.get("phase") == "em"][-1] == 12
    with dask.config.set(scheduler="threads"), pytest.warns(ConvergenceWarning):
        undisturbed = GaussianMixture(6, tol=0, max_iter=12, random_state=0).fit(str(points))
    assert digest(load(output)) == digest(undisturbed)


def fit_while_running(points: Path, output: Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["fit", str(points), "-k", "6", "-o", str(output)])
    return result.exit_code, result.stderr


@contextmanager
def deaf(leave_seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A job that never looks whether it is to stop."""
    code = f"""
import numpy as np
from dask_em.cli import signals
signals.LEAVE_SECONDS = {leave_seconds}
A = np.ones((2000, 2000))
with signals.stopped_by_signals("dask-em again"):
    print("ready", flush=True)
    while True:
        A @ A
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_second_signal_leaves_at_once() -> None:
    with deaf(leave_seconds=HANG) as process:
        process.send_signal(signal.SIGINT)
        assert process.poll() is None

        def ended() -> bool:
            process.send_signal(signal.SIGTERM)
            return process.poll() is not None

        wait_until(ended)
        _, error = process.communicate(timeout=HANG)
        assert process.returncode == 75
        assert error.splitlines()[-1] == "dask-em again"


def test_a_job_that_does_not_stop_leaves_after_some_seconds() -> None:
    assert signals.LEAVE_SECONDS < 10  # as README.md says
    with deaf(leave_seconds=0.5) as process:
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=HANG)
        assert process.returncode == 75
        assert error.splitlines()[-1] == "dask-em again"


@pytest.mark.parametrize(("seconds", "left"), [(60.0, 0), (0.0, 1)])
def test_sigterm_that_comes_twice_at_once_counts_once(
    seconds: float, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Slurm sends it when it preempts a job."""
    leaving: list[str] = []
    monkeypatch.setattr(signals, "_leave", leaving.append)
    monkeypatch.setattr(signals, "SAME_SECONDS", seconds)
    with stopped_by_signals("again") as run:
        signal.raise_signal(signal.SIGTERM)
        wait_until(lambda: run.stop_requested)
        signal.raise_signal(signal.SIGTERM)
    # What was sent is heard before the listener ends.
    assert len(leaving) == left


def test_a_signal_asks_the_run_and_handlers_are_put_back() -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with stopped_by_signals("") as run:
        signal.raise_signal(signal.SIGTERM)
        wait_until(lambda: run.stop_requested)
        with pytest.raises(StoppedError, match="interrupted by SIGTERM"):
            run.check()
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("where", ["synchronous", "threads", "client"])
def test_a_pass_is_abandoned(where: str, points: Path, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("client" if where == "client" else "synchronous")
    source, run = as_source(str(points)), JobControl()
    assert source.n_rows is not None
    told: list[int] = []

    def advance(n_rows: int) -> None:
        told.append(n_rows)
        run.request_stop("enough")

    def make_pass() -> None:
        DaskBackend().map_reduce(source, Survey(0, 50, 4, source.n_rows), advance)
        # It may have been over on a cluster before anybody looked.
        run.check()

    scheduler = {} if where == "client" else {"scheduler": where}
    with dask.config.set(scheduler), as_job(run), pytest.raises(StoppedError, match="enough"):
        make_pass()
    assert 0 < sum(told) <= source.n_rows


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    with locked(path):
        with pytest.raises(LockedError, match=f"process {os.getpid()} on "), locked(path):
            pass
        with locked(tmp_path / "other"):
            pass
    with locked(path):
        pass
    assert list(tmp_path.iterdir()) == []


def owned_by(path: Path, host: str, pid: int, age: float) -> None:
    file = lock_file(path)
    file.write_text(json.dumps({"id": "x", "host": host, "pid": pid, "since": "then"}))
    os.utime(file, (time.time() - age, time.time() - age))


def test_a_lock_of_another_machine_holds_while_it_is_touched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "m.npz"
    owned_by(path, "elsewhere", 1, 10)
    with pytest.raises(LockedError, match="process 1 on elsewhere, since then"), locked(path):
        pass
    owned_by(path, "elsewhere", 1, locks.STALE_SECONDS + 1)
    with caplog.at_level("WARNING", "dask_em"), locked(path):
        assert "taking over the lock" in caplog.text


def test_a_lock_of_a_process_that_is_gone_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    code = f"""
import os, pathlib
from dask_em.storage.locks import locked
with locked(pathlib.Path({str(path)!r})) as lock:
    lock.note(done="all")
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=HANG).returncode == -9
    assert lock_file(path).exists()
    with locked(path) as lock:
        assert lock.before == {"done": "all"}
    assert list(tmp_path.iterdir()) == []


def test_damaged_locks_are_nobodys(tmp_path: Path) -> None:
    for text in ("", "{", "[]", "null"):
        lock_file(tmp_path / "m").write_text(text)
        with locked(tmp_path / "m"):
            pass


def test_who_lost_the_lock_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.01)
    run = JobControl()
    with as_job(run), locked(tmp_path / "m") as lock:
        owned_by(tmp_path / "m", "elsewhere", 1, 0)
        wait_until(lambda: run.stop_requested)
        with pytest.raises(LockedError, match="lost its lock"):
            lock.check()
    assert "another job took over" in run.reason
    # It is the other's to remove.
    assert lock_file(tmp_path / "m").exists()


def test_a_lock_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    lock_file(tmp_path / "m").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic link"), locked(tmp_path / "m"):
        pass
    assert (tmp_path / "victim").read_text() == "precious"


def test_threads_can_be_locked_out(tmp_path: Path) -> None:
    n_in, most, refused = 0, 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal n_in, most, refused
        for _ in range(30):
            try:
                with locked(tmp_path / "m"):
                    with guard:
                        n_in += 1
                        most = max(most, n_in)
                    with guard:
                        n_in -= 1
            except LockedError:
                refused += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert list(tmp_path.iterdir()) == []


def test_metrics_are_whole_and_count(points: Path, tmp_path: Path) -> None:
    from dask_em.fitting.observers import Totals

    (tmp_path / ".metrics.prom.0123abcd.tmp").write_text("of a job that was killed")
    totals = Totals(tmp_path / "metrics.prom")
    with dask.config.set(scheduler="threads"):
        model = GaussianMixture(2, random_state=0, callbacks=[totals]).fit(str(points))
    metrics = dict(
        line.split() for line in (tmp_path / "metrics.prom").read_text().splitlines()
        if not line.startswith("#")
    )  # fmt: skip
    passes = len(model.history_)
    assert float(metrics["dask_em_passes_total"]) == passes
    assert float(metrics["dask_em_rows_total"]) == passes * 200_000
    assert float(metrics["dask_em_bytes_total"]) == passes * 200_000 * 32
    assert totals.objective is not None
    assert float(metrics["dask_em_log_likelihood"]) == totals.objective.value
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.prom"]


@pytest.mark.filterwarnings("ignore:degenerate components")
def test_metrics_that_cannot_be_written_end_no_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from dask_em.fitting.observers import Totals

    (tmp_path / "full").mkdir()
    totals = Totals(tmp_path / "full")
    with dask.config.set(scheduler="synchronous"):
        GaussianMixture(2, random_state=0, callbacks=[totals]).fit(np.eye(40)[:, :2])
    assert f"metrics of this pass could not be written: {tmp_path / 'full'} is a" in caplog.text
    assert totals.passes > 1
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize(
    "where",
    [
        ClusterOptions(require_tls=True),
        ClusterOptions(scheduler="tcp://user:canary@127.0.0.1:9?token=canary", require_tls=True),
    ],
)
def test_tls_is_required(where: ClusterOptions) -> None:
    with pytest.raises(UsageError, match="--require-tls") as caught, cluster_client(where):
        pass
    assert "canary" not in str(caught.value)


def test_what_somebody_configured_is_not_changed() -> None:
    with dask.config.set({"distributed.scheduler.worker-ttl": "7 minutes"}):
        found = faults.cluster_settings()
    assert "distributed.scheduler.worker-ttl" not in found
    assert found["distributed.scheduler.allowed-failures"] == 10


def test_a_scheduler_forgets_the_keys_of_passes() -> None:
    ours = {"extensions": faults.scheduler_extensions()}
    cluster = LocalCluster(
        n_workers=1, processes=False, dashboard_address=None, scheduler_kwargs=ours
    )
    with cluster, Client(cluster) as client:
        for i in range(50):
            client.submit(abs, i, key=(f"em-range-{i}", 0)).result()
        assert key_split.cache_info().currsize < 50


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5h", 5400), ("1h30m", 5400), ("2d", 172800)]
)
def test_times_have_units(text: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def fit(
        data: str, output: str, cluster: object, request: fit_jobs.FitRequest, **_: object
    ) -> None:
        given.append(request.options["max_time"])
        raise StoppedError("seen")

    monkeypatch.setattr(fit_jobs, "fit", fit)
    command = ["fit", "x", "-k", "2", "-o", "y", "--max-time"]
    assert CliRunner().invoke(main, [*command, text]).exit_code == 75
    assert given == [seconds]
    assert CliRunner().invoke(main, [*command, "soon"]).exit_code == 2


def listening() -> set[tuple[str, int]]:
    """Where this process and those that it started wait for connections."""
    ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
    connections = [c for process in ours for c in process.net_connections("inet")]
    return {c.laddr for c in connections if c.status == psutil.CONN_LISTEN}


def test_what_we_start_listens_on_this_machine_only() -> None:
    before = listening()
    with cluster_client(ClusterOptions(workers=1, memory_limit="1GiB")) as client:
        assert client.dashboard_link.startswith("http://127.0.0.1:")
        assert {address[0] for address in listening() - before} == {"127.0.0.1"}


def test_warnings_are_lines_of_the_log(tmp_path: Path, client: Client) -> None:
    X = np.random.default_rng(0).normal(size=(4000, 2))
    X[7, 1] = np.nan
    write_zarr(tmp_path / "x.zarr", X, 500)
    command = ["fit", str(tmp_path / "x.zarr"), "-k", "2", "-o", str(tmp_path / "m.npz"), "--json"]
    command += ["--nonfinite", "drop", "--log-json", "--max-passes", "2"]
    command += ["--scheduler", client.scheduler.address]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    warned = [line["message"] for line in lines if line["level"] == "warning"]
    assert any("1 rows that hold NaN or infinity were left out" in line for line in warned)
    assert any("--max-passes passes were made" in line for line in warned)
    assert json.loads(result.stdout)["n_dropped"] == 1
    assert load(tmp_path / "m.npz").n_dropped_ == 1


@pytest.mark.parametrize("place", ["make_context", "invoke"])
def test_an_interrupt_that_no_command_sees_is_one(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    # Before the command line is read, and when the command is done.
    monkeypatch.setattr(main, place, interrupted)
    result = CliRunner().invoke(main, ["inspect", "m.npz"])
    assert result.exit_code == 75
    assert result.output.splitlines()[-2:] == [
        "Error: interrupted: run the command again",
        "dask-em inspect m.npz",
    ]
