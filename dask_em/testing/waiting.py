"""Waits of tests, with one limit that nothing but a hang reaches."""

from __future__ import annotations

import time
from collections.abc import Callable

# Seconds after which a wait is taken for a hang. Ten times what a slow laptop needs for the longest
# wait of the tests, so that no other load of the machine fails one.
HANG = 600.0


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll until `condition` holds.

    Raises
    ------
    AssertionError
        It did not come true within `HANG` seconds.

    Examples
    --------
    >>> wait_until(lambda: True)
    """
    deadline = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
