"""Every benchmark, one after the other, each writing its section of RESULTS.md.

    python tests/benchmarks/all.py [--small] [NAME ...]

With `--small` they are only tried out: nothing is written. A benchmark that fails does not
keep the others from running; the exit code says whether any did. On a quiet machine: hours.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

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
    "kmeans",
    "factor",
    "billion",
    "object_stores",
    "update",
    "alarm",
]
SMALL = {
    "peers": ["--scale", "0.02"],
    "update": ["--nights", "5", "--rows", "2000", "--hard-rows", "300"],
    "alarm": ["--sets", "2"],
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    failed = []
    for name in options.names or NAMES:
        flags = SMALL.get(name, ["--small"]) if options.small else ["--save"]
        print(f"\n== {name} {' '.join(flags)}", flush=True)
        done = subprocess.run([sys.executable, str(HERE / f"{name}.py"), *flags], check=False)
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
