"""Signals to the program: the same command run again ends with the same bits.

python tests/faults/all.py test_kills.py
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chaos import Job, job, marked, points, spread, tell, twice_done, when
from forked import ForkedJobs, Interrupted, forked_jobs, interrupt, remove
from forked import Job as Forked
from helpers import HANG, digest, wait_until, write_zarr
from test_family_table import FAMILIES
from test_outputs import INTERRUPTED, WRITERS, Inputs, inputs, kill_at_steps
from test_resume import KILLED, X

from dask_em import load
from dask_em.estimators.registry import OWN, family_name

pytestmark = pytest.mark.faults

inputs = inputs

LOCAL = ["--workers", "1", "--memory-limit", "1GiB"]
# How often each is killed, 50 times in all.
KILLS = {"plain EM": 20, "accelerated, parts of passes kept": 20, "sweep of three K": 10}
COMMANDS: dict[str, list[str]] = {
    "plain EM": ["-k", "4", "--algorithm", "em", "--tol", "0", "--max-iter", "10", *LOCAL],
    "accelerated, parts of passes kept": [
        "-k", "4", "--tol", "0", "--max-iter", "8", "--checkpoint-interval", "0", *LOCAL,
    ],
    "sweep of three K": ["-k", "2:4", "--exhaustive", "--tol", "0", "--max-iter", "8", *LOCAL],
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return points(tmp_path_factory.mktemp("data") / "points.zarr", 400_000)


def undisturbed(one: Job) -> tuple[str, float]:
    """The bits of a run that nobody disturbs, and its seconds."""
    began = time.monotonic()
    assert one.run() == 0, one.log.read_text()
    seconds = time.monotonic() - began
    bits = digest(load(one.model))
    one.check_whole(bits)
    one.clear()
    return bits, seconds


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest, tmp_path: Path, data: Path) -> Iterator[Job]:
    with job(tmp_path / "out", data, *COMMANDS[request.param]) as one:
        yield one


def test_killed_at_random_instants(
    command: Job, request: pytest.FixtureRequest, record_property: Any
) -> None:
    name = request.node.callspec.params["command"]
    n = KILLS[name]
    rng = random.Random(5)
    bits, seconds = undisturbed(command)
    gone, recovered, lost = list[Any](), list[Any](), list[Any]()
    while_fitting = 0
    # An instant after the end of a run kills nothing, and another is drawn.
    while len(gone) < n:
        began = time.monotonic()
        process = command.start()
        try:
            process.wait(rng.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            gone.append(command.kill())
        else:
            # So it was quicker than the first one.
            seconds = min(seconds, time.monotonic() - began)
            command.check_whole(bits)
            command.clear()
            continue
        before = command.passes()
        while_fitting += bool(before)
        if [path.name for path in command.folder.iterdir()] == ["m.npz"]:
            # All was done, and it was about to end.
            command.check_whole(bits)
            command.clear()
            continue
        began = time.time()
        assert command.run() == 0, (len(gone), command.log.read_text())
        command.check_whole(bits)
        command.clear()
        lost.append(twice_done(before, command.passes()))
        assert lost[-1] <= 1, (len(gone), before, command.passes())
        first = command.first_pass_after(began)
        recovered += [] if first is None else [first]
    left = [path for path in command.scratch.rglob("*") if path.is_file()]
    # Dask keeps two empty locks there for whoever comes next.
    assert not [p for p in left if p.name not in ("global.lock", "purge.lock")], left
    assert not marked(command.mark)
    tell(
        record_property,
        f"kill -9 of `dask-em fit` ({name})",
        f"{n} seeded random instants of its {seconds:.0f} s, {while_fitting} after the survey",
        f"every rerun ended with exit code 0; 0 files, 0 processes left "
        f"(its workers ended {spread(gone)} s after it)",
        f"{spread(recovered)} from the rerun to its first pass",
        f"{sum(lost)} finished passes in all, at most {max(lost)} a time",
        "yes",
    )


def later(file: Path, than: float) -> bool:
    """Whether a file is there, and was written after a time."""
    with suppress(FileNotFoundError):
        return file.stat().st_mtime > than
    return False


def test_killed_within_a_long_pass(tmp_path: Path, record_property: Any) -> None:
    """What is lost of a pass is no more than an interval."""
    interval, kills = 0.5, 5
    data = points(tmp_path / "points.zarr", 1_000_000, d=32, chunk=25_000)
    options = ["-k", "16", "--algorithm", "em", "--tol", "0", "--max-iter", "3", *LOCAL]
    options += ["--sample-size", "4000", "--checkpoint-interval", str(interval)]
    rng, lost = random.Random(7), list[Any]()
    with job(tmp_path / "out", data, *options, DASK_DASK_EM__FAST="false") as one:
        bits, _ = undisturbed(one)
        kept = one.checkpoint / "partial-sums.npz"
        while len(lost) < kills:
            process = one.start()
            one.wait_for('"phase": "em"')
            under_way = time.time()
            wait_until(lambda t=under_way, p=process: later(kept, t) or p.poll() is not None)
            with suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, interval))
            killed = time.time()
            one.kill()
            # Otherwise that pass was over, and another instant is drawn.
            if kept.exists():
                lost.append(killed - kept.stat().st_mtime)
                assert one.run() == 0, one.log.read_text()
                assert "going on within em pass " in one.log.read_text()
            elif not one.model.exists():
                assert one.run() == 0, one.log.read_text()
            one.check_whole(bits)
            one.clear()
    tell(
        record_property,
        "kill -9 of `dask-em fit` in the middle of a pass",
        f"{kills} times, --checkpoint-interval {interval:g}",
        "every rerun went on within the pass",
        lost=f"{spread(lost)} s of the pass",
        bits="yes",
    )


GROUPS = {"mixed": ["--group", "gaussian=3,0", "--group", "poisson=1,2"]}


@pytest.mark.parametrize("name", [family_name(tag) for tag in OWN])
def test_each_family_killed_within_its_passes(
    name: str, tmp_path: Path, record_property: Any
) -> None:
    data, kills = tmp_path / "rows.zarr", 3
    write_zarr(data, np.tile(FAMILIES[name].rows(), (300, 1)), 10_000)
    options = ["-k", "3", "--family", name, *GROUPS.get(name, []), "--tol", "0", "--max-iter", "8"]
    options += ["--sample-size", "4000", "--checkpoint-interval", "0", *LOCAL]
    rng, lost = random.Random(11), list[Any]()
    # Compiled loops would have done with the rows before anybody could kill them.
    with job(tmp_path / "out", data, *options, DASK_DASK_EM__FAST="false") as one:
        bits, _ = undisturbed(one)
        ends = [when(line) for line in one.lines() if line.get("phase") in ("survey", "em")]
        while len(lost) < kills:
            process = one.start()
            one.wait_for('"phase": "survey"')
            with suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, ends[-1] - ends[0]))
            ended = process.poll() is not None
            one.kill()
            before = one.passes()
            # Otherwise all was done, and another instant is drawn.
            if not ended and not one.model.exists():
                assert one.run() == 0, one.log.read_text()
                lost.append(twice_done(before, one.passes()))
                assert lost[-1] <= 1, (before, one.passes())
            elif one.checkpoint.exists():
                assert one.run() == 0, one.log.read_text()
            one.check_whole(bits)
            one.clear()
    tell(
        record_property,
        f"kill -9 of `dask-em fit --family {name}`",
        f"{kills} seeded random instants of the {ends[-1] - ends[0]:.1f} s of its "
        f"{len(ends) - 1} EM passes",
        "every rerun ended with exit code 0; 0 files, 0 processes left",
        lost=f"{sum(lost)} finished passes in all, at most {max(lost)} a time",
        bits="yes",
    )


def test_killed_at_every_step_of_a_commit(tmp_path: Path, record_property: Any) -> None:
    write_zarr(tmp_path / "x.zarr", X[:900], 300)
    (tmp_path / "out").mkdir()
    (tmp_path / "killed.py").write_text(KILLED)
    command: list[Any] = [
        sys.executable,
        tmp_path / "killed.py",
        tmp_path / "x.zarr",
        tmp_path / "out",
    ]
    result = subprocess.run([*command, "1", "1"], capture_output=True, text=True, timeout=HANG)
    assert result.returncode == 0, result.stderr
    steps = int(result.stdout)
    assert steps > 40
    tell(
        record_property,
        "kill -9 at a step of the commit protocol",
        f"before each of its {steps - 1} calls of fsync, rename, unlink, rmdir, chmod",
        "every rerun ended with exit code 0; 0 files left",
        lost="at most one pass",
        bits="yes",
    )


# -- every command -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def jobs() -> Iterator[ForkedJobs]:
    with forked_jobs() as found:
        yield found


@pytest.mark.parametrize(
    ("name", "n"), [("predict", 30), ("report", 30), ("sweep", 30), ("demo", 6)]
)
def test_signalled_at_random_instants(
    name: str, n: int, inputs: Inputs, jobs: ForkedJobs, tmp_path: Path, record_property: Any
) -> None:
    writer, bits = INTERRUPTED[name]
    output = tmp_path / writer.name
    words = writer.command(inputs, output)
    found: Interrupted = interrupt(jobs, words, output, lambda: bits(output), n, seed=17)
    tell(
        record_property,
        f"SIGTERM, SIGINT, kill -9 of `dask-em {words[0]}` ({name})",
        f"{n} seeded random instants, each signal in turn; exit codes {found}",
        "every rerun ended with exit code 0, or 73 where all was written; 0 files left",
        f"{spread(found.gone_on)} for the rerun",
        bits="names" if name == "demo" else "yes",
    )


@pytest.mark.parametrize(("name", "stride"), [("predict", 1), ("report", 1)])
def test_killed_at_every_step_of_a_writer(
    name: str, stride: int, inputs: Inputs, jobs: ForkedJobs, tmp_path: Path, record_property: Any
) -> None:
    steps = kill_at_steps(name, stride, inputs, jobs, tmp_path)
    tell(
        record_property,
        f"kill -9 at a step of `dask-em {name}`",
        f"before each of its {steps - 1} calls of fsync, link, rename, unlink, mkdir, pwrite",
        "every rerun ended with exit code 0, or 73 where all was written; 0 files left",
        bits="yes",
    )


def test_two_reports_at_once(
    inputs: Inputs, jobs: ForkedJobs, tmp_path: Path, record_property: Any
) -> None:
    pairs, output = 20, tmp_path / "page.html"
    named = 0
    for _ in range(pairs):
        one = Forked(WRITERS["report"].command(inputs, output))
        first, second = sorted(jobs.together(one, one), key=lambda ended: ended.code)
        assert (first.code, second.code) == (0, 73), (first.said, second.said)
        named += f"process {first.pid} on " in second.said
        assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
        remove(output)
    assert named > pairs // 2
    tell(
        record_property,
        "two of `dask-em report` at once",
        f"{pairs} pairs of one page",
        f"one ended with 0, the other with 73; {named} of these named the first's process, the "
        "others came when the page was there; 0 files left",
    )
