"""Who may join a cluster that speaks TLS, and where a secret must never show.

python tests/faults/all.py test_security.py
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from chaos import DASK_EM, Job, job, marked, points, tell
from clusters import Cluster, cluster
from distributed import Client, Security
from helpers import HANG, blobs, digest, wait_until
from object_stores import Proxy, environment, s3_server

from dask_em import load

pytestmark = pytest.mark.faults

SCRIPT = Path(__file__).parents[2] / "deploy" / "hosts" / "make_certificates.sh"
FIT = ["-k", "3", "--max-iter", "4", "--tol", "0", "--algorithm", "em"]
LOCAL = ["--workers", "1", "--memory-limit", "1GiB"]
# How often a rogue worker must have been turned away.
REFUSALS = 20
SOON = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "6s"}


# -- TLS -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, `tls` and `other`, each with a node's and a client's certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("this machine has no openssl: apt-get install openssl")
    folder = tmp_path_factory.mktemp("certificates")
    for authority in ("tls", "other"):
        command: list[Any] = [SCRIPT, folder / authority, "node", "client"]
        subprocess.run(command, check=True, capture_output=True, timeout=HANG)
    return folder


def files(folder: Path, name: str) -> list[str]:
    """The options that give Dask, or dask-em, a certificate."""
    return [
        "--tls-ca-file", str(folder / "ca.pem"), "--tls-cert", str(folder / f"{name}.pem"),
        "--tls-key", str(folder / f"{name}-key.pem"),
    ]  # fmt: skip


@pytest.fixture
def encrypted(certificates: Path, tmp_path: Path) -> Iterator[Cluster]:
    options = files(certificates / "tls", "node")
    folder = tmp_path / "cluster"
    with cluster(folder, 1, protocol="tls", options=options, nanny=False) as there:
        yield there


def n_workers(there: Cluster, certificates: Path) -> int:
    tls = certificates / "tls"
    security = Security(
        tls_ca_file=str(tls / "ca.pem"),
        tls_client_cert=str(tls / "client.pem"),
        tls_client_key=str(tls / "client-key.pem"),
        require_encryption=True,
    )
    with Client(there.address, security=security, set_as_default=False, timeout=HANG) as client:
        return len(client.scheduler_info()["workers"])


def test_only_who_has_a_certificate_enters(
    encrypted: Cluster, certificates: Path, tmp_path: Path, record_property: Any
) -> None:
    data = points(tmp_path / "points.zarr", 100_000, k=3)
    tls, other = certificates / "tls", certificates / "other"
    with job(tmp_path / "alone", data, *FIT, *LOCAL) as alone:
        assert alone.run() == 0, alone.log.read_text()
        bits = digest(load(alone.model))

    plain = encrypted.address.replace("tls://", "tcp://")
    strangers = {
        "plain": ["--scheduler", plain],
        "without certificate": ["--scheduler", encrypted.address],
        "of another authority": ["--scheduler", encrypted.address, *files(other, "client")],
        "with a foreign key": [
            "--scheduler", encrypted.address, *files(tls, "client")[:4],
            "--tls-key", str(other / "client-key.pem"),
        ],
    }  # fmt: skip
    for name, options in strangers.items():
        with job(tmp_path / name, data, *FIT, *options, **SOON) as one:
            assert one.run() == 2, (name, one.log.read_text())
            log = one.log.read_text()
            assert "no Dask scheduler answers at" in log, (name, log)
            assert "Traceback" not in log, (name, log)
            assert not list(one.folder.iterdir()), name

    address = encrypted.address
    rogues = {
        2: (files(other, "node"), address),
        3: ([], plain),
        4: ([], address),
    }
    for i, (options, where) in rogues.items():
        encrypted.options, encrypted.address = options, where
        encrypted.start_stray(i)
    encrypted.address = address
    for i in rogues:
        # Dask's worker tries again and again, or ends where it has no certificate to show.
        wait_until(lambda i=i: encrypted.refused(i) >= REFUSALS)
        assert encrypted.registered(i) == 0
    assert n_workers(encrypted, certificates) == 1

    good = ["--scheduler", encrypted.address, "--require-tls", *files(tls, "client")]
    with job(tmp_path / "good", data, *FIT, *good) as one:
        assert one.run() == 0, one.log.read_text()
        one.check_whole(bits)
    assert not any(encrypted.registered(i) for i in rogues)
    tell(
        record_property,
        "TLS: who may enter",
        f"real certificates of two authorities; jobs: {', '.join(strangers)}; workers: of another "
        "authority, plain, without certificate",
        "each job ended with code 2 and no file; the workers were refused however often they "
        "tried; a job with the right certificate and --require-tls beside them: 0",
        bits="yes",
    )


# -- a canary --------------------------------------------------------------------------------

CANARY = "c4n4ry/w1ll+s1ng"


def forms(secret: str) -> list[bytes]:
    """How a secret may be written: as it is, in a URL, in base64 (at any offset)."""
    plain = secret.encode()
    found = [plain, quote(secret, safe="").encode(), repr(secret)[1:-1].encode()]
    for shift in range(3):
        # Without the ends, which depend on what stands beside it.
        whole = base64.b64encode(bytes(shift) + plain)
        found.append(whole[4 : len(whole) - 4])
    return sorted(set(found), key=len)


@dataclass
class Searched:
    """What was looked through for the canary."""

    files: int = 0
    n_bytes: int = 0

    def look(self, where: str, contents: bytes) -> None:
        self.files += 1
        self.n_bytes += len(contents)
        for form in forms(CANARY):
            assert form not in contents, f"{where} holds the secret: {around(contents, form)!r}"

    def folder(self, folder: Path) -> None:
        for path in sorted(folder.rglob("*")):
            self.look(str(path), str(path).encode())
            if path.is_file():
                self.look(str(path), path.read_bytes())


def around(contents: bytes, form: bytes) -> bytes:
    at = contents.index(form)
    return contents[max(0, at - 100) : at + 100]


def test_the_search_finds_what_it_looks_for() -> None:
    for text in (
        CANARY,
        quote(CANARY, safe=""),
        base64.b64encode(b"xy" + CANARY.encode()).decode(),
    ):
        with pytest.raises(AssertionError, match="holds the secret"):
            Searched().look("here", f"before {text} after".encode())


@pytest.fixture(scope="module")
def s3() -> Iterator[Proxy]:
    with s3_server("data") as endpoint, Proxy(endpoint).running() as proxy:
        yield proxy


def secrets(proxy: Proxy) -> dict[str, str]:
    """The environment of a job whose every credential is the canary."""
    return {
        **environment(proxy.url),
        "AWS_SECRET_ACCESS_KEY": CANARY,
        "AWS_SESSION_TOKEN": f"session-{CANARY}",
        "AZURE_STORAGE_ACCOUNT_KEY": CANARY,
        "GOOGLE_APPLICATION_CREDENTIALS": f"/nowhere/{CANARY}",
        "DASK_DASK_EM__STORE_TIMEOUT": "3",
    }


PUT = """
import sys, numpy as np, zarr
from dask_em.storage.url_store import open_store
X = np.load(sys.argv[2])
array = zarr.create_array(open_store(sys.argv[1], read_only=False), shape=X.shape,
                          dtype=X.dtype, chunks=(len(X) // 20, X.shape[1]))
array[:] = X
"""
# A fault of ours within a fit, as an unforeseen error would be.
BROKEN = """
import sys
from dask_em import cli
from dask_em.fitting.recorded_passes import RecordedPasses
summed = RecordedPasses.sums
def summed_and_broken(*arguments):
    summed(*arguments)
    raise RuntimeError("unforeseen")
RecordedPasses.sums = summed_and_broken
sys.exit(cli.main())
"""


def tasks_of(dask_scheduler: Any) -> list[bytes]:
    """Everything that a scheduler was given to compute, and what it knows of its workers."""
    from distributed.protocol.pickle import dumps

    found = [dumps(task.run_spec) for task in dask_scheduler.tasks.values()]
    found += [str(event).encode() for events in dask_scheduler._broker._topics.values()
              for event in events.events]  # fmt: skip
    return [*found, repr(dask_scheduler.identity()).encode()]


def command_lines(mark: str) -> bytes:
    return "\n".join(" ".join(p.cmdline()) for p in marked(mark)).encode()


def test_a_secret_shows_nowhere(s3: Proxy, tmp_path: Path, record_property: Any) -> None:
    import numpy as np

    searched, variables = Searched(), secrets(s3)
    full = {**os.environ, **variables}
    np.save(tmp_path / "x.npy", blobs(200_000, 4, 3, seed=1, apart=0.8)[0])
    url = "s3://data/points.zarr"
    put = [sys.executable, "-c", PUT, url, str(tmp_path / "x.npy")]
    subprocess.run(put, env=full, check=True, timeout=HANG)
    there = tmp_path / "cluster"
    # The scheduler finds what this file asks it.
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    with cluster(there, 2, PYTHONPATH=path, **variables) as on:
        metrics = tmp_path / "metrics.prom"
        long = ["-k", "3", "--max-iter", "40", "--tol", "0", "--algorithm", "em"]
        options = [*long, "--scheduler", on.address, "--metrics-file", metrics]
        options += ["--checkpoint-interval", "0"]
        with job(tmp_path / "fit", url, *options, **variables) as one:
            # In the middle: what is computed, what is kept, what lists of processes show.
            one.start()
            one.wait_for("em pass 2:")
            with Client(on.address, set_as_default=False, timeout=HANG) as client:
                tasks = client.run_on_scheduler(tasks_of)
                events = client.get_events()
            assert len(tasks) > 5
            assert "dask-em" in events
            for task in [*tasks, repr(events).encode()]:
                searched.look("a task", task)
            for lines in (command_lines(one.mark), command_lines(on.mark)):
                assert lines
                searched.look("a command line", lines)
            one.kill()
            assert list(one.checkpoint.glob("pass-*.npz"))
            searched.folder(one.folder)
            # A worker that is killed, and the end.
            one.start()
            one.wait_for("resuming from")
            on.signal_worker(1, 9)
            assert one.wait() == 0, one.log.read_text()
            searched.folder(one.folder)
            searched.folder(one.logs)
            searched.look("metrics", metrics.read_bytes())
            faults_of(one, s3, url, on, searched, variables, tmp_path)
            reports_of(one, url, on, searched, full, tmp_path)
    searched.folder(there)
    n = secret_urls(searched, tmp_path)
    tell(
        record_property,
        "canary secret in the environment and in URLs",
        "credentials of S3, GCS and Azure; passwords, tokens and signatures in the URLs of data, "
        f"model, weights, checkpoint, answers and scheduler ({n} commands)",
        f"0 hits, plain or encoded, in {searched.files} logs, reports, checkpoints, models, "
        f"metrics, tracebacks, tasks, events, lists of processes ({searched.n_bytes:,} bytes); "
        "such URLs are refused with code 2",
    )


def faults_of(
    one: Job, s3: Proxy, url: str, on: Cluster, searched: Searched,
    variables: dict[str, str], tmp_path: Path,
) -> None:  # fmt: skip
    """A store that fails, that refuses, and an error that nobody foresaw."""
    for kind, fault, code in (
        ("failing", lambda method, path: "500", 74),
        ("cut", lambda method, path: "cut" if "/c/" in path else None, 74),
    ):
        with job(tmp_path / kind, url, *FIT, "--scheduler", on.address, **variables) as failing:
            s3.fault = fault
            try:
                assert failing.run() == code, failing.log.read_text()
            finally:
                s3.fault = lambda method, path: None
            searched.folder(failing.folder)
            searched.folder(failing.logs)
    program = [sys.executable, "-c", BROKEN]
    options = [*FIT, "--scheduler", on.address]
    with job(tmp_path / "broken", url, *options, program=program, **variables) as broken:
        assert broken.run() == 70, broken.log.read_text()
        assert "Traceback" in broken.log.read_text()
        searched.folder(broken.folder)
        searched.folder(broken.logs)


def reports_of(
    one: Job, url: str, on: Cluster, searched: Searched, full: dict[str, str], tmp_path: Path
) -> None:
    """What else is made of a model."""
    made = tmp_path / "made"
    made.mkdir()
    model, where = str(one.model), ["--scheduler", on.address]
    for words in (
        ["inspect", model, "--json"],
        ["score", model, url, *where, "--json"],
        ["report", model, str(made / "report.html"), "--data", url, *where],
        ["predict", model, url, str(made / "answers.zarr"), *where],
        ["plan", url, "-k", "3", *where],
    ):
        done = subprocess.run(
            [*DASK_EM, *words], env=full, capture_output=True, text=True, timeout=HANG
        )
        assert done.returncode == 0, done.stderr
        searched.look(words[0], (done.stdout + done.stderr).encode())
    searched.folder(made)


def secret_urls(searched: Searched, tmp_path: Path) -> int:
    """Commands with secrets in their URLs: refused, without showing them again."""
    data = str(points(tmp_path / "small.zarr", 2000))
    model = str(tmp_path / "urls" / "m.npz")
    Path(model).parent.mkdir()
    safe = quote(CANARY, safe="")
    urls = [
        f"s3://user:{safe}@data/points.zarr",
        f"https://me:{safe}@127.0.0.1:9/points.zarr",
        f"https://127.0.0.1:9/points.zarr?sig={safe}",
        f"az://container/points.zarr?sv=1&sig={safe}",
        f"gs://data/points.zarr#token={safe}",
        f"simplecache::https://me:{safe}@127.0.0.1:9/points.zarr",
    ]
    commands: list[list[str]] = []
    for url in urls:
        commands += [
            ["fit", url, "-k", "2", "-o", model],
            ["fit", data, "-k", "2", "-o", url],
            ["fit", data, "-k", "2", "-o", model, "--weights", url],
            ["fit", data, "-k", "2", "-o", model, "--checkpoint", url],
            ["plan", url, "-k", "2"],
            ["predict", url, data, model],
            ["score", url, data],
        ]
    commands += [
        ["fit", data, "-k", "2", "-o", model, "--scheduler", f"tcp://me:{safe}@127.0.0.1:9"],
        ["fit", data, "-k", "2", "-o", model, "--scheduler", f"tcp://127.0.0.1:9?key={safe}"],
        ["fit", data, "-k", "2", "-o", model, "--scheduler", f"me:{safe}@127.0.0.1:9"],
    ]
    return run_all(commands, searched, Path(model).parent)


RUN_ALL = """
import json, sys
from click.testing import CliRunner
from dask_em.cli import main
for words in json.load(sys.stdin):
    result = CliRunner().invoke(main, words)
    print(json.dumps([result.exit_code, result.output, repr(result.exception)]), flush=True)
"""


def run_all(commands: list[list[str]], searched: Searched, folder: Path) -> int:
    """Run commands one after another, each of which is refused."""
    import json

    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL], input=json.dumps(commands), capture_output=True,
        text=True, timeout=HANG, env={**os.environ, **SOON},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(commands)
    for words, (code, output, exception) in zip(commands, results, strict=True):
        searched.look(" ".join(words), f"{output} {exception}".encode())
        assert code in (2, 65), (words, code, output)
    searched.look("errors", done.stderr.encode())
    searched.folder(folder)
    wait_until(lambda: not list(folder.iterdir()))
    return len(commands)
