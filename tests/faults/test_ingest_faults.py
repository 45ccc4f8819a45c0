"""Ingest under kill -9, on a full disk, of files that break and vanish: the same bytes, or a name.

python tests/faults/all.py test_ingest_faults.py
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chaos import tell
from helpers import HANG, wait_until

pytestmark = pytest.mark.faults

pa = pytest.importorskip("pyarrow", reason="the extra `table` is not installed")

KILLS, N = 20, 800_000
PROGRAM = [sys.executable, "-m", "dask_em.cli"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same rows as a CSV file, the same packed, and as Parquet in one row group."""
    import gzip

    import pyarrow.parquet as pq
    from pyarrow.csv import write_csv

    folder = tmp_path_factory.mktemp("inputs")
    X = np.random.default_rng(0).normal(size=(N, 8))
    words = np.array(["red", "blue", "green"])[np.arange(N) % 3]
    columns = {f"x{j}": X[:, j] for j in range(8)}
    frame = pa.table({**columns, "colour": words})
    write_csv(frame, folder / "x.csv")
    with gzip.open(folder / "y.csv.gz", "wb", compresslevel=1) as file:
        file.write((folder / "x.csv").read_bytes())
    pq.write_table(frame, folder / "z.parquet")
    return {path.suffix.lstrip("."): path for path in folder.iterdir()}


def ingest(source: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = [*PROGRAM, "ingest", str(source), str(out), "--threads", "2", *more]
    return subprocess.run(words, capture_output=True, text=True, timeout=HANG)


@pytest.mark.parametrize("kind", ["csv", "gz", "parquet"])
def test_killed_at_random_instants(
    kind: str, inputs: dict[str, Path], tmp_path: Path, record_property: Any
) -> None:
    source, out = inputs[kind], tmp_path / "out.zarr"
    partial = tmp_path / ".out.zarr.partial"
    words = [*PROGRAM, "ingest", str(source), str(out), "--threads", "2"]

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def a_region_is_whole(job: subprocess.Popen[bytes]) -> Callable[[], bool]:
        return lambda: any(partial.glob("regions-*/*")) or job.poll() is not None

    began = time.monotonic()
    with started() as job:
        wait_until(a_region_is_whole(job))
        writing = time.monotonic()
    assert job.returncode == 0
    seconds, writes, expected = writing - began, time.monotonic() - writing, contents(out)
    out.rename(tmp_path / "straight.zarr")
    rng, killed, resumed = random.Random(7), 0, 0
    while killed < KILLS:
        with started() as job:
            # Three times of four when a region is whole.
            if killed % 4:
                wait_until(a_region_is_whole(job))
            try:
                job.wait(rng.uniform(0, writes if killed % 4 else seconds))
            except subprocess.TimeoutExpired:
                job.kill()
        killed += job.returncode == -9
        # Nothing that is not whole has the name.
        if not out.exists():
            again = ingest(source, out)
            assert again.returncode == 0, again.stderr
            resumed += "resuming: " in again.stderr
        assert contents(out) == expected, killed
        left = {path.name for path in tmp_path.iterdir()}
        assert left - {"straight.zarr"} <= {"out.zarr", ".out.zarr.partial"}, left
        subprocess.run(["rm", "-r", str(out)], check=True)
    assert resumed > KILLS // 4
    tell(
        record_property,
        f"kill -9 of `dask-em ingest` ({source.name})",
        f"{killed} seeded random instants of its {seconds + writes:.0f} s",
        f"every rerun ended with exit code 0, {resumed} of them went on with whole regions",
        bits="yes",
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs that holds half of the store."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=28m", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, timeout=HANG)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True, timeout=HANG)


def test_the_disk_is_full(
    disk: Path, inputs: dict[str, Path], tmp_path: Path, record_property: Any
) -> None:
    straight = tmp_path / "straight.zarr"
    assert ingest(inputs["csv"], straight).returncode == 0
    out = disk / "out.zarr"
    done = ingest(inputs["csv"], out)
    assert (done.returncode, "No space left" in done.stderr) == (74, True), done.stderr
    assert "regions are whole and kept in" in done.stderr
    assert not out.exists()
    subprocess.run(["mount", "-o", "remount,size=160m", str(disk)], check=True, timeout=HANG)
    again = ingest(inputs["csv"], out)
    assert (again.returncode, "resuming: " in again.stderr) == (0, True), again.stderr
    assert contents(out) == contents(straight)
    assert [path.name for path in disk.iterdir()] == ["out.zarr"]
    tell(
        record_property,
        "disk full under `dask-em ingest`",
        "a tmpfs of half the size of the store",
        "code 74, no store; with room the same command went on",
        bits="yes",
    )


def test_a_line_that_is_broken_at_the_end_is_named(inputs: dict[str, Path], tmp_path: Path) -> None:
    lines = inputs["csv"].read_bytes().splitlines(keepends=True)
    at = int(0.99 * len(lines))
    fields = lines[at].split(b",")
    lines[at] = b",".join([fields[0], b"oops", *fields[2:]])
    broken = tmp_path / "broken.csv"
    broken.write_bytes(b"".join(lines))
    done = ingest(broken, tmp_path / "out.zarr")
    assert done.returncode == 65
    assert f"broken.csv, line {at + 1}: column 'x1' holds 'oops'" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["broken.csv"]
    assert ingest(broken, tmp_path / "out.zarr", "--null", "oops").returncode == 0


@pytest.mark.parametrize("kind", ["csv", "gz", "parquet"])
def test_a_file_that_vanishes_is_named(kind: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    """At random instants: whole and right, or named and no store."""
    rng, named = random.Random(3), 0
    straight = tmp_path / "straight.zarr"
    assert ingest(inputs[kind], straight).returncode == 0
    expected = contents(straight)
    began = time.monotonic()
    copy = tmp_path / inputs[kind].name
    for _ in range(10):
        copy.write_bytes(inputs[kind].read_bytes())
        out = tmp_path / "out.zarr"
        words = [*PROGRAM, "ingest", str(copy), str(out), "--threads", "2"]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as job:
            with suppress(subprocess.TimeoutExpired):
                job.wait(rng.uniform(0.5, 4))
            copy.unlink()
            said = job.communicate(timeout=HANG)[1]
        if job.returncode == 0:
            assert contents(out) == expected
            subprocess.run(["rm", "-r", str(out)], check=True)
            continue
        named += 1
        assert (job.returncode, copy.name in said) == (65, True), said
        assert "Traceback" not in said, said
        assert not out.exists()
        subprocess.run(["rm", "-rf", str(tmp_path / ".out.zarr.partial")], check=True)
    assert named, time.monotonic() - began
