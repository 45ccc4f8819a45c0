"""Fingerprints and checksums of bytes that are given piece by piece."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from google_crc32c import extend
from google_crc32c import value as crc32c

from ...core.additive import Array

LANES_BYTES = 8192


class Fingerprint:
    """Compute 32 bits that tell whether bytes are still the same, given piece by piece.

    The CRC-32C of the sums of 64-bit words 8 KiB apart: any flipped bit changes one of them,
    at half the cost of a checksum of the bytes themselves. All pieces but the last are whole
    multiples of 8 KiB.
    """

    def __init__(self) -> None:
        self._sums = np.zeros(LANES_BYTES // 8, dtype=np.uint64)
        self._rest = np.empty(0, dtype=np.uint8)

    def update(self, piece: Array) -> None:
        """Take the next bytes, (n,) uint8."""
        whole = len(piece) // LANES_BYTES * LANES_BYTES
        words = piece[:whole].view(np.uint64).reshape(-1, LANES_BYTES // 8)
        # `words.sum(axis=0)` takes microseconds longer, which counts in pieces of a file.
        self._sums += np.add.reduce(words, axis=0)
        self._rest = piece[whole:]

    @property
    def value(self) -> int:
        """Fingerprint of all pieces so far."""
        return int(crc32c(np.concatenate([self._sums.view(np.uint8), self._rest])))


def fingerprint(numbers: Array) -> int:
    """Return the `Fingerprint` of contiguous numbers.

    Examples
    --------
    >>> fingerprint(np.arange(5)) == fingerprint(np.arange(5)[::-1].copy())
    False
    """
    found = Fingerprint()
    found.update(numbers.reshape(-1).view(np.uint8))
    return found.value


class Checksum:
    """Compute the CRC-32C of bytes given piece by piece."""

    def __init__(self) -> None:
        self.value = 0

    def update(self, piece: Array) -> None:
        """Take the next bytes, (n,) uint8."""
        self.value = int(extend(self.value, piece))


def combined(fingerprints: Iterable[int]) -> int:
    """Return one fingerprint of several, in their order."""
    return int(crc32c(np.fromiter(fingerprints, dtype="<u4").tobytes()))
