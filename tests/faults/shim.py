"""The C library with faults: `shim.c`, compiled, and what is set in it."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from helpers import HANG

SOURCE = Path(__file__).with_name("shim.c")


def compiled(folder: Path) -> Path:
    """The shim as a library to be preloaded; a test is skipped where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = folder / "shim.so"
    command: list[str | Path] = [compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    return library


class Clock:
    """The wall clock of all processes that have it in `variables`."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.path = folder / "clock"
        self.path.write_bytes(struct.pack("d", 0.0))
        self.variables = {"LD_PRELOAD": str(library), "FAULT_CLOCK": str(self.path)}

    def set(self, seconds: float) -> None:
        """Let it go so much before (or after) the real one, from now on."""
        with self.path.open("r+b") as file:
            file.write(struct.pack("d", seconds))
