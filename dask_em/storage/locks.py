"""Admit one writer at a time, by a lock beside the output: `.NAME.lock`, a file or an object.

The lock names its holder and is renewed by a heartbeat every few seconds. On one machine the
system's own lock decides, which ends with its process however that ends. Other machines may not
see that lock, and object stores have none: there a lock with a recent heartbeat counts as held.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import stat
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from ..errors import LockedError, naming
from ..foreign import shown
from ..runtime import JobControl, current_job
from .folders import BucketFolder, unless_changed
from .outputs.files import check_folder
from .urls import describe_url, is_url, split_url
from .users import is_ours, may_remove, user_name

logger = logging.getLogger("dask_em")

# Between two heartbeats, and since the last one until a lock counts as abandoned elsewhere.
HEARTBEAT_SECONDS, STALE_SECONDS = 15.0, 120.0

# Within which a holder has written its name, whatever the machine is busy with.
NAMED_SECONDS = 5.0

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)

# Bytes of a lock that are read, and characters of a name in it that are shown.
LONGEST, LONGEST_NAME = 2**20, 80


Record = dict[str, Any]
"""The content of a lock: ID, host, process and start of its holder, and the holder's notes."""


class LockPlace(Protocol):
    """A place in which a lock can lie."""

    def take(self, mine: Record) -> Record:
        """Acquire the lock; return its content before, if a job that is gone left one.

        Raises
        ------
        LockedError
            Another job holds it.
        """

    def owner(self) -> Record:
        """Return its content; nothing where it is empty, damaged, or not there."""

    def write(self, mine: Record) -> None:
        """Replace its content, durably."""

    def heartbeat(self, mine: Record) -> bool:
        """Renew it; return False where another job has taken it."""

    def release(self, mine: Record) -> None:
        """Remove it, if it is ours."""

    def leave_to_parent(self) -> None:
        """Let go of it in the child of a fork, and leave it as it is."""


class Lock:
    """The right to write something, renewed by a heartbeat.

    Attributes
    ----------
    before : dict
        Notes of the job that held the lock before, if it was killed; else nothing.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder, "model.npz")) as lock:
    ...     lock.note(doing="pass 3")
    ...     lock.check()
    ...     lock.before
    {}
    """

    def __init__(self, path: Path | str, place: LockPlace, run: JobControl) -> None:
        self.before: Record = {}
        self._shown = describe_url(os.fspath(path))
        self._place, self._run = place, run
        self._mine: Record = {
            "id": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "user": user_name(os.geteuid()),
            "pid": os.getpid(),
            "space": _space(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        }
        self._over = threading.Event()
        self._lost = False
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._renew, name="lock", daemon=True)

    def _take(self) -> None:
        gone = self._place.take(self._mine)
        if gone:
            logger.warning(
                "taking over the lock of %s from %s, which is gone", self._shown, _holder(gone)
            )
        self.before = {k: v for k, v in gone.items() if k not in self._mine}
        self._seen = time.monotonic()
        _held_here.add(self)
        self._thread.start()

    def _leave(self) -> None:
        _held_here.discard(self)
        self._over.set()
        self._thread.join()
        if not self._lost:
            # A lock that stays behind is taken over.
            with suppress(OSError):
                self._place.release(self._mine)

    def note(self, **what: Any) -> None:
        """Add to the lock what the next holder reads if this job is killed."""
        self._check_process()
        with self._guard:
            self._mine |= what
            self._place.write(self._mine)

    def check(self) -> None:
        """Check that no other job may have begun to write.

        Raises
        ------
        LockedError
            The lock was lost.
        """
        self._check_process()
        owner = self._place.owner().get("id", self._mine["id"])
        # A machine that slept knows of no seconds.
        if self._lost or owner != self._mine["id"] or time.monotonic() - self._seen > STALE_SECONDS:
            raise LockedError(
                f"{self._shown}: this job lost its lock, because it showed no sign of life for "
                f"{STALE_SECONDS:.0f} s: run the same command again"
            )

    def leave_to_parent(self) -> None:
        """Let go of it in the child of a fork."""
        self._lost, self._guard = True, threading.Lock()
        self._place.leave_to_parent()

    def _check_process(self) -> None:
        if self._mine["pid"] != os.getpid():
            raise LockedError(
                f"{self._shown}: this process was forked from one that is writing it: write to "
                "another path here"
            )

    def _renew(self) -> None:
        """Renew the lock until it is released, or until another job has taken it."""
        while not self._over.wait(HEARTBEAT_SECONDS):
            try:
                with self._guard:
                    mine = self._place.heartbeat(self._mine)
            except OSError:
                # `check` tells when this has lasted too long.
                continue
            if not mine:
                self._lost = True
                self._run.request_stop(
                    f"another job took over the lock of {self._shown}: this one was away for too "
                    "long"
                )
                return
            self._seen = time.monotonic()


