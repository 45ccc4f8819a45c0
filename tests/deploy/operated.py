"""The DaskJob of deploy/kubernetes as the operator makes it, played by podman."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from containers import run
from helpers import HANG, wait_until
from jobs import DEPLOY

NAME, NAMESPACE = "fit", "dask-em"
ADDRESS = f"{NAME}-scheduler.{NAMESPACE}.svc.cluster.local"
# In a process of its own: an import starts the operator's machinery.
BUILD = """
import json, sys
from dask_kubernetes.operator.controller.controller import (
    build_cluster_spec, build_job_pod_spec, build_scheduler_deployment_spec,
    build_worker_deployment_spec,
)
name, namespace = sys.argv[1:]
spec = json.load(sys.stdin)["spec"]
cluster = spec["cluster"]["spec"]
made = build_cluster_spec(name, cluster["worker"], cluster["scheduler"], {}, {})["spec"]
pods = [build_scheduler_deployment_spec(name, made["scheduler"]["spec"], {}, {})]
for i in range(2):
    worker = made["worker"]["spec"]
    pods.append(build_worker_deployment_spec(
        f"{name}-default", namespace, name, str(i), worker, {}, {}))
pods.append(build_job_pod_spec(name, name, namespace, spec["job"]["spec"], {}, {}))
json.dump(pods, sys.stdout)
"""


def pods_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What the operator's own builders make of a DaskJob: scheduler, two workers, the job."""
    pytest.importorskip("kopf", reason="pip install dask-kubernetes")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, NAME, NAMESPACE],
        input=json.dumps(document), capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made: list[dict[str, Any]] = json.loads(done.stdout)
    return made


def fitted_to_podman(pod: dict[str, Any], image: str, folders: dict[str, str]) -> dict[str, Any]:
    """The pod with what only a real cluster has replaced: registry, claims, names, probes."""
    spec = pod["spec"]["template"]["spec"] if pod["kind"] == "Deployment" else pod["spec"]
    spec["hostNetwork"] = True
    for container in spec["containers"]:
        container["image"], container["imagePullPolicy"] = image, "Never"
        for name in ("readinessProbe", "livenessProbe", "ports"):
            container.pop(name, None)
        for variable in container.get("env", []):
            variable["value"] = variable["value"].replace(ADDRESS, "127.0.0.1")
            # Kubernetes puts variables into arguments, podman 4 does not.
            named = f"$({variable['name']})"
            container["args"] = [a.replace(named, variable["value"]) for a in container["args"]]
    for volume in spec["volumes"]:
        if claim := volume.pop("persistentVolumeClaim", None):
            volume["hostPath"] = {"path": folders[claim["claimName"]], "type": "Directory"}
    return pod


def play(image: str, data: str, models: str, k: int, folder: Path) -> None:
    """Run the DaskJob with K=`k`; `fit.npz` is in `models` when its job has ended well."""
    yaml = pytest.importorskip("yaml")
    text = (DEPLOY / "kubernetes" / "job.yaml").read_text().replace('- "8"', f'- "{k}"')
    (document,) = yaml.safe_load_all(text)
    file = folder / "pods.yaml"
    folders = {"data": data, "models": models}
    pods = [fitted_to_podman(pod, image, folders) for pod in pods_of(document)]
    file.write_text(yaml.safe_dump_all(pods))
    container = f"{NAME}-runner-job"
    try:
        run("podman", "play", "kube", "--network", "host", file)
        about = ["podman", "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}"]
        wait_until(lambda: run(*about, container).startswith("exited"))
        assert run(*about, container).strip() == "exited 0", logs(container)
    finally:
        run("podman", "play", "kube", "--down", file)


def logs(container: str) -> str:
    """All that a container printed."""
    done = subprocess.run(
        ["podman", "logs", container], capture_output=True, text=True, timeout=HANG
    )
    return done.stdout + done.stderr
