"""Owners of files, and what the user of this process may do in a folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def user_name(uid: int) -> str:
    """Return the name of a user, or the number where the system knows none.

    Examples
    --------
    >>> user_name(4_000_000_000)
    'uid 4000000000'
    """
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"uid {uid}"


def owner_name(path: Path | str) -> str:
    """Return the name of the user to whom a file, a folder or a link belongs."""
    return user_name(os.lstat(path).st_uid)


def is_ours(found: os.stat_result) -> bool:
    """Return whether a file belongs to the user of this process."""
    return found.st_uid == os.geteuid()


def may_write(folder: Path | str) -> bool:
    """Return whether this process may make and remove files in a folder."""
    effective = os.access in os.supports_effective_ids
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=effective)


def may_remove(path: Path | str) -> bool:
    """Return whether this process may remove or rename what is at a path.

    In a folder with the sticky bit, as /tmp, only the owners of file and folder may, and root.
    """
    folder = Path(path).absolute().parent
    above = folder.stat()
    owners = (0, above.st_uid, os.lstat(path).st_uid)
    return may_write(folder) and (not above.st_mode & stat.S_ISVTX or os.geteuid() in owners)