_held_here: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forked() -> None:
    """Leave all locks to the parent: with the child of a fork they would outlive it."""
    for lock in list(_held_here):
        lock.leave_to_parent()
    _held_here.clear()


os.register_at_fork(after_in_child=_forked)


def has_lock(path: Path | str) -> bool:
    """Return whether a path or URL has a lock: another job's, or what one that was killed left.

    Examples
    --------
    >>> has_lock("nowhere/model.npz")
    False
    """
    return bool(_place_of(path).owner())


def _place_of(path: Path | str) -> LockPlace:
    if isinstance(path, str) and is_url(path):
        return LockObject(path)
    return LockFile(Path(path).absolute())


@contextmanager
def locked(path: Path | str) -> Iterator[Lock]:
    """Hold the lock of a path or URL while the block runs.

    A job that has the lock already goes on with it.

    Parameters
    ----------
    path : Path, or str of a path or URL

    Raises
    ------
    LockedError
        Another job writes it: the message names its machine, process, and start.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder, "model.npz")) as lock:
    ...     lock.check()
    """
    if not (isinstance(path, str) and is_url(path)):
        path = Path(path).absolute()
    place = _place_of(path)
    run, name = current_job(), os.fspath(path)
    if name in run.locks:
        yield run.locks[name]
        return
    lock = Lock(path, place, run)
    lock._take()
    run.locks[name] = lock
    try:
        yield lock
    finally:
        del run.locks[name]
        lock._leave()


def _held(path: Path | str, owner: Mapping[str, Any], remedy: str) -> LockedError:
    who = "another job"
    if owner:
        who += f" ({_holder(owner)}, since {_said(owner, 'since')})"
    what = describe_url(os.fspath(path))
    return LockedError(f"{who} is writing {what}: {remedy}, or choose another name")


def _held_elsewhere(path: Path | str, owner: Mapping[str, Any], silent: float) -> LockedError:
    left = max(0.0, STALE_SECONDS - silent)
    return _held(path, owner, f"wait until it ends, or {left:.0f} s if that machine is gone")


def _holder(owner: Mapping[str, Any]) -> str:
    """Name the process that a lock is of, and the machine and the user where these are known."""
    user = f" of user {_said(owner, 'user')}" if "user" in owner else ""
    return f"process {_said(owner, 'pid')} on {_said(owner, 'host')}{user}"


def _said(owner: Mapping[str, Any], name: str) -> str:
    """Return what a lock, which anybody may have written, says of its holder."""
    return shown(owner.get(name), LONGEST_NAME)


