"""Programs of other people in which something is fitted, each a process of `test_programs.py`.

`python programs.py PROGRAM FOLDER` prints, for each way of running, what each thing done gave.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from helpers import HANG, SMALL_READS, digest, start_cluster, wait_until
from sklearn.exceptions import ConvergenceWarning

from dask_em import GaussianMixture, load, select
from dask_em.core import tuning

Results = dict[str, str]

# Thing done -> what tells its bits, of a folder with `x.zarr` and `m.npz`.
THINGS: dict[str, Callable[[Path], str]] = {
    "fit of an array": lambda folder: digest(fit(rows(folder))),
    "fit of a path": lambda folder: digest(fit(path(folder))),
    "fit of a graph": lambda folder: digest(fit(da.from_zarr(path(folder)) + 0)),
    "fit with a checkpoint": lambda folder: digest(fit(path(folder), checkpoint=own(folder, "c"))),
    "sweep": lambda folder: digest(select(path(folder), [1, 2], random_state=0).best),
    "labels of an array": lambda folder: told(load(folder / "m.npz").predict(rows(folder))),
    "labels of a path": lambda folder: told(load(folder / "m.npz").predict(path(folder))),
    "labels of a graph": lambda folder: told(
        load(folder / "m.npz").predict(da.from_zarr(path(folder)) + 0)
    ),
    "score": lambda folder: repr(load(folder / "m.npz").score(path(folder))),
    "save": lambda folder: saved(folder),
}


def path(folder: Path) -> str:
    return str(folder / "x.zarr")


def rows(folder: Path) -> np.ndarray:
    return np.asarray(np.load(folder / "x.npy"))


def own(folder: Path, name: str) -> Path:
    return folder / f"{name}.{os.getpid()}.{threading.get_native_id()}"


def fit(X: Any, **options: Any) -> GaussianMixture:
    return GaussianMixture(2, random_state=0, **options).fit(X)


def told(answer: Any) -> str:
    return hashlib.sha256(np.asarray(answer).tobytes()).hexdigest()


def saved(folder: Path) -> str:
    name = own(folder, "saved")
    name = name.with_name(f"{name.name}.npz")
    load(folder / "m.npz").save(name, overwrite=True)
    return digest(load(name))


def do(folder: Path) -> Results:
    """Do every thing; an error is told too."""
    tuning.DEFAULTS = SMALL_READS
    found = {}
    for name, thing in THINGS.items():
        try:
            found[name] = thing(folder)
        except Exception as e:
            found[name] = f"{type(e).__name__}: {e}"
    return found


# -- forks -----------------------------------------------------------------------------


def in_fork(work: Callable[[], Any]) -> Any:
    """What a function returns in a child of this process."""
    receiver, sender = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with os.fdopen(sender, "w") as out:
                json.dump(work(), out)
        finally:
            os._exit(0)
    os.close(sender)
    with os.fdopen(receiver) as answer:
        found = answer.read()
    os.waitpid(pid, 0)
    return json.loads(found)


def beside_fits(folder: Path) -> Results:
    """In a fork of a process whose other threads are fitting."""
    over = threading.Event()

    def fits() -> None:
        while not over.is_set():
            fit(path(folder))

    fitting = threading.Thread(target=fits)
    fitting.start()
    try:
        return dict(in_fork(lambda: do(folder)))
    finally:
        over.set()
        fitting.join()


def in_callback(folder: Path, work: Callable[[], Any]) -> Any:
    """What a function returns that is called after the first pass of a fit."""
    found: list[Any] = []
    fit(path(folder), callbacks=[lambda state: found.append(found[0] if found else work())])
    return found[0]


def pooled(folder: Path, pool: Any) -> Results:
    with pool:
        if isinstance(pool, ProcessPoolExecutor):
            return dict(pool.submit(do, folder).result(timeout=HANG))
        return dict(pool.apply_async(do, (folder,)).get(timeout=HANG))


def forks(folder: Path) -> dict[str, Results]:
    fork = multiprocessing.get_context("fork")
    found = {"a fork before a fit": dict(in_fork(lambda: do(folder)))}
    do(folder)
    return found | {
        "a fork after a fit": in_fork(lambda: do(folder)),
        "a fork of a fork": in_fork(lambda: in_fork(lambda: do(folder))),
        "a fork after k-means of many threads": in_fork_after_kmeans(folder),
        "a fork beside threads that fit": beside_fits(folder),
        "a fork in a callback": in_callback(folder, lambda: in_fork(lambda: do(folder))),
        "multiprocessing.Pool by fork": pooled(folder, fork.Pool(1)),
        "ProcessPoolExecutor by fork": pooled(folder, ProcessPoolExecutor(1, mp_context=fork)),
    }


def in_fork_after_kmeans(folder: Path) -> Results:
    from sklearn.cluster import KMeans

    KMeans(2, n_init=1).fit(rows(folder))
    return dict(in_fork(lambda: do(folder)))


def others(folder: Path) -> dict[str, Results]:
    """In processes that begin anew, started by one that has fitted."""
    import joblib

    do(folder)
    spawn, server = map(multiprocessing.get_context, ("spawn", "forkserver"))
    return {
        "ProcessPoolExecutor by spawn": pooled(folder, ProcessPoolExecutor(1, mp_context=spawn)),
        "multiprocessing.Pool by forkserver": pooled(folder, server.Pool(1)),
        "loky": joblib.Parallel(2, "loky")([joblib.delayed(do)(folder)] * 2)[1],
    }


# -- one process -------------------------------------------------------------------------


def in_threads(folder: Path) -> Results:
    """In three threads at once; what differs in one of them is told."""
    with ThreadPoolExecutor(3) as pool:
        first, *rest = pool.map(do, [folder] * 3)
    return {
        name: first[name] if all(r[name] == first[name] for r in rest) else "" for name in first
    }


def after_an_alarm(folder: Path) -> Results:
    """After a handler of a signal has raised in the midst of a fit."""

    def raised(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, raised)
    try:
        fit(path(folder), callbacks=[lambda state: signal.raise_signal(signal.SIGALRM)])
    except TimeoutError:
        return do(folder)
    finally:
        signal.signal(signal.SIGALRM, before)
    return {}


async def in_coroutine(folder: Path) -> Results:
    return do(folder)


async def beside_coroutine(folder: Path) -> Results:
    return await asyncio.to_thread(do, folder)


def beside_a_client(folder: Path) -> Results:
    from distributed import Client

    with start_cluster(1, processes=False) as cluster, Client(cluster):
        return in_threads(folder)


def inside(folder: Path) -> dict[str, Results]:
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    found = {
        "threads at once": in_threads(folder),
        "threads at once with one client": beside_a_client(folder),
        "a coroutine": asyncio.run(in_coroutine(folder)),
        "a thread of a coroutine": asyncio.run(beside_coroutine(folder)),
        "a callback of a fit": in_callback(folder, lambda: do(folder)),
        "after an alarm in a fit": after_an_alarm(folder),
    }
    assert handlers == [signal.getsignal(number) for number in signal.valid_signals()]
    return found


# -- what is refused -----------------------------------------------------------------------


def at_exit(folder: Path) -> None:
    """At the end of the interpreter."""
    do(folder)
    atexit.register(lambda: print(json.dumps({"the end": do(folder)})))


def client_of_the_parent(folder: Path) -> dict[str, Results]:
    from distributed import Client

    def with_own() -> Results:
        with Client(cluster.scheduler_address):
            return do(folder)

    def by_threads() -> Results:
        with dask.config.set(scheduler="threads"):
            return do(folder)

    # Threads of the parent, which children reach.
    options = {"processes": False, "protocol": "tcp://"}
    with start_cluster(1, **options) as cluster, Client(cluster):
        fit(path(folder))
        return {
            "the parent's client": in_fork(lambda: do(folder)),
            "threads beside it": in_fork(by_threads),
            "a client of its own": in_fork(with_own),
        }


def daemon(folder: Path) -> dict[str, Results]:
    """A process that may start none."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return {"a daemon": {"cluster": pool.apply_async(own_cluster).get(timeout=HANG)}}


