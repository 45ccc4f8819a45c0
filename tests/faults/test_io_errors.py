"""Files whose calls fail, EIO or over quota: code 74 that names the file, nothing torn, same bytes.

python tests/faults/all.py test_io_errors.py
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from chaos import tell
from helpers import FORKED, HANG, write_zarr
from shim import compiled
from test_resume import X

pytestmark = pytest.mark.faults

FAILING = (
    FORKED
    + '''
# Let calls of an operation fail, one in each run of a command; see that nothing is torn.
import ctypes, random, shutil
from dask_em.storage.npz import read_arrays
from dask_em.storage.checkpoint import KIND
command, operation, code, most, data, disk, logs, model = sys.argv[1:]
libc = ctypes.CDLL(None)
libc.fault_failed.restype = ctypes.c_char_p
libc.fault_calls.restype = ctypes.c_long
output, log, fault = Path(disk, "out"), Path(logs, "log"), Path(logs, "fault")
WORDS = {
    "fit": ["fit", data, "-k", "2", "-o", str(output) + ".npz", "--tol", "1e-9", "--sample-size",
            "100", "--init-params", "random_from_data", "--checkpoint-interval", "0",
            "--max-iter", "3"],
    "predict": ["predict", model, data, str(output) + ".zarr"],
    "report": ["report", model, str(output) + ".html", "--data", data],
}[command]

def run(nth=0, prefix=disk):
    """The program's exit code, the calls of the operation, and the file of the one that failed."""
    fault.write_text("0 ")
    pid = os.fork()
    if not pid:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        libc.fault_arm(operation.encode(), prefix.encode(), ctypes.c_long(nth), int(code))
        ended = 1
        try:
            cli.main(WORDS)
        except SystemExit as e:
            ended = e.code or 0
        found = f"{libc.fault_calls()} {libc.fault_failed().decode()}"
        libc.fault_arm(b"none", b"none", ctypes.c_long(0), 0)
        fault.write_text(found)
        os._exit(ended)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    calls, _, failed = fault.read_text().partition(" ")
    return ended, int(calls), failed

def content(path):
    """What is there, but for what tells when it was made."""
    if path.suffix == ".npz":
        return parameters(path)
    if path.suffix == ".html":
        return len(path.read_bytes()) // 100
    return [(str(p.relative_to(path)), p.read_bytes()) for p in sorted(path.rglob("*"))
            if p.is_file() and p.name != "zarr.json"]

def made():
    return sorted(p.name for p in Path(disk).iterdir())

def tidy():
    for path in Path(disk).iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()

def straight_run(prefix):
    """The output's name, what is in it, and how many calls there are to fail."""
    ended, calls, _ = run(0, prefix)
    assert ended == 0, log.read_text()
    (name,) = made()
    found = content(Path(disk, name))
    tidy()
    return name, found, calls

def check(nth, ended, failed):
    """What a run leaves of which a call failed, and that the same command ends well after it."""
    told = log.read_text()
    where = (command, operation, nth, failed, ended)
    assert ended in (0, 74), (where, told)
    assert "Traceback" not in told, (where, told)
    stopped = resumed = False
    if ended == 74:
        stopped = True
        assert os.strerror(int(code)) in told, (where, told)
        assert any(p in told for p in (disk, data)), (where, told)
        for file in Path(disk, f".{name}.checkpoint").glob("*.npz"):
            read_arrays(file, KIND)
        whole = Path(disk, name).exists()
        ended, *_ = run()
        # What stood before the last step may be there already.
        assert ended == (73 if whole else 0), (where, told, ended, log.read_text())
        resumed = "resuming" in log.read_text()
    elif failed.endswith(".lock"):
        # A lock that could not be read stays behind, and is taken over.
        assert run()[0] == 73, (where, told, log.read_text())
    assert content(Path(disk, name)) == straight, (where, told)
    assert made() == [name], (where, made())
    return stopped, resumed

calls, ends, wrong = 0, [], []
prefixes = [data, disk] if operation == "read" else [disk]
for prefix in prefixes:
    name, straight, n = straight_run(prefix)
    calls += n
    wanted = min(n, -(-int(most) // len(prefixes)) or n)
    for nth in sorted(random.Random(n).sample(range(1, n + 1), wanted)):
        ended, _, failed = run(nth, prefix)
        if failed:
            try:
                ends.append(check(nth, ended, failed))
            except AssertionError as e:
                wrong.append(e)
        else:
            # Threads may make fewer calls than the first time.
            assert ended == 0, log.read_text()
        tidy()
print(*(str(e) for e in wrong), sep="\\n", file=sys.stderr)
print(calls, len(ends), sum(s for s, _ in ends), sum(r for _, r in ends))
sys.exit(bool(wrong))
'''
)

# Calls that are made to fail in each case, by a seeded choice; 0 for all of them.
MOST = os.environ.get("FAULTS_CALLS", "8")

KINDS = {
    "read": ("a read of data, checkpoint, lock or model fails", errno.EIO),
    "write": ("a write fails", errno.EIO),
    "fsync": ("an fsync fails", errno.EIO),
    "close": ("a close fails", errno.EIO),
    "quota": ("the quota is used up at a write", errno.EDQUOT),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dask_em import GaussianMixture

    path = tmp_path_factory.mktemp("model") / "m.npz"
    GaussianMixture(2, random_state=0, max_iter=5, tol=1e-1).fit(X[:900]).save(path)
    return path


@pytest.mark.parametrize("command", ["fit", "predict", "report"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_call_fails_in_turn(
    command: str, kind: str, library: Path, model: Path, tmp_path: Path, record_property: Any
) -> None:
    write_zarr(tmp_path / "x.zarr", X[:900], 300)
    disk = tmp_path / "disk"
    disk.mkdir()
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    what, code = KINDS[kind]
    operation = "write" if kind == "quota" else kind
    words: list[str | Path] = [
        command,
        operation,
        str(code),
        MOST,
        tmp_path / "x.zarr",
        disk,
        tmp_path,
        model,
    ]
    result = subprocess.run(
        [sys.executable, script, *words],
        capture_output=True,
        text=True,
        timeout=HANG,
        env={**os.environ, "LD_PRELOAD": str(library)},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    calls, failed, stopped, resumed = map(int, result.stdout.split())
    assert failed > 0
    tell(
        record_property,
        f"{what}: {errno.errorcode[code]}, {command}",
        f"each of {failed} of the {calls} calls on files of the job, by a library that is "
        "preloaded",
        f"{stopped} runs ended with code 74 and the file's name, the others with 0; {resumed} "
        "reruns resumed; 0 files left",
        lost="at most one pass",
        bits="yes",
    )
