"""The reference backend: one range after the other, in the calling thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

from ..core.additive import S
from ..core.executor import serial_executor
from ..core.partial_sums import sum_leaves
from ..core.protocols import Advance, Backend, Executor, PartialSumsStore, Pass, Source, T
from ..core.reading import fold_range
from ..runtime import current_job
from .blas import one_blas_thread


class SerialBackend(Backend):
    """Read and sum everything in the calling thread.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em.data.memory import ArraySource
    >>> from dask_em.fitting.survey import Survey
    >>> survey = Survey(seed=0, sample_size=2, n_features=2, n_rows=3)
    >>> SerialBackend().map_reduce(ArraySource(np.eye(3, 2)), survey).n_rows
    3
    """

    def map_reduce(
        self,
        source: Source,
        pass_: Pass[S],
        advance: Advance | None = None,
        partial_sums: PartialSumsStore[S] | None = None,
    ) -> S:
        """Sum a pass over all chunks of a source; see `Backend`."""
        ranges, nbytes = source.ranges(), pass_.result_bytes

        def sums(leaves: range) -> Iterator[S]:
            """Each range's sums in turn; none is held while the next is made."""
            for chunks in ranges[leaves.start : leaves.stop]:
                current_job().check()
                beside = source.shipped_weights(chunks), source.shipped_beside(chunks)
                yield fold_range(source, pass_.fold(), chunks, *beside)
                if advance:
                    advance(source.rows_of(chunks))

        with one_blas_thread():
            return sum_leaves(sums, len(ranges), nbytes, partial_sums)

    def executor(self, shared: T, in_process: bool = False) -> AbstractContextManager[Executor[T]]:
        """Return what makes one call after the other."""
        return serial_executor(shared)
