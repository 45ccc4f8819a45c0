"""Processors and memory that may be used: affinity, cgroups of both versions, and who asks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zarr
from helpers import HANG, wait_until
from zarr.codecs import Crc32cCodec

from dask_em import machine
from dask_em.backends.threads import ThreadsBackend
from dask_em.data.open import stored_source
from dask_em.errors import UsageError
from dask_em.jobs import cluster as clusters
from dask_em.jobs import plan as planning
from dask_em.jobs.checks.check import attempt
from dask_em.jobs.checks.cluster import describe_memory
from dask_em.jobs.cluster import ClusterOptions, overcommitted, workers_here
from dask_em.jobs.plan import count, fleet_of, planned_here

GIB = 2**30


# -- trees of cgroups ------------------------------------------------------------------

# Of each: lines of /proc/self/cgroup, mounts (kind, root, where, options), limits in files
# below /sys/fs/cgroup; then what is found where the machine has 64 processors.
V1 = [("cgroup", "/", "cpu,cpuacct", "rw,cpu,cpuacct"), ("cgroup", "/", "memory", "rw,memory")]
V2 = [("cgroup2", "/", "", "rw,nsdelegate")]
NONE = "9223372036854771712"

TREES: dict[str, tuple[list[str], list[tuple[str, str, str, str]], dict[str, str], Any]] = {
    "no limits of version 1": (
        ["4:memory:/job", "3:cpu,cpuacct:/job", "0::/"],
        V1,
        {
            "cpu,cpuacct/job/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            "memory/job/memory.limit_in_bytes": NONE,
        },
        (64, None),
    ),
    "no limits of version 2": (
        ["0::/user.slice"],
        V2,
        {"user.slice/cpu.max": "max 100000", "user.slice/memory.max": "max"},
        (64, None),
    ),
    "a job of version 1": (
        ["4:memory:/slurm/job_7", "3:cpu,cpuacct:/slurm/job_7", "1:name=systemd:/x", "0::/"],
        V1,
        {
            "cpu,cpuacct/slurm/job_7/cpu.cfs_quota_us": "400000",
            "cpu,cpuacct/slurm/job_7/cpu.cfs_period_us": "100000",
            "memory/slurm/job_7/memory.limit_in_bytes": str(8 * GIB),
        },
        (4, 8 * GIB),
    ),
    "a step of a job of version 1, which has the limits": (
        ["4:memory:/slurm/job_7/step_0/task_0", "3:cpu,cpuacct:/slurm/job_7/step_0"],
        V1,
        {
            "cpu,cpuacct/slurm/job_7/cpu.cfs_quota_us": "250000",
            "cpu,cpuacct/slurm/job_7/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/slurm/job_7/step_0/cpu.cfs_quota_us": "-1",
            "memory/slurm/job_7/memory.limit_in_bytes": str(8 * GIB),
            "memory/slurm/job_7/step_0/memory.limit_in_bytes": NONE,
        },
        (3, 8 * GIB),
    ),
    "a service of version 2 within a slice": (
        ["0::/system.slice/fit.service"],
        V2,
        {
            "system.slice/cpu.max": "200000 100000",
            "system.slice/fit.service/cpu.max": "max 100000",
            "system.slice/memory.max": str(16 * GIB),
            "system.slice/fit.service/memory.max": "max",
            "system.slice/fit.service/memory.high": str(6 * GIB),
        },
        (2, 6 * GIB),
    ),
    "a container of version 1, whose cgroup is what is mounted": (
        ["4:memory:/docker/ab12", "3:cpu,cpuacct:/docker/ab12"],
        [(kind, "/docker/ab12", where, options) for kind, _, where, options in V1],
        {
            "cpu,cpuacct/cpu.cfs_quota_us": "50000",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": str(2 * GIB),
        },
        (1, 2 * GIB),
    ),
    "a container of version 2 with a namespace": (
        ["0::/"],
        V2,
        {"cpu.max": "800000 100000", "memory.max": str(4 * GIB)},
        (8, 4 * GIB),
    ),
    "a process that was moved out of what is mounted": (
        ["0::/../other"],
        V2,
        {"cpu.max": "800000 100000"},
        (8, None),
    ),
    "both versions, with the controllers in the first": (
        ["3:cpu,cpuacct:/a", "4:memory:/a", "0::/b"],
        [*V1, ("cgroup2", "/", "unified", "rw")],
        {
            "cpu,cpuacct/a/cpu.cfs_quota_us": "600000",
            "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            "memory/a/memory.limit_in_bytes": str(3 * GIB),
        },
        (6, 3 * GIB),
    ),
    "files of another kind": (["0::/"], V2, {"cpu.max": "?", "memory.max": "0"}, (64, None)),
    "no cgroups": ([], [], {}, (64, None)),
}


@pytest.fixture
def large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 64, raising=False)


@pytest.mark.usefixtures("large_machine")
@pytest.mark.parametrize("name", TREES)
def test_the_least_of_a_cgroup_and_those_above_it_counts(tmp_path: Path, name: str) -> None:
    groups, mounts, files, expected = TREES[name]
    mounted = "".join(
        f"{30 + i} 20 0:{i} {root} /sys/fs/cgroup/{where} rw,nosuid shared:9 - {kind} {kind} {o}\n"
        for i, (kind, root, where, o) in enumerate(mounts)
    )
    own = tmp_path / "proc/self"
    own.mkdir(parents=True)
    (own / "cgroup").write_text("".join(line + "\n" for line in groups))
    (own / "mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw,cpu\n" + mounted)
    for file, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert (machine.usable_cpus(tmp_path), machine.memory_limit(tmp_path)) == expected


# -- real ones -------------------------------------------------------------------------

FOUND = """
import json, os
from dask_em.backends.threads import ThreadsBackend
from dask_em.jobs.cluster import ClusterOptions
from dask_em.machine import usable_memory
from dask_em.machine import usable_cpus
local = ClusterOptions()
print(json.dumps([usable_cpus(), usable_memory(), local.n_workers, local.worker_limit,
                  ThreadsBackend().n_threads]))
