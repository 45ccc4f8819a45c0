"""A disk that is full at any write: code 74, nothing torn, and the same command goes on later.

python tests/faults/all.py test_disk_full.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos import tell
from helpers import FORKED, HANG, write_zarr
from test_resume import X

pytestmark = pytest.mark.faults

FILLED = (
    FORKED
    + '''
# Fill the disk before every write of `dask-em fit` in turn; see that nothing is torn.
import random
from dask_em.storage.npz import read_arrays
from dask_em.storage.checkpoint import KIND
data, disk, logs = sys.argv[1:]
PAGE = os.sysconf("SC_PAGE_SIZE")
output, ballast = Path(disk, "m.npz"), Path(disk, "ballast")
checkpoint, log = Path(disk, ".m.npz.checkpoint"), Path(logs, "log")

def fill(pages_left):
    """Take all of the disk but for so many pages."""
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(PAGE))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - pages_left * PAGE))

def run(fill_at, pages_left=0):
    """The program's exit code, and whether the disk was filled."""
    writes = [0]
    def count(event, args):
        if event != "open" or not isinstance(args[0], str) or not args[0].startswith(disk):
            return
        if args[2] & (os.O_WRONLY | os.O_RDWR) and args[0] != str(ballast):
            writes[0] += 1
            if writes[0] == fill_at:
                fill(pages_left)
    def prepare():
        sys.addaudithook(count)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
    metrics = str(Path(disk, "metrics"))
    code = fit(data, output, "--max-iter", "3", "--metrics-file", metrics, prepare=prepare)
    filled = ballast.exists()
    ballast.unlink(missing_ok=True)
    return code, filled

def tidy():
    for path in Path(disk).iterdir():
        path.unlink()

assert run(0) == (0, False), log.read_text()
straight = parameters(output)
tidy()
rng, fill_at, stopped, resumed, outcomes = random.Random(3), 0, 0, 0, []
while True:
    fill_at += 1
    left = rng.choice([0, 0, 1, 2, 3])
    code, filled = run(fill_at, left)
    if not filled:
        assert code == 0
        break
    assert code in (0, 74), (fill_at, code, log.read_text())
    assert "Traceback" not in log.read_text(), log.read_text()
    if code == 74:
        stopped += 1
        assert "No space left" in log.read_text(), log.read_text()
        # What is there is whole, and what was being written is not there.
        for file in checkpoint.glob("*"):
            read_arrays(file, KIND)
        kept = list(checkpoint.glob("pass-*")) or list(checkpoint.glob("survey*"))
        code, _ = run(0)
        assert code == 0, (fill_at, log.read_text())
        assert not kept or "resuming from" in log.read_text(), (fill_at, kept, log.read_text())
        resumed += bool(kept)
    assert parameters(output) == straight, fill_at
    assert sorted(os.listdir(disk)) == ["m.npz", "metrics"], (fill_at, os.listdir(disk))
    tidy()
print(fill_at - 1, stopped, resumed)
'''
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of half a mebibyte."""
    if os.geteuid():
        pytest.skip("mounting a tmpfs needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, timeout=HANG)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True, timeout=HANG)


def test_the_disk_is_full_at_every_write(disk: Path, tmp_path: Path, record_property: Any) -> None:
    write_zarr(tmp_path / "x.zarr", X[:900], 300)
    script = tmp_path / "filled.py"
    script.write_text(FILLED)
    result = subprocess.run(
        [sys.executable, script, tmp_path / "x.zarr", disk, tmp_path],
        capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    writes, stopped, resumed = map(int, result.stdout.split())
    assert writes > 20
    assert stopped > 10
    tell(
        record_property,
        "disk full",
        f"a tmpfs filled before each of the {writes} files that a fit opens for writing",
        f"{stopped} runs ended with code 74 and all that was kept was whole (the others needed "
        f"no more room); {resumed} reruns resumed, the others began anew; 0 files left",
        lost="at most one pass",
        bits="yes",
    )
