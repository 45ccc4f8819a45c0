"""Processors and memory that this process may use: of the machine, its affinity and its cgroups."""

from __future__ import annotations

import math
import os
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Limits that the kernel has for "none" are larger.
NO_LIMIT = 2**60


def usable_cpus(root: Path = Path("/")) -> int:
    """Count the processors that this process may use; of a share of one, one.

    Of those that the machine has, by the affinity (taskset, Slurm's cpusets) and by the CPU
    quota of the process's cgroup and of all above it.

    Parameters
    ----------
    root : Path
        Where `proc` and `sys` are.

    Examples
    --------
    >>> 1 <= usable_cpus() <= os.cpu_count()
    True
    """
    count: int | None
    if sys.version_info >= (3, 13):
        count = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count()
    quotas = [_quota(folder) for folder in _cgroups("cpu", root)]
    return max(1, math.ceil(min([count or 1, *quotas])))


def processor(root: Path = Path("/")) -> str:
    """Return the name of the processor, as the system tells it.

    Parameters
    ----------
    root : Path
        Where `proc` is.

    Examples
    --------
    >>> processor() != ""
    True
    """
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the bytes that the process's cgroup and all above it allow; None for no limit.

    Examples
    --------
    >>> memory_limit(Path("/there/is/no/proc/here")) is None
    True
    """
    names = ("memory.limit_in_bytes", "memory.max", "memory.high")
    limits = [_number(f / name) for f in _cgroups("memory", root) for name in names]
    least = min((limit for limit in limits if limit is not None), default=NO_LIMIT)
    return least if least < NO_LIMIT else None


def usable_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process and those it starts may take in all.

    The machine's, or less by the limits of the process and of its cgroups: what Dask gives to a
    LocalCluster, without the seconds that importing it takes.

    Examples
    --------
    >>> usable_memory() > 2**20
    True
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    resident, _ = resource.getrlimit(resource.RLIMIT_RSS)
    if resident > 0:
        limits.append(resident)
    if (allowed := memory_limit(root)) is not None:
        limits.append(allowed)
    return min(limits)


def _quota(cgroup: Path) -> float:
    """The processors that a cgroup's quota allows, infinite where it has none."""
    try:
        # Version 2: "max 100000" or "150000 100000".
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        found = _number(cgroup / "cpu.cfs_quota_us"), _number(cgroup / "cpu.cfs_period_us")
        return found[0] / found[1] if found[0] and found[1] else math.inf
    return math.inf if quota == "max" else int(quota) / int(period)


def _number(file: Path) -> int | None:
    """The positive number in a file; None where there is no file, and no such number in it."""
    try:
        found = int(file.read_text())
    except (OSError, ValueError):
        return None
    return found if found > 0 else None


def _cgroups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the process's cgroup under a controller and of all above it, as mounted."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return
    groups = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
    for mount in mounts:
        # "25 30 0:23 /mounted /where options ... - cgroup cgroup rw,cpu,cpuacct"
        before, _, after = mount.partition(" - ")
        (mounted, where), (kind, _, options) = before.split()[3:5], after.split(maxsplit=2)
        if kind == "cgroup2":
            own = groups.get("")
        elif kind == "cgroup" and controller in options.split(","):
            own = next((p for names, p in groups.items() if controller in names.split(",")), None)
        else:
            continue
        top = root / where.lstrip("/")
        yield top
        below = PurePosixPath(own or "/")
        if below.is_relative_to(mounted):
            # In a container whose own cgroup is what is mounted, it is all there is to see.
            folder = top
            for part in below.relative_to(mounted).parts:
                folder /= part
                yield folder
