"""Who computes: backends call a fold on every chunk and add the results in a fixed tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from .additive import Array, S, S_co
from .reduction import Node


class Fold(Protocol[S_co]):
    """Sums something over the chunks of one range: made, fed chunk by chunk, read once."""

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows `X` (n, d) and weights (n,)."""

    def result(self) -> S_co:
        """Sums over all chunks given so far."""


class Foldable(Protocol[S_co]):
    """The description of a pass: picklable, and the same for every range.

    One whose sums take megabytes says so in an attribute `result_bytes`, see
    `result_bytes`.
    """

    def fold(self) -> Fold[S_co]:
        """A fold of this pass that has seen no chunk yet."""


def result_bytes(work: Foldable[Any]) -> int:
    """Bytes of the sums of a pass over any number of chunks, at most, known before the pass.

    The attribute of that name, zero where the description has none: what is not
    said is taken to be small.
    """
    return int(getattr(work, "result_bytes", 0))


class Source(Protocol):
    """Rows in numbered chunks."""

    @property
    def n_rows(self) -> int | None:
        """Rows, None where nobody knows before reading them."""

    @property
    def n_features(self) -> int:
        """Columns."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""

    @property
    def n_chunks(self) -> int:
        """How many chunks there are."""

    @property
    def nbytes(self) -> int:
        """Decoded bytes of one pass, 0 where unknown."""

    @property
    def in_process(self) -> bool:
        """Whether the rows lie in this process's memory, so that others cannot read them."""

    @property
    def description(self) -> str:
        """What a person would call it; never a credential."""


class RangeSource(Source, Protocol):
    """A source that any worker can read by itself."""

    @property
    def bounds(self) -> Array:
        """First row of each chunk, and the number of rows, (n_chunks + 1,)."""

    def reader(self) -> Callable[[int], tuple[Array, Array | None]]:
        """A function from a chunk's number to its rows (n, d) and weights (n,).

        What it returns stays as it is until the function was called twice more, or closed
        where it can be: it may read into two buffers in turn, which the next one takes over.
        """

    def shipped_weights(self, chunks: range) -> Array | None:
        """Weights of these chunks that the reader cannot read and must be given."""

    @property
    def read_ahead(self) -> int:
        """Chunks that are read at once while one is summed."""

    @property
    def dropping(self) -> frozenset[int]:
        """Chunks whose rows of NaN or infinity are left out."""

    @property
    def n_dropped(self) -> int:
        """Rows that are left out, as a first pass counted them."""


Advance = Callable[[int], None]
"""Called with the number of rows whenever another part of a pass is done."""


class Backend(Protocol):
    """Makes one pass over a source."""

    def map_reduce(self, source: Any, work: Foldable[S], advance: Advance | None = None) -> S:
        """Sum of `work` over all chunks of `source`, in a tree fixed by the source alone."""


class Kept(Protocol):
    """Remembers sums of an unfinished pass beyond the life of this process."""

    def recall(self) -> Mapping[Node, Any]:
        """Sums of whole nodes that an earlier process kept of this pass."""

    def due(self) -> bool:
        """Whether it is time to keep again."""

    def keep(self, sums: Mapping[Node, Any]) -> None:
        """Keep these, which are all that is known, in place of those kept before."""
