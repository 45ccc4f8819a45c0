"""The reference backend: one range after the other, in this thread."""

from __future__ import annotations

from ..sources import RangeSource, fold_range, ranges
from ..statistics import Foldable, S, add_tree
from . import Advance
from .blas import one_blas_thread


class SerialBackend:
    """Reads and sums everything in the calling thread."""

    def map_reduce(
        self, source: RangeSource, work: Foldable[S], advance: Advance | None = None
    ) -> S:
        """Sum of `work` over all chunks of `source`, in the tree that every backend uses."""
        parts = []
        with one_blas_thread():
            for chunks in ranges(source):
                weights = source.shipped_weights(chunks)
                parts.append(fold_range(source, work.fold(), chunks, weights))
                if advance:
                    advance(int(source.bounds[chunks.stop] - source.bounds[chunks.start]))
            return add_tree(parts)
