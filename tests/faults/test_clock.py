"""A wall clock that jumps by hours while a fit runs: the same bits, and no lock is lost for it.

python tests/faults/all.py test_clock.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chaos import Job, job, points, tell
from helpers import digest
from shim import Clock, compiled

from dask_em import load

pytestmark = pytest.mark.faults

FIT = ["-k", "4", "--algorithm", "em", "--tol", "0", "--max-iter", "10"]
CHECKPOINTS = ["--checkpoint-interval", "0"]
# Hours beside the true time. Dask's timers go by the wall clock, and wait where it goes back.
JUMPS = {"threads": [3, -3, 48, 0], "worker": [3, 48]}
BACKENDS: dict[str, list[str]] = {"threads": [], "worker": ["--workers", "1"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return points(tmp_path_factory.mktemp("data") / "x.zarr", 200_000, d=8, chunk=20_000)


@pytest.fixture(scope="module")
def bits(data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the fit whose clock goes right."""
    with job(tmp_path_factory.mktemp("straight") / "fit", data, *FIT) as straight:
        assert straight.run() == 0, straight.log.read_text()
        return digest(load(straight.model))


def jump(running: Job, clock: Clock, hours: list[int]) -> None:
    """Set the clock after each pass in turn."""
    for number, to in enumerate(hours, 1):
        running.wait_for(f"em pass {number}:")
        clock.set(3600 * to)


def check_time(running: Job) -> None:
    """The lock was not lost, and no pass took hours or less than nothing."""
    for run in range(1, running.runs + 1):
        log = (running.logs / f"{run}.log").read_text()
        assert "lost its lock" not in log
        assert "took over the lock" not in log
        seconds = [line["seconds"] for line in running.lines(run) if "seconds" in line]
        assert all(0 <= s < 600 for s in seconds), seconds


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_wall_clock_jumps_after_each_pass(
    backend: str, data: Path, bits: str, tmp_path: Path, record_property: Any
) -> None:
    clock, hours = Clock(tmp_path, compiled(tmp_path)), JUMPS[backend]
    options = [*FIT, *CHECKPOINTS, "--max-time", "1h", *BACKENDS[backend]]
    with job(tmp_path / "fit", data, *options, **clock.variables) as jumping:
        jumping.start()
        jump(jumping, clock, hours)
        # Killed, and gone on with on a day before the checkpoint was written.
        jumping.wait_for(f"em pass {len(hours) + 1}:")
        jumping.kill()
        clock.set(-3600 * 24)
        assert jumping.run() == 0, jumping.log.read_text()
        assert "resuming from" in jumping.log.read_text()
        jumping.check_whole(bits)
        check_time(jumping)
    tell(
        record_property,
        f"a wall clock that jumps, {backend}",
        f"of all processes of a fit, to {hours} hours beside the true time after a pass each; "
        "killed, and run again on the day before",
        "the fit went on, kept its lock, and was resumed",
        lost="the pass under way when it was killed",
        bits="yes",
    )


def test_a_fit_on_workers_whose_clock_goes_back_ends_when_its_time_is_up(
    data: Path, bits: str, tmp_path: Path, record_property: Any
) -> None:
    clock = Clock(tmp_path, compiled(tmp_path))
    options = [*FIT, *CHECKPOINTS, "--max-time", "30s", *BACKENDS["worker"]]
    with job(tmp_path / "fit", data, *options, **clock.variables) as jumping:
        clock.set(3600 * 48)
        jumping.start()
        jump(jumping, clock, [48, 24])
        ended, log = jumping.wait(), jumping.log.read_text()
        assert ended in (0, 75), log
        if ended:
            assert "the time limit is reached" in log
            assert jumping.run() == 0, jumping.log.read_text()
            assert "resuming from" in jumping.log.read_text()
        jumping.check_whole(bits)
        check_time(jumping)
    tell(
        record_property,
        "a wall clock that goes back by a day, worker",
        "of all processes of a fit, after a pass",
        "Dask sent nothing more, the fit ended when its --max-time was up, and was resumed"
        if ended
        else "the fit went on",
        lost="the pass under way" if ended else "-",
        bits="yes",
    )
