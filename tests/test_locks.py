"""One fit at a time in a checkpoint, whether the program or the library fits."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import HANG, blobs, digest, wait_until

from dask_em import GaussianMixture, select
from dask_em.errors import LockedError
from dask_em.runtime import JobControl, as_job
from dask_em.storage import locks
from dask_em.storage.locks import lock_file, locked

X = blobs(600, 2, 2, apart=1.2)[0]
OPTIONS: dict[str, Any] = {
    "n_components": 2, "random_state": 0, "tol": 0.0, "max_iter": 4, "algorithm": "em",
    "sample_size": 100,
}  # fmt: skip
# SampleFits, waits for a word after the second pass where it is told to, and says how it ended.
FIT = """
import json, sys
import numpy as np
from dask_em import GaussianMixture
data, checkpoint, options, waits = sys.argv[1:]

def callback(state):
    if state.n_iter == 2 and waits == "waits":
        print("two passes", flush=True)
        sys.stdin.readline()

model = GaussianMixture(**json.loads(options), checkpoint=checkpoint, callbacks=[callback])
try:
    model.fit(np.load(data))
except Exception as e:
    print(type(e).__name__, e)
"""

pytestmark = [
    pytest.mark.usefixtures("synchronous"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def fit(folder: Path, **more: Any) -> GaussianMixture:
    return GaussianMixture(**{**OPTIONS, **more}, checkpoint=folder / "c").fit(X)


def test_two_processes_do_not_fit_in_one_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "x.npy", X)
    words: list[Any] = [
        sys.executable,
        "-c",
        FIT,
        tmp_path / "x.npy",
        tmp_path / "c",
        json.dumps(OPTIONS),
    ]
    with subprocess.Popen(
        [*words, "waits"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "two passes\n"
            kept = {p.name: p.read_bytes() for p in (tmp_path / "c").iterdir()}
            second = subprocess.run(
                [*words, "goes on"], capture_output=True, text=True, timeout=HANG, check=True
            )
            assert second.stdout.startswith("LockedError another job"), second.stdout
            assert f"process {first.pid} on " in second.stdout
            with pytest.raises(LockedError, match=rf"process {first.pid} .*is writing .*c: wait"):
                fit(tmp_path)
            with pytest.raises(LockedError, match=rf"process {first.pid} "):
                select(X, [1, 2], checkpoint=tmp_path / "c")
            assert {p.name: p.read_bytes() for p in (tmp_path / "c").iterdir()} == kept
        finally:
            first.kill()
    # Nobody holds it any more, though nobody could remove it.
    assert lock_file(tmp_path / "c").exists()
    with caplog.at_level("INFO", "dask_em"):
        model = fit(tmp_path)
    assert f"taking over the lock of {tmp_path / 'c'} from process {first.pid}" in caplog.text
    assert f"resuming from {tmp_path / 'c'}: 3 passes were made" in caplog.text
    assert digest(model) == digest(GaussianMixture(**OPTIONS).fit(X))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "x.npy"]


def test_a_lock_on_another_machine_is_awaited_while_it_is_fresh(tmp_path: Path) -> None:
    lock = lock_file(tmp_path / "c")
    lock.write_text(json.dumps({"id": "x", "host": "elsewhere", "pid": 1, "since": "then"}))
    with pytest.raises(LockedError, match=r"process 1 on elsewhere, since then.*s if that"):
        fit(tmp_path)
    old = time.time() - locks.STALE_SECONDS - 1
    os.utime(lock, (old, old))
    fit(tmp_path)
    assert not lock.exists()


def test_a_fit_that_lost_its_lock_writes_nothing_more(tmp_path: Path) -> None:
    lock, found = lock_file(tmp_path / "c"), []

    def away(state: Any) -> None:
        """As if the job had slept for so long that another one took over."""
        found.extend(sorted(p.name for p in (tmp_path / "c").iterdir()))
        (holder,) = run.locks.values()
        lock.write_text(json.dumps({"id": "another"}))
        holder._seen -= locks.STALE_SECONDS + 1

    run = JobControl()
    with as_job(run), pytest.raises(LockedError, match="lost its lock"):
        fit(tmp_path, callbacks=[away])
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == found
    assert json.loads(lock.read_text()) == {"id": "another"}
    assert run.locks == {}


@pytest.mark.parametrize(("code", "lost"), [(errno.EIO, False), (errno.ENOENT, True)])
def test_a_lock_that_cannot_be_read_is_lost_only_where_it_is_gone(
    code: int, lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, beats = os.open, threading.Event()

    def failing(path: Any, *rest: Any, **more: Any) -> int:
        if not os.fspath(path).endswith(".lock"):
            return opened(path, *rest, **more)
        if threading.current_thread().name == "lock":
            beats.set()
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.01)
    with as_job(JobControl()) as run, locked(tmp_path / "c") as lock:
        monkeypatch.setattr(os, "open", failing)
        wait_until(beats.is_set)
        beats.clear()
        wait_until(lambda: beats.is_set() or run.stop_requested)
        assert run.stop_requested == lost
        monkeypatch.undo()
        if not lost:
            lock.check()


def test_a_job_goes_in_with_the_lock_that_it_has(tmp_path: Path) -> None:
    with as_job(JobControl()), locked(tmp_path / "c") as lock:
        with locked(tmp_path / "c") as again:
            assert again is lock
        assert lock_file(tmp_path / "c").exists()
        lock.check()
        # Another one of this process does not.
        with as_job(JobControl()), pytest.raises(LockedError, match=f"process {os.getpid()} "):
            fit(tmp_path)
    assert not lock_file(tmp_path / "c").exists()


def test_a_holder_that_ends_before_its_name_is_read_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.npz"
    holder = locks.LockFile(path)
    mine = {"id": "another", "host": socket.gethostname(), "space": locks._space(), "pid": 1}
    holder.take(mine)
    asked: list[Any] = []

    def ends(owner: Any) -> bool:
        # It held the lock a moment ago, and is gone by the time that somebody looks for it.
        if not asked:
            holder.release(mine)
        asked.append(owner)
        return False

    monkeypatch.setattr(locks, "_lives", ends)
    with locked(path):
        assert [owner["id"] for owner in asked] == ["another"]
        assert locks.lock_file(path).exists()
    assert not locks.lock_file(path).exists()