def _record(data: bytes | str | None) -> Record:
    try:
        found = json.loads(data or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _space() -> str:
    """Name the namespace of process numbers: each container of a machine has its own."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def _near(owner: Mapping[str, Any], mine: Mapping[str, Any]) -> bool:
    """Return whether the process that a lock names would be seen from here."""
    return all(owner.get(name) == mine[name] for name in ("host", "space"))


def _lives(owner: Mapping[str, Any]) -> bool:
    """Return whether there is a process of the number that a lock of this namespace names."""
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


# -- on a disk -------------------------------------------------------------------------


def lock_file(path: Path) -> Path:
    """Return the path of the lock of `path`, beside it.

    Examples
    --------
    >>> lock_file(Path("model.npz")).name
    '.model.npz.lock'
    """
    return path.with_name(f".{path.name}.lock")


class LockFile:
    """A lock beside a path of this machine."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, lock_file(path)

    def take(self, mine: Record) -> Record:
        """Acquire the lock; return its content before."""
        with naming(self._file):
            return self._taken(mine)

    def _taken(self, mine: Record) -> Record:
        before: Record = {}
        while True:
            self._descriptor = self._open()
            try:
                before = self._free(mine) or before
                # Who held the lock before may have removed it in between.
                with suppress(FileNotFoundError):
                    found = os.fstat(self._descriptor)
                    if os.path.samestat(found, self._file.stat()):
                        if is_ours(found):
                            self._put(mine)
                            return before
                        # Its owner could take it away.
                        self._remove(before, found)
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)

    def _open(self) -> int:
        """Open the file, or make it; what another user holds or left may only be read."""
        # A link would let somebody else say what is written over.
        flags = os.O_NOFOLLOW | os.O_NONBLOCK
        while True:
            with suppress(FileNotFoundError):
                try:
                    return os.open(self._file, os.O_RDWR | flags)
                except PermissionError:
                    return self._open_to_read(os.O_RDONLY | flags)
            with suppress(FileExistsError):
                try:
                    # Without O_EXCL folders as /tmp would not let another user's be opened.
                    return os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o666)
                except (PermissionError, FileNotFoundError):
                    check_folder(os.fspath(self._path))
                    raise

    def _open_to_read(self, flags: int) -> int:
        try:
            return os.open(self._file, flags)
        except PermissionError as e:
            owner = user_name(os.lstat(self._file).st_uid)
            raise LockedError(
                f"{self._path}: its lock {self._file} belongs to {owner}, and cannot be read: ask "
                f"{owner} whether a job writes there, or choose another name"
            ) from e

    def _remove(self, owner: Record, found: os.stat_result) -> None:
        """Remove a lock that another user left."""
        if may_remove(self._file):
            self._file.unlink()
            return
        user = user_name(found.st_uid)
        left = f"a job of {user} that is gone"
        if owner:
            left += f" ({_holder(owner)}, since {_said(owner, 'since')})"
        raise LockedError(
            f"{self._path}: its lock {self._file} was left by {left}, and nobody but {user} and "
            f"root may remove it there: ask {user} to remove it, or choose another name"
        )

    def _free(self, mine: Record) -> Record:
        """Return what a job that is gone left in it; raise if another job holds it."""
        known = self._is_locked(mine)
        owner = self.owner()
        if known and owner.get("host") == mine["host"]:
            return owner
        if not known and _near(owner, mine):
            if _lives(owner):
                raise _held(self._path, owner, "wait until it ends")
            return owner
        silent = self._now() - os.fstat(self._descriptor).st_mtime
        if owner and silent < STALE_SECONDS:
            raise _held_elsewhere(self._path, owner, silent)
        return owner

    def _is_locked(self, mine: Record) -> bool:
        """Take the system's lock; return False where there is none, raise if a job holds it.

        Who holds it writes its name once it has it, and may end before that name is read.
        """
        end = time.monotonic() + NAMED_SECONDS
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError as e:
                owner = self.owner()
                named = bool(owner) and not (_near(owner, mine) and not _lives(owner))
                if named or time.monotonic() > end:
                    raise _held(self._path, owner if named else {}, "wait until it ends") from e
            except OSError as e:
                # Some network file systems know no locks, or none of files that are only read.
                if e.errno not in NO_LOCKS:
                    raise
                return False
            time.sleep(0.01)

    def _now(self) -> float:
        """Return the time by the file system's clock, which may be another machine's."""
        with tempfile.TemporaryFile(dir=self._file.parent) as probe:
            return os.fstat(probe.fileno()).st_mtime

    def owner(self) -> Record:
        """Return its content, nothing where it cannot be read."""
        try:
            return self._read()
        except OSError:
            return {}

    def _read(self) -> Record:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(self._file, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return {}
            return _record(file.read(LONGEST))

    def write(self, mine: Record) -> None:
        """Replace its content, on the disk."""
        with naming(self._file):
            self._put(mine)
            os.fsync(self._descriptor)

    def _put(self, mine: Record) -> None:
        # In one step, for those who are killed within it; blanks cover what was there.
        text = json.dumps(mine).encode()
        os.pwrite(self._descriptor, text.ljust(os.fstat(self._descriptor).st_size), 0)

    def heartbeat(self, mine: Record) -> bool:
        """Touch the file, if it is ours; raise where nobody can tell."""
        try:
            owner = self._read()
        except FileNotFoundError:
            return False
        if owner.get("id") != mine["id"]:
            return False
        os.utime(self._descriptor)
        return True

    def release(self, mine: Record) -> None:
        """Remove the file, and release the system's lock."""
        try:
            # What could not be read may be read now; left behind, others would wait for it.
            owner = self.owner() or self.owner()
            if owner.get("id") == mine["id"]:
                self._file.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)

    def leave_to_parent(self) -> None:
        """Close the file: the system's lock is the parent's alone."""
        os.close(self._descriptor)


