"""One thing that was looked at, and its verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import DaskEMError, ExitCode


class SafetyWarning(UserWarning):
    """Raised by a check where a job would run, but go without something that protects it."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    name : str
    text : str
        What was found; where that is not right, what to do.
    exit_code : int
        0 where a job would run, else that of a job that fails for it.
    warning : bool
        Whether a job would run, and somebody should know what it goes without.
    """

    name: str
    text: str
    exit_code: int = 0
    warning: bool = False

    @property
    def ok(self) -> bool:
        """Whether a job would run."""
        return self.exit_code == 0

    @property
    def verdict(self) -> str:
        """One word for people: ok, WARN or WRONG."""
        if not self.ok:
            return "WRONG"
        return "WARN" if self.warning else "ok"

    def as_dict(self) -> dict[str, Any]:
        """Return the check as JSON holds it, with its `ok`."""
        return {**asdict(self), "ok": self.ok}


def attempt(name: str, look: Callable[..., str], *args: Any) -> Check:
    """Call a check; return its text, or the error or warning that it raises, as a `Check`.

    Examples
    --------
    >>> attempt("store", lambda: "points.zarr: 10 x 2").verdict
    'ok'
    """
    try:
        return Check(name, look(*args))
    except SafetyWarning as e:
        return Check(name, str(e), warning=True)
    except DaskEMError as e:
        return Check(name, str(e), e.exit_code)
    except OSError as e:
        return Check(name, f"{type(e).__name__}: {e}", ExitCode.DISK_FAILED)
