"""The examples run as a user runs them, on small data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *arguments: object) -> str:
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_quickstart() -> None:
    printed = run("quickstart.py", 20_000)
    assert "converged after" in printed
    assert "the loaded model agrees: True" in printed


def test_out_of_core(tmp_path: Path) -> None:
    printed = run("out_of_core.py", 100_000, 1, tmp_path)
    assert "converged after" in printed
    assert "keys spilled to disk: 0; worker restarted: False" in printed
    assert not list(tmp_path.iterdir())