def own_cluster() -> str:
    from dask_em.jobs.cluster import ClusterOptions, cluster_client

    try:
        with cluster_client(ClusterOptions(workers=1)):
            return "started"
    except Exception as e:
        return f"{type(e).__name__}: {e}"


def checkpoint_of_the_parent(folder: Path) -> dict[str, Results]:
    """A fork that fits to the checkpoint to which its parent is fitting."""

    def child() -> Results:
        try:
            return {"fit": digest(fit(path(folder), checkpoint=folder / "shared"))}
        except Exception as e:
            return {"fit": f"{type(e).__name__}: {e}"}

    said: list[Any] = []
    fit(
        path(folder),
        checkpoint=folder / "shared",
        callbacks=[lambda state: said.append(in_fork(child))],
    )
    return {"the parent's checkpoint": said[0]}


def killed_beside_a_child(folder: Path) -> None:
    """End without a word in the midst of a fit; a child that it has forked lives on."""

    def ended(state: Any) -> None:
        pid = os.fork()
        if pid == 0:
            time.sleep(HANG)
            os._exit(0)
        print(json.dumps(pid), flush=True)
        os._exit(0)

    fit(path(folder), checkpoint=folder / "left", callbacks=[ended])


def signal_to_a_child(folder: Path) -> dict[str, Results]:
    """A signal for a fork of the command line's process is not for its job."""
    from dask_em.cli.signals import stopped_by_signals

    receiver, sender = os.pipe()
    with stopped_by_signals("") as job:
        pid = os.fork()
        if pid == 0:
            os.write(sender, b"here")
            time.sleep(HANG)
            os._exit(0)
        os.read(receiver, 4)
        os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
        # What comes by the same way, later, has come: that job is told.
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: job.stop_requested)
    ended = signal.Signals(os.WTERMSIG(status)).name
    return {"a child": {"ended by": ended, "parent": job.reason}}


