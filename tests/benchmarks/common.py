"""What the benchmarks share: pinned BLAS, alternation, tables, the results file.

Import this before NumPy: it pins BLAS and OpenMP to one thread.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

HERE = Path(__file__).parent
# Where `--save` writes; `all.py --check` measures into a copy.
RESULTS = Path(os.environ.get("DASK_EM_BENCHMARK_RESULTS", HERE / "RESULTS.md"))
# What else the machine was busy with in the last minute: times say little above 0.2.
LOAD = os.getloadavg()[0]


def alternate(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each contestant, called in turn `rounds` times after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, call in contestants.items():
            start = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(s) for name, s in seconds.items()}


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines)


def machine(*packages: str) -> str:
    """Date, processor, Python, the load at the start and versions of packages, in one line."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    flags = Path("/proc/cpuinfo").read_text()
    vector = "AVX-512" if " avx512f" in flags else "AVX2" if " avx2" in flags else "SSE"
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} absent")
    today = datetime.date.today().isoformat()
    return ", ".join(
        [
            f"{today}, {cpu} ({vector})",
            f"{os.cpu_count()} cores",
            f"load at the start {LOAD:.1f}",
            f"Python {platform.python_version()}",
            *found,
        ]
    )


def save(section: str, text: str) -> None:
    """Replace one section of RESULTS.md."""
    old = RESULTS.read_text() if RESULTS.exists() else "# Benchmark results\n"
    block = f"## {section}\n\n{text.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(section)}\n.*?(?=^## |\Z)", re.M | re.S)
    new = (
        pattern.sub(lambda _: block + "\n", old)
        if pattern.search(old)
        else f"{old.rstrip()}\n\n{block}"
    )
    RESULTS.write_text(new.rstrip() + "\n")
