"""Every benchmark, one after the other, each writing its section of RESULTS.md.

    python tests/benchmarks/all.py [--small | --check] [NAME ...]

With `--small` they are only tried out: nothing is written. With `--check` they are measured as
always, but into a copy, and each ratio is compared with the one in RESULTS.md: those that are worse
by more than 15 % are named at the end. A benchmark that fails does not keep the others from
running; the exit code says whether any failed, or fell. On a quiet machine: a night.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from check import report
from common import RESULTS

HERE = Path(__file__).parent
NAMES = [
    "peers",
    "passes",
    "chunks",
    "memory",
    "growth",
    "passes_to_optimum",
    "runners_up",
    "sweep",
    "fleets",
    "small",
    "whole_job",
    "kmeans",
    "latent",
    "families",
    "student_t",
    "bayesian",
    "missing",
    "many_components",
    "factor",
    "parquet",
    "ingest",
    "billion",
    "first_pass",
    "predict",
    "object_stores",
    "links",
    "chunk_codecs",
    "workers",
    "update",
    "alarm",
]
# How those without `--small` are tried out.
SMALL = {
    "peers": ["--scale", "0.02"],
    "student_t": ["--rows", "2000"],
    "bayesian": ["--rows", "1000"],
    "missing": ["--only", "imputation"],
    "update": ["--nights", "5", "--rows", "2000", "--hard-rows", "300"],
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--small", action="store_true")
    how.add_argument("--check", action="store_true")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    names = options.names or NAMES
    if not options.check:
        return len(run(names, options.small, os.environ))
    with tempfile.TemporaryDirectory(prefix="dask-em-") as folder:
        measured = Path(folder) / RESULTS.name
        shutil.copy(RESULTS, measured)
        failed = run(names, False, {**os.environ, "DASK_EM_BENCHMARK_RESULTS": str(measured)})
        stands = report(RESULTS.read_text(), measured.read_text())
    return len(failed) + (not stands)


def run(names: Sequence[str], small: bool, environment: Mapping[str, str]) -> list[str]:
    """Run benchmarks one after the other, and return those that failed."""
    failed = []
    for name in names:
        flags = SMALL.get(name, ["--small"]) if small else ["--save"]
        print(f"\n== {name} {' '.join(flags)}", flush=True)
        command = [sys.executable, str(HERE / f"{name}.py"), *flags]
        if subprocess.run(command, check=False, env=environment).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
