"""The reference backend: one range after the other, in this thread."""

from __future__ import annotations

from collections.abc import Iterator

from ..core.additive import S
from ..core.protocols import Advance, Foldable, RangeSource, result_bytes
from ..core.ranges import fold_range, ranges
from ..core.reduction import add_tree, fan_in
from .blas import one_blas_thread


class SerialBackend:
    """Reads and sums everything in the calling thread."""

    def map_reduce(
        self, source: RangeSource, work: Foldable[S], advance: Advance | None = None
    ) -> S:
        """Sum of `work` over all chunks of `source`, in the tree that every backend uses."""
        with one_blas_thread():
            return add_tree(_sums(source, work, advance), fan_in(result_bytes(work)))


def _sums(source: RangeSource, work: Foldable[S], advance: Advance | None) -> Iterator[S]:
    """Each range's sums in turn; none is held while the next is made."""
    for chunks in ranges(source):
        yield fold_range(source, work.fold(), chunks, source.shipped_weights(chunks))
        if advance:
            advance(int(source.bounds[chunks.stop] - source.bounds[chunks.start]))
