"""The parent's side of the conversation with one child."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent.parent


class ChildError(Exception):
    """A child did not answer, or answered with an error, in one line."""


class Child:
    """A peer in a process of its own, which lives until it is stopped or fails.

    Parameters
    ----------
    python : Path
        The interpreter of the peer's environment.
    arguments : list of str
        The module below `peers` and what it is to be told.
    limit : float
        Seconds that an answer may take; a child that is later is killed.
    tree : Path, optional
        Where packages are looked for first: that of another version of ours.
    """

    def __init__(
        self, python: Path, arguments: list[str], limit: float, tree: Path | None = None
    ) -> None:
        self._limit = limit
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        module, *rest = arguments
        self._process = subprocess.Popen(
            [python, "-m", f"peers.{module}", *rest],
            cwd=BENCHMARKS,
            env=os.environ | ({"PYTHONPATH": str(tree)} if tree else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # a peer's own children (Spark's) end with it
        )
        try:
            self.versions: str = self._answer()["ready"]
        except ChildError:
            self.stop()
            raise

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, **question: Any) -> dict[str, Any]:
        """Put a question and wait for its answer."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it is dead: the answer says why
            print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._answer()

    def stop(self) -> None:
        """End the process and its children."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # a question that a dead child did not take
                pipe.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        late = threading.Event()

        def too_late() -> None:
            late.set()
            self._kill()

        timer = threading.Timer(self._limit, too_late)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if late.is_set():
            raise ChildError(f"no answer in {self._limit:g} s")
        if not line:
            raise ChildError(f"ended with code {self._process.wait()}: {self._last_error()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ChildError(" ".join(str(answer["error"]).split())[:200])
        return answer

    def _kill(self) -> None:
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return lines[-1][:200] if lines else "it said nothing"
