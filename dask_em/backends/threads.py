"""The backend of this process: some ranges at a time, one thread a core."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import Generic

from ..core.additive import S
from ..core.executor import ThreadPool, in_threads
from ..core.partial_sums import sum_leaves
from ..core.protocols import (
    Advance,
    Backend,
    Executor,
    In,
    Out,
    PartialSumsStore,
    Pass,
    Source,
    T,
    T_co,
)
from ..core.reading import fold_range
from ..machine import usable_cpus
from ..runtime import current_job
from .blas import one_blas_thread


class ThreadsBackend(Backend):
    """Read and sum in threads of this process.

    Parameters
    ----------
    n_threads : int, optional
        As many as there are usable processors, unless told.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em.data.memory import ArraySource
    >>> from dask_em.fitting.survey import Survey
    >>> survey = Survey(seed=0, sample_size=2, n_features=2, n_rows=3)
    >>> ThreadsBackend(2).map_reduce(ArraySource(np.eye(3, 2)), survey).n_rows
    3
    """

    def __init__(self, n_threads: int | None = None) -> None:
        self.n_threads = n_threads or usable_cpus()

    def map_reduce(
        self,
        source: Source,
        pass_: Pass[S],
        advance: Advance | None = None,
        partial_sums: PartialSumsStore[S] | None = None,
    ) -> S:
        """Sum a pass over all chunks of a source; see `Backend`."""
        ranges, run = source.ranges(), current_job()

        def one(chunks: range) -> S:
            beside = source.shipped_weights(chunks), source.shipped_beside(chunks)
            found = fold_range(source, pass_.fold(), chunks, *beside)
            if advance:
                advance(source.rows_of(chunks))
            return found

        with one_blas_thread(), ThreadPool(self.n_threads) as pool:

            def sums(leaves: range) -> Iterator[S]:
                """Sums of ranges in order; of those that are done, few wait for their turn."""
                waiting: deque[Future[S]] = deque()
                try:
                    for chunks in ranges[leaves.start : leaves.stop]:
                        run.check()
                        waiting.append(pool.submit(one, chunks))
                        if len(waiting) > self.n_threads:
                            yield waiting.popleft().result()
                    while waiting:
                        run.check()
                        yield waiting.popleft().result()
                finally:
                    for future in waiting:
                        future.cancel()

            return sum_leaves(sums, len(ranges), pass_.result_bytes, partial_sums)

    def executor(self, shared: T, in_process: bool = False) -> AbstractContextManager[Executor[T]]:
        """Return what makes several calls at a time."""
        return threads_executor(shared)


class ThreadsExecutor(Executor[T_co], Generic[T_co]):
    """Call functions of `shared` and one item each in threads of this process.

    Examples
    --------
    >>> ThreadsExecutor(10).map(lambda shared, item: shared * item, [1, 2, 3])
    [10, 20, 30]
    """

    def __init__(self, shared: T_co) -> None:
        self._shared = shared

    def map(
        self,
        function: Callable[[T_co, In], Out],
        items: Sequence[In],
        advance: Advance | None = None,
    ) -> list[Out]:
        """Return `function(shared, item)` of each item, in order."""
        run = current_job()

        def one(item: In) -> Out:
            run.check()
            found = function(self._shared, item)
            if advance:
                advance(1)
            return found

        with one_blas_thread():
            return in_threads(one, items)


@contextmanager
def threads_executor(shared: T) -> Iterator[Executor[T]]:
    """Make a `ThreadsExecutor`."""
    yield ThreadsExecutor(shared)
