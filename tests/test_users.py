"""Outputs and locks in folders that several users share."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import ForkedJobs, forked_jobs
from helpers import HANG
from test_outputs import WRITERS, Inputs, contents, inputs

from dask_em.storage.folders import DiskFolder
from dask_em.storage.locks import lock_file, locked

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes other users")

inputs = inputs
# Two users; the system has a name for neither of them, or for the second.
ALICE, BOB = 65533, 65534
STICKY, OPEN = 0o1777, 0o777


@pytest.fixture(scope="module")
def jobs() -> Iterator[ForkedJobs]:
    with forked_jobs() as found:
        yield found


@pytest.fixture
def shared(inputs: Inputs) -> Iterator[Path]:
    """A folder that everybody may enter, with the inputs; root's, and nobody else may write."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copy(inputs.model, folder / "in.npz")
    shutil.copytree(inputs.data, folder / "x.zarr")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def theirs(shared: Path) -> Inputs:
    """The inputs that everybody may read."""
    return Inputs(shared / "in.npz", shared / "x.zarr")


def made(shared: Path, mode: int) -> Path:
    """A folder with these rights in the shared one."""
    folder = shared / "out"
    folder.mkdir()
    folder.chmod(mode)
    return folder


def named(said: str, *parts: str) -> None:
    """Check that a message has its parts, and is no bare error of the system."""
    for part in parts:
        assert part in said, said
    assert "Errno" not in said, said
    assert "Traceback" not in said, said


@pytest.mark.parametrize("mode", [STICKY, OPEN], ids=["sticky", "open"])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=["writable", "readable", "private"])
def test_a_dead_lock_of_another_user_is_taken_over_or_explained(
    mode: int, umask: int, jobs: ForkedJobs, theirs: Inputs, shared: Path
) -> None:
    output = made(shared, mode) / "m.npz"
    dead = jobs.run("die", output, uid=ALICE, umask=umask)
    lock = lock_file(output)
    assert (dead.code, lock.stat().st_uid) == (-9, ALICE)
    ended = jobs.run("save", theirs.model, output, uid=BOB)
    if umask == 0o077:
        assert ended.code == 73, ended.said
        named(ended.said, str(lock), f"belongs to uid {ALICE}, and cannot be read", "ask uid")
    elif mode == STICKY:
        assert ended.code == 73, ended.said
        named(
            ended.said, str(lock), f"left by a job of uid {ALICE} that is gone",
            f"(process {dead.pid} on ", f"of user uid {ALICE}, since 20", "and root may remove it",
            f"ask uid {ALICE} to remove it, or choose another name",
        )  # fmt: skip
    else:
        assert ended.code == 0, ended.said
        assert f"taking over the lock of {output} from process {dead.pid} on" in ended.said
        assert output.stat().st_uid == BOB
    if ended.code:
        assert [p.name for p in output.parent.iterdir()] == [lock.name]
        # What the message says to do: who left it may go on, or remove it, and root may.
        for uid in (ALICE, 0):
            assert jobs.run("die", output, uid=ALICE, umask=umask).code == -9
            ended = jobs.run("save", theirs.model, output, "--overwrite", uid=uid)
            assert ended.code == 0, ended.said
    assert [p.name for p in output.parent.iterdir()] == ["m.npz"]


@pytest.mark.parametrize("mode", [STICKY, OPEN], ids=["sticky", "open"])
@pytest.mark.parametrize("rights", [0o666, 0o644, 0o600], ids=["writable", "readable", "private"])
def test_a_lock_that_another_user_holds_is_kept(
    mode: int, rights: int, jobs: ForkedJobs, theirs: Inputs, shared: Path
) -> None:
    output = made(shared, mode) / "m.npz"
    with locked(output):
        lock = lock_file(output)
        lock.chmod(rights)
        before = lock.read_bytes()
        ended = jobs.run("save", theirs.model, output, uid=BOB)
        assert ended.code == 73, ended.said
        if rights == 0o600:
            named(ended.said, str(lock), "belongs to root, and cannot be read")
        else:
            named(ended.said, f"process {os.getpid()} on ", "of user root, since", "is writing")
        assert lock.read_bytes() == before
        assert [p.name for p in output.parent.iterdir()] == [lock.name]


# Where the file system has no locks, and who holds one may be seen, but not signalled.
AS_BOB = """
import errno, fcntl, os, sys
from dask_em.errors import LockedError
from dask_em.storage.locks import locked

def none(*_):
    raise OSError(errno.ENOLCK, "No locks available")

fcntl.flock = none
path, uid = sys.argv[1:]
os.setgroups([])
os.setgid(int(uid))
os.setuid(int(uid))
try:
    with locked(path):
        print("taken")
except LockedError as e:
    print(e)
"""


def test_a_process_that_may_not_be_signalled_lives(shared: Path) -> None:
    output = made(shared, OPEN) / "m.npz"
    command: list[str | Path] = [sys.executable, "-c", AS_BOB, output, str(BOB)]
    with locked(output):
        result = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert f"process {os.getpid()} on " in result.stdout, result.stderr
    assert "is writing" in result.stdout


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_may_not_be_written_is_named_before_the_work(
    name: str, jobs: ForkedJobs, theirs: Inputs, shared: Path
) -> None:
    writer, where = WRITERS[name], made(shared, 0o755)
    other = made(where, OPEN)
    words = writer.command(theirs, where / writer.name)
    words = [word.replace(str(where / "beside"), str(other / "beside")) for word in words]
    if name != "save":
        words = [word.replace("x.zarr", "no.zarr").replace("in.npz", "no.npz") for word in words]
    before = contents(shared)
    ended = jobs.run(*words, uid=BOB)
    assert ended.code == 2, ended.said
    named(ended.said, f"may not write to the folder {where}, which belongs to root")
    assert contents(shared) == before


def test_a_folder_behind_a_closed_one_is_named(
    jobs: ForkedJobs, theirs: Inputs, shared: Path
) -> None:
    closed = made(shared, 0o700)
    made(closed, OPEN)
    ended = jobs.run("save", theirs.model, closed / "out" / "m.npz", uid=BOB)
    assert ended.code == 2, ended.said
    named(ended.said, "may not enter a folder above", "choose another one")


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "sweep"])
def test_what_another_user_wrote_is_not_replaced_where_that_is_not_allowed(
    name: str, jobs: ForkedJobs, theirs: Inputs, shared: Path
) -> None:
    writer, output = WRITERS[name], made(shared, STICKY) / WRITERS[name].name
    output.mkdir() if writer.folder else output.write_text("of root")
    ended = jobs.run(*writer.command(theirs, output, "--overwrite"), uid=BOB)
    assert ended.code == 73, ended.said
    named(ended.said, f"{output} belongs to root, and nobody else may replace it")
    assert [p.name for p in output.parent.iterdir()] == [output.name]


def test_unfinished_work_of_another_user_is_left_to_them(
    jobs: ForkedJobs, theirs: Inputs, shared: Path
) -> None:
    folder = made(shared, STICKY)
    (folder / ".answers.zarr.partial").mkdir()
    words = WRITERS["predict"].command(theirs, folder / "answers.zarr")
    ended = jobs.run(*words, uid=BOB)
    assert ended.code == 73, ended.said
    named(ended.said, ".answers.zarr.partial is unfinished work of root", "choose another name")
    DiskFolder(folder / ".m.npz.checkpoint").make()
    ended = jobs.run(*WRITERS["fit"].command(theirs, folder / "m.npz"), uid=BOB)
    assert ended.code == 2, ended.said
    named(ended.said, ".m.npz.checkpoint belongs to root, and", "may not write there")
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {0o755}
