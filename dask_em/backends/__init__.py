"""Who computes: backends call a fold on every chunk and add the results in a fixed tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..statistics import Foldable, S

Advance = Callable[[int], None]
"""Called with the number of rows whenever another part of a pass is done."""


class Backend(Protocol):
    """Makes one pass over a source."""

    def map_reduce(self, source: Any, work: Foldable[S], advance: Advance | None = None) -> S:
        """Sum of `work` over all chunks of `source`, in a tree fixed by the source alone."""


__all__ = ["Advance", "Backend"]