# -- in an object store ----------------------------------------------------------------


class LockObject:
    """A lock beside a URL: written on the condition that nobody else has written it."""

    def __init__(self, url: str) -> None:
        self._url = url
        parent, name = split_url(url)
        self._folder, self._name = BucketFolder(parent), f".{name}.lock"
        self._clock = f".{name}.clock"
        self._heartbeats = 0
        self._version: Any = None

    def take(self, mine: Record) -> Record:
        """Acquire the lock; return its content before."""
        before: Record = {}
        version = self._put(mine, "create")
        if version is None:
            found, before = self._folder.head(self._name), self.owner()
            if found is None:
                version = self._put(mine, "create")
            else:
                gone = _near(before, mine) and not _lives(before)
                silent = self._silence(found, mine)
                if gone or silent > STALE_SECONDS:
                    version = self._put(mine, unless_changed(found))
                if version is None:
                    raise _held_elsewhere(self._url, self.owner(), silent)
        if version is None:
            raise _held(self._url, self.owner(), "wait until it ends")
        self._version = version
        return before

    def _put(self, mine: Record, mode: Any) -> Any:
        # Every heartbeat is another object, whose version tells.
        self._heartbeats += 1
        body = json.dumps({**mine, "beats": self._heartbeats})
        return self._folder.put(self._name, body.encode(), mode)

    def _silence(self, found: Any, mine: Record) -> float:
        """Return the seconds since the last heartbeat, by the store's own clock."""
        name = f"{self._clock}/{mine['id']}"
        self._folder.put(name, b"now")
        probe = self._folder.head(name)
        self._folder.remove([name])
        # Whoever has just left the lock may have removed it.
        now = found if probe is None else probe
        return float((now["last_modified"] - found["last_modified"]).total_seconds())

    def owner(self) -> Record:
        """Return its content."""
        found = _record(self._folder.read(self._name))
        found.pop("beats", None)
        return found

    def write(self, mine: Record) -> None:
        """Replace its content."""
        if not self.heartbeat(mine):
            raise _held(self._url, self.owner(), "wait until it ends")

    def heartbeat(self, mine: Record) -> bool:
        """Write the object anew, if it is ours."""
        new = self._put(mine, unless_changed(self._version))
        if new is None and self.owner().get("id") == mine["id"]:
            # An earlier heartbeat got through though the answer to it was lost.
            new = self._folder.head(self._name)
        if new is None:
            return False
        self._version = new
        return True

    def release(self, mine: Record) -> None:
        """Remove the object."""
        if self.owner().get("id") == mine["id"]:
            # With the probes of jobs that were killed while they read the store's clock.
            self._folder.remove([self._name, *self._folder.names(f"{self._clock}/")])

    def leave_to_parent(self) -> None:
        """Do nothing: the parent renews the object."""
