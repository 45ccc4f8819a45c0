"""What the first pass notes of the chunks, so that later ones hold to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, runtime_checkable

import numpy as np

from .additive import Additive, Array, S
from .codec import record
from .finite import finite_rows
from .protocols import Fold, Foldable, result_bytes


@runtime_checkable
class TakesPrints(Protocol):
    """A fold that wants to know what the chunks looked like."""

    def take_prints(self, prints: Mapping[int, int]) -> None:
        """The fingerprint of each chunk that was read for the fold."""


@record("chunk-log")
@dataclass(frozen=True)
class Notes(Additive):
    """What the first pass noted of each chunk.

    Attributes
    ----------
    chunks, prints : array
        Numbers of chunks, and their fingerprints: that of the rows in the lower 32 bits,
        that of stored weights in the upper.
    dropped : tuple of (int, int)
        Chunks that hold rows of NaN or infinity, and how many such rows.
    """

    chunks: Array = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    prints: Array = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    dropped: tuple[tuple[int, int], ...] = ()

    def __add__(self, other: Notes) -> Notes:
        return Notes(
            np.concatenate([self.chunks, other.chunks]),
            np.concatenate([self.prints, other.prints]),
            self.dropped + other.dropped,
        )

    @property
    def n_dropped(self) -> int:
        """Rows of NaN or infinity."""
        return sum(n for _, n in self.dropped)

    @property
    def dropping(self) -> frozenset[int]:
        """Chunks that hold such rows."""
        return frozenset(chunk for chunk, _ in self.dropped)

    def in_order(self) -> Array:
        """The fingerprints of all chunks by number, as they came from the whole data."""
        prints = np.empty_like(self.prints)
        prints[self.chunks] = self.prints
        return prints


@record("logged")
@dataclass(frozen=True)
class Noted(Additive, Generic[S]):
    """Sums of a pass, and the notes that it took."""

    sums: S
    notes: Notes


@dataclass(frozen=True)
class Noting(Generic[S]):
    """A pass that takes notes of the chunks besides.

    Attributes
    ----------
    work : Foldable
        The pass.
    drop : bool
        Whether `work` is spared rows that hold NaN or infinity.
    """

    work: Foldable[S]
    drop: bool = False

    def fold(self) -> NotingFold[S]:
        """The pass over one range, before its first chunk."""
        return NotingFold(self.work.fold(), self.drop)

    @property
    def result_bytes(self) -> int:
        """Bytes of what the pass sums; notes are small beside it."""
        return result_bytes(self.work)


class NotingFold(Generic[S]):
    """Hands chunks on, and notes what they look like."""

    def __init__(self, fold: Fold[S], drop: bool) -> None:
        self._fold, self._drop = fold, drop
        self._dropped: dict[int, int] = {}
        self._prints: Mapping[int, int] = {}

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows X (n, d)."""
        if self._drop:
            X, sample_weight, n_dropped = finite_rows(X, sample_weight)
            if n_dropped:
                self._dropped[index] = n_dropped
        self._fold.update(index, X, sample_weight)

    def take_prints(self, prints: Mapping[int, int]) -> None:
        """The fingerprint of each chunk that was read for the fold."""
        self._prints = prints

    def result(self) -> Noted[S]:
        """Sums and notes of the chunks given so far."""
        notes = Notes(
            np.fromiter(self._prints, dtype=np.int64),
            np.fromiter(self._prints.values(), dtype=np.uint64),
            tuple(self._dropped.items()),
        )
        return Noted(self._fold.result(), notes)