"""


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=HANG, **options
    )


def asked(*before: str, **options: Any) -> list[int]:
    """What a process finds that is started so."""
    done = run(*before, sys.executable, "-c", FOUND, **options)
    assert done.returncode == 0, done.stderr
    found: list[int] = json.loads(done.stdout)
    return found


@pytest.fixture
def points(tmp_path: Path) -> str:
    path = str(tmp_path / "points.zarr")
    zarr.create_array(
        path, shape=(400, 2), chunks=(100, 2), dtype="f8", compressors=[Crc32cCodec()]
    )[:] = [[i % 7 + i % 2 * 50, i % 11] for i in range(400)]
    return path


@pytest.fixture
def taskset() -> list[str]:
    if shutil.which("taskset") is None:
        pytest.skip("there is no taskset here")
    return ["taskset", "-c", str(min(os.sched_getaffinity(0)))]


def test_under_taskset(taskset: list[str]) -> None:
    cpus, memory, workers, limit, threads = asked(*taskset)
    assert (cpus, workers, threads, limit) == (1, 1, 1, memory)


def test_doctor_and_fit_agree_under_taskset(taskset: list[str], points: str) -> None:
    program = [*taskset, sys.executable, "-m", "dask_em.cli"]
    folder = Path(points).parent
    doctor = run(*program, "doctor", points, "-k", "2", "--json", cwd=folder)
    memory = {check["name"]: check for check in json.loads(doctor.stdout)["checks"]}["memory"]
    assert (doctor.returncode, memory["exit_code"], memory["warning"]) == (0, 0, False), memory
    fitted = run(*program, "fit", points, "-k", "2", "-o", "m.npz", cwd=folder)
    assert fitted.returncode == 0, fitted.stderr
    planned = run(*program, "plan", points, "-k", "2", "--no-probe", "--json", cwd=folder)
    assert json.loads(planned.stdout)["n_workers"] == 1


LIMITS = {
    "cpu": {"cpu.max": "100000 100000", "cpu.cfs_quota_us": "100000"},
    "memory": {"memory.max": str(GIB), "memory.limit_in_bytes": str(GIB)},
}


@contextmanager
def cgroup(controller: str) -> Iterator[Path]:
    """A new cgroup below this process's, of one processor or of one GiB."""
    why = "none is mounted"
    for parent in reversed([*machine._cgroups(controller, Path("/"))]):
        folder = parent / f"dask_em_test_{os.getpid()}"
        try:
            folder.mkdir()
        except OSError as e:
            why = str(e)
            continue
        try:
            limited = [name for name in LIMITS[controller] if (folder / name).exists()]
            for name in limited:
                (folder / name).write_text(LIMITS[controller][name])
            if limited:
                yield folder
                return
            why = f"{parent} does not delegate it"
        finally:
            remove(folder)
    pytest.skip(f"no cgroup of the controller {controller} can be made here: {why}")


