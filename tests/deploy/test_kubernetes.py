"""deploy/kubernetes against the schemas of Kubernetes and of the dask operator."""

from __future__ import annotations

import copy
import importlib.util
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dask.utils import parse_bytes
from helpers import HANG
from jobs import DEPLOY

yaml = pytest.importorskip("yaml")
FILES = DEPLOY / "kubernetes"
CUSTOM = "kubernetes.dask.org/v1"
VERSION = "1.37.0"


def documents() -> list[dict[str, Any]]:
    paths = [path for path in sorted(FILES.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [document for path in paths for document in yaml.safe_load_all(path.read_text())]


def named(document: dict[str, Any]) -> str:
    return f"{document['kind']}-{document['metadata']['name']}"


DOCUMENTS = documents()
CORE = [d for d in DOCUMENTS if d["apiVersion"] != CUSTOM]
OPERATED = [d for d in DOCUMENTS if d["apiVersion"] == CUSTOM]


def closed(schema: Any) -> Any:
    """The schema with no room for what it does not name."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {key: closed(value) for key, value in schema.items()}
    named_ones = isinstance(schema.get("properties"), dict)
    if named_ones and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def problems(document: dict[str, Any]) -> list[str]:
    """What the operator's schema says against a document."""
    jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema")
    # Found, not imported: an import would start the operator's own machinery.
    found = importlib.util.find_spec("dask_kubernetes")
    if found is None or found.origin is None:
        pytest.skip("pip install dask-kubernetes")
    folder = Path(found.origin).parent / "operator" / "deployment" / "helm"
    name = f"{document['kind'].lower()}.yaml"
    definition = yaml.safe_load(next(folder.glob(f"*/crds/{name}")).read_text())
    schema = closed(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    for known in ("apiVersion", "kind", "metadata"):
        schema["properties"].setdefault(known, {})
    validator = jsonschema.Draft7Validator(schema)
    return [f"{e.json_path}: {e.message}" for e in validator.iter_errors(document)]


@pytest.mark.parametrize("document", OPERATED, ids=named)
def test_the_operator_takes_it(document: dict[str, Any]) -> None:
    assert problems(document) == []


@pytest.mark.parametrize("document", OPERATED, ids=named)
def test_the_operator_would_refuse_a_mistake(document: dict[str, Any]) -> None:
    wrong = copy.deepcopy(document)
    wrong["spec"]["clustr"] = wrong["spec"].pop("cluster", None)
    assert any("clustr" in problem for problem in problems(wrong))


def core(document: dict[str, Any]) -> None:
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="pip install kubernetes-validate"
    )
    kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize("document", CORE, ids=named)
def test_kubernetes_takes_it(document: dict[str, Any]) -> None:
    core(document)


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every specification of a pod in the files."""

    def walk(where: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(value, list):
            for i, item in enumerate(value):
                yield from walk(f"{where}.{i}", item)
        if isinstance(value, dict):
            if "containers" in value:
                yield where, value
            for key, item in value.items():
                yield from walk(f"{where}.{key}", item)

    for document in DOCUMENTS:
        yield from walk(named(document), document)


PODS = [pytest.param(pod, id=where) for where, pod in pods()]


@pytest.mark.parametrize("pod", PODS)
def test_kubernetes_takes_the_pod(pod: dict[str, Any]) -> None:
    """Pods within the operator's kinds too, of which its schema knows only part."""
    core({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod})


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_is_confined(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        box = container["securityContext"]
        assert box["readOnlyRootFilesystem"] is True
        assert box["allowPrivilegeEscalation"] is False
        assert box["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
        # What a read-only root needs.
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


def test_workers_stop_themselves_before_kubernetes_does() -> None:
    seen = 0
    for _, pod in pods():
        for container in pod["containers"]:
            if "--memory-limit" not in container["args"]:
                continue
            seen += 1
            own = container["args"][container["args"].index("--memory-limit") + 1]
            limit = container["resources"]["limits"]["memory"]
            assert parse_bytes(own) < parse_bytes(f"{limit}B")
    assert seen == 2


def test_a_night_is_repeated_after_75_and_while_a_lock_is_not_stale() -> None:
    (cron,) = [d for d in CORE if d["kind"] == "CronJob"]
    job = cron["spec"]["jobTemplate"]["spec"]
    failing = [r for r in job["podFailurePolicy"]["rules"] if r["action"] == "FailJob"]
    assert [sorted(r["onExitCodes"]["values"]) for r in failing] == [[2, 65, 70, 74]]
    assert job["backoffLimit"] > 0
    # So 73 says nothing of a model that is there.
    assert "--overwrite" in job["template"]["spec"]["containers"][0]["args"]


def test_a_dask_job_is_repeated_after_75_alone() -> None:
    (document,) = [d for d in OPERATED if d["kind"] == "DaskJob"]
    spec = document["spec"]["job"]["spec"]
    # The operator fails the DaskJob when its pod fails.
    assert spec["restartPolicy"] == "Never"
    assert spec["containers"][0]["args"][0] == (DEPLOY / "again").name


def test_keys_come_by_reference() -> None:
    """Every pod that reads or writes data may have them; none has a value of its own."""
    for pod in PODS:
        values: Any = pod.values
        (spec,) = values
        for container in spec["containers"]:
            assert "env" not in container
            if container["name"] != "scheduler":
                secret = {"secretRef": {"name": "store-credentials", "optional": True}}
                assert container["envFrom"] == [secret]


def test_kustomize_makes_the_same_objects(need: Callable[..., None]) -> None:
    need("kubectl")
    done = subprocess.run(
        ["kubectl", "kustomize", str(FILES)], capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    expected = [d for d in DOCUMENTS if d["kind"] != "DaskJob"]
    assert sorted(map(named, made)) == sorted(map(named, expected))
    assert {d["metadata"].get("namespace") for d in made if d["kind"] != "Namespace"} == {"dask-em"}
