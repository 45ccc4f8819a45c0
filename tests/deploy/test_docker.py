"""deploy/docker: linted everywhere; built and run by buildah and podman where asked for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from containers import FILES, installed, run
from helpers import HANG
from jobs import DEPLOY, Processes

AGAIN = DEPLOY / "again"


def test_hadolint_has_nothing_to_say() -> None:
    assert run(installed("hadolint"), FILES / "Dockerfile") == ""


def test_shellcheck_has_nothing_to_say() -> None:
    scripts = [AGAIN, *DEPLOY.rglob("*.sh"), *DEPLOY.rglob("*.sbatch")]
    assert len(scripts) >= 3
    assert run(installed("shellcheck"), *scripts) == ""


def test_yamllint_has_nothing_to_say() -> None:
    rules = "{extends: default, rules: {line-length: {max: 100}, braces: {max-spaces-inside: 0}}}"
    assert run(installed("yamllint"), "--strict", "-d", rules, DEPLOY) == ""


def test_compose_keeps_workers_below_their_containers() -> None:
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((FILES / "compose.yaml").read_text())["services"]
    assert "--memory-limit 1GiB" in services["worker"]["command"]
    assert services["worker"]["mem_limit"] == "1280m"
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize(
    ("codes", "attempts", "expected"),
    [("75 75 0", 20, "0 of 3"), ("75 65", 20, "65 of 2"), ("1", 20, "1 of 1"),
     ("75 75 75", 2, "75 of 2")],
)  # fmt: skip
def test_again_runs_again_after_75_alone(
    codes: str, attempts: int, expected: str, tmp_path: Path
) -> None:
    program = (
        "n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) > n; "
        f'set -- {codes}; shift "$n"; exit "$1"'
    )
    settings = {**os.environ, "PAUSE": "0", "ATTEMPTS": str(attempts)}
    done = subprocess.run(
        [AGAIN, "sh", "-c", program], cwd=tmp_path, env=settings, capture_output=True, timeout=HANG
    )
    assert f"{done.returncode} of {(tmp_path / 'n').read_text().strip()}" == expected


@pytest.mark.parametrize("pausing", [False, True])
def test_again_ends_by_a_signal(pausing: bool, processes: Processes) -> None:
    """Which it passes on, and waits until the command has done what it must."""
    program = "trap 'echo kept; exit 75' TERM; echo ready; while :; do sleep 0.05; done"
    command = ["sh", "-c", "echo ready; exit 75" if pausing else program]
    settings = {**os.environ, "PAUSE": "60"}
    again = processes.start("again", AGAIN, *command, env=settings)
    processes.wait_for("again", "attempt 2" if pausing else "ready")
    again.terminate()
    assert again.wait(HANG) == 75
    said = processes.log("again").read_text()
    assert said.count("ready") == 1
    assert pausing or "kept" in said


@pytest.mark.deploy
def test_the_image_is_not_root_and_takes_a_read_only_root(image: str) -> None:
    alone = ["podman", "run", "--rm", "--network=host", "--read-only", "--tmpfs", "/tmp", image]
    assert run(*alone, "id", "-u").strip() == "10001"
    assert "dask-em, version" in run(*alone, "dask-em", "--version")
