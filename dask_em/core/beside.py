"""Numbers that stand beside rows: what is known beforehand of their components, and their noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .additive import Array

LABELS, NOISE = "labels_init", "noise_covariance"
"""Names of what may stand beside rows, as `fit` has them."""


class Where(Protocol):
    """Say which row of the data is number `row` of an array, for a message."""

    def __call__(self, row: int) -> str:
        """Return the words."""


class FieldReader(Protocol):
    """Read what stands beside rows, for one range."""

    def read(self, chunk: int, start: int, stop: int) -> Array:
        """Return that of the rows of a chunk, `start` to `stop - 1`, rows first."""


class RowField(Protocol):
    """Numbers that stand beside all rows; picklable."""

    def open(self) -> FieldReader:
        """Open it for one range."""

    def of_rows(self, start: int, stop: int) -> RowField:
        """Return what a reader of these rows elsewhere must be given: all, or a part in memory."""

    def identity(self) -> str:
        """Return what tells it from others."""

    @property
    def width(self) -> int:
        """Numbers that are read of a row."""

    @property
    def row_bytes(self) -> int:
        """Bytes that a row takes while it is read."""

    @property
    def shipped_bytes(self) -> int:
        """Bytes in this process's memory that readers elsewhere are given; 0 where they read."""
        return 0


@dataclass(frozen=True)
class Beside:
    """Hold what stands beside rows.

    Attributes
    ----------
    labels : RowField or None
        Labels (n,) or responsibilities (n, k), see `core.labels`.
    noise : RowField or None
        Covariances of the rows' noise, see `core.noise`. They are joined to the rows, behind
        their columns, wherever rows are read; so are, in a test of drift, which knows of no noise,
        the periods that rows fall into.

    Examples
    --------
    >>> bool(NOTHING), NOTHING.width, NOTHING.identity()
    (False, 0, {})
    """

    labels: RowField | None = None
    noise: RowField | None = None

    def __bool__(self) -> bool:
        return bool(self._fields)

    @property
    def _fields(self) -> dict[str, RowField]:
        both = {"labels": self.labels, "noise": self.noise}
        return {name: field for name, field in both.items() if field is not None}

    @property
    def width(self) -> int:
        """Columns that stand behind those of the rows."""
        return 0 if self.noise is None else self.noise.width

    def of_rows(self, start: int, stop: int) -> Beside:
        """Return what a reader of these rows elsewhere must be given."""
        return Beside(**{name: field.of_rows(start, stop) for name, field in self._fields.items()})

    def identity(self) -> dict[str, object]:
        """Return what tells it from others, for JSON."""
        found: dict[str, object] = {n: field.identity() for n, field in self._fields.items()}
        return found | ({"columns_beside": self.width} if self.width else {})

    def row_bytes(self, row: int) -> int:
        """Return the bytes that a row of so many takes more, while it is read."""
        joined = 0 if self.noise is None else row + 8 * self.width
        return sum(field.row_bytes for field in self._fields.values()) + joined

    @property
    def shipped_bytes(self) -> int:
        """Bytes in this process's memory that readers elsewhere are given."""
        return sum(field.shipped_bytes for field in self._fields.values())


NOTHING = Beside()


def joined(X: Array, noise: Array) -> Array:
    """Return rows (n, d) with their noise (n, s) behind, (n, d + s).

    Examples
    --------
    >>> joined(np.array([[1, 2]]), np.array([[0.5, 0.5]])).tolist()
    [[1.0, 2.0, 0.5, 0.5]]
    """
    return np.concatenate([X, noise], axis=1)
