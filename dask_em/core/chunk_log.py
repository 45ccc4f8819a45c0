"""The log of chunks that a first pass writes, so that later passes hold to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic

import numpy as np

from .additive import Additive, Array, S
from .codec import record
from .finite import NOWHERE


@record("bad-weights")
@dataclass(frozen=True)
class BadWeights(Additive):
    """Count the weights that are negative or not finite, and locate the first.

    Attributes
    ----------
    n : int
    first : tuple or None
        (chunk, row in the chunk, weight).

    Examples
    --------
    >>> found = BadWeights.of_chunk(3, np.array([1.0, -1.0, np.nan])) + BadWeights()
    >>> found.n, found.first
    (2, (3, 1, -1.0))
    """

    n: int = 0
    first: tuple[int, int, float] | None = None

    @classmethod
    def of_chunk(cls, chunk: int, sample_weight: Array, start: int = 0) -> BadWeights:
        """Look at the weights (n,) of one chunk, or of a part that begins with row `start`."""
        bad = ~((sample_weight >= 0) & (sample_weight < np.inf))
        if not bad.any():
            return cls()
        row = int(bad.argmax())
        return cls(int(bad.sum()), (chunk, start + row, float(sample_weight[row])))

    def __add__(self, other: BadWeights) -> BadWeights:
        both = [one for one in (self.first, other.first) if one is not None]
        return BadWeights(self.n + other.n, min(both, default=None))


@record("chunk-log", 3)
@dataclass(frozen=True)
class ChunkLog(Additive):
    """Record the fingerprint of each chunk, and what of its rows and weights cannot be used.

    Attributes
    ----------
    chunks, fingerprints : (c,) array
        Numbers of chunks, and their fingerprints: that of the rows in the lower 32 bits,
        that of stored weights in the upper.
    dropped : tuple of (int, int)
        Chunks that hold rows of NaN or infinity, and how many such rows.
    bad_weights : BadWeights
    missing : tuple of bool
        In which columns NaN is a value that is missing, for which no row is left out.

    Examples
    --------
    >>> (ChunkLog(dropped=((3, 2),)) + ChunkLog(dropped=((7, 1),))).n_dropped
    3
    """

    chunks: Array = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    fingerprints: Array = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    dropped: tuple[tuple[int, int], ...] = ()
    bad_weights: BadWeights = field(default_factory=BadWeights)
    missing: tuple[bool, ...] = NOWHERE

    def __add__(self, other: ChunkLog) -> ChunkLog:
        return ChunkLog(
            np.concatenate([self.chunks, other.chunks]),
            np.concatenate([self.fingerprints, other.fingerprints]),
            self.dropped + other.dropped,
            self.bad_weights + other.bad_weights,
            self.missing,
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
        """Return the fingerprints of all chunks of the data by number, (n_chunks,)."""
        fingerprints = np.empty_like(self.fingerprints)
        fingerprints[self.chunks] = self.fingerprints
        return fingerprints


@record("logged")
@dataclass(frozen=True)
class Logged(Additive, Generic[S]):
    """Pair the sums of a pass with the log of the chunks that it read.

    Examples
    --------
    >>> both = Logged(3, ChunkLog(dropped=((0, 1),))) + Logged(4, ChunkLog())
    >>> both.sums, both.log.n_dropped
    (7, 1)
    """

    sums: S
    log: ChunkLog
