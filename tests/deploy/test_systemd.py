"""deploy/systemd: the units by systemd's own eyes, and their commands run for real."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dask.utils import parse_bytes
from helpers import HANG
from jobs import DEPLOY, Job, Processes
from real_slurm import free_ports

FILES = DEPLOY / "systemd"
UNITS = sorted(path.name for path in FILES.iterdir() if path.suffix in (".service", ".timer"))
SERVICES = [name for name in UNITS if name.endswith(".service")]
PREFIX = Path(sys.executable).parents[1]


@pytest.fixture
def installed(tmp_path: Path, need: Callable[..., None]) -> Path:
    """The units, with the programs of this environment."""
    need("systemd-analyze")
    for name in UNITS:
        text = (FILES / name).read_text().replace("/opt/dask-em", str(PREFIX))
        (tmp_path / name).write_text(text)
    return tmp_path


def analyze(*arguments: object) -> tuple[int, str]:
    done = subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=HANG
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", UNITS)
def test_systemd_has_nothing_to_say_about_a_unit(installed: Path, name: str) -> None:
    assert analyze("verify", "--man=no", installed / name) == (0, "")


def test_systemd_would_name_a_mistake(installed: Path) -> None:
    unit = installed / "dask-em@.service"
    unit.write_text(unit.read_text().replace("RestartSec=", "RestartSecs="))
    assert "RestartSecs" in analyze("verify", "--man=no", unit)[1]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_not_exposed(installed: Path, name: str) -> None:
    """systemd's score, from 0 (closed) to 10 (open), here in tenths."""
    code, said = analyze("security", "--offline=true", "--threshold=30", installed / name)
    assert code == 0, said


def test_the_timer_means_every_night() -> None:
    when = re.search(r"OnCalendar=(.*)", (FILES / "dask-em@.timer").read_text())
    assert when
    code, said = analyze("calendar", "--iterations=2", when[1])
    assert code == 0, said
    assert len(re.findall(r"02:00:00", said)) >= 2


def test_a_job_is_repeated_after_75_alone() -> None:
    text = (FILES / "dask-em@.service").read_text()
    assert "\nRestartForceExitStatus=75\n" in text
    assert "\nRestart=" not in text


@pytest.mark.parametrize("name", ["dask-em-scheduler.service", "dask-em-worker@.service"])
def test_scheduler_and_workers_come_back_whatever_they_end_with(name: str) -> None:
    text = (FILES / name).read_text()
    assert "\nRestart=always\n" in text
    assert "\nStartLimitIntervalSec=0\n" in text


def test_a_worker_stops_itself_before_systemd_does() -> None:
    own = environment_file(FILES / "dask-em.env")["MEMORY"]
    limit = re.search(r"^MemoryMax=(.*)$", (FILES / "dask-em-worker@.service").read_text(), re.M)
    assert limit
    assert parse_bytes(own) < parse_bytes(f"{limit[1]}iB")


def environment_file(path: Path) -> dict[str, str]:
    """NAME=VALUE lines as systemd reads them; words in a value are split later."""
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split("=", 1) for line in lines)


def command(unit: str, variables: dict[str, str]) -> list[str]:
    """The words of ExecStart as systemd makes them: $X is split into words, ${X} is one."""
    line = re.search(r"^ExecStart=(.*)$", (FILES / unit).read_text(), re.MULTILINE)
    assert line
    text = line[1].replace("/opt/dask-em", str(PREFIX)).replace("%H", "host").replace("%i", "1")
    words: list[str] = []
    for word in text.split():
        if name := re.fullmatch(r"\$(\w+)", word):
            words += shlex.split(variables[name[1]])
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda m: variables[m[1]], word))
    return words


@pytest.mark.deploy
def test_the_commands_of_the_units_give_the_bits(
    tmp_path: Path, job: Job, processes: Processes, need: Callable[..., None]
) -> None:
    need("openssl")
    maker = DEPLOY / "hosts" / "make_certificates.sh"
    subprocess.run([maker, tmp_path / "tls", "node"], check=True, timeout=HANG)
    address = f"tls://127.0.0.1:{free_ports(1)[0]}"
    variables = environment_file(FILES / "dask-em.env")
    variables = {k: v.replace("/etc/dask-em", str(tmp_path)) for k, v in variables.items()}
    variables |= {"SCHEDULER": address, "LISTEN": address, "MEMORY": "1GiB"}
    variables["ARGUMENTS"] = shlex.join(job.fit(tmp_path / "m.npz"))
    options = {"cwd": tmp_path, "env": {**os.environ, **variables}}

    def start(unit: str, name: str) -> subprocess.Popen[bytes]:
        return processes.start(name, *command(unit, variables), **options)

    start("dask-em-scheduler.service", "scheduler")
    processes.wait_for("scheduler", "Scheduler at:")
    worker = start("dask-em-worker@.service", "worker")
    processes.wait_for("worker", "Registered to:")
    fit = start("dask-em@.service", "fit")
    assert fit.wait(HANG) == 0, processes.log("fit").read_text()
    job.check(tmp_path / "m.npz")
    # Why the units say Restart=always.
    processes.started[0][0].terminate()
    assert worker.wait(HANG) == 0