# -- servers -------------------------------------------------------------------------------


def app(environ: Any, start_response: Any) -> list[bytes]:
    """Do everything, in a worker of a web server."""
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(do(Path(os.environ["PROGRAMS_FOLDER"]))).encode()]


if "PROGRAMS_PRELOADED" in os.environ:
    do(Path(os.environ["PROGRAMS_FOLDER"]))


def celery_app(folder: Path) -> Any:
    from celery import Celery

    for name in ("queue", "control", "results"):
        (folder / name).mkdir(exist_ok=True)
    found = Celery("programs", broker="filesystem://", backend=f"file://{folder / 'results'}")
    found.conf.update(
        broker_transport_options={
            "data_folder_in": str(folder / "queue"),
            "data_folder_out": str(folder / "queue"),
            "control_folder": str(folder / "control"),
        },
        worker_pool="prefork",
        worker_concurrency=1,
    )

    @found.task(name="programs.do")
    def done(where: str) -> Results:
        return do(Path(where))

    return found


def celery(folder: Path) -> None:
    do(folder)
    celery_app(folder).worker_main(["worker", "--loglevel=WARNING"])


PROGRAMS: dict[str, Callable[[Path], Any]] = {
    program.__name__: program
    for program in (
        forks, others, inside, at_exit, client_of_the_parent, daemon, checkpoint_of_the_parent,
        killed_beside_a_child, signal_to_a_child, celery,
    )
}  # fmt: skip


if __name__ == "__main__":
    tuning.DEFAULTS = SMALL_READS
    warnings.simplefilter("ignore", ConvergenceWarning)
    result = PROGRAMS[sys.argv[1]](Path(sys.argv[2]))
    if result is not None:
        print(json.dumps(result))
