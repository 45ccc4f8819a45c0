"""One writer at a time: a lock file beside what is written, `.NAME.lock`.

It says who holds it and is touched every few seconds. On one machine the system's own
lock decides, which ends with its process however that ends. Other machines may not see
that lock, so there a lock that was touched lately counts as held.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import LockedError
from .run import Run, current_run

logger = logging.getLogger("dask_em")

# How often a lock is touched, and how long one that is not touched counts as held elsewhere.
BEAT_SECONDS, STALE_SECONDS = 15.0, 180.0
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def lock_file(path: Path) -> Path:
    """The lock of `path`, beside it."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only one who writes `path` while the block runs.

    Raises
    ------
    LockedError
        Another job writes it: the message names its machine, process, and start.
    """
    path = path.absolute()
    file = lock_file(path)
    descriptor, owner = _take(path, file)
    over = threading.Event()
    beating = threading.Thread(
        target=_beat, args=(file, descriptor, owner, over, current_run()), daemon=True
    )
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        if _owner(file).get("id") == owner["id"]:
            file.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path: Path, file: Path) -> tuple[int, dict[str, Any]]:
    mine = {
        "id": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _refuse_if_held(path, file, descriptor, mine)
            # Who held the lock before may have removed it in between.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), file.stat()):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, json.dumps(mine).encode(), 0)
                    return descriptor, mine
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _refuse_if_held(path: Path, file: Path, descriptor: int, mine: dict[str, Any]) -> None:
    """Raise if another job holds the lock; say so if it was left by one that is gone."""
    known = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise _taken(path, _owner(file), "wait until it ends") from e
    except OSError as e:
        # Some network file systems know no locks.
        if e.errno not in NO_LOCKS:
            raise
        known = False
    owner = _owner(file)
    if not owner:
        return
    age = time.time() - os.fstat(descriptor).st_mtime
    here = owner.get("host") == mine["host"]
    if here and not known and _lives(int(owner.get("pid", 0))):
        raise _taken(path, owner, "wait until it ends")
    if not here and age < STALE_SECONDS:
        left = f"wait until it ends, or {STALE_SECONDS - age:.0f} s if that machine is gone"
        raise _taken(path, owner, left)
    logger.warning(
        "taking over the lock of %s from process %s on %s, which is gone",
        path,
        owner.get("pid"),
        owner.get("host"),
    )


def _taken(path: Path, owner: dict[str, Any], remedy: str) -> LockedError:
    who = "another job"
    if owner:
        who += f" (process {owner.get('pid')} on {owner.get('host')}, since {owner.get('since')})"
    return LockedError(f"{who} is writing {path}: {remedy}, or choose another name")


def _owner(file: Path) -> dict[str, Any]:
    """What a lock file says of its owner; nothing where it is empty, damaged, or not there."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _lives(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _beat(
    file: Path, descriptor: int, mine: dict[str, Any], over: threading.Event, run: Run
) -> None:
    """Touch the lock until all is over, or until another job has taken it."""
    while not over.wait(BEAT_SECONDS):
        if _owner(file).get("id") != mine["id"]:
            run.ask_to_stop(f"another job took over {file}: this one was away for too long")
            return
        with suppress(OSError):
            os.utime(descriptor)