def remove(folder: Path) -> None:
    wait_until(lambda: not (folder / "cgroup.procs").read_text().strip())
    folder.rmdir()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="cgroups are of Linux")
@pytest.mark.parametrize("controller", LIMITS)
def test_in_a_cgroup(controller: str) -> None:
    with cgroup(controller) as made:
        found = asked(preexec_fn=lambda: (made / "cgroup.procs").write_text(str(os.getpid())))
    cpus, memory, workers, limit, threads = found
    assert workers * limit <= memory
    if controller == "cpu":
        assert (cpus, workers, threads, limit) == (1, 1, 1, memory)
    else:
        assert memory == GIB


# -- who asks ----------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("workers", [None, 1, 3, 50])
def test_local_workers_share_what_may_be_used(
    monkeypatch: pytest.MonkeyPatch, threads: int, workers: int | None
) -> None:
    monkeypatch.setattr(clusters, "usable_cpus", lambda: 8)
    monkeypatch.setattr(clusters, "usable_memory", lambda: 16 * GIB)
    here = workers_here(ClusterOptions(workers=workers, threads=threads))
    assert sum(worker.limit for worker in here) <= 16 * GIB
    assert overcommitted(here) == ""
    if workers is None:
        assert sum(worker.threads for worker in here) <= max(8, threads)


@pytest.mark.parametrize(
    ("given", "limit"), [("2GiB", 2 * GIB), ("0.25", 4 * GIB), ("0", 0), ("64TiB", 16 * GIB)]
)
def test_a_limit_is_what_the_worker_will_have(
    monkeypatch: pytest.MonkeyPatch, given: str, limit: int
) -> None:
    monkeypatch.setattr(clusters, "usable_memory", lambda: 16 * GIB)
    assert ClusterOptions(memory_limit=given).worker_limit == limit


def verdict_of_doctor(cluster: ClusterOptions, points: str) -> tuple[str, int]:
    client: Any = None  # of a local cluster nothing is asked
    check = attempt(
        "memory", describe_memory, cluster, client, stored_source(points), fleet_of(2, "full")
    )
    return check.verdict, check.exit_code


@pytest.mark.parametrize(
    ("options", "machine_bytes", "verdict"),
    [
        ({"workers": 2}, 16 * GIB, "ok"),
        ({"workers": 2, "memory_limit": "64TiB"}, 16 * GIB, "WARN"),
        ({"workers": 2, "memory_limit": "0"}, 16 * GIB, "WARN"),
        ({"workers": 2, "memory_limit": "100MiB"}, 16 * GIB, "WRONG"),
        ({"workers": 64, "memory_limit": "4GiB"}, 4 * GIB, "WRONG"),
        ({"workers": 64, "memory_limit": "0"}, 4 * GIB, "WRONG"),
    ],
)
def test_doctor_and_fit_decide_alike(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    points: str,
    options: dict[str, Any],
    machine_bytes: int,
    verdict: str,
) -> None:
    monkeypatch.setattr(clusters, "usable_memory", lambda: machine_bytes)
    monkeypatch.setattr(planning, "usable_memory", lambda: machine_bytes)
    monkeypatch.setattr(planning, "cluster_client", lambda cluster: ExitStack())
    cluster, source = ClusterOptions(**options), stored_source(points)

    def needed(workers: Any) -> planning.Plan:
        return count(source, fleet_of(2, "full"), workers)

    code, said = 0, ""
    with caplog.at_level("WARNING", "dask_em"):
        try:
            with planning.checked(cluster, needed):
                pass
        except UsageError as e:
            code, said = int(e.exit_code), str(e)
    assert verdict_of_doctor(cluster, points) == (verdict, code)
    assert not code or "lower --workers" in said or "raise --memory-limit" in said
    assert bool(caplog.records) == (verdict == "WARN")
    # And `plan` says so, too.
    assert planned_here(cluster, needed).fits == (code == 0)


def test_threads_of_this_process_are_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ThreadsBackend().n_threads == machine.usable_cpus()
    assert ThreadsBackend(3).n_threads == 3
