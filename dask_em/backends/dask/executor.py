"""Calls of pure functions on the workers of a Dask cluster."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic

from ...core.protocols import Advance, Executor, In, Out, T, T_co
from ...core.tuning import Tuning, tuning, use_tuning
from ..blas import one_blas_thread
from ..threads import ThreadsExecutor
from .client import (
    RETRIES,
    Key,
    advance_by,
    as_it_is,
    large_parameters_allowed,
    result_of,
    sent_bytes,
    until_done,
)
from .config import software_of_fits
from .failure import on_worker, value_of
from .scheduler import client_in_force


@contextmanager
def dask_executor(shared: T, in_process: bool = False) -> Iterator[Executor[T]]:
    """Make an executor of `shared`: the workers of a cluster, each of which is sent it once.

    Threads of this process where there are no workers, where they are not to be used, or where
    `shared` is too large to be sent.
    """
    client = None if in_process else client_in_force()
    if client is None or sent_bytes(shared) > tuning().calls.most_sent:
        yield ThreadsExecutor(shared)
        return
    executor = DaskExecutor(client, shared)
    try:
        yield executor
    finally:
        executor.close()


class DaskExecutor(Executor[T_co], Generic[T_co]):
    """Call functions of `shared` and one item each on the workers; see `dask_executor`."""

    def __init__(self, client: Any, shared: T_co) -> None:
        self._client, self._shared, self._held = client, shared, None

    def map(
        self,
        function: Callable[[T_co, In], Out],
        items: Sequence[In],
        advance: Advance | None = None,
    ) -> list[Out]:
        """Return `function(shared, item)` of each item, in order."""
        size = sent_bytes(items)
        if size > tuning().calls.most_sent:
            return ThreadsExecutor(self._shared).map(function, items, advance)
        return until_done(
            self._client, advance, "sample",
            lambda told: self._by_workers(function, items, size, told),
        )  # fmt: skip

    def close(self) -> None:
        """Let the workers forget what was shared."""
        if self._held is not None:
            self._held.release()
            self._held = None

    def _by_workers(
        self,
        function: Callable[[T_co, In], Out],
        items: Sequence[In],
        size: int,
        advance: Advance | None,
    ) -> list[Out]:
        client, name = self._client, uuid.uuid4().hex
        if self._held is None or self._held.status != "finished":
            key: Key = (f"em-shared-{name}", 0)
            with large_parameters_allowed(sent_bytes(self._shared)):
                shared = (self._shared, tuning())
                self._held = client.get({key: (as_it_is, shared)}, key, sync=False)
        called = partial(_called, software_of_fits(), function)
        with large_parameters_allowed(size):
            futures = client.map(
                called,
                items,
                key=[(f"em-call-{name}", j) for j in range(len(items))],
                shared=self._held,
                retries=RETRIES,
            )
        try:
            for future in futures:
                future.add_done_callback(advance_by(1, advance))
            return [value_of(result_of(future)) for future in futures]
        finally:
            for future in futures:
                future.release()


@on_worker
def _called(function: Callable[[T, In], Out], item: In, shared: tuple[T, Tuning]) -> Out:
    value, tuned = shared
    with one_blas_thread(), use_tuning(tuned):
        return function(value, item)
