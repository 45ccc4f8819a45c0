"""Who computes: backends call a fold on every chunk and add the results in a fixed tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..statistics import Foldable, Node, S

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


__all__ = ["Advance", "Backend", "Kept"]
