"""Calls of pure functions on the workers of a Dask cluster."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ...core.executor import In, Out, in_threads
from ...core.protocols import Advance
from ...runtime import current_job
from ..blas import one_blas_thread
from .client import (
    RETRIES,
    Key,
    advance_by,
    as_it_is,
    client_in_force,
    large_parameters_allowed,
    result_of,
    sent_bytes,
    until_done,
)

# Bytes up to which what calls want is sent to the workers, which have chunks to hold.
MOST_SENT = 2**25


@contextmanager
def together(shared: Any, in_process: bool = False) -> Iterator[Calls]:
    """Calls of pure functions of `shared` and one argument each, several at a time.

    By the workers, each of which is sent `shared` once; by threads of this process where
    there are none, where they are not to be used, or where it is too large to be sent.
    """
    client = None if in_process else client_in_force()
    calls = Calls(client if client and sent_bytes(shared) <= MOST_SENT else None, shared)
    try:
        yield calls
    finally:
        calls.close()


class Calls:
    """Calls of pure functions of `shared` and of one argument each; see `together`."""

    def __init__(self, client: Any, shared: Any) -> None:
        self._client, self._shared, self._held = client, shared, None

    def __call__(
        self,
        function: Callable[[Any, In], Out],
        arguments: Sequence[In],
        advance: Advance | None = None,
    ) -> list[Out]:
        """The results in their order; `advance` is told how many more calls are done.

        Raises
        ------
        StoppedError
            The job was asked to stop, or the cluster failed for good.
        """
        size = 0 if self._client is None else sent_bytes(arguments)
        if self._client is None or size > MOST_SENT:
            return self._by_threads(function, arguments, advance)
        return until_done(
            self._client, advance, "sample",
            lambda told: self._by_workers(function, arguments, size, told),
        )  # fmt: skip

    def close(self) -> None:
        """Let the workers forget what was shared."""
        if self._held is not None:
            self._held.release()
            self._held = None

    def _by_threads(
        self, function: Callable[[Any, In], Out], arguments: Sequence[In], advance: Advance | None
    ) -> list[Out]:
        run = current_job()

        def one(argument: In) -> Out:
            run.check()
            found = function(self._shared, argument)
            if advance:
                advance(1)
            return found

        with one_blas_thread():
            return in_threads(one, arguments)

    def _by_workers(
        self,
        function: Callable[[Any, In], Out],
        arguments: Sequence[In],
        size: int,
        advance: Advance | None,
    ) -> list[Out]:
        client, name = self._client, uuid.uuid4().hex
        if self._held is None or self._held.status != "finished":
            key: Key = (f"em-shared-{name}", 0)
            with large_parameters_allowed(sent_bytes(self._shared)):
                self._held = client.get({key: (as_it_is, self._shared)}, key, sync=False)
        called = partial(_called, function)
        with large_parameters_allowed(size):
            futures = client.map(
                called,
                arguments,
                key=[(f"em-call-{name}", j) for j in range(len(arguments))],
                shared=self._held,
                retries=RETRIES,
            )
        try:
            for future in futures:
                future.add_done_callback(advance_by(1, advance))
            return [result_of(future) for future in futures]
        finally:
            for future in futures:
                future.release()


def _called(function: Callable[[Any, In], Out], argument: In, shared: Any) -> Out:
    with one_blas_thread():
        return function(shared, argument)
