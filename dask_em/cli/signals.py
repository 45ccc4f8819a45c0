"""SIGTERM and SIGINT ask the job to stop; the process leaves in time whatever it does."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import StoppedError
from ..runtime import JobControl, as_job

SIGNALS = (signal.SIGINT, signal.SIGTERM)

# After so long the process leaves: whatever is kept is whole at any moment.
LEAVE_SECONDS = 8.0

# Schedulers of jobs tell a process more than once that it is to end (Slurm when it preempts: the
# controller and srun): SIGTERM again within so long is the same wish.
SAME_SECONDS = 1.0


# Handlers from before a job's, while it runs.
_before: dict[signal.Signals, Any] = {}


def _forked() -> None:
    """Undo the handlers in the child of a fork: its signals would be told to the parent's job."""
    if _before:
        signal.set_wakeup_fd(-1)
        _restore()


os.register_at_fork(after_in_child=_forked)


def _restore() -> None:
    for number, handler in _before.items():
        signal.signal(number, handler)
    _before.clear()


@contextmanager
def stopped_by_signals(farewell: str) -> Iterator[JobControl]:
    """Make a job that the first signal asks to stop; a second one ends the process at once.

    SIGTERM that comes twice within a second counts once.

    Parameters
    ----------
    farewell : str
        The last line on standard error where the process has to leave on the spot.
    """
    job = JobControl()
    if threading.current_thread() is not threading.main_thread():
        with as_job(job):
            yield job
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    # The system writes into the socket even while this thread is deep in compiled code.
    _before.update({number: signal.signal(number, lambda *_: None) for number in SIGNALS})
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    listening = threading.Thread(target=_listen, args=(receiver, job, farewell), daemon=True)
    listening.start()
    try:
        with as_job(job):
            yield job
    finally:
        signal.set_wakeup_fd(before)
        _restore()
        sender.close()
        listening.join()
        receiver.close()


def _listen(receiver: socket.socket, job: JobControl, farewell: str) -> None:
    """Ask `job` to stop at the first signal; leave at the second, or after `LEAVE_SECONDS`."""
    first, since = 0, 0.0
    while True:
        left = since + LEAVE_SECONDS - time.monotonic()
        receiver.settimeout(max(0.001, left) if first else None)
        try:
            numbers = receiver.recv(16)
        except TimeoutError:
            _leave(farewell)
        if not numbers:
            return
        for number in numbers:
            if number not in SIGNALS:
                continue
            if not first:
                job.request_stop(f"interrupted by {signal.Signals(number).name}")
                first, since = number, time.monotonic()
            elif not (first == number == signal.SIGTERM and _soon_after(since)):
                _leave(farewell)


def _soon_after(since: float) -> bool:
    return time.monotonic() - since < SAME_SECONDS


def _leave(farewell: str) -> None:
    os.write(2, f"\n{farewell}\n".encode())
    os._exit(StoppedError.exit_code)
