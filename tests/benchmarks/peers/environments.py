"""A virtual environment for each peer, made once and kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DEFAULT = Path.home() / ".cache" / "dask_em-benchmarks"

# What pip is asked for, one call after another; nothing means this environment.
REQUIREMENTS: dict[str, list[list[str]]] = {
    "ours": [],
    "scikit-learn": [],
    "oneDAL": [["daal4py==2024.7.0", "scikit-learn<1.5", "numpy<2", "packaging"]],
    "gmmx": [["jax[cpu]==0.10.2", "gmmx==0.7"]],
    "Spark": [["pyspark==4.3.0", "pandas<3", "pyarrow", "numpy"]],
    # pomegranate asks for any PyTorch, so the one that is wanted comes first.
    "pomegranate": [["torch==2.13.0"], ["pomegranate==1.1.2"]],
}


class InstallError(Exception):
    """A peer's environment could not be made."""


def python_of(peer: str, folder: Path) -> Path:
    """The interpreter that has the peer, whose environment is made if it is not there.

    Raises
    ------
    InstallError
        With the reason in one line.
    """
    if not REQUIREMENTS[peer]:
        return Path(sys.executable)
    home = folder / peer
    python, mark = home / "bin" / "python", home / "installed.txt"
    wanted = repr(REQUIREMENTS[peer])
    # The mark is written last, so an environment left half made is made again.
    if not mark.exists() or mark.read_text() != wanted:
        print(f"making the environment of {peer} in {home}", file=sys.stderr, flush=True)
        _call(sys.executable, "-m", "venv", "--clear", str(home))
        for packages in REQUIREMENTS[peer]:
            _call(str(python), "-m", "pip", "install", "--quiet", *packages)
        mark.write_text(wanted)
    return python


def _call(*command: str) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no output"]
        raise InstallError(f"not installed: {errors[-1].strip()}")
